"""Scores: computed from a table of predictions, each with a 95 % interval bootstrapped over groups.

``predictions`` is always the table of `make_predictions`, also when it went through CSV, where classes such as "7"
become numbers; ``resamples`` and ``seed`` are those of `bootstrap`.
"""

from itertools import takewhile

import numpy as np
import pandas as pd
from scipy.stats import t
from sklearn.metrics import classification_report, precision_recall_curve, roc_curve

from helpers.evaluation.bootstrap import CONFIDENCE_LEVEL, FEWEST_GROUPS, bootstrap

BINS = 15


def make_predictions(images, y_prob, class_names):
    """Put predicted probabilities beside the true labels: the table that every metric, figure and export starts from.

    Parameters
    ----------
    images : DataFrame
        One row ``image_id, group, label`` for each row of ``y_prob``, an array (n, n_classes).
    class_names : sequence
        Names that are numbers become text.

    Returns
    -------
    DataFrame ``image_id, group, y_true, y_pred, confidence`` and then ``p_<class>`` for each class.

    Raises
    ------
    ValueError
        An image has no group, a label that is no class, or not one row of probabilities.
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
    """Return the probabilities of a table of predictions, an array (n, n_classes), and the list of class names.

    They are the columns ``p_<class>`` that follow ``confidence``, if there is one. Columns added behind them do not
    count, because only the classes sum to 1.
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
    The interval of the calibration error is that of `compute_calibration_error`.

    Returns
    -------
    DataFrame with the index ``metric`` and the columns ``value, low, high, groups`` of `bootstrap`: accuracy,
    balanced_accuracy (mean sensitivity over the true classes), macro_f1 (mean over the classes that are true or
    predicted), weighted_f1, roc_auc (one against the rest, mean over the true classes), expected_calibration_error
    (15 bins) and majority_rate (share of the most frequent class: what guessing it scores). Means over classes rest on
    the groups of each class, so that their ``groups`` are those of the class that has the fewest.
    """
    table = _bootstrap_metrics(_prepare_metrics(predictions), predictions, resamples, seed)
    _, *interval = _compute_calibration_error(predictions, table.loc["accuracy"], resamples, seed)
    table.loc["expected_calibration_error", ["low", "high"]] = interval
    return table


def compute_calibration_error(predictions, resamples=1000, seed=0):
    """Compute the expected calibration error (15 bins) with a 95 % interval.

    The error is a sum of absolute values, which chance only makes larger: of a well calibrated model it is too high, by
    at most the sum of the chance errors of all bins. The lower end is the value minus what this sum may reach: its mean
    over resamples of the groups, plus Student's t times its standard deviation; at least 0. If it is 0, the images
    cannot tell the model from a perfectly calibrated one. The upper end is the value plus t times the standard error of
    the sum in which each bin keeps its sign. Both ends are at least as far away as those of the accuracy, because the
    resamples of a model that hardly errs do not tell how often it does.

    Return a Series ``value, low, high, groups``. In simulations of 8 to 500 unequal groups, of which the images are
    alike, the interval held the error of the population, from 0 to 0.13, in 93 to 100 % of 300 draws. With 8 groups it
    is wide, and always so where the model hardly errs.
    """
    right = is_right(predictions).to_numpy("float64")
    metrics = bootstrap(
        lambda weights: {"accuracy": weights @ right / weights.sum()}, predictions["group"], resamples, seed
    )
    found = metrics.loc["accuracy"].rename("expected_calibration_error")
    found[["value", "low", "high"]] = _compute_calibration_error(predictions, found, resamples, seed)
    return found


def _compute_calibration_error(predictions, accuracy, resamples, seed):
    """Give value and both ends for `compute_calibration_error`; ``accuracy`` is a row ``value, low, high``."""
    codes, names = pd.factorize(predictions["group"].to_numpy())
    count, sizes = len(names), np.bincount(codes)
    confidence = predictions["confidence"].to_numpy()
    surplus = is_right(predictions).to_numpy("float64") - confidence
    cell = codes * BINS + bin_confidence(confidence, BINS)
    sums = np.c_[np.bincount(cell, surplus, count * BINS).reshape(count, BINS), sizes]  # a row for each group
    gaps = sums[:, :-1].sum(axis=0) / sizes.sum()
    value = np.abs(gaps).sum()
    if np.isnan(accuracy["low"]):
        return value, np.nan, np.nan
    rng = np.random.default_rng(seed)
    draws = (np.bincount(rng.integers(0, count, count), minlength=count).astype("float64") for _ in range(resamples))
    resampled = np.array([drawn @ sums for drawn in draws])
    errors = resampled[:, :-1] / resampled[:, -1:] - gaps
    freedom = max(sizes.sum() ** 2 / (sizes @ sizes) - 1, 0.1)  # of groups of one size, as in `bootstrap`
    factor = t.isf((1 - CONFIDENCE_LEVEL) / 2, freedom) * np.sqrt(1 + 1 / freedom)
    by_chance, signed = np.abs(errors).sum(axis=1), errors @ np.sign(gaps)
    least = max(accuracy["value"] - accuracy["low"], accuracy["high"] - accuracy["value"])
    low = value - max(by_chance.mean() + factor * by_chance.std(ddof=1), least)
    high = value + max(factor * signed.std(ddof=1), least)
    return value, max(low, 0), min(high, 1)


def _bootstrap_metrics(compute, predictions, resamples, seed, limits=(0, 1)):
    """Bootstrap metrics, of which the means over classes rest on the images of each true class."""
    y_true = predictions["y_true"].to_numpy()
    classes = [y_true == name for name in np.unique(y_true)]
    parts = {"balanced_accuracy": classes, "macro_f1": classes, "roc_auc": classes}
    table = bootstrap(compute, predictions["group"], resamples, seed, parts, limits)
    table.loc["expected_calibration_error", ["low", "high"]] = np.nan
    return table


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
    y_true : sequence of n labels
    y_prob : array (n, n_classes), or (n,) for the second one of two classes
    groups : sequence of length n, optional
        With them the result has a 95 % interval, for which whole groups are drawn.
    class_names : sequence, optional
        The classes in the order of ``y_prob``; by default the sorted labels.

    Returns
    -------
    float, or with ``groups`` a Series ``value, low, high, groups`` as in `compute_metrics`.

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
    return compute_metrics(table, resamples, seed).loc[metric]


def compare_metrics(predictions, others, resamples=1000, seed=0):
    """Compare two classifiers on the same images in the same order, which is checked.

    Return the table of `compute_metrics` for the difference of each metric, that of ``predictions`` minus that of
    ``others``; the intervals are paired: each resample draws the same images for both. Where the labels that a
    metric rests on are the same, and for ROC AUC and calibration error the probabilities, the interval is 0 to 0. Other
    differences of calibration errors have none, because chance makes each error larger by an unknown amount.
    """
    if not np.array_equal(predictions["image_id"], others["image_id"]):
        raise ValueError("The two tables of predictions are not of the same images in the same order.")
    compute_first, compute_second = _prepare_metrics(predictions), _prepare_metrics(others)

    def compute(weights):
        second = compute_second(weights)
        return {name: value - second[name] for name, value in compute_first(weights).items()}

    table = _bootstrap_metrics(compute, predictions, resamples, seed, limits=(-1, 1))
    same = ["majority_rate"]
    if np.array_equal(predictions["y_pred"].astype(str), others["y_pred"].astype(str)):
        same += ["accuracy", "balanced_accuracy", "macro_f1", "weighted_f1"]
        if np.array_equal(get_probabilities(predictions)[0], get_probabilities(others)[0]):
            same = table.index
    table.loc[table.index.isin(same) & (table["groups"] >= FEWEST_GROUPS), ["low", "high"]] = 0.0
    return table


def compute_class_report(predictions, class_names):
    """Return the classification report: a row per class, then the macro and weighted averages.

    The columns are ``precision, recall`` (sensitivity), ``f1-score`` and ``support`` (number of images).
    """
    labels = (predictions[column].astype(str) for column in ("y_true", "y_pred"))
    report = classification_report(*labels, labels=[*map(str, class_names)], output_dict=True, zero_division=0)
    table = pd.DataFrame(report).drop(columns=["accuracy", "micro avg"], errors="ignore").T
    return table.astype({"support": int}).rename_axis("class")


def compute_class_metrics(predictions, resamples=1000, seed=0):
    """Compute sensitivity, specificity, precision and ROC AUC of each class against the rest, with 95 % intervals.

    Return one row ``class, metric, value, low, high, groups`` per class and metric. Sensitivity rests on the groups of
    the class, specificity on the others, ROC AUC on both, and precision on the groups of which an image is predicted.
    """
    y_prob, names = get_probabilities(predictions)
    y_true, y_pred = (encode_labels(predictions[column], names) for column in ("y_true", "y_pred"))
    rankings, parts = [], {}
    for code, name in enumerate(names):
        true, predicted = y_true == code, y_pred == code
        rankings.append(_prepare_roc_auc(y_prob[:, code], true))
        rests_on = {"sensitivity": [true], "specificity": [~true], "precision": [predicted], "roc_auc": [true, ~true]}
        parts |= {(name, metric): rows for metric, rows in rests_on.items()}

    def compute(weights):
        confusion, values = _count_confusion(y_true, y_pred, weights, len(names)), {}
        counts = zip(confusion.diagonal(), confusion.sum(1), confusion.sum(0), strict=True)
        for name, compute_roc_auc, (hits, positives, alarms) in zip(names, rankings, counts, strict=True):
            negatives = weights.sum() - positives
            values |= {
                (name, "sensitivity"): hits / positives if positives else np.nan,
                (name, "specificity"): 1 - (alarms - hits) / negatives if negatives else np.nan,
                (name, "precision"): hits / alarms if alarms else np.nan,
                (name, "roc_auc"): compute_roc_auc(weights),
            }
        return values

    return (
        bootstrap(compute, predictions["group"], resamples, seed, parts).rename_axis(["class", "metric"]).reset_index()
    )


def compute_metrics_by(predictions, values, resamples=1000, seed=0):
    """Compute the metrics separately for the images of each subgroup, such as each sex.

    The Series ``values`` has the subgroup of each image in the order of ``predictions``; images where it is missing are
    left out. The subgroups of a categorical Series keep the order of its categories. Return one row ``subgroup, images,
    metric, value, low, high, groups`` per subgroup and metric.
    """
    values = pd.Series(values).set_axis(predictions.index)
    tables = []
    for subgroup, part in predictions.groupby(values, sort=True, observed=True):
        table = compute_metrics(part, resamples, seed).reset_index()
        about = {"subgroup": str(subgroup), "images": len(part)}
        tables.append(table.assign(**about)[[*about, *table]])
    return pd.concat(tables, ignore_index=True)


def average_by_group(predictions):
    """Average the probabilities of the images of each group: a table of predictions with one row per group.

    Each group counts the same then, however many images it has. One with several labels counts for the most frequent.
    """
    y_prob, class_names = get_probabilities(predictions)
    by_group = pd.DataFrame(y_prob, predictions.index).groupby(predictions["group"], sort=False).mean()
    label = predictions.groupby("group", sort=False)["y_true"].agg(lambda labels: labels.mode().iloc[0])
    images = pd.DataFrame({"image_id": label.index, "group": label.index, "label": label.to_numpy()})
    return make_predictions(images, by_group.to_numpy(), class_names)


def compute_roc(predictions):
    """Compute the ROC curve of each class against the rest, except classes that no image belongs to.

    Return a row ``class, false_positive_rate, true_positive_rate, roc_auc`` for each point. Images of one class alone
    are a ValueError.
    """
    parts = []
    for name, true, score in _split_classes(predictions, mixed=True):
        curve = dict(zip(("false_positive_rate", "true_positive_rate"), roc_curve(true, score), strict=False))
        roc_auc = _prepare_roc_auc(score, true)(np.ones(len(true)))
        parts.append(pd.DataFrame({"class": name, **curve, "roc_auc": roc_auc}))
    return pd.concat(parts, ignore_index=True)


def compute_precision_recall(predictions):
    """Compute the precision-recall curve of each class against the rest, for the classes of `compute_roc`.

    Return a row ``class, recall, precision, average_precision, prevalence`` for each point, but of those of one recall
    only for the first and the last; ``prevalence`` is the share of the class, which chance would reach.
    """
    parts = []
    for name, true, score in _split_classes(predictions, mixed=True):
        precision, recall, _ = precision_recall_curve(true, score, drop_intermediate=True)
        about = {"average_precision": -np.sum(np.diff(recall) * precision[:-1]), "prevalence": true.mean()}
        parts.append(pd.DataFrame({"class": name, "recall": recall, "precision": precision, **about}))
    return pd.concat(parts, ignore_index=True)


def _split_classes(predictions, mixed=False):
    """Give name, truth and score of each class, or only of those that some images belong to and others do not."""
    y_prob, class_names = get_probabilities(predictions)
    if mixed and predictions["y_true"].nunique() < 2:
        only = ", ".join(map(str, predictions["y_true"].unique())) or "no class"
        raise ValueError(f"All images are of {only}: a curve needs images of several classes.")
    for score, name in zip(y_prob.T, class_names, strict=True):
        true = predictions["y_true"].astype(str).to_numpy() == name
        if not mixed or 0 < true.sum() < len(true):
            yield name, true, score


def find_errors(predictions, count=None):
    """List the rows of ``predictions`` that are wrong, the most confident first, at most ``count`` of them."""
    return predictions[~is_right(predictions)].sort_values("confidence", ascending=False, kind="stable").head(count)


def find_confused_pairs(predictions, count=10):
    """List the at most ``count`` pairs of classes that are confused most often, in both directions together.

    The columns are ``first, second``, the classes; ``errors``, the images of one taken for the other; and ``share``,
    the errors per image of both classes.
    """
    wrong = predictions[~is_right(predictions)]
    pairs = pd.DataFrame(np.sort(wrong[["y_true", "y_pred"]].to_numpy(str), axis=1), columns=["first", "second"])
    table = pairs.value_counts(sort=False).rename("errors").reset_index()
    images = predictions["y_true"].astype(str).value_counts()
    table["share"] = table["errors"] / sum(table[name].map(images).fillna(0) for name in ("first", "second"))
    table = table.sort_values(["errors", "share", "first"], ascending=[False, False, True], ignore_index=True)
    return table.head(count)


def is_right(predictions):
    """Tell for each prediction whether it is right, as a boolean Series."""
    return predictions["y_true"].astype(str) == predictions["y_pred"].astype(str)


def _prepare_metrics(predictions):
    """Return the function ``weights -> dict`` that computes all metrics with a weight for each image."""
    y_prob, names = get_probabilities(predictions)
    y_true, y_pred = (encode_labels(predictions[column], names) for column in ("y_true", "y_pred"))
    count = len(names)
    majority = np.bincount(y_true).argmax()
    confidence = predictions["confidence"].to_numpy()
    bin_number = bin_confidence(confidence, BINS)
    surplus = is_right(predictions).to_numpy("float64") - confidence
    present = np.unique(y_true)[-1:] if count == 2 else np.unique(y_true)  # with two classes both ROC AUC are the same
    rankings = [_prepare_roc_auc(y_prob[:, code], y_true == code) for code in present]

    def compute(weights):
        confusion = _count_confusion(y_true, y_pred, weights, count)
        hits, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        total, present = true.sum(), true > 0
        f1 = np.divide(2 * hits, true + predicted, out=np.zeros_like(hits), where=true + predicted > 0)
        roc_aucs = [roc_auc for compute_roc_auc in rankings if not np.isnan(roc_auc := compute_roc_auc(weights))]
        return {
            "accuracy": hits.sum() / total,
            "balanced_accuracy": (hits[present] / true[present]).mean(),
            "macro_f1": f1[true + predicted > 0].mean(),
            "weighted_f1": (f1 * true).sum() / total,
            "roc_auc": np.mean(roc_aucs) if roc_aucs else np.nan,
            "expected_calibration_error": np.abs(np.bincount(bin_number, weights * surplus)).sum() / total,
            "majority_rate": true[majority] / total,
        }

    return compute


def _count_confusion(y_true, y_pred, weights, count):
    """Count the confusion matrix of so many classes: true ones in rows, predicted ones in columns."""
    return np.bincount(y_true * count + y_pred, weights, count**2).reshape(count, -1)


def _prepare_roc_auc(score, is_positive):
    """Return the function ``weights -> ROC AUC``: the weighted share of pairs in the right order, ties by half."""
    positive, negative = np.flatnonzero(is_positive), np.flatnonzero(~is_positive)
    negative = negative[np.argsort(score[negative])]
    below, up_to = (np.searchsorted(score[negative], score[positive], side) for side in ("left", "right"))

    def compute(weights):
        negatives, positives = np.concatenate([[0], np.cumsum(weights[negative])]), weights[positive]
        pairs = positives.sum() * negatives[-1]
        return positives @ (negatives[below] + negatives[up_to]) / (2 * pairs) if pairs else np.nan

    return compute


def bin_confidence(confidence, bins):
    """Number the bin of each confidence, from 0."""
    return np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
