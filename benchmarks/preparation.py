"""Preparation: decoding and resizing files, and opening the cache. All files are warm, in the system's cache of pages.

Each measurement is taken in a process of its own, so that none knows the files from an earlier one.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import compare, draw_images, measure_in_turn, run_alone
from helpers.data.pixels import load_pixels

SIZE = (160, 120)  # to resize to: width, height
FILES = {  # width, height, channels, noise that gives them the bytes per pixel of the originals, numbers to be opened
    "600x450": ((600, 450), 3, 16.0, (500, 10_000)),
    "X-rays 1900x1500": ((1900, 1500), 1, 3.0, (500, 5_856)),
    "160x120": (SIZE, 3, 4.0, (10_000, 87_000)),
}
SETTLING = 3  # seconds; hashes of files that have changed just before are not kept
LOOP, KERAS = "the usual loop of Pillow", "keras.utils.image_dataset_from_directory"


def time_cold(images, folder, channels):
    """Time `load_pixels` without a cache."""
    import joblib  # noqa: F401 - here only, and not timed: as Keras below

    with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
        return _time(lambda: load_pixels(images, folder, (*reversed(SIZE), channels), Path(cache)))


def time_cached(images, folder, channels):
    """Time `load_pixels` with a cache, which is made if it is missing, and reading all pixels."""
    prepare = partial(load_pixels, images, folder, (*reversed(SIZE), channels), folder.parent / "cache")
    return _time(lambda: np.array(prepare()))


def time_opening(images, folder, channels):
    """Time `load_pixels` with a cache, without reading the pixels."""
    return _time(partial(load_pixels, images, folder, (*reversed(SIZE), channels), folder.parent / "cache"))


def time_reading(images, folder):
    """Time reading the bytes of all files, which is the least that a cache without remembered hashes takes."""
    return _time(lambda: [(folder / path).read_bytes() for path in images["path"]])


def time_loop(images, folder, channels):
    """Time the loop that such notebooks contain."""

    def read(path):
        image = Image.open(folder / path)
        return np.asarray((image if channels == 3 else image.convert("L")).resize(SIZE))

    return _time(lambda: np.array([read(path) for path in images["path"]]))


def time_keras(folder, channels):
    """Time Keras's data set of a folder, made and read once."""
    import keras  # here only: the others do without

    def read():
        options = {"color_mode": "rgb" if channels == 3 else "grayscale", "image_size": tuple(reversed(SIZE))}
        data = keras.utils.image_dataset_from_directory(folder, shuffle=False, verbose=False, **options)
        return [batch for batch, _ in data]

    return _time(read)


def _time(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_files(name, rounds=5, tiny=False):
    """Compare images per second of some hundred files."""
    size, channels, noise, _ = FILES[name]
    count = 8 if tiny else 600 if channels == 3 else 200
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        images = draw_images(folder, count, size, channels, min(count, 50), noise)
        time.sleep(0 if tiny else SETTLING)
        about = images, folder, channels
        run_alone(time_cached, *about)  # makes the cache

        def rate(function, *arguments, one_core=False):
            return lambda: count / run_alone(function, *arguments, one_core=one_core)

        ways = {
            "ours, cold": rate(time_cold, *about),
            "ours, from the cache": rate(time_cached, *about),
            LOOP: rate(time_loop, *about),
            KERAS: rate(time_keras, folder, channels),
            "ours, cold, one core": rate(time_cold, *about, one_core=True),
            f"{LOOP}, one core": rate(time_loop, *about, one_core=True),
            f"{KERAS}, one core": rate(time_keras, folder, channels, one_core=True),
        }
        measured = measure_in_turn(ways, rounds)
    note = f"{count} JPEGs of {images.attrs['mean_kilobytes']:.0f} KB to 160x120x{channels}, pages warm"
    pairs = {
        "cold, loop": ("ours, cold", LOOP),
        "cold, one core": ("ours, cold, one core", f"{LOOP}, one core"),
        "cold, Keras": ("ours, cold", KERAS),
        "cold, Keras, one core": ("ours, cold, one core", f"{KERAS}, one core"),
        "cached": ("ours, from the cache", LOOP),
    }
    return [compare(f"preparation, {name}, {kind}", *pair, measured, note=note) for kind, pair in pairs.items()]


def measure_opening(name, rounds=5, tiny=False):
    """Compare opening a data set from the cache with merely reading the bytes of its files: seconds."""
    size, channels, noise, counts = FILES[name]
    rows = []
    for kind, count in zip(("small", "large"), (8, 16) if tiny else counts, strict=True):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "images"
            images = draw_images(folder, count, size, channels, min(count, 50), noise)
            time.sleep(0 if tiny else SETTLING)
            run_alone(time_opening, images, folder, channels)  # makes the cache
            ways = {
                "ours, opened from the cache": partial(run_alone, time_opening, images, folder, channels),
                "reading the bytes": partial(run_alone, time_reading, images, folder),
            }
            measured = measure_in_turn(ways, rounds)
        note = f"{count:,} files, {images.attrs['mean_kilobytes'] * count / 1e6:.2g} GB, pages warm"
        rows.append(compare(f"opening, {name}, {kind}", *ways, measured, "s", note=note))
    return rows


ROWS = {
    f"preparation-{kind}{name.replace(' ', '-')}": partial(measure, name)
    for kind, measure in (("", measure_files), ("opening-", measure_opening))
    for name, (size, *_) in FILES.items()
    if measure is measure_opening or size != SIZE  # nothing is to be resized
}
