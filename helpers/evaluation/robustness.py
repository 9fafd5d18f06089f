"""Robustness: how much of its accuracy a classifier keeps when the images are altered or corrupted."""

import numpy as np
import pandas as pd

from helpers.evaluation.bootstrap import bootstrap, compute_proportion
from helpers.evaluation.corruptions import SEVERITIES, corrupt
from helpers.evaluation.scores import encode_labels, get_probabilities
from helpers.progress import track


def compute_robustness(models, images, y_true, alter, strengths):
    """Score several models on images that are altered more and more, the same ones for all models.

    Parameters
    ----------
    models : dict of str to function ``images -> y_pred``
    images, y_true : array (n, height, width, channels) and its n labels
    alter : function ``(images, strength) -> images``

    Returns
    -------
    DataFrame ``strength, model, value, low, high``, one row per strength and model: the accuracy and its 95 % Wilson
    interval, which takes the images for independent.
    """
    rows = []
    for strength in track(strengths, "altering images and predicting them", unit="strength"):
        altered = alter(images, strength)
        for name, predict in models.items():
            accuracy = compute_proportion((predict(altered) == y_true).sum(), len(y_true))
            rows.append({"strength": strength, "model": name, **accuracy})
    return pd.DataFrame(rows)


def score_corruptions(
    predictors, images, predictions, names, severities=SEVERITIES, background=0, seed=0, resamples=1000
):
    """Score several models on corrupted images, the same ones for all models.

    The score is the balanced accuracy, and what sums up is its mean over corruptions and severities, as for ImageNet-C
    and MedMNIST-C (Hendrycks and Dietterich 2019; Di Salvo, Doerrich and Ledig 2024). These divide the errors by those
    of a reference network; here the scores of each model stand beside its own on the unaltered images.

    Parameters
    ----------
    predictors : dict of str to function ``images -> array (n, n_classes)`` of probabilities
    images : uint8 array (n, height, width, 1 or 3)
    predictions : DataFrame
        A table of predictions of these images in this order, by any model: it gives truth, groups and the order of the
        classes.
    names, severities, background, seed : what `corrupt` takes; one corruption and severity is in memory at a time

    Returns
    -------
    curves : DataFrame ``corruption, severity, model, value``
        The balanced accuracy; severity 0 is the unaltered image, once per corruption.
    summary : DataFrame with the index ``model``
        ``clean``, the score of the unaltered images; ``corrupted``, the mean score over all corruptions and severities,
        with its 95 % interval ``low, high`` over ``groups``, for which each image counts with the share of its
        corrupted versions that are classified right; ``kept``, corrupted / clean; ``worst``, the corruption with the
        lowest mean score.

    Raises
    ------
    ValueError
        There is not one prediction per image, no corruption, or a model gives another shape of probabilities.
    """
    names, severities = list(names), [int(severity) for severity in severities]
    if len(images) != len(predictions) or not (names and severities and len(images)):
        found = (
            f"{len(images)} images, {len(predictions)} predictions, {len(names)} names, {len(severities)} severities"
        )
        raise ValueError(f"There are {found}: expected at least one of each, and one prediction for each image.")
    class_names = get_probabilities(predictions)[1]
    y_true = encode_labels(predictions["y_true"], class_names)
    members = (y_true == np.unique(y_true)[:, None]).astype("float64")  # (n_true_classes, n)

    def find_right(altered):
        return {
            name: _predict(name, predict, altered, len(class_names)) == y_true for name, predict in predictors.items()
        }

    def score(right, weights):
        sizes = members @ weights
        return ((members @ (weights * right))[sizes > 0] / sizes[sizes > 0]).mean()

    ones, rows = np.ones(len(images)), []
    clean = {model: score(right, ones) for model, right in find_right(images).items()}
    shares = {model: np.zeros(len(images)) for model in predictors}
    for name in track(names, "corrupting images and predicting them", unit="corruption"):
        rows += [(name, 0, model, value) for model, value in clean.items()]
        for severity in severities:
            for model, right in find_right(corrupt(images, name, severity, seed, background)).items():
                rows.append((name, severity, model, score(right, ones)))
                shares[model] += right / (len(names) * len(severities))
    curves = pd.DataFrame(rows, columns=["corruption", "severity", "model", "value"])

    def compute(weights):
        return {model: score(share, weights) for model, share in shares.items()}

    parts = {model: list(members > 0) for model in predictors}
    table = bootstrap(compute, predictions["group"], resamples, seed, parts).rename_axis("model")
    means = curves[curves["severity"] > 0].pivot_table(index="model", columns="corruption", values="value")
    summary = table.rename(columns={"value": "corrupted"})
    summary.insert(0, "clean", pd.Series(clean))
    return curves, summary.assign(kept=summary["corrupted"] / summary["clean"], worst=means.idxmin(axis=1))


def _predict(name, predict, images, count):
    """Predict the number of the class of each image."""
    y_prob = np.asarray(predict(images))
    if y_prob.shape != (len(images), count):
        raise ValueError(
            f"{name} gave an array of shape {y_prob.shape}: expected probabilities of {len(images), count}."
        )
    return y_prob.argmax(axis=1)
