"""Robustness: accuracy as a curve over the strength of a change to the images."""

import pandas as pd

from helpers.evaluation.bootstrap import compute_proportion


def compute_robustness(models, images, y_true, alter, strengths):
    """Score several models on images that are altered more and more, the same ones for all models.

    Parameters
    ----------
    models : dict of str to function ``images -> y_pred``
    images : array (n, height, width, channels)
    y_true : sequence of str, length n
    alter : function ``(images, strength) -> images``
    strengths : sequence of float

    Returns
    -------
    DataFrame with one row per strength and model: ``strength, model, value, low, high``, where ``value`` is
    the accuracy and ``low`` to ``high`` its 95 % Wilson interval, which takes the images for independent.
    """
    rows = []
    for strength in strengths:
        altered = alter(images, strength)
        for name, predict in models.items():
            right = (predict(altered) == y_true).sum()
            rows.append({"strength": strength, "model": name, **compute_proportion(right, len(y_true))})
    return pd.DataFrame(rows)
