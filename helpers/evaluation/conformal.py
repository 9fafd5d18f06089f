"""Conformal prediction: sets of classes that hold the true one as often as asked for."""

import math

import numpy as np
import pandas as pd

from helpers.evaluation.metrics import bootstrap, get_probabilities


def fit_conformal(predictions, coverage=0.9):
    """Find for each class the probability from which on it belongs to the set of an image.

    Split conformal prediction, separately for each class (Mondrian: Vovk 2012; least ambiguous sets: Sadinle et al.
    2019; Angelopoulos and Bates 2021): of n held-out images of a class, the threshold is the ``ceil((n + 1) *
    coverage)``-th largest probability given to it. Of further images of that class at least the share ``coverage``
    has then a set that holds it, on average over such draws of held-out images, however good or bad the model is.

    That is true of images exchangeable with the held-out ones. New subjects are not, nor are several images of one
    subject exchangeable with those of others: whether the coverage holds for them has to be checked with
    `score_sets` on subjects that neither the model nor the thresholds have seen.

    Parameters
    ----------
    predictions : DataFrame
        Of images held out from training, from `helpers.evaluation.metrics.make_predictions`, with the very
        probabilities, calibrated or not, that `predict_sets` will be given.
    coverage : float between 0 and 1

    Returns
    -------
    dict of str to float: for each class the threshold. 0 for classes with too few images for the coverage (fewer than
    9 for 0.9), which are in every set.

    Raises
    ------
    ValueError
        The coverage is not between 0 and 1.

    Examples
    --------
    >>> from helpers.evaluation.metrics import make_predictions
    >>> images = pd.DataFrame({"image_id": range(4), "group": range(4), "label": ["a", "a", "a", "b"]})
    >>> table = make_predictions(images, [[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]], ["a", "b"])
    >>> fit_conformal(table, coverage=0.5)
    {'a': 0.8, 'b': 0.7}
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage {coverage}: expected a share between 0 and 1.")
    y_prob, class_names = get_probabilities(predictions)
    y_true = predictions["y_true"].to_numpy()
    thresholds = {}
    for code, name in enumerate(class_names):
        of_class = np.sort(y_prob[y_true == name, code])[::-1]
        rank = math.ceil((len(of_class) + 1) * coverage - 1e-9)  # 10 * 0.9 is no more than 9
        thresholds[name] = float(of_class[rank - 1]) if rank <= len(of_class) else 0.0
    return thresholds


def predict_sets(predictions, thresholds):
    """Put into the set of each image the classes whose probability reaches their threshold.

    The sets hold the true class as often as `fit_conformal` was asked for if the images are exchangeable with the
    held-out ones; new subjects are not, see there.

    Parameters
    ----------
    predictions : DataFrame
        With the columns ``p_<class>``; true labels are not needed.
    thresholds : dict of str to float
        From `fit_conformal`.

    Returns
    -------
    DataFrame aligned with ``predictions``: ``in_<class>`` for each class, whether it is in the set; ``set_size``; and
    ``uncertain``: the set is not just the most probable class, but several, none or, rarely, another one.

    Raises
    ------
    ValueError
        The thresholds are not those of the classes.
    """
    y_prob, class_names = get_probabilities(predictions)
    if set(thresholds) != set(class_names):
        raise ValueError(f"There are thresholds of {list(thresholds)}; expected those of {class_names}.")
    held = y_prob >= np.array([thresholds[name] for name in class_names], "float64")
    sets = pd.DataFrame(held, predictions.index, [f"in_{name}" for name in class_names])
    sets["set_size"] = held.sum(axis=1)
    sets["uncertain"] = (sets["set_size"] != 1) | ~held[np.arange(len(held)), y_prob.argmax(axis=1)]
    return sets


def score_sets(predictions, thresholds, resamples=1000, seed=0):
    """Score the sets of labelled images, with 95 % intervals bootstrapped over groups.

    Parameters
    ----------
    predictions : DataFrame
        From `helpers.evaluation.metrics.make_predictions`: images that neither the model nor the thresholds have
        seen, and whose subjects they have not seen either if the coverage for new subjects is asked for.
    thresholds : dict of str to float
        From `fit_conformal`.
    resamples : int
    seed : int

    Returns
    -------
    DataFrame with the index ``metric`` and the columns ``value, low, high``: coverage, the share of the images whose
    set holds the true class; mean_set_size; share_uncertain; accuracy_of_certain, of the other images, NaN if there
    are none; and ``coverage_<class>`` for each class, NaN if there is no image of it.
    """
    sets = predict_sets(predictions, thresholds)
    _, class_names = get_probabilities(predictions)
    y_true = predictions["y_true"].to_numpy()
    right = y_true == predictions["y_pred"].to_numpy()
    covered = sum((y_true == name) & sets[f"in_{name}"].to_numpy() for name in class_names).astype(bool)
    set_size, uncertain = sets["set_size"].to_numpy(), sets["uncertain"].to_numpy()
    everywhere = np.ones(len(sets), bool)

    def compute(weights):
        def average(values, rows=everywhere):
            total = weights[rows].sum()
            return weights[rows] @ values[rows] / total if total else np.nan

        return {
            "coverage": average(covered),
            "mean_set_size": average(set_size),
            "share_uncertain": average(uncertain),
            "accuracy_of_certain": average(right, ~uncertain),
        } | {f"coverage_{name}": average(covered, y_true == name) for name in class_names}

    return bootstrap(compute, predictions["group"], resamples, seed)
