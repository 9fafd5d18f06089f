"""Pixels: decoded once, resized to uint8, kept on disk, opened memory-mapped."""

import hashlib

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from helpers.data.index import read_arrays
from helpers.errors import InputError
from helpers.files import replace_atomically

# Part of every cache key: raise it whenever the same file would give other pixels.
_VERSION = 1
_MODES = {1: "L", 3: "RGB"}


def load_pixels(images, folder, shape, cache_dir):
    """Load the pixels of a data set in the order of its index.

    They are decoded and resized once and kept in ``cache_dir`` under a name made from the content of the files, the
    order of the images and the shape: changed files are never answered from an old cache.

    Parameters
    ----------
    images : DataFrame
        The index, see `helpers.data.index.index_images`.
    folder : Path
        What its ``path`` column is relative to.
    shape : tuple of 3 ints
        Height, width and channels (1 grey, 3 colour).
    cache_dir : Path

    Returns
    -------
    read-only uint8 array (n, height, width, channels), memory-mapped.

    Raises
    ------
    InputError
        A file cannot be read as an image; the message names it.
    ValueError
        The rows of ``images`` are not numbered from 0, so that they could not be used as positions in the array.
    """
    if not images.index.equals(pd.RangeIndex(len(images))):
        raise ValueError("The rows are not numbered from 0: call reset_index(drop=True) after leaving some out.")
    key = hashlib.sha256(repr((_VERSION, tuple(shape), compute_fingerprint(images, folder))).encode())
    cached = cache_dir / "pixels" / f"{key.hexdigest()[:32]}.npy"
    if not cached.exists():
        with replace_atomically(cached) as unfinished:
            pixels = np.lib.format.open_memmap(unfinished, "w+", np.uint8, (len(images), *shape))
            _decode(images, folder, pixels)
            pixels.flush()
    return np.load(cached, mmap_mode="r", allow_pickle=False)


def compute_fingerprint(images, folder):
    """Hash the content of the files of an index and the order of its images.

    Returns
    -------
    str: ``sha256:`` and 64 hexadecimal digits.
    """
    columns = [name for name in ("image_id", "path", "array", "position") if name in images]
    digest = hashlib.sha256(images[columns].to_csv(index=False).encode())
    for path in images["path"].drop_duplicates():
        try:
            with open(folder / path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise InputError(
                f"{folder / path} cannot be opened ({error.strerror}). Fetch it again or remove it from the index."
            ) from error
    return f"sha256:{digest.hexdigest()}"


def read_image(path, shape):
    """Read an image file, upright and resized.

    Parameters
    ----------
    path : Path
    shape : tuple of 3 ints
        Height, width and channels (1 grey, 3 colour).

    Returns
    -------
    uint8 array of that shape

    Raises
    ------
    InputError
        The file is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            return _resize(ImageOps.exif_transpose(image), shape)
    except Exception as error:  # a damaged image fails in many ways inside Pillow
        raise InputError(f"{path} cannot be read as an image ({error}). Fetch it again or remove it.") from error


def _decode(images, folder, pixels):
    """Fill ``pixels`` from array files and image files."""
    in_arrays = images["array"].notna() if "array" in images else images["path"].isna()
    for (path, name), rows in images[in_arrays].groupby(["path", "array"]) if in_arrays.any() else ():
        stored = read_arrays(folder / path, [name])[name]
        for row, position in zip(rows.index, rows["position"], strict=True):
            pixels[row] = _resize(Image.fromarray(stored[int(position)]), pixels.shape[1:])
    for row, path in images.loc[~in_arrays, "path"].items():
        pixels[row] = read_image(folder / path, pixels.shape[1:])


def _resize(image, shape):
    height, width, channels = shape
    if image.mode.startswith("I;16"):  # convert() would clip all but the darkest to white
        image = Image.fromarray((np.asarray(image) / 257).round().astype("uint8"))
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no fixed range of values: convert it to 8 or 16 bits first")
    image = image.convert(_MODES[channels])
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(shape)
