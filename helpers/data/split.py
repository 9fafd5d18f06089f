"""Splitting: whole groups, stratified by class."""

import numpy as np
import pandas as pd

from helpers.data import audit
from helpers.files import InputError


def split_by_group(images, fractions, seed=42):
    """Assign every image to one of several sets, whole groups at a time, each class in the same shares.

    The result is a Series of the sets' names, aligned with ``images``.

    Parameters
    ----------
    images : DataFrame
        One row per image, with the columns ``label`` and ``group``. A group with several labels counts for its most
        frequent one.
    fractions : dict of str to float
        Wanted share of images in each set; they sum to 1, and are met as closely as whole groups allow.

    Raises
    ------
    ValueError
        The shares do not sum to 1, one is not positive, or an image has no label or no group.
    InputError
        A class has fewer groups than there are sets, so that one set would not contain it.

    Examples
    --------
    >>> import pandas as pd
    >>> images = pd.DataFrame({"label": list("aaaabbbb"), "group": list("11223344")})
    >>> split_by_group(images, {"train": 0.5, "validation": 0.5}).tolist()
    ['validation', 'validation', 'train', 'train', 'train', 'train', 'validation', 'validation']
    """
    shares = np.array(list(fractions.values()))
    if not np.isclose(shares.sum(), 1) or (shares <= 0).any():
        raise ValueError(f"fractions={fractions}: expected positive shares that sum to 1.")
    if images[["label", "group"]].isna().any(axis=None):
        raise ValueError(
            "Some images have no label or no group: leave out the unlabelled, give each other its own one."
        )
    rng = np.random.default_rng(seed)
    counts = images.groupby(["group", "label"]).size().reset_index(name="count")
    counts = counts.sort_values(["count", "label"], ascending=[False, True])  # the first label is the most frequent one
    groups = counts.groupby("group").agg(label=("label", "first"), size=("count", "sum"))
    names, set_by_group = list(fractions), {}
    for label, members in groups.groupby("label"):
        if len(members) < len(fractions):
            raise InputError(
                f"Class {label!r} has {len(members)} group(s), too few for {len(fractions)} sets "
                f"({', '.join(fractions)}). Leave the class out, or split into fewer sets."
            )
        members = members.iloc[rng.permutation(len(members))]
        members = members.sort_values("size", ascending=False, kind="stable")  # the small ones even out the large ones
        chosen = _share_out(members["size"].to_numpy(), shares)
        set_by_group |= {group: names[number] for group, number in zip(members.index, chosen, strict=True)}
    return images["group"].map(set_by_group).rename("split")


def split_by_image(images, fractions, seed=42):
    """Assign every image to one of several sets at random, stratified by class, as `split_by_group` does with groups.

    For comparison only, because images of one group end up on both sides; see `helpers.data.audit.find_leaks`.
    """
    return split_by_group(images.assign(group=np.arange(len(images))), fractions, seed)


def limit_images(images, most, seed=42, by="part", whole_groups=True):
    """Keep about ``most`` images of each part, whole groups, classes in their shares, numbered anew: for quick runs.

    ``by`` is the column that names the parts; None takes all images for one part. ``whole_groups=False`` divides groups
    too, and counts images without a label as a class of their own.
    """
    kept = np.ones(len(images), bool)
    alone = {} if whole_groups else {"group": images["image_id"], "label": images["label"].fillna("no label")}
    divided = images.assign(**alone)
    for rows in images.groupby(by).indices.values() if by else [np.arange(len(images))]:
        if len(rows) > most:
            shares = {"kept": most / len(rows), "left out": 1 - most / len(rows)}
            kept[rows] = split_by_group(divided.iloc[rows], shares, seed) == "kept"
    return images[kept].reset_index(drop=True)


def draw_examples(images, column, count, seed=42):
    """Draw ``count`` images of each value of a column that has as many, to be shown as a grid with a row for each.

    They are rows of ``images``, sorted by the column.
    """
    drawn = images.sample(frac=1, random_state=seed).groupby(column).head(count).sort_values(column)
    return drawn[drawn.groupby(column)[column].transform("size") == count]


def _share_out(sizes, shares):
    """Give each group, in order, to the set that is furthest below its share; the last ones fill sets still empty."""
    filled = np.zeros(len(shares))
    chosen = np.empty(len(sizes), int)
    for number, size in enumerate(sizes):
        lacking = shares * sizes.sum() - filled
        empty = filled == 0
        if empty.sum() >= len(sizes) - number:
            lacking = np.where(empty, lacking, -np.inf)
        chosen[number] = lacking.argmax()
        filled[chosen[number]] += size
    return chosen


def list_runs(images, folds, seed=42, validation=None, refits=0, others=()):
    """List the runs of a cross-validation by group: which images each is trained on, and which it predicts.

    Parameters
    ----------
    images : DataFrame
        One row per image, with the columns ``label`` and ``group``; its index are the rows in the pixels.
    folds : int or str
        How many there are, or the column that names the fold of each image, where the images are shipped so.
    validation : float, optional
        Share of the images outside the held-out part by which a run chooses its epoch. By default it watches the
        held-out part itself, by which nothing may be chosen then.
    refits, others : int, array of int
        How many further runs are trained on all images, each with a seed of its own; and the rows that they predict.

    Returns
    -------
    dict of str to dict: for each run, "fold 1" and so on, then "refit 1" and so on, the rows ``train``, ``validation``
    and ``test``, which it predicts, and its ``seed``.

    Raises
    ------
    InputError
        Shipped folds: there is one alone, a group is in several, or one has no image of a class.
    """
    if isinstance(folds, str):
        shipped = _check_folds(images, folds)
        names = [f"fold {number}" for number in range(1, shipped.nunique() + 1)]
        fold = shipped.map(dict(zip(sorted(shipped.unique()), names, strict=True)))
    else:
        names = [f"fold {number}" for number in range(1, folds + 1)]
        fold = split_by_group(images, dict.fromkeys(names, 1 / folds), seed)
    runs = {}
    for name in names:
        rest, test = images[fold != name], images.index[fold == name].to_numpy()
        train, watched = rest.index.to_numpy(), test
        if validation is not None:
            inner = split_by_group(rest, {"train": 1 - validation, "validation": validation}, seed)
            train, watched = (rest.index[inner == part].to_numpy() for part in ("train", "validation"))
        runs[name] = {"train": train, "validation": watched, "test": test, "seed": seed}
    rows = images.index.to_numpy()
    for number in range(1, refits + 1):  # a refit holds out none: its curve is drawn for some of its own images
        test = np.asarray(others, int)
        runs[f"refit {number}"] = {"train": rows, "validation": rows[::20], "test": test, "seed": seed + number}
    return runs


def _check_folds(images, column):
    """Check that folds that were shipped can be used; give that of each image."""
    fold = images[column]
    names = [str(name) for name in sorted(fold.dropna().unique())]
    if fold.isna().any() or len(names) < 2:
        raise InputError(
            f"The images to train with lie in {len(names)} fold(s), {', '.join(names) or 'none'}: expected each in one "
            "of several, because they are held out in turn. Add the other folds."
        )
    audit.check_split(images, fold)
    counts = pd.crosstab(fold, images["label"])
    if lacking := [f"{name} has no {label}" for name, row in counts.iterrows() for label in row.index[row == 0]]:
        raise InputError(f"{'; '.join(lacking)}: expected images of each class in each fold. Use more images.")
    return fold


def repeat_groups(images, seed=42):
    """Repeat images so that classes weigh alike in training, and in each class its groups, whatever their size.

    Of a class each group gets the same number of rows, drawn without replacement until all its images were drawn. The
    number is such that no image of the class with the most rows is left out.

    Parameters
    ----------
    images : DataFrame
        One row per image, with the columns ``label`` and ``group``; its index are the rows in the pixels.

    Returns
    -------
    array of int, rows in the pixels, most of them several times.

    Examples
    --------
    >>> import pandas as pd
    >>> images = pd.DataFrame({"label": list("aaaab"), "group": list("11123")})
    >>> np.bincount(repeat_groups(images)).tolist()
    [1, 1, 1, 3, 6]
    """
    rng = np.random.default_rng(seed)
    groups = {name: part.groupby("group").groups for name, part in images.groupby("label")}
    total = max(len(members) * max(map(len, members.values())) for members in groups.values())
    drawn = []
    for members in groups.values():
        count = -(-total // len(members))
        drawn += [np.resize(rng.permutation(rows.to_numpy()), count) for rows in members.values()]
    return np.concatenate(drawn)
