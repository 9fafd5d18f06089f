"""Baselines: what can be scored from a few numbers, without looking at what an image shows.

A classifier that knows only sizes, brightness and the pixels along the border knows no shape and no texture. What it
scores is what a network could score by the same shortcut features.
"""

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from helpers.evaluation.bootstrap import bootstrap
from helpers.evaluation.scores import encode_labels, get_probabilities
from helpers.files import release_pages

_CHUNK = 256  # images described at a time


def compute_shortcut_features(pixels, rows=None, sizes=None):
    """Describe images by what should not matter.

    Parameters
    ----------
    pixels : uint8 array (n, height, width, channels), may be memory-mapped
    rows : array of int (m,), optional
        The images to describe; all by default.
    sizes : DataFrame, optional
        ``width`` and ``height`` as stored, and perhaps ``bytes``, the size of the file; a row for each of the m images,
        else a ValueError.

    Returns
    -------
    DataFrame of m rows. The first word of a column is its group:

    - ``brightness``: mean, standard deviation, 5th and 95th percentile of the grey levels, which are the mean of the
      channels.
    - ``colour``, of images with several channels: for each channel its mean relative to that of the grey levels, one
      level being added to both, so that a black image is grey.
    - ``border``: for each channel 8 pixels, the corners and the middles of the sides.
    - ``size``, where ``sizes`` are given: width, height and aspect ratio.
    - ``file``, where ``sizes`` has a column ``bytes``: bytes, and bytes per pixel.
    """
    rows = np.arange(len(pixels)) if rows is None else np.asarray(rows)
    if sizes is not None and len(sizes) != len(rows):
        raise ValueError(f"{len(sizes)} sizes for {len(rows)} images: expected the same number.")
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    table = pd.concat([_describe(np.asarray(pixels[chunk])) for chunk in chunks], ignore_index=True)
    release_pages(pixels)
    if sizes is not None:
        width, height = sizes["width"].to_numpy(), sizes["height"].to_numpy()
        table = table.assign(**{"size width": width, "size height": height, "size aspect": width / height})
        if "bytes" in sizes:
            stored = sizes["bytes"].to_numpy()
            table = table.assign(**{"file bytes": stored, "file bytes per pixel": stored / (width * height)})
    return table


def _describe(pixels):
    """Measure brightness, colour and border of each image; the last word of a column numbers the channel."""
    channels = range(pixels.shape[-1])
    grey = sum(pixels[..., code].astype("uint16") for code in channels).reshape(len(pixels), -1, 1)
    features = {"brightness mean": grey.mean(1), "brightness std": grey.std(1)}
    features |= {f"brightness p{level}": np.percentile(grey, level, axis=1) for level in (5, 95)}
    features = {name: values / len(channels) for name, values in features.items()}
    if len(channels) > 1:
        means = pixels.mean((1, 2)) + 1
        features["colour"] = means / means.mean(1, keepdims=True)
    rows, columns = ((0, side // 2, -1) for side in pixels.shape[1:3])
    places = [(row, column) for row in rows for column in columns]
    del places[4]  # the middle of the image
    features |= {f"border {number}": pixels[:, row, column] for number, (row, column) in enumerate(places, 1)}
    return pd.DataFrame(
        {f"{name} {code}": column for name, values in features.items() for code, column in enumerate(values.T)}
    )


def predict_with_forest(x_train, y_train, x_test, seed=42):
    """Train a random forest on features (n, n_features) of images; return the probabilities (m, n_classes) of others.

    ``y_train`` is one-hot (n, n_classes); a class without a training image is a ValueError.
    """
    _need_every_class(y_train)
    forest = RandomForestClassifier(300, min_samples_leaf=3, class_weight="balanced", random_state=seed, n_jobs=-1)
    forest.fit(x_train, y_train.argmax(axis=1))
    # In one thread, because threads add up the trees in any order, which changes the last bits.
    return forest.set_params(n_jobs=1).predict_proba(x_test)


def _need_every_class(y_train):
    if not y_train.any(axis=0).all():
        raise ValueError("A class has no training image, so that no baseline could learn it.")


def predict_shortcuts(features, y_train, train, test, groups=None):
    """Train a logistic regression on each group of shortcut features, and one on all of them; predict other images.

    On real images a regression is as good as a random forest and many times faster: trained on 60 % of at most 3,000
    HAM10000 images, chest X-rays, melanomas and leukemia cells, both had a mean ROC AUC of 0.848 on the other groups.

    Parameters
    ----------
    features : DataFrame
        From `compute_shortcut_features`: the first word of a column is its group.
    y_train : array (n, n_classes)
        One-hot labels of the images in ``train``; a class without one is a ValueError.
    train, test : arrays of int, or of bool
        The rows of ``features`` to train on and those to predict, m in number.
    groups : sequence of str, optional
        The groups to use, all by default; an unknown one is a ValueError.

    Returns
    -------
    dict from the name of each group, and at last ``"all shortcuts"``, to probabilities (m, n_classes).
    """
    _need_every_class(y_train)
    first_words = features.columns.str.partition(" ").get_level_values(0)
    groups = list(dict.fromkeys(first_words)) if groups is None else list(groups)
    unknown = set(groups) - set(first_words)
    if unknown or not groups:
        raise ValueError(f"groups={groups}: expected some of {list(dict.fromkeys(first_words))}.")
    columns = {name: first_words == name for name in groups} | {"all shortcuts": first_words.isin(groups)}
    x_train, x_test = features.iloc[train].to_numpy("float64"), features.iloc[test].to_numpy("float64")
    return {
        name: fit_regression(x_train[:, chosen], y_train).predict_proba(x_test[:, chosen])
        for name, chosen in columns.items()
    }


def fit_regression(x, y, penalty=True):
    """Fit a logistic regression on features (n, n_features), each class of the one-hot ``y`` with the same weight.

    Return a scikit-learn pipeline with ``predict_proba``; it standardizes the features first. The ridge penalty keeps
    weights finite where features tell the classes apart without error. It makes them too small, the more so the fewer
    images there are: to calibrate probabilities do without it.
    """
    regression = LogisticRegression(C=1.0 if penalty else np.inf, class_weight="balanced", max_iter=1000)
    with threadpool_limits(1):  # so few numbers are multiplied that several threads only wait for one another
        return make_pipeline(StandardScaler(), regression).fit(x, y.argmax(axis=1))


def get_coefficients(regression):
    """Take the coefficients out of a regression of two classes from `fit_regression`.

    Return floats, for the log odds of the second class: the intercept, then the weight of each feature as it was given.
    """
    scaler, logistic = regression
    weights = logistic.coef_[0] / scaler.scale_
    return float(logistic.intercept_[0] - weights @ scaler.mean_), *weights.tolist()


def regression_to_dense(regression):
    """Turn a regression from `fit_regression` into weights of a dense layer with a softmax, for features as given.

    Return the kernel (n_features, n_classes) and the bias (n_classes,), float32. Two classes have one row of
    coefficients, for the log odds of the second class: the first class gets the weights 0, which is the same.
    """
    scaler, logistic = regression
    weights, intercept = logistic.coef_ / scaler.scale_, logistic.intercept_
    bias = intercept - weights @ scaler.mean_
    if len(weights) == 1:
        weights, bias = np.vstack([0 * weights, weights]), np.r_[0, bias]
    return weights.T.astype("float32"), bias.astype("float32")


def balance_away(predictions, shortcut, resamples=1000, seed=0, strata=50):
    """Compute the ROC AUC that is left where a shortcut finds two images equally likely of a class.

    For each class the images are put into strata, between quantiles of the probability that the shortcut gives the
    class. Only pairs of an image of the class and another one of the same stratum count. This is the ROC AUC adjusted
    for a covariate by stratification (Janes and Pepe 2009), with each pair having the same weight. A model that knows
    nothing but the shortcut falls to about 0.5; one that has nothing to do with it keeps its ROC AUC.

    Parameters
    ----------
    predictions, shortcut : DataFrame
        Predictions of a model and of a shortcut, which was not trained on these images, such as one of
        `predict_shortcuts`.
    strata : int
        Number of strata, at least 1. Within a stratum the shortcut still tells a little. With 10,000 images of two
        equally frequent classes, a shortcut of a ROC AUC of 0.76 balanced by itself scored 0.54 in 10 strata and 0.51
        in 50; one of 0.92 for a class of 1 in 10 scored 0.64 and 0.54. More strata leave less of it, and fewer pairs.

    Returns
    -------
    DataFrame like that of `helpers.evaluation.scores.compute_metrics` with the metrics ``roc_auc``, as it is there, and
    ``roc_auc_balanced``, the mean over the classes that have a pair. The ``groups`` of the latter, and its interval,
    rest on the images that are in pairs.

    Raises
    ------
    ValueError
        The two tables are not of the same images in the same order or of the same classes, or ``strata`` is below 1.
    """
    (y_prob, names), (p_shortcut, others) = get_probabilities(predictions), get_probabilities(shortcut)
    if names != others or not np.array_equal(predictions["image_id"], shortcut["image_id"]):
        raise ValueError("The two tables of predictions are not of the same images in the same order, and classes.")
    if strata < 1:
        raise ValueError(f"strata={strata}: expected at least 1.")
    y_true = encode_labels(predictions["y_true"], names)
    rankings, parts = ({"roc_auc": [], "roc_auc_balanced": []} for _ in range(2))
    for code in np.unique(y_true):
        is_positive, likely = y_true == code, p_shortcut[:, code]
        # Limits are values of images, so that rounding cannot part images that the shortcut finds the same.
        limits = np.quantile(likely, np.arange(1, strata) / strata, method="lower")
        stratum = np.searchsorted(limits, likely, side="right")
        for name, strata_of_images in (("roc_auc", np.zeros_like(stratum)), ("roc_auc_balanced", stratum)):
            paired = is_positive & np.isin(strata_of_images, strata_of_images[~is_positive])
            if paired.any():
                parts[name].append(paired)
                rankings[name].append(_prepare_roc_auc(y_prob[:, code], is_positive, strata_of_images))

    def compute(weights):
        found = {name: [function(weights) for function in functions] for name, functions in rankings.items()}
        found = {name: [value for value in values if not np.isnan(value)] for name, values in found.items()}
        return {name: np.mean(values) if values else np.nan for name, values in found.items()}

    no_image = [np.zeros(len(y_true), bool)]
    return bootstrap(
        compute, predictions["group"], resamples, seed, {name: rows or no_image for name, rows in parts.items()}
    )


def _prepare_roc_auc(score, is_positive, stratum):
    """Return the function ``weights -> ROC AUC`` over the pairs within strata, numbered from 0.

    It is the weighted share of pairs in the right order, ties by half.
    """
    order = np.lexsort((score, stratum))
    run = np.cumsum(np.r_[True, (np.diff(stratum[order]) > 0) | (np.diff(score[order]) > 0)])  # of equal scores
    positives, negatives = order[is_positive[order]], order[~is_positive[order]]
    run_of_positives, run_of_negatives = run[is_positive[order]], run[~is_positive[order]]
    below, up_to = (np.searchsorted(run_of_negatives, run_of_positives, side) for side in ("left", "right"))
    first, last = (np.searchsorted(stratum[negatives], stratum[positives], side) for side in ("left", "right"))

    def compute(weights):
        positive, before = weights[positives], np.zeros(len(negatives) + 1)
        np.cumsum(weights[negatives], out=before[1:])  # negatives before each place
        pairs = positive @ (before[last] - before[first])
        return positive @ ((before[below] + before[up_to]) / 2 - before[first]) / pairs if pairs else np.nan

    return compute


def find_contrary(predictions, share=0.3):
    """Find the images that contradict a baseline: of each class the share that it finds least like their class.

    A model that is good on them does not live by what the baseline knows. Return a boolean Series aligned with
    ``predictions``; the share of each class is rounded up to whole images.
    """
    contrary = pd.Series(False, predictions.index)
    for name, part in predictions.groupby("y_true"):
        least = part[f"p_{name}"].sort_values(kind="stable").index[: int(np.ceil(share * len(part)))]
        contrary[least] = True
    return contrary
