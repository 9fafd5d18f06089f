"""Choosing: whether taking the model with the highest metric on held-out images is a good rule.

``tables`` is always a dict of the name of each model to its predictions, all of the same images in the same order.
"""

import numpy as np
import pandas as pd

from helpers.evaluation.scores import _prepare_metrics, compare_metrics
from helpers.files import InputError

FEWEST_GROUPS = 4  # two in each half
_METRICS = ("roc_auc", "accuracy", "balanced_accuracy", "macro_f1", "weighted_f1")  # of which a higher one is better
_COMMON = ("image_id", "group", "y_true")


def check_rule(tables, metric="roc_auc", splits=200, seed=0, simple=()):
    """Check the rule that takes the model with the highest metric, where the truth is known: on halves of the images.

    The groups are halved at random many times, those of each class as evenly as possible. The rule chooses on one half,
    and the other half tells what would have been best. A half has fewer images than all, so that it says less about
    the models: the rule errs more often here. Besides, what one half has too much of the other lacks: of models that
    are nearly alike, the one that is better by chance on one half tends to be worse on the other. Their ``best`` says
    little, then, and ``regret`` tells what that costs. Of models with the same metric the rule takes the first.

    Parameters
    ----------
    metric : {"roc_auc", "accuracy", "balanced_accuracy", "macro_f1", "weighted_f1"}
    simple : sequence of str
        Names of the simple models: with them the rule is also checked where it chooses among these alone.

    Returns
    -------
    models : DataFrame
        A row per model: the metric on all images, in a column of its name; ``chosen``, the share of splits in which the
        rule takes it; ``best``, the share in which no model had a higher metric on the other half; and ``regret``: how
        much lower its metric was there than the highest one, on average, if it had always been taken.
    rules : DataFrame
        A row per rule, "all models" and "simple models": ``best`` and ``regret`` of the model that it takes, and
        ``splits``, the number of splits in which all models have the metric on both halves.

    Raises
    ------
    InputError
        There are fewer than 4 groups; the images, a name or the metric are not as expected; or no split has the metric,
        such as the ROC AUC where a class has a single group.
    """
    _check_tables(tables, simple)
    if metric not in _METRICS:
        raise InputError(f"metric={metric!r}: expected one of {', '.join(_METRICS)}, of which a higher one is better.")
    first, names = next(iter(tables.values())), list(tables)
    computes = [_prepare_metrics(table) for table in tables.values()]
    halves = ((half, 1 - half) for half in _halve_groups(first, splits, seed))
    values = np.array([[[compute(part)[metric] for compute in computes] for part in parts] for parts in halves])
    values = values[np.isfinite(values).all(axis=(1, 2))]  # (splits, half to choose on and half to judge on, models)
    if not len(values):
        raise InputError(f"No half of the images has a {metric}: expected several classes with 2 groups or more each.")
    regrets = values[:, 1].max(axis=1, keepdims=True) - values[:, 1]
    rules = {}
    for rule, among in (("simple models", simple), ("all models", names)):
        columns = np.array([names.index(name) for name in among], int)
        if among:
            chosen = columns[values[:, 0, columns].argmax(axis=1)]
            regret = regrets[range(len(values)), chosen]
            rules[rule] = {"best": (regret == 0).mean(), "regret": regret.mean(), "splits": len(values)}
    models = {
        metric: [compute(np.ones(len(first)))[metric] for compute in computes],
        "chosen": np.bincount(chosen, minlength=len(names)) / len(values),
        "best": (regrets == 0).mean(axis=0),
        "regret": regrets.mean(axis=0),
    }
    rules = pd.DataFrame.from_dict(rules, orient="index").rename_axis("rule").iloc[::-1]
    return pd.DataFrame(models, index=pd.Index(names, name="model")), rules


def choose_simple(tables, best, simple, metric="roc_auc", resamples=1000, seed=0):
    """Choose a simple model instead of the best one, unless the best one is measurably better.

    A simple model is within reach of ``best`` unless the paired 95 % interval of the difference of their metrics lies
    above 0. Where there are too few groups for an interval nothing shows that ``best`` is better: the simple model is
    chosen then, too.

    Returns
    -------
    str and Series
        The name of the simple model within reach that has the highest metric, or else ``best``; and the difference of
        the metric, ``best`` minus the best simple model (of those within reach, if there are some), with
        ``value, low, high, groups`` as in `helpers.evaluation.scores.compare_metrics`.

    Raises
    ------
    InputError
        There is no simple model, or the images, a name or the metric are not as expected.
    """
    _check_tables(tables, [best, *simple])
    if metric not in _METRICS or not simple:
        raise InputError(f"metric={metric!r}, simple={simple!r}: expected one of {', '.join(_METRICS)}, and a name.")
    found = [compare_metrics(tables[best], tables[name], resamples, seed).loc[metric] for name in simple]
    differences = pd.DataFrame(found, index=pd.Index(simple))
    within = differences[~(differences["low"] > 0)]
    difference = (differences if within.empty else within).sort_values("value", kind="stable").iloc[0]
    return best if within.empty else difference.name, difference


def _check_tables(tables, names):
    """Check that the predictions are of the same images, with the same labels, and that all names are known."""
    if not tables or (unknown := set(names) - set(tables)):
        unknown = ", ".join(sorted(unknown)) if tables else "none given"
        raise InputError(f"No such model: {unknown}. Known: {', '.join(tables) or 'none'}.")
    first = next(iter(tables.values()))
    for name, table in tables.items():
        if any(first[column].astype(str).tolist() != table[column].astype(str).tolist() for column in _COMMON):
            raise InputError(
                f"The predictions of {name} are not of the images, groups and labels of {next(iter(tables))} in the "
                "same order: predict the same set with all models."
            )


def _halve_groups(predictions, splits, seed):
    """Give for each split the half that each image is in, as weights 0 and 1; groups count to their rarest class."""
    codes, found = pd.factorize(predictions["group"])
    if len(found) < FEWEST_GROUPS:
        raise InputError(f"Found {len(found)} groups, expected at least {FEWEST_GROUPS}: two in each half.")
    pairs = pd.DataFrame({"group": codes, "label": predictions["y_true"].astype(str)}).drop_duplicates()
    pairs["groups"] = pairs["label"].map(pairs["label"].value_counts())
    rarest = pairs.sort_values(["groups", "label"]).drop_duplicates("group").sort_values("group")["label"]
    rng, numbers = np.random.default_rng(seed), np.arange(len(found))
    for _ in range(splits):
        order = np.lexsort((rng.random(len(found)), rarest))  # the classes one after the other, each shuffled
        half = np.empty(len(found))
        half[order] = (numbers + rng.integers(2)) % 2
        yield half[codes]
