"""MNIST in ``mnist.npz``, the file that Keras ships."""

import hashlib

import numpy as np
import pandas as pd

from helpers.data.layouts.common import read_arrays
from helpers.files import InputError


def index_mnist_archive(data_set, folder):
    """Index the images of ``mnist.npz``; identical ones are a group."""
    path = folder / data_set.key_file

    def expect(right, name, expected, found):
        if not right:
            raise InputError(
                f"{path}: {name} should have {expected}, but has {found}. "
                "This is not the MNIST file that Keras ships: fetch that one, or set DATA_SOURCE=sample."
            )

    parts = []
    for part in ("train", "test"):
        x, y = f"x_{part}", f"y_{part}"
        images, labels = read_arrays(path, [x, y]).values()
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
            "path": data_set.key_file,
            "label": labels.astype(str),
            "group": [hashlib.blake2b(image.tobytes(), digest_size=6).hexdigest() for image in images],
            "part": part,
            "array": x,
            "position": range(count),
        }
        parts.append(pd.DataFrame(about))
    return pd.concat(parts, ignore_index=True), []
