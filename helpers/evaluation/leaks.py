"""Leaks: what it is worth to a model that test images, or copies of them, were among the training images."""

import numpy as np
import pandas as pd

from helpers.evaluation.bootstrap import bootstrap
from helpers.evaluation.foreign import _make_unit, _run_in_one_thread
from helpers.evaluation.scores import _prepare_metrics

_CHUNK = 512  # known images compared at a time


@_run_in_one_thread
def find_nearest(features, known):
    """Find the nearest of the ``known`` images (n, k) to each image (m, k), by the cosine of their features.

    Return an int array (m,), the positions among the known ones, and a float32 array (m,), the cosines, at most 1.
    """
    features = _make_unit(features)
    nearest, similarity = np.zeros(len(features), int), np.full(len(features), -1, "float32")
    for start in range(0, len(known), _CHUNK):
        cosine = features @ _make_unit(known[start : start + _CHUNK]).T
        best, highest = cosine.argmax(axis=1), cosine.max(axis=1)
        nearer = highest > similarity
        nearest[nearer], similarity[nearer] = start + best[nearer], highest[nearer]
    return nearest, np.minimum(similarity, 1)


def compute_price(predictions, leaked, metrics=("accuracy", "roc_auc"), resamples=1000, seed=0):
    """Compute what leaked test images add to metrics: those of all images minus those of the clean ones.

    Parameters
    ----------
    predictions : DataFrame, of all test images
    leaked : sequence of bool, whether a copy of the image, or an image of its group, is among the training images

    Returns
    -------
    DataFrame with the index ``metric`` and the columns ``all, clean``; ``value``, their difference; and its 95 %
    interval over groups ``low, high``, with their number ``groups``. Clean and leaked images may differ in other ways,
    too: the difference is the price of the leak only where they do not.

    Raises
    ------
    ValueError
        Every image is leaked, or there is not one truth value for each.
    """
    clean = ~np.asarray(leaked, bool)
    if len(clean) != len(predictions) or not clean.any():
        raise ValueError(f"{len(clean)} values for {len(predictions)} images, {clean.sum()} clean: expected some.")
    compute_all = _prepare_metrics(predictions)

    def compute(weights):
        values, without = compute_all(weights), compute_all(weights * clean)
        return {name: values[name] - without[name] for name in metrics}

    table = bootstrap(compute, predictions["group"], resamples, seed, limits=(-1, 1))
    ones = np.ones(len(clean))
    points = {"all": compute_all(ones), "clean": compute_all(ones * clean)}
    both = pd.DataFrame({kind: {name: values[name] for name in metrics} for kind, values in points.items()})
    return both.join(table)
