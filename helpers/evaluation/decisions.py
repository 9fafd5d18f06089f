"""Decisions: from probabilities to the class or the alarm that a purpose asks for."""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from sklearn.metrics import roc_curve

from helpers.evaluation.metrics import bootstrap, compute_proportion, get_probabilities, replace_probabilities


def correct_prior(predictions, prior, new_prior=None):
    """Give the probabilities that hold where the classes have other shares than in training.

    By Bayes' rule each probability is divided by the share of its class in training and multiplied by the new share
    (Saerens et al. 2002). With equal new shares the most probable class is the one that maximizes balanced accuracy
    if the probabilities are right (Menon et al. 2021, logit adjustment).

    Parameters
    ----------
    predictions : DataFrame
        From `helpers.evaluation.metrics.make_predictions`.
    prior : sequence of float, one per class
        Shares of the classes in training.
    new_prior : sequence of float, optional
        Shares to correct for; equal ones by default.

    Returns
    -------
    DataFrame: ``predictions`` with other probabilities, ``y_pred`` and ``confidence``.

    Examples
    --------
    >>> import pandas as pd
    >>> from helpers.evaluation.metrics import make_predictions
    >>> images = pd.DataFrame({"image_id": ["i"], "group": ["g"], "label": ["rare"]})
    >>> table = make_predictions(images, [[0.7, 0.3]], ["common", "rare"])
    >>> correct_prior(table, prior=[0.9, 0.1])["y_pred"].item()
    'rare'
    """
    y_prob, class_names = get_probabilities(predictions)
    prior = _check_shares(prior, class_names)
    new_prior = (
        np.ones(len(class_names)) if new_prior is None else _check_shares(new_prior, class_names, positive=False)
    )
    return replace_probabilities(predictions, y_prob * new_prior / prior)


def estimate_prior(predictions, prior, steps=1000):
    """Estimate the shares of the classes among images without labels, from the predictions alone.

    Expectation maximization (Saerens et al. 2002): the mean of the corrected probabilities is the next estimate. Right
    if the probabilities are calibrated and the classes look the same as in training; neither is sure in a new place.

    Parameters
    ----------
    predictions : DataFrame
        From `helpers.evaluation.metrics.make_predictions`; the true labels are not used.
    prior : sequence of float, one per class
        Shares of the classes in training.
    steps : int
        At most so many.

    Returns
    -------
    array (n_classes,) that sums to 1
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


def fit_temperature(predictions):
    """Find the temperature that makes the probabilities of validation images as likely as possible.

    One number that sharpens (below 1) or softens (above 1) all probabilities and leaves their order as it is
    (Guo et al. 2017).

    Parameters
    ----------
    predictions : DataFrame
        Of validation images, from `helpers.evaluation.metrics.make_predictions`.

    Returns
    -------
    float from 0.05 to 20
    """
    y_prob, class_names = get_probabilities(predictions)
    log_prob = np.log(np.clip(y_prob, 1e-12, None))
    y_true = predictions["y_true"].map({name: code for code, name in enumerate(class_names)}).to_numpy()

    def loss(log_temperature):
        scaled = log_prob / np.exp(log_temperature)
        return (np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(scaled)), y_true]).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def apply_temperature(predictions, temperature):
    """Sharpen or soften all probabilities by a temperature from `fit_temperature`; the classes stay the same."""
    y_prob, _ = get_probabilities(predictions)
    log_prob = np.log(np.clip(y_prob, 1e-12, None)) / temperature
    return replace_probabilities(predictions, np.exp(log_prob - log_prob.max(axis=1, keepdims=True)))


def score_group_of_classes(predictions, classes):
    """Turn predictions of several classes into the question whether it is one of some.

    Parameters
    ----------
    predictions : DataFrame
        From `helpers.evaluation.metrics.make_predictions`.
    classes : sequence of str
        The classes that are to be found.

    Returns
    -------
    DataFrame ``image_id, group, positive``, the truth; and ``score``, the sum of the probabilities of ``classes``.
    """
    _, class_names = get_probabilities(predictions)
    if unknown := set(classes) - set(class_names):
        raise ValueError(f"No such class: {', '.join(sorted(unknown))}. Known: {', '.join(class_names)}.")
    table = predictions[["image_id", "group"]].copy()
    table["positive"] = predictions["y_true"].isin(classes)
    table["score"] = predictions[[f"p_{name}" for name in dict.fromkeys(classes)]].sum(axis=1)
    return table


def find_threshold(scores, specificity=0.9):
    """Find the lowest threshold at which at least this share of the negatives stays below it.

    Parameters
    ----------
    scores : DataFrame
        Of validation images, from `score_group_of_classes`.

    Returns
    -------
    float: an alarm is raised where ``score >= threshold``.
    """
    negative = np.sort(scores.loc[~scores["positive"], "score"].to_numpy())
    if not len(negative):
        raise ValueError("There is no negative image, so that there is no specificity.")
    allowed = int(np.floor((1 - specificity) * len(negative) + 1e-9))  # false alarms
    if allowed >= len(negative):
        return float(scores["score"].min())
    return float(np.nextafter(negative[len(negative) - allowed - 1], np.inf))


def find_balanced_threshold(scores):
    """Find the threshold at which the smaller one of sensitivity and specificity is largest: their equal error rate.

    It does not depend on how frequent the positive images are.

    Parameters
    ----------
    scores : DataFrame
        Of validation images, from `score_group_of_classes`.

    Returns
    -------
    float: an alarm is raised where ``score >= threshold``. It lies in the middle between two scores.
    """
    positive, score = scores["positive"].to_numpy(), scores["score"].to_numpy()
    if positive.all() or not positive.any():
        raise ValueError("Positive and negative images are needed to balance sensitivity with specificity.")
    levels = np.unique(score)
    middles = np.concatenate([[levels[0]], (levels[:-1] + levels[1:]) / 2])
    missed = np.searchsorted(np.sort(score[positive]), middles) / positive.sum()
    spared = np.searchsorted(np.sort(score[~positive]), middles) / (~positive).sum()
    worse = np.minimum(1 - missed, spared)
    best = np.flatnonzero(worse >= worse.max() - 1e-12)
    return float(middles[best[len(best) // 2]])


def compute_net_benefit(scores, thresholds):
    """Compute what acting on the alarms is worth, in found positives per image (Vickers and Elkin 2006).

    At a threshold p a false alarm is held to cost p / (1 - p) of what a found positive is worth. The scores have to be
    calibrated probabilities.

    Parameters
    ----------
    scores : DataFrame
        From `score_group_of_classes`.
    thresholds : sequence of float between 0 and 1

    Returns
    -------
    DataFrame with one row per threshold: ``threshold``; ``model``, the net benefit of acting on the alarms; ``all``, of
    acting on every image; ``none``, of never acting: 0.
    """
    positive, score = scores["positive"].to_numpy(), scores["score"].to_numpy()
    rows = []
    for threshold in thresholds:
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold {threshold}: expected at least 0 and less than 1.")
        cost = threshold / (1 - threshold)
        alarm = score >= threshold
        net = {
            "model": (alarm & positive).mean() - cost * (alarm & ~positive).mean(),
            "all": positive.mean() - cost * (~positive).mean(),
            "none": 0.0,
        }
        rows.append({"threshold": threshold} | net)
    return pd.DataFrame(rows)


def count_missed(scores, thresholds, of=1000):
    """Count what is missed, and how many false alarms are raised, at several thresholds.

    Parameters
    ----------
    scores : DataFrame
        From `score_group_of_classes`.
    thresholds : sequence of float
    of : int
        Per how many positive, or negative, images.

    Returns
    -------
    DataFrame with one row per threshold: ``threshold``; ``missed`` positives per ``of`` positives, and ``false_alarms``
    per ``of`` negatives, each with its 95 % Wilson interval, ``missed_low`` to ``missed_high`` and so on.

    Raises
    ------
    ValueError
        There are no positive images, or no negative ones.
    """
    positive, score = scores["positive"].to_numpy(), scores["score"].to_numpy()
    if positive.all() or not positive.any():
        raise ValueError("Expected positive and negative images.")
    rows = []
    for threshold in thresholds:
        missed = compute_proportion((score[positive] < threshold).sum(), positive.sum())
        false_alarms = compute_proportion((score[~positive] >= threshold).sum(), (~positive).sum())
        row = {"threshold": threshold}
        for name, proportion in (("missed", missed), ("false_alarms", false_alarms)):
            row[name] = of * proportion["value"]
            row |= {f"{name}_{end}": of * proportion[end] for end in ("low", "high")}
        rows.append(row)
    return pd.DataFrame(rows)


def compute_alarm_metrics(scores, threshold, specificity=0.9, resamples=1000, seed=0):
    """Score alarms with 95 % intervals bootstrapped over groups.

    Parameters
    ----------
    scores : DataFrame
        From `score_group_of_classes`.
    threshold : float
        From `find_threshold` on validation images.
    specificity : float
        For ``sensitivity_at_specificity``.

    Returns
    -------
    DataFrame with the index ``metric`` and the columns ``value, low, high``: accuracy, sensitivity, specificity and
    precision at the threshold; roc_auc; and sensitivity_at_specificity, read off the ROC curve of these very images:
    what the ranking allows, with a threshold that nobody knows beforehand.
    """
    positive, score = scores["positive"].to_numpy(), scores["score"].to_numpy()
    alarm = score >= threshold

    def compute(weights):
        true, false = weights * positive, weights * ~positive
        values = {
            "accuracy": (true[alarm].sum() + false[~alarm].sum()) / weights.sum(),
            "sensitivity": true[alarm].sum() / true.sum() if true.any() else np.nan,
            "specificity": 1 - false[alarm].sum() / false.sum() if false.any() else np.nan,
            "precision": true[alarm].sum() / weights[alarm].sum() if weights[alarm].any() else np.nan,
        }
        if not (true.any() and false.any()):
            return values | {"roc_auc": np.nan, "sensitivity_at_specificity": np.nan}
        rates = roc_curve(positive, score, sample_weight=weights, drop_intermediate=False)[:2]
        return values | {
            "roc_auc": np.trapezoid(rates[1], rates[0]),
            "sensitivity_at_specificity": rates[1][rates[0] <= 1 - specificity + 1e-9].max(),
        }

    return bootstrap(compute, scores["group"], resamples, seed)


def _check_shares(shares, class_names, positive=True):
    shares = np.asarray(shares, "float64")
    right = shares.shape == (len(class_names),) and (shares >= 0).all() and shares.any()
    if not right or (positive and not shares.all()):
        raise ValueError(f"prior {shares}: expected a positive share for each of {', '.join(class_names)}.")
    return shares
