"""Baselines: descriptions against plain loops, and a forest that finds what they tell and nothing else."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from helpers.evaluation.baselines import (
    compute_shortcut_features,
    find_contrary,
    fit_regression,
    get_coefficients,
    predict_with_forest,
)
from helpers.evaluation.scores import make_predictions

SIZE = (9, 14)


def make_pixels(count=5, size=SIZE, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, channels)).astype("uint8")


def make_sizes(count=5):
    table = {"height": np.arange(count) + 100, "width": 3 * np.arange(count) + 200, "name": list("abcdefghij")[:count]}
    return pd.DataFrame(table, index=np.arange(count)[::-1] + 40)


def list_groups(table):
    return list(dict.fromkeys(name.partition(" ")[0] for name in table))


# compute_shortcut_features


@pytest.mark.parametrize("channels", [1, 3])
def test_descriptions_are_those_of_a_plain_loop(channels):
    pixels, (height, width) = make_pixels(channels=channels), SIZE
    table = compute_shortcut_features(pixels)
    places = [(0, 0), (0, width // 2), (0, -1), (height // 2, 0), (height // 2, -1)]
    places += [(-1, 0), (-1, width // 2), (-1, -1)]
    expected = {}
    for channel in range(channels):
        levels = [image[..., channel].astype("float64").ravel() for image in pixels]
        expected[f"brightness mean {channel}"] = [np.mean(values) for values in levels]
        expected[f"brightness std {channel}"] = [np.std(values) for values in levels]
        expected[f"brightness p5 {channel}"] = [np.percentile(values, 5) for values in levels]
        expected[f"brightness p95 {channel}"] = [np.percentile(values, 95) for values in levels]
        for number, place in enumerate(places, 1):
            expected[f"border {number} {channel}"] = [image[place][channel] for image in pixels]
    assert set(table) == set(expected)
    assert len(table.columns) == 12 * channels
    for name, values in expected.items():
        np.testing.assert_allclose(table[name], values, err_msg=name)


def test_columns_come_in_groups_by_their_first_word():
    assert list_groups(compute_shortcut_features(make_pixels())) == ["brightness", "border"]
    table = compute_shortcut_features(make_pixels(), sizes=make_sizes())
    assert set(list_groups(table)) == {"size", "brightness", "border"}
    assert [name for name in table if name.startswith("size")] == ["size width", "size height", "size aspect"]
    assert table["size width"].tolist() == make_sizes()["width"].tolist()
    assert table["size height"].tolist() == make_sizes()["height"].tolist()
    np.testing.assert_allclose(table["size aspect"], make_sizes()["width"] / make_sizes()["height"])
    pd.testing.assert_frame_equal(table.filter(regex="^b"), compute_shortcut_features(make_pixels()))


def test_the_border_is_eight_different_pixels_and_none_inside():
    pixels = np.arange(9 * 14).reshape(1, 9, 14, 1).astype("uint8")
    border = compute_shortcut_features(pixels).filter(like="border").iloc[0].tolist()
    assert border == [0, 7, 13, 56, 69, 112, 119, 125]
    inside = pixels.copy()
    inside[:, 1:-1, 1:-1] = 0
    assert compute_shortcut_features(inside).filter(like="border").iloc[0].tolist() == border


@pytest.mark.parametrize("rows", [[3, 0, 3, 4], np.array([2]), range(1, 4)], ids=str)
def test_rows_are_described_in_their_order(rows):
    pixels, rows_before = make_pixels(), list(rows)
    table = compute_shortcut_features(pixels, rows, make_sizes().iloc[list(rows)])
    expected = compute_shortcut_features(pixels, sizes=make_sizes()).iloc[list(rows)].reset_index(drop=True)
    pd.testing.assert_frame_equal(table, expected)
    assert list(rows) == rows_before


def test_memory_mapped_images_are_described_alike_and_left_alone(tmp_path):
    pixels = make_pixels()
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    pd.testing.assert_frame_equal(compute_shortcut_features(mapped), compute_shortcut_features(pixels))
    pd.testing.assert_frame_equal(compute_shortcut_features(mapped, [4, 1]), compute_shortcut_features(pixels, [4, 1]))
    np.testing.assert_array_equal(pixels, make_pixels())


def test_sizes_of_other_images_are_refused():
    with pytest.raises(ValueError, match="same number"):
        compute_shortcut_features(make_pixels(), [0, 1], make_sizes())


# predict_with_forest


def make_classes(count=120, n_classes=3, seed=0, distance=3.0):
    """Make features of which the second tells the class; classes come in no order."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_classes, count)
    features = rng.normal(size=(count, 3))
    features[:, 1] += distance * codes
    return features, np.eye(n_classes)[codes]


@pytest.fixture(scope="module")
def forest():
    """Predict 90 features with a forest of 120."""
    (x_train, y_train), (x_test, y_test) = make_classes(), make_classes(90, seed=1)
    return x_train, y_train, x_test, y_test, predict_with_forest(x_train, y_train, x_test)


def test_probabilities_stand_in_the_order_of_the_classes(forest):
    x_train, y_train, x_test, y_test, y_prob = forest
    assert y_prob.shape == (90, 3)
    np.testing.assert_allclose(y_prob.sum(axis=1), 1)
    assert y_prob.min() >= 0
    assert (y_prob.argmax(axis=1) == y_test.argmax(axis=1)).mean() > 0.8
    turned = predict_with_forest(x_train, y_train[:, ::-1], x_test)
    assert (turned.argmax(axis=1) == 2 - y_test.argmax(axis=1)).mean() > 0.8


def test_tables_and_arrays_are_predicted_alike(forest):
    x_train, y_train, x_test, _, expected = forest
    tables = (pd.DataFrame(features, columns=list("abc")) for features in (x_train, x_test))
    x_train, x_test = tables
    np.testing.assert_allclose(predict_with_forest(x_train, y_train, x_test), expected)


def test_the_same_seed_gives_the_same_probabilities_and_another_one_others(forest):
    x_train, y_train, x_test, _, first = forest
    np.testing.assert_allclose(predict_with_forest(x_train, y_train, x_test, seed=42), first, rtol=1e-12)
    other = predict_with_forest(x_train, y_train, x_test, seed=1)
    assert np.abs(other - first).max() > 0.01
    np.testing.assert_allclose(other, first, atol=0.2)


def test_a_rare_class_weighs_as_much_as_a_frequent_one():
    """In between the two classes either is as likely, though one has nine times as many images."""
    rng = np.random.default_rng(0)
    rare = np.arange(400) < 40
    features = rng.normal(rare, 1, 400)[:, None]
    y_prob = predict_with_forest(features, np.eye(2)[rare.astype(int)], rng.normal(0.5, 0.3, (400, 1)))
    assert 0.35 < y_prob[:, 1].mean() < 0.65


def test_the_forest_finds_a_shortcut_and_nothing_of_what_an_image_shows():
    """Class 1 has a bright frame, or else a turned pattern inside of the same levels."""
    codes = np.arange(120) % 2
    shown = make_pixels(120, (12, 12), 1)
    shown[:, 4:8, 4:8] = np.where(codes[:, None, None, None] == 1, 200, 0)
    pattern = np.where(np.arange(12)[:, None] % 2, 40, 200) * np.ones((12, 12), int)
    turned = np.where(codes[:, None, None], pattern.T, pattern)[..., None].astype("uint8")
    turned[:, [0, -1]] = turned[:, :, [0, -1]] = 0
    right = {}
    for name, pixels in {"shortcut": shown, "content": turned}.items():
        table = compute_shortcut_features(pixels)
        y_prob = predict_with_forest(table[:80], np.eye(2)[codes[:80]], table[80:])
        right[name] = (y_prob[:, 1] > 0.5 + 1e-9)[codes[80:] == 1].mean()
    assert right["shortcut"] == 1
    assert right["content"] == 0  # the two classes are described alike


def test_a_class_without_training_images_is_refused():
    y = np.eye(3)[[0, 0, 0, 2, 2, 2]]
    with pytest.raises(ValueError, match="no training image"):
        predict_with_forest(np.zeros((6, 2)), y, np.zeros((1, 2)))


def test_many_images_are_described_like_few():
    pixels = make_pixels(count=600, size=(4, 4), channels=1)
    pd.testing.assert_frame_equal(
        compute_shortcut_features(pixels).tail(3).reset_index(drop=True), compute_shortcut_features(pixels[-3:])
    )


# find_contrary


def make_table(p_first, codes, index=None):
    images = pd.DataFrame({"image_id": range(len(codes)), "group": "g", "label": [("a", "b")[code] for code in codes]})
    first = np.array(p_first)
    table = make_predictions(images, np.stack([first, 1 - first], axis=1), ["a", "b"])
    return table if index is None else table.set_axis(index)


def test_contrary_images_are_those_least_like_their_class():
    table = make_table([0.9, 0.2, 0.5, 0.7, 0.6, 0.3, 0.1], [0, 0, 0, 0, 1, 1, 1], index=range(10, 17))
    assert find_contrary(table, 0.25).tolist() == [False, True, False, False, True, False, False]
    assert find_contrary(table, 0.5).tolist() == [False, True, True, False, True, True, False]
    assert find_contrary(table).index.tolist() == list(range(10, 17))
    assert find_contrary(table, 1).all()


# fit_regression, get_coefficients


def make_groups(counts=(9000, 1000), seed=0):
    """Draw two numbers, the first of which tells the class, the second of which is on another scale."""
    rng = np.random.default_rng(seed)
    codes = np.repeat([0, 1], counts)
    return np.column_stack([rng.normal(codes, 1), rng.normal(5000, 800, len(codes))]), np.eye(2)[codes]


def test_a_regression_finds_what_tells_the_class_whatever_the_scales():
    x, y = make_groups()
    intercept, tells, says_nothing = get_coefficients(fit_regression(x, y))
    assert tells == pytest.approx(1, abs=0.25)
    assert abs(says_nothing) < 3e-4
    assert intercept == pytest.approx(-0.5 - says_nothing * 5000, abs=0.25)


def test_classes_have_the_same_weight_whatever_their_size():
    x, y = make_groups()
    said = fit_regression(x, y).predict_proba(x)[:, 1]
    assert said[y[:, 0] == 1].mean() < 0.45
    assert said[y[:, 1] == 1].mean() > 0.55


def test_the_penalty_is_the_ridge_of_scikit_learn():
    """Of classes without an error the weights would be where the solver happens to stop."""
    x = np.r_[np.linspace(-2, -1, 200), np.linspace(1, 2, 200)][:, None]
    y = np.eye(2)[np.repeat([0, 1], 200)]
    ridge = LogisticRegression(class_weight="balanced").fit((x - x.mean()) / x.std(), y[:, 1])
    assert fit_regression(x, y)[1].coef_.item() == ridge.coef_.item()


def test_without_a_penalty_the_slope_of_calibrated_scores_is_the_most_likely_one():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2.5, (200, 1))
    y = np.eye(2)[(rng.random(200) < 1 / (1 + np.exp(-x[:, 0]))).astype(int)]
    codes = y[:, 1] - y[:, 0]
    weights = 100 / y.sum(axis=0)[y.argmax(axis=1)]

    def loss(line):
        return weights @ np.log1p(np.exp(-codes * (line[0] + line[1] * x[:, 0])))

    _, expected = minimize(loss, [0, 1], tol=1e-9).x
    assert get_coefficients(fit_regression(x, y, penalty=False))[1] == pytest.approx(expected, abs=0.05)
    assert abs(get_coefficients(fit_regression(x, y))[1] - expected) > 0.05


def test_coefficients_give_the_probabilities_of_the_regression():
    x, y = make_groups((60, 40))
    regression = fit_regression(x, y)
    intercept, *weights = get_coefficients(regression)
    positive = 1 / (1 + np.exp(-(intercept + x @ weights)))
    np.testing.assert_allclose(regression.predict_proba(x)[:, 1], positive, atol=1e-9)
