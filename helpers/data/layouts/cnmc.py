"""C-NMC as Kaggle ships it: cells in folders of folds and classes, and numbered cells with and without labels."""

import re
from pathlib import PurePath

import pandas as pd

from helpers.data.layouts.common import (
    IGNORED,
    IMAGE_ENDINGS,
    LEFT_OUT,
    list_files,
    read_metadata,
    set_macos_files_aside,
)
from helpers.files import InputError

_TRAINING, _VALIDATION, _TESTING = "training_data", "validation_data", "testing_data"
# The folders of numbered images, and the table that tells what those of validation are.
_NUMBERED = {_VALIDATION: "C-NMC_test_prelim_phase_data", _TESTING: "C-NMC_test_final_phase_data"}
_TABLE = f"{_NUMBERED[_VALIDATION]}_labels.csv"
_NAME = re.compile(
    r"(?:AugmentedImg_[0-9]+_)?UID_(?P<subject>H?[0-9]+)_(?P<image>[0-9]+)_[0-9]+_(?P<label>all|hem)", re.IGNORECASE
)
_COLUMNS = ["image_id", "path", "label", "group", "part", "fold", "microscope_image"]
_REMEDY = "Fetch the original again, or set DATA_SOURCE=sample."


def index_cnmc(data_set, folder):
    """Index C-NMC, whatever the depth and the case of its folders and of the endings of its files.

    The names of cells, ``UID_<subject>_<microscope image>_<cell>_<class>``, tell the group: the subject, with an H in
    front where healthy. In training they are the files' names, in validation they stand in the table of labels. The
    columns beside the common ones are ``fold`` of training and ``microscope_image``. In testing ``label``, ``group``
    and ``microscope_image`` are missing. Of several copies of a file the one that lies least deep is taken.

    Raises
    ------
    InputError
        There are no images of a class in training, or none or no table of labels in validation; the table contradicts
        itself, lists images that are not there, or does not list all that are; or a subject is in two folds, or in
        training and in validation.
    """
    places, table, problems = _find_places(data_set, folder)
    training, misnamed = _index_training(places)
    _expect_every_class(data_set, folder, training)
    validation = _index_validation(data_set, folder, table, places)
    testing = [
        {"image_id": f"test_{path.stem}", "path": path.as_posix(), "part": _TESTING}
        for place, path in places
        if place == (_TESTING,)
    ]
    images = pd.DataFrame([*training, *validation, *testing], columns=_COLUMNS, dtype="str")
    _expect_subjects_in_one_set(data_set, folder, images)
    return images, misnamed + problems


def _find_places(data_set, folder):
    """Find the image files by the folders that the layout has, in the order of their names, and the table of labels.

    Returns
    -------
    places : list of pairs
        The place, (part, fold, class) in training and otherwise (part,), and the path.
    table : Path or None
    problems : list of dict
    """
    found, table, problems, copies = {}, None, [], 0
    paths, from_macos = set_macos_files_aside(list_files(folder))
    for path in paths:
        place = _locate(path, data_set)
        if path.name.lower() == _TABLE.lower() and path.parts[-2:-1] and path.parts[-2].lower() == _VALIDATION:
            table = table or path
        elif path.suffix.lower() not in IMAGE_ENDINGS:
            if place is not None:
                problems.append({"file": path.as_posix(), "problem": "is no image file", "action": IGNORED})
        elif place is None:
            problems.append(_leave_out(path, f"lies in no folder of the layout; expected {data_set.files}"))
        elif (first := found.setdefault((*place, path.stem.lower()), (place, path))[1]) is not path:
            if (folder / first).stat().st_size == (folder / path).stat().st_size:
                copies += 1
            else:
                problem = f"is another copy of {first.as_posix()}, of another size"
                problems.append({"file": path.as_posix(), "problem": problem, "action": f"{first.as_posix()} used"})
    if copies:
        problem = f"{copies:,} second copies under the same folder and name, of the same size"
        problems.append({"file": f"*/{data_set.key_file}", "problem": problem, "action": IGNORED})
    return sorted(found.values(), key=lambda item: (item[0], _number(item[1].stem))), table, problems + from_macos


def _locate(path, data_set):
    """Tell which place of the layout a path lies in, in lower case, or None."""
    *_, first, second, third = ("", "", "", *(name.lower() for name in path.parts[:-1]))
    if first == _TRAINING and re.fullmatch("fold_[0-9]+", second) and third in data_set.class_names:
        return first, second, third
    return (second,) if second in _NUMBERED and third == _NUMBERED[second].lower() else None


def _number(stem):
    """Make a key by which 9 sorts before 10."""
    return [int(text) if number % 2 else text for number, text in enumerate(re.split("([0-9]+)", stem.lower()))]


def _leave_out(path, problem):
    return {"file": path.as_posix(), "problem": problem, "action": LEFT_OUT, "image_id": path.as_posix()}


def _index_training(places):
    """Index the images of training by their names; those whose names do not fit are problems."""
    rows, problems = [], []
    for (part, *fold_and_class), path in places:
        if part != _TRAINING:
            continue
        fold, label = fold_and_class
        about = _read_name(path.stem)
        if about is None:
            problems.append(_leave_out(path, "its name does not tell its subject, as UID_23_10_1_all.bmp does"))
        elif about["label"] != label:
            problems.append(_leave_out(path, f"its name says {about['label']}, its folder {label}"))
        else:
            rows.append({"image_id": path.stem, "path": path.as_posix(), "part": part, "fold": fold} | about)
    return rows, problems


def _read_name(stem):
    """Read what the name of a cell tells, as columns of the index, or None."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    subject = match["subject"].upper()
    return {"label": match["label"].lower(), "group": subject, "microscope_image": f"{subject}_{match['image']}"}


def _index_validation(data_set, folder, table, places):
    """Index the images of validation by the table of labels, in the order of their numbers."""
    images = {path.stem.lower(): path for place, path in places if place == (_VALIDATION,)}
    for lacks, name in ((not images, f"images in {_VALIDATION}/{_NUMBERED[_VALIDATION]}/"), (table is None, _TABLE)):
        if lacks:
            raise InputError(f"{folder} has no {name}. Expected: {data_set.files}. {_REMEDY}")
    listed = _read_table(data_set, folder / table)
    missing = listed[~listed["image"].isin(list(images))]
    _refuse(folder / table, missing, lambda row: f"lists the image {row.new_names!r}, but there is no such image")
    if unlisted := [path.as_posix() for stem, path in images.items() if stem not in set(listed["image"])]:
        raise InputError(
            f"{folder / unlisted[0]}{_count_others(unlisted, 'images')} is an unlabelled image among labelled ones: "
            f"{_TABLE} does not list it. Expected: a line for each image. {_REMEDY}"
        )
    cells = listed.set_index("image")["cell"]
    return [
        {"image_id": cells[stem], "path": path.as_posix(), "part": _VALIDATION} | _read_name(cells[stem])
        for stem, path in images.items()
    ]


def _read_table(data_set, path):
    """Read the table of labels, and make sure that it does not contradict itself.

    Returns
    -------
    DataFrame with the columns of the table and ``cell`` and ``image``, the names without endings.
    """
    listed = read_metadata(path, ["Patient_ID", "new_names", "labels"])
    for column in ("Patient_ID", "new_names", "labels"):
        listed[column] = listed[column].fillna("").str.strip()
    listed["cell"], listed["image"] = (_strip_ending(listed[column]) for column in ("Patient_ID", "new_names"))
    codes = {str(code): label for code, label in enumerate(data_set.class_names)}
    known = ", ".join(f"{code} ({label})" for code, label in codes.items())
    _refuse(path, listed[~listed["labels"].isin(list(codes))], lambda row: f"labels is {row.labels!r}, none of {known}")
    about = listed["cell"].map(_read_name)
    _refuse(path, listed[about.isna()], lambda row: f"Patient_ID {row.Patient_ID!r} is not such as UID_57_29_1_all.bmp")
    wrong = listed["labels"].map(codes) != about.map(lambda named: named["label"])
    _refuse(path, listed[wrong], lambda row: f"labels is {row.labels}, but Patient_ID {row.Patient_ID!r}; one is wrong")
    for column, key in (("Patient_ID", "cell"), ("new_names", "image")):
        repeated = listed[listed[key].str.lower().duplicated()]
        _refuse(path, repeated, lambda row, column=column: f"{column} {getattr(row, column)!r} is listed again")
    return listed.assign(image=listed["image"].str.lower())


def _strip_ending(names):
    return names.map(lambda name: PurePath(name).stem if PurePath(name).suffix.lower() in IMAGE_ENDINGS else name)


def _refuse(path, rows, complain):
    """Raise an error that names the first of the rows of a table that cannot be right, if there are any."""
    if not rows.empty:
        first = next(rows.itertuples())
        raise InputError(
            f"{path}, line {first.metadata_row + 2}{_count_others(rows, 'lines')}: {complain(first)}. "
            f"Expected: one line for each image, such as UID_57_29_1_all.bmp,1.bmp,1. {_REMEDY}"
        )


def _count_others(rows, what):
    return f" (and {len(rows) - 1:,} more {what})" if len(rows) > 1 else ""


def _expect_every_class(data_set, folder, training):
    """Make sure that there are images of each class to train on."""
    there = {row["label"] for row in training}
    if missing := [f"{_TRAINING}/fold_*/{label}/" for label in data_set.class_names if label not in there]:
        raise InputError(
            f"{folder} has no images in {' and '.join(missing)} that can be used. Expected: {data_set.files}. {_REMEDY}"
        )


def _expect_subjects_in_one_set(data_set, folder, images):
    """Make sure that no subject is in two folds, or in training and in validation: a score would be too good."""
    place = images["part"].where(images["fold"].isna(), images["part"] + "/" + images["fold"])
    labelled = images.assign(place=place)[images["group"].notna()]
    shared = labelled[labelled.groupby("group")["place"].transform("nunique") > 1]
    if shared.empty:
        return
    found = []
    for subject, rows in shared.groupby("group", sort=False):
        firsts = rows.drop_duplicates("place")
        named = " and ".join(f"{row.place} ({row.path}, {row.image_id})" for row in firsts.itertuples())
        found.append(f"subject {subject} is in {named}")
    raise InputError(
        f"{folder}: {'; '.join(found[:5])}{_count_others(found[4:], 'subjects')}. "
        f"Expected: all {data_set.group_rule} in one fold, or in {_VALIDATION}. "
        f"Remove the files that do not belong there. {_REMEDY}"
    )
