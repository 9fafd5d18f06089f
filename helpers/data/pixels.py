"""Pixels: decoded once, resized to uint8, kept on disk, opened memory-mapped.

The functions share these parameters: ``images``, the index of `helpers.data.opening.index_images`; ``folder``, a Path
that its column ``path`` is relative to; ``shape``, height, width and channels (1 grey, 3 colour); ``cache_dir``, a Path
where decoded pixels, measures and the hashes of files are kept.
"""

import hashlib
import json
import os
import time
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from socket import gethostname

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from helpers.data.layouts.common import read_arrays
from helpers.files import InputError, release_pages, replace_atomically
from helpers.parallel import count_workers, run_in_parallel, uses_cluster

# Part of every cache key: raise it whenever the same file would give other pixels.
_VERSION = 3
_MODES = {1: "L", 3: "RGB"}
# Pillow may first average whole pixels, down to so many times the size to resize to. Resizing 600x450 to 160x120 takes
# half as long then, and 99 of 100 pixels of lesions and X-rays change by at most 2 grey levels.
_REDUCING_GAP = 1.75
_MEASURES = ("width", "height", "mode", "red", "green", "blue")
_CHUNK_IMAGES, _CHUNK_BYTES = 256, 2**25  # at most, of the images that a worker reads at a time
# Nanoseconds. A file that changed so shortly before could change again under the same times, whose clocks tick slowly.
_RECENT = 2 * 10**9
_hashes = {}  # of files: by folder, then by path the state of the file and its hash


def load_pixels(images, folder, shape, cache_dir):
    """Load the pixels of a data set in the order of its index.

    They are decoded and resized once, on the Dask cluster if there is one, and kept under a name made from the content
    of the files, the order of the images and the shape, so that changed files are never answered from an old cache.

    Returns
    -------
    read-only uint8 array (n, height, width, channels), memory-mapped.

    Raises
    ------
    InputError
        A file cannot be read as an image, or is not seen by a worker of the Dask cluster; the message names it.
    ValueError
        The rows of ``images`` are not numbered from 0, as positions in the array are.
    """
    if len(shape) != 3 or min(shape) < 1 or shape[2] not in _MODES:
        raise ValueError(f"shape={shape}: expected height, width and channels, which are 1 (grey) or 3 (colour).")
    if not images.index.equals(pd.RangeIndex(len(images))):
        raise ValueError("The rows are not numbered from 0: call reset_index(drop=True) after leaving some out.")
    key = repr((_VERSION, tuple(shape), compute_fingerprint(images, folder, cache_dir)))
    cached = _name_cached(cache_dir / "pixels", key.encode(), "npy")
    if not cached.exists():
        with replace_atomically(cached) as unfinished:
            pixels = np.lib.format.open_memmap(unfinished, "w+", np.uint8, (len(images), *shape))
            _decode(images, folder, pixels)
            pixels.flush()
    return np.load(cached, mmap_mode="r", allow_pickle=False)


def measure_images(images, folder, cache_dir):
    """Open every image file once and measure it; the measures are kept like the pixels.

    They are a DataFrame aligned with ``images``: ``width`` and ``height`` in pixels as stored, ``mode`` of Pillow, the
    mean ``red``, ``green`` and ``blue`` from 0 to 255, and ``error``, an empty str for readable images.
    """
    key = repr((_VERSION, "measured", compute_fingerprint(images, folder, cache_dir)))
    cached = _name_cached(cache_dir / "measured", key.encode(), "csv")
    if not cached.exists():
        rows = _read_files(_measure_files, [folder / path for path in images["path"]])
        with replace_atomically(cached) as unfinished:
            pd.DataFrame(rows, columns=[*_MEASURES, "error"]).to_csv(unfinished, index=False)
    missing = dict.fromkeys(_MEASURES, "")
    table = pd.read_csv(cached, keep_default_na=False, na_values=missing, dtype={"mode": "str", "error": "str"})
    return table.set_index(images.index)


def read_pixel_table(path, images, class_codes, shape):
    """Read images from a table with one row per image: a column for each pixel and channel, and ``label``.

    Such as ``hmnist_28_28_RGB.csv`` of HAM10000. It names no image: that its rows are those of the metadata is checked
    by their labels, which would not notice rows exchanged within a class. ``images`` has the columns ``metadata_row``,
    the row of each image in the table, and ``label``; ``class_codes`` are the classes in the order of the table's label
    codes. The result is a uint8 array (n, height, width, channels), aligned with ``images``.

    Raise InputError if the table cannot be read, has other columns or rows, or other labels than the images.
    """
    remedy = "Fetch the original again, or resize the images instead."
    try:
        table = pd.read_csv(path, dtype="uint8")
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path} cannot be read as a table of pixels from 0 to 255 ({error}). {remedy}") from error
    n_pixels, rows = int(np.prod(shape)), images["metadata_row"].to_numpy()
    if "label" not in table or table.shape[1] != n_pixels + 1 or len(table) <= rows.max():
        raise InputError(
            f"{path} has {table.shape[1]} columns and {len(table):,} rows; expected {n_pixels} pixels and label, "
            f"and a row for each line of the metadata, at least {rows.max() + 1:,}. {remedy}"
        )
    expected = images["label"].map({name: code for code, name in enumerate(class_codes)}).to_numpy()
    wrong = np.flatnonzero(table["label"].to_numpy()[rows] != expected)
    if len(wrong):
        raise InputError(
            f"{path}: the labels of {len(wrong):,} rows are not those of the metadata, the first in row "
            f"{rows[wrong[0]]}; the two files are not of the same edition. {remedy}"
        )
    return table.drop(columns="label").to_numpy()[rows].reshape(-1, *shape)


def compute_fingerprint(images, folder, cache_dir=None):
    """Hash the content of the files of an index and the order of its images: "sha256:" and 64 hexadecimal digits.

    The hashes of files are remembered by each process, and with ``cache_dir`` also by others.
    """
    columns = [name for name in ("image_id", "path", "array", "position") if name in images]
    digest = hashlib.sha256(images[columns].to_csv(index=False).encode())
    for content in _hash_files(images["path"], folder, cache_dir).values():
        digest.update(bytes.fromhex(content))
    return f"sha256:{digest.hexdigest()}"


def hash_files(images, folder):
    """Hash the content of each image file: a Series of str, aligned with ``images``; equal hashes are identical files.

    Raise InputError, which names the file, if one cannot be opened.
    """
    return images["path"].map(_hash_files(images["path"], folder)).astype("str").rename(None)


def read_image(path, shape):
    """Read an image file, upright and resized, as a uint8 array; raise InputError for one that cannot be read."""
    try:
        with Image.open(path) as image:
            image.draft(None, (2 * shape[1], 2 * shape[0]))  # a large JPEG is decoded at a fraction of its size
            ImageOps.exif_transpose(image, in_place=True)
            return _resize(image, shape)
    except Exception as error:  # a damaged image fails in many ways inside Pillow
        raise InputError(f"{path} cannot be read as an image ({error}). Fetch it again or remove it.") from error


def _decode(images, folder, pixels):
    """Fill ``pixels`` from array files and image files."""
    if "array" in images:
        for (path, name), rows in images.groupby(["path", "array"]):
            stored = read_arrays(folder / path, [name])[name]
            for row, position in zip(rows.index, rows["position"], strict=True):
                pixels[row] = _resize(Image.fromarray(stored[int(position)]), pixels.shape[1:])
        images = images[images["array"].isna()]
    paths = [folder / path for path in images["path"]]
    largest = min(_CHUNK_IMAGES, max(1, _CHUNK_BYTES // pixels[0].nbytes))
    for chunk, decoded in _read_chunks(partial(_decode_files, shape=pixels.shape[1:]), paths, largest):
        pixels[images.index[chunk]] = decoded
        release_pages(pixels)  # what was written stays in the file


def _decode_files(paths, shape):
    return np.stack([read_image(path, shape) for path in paths])


def _measure_files(paths):
    return [_measure(path) for path in paths]


def _measure(path):
    try:
        with Image.open(path) as image:
            size, mode = image.size, image.mode
            image.draft(None, (64, 64))
            color = _resize(image, (*reversed(image.size), 3)).reshape(-1, 3).mean(axis=0).round(2)
    except Exception as error:  # a damaged image fails in many ways inside Pillow
        return {"error": str(error).replace(str(path), path.name) or type(error).__name__}
    return dict(zip(_MEASURES, (*size, mode, *color), strict=True)) | {"error": ""}


def _name_cached(folder, key, ending):
    return folder / f"{hashlib.sha256(key).hexdigest()[:32]}.{ending}"


def _hash_files(paths, folder, cache_dir=None):
    """Hash the content of files, of each once as long as it stays in the same state; return a dict in their order."""
    place = str(folder.absolute())
    cached = cache_dir and _name_cached(cache_dir / "hashes", os.fsencode(place), "txt")
    known, saved = _hashes.setdefault(place, {}), _load_hashes(cached) if cached else {}
    settled = time.time_ns() - _RECENT
    states = _read_states(paths, folder)

    def list_new():
        return [path for path, state in states.items() if not known.get(path, "").startswith(state)]

    known.update({path: saved[path] for path in list_new() if path in saved})
    new = list_new()
    hashes = dict(zip(new, _read_files(_hash_contents, [folder / path for path in new]), strict=True))
    for path in new:  # unlike the time of modification, that of change cannot be set back
        if int(states[path].split()[2]) < settled:
            known[path] = states[path] + hashes[path]
    if cached and not known.items() <= saved.items():
        _save_hashes(_load_hashes(cached) | known, cached)  # loaded again, because another process may have saved
    return {path: hashes.get(path) or known[path][len(state) :] for path, state in states.items()}


def _read_states(paths, folder):
    """Read what changes with a file, as git does: size, times of change and inode."""
    states = {}
    for path in dict.fromkeys(paths):
        try:
            now = os.stat(f"{folder}/{path}")  # noqa: PTH116 - a Path for each file takes longer than its state
        except OSError as error:
            raise _name_unreadable(folder / path, error) from error
        states[path] = f"{now.st_size} {now.st_mtime_ns} {now.st_ctime_ns} {now.st_ino} "
    return states


def _load_hashes(path):
    """Load a file of hashes; none from one that is missing or damaged."""
    try:
        check, content = path.read_bytes().split(b"\n", 1)
    except (OSError, ValueError):
        return {}
    return json.loads(content) if check == hashlib.sha256(content).hexdigest().encode() else {}


def _save_hashes(hashes, path):
    content = json.dumps(hashes)
    with suppress(OSError), replace_atomically(path) as unfinished:  # a cache that cannot be written can be read
        unfinished.write_bytes(f"{hashlib.sha256(content.encode()).hexdigest()}\n{content}".encode())


def _hash_contents(paths):
    digests = []
    try:
        for path in paths:
            with open(path, "rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise _name_unreadable(path, error) from error
    return digests


def _name_unreadable(path, error):
    return InputError(f"{path} cannot be opened ({error.strerror}). Fetch it again or remove it from the index.")


def _read_files(function, paths):
    """Call a function for files, some at a time, and join the lists that it returns in the order of the files."""
    chunks = sorted(_read_chunks(function, paths), key=lambda found: found[0].start)
    return [result for _, found in chunks for result in found]


def _read_chunks(function, paths, largest=_CHUNK_IMAGES):
    """Call a function for files, some at a time; yield positions and result of each chunk when it is finished."""
    if not paths:
        return
    size = min(largest, len(paths) // (8 * count_workers()) + 1)  # so that all have work until the end
    chunks = [slice(start, start + size) for start in range(0, len(paths), size)]
    if uses_cluster():
        paths, function = [path.absolute() for path in paths], partial(_read_seen, function)
    for number, found in run_in_parallel(function, [paths[chunk] for chunk in chunks], context=refuse_bombs):
        yield chunks[number], found


def _read_seen(function, paths):
    """Call a function for files on a worker that has them, which else would look like damaged images."""
    try:
        for path in paths:
            open(path, "rb").close()
    except OSError as error:
        raise InputError(
            f"{path} cannot be opened on {gethostname()} ({error.strerror}). The workers of DASK_SCHEDULER must see "
            "the same folder as the notebook, under the same path."
        ) from error
    return function(paths)


@contextmanager
def refuse_bombs():
    """Refuse small files that unpack to gigabytes: Pillow only warns below twice its limit, here the limit is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _resize(image, shape):
    height, width, channels = shape
    if image.mode.startswith("I;16"):  # convert() would clip all but the darkest to white
        image = Image.fromarray((np.asarray(image) / 257).round().astype("uint8"))
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no fixed range of values: convert it to 8 or 16 bits first")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode != _MODES[channels]:  # convert() would copy it
        image = image.convert(_MODES[channels])
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=_REDUCING_GAP)
    return np.asarray(image).reshape(shape)
