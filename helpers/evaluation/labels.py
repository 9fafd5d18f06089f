"""Labels: which given labels may be wrong, because a model that did not see them disagrees."""

import warnings

from helpers.evaluation.scores import encode_labels, get_probabilities


def find_label_issues(predictions, count=20):
    """List the images whose label is most likely wrong, by confident learning (Northcutt, Jiang and Chuang 2021).

    An image is listed where the model gives another class more often than errors of this kind are expected; whether the
    label is wrong only a person who looks at the image can tell. The model must not have been trained on the images,
    because a network learns wrong labels by heart: validation images, or the held-out parts of a cross-validation.

    Returns
    -------
    DataFrame of at most ``count`` rows of ``predictions``, the most suspicious first, with ``suggested``, the most
    probable class, and ``self_confidence``, the probability of the given label. It may be empty, and is so where all
    images have the same label.
    """
    y_prob, class_names = get_probabilities(predictions)
    codes = encode_labels(predictions["y_true"], class_names)
    found = predictions.assign(suggested=predictions["y_pred"], self_confidence=y_prob[range(len(codes)), codes])
    if predictions["y_true"].nunique() < 2:
        return found.head(0)
    with warnings.catch_warnings(action="ignore"):  # of the bar that cleanlab does not show, of classes with one image
        from cleanlab import filter as confident_learning

        rows = confident_learning.find_label_issues(codes, y_prob, return_indices_ranked_by="self_confidence", n_jobs=1)
    return found.iloc[rows[:count]]
