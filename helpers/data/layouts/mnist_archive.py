"""MNIST in ``mnist.npz``, the file that Keras ships, or in the four IDX files of its publisher."""

import hashlib

import numpy as np
import pandas as pd

from helpers.data.layouts.common import IDX_NAME, read_arrays
from helpers.files import InputError

_IDX_ARRAYS = {  # the names that Keras gives to the arrays
    ("train", "images"): "x_train",
    ("train", "labels"): "y_train",
    ("t10k", "images"): "x_test",
    ("t10k", "labels"): "y_test",
}


def rate_mnist_archive(data_set, folder):
    """Rate how well a folder looks like that of MNIST: 3 if it has its file; 2 if it has IDX files and the right name.

    Other data sets, such as Fashion-MNIST, have IDX files of the same names.
    """
    if (folder / data_set.key_file).exists():
        return 3
    name = next((name.lower() for name in reversed(folder.parts) if data_set.name in name.lower()), "")
    return 2 * (name.startswith(data_set.name) and len(_find_idx(folder)) == len(_IDX_ARRAYS))


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
    archive = folder / data_set.key_file
    files = {} if archive.exists() else _find_idx(folder)

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
    return pd.concat(parts, ignore_index=True), []
