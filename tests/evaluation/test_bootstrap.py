"""Bootstrap: whole groups are drawn, and proportions have Wilson intervals."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from benchmarks.coverage import measure_coverage
from helpers.evaluation.bootstrap import bootstrap, compute_proportion


@pytest.mark.parametrize(("successes", "total"), [(0, 10), (10, 10), (5, 10), (81, 263), (15, 148), (1, 1)])
def test_wilson_intervals(successes, total):
    """The bounds are where the score test just rejects: (p - bound)^2 = z^2 bound (1 - bound) / n."""
    p, z2 = successes / total, 1.959963984540054**2
    centre, half = p + z2 / (2 * total), np.sqrt(z2 * p * (1 - p) / total + (z2 / (2 * total)) ** 2)
    expected = {"value": p, "low": (centre - half) / (1 + z2 / total), "high": (centre + half) / (1 + z2 / total)}
    assert compute_proportion(np.int64(successes), total) == pytest.approx(expected, abs=1e-12)


def test_wilson_interval_of_nothing_in_ten():
    assert compute_proportion(0, 10) == pytest.approx({"value": 0, "low": 0, "high": 3.8415 / 13.8415}, abs=1e-5)


def bootstrap_by_hand(values, groups, resamples, seed):
    """Draw groups by name and copy their values: the mean of each resample, and the sizes of the groups."""
    rng = np.random.default_rng(seed)
    members = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(value)
    names = list(members)
    means = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(names), len(names))
        means.append(np.mean([value for number in drawn for value in members[names[number]]]))
    return means, [len(each) for each in members.values()]


@pytest.mark.parametrize("seed", [0, 5])
def test_the_bootstrap_draws_whole_groups_with_replacement(seed, find_interval):
    rng = np.random.default_rng(1)
    values, groups = rng.random(60), rng.choice(list("vwxyz") + [f"g{n}" for n in range(15)], 60)
    found = bootstrap(lambda weights: {"mean": np.average(values, weights=weights)}, groups, 200, seed)
    means, sizes = bootstrap_by_hand(values, groups, 200, seed)
    low, high = find_interval(values.mean(), means, sizes)
    expected = {"value": values.mean(), "low": low, "high": high, "groups": len(sizes)}
    assert found.loc["mean"].to_dict() == pytest.approx(expected)
    assert found.index.name == "metric"


def test_the_bootstrap_asks_for_whole_numbers_of_groups_first_once_each():
    asked = []
    groups = np.array([3, 3, 1, 2, 1])
    bootstrap(lambda weights: asked.append(weights.copy()) or {"none": 0.0}, groups, 30)
    assert asked[0].tolist() == [1] * 5
    assert len(asked) == 31
    for weights in asked[1:]:
        assert weights[0] == weights[1]
        assert weights[2] == weights[4]
        assert weights[0] + weights[2] + weights[3] == 3  # as many groups as there are
        assert weights.tolist() == np.round(weights).tolist()
    assert len({tuple(weights) for weights in asked}) > 3


def test_identical_images_of_a_group_widen_the_bootstrap_interval():
    values = np.repeat(np.arange(40) % 2, 9)

    def compute(weights):
        return {"mean": np.average(values, weights=weights)}

    grouped, single = (
        bootstrap(compute, groups, 400).loc["mean"] for groups in (np.repeat(np.arange(40), 9), np.arange(360))
    )
    ratio = (grouped["high"] - grouped["low"]) / (single["high"] - single["low"])
    assert 2.4 < ratio < 3.6  # about the root of 9


def test_resamples_without_a_value_are_left_out_for_that_metric_only():
    groups = np.arange(6)

    def compute(weights):
        return {
            "first": 1.0 if weights[0] else np.nan,
            "last": 0.5 if weights[5] else 0.0,
            "never": np.nan,
            "ratio": weights[0] / weights[0],  # 0/0 without a warning
        }

    found = bootstrap(compute, groups, 300)
    assert found.loc["first", ["value", "high", "groups"]].tolist() == [1, 1, 6]  # else the error would not be 0
    assert found.loc["last", "low"] < 0.3
    assert found.loc["ratio"].equals(found.loc["first"])
    assert found.loc["never", ["value", "low", "high"]].isna().all()


def test_metrics_may_have_tuples_as_names_and_keep_their_order():
    def compute(weights):
        return {("z", "last"): 7.0, ("a", "sum"): weights.sum(), ("z", "first"): -1.0}

    found = bootstrap(compute, list("vwxyz"), 10, limits=(-11, 13))
    assert found.index.tolist() == [("z", "last"), ("a", "sum"), ("z", "first")]
    assert found["value"].tolist() == [7, 5, -1]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_few_groups_have_no_interval(count):
    """One of them as large as all others: many images do not make up for it."""
    groups = np.r_[np.zeros(500, int), np.arange(count)]
    found = bootstrap(lambda weights: {"share": weights[::2].sum() / weights.sum()}, groups, 50).loc["share"]
    assert found["groups"] == count
    assert found[["low", "high"]].isna().all()
    assert 0 < found["value"] < 1


def test_a_metric_rests_on_the_part_with_the_fewest_groups():
    groups = np.repeat(np.arange(30), 4)
    parts = {"few": [groups < 4, groups >= 4], "enough": [groups < 20, groups >= 20], "empty": [groups > 99]}

    def compute(weights):
        return dict.fromkeys([*parts, "all"], weights[:80].sum() / weights.sum())

    found = bootstrap(compute, groups, 100, parts=parts)
    assert found["groups"].to_dict() == {"few": 4, "enough": 10, "empty": 0, "all": 30}
    assert found["groups"].dtype.kind == "i"
    assert found["low"].isna().to_dict() == {"few": True, "enough": False, "empty": True, "all": False}


def test_unequal_groups_widen_the_interval():
    """Of 20 groups one has most of the images, which count as few groups."""
    groups = np.r_[np.arange(20), np.zeros(40, int)]

    def measure_width(parts):
        found = bootstrap(
            lambda weights: {"share": weights[:20:2].sum() / weights[:20].sum()}, groups, 200, parts=parts
        )
        return (found["high"] - found["low"]).item()

    equal = {"share": [np.arange(60) < 20]}
    assert measure_width(None) > 2 * measure_width(equal)


def test_a_value_without_an_error_has_an_exact_interval():
    """None of 30 is wrong: that of Clopper and Pearson, and at 0 the same the other way round."""
    found = bootstrap(lambda weights: {"all": 1.0, "none": 0.0}, range(30), 20)
    expected = binomtest(30, 30).proportion_ci(0.95).low
    np.testing.assert_allclose(found.loc["all"], [1, expected, 1, 30])
    np.testing.assert_allclose(found.loc["none"], [0, 0, 1 - expected, 30])


def test_resamples_that_are_all_the_same_tell_no_interval():
    """Of six people half of the images are right, of each: of further people this is not known so well."""
    right, groups = np.arange(24) % 2, np.repeat(np.arange(6), 4)
    found = bootstrap(lambda weights: {"accuracy": np.average(right, weights=weights)}, groups, 50).loc["accuracy"]
    assert found["value"] == 0.5
    assert found[["low", "high"]].isna().all()


def test_values_outside_the_limits_are_refused():
    with pytest.raises(ValueError, match=r"Metrics from -0\.5 to 0\.5: expected 0 to 1"):
        bootstrap(lambda weights: {"worse": -0.5, "better": 0.5, "none": np.nan}, range(9), 5)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Eight groups of each class, of 1 to 100 images: percentiles of resamples hold it in less than 88 % of draws."""
    found = measure_coverage((8, 8), 0.85, 0.2, repeats=50, resamples=60)
    assert (found["shown"] == 1).all()
    assert (found["coverage"] >= 0.92).all()
    assert (found["width"] < 0.3).all()


def test_the_same_seed_gives_the_same_bootstrap():
    values = np.random.default_rng(0).random(50)

    def draw(seed):
        return bootstrap(lambda weights: {"mean": np.average(values, weights=weights)}, range(50), 50, seed)

    pd.testing.assert_frame_equal(draw(1), draw(1))
    assert (draw(1)[["low", "high"]] != draw(2)[["low", "high"]]).all(axis=None)
