"""Evaluation: how long the answers to the questions of `helpers.review` take that need predictions alone.

``python -m benchmarks.evaluation [IMAGES]`` draws predictions of 10 classes and prints the seconds of each step, with
1,000 resamples of the bootstrap.
"""

import sys
import time

import numpy as np
import pandas as pd

from helpers.evaluation import baselines, calibration, choosing, labels, leaks, scores, thresholds

N_CLASSES, MODELS = 10, 5


def draw_predictions(rng, count):
    """Draw predictions of so many images in half as many groups, by a model that is right for about four in five."""
    group = rng.integers(0, count // 2, count)
    label = group % N_CLASSES
    logits = rng.normal(size=(count, N_CLASSES)) * 1.6 + 4 * np.eye(N_CLASSES)[label]
    y_prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = [f"class {number}" for number in range(N_CLASSES)]
    images = pd.DataFrame({"image_id": range(count), "group": group, "label": np.array(names)[label]})
    return scores.make_predictions(images, y_prob, names)


def measure_steps(count=10_000, resamples=1000):
    """Measure all steps for so many images: a Series of seconds, by name."""
    rng = np.random.default_rng(0)
    tested, held_out, shortcut = (draw_predictions(rng, count) for _ in range(3))
    shortcut = scores.replace_probabilities(tested, scores.get_probabilities(shortcut)[0])
    models = {f"model {number}": draw_predictions(np.random.default_rng(1), count) for number in range(MODELS)}
    models = {
        name: scores.replace_probabilities(table, rng.dirichlet(np.ones(N_CLASSES), count))
        for name, table in models.items()
    }
    leaked = rng.random(count) < 0.2
    values = pd.DataFrame({"sex": rng.integers(0, 2, count), "age": rng.integers(0, 5, count)}).astype(str)
    limits = calibration.fit_conformal(held_out)
    steps = {
        "metrics": lambda: scores.compute_metrics(tested, resamples),
        "metrics of each class": lambda: scores.compute_class_metrics(tested, resamples),
        "price of the leak": lambda: leaks.compute_price(tested, leaked, resamples=resamples),
        "temperature": lambda: calibration.fit_temperature(held_out),
        "reliability": lambda: calibration.compute_calibration(tested),
        "abstaining": lambda: calibration.compute_abstaining(tested, resamples),
        "sets of classes": lambda: calibration.score_sets(tested, limits, resamples),
        "shortcut balanced away": lambda: baselines.balance_away(tested, shortcut, resamples),
        "subgroups": lambda: thresholds.compute_subgroups(tested, values, resamples=resamples),
        "doubtful labels": lambda: labels.find_label_issues(tested),
        f"rule of choice, {MODELS} models": lambda: choosing.check_rule(models),
        "simple model or not": lambda: choosing.choose_simple(models, "model 0", ["model 1"], resamples=resamples),
    }
    seconds = {}
    for name, step in steps.items():
        start = time.perf_counter()
        step()
        seconds[name] = time.perf_counter() - start
    return pd.Series(seconds, name="seconds")


def main(arguments=None):
    """Print the table."""
    (count,) = map(int, (sys.argv[1:] if arguments is None else arguments) or [10_000])
    table = measure_steps(count)
    print(table.round(2).to_string())
    print(f"{table.sum():.1f} s in all for {count:,} predictions of {N_CLASSES} classes")


if __name__ == "__main__":
    main()
