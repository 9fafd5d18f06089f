"""HAM10000 as Kaggle ships it: a metadata table, and images in two folders and their lower-case twins."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.data.layouts.common import (
    IGNORED,
    LEFT_OUT,
    leave_out,
    read_contents,
    refuse_unusable,
    tell_lacking,
    tell_packed,
)
from helpers.data.layouts.tables import read_metadata, strip_ending
from helpers.data.listing import list_files, tell_kind
from helpers.files import InputError, show_name

_CHALLENGE = "isic2018_task3_training_groundtruth"
_TABLE = re.compile(rf"(ham10000[ _-]?metadata|{_CHALLENGE})(\.(csv|tab|tsv|txt|xlsx?|ods))*", re.IGNORECASE)
_TABLE_DEPTH = 2  # folders below the data set's, at most
_OWN, _IMAGES, _TOP, _ELSEWHERE = range(4)  # ranks of folders: the catalog's first


class _File(NamedTuple):
    path: Path
    place: str  # its folder
    rank: int  # of the folder
    key: str  # its name in lower case


def find_tables(folder):
    """Find the metadata tables in a folder or not far below it, whatever their case and ending: a list of Path.

    They are relative to the folder, the best first: text goes before spreadsheets, which cannot be read, and the table
    of HAM10000 before that of the ISIC challenge, which does not tell the lesions.
    """
    found = []
    for place, inner, names in os.walk(folder, followlinks=True):
        place = Path(place).relative_to(folder)
        if len(place.parts) == _TABLE_DEPTH:
            inner.clear()
        found += [place / name for name in names if _TABLE.fullmatch(name) and (folder / place / name).is_file()]

    def rate(path):
        is_text = not path.suffix.lower().startswith((".xls", ".ods"))
        return path.name.lower().startswith(_CHALLENGE), not is_text, len(path.parts), path.suffix != ".csv", path

    return sorted(found, key=rate)


def rate_ham10000(data_set, folder):
    """Rate how well a folder looks like that of HAM10000: 4 if its table lies there; 1 if it lies deeper."""
    tables = find_tables(folder)
    return 0 if not tables else 4 if tables[0].parent == Path() else 1


def index_ham10000(data_set, folder, cache_dir=None):
    """Index HAM10000 by its metadata table.

    The columns beside the common ones are ``age`` in years, ``sex``, ``localization``, ``dx_type`` (how the diagnosis
    was confirmed; it gives the label away) and ``metadata_row``, the row of the table counted from 0.

    Images in the folders that the catalog names go before others of the same name, then those in ``images/`` and those
    in the data set's folder itself. Others are used only if none of these have images; a problem says so.

    Raise InputError if there is no table, or none that can be used; if several folders hold different images under the
    same names, and none is the catalog's; or if there are images of one class only.
    """
    table, *others = find_tables(folder) or [Path(data_set.key_file)]
    name = table.as_posix()
    if table.name.lower().startswith(_CHALLENGE):
        raise InputError(
            f"{folder / table} does not tell which images show the same lesion, so that they cannot be split without "
            f"leaks. Put {data_set.key_file} beside it, from {data_set.handle} or from doi:10.7910/DVN/DBW86T."
        )
    metadata = read_metadata(folder / table, ["lesion_id", "image_id", "dx"])
    metadata["image_id"] = metadata["image_id"].map(strip_ending, na_action="ignore")
    metadata["key"] = metadata["image_id"].str.lower()
    labels = metadata["dx"].str.lower().map({label.lower(): label for label in data_set.class_names})
    metadata["dx"] = labels.fillna(metadata["dx"])
    listing = list_files(folder)
    aside = {path: tell_packed(folder / path, folder / path.with_suffix("")) for path in listing.paths}
    aside |= dict.fromkeys(others, f"is a second table, not used: {name} is")
    problems = [{"file": show_name(path), "problem": why, "action": IGNORED} for path, why in aside.items() if why]
    listed = set(metadata["key"].dropna())
    paths, unread, about_files = _find_images(data_set, folder, listing, name, listed, cache_dir)

    def report(rows, problem, action=LEFT_OUT):
        for row in metadata[rows].itertuples():
            where = f"{name}, line {row.line}"
            image_id = where if pd.isna(row.image_id) else row.image_id
            problems.append({"file": where, "problem": problem(row), "action": action, "image_id": image_id})

    for column in ("age", "sex", "localization", "dx_type"):
        if column not in metadata:
            metadata[column] = np.nan
            problems.append({"file": name, "problem": f"has no column {column}", "action": "taken as unknown"})
    ages = pd.to_numeric(metadata["age"].astype("str").str.replace(",", "."), errors="coerce").astype("float64")
    wrong_age = (ages.isna() & metadata["age"].notna()) | (ages < 0) | (ages > 120)
    report(wrong_age, lambda row: f"age {row.age!r} is no age in years", "age taken as unknown")
    metadata["age"] = ages.mask(wrong_age)

    report(metadata["image_id"].isna(), lambda row: "has no image_id")
    metadata = metadata[metadata["image_id"].notna()]
    known = metadata["dx"].isin(data_set.class_names)
    listed, has_lesion = metadata["key"], metadata["lesion_id"].notna()
    report(~known, lambda row: f"diagnosis {row.dx!r} is none of {', '.join(data_set.class_names)}")
    report(~has_lesion, lambda row: f"{row.image_id} has no lesion_id, so that it cannot be split without leaks")
    repeated = known & has_lesion & listed.where(known & has_lesion).duplicated()
    differs = metadata.groupby("key")[["dx", "lesion_id"]].transform("nunique").max(axis=1) > 1
    report(repeated & ~differs, lambda row: f"{row.image_id} is listed again", "first line used")
    report(differs, lambda row: f"{row.image_id} is listed with different diagnoses or lesions")
    missing = ~listed.isin(list(paths)) & ~repeated
    report(missing & ~listed.isin(unread), lambda row: f"{row.image_id} is listed, but there is no such image")
    problems += about_files

    images = metadata[known & has_lesion & ~repeated & ~differs & ~missing].reset_index(drop=True)
    if images.empty:
        refuse_unusable(folder, data_set, problems)
    places = images["key"].map(paths)
    images["path"] = [place.as_posix() for place in places]
    images["part"] = [_name_part(place.parent, data_set.expected_counts) for place in places]
    images["label"], images["group"] = images["dx"], images["lesion_id"]
    lacking = [label for label in data_set.class_names if label not in set(images["label"])]
    if len(data_set.class_names) - len(lacking) < 2:
        raise InputError(
            f"{folder}: all images that can be used are of one class, {images['label'].iloc[0]}. Expected: images of "
            f"two or more of {', '.join(data_set.class_names)} in {name}."
        )
    if lacking:
        problems.insert(0, {"file": name, "problem": tell_lacking(data_set, lacking), "action": IGNORED})
    columns = ["image_id", "path", "label", "group", "part", "age", "sex", "localization", "dx_type", "metadata_row"]
    return images[columns], problems


def _find_images(data_set, folder, listing, table, listed, cache_dir):
    """Find the images whose keys, the names in lower case, are listed: a dict of keys to paths.

    Also give the keys of those that are there but cannot be read, and a list of problems.
    """
    files, unread = _list_images(data_set, folder, listing, listed)
    copies = {}
    for file in files:
        copies.setdefault(file.key, []).append(file)
    named = {key: copies[key] for key in copies if key in listed}
    content = read_contents([[file.path for file in found] for found in named.values()], folder, cache_dir)
    worst = max(_IMAGES, min((found[0].rank for found in named.values()), default=_OWN))  # of a folder that is used
    # Folders with masks, small copies and the like. None of their images is used, even if another folder lacks it.
    aside = {
        file.place
        for first, *others in named.values()
        for file in others
        if content[file.path] != content[first.path]
        and (file.rank > first.rank or (file.rank == _OWN and len(file.path.parts) > len(first.path.parts)))
    }
    used = {
        key: next((file for file in found if file.place not in aside and file.rank <= worst), None)
        for key, found in named.items()
    }
    sources = [file for file in (*used.values(), *unread) if file and file.key in listed]
    best = min((file.rank for file in sources), default=_OWN)
    own = {file.place for file in sources if file.rank == best}
    own = (own | {file.place for file in (*files, *unread) if file.rank == _OWN}) - aside

    problems, others, contradicting = [], Counter(), {}
    for key, found in copies.items():
        first = used.get(key)
        for file in found:
            if key not in listed:
                if file.place not in own:
                    others[file.place, f"that {table} does not list"] += 1
                elif file is found[0]:
                    problems.append(leave_out(file.path, f"is not listed in {table}", show_name(file.path.stem)))
            elif file.place in aside:
                others[file.place, "that are other images under the same names"] += 1
            elif file is first:
                continue
            elif first is None:
                others[file.place, "that lie outside the folders of the images"] += 1
            elif content[file.path] == content[first.path]:
                if file.place not in own:
                    others[file.place, "that are second copies"] += 1
            elif file.rank == _ELSEWHERE and file.place != first.place:
                contradicting.setdefault(key, {first.place}).add(file.place)
            else:
                better = show_name(first.path)
                problem = f"has the name of {better}, but another content"
                problems.append({"file": show_name(file.path), "problem": problem, "action": f"{better} used"})
    if contradicting:
        places = ", ".join(sorted({f"{show_name(place)}/" for places in contradicting.values() for place in places}))
        raise InputError(
            f"{folder}: {len(contradicting):,} names, such as {min(contradicting)}, stand for different images in "
            f"{places}. Keep the folder with the original images, named {next(iter(data_set.expected_counts))}, and "
            "move the others out of the data set's folder."
        )
    if worst == _ELSEWHERE:
        places = sorted({file.place for file in used.values() if file})
        problem = f"is one of {len(places)} folders whose images are used, because none has the original's name"
        problems.append({"file": f"{show_name(places[0])}/", "problem": problem, "action": "used"})
    for file, problem in unread.items():
        if file.place in own and (file.rank != _TOP or file.key in listed):
            problems.append(leave_out(file.path, problem, show_name(strip_ending(file.path.stem))))
        elif file.path.as_posix() == file.place:
            problems.append({"file": f"{show_name(file.place)}/", "problem": problem, "action": IGNORED})
        else:
            others[file.place, "that cannot be read"] += 1
    reasons = {}
    for (place, reason), count in others.items():
        reasons.setdefault(place, []).append(f"{count:,} files {reason}")
    problems += [
        {"file": f"{show_name(place)}/", "problem": "; ".join(reasons[place]), "action": IGNORED}
        for place in sorted(reasons)
    ]
    return (
        {key: file.path for key, file in used.items() if file},
        {file.key for file in unread if file.place in own},
        problems,
    )


def _list_images(data_set, folder, listing, listed):
    """List the image files, those first that go before others; and why others cannot be read, a dict."""
    files, unread = [], {}
    parts = {name.lower() for name in data_set.expected_counts}

    def describe(path, place):
        name = place.name.lower()
        rank = _OWN if name in parts else _IMAGES if name == "images" else _ELSEWHERE if name else _TOP
        return _File(path, place.as_posix(), rank, strip_ending(path.stem).lower())

    for path in listing.paths:
        kind, what = tell_kind(folder / path)
        file = describe(path, path.parent)
        if kind == "image":
            files.append(file)
        elif kind in ("unread", "text") and (file.rank != _TOP or file.key in listed):  # not such as LICENSE
            unread[file] = f"is a {what}, which is not read"
    for name, problem in listing.unreadable.items():
        path = Path(name)
        unread[describe(path, path if name.endswith("/") else path.parent)] = problem

    def order(file):  # of images of one name in one folder a JPEG goes first, because masks are PNG files
        return file.rank, len(file.path.parts), file.place, not file.path.suffix.lower().startswith(".jp"), file.path

    return sorted(files, key=order), unread


def _name_part(place, parts):
    """Name the part of the original that a folder is or lies in, whatever the case; "other" if it is in none."""
    folders = {name.lower() for name in place.parts}
    return next((part for part in parts if part.lower() in folders), "other")
