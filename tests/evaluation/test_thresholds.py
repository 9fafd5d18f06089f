"""Thresholds: what an alarm is worth, by hand and on simulated images whose truth is known."""

import time
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from helpers.evaluation.bootstrap import compute_proportion
from helpers.evaluation.scores import compute_metrics, make_predictions
from helpers.evaluation.thresholds import (
    compute_alarm_metrics,
    compute_net_benefit,
    compute_subgroups,
    count_missed,
    find_balanced_threshold,
    find_threshold,
    find_worst_subgroup,
    score_group_of_classes,
)
from helpers.files import InputError

KINDS = ["accuracy", "sensitivity", "specificity", "precision", "roc_auc", "sensitivity_at_specificity"]


def make_scores(positive, score, group=None):
    positive = np.asarray(positive, bool)
    group = np.arange(len(positive)) if group is None else group
    return pd.DataFrame(
        {"image_id": np.arange(len(positive)), "group": group, "positive": positive, "score": np.asarray(score, float)}
    )


def simulate_scores(count=300, seed=0, decimals=None, share=0.3):
    rng = np.random.default_rng(seed)
    positive = rng.random(count) < share
    score = 1 / (1 + np.exp(-rng.normal(1.5 * positive - 1, 1)))
    return make_scores(positive, score if decimals is None else np.round(score, decimals))


def test_the_score_of_a_group_is_the_sum_of_its_classes():
    images = pd.DataFrame({"image_id": range(3), "group": ["x", "y", "x"], "label": list("cba")})
    table = make_predictions(images, [[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0, 1, 0]], ("c", "a", "b"))
    found = score_group_of_classes(table, ["b", "c"])
    assert list(found.columns) == ["image_id", "group", "positive", "score"]
    assert found["positive"].tolist() == [True, True, False]
    np.testing.assert_allclose(found["score"], [0.7, 0.8, 0], atol=1e-15)
    assert found["group"].tolist() == ["x", "y", "x"]
    assert found["image_id"].tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(score_group_of_classes(table, ("c", "b")), found)
    assert "score" not in table


def test_one_class_is_a_group_too(predict):
    table = predict(40)
    found = score_group_of_classes(table, ["b"])
    assert found["score"].tolist() == table["p_b"].tolist()
    assert found["positive"].tolist() == (table["y_true"] == "b").tolist()


def test_the_classes_of_a_group_may_be_numbers(predict):
    table = predict(40, ("0", "1", "2"))
    pd.testing.assert_frame_equal(score_group_of_classes(table, [1, 2]), score_group_of_classes(table, ["1", "2"]))


def test_unknown_classes_have_no_score(predict):
    with pytest.raises(ValueError, match=r"No such class: d, e\. Known: a, b, c\."):
        score_group_of_classes(predict(10), ["e", "a", "d"])


def get_specificity(scores, threshold):
    return (scores.loc[~scores["positive"], "score"] < threshold).mean()


@pytest.mark.parametrize("specificity", [0.05, 0.5, 0.9, 0.95, 0.99, 1])
@pytest.mark.parametrize("decimals", [None, 1, 0], ids=["all scores differ", "tied scores", "zero or one"])
def test_the_threshold_is_the_lowest_that_keeps_the_promise(specificity, decimals):
    for seed in range(4):
        scores = simulate_scores(150, seed, decimals)
        threshold = find_threshold(scores, specificity=specificity)
        assert isinstance(threshold, float)
        assert get_specificity(scores, threshold) >= specificity - 1e-12
        assert get_specificity(scores, np.nextafter(threshold, -np.inf)) < specificity


@pytest.mark.parametrize(("specificity", "allowed"), [(0.9, 1), (0.7, 3), (0.8, 2), (0.95, 0), (0.31, 6), (1, 0)])
def test_false_alarms_are_used_up_to_the_number_allowed(specificity, allowed):
    """Ten negatives: 1 - 0.9 and the like are not exact in binary."""
    scores = make_scores([False] * 10 + [True] * 3, [*np.arange(10) / 10, 0.05, 0.55, 0.99])
    threshold = find_threshold(scores, specificity=specificity)
    assert (scores.loc[~scores["positive"], "score"] >= threshold).sum() == allowed


def test_tied_negatives_fall_on_one_side_together():
    scores = make_scores([False] * 5, [0.1, 0.4, 0.4, 0.4, 0.9])
    assert 0.4 < find_threshold(scores, specificity=0.5) < 0.4001  # two false alarms are allowed, three would come
    assert 0.1 < find_threshold(scores, specificity=0.2) < 0.1001
    assert 0.9 < find_threshold(scores, specificity=1) < 0.9001


def test_without_any_specificity_all_negatives_may_raise_an_alarm():
    scores = simulate_scores(50)
    threshold = find_threshold(scores, specificity=0)
    assert (scores.loc[~scores["positive"], "score"] >= threshold).all()


def test_positives_do_not_move_the_threshold():
    scores = simulate_scores(100)
    moved = scores.assign(score=scores["score"].mask(scores["positive"], 0.5))
    find = partial(find_threshold, specificity=0.9)
    assert find(moved) == find(scores) == find(scores.sample(frac=1, random_state=0))


def test_without_negatives_there_is_no_threshold():
    with pytest.raises(ValueError, match="no negative image"):
        find_threshold(make_scores([True, True], [0.2, 0.4]), specificity=0.9)


@pytest.mark.parametrize("sensitivity", [0.05, 0.5, 0.9, 0.95, 0.99, 1])
@pytest.mark.parametrize("decimals", [None, 1, 0], ids=["all scores differ", "tied scores", "zero or one"])
def test_the_threshold_is_the_highest_that_finds_enough(sensitivity, decimals):
    for seed in range(4):
        scores = simulate_scores(150, seed, decimals)
        threshold, positive = find_threshold(scores, sensitivity=sensitivity), scores.loc[scores["positive"], "score"]
        assert (positive >= threshold).mean() >= sensitivity - 1e-12
        assert (positive >= np.nextafter(threshold, np.inf)).mean() < sensitivity


@pytest.mark.parametrize(("sensitivity", "missed"), [(0.9, 1), (0.7, 3), (0.8, 2), (0.95, 0), (1, 0), (0, 10)])
def test_positives_are_missed_up_to_the_number_allowed(sensitivity, missed):
    scores = make_scores([True] * 10 + [False] * 3, [*np.arange(10) / 10, 0.05, 0.55, 0.99])
    threshold = find_threshold(scores, sensitivity=sensitivity)
    assert (scores.loc[scores["positive"], "score"] < threshold).sum() == missed


def test_a_threshold_that_is_to_find_needs_positives():
    with pytest.raises(ValueError, match="no positive image"):
        find_threshold(make_scores([False, False], [0.2, 0.4]), sensitivity=0.9)


@pytest.mark.parametrize("asked", [{}, {"specificity": 0.9, "sensitivity": 0.9}])
def test_a_threshold_reaches_one_of_the_two(asked):
    with pytest.raises(ValueError, match="expected one of the two"):
        find_threshold(simulate_scores(50), **asked)


def test_alarms_by_hand():
    scores = make_scores([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], [0.9, 0.8, 0.5, 0.2, 0.85, 0.5, 0.4, 0.3, 0.1, 0.0])
    found = compute_alarm_metrics(scores, 0.5, specificity=0.8, resamples=0)
    assert found.index.tolist() == KINDS
    assert found.columns.tolist() == ["value", "low", "high", "groups"]
    assert found["groups"].tolist() == [10, 4, 6, 5, 4, 4]
    expected = {
        "accuracy": (3 + 4) / 10,
        "sensitivity": 3 / 4,  # an alarm is raised at the threshold itself
        "specificity": 4 / 6,
        "precision": 3 / 5,
        "roc_auc": (6 + 5 + 4.5 + 2) / 24,
        "sensitivity_at_specificity": 2 / 4,  # one false alarm: above 0.5 there are 0.9 and 0.8
    }
    assert found["value"].to_dict() == pytest.approx(expected)


@pytest.mark.parametrize("decimals", [None, 1], ids=["all scores differ", "tied scores"])
def test_alarms_are_those_of_scikit_learn(decimals):
    for seed in range(4):
        scores = simulate_scores(200, seed, decimals)
        true, alarm = scores["positive"], scores["score"] >= 0.4
        false_rate, true_rate, _ = sklearn_metrics.roc_curve(true, scores["score"], drop_intermediate=False)
        expected = {
            "accuracy": sklearn_metrics.accuracy_score(true, alarm),
            "sensitivity": sklearn_metrics.recall_score(true, alarm),
            "specificity": sklearn_metrics.recall_score(~true, ~alarm),
            "precision": sklearn_metrics.precision_score(true, alarm),
            "roc_auc": sklearn_metrics.roc_auc_score(true, scores["score"]),
            "sensitivity_at_specificity": max(true_rate[1 - false_rate >= 0.9]),
        }
        found = compute_alarm_metrics(scores, 0.4, resamples=2)["value"].to_dict()
        assert found == pytest.approx(expected)
        assert len({round(value, 6) for value in expected.values()}) == 6


def test_the_threshold_of_these_very_images_reaches_what_the_ranking_allows():
    for seed in range(4):
        scores = simulate_scores(200, seed)
        threshold = find_threshold(scores, specificity=0.85)
        found = compute_alarm_metrics(scores, threshold, specificity=0.85, resamples=1)["value"]
        assert found["sensitivity"] == pytest.approx(found["sensitivity_at_specificity"])
        assert found["specificity"] >= 0.85


def test_intervals_of_alarms_are_those_of_resampled_groups(find_interval):
    rng = np.random.default_rng(2)
    scores = simulate_scores(120, 1)
    scores["group"] = rng.integers(0, 30, 120)
    found = compute_alarm_metrics(scores, 0.4, resamples=20, seed=9)
    names, rng, resampled = scores["group"].unique(), np.random.default_rng(9), []
    for _ in range(20):
        drawn = names[rng.integers(0, len(names), len(names))]
        copies = scores.iloc[np.concatenate([np.flatnonzero(scores["group"] == name) for name in drawn])]
        true, alarm = copies["positive"], copies["score"] >= 0.4
        resampled.append(
            {
                "accuracy": sklearn_metrics.accuracy_score(true, alarm),
                "sensitivity": sklearn_metrics.recall_score(true, alarm),
                "specificity": sklearn_metrics.recall_score(~true, ~alarm),
                "precision": sklearn_metrics.precision_score(true, alarm),
                "roc_auc": sklearn_metrics.roc_auc_score(true, copies["score"]),
            }
        )
    true, alarm, every = scores["positive"], scores["score"] >= 0.4, scores["score"] >= 0
    rests_on = dict(zip(KINDS, [[every], [true], [~true], [alarm], [true, ~true]], strict=False))
    for kind, values in pd.DataFrame(resampled).items():
        row, sizes = found.loc[kind], [scores[part].value_counts("group") for part in rests_on[kind]]
        np.testing.assert_allclose(row[["low", "high"]], find_interval(row["value"], values, *sizes))
        assert row["groups"] == min(map(len, sizes))
    assert (found["low"] < found["value"]).all()
    assert (found["value"] < found["high"]).all()


@pytest.mark.parametrize("rare", ["positive", "negative"])
def test_resamples_without_positives_or_negatives_are_left_out(rare):
    """Ten groups, of which five have images of a kind, but for three all in one: many resamples have few of them."""
    positive, score = [1] * 5 + [0] * 5, [0.9, 0.8, 0.4, 0.6, 0.7, 0.3, 0.5, 0.2, 0.6, 0.1]
    scores = make_scores(positive * 2, score * 2, list("abcdefghij") * 2)
    if rare == "positive":
        scores = scores.assign(positive=~scores["positive"], score=1 - scores["score"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compute_alarm_metrics(scores, 0.55, specificity=0.5, resamples=60)
    assert found.drop("precision").notna().all(axis=None)
    assert found.loc["roc_auc", ["value", "low", "high"]].between(0.4, 1).all()


def test_without_alarms_there_is_no_precision():
    """As in `compute_class_metrics`."""
    scores = make_scores([1] * 4 + [0] * 4, [0.9, 0.3, 0.3, 0.3, 0.2, 0.1, 0.1, 0.1])
    found = compute_alarm_metrics(scores, 0.5, resamples=60).loc["precision"]
    np.testing.assert_array_equal(found, [1, np.nan, np.nan, 1])
    assert np.isnan(compute_alarm_metrics(scores, 0.95, resamples=2).loc["precision", "value"])


def test_accuracy_needs_neither_positives_nor_alarms():
    none_positive = make_scores([0] * 4, [0.9, 0.3, 0.2, 0.1])
    assert compute_alarm_metrics(none_positive, 0.5, resamples=2).loc["accuracy", "value"] == 3 / 4
    all_positive = make_scores([1] * 4, [0.9, 0.3, 0.2, 0.1])
    assert compute_alarm_metrics(all_positive, 0.5, resamples=2).loc["accuracy", "value"] == 1 / 4
    assert compute_alarm_metrics(all_positive, 0.95, resamples=2).loc["accuracy", "value"] == 0


# find_balanced_threshold


def get_rates(scores, threshold):
    alarm, positive = scores["score"] >= threshold, scores["positive"]
    return alarm[positive].mean(), (~alarm)[~positive].mean()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("decimals", [None, 1, 0], ids=["all scores differ", "tied scores", "zero or one"])
def test_no_other_threshold_is_better_balanced(decimals, share):
    for seed in range(4):
        scores = simulate_scores(80, seed, decimals, share)
        scores.loc[:1, "positive"] = [True, False]
        levels = scores["score"].unique()
        best = max(min(get_rates(scores, threshold)) for threshold in [*levels, *np.nextafter(levels, 2)])
        found = find_balanced_threshold(scores)
        assert isinstance(found, float)
        assert min(get_rates(scores, found)) == pytest.approx(best)


def test_balanced_threshold_by_hand():
    """At 0.5 three of four on either side are right; elsewhere fewer of one kind are."""
    scores = make_scores([1, 1, 1, 1, 0, 0, 0, 0], [0.9, 0.8, 0.6, 0.3, 0.7, 0.4, 0.2, 0.1])
    assert find_balanced_threshold(scores) == pytest.approx(0.5)
    assert get_rates(scores, 0.5) == (3 / 4, 3 / 4)


def test_a_gap_between_negatives_and_positives_is_halved():
    assert find_balanced_threshold(make_scores([0, 0, 1], [0.1, 0.2, 0.8])) == pytest.approx(0.5)
    assert find_balanced_threshold(make_scores([1, 0], [0.75, 0.25])) == 0.5


def test_of_thresholds_that_are_equally_balanced_the_middle_one_is_taken():
    """The sensitivity is 1/2 from above 0.1 to 0.8, at a specificity of 1/2 and more."""
    scores = make_scores([1, 1, 0, 0], [0.8, 0.1, 0.3, 0.2])
    assert find_balanced_threshold(scores) == pytest.approx(0.55)  # of 0.25 and 0.55
    scores = make_scores([1, 1, 0, 0], [0.9, 0.1, 0.2, 0.6])
    assert find_balanced_threshold(scores) == pytest.approx(0.75)  # of 0.4 and 0.75
    scores = make_scores([1, 1, 1, 1, 0, 0], [0.9, 0.85, 0.8, 0.05, 0.1, 0.6])
    assert find_balanced_threshold(scores) == pytest.approx(0.7)  # 3/4 at a specificity of 1
    scores = make_scores([1, 1, 0, 0, 0, 0], [0.9, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert find_balanced_threshold(scores) == pytest.approx(0.45)  # of 0.35, 0.45 and 0.7


def test_tied_positives_and_negatives_fall_on_one_side_together():
    scores = make_scores([1, 1, 0, 0, 1, 0], [0.5, 0.5, 0.5, 0.5, 0.9, 0.2])
    found = find_balanced_threshold(scores)
    assert found == pytest.approx(0.7)
    assert sorted(get_rates(scores, found)) == pytest.approx([1 / 3, 1])


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_scores_that_are_all_equal_raise_an_alarm_for_all(level):
    assert find_balanced_threshold(make_scores([1, 0, 0], [level] * 3)) == level


def test_a_ranking_the_wrong_way_round_has_a_threshold_too():
    scores = make_scores([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9])
    found = find_balanced_threshold(scores)
    assert np.isfinite(found)
    assert min(get_rates(scores, found)) == 0


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize(("kind", "copies"), [(True, 2), (True, 7), (False, 3), (False, 10)])
def test_the_balance_does_not_depend_on_the_share_of_positives(decimals, kind, copies):
    for seed in range(6):
        scores = simulate_scores(83, seed, decimals)
        more = pd.concat([scores] + (copies - 1) * [scores[scores["positive"] == kind]])
        assert find_balanced_threshold(more) == find_balanced_threshold(scores)
        assert find_balanced_threshold(more.sample(frac=1, random_state=seed)) == find_balanced_threshold(scores)


def test_the_balance_lies_where_the_normal_distributions_cross():
    rng = np.random.default_rng(0)
    positive = rng.random(40_000) < 0.1
    found = find_balanced_threshold(make_scores(positive, rng.normal(2.0 * positive)))
    assert found == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("positive", [True, False])
def test_one_kind_of_images_cannot_be_balanced(positive):
    with pytest.raises(ValueError, match="Positive and negative images are needed"):
        find_balanced_threshold(make_scores([positive] * 3, [0.1, 0.5, 0.9]))


# compute_net_benefit


def test_net_benefit_by_hand():
    """At 1/5 a false alarm costs a quarter of a found positive, at 1/2 as much, at 3/4 three times as much."""
    scores = make_scores([1, 1, 0, 0, 0], [0.9, 0.4, 0.75, 0.2, 0.1])
    found = compute_net_benefit(scores, [0.2, 0.5, 0.75])
    assert found.columns.tolist() == ["threshold", "model", "all", "none"]
    assert found["threshold"].tolist() == [0.2, 0.5, 0.75]
    np.testing.assert_allclose(found["model"], [2 / 5 - 2 / 5 / 4, 1 / 5 - 1 / 5, 1 / 5 - 3 / 5])
    np.testing.assert_allclose(found["all"], [2 / 5 - 3 / 5 / 4, 2 / 5 - 3 / 5, 2 / 5 - 9 / 5])
    assert found["none"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("decimals", [None, 1], ids=["all scores differ", "tied scores"])
def test_net_benefit_is_that_of_a_plain_loop(decimals):
    scores, thresholds = simulate_scores(200, 1, decimals), np.arange(0, 1, 0.1)
    found = compute_net_benefit(scores, thresholds)
    for row, threshold in zip(found.itertuples(), thresholds, strict=True):
        gain = everybody = 0.0
        for positive, score in zip(scores["positive"], scores["score"], strict=True):
            worth = 1 if positive else -threshold / (1 - threshold)
            everybody += worth / 200
            gain += worth / 200 if score >= threshold else 0
        assert (row.model, row.all) == pytest.approx((gain, everybody))
        assert row.threshold == threshold


def test_a_threshold_of_zero_treats_all_at_no_cost():
    found = compute_net_benefit(simulate_scores(100), [0]).iloc[0]
    assert found["model"] == found["all"] == pytest.approx(simulate_scores(100)["positive"].mean())


def test_models_that_know_all_or_nothing():
    positive, thresholds = np.arange(50) < 20, np.array([0.1, 0.4, 0.9])
    perfect = compute_net_benefit(make_scores(positive, positive), thresholds)
    np.testing.assert_allclose(perfect["model"], 0.4)
    always = compute_net_benefit(make_scores(positive, np.ones(50)), thresholds)
    np.testing.assert_allclose(always["model"], always["all"])
    assert compute_net_benefit(make_scores(positive, np.zeros(50)), thresholds)["model"].tolist() == [0, 0, 0]
    assert always["all"].tolist() == pytest.approx([0.4 - 0.6 / 9, 0, 0.4 - 0.6 * 9])  # 0 at the share of positives


def test_acting_on_calibrated_probabilities_is_never_worse_than_all_or_none():
    rng = np.random.default_rng(0)
    score = rng.beta(0.8, 2, 50_000)
    found = compute_net_benefit(make_scores(rng.random(50_000) < score, score), np.arange(0.05, 0.96, 0.1))
    assert (found["model"] > found[["all", "none"]].max(axis=1)).all()
    doubled = compute_net_benefit(make_scores(rng.random(50_000) < score, score**0.2), [0.5])
    assert doubled["model"].item() < 0  # not calibrated: too sure


def test_only_the_shares_count_for_the_net_benefit():
    scores = simulate_scores(60)
    copies = pd.concat([scores] * 3).sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(compute_net_benefit(copies, [0.2, 0.6]), compute_net_benefit(scores, [0.2, 0.6]))


# count_missed


def test_missed_and_false_alarms_by_hand():
    scores = make_scores([1, 1, 1, 1, 0, 0, 0, 0, 0], [0.9, 0.7, 0.4, 0.2, 0.8, 0.4, 0.3, 0.1, 0.0])
    found = count_missed(scores, [0.75, 0.25, 0.5])
    ends = [f"{name}{end}" for name in ("missed", "false_alarms") for end in ("", "_low", "_high")]
    assert found.columns.tolist() == ["threshold", *ends]
    assert found["threshold"].tolist() == [0.75, 0.25, 0.5]  # in the order asked for
    np.testing.assert_allclose(found["missed"], [750, 250, 500])  # 3, 1 and 2 of 4
    np.testing.assert_allclose(found["false_alarms"], [200, 600, 200])  # 1, 3 and 1 of 5


def test_a_score_at_the_threshold_raises_the_alarm():
    scores = make_scores([1, 1, 0, 0], [0.5, 0.75, 0.5, 0.25])
    found = count_missed(scores, [0.5, np.nextafter(0.5, 1), 0.75, np.nextafter(0.75, 1)], per=2)
    assert found["missed"].tolist() == [0, 1, 1, 2]
    assert found["false_alarms"].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("per", [1, 100, 1000])
def test_intervals_of_what_is_missed_are_those_of_a_proportion(per):
    scores = simulate_scores(300, 2, share=0.1)
    positive, score = scores["positive"], scores["score"]
    found = count_missed(scores, [0.2, 0.4], per)
    for row, threshold in zip(found.to_dict("records"), [0.2, 0.4], strict=True):
        for name, wrong in (("missed", score[positive] < threshold), ("false_alarms", score[~positive] >= threshold)):
            expected = compute_proportion(wrong.sum(), len(wrong))
            assert 0 < expected["low"] < expected["value"] < expected["high"] < 1
            assert row[name] == pytest.approx(per * expected["value"])
            assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(
                (per * expected["low"], per * expected["high"])
            )


def test_what_is_missed_is_counted_per_thousand_by_default():
    scores = simulate_scores(100)
    pd.testing.assert_frame_equal(count_missed(scores, [0.3]), count_missed(scores, [0.3], 1000))


@pytest.mark.parametrize("decimals", [None, 1])
def test_the_higher_the_threshold_the_more_is_missed_and_the_fewer_false_alarms_there_are(decimals):
    scores = simulate_scores(200, 4, decimals)
    found = count_missed(scores, np.linspace(0, 1.01, 30))
    for end in ("", "_low", "_high"):
        assert (np.diff(found[f"missed{end}"]) >= -1e-9).all()
        assert (np.diff(found[f"false_alarms{end}"]) <= 1e-9).all()
    first, last = found.iloc[0], found.iloc[-1]
    assert (first["missed"], first["false_alarms"]) == (0, 1000)
    assert (last["missed"], last["false_alarms"]) == (1000, 0)
    assert first["missed_low"] == 0 < first["missed_high"] < 100  # none of 60 is not none of all
    assert last["missed_low"] < last["missed_high"] == pytest.approx(1000)


def test_missed_and_false_alarms_are_what_sensitivity_and_specificity_leave():
    scores = simulate_scores(200, 3, 1)
    for threshold in (0.2, find_threshold(scores, specificity=0.9), find_balanced_threshold(scores)):
        row = count_missed(scores, [threshold], 1).iloc[0]
        assert (1 - row["missed"], 1 - row["false_alarms"]) == pytest.approx(get_rates(scores, threshold))
        value = compute_alarm_metrics(scores, threshold, resamples=1)["value"]
        assert 1 - row["missed"] == pytest.approx(value["sensitivity"])
        assert 1 - row["false_alarms"] == pytest.approx(value["specificity"])


def test_more_negatives_do_not_change_what_is_missed():
    scores = simulate_scores(150)
    more = pd.concat([scores] + 4 * [scores[~scores["positive"]]])
    names = ["missed", "missed_low", "missed_high", "false_alarms"]
    pd.testing.assert_frame_equal(count_missed(more, [0.2, 0.4])[names], count_missed(scores, [0.2, 0.4])[names])
    wide, narrow = (count_missed(table, [0.4]).iloc[0] for table in (scores, more))
    assert (
        narrow["false_alarms_high"] - narrow["false_alarms_low"] < wide["false_alarms_high"] - wide["false_alarms_low"]
    )


@pytest.mark.parametrize("positive", [[1, 1, 1], [0, 0, 0], []], ids=["all positive", "none positive", "none at all"])
def test_missed_and_false_alarms_need_images_of_both_kinds(positive):
    with pytest.raises(ValueError, match="Expected positive and negative images"):
        count_missed(make_scores(positive, np.linspace(0.1, 0.9, len(positive))), [0.5])


# compute_subgroups

SUBGROUP_METRICS = ["accuracy", "sensitivity", "specificity"]


def test_subgroups_of_an_alarm_are_those_of_alarm_metrics(predict):
    table = predict(240, groups=np.arange(240) // 2)
    sex = np.where(np.arange(240) % 3 == 0, "f", "m")
    found = compute_subgroups(table, pd.DataFrame({"sex": sex}), ["b", "c"], 0.6, 60, 5)
    assert found.columns.tolist() == ["by", "subgroup", "metric", "value", "low", "high", "images", "groups"]
    assert found[["by", "subgroup"]].drop_duplicates().to_numpy().tolist() == [
        ["all", "all"],
        ["sex", "f"],
        ["sex", "m"],
    ]
    assert found["metric"].tolist() == SUBGROUP_METRICS * 3
    for subgroup, rows in (("all", sex != ""), ("f", sex == "f"), ("m", sex == "m")):
        scores = score_group_of_classes(table[rows], ["b", "c"])
        expected = compute_alarm_metrics(scores, 0.6, resamples=60, seed=5).loc[SUBGROUP_METRICS]
        part = found[found["subgroup"] == subgroup].set_index("metric")
        pd.testing.assert_frame_equal(part[["value", "low", "high", "groups"]], expected)
        ill = (rows & table["y_true"].isin(["b", "c"])).sum()
        assert part["images"].tolist() == [rows.sum(), ill, rows.sum() - ill]


def test_without_positive_classes_the_most_probable_class_decides(predict):
    table = predict(150, skill=0.8)
    site = np.arange(150) % 2
    found = compute_subgroups(table, pd.DataFrame({"site": site}), resamples=100, seed=2).set_index(
        ["subgroup", "metric"]
    )
    for subgroup, rows in (("all", site >= 0), ("0", site == 0), ("1", site == 1)):
        part, names = table[rows], list("abc")
        expected = compute_metrics(part, 100, 2)
        for own, metric in (("accuracy", "accuracy"), ("sensitivity", "balanced_accuracy")):
            row = found.loc[(subgroup, own), ["value", "low", "high", "groups"]].astype(float)
            np.testing.assert_allclose(row, expected.loc[metric])
        of_classes = [sklearn_metrics.recall_score(part["y_true"] != name, part["y_pred"] != name) for name in names]
        row = found.loc[(subgroup, "specificity")]
        assert row["value"] == pytest.approx(np.mean(of_classes))
        assert row["low"] < row["value"] < row["high"]
        assert row["groups"] == min((part["y_true"] != name).sum() for name in names)


def test_by_default_an_alarm_is_raised_at_one_half(predict):
    table, values = predict(60), pd.DataFrame({"x": ["one"] * 60})
    pd.testing.assert_frame_equal(
        compute_subgroups(table, values, ["b"], resamples=20), compute_subgroups(table, values, ["b"], 0.5, 20)
    )
    lower = compute_subgroups(table, values, ["b"], 0.1, 20)
    assert lower.loc[lower["metric"] == "sensitivity", "value"].iloc[0] == 1


def test_missing_values_and_small_subgroups_are_left_out(predict):
    table = predict(100).set_index(pd.Index(range(1000, 1100)))
    values = pd.DataFrame({"site": [None] * 30 + ["x"] * 25 + ["y"] * 45, "age": [np.nan] * 60 + [1] * 20 + [2] * 20})
    found = compute_subgroups(table, values, ["a"], resamples=20, least=25)
    assert found["subgroup"].unique().tolist() == ["all", "x", "y"]
    found = compute_subgroups(table, values, ["a"], resamples=20)
    assert found.loc[found["metric"] == "accuracy", "images"].tolist() == [100, 25, 45, 20, 20]
    assert found.loc[found["by"] == "age", "subgroup"].unique().tolist() == ["1.0", "2.0"]


def test_categories_keep_their_order_and_those_without_images_are_left_out(predict):
    age = pd.cut(np.arange(120) % 60, [-1, 9, 29, 59, 99], labels=["young", "adult", "old", "none"])
    found = compute_subgroups(predict(120), pd.DataFrame({"age": age}), resamples=10)
    assert found["subgroup"].unique().tolist() == ["all", "young", "adult", "old"]


def test_subgroups_without_a_kind_of_images_have_no_value(predict):
    table = predict(90)
    found = compute_subgroups(table, pd.DataFrame({"is": table["y_true"]}), ["b"], resamples=30)
    value = found[found["by"] == "is"].set_index(["subgroup", "metric"])["value"]
    assert value.xs("sensitivity", level=1).isna().tolist() == [True, False, True]
    assert value.xs("specificity", level=1).isna().tolist() == [False, True, False]
    found = compute_subgroups(table, pd.DataFrame({"is": table["y_true"]}), resamples=30)
    value = found[found["by"] == "is"].set_index(["subgroup", "metric"])["value"]
    assert value.xs("specificity", level=1).isna().all()
    np.testing.assert_array_equal(value.xs("sensitivity", level=1), value.xs("accuracy", level=1))


def test_values_that_do_not_fit_are_refused(predict):
    with pytest.raises(InputError, match="Found 29 rows of values, 30 predictions"):
        compute_subgroups(predict(30), pd.DataFrame({"x": ["one"] * 29}))
    with pytest.raises(InputError, match="no threshold without positive classes"):
        compute_subgroups(predict(30), pd.DataFrame({"x": ["one"] * 30}), threshold=0.2)


@pytest.mark.parametrize("positive", [None, ["b"]])
def test_many_subgroups_are_quick(predict, positive):
    """A tenth of the 1000 resamples."""
    table, rng = predict(10_000, groups=np.arange(10_000) // 3), np.random.default_rng(0)
    values = pd.DataFrame({f"column {number}": rng.integers(0, 6, 10_000) for number in range(5)})
    start = time.process_time()
    assert len(compute_subgroups(table, values, positive, resamples=100)) == 31 * 3
    assert time.process_time() - start < 0.9


# find_worst_subgroup


def make_subgroups(rows, overall=0.9):
    rows = [("all", "all", overall, overall - 0.05, overall + 0.05, 500, 500), *rows]
    columns = ["by", "subgroup", "value", "low", "high", "images", "groups"]
    return pd.DataFrame(rows, columns=columns).assign(metric="sensitivity")


def test_the_worst_subgroup_is_the_lowest_that_has_an_interval():
    rows = [("site", "x", 0.8, 0.7, 0.88, 90, 30), ("site", "y", 0.1, np.nan, np.nan, 30, 3)]
    table = make_subgroups([*rows, ("sex", "f", 0.6, 0.55, 0.65, 200, 100)])
    before = table.copy()
    found = find_worst_subgroup(table)
    assert found[["by", "subgroup", "compared", "overall"]].tolist() == ["sex", "f", 2, 0.9]
    assert found["below"]
    assert 0.53 < found["low"] < 0.55
    assert 0.65 < found["high"] < 0.67
    pd.testing.assert_frame_equal(table, before)


def test_the_lowest_of_many_is_not_below_where_one_alone_is():
    row = ("site", "x", 0.8, 0.7, 0.88, 90, 30)
    assert find_worst_subgroup(make_subgroups([row]))["below"]
    found = find_worst_subgroup(make_subgroups([row, *(("site", str(number), *row[2:]) for number in range(19))]))
    assert found["compared"] == 20
    assert found["subgroup"] == "x"
    assert not found["below"]
    assert found["high"] > 0.9


def test_of_one_subgroup_the_interval_stays():
    found = find_worst_subgroup(make_subgroups([("site", "x", 0.8, 0.7, 0.88, 90, 30)]))
    assert found[["low", "high"]].tolist() == pytest.approx([0.7, 0.88])


def test_widened_intervals_by_hand():
    """With 30 groups, t is 2.045 at 95 %, and 2.364 at 97.5 %, of a 20-group exact interval 0.025 becomes 0.0125."""
    rows = [("site", "x", 0.5, 0.4, 0.6, 90, 30), ("site", "y", 0.9, 0.8, 0.95, 90, 30)]
    high = find_worst_subgroup(make_subgroups(rows))["high"]
    assert np.log(high / (1 - high)) == pytest.approx(np.log(0.6 / 0.4) * 2.364 / 2.045, rel=1e-3)
    none = ("site", "x", 0.0, 0.0, 1 - 0.025 ** (1 / 20), 90, 20)
    found = find_worst_subgroup(make_subgroups([none, rows[1]]))
    assert found[["low", "high"]].tolist() == pytest.approx([0, 1 - 0.0125 ** (1 / 20)])
    every = ("site", "x", 1.0, 0.025 ** (1 / 20), 1.0, 90, 20)
    found = find_worst_subgroup(make_subgroups([every, every]))
    assert found[["low", "high"]].tolist() == pytest.approx([0.0125 ** (1 / 20), 1])
    assert not found["below"]


def test_a_subgroup_on_which_the_model_fails_is_found(predict):
    """The labels of one site of ten are thrown, those of the others are not."""
    rng, table = np.random.default_rng(0), predict(600, skill=2)
    values = pd.DataFrame({"site": np.arange(600) % 10})
    worst = find_worst_subgroup(compute_subgroups(table, values, resamples=200), "accuracy")
    assert worst["compared"] == 10
    assert not worst["below"]
    table.loc[values["site"] == 4, "y_true"] = rng.choice(list("abc"), 60)
    worst = find_worst_subgroup(compute_subgroups(table, values, resamples=200), "accuracy")
    assert worst["subgroup"] == "4"
    assert worst["below"]


def test_where_no_subgroup_has_an_interval_there_is_no_worst():
    assert find_worst_subgroup(make_subgroups([("site", "x", 0.8, np.nan, np.nan, 90, 3)])) is None
    assert find_worst_subgroup(make_subgroups([])) is None
    with pytest.raises(InputError, match="metric='precision': expected one of sensitivity"):
        find_worst_subgroup(make_subgroups([]), "precision")
