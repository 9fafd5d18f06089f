"""Auditing: what is there, what differs from the original, and what a split leaks.

``images`` and ``problems`` are the tables of `helpers.data.opening.index_images`. What is left out is added to the
problems, a row for each image, and the other images are numbered anew.
"""

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from helpers.data import duplicates
from helpers.data.layouts.common import LEFT_OUT, PROBLEM_COLUMNS
from helpers.files import InputError, show_name

MOST_UNUSABLE = 0.05  # share of the images above which there is something wrong with the data set as a whole
_SHOWN = 5  # problems that are told


def count_images(images, by=("part", "label")):
    """Count images by two columns, which become the rows and the columns of a table.

    Images without a value are counted as ``missing``. The last row and column, ``all``, are the sums; they are called
    ``total`` where a class is called ``all``.
    """
    rows, columns = (images[name].astype("object").fillna("missing") for name in by)
    total = "total" if "all" in {*rows, *columns} else "all"
    table = pd.crosstab(rows, columns, margins=True, margins_name=total)
    return table.loc[[*rows.drop_duplicates(), total]]


def compare_with_original(images, data_set):
    """Compare the images of each part with those of the original: a table of ``found, original, missing``."""
    table = pd.DataFrame({"original": dict(data_set.expected_counts)}).rename_axis("part")
    table.insert(0, "found", images["part"].value_counts().reindex(table.index, fill_value=0))
    return table.assign(missing=table["original"] - table["found"])


def leave_out_unusable(images, problems, measured=None):
    """Leave out the images that cannot be read or contradict one another: give the remaining images and the problems.

    ``measured`` is from `helpers.data.pixels.measure_images`; its ``error`` tells which images cannot be read, its
    ``note`` what was done to others, which are kept. Raise InputError, with the table of problems, if more than 5 % of
    the images cannot be used.
    """
    if measured is not None:
        error = measured["error"][measured["error"] != ""]
        noted = zip(images["path"].map(show_name), measured["note"], strict=True)
        changed = [(name, *part.split(": ", 1)) for name, note in noted for part in note.split("; ") if part]
        changed = pd.DataFrame(changed, columns=PROBLEM_COLUMNS[:3], dtype="str")
        problems = pd.concat([problems, changed], ignore_index=True)
        images, problems = _leave_out(images.loc[error.index], "cannot be read: " + error, images, problems)
    images, problems = leave_out_contradictions(images, problems)
    left_out = len(set(problems.loc[problems["action"] == LEFT_OUT, "image_id"]) - set(images["image_id"]))
    share = left_out / max(1, left_out + len(images))
    if share > MOST_UNUSABLE:
        shown = "\n".join(f"{row.file}: {row.problem} ({row.action})" for row in problems.head(_SHOWN).itertuples())
        more = f"\n… and {len(problems) - _SHOWN:,} more" if len(problems) > _SHOWN else ""
        raise InputError(
            f"{share:.1%} of the images cannot be used, more than the {MOST_UNUSABLE:.0%} that a run goes on without. "
            f"Mend the files or fetch them again:\n{shown}{more}"
        )
    return images, problems


def find_leaks(images, split):
    """Count the images whose ``group`` is also in another set.

    ``split`` is the set of each image, aligned with ``images``, such as the shipped parts. The table has one row per
    set: ``images``; ``leaked``, those whose group is also in another set; and their ``share``.
    """
    split = pd.Series(split, index=images.index)
    leaked = split.groupby(images["group"]).transform("nunique") > 1
    table = leaked.groupby(split.rename("set"), sort=False).agg(images="size", leaked="sum")
    return table.assign(share=table["leaked"] / table["images"])


def check_split(images, split):
    """Raise InputError if a group is in two sets of a split, given as for `find_leaks`; it names two of its images."""
    leaked = find_leaks(images, split)["leaked"]
    if leaked.any():
        sets = images.assign(set=pd.Series(split, index=images.index))
        first = next(rows for _, rows in sets.groupby("group", sort=False) if len(set(rows["set"])) > 1)
        shown = first.drop_duplicates("set").reindex(columns=["path", "image_id", "set"])[:2].to_numpy()
        shown = " and ".join(f"{show_name(path)} ({image_id}) in {name}" for path, image_id, name in shown)
        raise InputError(
            f"Groups on two sides of the split; images concerned: {leaked[leaked > 0].to_dict()}, such as {shown}. "
            "A model would be tested on what it has seen. Remove the images of such groups from one of the sets, or "
            "divide all images by group, as split_images does with a share of test images."
        )


def leave_out_contradictions(images, problems):
    """Leave out the groups that carry more than one label: one of their labels is wrong, and nobody knows which."""
    conflicts = find_conflicts(images)
    labels = conflicts.groupby("group")["label"].transform(lambda labels: " and ".join(sorted(labels.unique())))
    return _leave_out(conflicts, "its group " + conflicts["group"] + " is in " + labels, images, problems)


def leave_out_leaks(images, problems, kept="test"):
    """Leave out the images that share a group with a part that stays as it is, such as the shipped test folder."""
    leaks = images[(images["part"] != kept) & images["group"].isin(images.loc[images["part"] == kept, "group"])]
    return _leave_out(leaks, f"its group is also in {kept}", images, problems)


def join_groups(images, keys=None, pairs=None):
    """Join the groups that have something in common: a key, such as the hash of identical files, or a pair of images.

    Parameters
    ----------
    keys : Series, optional
        In the order of ``images``; an image whose key is missing has nothing in common with others. Join on file hashes
        after the damaged files were left out, because all empty files are identical.
    pairs : DataFrame, optional
        ``first`` and ``second``, positions of images, from `helpers.data.duplicates.find_near_duplicates`.

    Returns
    -------
    Series of str, aligned with ``images``: the new groups, each under the name of its first one.

    Examples
    --------
    >>> images = pd.DataFrame({"group": list("aabbc")})
    >>> join_groups(images, keys=pd.Series([1, 2, 2, 3, 4])).tolist()
    ['a', 'a', 'a', 'a', 'c']
    >>> join_groups(images, pairs=pd.DataFrame({"first": [0], "second": [4]})).tolist()
    ['a', 'a', 'b', 'b', 'a']
    """
    groups, names = pd.factorize(images["group"])
    first, second = ([], []) if pairs is None else (groups[pairs["first"]], groups[pairs["second"]])
    count = len(names)
    if keys is not None:  # a key is a node between the groups that have it
        codes, known = pd.factorize(np.asarray(keys))
        first, second = np.r_[first, groups[codes >= 0]], np.r_[second, count + codes[codes >= 0]]
        count += len(known)
    links = coo_array((np.ones(len(first)), (first, second)), (count, count))
    component = connected_components(links, directed=False)[1][: len(names)]
    _, firsts = np.unique(component, return_index=True)
    return pd.Series(names[firsts[component]][groups], images.index, name="group")


def find_conflicts(images):
    """List the images whose group carries more than one label: rows of ``images``, group after group."""
    labels = images.groupby("group")["label"].transform("nunique")
    return images[labels > 1].sort_values(["group", "image_id"])


def _leave_out(rows, problem, images, problems):
    """Leave some rows out of the images, and add them with their problem to the table of problems."""
    found = {"file": rows["path"].map(show_name), "problem": problem, "action": LEFT_OUT, "image_id": rows["image_id"]}
    problems = pd.concat([problems, pd.DataFrame(found)], ignore_index=True)
    return images.drop(index=rows.index).reset_index(drop=True), problems


def find_copies(contents, thumbnails=None, pixels=None):
    """Find the pairs of images of which one was made from the other.

    Parameters
    ----------
    contents : sequence of str of length n, the hash of each image's file or pixels
    thumbnails, pixels : uint8 arrays (n, side, side, 1), optional
        For `helpers.data.duplicates.find_near_duplicates`, with a side of 32, and `find_derived_copies` there, with 96;
        what is left out is not looked for.

    Returns
    -------
    DataFrame ``first, second, copy``, one row per pair: positions of the images, and what the copy is: "identical";
    "mirrored or turned", that is, alike in one of the eight orientations of an image; or "cropped or tilted".
    """
    codes = pd.Series(contents).reset_index(drop=True)
    repeated = codes[codes.duplicated(keep=False)]
    first = repeated.index.to_series().groupby(repeated).transform("first")
    pairs = {"identical": pd.DataFrame({"first": first, "second": first.index}).query("first < second")}
    if thumbnails is not None:
        pairs["mirrored or turned"] = duplicates.find_near_duplicates(thumbnails)
    if pixels is not None:
        pairs["cropped or tilted"] = duplicates.find_derived_copies(pixels)
    table = pd.concat([part[["first", "second"]].assign(copy=kind) for kind, part in pairs.items()])
    return table.astype({"first": int, "second": int}).drop_duplicates(["first", "second"], ignore_index=True)
