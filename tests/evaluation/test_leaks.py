"""Leaks: the nearest training image, and what leaked test images add to a score."""

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import NearestNeighbors

from helpers.evaluation import leaks
from helpers.evaluation.leaks import compute_price, find_nearest
from helpers.evaluation.scores import compute_metrics, make_predictions


@pytest.fixture
def predictions():
    """200 images in 100 groups: a fair model, right for about 70 %."""
    rng = np.random.default_rng(0)
    label = np.repeat(rng.integers(0, 2, 100), 2)
    positive = 1 / (1 + np.exp(-(rng.normal(size=200) + (2 * label - 1) * 0.5)))
    images = pd.DataFrame(
        {"image_id": range(200), "group": np.repeat(range(100), 2), "label": np.where(label, "b", "a")}
    )
    return make_predictions(images, np.stack([1 - positive, positive], axis=1), ["a", "b"])


def test_the_nearest_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    features, known = rng.normal(size=(1100, 9)), rng.normal(size=(300, 9))
    nearest, similarity = find_nearest(features, known)
    distances, expected = NearestNeighbors(n_neighbors=1, metric="cosine").fit(known).kneighbors(features)
    assert np.array_equal(nearest, expected[:, 0])
    assert np.allclose(similarity, 1 - distances[:, 0], atol=1e-6)


def test_a_copy_is_its_own_neighbour_whatever_its_length():
    known = np.array([[1.0, 0], [0, 1], [1, 1]])
    nearest, similarity = find_nearest(5 * known[::-1], known)
    assert nearest.tolist() == [2, 1, 0]
    assert similarity.max() <= 1
    assert np.allclose(similarity, 1)


def test_features_of_zero_are_like_nothing():
    _, similarity = find_nearest(np.zeros((1, 3)), np.ones((2, 3)))
    assert similarity.tolist() == [0]


def test_the_price_is_all_minus_clean(predictions):
    leaked = np.arange(200) < 60
    made_right = predictions.assign(y_pred=np.where(leaked, predictions["y_true"], predictions["y_pred"]))
    table = compute_price(made_right, leaked, resamples=200)
    every, clean = (compute_metrics(part, 0)["value"] for part in (made_right, made_right[~leaked]))
    for metric in ("accuracy", "roc_auc"):
        assert table.loc[metric, "all"] == pytest.approx(every[metric])
        assert table.loc[metric, "clean"] == pytest.approx(clean[metric])
        assert table.loc[metric, "value"] == pytest.approx(every[metric] - clean[metric])
    assert table.loc["accuracy", "low"] > 0  # the leak is worth something


def test_a_leak_that_changes_nothing_costs_nothing(predictions):
    leaked = np.random.default_rng(2).random(200) < 0.3
    table = compute_price(predictions, leaked, resamples=200)
    assert (table["low"] < 0).all()
    assert (table["high"] > 0).all()
    assert compute_price(predictions, np.zeros(200, bool), resamples=20)["value"].abs().max() == 0


@pytest.mark.parametrize("leaked", [np.ones(200, bool), np.zeros(3, bool)], ids=["all", "too few"])
def test_there_have_to_be_clean_images(predictions, leaked):
    with pytest.raises(ValueError, match="expected some"):
        compute_price(predictions, leaked)


def test_the_nearest_image_is_found_in_every_part(monkeypatch):
    rng = np.random.default_rng(0)
    known, asked = rng.normal(size=(50, 8)), rng.normal(size=(30, 8))
    expected = find_nearest(asked, known)
    monkeypatch.setattr(leaks, "_CHUNK", 7)
    nearest, similarity = find_nearest(asked, known)
    np.testing.assert_array_equal(nearest, expected[0])
    np.testing.assert_allclose(similarity, expected[1], rtol=1e-5)
