"""Effects: which setting of a network matters how much, beside what luck with the seeds would give.

Starts from a table with one row per factor, level and seed, and the columns ``factor, level, seed`` and metrics, of
which a higher one is better. Trials without a result have missing values and are left out. Where there is a column
``trial``, rows with the same one are the same training, as that of the base, which serves several factors.
"""

import numpy as np
import pandas as pd

from helpers.evaluation.bootstrap import CONFIDENCE_LEVEL

_COSTS = ("parameters", "train_minutes", "wall_seconds")


def summarize_levels(table, metrics):
    """Summarize the metrics of each level over the seeds.

    Parameters
    ----------
    table : DataFrame
        See the module's description.
    metrics : sequence of str
        Columns of the table.

    Returns
    -------
    DataFrame with one row per factor and level that has a result, in their order: ``factor, level, seeds`` (with a
    result), ``failed`` (without one), for each metric ``<metric>_mean, _std`` (with n - 1; missing for one seed),
    ``_min, _max``, and the means of ``parameters``, ``train_minutes`` and ``wall_seconds`` where the table has them.

    Raises
    ------
    ValueError
        The table lacks a column, has a row twice, or no results.
    """
    finished = _select_finished(table, metrics)
    planned = table.groupby(["factor", "level"], sort=False).size()
    grouped = finished.groupby(["factor", "level"], sort=False)
    summary = grouped.size().to_frame("seeds")
    summary["failed"] = planned.loc[summary.index] - summary["seeds"]
    for metric in metrics:
        values = grouped[metric].agg(["mean", "std", "min", "max"])
        summary[[f"{metric}_{name}" for name in values]] = values
    for name in _COSTS:
        if name in table:
            summary[name] = grouped[name].mean()
    return summary.reset_index()


def compute_effects(table, metric, resamples=10_000, seed=0):
    """Compute how much each factor changes a metric, from its worst to its best level, and how sure that is.

    Parameters
    ----------
    table : DataFrame
        See the module's description.
    metric : str
        The column to compare by. Choose levels by a validation metric: the test images then have no part in it.
    resamples : int
    seed : int

    Returns
    -------
    DataFrame with one row per factor, in their order: ``factor, best, worst`` (levels), ``effect`` (mean of the best
    minus mean of the worst level), ``low, high`` (its 95 % interval), ``luck`` and ``luck_high`` (mean and 95th
    percentile of the difference that there would be between best and worst if all levels were equal), ``spread``
    (standard deviation over the seeds), ``rank`` (1 for the largest effect) and ``p_largest`` (the share of the draws
    in which this factor has the largest effect). An effect above ``luck_high`` is more than luck.

    Raises
    ------
    ValueError
        The table lacks a column, has a row twice, or no results; or a factor has fewer than two levels with results, or
        no level with two seeds.

    Notes
    -----
    Three seeds are too few to draw from: the bootstrap is a parametric one. The results of a level are taken for
    normally distributed, with a standard deviation that is the same for all levels of a factor. It is pooled over them,
    and its own uncertainty (chi-square) is part of every draw; ``luck_high`` is thereby the critical difference of
    Tukey's range test. Of the same trainings under several factors one draw is made. Uncertainty is that of the seeds
    only: it says nothing about other images, other bases or other ranges of levels: a factor tried over a wider range
    has a larger effect. As best and worst are picked by the same results, small effects come out too large, which is
    what to compare ``luck`` for.
    """
    finished = _select_finished(table, [metric])
    rng = np.random.default_rng(seed)
    noise_of = {}  # of the same trainings the same noise
    rows, drawn = [], []
    for factor, part in finished.groupby("factor", sort=False):
        levels = part.groupby("level", sort=False)[metric].agg(["mean", "var", "size"])
        freedom = int((levels["size"] - 1).sum())
        if len(levels) < 2 or not freedom:
            raise ValueError(f"{factor}: at least two levels with results are needed, one of them of two seeds.")
        spread = float(np.sqrt((levels["var"].fillna(0) * (levels["size"] - 1)).sum() / freedom))
        spreads = spread * np.sqrt(freedom / rng.chisquare(freedom, resamples))
        noise = []
        for level, of_level in part.groupby("level", sort=False):
            trainings = tuple(sorted(of_level["trial"])) if "trial" in part else (factor, level)
            if trainings not in noise_of:
                noise_of[trainings] = rng.standard_normal(resamples) / np.sqrt(len(of_level))
            noise.append(noise_of[trainings] * spreads)
        best = levels["mean"].argmax()
        worst = len(levels) - 1 - levels["mean"][::-1].argmin()  # the last of equals, so that it is not the best
        effect = levels["mean"].iloc[best] - levels["mean"].iloc[worst]
        drawn.append(effect + noise[best] - noise[worst])
        low, high = np.quantile(drawn[-1], [(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2])
        luck = np.ptp(noise, axis=0)
        rows.append(
            {"factor": factor, "best": levels.index[best], "worst": levels.index[worst], "effect": effect}
            | {"low": low, "high": high, "luck": luck.mean(), "luck_high": np.quantile(luck, CONFIDENCE_LEVEL)}
            | {"spread": spread}
        )
    effects = pd.DataFrame(rows)
    effects["rank"] = effects["effect"].rank(ascending=False, method="first").astype(int)
    effects["p_largest"] = np.bincount(np.argmax(drawn, axis=0), minlength=len(drawn)) / resamples
    return effects


def describe_effects(effects, table, metric, others=()):
    """Write what the effects say.

    Parameters
    ----------
    effects : DataFrame
        From `compute_effects`.
    table : DataFrame
        As given to `compute_effects`.
    metric : str
        As given to `compute_effects`.
    others : sequence of str
        Further metrics, such as those of a test set, to tell for the best and the worst level.

    Returns
    -------
    list of str: one sentence or two on each factor; one that ranks the factors; and, if there are any, one on the
    trials that are left out.
    """
    finished = _select_finished(table, [metric])
    sentences = [_describe_factor(row, finished, metric, others) for row in effects.itertuples()]
    ordered = effects.sort_values("rank")
    sizes = [f"{row.factor} ({_write_difference(row.effect, metric)})" for row in ordered.itertuples()]
    sure = effects.sort_values("p_largest", ascending=False, kind="stable")
    shares = [f"{row.factor} {_write_share(row.p_largest)}" for row in sure.itertuples() if row.p_largest >= 0.05]
    sentences.append(
        f"From the largest to the smallest difference in {_write_name(metric)} between the best and the worst of the "
        f"levels tried: {', '.join(sizes)}. Share of the draws in which it is the largest: {', '.join(shares)}."
    )
    trials = table.drop_duplicates("trial") if "trial" in table else table
    missing = int(trials[metric].isna().sum())
    if missing:
        sentences.append(f"{missing} of {len(trials)} trials gave no result and {_agree(missing)} left out.")
    return sentences


def _describe_factor(row, finished, metric, others):
    part = finished[finished["factor"] == row.factor]
    means = part.groupby("level", sort=False)[[metric, *others]].mean().loc[[row.best, row.worst]]
    best, worst = (_write_value(value, metric) for value in means[metric])
    difference, high = _write_difference(row.effect, metric), _write_difference(row.luck_high, metric)
    interval = f"{_write_number(row.low, metric)} to {_write_number(row.high, metric)}"
    name = f"{row.factor[0].upper()}{row.factor[1:]}"
    text = f"{name}: {_write_name(metric)} is highest with {row.best} ({best}) and lowest with {row.worst} ({worst})"
    seeds = sorted(set(part.groupby("level").size()))
    over = f"{' to '.join(str(seeds[place]) for place in sorted({0, len(seeds) - 1}))} seeds"
    more = row.effect > row.luck_high
    text += f"{';' if more else ', but'} the difference of {difference} (95 % interval {interval}) "
    text += f"{'is more than' if more else 'cannot be told from'} luck: if all levels were equal, {over} would give up "
    text += f"to {high} in 95 of 100 studies."
    for other in others:
        best, worst = (_write_value(value, other) for value in means[other])
        text += f" With these two, {_write_name(other)} is {best} and {worst}."
    return text


def _select_finished(table, metrics):
    """Select the rows with all metrics."""
    needed = ["factor", "level", "seed", *metrics]
    if missing := [name for name in needed if name not in table]:
        raise ValueError(f"The table has no column {', '.join(missing)}.")
    if table.duplicated(["factor", "level", "seed"]).any():
        raise ValueError("The table has two rows of the same factor, level and seed.")
    finished = table.dropna(subset=list(metrics))
    if finished.empty:
        raise ValueError(f"No trial has a result for {', '.join(metrics)}.")
    return finished


def _write_name(metric):
    return metric.replace("_", " ").replace("roc auc", "ROC AUC")


def _write_number(value, metric):
    return f"{value:.3f}" if metric.endswith("auc") else f"{100 * value:.1f}"


def _write_value(value, metric):
    return _write_number(value, metric) + ("" if metric.endswith("auc") else " %")


def _write_difference(value, metric):
    return _write_number(value, metric) + ("" if metric.endswith("auc") else " points")


def _write_share(share):
    return "above 99 %" if share > 0.99 else f"{share:.0%}".replace("%", " %")


def _agree(count):
    return "is" if count == 1 else "are"
