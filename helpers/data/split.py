"""Splitting: whole groups, stratified by class."""

import numpy as np
import pandas as pd

from helpers.files import InputError


def split_by_group(images, fractions, seed=42):
    """Assign every image to one of several sets, whole groups at a time, so that each class is shared out alike.

    Parameters
    ----------
    images : DataFrame
        One row per image, with the columns ``label`` and ``group``. A group with several labels counts for its most
        frequent one.
    fractions : dict of str to float
        Wanted share of images in each set, such as ``{"train": 0.85, "validation": 0.15}``; they sum to 1.
    seed : int

    Returns
    -------
    Series of str, aligned with ``images``: the name of each image's set. The shares are met as closely as whole
    groups allow, in every class.

    Raises
    ------
    ValueError
        The shares do not sum to 1, one is not positive, or an image has no label or no group.
    InputError
        A class has fewer groups than there are sets, so that one set would not contain it.

    Examples
    --------
    >>> images = pd.DataFrame({"label": list("aaaabbbb"), "group": list("11223344")})
    >>> split_by_group(images, {"train": 0.5, "validation": 0.5}).tolist()
    ['validation', 'validation', 'train', 'train', 'train', 'train', 'validation', 'validation']
    """
    shares = np.array(list(fractions.values()))
    if not np.isclose(shares.sum(), 1) or (shares <= 0).any():
        raise ValueError(f"fractions={fractions}: expected positive shares that sum to 1.")
    if images[["label", "group"]].isna().any(axis=None):
        raise ValueError(
            "Some images have no label or no group: leave out the unlabelled, give each other its own group."
        )
    rng = np.random.default_rng(seed)
    groups = pd.DataFrame({"label": _most_frequent_label(images), "size": images.groupby("group").size()})
    set_of_group = {}
    for label, members in groups.groupby("label"):
        if len(members) < len(fractions):
            raise InputError(
                f"Class {label!r} has {len(members)} group(s), too few for {len(fractions)} sets "
                f"({', '.join(fractions)}). Leave the class out, or split into fewer sets."
            )
        members = members.iloc[rng.permutation(len(members))]
        set_of_group |= dict(zip(members.index, _share_out(members["size"].to_numpy(), shares), strict=True))
    names = list(fractions)
    return images["group"].map({group: names[number] for group, number in set_of_group.items()}).rename("split")


def split_by_image(images, fractions, seed=42):
    """Assign every image to one of several sets at random, stratified by class, whatever group it belongs to.

    What many notebooks do, and what ours show for comparison only: images of one group end up on both sides. See
    `helpers.data.audit.find_leaks`.

    Parameters
    ----------
    images : DataFrame
        One row per image, with the column ``label``.
    fractions, seed
        As for `split_by_group`.

    Returns
    -------
    Series of str, aligned with ``images``: the name of each image's set.
    """
    alone = images.assign(group=np.arange(len(images)))
    return split_by_group(alone, fractions, seed)


def limit_images(images, most, seed=42, by="part", whole_groups=True):
    """Keep about ``most`` images of each shipped part, whole groups, classes in their shares: for quick runs.

    Parameters
    ----------
    images : DataFrame
        One row per image, with the columns ``label, group`` and ``by``.
    most : int
    seed : int
    by : str or None
        The column that names the parts; None takes all images for one part.
    whole_groups : bool
        False divides groups too, and counts images without a label as a class of their own.

    Returns
    -------
    DataFrame: some of the rows of ``images``, in their order and numbered anew; all of a part that has no more than
    ``most``.
    """
    kept = np.ones(len(images), bool)
    alone = {} if whole_groups else {"group": images["image_id"], "label": images["label"].fillna("no label")}
    divided = images.assign(**alone)
    parts = images.groupby(by).indices.values() if by else [np.arange(len(images))]
    for rows in parts:
        if len(rows) > most:
            shares = {"kept": most / len(rows), "left out": 1 - most / len(rows)}
            kept[rows] = split_by_group(divided.iloc[rows], shares, seed) == "kept"
    return images[kept].reset_index(drop=True)


def _most_frequent_label(images):
    """Find the most frequent label of each group; of several, the first in the alphabet."""
    counts = images.groupby(["group", "label"]).size().reset_index(name="count")
    counts = counts.sort_values(["group", "count", "label"], ascending=[True, False, True])
    return counts.drop_duplicates("group").set_index("group")["label"]


def _share_out(sizes, shares):
    """Give each group, in order, to the set that is furthest below its share; return the sets' numbers.

    Every set gets a group before any gets its second choice of the last ones: as many groups are kept back as there
    are sets still empty.
    """
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
