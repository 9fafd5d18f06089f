"""Thresholds: from probabilities to an alarm, and what the alarm is worth.

``scores`` is always the table of `score_group_of_classes`. An alarm is raised where ``score >= threshold``.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from helpers.evaluation.bootstrap import bootstrap, compute_proportion
from helpers.evaluation.scores import get_probabilities


def score_group_of_classes(predictions, classes):
    """Turn predictions of several classes into the question whether an image shows one of ``classes``.

    Return a DataFrame ``image_id, group``; ``positive``, the truth; and ``score``, the sum of the probabilities of
    ``classes``. An unknown class is a ValueError.
    """
    _, class_names = get_probabilities(predictions)
    classes = list(dict.fromkeys(map(str, classes)))
    if unknown := set(classes) - set(class_names):
        raise ValueError(f"No such class: {', '.join(sorted(unknown))}. Known: {', '.join(class_names)}.")
    score = predictions[[f"p_{name}" for name in classes]].sum(axis=1)
    return predictions[["image_id", "group"]].assign(
        positive=predictions["y_true"].astype(str).isin(classes), score=score
    )


def find_threshold(scores, specificity=0.9):
    """Find the lowest threshold at which at least this share of the negative validation images stays below it."""
    negative = np.sort(scores.loc[~scores["positive"], "score"].to_numpy())
    if not len(negative):
        raise ValueError("There is no negative image, so that there is no specificity.")
    spared = len(negative) - int(np.floor((1 - specificity) * len(negative) + 1e-9))
    return float(np.nextafter(negative[spared - 1], np.inf) if spared > 0 else scores["score"].min())


def find_balanced_threshold(scores):
    """Find the threshold at which the smaller one of sensitivity and specificity is largest: their equal error rate.

    It lies in the middle between two scores of validation images and does not depend on the share of positive ones.
    """
    parts = _split_scores(scores, "Positive and negative images are needed to balance sensitivity with specificity.")
    levels = np.unique(scores["score"])
    middles = np.concatenate([levels[:1], (levels[:-1] + levels[1:]) / 2])
    missed, spared = (np.searchsorted(np.sort(part), middles) / len(part) for part in parts)
    worse = np.minimum(1 - missed, spared)
    best = np.flatnonzero(worse >= worse.max() - 1e-12)
    return float(middles[best[len(best) // 2]])


def compute_net_benefit(scores, thresholds):
    """Compute what acting on the alarms is worth, in found positives per image (Vickers and Elkin 2006).

    At a threshold p, from 0 to less than 1, a false alarm is held to cost p / (1 - p) of what a found positive is
    worth. The scores have to be calibrated probabilities. Return one row per threshold: ``threshold``; ``model``, the
    net benefit of acting on the alarms; ``all``, of acting on every image; ``none``, of never acting: 0.
    """
    positive, score = scores["positive"].to_numpy(), scores["score"].to_numpy()
    rows = []
    for threshold in thresholds:
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold {threshold}: expected at least 0 and less than 1.")
        row = {"threshold": threshold}
        for name, alarm in (("model", score >= threshold), ("all", np.ones_like(positive))):
            row[name] = (alarm & positive).mean() - threshold / (1 - threshold) * (alarm & ~positive).mean()
        rows.append(row | {"none": 0.0})
    return pd.DataFrame(rows)


def count_missed(scores, thresholds, per=1000):
    """Count what is missed, and how many false alarms are raised, at several thresholds.

    Return one row per threshold: ``threshold``; ``missed``, of ``per`` positives, and ``false_alarms``, of ``per``
    negatives, each with its 95 % Wilson interval, ``missed_low`` to ``missed_high`` and so on, which takes the images
    for independent.
    """
    positive, negative = _split_scores(scores, "Expected positive and negative images.")
    rows = []
    for threshold in thresholds:
        row = {"threshold": threshold}
        for name, wrong in (("missed", positive < threshold), ("false_alarms", negative >= threshold)):
            for end, value in compute_proportion(wrong.sum(), len(wrong)).items():
                row[name if end == "value" else f"{name}_{end}"] = per * value
        rows.append(row)
    return pd.DataFrame(rows)


def _split_scores(scores, complaint):
    """Return the scores of the positive and of the negative images; a ValueError if one kind is missing."""
    positive, score = scores["positive"].to_numpy(), scores["score"].to_numpy()
    if positive.all() or not positive.any():
        raise ValueError(complaint)
    return score[positive], score[~positive]


def compute_alarm_metrics(scores, threshold, specificity=0.9, resamples=1000, seed=0):
    """Score the alarms at a threshold from validation images, with 95 % intervals bootstrapped over groups.

    Return a table like `bootstrap`: accuracy, sensitivity, specificity and precision at the threshold; roc_auc; and
    sensitivity_at_specificity, at the given ``specificity``, read off the ROC curve of these very images: what the
    ranking allows, with a threshold that nobody knows beforehand. Sensitivity rests on the positive groups, specificity
    on the negative ones, what comes from the ROC curve on both, and precision on the groups with an alarm.
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

    both = [positive, ~positive]
    parts = {"sensitivity": both[:1], "specificity": both[1:], "precision": [alarm], "roc_auc": both}
    parts["sensitivity_at_specificity"] = both
    return bootstrap(compute, scores["group"], resamples, seed, parts)
