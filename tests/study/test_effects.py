"""Effects of factors: against known ones and against Tukey's range test."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from scipy.stats import studentized_range, t

from helpers.evaluation.plots import plot_effects
from helpers.study.effects import compute_effects, summarize_levels

METRIC, OTHER = "validation_accuracy", "test_accuracy"
SPREAD = np.array([-0.01, 0.0, 0.01])  # over three seeds, with the standard deviation 0.01
LEVELS = {
    "filters": {"16": 0.80, "32": 0.81},
    "depth": {"2 blocks": 0.74, "3 blocks": 0.81, "4 blocks": 0.79},
}


def make_table(levels=LEVELS, spread=SPREAD):
    """Make the long table; levels of 0.81 are the base, trained once."""
    rows = [
        {
            "factor": factor,
            "level": level,
            "seed": seed,
            "trial": f"base {seed}" if mean == 0.81 else f"{factor} {level} {seed}",
            METRIC: mean + noise,
            OTHER: mean - 0.1 + 2 * noise,
            "parameters": 1000 + len(level),
            "train_minutes": 2.0 + seed,
        }
        for factor, means in levels.items()
        for level, mean in means.items()
        for seed, noise in enumerate(spread)
    ]
    return pd.DataFrame(rows)


def fail(table, *rows):
    table = table.copy()
    table.loc[list(rows), [METRIC, OTHER]] = np.nan
    return table


@pytest.fixture
def table():
    return make_table()


# Levels


def test_levels_are_summarized_in_their_order(table):
    summary = summarize_levels(table, [METRIC, OTHER])
    assert list(zip(summary["factor"], summary["level"], strict=True)) == [
        (factor, level) for factor, levels in LEVELS.items() for level in levels
    ]
    assert set(summary["seeds"]) == {3}
    assert set(summary["failed"]) == {0}
    first = summary.iloc[0]
    assert first[[f"{METRIC}_{name}" for name in ("mean", "std", "min", "max")]].tolist() == pytest.approx(
        [0.80, 0.01, 0.79, 0.81]
    )
    assert first[[f"{OTHER}_{name}" for name in ("mean", "std", "min", "max")]].tolist() == pytest.approx(
        [0.70, 0.02, 0.68, 0.72]
    )
    assert (first["parameters"], first["train_minutes"]) == (1002, 3.0)
    assert "wall_seconds" not in summary


def test_failed_trials_are_counted_and_left_out(table):
    summary = summarize_levels(fail(table, 0, 3, 4, 5), [METRIC])
    assert summary["level"].tolist() == ["16", "2 blocks", "3 blocks", "4 blocks"]
    assert summary["seeds"].tolist() == [2, 3, 3, 3]
    assert summary["failed"].tolist() == [1, 0, 0, 0]
    assert summary[f"{METRIC}_mean"][0] == pytest.approx(0.805)


# Effects


def test_effects_are_differences_between_best_and_worst(table):
    effects = compute_effects(table, METRIC).set_index("factor")
    assert effects.index.tolist() == ["filters", "depth"]
    assert effects["best"].tolist() == ["32", "3 blocks"]
    assert effects["worst"].tolist() == ["16", "2 blocks"]
    assert effects["effect"].tolist() == pytest.approx([0.01, 0.07])
    assert effects["spread"].tolist() == pytest.approx([0.01, 0.01])
    assert effects["rank"].tolist() == [2, 1]


def test_intervals_and_luck_are_those_of_the_textbook(table):
    """Student's interval of a difference of means, and Tukey's honestly significant difference."""
    effects = compute_effects(table, METRIC, resamples=200_000).set_index("factor")
    for factor, levels in LEVELS.items():
        row, freedom = effects.loc[factor], 2 * len(levels)
        half = t.ppf(0.975, freedom) * 0.01 * np.sqrt(2 / 3)
        assert row["low"] == pytest.approx(row["effect"] - half, abs=3e-4)
        assert row["high"] == pytest.approx(row["effect"] + half, abs=3e-4)
        critical = studentized_range.ppf(0.95, len(levels), freedom) * 0.01 / np.sqrt(3)
        assert row["luck_high"] == pytest.approx(critical, abs=3e-4)
        assert 0.3 * critical < row["luck"] < 0.6 * critical


def test_luck_is_as_large_as_equal_levels_make_it():
    """Of studies in which nothing matters, one in twenty lies above."""
    rng = np.random.default_rng(3)
    levels = {f"factor {number}": dict.fromkeys("abc", 0.5) for number in range(300)}
    table = make_table(levels)
    table["trial"] = np.arange(len(table))
    table[METRIC] = rng.normal(0.5, 0.02, len(table))
    effects = compute_effects(table, METRIC, resamples=2000)
    assert 0.02 < (effects["effect"] > effects["luck_high"]).mean() < 0.09
    assert effects["effect"].mean() == pytest.approx(effects["luck"].mean(), rel=0.2)


def test_of_equal_levels_best_and_worst_are_still_two():
    levels = {"filters": {"16": 0.8, "32": 0.8}}
    effect = compute_effects(make_table(levels), METRIC).iloc[0]
    assert effect["effect"] == 0
    assert {effect["best"], effect["worst"]} == {"16", "32"}


def test_spread_is_pooled_within_the_factor(table):
    table.loc[table["level"] == "2 blocks", METRIC] = 0.74 + 3 * SPREAD
    table = fail(table, 12)  # leaves two seeds 0.01 apart
    effects = compute_effects(table, METRIC).set_index("factor")
    pooled = np.sqrt((2 * 0.03**2 + 2 * 0.01**2 + 1 * (0.01**2 / 2)) / 5)
    assert effects["spread"].tolist() == pytest.approx([0.01, pooled])


def test_the_probability_to_be_the_largest_knows_the_noise():
    sure = compute_effects(make_table(), METRIC)
    assert sure["p_largest"].tolist() == pytest.approx([0, 1], abs=0.01)
    levels = {"first": {"a": 0.70, "b": 0.75}, "second": {"a": 0.71, "b": 0.76}}
    unsure = compute_effects(make_table(levels), METRIC)
    assert unsure["p_largest"].tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    assert unsure["rank"].tolist() == [1, 2]


def test_the_base_has_the_same_noise_in_all_factors():
    """If it is the best level of both, it drops out of the comparison; if it is the worst of one, it counts twice."""
    both = {"first": {"worse": 0.77, "base": 0.81}, "second": {"worse": 0.79, "base": 0.81}}
    either = {"first": {"better": 0.85, "base": 0.81}, "second": {"worse": 0.79, "base": 0.81}}
    shares = {}
    for name, levels in {"both": both, "either": either}.items():
        table = make_table(levels)
        tables = table, table.assign(trial=np.arange(len(table))), table.drop(columns="trial")
        shares[name] = [compute_effects(part, METRIC).loc[0, "p_largest"] for part in tables]
        assert shares[name][1] == pytest.approx(shares[name][2], abs=0.02)
    assert shares["both"][0] > shares["both"][1] + 0.02
    assert shares["either"][0] < shares["either"][1] - 0.02


def test_effects_are_the_same_for_the_same_seed(table):
    first = compute_effects(table, METRIC, seed=1)
    pd.testing.assert_frame_equal(compute_effects(table, METRIC, seed=1), first)
    assert not compute_effects(table, METRIC, seed=2).equals(first)


def test_levels_without_a_result_are_left_out(table):
    effects = compute_effects(fail(table, 9, 10, 11), METRIC).set_index("factor")  # 3 blocks, the best one
    assert effects.loc["depth", ["best", "worst"]].tolist() == ["4 blocks", "2 blocks"]
    assert effects.loc["depth", "effect"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="level"), "no column level"),
        (lambda table: table.drop(columns=METRIC), f"no column {METRIC}"),
        (lambda table: pd.concat([table, table[:1]]), "two rows"),
        (lambda table: fail(table, *table.index), "No trial has a result"),
        (lambda table: fail(table, 0, 1, 2), "filters: at least two levels"),
        (lambda table: fail(table, 0, 1, 3, 5), "filters: at least two levels"),
    ],
)
def test_tables_that_tell_nothing_are_refused(table, change, message):
    with pytest.raises(ValueError, match=message):
        compute_effects(change(table), METRIC)


# The figure


@pytest.fixture
def figure(table):
    return plot_effects(fail(table, 0))


def test_each_factor_has_a_panel(figure):
    axes = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title() for ax in axes] == ["Filters", "Depth"]
    for ax, levels in zip(axes, LEVELS.values(), strict=True):
        assert [label.get_text() for label in ax.get_xticklabels()] == list(levels)
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert axes[0].get_ylabel() == "Accuracy"
    assert axes[0].yaxis.get_major_formatter()(0.5) == "50%"


def test_each_seed_is_a_point_and_the_means_a_line(figure, table):
    table = fail(table, 0)
    for ax, (factor, levels) in zip(figure.axes, LEVELS.items(), strict=True):
        part = table[table["factor"] == factor]
        for metric, points, line in zip([METRIC, OTHER], ax.get_lines()[::2], ax.get_lines()[1::2], strict=True):
            np.testing.assert_array_equal(points.get_ydata(), part[metric])
            places = np.repeat(np.arange(len(levels)), 3)
            np.testing.assert_array_equal(np.round(points.get_xdata()), places)
            assert points.get_linestyle() == "None"
            assert points.get_alpha() < 1
            means = part.groupby("level", sort=False)[metric].mean()
            np.testing.assert_allclose(line.get_ydata(), means)
            np.testing.assert_array_equal(np.round(line.get_xdata()), range(len(levels)))


def test_metrics_differ_in_colour_marker_and_line(figure):
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Validation", "Test"]
    points, line, other_points, other_line = figure.axes[0].get_lines()
    assert points.get_marker() == line.get_marker() != other_line.get_marker() == other_points.get_marker()
    assert to_hex(points.get_color()) == to_hex(line.get_color()) != to_hex(other_line.get_color())
    assert line.get_linestyle() != other_line.get_linestyle()


def test_panels_are_wrapped_and_roc_auc_is_no_percentage():
    levels = {f"factor {number}": {"a": 0.7, "some rather long level": 0.8} for number in range(5)}
    table = make_table(levels).rename(columns={METRIC: "validation_roc_auc", OTHER: "test_roc_auc"})
    figure = plot_effects(table, ["validation_roc_auc", "test_roc_auc"])
    assert [ax.axison for ax in figure.axes] == [True] * 5
    assert figure.axes[0].get_ylabel() == figure.axes[3].get_ylabel() == "ROC AUC"
    assert not figure.axes[0].yaxis.get_major_formatter()(0.5).endswith("%")
    assert figure.axes[4].get_xticklabels()[1].get_text() == "some rather long\nlevel"
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[4].get_xticklabels()]
    assert boxes[0].x1 < boxes[1].x0
    plt.close(figure)


def test_one_metric_has_its_whole_name(table):
    figure = plot_effects(table, [METRIC])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Validation accuracy"]
    assert len(figure.axes[0].get_lines()) == 2
