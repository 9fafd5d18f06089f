"""Opening a data set: find or download it, list its images, measure them, and set aside what cannot be used.

The table of problems has the columns ``file``; ``problem``; ``action``, what was done about it, "left out" if that line
or file is not used; and ``image_id`` of the image concerned.
"""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data import audit, duplicates, pixels, preprocess, split
from helpers.data.catalog import DataSet, get_data_set, list_data_sets
from helpers.data.layouts.class_folders import index_class_folders, rate_class_folders
from helpers.data.layouts.cnmc import index_cnmc, rate_cnmc
from helpers.data.layouts.common import LEFT_OUT, PROBLEM_COLUMNS, list_folders, tell_packed
from helpers.data.layouts.ham10000 import index_ham10000, rate_ham10000
from helpers.data.layouts.mnist_archive import index_mnist_archive, rate_mnist_archive
from helpers.files import InputError, replace_atomically, show_name
from helpers.progress import open_stage
from helpers.redaction import hide_secrets
from helpers.settings import Settings

__all__ = ["LEFT_OUT", "PROBLEM_COLUMNS", "OpenDataSet", "Source", "find_data", "index_images", "open_data_set"]

# How well a folder looks like that of a data set: 0, not at all; 1 to 3, if a name says so too; 4 or more, whatever its
# name. And how it is indexed.
_LAYOUTS = {
    "mnist_archive": (rate_mnist_archive, index_mnist_archive),
    "ham10000": (rate_ham10000, index_ham10000),
    "class_folders": (rate_class_folders, index_class_folders),
    "cnmc": (rate_cnmc, index_cnmc),
}
_DEPTH, _MOST_FOLDERS = 6, 2_000  # of the search for a data set
_SETS = ("train", "validation", "test")


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
    found : the images that can be used, one row per image: the columns of `index_images` and `measure_images`, but as
        ``label`` the readable name of the class; the name that the files have is the column ``code``
    images : those of them that are worked with, numbered from 0; `split_images` adds the column ``split``
    problems : what could not be used and what looks wrong, see the module's description
    contradictory : the rows that were left out because images of their group carry another label
    alike : near-duplicates, where the record asks for them: ``first`` and ``second``, the image_ids of a pair; ``bits``
        and ``correlation``, from `find_near_duplicates`, or the latter alone, from `find_derived_copies`;
        ``identical``, whether the files are the same; ``named``, whether the names of the files put both into one group
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
        there = set(self.found["label"])
        labels = self.record.class_labels.values()
        return tuple(label for label in labels if label in there or not self.record.may_lack_classes)

    def load_pixels(self, shape):
        """Load the pixels of all images; see `helpers.data.pixels.load_pixels`."""
        folder, cache_dir = self.source.folder, self.settings.cache_dir
        return pixels.load_pixels(self.images, folder, shape, cache_dir, self.record.background)

    def read_images(self, images, shape):
        """Read some images, given as rows of a table with the column ``path``, as a list of uint8 arrays."""
        paths = [self.source.folder / path for path in images["path"]]
        with pixels.refuse_bombs():
            return [pixels.read_image(path, shape, self.record.background) for path in paths]

    def split_images(self, validation, test="test", leaked=None):
        """Divide the images into training, validation and test set, whole groups at a time; count them by class.

        ``test`` is the share of the test images, or the shipped part that they are; ``validation`` the share of the
        validation images among the others. The column ``split`` of ``images`` holds the sets. ``leaked`` names a fourth
        set, of the images of other shipped parts whose group is in the test set too; without it they are an error.

        Raise InputError if there is no such part, if a set has no image of a class, or if a group is in two sets.
        """
        if isinstance(test, str):
            if test not in set(self.images["part"]):
                raise InputError(f"There is no part {test!r}: expected {', '.join(self.images['part'].unique())}.")
            in_test = self.images["part"] == test
            is_leaked = ~in_test & self.images["group"].isin(self.images.loc[in_test, "group"])
            rest = self.images[~in_test & ~is_leaked] if leaked else self.images[~in_test]
        else:
            outer = split.split_by_group(self.images, {"rest": 1 - test, "test": test}, self.settings.seed)
            rest = self.images[outer == "rest"]
        inner = split.split_by_group(rest, {"train": 1 - validation, "validation": validation}, self.settings.seed)
        self.images["split"] = inner.reindex(self.images.index, fill_value="test")
        if leaked and isinstance(test, str):
            self.images.loc[is_leaked, "split"] = leaked
        known = self.images[self.images["split"] != leaked]
        audit.check_split(known, known["split"])
        there = set(zip(self.images["split"], self.images["label"], strict=True))
        sets = {name: [each for each in self.class_names if (name, each) not in there] for name in _SETS}
        if lacking := [f"{name} has no image of {', '.join(classes)}" for name, classes in sets.items() if classes]:
            raise InputError(
                f"{self.source.folder}: {'; '.join(lacking)}. Expected: images of each class in each set. "
                "Add images that can be used; the table of problems tells which were left out."
            )
        table = audit.count_images(self.images, by=("split", "label"))
        return table.loc[[*_SETS, *table.index.difference([*_SETS, table.index[-1]]), table.index[-1]]]

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
    images, problems = index_images(record, source.folder, settings.cache_dir)
    measured = None
    if "array" not in images:  # images inside an array file are all of one size
        measured = pixels.measure_images(images, source.folder, settings.cache_dir, record.background)
        images = images.join(measured.drop(columns=["error", "note"]))
    images, problems = audit.leave_out_unusable(images, problems, measured)
    alike = pd.DataFrame(columns=["first", "second", "bits", "correlation", "identical", "named"])
    if record.joined:
        images["named_group"] = images["group"]
        content = pixels.hash_files(images, source.folder)
    if "identical" in record.joined:
        images["group"] = audit.join_groups(images, keys=content)
    if "alike" in record.joined:
        about = settings.cache_dir, record.background
        thumbnails = pixels.load_pixels(images, source.folder, duplicates.THUMBNAIL, *about)
        pairs = duplicates.find_near_duplicates(thumbnails)
        if "cropped" in record.joined:
            detail = pixels.load_pixels(images, source.folder, duplicates.DETAIL, *about)
            cropped = duplicates.find_derived_copies(detail)[["first", "second", "correlation"]]
            pairs = pd.concat([pairs, cropped]).drop_duplicates(["first", "second"], ignore_index=True)
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
    contradictory, images = (
        table.assign(label=table["label"].map(dict(record.class_labels)), code=table["label"])
        for table in (contradictory, images)
    )
    limited = images if most is None else split.limit_images(images, most, settings.seed, limit_by, whole_groups)
    return OpenDataSet(record, source, settings, images, limited.copy(), problems, contradictory, alike)


def load_some(data_set, settings, shape, count, seed=42):
    """Load some images of a data set, drawn at random: a uint8 array (n, height, width, channels).

    The whole data set is indexed, but no other image is decoded. Images that cannot be read are left out.

    Raise InputError as `find_data` and `index_images`.
    """
    source = find_data(data_set, settings)
    images, _ = index_images(data_set, source.folder, settings.cache_dir)
    images = images.sample(min(count, len(images)), random_state=seed).reset_index(drop=True)
    about = source.folder, settings.cache_dir, data_set.background
    if "array" not in images:
        readable = pixels.measure_images(images, *about)["error"] == ""
        images = images[readable].reset_index(drop=True)
    return pixels.load_pixels(images, about[0], shape, *about[1:])


def find_data(data_set: DataSet, settings: Settings) -> Source:
    """Find a data set, or make it available, as ``DATA_SOURCE`` says.

    ``local`` takes ``DATA_DIR/<name>``, or else a folder below ``DATA_DIR``, or this itself, that has the data set's
    layout: under the name of Kaggle's page, in another case, one or more folders deeper. Where other data sets have the
    same layout, such as folders of two classes, a name on the way down has to tell the data set. ``download`` takes it
    too, or else fetches it (what comes from Kaggle stays in the cache of kagglehub). ``sample`` draws the built-in
    sample. ``auto`` takes local files where there are some; otherwise the sample, but not if ``DATA_DIR`` was named,
    if some folder may be the data set's, or for a full run, because its results would say nothing.

    Raise InputError, which tells what is there and what to do, if the data set is not found, or in several folders of
    which none has the better name, or if the download failed.
    """
    place, folder = settings.data_dir, settings.data_dir / data_set.name
    if settings.source == "sample":
        return _open_sample(data_set, settings)
    found, doubt = _find_folders(data_set, place)
    if len(found) > 1:
        raise InputError(
            f"{data_set.title} lies in several folders: {', '.join(map(show_name, found))}. Move all but one out of "
            f"DATA_DIR={place}."
        )
    if found:
        where = Path(place.name) / found[0].relative_to(place)
        kind = "download" if settings.source == "download" else "local"
        return Source(kind, found[0], f"{data_set.title}, from {show_name(where.as_posix())}.")
    if settings.source == "download":
        return Source("download", _download(data_set, folder), f"{data_set.title}, from {data_set.handle}.")
    if folder.exists():
        problem = f"{folder} has no {data_set.key_file}{_tell_content(folder, folder)}"
    elif settings.data_dir_given and not place.is_dir():
        problem = f"DATA_DIR={place} is no folder"
    elif settings.data_dir_given and not os.access(place, os.R_OK | os.X_OK):
        problem = f"DATA_DIR={place} cannot be entered"
    elif settings.data_dir_given and not any(place.iterdir()):
        problem = f"DATA_DIR={place} is empty"
    elif settings.data_dir_given or settings.source == "local" or not settings.quick or doubt:
        problem = f"{place} has no folder {data_set.name}{_tell_content(place, folder)}"
    else:
        return _open_sample(data_set, settings)
    raise InputError(
        f"{problem}{doubt}. Put the files there, or set DATA_SOURCE=download or DATA_SOURCE=sample. "
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
    there = [record for record in records if _find_folders(record, settings.data_dir)[0]]
    return (there or records)[0]


def index_images(data_set, folder, cache_dir=None):
    """List the images of a data set that lies in a folder; return the tables of images and of problems.

    Where several files have one name their content is compared; with ``cache_dir`` the hashes are kept there.

    The images have one row each and the columns ``image_id``; ``path``, relative to ``folder``; ``label``, one of the
    class names; ``group``, what has to stay together in a split; ``part``, the part of the original that the image is
    shipped in; for images inside an array file also ``array`` and ``position``; further ones from metadata. Images that
    are shipped without labels have neither ``label`` nor ``group``: they can be neither split nor scored.

    Raise InputError, which names the file, if one that all images depend on is not as the layout says.
    """
    images, problems = _LAYOUTS[data_set.layout][1](data_set, folder, cache_dir)
    return images, pd.DataFrame(problems, columns=PROBLEM_COLUMNS)


def _find_folders(data_set, place):
    """Find the folder of a data set below a place, or the place itself.

    Give a list, longer if none has the better name; and, if it is empty, why the data set may be there all the same, as
    the end of a text, or an empty str.
    """
    own, key = place / data_set.name, data_set.key_file.casefold()
    with suppress(OSError):
        if (own / data_set.key_file).exists() or any(path.name.casefold() == key for path in list_folders(own)):
            return [own], ""
    top = [place, *([] if data_set.flat_parts else list_folders(place))]  # flat parts lie beside the key folder
    found, visited, waiting = {}, set(), [place]
    while waiting and len(visited) < _MOST_FOLDERS:
        folder = waiting.pop(0)
        with suppress(OSError):  # what cannot be entered is not searched
            about = folder.stat()
            if (about.st_dev, about.st_ino) in visited:  # a link leads here
                continue
            visited.add((about.st_dev, about.st_ino))
            rating = _rate(data_set, folder, place)
            if not (rating and rating[0]) and len(folder.relative_to(place).parts) < _DEPTH:
                waiting += list_folders(folder)
            if rating:
                while folder.name.casefold() == key and folder not in top:
                    folder = folder.parent
                found[folder] = max(rating, found.get(folder, rating))
    best = [folder for folder, rating in found.items() if rating == max(found.values())]
    if best and found[best[0]][0]:
        return best, ""
    doubt = f". {show_name(best[0])} is laid out like it. If it is it, rename it to {own.name}" if best else ""
    return [], doubt + f". The search ended after {_MOST_FOLDERS:,} folders; others were not looked at" * bool(waiting)


def _rate(data_set, folder, place):
    """Rate how well a folder and the names from a place down to it fit a data set: a tuple to compare.

    Its first item tells whether the names are enough. It is empty if nothing fits, or if another data set fits as well.
    """
    names = [_simplify(name) for name in (place.name, *folder.relative_to(place).parts)]

    def rate(record):
        page = record.handle.partition("/versions/")[0].rpartition("/")[2]
        known = {_simplify(name) for name in {record.name, page, record.key_file} - {*record.expected_counts}}
        return sum(name in known for name in names), _LAYOUTS[record.layout][0](record, folder)

    named, fit = mine = rate(data_set)
    is_enough = bool(fit > 3 or (fit > 1 and folder == place) or (fit and named))
    if not (is_enough or fit > 1) or any(other in name for other in data_set.other_names for name in names):
        return ()
    for other in list_data_sets():
        if other.layout == data_set.layout and other.name != data_set.name:
            theirs = rate(other)
            if theirs[1] and not (mine > theirs and mine[::-1] > theirs[::-1]):  # in one of the two it fits better
                return ()
    version = data_set.handle.rpartition("/versions/")[2]
    return is_enough, named, fit, f"/versions/{version}/" in f"{folder.as_posix()}/"


def _simplify(name):
    """Make one name of those that differ in case, blanks, hyphens and the like, and in what they call a data set."""
    return re.sub(r"-(dataset|database|original)$", "", re.sub(r"[\W_]+", "-", name.casefold()).strip("-"))


def _tell_content(place, folder):
    """Tell what lies in a place, as the end of a sentence, and how to unpack archives into the data set's folder."""
    there = [path for path in sorted(place.glob("*")) if not path.name.startswith(".")]
    shown = [show_name(path.name) + "/" * path.is_dir() for path in there]
    text = f"; it holds {', '.join(shown[:8])}{', …' if len(shown) > 8 else ''}" if there else ""
    if place != folder and any(path.is_dir() for path in there):
        text += f". If one of these folders holds the data set, rename it to {folder.name}"
    files = dict.fromkeys(path for path in [*there, *sorted(folder.parent.glob("*"))] if path.is_file())
    packed = [f". {show_name(path.name)} {how}" for path in files if (how := tell_packed(path, folder))]
    return text + "".join(packed[:3])


def _open_sample(data_set, settings):
    from samples import make_sample  # here only: not needed for real images

    with open_stage(f"drawing the sample of {data_set.title}"):
        folder = make_sample(data_set, settings.cache_dir / "samples")
    where = f"Real images would be read from DATA_DIR/{data_set.name}."  # the same, whoever asked for the sample
    return Source("sample", folder, f"{where} Good for trying and testing; its results say nothing about real images.")


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
        if not (found := _find_folders(data_set, downloaded)[0]):
            raise FileNotFoundError(f"what came has no {data_set.key_file}")
        return found[0]
    except Exception as error:  # whatever network, server or disk may come up with
        with suppress(OSError):
            folder.rmdir()  # leaves no empty folder, which would look like a data set gone wrong
        raise InputError(
            f"{data_set.title} could not be downloaded ({data_set.handle}): {hide_secrets(str(error))}\n"
            f"Put its files under {folder} by hand ({data_set.files}), or set DATA_SOURCE=sample."
        ) from None  # which may tell secrets
