"""Calibration: probabilities that mean what they say, under the shares of classes that hold, and sets of classes.

``predictions`` is always the table of `helpers.evaluation.scores.make_predictions`.
"""

import math

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit

from helpers.evaluation.bootstrap import bootstrap, compute_proportion
from helpers.evaluation.scores import (
    BINS,
    bin_confidence,
    encode_labels,
    get_probabilities,
    is_right,
    replace_probabilities,
)

_SMALLEST = np.finfo("float32").tiny  # a network gives 0 for less


def compute_calibration(predictions, bins=BINS):
    """Compare confidence with accuracy in bins of confidence.

    Return one row per bin that has images: mean ``confidence``; ``accuracy`` with its 95 % Wilson interval, ``low`` to
    ``high``, which takes the images for independent; and the number of ``images``.
    """
    rows = []
    for _, part in predictions.groupby(bin_confidence(predictions["confidence"], bins)):
        accuracy = compute_proportion(is_right(part).sum(), len(part))
        rows.append({"confidence": part["confidence"].mean(), **accuracy, "images": len(part)})
    return pd.DataFrame(rows).rename(columns={"value": "accuracy"})


def fit_temperature(predictions):
    """Find the temperature, from 0.05 to 20, that makes the labels of validation images as likely as possible.

    It sharpens (below 1) or softens (above 1) all probabilities and leaves their order as it is (Guo et al. 2017). A
    temperature at one of the limits says that the images have none: the lower one where all of them are right, the
    upper one where the model tells nothing about them.
    """
    y_prob, class_names = get_probabilities(predictions)
    log_prob = np.log(np.maximum(y_prob, _SMALLEST))
    y_true = encode_labels(predictions["y_true"], class_names)

    def loss(log_temperature):
        scaled = log_prob / np.exp(log_temperature)
        return (np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(scaled)), y_true]).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def apply_temperature(predictions, temperature):
    """Sharpen or soften all probabilities by a temperature from `fit_temperature`; the classes stay the same."""
    y_prob, _ = get_probabilities(predictions)
    log_prob = np.log(np.maximum(y_prob, _SMALLEST)) / temperature
    return replace_probabilities(predictions, np.exp(log_prob - log_prob.max(axis=1, keepdims=True)))


def correct_prior(predictions, prior, new_prior=None):
    """Give the probabilities that hold where the classes have other shares than in training.

    By Bayes' rule each probability is divided by the share of its class in training and multiplied by the new share
    (Saerens et al. 2002). With equal new shares the most probable class is the one that maximizes balanced accuracy
    if the probabilities are right (Menon et al. 2021, logit adjustment).

    Parameters
    ----------
    prior, new_prior : sequence of float, one per class
        Shares of the classes in training, and those to correct for, which are equal by default.

    Examples
    --------
    >>> import pandas as pd
    >>> from helpers.evaluation.scores import make_predictions
    >>> images = pd.DataFrame({"image_id": ["i"], "group": ["g"], "label": ["rare"]})
    >>> table = make_predictions(images, [[0.7, 0.3]], ["common", "rare"])
    >>> correct_prior(table, prior=[0.9, 0.1])["y_pred"].item()
    'rare'
    """
    y_prob, class_names = get_probabilities(predictions)
    prior = _check_shares(prior, class_names)
    new_prior = 1 if new_prior is None else _check_shares(new_prior, class_names, positive=False)
    return replace_probabilities(predictions, y_prob * new_prior / prior)


def center_classes(predictions):
    """Put the scores of a model of two classes on a scale that those of other models share.

    Models that were trained apart have no common scale (Forman and Scholz 2010). The log odds are shifted so that 0
    lies in the middle between the means of the two true classes, in which each group counts the same. Predictions of a
    fold with one class alone, or of more classes, are a ValueError.
    """
    y_prob, class_names = get_probabilities(predictions)
    if len(class_names) != 2 or predictions["y_true"].nunique() != 2:
        raise ValueError(f"Expected images of two classes, got {sorted(predictions['y_true'].unique())}.")
    log_prob = np.log(np.maximum(y_prob, _SMALLEST))
    log_odds = pd.Series(log_prob[:, 1] - log_prob[:, 0], predictions.index)
    by_group = log_odds.groupby([predictions["y_true"], predictions["group"]]).mean()
    likely = expit(log_odds - by_group.groupby(level=0).mean().mean())
    return replace_probabilities(predictions, np.stack([1 - likely, likely], axis=1))


def estimate_prior(predictions, prior, steps=1000):
    """Estimate the shares of the classes among images without labels, from the predictions alone.

    Return an array (n_classes,) that sums to 1. ``prior`` has the shares of the classes in training. Expectation
    maximization (Saerens et al. 2002), in at most so many steps: the mean of the corrected probabilities is the next
    estimate. It is right if the probabilities are calibrated and the classes look the same as in training; neither is
    sure in a new place.
    """
    y_prob, class_names = get_probabilities(predictions)
    if not len(y_prob):
        raise ValueError("There are no predictions to estimate the shares of the classes from.")
    prior = _check_shares(prior, class_names)
    estimate = prior = prior / prior.sum()
    for _ in range(steps):
        corrected = y_prob * estimate / prior
        last, estimate = estimate, (corrected / corrected.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(estimate - last).max() < 1e-6:
            break
    return estimate


def _check_shares(shares, class_names, positive=True):
    """Check that there is a share for each class, at least 0 or positive; return them as an array."""
    shares = np.asarray(shares, "float64")
    enough = shares.all if positive else shares.any
    if shares.shape != (len(class_names),) or not (shares >= 0).all() or not enough():
        raise ValueError(f"prior {shares}: expected a positive share for each of {', '.join(class_names)}.")
    return shares


def fit_conformal(predictions, coverage=0.9):
    """Find for each class the probability from which on it belongs to the set of an image.

    Split conformal prediction, separately for each class (Mondrian: Vovk 2012; least ambiguous sets: Sadinle et al.
    2019; Angelopoulos and Bates 2021): of n held-out images of a class, the threshold is the ``ceil((n + 1) *
    coverage)``-th largest probability given to it. Of further images of that class at least the share ``coverage``
    then has a set that holds it, on average over such draws of held-out images, however good or bad the model is.

    That is true of images exchangeable with the held-out ones. Images of new subjects are not: check the coverage for
    them with `score_sets` on subjects that neither the model nor the thresholds have seen.

    Parameters
    ----------
    predictions : DataFrame
        Of images held out from training, with the probabilities, calibrated or not, that `predict_sets` will be given.
    coverage : float between 0 and 1, both excluded

    Returns
    -------
    dict of str to float: for each class the threshold, 0 for classes with too few images for the coverage (fewer than
    9 for 0.9), which are in every set.

    Examples
    --------
    >>> from helpers.evaluation.scores import make_predictions
    >>> images = pd.DataFrame({"image_id": range(4), "group": range(4), "label": ["a", "a", "a", "b"]})
    >>> table = make_predictions(images, [[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]], ["a", "b"])
    >>> fit_conformal(table, coverage=0.5)
    {'a': 0.8, 'b': 0.7}
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage {coverage}: expected a share between 0 and 1.")
    y_prob, class_names = get_probabilities(predictions)
    thresholds = {}
    for score, name in zip(y_prob.T, class_names, strict=True):
        held_out = np.sort(score[predictions["y_true"].astype(str) == name])[::-1]
        rank = math.ceil((len(held_out) + 1) * coverage - 1e-9)  # 10 * 0.9 is no more than 9
        thresholds[name] = float(held_out[rank - 1]) if rank <= len(held_out) else 0.0
    return thresholds


def predict_sets(predictions, thresholds):
    """Put into the set of each image the classes whose probability reaches their threshold from `fit_conformal`.

    Of ``predictions`` only the probabilities are needed. Return a DataFrame aligned with them: ``in_<class>`` for each
    class, whether it is in the set; ``set_size``; and ``uncertain``, whether the set is not just the most probable
    class, but several, none or, rarely, another one. Thresholds of other classes are a ValueError.
    """
    y_prob, class_names = get_probabilities(predictions)
    if set(thresholds) != set(class_names):
        raise ValueError(f"There are thresholds of {list(thresholds)}; expected those of {class_names}.")
    held = y_prob >= np.array([thresholds[name] for name in class_names], "float64")
    sets = pd.DataFrame(held, predictions.index, [f"in_{name}" for name in class_names])
    sets["set_size"] = held.sum(axis=1)
    sets["uncertain"] = (sets["set_size"] != 1) | ~held[np.arange(len(held)), y_prob.argmax(axis=1)]
    return sets


def compute_abstaining(predictions, resamples=1000, seed=0):
    """Compute the accuracy where only the most confident images are answered and a person decides on the others.

    This is the risk-coverage curve (El-Yaniv and Wiener 2010) with accuracy in place of risk, in 20 steps from all
    images to 5 % of them. Images of equal confidence are answered together, so that there may be fewer steps.

    Return one row per step: the share of images ``answered``; the confidence from which on they are, ``threshold``;
    ``accuracy`` with its 95 % interval, ``low`` to ``high``, bootstrapped over groups for a threshold that is kept; and
    the answered ``images`` and their ``groups``. No predictions are a ValueError.
    """
    confidence, right = predictions["confidence"].to_numpy(), is_right(predictions).to_numpy()
    if not len(confidence):
        raise ValueError("There are no predictions, of which some could be answered.")
    ranks = -(-np.arange(20, 0, -1) * len(confidence) // 20)  # rounded up
    thresholds = np.unique(np.sort(confidence)[len(confidence) - ranks])
    step = np.searchsorted(thresholds, confidence, side="right") - 1  # the last one in which the image is answered

    def sum_answered(weights):
        return np.bincount(step, weights, len(thresholds))[::-1].cumsum()[::-1]

    def compute(weights):
        return dict(enumerate(sum_answered(weights * right) / sum_answered(weights)))

    parts = {number: [step >= number] for number in range(len(thresholds))}
    table = bootstrap(compute, predictions["group"], resamples, seed, parts).reset_index(drop=True)
    images = sum_answered(np.ones(len(step))).astype(int)
    table = table.rename(columns={"value": "accuracy"}).assign(
        answered=images / len(step), threshold=thresholds, images=images
    )
    return table[["answered", "threshold", "accuracy", "low", "high", "images", "groups"]]


def score_sets(predictions, thresholds, resamples=1000, seed=0):
    """Score the sets of labelled images, with 95 % intervals bootstrapped over groups.

    Neither the model nor the ``thresholds`` of `fit_conformal` have seen these images, nor their subjects if the
    coverage for new subjects is asked for.

    Return a table like `bootstrap`: coverage, the share of the images whose set holds the true class; mean_set_size;
    share_uncertain; accuracy_of_certain, of the other images; and ``coverage_<class>``; NaN where there are no images.
    ``groups`` are those of the images that a row is about.
    """
    sets = predict_sets(predictions, thresholds)
    y_true, uncertain = predictions["y_true"].astype(str).to_numpy(), sets["uncertain"].to_numpy()
    covered = sum((y_true == name) & sets[f"in_{name}"].to_numpy() for name in thresholds).astype(bool)
    everything = np.ones(len(predictions), bool)
    averages = {  # of which values over which images
        "coverage": (covered, everything),
        "mean_set_size": (sets["set_size"].to_numpy() / len(thresholds), everything),  # of all classes, for now
        "share_uncertain": (uncertain, everything),
        "accuracy_of_certain": (is_right(predictions).to_numpy(), ~uncertain),
    } | {f"coverage_{name}": (covered, y_true == name) for name in get_probabilities(predictions)[1]}

    values, rows = (np.array(part, "float64") for part in zip(*averages.values(), strict=True))
    values *= rows

    def compute(weights):
        totals = rows @ weights
        means = np.divide(values @ weights, totals, out=np.full(len(totals), np.nan), where=totals > 0)
        return dict(zip(averages, means, strict=True))

    parts = {name: [rows] for name, (_, rows) in averages.items()}
    table = bootstrap(compute, predictions["group"], resamples, seed, parts)
    table.loc["mean_set_size", ["value", "low", "high"]] *= len(thresholds)
    return table
