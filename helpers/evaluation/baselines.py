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
        ``width`` and ``height`` as stored, a row for each of the m images, else a ValueError.

    Returns
    -------
    DataFrame of m rows. The first word of a column is its group: for each channel ``brightness`` (mean, standard
    deviation, 5th and 95th percentile) and ``border`` (8 pixels: the corners and the middles of the sides); ``size``
    (width, height, aspect ratio) where ``sizes`` are given.
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
    return table


def _describe(pixels):
    """Measure brightness and border of each image, channel by channel."""
    flat = pixels.reshape(len(pixels), -1, pixels.shape[-1])
    features = {"brightness mean": flat.mean(1), "brightness std": flat.std(1)}
    features |= {f"brightness p{level}": np.percentile(flat, level, axis=1) for level in (5, 95)}
    rows, columns = ((0, side // 2, -1) for side in pixels.shape[1:3])
    places = [(row, column) for row in rows for column in columns]
    del places[4]  # the middle of the image
    features |= {f"border {number}": pixels[:, row, column] for number, (row, column) in enumerate(places, 1)}
    channels = range(pixels.shape[-1])
    return pd.DataFrame({f"{name} {code}": values[:, code] for name, values in features.items() for code in channels})


def predict_with_forest(x_train, y_train, x_test, seed=42):
    """Train a random forest on features (n, n_features) of images; return the probabilities (m, n_classes) of others.

    ``y_train`` is one-hot (n, n_classes); a class without a training image is a ValueError.
    """
    if not y_train.any(axis=0).all():
        raise ValueError("A class has no training image, so that the forest could not learn it.")
    forest = RandomForestClassifier(300, min_samples_leaf=3, class_weight="balanced", random_state=seed, n_jobs=-1)
    forest.fit(x_train, y_train.argmax(axis=1))
    # In one thread, because threads add up the trees in any order, which changes the last bits.
    return forest.set_params(n_jobs=1).predict_proba(x_test)


def fit_regression(x, y, penalty=True):
    """Fit a logistic regression on features (n, n_features), each class of the one-hot ``y`` with the same weight.

    Return a scikit-learn pipeline with ``predict_proba``; it standardizes the features first. The ridge penalty keeps
    weights finite where features tell the classes apart without error. It makes them too small, the more so the fewer
    images there are: to calibrate probabilities do without it.
    """
    regression = LogisticRegression(C=1.0 if penalty else np.inf, class_weight="balanced")
    return make_pipeline(StandardScaler(), regression).fit(x, y.argmax(axis=1))


def get_coefficients(regression):
    """Take the coefficients out of a regression of two classes from `fit_regression`.

    Return floats, for the log odds of the second class: the intercept, then the weight of each feature as it was given.
    """
    scaler, logistic = regression
    weights = logistic.coef_[0] / scaler.scale_
    return float(logistic.intercept_[0] - weights @ scaler.mean_), *weights.tolist()


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
