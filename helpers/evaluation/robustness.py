"""Robustness: accuracy as a curve over the strength of a change to the images."""

import pandas as pd

from helpers.evaluation.bootstrap import compute_proportion


def compute_robustness(models, images, y_true, alter, strengths):
    """Score several models on images that are altered more and more, the same ones for all models.

    Parameters
    ----------
    models : dict of str to function ``images -> y_pred``
    images, y_true : array (n, height, width, channels) and its n labels
    alter : function ``(images, strength) -> images``

    Returns
    -------
    DataFrame ``strength, model, value, low, high``, one row per strength and model: the accuracy and its 95 % Wilson
    interval, which takes the images for independent.
    """
    rows = []
    for strength in strengths:
        altered = alter(images, strength)
        for name, predict in models.items():
            accuracy = compute_proportion((predict(altered) == y_true).sum(), len(y_true))
            rows.append({"strength": strength, "model": name, **accuracy})
    return pd.DataFrame(rows)
