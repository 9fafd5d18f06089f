"""Bootstrap: 95 % intervals over groups, for any metric."""

import time
from itertools import chain, islice

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from helpers.parallel import count_workers, run_in_parallel, uses_cluster

CONFIDENCE_LEVEL = 0.95
_CLUSTER_SECONDS = 2  # a bootstrap that lasts longer here goes to the Dask cluster, because the way there takes 0.3 s
_CHUNK_DRAWS = 2**21  # at most, of groups, for a worker at a time


def bootstrap(compute, groups, resamples=1000, seed=0):
    """Compute metrics with 95 % percentile intervals, drawing whole groups with replacement.

    Parameters
    ----------
    compute : function ``weights -> dict of str, or tuples of str, to float``
        Computes the metrics with a weight for each image: how often its group was drawn. NaN where a resample lacks
        what a metric needs; such resamples are left out for that metric.
    groups : sequence, one per image

    Returns
    -------
    DataFrame with the index ``metric`` and the columns ``value, low, high``, the same wherever it is computed.
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
    tail = (1 - CONFIDENCE_LEVEL) / 2
    table = pd.DataFrame({"value": values})
    spread = pd.DataFrame(resampled, columns=range(len(values)))
    table["low"], table["high"] = spread.quantile([tail, 1 - tail]).to_numpy()
    return table.rename_axis("metric") if table.index.nlevels == 1 else table


def _compute_each(draws, compute, codes):
    with np.errstate(invalid="ignore", divide="ignore"):
        return [list(compute(drawn[codes].astype("float64")).values()) for drawn in draws]


def compute_proportion(successes, total):
    """Compute a proportion with its 95 % Wilson interval, as a dict ``value, low, high``."""
    interval = binomtest(int(successes), int(total)).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return {"value": successes / total, "low": interval.low, "high": interval.high}
