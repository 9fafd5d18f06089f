"""MNIST in ``mnist.npz``, the file that Keras ships, or in the four IDX files of its publisher."""

import hashlib

import numpy as np
import pandas as pd

from helpers.data.layouts.common import IDX_NAME, read_arrays, refuse
from helpers.files import InputError

_IDX_ARRAYS = {  # the names that Keras gives to the arrays
    ("train", "images"): "x_train",
    ("train", "labels"): "y_train",
    ("t10k", "images"): "x_test",
    ("t10k", "labels"): "y_test",
}


def rate_mnist_archive(data_set, folder):
    """Rate how well a folder looks like that of MNIST: 4 if it has its file; 1 if it has IDX files, as others have.

    It is less than 1 if one of the four is missing.
    """
    count = len(_find_idx(folder))
    return 4 if _find_archive(data_set, folder).exists() else count / 4 if count > 2 else 0


def _find_archive(data_set, folder):
    """Find the file of Keras, whatever its case."""
    key = folder / data_set.key_file
    found = {path for path in folder.glob("*") if path.name.lower() == key.name.lower()}
    return key if key in found else min(found, default=key)


def _find_idx(folder):
    """Find the IDX files in a folder, of each the unpacked one if it is there: names of arrays to paths."""
    found = {}
    for path in sorted(folder.glob("*"), key=lambda path: path.suffix.lower() == ".gz"):
        match = IDX_NAME.fullmatch(path.name)
        if match and path.is_file():
            found.setdefault(_IDX_ARRAYS[match[1].lower(), match[2].lower()], path)
    return found


def index_mnist_archive(data_set, folder, cache_dir=None):
    """Index the images of ``mnist.npz``, or else of the IDX files; identical ones are a group."""
    archive = _find_archive(data_set, folder)
    files = {} if archive.exists() else _find_idx(folder)
    missing = ["-".join(file) for file, name in _IDX_ARRAYS.items() if files and name not in files]
    if missing:
        refuse(folder, data_set, f"IDX files, but not {' and '.join(missing)}")

    def expect(right, name, expected, found):
        if not right:
            raise InputError(
                f"{files.get(name, archive)}: {name} should have {expected}, but has {found}. "
                "This is not the MNIST file that Keras ships: fetch that one, or set DATA_SOURCE=sample."
            )

    parts = []
    for part in ("train", "test"):
        x, y = f"x_{part}", f"y_{part}"
        images, labels = (read_arrays(files.get(name, archive), [name])[name] for name in (x, y))
        expect(images.ndim == 3 and images.shape[1:] == (28, 28), x, "shape (n, 28, 28)", images.shape)
        expect(images.dtype == np.uint8, x, "dtype uint8, grey levels from 0 to 255", images.dtype)
        count = len(images)
        expect(count > 0, x, "at least one image", "none")
        expect(labels.shape == (count,), y, f"one label for each image, shape ({count},)", labels.shape)
        expect(np.issubdtype(labels.dtype, np.integer), y, "whole numbers", labels.dtype)
        wrong = np.unique(labels[(labels < 0) | (labels > 9)])
        expect(len(wrong) == 0, y, "labels from 0 to 9", wrong.tolist())
        about = {
            "image_id": [f"{part}_{number:05d}" for number in range(count)],
            "path": files.get(x, archive).name,
            "label": labels.astype(str),
            "group": [hashlib.blake2b(image.tobytes(), digest_size=6).hexdigest() for image in images],
            "part": part,
            "array": x,
            "position": range(count),
        }
        parts.append(pd.DataFrame(about))
    digits = {table["part"][0]: sorted(set(data_set.class_names) - set(table["label"])) for table in parts}
    if lacking := [f"no image of {', '.join(names)} in {part}" for part, names in digits.items() if names]:
        refuse(files.get("y_train", archive), data_set, f"{' and '.join(lacking)}; both need all ten digits")
    return pd.concat(parts, ignore_index=True), []
