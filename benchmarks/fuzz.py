"""Damage images at random and read them: ``python -m benchmarks.fuzz [COUNT]``.

A damaged file has to be read, or refused with `InputError`: no crash, no hang, no warning, and nothing that a library
in C writes to stderr. What is read is compared with a strict decoder: TensorFlow for JPEG, PNG and GIF, else OpenCV.
"""

import argparse
import os
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from functools import partial
from io import BytesIO

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from helpers.data.pixels import decode_image, refuse_bombs
from helpers.files import InputError

SIZE = (48, 40)  # width, height
MOST_SECONDS = 10.0  # per file; what takes longer hangs
_TOLERANCE = 16  # grey levels that two decoders of an undamaged file stay below
_VARIANTS = (  # format, mode, how it is saved
    ("JPEG", "RGB", {"quality": 90}),
    ("JPEG", "RGB", {"quality": 90, "progressive": True, "exif": Image.Exif()}),
    ("JPEG", "L", {}),
    ("PNG", "RGB", {}),
    ("PNG", "L", {"compress_level": 0}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {"transparency": 3}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("GIF", "P", {}),
    ("GIF", "P", {"save_all": True}),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "L", {"compression": "tiff_adobe_deflate"}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("AVIF", "RGB", {}),
    ("JPEG2000", "RGB", {}),
    *((name, "L;16", {}) for name in ("PNG", "TIFF", "JPEG2000")),
    *((name, "RGB;16", {}) for name in ("PNG", "TIFF")),
)
_COLUMNS = ("files", "read", "refused", "wrong", "strict_refuses", "other_pixels", "seconds")


def main(arguments=None):
    """Run the command line; return the exit status: 1 if a file was neither read nor refused in the right way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=4000, help="how many files; default: %(default)s")
    table, wrong = measure(parser.parse_args(arguments).count)
    print(table.to_string(float_format="{:.3f}".format))
    print(*wrong, sep="\n")
    return int(bool(wrong))


def measure(count):
    """Damage so many files and read them.

    Returns
    -------
    DataFrame with a row per format: how many files were ``read``, ``refused`` and ``wrong``; of those that were read,
    how many the strict decoder refuses or decodes to other pixels; and the most ``seconds`` that a file took.

    list of str: what went wrong.
    """
    drawn = [_draw(*variant) for variant in _VARIANTS]
    rows, wrong = [], []
    for number in range(count):
        image_format = _VARIANTS[number % len(drawn)][0]
        content = damage(drawn[number % len(drawn)], np.random.default_rng(number))
        pixels, faults, seconds = _try_to_read(content)
        wrong += [f"{number} ({image_format}): {fault}" for fault in faults]
        strict = None if pixels is None else _decode_strictly(content, image_format)
        differs = strict is not None and np.abs(strict.astype(int) - pixels).max() > _TOLERANCE
        read = pixels is not None
        kinds = (1, read, not read and not faults, bool(faults), read and strict is None, differs, seconds)
        rows.append({"format": image_format} | dict(zip(_COLUMNS, kinds, strict=True)))
    table = pd.DataFrame(rows).groupby("format", sort=False)
    return table.agg(dict.fromkeys(_COLUMNS, "sum") | {"seconds": "max"}), wrong


def damage(content, rng):
    """Damage the content of a file: bits, blocks, its end, or fields of its header."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place, length = rng.integers(len(content)), rng.integers(1, 32)
        match rng.integers(6):
            case 0:
                content[place] ^= 1 << rng.integers(8)
            case 1:
                content[place : place + length] = rng.bytes(length)
            case 2:
                content[place:place] = rng.bytes(length)
            case 3:
                del content[place : place + length]
            case 4:
                del content[max(place, 1) :]
            case 5:
                start = rng.integers(min(64, len(content)))
                content[start : start + 4] = rng.choice(
                    [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\x7f\xff", rng.bytes(4)]
                )
    return bytes(content)


def _draw(image_format, mode, options):
    """Draw soft shapes with grain and save them: the content of a file."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    levels = np.stack([3 * x + y, 250 - 5 * y, 128 + 100 * np.sin(x / 7), 4 * y + x], axis=-1)
    image = Image.fromarray((levels + rng.normal(0, 5, levels.shape)).clip(0, 255).astype("uint8"))
    if mode.endswith(";16"):  # Pillow would write only grey ones
        levels = 257 * np.asarray(image.convert(mode[:-3])).astype("uint16")
        return cv2.imencode({"PNG": ".png", "TIFF": ".tiff", "JPEG2000": ".jp2"}[image_format], levels)[1].tobytes()
    image = image.convert("RGB").quantize(64) if mode == "P" else image.convert(mode)
    more = {"append_images": [image.rotate(180)]} if "save_all" in options else {}
    file = BytesIO()
    image.save(file, image_format, **options, **more)
    return file.getvalue()


def _try_to_read(content):
    """Read a file: its pixels, None if it is refused; what went wrong; and how many seconds it took."""
    pixels, faults, start = None, [], time.perf_counter()
    with warnings.catch_warnings(record=True) as warned, _catch_stderr() as written:
        warnings.simplefilter("always")
        try:
            with refuse_bombs():
                pixels = decode_image(content, (SIZE[1], SIZE[0], 3))[0]
        except InputError:
            pass
        except Exception as error:  # which would end a run
            faults.append(repr(error))
    seconds = time.perf_counter() - start
    faults += [str(warning.message) for warning in warned] + [text for text in written if text]
    return pixels, faults + [f"took {seconds:.1f} s"] * (seconds > MOST_SECONDS), seconds


@contextmanager
def _catch_stderr():
    """Give a list that holds what anything, also a library in C, wrote to stderr, when the block is left."""
    written, before = [], os.dup(2)
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        os.dup2(file.fileno(), 2)
        try:
            yield written
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            written.append(file.read().decode(errors="replace"))


def _decode_strictly(content, image_format):
    """Decode a file with another library: its pixels on a white ground, None if it refuses the file."""
    with _catch_stderr():
        try:
            if image_format in ("JPEG", "PNG", "GIF"):
                import tensorflow as tf  # here only: seconds that a test of the reading alone should not cost

                decode = {"JPEG": partial(tf.io.decode_jpeg, dct_method="INTEGER_ACCURATE"), "PNG": tf.io.decode_png}
                levels = decode.get(image_format, lambda content: tf.io.decode_gif(content)[0])(content).numpy()
            else:
                levels = cv2.imdecode(np.frombuffer(content, "uint8"), cv2.IMREAD_UNCHANGED)
                levels = levels if levels.ndim == 2 else levels[..., [2, 1, 0, 3][: levels.shape[2]]]
                levels = (levels // 257).astype("uint8") if levels.dtype == "uint16" else levels
            image = Image.fromarray(levels.squeeze()).convert("RGBA")
        except Exception:  # each library has its own errors
            return None
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return np.asarray(image.resize(SIZE, Image.Resampling.BILINEAR))


if __name__ == "__main__":
    sys.exit(main())
