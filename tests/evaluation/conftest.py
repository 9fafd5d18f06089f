"""Predictions to work on, and figures that neither open nor stay."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from helpers.evaluation.scores import make_predictions


@pytest.fixture(autouse=True)
def close_figures(monkeypatch):
    def show(*_, **__):
        raise AssertionError("plt.show was called")

    monkeypatch.setattr(plt, "show", show)
    with plt.rc_context():  # a style that a test sets ends with it
        yield
    plt.close("all")


@pytest.fixture
def find_interval():
    """Compute an interval by hand, from resampled values and the sizes of the groups of each part."""

    def find_interval(value, resampled, *parts):
        effective = np.array([np.sum(sizes) ** 2 / np.sum(np.square(sizes)) for sizes in parts])
        freedom = np.sum(1 / effective) ** 2 / np.sum(1 / effective**2 / (effective - 1))
        half = t.ppf(0.975, freedom) * np.sqrt((freedom + 1) / freedom) * np.std(resampled, ddof=1)
        odds = value / (1 - value) * np.exp(np.array([-half, half]) / (value * (1 - value)))
        return odds / (1 + odds)

    return find_interval


@pytest.fixture
def predict():
    """Draw predictions that are right more often than not; each image its own group."""

    def predict(count=200, class_names=("a", "b", "c"), seed=0, decimals=None, skill=1.5, groups=None):
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, len(class_names), count)
        y_prob = (
            rng.dirichlet(np.ones(len(class_names)), count)
            + skill * rng.random((count, 1)) * np.eye(len(class_names))[codes]
        )
        y_prob /= y_prob.sum(1, keepdims=True)
        if decimals is not None:  # scores that are often equal
            y_prob = np.round(y_prob, decimals) + 0.05
            y_prob /= y_prob.sum(1, keepdims=True)
        images = pd.DataFrame(
            {
                "image_id": [f"i{number:04d}" for number in range(count)],
                "group": np.arange(count) if groups is None else groups,
                "label": np.array(class_names)[codes],
            }
        )
        return make_predictions(images, y_prob, class_names)

    return predict
