"""Choosing: the rule is checked on models of which it is known which one is best."""

import time

import numpy as np
import pandas as pd
import pytest

from helpers.evaluation import choosing
from helpers.evaluation.choosing import check_rule, choose_simple
from helpers.evaluation.scores import compare_metrics, compute_metrics, make_predictions
from helpers.files import InputError


def draw(skills, count=200, classes=3, group=None, seed=0):
    """Draw predictions of the same images by models that differ in skill."""
    rng = np.random.default_rng(seed)
    names, codes = list("abcdefghij")[:classes], rng.integers(0, classes, count)
    group = np.arange(count) if group is None else group
    images = pd.DataFrame({"image_id": range(count), "group": group, "label": np.array(names)[codes]})
    tables = {}
    for name, skill in skills.items():
        y_prob = rng.dirichlet(np.ones(classes), count) + skill * rng.random((count, 1)) * np.eye(classes)[codes]
        tables[name] = make_predictions(images, y_prob / y_prob.sum(axis=1, keepdims=True), names)
    return tables


def test_a_model_that_is_far_better_is_always_chosen_and_best():
    tables = draw({"weak": 0.1, "strong": 3, "medium": 0.5})
    models, rules = check_rule(tables, splits=30)
    assert models.index.tolist() == ["weak", "strong", "medium"]
    assert models.columns.tolist() == ["roc_auc", "chosen", "best", "regret"]
    assert models["chosen"].tolist() == models["best"].tolist() == [0, 1, 0]
    for name, table in tables.items():
        assert models.loc[name, "roc_auc"] == pytest.approx(compute_metrics(table, 0).loc["roc_auc", "value"])
    assert rules.index.tolist() == ["all models"]
    assert rules.loc["all models"].to_dict() == {"best": 1, "regret": 0, "splits": 30}
    assert models.loc["strong", "regret"] == 0
    gap = models["roc_auc"].max() - models["roc_auc"]
    np.testing.assert_allclose(models["regret"], gap, atol=0.02)


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy", "macro_f1"])
def test_shares_and_regrets_are_those_of_the_halves(metric):
    """By `compute_metrics` of each half, for models that are nearly alike."""
    skills = {"first": 0.6, "second": 0.6, "third": 0.6, "simple": 0.4}
    tables = draw(skills, 120, group=np.arange(120) // 2, seed=7)
    halves = list(choosing._halve_groups(tables["first"], 10, 3))
    tried = [
        pd.DataFrame(
            {name: [compute_metrics(table[half == on], 0).loc[metric, "value"] for on in (1, 0)]
             for name, table in tables.items()}
        )
        for half in halves
    ]  # fmt: skip
    chosen = [values.loc[0].idxmax() for values in tried]
    regrets = pd.DataFrame([values.loc[1].max() - values.loc[1] for values in tried])
    regrets = regrets.round(12).reset_index(drop=True)
    models, rules = check_rule(tables, metric, 10, 3, simple=["simple", "third"])
    assert len(set(chosen)) > 1
    for name in tables:
        assert models.loc[name, "chosen"] == pytest.approx(chosen.count(name) / 10)
        assert models.loc[name, "best"] == pytest.approx((regrets[name] == 0).mean())
        assert models.loc[name, "regret"] == pytest.approx(regrets[name].mean())
    assert rules.index.tolist() == ["all models", "simple models"]
    among = [values.loc[0, ["simple", "third"]].idxmax() for values in tried]
    for rule, taken in (("all models", chosen), ("simple models", among)):
        regret = np.array([regrets.loc[number, name] for number, name in zip(range(10), taken, strict=True)])
        assert rules.loc[rule, "best"] == pytest.approx((regret == 0).mean())
        assert rules.loc[rule, "regret"] == pytest.approx(regret.mean())


def test_models_that_are_alike_are_all_best_and_the_first_is_chosen():
    table = draw({"one": 1})["one"]
    models, rules = check_rule({"one": table, "same": table}, splits=10)
    assert models["chosen"].tolist() == [1, 0]
    assert models["best"].tolist() == [1, 1]
    assert rules.loc["all models", "best"] == 1


def test_halves_keep_groups_together_and_classes_in_both():
    rng = np.random.default_rng(0)
    group = np.arange(300) // 5
    label = np.where(group < 3, "rare", np.where(rng.random(300) < 0.5, "x", "y"))  # a group has x and y
    table = pd.DataFrame({"group": group, "y_true": label})
    halves = list(choosing._halve_groups(table, 40, 0))
    for half in halves:
        assert set(half) == {0, 1}
        assert table.assign(half=half).groupby("group")["half"].nunique().eq(1).all()
        assert pd.Series(half).groupby(group).first().sum() == 30
        assert set(table[label == "rare"].groupby(half[label == "rare"]).size()) == {5, 10}
    assert len({tuple(half) for half in halves}) == 40
    np.testing.assert_allclose(np.mean(halves, axis=0), 0.5, atol=0.25)
    again = list(choosing._halve_groups(table, 40, 0))
    np.testing.assert_array_equal(halves, again)


def test_a_rare_class_counts_before_a_frequent_one_of_the_same_group():
    """Two groups hold one image of the rare class each, among many of another class."""
    label = np.full(40, "a", object)
    label[[0, 39]] = "rare"
    table = pd.DataFrame({"group": np.arange(40) // 4, "y_true": label})
    for half in choosing._halve_groups(table, 20, 0):
        assert half[0] != half[39]


def test_the_tables_stay_as_they_were():
    tables = draw({"one": 1, "two": 1})
    before = {name: table.copy() for name, table in tables.items()}
    check_rule(tables, splits=2)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, before[name])


def test_fewer_than_four_groups_are_refused():
    with pytest.raises(InputError, match="Found 3 groups, expected at least 4"):
        check_rule(draw({"one": 1}, 30, group=np.arange(30) % 3))
    check_rule(draw({"one": 1}, 40, group=np.arange(40) % 4), splits=2)


def test_a_class_with_one_group_has_no_roc_auc_in_both_halves():
    group = np.r_[np.zeros(20), np.arange(1, 21)]
    images = pd.DataFrame({"image_id": range(40), "group": group, "label": ["a"] * 20 + ["b"] * 20})
    tables = {"one": make_predictions(images, np.random.default_rng(0).dirichlet([1, 1], 40), ["a", "b"])}
    with pytest.raises(InputError, match="No half of the images has a roc_auc"):
        check_rule(tables, splits=5)
    assert check_rule(tables, "accuracy", splits=5)[1]["splits"].tolist() == [5]


@pytest.mark.parametrize("function", [check_rule, lambda tables: choose_simple(tables, "one", ["two"])])
def test_other_images_or_labels_are_refused(function):
    tables = draw({"one": 1, "two": 1}, 30)
    for column in ("image_id", "group", "y_true"):
        changed = tables["two"].assign(**{column: tables["two"][column].to_numpy()[::-1]})
        with pytest.raises(InputError, match="The predictions of two are not of the images"):
            function({"one": tables["one"], "two": changed})
    with pytest.raises(InputError, match="The predictions of two"):
        function({"one": tables["one"], "two": tables["two"].head(20)})


def test_unknown_metrics_and_names_are_refused():
    tables = draw({"one": 1, "two": 1}, 30)
    with pytest.raises(InputError, match="metric='expected_calibration_error': expected one of roc_auc"):
        check_rule(tables, "expected_calibration_error")
    with pytest.raises(InputError, match=r"No such model: three\. Known: one, two"):
        check_rule(tables, simple=["three"])
    with pytest.raises(InputError, match="No such model"):
        check_rule({})
    with pytest.raises(InputError, match="No such model: three"):
        choose_simple(tables, "three", ["one"])
    with pytest.raises(InputError, match=r"simple=\(\)"):
        choose_simple(tables, "one", ())
    with pytest.raises(InputError, match="majority_rate"):
        choose_simple(tables, "one", ["two"], "majority_rate")


def test_two_hundred_splits_of_ten_models_are_quick():
    """A tenth of the splits, with 10,000 images of 10 classes."""
    tables = draw({f"model {number}": 0.5 for number in range(10)}, 10_000, 10, np.arange(10_000) // 4)
    start = time.process_time()
    check_rule(tables, splits=10)
    assert time.process_time() - start < 1.5


# choose_simple


def test_a_simple_model_within_reach_is_chosen():
    tables = draw({"network": 0.80, "forest": 0.78, "poor": 0.1, "regression": 0.79}, 150)
    expected = {name: compare_metrics(tables["network"], tables[name], 200).loc["roc_auc"] for name in tables}
    within = [name for name in ("forest", "regression") if expected[name]["low"] <= 0]
    assert len(within) == 2
    assert expected["poor"]["low"] > 0
    name, difference = choose_simple(tables, "network", ["forest", "poor", "regression"], resamples=200)
    assert name == min(within, key=lambda name: expected[name]["value"])
    assert difference.to_dict() == expected[name].to_dict()


def test_a_network_that_is_measurably_better_is_kept():
    tables = draw({"network": 3, "forest": 0.2, "regression": 0.4})
    name, difference = choose_simple(tables, "network", ["forest", "regression"], "accuracy", 200)
    expected = compare_metrics(tables["network"], tables["regression"], 200).loc["accuracy"]
    assert name == "network"
    assert difference.to_dict() == expected.to_dict()
    assert difference["low"] > 0


def test_a_better_simple_model_is_chosen():
    name, difference = choose_simple(draw({"network": 0.2, "forest": 3}), "network", ["forest"], resamples=100)
    assert name == "forest"
    assert difference["high"] < 0


def test_with_too_few_groups_nothing_shows_that_the_network_is_better():
    tables = draw({"network": 3, "forest": 0.2}, 80, group=np.arange(80) % 4)
    name, difference = choose_simple(tables, "network", ["forest"], resamples=50)
    assert name == "forest"
    assert np.isnan(difference["low"])
    assert difference["value"] > 0


def test_a_simple_model_that_is_best_stays():
    tables = draw({"network": 0.2, "forest": 3})
    name, difference = choose_simple(tables, "forest", ["forest"], resamples=50)
    assert name == "forest"
    assert difference["value"] == difference["low"] == difference["high"] == 0
