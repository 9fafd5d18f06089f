"""Effects: which setting of a network matters how much, compared with what chance in the seeds alone would give.

The functions start from a table with one row per factor, level and seed, and the columns ``factor, level, seed`` and
metrics, of which a higher one is better. Rows without a result have missing values and are left out. Where there is a
column ``trial``, rows with the same one are the same training, as that of the base, which serves several factors.
"""

import numpy as np
import pandas as pd

from helpers.evaluation.bootstrap import CONFIDENCE_LEVEL


def summarize_levels(table, metrics):
    """Summarize the metrics of each level over the seeds, given a table as the module describes it.

    A table that lacks a column, has a row twice or has no results is a ValueError.

    Returns
    -------
    DataFrame with one row per factor and level that has a result, in their order: ``factor, level, seeds`` (with a
    result), ``failed`` (without one), for each metric ``<metric>_mean, _std`` (with n - 1; missing for one seed),
    ``_min, _max``, and the means of ``parameters``, ``train_minutes`` and ``wall_seconds`` where the table has them.
    """
    by = ["factor", "level"]
    grouped = _select_finished(table, metrics).groupby(by, sort=False)
    summary = grouped.size().to_frame("seeds")
    summary["failed"] = table.groupby(by).size().loc[summary.index] - summary["seeds"]
    for metric in metrics:
        values = grouped[metric].agg(["mean", "std", "min", "max"])
        summary[[f"{metric}_{name}" for name in values]] = values
    costs = [name for name in ("parameters", "train_minutes", "wall_seconds") if name in table]
    return summary.join(grouped[costs].mean()).reset_index()


def compute_effects(table, metric, resamples=10_000, seed=0):
    """Compute how much each factor changes a metric, from its worst to its best level, and how sure that is.

    The table is as the module describes it. ``metric`` is a validation metric, so that the test images have no part in
    the choice.

    Returns
    -------
    DataFrame with one row per factor, in their order: ``factor, best, worst`` (levels), ``effect`` (mean of the best
    minus mean of the worst level), ``low, high`` (its 95 % interval), ``luck`` and ``luck_high`` (mean and 95th
    percentile of this difference if all levels were equal), ``spread`` (standard deviation over the seeds), ``rank``
    (1 for the largest effect) and ``p_largest`` (the share of the draws in which this factor has the largest effect).
    An effect above ``luck_high`` is more than chance.

    Raises
    ------
    ValueError
        As `summarize_levels`; or a factor has fewer than two levels with results, or no level with two seeds.

    Notes
    -----
    Three seeds are too few to resample, so the bootstrap is parametric: the results of a level are normally
    distributed, with one standard deviation for all levels of a factor, whose uncertainty (chi-square) is part of every
    draw. ``luck_high`` is thereby the critical difference of Tukey's range test. The same training has the same noise
    under several factors. The intervals know only the uncertainty of the seeds, not that of other images, bases or
    levels. Best and worst are picked by the same results, so small effects come out too large: compare them with
    ``luck``.
    """
    rng = np.random.default_rng(seed)
    noises = {}  # by trainings
    rows, drawn = [], []
    for factor, part in _select_finished(table, [metric]).groupby("factor", sort=False):
        levels = part.groupby("level", sort=False)[metric].agg(["mean", "var", "size"])
        freedom = int((levels["size"] - 1).sum())
        if len(levels) < 2 or not freedom:
            raise ValueError(f"{factor}: at least two levels with results are needed, one of them of two seeds.")
        spread = float(np.sqrt((levels["var"].fillna(0) * (levels["size"] - 1)).sum() / freedom))
        spreads = spread * np.sqrt(freedom / rng.chisquare(freedom, resamples))
        noise = []
        for level, rows_of_level in part.groupby("level", sort=False):
            trainings = tuple(sorted(rows_of_level["trial"])) if "trial" in part else (factor, level)
            if trainings not in noises:
                noises[trainings] = rng.standard_normal(resamples) / np.sqrt(len(rows_of_level))
            noise.append(noises[trainings] * spreads)
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


def _select_finished(table, metrics):
    """Select the rows with all metrics."""
    if missing := [name for name in ["factor", "level", "seed", *metrics] if name not in table]:
        raise ValueError(f"The table has no column {', '.join(missing)}.")
    if table.duplicated(["factor", "level", "seed"]).any():
        raise ValueError("The table has two rows of the same factor, level and seed.")
    finished = table.dropna(subset=list(metrics))
    if finished.empty:
        raise ValueError(f"No trial has a result for {', '.join(metrics)}.")
    return finished
