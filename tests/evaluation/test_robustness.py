"""Robustness: all models see the same altered images, and the table says how they did."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from helpers.evaluation.bootstrap import compute_proportion
from helpers.evaluation.corruptions import corrupt
from helpers.evaluation.robustness import compute_robustness, score_corruptions
from helpers.evaluation.scores import make_predictions

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


CLASS_NAMES = ["dark", "light"]
BRIGHT = "x-ray: brightness up"
DARK = "x-ray: brightness down"


def draw_case(count=60):
    """Draw grey images, dark ones below 100, and the predictions of a model that guesses "dark"."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.integers(60, 100, count), rng.integers(100, 140, count // 2)])
    images = np.broadcast_to(values.astype("uint8")[:, None, None, None], (len(values), 6, 7, 1))
    table = pd.DataFrame(
        {
            "image_id": np.arange(len(values)),
            "group": np.arange(len(values)) // 3,
            "label": np.where(values < 100, *CLASS_NAMES),
        }
    )
    return images, make_predictions(table, np.tile([1.0, 0.0], (len(values), 1)), CLASS_NAMES)


def threshold(images):
    return np.eye(2)[(images.mean((1, 2, 3)) >= 100).astype(int)]


def guess(images):
    return np.tile([0.9, 0.1], (len(images), 1))


def test_corruptions_are_scored_by_balanced_accuracy():
    images, predictions = draw_case()
    predictors = {"threshold": threshold, "guess": guess}
    curves, summary = score_corruptions(predictors, images, predictions, [BRIGHT, DARK], [1, 5], resamples=50)
    assert list(curves.columns) == ["corruption", "severity", "model", "value"]
    assert curves["corruption"].tolist() == [BRIGHT] * 6 + [DARK] * 6
    assert curves["severity"].tolist() == [0, 0, 1, 1, 5, 5] * 2
    assert curves["model"].tolist() == ["threshold", "guess"] * 6
    y_true = predictions["y_true"].to_numpy()
    rows = curves[curves["model"] == "threshold"]
    factors = {(BRIGHT, 1): 1.1, (BRIGHT, 5): 1.5, (DARK, 1): 0.9, (DARK, 5): 0.5}
    for row in rows.itertuples():
        values = np.rint(images[:, 0, 0, 0] * factors.get((row.corruption, row.severity), 1))
        y_pred = np.where(values >= 100, "light", "dark")
        assert row.value == pytest.approx(balanced_accuracy_score(y_true, y_pred)), row
    assert rows.loc[rows["severity"] == 0, "value"].tolist() == [1, 1]
    assert set(curves.loc[curves["model"] == "guess", "value"]) == {0.5}
    assert list(summary.columns) == ["clean", "corrupted", "low", "high", "groups", "kept", "worst"]
    assert (summary.index.name, list(summary.index)) == ("model", ["threshold", "guess"])
    first = summary.loc["threshold"]
    assert first["corrupted"] == pytest.approx(rows.loc[rows["severity"] > 0, "value"].mean())
    assert (first["clean"], first["kept"]) == (1, pytest.approx(first["corrupted"]))
    means = rows[rows["severity"] > 0].groupby("corruption")["value"].mean()
    assert first["worst"] == means.idxmin()
    assert summary.loc["guess", "kept"] == 1


def test_the_interval_draws_groups(find_interval):
    images, predictions = draw_case()
    _, summary = score_corruptions({"a": threshold}, images, predictions, [BRIGHT], [1, 3], resamples=40, seed=2)
    altered = [corrupt(images, BRIGHT, severity, 2) for severity in (1, 3)]
    light = (predictions["y_true"] == "light").to_numpy()
    share = np.mean([threshold(images).argmax(1) == light for images in altered], axis=0)
    group, rng, resampled = predictions["group"].to_numpy(), np.random.default_rng(2), []
    for _ in range(40):
        rows = np.concatenate([np.flatnonzero(group == drawn) for drawn in rng.integers(0, 30, 30)])
        resampled.append(np.mean([share[rows][light[rows] == part].mean() for part in (True, False)]))
    sizes = [np.unique(group[part], return_counts=True)[1] for part in (~light, light)]
    expected = find_interval(summary.loc["a", "corrupted"], resampled, *sizes)
    assert summary.loc["a", ["low", "high"]].tolist() == pytest.approx(expected)
    assert summary.loc["a", "groups"] == 10


def test_all_models_see_the_same_corrupted_images_and_the_background():
    images, predictions = draw_case(9)
    seen = {"first": [], "second": []}

    def watch(name):
        return lambda images: seen[name].append(images) or guess(images)

    names = ["x-ray: gaussian noise", "shift"]
    score_corruptions(
        {name: watch(name) for name in seen}, images, predictions, names, background=7, seed=5, resamples=2
    )
    expected = [images, *(corrupt(images, name, severity, 5, 7) for name in names for severity in range(1, 6))]
    for batches in seen.values():
        assert len(batches) == 11
        for batch, images in zip(batches, expected, strict=True):
            np.testing.assert_array_equal(batch, images)


def test_errors():
    images, predictions = draw_case(9)
    with pytest.raises(ValueError, match="3 images, 13 predictions, 1 names, 5 severities: expected at least one"):
        score_corruptions({"a": guess}, images[:3], predictions, ["shift"])
    with pytest.raises(ValueError, match="0 names"):
        score_corruptions({"a": guess}, images, predictions, [])
    with pytest.raises(ValueError, match=r"a gave an array of shape \(13,\): expected .* \(13, 2\)"):
        score_corruptions({"a": lambda images: guess(images)[:, 0]}, images, predictions, ["shift"])
