"""Images sorted into folders: one folder for each part of the data set, and in it one for each class."""

import re
from collections import Counter

import pandas as pd

from helpers.data.layouts.common import (
    IGNORED,
    IMAGE_ENDINGS,
    LEFT_OUT,
    describe_nothing_usable,
    list_files,
)
from helpers.errors import InputError


def index_class_folders(data_set, folder):
    """Index a data set whose images lie in ``.../<part>/<class>/``, at any depth and in any case.

    Of several copies of the same part, class and file name the one that lies least deep is taken. File names tell the
    group, as ``data_set.name_patterns`` say. The columns beside the common ones are the further named groups of the
    patterns, ``series`` and ``number``; ``part`` is that of ``data_set.expected_counts``.

    Raises
    ------
    InputError
        A class folder is missing or holds no images, or no image can be used.
    """
    places, problems = _find_places(data_set, folder)
    _expect_every_class(data_set, folder, places)
    rows = []
    order = list(data_set.expected_counts)
    for (part, label, stem), path in sorted(places.items(), key=lambda item: order.index(item[0][0])):
        told = _read_name(stem, data_set.name_patterns)
        image_id = f"{part}/{label}/{stem}"
        if label not in told:
            problem = f"its name says {', '.join(told)}" if told else "its name does not tell its group"
            problems.append({"file": path.as_posix(), "problem": problem, "action": LEFT_OUT, "image_id": image_id})
            continue
        about = told[label]
        scope = f"{part}/" if part in data_set.numbered_anew else ""
        about["group"] = scope + about["group"]
        rows.append({"image_id": image_id, "path": path.as_posix(), "label": label, "part": part} | about)
    if not rows:
        raise InputError(describe_nothing_usable(folder, data_set, problems))
    images = pd.DataFrame(rows)
    if "number" in images:
        images["number"] = images["number"].astype("int64")
    common = ["image_id", "path", "label", "group", "part"]
    return images[[*common, *images.columns.difference(common)]], problems


def _find_places(data_set, folder):
    """Find the image files by part, class and stem, and tell what else lies in the class folders."""
    parts = {name.lower(): name for name in data_set.expected_counts}
    labels = {name.lower(): name for name in data_set.class_names}
    places, problems, from_macos, copies = {}, [], 0, 0
    for path in list_files(folder):
        *_, part, label = ("", "", *(name.lower() for name in path.parts[:-1]))
        if "__MACOSX" in path.parts or path.name.startswith("._"):
            from_macos += 1
        elif part in parts and label in labels:
            if path.suffix.lower() not in IMAGE_ENDINGS:
                problems.append({"file": path.as_posix(), "problem": "is no image file", "action": IGNORED})
                continue
            taken = places.setdefault((parts[part], labels[label], path.stem), path)
            if taken is path:
                continue
            if (folder / taken).stat().st_size == (folder / path).stat().st_size:
                copies += 1
            else:
                problem = f"is another copy of {taken.as_posix()}, of another size"
                problems.append({"file": path.as_posix(), "problem": problem, "action": f"{taken.as_posix()} used"})
        elif path.suffix.lower() in IMAGE_ENDINGS:
            problem = f"lies in no class folder; expected {data_set.files}"
            about = {"problem": problem, "action": LEFT_OUT, "image_id": path.as_posix()}
            problems.append({"file": path.as_posix()} | about)
    if copies:
        problem = f"{copies:,} second copies under the same part, class and name, of the same size"
        problems.append({"file": f"*/{data_set.key_file}", "problem": problem, "action": IGNORED})
    if from_macos:
        problem = f"{from_macos:,} files that macOS leaves in archives; they are no images"
        problems.append({"file": "__MACOSX/, ._*", "problem": problem, "action": IGNORED})
    return places, problems


def _expect_every_class(data_set, folder, places):
    """Make sure that each part that is needed has images of each class."""
    found = Counter((part, label) for part, label, _ in places)
    for part in data_set.expected_counts:
        missing = [label for label in data_set.class_names if not found[part, label]]
        optional = part in data_set.optional_parts and len(missing) == len(data_set.class_names)
        if missing and not optional:
            raise InputError(
                f"{folder} has no images in {', '.join(f'{part}/{label}/' for label in missing)}. "
                f"Expected: {data_set.files}. Fetch the original again, or set DATA_SOURCE=sample."
            )


def _read_name(stem, patterns):
    """Read what a file name tells: for each class whose patterns fit, the named groups of the first that does."""
    told = {}
    for label, of_class in patterns.items():
        match = next(filter(None, (re.match(pattern, stem) for pattern in of_class)), None)
        if match:
            told[label] = match.groupdict()
    return told
