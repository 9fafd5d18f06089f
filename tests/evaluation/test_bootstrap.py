"""Bootstrap: whole groups are drawn, and proportions have Wilson intervals."""

import numpy as np
import pandas as pd
import pytest

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
    """Draw groups by name and copy their values: the mean of each resample, then the percentiles."""
    rng = np.random.default_rng(seed)
    members = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(value)
    names = list(members)
    means = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(names), len(names))
        means.append(np.mean([value for number in drawn for value in members[names[number]]]))
    return np.percentile(means, [2.5, 97.5])


@pytest.mark.parametrize("seed", [0, 5])
def test_the_bootstrap_draws_whole_groups_with_replacement(seed):
    rng = np.random.default_rng(1)
    values, groups = rng.normal(size=60), rng.choice(list("vwxyz") + [f"g{n}" for n in range(15)], 60)
    found = bootstrap(lambda weights: {"mean": np.average(values, weights=weights)}, groups, 200, seed)
    low, high = bootstrap_by_hand(values, groups, 200, seed)
    assert found.loc["mean"].to_dict() == pytest.approx({"value": values.mean(), "low": low, "high": high})
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
            "first": weights[0] if weights[0] else np.nan,
            "last": weights[5],
            "never": np.nan,
            "ratio": weights[0] / weights[0],  # 0/0 without a warning
        }

    found = bootstrap(compute, groups, 300)
    assert found.loc["first"].tolist() == [1, 1, 3]  # never 0: those resamples are left out
    assert found.loc["last"].tolist() == [1, 0, 3]
    assert found.loc["ratio"].tolist() == [1, 1, 1]
    assert found.loc["never"].isna().all()


def test_metrics_may_have_tuples_as_names_and_keep_their_order():
    def compute(weights):
        return {("z", "last"): 7.0, ("a", "sum"): weights.sum(), ("z", "first"): -1.0}

    found = bootstrap(compute, list("xyz"), 10)
    assert found.index.tolist() == [("z", "last"), ("a", "sum"), ("z", "first")]
    assert found["value"].tolist() == found["low"].tolist() == found["high"].tolist() == [7, 3, -1]


def test_the_same_seed_gives_the_same_bootstrap():
    values = np.random.default_rng(0).normal(size=50)

    def draw(seed):
        return bootstrap(lambda weights: {"mean": np.average(values, weights=weights)}, range(50), 50, seed)

    pd.testing.assert_frame_equal(draw(1), draw(1))
    assert (draw(1)[["low", "high"]] != draw(2)[["low", "high"]]).all(axis=None)
