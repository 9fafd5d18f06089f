"""HAM10000 as Kaggle ships it: a metadata table, and images in two folders and their lower-case twins."""

import numpy as np
import pandas as pd

from helpers.data.layouts.common import (
    IMAGE_ENDINGS,
    LEFT_OUT,
    is_of_same_size,
    leave_out,
    list_files,
    read_metadata,
    refuse_unusable,
)


def index_ham10000(data_set, folder):
    """Index HAM10000 by its metadata table.

    The columns beside the common ones are ``age`` in years, ``sex``, ``localization``, ``dx_type`` (how the diagnosis
    was confirmed; it gives the label away) and ``metadata_row``, the row of the table counted from 0.
    """
    name = data_set.key_file
    metadata = read_metadata(folder / name, ["lesion_id", "image_id", "dx"])
    paths, problems = _find_images(folder)

    def report(rows, problem, action=LEFT_OUT):
        for row in metadata[rows].itertuples():
            where = f"{name}, line {row.metadata_row + 2}"
            image_id = where if pd.isna(row.image_id) else row.image_id
            problems.append({"file": where, "problem": problem(row), "action": action, "image_id": image_id})

    for column in ("age", "sex", "localization", "dx_type"):
        if column not in metadata:
            metadata[column] = np.nan
            problems.append({"file": name, "problem": f"has no column {column}", "action": "taken as unknown"})
    ages = pd.to_numeric(metadata["age"], errors="coerce").astype("float64")
    wrong_age = (ages.isna() & metadata["age"].notna()) | (ages < 0) | (ages > 120)
    report(wrong_age, lambda row: f"age {row.age!r} is no age in years", "age taken as unknown")
    metadata["age"] = ages.mask(wrong_age)

    report(metadata["image_id"].isna(), lambda row: "has no image_id")
    metadata = metadata[metadata["image_id"].notna()]
    known = metadata["dx"].isin(data_set.class_names)
    listed, has_lesion = metadata["image_id"], metadata["lesion_id"].notna()
    report(~known, lambda row: f"diagnosis {row.dx!r} is none of {', '.join(data_set.class_names)}")
    report(~has_lesion, lambda row: f"{row.image_id} has no lesion_id, so that it cannot be split without leaks")
    repeated = known & has_lesion & listed.where(known & has_lesion).duplicated()
    differs = metadata.groupby("image_id")[["dx", "lesion_id"]].transform("nunique").max(axis=1) > 1
    report(repeated & ~differs, lambda row: f"{row.image_id} is listed again", "first line used")
    report(differs, lambda row: f"{row.image_id} is listed with different diagnoses or lesions")
    missing = ~listed.isin(list(paths)) & ~repeated
    report(missing, lambda row: f"{row.image_id} is listed, but there is no such image")
    unlisted = sorted(paths.keys() - set(listed))
    problems += [leave_out(paths[image_id], f"is not listed in {name}", image_id) for image_id in unlisted]

    images = metadata[known & has_lesion & ~repeated & ~differs & ~missing].reset_index(drop=True)
    if images.empty:
        refuse_unusable(folder, data_set, problems)
    places = images["image_id"].map(paths)
    images["path"] = [place.as_posix() for place in places]
    images["part"] = [_name_part(place, data_set.expected_counts) for place in places]
    images["label"], images["group"] = images["dx"], images["lesion_id"]
    columns = ["image_id", "path", "label", "group", "part", "age", "sex", "localization", "dx_type", "metadata_row"]
    return images[columns], problems


def _find_images(folder):
    """Find image files by their stems; of twins the first in the alphabet, which sorts upper case before lower case."""
    paths, problems = {}, []
    for path in list_files(folder):
        if path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith("."):
            twin = paths.setdefault(path.stem, path)
            if twin is not path and not is_of_same_size(folder, twin, path):
                problem = f"has the name of {twin.as_posix()}, but another size"
                problems.append({"file": path.as_posix(), "problem": problem, "action": f"{twin.as_posix()} used"})
    return paths, problems


def _name_part(path, parts):
    """Name the part of the original that a path lies in, whatever the case; "other" if it is in none."""
    folders = {name.lower() for name in path.parts[:-1]}
    return next((part for part in parts if part.lower() in folders), "other")
