"""The index of C-NMC: names tell subjects and classes, the table tells those of validation, and no subject leaks."""

import shutil

import pandas as pd
import pytest
from PIL import Image

from helpers.data.audit import (
    compare_with_original,
    count_images,
    leave_out_contradictions,
    leave_out_unusable,
)
from helpers.data.catalog import get_data_set
from helpers.data.layouts.common import IGNORED
from helpers.data.opening import LEFT_OUT, index_images
from helpers.data.pixels import load_pixels, measure_images
from helpers.files import InputError

ROOT = "C-NMC_Leukemia"
TRAINING = f"{ROOT}/training_data"
VALIDATION = f"{ROOT}/validation_data/C-NMC_test_prelim_phase_data"
TESTING = f"{ROOT}/testing_data/C-NMC_test_final_phase_data"
TABLE = f"{VALIDATION}_labels.csv"
HEADER = "Patient_ID,new_names,labels"
ROWS = ["UID_46_7_2_all.bmp,1.bmp,1", "UID_H14_33_1_hem.bmp,2.bmp,0", "UID_46_7_12_all.bmp,10.bmp,1"]
FILES = [
    f"{TRAINING}/fold_0/all/UID_23_10_1_all.bmp",
    f"{TRAINING}/fold_0/all/UID_23_9_12_all.bmp",
    f"{TRAINING}/fold_0/hem/UID_H10_116_2_hem.bmp",
    f"{TRAINING}/fold_1/all/AugmentedImg_7_UID_30_2_1_all.bmp",
    f"{TRAINING}/fold_2/hem/UID_H3_1_1_hem.bmp",
    *(f"{VALIDATION}/{number}.bmp" for number in (1, 2, 10)),
    *(f"{TESTING}/{number}.bmp" for number in (1, 2, 10)),
]


@pytest.fixture
def data_set():
    return get_data_set("leukemia")


@pytest.fixture
def folder(tmp_path):
    """Write five cells of four subjects in three folds, three of two subjects in validation, and three unlabelled."""
    for number, path in enumerate(FILES):
        write_image(tmp_path / path, number)
    write_table(tmp_path, ROWS)
    return tmp_path


@pytest.fixture
def index(data_set, folder):
    return lambda: index_images(data_set, folder)


def write_image(path, number=0, size=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (20 * number, 10, 40)).save(path, "bmp")


def write_table(folder, rows, header=HEADER):
    (folder / TABLE).write_text("\n".join([header, *rows, ""]))


def refuse(index, *expected):
    with pytest.raises(InputError) as caught:
        index()
    message = str(caught.value)
    for text in (*expected, "Expected: ", "Fetch the original again, or set DATA_SOURCE=sample."):
        assert text in message, message


def test_columns_and_rows(index):
    images, problems = index()
    assert problems.empty
    assert images.index.equals(pd.RangeIndex(11))
    assert images.fillna("-").to_dict("list") == {
        "image_id": [
            "UID_23_9_12_all",
            "UID_23_10_1_all",
            "UID_H10_116_2_hem",
            "AugmentedImg_7_UID_30_2_1_all",
            "UID_H3_1_1_hem",
            "UID_46_7_2_all",
            "UID_H14_33_1_hem",
            "UID_46_7_12_all",
            "test_1",
            "test_2",
            "test_10",
        ],
        "path": [FILES[1], FILES[0], *FILES[2:]],
        "label": ["all", "all", "hem", "all", "hem", "all", "hem", "all", "-", "-", "-"],
        "group": ["23", "23", "H10", "30", "H3", "46", "H14", "46", "-", "-", "-"],
        "part": ["training_data"] * 5 + ["validation_data"] * 3 + ["testing_data"] * 3,
        "fold": ["fold_0"] * 3 + ["fold_1", "fold_2"] + ["-"] * 6,
        "microscope_image": ["23_9", "23_10", "H10_116", "30_2", "H3_1", "46_7", "H14_33", "46_7", "-", "-", "-"],
    }
    assert (images.dtypes == "str").all()


def test_what_is_missing_is_missing_and_no_word(index):
    images, _ = index()
    assert images["label"].isna().tolist() == images["group"].isna().tolist() == [False] * 8 + [True] * 3
    assert images["fold"].isna().sum() == 6


def test_the_table_is_read_by_its_names_not_by_its_order(index, folder):
    expected, _ = index()
    pd.read_csv(folder / TABLE, dtype="str").iloc[::-1, ::-1].to_csv(folder / TABLE, index=False)
    pd.testing.assert_frame_equal(index()[0], expected)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("space", ["", " "])
def test_the_table_as_other_programs_write_it(index, folder, ending, space):
    expected, _ = index()
    text = ending.join(f"{row.replace(',', f'{space},{space}')}{space}" for row in [HEADER, *ROWS]) + ending
    (folder / TABLE).write_bytes(text.encode("utf-8-sig"))
    images, problems = index()
    pd.testing.assert_frame_equal(images, expected)
    assert problems.empty


def test_case_of_folders_and_endings_does_not_matter(index, folder):
    expected, _ = index()
    for path in sorted(folder.rglob("*"), key=lambda path: -len(path.parts)):
        changed = f"{path.stem}.BMP" if path.suffix == ".bmp" else path.name.swapcase()
        path.rename(path.with_name(changed))
    images, problems = index()
    assert problems.empty
    assert set(images["path"].str.rpartition(".")[2]) == {"BMP"}
    assert set(images["path"].str.split("/").str[0]) == {ROOT.swapcase()}
    pd.testing.assert_frame_equal(images.drop(columns="path"), expected.drop(columns="path"))


def test_case_of_names_does_not_matter(index, folder):
    """``h10`` is the subject ``H10``."""
    hem = folder / TRAINING / "fold_0" / "hem"
    write_image(hem / "uid_h10_117_1_HEM.bmp")
    write_table(folder, [ROWS[0], "UID_h14_33_1_hem.BMP,2.BMP,0", ROWS[2]])
    images, problems = index()
    assert problems.empty
    assert images["group"].value_counts()[["H10", "H14"]].tolist() == [2, 1]
    images = images.set_index("image_id")
    assert images.loc["uid_h10_117_1_HEM", ["label", "microscope_image"]].tolist() == ["hem", "H10_117"]
    assert images.loc["UID_h14_33_1_hem", "path"] == f"{VALIDATION}/2.bmp"


def test_unpacked_into_a_folder_of_its_own(index, folder):
    expected, _ = index()
    (folder / "archive").mkdir()
    (folder / ROOT).rename(folder / "archive" / ROOT)
    images, problems = index()
    assert problems.empty
    assert images["path"].tolist() == [f"archive/{path}" for path in expected["path"]]


@pytest.mark.parametrize("kept", ["fold_0", "fold_0 fold_1", "fold_0 fold_2"])
def test_any_subset_of_the_folds(index, folder, data_set, kept):
    expected, _ = index()
    for number in range(3):
        if f"fold_{number}" not in kept:
            shutil.rmtree(folder / TRAINING / f"fold_{number}")
    images, problems = index()
    assert problems.empty
    wanted = expected[expected["fold"].isin(kept.split()) | expected["fold"].isna()].reset_index(drop=True)
    pd.testing.assert_frame_equal(images, wanted)
    found = (wanted["part"] == "training_data").sum()
    assert compare_with_original(images, data_set).loc["training_data"].tolist() == [found, 10_661, 10_661 - found]


def test_testing_may_be_missing(index, folder, data_set):
    expected, _ = index()
    shutil.rmtree(folder / ROOT / "testing_data")
    images, problems = index()
    assert problems.empty
    pd.testing.assert_frame_equal(images, expected.iloc[:8])
    assert compare_with_original(images, data_set)["found"].to_dict() == {
        "training_data": 5,
        "validation_data": 3,
        "testing_data": 0,
    }


# Files that are no images of the layout


def test_files_of_macos_and_others_are_no_images(index, folder):
    expected, _ = index()
    for name in (f"__MACOSX/{FILES[0]}", f"{VALIDATION}/._1.bmp", f"__MACOSX/{TABLE}", f"{TESTING}/notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\0\5\26\7")
    images, problems = index()
    pd.testing.assert_frame_equal(images, expected)
    assert dict(zip(problems["file"], problems["problem"], strict=True)) == {
        f"{TESTING}/notes.txt": "is no image file",
        "__MACOSX/, .*": "3 files that systems and tools leave behind; they are no images",
    }
    assert set(problems["action"]) == {IGNORED}


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("fold_0/all/UID_23_10_3_hem.bmp", "its name says hem, its folder all"),
        ("fold_0/hem/UID_H10_10_3_all.bmp", "its name says all, its folder hem"),
        ("fold_0/all/UID_23_10_all.bmp", "its name does not tell its subject, as UID_23_10_1_all.bmp does"),
        ("fold_0/all/UID_X23_10_1_all.bmp", "its name does not tell its subject"),
        ("fold_0/all/UID_23_10_1_all (1).bmp", "its name does not tell its subject"),
        ("fold_0/all/12.bmp", "its name does not tell its subject"),
        ("fold_0/UID_23_10_3_all.bmp", "lies in no folder of the layout; expected images in "),
        ("all/UID_23_10_3_all.bmp", "lies in no folder of the layout"),
        ("fold_0/other/UID_23_10_3_all.bmp", "lies in no folder of the layout"),
        ("../validation_data/3.bmp", "lies in no folder of the layout"),
    ],
)
def test_images_that_cannot_be_used_are_left_out_and_listed(index, folder, name, complaint):
    expected, _ = index()
    path = (folder / TRAINING / name).resolve()
    write_image(path)
    images, problems = index()
    pd.testing.assert_frame_equal(images, expected)
    (problem,) = problems.to_dict("records")
    where = path.relative_to(folder.resolve()).as_posix()
    assert (problem["file"], problem["action"], problem["image_id"]) == (where, LEFT_OUT, where)
    assert problem["problem"].startswith(complaint)


def test_second_copies_are_one_image(index, folder):
    expected, _ = index()
    shutil.copytree(folder / ROOT, folder / "again" / ROOT)
    write_image(folder / "again" / FILES[0], size=8)
    (folder / "again" / TABLE).write_text("another table")
    images, problems = index()
    pd.testing.assert_frame_equal(images, expected)
    assert problems[["file", "problem", "action"]].to_numpy().tolist() == [
        ["again/", "holds 1 images, but is no folder of the data set", IGNORED],
        [f"*/{ROOT}", "10 second copies under the same folder and name, with the same content", IGNORED],
    ]


def test_twins_with_other_endings_are_one_image(index, folder):
    expected, _ = index()
    for name in (FILES[0], f"{VALIDATION}/1.bmp", f"{TESTING}/2.bmp"):
        shutil.copy(folder / name, folder / name.replace(".bmp", ".png"))
    images, problems = index()
    pd.testing.assert_frame_equal(images, expected)
    assert problems["problem"].tolist() == ["3 second copies under the same folder and name, with the same content"]


def test_different_images_under_one_name_are_both_left_out(index, folder):
    expected, _ = index()
    for name in (FILES[0], f"{VALIDATION}/1.bmp", f"{TESTING}/2.bmp"):
        write_image(folder / name.replace(".bmp", ".png"), size=8)
    images, problems = index()
    kept = expected[~expected["path"].isin([FILES[0], f"{VALIDATION}/1.bmp", f"{TESTING}/2.bmp"])]
    pd.testing.assert_frame_equal(images, kept.reset_index(drop=True))
    assert problems["problem"].tolist() == ["is one of 2 different images of this name"] * 6
    assert set(problems["action"]) == {LEFT_OUT}


def test_images_of_validation_that_cannot_be_read_are_left_out(index, folder):
    (folder / VALIDATION / "1.bmp").rename(folder / VALIDATION / "1.heic").write_bytes(b"\0\0\0\x18ftypheic")
    images, problems = index()
    assert (images["part"] == "validation_data").sum() == 2
    assert problems["action"].tolist() == [LEFT_OUT]


# The publisher's folders

PUBLISHED = "PKG - C-NMC 2019"


def publish(folder, root=PUBLISHED, training="C-NMC_training_data"):
    """Rename Kaggle's folders to those of the publisher, who has the table beside the images, too."""
    (folder / TRAINING).rename(folder / ROOT / training)
    for place, name in ((VALIDATION, VALIDATION), (TESTING, TESTING), (TABLE, TABLE)):
        (folder / place).rename(folder / ROOT / name.rpartition("/")[2])
    (folder / ROOT).rename(folder / root)


@pytest.mark.parametrize("root", [PUBLISHED, ROOT, "."])
@pytest.mark.parametrize("training", ["C-NMC_training_data", "training_data", "c-nmc_TRAINING_data"])
def test_the_folders_of_the_publisher(index, folder, root, training):
    expected, _ = index()
    publish(folder, root if root != "." else PUBLISHED, training)
    if root == ".":
        for path in (folder / PUBLISHED).iterdir():
            path.rename(folder / path.name)
    images, problems = index()
    pd.testing.assert_frame_equal(images.drop(columns="path"), expected.drop(columns="path"))
    where = images["path"].str.rpartition("/")[0].str.replace(r"fold_\d/(all|hem)", "*", regex=True)
    above = "" if root == "." else f"{root}/"
    names = [f"{training}/*", "C-NMC_test_prelim_phase_data", "C-NMC_test_final_phase_data"]
    assert where.unique().tolist() == [f"{above}{name}" for name in names]
    assert [problem for problem in problems["problem"] if "systems" not in problem] == []


def test_a_part_under_another_name_is_named(index, folder):
    (folder / TRAINING).rename(folder / ROOT / "C-NMC_training")
    refuse(
        index, f"There is {ROOT}/C-NMC_training/ with 5 images: rename it to training_data/ if it is what is missing"
    )


# What is missing


@pytest.mark.parametrize("how", ["no folder", "no files", "wrong names"])
@pytest.mark.parametrize(("label", "other"), [("all", "hem"), ("hem", "all")])
def test_a_class_without_images_to_train_on(index, folder, label, other, how):
    for place in sorted((folder / TRAINING).glob(f"*/{label}")):
        for number, path in enumerate(sorted(place.iterdir())):
            path.unlink() if how != "wrong names" else path.rename(path.with_name(f"{number}.bmp"))
        if how == "no folder":
            place.rmdir()
    refuse(index, f"{folder} has no images in training_data/fold_*/{label}/ that can be used.")


def test_no_training_at_all(index, folder):
    shutil.rmtree(folder / TRAINING)
    refuse(index, "no images in training_data/fold_*/hem/ and training_data/fold_*/all/ that can be used")


@pytest.mark.parametrize("missing", [f"{ROOT}/validation_data", VALIDATION])
def test_no_images_in_validation(index, folder, missing):
    shutil.rmtree(folder / missing)
    refuse(index, f"{folder} has no images in validation_data/C-NMC_test_prelim_phase_data/.")


def test_no_table_of_labels(index, folder):
    (folder / TABLE).rename(folder / "labels.csv")
    refuse(index, f"{folder} has no C-NMC_test_prelim_phase_data_labels.csv.", "validation_data/C-NMC_test_prelim")


def test_the_table_of_labels_may_lie_elsewhere(index, folder):
    expected, _ = index()
    (folder / TABLE).rename(folder / "C-NMC_test_prelim_phase_data_labels.csv")
    pd.testing.assert_frame_equal(index()[0], expected)


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("name", ["readme.txt", "x.bmp", "fold_0/x.bmp", "masks/x.bmp"])
def test_files_beside_the_folds(index, folder, name, outer):
    write_image(folder / TRAINING / name)
    place = TRAINING
    if not outer:
        for path in list((folder / ROOT).iterdir()):
            path.rename(folder / path.name)
        place = "training_data"
    images, problems = index()
    assert len(images) == len(FILES)
    assert problems["file"].tolist() == ([f"{place}/{name}"] if name.endswith(".bmp") else [])
    assert set(problems["action"]) <= {LEFT_OUT}


# The table of labels


@pytest.mark.parametrize("column", HEADER.split(","))
def test_a_table_that_lacks_a_column(index, folder, column):
    pd.read_csv(folder / TABLE, dtype="str").drop(columns=column).to_csv(folder / TABLE, index=False)
    with pytest.raises(InputError) as caught:
        index()
    assert f"{folder / TABLE} has no column {column}; it has " in str(caught.value)
    assert "DATA_SOURCE=sample" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("UID_46_7_3_all.bmp,3.bmp,1", "lists the image '3.bmp', but there is no such image"),
        ("UID_46_7_3_all.bmp,,1", "lists the image '', but there is no such image"),
        ("UID_46_7_3_all.bmp,1.bmp,1", "new_names '1.bmp' is listed again"),
        ("UID_46_7_3_all.bmp,1.BMP,1", "new_names '1.BMP' is listed again"),
        ("UID_46_7_2_all.bmp,3.bmp,1", "Patient_ID 'UID_46_7_2_all.bmp' is listed again"),
        ("uid_46_7_2_all.bmp,3.bmp,1", "Patient_ID 'uid_46_7_2_all.bmp' is listed again"),
        ("UID_46_7_2_all.bmp,1.bmp,1", "Patient_ID 'UID_46_7_2_all.bmp' is listed again"),
        ("UID_46_7_all.bmp,3.bmp,1", "Patient_ID 'UID_46_7_all.bmp' is not such as UID_57_29_1_all.bmp"),
        ("46,3.bmp,1", "Patient_ID '46' is not such as UID_57_29_1_all.bmp"),
        (",3.bmp,1", "Patient_ID '' is not such as UID_57_29_1_all.bmp"),
        ("UID_46_7_3_all.bmp,3.bmp,0", "labels is 0, but Patient_ID 'UID_46_7_3_all.bmp'; one is wrong"),
        ("UID_H14_7_3_hem.bmp,3.bmp,1", "labels is 1, but Patient_ID 'UID_H14_7_3_hem.bmp'; one is wrong"),
        ("UID_46_7_3_all.bmp,3.bmp,2", "labels is '2', none of 0 (hem), 1 (all)"),
        ("UID_46_7_3_all.bmp,3.bmp,all", "labels is 'all', none of 0 (hem), 1 (all)"),
        ("UID_46_7_3_all.bmp,3.bmp,", "labels is '', none of 0 (hem), 1 (all)"),
    ],
)
def test_a_line_of_the_table_that_cannot_be_right(index, folder, row, complaint):
    write_table(folder, [*ROWS[:2], row, ROWS[2]])
    refuse(index, f"{folder / TABLE}, line 4: {complaint}.", "one line for each image")


def test_the_line_is_counted_as_in_the_file(index, folder):
    write_table(folder, ["", *ROWS[:2], "UID_46_7_12_all.bmp,10.bmp,0"])
    refuse(index, f"{folder / TABLE}, line 5: labels is 0, but")


def test_how_many_lines_are_wrong_is_told(index, folder):
    for number in (1, 2):
        (folder / VALIDATION / f"{number}.bmp").unlink()
    refuse(index, f"{folder / TABLE}, line 2 (and 1 more lines): lists the image '1.bmp', but")


def test_an_unlabelled_image_among_labelled_ones(index, folder):
    write_image(folder / VALIDATION / "12.bmp")
    refuse(index, f"{folder / VALIDATION / '12.bmp'} is an unlabelled image among labelled ones", "does not list it")
    write_image(folder / VALIDATION / "7.bmp")
    refuse(index, f"{folder / VALIDATION / '7.bmp'} (and 1 more images) is an unlabelled image among labelled ones")


def test_a_table_without_lines_leaves_every_image_unlabelled(index, folder):
    write_table(folder, [])
    refuse(index, f"{folder / VALIDATION / '1.bmp'} (and 2 more images) is an unlabelled image among labelled ones")


# Subjects in two sets


def test_a_subject_in_two_folds(index, folder):
    path = f"{TRAINING}/fold_2/all/UID_23_11_1_all.bmp"
    write_image(folder / path)
    refuse(
        index,
        f"{folder}: subject 23 is in training_data/fold_0 ({FILES[1]}, UID_23_9_12_all) "
        f"and training_data/fold_2 ({path}, UID_23_11_1_all).",
        "all cells of the same subject in one fold, or in validation_data",
        "Remove the files that do not belong there.",
    )


def test_a_subject_in_training_and_in_validation(index, folder):
    write_table(folder, [ROWS[0], "UID_h10_116_9_hem.bmp,2.bmp,0", ROWS[2]])
    refuse(
        index,
        f"{folder}: subject H10 is in training_data/fold_0 ({FILES[2]}, UID_H10_116_2_hem) "
        f"and validation_data ({VALIDATION}/2.bmp, UID_h10_116_9_hem).",
    )


def test_the_same_image_in_two_folds(index, folder):
    (folder / TRAINING / "fold_1" / "hem").mkdir()
    shutil.copy(folder / FILES[2], folder / TRAINING / "fold_1" / "hem")
    refuse(index, "subject H10 is in training_data/fold_0", "and training_data/fold_1")


def test_many_subjects_in_two_folds_are_counted(index, folder):
    for number in range(50, 57):
        for fold in ("fold_0", "fold_1"):
            write_image(folder / TRAINING / fold / "all" / f"UID_{number}_1_1_all.bmp")
    with pytest.raises(InputError) as caught:
        index()
    assert str(caught.value).count(" is in ") == 5
    assert " (and 2 more subjects)." in str(caught.value)


def test_subjects_with_the_same_number_are_others_with_an_h(index, folder):
    write_image(folder / TRAINING / "fold_1" / "hem" / "UID_H23_1_1_hem.bmp")
    images, _ = index()
    assert {"23", "H23"} <= set(images["group"].dropna())


# The audit of a table with unlabelled images


def test_the_audit_keeps_unlabelled_images(index, folder, data_set, tmp_path_factory):
    (folder / FILES[-1]).write_bytes(b"BM")
    cache = tmp_path_factory.mktemp("cache")
    images, problems = index()
    measured = measure_images(images, folder, cache)
    assert measured["error"].ne("").tolist() == [False] * 10 + [True]
    images = pd.concat([images] + [images.iloc[:8].assign(image_id=lambda rows: rows["image_id"] + "+")] * 2)
    measured = pd.concat([measured, measured.iloc[:8], measured.iloc[:8]], ignore_index=True)
    kept, problems = leave_out_unusable(images.reset_index(drop=True), problems, measured)
    assert problems["image_id"].tolist() == ["test_10"]
    assert kept["label"].isna().sum() == 2
    assert len(kept) == 26
    assert set(kept["label"].dropna()) == {"hem", "all"}
    assert load_pixels(kept, folder, (4, 4, 3), cache).shape == (26, 4, 4, 3)
    assert compare_with_original(kept, data_set)["found"].tolist() == [15, 9, 2]


def test_contradictions_within_a_subject_leave_unlabelled_images_alone(index, folder):
    write_image(folder / TRAINING / "fold_0" / "all" / "UID_H10_1_1_all.bmp")
    images, problems = leave_out_contradictions(*index())
    assert set(problems["problem"]) == {"its group H10 is in all and hem"}
    assert len(images) == 10
    assert images["label"].isna().sum() == 3


def test_a_class_called_all_and_unlabelled_images_are_counted(index):
    table = count_images(index()[0])
    assert table.columns.tolist() == ["all", "hem", "missing", "total"]
    assert table.index.tolist() == ["training_data", "validation_data", "testing_data", "total"]
    assert table.to_numpy().tolist() == [[3, 2, 0, 5], [2, 1, 0, 3], [0, 0, 3, 3], [5, 3, 3, 11]]
    by_fold = count_images(index()[0], by=("fold", "label"))
    assert by_fold.index.tolist() == ["fold_0", "fold_1", "fold_2", "missing", "total"]
    assert by_fold["total"].tolist() == [3, 1, 1, 6, 11]


def test_a_packed_fold_is_named(folder, index):
    (folder / TRAINING / "fold_2.zip").write_bytes(b"PK")
    shutil.rmtree(folder / TRAINING / "fold_2")
    images, problems = index()
    assert "fold_2" not in set(images["fold"])
    assert problems[["file", "action"]].to_numpy().tolist() == [[f"{TRAINING}/fold_2.zip", IGNORED]]
    assert problems["problem"][0].endswith(f"python -m zipfile -e {folder / TRAINING}/fold_2.zip {folder / TRAINING}")
