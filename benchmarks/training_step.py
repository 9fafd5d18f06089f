"""Measure the training step: this project's batch normalization and arithmetic beside Keras as it comes.

``python benchmarks/training_step.py`` trains the same network on the same batch in turn, A B C A B C ..., and prints
images per second and the ratio in each round. Keras as it comes: float32 and its own batch normalization.
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
FILTERS = ((16, 32), (64, 64), (128, 128))
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


def measure(model, images, labels, steps):
    """Train on the same batch again and again; return images per second."""
    start = time.perf_counter()
    for _ in range(steps):
        model.train_on_batch(images, labels)
    return steps * len(images) / (time.perf_counter() - start)


def compare(name, shape, rounds):
    """Train all in turn; return a row of results for each of ours."""
    batch_size, steps = (128, 16) if shape[0] == 28 else (32, 4)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, *shape), "uint8")
    labels = np.eye(10, dtype="float32")[rng.integers(0, 10, batch_size)]
    float32, precision = build(shape, "float32")
    networks = {"keras": reopen_with_keras(float32), f"{precision}, fused": float32}
    fastest, precision = build(shape, "auto")
    networks.setdefault(f"{precision}, fused", fastest)
    for network in networks.values():
        network.compile(keras.optimizers.AdamW(1e-3), "categorical_crossentropy")
        measure(network, images, labels, 2)  # tracing
    speeds = {name: [] for name in networks}
    for _ in range(rounds):
        for key, network in networks.items():
            speeds[key].append(measure(network, images, labels, steps))
    plain = speeds.pop("keras")
    return [describe(f"training step, {name}, {key}", ours, plain) for key, ours in speeds.items()]


def describe(what, ours, plain):
    """Put the speeds of each round into a row of results."""
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    return {
        "what": what,
        "beside": "Keras as it comes: float32, its own batch normalization",
        "images_per_second": round(statistics.median(ours)),
        "images_per_second_beside": round(statistics.median(plain)),
        "ratio": {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)},
        "rounds": len(ratios),
    }


def main():
    """Run the benchmark and write ``benchmarks/results.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rows = []
    for name, shape in SHAPES.items():
        for row in compare(name, shape, options.rounds):
            rows.append(row)
            speeds = f"{row['images_per_second']} against {row['images_per_second_beside']} images/s"
            ratio = "ratio {median:.2f} ({low:.2f} to {high:.2f})".format(**row["ratio"])
            print(f"{row['what']}: {speeds}, {ratio}", flush=True)
    machine = {"cpu": read_cpu_name(), "cores": os.cpu_count(), "python": platform.python_version()}
    with replace_atomically(RESULTS) as unfinished:
        unfinished.write_text(json.dumps({**machine, "keras": keras.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
