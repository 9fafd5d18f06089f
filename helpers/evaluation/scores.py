"""Scores: computed from a table of predictions, each with a 95 % interval bootstrapped over groups.

``predictions`` is always the table of `make_predictions`; ``resamples`` and ``seed`` are those of `bootstrap`.
"""

from itertools import takewhile

import numpy as np
import pandas as pd
from sklearn.metrics import classification_report, precision_recall_curve, roc_curve

from helpers.evaluation.bootstrap import bootstrap

BINS = 15


def make_predictions(images, y_prob, class_names):
    """Put predicted probabilities beside the true labels, one row per image.

    Every metric, figure and export starts from this table.

    Parameters
    ----------
    images : DataFrame
        The predicted images in the order of ``y_prob``, with the columns ``image_id, group, label``.
    y_prob : array (n, n_classes)
    class_names : sequence
        Names that are numbers become text.

    Returns
    -------
    DataFrame ``image_id, group, y_true, y_pred, confidence`` and then ``p_<class>`` for each class.

    Raises
    ------
    ValueError
        An image has no group or a label that is no class, or not one row of probabilities.
    """
    class_names, labels = [str(name) for name in class_names], images["label"].astype(str)
    unknown = set(labels) - set(class_names)
    if unknown or images["group"].isna().any():
        raise ValueError(f"Each image needs a group and a label among {class_names}; unknown: {unknown or 'none'}.")
    y_prob = np.asarray(y_prob, "float64")
    if y_prob.shape != (len(images), len(class_names)):
        expected = f"({len(images)}, {len(class_names)}), a column for each of {class_names}"
        raise ValueError(f"y_prob has shape {y_prob.shape}, expected {expected}.")
    if not np.allclose(y_prob.sum(1), 1, atol=1e-3) or (y_prob < 0).any():
        raise ValueError("y_prob has negative values or rows that do not sum to 1: these are no probabilities.")
    return pd.DataFrame(
        {
            "image_id": images["image_id"].to_numpy(),
            "group": images["group"].to_numpy(),
            "y_true": labels.to_numpy(),
            "y_pred": np.array(class_names)[y_prob.argmax(1)],
            "confidence": y_prob.max(1),
            **{f"p_{name}": y_prob[:, number] for number, name in enumerate(class_names)},
        }
    )


def get_probabilities(predictions):
    """Take the probabilities out of a table of predictions: the columns ``p_<class>`` that follow ``confidence``.

    Columns added behind them do not count, because only the classes sum to 1. A table of nothing but probabilities
    needs no ``confidence``.

    Returns
    -------
    y_prob : array (n, n_classes)
    class_names : list of str
    """
    start = predictions.columns.get_loc("confidence") + 1 if "confidence" in predictions else 0
    numbers = set(predictions.select_dtypes("number"))
    columns = list(takewhile(lambda name: name in numbers and str(name).startswith("p_"), predictions.columns[start:]))
    y_prob = predictions[columns].to_numpy("float64")
    complete = np.flatnonzero(np.isclose(y_prob.cumsum(axis=1), 1, atol=1e-3).all(axis=0))
    count = complete[-1] + 1 if len(complete) else len(columns)
    return y_prob[:, :count], [name.removeprefix("p_") for name in columns[:count]]


def encode_labels(labels, class_names):
    """Number the labels, a Series, by the classes; a label that is no class is a ValueError."""
    codes = pd.Index(class_names).get_indexer(labels.astype(str))
    if (codes < 0).any():
        raise ValueError(f"{labels.name} has {sorted(set(labels[codes < 0]))}: expected labels among {class_names}.")
    return codes


def replace_probabilities(predictions, y_prob):
    """Put other probabilities into a table of predictions, scaled to sum to 1; the classes predicted follow them."""
    _, class_names = get_probabilities(predictions)
    y_prob = np.asarray(y_prob, "float64")
    y_prob = y_prob / y_prob.sum(axis=1, keepdims=True)
    return make_predictions(predictions.rename(columns={"y_true": "label"}), y_prob, class_names)


def compute_metrics(predictions, resamples=1000, seed=0):
    """Compute the metrics of a classifier with 95 % intervals.

    Images of one group are drawn together, because they are not independent (Efron and Tibshirani 1993, chapter 13).

    Returns
    -------
    DataFrame with the index ``metric`` and the columns ``value, low, high``: accuracy, balanced_accuracy (mean
    sensitivity over the classes), macro_f1, weighted_f1, roc_auc (one against the rest, mean over the classes),
    expected_calibration_error (15 bins) and majority_rate (share of the most frequent class: what guessing it scores).

    Notes
    -----
    The calibration error is a sum of absolute values, which chance only makes larger: of a well calibrated model
    its bootstrap interval lies too high and may leave the value out.
    """
    return bootstrap(_Counts(predictions).compute, predictions["group"], resamples, seed)


def accuracy(y_true, y_pred, groups=None, resamples=1000, seed=0):
    """Compute the accuracy from arrays of labels; ``groups`` and what is returned as for `roc_auc`."""
    return _score_labels("accuracy", y_true, y_pred, groups, resamples, seed)


def balanced_accuracy(y_true, y_pred, groups=None, resamples=1000, seed=0):
    """Compute the mean sensitivity from arrays of labels; ``groups`` and what is returned as for `roc_auc`."""
    return _score_labels("balanced_accuracy", y_true, y_pred, groups, resamples, seed)


def macro_f1(y_true, y_pred, groups=None, resamples=1000, seed=0):
    """Compute the mean F1 of the classes from arrays of labels; ``groups`` and what is returned as for `roc_auc`."""
    return _score_labels("macro_f1", y_true, y_pred, groups, resamples, seed)


def roc_auc(y_true, y_prob, groups=None, class_names=None, resamples=1000, seed=0):
    """Compute the ROC AUC from arrays, for more than two classes the mean of each against the rest.

    Parameters
    ----------
    y_true : sequence of length n
        Labels.
    y_prob : array (n, n_classes), or (n,) for the second one of two classes
        Probabilities.
    groups : sequence of length n, optional
        With them the result has a 95 % interval, for which whole groups are drawn.
    class_names : sequence, optional
        The classes in the order of ``y_prob``; by default the sorted labels.

    Returns
    -------
    float, or with ``groups`` a Series ``value, low, high, groups``, the last one their number.

    Raises
    ------
    ValueError
        The arrays differ in length, or a label is no class.

    Examples
    --------
    >>> roc_auc(["cat", "cat", "dog", "dog"], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    y_prob = np.asarray(y_prob, "float64")
    y_prob = np.stack([1 - y_prob, y_prob], axis=1) if y_prob.ndim == 1 else y_prob
    class_names = np.unique(y_true) if class_names is None else class_names
    return _score("roc_auc", y_true, y_prob, class_names, groups, resamples, seed)


def _score_labels(metric, y_true, y_pred, groups, resamples, seed):
    """Score labels, as if each prediction were sure."""
    class_names, codes = np.unique(np.concatenate([y_true, y_pred]), return_inverse=True)
    y_prob = np.eye(len(class_names))[codes[len(y_true) :]]
    return _score(metric, y_true, y_prob, class_names, groups, resamples, seed)


def _score(metric, y_true, y_prob, class_names, groups, resamples, seed):
    """Compute one metric from arrays, by `compute_metrics`."""
    numbers = np.arange(len(y_true))
    drawn = numbers if groups is None else np.asarray(groups)
    if not 0 < len(y_true) == len(y_prob) == len(drawn):
        lengths = f"{len(y_true)} true labels, {len(y_prob)} predictions and {len(drawn)} groups"
        raise ValueError(f"There are {lengths}: expected one of each for each image.")
    images = pd.DataFrame({"image_id": numbers, "group": drawn, "label": np.asarray(y_true)})
    table = make_predictions(images, y_prob, class_names)
    if groups is None:
        return float(compute_metrics(table, 0).loc[metric, "value"])
    scores = compute_metrics(table, resamples, seed).loc[metric]
    return pd.concat([scores, pd.Series({"groups": table["group"].nunique()})]).rename(metric)


def compare_metrics(predictions, others, resamples=1000, seed=0):
    """Compare two classifiers on the same images: the difference of each metric with a paired bootstrap interval.

    Returns
    -------
    DataFrame with the index ``metric`` and the columns ``value, low, high``: the metrics of `compute_metrics` for
    ``predictions`` minus those for ``others``, both scored on the same images in each resample.

    Raises
    ------
    ValueError
        The tables are not of the same images in the same order.
    """
    if not np.array_equal(predictions["image_id"], others["image_id"]):
        raise ValueError("The two tables of predictions are not of the same images in the same order.")
    counts = _Counts(predictions), _Counts(others)

    def compute(weights):
        first, second = (each.compute(weights) for each in counts)
        return {name: first[name] - second[name] for name in first}

    return bootstrap(compute, predictions["group"], resamples, seed)


def compute_class_report(predictions, class_names):
    """Compute the classification report: precision, recall (sensitivity), F1 and number of images for each class.

    Returns
    -------
    DataFrame with one row per class, then the macro and weighted averages; columns ``precision, recall, f1-score,
    support``.
    """
    report = classification_report(
        predictions["y_true"], predictions["y_pred"], labels=[*map(str, class_names)], output_dict=True, zero_division=0
    )
    table = pd.DataFrame(report).drop(columns=["accuracy", "micro avg"], errors="ignore").T
    return table.astype({"support": int}).rename_axis("class")


def compute_class_metrics(predictions, resamples=1000, seed=0):
    """Compute sensitivity, specificity, precision and ROC AUC of each class against the rest, with 95 % intervals.

    Returns
    -------
    DataFrame with one row per class and metric: ``class, metric, value, low, high``.
    """
    y_prob, class_names = get_probabilities(predictions)
    classes = []
    for score, name in zip(y_prob.T, class_names, strict=True):
        true, predicted = (predictions[column].to_numpy() == name for column in ("y_true", "y_pred"))
        classes.append((name, true, predicted, _Ranking(score, true)))

    def compute(weights):
        values = {}
        for name, true, predicted, ranking in classes:
            hits, positives, alarms = (weights[rows].sum() for rows in (true & predicted, true, predicted))
            negatives = weights.sum() - positives
            values |= {
                (name, "sensitivity"): hits / positives if positives else np.nan,
                (name, "specificity"): 1 - (alarms - hits) / negatives if negatives else np.nan,
                (name, "precision"): hits / alarms if alarms else np.nan,
                (name, "roc_auc"): ranking.compute_roc_auc(weights),
            }
        return values

    return bootstrap(compute, predictions["group"], resamples, seed).rename_axis(["class", "metric"]).reset_index()


def compute_metrics_by(predictions, values, resamples=1000, seed=0):
    """Compute the metrics separately for the images of each subgroup, such as each sex.

    The Series ``values`` has the subgroup of each image in the order of ``predictions``; images where it is missing are
    left out. The subgroups of a categorical Series keep the order of its categories.

    Returns
    -------
    DataFrame with one row per subgroup and metric: ``subgroup, images, groups, metric, value, low, high``.
    """
    values = pd.Series(values).set_axis(predictions.index)
    tables = []
    for subgroup, part in predictions.groupby(values, sort=True, observed=True):
        table = compute_metrics(part, resamples, seed).reset_index()
        about = {"subgroup": str(subgroup), "images": len(part), "groups": part["group"].nunique()}
        tables.append(table.assign(**about)[[*about, *table]])
    return pd.concat(tables, ignore_index=True)


def compute_roc(predictions):
    """Compute the ROC curve of each class against the rest.

    Returns
    -------
    DataFrame ``class, false_positive_rate, true_positive_rate, roc_auc``, point after point; classes of which there is
    no image, or nothing else, are left out.
    """
    parts = []
    for name, true, score, roc_auc in _list_rankings(predictions):
        false_positive_rate, true_positive_rate, _ = roc_curve(true, score)
        curve = {"false_positive_rate": false_positive_rate, "true_positive_rate": true_positive_rate}
        parts.append(pd.DataFrame({"class": name, **curve, "roc_auc": roc_auc}))
    return pd.concat(parts, ignore_index=True)


def compute_precision_recall(predictions):
    """Compute the precision-recall curve of each class against the rest.

    Returns
    -------
    DataFrame ``class, recall, precision, average_precision, prevalence``, point after point;
    ``prevalence`` the share of the class: what chance would reach.
    """
    parts = []
    for name, true, score, _ in _list_rankings(predictions):
        precision, recall, _ = precision_recall_curve(true, score)
        average_precision = -np.sum(np.diff(recall) * precision[:-1])
        about = {"average_precision": average_precision, "prevalence": true.mean()}
        parts.append(pd.DataFrame({"class": name, "recall": recall, "precision": precision, **about}))
    return pd.concat(parts, ignore_index=True)


def _list_rankings(predictions):
    """Give name, truth, score and ROC AUC of each class that can be told from others."""
    y_prob, class_names = get_probabilities(predictions)
    for score, name in zip(y_prob.T, class_names, strict=True):
        true = predictions["y_true"].to_numpy() == name
        if true.any() and not true.all():
            yield name, true, score, _Ranking(score, true).compute_roc_auc(np.ones(len(true)))


def find_errors(predictions, count=None):
    """List the rows of ``predictions`` that are wrong, the most confident first, at most ``count`` of them."""
    return predictions[~is_right(predictions)].sort_values("confidence", ascending=False, kind="stable").head(count)


def find_confused_pairs(predictions, count=10):
    """List the pairs of classes that are confused most often, in both directions together.

    Returns
    -------
    DataFrame of at most ``count`` rows: ``first`` and ``second``, the classes; ``errors``, the images of one taken for
    the other; ``share`` of the images of both classes.
    """
    wrong = predictions[~is_right(predictions)]
    pairs = pd.DataFrame(np.sort(wrong[["y_true", "y_pred"]].to_numpy(str), axis=1), columns=["first", "second"])
    table = pairs.value_counts(sort=False).rename("errors").reset_index()
    images = predictions["y_true"].value_counts()
    first, second = (table[name].map(images).fillna(0) for name in ("first", "second"))
    table = table.assign(share=table["errors"] / (first + second))
    table = table.sort_values(["errors", "share", "first"], ascending=[False, False, True], ignore_index=True)
    return table.head(count)


def is_right(predictions):
    """Tell for each prediction whether it is right, as a boolean Series."""
    return predictions["y_true"] == predictions["y_pred"]


class _Counts:
    """Predictions prepared for computing all metrics again and again under other weights of the images."""

    def __init__(self, predictions):
        y_prob, names = get_probabilities(predictions)
        true, predicted = (encode_labels(predictions[column], names) for column in ("y_true", "y_pred"))
        self._cell = true * len(names) + predicted
        self._n_classes = len(names)
        self._majority = np.bincount(true).argmax()
        self._right = is_right(predictions).to_numpy("float64")
        self._confidence = predictions["confidence"].to_numpy()
        self._bin = bin_confidence(self._confidence, BINS)
        present = [code for code in range(len(names)) if 0 < (true == code).sum() < len(true)]
        self._rankings = [_Ranking(y_prob[:, code], true == code) for code in present]
        if len(names) == 2:
            self._rankings = self._rankings[-1:]  # with two classes both are the same

    def compute(self, weights):
        """Compute the metrics with a weight for each image, as a dict."""
        confusion = np.bincount(self._cell, weights, self._n_classes**2).reshape(self._n_classes, -1)
        hits, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        total, present = true.sum(), true > 0
        f1 = np.divide(2 * hits, true + predicted, out=np.zeros_like(hits), where=true + predicted > 0)
        gap = np.bincount(self._bin, weights * (self._right - self._confidence))
        roc_aucs = [roc_auc for ranking in self._rankings if not np.isnan(roc_auc := ranking.compute_roc_auc(weights))]
        return {
            "accuracy": hits.sum() / total,
            "balanced_accuracy": (hits[present] / true[present]).mean(),
            "macro_f1": f1[present].mean(),
            "weighted_f1": (f1 * true).sum() / total,
            "roc_auc": np.mean(roc_aucs) if roc_aucs else np.nan,
            "expected_calibration_error": np.abs(gap).sum() / total,
            "majority_rate": true[self._majority] / total,
        }


class _Ranking:
    """One class against the rest, sorted once."""

    def __init__(self, score, is_positive):
        self._order = np.argsort(score, kind="stable")
        self._positive = is_positive[self._order]
        self._starts = np.flatnonzero(np.r_[True, np.diff(score[self._order]) > 0])  # of runs with equal scores

    def compute_roc_auc(self, weights):
        """Compute the weighted share of pairs in the right order, ties by half."""
        weights = weights[self._order]
        positive = np.add.reduceat(weights * self._positive, self._starts)
        negative = np.add.reduceat(weights * ~self._positive, self._starts)
        pairs = positive.sum() * negative.sum()
        below = np.cumsum(negative) - negative / 2
        return (positive * below).sum() / pairs if pairs else np.nan


def bin_confidence(confidence, bins):
    """Number the bin of each confidence, from 0."""
    return np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
