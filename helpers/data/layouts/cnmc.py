"""C-NMC as Kaggle and as its publisher ship it: cells in folders of folds and classes, and numbered cells."""

import re
from pathlib import PurePath

import pandas as pd

from helpers.data.layouts.common import LEFT_OUT, REMEDY, find_places, leave_out, list_folders, order_naturally, refuse
from helpers.data.layouts.tables import read_metadata, strip_ending
from helpers.files import InputError, show_name

_TRAINING, _VALIDATION, _TESTING = "training_data", "validation_data", "testing_data"
# The parts by the names of their folders in lower case; Kaggle's are those of the catalog, the others the publisher's.
_PARTS = {name: name for name in (_TRAINING, _VALIDATION, _TESTING)} | {f"c-nmc_{_TRAINING}": _TRAINING}
# The folders of numbered images, in Kaggle's edition inside those of the parts; and the table of labels beside one.
_NUMBERED = {_VALIDATION: "C-NMC_test_prelim_phase_data", _TESTING: "C-NMC_test_final_phase_data"}
_PARTS |= {name.lower(): part for part, name in _NUMBERED.items()}
_TABLE = f"{_NUMBERED[_VALIDATION]}_labels.csv"
_NAME = re.compile(
    r"(?:AugmentedImg_[0-9]+_)?UID_(?P<subject>H?[0-9]+)_(?P<image>[0-9]+)_[0-9]+_(?P<label>all|hem)", re.IGNORECASE
)
_COLUMNS = ["image_id", "path", "label", "group", "part", "fold", "microscope_image"]


def rate_cnmc(data_set, folder):
    """Rate how well a folder looks like the one that holds the parts: 4 if it has folds of training, otherwise 0."""
    training = [path for path in list_folders(folder) if _PARTS.get(path.name.lower()) == _TRAINING]
    return 4 * any(path.name.lower().startswith("fold_") for place in training for path in list_folders(place))


def index_cnmc(data_set, folder, cache_dir=None):
    """Index C-NMC, whatever the depth and the case of its folders and of the endings of its files.

    The names of cells, ``UID_<subject>_<microscope image>_<cell>_<class>``, tell the group: the subject, with an H in
    front where healthy. In training they are the files' names, in validation they stand in the table of labels. The
    columns beside the common ones are ``fold`` of training and ``microscope_image``. In testing ``label``, ``group``
    and ``microscope_image`` are missing. Of several copies of a file the one that lies least deep is taken; files under
    the same name that differ are left out.

    Raise InputError if there are no images of a class in training, or none or no table of labels in validation; if the
    table contradicts itself or the files; or if a subject is in two folds, or in training and in validation.
    """
    outside = f"lies in no folder of the layout; expected {data_set.files}"

    def locate(path):
        folders = [name.lower() for name in path.parts[:-1]]
        first = next((number for number, name in enumerate(folders) if name in _PARTS), None)
        if first is None:
            return None
        above, part, stem = path.parts[:first], _PARTS[folders[first]], strip_ending(path.name).lower()
        *_, fold, label = ("", *folders)
        if part == _TRAINING and re.fullmatch("fold_[0-9]+", fold) and label in data_set.class_names:
            return above, part, fold, label, stem
        is_numbered = label == _NUMBERED.get(part, "").lower()
        return (above, part, stem) if is_numbered else outside

    places = find_places(data_set, folder, locate, outside, "folder and name", cache_dir)
    for paths in places.found.values():
        if len(paths) > 1:
            problem = f"is one of {len(paths)} different images of this name"
            places.problems += [leave_out(path, problem) for path in paths]
    known = sorted(places.found.items(), key=lambda item: (item[0][:-1], order_naturally(item[0][-1])))
    once = [(place, paths[0]) for place, paths in known if len(paths) == 1]
    training, misnamed = _index_training(data_set, folder, once, places)
    validation = _index_validation(data_set, folder, once, places)
    testing = [
        {"image_id": f"test_{show_name(strip_ending(path.name))}", "path": path.as_posix(), "part": part}
        for (part, *_), path in once
        if part == _TESTING
    ]
    images = pd.DataFrame([*training, *validation, *testing], columns=_COLUMNS, dtype="str")
    _expect_subjects_in_one_set(data_set, folder, images)
    return images, misnamed + places.problems


def _index_training(data_set, folder, images, places):
    """Index the images of training by their names; those whose names do not fit are problems."""
    rows, problems = [], []
    for (_, fold, label, _), path in (item for item in images if item[0][0] == _TRAINING):
        name = strip_ending(path.name)
        about = _read_name(name)
        if about is None:
            problems.append(leave_out(path, "its name does not tell its subject, as UID_23_10_1_all.bmp does"))
        elif about["label"] != label:
            problems.append(leave_out(path, f"its name says {about['label']}, its folder {label}"))
        else:
            rows.append({"image_id": name, "path": path.as_posix(), "part": _TRAINING, "fold": fold} | about)
    missing = [label for label in data_set.class_names if label not in {row["label"] for row in rows}]
    if missing:
        names = " and ".join(f"{_TRAINING}/fold_*/{label}/" for label in missing)
        lacking = {(_TRAINING,)} | {place for place, _ in places.unread if place[-1] in missing}
        places.refuse(folder, data_set, f"no images in {names} that can be used", lacking)
    return rows, problems


def _read_name(stem):
    """Read what the name of a cell tells, as columns of the index, or None."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    subject = match["subject"].upper()
    return {"label": match["label"].lower(), "group": subject, "microscope_image": f"{subject}_{match['image']}"}


def _index_validation(data_set, folder, images, places):
    """Index the images of validation with the table of labels, of several the one beside their folder."""
    images = {stem: path for (part, *_, stem), path in images if part == _VALIDATION}
    if not images:
        name = _NUMBERED[_VALIDATION]
        places.refuse(folder, data_set, f"no images in {_VALIDATION}/{name}/", {(_VALIDATION,), (name,)})
    beside = {path.parents[1] for path in images.values()}
    tables = [path for path in places.paths if path.name.lower() == _TABLE.lower()]
    if not tables:
        refuse(folder, data_set, f"no {_TABLE}")
    table = folder / min(tables, key=lambda path: path.parent not in beside)
    left_out = [PurePath(each["file"]) for each in places.problems if each["action"] == LEFT_OUT]
    left_out = {path.stem.lower() for path in left_out if path.parent.name.lower() == _NUMBERED[_VALIDATION].lower()}
    cells = _read_table(data_set, table, images, left_out)
    if unlisted := [path.as_posix() for stem, path in images.items() if stem not in cells]:
        raise InputError(
            f"{folder / unlisted[0]}{_count_others(unlisted, 'images')} is an unlabelled image among labelled ones: "
            f"{_TABLE} does not list it. Expected: a line for each image. {REMEDY}"
        )
    return [
        {"image_id": cells[stem], "path": path.as_posix(), "part": _VALIDATION} | _read_name(cells[stem])
        for stem, path in images.items()
    ]


def _read_table(data_set, path, images, left_out):
    """Read which cell each image shows, and make sure that the table does not contradict itself or the files.

    ``images`` and ``left_out`` are the names of those that can be used and that cannot.
    """
    columns = ["Patient_ID", "new_names", "labels"]
    listed = read_metadata(path, columns)
    listed[columns] = listed[columns].fillna("").apply(lambda column: column.str.strip())

    def expect(right, complain):
        wrong = listed[~right]
        if not wrong.empty:
            first = next(wrong.itertuples())
            raise InputError(
                f"{path}, line {first.line}{_count_others(wrong, 'lines')}: {complain(first)}. "
                f"Expected: one line for each image, such as UID_57_29_1_all.bmp,1.bmp,1. {REMEDY}"
            )

    cells, stems = (listed[column].map(strip_ending) for column in columns[:2])
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
    expect(
        stems.isin([*images, *left_out]), lambda row: f"lists the image {row.new_names!r}, but there is no such image"
    )
    return dict(zip(stems, cells, strict=True))


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
