"""Scores: the values are scikit-learn's, the intervals those of a bootstrap over groups."""

import io
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from sklearn import metrics as sklearn_metrics

from benchmarks.coverage import measure_coverage
from helpers.evaluation import calibration, thresholds
from helpers.evaluation.bootstrap import compute_proportion
from helpers.evaluation.calibration import apply_temperature, compute_calibration
from helpers.evaluation.scores import (
    _prepare_metrics,
    accuracy,
    average_by_group,
    balanced_accuracy,
    compare_metrics,
    compute_calibration_error,
    compute_class_metrics,
    compute_class_report,
    compute_metrics,
    compute_metrics_by,
    compute_precision_recall,
    compute_roc,
    encode_labels,
    find_confused_pairs,
    find_errors,
    get_probabilities,
    is_right,
    macro_f1,
    make_predictions,
    replace_probabilities,
    roc_auc,
)

IMAGES = pd.DataFrame(
    {"image_id": ["x", "y", "z"], "group": ["g", "h", "g"], "label": ["b", "c", "a"]}, index=[30, 10, 20]
)


ECE = "expected_calibration_error"


def test_predictions_stand_beside_the_truth_in_the_order_of_the_images():
    y_prob = np.array([[0.2, 0.7, 0.1], [0.5, 0.2, 0.3], [0.1, 0.1, 0.8]], "float32")
    table = make_predictions(IMAGES, y_prob, ("c", "b", "a"))
    assert list(table.columns) == ["image_id", "group", "y_true", "y_pred", "confidence", "p_c", "p_b", "p_a"]
    assert table.index.tolist() == [0, 1, 2]
    assert table["image_id"].tolist() == ["x", "y", "z"]
    assert table["group"].tolist() == ["g", "h", "g"]
    assert table["y_true"].tolist() == ["b", "c", "a"]
    assert table["y_pred"].tolist() == ["b", "c", "a"]
    np.testing.assert_allclose(table["confidence"], [0.7, 0.5, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(table[["p_c", "p_b", "p_a"]], y_prob.astype("float64"))


def test_of_equal_probabilities_the_first_class_is_predicted():
    table = make_predictions(IMAGES, [[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [1 / 3] * 3], ("c", "b", "a"))
    assert table["y_pred"].tolist() == ["c", "b", "c"]


@pytest.mark.parametrize(
    ("y_prob", "complaint"),
    [
        (np.full((2, 3), 1 / 3), r"shape \(2, 3\), expected \(3, 3\)"),
        (np.full((3, 2), 1 / 2), r"shape \(3, 2\), expected \(3, 3\)"),
        (np.full(3, 1 / 3), r"shape \(3,\), expected \(3, 3\)"),
        (np.full((3, 3), 0.5), "no probabilities"),
        (np.eye(3) * 2 - 1 / 3, "no probabilities"),  # rows sum to 1
        ([[1, 0, 0], [0, 1, 0], [0, 0, np.nan]], "no probabilities"),
    ],
    ids=["rows", "columns", "dimensions", "sum", "negative", "nan"],
)
def test_wrong_probabilities(y_prob, complaint):
    with pytest.raises(ValueError, match=complaint):
        make_predictions(IMAGES, y_prob, ("c", "b", "a"))


def compute_naive_ece(predictions, bins=15):
    right = (predictions["y_true"] == predictions["y_pred"]).to_numpy()
    confidence = predictions["confidence"].to_numpy()
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = (confidence >= low) & ((confidence < high) | (number == bins - 1))
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - confidence[inside].mean())
    return total / len(predictions)


@pytest.mark.parametrize("decimals", [None, 1], ids=["all scores differ", "tied scores"])
@pytest.mark.parametrize("class_names", [("a", "b"), ("a", "b", "c"), tuple("0123456789")], ids=len)
def test_values_are_those_of_scikit_learn(predict, class_names, decimals):
    for seed in range(3):
        table = predict(300, class_names, seed, decimals)
        y_true, y_pred, y_prob = table["y_true"], table["y_pred"], table[[f"p_{name}" for name in class_names]]
        binary = len(class_names) == 2
        auc = sklearn_metrics.roc_auc_score(
            y_true,
            y_prob.iloc[:, 1] if binary else y_prob,
            multi_class="ovr",
            average="macro",
            labels=None if binary else list(class_names),
        )
        expected = {
            "accuracy": sklearn_metrics.accuracy_score(y_true, y_pred),
            "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(y_true, y_pred),
            "macro_f1": sklearn_metrics.f1_score(y_true, y_pred, average="macro"),
            "weighted_f1": sklearn_metrics.f1_score(y_true, y_pred, average="weighted"),
            "roc_auc": auc,
            ECE: compute_naive_ece(table),
            "majority_rate": y_true.value_counts(normalize=True).max(),
        }
        found = compute_metrics(table, resamples=2)
        assert found.index.name == "metric"
        assert found.columns.tolist() == ["value", "low", "high", "groups"]
        assert found["value"].to_dict() == pytest.approx(expected, rel=1e-12)
        assert len({round(value, 6) for value in expected.values()}) >= 5  # none passes in another's place


def score_by_scikit_learn(drawn, class_names):
    """Score a table row by row; the mean of ROC AUC and of sensitivity are over the true classes."""
    y_true, y_pred = drawn["y_true"], drawn["y_pred"]
    present = np.unique(y_true)
    f1 = {
        f"{average}_f1": sklearn_metrics.f1_score(y_true, y_pred, average=average, zero_division=0)
        for average in ("macro", "weighted")
    }
    recall = sklearn_metrics.recall_score(y_true, y_pred, labels=present, average="macro")
    areas = [sklearn_metrics.roc_auc_score(y_true == name, drawn[f"p_{name}"]) for name in present if len(present) > 1]
    return f1 | {
        "accuracy": sklearn_metrics.accuracy_score(y_true, y_pred),
        "balanced_accuracy": recall,
        "roc_auc": np.mean(areas) if areas else np.nan,
        ECE: compute_naive_ece(drawn),
    }


@pytest.mark.parametrize("lacks", ["nothing", "images", "predictions", "both"])
@pytest.mark.parametrize("class_names", [("a", "b"), ("a", "b", "c", "d")], ids=len)
def test_classes_that_are_absent_or_never_predicted_count_as_in_scikit_learn(predict, class_names, lacks):
    """In the images as well as in resamples of them."""
    for seed in range(2):
        table = predict(40, class_names, seed, skill=0.3, groups=np.arange(40) // 2)
        if lacks in ("predictions", "both"):
            y_prob = get_probabilities(table)[0] * (np.array(class_names) != "a")
            table = replace_probabilities(table, y_prob + 1e-9)
        table = table[table["y_true"] != "a"] if lacks in ("images", "both") else table
        found, copies = _prepare_metrics(table), np.random.default_rng(seed).integers(0, 3, len(table))
        for weights in (np.ones(len(table), int), copies):
            expected = score_by_scikit_learn(table.loc[table.index.repeat(weights)], class_names)
            values = found(weights.astype(float))
            assert {name: values[name] for name in expected} == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_calibration_error_by_hand():
    y_prob = [[0.9, 0.1], [0.92, 0.08], [0.6, 0.4], [0.5, 0.5], [0.0, 1.0], [0.96, 0.04]]
    images = pd.DataFrame({"image_id": range(6), "group": range(6), "label": list("abbabb")})
    table = make_predictions(images, y_prob, ("a", "b"))
    # bins of 1/15: 0.9 and 0.92 in [13/15, 14/15), 0.6 in [9/15, 10/15), 0.5 in [7/15, 8/15), 0.96 and 1 in the last
    expected = (2 * abs(0.5 - 0.91) + abs(0 - 0.6) + abs(1 - 0.5) + 2 * abs(0.5 - 0.98)) / 6
    assert compute_metrics(table, 2).loc[ECE, "value"] == pytest.approx(expected)
    calibration = compute_calibration(table)
    np.testing.assert_allclose(calibration["confidence"], [0.5, 0.6, 0.91, 0.98])
    np.testing.assert_allclose(calibration["accuracy"], [1, 0, 0.5, 0.5])
    assert calibration["images"].tolist() == [1, 1, 2, 2]
    wilson = [compute_proportion(right, images) for right, images in [(1, 1), (0, 1), (1, 2), (1, 2)]]
    for bound in ("low", "high"):
        np.testing.assert_allclose(calibration[bound], [interval[bound] for interval in wilson])


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_calibration_table_adds_up(predict, bins):
    table = predict(400)
    calibration = compute_calibration(table, bins)
    assert calibration.index.tolist() == list(range(len(calibration)))
    assert calibration["images"].sum() == 400
    assert calibration["images"].min() > 0
    assert len(calibration) <= bins
    weights = calibration["images"] / 400
    assert (weights * calibration["accuracy"]).sum() == pytest.approx(is_right(table).mean())
    assert (weights * calibration["confidence"]).sum() == pytest.approx(table["confidence"].mean())
    gaps = (calibration["accuracy"] - calibration["confidence"]).abs()
    assert (weights * gaps).sum() == pytest.approx(compute_naive_ece(table, bins))
    np.testing.assert_array_equal(
        np.floor(calibration["confidence"].clip(upper=0.999) * bins).diff().dropna() > 0, True
    )


def test_the_seed_decides_the_interval(predict):
    table = predict(100)
    first = compute_metrics(table, 50, seed=1)
    pd.testing.assert_frame_equal(compute_metrics(table, 50, seed=1), first)
    other = compute_metrics(table, 50, seed=2)
    pd.testing.assert_series_equal(other["value"], first["value"])
    assert not np.allclose(other[["low", "high"]], first[["low", "high"]])


def test_copies_that_share_a_group_do_not_narrow_the_interval(predict):
    table = predict(150)
    expected = compute_metrics(table, 200)
    copied = pd.concat([table, table], ignore_index=True)
    pd.testing.assert_frame_equal(compute_metrics(copied, 200), expected)  # the copies count as one

    independent = compute_metrics(copied.assign(group=range(300)), 200)
    width, narrowed = (
        found.loc["accuracy", "high"] - found.loc["accuracy", "low"] for found in (expected, independent)
    )
    assert 0.55 < narrowed / width < 0.9  # about 1/sqrt(2): the groups make the difference


def test_large_groups_widen_the_interval(predict):
    table = predict(400, skill=0.3).sort_values("y_true")
    table["group"] = np.arange(400) // 40  # each group nearly of one class, as with one patient's images
    table["y_pred"] = "b"
    grouped, single = (compute_metrics(t, 200).loc["accuracy"] for t in (table, table.assign(group=range(400))))
    assert grouped["high"] - grouped["low"] > 2 * (single["high"] - single["low"])


@pytest.mark.parametrize("class_names", [("a", "b"), ("a", "b", "c")])
def test_the_interval_contains_the_value(predict, class_names):
    for seed in range(5):
        found = compute_metrics(predict(200, class_names, seed), 100).drop("majority_rate")
        assert (found["low"] < found["value"]).all()
        assert (found["value"] < found["high"]).all()


def test_the_interval_of_the_majority_rate_contains_the_value_where_classes_are_balanced():
    images = pd.DataFrame({"image_id": range(100), "group": range(100), "label": list("0123456789") * 10})
    table = make_predictions(images, np.eye(10)[np.arange(100) % 10], tuple("0123456789"))
    rate = compute_metrics(table, 200).loc["majority_rate"]
    assert rate["value"] == pytest.approx(0.1)
    assert rate["low"] <= 0.1 <= rate["high"]


def test_a_perfect_classifier_may_still_err():
    """No error in 20 groups of each class does not mean that there are none."""
    images = pd.DataFrame({"image_id": range(60), "group": range(60), "label": list("abc") * 20})
    found = compute_metrics(make_predictions(images, np.eye(3)[np.arange(60) % 3], tuple("abc")), 50)
    expected = dict.fromkeys(["accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "roc_auc"], 1)
    found = found.drop("majority_rate")
    assert found.loc[ECE, ["low", "high"]].tolist() == pytest.approx([0, 1 - found.loc["accuracy", "low"]])
    assert found["value"].to_dict() == pytest.approx(expected | {ECE: 0})
    assert found["low"].drop(ECE).between(0.93, 0.95).all()
    assert (found["high"].drop(ECE) == 1).all()
    assert found["groups"].tolist() == [60, 20, 20, 60, 20, 60]


def test_the_interval_of_accuracy_agrees_with_the_binomial_one(predict):
    table = predict(600)
    right = is_right(table).sum()
    found = compute_metrics(table, 400).loc["accuracy"]
    low, high = binom.ppf([0.025, 0.975], 600, right / 600) / 600
    assert found["low"] == pytest.approx(low, abs=0.007)
    assert found["high"] == pytest.approx(high, abs=0.007)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        right = rng.random(120) < 0.8
        images = pd.DataFrame({"image_id": range(120), "group": range(120), "label": np.where(right, "a", "b")})
        found = compute_metrics(make_predictions(images, [[0.8, 0.2]] * 120, ("a", "b")), 60, seed).loc["accuracy"]
        covered += found["low"] <= 0.8 <= found["high"]
    assert 88 <= covered <= 99


def test_a_class_without_images_does_not_count():
    images = pd.DataFrame({"image_id": range(40), "group": range(40), "label": list("ab") * 20})
    y_prob = np.tile([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1]], (20, 1))
    found = compute_metrics(make_predictions(images, y_prob, ("a", "b", "c")), 20)["value"]
    assert found[["accuracy", "balanced_accuracy", "macro_f1", "roc_auc"]].tolist() == [1, 1, 1, 1]


def test_resamples_without_a_rare_class_give_no_warning():
    """With a single positive image a third of the resamples have no ROC curve."""
    images = pd.DataFrame({"image_id": range(20), "group": range(20), "label": ["b"] + ["a"] * 19})
    y_prob = np.c_[np.linspace(0.1, 0.9, 20), np.linspace(0.9, 0.1, 20)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compute_metrics(make_predictions(images, y_prob, ("a", "b")), 50)
    np.testing.assert_array_equal(found.loc["roc_auc"], [1, np.nan, np.nan, 1])


def test_images_of_one_class_have_no_roc_curve():
    images = pd.DataFrame({"image_id": range(20), "group": range(20), "label": "a"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compute_metrics(make_predictions(images, [[0.8, 0.2]] * 20, ("a", "b")), 5)
    assert found.loc["roc_auc", ["value", "low", "high"]].isna().all()
    assert found.drop("roc_auc").notna().all(axis=None)


def compare_accuracy(predictions, others, resamples):
    return compare_metrics(predictions, others, resamples).loc["accuracy"]


@pytest.fixture
def pair(predict):
    return predict(300, skill=3.0), predict(300, skill=0.3)


def test_the_difference_is_the_first_minus_the_second(pair):
    better, worse = pair
    found = compare_accuracy(better, worse, 300)
    assert list(found.index) == ["value", "low", "high", "groups"]
    assert found["value"] == pytest.approx(is_right(better).mean() - is_right(worse).mean())
    assert 0 < found["low"] < found["value"] < found["high"]
    turned = compare_accuracy(worse, better, 300)
    np.testing.assert_allclose(turned[["value", "low", "high"]], -found[["value", "high", "low"]].to_numpy())


def test_the_comparison_is_paired(pair):
    """Models that fail on the same images differ surely, though each one's interval is wide."""
    better, _ = pair
    worse = better.copy()
    changed = worse.index[is_right(worse)][:12]
    worse.loc[changed, "y_pred"] = worse.loc[changed, "y_true"].map({"a": "b", "b": "c", "c": "a"})
    found = compare_accuracy(better, worse, 300)
    assert found["value"] == pytest.approx(12 / 300)
    assert found["low"] > 0.015
    alone = compute_metrics(worse, 300).loc["accuracy"]
    assert found["high"] - found["low"] < 0.7 * (alone["high"] - alone["low"])


def test_identical_predictions_do_not_differ(predict):
    table = predict(100)
    assert (compare_metrics(table, table.copy(), 50)[["value", "low", "high"]] == 0).all(axis=None)
    known = compare_metrics(table, apply_temperature(table, 2), 50)[["low", "high"]].eq(0).all(axis=1)  # labels stay
    assert known.drop(["roc_auc", ECE]).all()
    assert not known[["roc_auc", ECE]].any()


@pytest.mark.parametrize(("groups", "correlation", "width"), [((8, 8), 0.2, 0.25), ((60, 60), 0, 0.06)])
def test_the_interval_of_the_calibration_error_holds_zero_where_the_model_is_calibrated(groups, correlation, width):
    """Of groups of 1 to 100 images; the percentiles of resamples never hold 0."""
    found = measure_coverage(groups, 0.8, correlation, repeats=40, resamples=30, calibrated=True).loc[ECE]
    assert found["shown"] == 1
    assert found["coverage"] >= 0.92
    assert found["width"] < width


@pytest.mark.parametrize(("confidence", "low"), [(0.95, 0.15), (0.75, 0)])
def test_the_interval_of_the_calibration_error_tells_a_model_that_is_too_sure(confidence, low):
    """Right are 75 % of 1,000 images: the sign of the error is sure, so that it is as exact as the accuracy."""
    right = np.arange(1000) % 4 > 0
    images = pd.DataFrame({"image_id": range(1000), "group": range(1000), "label": np.where(right, "a", "b")})
    table = make_predictions(images, [[confidence, 1 - confidence]] * 1000, ("a", "b"))
    found, alone = compute_metrics(table, 300).loc[ECE], compute_calibration_error(table, 300)
    pd.testing.assert_series_equal(found, alone)
    assert found["value"] == pytest.approx(confidence - 0.75)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 1000)
    assert found["high"] == pytest.approx(found["value"] + half, abs=0.1 * half)
    assert low <= found["low"] <= max(0, found["value"] - half)
    assert (found["low"] > 0) == (confidence == 0.95)


def test_the_calibration_error_of_a_model_without_an_error_is_as_unsure_as_its_accuracy():
    images = pd.DataFrame({"image_id": range(60), "group": np.arange(60) // 3, "label": "a"})
    table = make_predictions(images, np.c_[np.linspace(0.95, 1, 60), np.linspace(0.05, 0, 60)], ("a", "b"))
    found = compute_metrics(table, 50)
    missing = 1 - found.loc["accuracy", "low"]
    assert missing == pytest.approx(1 - 0.025 ** (1 / 20))
    assert found.loc[ECE].tolist() == pytest.approx([0.025, 0, 0.025 + missing, 20])


def test_the_calibration_error_of_few_groups_has_no_interval(predict):
    table = predict(100, groups=np.arange(100) % 4)
    found = compute_calibration_error(table, 50)
    assert found["value"] == pytest.approx(compute_naive_ece(table))
    assert found[["low", "high"]].isna().all()
    assert found["groups"] == 4


def test_the_difference_of_calibration_errors_has_no_interval(predict):
    found = compare_metrics(predict(100), predict(100, skill=2), 50)
    assert found.loc[ECE, ["low", "high"]].isna().all()
    assert found.drop(ECE).notna().all(axis=None)


def read_back(predictions):
    """Write a table as CSV and read it: classes that are numbers come back as numbers."""
    return pd.read_csv(io.StringIO(predictions.to_csv(index=False)))


@pytest.mark.parametrize(
    "compute",
    [
        lambda table: compute_metrics(table, 20),
        lambda table: compare_metrics(table, table[::-1].assign(image_id=table["image_id"].to_numpy()), 20),
        lambda table: compute_class_report(table, [7, 0, 3]),
        lambda table: compute_class_metrics(table, 20),
        lambda table: compute_metrics_by(table, np.arange(len(table)) % 2, 20),
        compute_roc,
        compute_precision_recall,
        lambda table: find_errors(table, 5).drop(columns=["y_true", "y_pred"]),
        find_confused_pairs,
        is_right,
        lambda table: is_right(table.assign(y_pred=table["y_pred"].astype(str))),
        lambda table: get_probabilities(table)[0],
        lambda table: encode_labels(table["y_true"], ["7", "0", "3"]),
        compute_calibration,
        calibration.fit_temperature,
        lambda table: apply_temperature(table, 2),
        lambda table: calibration.correct_prior(table, [0.2, 0.3, 0.5]),
        lambda table: calibration.estimate_prior(table, [0.2, 0.3, 0.5]),
        calibration.fit_conformal,
        lambda table: calibration.score_sets(table, calibration.fit_conformal(table), 20),
        lambda table: thresholds.score_group_of_classes(table, [7, "3"]),
    ],
)
def test_classes_that_became_numbers_in_a_csv_file_are_known(predict, compute):
    table = predict(80, ("7", "0", "3"))
    again = read_back(table)
    assert again["y_true"].dtype == again["y_pred"].dtype == "int64"
    expected, found = compute(table), compute(again)
    if isinstance(expected, pd.DataFrame | pd.Series):
        check = pd.testing.assert_series_equal if isinstance(expected, pd.Series) else pd.testing.assert_frame_equal
        check(found, expected)
    else:
        assert found == pytest.approx(expected)


def test_every_metric_is_compared(pair):
    better, worse = pair
    found = compare_metrics(better, worse, 100)
    alone = [compute_metrics(table, 0)["value"] for table in pair]
    pd.testing.assert_series_equal(found["value"], alone[0] - alone[1])
    assert found.loc["roc_auc", "low"] > 0.1
    assert found.loc["balanced_accuracy", "low"] > 0.1


def test_confused_pairs_count_both_directions():
    table = pd.DataFrame({"y_true": list("aaabbbccc"), "y_pred": list("abbabbcca")})
    found = find_confused_pairs(table)
    assert found.to_dict("list") == {
        "first": ["a", "a"],
        "second": ["b", "c"],
        "errors": [3, 1],
        "share": [3 / 6, 1 / 6],
    }
    assert len(find_confused_pairs(table, 1)) == 1
    assert find_confused_pairs(table.assign(y_pred=table["y_true"])).empty


def test_the_comparison_resamples_groups(pair):
    better, worse = pair
    copied = [pd.concat([table, table], ignore_index=True) for table in (better, worse)]
    pd.testing.assert_series_equal(compare_accuracy(*copied, 200), compare_accuracy(better, worse, 200))
    independent = compare_accuracy(*(table.assign(group=range(600)) for table in copied), 200)
    single = compare_accuracy(better, worse, 200)
    assert independent["high"] - independent["low"] < 0.9 * (single["high"] - single["low"])


def test_groups_of_several_sizes_are_weighted_by_their_images():
    """Right against wrong on every image: whatever groups are drawn, the difference is 1. They count as two."""
    sizes = np.array([1, 2, 23, 7, 7])
    images = pd.DataFrame({"image_id": range(40), "group": np.repeat(list("vwxyz"), sizes), "label": "a"})
    right, wrong = (make_predictions(images, [row] * 40, ("a", "b")) for row in ([0.9, 0.1], [0.1, 0.9]))
    low = 0.025 ** (np.square(sizes).sum() / 40**2)
    assert compare_accuracy(right, wrong, 50).tolist() == pytest.approx([1, 2 * low - 1, 1, 5])
    assert compute_metrics(right, 50).loc["accuracy"].tolist() == pytest.approx([1, low, 1, 5])


def test_the_comparison_goes_by_order_not_by_index(pair):
    better, worse = pair
    expected = compare_accuracy(better, worse, 50)
    moved = worse.set_axis(range(150, 450))
    pd.testing.assert_series_equal(compare_accuracy(better, moved, 50), expected)
    repeated = [table.set_axis([*range(100)] * 3) for table in (better, worse)]  # as in a union of test sets
    pd.testing.assert_series_equal(compare_accuracy(*repeated, 50), expected)


@pytest.mark.parametrize(
    "change", [lambda t: t.iloc[:-1], lambda t: t.iloc[::-1], lambda t: t.assign(image_id="other")]
)
def test_tables_of_other_images_are_not_compared(predict, change):
    table = predict(30)
    with pytest.raises(ValueError, match="not of the same images in the same order"):
        compare_metrics(table, change(table))


def test_class_report_is_that_of_scikit_learn(predict):
    table = predict(200)
    report = compute_class_report(table, ["c", "a", "b"])
    assert report.index.tolist() == ["c", "a", "b", "macro avg", "weighted avg"]
    assert report.columns.tolist() == ["precision", "recall", "f1-score", "support"]
    expected = sklearn_metrics.precision_recall_fscore_support(table["y_true"], table["y_pred"], labels=["c", "a", "b"])
    np.testing.assert_allclose(report.iloc[:3], np.transpose(expected))
    assert report["support"].dtype.kind == "i"
    found = compute_metrics(table, 2)["value"]
    assert report.loc["macro avg", "f1-score"] == pytest.approx(found["macro_f1"])
    assert report.loc["macro avg", "recall"] == pytest.approx(found["balanced_accuracy"])
    assert report.loc["weighted avg", "f1-score"] == pytest.approx(found["weighted_f1"])


def test_class_report_has_a_row_for_a_class_without_images(predict):
    report = compute_class_report(predict(50), ["a", "b", "c", "d"])
    assert report.loc["d"].tolist() == [0, 0, 0, 0]
    assert report.index.tolist() == ["a", "b", "c", "d", "macro avg", "weighted avg"]


@pytest.mark.parametrize("class_names", [(10, 2), (3, 10, 2), range(4)], ids=str)
def test_names_of_classes_may_be_numbers(predict, class_names):
    table = predict(90, tuple(map(str, class_names)))
    images = table.rename(columns={"y_true": "label"}).astype({"label": int})
    found = make_predictions(images, get_probabilities(table)[0], class_names)
    pd.testing.assert_frame_equal(found, table)
    pd.testing.assert_frame_equal(compute_metrics(found, 5), compute_metrics(table, 5))
    pd.testing.assert_frame_equal(
        compute_class_report(found, class_names), compute_class_report(table, [*map(str, class_names)])
    )
    assert is_right(found).any()


def test_labels_in_a_table_that_are_no_class_are_refused(predict):
    """Such as after a table was put together from two data sets."""
    table = predict(20)
    table.loc[3, "y_true"] = "x"
    with pytest.raises(ValueError, match=r"y_true has \['x'\]: expected labels among \['a', 'b', 'c'\]"):
        compute_metrics(table, 5)


def test_columns_of_the_metadata_are_no_classes(predict):
    table = predict(40)
    y_prob, class_names = get_probabilities(table)
    stages = np.arange(40) % 3
    images = pd.DataFrame({"image_id": table["image_id"], "p_stage": stages, "sex": "f", "p_value": 0.5})
    for other in (
        table.merge(images, on="image_id"),
        images.merge(table, on="image_id"),
        table.assign(p_stage=stages, p_value=0.0),
        table.assign(p_stage="late"),
        table.assign(**{"p_stage": np.nan}),
    ):
        assert get_probabilities(other)[1] == class_names
        np.testing.assert_array_equal(get_probabilities(other)[0], y_prob)
        pd.testing.assert_frame_equal(compute_metrics(other, 5), compute_metrics(table, 5))


ARRAYS = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy, "macro_f1": macro_f1, "roc_auc": roc_auc}


def take_arrays(name, table, rows=slice(None)):
    """Take the labels, and the predictions that a metric is computed from, out of a table."""
    predicted = get_probabilities(table)[0] if name == "roc_auc" else table["y_pred"].to_numpy()
    return table["y_true"].to_numpy()[rows], predicted[rows]


@pytest.mark.parametrize("class_names", [("a", "b"), ("a", "b", "c")], ids=len)
@pytest.mark.parametrize("name", ARRAYS)
def test_metrics_of_arrays_are_those_of_scikit_learn_and_of_the_table(predict, name, class_names):
    table = predict(150, class_names, groups=np.arange(150) // 4)
    y_true, predicted = take_arrays(name, table)
    if name == "roc_auc":
        score = predicted[:, 1] if len(class_names) == 2 else predicted
        expected = sklearn_metrics.roc_auc_score(y_true, score, multi_class="ovr")
        assert roc_auc(y_true, score) == pytest.approx(expected, rel=1e-12)
    elif name == "macro_f1":
        expected = sklearn_metrics.f1_score(y_true, predicted, average="macro")
    else:
        expected = getattr(sklearn_metrics, f"{name}_score")(y_true, predicted)
    found = ARRAYS[name](y_true, predicted)
    assert isinstance(found, float)
    assert found == pytest.approx(expected, rel=1e-12)
    found = ARRAYS[name](y_true, predicted, table["group"], resamples=40, seed=3)
    assert found.index.tolist() == ["value", "low", "high", "groups"]
    of_each_class = table.groupby("y_true")["group"].nunique()
    assert found["groups"] == (38 if name == "accuracy" else of_each_class.min())
    pd.testing.assert_series_equal(found, compute_metrics(table, 40, 3).loc[name])


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_may_be_of_any_kind(predict, name):
    table = predict(40, tuple("210"), groups=np.arange(40) // 2)
    y_true, predicted = take_arrays(name, table)
    codes = {"y_true": y_true.astype(int)}
    codes |= {"class_names": [2, 1, 0], "y_prob": predicted} if name == "roc_auc" else {"y_pred": predicted.astype(int)}
    expected = compute_metrics(table, 20).loc[name]
    groups = pd.Series(table["group"].to_numpy(), index=range(90, 50, -1))
    for kind in (list, np.array, lambda values: pd.Series(list(values), index=range(40)[::-1])):
        arguments = {key: kind(value) if key in ("y_true", "y_pred") else value for key, value in codes.items()}
        assert ARRAYS[name](**arguments) == pytest.approx(expected["value"])
        assert ARRAYS[name](**arguments, groups=groups, resamples=20)[["low", "high"]].tolist() == pytest.approx(
            expected[["low", "high"]].tolist()
        )


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_different_length_are_refused(predict, name):
    y_true, predicted = take_arrays(name, predict(20))
    with pytest.raises(ValueError, match=r"20 true labels, 19 predictions and 20 groups: expected one of each"):
        ARRAYS[name](y_true, predicted[:19])
    with pytest.raises(ValueError, match=r"20 true labels, 20 predictions and 3 groups: expected one of each"):
        ARRAYS[name](y_true, predicted, groups=[1, 2, 3])
    with pytest.raises(ValueError, match=r"0 true labels, 0 predictions and 0 groups: expected one of each"):
        ARRAYS[name](y_true[:0], predicted[:0])


def test_labels_that_are_no_class_are_refused(predict):
    y_true, y_prob = take_arrays("roc_auc", predict(20))
    with pytest.raises(ValueError, match=r"label among \['a', 'b', 'x'\]; unknown: \{'c'\}"):
        roc_auc(y_true, y_prob, class_names=["a", "b", "x"])
    with pytest.raises(ValueError, match=r"shape \(20, 3\), expected \(20, 2\), a column for each of \['a', 'b'\]"):
        roc_auc(np.where(y_true == "c", "a", y_true), y_prob)


def test_errors_are_listed_the_most_confident_first():
    table = pd.DataFrame(
        {"y_true": list("aabbab"), "y_pred": list("abbaba"), "confidence": [0.99, 0.6, 0.9, 0.8, 0.6, 0.7]},
        index=[5, 4, 3, 2, 1, 0],
    )
    assert find_errors(table).index.tolist() == [2, 0, 4, 1]  # of equal confidence, the earlier first
    assert find_errors(table, 2).index.tolist() == [2, 0]
    assert find_errors(table, count=50).equals(find_errors(table))
    assert len(find_errors(table[is_right(table)])) == 0


def test_probabilities_are_taken_out_in_the_order_of_the_classes():
    y_prob = np.array([[0.2, 0.7, 0.1], [0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])
    found, class_names = get_probabilities(make_predictions(IMAGES, y_prob, ("c", "b", "a")))
    np.testing.assert_array_equal(found, y_prob)
    assert class_names == ["c", "b", "a"]


def test_names_of_classes_that_look_like_columns_survive():
    names = ("p_b", "c", "a_p_")
    table = make_predictions(IMAGES.assign(label=["p_b", "c", "a_p_"]), np.eye(3), names)
    assert get_probabilities(table)[1] == list(names)


def test_replaced_probabilities_are_scaled_and_decide_the_class():
    table = make_predictions(IMAGES, [[0.2, 0.7, 0.1], [0.5, 0.2, 0.3], [0.1, 0.1, 0.8]], ("c", "b", "a"))
    before = table.copy()
    found = replace_probabilities(table, [[3, 1, 0], [0.1, 0.1, 0.2], [0, 1e-9, 0]])
    np.testing.assert_allclose(get_probabilities(found)[0], [[0.75, 0.25, 0], [0.25, 0.25, 0.5], [0, 1, 0]])
    assert found["y_pred"].tolist() == ["c", "a", "b"]
    np.testing.assert_allclose(found["confidence"], [0.75, 0.5, 1])
    kept = ["image_id", "group", "y_true"]
    pd.testing.assert_frame_equal(found[kept], before[kept])
    assert list(found) == list(before)
    pd.testing.assert_frame_equal(table, before)


def test_replacing_probabilities_by_themselves_changes_nothing(predict):
    table = predict(50)
    pd.testing.assert_frame_equal(replace_probabilities(table, get_probabilities(table)[0]), table)


@pytest.mark.parametrize(
    "y_prob", [np.ones((2, 3)), np.ones((3, 2)), 3 - 4 * np.eye(3)], ids=["rows", "columns", "negative"]
)
def test_wrong_replacements(y_prob):
    with pytest.raises(ValueError, match="y_prob has"):
        replace_probabilities(make_predictions(IMAGES, np.eye(3), ("c", "b", "a")), y_prob)


def test_without_resamples_there_are_values_but_no_intervals(predict):
    table = predict(60)
    found = compute_metrics(table, 0)
    pd.testing.assert_series_equal(found["value"], compute_metrics(table, 5)["value"])
    assert found[["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize("decimals", [None, 1], ids=["all scores differ", "tied scores"])
def test_metrics_of_a_class_are_those_of_scikit_learn(predict, decimals):
    table = predict(300, ("c", "a", "b"), decimals=decimals)
    found = compute_class_metrics(table, 20)
    assert list(found.columns) == ["class", "metric", "value", "low", "high", "groups"]
    kinds = ["sensitivity", "specificity", "precision", "roc_auc"]
    assert found[["class", "metric"]].to_numpy().tolist() == [[name, kind] for name in "cab" for kind in kinds]
    values = found.set_index(["class", "metric"])["value"]
    for name in "abc":
        true, predicted = table["y_true"] == name, table["y_pred"] == name
        expected = {
            "sensitivity": sklearn_metrics.recall_score(true, predicted),
            "specificity": sklearn_metrics.recall_score(~true, ~predicted),
            "precision": sklearn_metrics.precision_score(true, predicted),
            "roc_auc": sklearn_metrics.roc_auc_score(true, table[f"p_{name}"]),
        }
        assert values[name].to_dict() == pytest.approx(expected, rel=1e-12)
        assert len({round(value, 6) for value in expected.values()}) == 4


def test_intervals_of_a_class_are_those_of_its_resampled_images(find_interval):
    """Resamples made by copying rows, scored by scikit-learn."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(20), 4)
    images = pd.DataFrame({"image_id": range(80), "group": groups, "label": rng.choice(list("ab"), 80)})
    y_prob = rng.dirichlet([1, 1], 80)
    table = make_predictions(images, y_prob, ("a", "b"))
    found = compute_class_metrics(table, 20, seed=4).set_index(["class", "metric"])
    resampled, rng = [], np.random.default_rng(4)
    for _ in range(20):
        copies = table.iloc[np.concatenate([np.flatnonzero(groups == group) for group in rng.integers(0, 20, 20)])]
        true, predicted = copies["y_true"] == "b", copies["y_pred"] == "b"
        resampled.append(
            {
                "sensitivity": sklearn_metrics.recall_score(true, predicted),
                "specificity": sklearn_metrics.recall_score(~true, ~predicted),
                "precision": sklearn_metrics.precision_score(true, predicted),
                "roc_auc": sklearn_metrics.roc_auc_score(true, copies["p_b"]),
            }
        )
    true, predicted = table["y_true"] == "b", table["y_pred"] == "b"
    parts = {"sensitivity": [true], "specificity": [~true], "precision": [predicted], "roc_auc": [true, ~true]}
    for kind, values in pd.DataFrame(resampled).items():
        row, sizes = found.loc[("b", kind)], [table[part].value_counts("group") for part in parts[kind]]
        np.testing.assert_allclose(row[["low", "high"]], find_interval(row["value"], values, *sizes))
        assert row["groups"] == min(map(len, sizes))


def test_what_a_class_lacks_is_missing():
    """No image of b, no prediction of c; c stands in one group, so that nothing is known of another one."""
    images = pd.DataFrame({"image_id": range(8), "group": range(8), "label": list("aaaaaaac")})
    y_prob = [[0.7, 0.2, 0.1]] * 6 + [[0.3, 0.6, 0.1]] * 2
    found = compute_class_metrics(make_predictions(images, y_prob, ("a", "b", "c")), 100)
    found = found.set_index(["class", "metric"])
    lacking = found.loc[[("b", "sensitivity"), ("b", "roc_auc"), ("c", "precision")]]
    assert lacking["groups"].tolist() == [0, 0, 0]
    assert lacking.drop(columns="groups").isna().all(axis=None)
    assert found.loc[("b", "specificity"), "value"] == 0.75
    assert found.loc[("b", "precision"), "value"] == 0
    np.testing.assert_array_equal(found.loc[("c", "sensitivity")], [0, np.nan, np.nan, 1])
    np.testing.assert_allclose(found.loc[("c", "specificity")], [1, 0.025 ** (1 / 7), 1, 7])
    np.testing.assert_array_equal(found.loc[("c", "roc_auc")], [0.5, np.nan, np.nan, 1])  # all scores are the same
    np.testing.assert_allclose(found.loc[("a", "precision")], [1, 0.025 ** (1 / 6), 1, 6])


def test_metrics_of_subgroups_are_those_of_their_images(predict):
    table = predict(90, groups=np.arange(90) // 2)
    sex = pd.Series(np.resize(["male", "female", None, "female"], 90), index=range(1000, 1090))
    found = compute_metrics_by(table, sex, 30, seed=3)
    assert list(found.columns) == ["subgroup", "images", "metric", "value", "low", "high", "groups"]
    assert found["subgroup"].unique().tolist() == ["female", "male"]  # the missing ones are left out
    for name, part in found.groupby("subgroup"):
        rows = table[(sex == name).to_numpy()]
        expected = compute_metrics(rows, 30, seed=3)
        pd.testing.assert_frame_equal(part.set_index("metric")[["value", "low", "high", "groups"]], expected)
        assert set(part["images"]) == {len(rows)}
        assert part["groups"].max() == rows["group"].nunique()
    assert found.drop_duplicates("subgroup")["images"].sum() == 90 - sex.isna().sum()
    assert found.loc[found["subgroup"] == "female", "groups"].iloc[0] == 45


def test_bands_of_a_number_can_be_subgroups(predict):
    table = predict(40)
    ages = np.resize([2.0, 15.0, 50.0, np.nan], 40)
    found = compute_metrics_by(table, pd.cut(ages, [0, 5, 30, 60, 99]), 2)
    assert found.drop_duplicates("subgroup")[["subgroup", "images"]].to_numpy().tolist() == [
        ["(0, 5]", 10],
        ["(5, 30]", 10],
        ["(30, 60]", 10],
    ]


@pytest.mark.parametrize("decimals", [None, 1], ids=["all scores differ", "tied scores"])
@pytest.mark.parametrize("class_names", [("b", "a"), ("c", "a", "b")])
def test_curves_are_those_of_scikit_learn(predict, class_names, decimals):
    table = predict(150, class_names, decimals=decimals, skill=0.6)
    roc, precision_recall = compute_roc(table), compute_precision_recall(table)
    assert list(roc.columns) == ["class", "false_positive_rate", "true_positive_rate", "roc_auc"]
    assert list(precision_recall.columns) == ["class", "recall", "precision", "average_precision", "prevalence"]
    assert roc["class"].unique().tolist() == precision_recall["class"].unique().tolist() == list(class_names)
    for name in class_names:
        true, score = table["y_true"] == name, table[f"p_{name}"]
        curve = roc[roc["class"] == name]
        assert curve["roc_auc"].unique() == pytest.approx([sklearn_metrics.roc_auc_score(true, score)])
        false_rate, true_rate, _ = sklearn_metrics.roc_curve(true, score)
        np.testing.assert_allclose(curve["false_positive_rate"], false_rate)
        np.testing.assert_allclose(curve["true_positive_rate"], true_rate)
        curve = precision_recall[precision_recall["class"] == name]
        expected = sklearn_metrics.average_precision_score(true, score)
        assert curve["average_precision"].unique() == pytest.approx([expected])
        assert curve["prevalence"].unique() == pytest.approx([true.mean()])
        precision, recall, _ = sklearn_metrics.precision_recall_curve(true, score, drop_intermediate=True)
        np.testing.assert_allclose(curve["precision"], precision)
        np.testing.assert_allclose(curve["recall"], recall)
    assert roc["roc_auc"].between(0.55, 0.95).all()
    assert roc.index.tolist() == list(range(len(roc)))


@pytest.mark.parametrize("compute", [compute_roc, compute_precision_recall])
def test_classes_without_images_have_no_curve(predict, compute):
    table = predict(100)
    assert compute(table[table["y_true"] != "b"])["class"].unique().tolist() == ["a", "c"]


@pytest.mark.parametrize("compute", [compute_roc, compute_precision_recall])
def test_images_of_one_class_alone_have_no_curve(predict, compute):
    table = predict(50)
    with pytest.raises(ValueError, match="All images are of b: a curve needs images of several classes"):
        compute(table[table["y_true"] == "b"])


def test_one_person_of_a_class_is_no_ground_for_an_interval(predict):
    """Three people, one of them healthy, with many images each; a mean over classes rests on the healthy one."""
    table = predict(300, ("healthy", "ill"))
    table["group"] = np.where(table["y_true"] == "healthy", 0, 1 + np.arange(300) % 2)
    found = compute_metrics(table, 50)
    assert found["groups"].to_dict() == {
        "accuracy": 3, "balanced_accuracy": 1, "macro_f1": 1, "weighted_f1": 3, "roc_auc": 1, ECE: 3, "majority_rate": 3
    }  # fmt: skip
    assert found[["low", "high"]].isna().all(axis=None)
    difference = compare_metrics(table, table, 50)
    assert difference["groups"].equals(found["groups"])
    assert difference[["low", "high"]].isna().all(axis=None)


def test_averaged_by_group_each_group_counts_once():
    table = pd.DataFrame(
        {
            "image_id": list("abcdef"),
            "group": ["H1", "H1", "H1", "L1", "L2", "L2"],
            "label": ["healthy"] * 3 + ["leukemic"] * 3,
        }
    )
    likely = np.array([0.9, 0.1, 0.2, 0.3, 0.6, 0.8])
    cells = make_predictions(table, np.c_[1 - likely, likely], ["healthy", "leukemic"])
    people = average_by_group(cells)
    assert people["group"].tolist() == people["image_id"].tolist() == ["H1", "L1", "L2"]
    assert people["y_true"].tolist() == ["healthy", "leukemic", "leukemic"]
    np.testing.assert_allclose(people["p_leukemic"], [0.4, 0.3, 0.7])
    assert compute_metrics(people, 0).loc["roc_auc", "value"] == 0.5
    assert compute_metrics(cells, 0).loc["roc_auc", "value"] == pytest.approx(2 / 3)
