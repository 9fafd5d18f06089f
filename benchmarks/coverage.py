"""Coverage: how often a 95 % interval holds the truth, by number of groups, on predictions drawn from a known model.

``python -m benchmarks.coverage`` prints a table. The groups, such as patients, have one class each and from 1 to 100
images; the errors of a group go together. The calibration error is also measured of the same model with the
probabilities that are right, whose error is 0.
"""

import sys
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import norm

from helpers.evaluation.scores import compute_metrics, make_predictions

METRICS = ("accuracy", "balanced_accuracy", "roc_auc", "expected_calibration_error")
SEVERAL = (40, 20, 20, 15, 10, 8, 8)  # groups of each class, of seven
CASES = [(f"2 classes, {count} groups of each", (count, count)) for count in (5, 8, 12, 20, 40)]
CASES += [("2 classes, 8 and 40 groups", (8, 40)), (f"7 classes, {min(SEVERAL)} to {max(SEVERAL)} groups", SEVERAL)]


def draw_predictions(rng, groups, accuracy, correlation, calibrated=False):
    """Draw the predictions of a model with a known accuracy.

    Parameters
    ----------
    groups : sequence of int
        Number of groups of each class. The sizes of the groups are log-normal.
    accuracy : float
        Of two classes; of more of them the distance between the classes is the same.
    correlation : float
        Share of the variance of the scores that all images of a group have in common.
    calibrated : bool
        Whether the probabilities are those of Bayes' rule, so that the model is perfectly calibrated.
    """
    label = np.repeat(np.arange(len(groups)), groups)
    group = np.repeat(np.arange(len(label)), rng.lognormal(2, 1.2, len(label)).round().clip(1, 100).astype(int))
    shared, own = (rng.normal(size=(count, len(groups))) for count in (len(label), len(group)))
    noise = np.sqrt(correlation) * shared[group] + np.sqrt(1 - correlation) * own
    distance = norm.ppf(accuracy) * np.sqrt(2)
    score = np.exp(distance * np.eye(len(groups))[label[group]] + noise)
    if calibrated:
        score = score**distance * groups
    names = [f"class {number}" for number in range(len(groups))]
    images = pd.DataFrame({"image_id": range(len(group)), "group": group, "label": np.array(names)[label[group]]})
    return make_predictions(images, score / score.sum(axis=1, keepdims=True), names)


def measure_coverage(groups, accuracy, correlation, repeats, resamples=200, compute=compute_metrics, calibrated=False):
    """Measure how often the intervals of drawn predictions hold the truth.

    The truth is the value over 4,000 groups; for the calibration error of a calibrated model it is 0.

    Return a DataFrame, a row per metric: ``coverage``; ``width``, the median; ``shown``, the share of draws
    that have an interval.
    """
    rng = np.random.default_rng(0)
    many = np.ceil(np.array(groups) * 4000 / sum(groups)).astype(int)
    draw = partial(draw_predictions, rng, accuracy=accuracy, correlation=correlation, calibrated=calibrated)
    truth = compute_metrics(draw(many), 0).loc[[*METRICS], "value"]
    if calibrated:
        truth["expected_calibration_error"] = 0
    truth = truth.to_numpy()
    drawn = [compute(draw(groups), resamples, seed).loc[[*METRICS], ["low", "high"]] for seed in range(repeats)]
    low, high = np.moveaxis(np.array(drawn), -1, 0)
    covered, shown = (low <= truth) & (truth <= high), ~np.isnan(low)
    about = {"coverage": covered.sum(axis=0) / shown.sum(axis=0), "width": np.nanmedian(high - low, axis=0)}
    return pd.DataFrame(about | {"shown": shown.mean(axis=0)}, index=METRICS)


def main(repeats=300):
    """Print the coverage of each case at accuracies of .70, .85 and .95."""
    print("| groups | accuracy, correlation | accuracy | balanced accuracy | ROC AUC | ECE | ECE, calibrated |")
    print("|---|---|---|---|---|---|---|")
    for name, groups in CASES:
        for accuracy, correlation in ((0.7, 0.3), (0.85, 0.2), (0.95, 0.1)):
            tables = [measure_coverage(groups, accuracy, correlation, repeats, calibrated=part) for part in (0, 1)]
            table = pd.concat([tables[0], tables[1].loc[["expected_calibration_error"]]])
            cells = [f"{100 * row['coverage']:.1f} % (width {row['width']:.3f})" for _, row in table.iterrows()]
            print(f"| {name} | {accuracy:g}, {correlation:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
