"""C-NMC as Kaggle ships it: cells in folders of folds and classes, and numbered cells with and without labels."""

import re
from pathlib import PurePath

import pandas as pd

from helpers.data.layouts.common import (
    IMAGE_ENDINGS,
    REMEDY,
    find_places,
    leave_out,
    list_files,
    order_naturally,
    read_metadata,
    refuse,
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


def index_cnmc(data_set, folder):
    """Index C-NMC, whatever the depth and the case of its folders and of the endings of its files.

    The names of cells, ``UID_<subject>_<microscope image>_<cell>_<class>``, tell the group: the subject, with an H in
    front where healthy. In training they are the files' names, in validation they stand in the table of labels. The
    columns beside the common ones are ``fold`` of training and ``microscope_image``. In testing ``label``, ``group``
    and ``microscope_image`` are missing. Of several copies of a file the one that lies least deep is taken.

    Raise InputError if there are no images of a class in training, or none or no table of labels in validation; if the
    table contradicts itself or the files; or if a subject is in two folds, or in training and in validation.
    """

    def locate(path):
        *_, first, second, third = ("", "", "", *(name.lower() for name in path.parts[:-1]))
        if first == _TRAINING and re.fullmatch("fold_[0-9]+", second) and third in data_set.class_names:
            return first, second, third, path.stem.lower()
        is_numbered = second in _NUMBERED and third == _NUMBERED[second].lower()
        return (second, path.stem.lower()) if is_numbered else None

    paths = list_files(folder)
    found, problems = find_places(data_set, folder, paths, locate, "lies in no folder of the layout", "folder and name")
    places = sorted(found.items(), key=lambda item: (item[0][:-1], order_naturally(item[0][-1])))
    training, misnamed = _index_training(data_set, folder, places)
    tables = (path for path in paths if [name.lower() for name in path.parts[-2:]] == [_VALIDATION, _TABLE.lower()])
    images = {stem: path for (part, *_, stem), path in places if part == _VALIDATION}
    validation = _index_validation(data_set, folder, next(tables, None), images)
    testing = [
        {"image_id": f"test_{path.stem}", "path": path.as_posix(), "part": part}
        for (part, *_), path in places
        if part == _TESTING
    ]
    images = pd.DataFrame([*training, *validation, *testing], columns=_COLUMNS, dtype="str")
    _expect_subjects_in_one_set(data_set, folder, images)
    return images, misnamed + problems


def _index_training(data_set, folder, places):
    """Index the images of training by their names; those whose names do not fit are problems."""
    rows, problems = [], []
    for (_, fold, label, _), path in (item for item in places if item[0][0] == _TRAINING):
        about = _read_name(path.stem)
        if about is None:
            problems.append(leave_out(path, "its name does not tell its subject, as UID_23_10_1_all.bmp does"))
        elif about["label"] != label:
            problems.append(leave_out(path, f"its name says {about['label']}, its folder {label}"))
        else:
            rows.append({"image_id": path.stem, "path": path.as_posix(), "part": _TRAINING, "fold": fold} | about)
    there = {row["label"] for row in rows}
    if missing := [f"{_TRAINING}/fold_*/{label}/" for label in data_set.class_names if label not in there]:
        refuse(folder, data_set, f"no images in {' and '.join(missing)} that can be used")
    return rows, problems


def _read_name(stem):
    """Read what the name of a cell tells, as columns of the index, or None."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    subject = match["subject"].upper()
    return {"label": match["label"].lower(), "group": subject, "microscope_image": f"{subject}_{match['image']}"}


def _index_validation(data_set, folder, table, images):
    """Index the images of validation, given by their names, with the table of labels."""
    if not images:
        refuse(folder, data_set, f"no images in {_VALIDATION}/{_NUMBERED[_VALIDATION]}/")
    if table is None:
        refuse(folder, data_set, f"no {_TABLE}")
    cells = _read_table(data_set, folder / table, images)
    if unlisted := [path.as_posix() for stem, path in images.items() if stem not in cells]:
        raise InputError(
            f"{folder / unlisted[0]}{_count_others(unlisted, 'images')} is an unlabelled image among labelled ones: "
            f"{_TABLE} does not list it. Expected: a line for each image. {REMEDY}"
        )
    return [
        {"image_id": cells[stem], "path": path.as_posix(), "part": _VALIDATION} | _read_name(cells[stem])
        for stem, path in images.items()
    ]


def _read_table(data_set, path, images):
    """Read which cell each image shows, and make sure that the table does not contradict itself or the files."""
    columns = ["Patient_ID", "new_names", "labels"]
    listed = read_metadata(path, columns)
    listed[columns] = listed[columns].fillna("").apply(lambda column: column.str.strip())

    def expect(right, complain):
        wrong = listed[~right]
        if not wrong.empty:
            first = next(wrong.itertuples())
            raise InputError(
                f"{path}, line {first.metadata_row + 2}{_count_others(wrong, 'lines')}: {complain(first)}. "
                f"Expected: one line for each image, such as UID_57_29_1_all.bmp,1.bmp,1. {REMEDY}"
            )

    cells, stems = (listed[column].map(_strip_ending) for column in columns[:2])
    codes = {str(code): label for code, label in enumerate(data_set.class_names)}
    known = ", ".join(f"{code} ({label})" for code, label in codes.items())
    expect(listed["labels"].isin(list(codes)), lambda row: f"labels is {row.labels!r}, none of {known}")
    about = cells.map(_read_name)
    expect(about.notna(), lambda row: f"Patient_ID {row.Patient_ID!r} is not such as UID_57_29_1_all.bmp")
    right = listed["labels"].map(codes) == about.map(lambda named: named["label"])
    expect(right, lambda row: f"labels is {row.labels}, but Patient_ID {row.Patient_ID!r}; one is wrong")
    expect(~cells.str.lower().duplicated(), lambda row: f"Patient_ID {row.Patient_ID!r} is listed again")
    stems = stems.str.lower()
    expect(~stems.duplicated(), lambda row: f"new_names {row.new_names!r} is listed again")
    expect(stems.isin(list(images)), lambda row: f"lists the image {row.new_names!r}, but there is no such image")
    return dict(zip(stems, cells, strict=True))


def _strip_ending(name):
    return PurePath(name).stem if PurePath(name).suffix.lower() in IMAGE_ENDINGS else name


def _count_others(rows, what):
    return f" (and {len(rows) - 1:,} more {what})" if len(rows) > 1 else ""


def _expect_subjects_in_one_set(data_set, folder, images):
    """Make sure that no subject is in two folds, or in training and in validation: a score would be too good."""
    place = images["part"].where(images["fold"].isna(), images["part"] + "/" + images["fold"])
    labelled = images.assign(place=place)[images["group"].notna()]
    shared = labelled[labelled.groupby("group")["place"].transform("nunique") > 1]
    found = []
    for subject, rows in shared.groupby("group", sort=False):
        firsts = rows.drop_duplicates("place").itertuples()
        found.append(f"subject {subject} is in " + " and ".join(f"{r.place} ({r.path}, {r.image_id})" for r in firsts))
    if found:
        raise InputError(
            f"{folder}: {'; '.join(found[:5])}{_count_others(found[4:], 'subjects')}. "
            f"Expected: all {data_set.group_rule} in one fold, or in {_VALIDATION}. "
            f"Remove the files that do not belong there. {REMEDY}"
        )
