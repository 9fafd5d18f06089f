"""Baselines: descriptions against plain loops, and a forest that finds what they tell and nothing else."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from helpers.evaluation.baselines import (
    balance_away,
    compute_shortcut_features,
    find_contrary,
    fit_regression,
    get_coefficients,
    predict_shortcuts,
    predict_with_forest,
    regression_to_dense,
)
from helpers.evaluation.scores import compute_metrics, make_predictions

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
    levels = [image.astype("float64").mean(-1) for image in pixels]
    expected = {
        "brightness mean 0": [np.mean(values) for values in levels],
        "brightness std 0": [np.std(values) for values in levels],
        "brightness p5 0": [np.percentile(values, 5) for values in levels],
        "brightness p95 0": [np.percentile(values, 95) for values in levels],
    }
    for channel in range(channels):
        means = [image[..., channel].mean() for image in pixels]
        if channels > 1:
            expected[f"colour {channel}"] = [(a + 1) / (b.mean() + 1) for a, b in zip(means, levels, strict=True)]
        for number, place in enumerate(places, 1):
            expected[f"border {number} {channel}"] = [image[place][channel] for image in pixels]
    assert set(table) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(table[name], values, err_msg=name)


def test_columns_come_in_groups_by_their_first_word():
    assert list_groups(compute_shortcut_features(make_pixels())) == ["brightness", "colour", "border"]
    assert list_groups(compute_shortcut_features(make_pixels(channels=1))) == ["brightness", "border"]
    sizes = make_sizes().assign(bytes=[9000, 8000, 7500, 9900, 6000])
    table = compute_shortcut_features(make_pixels(), sizes=sizes)
    assert list_groups(table) == ["brightness", "colour", "border", "size", "file"]
    assert [name for name in table if name.startswith("size")] == ["size width", "size height", "size aspect"]
    assert table["size width"].tolist() == sizes["width"].tolist()
    assert table["size height"].tolist() == sizes["height"].tolist()
    np.testing.assert_allclose(table["size aspect"], sizes["width"] / sizes["height"])
    assert table["file bytes"].tolist() == sizes["bytes"].tolist()
    np.testing.assert_allclose(table["file bytes per pixel"], sizes["bytes"] / sizes["width"] / sizes["height"])
    without = compute_shortcut_features(make_pixels(), sizes=make_sizes())
    pd.testing.assert_frame_equal(without, table.drop(columns=["file bytes", "file bytes per pixel"]))


def test_colour_is_not_brightness():
    """Grey images, also black ones, have none; a darker image in the same colours has nearly the same."""
    grey = np.repeat(make_pixels(channels=1), 3, axis=-1)
    grey[0] = 0
    assert (compute_shortcut_features(grey).filter(like="colour") == 1).all(axis=None)
    red = np.full((2, *SIZE, 3), (200, 100, 60), "uint8")
    red[1] //= 2
    colour = compute_shortcut_features(red).filter(like="colour").to_numpy()
    np.testing.assert_allclose(colour[0], [201 / 121, 101 / 121, 61 / 121])
    np.testing.assert_allclose(colour[0], colour[1], atol=0.02)


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


# predict_shortcuts


def make_shortcuts(count=600, seed=0):
    """Draw three classes: brightness tells the first from the others, size the last from the others, colour none."""
    rng = np.random.default_rng(seed)
    codes, noise = rng.integers(0, 3, count), rng.normal(size=(count, 4))
    features = {"brightness mean 0": noise[:, 0] + 3 * (codes == 0), "brightness std 0": noise[:, 1]}
    features |= {"colour 0": noise[:, 2], "size width": 900 + 100 * noise[:, 3] + 300 * (codes == 2)}
    return pd.DataFrame(features, index=np.arange(count)[::-1] + 7), np.eye(3)[codes]


def score_shortcuts(found, y):
    images = pd.DataFrame({"image_id": range(len(y)), "group": range(len(y)), "label": y.argmax(axis=1)})
    tables = {name: make_predictions(images, y_prob, range(3)) for name, y_prob in found.items()}
    return {name: compute_metrics(table, 0).loc["roc_auc", "value"] for name, table in tables.items()}


def test_each_group_of_shortcuts_predicts_what_it_knows_and_all_together_more():
    features, y = make_shortcuts()
    train, test = np.arange(300, 600), np.arange(299, -1, -1)
    found = predict_shortcuts(features, y[train], train, test)
    assert list(found) == ["brightness", "colour", "size", "all shortcuts"]
    assert all(y_prob.shape == (300, 3) for y_prob in found.values())
    np.testing.assert_allclose(found["size"].sum(axis=1), 1)
    auc = score_shortcuts(found, y[test])
    assert auc["colour"] == pytest.approx(0.5, abs=0.08)
    assert auc["all shortcuts"] > max(auc["brightness"], auc["size"]) + 0.05
    assert min(auc["brightness"], auc["size"]) > 0.7


def test_shortcuts_are_regressions_on_the_rows_and_groups_asked_for():
    features, y = make_shortcuts(90)
    train = np.arange(90) % 3 > 0
    found = predict_shortcuts(features, y[train], train, ~train, groups=["size", "colour"])
    assert list(found) == ["size", "colour", "all shortcuts"]
    columns = ["colour 0", "size width"]
    expected = fit_regression(features[train][columns].to_numpy(), y[train]).predict_proba(
        features[~train][columns].to_numpy()
    )
    np.testing.assert_allclose(found["all shortcuts"], expected, atol=1e-9)


def test_unknown_shortcuts_and_missing_classes_are_refused():
    features, y = make_shortcuts(30)
    with pytest.raises(ValueError, match=r"\['shape'\]: expected some of \['brightness', 'colour', 'size'\]"):
        predict_shortcuts(features, y, range(30), range(30), groups=["shape"])
    with pytest.raises(ValueError, match="no training image"):
        predict_shortcuts(features, np.eye(3)[np.zeros(30, int)], range(30), range(30))


# balance_away


def make_scores(count=4000, n_classes=2, seed=0, distance=1.0):
    """Draw images with the scores of a shortcut and of a model that knows nothing of it, two images in each group."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_classes, count)
    images = pd.DataFrame({"image_id": range(count), "group": np.arange(count) // 2, "label": codes})
    return images, *(rng.normal(distance * np.eye(n_classes)[codes]) for _ in range(2))


def tabulate(images, scores):
    names = range(scores.shape[1])
    return make_predictions(images, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), names)


def test_balanced_pairs_are_those_of_a_plain_loop():
    """Also with equal probabilities, of the model and of the shortcut, and with a class that has no pair."""
    images, known, other = make_scores(60, 3)
    known[images["label"] == 2] = -9, -9, 9  # which the shortcut never takes for another class
    predictions, shortcut = tabulate(images, other.round()), tabulate(images, known.round())
    values = []
    for code in range(3):
        score, likely = predictions[f"p_{code}"].to_numpy(), shortcut[f"p_{code}"].to_numpy()
        limits = np.sort(likely)[[int(59 * part / 4) for part in (1, 2, 3)]]
        stratum = [sum(limit <= value for limit in limits) for value in likely]
        right = pairs = 0
        for first in np.flatnonzero(images["label"] == code):
            for second in np.flatnonzero(images["label"] != code):
                if stratum[first] == stratum[second]:
                    pairs += 1
                    right += 0.5 * (score[first] == score[second]) + (score[first] > score[second])
        values += [right / pairs] if pairs else []
    assert len(values) == 2
    table = balance_away(predictions, shortcut, resamples=20, strata=4)
    assert table.loc["roc_auc_balanced", "value"] == pytest.approx(np.mean(values))
    assert table.loc["roc_auc", "value"] == pytest.approx(compute_metrics(predictions, 0).loc["roc_auc", "value"])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_in_one_stratum_nothing_is_balanced_away(n_classes):
    images, known, other = make_scores(300, n_classes)
    predictions = tabulate(images, other)
    expected = compute_metrics(predictions, 100).loc["roc_auc"]
    constant = tabulate(images, np.zeros_like(known))
    for table in (
        balance_away(predictions, tabulate(images, known), 100, strata=1),
        balance_away(predictions, constant, 100),
    ):
        np.testing.assert_allclose(table.loc["roc_auc"].astype(float), expected.astype(float))
        np.testing.assert_allclose(table.loc["roc_auc_balanced"].astype(float), expected.astype(float))


@pytest.mark.parametrize(("n_classes", "nearness"), [(2, 0.02), (4, 0.03)])
def test_what_the_shortcut_knows_is_balanced_away_and_nothing_else(n_classes, nearness):
    images, known, other = make_scores(n_classes=n_classes)
    noise = np.random.default_rng(1).normal(size=known.shape)
    shortcut = tabulate(images, known)

    def compute(model):
        return balance_away(tabulate(images, model), shortcut, 0)["value"]

    itself, noisy, independent = compute(known), compute(known + noise), compute(other)
    assert min(itself["roc_auc"], independent["roc_auc"]) > 0.7
    assert noisy["roc_auc"] > 0.65
    assert itself["roc_auc_balanced"] == pytest.approx(0.5, abs=nearness)
    assert noisy["roc_auc_balanced"] == pytest.approx(0.5, abs=0.02)
    assert independent["roc_auc_balanced"] == pytest.approx(independent["roc_auc"], abs=0.02)


def test_the_balanced_interval_is_wider_and_rests_on_the_groups_in_pairs():
    images, known, other = make_scores(400)
    known[:40] = np.where(np.eye(2)[images["label"][:40]], 9, -9)  # sure and right: in no pair
    table = balance_away(tabulate(images, other), tabulate(images, known), 200, strata=10)
    assert list(table) == ["value", "low", "high", "groups"]
    assert table.index.tolist() == ["roc_auc", "roc_auc_balanced"]
    assert np.diff(table["high"] - table["low"]) > 0
    labels = images["label"].to_numpy()
    assert table.loc["roc_auc", "groups"] == min(images["group"][labels == code].nunique() for code in (0, 1))
    assert table.loc["roc_auc_balanced", "groups"] < table.loc["roc_auc", "groups"]


def test_without_a_pair_nothing_is_left_to_score():
    images, _, other = make_scores(40)
    sure = tabulate(images, np.where(np.eye(2)[images["label"]], 5, -5))
    table = balance_away(tabulate(images, other), sure, 20)
    assert table.loc["roc_auc_balanced", ["value", "low", "high"]].isna().all()
    assert table.loc["roc_auc_balanced", "groups"] == 0
    assert table.loc["roc_auc"].notna().all()


def test_shortcuts_of_other_images_or_classes_are_refused():
    images, known, other = make_scores(40)
    predictions, shortcut = tabulate(images, other), tabulate(images, known)
    with pytest.raises(ValueError, match="same order"):
        balance_away(predictions, shortcut[::-1])
    with pytest.raises(ValueError, match="same order"):
        balance_away(predictions, shortcut.rename(columns={"p_0": "p_cat"}))
    with pytest.raises(ValueError, match="strata=0: expected at least 1"):
        balance_away(predictions, shortcut, strata=0)


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


# fit_regression, get_coefficients, regression_to_dense


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


@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_dense_layer_with_a_softmax_gives_the_probabilities_of_the_regression(n_classes):
    x, y = make_classes(n_classes=n_classes)
    regression = fit_regression(100 + 20 * x, y)
    kernel, bias = regression_to_dense(regression)
    assert kernel.shape == (3, n_classes)
    assert kernel.dtype == bias.dtype == "float32"
    scores = np.exp((100 + 20 * x) @ kernel + bias)
    expected = regression.predict_proba(100 + 20 * x)
    np.testing.assert_allclose(scores / scores.sum(axis=1, keepdims=True), expected, atol=1e-5)
