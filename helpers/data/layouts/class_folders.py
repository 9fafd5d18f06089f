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
    set_macos_files_aside,
)
from helpers.files import InputError


def index_class_folders(data_set, folder):
    """Index a data set whose images lie in ``.../<part>/<class>/``, at any depth and in any case.

    Of several copies of the same part, class and file name the one that lies least deep is taken. File names tell the
    group, as ``data_set.name_patterns`` say, and in parts without class folders the class, see ``flat_parts``. The
    columns beside the common ones are the further named groups of the patterns, ``series`` and ``number``; ``part`` is
    that of ``data_set.expected_counts``.

    Raises
    ------
    InputError
        A class folder is missing or holds no images, or no image can be used.
    """
    places, problems = _find_places(data_set, folder)
    expected = _expect_every_class(data_set, folder, places)
    lacking = [name for name in data_set.class_names if name not in expected]
    if lacking:
        problem = f"{len(lacking)} of {len(data_set.class_names)} classes are not in this copy: {', '.join(lacking)}"
        problems.append({"file": f"*/{data_set.key_file}", "problem": problem, "action": IGNORED})
    rows = []
    order = list(data_set.expected_counts)
    for (part, label, stem), path in sorted(places.items(), key=lambda item: order.index(item[0][0])):
        if label in lacking:  # in a part without class folders
            problem = f"its class, {label}, is not in this copy"
            problems.append({"file": path.as_posix(), "problem": problem, "action": IGNORED})
            continue
        image_id = f"{part}/{label}/{stem}"
        named = data_set.name_patterns and part not in data_set.flat_parts
        about = _read_name(stem, data_set.name_patterns[label]) if named else {"group": image_id}
        if about is None:
            others = [name for name, patterns in data_set.name_patterns.items() if _read_name(stem, patterns)]
            problem = f"its name says {', '.join(others)}" if others else "its name does not tell its group"
            problems.append({"file": path.as_posix(), "problem": problem, "action": LEFT_OUT, "image_id": image_id})
            continue
        if part in data_set.numbered_anew:
            about["group"] = f"{part}/{about['group']}"
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
    flat = {name.lower(): name for name in data_set.flat_parts}
    labels = {name.lower(): name for name in data_set.class_names}
    places, problems, copies = {}, [], 0
    paths, from_macos = set_macos_files_aside(list_files(folder))
    for path in paths:
        *_, part, label = ("", "", *(name.lower() for name in path.parts[:-1]))
        if (part in parts and label in labels) or label in flat:
            if path.suffix.lower() not in IMAGE_ENDINGS:
                problems.append({"file": path.as_posix(), "problem": "is no image file", "action": IGNORED})
                continue
            if label in flat:
                place = flat[label], _read_class(path.stem, data_set.flat_parts[flat[label]]), path.stem
            else:
                place = parts[part], labels[label], path.stem
            if place[1] is None:
                about = {"problem": "its name does not tell its class", "action": LEFT_OUT, "image_id": path.as_posix()}
                problems.append({"file": path.as_posix()} | about)
                continue
            taken = places.setdefault(place, path)
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
    return places, problems + from_macos


def _expect_every_class(data_set, folder, places):
    """Make sure that each part that is needed has images of each class; return the classes that there are."""
    found = Counter((part, label) for part, label, _ in places if part not in data_set.flat_parts)
    there = {label for _, label in found}
    expected = [name for name in data_set.class_names if name in there or not data_set.may_lack_classes]
    for part in data_set.expected_counts:
        missing = [label for label in expected if not found[part, label]]
        optional = part in data_set.optional_parts and len(missing) == len(expected)
        if part not in data_set.flat_parts and missing and not optional:
            raise InputError(
                f"{folder} has no images in {', '.join(f'{part}/{label}/' for label in missing)}. "
                f"Expected: {data_set.files}. Fetch the original again, or set DATA_SOURCE=sample."
            )
    if len(expected) < 2:
        raise InputError(
            f"{folder} has images of {len(expected)} of {len(data_set.class_names)} classes, at least 2 are needed. "
            f"Expected: {data_set.files}. Fetch the original again, or set DATA_SOURCE=sample."
        )
    return expected


def _read_name(stem, patterns):
    """Read what a file name tells: the named groups of the first pattern that fits, or None."""
    match = next(filter(None, (re.match(pattern, stem) for pattern in patterns)), None)
    return match and match.groupdict()


def _read_class(stem, classes_by_name):
    """Read the class from the name of a file that lies in no class folder: the beginning that it has, and a number."""
    name = re.sub(r"[\s_()\d]*$", "", stem).lower()
    return {start.lower(): label for start, label in classes_by_name.items()}.get(name)
