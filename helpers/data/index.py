"""Indexing: one row per image, and a table of what is wrong with the files.

The table of problems has the columns ``file``; ``problem``; ``action``, what was done about it, "left out" if that line
or file is not used; and ``image_id`` of the image concerned. `helpers.data.audit.leave_out_unusable` decides whether
what is left is enough.
"""

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.errors import InputError

PROBLEM_COLUMNS = ["file", "problem", "action", "image_id"]
LEFT_OUT = "left out"


def index_images(data_set, folder):
    """List the images of a data set.

    Parameters
    ----------
    data_set : DataSet
    folder : Path
        The data set's folder, from `helpers.data.sources.find_data`.

    Returns
    -------
    images : DataFrame
        One row per image and the columns ``image_id``; ``path``, relative to ``folder``; ``label``, one of the class
        names; ``group``, what has to stay together in a split; ``part``, the part of the original that the image is
        shipped in. For images inside an array file also ``array`` and ``position``. Metadata adds further columns.
    problems : DataFrame
        What could not be used and what looks wrong, see the module's description.

    Raises
    ------
    InputError
        A file that all images depend on is not as the layout says; the message names it.
    """
    images, problems = _INDEXERS[data_set.layout](data_set, folder)
    return images, pd.DataFrame(problems, columns=PROBLEM_COLUMNS)


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


def _index_mnist_archive(data_set, folder):
    """Index ``mnist.npz``, the file that Keras ships MNIST in."""
    path = folder / data_set.key_file
    parts = {}
    for part in ("train", "test"):
        x, y = f"x_{part}", f"y_{part}"
        arrays = read_arrays(path, [x, y])
        images, labels = arrays[x], arrays[y]
        _expect(images.ndim == 3 and images.shape[1:] == (28, 28), path, x, "shape (n, 28, 28)", images.shape)
        _expect(images.dtype == np.uint8, path, x, "dtype uint8, grey levels from 0 to 255", images.dtype)
        _expect(len(images) > 0, path, x, "at least one image", "none")
        _expect(
            labels.shape == (len(images),), path, y, f"one label for each image, shape ({len(images)},)", labels.shape
        )
        _expect(np.issubdtype(labels.dtype, np.integer), path, y, "whole numbers", labels.dtype)
        wrong = np.unique(labels[(labels < 0) | (labels > 9)])
        _expect(len(wrong) == 0, path, y, "labels from 0 to 9", wrong.tolist())
        parts[part] = pd.DataFrame(
            {
                "image_id": [f"{part}_{number:05d}" for number in range(len(images))],
                "path": data_set.key_file,
                "label": labels.astype(str),
                "group": [_hash_pixels(image) for image in images],
                "part": part,
                "array": x,
                "position": range(len(images)),
            }
        )
    return pd.concat(parts.values(), ignore_index=True), []


def _index_ham10000(data_set, folder):
    """Index HAM10000 as Kaggle ships it: a metadata table, and images in two folders and their lower-case twins.

    The columns beside the common ones are ``age`` in years, ``sex``, ``localization``, ``dx_type`` (how the diagnosis
    was confirmed; it gives the label away) and ``metadata_row``, the row of the table counted from 0.
    """
    metadata = _read_metadata(folder / data_set.key_file, ["lesion_id", "image_id", "dx"])
    paths, problems = _find_image_files(folder)
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
        raise InputError(_describe_nothing_usable(folder, data_set, problems))
    images["path"] = [paths[image_id].as_posix() for image_id in images["image_id"]]
    images["part"] = [_name_part(path, data_set.expected_counts) for path in images["path"]]
    images["label"], images["group"] = images["dx"], images["lesion_id"]
    columns = ["image_id", "path", "label", "group", "part", "age", "sex", "localization", "dx_type", "metadata_row"]
    return images[columns], problems


def _read_metadata(path, needed):
    """Read a table of metadata with one row per image, as text, numbered by ``metadata_row``."""
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


def _find_image_files(folder):
    """Find image files by their stems; of twins the first in the alphabet, which sorts upper case before lower case.

    Returns
    -------
    paths : dict of str to Path, relative to ``folder``
    problems : list of dict
        Twins that are not of the same size.
    """
    paths, problems = {}, []
    files = (Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names)
    for path in sorted(files):
        if path.suffix.lower() not in _IMAGE_ENDINGS or path.name.startswith("."):
            continue
        path = path.relative_to(folder)
        twin = paths.setdefault(path.stem, path)
        if twin is not path and (folder / twin).stat().st_size != (folder / path).stat().st_size:
            problem = f"has the name of {twin.as_posix()}, but another size"
            problems.append({"file": path.as_posix(), "problem": problem, "action": f"{twin.as_posix()} used"})
    return paths, problems


def _name_part(path, parts):
    """Name the part of the original that a path lies in, whatever the case; "other" if it is in none."""
    folders = {name.lower() for name in path.split("/")[:-1]}
    return next((part for part in parts if part.lower() in folders), "other")


def _describe_nothing_usable(folder, data_set, problems):
    kinds = pd.Series([re.sub(r"ISIC_\d+|'.*?'", "…", problem["problem"]) for problem in problems]).value_counts()
    listed = "; ".join(f"{count} times: {problem}" for problem, count in kinds.head(5).items())
    return f"{folder}: no image can be used. Expected: {data_set.files}. Found: {listed or 'nothing'}."


def _expect(right, path, name, expected, found):
    if not right:
        raise InputError(
            f"{path}: {name} should have {expected}, but has {found}. "
            "This is not the MNIST file that Keras ships: fetch that one, or set DATA_SOURCE=sample."
        )


def _hash_pixels(image):
    return hashlib.blake2b(image.tobytes(), digest_size=6).hexdigest()


_IMAGE_ENDINGS = {".jpg", ".jpeg", ".png"}
_INDEXERS = {"mnist_archive": _index_mnist_archive, "ham10000": _index_ham10000}
