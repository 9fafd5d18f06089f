"""The design of a study: which settings are changed, each alone around a base and repeated over seeds.

One factor at a time does not show interactions: what holds around this base may not hold around another.
"""

import json

import pandas as pd


def list_factors(depths, filters, learning_rates, residual_depths):
    """List common factors of a convolutional network, for `list_trials`, given the levels of each.

    ``filters`` are those in the first block; with the numbers of blocks in ``residual_depths`` residual blocks are
    compared with plain ones.
    """
    factors = {
        "depth": {f"{blocks} blocks": {"blocks": blocks} for blocks in depths},
        "filters": {f"{count} filters": {"filters": count} for count in filters},
        "normalization": {"batch norm": {"batch_norm": True}, "none": {"batch_norm": False}},
        "learning rate": {f"{rate:g}": {"learning_rate": rate} for rate in learning_rates},
    }
    for blocks in residual_depths:
        kinds = {f"{kind} blocks": {"blocks": blocks, "residual": kind == "residual"} for kind in ("plain", "residual")}
        factors[f"residual, {blocks} blocks"] = kinds
    return factors


def list_trials(base, factors, seeds):
    """List the trials of a study: each combination of settings and seed once, though it may serve several factors.

    Parameters
    ----------
    base : dict of str to JSON values
        All settings.
    factors : dict of str to dict of str to dict
        For each factor and level the settings that differ from the base; none for the level that is the base. A setting
        that the base has not and two equal levels of a factor are a ValueError.

    Returns
    -------
    DataFrame with the columns ``settings`` (dict) and ``seed``: all settings with the first seed, in the order of the
    factors, then with the second seed, and so on.

    Examples
    --------
    >>> factors = {"depth": {"2 blocks": {}, "3 blocks": {"blocks": 3}}, "norm": {"none": {}, "batch": {"norm": True}}}
    >>> list_trials({"blocks": 2, "norm": False}, factors, seeds=range(3)).shape
    (9, 2)
    """
    distinct = {dump_settings(settings): settings for *_, settings in _list_levels(base, factors)}
    rows = [(settings, seed) for seed in dict.fromkeys(seeds) for settings in distinct.values()]
    return pd.DataFrame(rows, columns=["settings", "seed"])


def expand_results(results, base, factors):
    """Lay the results of `run_study` out by factor and level; a trial that serves several factors appears under each.

    Return a DataFrame with one row per factor, level and seed, in their order: ``factor, level, seed, trial``, the
    results, ``wall_seconds, error``. A level without a trial is a ValueError.
    """
    dumped = results["settings"].map(dump_settings)
    parts = []
    for factor, level, settings in _list_levels(base, factors):
        part = results[dumped == dump_settings(settings)].drop(columns="settings")
        if part.empty:
            raise ValueError(f"The results hold no trial of {factor}: {level}.")
        parts.append(part.assign(factor=factor, level=level))
    table = pd.concat(parts, ignore_index=True)
    first = ["factor", "level", "seed", "trial"]
    return table[[*first, *table.columns.difference(first, sort=False)]]


def _list_levels(base, factors):
    """List factor, level and settings."""
    levels = []
    for factor, changes in factors.items():
        for level, changed in changes.items():
            if unknown := ", ".join(sorted(changed.keys() - base.keys())):
                raise ValueError(f"{factor}: {level} changes {unknown}, which the base does not have.")
            levels.append((factor, level, base | changed))
        if len({dump_settings(base | changed) for changed in changes.values()}) < len(changes):
            raise ValueError(f"{factor}: two of its levels have the same settings.")
    return levels


def dump_settings(value):
    """Write settings as text, the same for equal ones."""
    return json.dumps(value, sort_keys=True)
