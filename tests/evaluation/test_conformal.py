"""Conformal sets: thresholds by hand, and their coverage on simulated images whose truth is known."""

import json

import numpy as np
import pandas as pd
import pytest

from helpers.evaluation.calibration import fit_conformal, predict_sets, score_sets
from helpers.evaluation.scores import get_probabilities, make_predictions


def make_table(y_prob, labels, class_names=("a", "b"), groups=None):
    groups = range(len(labels)) if groups is None else groups
    images = pd.DataFrame({"image_id": range(len(labels)), "group": groups, "label": labels})
    return make_predictions(images, y_prob, class_names)


def make_binary(p_a, labels, groups=None):
    p_a = np.asarray(p_a, "float64")
    return make_table(np.column_stack([p_a, 1 - p_a]), labels, groups=groups)


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


@pytest.mark.parametrize("coverage", [0.6, 0.9])
def test_new_images_of_each_class_are_covered_as_often_as_asked_for(predict, coverage):
    """On average over held-out draws, and hardly more often: (n + 1) * coverage, rounded up, of n + 1."""
    covered = {name: [] for name in "abc"}
    for seed in range(150):
        table = predict(1200, seed=seed, skill=0.5)
        held_out, new = table[:60], table[60:]
        sets = predict_sets(new, fit_conformal(held_out, coverage))
        for name, values in covered.items():
            values.append(sets.loc[new["y_true"] == name, f"in_{name}"].mean())
    for values in covered.values():
        assert coverage - 0.015 < np.mean(values) < coverage + 1 / 20 + 0.015


def test_a_rare_class_is_covered_where_a_common_threshold_would_leave_it_out():
    rng = np.random.default_rng(0)

    def draw():
        return make_binary(np.append(rng.beta(8, 2, 900), rng.beta(5, 5, 100)), ["a"] * 900 + ["b"] * 100)

    fitted, new = draw(), draw()
    sets = predict_sets(new, fit_conformal(fitted))
    of_b = new["y_true"] == "b"
    assert sets.loc[of_b, "in_b"].mean() > 0.8
    common = np.quantile(np.where(fitted["y_true"] == "a", fitted["p_a"], fitted["p_b"]), 0.1)
    assert (new.loc[of_b, "p_b"] >= common).mean() < 0.75


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
    assert scores.columns.tolist() == ["value", "low", "high"]
    assert scores["value"].to_dict() == pytest.approx(expected)


def test_scores_of_what_is_not_there_are_missing():
    table = make_table([[0.4, 0.35, 0.25]] * 4, ["a", "b", "a", "b"], ("a", "b", "c"))
    scores = score_sets(table, dict.fromkeys("abc", 0.2), resamples=10)
    assert scores.loc[["accuracy_of_certain", "coverage_c"]].isna().all(axis=None)
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
