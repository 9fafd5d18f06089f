"""Opening a data set: find or download it, list its images, measure them, and set aside what cannot be used.

The table of problems has the columns ``file``; ``problem``; ``action``, what was done about it, "left out" if that line
or file is not used; and ``image_id`` of the image concerned.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data import audit, duplicates, pixels, preprocess, split
from helpers.data.catalog import DataSet, get_data_set
from helpers.data.layouts.class_folders import index_class_folders
from helpers.data.layouts.cnmc import index_cnmc
from helpers.data.layouts.common import LEFT_OUT, PROBLEM_COLUMNS
from helpers.data.layouts.ham10000 import index_ham10000
from helpers.data.layouts.mnist_archive import index_mnist_archive
from helpers.files import InputError, replace_atomically
from helpers.settings import Settings

__all__ = ["LEFT_OUT", "PROBLEM_COLUMNS", "OpenDataSet", "Source", "find_data", "index_images", "open_data_set"]

_INDEXERS = {
    "mnist_archive": index_mnist_archive,
    "ham10000": index_ham10000,
    "class_folders": index_class_folders,
    "cnmc": index_cnmc,
}
_THUMBNAIL = (32, 32, 1)  # what is compared to find images that look alike


@dataclass(frozen=True)
class Source:
    """Where the images come from: ``kind``, "local", "download" or "sample"; their ``folder``; a ``note`` to show."""

    kind: str
    folder: Path
    note: str

    @property
    def is_sample(self) -> bool:
        """Whether the images are the built-in sample, good for trying and testing only."""
        return self.kind == "sample"


@dataclass(repr=False)
class OpenDataSet:
    """An opened data set; in a notebook it shows what it is.

    Attributes
    ----------
    found : the images that can be used, one row per image: the columns of `index_images` and `measure_images`
    images : those of them that are worked with, numbered from 0; `split_images` adds the column ``split``
    problems : what could not be used and what looks wrong, see the module's description
    contradictory : the rows that were left out because images of their group carry another label
    alike : near-duplicates, where the record asks for them: ``first`` and ``second``, the image_ids of a pair; ``bits``
        and ``correlation``, from `find_near_duplicates`; ``identical``, whether the files are the same; ``named``,
        whether the names of the files put both into one group
    """

    record: DataSet  # what is known of it beforehand
    source: Source
    settings: Settings
    found: pd.DataFrame
    images: pd.DataFrame
    problems: pd.DataFrame
    contradictory: pd.DataFrame
    alike: pd.DataFrame

    @property
    def class_names(self) -> tuple:
        """The labels in the order of the model's outputs; fewer than the original's where the copy may lack classes."""
        return audit.list_classes(self.found, self.record) if self.record.may_lack_classes else self.record.class_names

    @property
    def class_labels(self) -> dict:
        """Readable names of the classes."""
        return {name: self.record.class_labels[name] for name in self.class_names}

    def load_pixels(self, shape):
        """Load the pixels of all images; see `helpers.data.pixels.load_pixels`."""
        return pixels.load_pixels(self.images, self.source.folder, shape, self.settings.cache_dir)

    def read_images(self, images, shape):
        """Read some images, given as rows of a table with the column ``path``, as a list of uint8 arrays."""
        return [pixels.read_image(self.source.folder / path, shape) for path in images["path"]]

    def split_images(self, validation, test="test"):
        """Divide the images into training, validation and test set, whole groups at a time; count them by class.

        ``test`` is the share of the test images, or the shipped part that they are; ``validation`` the share of the
        validation images among the others. The column ``split`` of ``images`` holds the sets.
        """
        if isinstance(test, str):
            if test not in set(self.images["part"]):
                raise InputError(f"There is no part {test!r}: expected {', '.join(self.images['part'].unique())}.")
            rest = self.images[self.images["part"] != test]
        else:
            outer = split.split_by_group(self.images, {"rest": 1 - test, "test": test}, self.settings.seed)
            rest = self.images[outer == "rest"]
        inner = split.split_by_group(rest, {"train": 1 - validation, "validation": validation}, self.settings.seed)
        self.images["split"] = inner.reindex(self.images.index, fill_value="test")
        audit.check_split(self.images, self.images["split"])
        table = audit.count_images(self.images, by=("split", "label"))
        return table.loc[["train", "validation", "test", table.index[-1]]]

    def rows(self, name):
        """Give the rows of a set, as positions in ``images`` and in the pixels."""
        there = set(self.images.get("split", ()))
        if name not in there:
            raise InputError(
                f"There is no set {name!r}: there are {', '.join(sorted(there)) or 'none'}. Call split_images first."
            )
        return self.images.index[self.images["split"] == name].to_numpy()

    def encode_labels(self, rows=None):
        """One-hot encode the labels of some rows, or of all: float32 (n, n_classes), NaN for images without a label."""
        labels = self.images["label"] if rows is None else self.images["label"].iloc[rows]
        y = preprocess.one_hot(labels.fillna(self.class_names[0]), self.class_names)
        y[labels.isna()] = np.nan
        return y

    def summarize(self):
        """Summarize what the images are: a dict for `helpers.evaluation.report.Report.save_results`."""
        about = {"images": len(self.images), "groups": self.images["group"].nunique()}
        about |= {"classes": len(self.class_names), "source": self.source.kind}
        if "width" in self.images:
            width, height = self.images.groupby(["width", "height"]).size().idxmax()
            about["stored_size"] = f"{width:.0f}x{height:.0f}"
        return about | {"fingerprint": pixels.compute_fingerprint(self.images, self.source.folder)}

    def __repr__(self):
        title, count = f"{self.record.title} ({self.source.kind})", len(self.class_names)
        return f"{title}: {len(self.images):,} images of {count} classes"

    def _repr_markdown_(self):
        used = "" if len(self.images) == len(self.found) else f", of which {len(self.images):,} are used here"
        return (
            f"**{self.record.title}** ({self.source.kind}). {self.source.note}\n\n"
            f"- Task: {self.record.task}\n"
            f"- {len(self.found):,} images in {self.found['group'].nunique():,} groups and {len(self.class_names)} "
            f"classes can be used{used}; {len(self.problems):,} problems are listed\n"
            f"- Has to stay together in a split: {self.record.group_rule}\n"
            f"- Augmentation that leaves the label true: {self.record.allowed_augmentation}\n"
            f"- Source: {self.record.citation}; {self.record.licence}"
        )


def open_data_set(names, settings, most=None, limit_by="part", whole_groups=True):
    """Find, download, index and measure a data set, and set aside what cannot be used; return an `OpenDataSet`.

    Parameters
    ----------
    names : str, DataSet or sequence of str
        Its name in the catalog; of several, `choose_data_set` takes one.
    most, limit_by, whole_groups
        For quick runs, as for `helpers.data.split.limit_images`; by default all images are worked with.

    Raises
    ------
    InputError
        There is no such data set, it is not found, or too much of it cannot be used.
    """
    if isinstance(names, str):
        record = get_data_set(names)
    else:
        record = names if isinstance(names, DataSet) else choose_data_set(names, settings)
    source = find_data(record, settings)
    images, problems = index_images(record, source.folder)
    measured = None
    if "array" not in images:  # images inside an array file are all of one size
        measured = pixels.measure_images(images, source.folder, settings.cache_dir)
        images = images.join(measured.drop(columns="error"))
    images, problems = audit.leave_out_unusable(images, problems, measured)
    alike = pd.DataFrame(columns=["first", "second", "bits", "correlation", "identical", "named"])
    if record.joined:
        images["named_group"] = images["group"]
        content = pixels.hash_files(images, source.folder)
    if "identical" in record.joined:
        images["group"] = audit.join_groups(images, keys=content)
    if "alike" in record.joined:
        thumbnails = pixels.load_pixels(images, source.folder, _THUMBNAIL, settings.cache_dir)
        pairs = duplicates.find_near_duplicates(thumbnails)
        images["group"] = audit.join_groups(images, pairs=pairs)
        files = images.assign(content=content)
        first, second = (files.iloc[pairs[name]].reset_index(drop=True) for name in ("first", "second"))
        alike = pairs.assign(
            first=first["image_id"],
            second=second["image_id"],
            identical=first["content"] == second["content"],
            named=first["named_group"] == second["named_group"],
        )
    contradictory = audit.find_conflicts(images)
    if record.kept_part:
        images, problems = audit.leave_out_leaks(images, problems, record.kept_part)
    if record.joined == ("identical",):
        images, problems = audit.leave_out_unusable(images, problems)
    elif record.joined:  # near-duplicates may be two things: they are no sign of a damaged copy, whatever their share
        images, problems = audit.leave_out_contradictions(images, problems)
    limited = images if most is None else split.limit_images(images, most, settings.seed, limit_by, whole_groups)
    return OpenDataSet(record, source, settings, images, limited.copy(), problems, contradictory, alike)


def find_data(data_set: DataSet, settings: Settings) -> Source:
    """Find a data set, or make it available, as ``DATA_SOURCE`` says.

    ``local`` takes ``DATA_DIR/<name>``; ``download`` takes it too, or else fetches it (what comes from Kaggle stays in
    the cache of kagglehub); ``sample`` draws the built-in sample; ``auto`` takes local files where there are some, and
    otherwise the sample, but not for a full run, because its results would say nothing.

    Raise InputError, which tells what to do, if ``DATA_DIR`` was named but does not exist or is empty, the data set's
    folder lacks its key file, a full run has no images, or the download failed.
    """
    place, name = settings.data_dir, data_set.name
    folder = place / name
    if settings.source == "sample":
        return _open_sample(data_set, settings, "DATA_SOURCE=sample asks for it.")
    if _has_key_file(folder, data_set):
        kind = "download" if settings.source == "download" else "local"
        return Source(kind, folder, f"{data_set.title}, from {place.name}/{name}.")
    if settings.source == "download":
        return Source("download", _download(data_set, folder), f"{data_set.title}, from {data_set.handle}.")
    if folder.exists():
        problem = f"{folder} has no {data_set.key_file}"
    elif settings.data_dir_given and not place.is_dir():
        problem = f"DATA_DIR={place} is no folder"
    elif settings.data_dir_given and not any(place.iterdir()):
        problem = f"DATA_DIR={place} is empty"
    elif _has_key_file(place, data_set) and place.name == name:
        problem = f"DATA_DIR={place} is the folder of {name} itself: name its parent"
    elif _has_key_file(place, data_set):
        problem = f"DATA_DIR={place} holds {data_set.key_file} itself: move it into a folder {name} there"
    elif settings.source == "local" or not settings.quick:
        problem = f"{place} has no folder {name}"
    else:
        return _open_sample(data_set, settings, f"No folder {place.name}/{name} with real images.")
    raise InputError(
        f"{problem}. Put the files there, or set DATA_SOURCE=download or DATA_SOURCE=sample. "
        f"Expected: {folder / data_set.key_file}; in all {data_set.files}"
    )


def choose_data_set(names: Sequence[str], settings: Settings) -> DataSet:
    """Choose one of several data sets: that of ``DATA_SET``, or the first that lies in ``DATA_DIR``, or the first.

    Raise InputError if ``DATA_SET`` is none of them.
    """
    if settings.data_set:
        if settings.data_set not in names:
            raise InputError(f"DATA_SET={settings.data_set}: this notebook can use {', '.join(names)}.")
        return get_data_set(settings.data_set)
    records = [get_data_set(name) for name in names]
    there = [record for record in records if _has_key_file(settings.data_dir / record.name, record)]
    return (there or records)[0]


def index_images(data_set, folder):
    """List the images of a data set that lies in a folder; return the tables of images and of problems.

    The images have one row each and the columns ``image_id``; ``path``, relative to ``folder``; ``label``, one of the
    class names; ``group``, what has to stay together in a split; ``part``, the part of the original that the image is
    shipped in; for images inside an array file also ``array`` and ``position``; further ones from metadata. Images that
    are shipped without labels have neither ``label`` nor ``group``: they can be neither split nor scored.

    Raise InputError, which names the file, if one that all images depend on is not as the layout says.
    """
    images, problems = _INDEXERS[data_set.layout](data_set, folder)
    return images, pd.DataFrame(problems, columns=PROBLEM_COLUMNS)


def _has_key_file(folder, data_set):
    """Tell whether a data set lies in a folder; where the key is a folder itself, archives differ in its case."""
    if (folder / data_set.key_file).exists():
        return True
    name = data_set.key_file.lower()
    return folder.is_dir() and any(path.is_dir() and path.name.lower() == name for path in folder.iterdir())


def _open_sample(data_set, settings, reason):
    from samples import make_sample  # here only: not needed for real images

    folder = make_sample(data_set, settings.cache_dir / "samples")
    return Source("sample", folder, f"{reason} Good for trying and testing; its results say nothing about real images.")


def _download(data_set, folder):
    """Fetch a data set; return the folder that it then lies in."""
    publisher, name = data_set.handle.split(":", 1)
    try:
        if publisher == "kaggle":
            import kagglehub  # here only: not needed for local files

            downloaded = Path(kagglehub.dataset_download(name))  # resumes, checks the hash, and has its own cache
        else:
            import keras  # here only: it brings TensorFlow, seconds that reading local files should not cost

            (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()  # checks the hash
            downloaded = folder
            with replace_atomically(folder / data_set.key_file) as unfinished, open(unfinished, "wb") as file:
                np.savez_compressed(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
        if not _has_key_file(downloaded, data_set):
            raise FileNotFoundError(f"what came has no {data_set.key_file}")
        return downloaded
    except Exception as error:  # whatever network, server or disk may come up with
        with suppress(OSError):
            folder.rmdir()  # leaves no empty folder, which would look like a data set gone wrong
        raise InputError(
            f"{data_set.title} could not be downloaded ({data_set.handle}): {error}\n"
            f"Put its files under {folder} by hand ({data_set.files}), or set DATA_SOURCE=sample."
        ) from error
