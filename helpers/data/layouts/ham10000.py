"""HAM10000 as Kaggle ships it: a metadata table, and images in two folders and their lower-case twins."""

import numpy as np
import pandas as pd

from helpers.data.layouts.common import LEFT_OUT, describe_nothing_usable, find_image_files, name_part, read_metadata
from helpers.files import InputError


def index_ham10000(data_set, folder):
    """Index HAM10000 as Kaggle ships it: a metadata table, and images in two folders and their lower-case twins.

    The columns beside the common ones are ``age`` in years, ``sex``, ``localization``, ``dx_type`` (how the diagnosis
    was confirmed; it gives the label away) and ``metadata_row``, the row of the table counted from 0.
    """
    metadata = read_metadata(folder / data_set.key_file, ["lesion_id", "image_id", "dx"])
    paths, problems = find_image_files(folder)
    name = data_set.key_file

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
    known, listed = metadata["dx"].isin(data_set.class_names), metadata["image_id"]
    expected = ", ".join(data_set.class_names)
    report(~known, lambda row: f"diagnosis {row.dx!r} is none of {expected}")
    no_lesion = metadata["lesion_id"].isna()
    report(no_lesion, lambda row: f"{row.image_id} has no lesion_id, so that it cannot be split without leaks")
    usable = known & metadata["lesion_id"].notna()
    repeated = usable & listed.where(usable).duplicated()
    differs = metadata.groupby("image_id")[["dx", "lesion_id"]].transform("nunique").max(axis=1) > 1
    report(repeated & ~differs, lambda row: f"{row.image_id} is listed again", "first line used")
    report(differs, lambda row: f"{row.image_id} is listed with different diagnoses or lesions")
    missing = ~listed.isin(list(paths)) & ~repeated
    report(missing, lambda row: f"{row.image_id} is listed, but there is no such image")
    for image_id in sorted(paths.keys() - set(listed)):
        problem = {"problem": f"is not listed in {name}", "action": LEFT_OUT, "image_id": image_id}
        problems.append({"file": paths[image_id].as_posix()} | problem)

    images = metadata[known & ~no_lesion & ~repeated & ~differs & ~missing].reset_index(drop=True)
    if images.empty:
        raise InputError(describe_nothing_usable(folder, data_set, problems))
    images["path"] = [paths[image_id].as_posix() for image_id in images["image_id"]]
    images["part"] = [name_part(path, data_set.expected_counts) for path in images["path"]]
    images["label"], images["group"] = images["dx"], images["lesion_id"]
    columns = ["image_id", "path", "label", "group", "part", "age", "sex", "localization", "dx_type", "metadata_row"]
    return images[columns], problems
