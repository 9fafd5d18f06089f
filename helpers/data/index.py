"""Indexing: one row per image."""

import hashlib

import numpy as np
import pandas as pd

from helpers.errors import InputError


def index_images(data_set, folder):
    """List the images of a data set.

    Parameters
    ----------
    data_set : DataSet
    folder : Path
        The data set's folder, from `helpers.data.sources.find_data`.

    Returns
    -------
    DataFrame with one row per image and the columns ``image_id``; ``path``, relative to ``folder``; ``label``, one of
    the class names; ``group``, what has to stay together in a split; ``part``, the part of the original that the
    image is shipped in. For images inside an array file also ``array`` and ``position``. Metadata adds further columns.

    Raises
    ------
    InputError
        A file is not as the layout says; the message names it.
    """
    return _INDEXERS[data_set.layout](data_set, folder)


def read_arrays(path, names):
    """Read arrays from an ``.npz`` file.

    Raises
    ------
    InputError
        The file is damaged, no ``.npz`` file, or lacks one of the arrays.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            found = {name: archive[name] for name in names if name in archive}
            held = ", ".join(archive) or "nothing"
        if not all(isinstance(array, np.ndarray) for array in found.values()):
            raise TypeError("a member is no array")
    except Exception as error:  # a damaged archive fails in many ways, inside NumPy, zipfile and zlib
        raise InputError(
            f"{path} cannot be read as an .npz file with the arrays {', '.join(names)} ({error}). "
            "It may be truncated: fetch it again, or set DATA_SOURCE=sample."
        ) from error
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(
            f"{path} lacks {', '.join(missing)}; it holds {held}. Fetch the original again, or set DATA_SOURCE=sample."
        )
    return found


def _index_mnist_archive(data_set, folder):
    """Index ``mnist.npz``, the file that Keras ships MNIST in."""
    path = folder / data_set.key_file
    parts = {}
    for part in ("train", "test"):
        x, y = f"x_{part}", f"y_{part}"
        arrays = read_arrays(path, [x, y])
        images, labels = arrays[x], arrays[y]
        _expect(images.ndim == 3 and images.shape[1:] == (28, 28), path, x, "shape (n, 28, 28)", images.shape)
        _expect(images.dtype == np.uint8, path, x, "dtype uint8, grey levels from 0 to 255", images.dtype)
        _expect(len(images) > 0, path, x, "at least one image", "none")
        _expect(
            labels.shape == (len(images),), path, y, f"one label for each image, shape ({len(images)},)", labels.shape
        )
        _expect(np.issubdtype(labels.dtype, np.integer), path, y, "whole numbers", labels.dtype)
        wrong = np.unique(labels[(labels < 0) | (labels > 9)])
        _expect(len(wrong) == 0, path, y, "labels from 0 to 9", wrong.tolist())
        parts[part] = pd.DataFrame(
            {
                "image_id": [f"{part}_{number:05d}" for number in range(len(images))],
                "path": data_set.key_file,
                "label": labels.astype(str),
                "group": [_hash_pixels(image) for image in images],
                "part": part,
                "array": x,
                "position": range(len(images)),
            }
        )
    return pd.concat(parts.values(), ignore_index=True)


def _expect(right, path, name, expected, found):
    if not right:
        raise InputError(
            f"{path}: {name} should have {expected}, but has {found}. "
            "This is not the MNIST file that Keras ships: fetch that one, or set DATA_SOURCE=sample."
        )


def _hash_pixels(image):
    return hashlib.blake2b(image.tobytes(), digest_size=6).hexdigest()


_INDEXERS = {"mnist_archive": _index_mnist_archive}
