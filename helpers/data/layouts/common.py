"""What the layouts have in common: finding image files, reading arrays and tables, and telling of problems."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.files import InputError

PROBLEM_COLUMNS = ["file", "problem", "action", "image_id"]
LEFT_OUT, IGNORED = "left out", "ignored"
IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
REMEDY = "Fetch the original again, or set DATA_SOURCE=sample."


def read_arrays(path, names):
    """Read arrays from an ``.npz`` file; raise InputError if it is damaged, no such file, or lacks one of them."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            found = {name: archive[name] for name in names if name in archive}
            held = ", ".join(archive) or "nothing"
        if not all(isinstance(array, np.ndarray) for array in found.values()):
            raise TypeError("a member is no array")
    except Exception as error:  # a damaged archive fails in many ways, inside NumPy, zipfile and zlib
        raise InputError(
            f"{path} cannot be read as an .npz file with the arrays {', '.join(names)} ({error}). "
            f"It may be truncated. {REMEDY}"
        ) from error
    if missing := [name for name in names if name not in found]:
        raise InputError(f"{path} lacks {', '.join(missing)}; it holds {held}. {REMEDY}")
    return found


def read_metadata(path, needed):
    """Read a table with one row per image, as text, its rows numbered from 0 in ``metadata_row``.

    Raise InputError if it is missing, is no such table, or lacks one of the columns ``needed``.
    """
    try:
        metadata = pd.read_csv(path, dtype="str", encoding="utf-8-sig", skipinitialspace=True, index_col=False)
    except (OSError, ValueError) as error:  # ValueError: what pandas makes of empty, binary and ragged files
        raise InputError(f"{path} cannot be read as a table of comma-separated values ({error}). {REMEDY}") from error
    metadata.columns = metadata.columns.str.strip()
    if missing := [name for name in needed if name not in metadata]:
        raise InputError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(metadata.columns)}. "
            f"Without it no image can be used. {REMEDY}"
        )
    return metadata.assign(metadata_row=range(len(metadata)))


def list_files(folder):
    """List all files below a folder as paths relative to it, the least deep first, each depth in alphabetical order."""
    walk = os.walk(folder, followlinks=True)
    paths = [(Path(place) / name).relative_to(folder) for place, _, names in walk for name in names]
    return sorted(paths, key=lambda path: (len(path.parts), path))


def find_places(data_set, folder, paths, locate, outside, repeated):
    """Find the image files by their places in the layout: a dict of places to paths; and a list of problems.

    Of several copies the first one is taken. The files are set aside that macOS leaves, in ``__MACOSX`` and under names
    that begin with ``._``.

    Parameters
    ----------
    paths : list of Path
        From `list_files`.
    locate : callable
        Gives the place of a path: a tuple, the same for all copies of an image; None outside the layout; or a str, why
        the image cannot be used.
    outside, repeated : str
        How the problem begins of an image outside the layout, and in what the copies of an image agree.
    """
    found, problems, copies = {}, [], 0

    def note(file, problem, action=IGNORED):
        problems.append({"file": file, "problem": problem, "action": action})

    own = [path for path in paths if "__MACOSX" not in path.parts and not path.name.startswith("._")]
    for path in own:
        place = locate(path)
        if path.suffix.lower() not in IMAGE_ENDINGS:
            if place is not None:
                note(path.as_posix(), "is no image file")
        elif not isinstance(place, tuple):
            problems.append(leave_out(path, place or f"{outside}; expected {data_set.files}"))
        elif (first := found.setdefault(place, path)) is not path:
            if is_of_same_size(folder, first, path):
                copies += 1
            else:
                note(
                    path.as_posix(),
                    f"is another copy of {first.as_posix()}, of another size",
                    f"{first.as_posix()} used",
                )
    if copies:
        note(f"*/{data_set.key_file}", f"{copies:,} second copies under the same {repeated}, of the same size")
    if len(own) < len(paths):
        note("__MACOSX/, ._*", f"{len(paths) - len(own):,} files that macOS leaves in archives; they are no images")
    return found, problems


def is_of_same_size(folder, first, second):
    """Tell whether two files have the same size."""
    return (folder / first).stat().st_size == (folder / second).stat().st_size


def order_naturally(name):
    """Make a key that sorts numbers in names by their value: 9 before 10."""
    return [int(piece) if number % 2 else piece for number, piece in enumerate(re.split(r"(\d+)", name))]


def leave_out(path, problem, image_id=None):
    """Make the problem of an image file that is left out."""
    return {"file": path.as_posix(), "problem": problem, "action": LEFT_OUT, "image_id": image_id or path.as_posix()}


def refuse(folder, data_set, lack):
    """Raise the error of a data set that has no images, or no table, where some are needed."""
    raise InputError(f"{folder} has {lack}. Expected: {data_set.files}. {REMEDY}")


def refuse_unusable(folder, data_set, problems):
    """Raise the error of a data set of which no image can be used; it tells the most frequent kinds of problems."""
    kinds = pd.Series([re.sub(r"ISIC_\d+|'.*?'", "…", problem["problem"]) for problem in problems]).value_counts()
    listed = "; ".join(f"{count} times: {problem}" for problem, count in kinds.head(5).items())
    raise InputError(f"{folder}: no image can be used. Expected: {data_set.files}. Found: {listed or 'nothing'}.")
