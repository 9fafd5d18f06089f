"""Measure the training step: this project's arithmetic and batch normalization beside Keras as it comes.

``python benchmarks/training_step.py`` trains the same network on the same images in turn, A B A B ..., and prints
images per second and the ratio of each pair. Keras as it comes: float32 and ``keras.layers.BatchNormalization``.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from helpers.evaluation.report import read_cpu_name
from helpers.files import replace_atomically
from helpers.training import models

SHAPES = {"28x28x1": (28, 28, 1), "160x120x3": (120, 160, 3)}
FILTERS = ((32, 32), (64, 64), (128, 128))
RESULTS = Path(__file__).parent / "results.json"


def build(shape, precision):
    """Build the network of the notebooks; return it with the name of its precision."""
    precision = models.set_precision(precision)
    statistics_of_pixels = np.full(shape[-1], 128.0), np.full(shape[-1], 74.0)
    return models.build_cnn(shape, 10, statistics_of_pixels, filters=FILTERS), precision


def reopen_with_keras(model):
    """Save a model and open it with plain Keras, which gives it Keras's own batch normalization."""
    with tempfile.TemporaryDirectory() as folder:
        return keras.models.load_model(models.save_model(model, Path(folder) / "model.keras"))


def measure(model, images, labels, batch_size):
    """Train one epoch; return images per second."""
    start = time.perf_counter()
    model.fit(images, labels, batch_size=batch_size, verbose=0)
    return len(images) / (time.perf_counter() - start)


def compare(name, shape, pairs):
    """Train both in turn; return a row of results."""
    batch_size, count = (128, 4096) if shape[0] == 28 else (32, 256)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape), "uint8")
    labels = np.eye(10, dtype="float32")[rng.integers(0, 10, count)]
    ours, precision = build(shape, "auto")
    plain = reopen_with_keras(build(shape, "float32")[0])
    for model in (ours, plain):
        model.compile(keras.optimizers.AdamW(1e-3), "categorical_crossentropy")
        measure(model, images, labels, batch_size)  # tracing
    runs = [[measure(model, images, labels, batch_size) for model in (ours, plain)] for _ in range(pairs)]
    ratios = [a / b for a, b in runs]
    return {
        "what": f"training step, {name}",
        "ours": f"{precision}, fused batch normalization",
        "beside": "Keras as it comes: float32, its own batch normalization",
        "ours_images_per_second": round(statistics.median(a for a, _ in runs)),
        "beside_images_per_second": round(statistics.median(b for _, b in runs)),
        "ratio": {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)},
        "pairs": pairs,
    }


def main():
    """Run the benchmark and write ``benchmarks/results.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for name, shape in SHAPES.items():
        rows.append(compare(name, shape, options.pairs))
        ratio = rows[-1]["ratio"]
        print(
            f"{rows[-1]['what']}: {rows[-1]['ours_images_per_second']} against {rows[-1]['beside_images_per_second']} "
            f"images/s, ratio {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        )
    machine = {"cpu": read_cpu_name(), "cores": os.cpu_count(), "python": platform.python_version()}
    with replace_atomically(RESULTS) as unfinished:
        unfinished.write_text(json.dumps({**machine, "keras": keras.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
