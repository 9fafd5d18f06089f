"""Bootstrap: 95 % intervals over groups, for any metric."""

import time
from itertools import chain, islice

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import binomtest, t

from helpers.parallel import count_workers, run_in_parallel, uses_cluster

CONFIDENCE_LEVEL = 0.95
FEWEST_GROUPS = 5  # below, intervals are so wide that they say nothing
_CLUSTER_SECONDS = 2  # a bootstrap that lasts longer here goes to the Dask cluster, because the way there takes 0.3 s
_CHUNK_DRAWS = 2**21  # at most, of groups, for a worker at a time


def bootstrap(compute, groups, resamples=1000, seed=0, parts=None, limits=(0, 1)):
    """Compute metrics with 95 % intervals, drawing whole groups with replacement.

    An interval is the value plus and minus Student's t times the standard error of the resamples, on the logit scale,
    because the percentiles of resamples are too narrow where groups are few (Hesterberg 2015). The degrees of freedom
    follow from how unequal the groups are (Kish 1965), combined over the parts (Satterthwaite 1946); of means over
    classes this covers the truth also where some class is rare. A value at a limit, such as no error at all, gets the
    exact interval of as many trials as there are effective groups (Clopper and Pearson 1934).

    Parameters
    ----------
    compute : function ``weights -> dict of str, or tuples of str, to float``
        Computes the metrics with a weight for each image: how often its group was drawn. NaN where a resample lacks
        what a metric needs; such resamples are left out for that metric.
    groups : sequence, one per image
    parts : dict of a metric to list of boolean arrays, optional
        The parts of the images that the metric rests on, such as its classes; by default all images together.
    limits : pair of float
        The smallest and the largest possible value of all metrics.

    Returns
    -------
    DataFrame with the index ``metric`` and the columns ``value, low, high, groups``, the same wherever it is computed.
    ``groups`` is the number of groups in the part that has the fewest. ``low`` and ``high`` are NaN if that is below 5,
    and where all resamples have the same value between the limits, because they do not tell how sure it is.

    Raises
    ------
    ValueError
        A value is outside the limits.
    """
    codes, names = pd.factorize(np.asarray(groups))
    rng, count = np.random.default_rng(seed), len(names)
    # Drawn here, one after the other, so that the result does not depend on who computes it.
    draws = (np.bincount(rng.integers(0, count, count), minlength=count).astype("uint16") for _ in range(resamples))
    start = time.perf_counter()
    values = compute(np.ones(len(codes)))
    seconds = (time.perf_counter() - start) * resamples
    # On one machine neither threads nor processes were quicker in a measurable way: the operations are small.
    if uses_cluster() and seconds > _CLUSTER_SECONDS:
        size = min(resamples // (4 * count_workers()) + 1, _CHUNK_DRAWS // count + 1)
        chunks = iter(lambda: list(islice(draws, size)), [])
        resampled = chain(*(part for _, part in sorted(run_in_parallel(_compute_each, chunks, (compute, codes)))))
    else:
        resampled = _compute_each(draws, compute, codes)
    table = pd.DataFrame({"value": values})
    everything = [np.ones(len(codes), bool)]
    counted = [_count_groups(codes, (parts or {}).get(name, everything)) for name in values]
    table["low"], table["high"] = _compute_intervals(table["value"].to_numpy("float64"), resampled, counted, limits)
    table["groups"] = [number for number, _ in counted]
    return table.rename_axis("metric") if table.index.nlevels == 1 else table


def _count_groups(codes, parts):
    """Count the groups of the smallest part, and the degrees of freedom that all parts leave."""
    sizes = [np.bincount(codes[part]).astype("float64") for part in parts]
    fewest = min(map(np.count_nonzero, sizes))
    if fewest < FEWEST_GROUPS:
        return fewest, np.nan
    effective = np.array([size.sum() ** 2 / (size @ size) for size in sizes])  # as many groups of one size
    freedom = (1 / effective).sum() ** 2 / (1 / (effective**2 * np.maximum(effective - 1, 1e-3))).sum()
    return fewest, max(freedom, 0.1)


def _compute_intervals(values, resampled, counted, limits):
    """Compute the lower and the upper bound of each metric."""
    start, size = limits[0], limits[1] - limits[0]
    share = np.round((values - start) / size, 12)
    if ((share < 0) | (share > 1)).any():
        raise ValueError(
            f"Metrics from {np.nanmin(values)} to {np.nanmax(values)}: expected {limits[0]} to {limits[1]}."
        )
    error = pd.DataFrame(resampled, columns=range(len(values)), dtype="float64").std().to_numpy() / size
    error[(error < 1e-12) & (share > 0) & (share < 1)] = np.nan
    freedom, tail = np.array([number for _, number in counted]), (1 - CONFIDENCE_LEVEL) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        half = t.isf(tail, freedom) * np.sqrt(1 + 1 / freedom) * error / (share * (1 - share))
        bounds = [expit(logit(share) - half), expit(logit(share) + half)]
        exact = np.where(np.isnan(error), np.nan, tail ** (1 / (1 + freedom)))
    bounds[0] = np.select([share == 0, share == 1], [0 * exact, exact], bounds[0])
    bounds[1] = np.select([share == 0, share == 1], [1 - exact, 1 + 0 * exact], bounds[1])
    return [start + size * bound for bound in bounds]


def _compute_each(draws, compute, codes):
    with np.errstate(invalid="ignore", divide="ignore"):
        return [list(compute(drawn[codes].astype("float64")).values()) for drawn in draws]


def compute_proportion(successes, total):
    """Compute a proportion with its 95 % Wilson interval, which takes the images for independent.

    Return a dict ``value, low, high``. Where the images of a group are alike, the truth is less sure than that.
    """
    interval = binomtest(int(successes), int(total)).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return {"value": successes / total, "low": interval.low, "high": interval.high}
