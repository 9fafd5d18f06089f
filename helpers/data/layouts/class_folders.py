"""Images sorted into folders: one folder for each part of the data set, and in it one for each class."""

import re

import pandas as pd

from helpers.data.layouts.common import IGNORED, find_places, leave_out, list_files, refuse, refuse_unusable


def index_class_folders(data_set, folder):
    """Index a data set whose images lie in ``.../<part>/<class>/``, at any depth and in any case.

    Of several copies of the same part, class and file name the one that lies least deep is taken. File names tell the
    group, as ``data_set.name_patterns`` say, and in ``data_set.flat_parts`` the class. The columns beside the common
    ones are the further named groups of the patterns, ``series`` and ``number``.

    Raise InputError if a class folder is missing or holds no images, or no image can be used.
    """
    parts, flat, labels = (
        {name.lower(): name for name in names}
        for names in (data_set.expected_counts, data_set.flat_parts, data_set.class_names)
    )

    def locate(path):
        *_, part, label = ("", "", *(name.lower() for name in path.parts[:-1]))
        if label in flat:
            name = re.sub(r"[\s_()\d]*$", "", path.stem).lower()  # without the number at its end
            named = {start.lower(): named for start, named in data_set.flat_parts[flat[label]].items()}.get(name)
            return (flat[label], named, path.stem) if named else "its name does not tell its class"
        return (parts[part], labels[label], path.stem) if part in parts and label in labels else None

    places, problems = find_places(
        data_set, folder, list_files(folder), locate, "lies in no class folder", "part, class and name"
    )
    lacking = _find_lacking_classes(data_set, folder, places)
    if lacking:
        problem = f"{len(lacking)} of {len(data_set.class_names)} classes are not in this copy: {', '.join(lacking)}"
        problems.append({"file": f"*/{data_set.key_file}", "problem": problem, "action": IGNORED})
    rows, order = [], list(data_set.expected_counts)
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
            problems.append(leave_out(path, problem, image_id))
            continue
        if part in data_set.numbered_anew:
            about["group"] = f"{part}/{about['group']}"
        rows.append({"image_id": image_id, "path": path.as_posix(), "label": label, "part": part} | about)
    if not rows:
        refuse_unusable(folder, data_set, problems)
    images = pd.DataFrame(rows)
    if "number" in images:
        images["number"] = images["number"].astype("int64")
    common = ["image_id", "path", "label", "group", "part"]
    return images[[*common, *images.columns.difference(common)]], problems


def _find_lacking_classes(data_set, folder, places):
    """List the classes that a copy lacks, and make sure that each part that is needed has images of all others."""
    found = {(part, label) for part, label, _ in places if part not in data_set.flat_parts}
    there = {label for _, label in found}
    expected = [name for name in data_set.class_names if name in there or not data_set.may_lack_classes]
    for part in data_set.expected_counts:
        missing = [f"{part}/{label}/" for label in expected if (part, label) not in found]
        may_lack = part in data_set.flat_parts or (part in data_set.optional_parts and len(missing) == len(expected))
        if missing and not may_lack:
            refuse(folder, data_set, f"no images in {', '.join(missing)}")
    if len(expected) < 2:
        count = f"{len(expected)} of {len(data_set.class_names)}"
        refuse(folder, data_set, f"images of {count} classes, at least 2 are needed")
    return [name for name in data_set.class_names if name not in expected]


def _read_name(stem, patterns):
    """Read what a file name tells: the named groups of the first pattern that fits, or None."""
    match = next(filter(None, (re.match(pattern, stem) for pattern in patterns)), None)
    return match and match.groupdict()
