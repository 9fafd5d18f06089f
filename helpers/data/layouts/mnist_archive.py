"""MNIST in ``mnist.npz``, the file that Keras ships."""

import hashlib

import numpy as np
import pandas as pd

from helpers.data.layouts.common import read_arrays
from helpers.files import InputError


def index_mnist_archive(data_set, folder):
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
    return pd.concat(parts.values(), ignore_index=True), []


def _expect(right, path, name, expected, found):
    if not right:
        raise InputError(
            f"{path}: {name} should have {expected}, but has {found}. "
            "This is not the MNIST file that Keras ships: fetch that one, or set DATA_SOURCE=sample."
        )


def _hash_pixels(image):
    return hashlib.blake2b(image.tobytes(), digest_size=6).hexdigest()
