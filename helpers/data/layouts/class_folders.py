"""Images sorted into folders: one folder for each part of the data set, and in it one for each class."""

import re
from collections import Counter

import pandas as pd

from helpers.data.layouts.common import find_places, leave_out, list_folders, refuse, refuse_unusable, tell_lacking
from helpers.data.layouts.tables import strip_ending
from helpers.files import show_name


def rate_class_folders(data_set, folder):
    """Rate how well a folder looks like the one that holds the parts of a data set.

    0: no part of it has a folder of one of the classes; 1: one has; 2: it has those of the data set and no others; 3:
    their names are written in the same case; 2 more for more than two classes, because two names prove nothing.
    """
    rating, inner = 0, {path.name.lower(): path for path in list_folders(folder)}
    classes = {name.lower() for name in data_set.class_names}
    for part in _list_parts(data_set):
        names = {path.name for path in list_folders(inner[part])} if part in inner else set()
        there = {name.lower() for name in names}
        if there & classes:
            is_whole = there == classes or (there < classes and data_set.may_lack_classes)
            more = (names <= set(data_set.class_names)) + 2 * (len(classes) > 2)
            rating = max(rating, 1 + is_whole * (1 + more))
    return rating


def index_class_folders(data_set, folder, cache_dir=None):
    """Index a data set whose images lie in ``.../<part>/<class>/``, at any depth and in any case.

    Of several copies of the same part, class and file name the one in the catalog's folders that lies least deep is
    taken; images under the same name that differ are all used, as one group. File names tell the group, as
    ``data_set.name_patterns`` say, and in ``data_set.flat_parts`` the class. The columns beside the common ones are the
    further named groups of the patterns, ``series`` and ``number``.

    Raise InputError if a class folder is missing or holds no images, or no image can be used.
    """
    parts, flat = _list_parts(data_set), {name.lower(): name for name in data_set.flat_parts}
    labels = {name.lower(): name for name in data_set.class_names}
    outside = f"lies in no class folder; expected {data_set.files}"

    def locate(path):
        folders = path.parts[:-1]
        *_, part, label = ("", "", *(name.lower() for name in folders))
        stem = strip_ending(path.name)
        if label in flat:
            name = re.sub(r"[\s_()\d]*$", "", stem).lower()  # without the number at its end
            named = {start.lower(): named for start, named in data_set.flat_parts[flat[label]].items()}.get(name)
            return (folders[:-2], flat[label], named, stem) if named else "its name does not tell its class"
        if part in parts and label in labels:
            return folders[:-2], parts[part], labels[label], stem
        return outside if any(name.lower() in parts for name in folders) else None

    places = find_places(data_set, folder, locate, outside, "part, class and name", cache_dir)
    lacking = _find_lacking_classes(data_set, folder, places)
    if lacking:
        places.note(f"*/{data_set.key_file}", tell_lacking(data_set, lacking))
    order = {part: number for number, part in enumerate(data_set.expected_counts)}
    files = [(place, path) for place, paths in places.found.items() for path in paths]
    rows, known, problems, more = [], Counter(), places.problems, 0
    for (part, label, stem), path in sorted(files, key=lambda item: (order[item[0][0]], len(item[1].parts), item[1])):
        if label in lacking:  # in a part without class folders
            places.note(path, f"its class, {label}, is not in this copy")
            continue
        name = show_name(f"{part}/{label}/{stem}")
        several = len(places.found[part, label, stem]) > 1
        more += several
        image_id = show_name(f"{part}/{label}/{path.name}") if several else name
        known[image_id] += 1
        if known[image_id] > 1:
            image_id = f"{image_id} ({known[image_id]})"
        named = data_set.name_patterns and part not in data_set.flat_parts
        about = _read_name(stem, data_set.name_patterns[label]) if named else {"group": name if several else image_id}
        if about is None:
            others = [name for name, patterns in data_set.name_patterns.items() if _read_name(stem, patterns)]
            problem = f"its name says {', '.join(others)}" if others else "its name does not tell its group"
            problems.append(leave_out(path, problem, image_id))
            continue
        if part in data_set.numbered_anew:
            about["group"] = f"{part}/{about['group']}"
        rows.append({"image_id": image_id, "path": path.as_posix(), "label": label, "part": part} | about)
    if more:
        problem = f"{more:,} different images have the same part, class and name"
        places.note(f"*/{data_set.key_file}", problem, "all used")
    if not rows:
        refuse_unusable(folder, data_set, problems)
    images = pd.DataFrame(rows)
    if "number" in images:
        images["number"] = images["number"].astype("int64")
    common = ["image_id", "path", "label", "group", "part"]
    return images[[*common, *images.columns.difference(common)]], problems


def _list_parts(data_set):
    """List the parts that have class folders: their names by those in lower case."""
    return {name.lower(): name for name in data_set.expected_counts if name not in data_set.flat_parts}


def _find_lacking_classes(data_set, folder, places):
    """List the classes that a copy lacks, and make sure that each part that is needed has images of all others."""
    found = {place[:2] for place in places.found if place[0] not in data_set.flat_parts}
    there = {label for _, label in found}
    expected = [name for name in data_set.class_names if name in there or not data_set.may_lack_classes]
    lacking = []
    for part in _list_parts(data_set).values():
        missing = [(part, label) for label in expected if (part, label) not in found]
        lacking += [] if part in data_set.optional_parts and len(missing) == len(expected) else missing
    if lacking:
        names = ", ".join(f"{part}/{label}/" for part, label in lacking)
        places.refuse(folder, data_set, f"no images in {names}", lacking)
    if len(expected) < 2:
        count = f"{len(expected)} of {len(data_set.class_names)}"
        refuse(folder, data_set, f"images of {count} classes, at least 2 are needed")
    return [name for name in data_set.class_names if name not in expected]


def _read_name(stem, patterns):
    """Read what a file name tells: the named groups of the first pattern that fits, or None."""
    match = next(filter(None, (re.match(pattern, stem) for pattern in patterns)), None)
    return match and match.groupdict()
