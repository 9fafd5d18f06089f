"""Augmentation: whole batches here, image by image in Keras, and what an epoch takes with it and without."""

import time
from functools import partial

import numpy as np

from benchmarks.common import NETWORKS, compare, compute_rate, draw_pixels, measure_in_turn, run_alone
from benchmarks.networks import build, compile_as_fit, draw_batch
from helpers.training import augment, fit

SETTINGS = {  # of the same kind as the notebooks'
    "rotation_range": 20,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "zoom_range": 0.2,
    "horizontal_flip": True,
}
KERAS = "ImageDataGenerator.flow"


def measure_augmenter(name, rounds=9, tiny=False, one_core=False):
    """Compare `helpers.training.augment.make_augmenter` with ``ImageDataGenerator.flow``: images per second."""
    measured = run_alone(measure_both, name, rounds, tiny, one_core=one_core)
    where = ", one core" if one_core else ""
    return [compare(f"augmentation, {name}{where}", "ours", KERAS, measured)]


def measure_both(name, rounds, tiny):
    """Measure both in turn, in a process whose cores TensorFlow has counted."""
    images, labels = draw_batch(name)
    images = images.astype("uint8")
    calls = 1 if tiny else 4000 // len(images) if name == "28x28x1" else 20
    generator = augment.ImageDataGenerator(**SETTINGS)
    augmenter, rng = augment.make_augmenter(generator), np.random.default_rng(0)
    batches = generator.flow(images, labels, batch_size=len(images))
    works = {"ours": partial(augmenter, images, rng), KERAS: partial(next, batches)}
    for work in works.values():
        work()
    return measure_in_turn(
        {way: partial(compute_rate, work, len(images), calls) for way, work in works.items()}, rounds
    )


def measure_epoch(name, rounds=5, tiny=False):
    """Compare an epoch of `fit_model`'s batches with augmentation with one without: seconds."""
    shape, batch_size, _ = NETWORKS[name]
    steps = 2 if tiny else 60 if name == "28x28x1" else 30
    images, labels = draw_pixels(steps * batch_size, shape)
    training = images.astype("uint8"), labels
    model = compile_as_fit(build(name, "auto"))
    augmenter = augment.make_augmenter(augment.ImageDataGenerator(**SETTINGS))

    def train(augmenter):
        batches = fit.make_batches(training, fit.Recipe(1, batch_size, augment=augmenter), 0, range(steps))
        start = time.perf_counter()
        model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
        return time.perf_counter() - start

    train(augmenter)  # tracing
    measured = measure_in_turn(
        {"with augmentation": partial(train, augmenter), "without": partial(train, None)}, rounds
    )
    note = f"an epoch of {len(images):,} images"
    return [compare(f"fit, {name}", "with augmentation", "without", measured, "s", note=note)]


ROWS = {
    f"augmentation-{kind}{name}": partial(measure, name, **options)
    for name in ("160x120x3", "28x28x1")
    for kind, measure, options in (
        ("", measure_augmenter, {}),
        ("one-core-", measure_augmenter, {"one_core": True}),
        ("epoch-", measure_epoch, {}),
    )
}
