"""Calibration: temperature, shares of classes and conformal sets, by hand and where the truth is known."""

import json

import numpy as np
import pandas as pd
import pytest
from crepes import ConformalClassifier
from sklearn import metrics as sklearn_metrics

from helpers.evaluation.calibration import (
    apply_temperature,
    center_classes,
    compute_abstaining,
    correct_prior,
    estimate_prior,
    fit_conformal,
    fit_temperature,
    predict_sets,
    score_sets,
)
from helpers.evaluation.scores import compute_metrics, encode_labels, get_probabilities, is_right, make_predictions


def make_table(y_prob, labels=None, class_names=("c", "a", "b")):
    labels = labels if labels is not None else [class_names[0]] * len(y_prob)
    images = pd.DataFrame({"image_id": range(len(labels)), "group": range(len(labels)), "label": labels})
    return make_predictions(images, y_prob, class_names)


def simulate_predictions(temperature, count=20_000, seed=0):
    """Draw labels from known probabilities; give those, in float32, of a model too sure of itself by a factor."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.2, (count, 3))
    y_prob = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    codes = (y_prob.cumsum(1) < rng.random((count, 1))).sum(1).clip(max=2)
    sharp = np.exp((logits - logits.max(1, keepdims=True)) * temperature)
    sharp = (sharp / sharp.sum(1, keepdims=True)).astype("float32")
    return make_table(sharp, np.array(list("cab"))[codes]), y_prob


def test_priors_are_exchanged_by_the_rule_of_bayes():
    table = make_table([[0.6, 0.3, 0.1]])
    found = correct_prior(table, prior=[0.5, 0.3, 0.2], new_prior=[0.2, 0.2, 0.6])
    weights = np.array([0.6 * 0.2 / 0.5, 0.3 * 0.2 / 0.3, 0.1 * 0.6 / 0.2])  # 0.24, 0.2, 0.3
    np.testing.assert_allclose(get_probabilities(found)[0], [weights / 0.74])
    assert found["y_pred"].tolist() == ["b"]
    np.testing.assert_allclose(found["confidence"], 0.3 / 0.74)


def test_equal_shares_are_what_is_corrected_for_by_default():
    table = make_table([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    found = correct_prior(table, [0.7, 0.2, 0.1])
    pd.testing.assert_frame_equal(found, correct_prior(table, [0.7, 0.2, 0.1], [1 / 3] * 3))
    weights = np.array([0.6 / 0.7, 0.3 / 0.2, 0.1 / 0.1])
    np.testing.assert_allclose(get_probabilities(found)[0][0], weights / weights.sum())
    assert found["y_pred"].tolist() == ["a", "b"]


def test_only_the_ratio_of_the_shares_counts():
    table = make_table([[0.6, 0.3, 0.1]])
    pd.testing.assert_frame_equal(correct_prior(table, [70, 20, 10]), correct_prior(table, [0.7, 0.2, 0.1]))


def test_the_same_prior_changes_nothing_and_the_way_back_restores(predict):
    table = predict(80)
    shares = [0.6, 0.3, 0.1]
    pd.testing.assert_frame_equal(correct_prior(table, shares, shares), table)
    there = correct_prior(table, shares, [0.1, 0.2, 0.7])
    assert (there["y_pred"] != table["y_pred"]).any()
    pd.testing.assert_frame_equal(correct_prior(there, [0.1, 0.2, 0.7], shares), table)


def test_an_impossible_class_stays_impossible():
    table = make_table([[0, 0.5, 0.5], [0.9, 0.06, 0.04]])
    y_prob = get_probabilities(correct_prior(table, [0.2, 0.4, 0.4]))[0]
    np.testing.assert_allclose(y_prob[0], [0, 0.5, 0.5])
    y_prob = get_probabilities(correct_prior(table, [0.2, 0.4, 0.4], [0, 0.5, 0.5]))[0]
    np.testing.assert_allclose(y_prob, [[0, 0.5, 0.5], [0, 0.6, 0.4]])


@pytest.mark.parametrize(
    ("prior", "new_prior"),
    [
        ([0.5, 0.5], None),
        ([0.5, 0.5, 0], None),
        ([0.7, 0.5, -0.2], None),
        ([0.4, 0.3, 0.3], [0.5, 0.5]),
        (0.5, None),
        ([[0.4, 0.3, 0.3]], None),
        ([0.4, 0.3, 0.3], [[0.4, 0.3, 0.3]]),
    ],
    ids=["too few", "zero", "negative", "new too few", "number", "nested", "new nested"],
)
def test_wrong_priors(prior, new_prior):
    with pytest.raises(ValueError, match="expected a positive share for each of c, a, b"):
        correct_prior(make_table([[0.6, 0.3, 0.1]]), prior, new_prior)


def test_correcting_the_prior_raises_balanced_accuracy_where_probabilities_are_right():
    """Two Gaussian classes, 95 % of one: Bayes' rule gives the probabilities."""
    rng = np.random.default_rng(0)
    rare = rng.random(4000) < 0.05
    x = rng.normal(1.5 * rare)
    odds = 0.05 / 0.95 * np.exp(1.5 * x - 1.5**2 / 2)
    rare_prob = odds / (1 + odds)
    table = make_table(np.c_[1 - rare_prob, rare_prob], np.where(rare, "rare", "common"), ("common", "rare"))
    found = correct_prior(table, [0.95, 0.05])
    np.testing.assert_array_equal(found["y_pred"] == "rare", x > 0.75)  # halfway between the two means
    before, after = (sklearn_metrics.balanced_accuracy_score(t["y_true"], t["y_pred"]) for t in (table, found))
    assert after > before + 0.15


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 10.0, 15.0])
def test_a_known_temperature_is_found_again(temperature):
    table, y_prob = simulate_predictions(temperature)
    found = fit_temperature(table)
    assert found == pytest.approx(temperature, rel=0.04)
    assert isinstance(found, float)
    there = get_probabilities(table)[0].min(axis=1) > 1e-37  # of the others the network's 0 does not tell how small
    np.testing.assert_allclose(
        get_probabilities(apply_temperature(table, temperature))[0][there], y_prob[there], atol=1e-6
    )


def test_no_other_temperature_makes_the_truth_more_likely():
    table, _ = simulate_predictions(1.7, 500)
    found = fit_temperature(table)

    def compute_loss(temperature):
        y_prob, class_names = get_probabilities(apply_temperature(table, temperature))
        return sklearn_metrics.log_loss(table["y_true"], y_prob[:, np.argsort(class_names)], labels=sorted(class_names))

    losses = [compute_loss(found * factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2)]
    assert compute_loss(found) < min(losses)
    assert compute_loss(found) < compute_loss(1)


def test_a_temperature_is_not_beyond_its_limits():
    y_prob = np.tile([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], (20, 1))
    always_right, never_right = make_table(y_prob, list("cab") * 20), make_table(y_prob, list("abc") * 20)
    assert 0.05 <= fit_temperature(always_right) < 0.06
    assert 19 < fit_temperature(never_right) <= 20


def test_temperature_by_hand():
    table = make_table([[0.64, 0.32, 0.04]])
    softer, sharper = (get_probabilities(apply_temperature(table, t))[0][0] for t in (2, 0.5))
    roots = np.sqrt([0.64, 0.32, 0.04])
    np.testing.assert_allclose(softer, roots / roots.sum())
    squares = np.square([0.64, 0.32, 0.04])
    np.testing.assert_allclose(sharper, squares / squares.sum())
    pd.testing.assert_frame_equal(apply_temperature(table, 1), table)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 3, 20])
def test_a_temperature_leaves_the_classes_and_their_order(predict, temperature):
    table = predict(200)
    found = apply_temperature(table, temperature)
    assert found["y_pred"].tolist() == table["y_pred"].tolist()
    if temperature > 0.05:
        for before, after in zip(get_probabilities(table)[0], get_probabilities(found)[0], strict=True):
            assert np.argsort(before).tolist() == np.argsort(after).tolist()
    confidence = found["confidence"].mean() - table["confidence"].mean()
    assert confidence * (1 - temperature) > 0  # below 1 surer, above 1 less sure


@pytest.mark.parametrize("temperature", [0.05, 1, 20])
def test_probabilities_of_zero_and_one_are_no_trouble(temperature):
    table = make_table([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [1e-30, 0, 1]], list("cbab"))
    found = apply_temperature(table, temperature)
    assert found["y_pred"].tolist() == ["c", "a", "c", "b"]
    y_prob = get_probabilities(found)[0]
    assert np.isfinite(y_prob).all()
    np.testing.assert_allclose(y_prob[2, :2].sum() + y_prob[2, 2], 1)
    np.testing.assert_allclose(y_prob[2, 0], y_prob[2, 1])


def test_a_model_that_is_sure_and_wrong_has_a_high_temperature():
    """The wrong ones have probability 0: their likelihood must not be infinitely small at every temperature."""
    sure = np.eye(3)[np.arange(60) % 3]
    labels = np.array(list("cab"))[(np.arange(60) + (np.arange(60) < 15)) % 3]
    found = fit_temperature(make_table(sure, labels))
    assert 5 < found <= 20
    assert is_right(make_table(sure, labels)).mean() == 0.75


# estimate_prior


SHARES = np.array([0.5, 0.3, 0.2])


def simulate_shifted(shares, count=20_000, seed=0, centres=(0.0, 2.0, 4.5)):
    """Draw from Gaussian classes with given shares; the probabilities are right where the shares are ``SHARES``."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(3, count, p=shares)
    x = rng.normal(np.take(centres, codes))
    weights = SHARES * np.exp(-((x[:, None] - centres) ** 2) / 2)
    return make_table(weights / weights.sum(1, keepdims=True), np.array(list("cab"))[codes])


@pytest.mark.parametrize("shares", [SHARES, [0.1, 0.1, 0.8], [0.05, 0.9, 0.05], [1 / 3] * 3, [0.7, 0.0, 0.3]], ids=str)
def test_shifted_shares_are_found_without_the_labels(shares):
    table = simulate_shifted(shares)
    found = estimate_prior(table, SHARES)
    assert found.shape == (3,)
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, shares, atol=0.015)
    np.testing.assert_array_equal(estimate_prior(table.assign(y_true="c"), SHARES), found)


@pytest.mark.parametrize("shares", [[0.1, 0.1, 0.8], [0.05, 0.9, 0.05]], ids=str)
def test_one_step_is_the_mean_of_the_probabilities_and_not_enough(shares):
    table = simulate_shifted(shares)
    mean = get_probabilities(table)[0].mean(axis=0)
    np.testing.assert_allclose(estimate_prior(table, SHARES, steps=1), mean)
    assert np.abs(estimate_prior(table, SHARES) - shares).max() < 0.3 * np.abs(mean - shares).max()


def test_two_steps_by_hand():
    """Prior 1/4 and 3/4; first the mean, 1/2; then weights 0.8 * 2 to 0.2 * 2/3 and 0.2 * 2 to 0.8 * 2/3."""
    table = make_table([[0.8, 0.2], [0.2, 0.8]], class_names=("c", "a"))
    expected = (1.6 / (1.6 + 0.4 / 3) + 0.4 / (0.4 + 1.6 / 3)) / 2
    np.testing.assert_allclose(estimate_prior(table, [0.25, 0.75], steps=2), [expected, 1 - expected])
    np.testing.assert_array_equal(estimate_prior(table, [1, 3], steps=0), [0.25, 0.75])


def test_no_other_shares_make_the_images_more_likely():
    rng = np.random.default_rng(3)
    rare = rng.random(400) < 0.35
    x = rng.normal(1.2 * rare)
    odds = 0.1 / 0.9 * np.exp(1.2 * x - 1.2**2 / 2)
    table = make_table(np.c_[1 / (1 + odds), odds / (1 + odds)], class_names=("c", "a"))
    (_, found), ratios = estimate_prior(table, [0.9, 0.1]), get_probabilities(table)[0] / [0.9, 0.1]
    grid = np.linspace(0, 1, 2001)
    likelihood = [np.log(ratios @ [1 - share, share]).sum() for share in grid]
    assert found == pytest.approx(grid[np.argmax(likelihood)], abs=1e-3)
    assert 0.2 < found < 0.5


def test_corrected_probabilities_have_the_estimated_shares_on_average():
    table = simulate_shifted([0.1, 0.1, 0.8], 2000)
    found = estimate_prior(table, SHARES)
    corrected = get_probabilities(correct_prior(table, SHARES, found))[0]
    np.testing.assert_allclose(corrected.mean(axis=0), found, atol=1e-5)


def test_estimates_of_predictions_without_any_doubt_are_counts():
    table = make_table(np.eye(3)[[0, 0, 0, 1, 2, 2, 0, 0]])
    np.testing.assert_allclose(estimate_prior(table, [0.2, 0.7, 0.1]), [5 / 8, 1 / 8, 2 / 8])


def test_predictions_that_know_nothing_leave_the_prior():
    table = make_table(np.tile(SHARES, (10, 1)))
    np.testing.assert_allclose(estimate_prior(table, SHARES), SHARES)


def test_only_the_ratio_of_the_prior_counts_and_it_is_not_changed():
    table, counts = simulate_shifted([0.1, 0.1, 0.8], 500), np.array([50, 30, 20])
    np.testing.assert_allclose(estimate_prior(table, counts), estimate_prior(table, SHARES))
    assert counts.tolist() == [50, 30, 20]
    np.testing.assert_array_equal(estimate_prior(table, [50, 30, 20]), estimate_prior(table, counts))


def make_binary(p_a, labels):
    p_a = np.asarray(p_a, "float64")
    return make_table(np.column_stack([p_a, 1 - p_a]), labels, ("a", "b"))


# fit_conformal


P_A = [0.05, 0.95, 0.25, 0.85, 0.45, 0.65, 0.15, 0.75, 0.35, 0.55]  # ten images of class a, in any order


@pytest.mark.parametrize(
    ("coverage", "expected"),
    [
        (0.9, 0.05),  # ceil(11 * 0.9) = 10: the smallest of ten
        (0.8, 0.15),  # ceil(8.8) = 9
        (0.75, 0.15),  # ceil(8.25) = 9
        (8 / 11, 0.25),  # exactly 8
        (0.5, 0.45),  # ceil(5.5) = 6; without the correction it would be the fifth, 0.55
        (0.01, 0.95),  # the largest
        (0.95, 0.0),  # ceil(10.45) = 11: ten images are too few
    ],
)
def test_thresholds_by_hand(coverage, expected):
    assert fit_conformal(make_binary(P_A, ["a"] * 10), coverage)["a"] == expected


@pytest.mark.parametrize(
    ("count", "coverage", "smallest"),
    [(9, 0.9, True), (8, 0.9, False), (29, 0.9, True), (4, 0.8, True), (3, 0.8, False), (19, 0.95, True)],
)
def test_a_class_needs_enough_images_for_the_coverage(count, coverage, smallest):
    p_a = np.linspace(0.3, 0.9, count)
    threshold = fit_conformal(make_binary(p_a, ["a"] * count), coverage)["a"]
    if count == 29:
        assert threshold == p_a[2]  # 30 * 0.9 is 27: the third smallest, whatever the rounding
    else:
        assert threshold == (0.3 if smallest else 0.0)


def test_each_class_has_a_threshold_of_its_own_images():
    table = make_binary([0.9] * 20 + [0.6] * 20, ["a"] * 20 + ["b"] * 20)
    assert fit_conformal(table) == pytest.approx({"a": 0.9, "b": 0.4})
    assert list(fit_conformal(table)) == ["a", "b"]


def test_classes_without_images_are_in_every_set():
    table = make_table([[0.7, 0.3, 0.0]] * 20, ["a"] * 20, ("a", "b", "c"))
    thresholds = fit_conformal(table)
    assert thresholds == {"a": 0.7, "b": 0.0, "c": 0.0}
    assert predict_sets(table, thresholds)[["in_b", "in_c"]].all(axis=None)


def test_thresholds_survive_json(predict):
    thresholds = fit_conformal(predict(200))
    assert json.loads(json.dumps(thresholds)) == thresholds


@pytest.mark.parametrize("coverage", [0, 1, 1.5, -0.1, float("nan")])
def test_coverage_is_a_share(coverage, predict):
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        fit_conformal(predict(20), coverage)


def test_new_images_of_each_class_are_covered_as_often_as_asked_for(predict):
    """On average over held-out draws, and hardly more often: (n + 1) * coverage, rounded up, of n + 1."""
    covered = {(coverage, name): [] for coverage in (0.6, 0.9) for name in "abc"}
    for seed in range(150):
        table = predict(360, seed=seed, skill=0.5)
        held_out, new = table[:60], table[60:]
        sets = {coverage: predict_sets(new, fit_conformal(held_out, coverage)) for coverage in (0.6, 0.9)}
        for (coverage, name), values in covered.items():
            values.append(sets[coverage].loc[new["y_true"] == name, f"in_{name}"].mean())
    for (coverage, _), values in covered.items():
        assert coverage - 0.015 < np.mean(values) < coverage + 1 / 20 + 0.015


def test_a_rare_class_is_covered_where_a_common_threshold_would_leave_it_out():
    rng = np.random.default_rng(0)

    def draw():
        return make_binary(np.append(rng.beta(8, 2, 900), rng.beta(5, 5, 100)), ["a"] * 900 + ["b"] * 100)

    fitted, new = draw(), draw()
    sets = predict_sets(new, fit_conformal(fitted))
    is_b = new["y_true"] == "b"
    assert sets.loc[is_b, "in_b"].mean() > 0.8
    common = np.quantile(np.where(fitted["y_true"] == "a", fitted["p_a"], fitted["p_b"]), 0.1)
    assert (new.loc[is_b, "p_b"] >= common).mean() < 0.75


# predict_sets


def test_sets_by_hand():
    table = pd.DataFrame(
        {"p_a": [0.9, 0.5, 0.55, 0.3, 0.6], "p_b": [0.1, 0.5, 0.45, 0.7, 0.4]}, index=[7, 3, 5, 1, 2]
    )  # without labels, in any order
    sets = predict_sets(table, {"b": 0.5, "a": 0.6})
    expected = pd.DataFrame(
        {
            "in_a": [True, False, False, False, True],
            "in_b": [False, True, False, True, False],
            "set_size": [1, 1, 0, 1, 1],
            "uncertain": [False, True, True, False, False],  # the second is taken for a, but only b is in its set
        },
        index=table.index,
    )
    pd.testing.assert_frame_equal(sets, expected)


def test_large_sets_are_uncertain():
    sets = predict_sets(
        pd.DataFrame({"p_a": [0.5, 0.9], "p_b": [0.3, 0.1], "p_c": [0.2, 0.0]}), dict.fromkeys("abc", 0.2)
    )
    assert sets["set_size"].tolist() == [3, 1]
    assert sets["uncertain"].tolist() == [True, False]


def test_no_images_have_no_sets():
    sets = predict_sets(pd.DataFrame({"p_a": [], "p_b": []}, dtype="float64"), {"a": 0.5, "b": 0.5})
    assert sets.columns.tolist() == ["in_a", "in_b", "set_size", "uncertain"]
    assert len(sets) == 0


@pytest.mark.parametrize("thresholds", [{}, {"a": 0.5}, {"a": 0.5, "c": 0.5}, {"a": 0.5, "b": 0.5, "c": 0.5}])
def test_thresholds_of_other_classes_are_refused(thresholds):
    with pytest.raises(ValueError, match="expected those of"):
        predict_sets(pd.DataFrame({"p_a": [0.5], "p_b": [0.5]}), thresholds)


def predict_sets_of_crepes(held_out, new, coverage):
    """Predict sets by p-values within each class, which are the true label's category (Mondrian)."""
    (known, class_names), (y_prob, _) = get_probabilities(held_out), get_probabilities(new)
    codes = encode_labels(held_out["y_true"], class_names)
    conformal = ConformalClassifier().fit(-known[np.arange(len(codes)), codes], bins=codes)
    columns = [
        conformal.predict_set(-y_prob[:, [code]], np.full(len(y_prob), code), confidence=coverage, smoothing=False)
        for code in range(len(class_names))
    ]
    return np.hstack(columns).astype(bool)


@pytest.mark.parametrize("coverage", [0.6, 0.8, 0.9])
@pytest.mark.parametrize("class_names", [("a", "b"), ("c", "a", "b"), tuple("0123456789")], ids=len)
def test_sets_are_those_of_crepes(predict, class_names, coverage):
    """A class belongs to the set if its p-value is larger than 1 - coverage; crepes takes it also if it is equal."""
    for seed, count in enumerate([30, 60, 99, 200]):  # of few classes with fewer images than the coverage needs
        held_out, new = predict(count, class_names, seed, decimals=1), predict(150, class_names, seed + 50, decimals=1)
        columns = [f"in_{name}" for name in class_names]
        found = predict_sets(new, fit_conformal(held_out, coverage))[columns].to_numpy()
        np.testing.assert_array_equal(found, predict_sets_of_crepes(held_out, new, coverage - 1e-6))
        larger = predict_sets_of_crepes(held_out, new, coverage)
        assert (larger >= found).all()
        ranks = np.array([((held_out["y_true"] == name).sum() + 1) * coverage for name in class_names])
        assert np.isclose(ranks, ranks.round())[(larger != found).any(axis=0)].all()


def test_a_p_value_of_exactly_the_rest_of_the_coverage():
    """Of 9 images the 8th largest probability covers 8 / (9 + 1) = 0.8; crepes takes the 9th, which covers 0.9."""
    held_out, new = make_binary([*P_A[:9], 0.5], ["a"] * 9 + ["b"]), make_binary([0.15, 0.1, 0.05, 0.01], ["a"] * 4)
    found = predict_sets(new, fit_conformal(held_out, 0.8))["in_a"]
    assert found.tolist() == [True, False, False, False]
    assert predict_sets_of_crepes(held_out, new, 0.8)[:, 0].tolist() == [True, True, True, False]


# compute_abstaining


def test_abstaining_by_hand():
    """Of equal confidence 0.8 are three images, which are answered together."""
    table = make_binary([0.95, 0.1, 0.8, 0.8, 0.2, 0.7, 0.6, 0.55], list("aaababab"))
    found = compute_abstaining(table, 20)
    columns = ["answered", "threshold", "accuracy", "low", "high", "images", "groups"]
    assert found.columns.tolist() == columns
    assert found.index.tolist() == list(range(6))
    expected = {  # right are those of 0.95 and 0.6, and one of 0.8
        0.55: (8, 3),
        0.6: (7, 3),
        0.7: (6, 2),
        0.8: (5, 2),
        0.9: (2, 1),
        0.95: (1, 1),
    }
    assert found["threshold"].tolist() == pytest.approx(list(expected))
    assert found["images"].tolist() == found["groups"].tolist() == [images for images, _ in expected.values()]
    assert found["answered"].tolist() == [images / 8 for images, _ in expected.values()]
    assert found["accuracy"].tolist() == pytest.approx([right / images for images, right in expected.values()])
    assert found[["low", "high"]].notna().all(axis=1).tolist() == [True] * 4 + [False] * 2  # of fewer than 5 groups


def test_steps_of_abstaining_are_twentieths(predict):
    found = compute_abstaining(predict(1000), 5)
    np.testing.assert_allclose(found["answered"], np.arange(20, 0, -1) / 20)
    found = compute_abstaining(predict(333), 5)
    np.testing.assert_array_equal(found["images"], np.ceil(np.arange(20, 0, -1) * 333 / 20))
    assert found["accuracy"].iloc[-1] > found["accuracy"].iloc[0] + 0.1
    found = compute_abstaining(make_binary([0.9] * 10, ["a"] * 10), 5)
    assert found[["answered", "threshold", "accuracy"]].to_numpy().tolist() == [[1, 0.9, 1]]


def test_intervals_of_abstaining_are_those_of_the_answered_images(predict, find_interval):
    table = predict(120, groups=np.arange(120) // 4)
    found = compute_abstaining(table, 60, seed=4)
    columns = ["low", "high", "groups"]
    accuracy = compute_metrics(table, 60, seed=4).loc["accuracy"]
    assert found.loc[0, columns].tolist() == pytest.approx(accuracy[columns].tolist())
    row, resampled, rng = found.loc[10], [], np.random.default_rng(4)
    answered = table[table["confidence"] >= row["threshold"]]
    by_group = is_right(answered).groupby(answered["group"]).agg(["sum", "size"]).reindex(range(30), fill_value=0)
    for _ in range(60):
        drawn = by_group.loc[rng.integers(0, 30, 30)].sum()
        resampled.append(drawn["sum"] / drawn["size"])
    interval = find_interval(row["accuracy"], resampled, answered.groupby("group").size())
    np.testing.assert_allclose(row[["low", "high"]].astype(float), interval)
    assert row["groups"] == answered["group"].nunique() < 30


def test_nothing_to_answer(predict):
    with pytest.raises(ValueError, match="There are no predictions"):
        compute_abstaining(predict(5)[:0])


# score_sets


def test_scores_by_hand():
    table = make_binary([0.9, 0.8, 0.55, 0.3, 0.1, 0.55], ["a", "b", "b", "b", "b", "a"])
    scores = score_sets(table, {"a": 0.5, "b": 0.4}, resamples=10)
    expected = {  # sets: a, a, ab, b, b, ab
        "coverage": 5 / 6,
        "mean_set_size": 8 / 6,
        "share_uncertain": 2 / 6,
        "accuracy_of_certain": 3 / 4,
        "coverage_a": 1.0,
        "coverage_b": 3 / 4,
    }
    assert scores.index.name == "metric"
    assert scores.columns.tolist() == ["value", "low", "high", "groups"]
    assert scores["groups"].tolist() == [6, 6, 6, 4, 2, 4]
    assert (scores.loc["mean_set_size", ["low", "high"]] - 8 / 6).abs().gt(0.1).all()
    assert scores["value"].to_dict() == pytest.approx(expected)


def test_scores_of_what_is_not_there_are_missing():
    table = make_table([[0.4, 0.35, 0.25]] * 4, ["a", "b", "a", "b"], ("a", "b", "c"))
    scores = score_sets(table, dict.fromkeys("abc", 0.2), resamples=10)
    assert scores.loc[["accuracy_of_certain", "coverage_c"], ["value", "low", "high"]].isna().all(axis=None)
    assert scores.loc[["accuracy_of_certain", "coverage_c"], "groups"].tolist() == [0, 0]
    assert scores.loc["coverage", "value"] == 1


def test_intervals_draw_whole_groups(predict):
    alone = predict(300)
    thresholds = fit_conformal(predict(300, seed=1))
    width = score_sets(alone, thresholds, 300, seed=3).eval("high - low")
    copies = pd.concat([alone] * 4, ignore_index=True)  # no more is known than before
    pd.testing.assert_series_equal(score_sets(copies, thresholds, 300, seed=3).eval("high - low"), width)
    narrow = score_sets(copies.assign(group=range(len(copies))), thresholds, 300, seed=3).eval("high - low")
    assert (narrow < 0.75 * width).all()


def test_scores_are_the_same_again(predict):
    table = predict(100)
    thresholds = fit_conformal(table)
    first, again, other = (score_sets(table, thresholds, 50, seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not first["low"].equals(other["low"])
    y_prob, _ = get_probabilities(table)
    assert first.loc["mean_set_size", "value"] == (y_prob >= list(thresholds.values())).sum(axis=1).mean()


def test_centred_classes_lie_beside_zero_and_each_group_counts_once():
    groups = ["H1"] * 8 + ["H2", "L1", "L2"]
    log_odds = np.array([3.0] * 8 + [1.0, 5.0, 3.0])
    table = pd.DataFrame({"image_id": range(11), "group": groups, "label": ["healthy"] * 9 + ["leukemic"] * 2})
    likely = 1 / (1 + np.exp(-log_odds))
    centred = center_classes(make_predictions(table, np.c_[1 - likely, likely], ["healthy", "leukemic"]))
    np.testing.assert_allclose(np.log(centred["p_leukemic"] / centred["p_healthy"]), log_odds - (2 + 4) / 2, atol=1e-9)
    with pytest.raises(ValueError, match="Expected images of two classes"):
        center_classes(centred[centred["y_true"] == "healthy"])
