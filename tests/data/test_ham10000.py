"""The index of HAM10000: every row of the metadata and every image file is used, or listed with what is wrong."""

import dataclasses
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.data.audit import leave_out_unusable
from helpers.data.catalog import get_data_set
from helpers.data.layouts.common import IGNORED
from helpers.data.layouts.ham10000 import find_tables
from helpers.data.opening import LEFT_OUT, PROBLEM_COLUMNS, index_images
from helpers.files import InputError

NAME = "HAM10000_metadata.csv"
PART_1, PART_2 = "HAM10000_images_part_1", "HAM10000_images_part_2"
HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"
ROWS = [
    "HAM_1,ISIC_1,bkl,histo,80.0,male,scalp",
    "HAM_1,ISIC_2,bkl,histo,80.0,male,scalp",
    "HAM_2,ISIC_3,nv,follow_up,45.0,female,back",
    "HAM_3,ISIC_4,mel,histo,,unknown,unknown",
]


@pytest.fixture
def data_set():
    return dataclasses.replace(get_data_set("ham10000"), class_names=("bkl", "mel", "nv"))


@pytest.fixture
def folder(tmp_path):
    """Write four images of three lesions, two in each part, and their metadata."""
    write_metadata(tmp_path, ROWS)
    for number in range(1, 5):
        write_image(tmp_path / (PART_1 if number < 3 else PART_2) / f"ISIC_{number}.jpg", number)
    return tmp_path


def write_metadata(folder, rows, header=HEADER, encoding="utf-8"):
    (folder / NAME).write_text("\n".join([header, *rows, ""]), encoding=encoding)


def write_image(path, seed=0, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), "uint8")
    Image.fromarray(pixels).save(path)


def test_columns_and_rows(data_set, folder):
    images, problems = index_images(data_set, folder)
    assert problems.empty
    assert list(problems.columns) == PROBLEM_COLUMNS == ["file", "problem", "action", "image_id"]
    assert images.drop(columns="age").to_dict("list") == {
        "image_id": ["ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4"],
        "path": [f"{PART_1}/ISIC_1.jpg", f"{PART_1}/ISIC_2.jpg", f"{PART_2}/ISIC_3.jpg", f"{PART_2}/ISIC_4.jpg"],
        "label": ["bkl", "bkl", "nv", "mel"],
        "group": ["HAM_1", "HAM_1", "HAM_2", "HAM_3"],
        "part": [PART_1, PART_1, PART_2, PART_2],
        "sex": ["male", "male", "female", "unknown"],
        "localization": ["scalp", "scalp", "back", "unknown"],
        "dx_type": ["histo", "histo", "follow_up", "histo"],
        "metadata_row": [0, 1, 2, 3],
    }
    np.testing.assert_array_equal(images["age"], [80, 80, 45, np.nan])
    assert images["age"].dtype == "float64"
    assert images.index.equals(pd.RangeIndex(4))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("space", ["", " "])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_table_as_other_programs_write_it(data_set, folder, encoding, space, ending):
    expected, _ = index_images(data_set, folder)
    text = ending.join([HEADER, *ROWS, ""]).replace(",", f",{space}")
    (folder / NAME).write_bytes(text.encode(encoding))
    images, problems = index_images(data_set, folder)
    pd.testing.assert_frame_equal(images, expected)
    assert problems.empty


@pytest.mark.parametrize("extra", ["dataset", "path", "part", "metadata_row", "line", "label", "group", "index"])
def test_extra_columns_change_nothing(data_set, folder, extra):
    """Not even under the names of the index's own columns."""
    expected, _ = index_images(data_set, folder)
    write_metadata(folder, [f"nonsense,{row}" for row in ROWS], f"{extra},{HEADER}")
    images, problems = index_images(data_set, folder)
    assert images.columns.tolist() == expected.columns.tolist()
    pd.testing.assert_frame_equal(images, expected)
    assert problems.empty


def test_columns_in_another_order(data_set, folder):
    expected, _ = index_images(data_set, folder)
    table = pd.read_csv(folder / NAME, dtype="str").iloc[:, ::-1]
    table.to_csv(folder / NAME, index=False)
    pd.testing.assert_frame_equal(index_images(data_set, folder)[0], expected)


@pytest.mark.parametrize(
    ("written", "expected", "complaint"),
    [
        ("80.0", 80, None),
        ("80", 80, None),
        ("0.0", 0, None),
        ("57.5", 57.5, None),
        ("120", 120, None),
        ("", np.nan, None),
        ("NA", np.nan, None),
        ("old", np.nan, "'old'"),
        ("50 years", np.nan, "'50 years'"),
        ("-5", np.nan, "'-5'"),
        ("057,5", 57.5, None),
        ("121", np.nan, "'121'"),
        ("inf", np.nan, "'inf'"),
        ("1987-04-01", np.nan, "'1987-04-01'"),
    ],
)
def test_ages(data_set, folder, written, expected, complaint):
    write_metadata(folder, [ROWS[0], ROWS[1].replace("80.0", f'"{written}"'), *ROWS[2:]])
    images, problems = index_images(data_set, folder)
    np.testing.assert_array_equal(images["age"], [80, expected, 45, np.nan])
    if complaint:
        assert problems.to_dict("records") == [
            {
                "file": f"{NAME}, line 3",
                "problem": f"age {complaint} is no age in years",
                "action": "age taken as unknown",
                "image_id": "ISIC_2",
            }
        ]
    else:
        assert problems.empty


def drop_column(folder, column, *more):
    pd.read_csv(folder / NAME, dtype="str").drop(columns=[column, *more]).to_csv(folder / NAME, index=False)


@pytest.mark.parametrize("column", ["age", "sex", "localization", "dx_type"])
def test_missing_optional_column_is_taken_as_unknown(data_set, folder, column):
    expected, _ = index_images(data_set, folder)
    drop_column(folder, column)
    images, problems = index_images(data_set, folder)
    assert images.columns.tolist() == expected.columns.tolist()
    assert images[column].isna().all()
    pd.testing.assert_frame_equal(images.drop(columns=column), expected.drop(columns=column))
    assert problems["problem"].tolist() == [f"has no column {column}"]
    assert problems.loc[0, ["file", "action"]].tolist() == [NAME, "taken as unknown"]


@pytest.mark.parametrize("column", ["lesion_id", "image_id", "dx"])
def test_missing_needed_column_names_file_and_column(data_set, folder, column):
    drop_column(folder, column)
    with pytest.raises(InputError) as caught:
        index_images(data_set, folder)
    message = str(caught.value)
    assert f"{folder / NAME} has no column {column};" in message
    assert "it has " in message
    assert "DATA_SOURCE=sample" in message


def test_every_missing_needed_column_is_named(data_set, folder):
    drop_column(folder, "lesion_id", "dx")
    with pytest.raises(InputError, match="has no column lesion_id, dx;"):
        index_images(data_set, folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4,
        b"PK\x03\x04" + bytes(500),
        b"<html><body>404 Not Found</body></html>\n" * 20,
        (HEADER + "\n" + ROWS[0] + "\nHAM_9,ISIC_9,nv,histo,1,male,back,more,and,more\n").encode(),
        HEADER.replace(",", " ").encode(),
        b'lesion_id,image_id,dx\n"HAM_1,ISIC_1,bkl\n',
    ],
    ids=["empty", "jpeg", "zip", "html", "ragged", "blanks", "open quote"],
)
def test_no_table_under_the_tables_name(data_set, folder, content):
    (folder / NAME).write_bytes(content)
    with pytest.raises(InputError) as caught:
        index_images(data_set, folder)
    assert str(folder / NAME) in str(caught.value)


def test_missing_table_and_folder_in_its_place(data_set, folder):
    (folder / NAME).unlink()
    with pytest.raises(InputError, match=f"{NAME} cannot be read as a table"):
        index_images(data_set, folder)
    (folder / NAME).mkdir()
    with pytest.raises(InputError, match=f"{NAME} cannot be read as a table"):
        index_images(data_set, folder)


@pytest.mark.parametrize(
    "place",
    [
        "ham10000_metadata.CSV",
        "HAM10000_metadata.tab",
        "HAM10000_metadata.txt",
        "HAM10000_metadata",
        "tables/HAM10000_metadata.csv",
        "archive/tables/HAM10000_metadata.tsv",
    ],
)
def test_the_table_under_other_names_and_in_other_folders(data_set, folder, place):
    expected, _ = index_images(data_set, folder)
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / NAME).rename(folder / place)
    (folder / "HAM10000_metadata.xlsx").write_bytes(b"PK\3\4")  # the same for people
    assert find_tables(folder)[0] == Path(place)
    images, problems = index_images(data_set, folder)
    pd.testing.assert_frame_equal(images, expected)
    assert problems["problem"].tolist() == [f"is a second table, not used: {place} is"]


def test_a_diagnosis_in_another_case_is_read_and_another_one_is_shown(data_set, folder):
    expected, _ = index_images(data_set, folder)
    write_metadata(folder, [row.replace("bkl", "BKL").replace("nv", "Nv") for row in ROWS])
    images, problems = index_images(data_set, folder)
    pd.testing.assert_frame_equal(images, expected)
    assert problems.empty
    write_metadata(folder, [re.sub("bkl|nv|mel", "Melanoma", row) for row in ROWS])
    with pytest.raises(InputError, match="4 times: diagnosis 'Melanoma' is none of bkl, mel, nv"):
        index_images(data_set, folder)


def test_a_second_table_and_an_archive_are_named(data_set, folder):
    expected, _ = index_images(data_set, folder)
    (folder / "HAM10000_metadata.tab").write_text(HEADER)
    (folder / f"{PART_1}.zip").write_bytes(b"PK")
    images, problems = index_images(data_set, folder)
    pd.testing.assert_frame_equal(images, expected)
    assert problems[["file", "problem", "action"]].to_numpy().tolist() == [
        [
            f"{PART_1}.zip",
            f"is packed: unpack it with python -m zipfile -e {folder / PART_1}.zip {folder / PART_1}",
            IGNORED,
        ],
        ["HAM10000_metadata.tab", f"is a second table, not used: {NAME} is", IGNORED],
    ]
    (folder / PART_1 / "ISIC_1.jpg").unlink()
    with pytest.raises(InputError, match=re.escape(f"-e {folder / PART_1}.zip {folder / PART_1} (ignored)")):
        leave_out_unusable(*index_images(data_set, folder))


def test_a_table_far_below_is_not_looked_for(folder):
    (folder / "a/b/c").mkdir(parents=True)
    (folder / NAME).rename(folder / "a/b/c" / NAME)
    assert find_tables(folder) == []


def test_a_spreadsheet_and_the_table_of_the_challenge_are_refused(data_set, folder):
    (folder / NAME).unlink()
    challenge = folder / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"
    challenge.parent.mkdir()
    challenge.write_text("image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nISIC_1,0,1,0,0,0,0,0\n")
    with pytest.raises(InputError) as caught:
        index_images(data_set, folder)
    assert str(caught.value).startswith(f"{challenge} does not tell which images show the same lesion")
    assert NAME in str(caught.value)
    (folder / "HAM10000_metadata.xlsx").write_bytes(b"PK\3\4 and more")
    with pytest.raises(InputError, match=r"HAM10000_metadata\.xlsx cannot be read .* save it as CSV"):
        index_images(data_set, folder)


@pytest.mark.parametrize(
    "change", [str.lower, str.upper, lambda name: f"{name}.jpg", lambda name: f"{name.lower()}.JPEG"]
)
def test_ids_in_another_case_and_with_an_ending(data_set, folder, change):
    expected, _ = index_images(data_set, folder)
    write_metadata(folder, [re.sub(r"ISIC_\d", lambda match: change(match[0]), row) for row in ROWS])
    images, problems = index_images(data_set, folder)
    assert problems.empty
    assert images["image_id"].str.upper().tolist() == expected["image_id"].tolist()
    columns = ["path", "label", "group", "part", "metadata_row"]
    pd.testing.assert_frame_equal(images[columns], expected[columns])
    write_metadata(folder, [*ROWS, ROWS[0].replace("ISIC_1", change("ISIC_1"))])
    _, problems = index_images(data_set, folder)
    assert problems["action"].tolist() == ["first line used"]
    write_metadata(folder, [*ROWS, ROWS[0].replace("ISIC_1", change("ISIC_1")).replace("bkl", "mel")])
    images, _ = index_images(data_set, folder)
    assert images["path"].tolist() == expected["path"].tolist()[1:]


def test_listed_but_missing_and_present_but_not_listed(data_set, folder):
    (folder / PART_1 / "ISIC_2.jpg").rename(folder / PART_1 / "ISIC_9.jpg")
    images, problems = index_images(data_set, folder)
    assert images["image_id"].tolist() == ["ISIC_1", "ISIC_3", "ISIC_4"]
    assert images["metadata_row"].tolist() == [0, 2, 3]
    assert images.index.equals(pd.RangeIndex(3))
    assert problems.to_dict("records") == [
        {
            "file": f"{NAME}, line 3",
            "problem": "ISIC_2 is listed, but there is no such image",
            "action": LEFT_OUT,
            "image_id": "ISIC_2",
        },
        {
            "file": f"{PART_1}/ISIC_9.jpg",
            "problem": f"is not listed in {NAME}",
            "action": LEFT_OUT,
            "image_id": "ISIC_9",
        },
    ]


@pytest.mark.parametrize(
    ("row", "complaint", "concerns"),
    [
        ("HAM_1,ISIC_2,scc,histo,80.0,male,scalp", "diagnosis 'scc' is none of bkl, mel, nv", "ISIC_2"),
        ("HAM_1,ISIC_2,,histo,80.0,male,scalp", "diagnosis nan is none of bkl", "ISIC_2"),
        (",ISIC_2,bkl,histo,80.0,male,scalp", "ISIC_2 has no lesion_id", "ISIC_2"),
        ("HAM_1,,bkl,histo,80.0,male,scalp", "has no image_id", f"{NAME}, line 3"),
    ],
    ids=["other diagnosis", "no diagnosis", "no lesion", "no image_id"],
)
def test_unusable_row_is_left_out_and_reported(data_set, folder, row, complaint, concerns):
    write_metadata(folder, [ROWS[0], row, *ROWS[2:]])
    images, problems = index_images(data_set, folder)
    assert images["image_id"].tolist() == ["ISIC_1", "ISIC_3", "ISIC_4"]
    assert images["metadata_row"].tolist() == [0, 2, 3]
    first = problems.iloc[0]
    assert (first["file"], first["action"], first["image_id"]) == (f"{NAME}, line 3", LEFT_OUT, concerns)
    assert complaint in first["problem"]
    rest = problems.iloc[1:]  # the image of a row without image_id is listed nowhere
    assert rest["file"].tolist() == ([f"{PART_1}/ISIC_2.jpg"] if "line" in concerns else [])


@pytest.mark.parametrize("changed", ["", "age"])
def test_repeated_image_is_used_once(data_set, folder, changed):
    again = ROWS[0].replace("80.0", "75.0") if changed else ROWS[0]
    write_metadata(folder, [ROWS[0], again, *ROWS[1:]])
    images, problems = index_images(data_set, folder)
    assert images["image_id"].tolist() == ["ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4"]
    assert images["metadata_row"].tolist() == [0, 2, 3, 4]
    assert images["age"].iloc[0] == 80
    assert problems.drop(columns="image_id").to_dict("records") == [
        {"file": f"{NAME}, line 3", "problem": "ISIC_1 is listed again", "action": "first line used"}
    ]


@pytest.mark.parametrize("again", [ROWS[0].replace("bkl", "mel"), ROWS[0].replace("HAM_1", "HAM_7")])
@pytest.mark.parametrize("times", [1, 2])
def test_image_with_contradictory_rows_is_left_out(data_set, folder, again, times):
    write_metadata(folder, [ROWS[0], *ROWS[1:], *[again] * times])
    images, problems = index_images(data_set, folder)
    assert images["image_id"].tolist() == ["ISIC_2", "ISIC_3", "ISIC_4"]
    assert set(problems["problem"]) == {"ISIC_1 is listed with different diagnoses or lesions"}
    assert set(problems["action"]) == {LEFT_OUT}
    assert problems["file"].tolist() == [f"{NAME}, line {line}" for line in (2, 6, 7)[: 1 + times]]


@pytest.mark.parametrize("first", [",ISIC_1,bkl,histo,80.0,male,scalp", "HAM_1,ISIC_1,odd,histo,80.0,male,scalp"])
def test_no_line_is_called_used_that_is_not(data_set, folder, first):
    """The first line of an image cannot be used, the second could."""
    write_metadata(folder, [first, *ROWS])
    images, problems = index_images(data_set, folder)
    if "ISIC_1" in set(images["image_id"]):
        assert images["metadata_row"].tolist() == [1, 2, 3, 4]
    else:
        assert "first line used" not in set(problems["action"])


def test_rows_are_counted_as_in_the_file(data_set, folder):
    """Whatever is left out, ``metadata_row`` finds the row again in a table that is read without any care."""
    write_metadata(folder, [ROWS[3], ",,,,,,", ROWS[1], ROWS[1], ROWS[0].replace("bkl", "odd"), ROWS[2]])
    images, _ = index_images(data_set, folder)
    assert images["image_id"].tolist() == ["ISIC_4", "ISIC_2", "ISIC_3"]
    table = pd.read_csv(folder / NAME)
    assert table.loc[images["metadata_row"], "image_id"].tolist() == images["image_id"].tolist()


def test_lines_are_those_of_the_file_and_rows_of_empty_cells_are_no_images(data_set, folder):
    write_metadata(folder, ["", *ROWS[:3], "", ",,,,,,", ROWS[3].replace("mel", "odd"), ",,,,,,"])
    _, problems = index_images(data_set, folder)
    assert problems["file"].tolist() == [NAME, f"{NAME}, line 8"]


@pytest.mark.parametrize("labels", [["nv", "mel"], ["mel", "bkl", "odd"]])
def test_classes_that_are_not_there_are_named(folder, labels):
    write_metadata(
        folder, [ROWS[number].replace(ROWS[number].split(",")[2], label) for number, label in enumerate(labels)]
    )
    images, problems = index_images(get_data_set("ham10000"), folder)
    assert set(images["label"]) == set(labels[:2])
    lacking = ", ".join(name for name in ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc") if name not in labels)
    assert problems.loc[0, ["file", "problem", "action"]].tolist() == [
        NAME,
        f"5 of 7 classes are not in this copy: {lacking}",
        "ignored",
    ]


def test_one_class_is_nothing_to_tell_apart(data_set, folder):
    write_metadata(folder, [row.replace(",bkl,", ",nv,").replace(",mel,", ",odd,") for row in ROWS])
    with pytest.raises(InputError, match="all images that can be used are of one class, nv"):
        index_images(data_set, folder)


@pytest.mark.parametrize("remove", ["images", "rows", "matches"])
def test_nothing_usable_is_an_error_that_says_what_was_found(data_set, folder, remove):
    if remove == "images":
        for path in folder.rglob("*.jpg"):
            path.unlink()
    else:
        write_metadata(folder, [] if remove == "rows" else [row.replace("ISIC_", "ISIC_00") for row in ROWS])
    with pytest.raises(InputError) as caught:
        index_images(data_set, folder)
    message = str(caught.value)
    assert message.startswith(f"{folder}: no image can be used. Expected: {data_set.files}. Found: ")
    unlisted, missing = f"4 times: is not listed in {NAME}", "4 times: … is listed, but there is no such image"
    assert (unlisted in message) == (remove != "images")
    assert (missing in message) == (remove != "rows")


def test_no_row_and_no_file_is_lost_in_silence(data_set, tmp_path):
    """Tables and folders with every trap at random: each row and each file is used or listed as a problem."""
    found = Counter()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        folder = tmp_path / str(seed)
        write_image(folder / PART_1 / "ISIC_1.jpg")
        content = (folder / PART_1 / "ISIC_1.jpg").read_bytes()
        for number in rng.choice(range(2, 20), 12, replace=False):
            (folder / PART_1 / f"ISIC_{number}.jpg").write_bytes(content)
        rows = [ROWS[0]]
        for _ in range(15):
            lesion = rng.choice(["HAM_1", "HAM_2", ""], p=[0.45, 0.45, 0.1])
            image_id = "" if rng.random() < 0.1 else f"ISIC_{rng.integers(2, 20)}"
            rows.append(f"{lesion},{image_id},{rng.choice(['nv', 'mel', 'odd', ''], p=[0.6, 0.2, 0.1, 0.1])},,,,")
        write_metadata(folder, rows)
        images, problems = index_images(data_set, folder)
        used = set(images["metadata_row"])
        listed = {int(file.rpartition(" ")[2]) - 2 for file in problems["file"] if file.startswith(f"{NAME}, line")}
        assert used | listed == set(range(16))
        assert images["image_id"].is_unique
        assert not used & listed
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")}
        concerned = {f"{PART_1}/{image_id}.jpg" for image_id in problems["image_id"].dropna()}
        assert files <= set(images["path"]) | set(problems["file"]) | concerned
        found += Counter(problems["problem"].str.split(n=1).str[1])
    assert len(found) >= 6, "the tables lack some of the traps"
