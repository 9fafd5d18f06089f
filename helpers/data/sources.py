"""Finding the files of a data set: local, downloaded, or the built-in sample."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.data.catalog import DataSet, get_data_set
from helpers.data.sample import make_sample
from helpers.errors import InputError
from helpers.files import replace_atomically
from helpers.settings import Settings


@dataclass(frozen=True)
class Source:
    """Where the images of a run come from.

    Attributes
    ----------
    kind : str
        "local", "download" or "sample".
    folder : Path
        The folder that holds the data set's files.
    note : str
        A sentence about it, to be shown.
    """

    kind: str
    folder: Path
    note: str

    @property
    def is_sample(self) -> bool:
        """Whether the images are the built-in sample, good for trying and testing only."""
        return self.kind == "sample"


def find_data(data_set: DataSet, settings: Settings) -> Source:
    """Find a data set, or make it available, as ``DATA_SOURCE`` says.

    ``local`` takes ``DATA_DIR/<name>``; ``download`` takes it too, or else fetches it (what comes from Kaggle stays in
    the cache of kagglehub); ``sample`` draws the built-in sample; ``auto`` takes local files where there are some, and
    otherwise the sample; not for a full run, though, which would take its time and say nothing.

    Raises
    ------
    InputError
        ``DATA_DIR`` was named but does not exist or is empty, the data set's folder lacks its key file, a full run
        has no images, or the download failed. The message says what was expected and what to do.
    """
    folder = settings.data_dir / data_set.name
    expected = folder / data_set.key_file
    if settings.source == "sample":
        return _open_sample(data_set, settings, "DATA_SOURCE=sample asks for it.")
    if _has_key_file(folder, data_set):
        kind = "download" if settings.source == "download" else "local"
        return Source(kind, folder, f"{data_set.title}, from {folder.parent.name}/{folder.name}.")
    if settings.source == "download":
        return Source("download", _download(data_set, folder), f"{data_set.title}, from {data_set.handle}.")

    remedy = (
        f"Put the files there, or set DATA_SOURCE=download or DATA_SOURCE=sample. Expected: {expected}; "
        f"in all {data_set.files}"
    )
    if folder.exists():
        raise InputError(f"{folder} has no {data_set.key_file}. {remedy}")
    if settings.data_dir_given and not settings.data_dir.is_dir():
        raise InputError(f"DATA_DIR={settings.data_dir} is no folder. {remedy}")
    if settings.data_dir_given and not any(settings.data_dir.iterdir()):
        raise InputError(f"DATA_DIR={settings.data_dir} is empty. {remedy}")
    if _has_key_file(settings.data_dir, data_set):
        if settings.data_dir.name == data_set.name:
            advice = f"is the folder of {data_set.name} itself: name its parent"
        else:
            advice = f"holds {data_set.key_file} itself: move it into a folder {data_set.name} there"
        raise InputError(f"DATA_DIR={settings.data_dir} {advice}. {remedy}")
    if settings.source == "local" or not settings.quick:
        raise InputError(f"{settings.data_dir} has no folder {data_set.name}. {remedy}")
    return _open_sample(data_set, settings, f"No folder {settings.data_dir.name}/{data_set.name} with real images.")


def choose_data_set(names: Sequence[str], settings: Settings) -> DataSet:
    """Choose a data set for a notebook that can use several.

    Parameters
    ----------
    names : sequence of str
        Those that it can use, the preferred one first.
    settings : Settings
        ``DATA_SET`` names one of them; otherwise it is the first that lies in ``DATA_DIR``, or the first of all.

    Raises
    ------
    InputError
        ``DATA_SET`` is none of them.
    """
    if settings.data_set:
        if settings.data_set not in names:
            raise InputError(f"DATA_SET={settings.data_set}: this notebook can use {', '.join(names)}.")
        return get_data_set(settings.data_set)
    records = [get_data_set(name) for name in names]
    there = [record for record in records if _has_key_file(settings.data_dir / record.name, record)]
    return (there or records)[0]


def _has_key_file(folder, data_set):
    """Tell whether a data set lies in a folder; where the key is a folder itself, archives differ in its case."""
    if (folder / data_set.key_file).exists():
        return True
    name = data_set.key_file.lower()
    return folder.is_dir() and any(path.is_dir() and path.name.lower() == name for path in folder.iterdir())


def _open_sample(data_set, settings, reason):
    folder = make_sample(data_set, settings.cache_dir / "samples")
    return Source("sample", folder, f"{reason} Good for trying and testing; its figures say nothing about real images.")


def _download(data_set, folder):
    """Fetch a data set; return the folder that it lies in then."""
    publisher, name = data_set.handle.split(":", 1)
    try:
        downloaded = _PUBLISHERS[publisher](name, folder)
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


def _download_from_keras(name, folder):
    """Download through Keras, which checks the file's hash, and keep it where the other data sets are."""
    import keras  # here only: it brings TensorFlow, seconds that reading local files should not cost

    (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    with replace_atomically(folder / f"{name}.npz") as unfinished, open(unfinished, "wb") as file:
        np.savez_compressed(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return folder


def _download_from_kaggle(name, folder):
    """Download through kagglehub, which resumes, checks the hash, and keeps the pinned version in its own cache."""
    import kagglehub  # here only: not needed for local files

    return Path(kagglehub.dataset_download(name))


_PUBLISHERS = {"keras": _download_from_keras, "kaggle": _download_from_kaggle}
