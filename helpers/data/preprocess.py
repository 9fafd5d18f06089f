"""Preprocessing: statistics for standardization, and one-hot labels."""

import numpy as np

from helpers.files import InputError, release_pages

_CHUNK = 128  # images at a time: while they are counted, a channel takes eight times as much


def compute_statistics(pixels, rows=None):
    """Compute mean and standard deviation of each channel, on the scale 0 to 255, exactly and without a float copy.

    Give it training images only, by their ``rows``: statistics of all would tell the network about the test set.

    Parameters
    ----------
    pixels : uint8 array (n, height, width, channels)
        May be memory-mapped. ValueError is raised for another type, for no images, and for a constant channel.
    rows : array of int, optional
        The images to use; all by default.
    """
    rows = np.arange(len(pixels)) if rows is None else np.sort(rows)  # reads a mapped file from front to back
    if pixels.dtype != np.uint8 or not len(rows):
        raise ValueError(f"Expected at least one uint8 image, got {len(rows)} of dtype {pixels.dtype}.")
    counts = np.zeros((pixels.shape[-1], 256), np.int64)
    for start in range(0, len(rows), _CHUNK):
        chunk = pixels[rows[start : start + _CHUNK]]
        counts += [np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(chunk, -1, 0)]
        release_pages(pixels)
    share, levels = counts / counts.sum(axis=1, keepdims=True), np.arange(256)
    mean = share @ levels
    std = np.sqrt((share * (levels - mean[:, None]) ** 2).sum(axis=1))
    if (std == 0).any():
        raise ValueError("A channel is the same in all images: there is nothing to learn from it.")
    return mean, std


def one_hot(labels, class_names):
    """Encode labels, a sequence of str, as rows with a single 1: float32 (n, n_classes); see `encode_labels`."""
    return np.eye(len(class_names), dtype="float32")[encode_labels(labels, class_names)]


def encode_labels(labels, class_names):
    """Encode labels as their positions in the list of class names: int (n,). Raise InputError for other labels."""
    codes = {name: code for code, name in enumerate(class_names)}
    if unknown := sorted(set(labels) - set(codes), key=str):
        raise InputError(f"Unknown label(s) {', '.join(map(str, unknown))}: expected {', '.join(class_names)}.")
    return np.array([codes[label] for label in labels], dtype=int)
