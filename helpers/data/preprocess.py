"""Preprocessing: statistics for standardization, one-hot labels, and digits in MNIST's form."""

import numpy as np
from PIL import Image

from helpers.files import InputError, release_pages

_INK = 0.2  # of the lightest pixel of an image: what is lighter is ink
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


def frame_digits(images, side=28, box=20):
    """Bring digits to the form of MNIST: their ink fills a box, and its centre of mass lies in the middle.

    So were the digits of MNIST made (LeCun et al. 1998), of black and white scans: the box has 20 x 20 of 28 x 28
    pixels, and the proportions stay. Here faint ink is made as light as theirs, too: the lightest pixel becomes 255. An
    image that is black all over stays so.

    Parameters
    ----------
    images : uint8 array (n, height, width, 1)
        Light ink on black.
    side, box : int
        Sides of the images that come out, and of the square that the ink fills, in pixels.

    Returns
    -------
    uint8 array (n, side, side, 1)
    """
    framed = np.zeros((len(images), side, side, 1), "uint8")
    for image, frame in zip(images[..., 0], framed[..., 0], strict=True):
        is_ink = image > _INK * image.max()
        if not is_ink.any():
            continue
        rows, columns = (np.flatnonzero(is_ink.any(axis=axis)) for axis in (1, 0))
        cut = Image.fromarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy())
        width, height = (max(1, round(box * length / max(cut.size))) for length in cut.size)
        digit = np.asarray(cut.resize((width, height), Image.Resampling.BILINEAR), "float32")
        y, x = (
            round(np.clip((side - 1) / 2 - np.average(range(len(ink)), weights=ink), 0, side - len(ink)))
            for ink in (digit.sum(axis=1), digit.sum(axis=0))
        )
        frame[y : y + height, x : x + width] = np.round(digit * (255 / digit.max()))
    return framed
