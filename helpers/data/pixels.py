"""Pixels: decoded once, resized to uint8, kept on disk, opened memory-mapped.

The functions share these parameters: ``images``, the index of `helpers.data.opening.index_images`; ``folder``, a Path
that its column ``path`` is relative to; ``shape``, height, width and channels (1 grey, 3 colour); ``cache_dir``, a Path
where decoded pixels, measures and the hashes of files are kept; ``background``, the grey level from 0 to 255 that
transparent pixels are laid on.
"""

import ctypes
import hashlib
import traceback
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from itertools import compress
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from helpers.data.layouts.common import read_arrays
from helpers.data.layouts.tables import sniff
from helpers.data.listing import HEAD, IMAGE_FORMATS, describe_unread, find_obstacle, recognize
from helpers.data.reading import CHUNK_FILES, UNREADABLE, hash_contents, read_chunks, read_files, refuse_unreadable
from helpers.files import InputError, read_reason, release_pages, replace_atomically, reserve_space, show_name
from helpers.progress import track
from helpers.seals import check_seal, read_cached, seal

with suppress(AttributeError, OSError):  # libtiff writes to stderr what Pillow raises as an error
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)

# Part of every cache key: raise it whenever the same file would give other pixels.
VERSION = 6
_MODES = {1: "L", 3: "RGB"}
# A large image is first made smaller in a fast way, but not below so many times the size to resize to: a JPEG is halved
# while it is decoded, of others whole pixels are averaged. 99 of 100 pixels of lesions and X-rays change by at most 2
# grey levels.
_REDUCING_GAP = 1.75
_MEASURES = ("width", "height", "mode", "red", "green", "blue")
_CHUNK_BYTES = 2**25  # at most, of the images that a worker reads at a time
_DARK = 64  # of 255: the highest level of 14 bits in 16
_BLANK = "fills only the lower of its 16 bits and would be nearly blank: stretch it to 8 bits first"
_MAX_SAMPLE_VALUE = 281  # a tag of TIFF, and what depth it tells of grey levels in 16 bits
_STATED = {(2**bits - 1,): bits for bits in range(9, 16)}
_FACTORS = {"L;2": 85, "L;4": 17}  # Pillow multiplies grey levels of 2 and 4 bits by them, but not the transparent one


def load_pixels(images, folder, shape, cache_dir, background=255):
    """Load the pixels of a data set in the order of its index.

    They are decoded and resized once, on the Dask cluster if there is one, and kept under a name made from the content
    of the files, the order of the images and the shape, so that changed files are never answered from an old cache.
    What was kept is checked by its checksum when this process opens it first; if it was damaged, a line says so, and it
    is made again.

    Returns
    -------
    read-only uint8 array (n, height, width, channels), memory-mapped.

    Raises
    ------
    InputError
        A file cannot be read as an image, or is not seen by a worker of the Dask cluster; the message names it. Or the
        disk has no space for the pixels, before any is written (WriteError).
    ValueError
        The rows of ``images`` are not numbered from 0, as positions in the array are.
    """
    if len(shape) != 3 or min(shape) < 1 or shape[2] not in _MODES:
        raise ValueError(f"shape={shape}: expected height, width and channels, which are 1 (grey) or 3 (colour).")
    if not images.index.equals(pd.RangeIndex(len(images))):
        raise ValueError("The rows are not numbered from 0: call reset_index(drop=True) after leaving some out.")
    hashes = hash_contents(images["path"], folder, cache_dir)
    refuse_unreadable(hashes, folder)
    key = repr((VERSION, tuple(shape), background, compute_fingerprint(images, folder, hashes=hashes)))
    cached = _name_cached(cache_dir / "pixels", key.encode(), "npy")
    if not read_cached(cached, check_seal):
        with replace_atomically(cached) as unfinished:
            _write_pixels(unfinished, images, folder, shape, background)
            seal(unfinished, **_describe(images, folder, background), shape=list(shape))
    return np.load(cached, mmap_mode="r", allow_pickle=False)


def measure_images(images, folder, cache_dir, background=255):
    """Open every image file once and measure it; the measures are kept like the pixels.

    They are a DataFrame aligned with ``images``: ``width`` and ``height`` in pixels as stored, ``mode`` of Pillow, the
    mean ``red``, ``green`` and ``blue`` from 0 to 255, the ``note`` of `decode_image`, and ``error``, why the file
    cannot be read, an empty str for readable images.
    """
    hashes = hash_contents(images["path"], folder, cache_dir)
    key = repr((VERSION, "measured", background, compute_fingerprint(images, folder, hashes=hashes)))
    cached = _name_cached(cache_dir / "measured", key.encode(), "csv")
    content = read_cached(cached)
    if content is None:
        paths = [folder / path for path in images["path"]]
        seen = [hashes[path] != UNREADABLE for path in images["path"]]  # workers read only what can be opened here
        measure = partial(_measure_files, background=background)
        rows = iter(read_files(measure, [*compress(paths, seen)], "measuring images", refuse_bombs))
        rows = [next(rows) if opens else _measure(path, background) for path, opens in zip(paths, seen, strict=True)]
        content = pd.DataFrame(rows, columns=[*_MEASURES, "note", "error"]).to_csv(index=False).encode()
        with replace_atomically(cached) as unfinished:
            unfinished.write_bytes(content)
            seal(unfinished, **_describe(images, folder, background))
    missing, text = dict.fromkeys(_MEASURES, ""), dict.fromkeys(("mode", "note", "error"), "str")
    table = pd.read_csv(BytesIO(content), keep_default_na=False, na_values=missing, dtype=text)
    return table.set_index(images.index)


def read_pixel_table(path, images, class_codes, shape):
    """Read images from a table with one row per image: a column for each pixel and channel, and ``label``.

    Such as ``hmnist_28_28_RGB.csv`` of HAM10000. It names no image: that its rows are those of the metadata is checked
    by their labels, which would not notice rows exchanged within a class. ``images`` has the columns ``metadata_row``,
    the row of each image in the table, and ``code``; ``class_codes`` are the classes in the order of the table's label
    codes. The result is a uint8 array (n, height, width, channels), aligned with ``images``.

    Raise InputError if the table cannot be read, has other columns or rows, or other labels than the images.
    """
    remedy = "Fetch the original again, or resize the images instead."
    try:
        table = pd.read_csv(path, dtype="uint8", **sniff(path))
        if not isinstance(table.index, pd.RangeIndex):  # what pandas makes of rows that are longer than the head
            raise ValueError("its rows are longer than its first line")
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path} cannot be read as a table of pixels from 0 to 255 ({error}). {remedy}") from error
    n_pixels, rows = int(np.prod(shape)), images["metadata_row"].to_numpy()
    if "label" not in table or table.shape[1] != n_pixels + 1 or len(table) <= rows.max():
        raise InputError(
            f"{path} has {table.shape[1]} columns and {len(table):,} rows; expected {n_pixels} pixels and label, "
            f"and a row for each line of the metadata, at least {rows.max() + 1:,}. {remedy}"
        )
    expected = images["code"].map({name: code for code, name in enumerate(class_codes)}).to_numpy()
    wrong = np.flatnonzero(table["label"].to_numpy()[rows] != expected)
    if len(wrong):
        raise InputError(
            f"{path}: the labels of {len(wrong):,} rows are not those of the metadata, the first in row "
            f"{rows[wrong[0]]}; the two files are not of the same edition. {remedy}"
        )
    return table.drop(columns="label").to_numpy()[rows].reshape(-1, *shape)


def compute_fingerprint(images, folder, cache_dir=None, hashes=None):
    """Hash the content of the files of an index and the order of its images: "sha256:" and 64 hexadecimal digits.

    ``hashes`` are those of `helpers.data.reading.hash_contents`, if they are known already.
    """
    columns = [name for name in ("image_id", "path", "array", "position") if name in images]
    digest = hashlib.sha256(images[columns].to_csv(index=False).encode(errors="surrogateescape"))
    for content in (hashes or hash_contents(images["path"], folder, cache_dir)).values():
        digest.update(bytes.fromhex(content))
    return f"sha256:{digest.hexdigest()}"


def hash_files(images, folder):
    """Hash the content of each image file: a Series of str, aligned with ``images``; equal hashes are identical files.

    Raise InputError, which names the file, if one cannot be opened.
    """
    hashes = hash_contents(images["path"], folder)
    refuse_unreadable(hashes, folder)
    return images["path"].map(hashes).astype("str").rename(None)


def decode_image(source, shape, background=255):
    """Decode an image, upright, without transparency, resized.

    Grey levels of 16 bits are divided so that the whole depth becomes 0 to 255: the depth that the file states; or 8
    bits if none of its levels is above 255, 12 if none is above 4095, or else 16. So the images of a camera of 10 bits
    are all taken as 12 bits, four times as dark.

    Parameters
    ----------
    source : str, Path or bytes
        A file, or its content, in one of the formats `helpers.data.listing.IMAGE_FORMATS`.

    Returns
    -------
    uint8 array (height, width, channels); and a note, an empty str for ordinary images: what in the file is no such
    pixel and what was done about it, such as "has further frames: the first one taken; is transparent: laid on white".

    Raises
    ------
    InputError
        It cannot be read as an image; the message names the file.
    """
    try:
        image, _, note = _open(source, (shape[1], shape[0]), background)
        return _resize(image, shape), note
    except Exception as error:  # a damaged image fails in many ways inside Pillow
        name = "The file" if isinstance(source, bytes) else show_name(source)
        remedy = "" if isinstance(error, InputError | MemoryError) else " Fetch it again or remove it."
        raise InputError(f"{name} cannot be read as an image ({_explain(error)}).{remedy}") from error


def read_image(path, shape, background=255):
    """Read an image as `decode_image` does, without the note."""
    return decode_image(path, shape, background)[0]


def _write_pixels(path, images, folder, shape, background):
    pixels = np.lib.format.open_memmap(path, "w+", np.uint8, (len(images), *shape))
    try:
        reserve_space(path, path.stat().st_size)
        _decode(images, folder, pixels, background)
        pixels.flush()
    except BaseException as error:
        del pixels  # a notebook keeps the traceback, which would keep the file mapped, and its space on the disk taken
        traceback.clear_frames(error.__traceback__)
        raise


def _decode(images, folder, pixels, background):
    """Fill ``pixels`` from array files and image files."""
    label = f"decoding images to {pixels.shape[1]} × {pixels.shape[2]} pixels"
    if "array" in images:
        for (path, name), rows in images.groupby(["path", "array"]):
            stored = read_arrays(folder / path, [name])[name]
            places = list(zip(rows.index, rows["position"], strict=True))
            for row, position in track(places, label, unit="image"):
                pixels[row] = _resize(Image.fromarray(stored[int(position)]), pixels.shape[1:])
        images = images[images["array"].isna()]
    paths = [folder / path for path in images["path"]]
    largest = min(CHUNK_FILES, max(1, _CHUNK_BYTES // pixels[0].nbytes))
    decode = partial(_decode_files, shape=pixels.shape[1:], background=background)
    for chunk, decoded in read_chunks(decode, paths, label, largest, refuse_bombs):
        pixels[images.index[chunk]] = decoded
        release_pages(pixels)  # what was written stays in the file


def _decode_files(paths, shape, background):
    return np.stack([read_image(path, shape, background) for path in paths])


def _measure_files(paths, background):
    return [_measure(path, background) for path in paths]


def _measure(path, background):
    try:
        image, stored, note = _open(path, (32, 32), background)
        color = _resize(image, (*reversed(image.size), 3)).reshape(-1, 3).mean(axis=0).round(2)
    except Exception as error:  # a damaged image fails in many ways inside Pillow
        return {"note": "", "error": _explain(error)}
    return dict(zip(_MEASURES, (*stored, *color), strict=True)) | {"note": note, "error": ""}


def _open(source, size, background):
    """Open an image that is to be resized to ``size``, width and height.

    A JPEG may be decoded at half its size, if that is at least `_REDUCING_GAP` times ``size``; or at a quarter or an
    eighth, which are less exact, if that is at least twice. Return the image upright, in 8 bits per channel, without
    transparency; its width, height and mode as stored; and the note.
    """
    content = BytesIO(source) if isinstance(source, bytes) else None
    if not content and (obstacle := find_obstacle(Path(source))):  # a pipe would be waited for
        raise ValueError(obstacle)
    try:
        with Image.open(content or source, formats=IMAGE_FORMATS) as image:
            stored, notes = (*image.size, image.mode), []
            raw = str(image.tile[0].args) if image.tile else ""  # how pixels are stored; unknown once they are decoded
            bits = _read_bits(image, raw)
            with suppress(Exception):  # a damaged frame behind the first one fails in many ways
                if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: a photograph and its preview
                    notes = [f"has further {'pages' if image.format == 'TIFF' else 'frames'}: the first one taken"]
            sides = zip(size, image.size, strict=True)
            image.draft(None, [min(2 * to, max(ceil(_REDUCING_GAP * to), side // 2)) for to, side in sides])
            ImageOps.exif_transpose(image, in_place=True)
            image.load()
    except UnidentifiedImageError:
        with content or open(source, "rb") as file:
            file.seek(0)
            what = recognize(file.read(HEAD))
        raise InputError(describe_unread(what)) if what else ValueError("cannot identify image file") from None
    image = _lay_on(_reduce_depth(image, raw, bits, notes), background, notes)
    return image, stored, "; ".join(notes)


def _read_bits(image, raw):
    """Read how many bits per channel an opened file states; 16 may be filled in part."""
    if image.format == "JPEG2000":  # Pillow tells it for grey levels only, as "more than 8"
        place = image.fp.tell()
        image.fp.seek(0)
        head = image.fp.read()
        image.fp.seek(place)
        return (head[head.index(b"\xff\x4f\xff\x51") + 42] & 127) + 1  # in the marker segment SIZ
    if image.format == "TIFF":
        bits = max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        return _STATED.get(image.tag_v2.get(_MAX_SAMPLE_VALUE), bits) if bits == 16 else bits
    return 16 if image.format == "PNG" and ";16" in raw else 8


def _reduce_depth(image, raw, bits, notes):
    """Give an image in 8 bits per channel. ``raw`` is Pillow's name of how its pixels are stored."""
    clear = image.info.get("transparency")
    if image.mode in ("I", "F"):
        raise InputError(f"mode {image.mode} has no fixed range of values: convert it to 8 or 16 bits first")
    if image.mode.startswith("I;16"):  # convert() would clip all but the darkest to white
        levels, depths = np.asarray(image), (bits, 16) if bits < 16 else (8, 12, 16)
        if image.format == "JPEG2000":  # Pillow multiplies them so that they fill 16 bits
            levels, depths = levels >> (16 - bits), (bits,)
            if bits == 16 and levels.max() >> 8 <= _DARK:
                raise InputError(_BLANK)
        depth = next(depth for depth in depths if levels.max() < 2**depth)
        grey = (levels / ((2**depth - 1) / 255)).round().astype("uint8")
        if getattr(image, "tag_v2", {}).get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # 0 is white
            grey = 255 - grey
        notes.append("has 16 bits: scaled to 8 bits" if depth == 16 else f"has {depth} bits in 16: stretched to 8 bits")
        return Image.fromarray(grey if clear is None else np.dstack([grey, (levels != clear) * np.uint8(255)]))
    if bits > 8:  # of colours, Pillow takes the upper 8 bits
        if ";16" not in raw:  # but not of JPEG 2000, whose white would be black, and of channels one after the other
            raise InputError(f"has colours of {bits} bits that Pillow shows wrong: save it as PNG")
        bands = dict(zip(image.getbands(), image.getextrema(), strict=True))
        least, most = bands.pop("A", (255, 255))
        highest = max(high for _, high in bands.values())
        if highest <= _DARK and not (highest == 0 and least <= _DARK < most):  # or black ink on a transparent ground
            raise InputError(_BLANK)
        notes.append("has 16 bits: scaled to 8 bits")
        if clear is not None:
            image.info["transparency"] = tuple(level >> 8 for level in clear)
    elif clear is not None and raw in _FACTORS:
        image.info["transparency"] = clear * _FACTORS[raw]
    return image


def _lay_on(image, background, notes):
    """Lay transparent pixels on the background, as viewers do."""
    if image.mode in ("La", "LAB"):  # which cannot become every other mode
        image = image.convert("LA" if image.mode == "La" else "RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        if layer.getchannel("A").getextrema()[0] < 255:
            ground = Image.new("RGBA", image.size, (background, background, background, 255))
            image = Image.alpha_composite(ground, layer).convert("RGB")
            shade = {0: "black", 255: "white"}.get(background, f"grey level {background}")
            notes.append(f"is transparent: laid on {shade}")
        elif image.mode == "P":
            image = layer
    return image


def _explain(error):
    """Say why an image cannot be read; what the system says contains the path."""
    if isinstance(error, MemoryError):
        return "does not fit into memory: save it smaller"
    return getattr(error, "strerror", None) or read_reason(error)


def _describe(images, folder, background):
    """Describe what is kept of some images, for who looks through the cache."""
    return {"version": VERSION, "folder": str(folder.absolute()), "images": len(images), "background": background}


def _name_cached(folder, key, ending):
    return folder / f"{hashlib.sha256(key).hexdigest()[:32]}.{ending}"


@contextmanager
def refuse_bombs():
    """Refuse small files that unpack to gigabytes: Pillow only warns below twice its limit, here the limit is one.

    Its other warnings are about what stands beside the pixels, such as Exif, and are not shown.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _resize(image, shape):
    height, width, channels = shape
    if image.mode != _MODES[channels]:  # convert() would copy it
        image = image.convert(_MODES[channels])
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=_REDUCING_GAP)
    return np.asarray(image).reshape(shape)
