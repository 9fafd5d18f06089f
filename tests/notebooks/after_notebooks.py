"""What the quick run on the sample must have found; run by `make test` after the notebooks, whose exports it reads.

The bounds lie some points below what was seen in bfloat16 and in float32, and far above what a broken pipeline can
reach: with shuffled training labels all of them are missed.
"""

import json
from pathlib import Path

import pandas as pd
import pytest

FIGURES = Path(__file__).parents[2] / "figures" / "sample"


def load(notebook):
    return json.loads((FIGURES / notebook / "results.json").read_text())


@pytest.mark.parametrize(
    ("model", "test_set", "least"),
    [
        ("cnn_clean", "test", 0.94),
        ("cnn_mixed", "test", 0.93),
        ("cnn_mixed", "style_1", 0.85),
        ("cnn_mixed", "style_2", 0.78),
        ("cnn_mixed", "union", 0.86),
    ],
)
def test_mnist_accuracy(model, test_set, least):
    assert load("01_mnist")["results"][model][test_set]["accuracy"]["value"] >= least


def test_mnist_mixed_training_pays_on_small_digits():
    results = load("01_mnist")["results"]
    assert (
        results["cnn_mixed"]["style_2"]["accuracy"]["low"] > results["cnn_clean"]["style_2"]["accuracy"]["high"] + 0.2
    )


def test_mnist_accuracy_can_be_recomputed_from_the_predictions():
    results = load("01_mnist")["results"]
    table = pd.read_csv(FIGURES / "01_mnist" / "predictions.csv", dtype={"y_true": str, "y_pred": str})
    right = table["y_true"] == table["y_pred"]
    for test_set, share in right.groupby(table["test_set"]).mean().items():
        assert results["cnn_mixed"][test_set]["accuracy"]["value"] == pytest.approx(share)
    assert results["cnn_mixed"]["union"]["accuracy"]["value"] == pytest.approx(right.mean())


def test_mnist_figures_are_there():
    names = {path.name for path in (FIGURES / "01_mnist").iterdir()}
    for figure in ("accuracy_loss", "confusion_matrix_test", "confusion_matrix_style_1", "robustness_curves"):
        assert {f"{figure}.png", f"{figure}.pdf"} <= names
