"""What the folders, names and tables of images tell: the set, the class and the group of each image."""

import re
from pathlib import Path, PurePosixPath

import pandas as pd

from helpers.data.layouts.tables import sniff, strip_ending
from helpers.files import InputError, show_name

_SET = re.compile(r"(train|training|val|valid|validation|test|testing)([-_ ](data|set|images))?", re.IGNORECASE)
_NO_CLASS = re.compile(r"(.*[-_ ])?(images?|imgs?|pictures|data|part|fold|batch)([-_ ]?\d+)?", re.IGNORECASE)
_GROUP_NAMES = "person|patient|pat|subject|subj|sub|case|lesion|uid"
# "person12", "patient_7", "UID_H10"; and "NORMAL2-IM-0383" of NORMAL2-IM-0383-0001 in the chest X-rays of Kermany.
_GROUPS = (
    re.compile(rf"(?<![a-z])((?:{_GROUP_NAMES})[-_ ]?[a-z]{{0,3}}\d+)", re.IGNORECASE),
    re.compile(r"((?:NORMAL2-)?IM-\d+)-\d+"),
)
_COLUMNS = {  # of a table, in the order in which they are looked for
    "group": "lesion_id patient_id patient subject_id subject person_id person case_id case group",
    "class": "dx label class diagnosis target",
    "set": "set split part",
}


def read_folder(files, folder, group=None, metadata=None):
    """Make the table of the images of a folder.

    The folders' names tell the set and the class, as in ``<set>/<class>/images`` or ``<class>/images``, whatever lies
    above; file names tell the group, as ``person12_3.jpg`` does. What a table says goes before what names say.

    Parameters
    ----------
    files : list of str, relative to ``folder``
    group : str, optional
        A regular expression for the relative path; what its first pair of parentheses matches, or else all of it, is
        the group.
    metadata : Path, optional
        A table with one row per image; one of its columns has the names of the files, with or without an ending.

    Returns
    -------
    DataFrame ``image_id, path, set, label, group``, numbered from 0; where there is no set or no class they are None,
    and an image that nothing tells the group of is a group of its own, under its path. And a list of sentences: what
    was taken for what.

    Raises
    ------
    InputError
        ``group`` is no regular expression, or matches no path; the table cannot be read, or names none of the images.
    """
    images = pd.DataFrame({"image_id": files, "path": files})
    images["set"], images["label"] = _read_places(files)
    images["group"] = _read_groups(files, group)
    notes = []
    if metadata is not None:
        notes.append(_add_metadata(images, Path(metadata), group is not None))
    if images["label"].nunique() < 2:
        only = "" if images["label"].isna().all() else f" but {images['label'].dropna().iloc[0]}"
        notes.append(f"There are no classes{only}: checks that need labels are left out.")
        images["label"] = None
    else:
        notes.append(f"Classes: {_count(images['label'])}.")
    if images["set"].nunique() < 2:
        notes.append("There are no two sets, such as train and test: no leak between sets is looked for.")
    else:
        notes.append(f"Sets: {_count(images['set'])}.")
    known = images["group"].notna()
    source = f"--group {group}" if group is not None else "the names" if metadata is None else "the table or the names"
    if known.any():
        example = images["group"][known].iloc[0]
        others = "" if known.all() else f"; the other {(~known).sum():,} images are taken for groups of their own"
        notes.append(
            f"Groups from {source}: {images['group'].nunique():,} in {known.sum():,} images, such as "
            f"{show_name(example)}{others}."
        )
    else:
        notes.append("Groups: none known, each image is taken for one. Give --group or --metadata if there are some.")
    images["group"] = images["group"].fillna(images["path"])
    return images, notes


def _read_places(files):
    """Read set and class from the folders: two lists of str or None."""
    folders = [PurePosixPath(name).parts[:-1] for name in files]
    shared = _count_shared(folders)
    sets, labels = [], []
    for parts in folders:
        place = next((number for number, part in enumerate(parts) if _SET.fullmatch(part)), None)
        inner = parts[shared:] if place is None else parts[place + 1 :] or parts[shared:place]
        sets.append(None if place is None else parts[place].lower())
        labels.append(next((part for part in inner if not _NO_CLASS.fullmatch(part)), None))
    return pd.Series(sets, dtype="object"), pd.Series(labels, dtype="object")


def _count_shared(folders):
    """Count the folders at the top that all files have in common."""
    return next(
        (number for number, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1),
        min(map(len, folders)),
    )


def _read_groups(files, group):
    """Read the groups from the paths: a Series of str, None where nothing tells one."""
    if group is None:
        found = [
            next(filter(None, (rule.search(PurePosixPath(name).name) for rule in _GROUPS)), None) for name in files
        ]
    else:
        try:
            rule = re.compile(group)
        except re.error as error:
            raise InputError(f"--group {group} is no regular expression ({error}).") from error
        found = [rule.search(name) for name in files]
        if not any(found):
            raise InputError(
                f"--group {group} matches no path, such as {show_name(files[0])}: change it or leave it out."
            )
    names = [match and (match[1] if match.re.groups else match[0]) for match in found]
    return pd.Series(names, dtype="object")


def _add_metadata(images, path, has_groups):
    """Add class, set and group from a table; return a sentence about it."""
    try:
        table = pd.read_csv(path, dtype="str", skipinitialspace=True, index_col=False, **sniff(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a table with one row per image ({error}).") from error
    table.columns = table.columns.str.strip().str.lower()
    stems = images["path"].map(lambda name: PurePosixPath(name).stem)
    shares = {name: stems.isin(table[name].dropna().map(strip_ending)).mean() for name in table}
    key = max(shares, key=shares.get)
    if not shares[key]:
        raise InputError(f"{path}: no column has the names of the images, such as {show_name(stems[0])}.")
    rows = table.assign(stem=table[key].dropna().map(strip_ending)).drop_duplicates("stem").set_index("stem")
    taken = []
    for what, names in _COLUMNS.items():
        column = next((name for name in names.split() if name in table and name != key), None)
        if column and not (what == "group" and has_groups):
            target = "label" if what == "class" else what
            images[target] = stems.map(rows[column]).fillna(images[target])
            taken.append(f"{what} from {column}")
    return (
        f"{path.name} knows {shares[key]:.0%} of the images by {key}: {', '.join(taken) or 'nothing is taken from it'}."
    )


def _count(values):
    """List values with how many images have each, the most frequent ones first."""
    counts = values.fillna("none").value_counts()
    listed = ", ".join(f"{show_name(name)} ({number:,})" for name, number in counts.head(12).items())
    return listed + (f" and {len(counts) - 12:,} more" if len(counts) > 12 else "")
