"""Robustness: all models see the same altered images, and the table says how they did."""

import numpy as np
import pandas as pd
import pytest

from helpers.evaluation.bootstrap import compute_proportion
from helpers.evaluation.robustness import compute_robustness

Y_TRUE = np.array(["dark", "light", "dark", "light", "light"])
IMAGES = np.array([10, 200, 20, 150, 140]).reshape(5, 1, 1, 1) * np.ones((5, 4, 4, 1))


def test_all_models_see_the_same_altered_images():
    seen = {"first": [], "second": []}
    rng = np.random.default_rng(0)

    def alter(images, strength):
        return images + strength * rng.random(images.shape)  # another draw on each call

    def watch(name):
        return lambda images: seen[name].append(images.copy()) or Y_TRUE

    before = IMAGES.copy()
    compute_robustness({name: watch(name) for name in seen}, IMAGES, Y_TRUE, alter, [0, 5, 50])
    assert [len(batches) for batches in seen.values()] == [3, 3]
    for first, second in zip(*seen.values(), strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(seen["first"][0], IMAGES)
    assert 4 < (seen["first"][1] - IMAGES).max() < 5, "each strength starts from the unaltered images"
    assert 40 < (seen["first"][2] - IMAGES).max() < 50
    np.testing.assert_array_equal(IMAGES, before)


@pytest.mark.parametrize("make", [np.array, pd.Series, list], ids=["array", "series", "list"])
def test_the_table(make):
    models = {
        "threshold": lambda images: np.where(images.mean((1, 2, 3)) > 100, "light", "dark"),
        "constant": lambda images: np.full(len(images), "light"),
    }
    curves = compute_robustness(
        models, IMAGES, make(Y_TRUE), lambda images, strength: images - strength, [0, 45, 120.5]
    )
    assert list(curves.columns) == ["strength", "model", "value", "low", "high"]
    assert curves["strength"].tolist() == [0, 0, 45, 45, 120.5, 120.5]
    assert curves["model"].tolist() == ["threshold", "constant"] * 3
    assert curves["value"].tolist() == [1, 0.6, 0.8, 0.6, 0.4, 0.6]
    for row in curves.itertuples():
        expected = compute_proportion(round(5 * row.value), 5)
        assert (row.low, row.high) == (expected["low"], expected["high"])
