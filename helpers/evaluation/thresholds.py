"""Thresholds: from probabilities to an alarm, and what the alarm is worth.

``scores`` is always the table of `score_group_of_classes`. An alarm is raised where ``score >= threshold``.
"""

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import t

from helpers.evaluation.bootstrap import CONFIDENCE_LEVEL, bootstrap, compute_proportion
from helpers.evaluation.scores import _count_confusion, encode_labels, get_probabilities
from helpers.files import InputError

FEWEST_IMAGES = 20  # of a subgroup


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


def find_threshold(scores, *, specificity=None, sensitivity=None):
    """Find a threshold by validation images, given either the specificity or the sensitivity that it has to reach.

    It is the lowest one at which at least this share of the negative images stays below it, or the highest one at which
    at least this share of the positive images raises the alarm. Other combinations of the two, and no image of the kind
    that is asked about, are a ValueError.
    """
    if (specificity is None) == (sensitivity is None):
        raise ValueError(f"specificity={specificity} and sensitivity={sensitivity}: expected one of the two.")
    kind, share = ("negative", specificity) if sensitivity is None else ("positive", sensitivity)
    asked = np.sort(scores.loc[scores["positive"] == (kind == "positive"), "score"].to_numpy())
    if not len(asked):
        raise ValueError(f"There is no {kind} image to find a threshold by.")
    wrong = int(np.floor((1 - share) * len(asked) + 1e-9))  # as many may be on the wrong side
    if kind == "positive":
        return float(asked[wrong] if wrong < len(asked) else np.nextafter(scores["score"].max(), np.inf))
    return float(np.nextafter(asked[-wrong - 1], np.inf) if wrong < len(asked) else scores["score"].min())


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
    order = np.argsort(-score)
    last = np.flatnonzero(np.diff(score[order], append=-np.inf))  # of the images with the same score

    def find_rates(weights):
        """Give the share of images that raise an alarm, from the strictest threshold to the loosest."""
        raised = np.cumsum(weights[order])[last]
        return np.concatenate([[0], raised / raised[-1]])

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
        found, false_alarms = find_rates(true), find_rates(false)  # the ROC curve
        return values | {
            "roc_auc": np.trapezoid(found, false_alarms),
            "sensitivity_at_specificity": found[false_alarms <= 1 - specificity + 1e-9].max(),
        }

    both = [positive, ~positive]
    parts = {"sensitivity": both[:1], "specificity": both[1:], "precision": [alarm], "roc_auc": both}
    parts["sensitivity_at_specificity"] = both
    return bootstrap(compute, scores["group"], resamples, seed, parts)


def compute_subgroups(predictions, values, positive=None, threshold=None, resamples=1000, seed=0, least=FEWEST_IMAGES):
    """Compute how well the decisions are right in each subgroup, with 95 % intervals bootstrapped over groups.

    Parameters
    ----------
    values : DataFrame
        A row for each prediction in the same order, and a column for each kind of subgroup, such as sex or site. Images
        where it is missing are left out. The subgroups of a categorical column keep the order of its categories.
    positive : sequence of str, optional
        Classes that raise an alarm where the sum of their probabilities is at least ``threshold``, 0.5 by default.
        Without them the decision is the most probable class.
    least : int
        Subgroups with fewer images are left out.

    Returns
    -------
    DataFrame ``by, subgroup, metric, value, low, high, images, groups``, a row per subgroup and metric: accuracy,
    sensitivity and specificity, with the number of ``images`` that each rests on. Of the most probable class
    sensitivity is the mean over the true classes (balanced accuracy), and specificity the mean of those of each true
    class against the rest. The first rows, where ``by`` and ``subgroup`` are "all", are of all images. ``value`` is NaN
    where a subgroup lacks the images that a metric rests on.

    Raises
    ------
    InputError
        ``values`` has another number of rows, or there is a threshold without ``positive``.
    """
    if len(values) != len(predictions) or (threshold is not None and positive is None):
        raise InputError(
            f"Found {len(values)} rows of values, {len(predictions)} predictions, positive={positive!r} and "
            f"threshold={threshold!r}: expected as many rows as predictions, and no threshold without positive classes."
        )
    if positive is None:
        class_names = get_probabilities(predictions)[1]
        y_true, y_pred = (encode_labels(predictions[column], class_names) for column in ("y_true", "y_pred"))
    else:
        scores = score_group_of_classes(predictions, positive)
        y_true = scores["positive"].to_numpy(int)
        y_pred = (scores["score"] >= (0.5 if threshold is None else threshold)).to_numpy(int)
    subgroups = [("all", "all", np.arange(len(predictions)))]
    for by, column in values.reset_index(drop=True).items():
        subgroups += [(by, str(name), part.index) for name, part in column.groupby(column, observed=True)]
    tables = []
    for by, subgroup, rows in subgroups:
        if len(rows) >= least or by == "all":
            scored = np.unique(y_true[rows]) if positive is None else [1]
            groups = predictions["group"].to_numpy()[rows]
            table = _bootstrap_decisions(y_true[rows], y_pred[rows], scored, groups, resamples, seed).reset_index()
            counts = {"sensitivity": y_true[rows].sum(), "specificity": (y_true[rows] == 0).sum()} if positive else {}
            images = [counts.get(metric, len(rows)) for metric in table["metric"]]
            tables.append(table.assign(by=by, subgroup=subgroup, images=images))
    columns = ["by", "subgroup", "metric", "value", "low", "high", "images", "groups"]
    return pd.concat(tables, ignore_index=True)[columns]


def _bootstrap_decisions(y_true, y_pred, scored, groups, resamples, seed):
    """Bootstrap accuracy, and the mean sensitivity and specificity of the ``scored`` classes; labels are numbers."""
    count = max(y_true.max(), y_pred.max(), *scored) + 1

    def compute(weights):
        confusion = _count_confusion(y_true, y_pred, weights, count)
        total, hits = confusion.sum(), confusion.diagonal()[scored]
        true, alarms = confusion.sum(axis=1)[scored], confusion.sum(axis=0)[scored]
        return {
            "accuracy": confusion.trace() / total,
            "sensitivity": _average_ratio(hits, true),
            "specificity": _average_ratio(total - true - alarms + hits, total - true),
        }

    parts = {"sensitivity": [y_true == code for code in scored], "specificity": [y_true != code for code in scored]}
    return bootstrap(compute, groups, resamples, seed, parts)


def _average_ratio(parts, wholes):
    """Compute the mean of the ratios whose whole is not 0."""
    there = wholes > 0
    return (parts[there] / wholes[there]).mean() if there.any() else np.nan


def find_worst_subgroup(subgroups, metric="sensitivity"):
    """Find the subgroup with the lowest value of a metric, among those of `compute_subgroups` that have an interval.

    The lowest of many values is low by chance alone. Its interval is therefore widened, so that with 95 % confidence
    the intervals of all subgroups cover their truth (Bonferroni): its level is 1 - 0.05 / ``compared``. On the logit
    scale, on which `bootstrap` computes it, its half-width grows in proportion to Student's t, for which as many
    degrees of freedom as groups less one are taken; an exact interval, of a value of 0 or 1, is computed anew.

    Returns
    -------
    Series
        The row with the widened ``low`` and ``high``; ``compared``, the number of subgroups with an interval;
        ``overall``, the value of all images; and ``below``, whether the widened interval lies below it. None where no
        subgroup has an interval. An unknown metric is an InputError.
    """
    table = subgroups[subgroups["metric"] == metric]
    if table.empty:
        raise InputError(f"metric={metric!r}: expected one of {', '.join(subgroups['metric'].unique())}.")
    whole = table["by"] == "all"
    known = table[~whole & table["low"].notna()]
    if known.empty:
        return None
    worst, overall = known.loc[known["value"].idxmin()].copy(), table.loc[whole, "value"].iloc[0]
    tail, compared = (1 - CONFIDENCE_LEVEL) / 2, len(known)
    if worst["value"] in (0, 1):
        power = np.log(tail / compared) / np.log(tail)
        worst["low"], worst["high"] = worst["low"] ** power, 1 - (1 - worst["high"]) ** power
    else:
        ratio = np.divide(*t.isf([tail / compared, tail], worst["groups"] - 1))
        middle = logit(worst["value"])
        worst["low"], worst["high"] = (expit(middle + ratio * (logit(worst[end]) - middle)) for end in ("low", "high"))
    return pd.concat([worst, pd.Series({"compared": compared, "overall": overall, "below": worst["high"] < overall})])
