"""Memory: the peak of preparing images and of training on them, which should not grow with their number."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common import compare, draw_images, measure_in_turn, read_peak_memory, run_alone
from helpers.data.pixels import load_pixels
from helpers.data.preprocess import compute_statistics, one_hot

SIZES = {"10,000": 10_000, "30,000": 30_000, "87,000": 87_000}
SHAPE, BATCH_SIZE = (120, 160, 3), 32
IMAGES_OF_EPOCH = 10_000  # of each data set, drawn from all of it
FILTERS = ((16,), (32,), (64,))


def prepare_and_train(images, folder, most):
    """Prepare a data set, and train a small network of the notebooks' kind for an epoch; return the peak in GB."""
    from helpers.training import fast, fit, networks

    pixels = load_pixels(images, folder, SHAPE, folder.parent / "cache")
    order = np.random.default_rng(0).permutation(len(images))
    held_out, trained = np.split(order, [len(order) // 20])
    y = one_hot(images["label"], sorted(images["label"].unique()))
    statistics = compute_statistics(pixels, trained)
    fast.set_seed(0)
    fast.set_precision("auto")
    model = networks.build_cnn(SHAPE, y.shape[1], statistics, filters=FILTERS, first_stride=2, average_pooling=True)
    held_out, trained = held_out[:500], trained[:most]
    training, validation = ((pixels, y[rows], rows) for rows in (trained, held_out))
    fit.fit_model(model, training, validation, fit.Recipe(epochs=1, batch_size=BATCH_SIZE))
    return read_peak_memory()


def measure_peak(count, most):
    """Draw images, and measure in a process of its own what preparing and training on them takes."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        images = draw_images(folder, count, tuple(SHAPE[1::-1]), SHAPE[2], min(count, 500), noise=4.0)
        return run_alone(prepare_and_train, images, folder, most)


def measure_memory(rounds=3, tiny=False):
    """Compare the peaks of 30,000 and of 87,000 images with that of 10,000."""
    sizes = {name: count // (200 if tiny else 1) for name, count in SIZES.items()}
    most = IMAGES_OF_EPOCH // (200 if tiny else 1)
    ways = {f"{name} images": partial(measure_peak, count, most) for name, count in sizes.items()}
    measured = measure_in_turn(ways, rounds)
    smallest, *larger = measured
    note = (
        f"all are prepared, from JPEGs of 160x120; the epoch is at most {most:,} of them, drawn from all; "
        f"filters {FILTERS}, first stride 2, batches of {BATCH_SIZE}"
    )
    return [compare(f"peak memory, {size}", size, smallest, measured, "GB", note=note) for size in larger]


ROWS = {"memory": measure_memory}
