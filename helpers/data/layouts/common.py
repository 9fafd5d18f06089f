"""What the layouts have in common: finding image files, reading arrays, and telling of problems."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.files import InputError

PROBLEM_COLUMNS = ["file", "problem", "action", "image_id"]
LEFT_OUT, IGNORED = "left out", "ignored"
IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"}


def read_arrays(path, names):
    """Read arrays from an ``.npz`` file.

    Raises
    ------
    InputError
        The file is damaged, no ``.npz`` file, or lacks one of the arrays.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            found = {name: archive[name] for name in names if name in archive}
            held = ", ".join(archive) or "nothing"
        if not all(isinstance(array, np.ndarray) for array in found.values()):
            raise TypeError("a member is no array")
    except Exception as error:  # a damaged archive fails in many ways, inside NumPy, zipfile and zlib
        raise InputError(
            f"{path} cannot be read as an .npz file with the arrays {', '.join(names)} ({error}). "
            "It may be truncated: fetch it again, or set DATA_SOURCE=sample."
        ) from error
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(
            f"{path} lacks {', '.join(missing)}; it holds {held}. Fetch the original again, or set DATA_SOURCE=sample."
        )
    return found


def read_metadata(path, needed):
    """Read a table of metadata with one row per image, as text, numbered by ``metadata_row``.

    Raises
    ------
    InputError
        The file is missing, no such table, or lacks one of the columns ``needed``.
    """
    try:
        metadata = pd.read_csv(path, dtype="str", encoding="utf-8-sig", skipinitialspace=True, index_col=False)
    except (OSError, ValueError) as error:  # ValueError: what pandas makes of empty, binary and ragged files
        raise InputError(f"{path} cannot be read as a table of comma-separated values ({error}).") from error
    metadata.columns = metadata.columns.str.strip()
    if missing := [name for name in needed if name not in metadata]:
        raise InputError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(metadata.columns)}. "
            "Without it no image can be used: fetch the original again, or set DATA_SOURCE=sample."
        )
    metadata["metadata_row"] = range(len(metadata))
    return metadata


def list_files(folder):
    """List all files below a folder as paths relative to it, the least deep first, each depth in alphabetical order."""
    walk = os.walk(folder, followlinks=True)
    paths = [(Path(place) / name).relative_to(folder) for place, _, names in walk for name in names]
    return sorted(paths, key=lambda path: (len(path.parts), path))


def set_macos_files_aside(paths):
    """Set the files aside that macOS leaves in archives, in ``__MACOSX`` and under names that begin with ``._``.

    Returns
    -------
    paths : list of Path
        The others.
    problems : list of dict
        One that counts the files set aside, or none.
    """
    others = [path for path in paths if "__MACOSX" not in path.parts and not path.name.startswith("._")]
    if len(others) == len(paths):
        return others, []
    problem = f"{len(paths) - len(others):,} files that macOS leaves in archives; they are no images"
    return others, [{"file": "__MACOSX/, ._*", "problem": problem, "action": IGNORED}]


def find_image_files(folder):
    """Find image files by their stems; of twins the first in the alphabet, which sorts upper case before lower case.

    Returns
    -------
    paths : dict of str to Path, relative to ``folder``
    problems : list of dict
        Twins that are not of the same size.
    """
    paths, problems = {}, []
    for path in list_files(folder):
        if path.suffix.lower() not in IMAGE_ENDINGS or path.name.startswith("."):
            continue
        twin = paths.setdefault(path.stem, path)
        if twin is not path and (folder / twin).stat().st_size != (folder / path).stat().st_size:
            problem = f"has the name of {twin.as_posix()}, but another size"
            problems.append({"file": path.as_posix(), "problem": problem, "action": f"{twin.as_posix()} used"})
    return paths, problems


def name_part(path, parts):
    """Name the part of the original that a path lies in, whatever the case; "other" if it is in none."""
    folders = {name.lower() for name in path.split("/")[:-1]}
    return next((part for part in parts if part.lower() in folders), "other")


def describe_nothing_usable(folder, data_set, problems):
    """Describe why no image of a data set can be used: the most frequent kinds of problems."""
    kinds = pd.Series([re.sub(r"ISIC_\d+|'.*?'", "…", problem["problem"]) for problem in problems]).value_counts()
    listed = "; ".join(f"{count} times: {problem}" for problem, count in kinds.head(5).items())
    return f"{folder}: no image can be used. Expected: {data_set.files}. Found: {listed or 'nothing'}."
