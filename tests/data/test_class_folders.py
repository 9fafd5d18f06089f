"""Images sorted into folders: one row per image, groups from the file names, and a word on all that is left out."""

import dataclasses
import os
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.data.audit import find_leaks, leave_out_unusable
from helpers.data.catalog import get_data_set
from helpers.data.layouts.common import IGNORED
from helpers.data.opening import LEFT_OUT, PROBLEM_COLUMNS, index_images
from helpers.files import InputError

FILES = [
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-0383-0001-0002.jpeg",
    "train/NORMAL/NORMAL2-IM-0383-0001.jpeg",
    "train/PNEUMONIA/person12_bacteria_34.jpeg",
    "train/PNEUMONIA/person12_bacteria_35.jpeg",
    "train/PNEUMONIA/person131_virus_251.jpeg",
    "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
    "val/PNEUMONIA/person12_bacteria_36.jpeg",
    "test/NORMAL/IM-0115-0001.jpeg",
    "test/PNEUMONIA/person12_virus_7.jpeg",
]
NORMAL, PNEUMONIA = "chest_xray/train/NORMAL", "chest_xray/train/PNEUMONIA"


@pytest.fixture
def data_set():
    return get_data_set("chest-xray")


def write(folder, *names, content="x-ray"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.fixture
def folder(tmp_path):
    """Write files that have the original's names; their content does not matter to the index."""
    write(tmp_path / "chest_xray", *FILES)
    return tmp_path


@pytest.fixture
def index(data_set, folder):
    """Index the folder; return the table with ``image_id`` as index, and the problems as a list."""

    def run():
        images, problems = index_images(data_set, folder)
        assert problems.columns.tolist() == PROBLEM_COLUMNS
        return images.set_index("image_id"), problems.to_dict("records")

    return run


def test_columns_and_rows(data_set, folder):
    images, problems = index_images(data_set, folder)
    assert images.columns.tolist() == ["image_id", "path", "label", "group", "part", "number", "series"]
    assert images.index.equals(pd.RangeIndex(len(FILES)))
    assert images["path"].tolist() == [f"chest_xray/{name}" for name in FILES]
    assert images["image_id"].tolist() == [name.removesuffix(".jpeg") for name in FILES]
    assert images["part"].tolist() == [name.split("/")[0] for name in FILES]
    assert images["label"].tolist() == [name.split("/")[1] for name in FILES]
    assert images["number"].dtype == "int64"
    assert problems.columns.tolist() == PROBLEM_COLUMNS
    assert problems.empty


def test_groups_are_the_patients(index):
    groups = index()[0]["group"]
    assert groups.to_dict() == {
        "train/NORMAL/IM-0115-0001": "IM-0115",
        "train/NORMAL/NORMAL2-IM-0383-0001": "NORMAL2-IM-0383",
        "train/NORMAL/NORMAL2-IM-0383-0001-0002": "NORMAL2-IM-0383",
        "train/PNEUMONIA/person12_bacteria_34": "person12",
        "train/PNEUMONIA/person12_bacteria_35": "person12",
        "train/PNEUMONIA/person131_virus_251": "person131",
        "val/NORMAL/NORMAL2-IM-1427-0001": "NORMAL2-IM-1427",
        "val/PNEUMONIA/person12_bacteria_36": "person12",
        "test/NORMAL/IM-0115-0001": "test/IM-0115",
        "test/PNEUMONIA/person12_virus_7": "test/person12",
    }


def test_a_patient_in_train_and_val_is_a_leak_and_one_of_the_same_number_in_test_is_none(data_set, folder):
    images, _ = index_images(data_set, folder)
    assert find_leaks(images, images["part"])["leaked"].to_dict() == {"train": 2, "val": 1, "test": 0}


@pytest.mark.parametrize(
    ("name", "group", "series", "number"),
    [
        ("IM-0115-0001", "IM-0115", "IM", 115),
        ("IM-0009-0001", "IM-0009", "IM", 9),
        ("NORMAL2-IM-0383-0001", "NORMAL2-IM-0383", "NORMAL2-IM", 383),
        ("NORMAL2-IM-0383-0001-0002", "NORMAL2-IM-0383", "NORMAL2-IM", 383),
        ("NORMAL-IM-0383-0001", "NORMAL-IM-0383", "NORMAL-IM", 383),
        ("NORMAL-115218-0001", "NORMAL-115218", "NORMAL", 115218),
        ("IM-0115-0001 (1)", "IM-0115", "IM", 115),
        ("person12_bacteria_34", "person12", "bacteria", 12),
        ("person1946_virus_4863", "person1946", "virus", 1946),
        ("person12_bacteria_34 (1)", "person12", "bacteria", 12),
        ("BACTERIA-12-0001", "BACTERIA-12", "BACTERIA", 12),
        ("VIRUS-1008087-0002", "VIRUS-1008087", "VIRUS", 1008087),
    ],
)
def test_what_names_tell(index, folder, name, group, series, number):
    place = PNEUMONIA if series.lower() in ("bacteria", "virus") else NORMAL
    write(folder, f"{place}/{name}.jpeg")
    images, problems = index()
    row = images.loc[f"{place.removeprefix('chest_xray/')}/{name}"]
    assert row[["group", "series", "number"]].tolist() == [group, series, number]
    assert problems == []


def test_bacteria_and_viruses_of_one_person_are_one_group(index, folder):
    write(folder, f"{PNEUMONIA}/person131_bacteria_1.jpeg")
    images, _ = index()
    assert images.index[images["group"] == "person131"].tolist() == [
        "train/PNEUMONIA/person131_bacteria_1",
        "train/PNEUMONIA/person131_virus_251",
    ]


def test_patients_of_other_series_with_the_same_number_are_other_groups(index, folder):
    write(folder, f"{NORMAL}/NORMAL2-IM-0115-0001.jpeg", f"{NORMAL}/NORMAL-0115-0001.jpeg")
    images, _ = index()
    normal = images[(images["label"] == "NORMAL") & (images["part"] == "train")]
    assert set(normal.loc[normal["number"] == 115, "group"]) == {"IM-0115", "NORMAL2-IM-0115", "NORMAL-0115"}


@pytest.mark.parametrize(
    "name", ["scan", "person12", "person12_fungus_3", "person_bacteria_3", "person12_bacteria_", "xIM-0115-0001", "IM-"]
)
@pytest.mark.parametrize("place", [NORMAL, PNEUMONIA])
def test_names_of_no_known_pattern_are_left_out(index, folder, place, name):
    write(folder, f"{place}/{name}.jpeg")
    images, problems = index()
    assert len(images) == len(FILES)
    assert problems == [
        {
            "file": f"{place}/{name}.jpeg",
            "problem": "its name does not tell its group",
            "action": LEFT_OUT,
            "image_id": f"{place.removeprefix('chest_xray/')}/{name}",
        }
    ]


@pytest.mark.parametrize(
    ("place", "name", "said"),
    [
        (NORMAL, "person12_bacteria_99", "PNEUMONIA"),
        (NORMAL, "VIRUS-12-0001", "PNEUMONIA"),
        (PNEUMONIA, "IM-0116-0001", "NORMAL"),
        (PNEUMONIA, "NORMAL2-IM-0116-0001", "NORMAL"),
        (PNEUMONIA, "NORMAL-116-0001", "NORMAL"),
    ],
)
def test_files_whose_names_say_the_other_class_are_left_out(index, folder, place, name, said):
    write(folder, f"{place}/{name}.jpeg")
    images, problems = index()
    assert len(images) == len(FILES)
    assert problems == [
        {
            "file": f"{place}/{name}.jpeg",
            "problem": f"its name says {said}",
            "action": LEFT_OUT,
            "image_id": f"{place.removeprefix('chest_xray/')}/{name}",
        }
    ]


def test_many_files_left_out_stop_the_run(data_set, folder):
    write(folder, f"{NORMAL}/scan.jpeg")
    images, problems = index_images(data_set, folder)
    with pytest.raises(InputError, match=r"^9\.1% of the images cannot be used"):
        leave_out_unusable(images, problems)


def assert_are_second_copies(problems, count):
    (problem,) = problems
    assert problem["problem"] == f"{count} second copies under the same part, class and name, with the same content"
    assert problem["action"] == IGNORED
    assert problem["file"] == "*/chest_xray"
    assert pd.isna(problem["image_id"])


def test_a_second_copy_deeper_down_is_not_used(index, folder):
    expected, _ = index()
    shutil.copytree(folder / "chest_xray", folder / "copied")
    shutil.move(folder / "copied", folder / "chest_xray" / "chest_xray")
    images, problems = index()
    pd.testing.assert_frame_equal(images, expected)
    assert_are_second_copies(problems, len(FILES))


def test_second_copies_are_counted_in_one_problem_and_not_as_left_out(data_set, folder):
    """Those with another content are told in a problem of their own."""
    for place in ("chest_xray", "archive/kept"):
        write(folder, *(f"{place}/{name}" for name in [f"chest_xray/{name}" for name in FILES]))
    other = "archive/kept/chest_xray/train/NORMAL/IM-0115-0001.jpeg"
    write(folder, other, content="another x-ray")
    images, problems = index_images(data_set, folder)
    assert_are_second_copies(problems[problems["file"] != "archive/"].to_dict("records"), 2 * len(FILES) - 1)
    assert problems.iloc[0, :3].tolist() == ["archive/", "holds 1 images, but is no folder of the data set", IGNORED]
    assert len(problems) == 2
    kept, _ = leave_out_unusable(images, problems)
    assert len(kept) == len(FILES)


def test_a_thousand_second_copies_are_easy_to_read(index, folder):
    names = [f"train/NORMAL/IM-{number:04}-0001.jpeg" for number in range(2000, 3200)]
    write(folder / "chest_xray", *names, *(f"chest_xray/{name}" for name in names))
    images, problems = index()
    assert len(images) == len(FILES) + 1200
    (problem,) = problems
    assert problem["problem"].startswith("1,200 second copies ")


@pytest.mark.parametrize("content", ["another x-ray", "x-raY"])
@pytest.mark.parametrize("copy", ["chest_xray/chest_xray/train/NORMAL/IM-0115-0001.jpeg", f"{NORMAL}/IM-0115-0001.png"])
def test_different_images_under_one_name_are_all_used_as_one_group(index, folder, copy, content):
    """Also those of the same size."""
    write(folder, copy, content=content)
    images, (problem,) = index()
    assert len(images) == len(FILES) + 1
    both = images[images["path"].isin([f"{NORMAL}/IM-0115-0001.jpeg", copy])]
    assert both["group"].tolist() == ["IM-0115"] * 2
    assert problem["problem"] == "2 different images have the same part, class and name"
    assert problem["action"] == "all used"


def test_different_images_under_one_name_have_the_ending_in_their_image_id(tmp_path):
    names = [
        f"{part}/{label}/{n}.jpg" for part in ("train", "test") for label in ("Benign", "Malignant") for n in (1, 2)
    ]
    write(tmp_path, *names)
    write(tmp_path, "train/Benign/1.png", content="another lesion")
    write(tmp_path, "train/Benign/2.png")
    images, problems = index_images(get_data_set("melanoma-isic"), tmp_path)
    benign = images[(images["part"] == "train") & (images["label"] == "Benign")]
    assert benign["image_id"].tolist() == ["train/Benign/1.jpg", "train/Benign/1.png", "train/Benign/2"]
    assert benign["group"].tolist() == ["train/Benign/1", "train/Benign/1", "train/Benign/2"], "may be two copies"
    assert problems["action"].tolist() == ["ignored", "all used"]
    assert problems["problem"].str.startswith(("1 second copies", "2 different images have")).all()


def test_the_same_name_in_two_folders_of_the_layout(tmp_path):
    for place in ("a", "b"):
        write(tmp_path / place, *(name.replace(".jpeg", ".png") for name in FILES), content=place)
    images, problems = index_images(get_data_set("chest-xray"), tmp_path)
    assert len(images) == 2 * len(FILES)
    assert images["image_id"].is_unique
    assert problems["action"].tolist() == ["all used"]


@pytest.mark.parametrize(
    "place", ["CLAHE/train/NORMAL", "masks/train/NORMAL", f"{NORMAL}/128x128", "A/chest_xray/train/NORMAL"]
)
def test_altered_copies_beside_the_folders_of_the_catalog_are_set_aside_whatever_the_alphabet(index, folder, place):
    expected, _ = index()
    write(folder, f"{place}/IM-0115-0001.jpeg", f"{place}/NORMAL2-IM-0383-0001.png", content="altered")
    images, (problem,) = index()
    pd.testing.assert_frame_equal(images, expected)
    aside = place if place.startswith(NORMAL) else place.split("/")[0]
    assert problem["file"] == f"{aside}/"
    assert problem["problem"] == "holds 2 images, but is no folder of the data set"
    assert problem["action"] == IGNORED


def test_the_folders_of_the_catalog_are_preferred_at_any_depth(data_set, folder):
    (folder / "archive").mkdir()
    (folder / "chest_xray").rename(folder / "archive" / "chest_xray")
    write(folder, "archive/CLAHE/train/NORMAL/IM-0115-0001.jpeg", "a/train/NORMAL/IM-0115-0001.jpeg", content="altered")
    images, problems = index_images(data_set, folder)
    assert images["path"].str.startswith("archive/chest_xray/").all()
    assert problems["file"].tolist() == ["a/", "archive/CLAHE/"]


def test_another_data_set_of_the_same_publisher_is_set_aside(index, folder):
    """Kermany's archive has retinas beside the chests, some of them in folders that are called NORMAL, too."""
    expected, _ = index()
    write(
        folder, *(f"OCT/{part}/{label}/{label}-12-1.jpeg" for part in ("train", "test") for label in ("NORMAL", "CNV"))
    )
    images, problems = index()
    pd.testing.assert_frame_equal(images, expected)
    assert [problem["file"] for problem in problems] == ["OCT/"]


def test_copies_do_not_stand_in_for_a_part_that_the_folders_of_the_catalog_lack(index, folder):
    (folder / "CLAHE").mkdir()
    (folder / "chest_xray" / "val").rename(folder / "CLAHE" / "val")
    images, (problem,) = index()
    assert images["part"].unique().tolist() == ["train", "test"]
    assert problem["file"] == "CLAHE/"
    assert problem["problem"] == "holds 2 images, but is no folder of the data set"


def test_masks_do_not_stand_in_for_a_class_that_the_folders_of_the_catalog_lack(data_set, folder):
    (folder / "GroundTruth" / "train").mkdir(parents=True)
    (folder / NORMAL).rename(folder / "GroundTruth" / "train" / "NORMAL")
    with pytest.raises(
        InputError, match=r"no images in train/NORMAL/\. There is GroundTruth/ with 3 images: rename it"
    ):
        index_images(data_set, folder)


def test_a_copy_that_comes_first_in_the_alphabet_is_not_used_if_it_lies_deeper(index, folder):
    write(folder, "a/a/train/NORMAL/IM-0115-0001.jpeg")
    assert index()[0].loc["train/NORMAL/IM-0115-0001", "path"] == f"{NORMAL}/IM-0115-0001.jpeg"


def test_the_copy_stands_in_for_a_missing_image(index, folder):
    expected, _ = index()
    shutil.copytree(folder / "chest_xray", folder / "copied")
    shutil.move(folder / "copied", folder / "chest_xray" / "chest_xray")
    (folder / NORMAL / "IM-0115-0001.jpeg").unlink()
    images, problems = index()
    assert images.loc["train/NORMAL/IM-0115-0001", "path"] == "chest_xray/chest_xray/train/NORMAL/IM-0115-0001.jpeg"
    pd.testing.assert_frame_equal(images.drop(columns="path").sort_index(), expected.drop(columns="path").sort_index())
    assert_are_second_copies(problems, len(FILES) - 1)


def test_the_same_name_in_another_part_or_class_is_no_copy(index, folder):
    write(folder, "chest_xray/val/NORMAL/IM-0115-0001.jpeg", content="another x-ray")
    images, problems = index()
    assert images["path"].str.endswith("/NORMAL/IM-0115-0001.jpeg").sum() == 3
    assert problems == []


def test_files_of_macos_are_counted_in_one_problem_and_are_no_images(index, folder):
    expected, _ = index()
    write(
        folder,
        "__MACOSX/chest_xray/train/NORMAL/._IM-0115-0001.jpeg",
        "chest_xray/__MACOSX/train/NORMAL/IM-0116-0001.jpeg",
        "chest_xray/__MACOSX/._train",
        f"{NORMAL}/._IM-0117-0001.jpeg",
        f"{NORMAL}/._Thumbs.db",
    )
    images, problems = index()
    pd.testing.assert_frame_equal(images, expected)
    (problem,) = problems
    assert problem["problem"] == "5 files that systems and tools leave behind; they are no images"
    assert problem["file"] == "__MACOSX/, .*"
    assert problem["action"] == IGNORED
    assert pd.isna(problem["image_id"])


def test_a_number_too_long_to_be_one_does_not_stop_the_run(index, folder):
    write(folder, f"{NORMAL}/IM-{'9' * 20}-0001.jpeg")
    images, problems = index()
    assert len(images) + sum(problem["action"] == LEFT_OUT for problem in problems) == len(FILES) + 1


@pytest.mark.parametrize("name", ["notes.txt", "labels.csv"])
def test_other_files_in_class_folders_are_ignored_but_reported(data_set, folder, name):
    write(folder, f"{NORMAL}/{name}")
    images, problems = index_images(data_set, folder)
    assert len(images) == len(FILES)
    (problem,) = problems.to_dict("records")
    assert problem["file"] == f"{NORMAL}/{name}"
    assert problem["problem"] == "is no image file"
    assert problem["action"] == IGNORED
    kept, _ = leave_out_unusable(images, problems)
    assert len(kept) == len(FILES), "counts as an image left out"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("IM-0116-0001", "text"),
        ("IM-0116-0001.dcm", "DICOM file"),
        ("IM-0116-0001.HEIC", "HEIC photograph"),
        ("IM-0116-0001.xyz", "text"),
    ],
)
def test_files_in_class_folders_that_are_not_read_are_left_out(data_set, folder, name, what):
    write(folder, f"{NORMAL}/{name}")
    images, problems = index_images(data_set, folder)
    assert len(images) == len(FILES)
    assert problems.to_numpy().tolist() == [
        [f"{NORMAL}/{name}", f"is no image that is read: {what}", LEFT_OUT, f"{NORMAL}/{name}"]
    ]
    with pytest.raises(InputError, match=r"^9\.1% of the images cannot be used"):
        leave_out_unusable(images, problems)


def test_what_cannot_be_opened_is_left_out(data_set, folder):
    os.mkfifo(folder / NORMAL / "IM-0116-0001.jpeg")
    (folder / NORMAL / "IM-0117-0001.jpeg").symlink_to("nowhere")
    (folder / "elsewhere.jpeg").symlink_to("nowhere")
    images, problems = index_images(data_set, folder)
    assert len(images) == len(FILES)
    assert problems["action"].tolist() == [LEFT_OUT, LEFT_OUT, IGNORED]
    assert problems["problem"].str.contains("pipe|leads nowhere|one of 1 files outside").all()


def test_a_folder_that_cannot_be_entered_is_left_out(data_set, folder, monkeypatch):
    scan = os.scandir

    def refuse(place):
        if str(place).endswith("val/NORMAL"):
            raise PermissionError(13, "Permission denied")
        return scan(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"in val/NORMAL/\. chest_xray/val/NORMAL/ cannot be entered \(Permission den"):
        index_images(data_set, folder)
    shutil.rmtree(folder / "chest_xray" / "val" / "PNEUMONIA")
    images, problems = index_images(data_set, folder)
    assert len(images) == len(FILES) - 2
    assert problems.iloc[0, :3].tolist() == [
        "chest_xray/val/NORMAL/",
        "cannot be entered (Permission denied)",
        LEFT_OUT,
    ]


def test_a_link_to_the_folder_above_is_followed_once(index, folder):
    expected, _ = index()
    (folder / "chest_xray" / "up").symlink_to("..")
    images, problems = index()
    pd.testing.assert_frame_equal(images, expected)
    assert problems == []


@pytest.mark.parametrize(("ending", "told"), [(".dcm", ".dcm"), ("", "(none)")])
def test_a_class_of_files_that_are_not_read_says_so(data_set, folder, ending, told):
    for path in sorted((folder / NORMAL).iterdir()):
        path.rename(path.with_suffix(ending))
    with pytest.raises(InputError) as caught:
        index_images(data_set, folder)
    assert f"no images in train/NORMAL/. train/NORMAL/ has 3 files with the ending {told}, which is not" in str(
        caught.value
    )


@pytest.mark.parametrize("magic", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_images_without_an_ending_are_used(index, folder, magic):
    (folder / NORMAL / "IM-0116-0001").write_bytes(magic)
    images, problems = index()
    assert images.loc["train/NORMAL/IM-0116-0001", "path"] == f"{NORMAL}/IM-0116-0001"
    assert problems == []


def test_names_of_any_bytes_stay_apart_and_can_be_printed(tmp_path):
    names = [f"{part}/{label}/1.jpg" for part in ("train", "test") for label in ("Benign", "Malignant")]
    write(tmp_path, *names, "train/Benign/\\xff.jpg", "train/Benign/\udcff.jpg", "train/Benign/\udcff.heic")
    images, problems = index_images(get_data_set("melanoma-isic"), tmp_path)
    odd = images[images["path"].str.contains("xff|\udcff")]
    assert odd["path"].tolist() == ["train/Benign/\\xff.jpg", "train/Benign/\udcff.jpg"]
    assert odd["image_id"].tolist() == ["train/Benign/\\xff", "train/Benign/\\xff (2)"]
    assert images["group"].is_unique
    assert problems["file"].tolist() == ["train/Benign/\\xff.heic"]


@pytest.mark.parametrize("place", [".", "chest_xray", "chest_xray/train", "chest_xray/train/other", f"{NORMAL}/kept"])
def test_images_outside_the_class_folders_are_left_out_and_listed(data_set, index, folder, place):
    """Other files there are none of the data set's business."""
    write(folder, f"{place}/IM-0116-0001.jpeg", f"{place}/notes.txt", f"{place}/IM-0117-0001.PNG")
    images, problems = index()
    assert len(images) == len(FILES)
    paths = [(Path(place) / name).as_posix() for name in ("IM-0116-0001.jpeg", "IM-0117-0001.PNG")]
    about = {"problem": f"lies in no class folder; expected {data_set.files}", "action": LEFT_OUT}
    assert problems == [{"file": path} | about | {"image_id": path} for path in paths]


def test_misplaced_images_count_as_left_out(data_set, folder):
    """Each of them, also where they are called alike."""
    write(folder, *(f"chest_xray/train/NORMAL/IM-{number:04}-0001.jpeg" for number in range(2000, 2030)))
    images, problems = index_images(data_set, folder)
    assert problems.empty
    write(folder, "chest_xray/train/IM-0116-0001.jpeg", "chest_xray/IM-0116-0001.jpeg")
    images, problems = index_images(data_set, folder)
    kept, _ = leave_out_unusable(images, problems)  # 2 of 42
    assert len(kept) == len(FILES) + 30
    write(folder, "IM-0116-0001.jpeg")
    images, problems = index_images(data_set, folder)
    with pytest.raises(InputError, match=r"^7\.0% of the images cannot be used") as caught:
        leave_out_unusable(images, problems)
    assert "lies in no class folder" in str(caught.value)


def test_images_of_macos_outside_the_class_folders_are_not_misplaced(index, folder):
    write(folder, "__MACOSX/IM-0116-0001.jpeg", "chest_xray/._IM-0116-0001.jpeg")
    (problem,) = index()[1]
    assert problem["problem"].startswith("2 files that systems and tools leave")


@pytest.mark.parametrize("ending", ["JPEG", "jpg", "png", "tif"])
def test_other_endings_of_images(index, folder, ending):
    write(folder, f"{NORMAL}/IM-0116-0001.{ending}")
    images, problems = index()
    assert images.loc["train/NORMAL/IM-0116-0001", "path"] == f"{NORMAL}/IM-0116-0001.{ending}"
    assert problems == []


@pytest.mark.parametrize("rename", [str.lower, str.upper, str.title])
def test_folder_names_in_other_case(index, folder, rename):
    expected, _ = index()
    for name in {name.rpartition("/")[0] for name in FILES}:
        (folder / "renamed" / rename(name)).parent.mkdir(parents=True, exist_ok=True)
        (folder / "chest_xray" / name).rename(folder / "renamed" / rename(name))
    shutil.rmtree(folder / "chest_xray")
    images, problems = index()
    columns = ["label", "part", "group", "series", "number"]
    pd.testing.assert_frame_equal(images[columns].sort_index(), expected[columns].sort_index())
    assert all((folder / path).is_file() for path in images["path"])
    assert problems == []


def test_parts_and_classes_are_called_what_the_record_calls_them(data_set, folder):
    named_otherwise = dataclasses.replace(data_set, expected_counts={"TRAIN": 6, "Val": 2, "tesT": 2})
    images, _ = index_images(named_otherwise, folder)
    assert images["part"].unique().tolist() == ["TRAIN", "Val", "tesT"]
    assert images["image_id"].iloc[-1] == "tesT/PNEUMONIA/person12_virus_7"


@pytest.mark.parametrize("place", [".", "archive/ChestXRay2017/chest_xray"])
def test_parts_may_lie_at_any_depth(index, folder, place):
    expected, _ = index()
    shutil.move(folder / "chest_xray", folder / "moved")
    shutil.copytree(folder / "moved", folder / place, dirs_exist_ok=True)
    shutil.rmtree(folder / "moved")
    images, problems = index()
    pd.testing.assert_frame_equal(images.drop(columns="path"), expected.drop(columns="path"))
    assert problems == []


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("label", ["NORMAL", "PNEUMONIA"])
@pytest.mark.parametrize("empty", [True, False])
def test_missing_class_folder_is_named_with_what_is_expected(data_set, folder, part, label, empty):
    missing = folder / "chest_xray" / part / label
    shutil.rmtree(missing)
    if empty:
        write(missing, "notes.txt", "._IM-0115-0001.jpeg")
    with pytest.raises(InputError) as caught:
        index_images(data_set, folder)
    message = str(caught.value)
    assert message.startswith(f"{folder} has no images in {part}/{label}/. ")
    assert f"Expected: {data_set.files}." in message
    assert "Fetch the original again, or set DATA_SOURCE=sample" in message


def test_all_missing_class_folders_of_a_part_are_named(data_set, folder):
    shutil.rmtree(folder / "chest_xray" / "test")
    with pytest.raises(InputError, match="has no images in test/NORMAL/, test/PNEUMONIA/"):
        index_images(data_set, folder)


def test_val_may_be_missing_as_a_whole(index, folder):
    shutil.rmtree(folder / "chest_xray" / "val")
    images, problems = index()
    assert images["part"].unique().tolist() == ["train", "test"]
    assert problems == []


@pytest.mark.parametrize("label", ["NORMAL", "PNEUMONIA"])
def test_val_may_not_be_half_there(data_set, folder, label):
    shutil.rmtree(folder / "chest_xray" / "val" / label)
    with pytest.raises(InputError, match=f"has no images in val/{label}/. Expected: "):
        index_images(data_set, folder)


@pytest.mark.parametrize("files_of_macos", [[], FILES])
def test_an_empty_folder_ends_in_an_input_error(data_set, tmp_path, files_of_macos):
    write(tmp_path / "chest_xray" / "__MACOSX", *files_of_macos)
    with pytest.raises(InputError, match="has no images in train/NORMAL/, train/PNEUMONIA/"):
        index_images(data_set, tmp_path)


def test_nothing_usable_says_what_was_found(data_set, folder):
    for name in FILES:
        path = folder / "chest_xray" / name
        path.rename(path.with_name(path.name.replace("-", "_").replace("person", "patient")))
    with pytest.raises(InputError) as caught:
        index_images(data_set, folder)
    message = str(caught.value)
    assert message.startswith(f"{folder}: no image can be used. Expected: {data_set.files}.")
    assert f"{len(FILES)} times: its name does not tell its group" in message


def test_classes_exchanged_throughout_leave_nothing_usable(data_set, folder):
    for part in ("train", "val", "test"):
        (folder / "chest_xray" / part / "NORMAL").rename(folder / "kept")
        (folder / "chest_xray" / part / "PNEUMONIA").rename(folder / "chest_xray" / part / "NORMAL")
        (folder / "kept").rename(folder / "chest_xray" / part / "PNEUMONIA")
    with pytest.raises(InputError, match="no image can be used") as caught:
        index_images(data_set, folder)
    assert "5 times: its name says PNEUMONIA" in str(caught.value)
    assert "5 times: its name says NORMAL" in str(caught.value)


def test_every_problem_is_listed(index, folder):
    write(folder, f"{NORMAL}/scan.jpeg", f"{NORMAL}/notes.txt", f"{PNEUMONIA}/IM-0116-0001.jpeg", "__MACOSX/._train")
    write(folder, f"chest_xray/{NORMAL}/IM-0115-0001.jpeg", content="another x-ray")
    images, problems = index()
    assert len(images) == len(FILES) + 1
    actions = [problem["action"] for problem in problems]
    assert sorted(actions) == ["all used", *[IGNORED] * 2, *[LEFT_OUT] * 2]


OWN = ["validation/NORMAL/IM-9-0001.jpeg", "validation/PNEUMONIA/person9_virus_1.jpeg", "kept/person9_virus_2.jpeg"]


def test_folders_beside_the_shipped_ones_are_set_aside_in_one_line(data_set, folder):
    write(folder / "chest_xray", *OWN)
    images, problems = index_images(data_set, folder)
    assert len(images) == len(FILES)
    assert problems.to_numpy()[:, :3].tolist() == [
        ["chest_xray/kept/", "holds 1 images, but is no folder of the data set", IGNORED],
        ["chest_xray/validation/", "holds 2 images, but is no folder of the data set", IGNORED],
    ]
    assert len(leave_out_unusable(images, problems)[0]) == len(FILES)


@pytest.mark.parametrize(
    ("shipped", "there", "told"),
    [
        ("test", "testing", "chest_xray/testing/ with 2 images: rename it to test/ if"),
        ("train", "own", "chest_xray/own/ with 6 images: rename it if"),
        ("train/NORMAL", "train/NORMALS", "chest_xray/train/NORMALS/ with 3 images: rename it to NORMAL/ if"),
    ],
)
def test_a_part_or_class_under_another_name_is_named(data_set, folder, shipped, there, told):
    (folder / "chest_xray" / shipped).rename(folder / "chest_xray" / there)
    with pytest.raises(InputError) as caught:
        index_images(data_set, folder)
    assert f"There is {told} it is what is missing. Expected: " in str(caught.value)


def test_the_parts_under_other_names_are_named(data_set, folder):
    for part in ("train", "val", "test"):
        (folder / "chest_xray" / part).rename(folder / "chest_xray" / f"{part}ing set")
    with pytest.raises(InputError, match=r"There is chest_xray/training set/ with 6 images: rename it to train/ if it"):
        index_images(data_set, folder)


@pytest.mark.parametrize("order", ["backwards", "shuffled"])
def test_the_order_does_not_depend_on_that_of_the_file_system(data_set, folder, monkeypatch, order):
    write(folder, f"{NORMAL}/scan.jpeg", f"{PNEUMONIA}/notes.txt", f"{NORMAL}/IM-0115-0001.png")
    write(folder, "a/train/NORMAL/IM-0117-0001.jpeg", "b/train/NORMAL/IM-0117-0001.jpeg")
    expected = index_images(data_set, folder)
    scan, rng = os.scandir, np.random.default_rng(0)

    def scan_otherwise(*args):
        found = list(scan(*args))
        order_of_found = range(len(found))[::-1] if order == "backwards" else rng.permutation(len(found))
        return nullcontext([found[number] for number in order_of_found])

    monkeypatch.setattr(os, "scandir", scan_otherwise)
    for found, before in zip(index_images(data_set, folder), expected, strict=True):
        pd.testing.assert_frame_equal(found, before)


def test_rows_are_ordered_by_part_however_deep_and_whatever_the_alphabet(index, folder):
    shutil.move(folder / "chest_xray" / "train", folder / "unpacked" / "further" / "chest_xray" / "train")
    images, _ = index()
    assert images["part"].drop_duplicates().tolist() == ["train", "val", "test"]
    assert images["part"].ne(images["part"].shift()).sum() == 3


def test_class_folders_that_are_links(index, folder, tmp_path_factory):
    expected, _ = index()
    elsewhere = tmp_path_factory.mktemp("disk") / "NORMAL"
    (folder / NORMAL).rename(elsewhere)
    (folder / NORMAL).symlink_to(elsewhere, target_is_directory=True)
    images, problems = index()
    pd.testing.assert_frame_equal(images, expected)
    assert problems == []


def test_a_folder_named_like_an_image_is_no_image(index, folder):
    (folder / NORMAL / "IM-0116-0001.jpeg").mkdir()
    images, problems = index()
    assert len(images) == len(FILES)
    assert problems == []


PLANTS = "New Plant Diseases Dataset(Augmented)"
LEAVES = f"{PLANTS}/{PLANTS}"
SCAB, POTATO = "Apple___Apple_scab", "Potato___healthy"
LEAF = "005a2c1f-4e15-49e4-9e5c-61dc3ecf9708"
LEAF_FILES = [
    *(
        f"{LEAVES}/{part}/{SCAB}/{LEAF}___FREC_Scab 3335{mark}.JPG"
        for part, mark in (("train", ""), ("valid", "_90deg"))
    ),
    *(f"{LEAVES}/{part}/{POTATO}/{part}___RS_HL 1834.JPG" for part in ("train", "valid")),
]


@pytest.fixture
def index_plants(tmp_path):
    """Write files that have the names of the plant diseases, and index them with some more; give table and problems."""
    write(tmp_path, *LEAF_FILES)

    def run(*more):
        write(tmp_path, *more)
        images, problems = index_images(get_data_set("plants"), tmp_path)
        return images.set_index("image_id"), problems.to_dict("records")

    return run


def test_without_patterns_of_names_each_image_is_its_own_group(tmp_path):
    names = [
        f"melanoma_cancer_dataset/{part}/{label}/melanoma_{number}.jpg"
        for part in ("train", "test")
        for label in ("benign", "malignant")
        for number in (0, 1)
    ]
    write(tmp_path, *names, "melanoma_cancer_dataset/train/benign/whatever (2).png")
    images, problems = index_images(get_data_set("melanoma"), tmp_path)
    assert problems.empty
    assert images.columns.tolist() == ["image_id", "path", "label", "group", "part"]
    assert set(images["path"]) == {*names, "melanoma_cancer_dataset/train/benign/whatever (2).png"}
    assert images["group"].tolist() == images["image_id"].tolist()
    assert images["group"].is_unique


def test_classes_that_a_copy_lacks_are_reported_once(index_plants):
    images, (problem,) = index_plants()
    assert images["label"].unique().tolist() == [SCAB, POTATO]
    assert problem["problem"].startswith("36 of 38 classes are not in this copy: Apple___Black_rot, Apple___Cedar_")
    assert problem["problem"].endswith(", Tomato___healthy")
    assert SCAB not in problem["problem"]
    assert problem["action"] == IGNORED
    assert pd.isna(problem["image_id"])


def test_a_copy_with_all_classes_is_not_remarked_on(index_plants):
    data_set = get_data_set("plants")
    parts = [(part, label) for part in ("train", "valid") for label in data_set.class_names]
    images, problems = index_plants(*(f"{LEAVES}/{part}/{label}/{part}___{label} 1.JPG" for part, label in parts))
    assert images["label"].unique().tolist() == list(data_set.class_names)
    assert problems == []


@pytest.mark.parametrize(("there", "missing"), [("train", "valid"), ("valid", "train")])
def test_a_class_of_one_part_is_missing_in_the_other(index_plants, there, missing):
    with pytest.raises(
        InputError, match=rf"has no images in {missing}/Grape___healthy/\. Expected: images in New Plant"
    ):
        index_plants(f"{LEAVES}/{there}/Grape___healthy/x___Mt.N.V_HL 6067.JPG")


def test_one_class_alone_is_no_data_set(tmp_path):
    write(tmp_path, *LEAF_FILES[:2])
    with pytest.raises(InputError, match="has images of 1 of 38 classes, at least 2 are needed"):
        index_images(get_data_set("plants"), tmp_path)


@pytest.mark.parametrize("empty", [True, False])
def test_no_class_at_all_is_no_data_set(tmp_path, empty):
    write(tmp_path, *([] if empty else [f"{LEAVES}/train/notes.txt"]))
    with pytest.raises(InputError, match="has images of 0 of 38 classes"):
        index_images(get_data_set("plants"), tmp_path)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("AppleCedarRust1", "Apple___Cedar_apple_rust"),
        ("AppleScab3", SCAB),
        ("CornCommonRust2", "Corn_(maize)___Common_rust_"),
        ("PotatoEarlyBlight5", "Potato___Early_blight"),
        ("PotatoHealthy12", POTATO),
        ("TomatoEarlyBlight6", "Tomato___Early_blight"),
        ("TomatoHealthy4", "Tomato___healthy"),
        ("TomatoYellowCurlVirus1", "Tomato___Tomato_Yellow_Leaf_Curl_Virus"),
        ("potatohealthy1", POTATO),
        ("POTATOHEALTHY1", POTATO),
        ("PotatoHealthy", POTATO),
        ("PotatoHealthy_2", POTATO),
        ("PotatoHealthy 2", POTATO),
        ("PotatoHealthy (2)", POTATO),
    ],
)
def test_flat_images_have_their_class_in_the_name(index_plants, name, label):
    images, problems = index_plants(
        *(f"{LEAVES}/{part}/{label}/x___x 1.JPG" for part in ("train", "valid")), f"test/test/{name}.JPG"
    )
    row = images.loc[f"test/{label}/{name}"]
    assert row[["path", "label", "group", "part"]].tolist() == [f"test/test/{name}.JPG", label, row.name, "test"]
    assert [problem["action"] for problem in problems] == [IGNORED]


@pytest.mark.parametrize("place", ["test", "Test/TEST"])
def test_the_flat_folder_may_be_in_another_and_in_any_case(index_plants, place):
    images, problems = index_plants(f"{place}/PotatoHealthy1.JPG")
    assert images.loc[f"test/{POTATO}/PotatoHealthy1", "path"] == f"{place}/PotatoHealthy1.JPG"
    assert len(problems) == 1


def test_the_flat_folder_lies_beside_the_folder_of_the_others(index_plants, tmp_path):
    images, problems = index_plants("archive/test/test/PotatoHealthy1.JPG")
    assert len(images) == len(LEAF_FILES)
    assert problems[0]["file"] == "archive/"
    (tmp_path / PLANTS).rename(tmp_path / "archive" / PLANTS)
    images, problems = index_images(get_data_set("plants"), tmp_path)
    assert images["path"].iloc[-1] == "archive/test/test/PotatoHealthy1.JPG"
    assert len(problems) == 1


@pytest.mark.parametrize(
    "name", ["Leaf1", "PotatoHealthyish1", "HealthyPotato1", "1", "Potato1Healthy", "xPotatoHealthy1"]
)
def test_flat_images_of_unknown_names_are_left_out(index_plants, name):
    images, problems = index_plants(f"test/test/{name}.JPG", "test/test/PotatoHealthy1.JPG")
    assert len(images) == len(LEAF_FILES) + 1
    (problem,) = (problem for problem in problems if problem["action"] == LEFT_OUT)
    assert problem == {
        "file": f"test/test/{name}.JPG",
        "problem": "its name does not tell its class",
        "action": LEFT_OUT,
        "image_id": f"test/test/{name}.JPG",
    }


def test_other_files_in_a_flat_folder_are_ignored_but_reported(index_plants):
    images, problems = index_plants(
        "test/test/PotatoHealthy1.JPG", "test/test/notes.txt", "test/test/._PotatoHealthy1.JPG"
    )
    assert (images["part"] == "test").sum() == 1
    found = [problem["problem"] for problem in problems if "classes" not in problem["problem"]]
    assert found == ["is no image file", "1 files that systems and tools leave behind; they are no images"]


def test_flat_images_of_classes_that_are_not_there_are_ignored(index_plants):
    images, problems = index_plants("test/test/TomatoHealthy1.JPG", "test/test/AppleScab1 (2).JPG")
    assert images.loc[images["part"] == "test", "label"].tolist() == [SCAB]
    (problem,) = [each["problem"] for each in problems if each["file"].endswith("TomatoHealthy1.JPG")]
    assert problem == "its class, Tomato___healthy, is not in this copy"


def test_class_folders_in_a_part_that_has_none_are_set_aside(index_plants):
    images, problems = index_plants(f"test/{SCAB}/x___FREC_Scab 1.JPG", "test/test/PotatoHealthy1.JPG")
    assert len(images) == len(LEAF_FILES) + 1
    assert problems[0]["file"] == f"test/{SCAB}/"
    assert [problem["action"] for problem in problems] == [IGNORED] * 2


def test_the_flat_folder_may_be_missing(index_plants):
    assert index_plants()[0]["part"].unique().tolist() == ["train", "valid"]


def test_a_second_copy_in_a_folder_of_other_case_is_counted(index_plants, tmp_path):
    copies = [name.replace(PLANTS, PLANTS.lower(), 1) for name in LEAF_FILES]
    images, problems = index_plants(*copies)
    if not (tmp_path / PLANTS).samefile(tmp_path / PLANTS.lower()):
        assert problems[0]["problem"] == "4 second copies under the same part, class and name, with the same content"
    assert len(images) == len(LEAF_FILES)
    assert set(images["path"]) == set(LEAF_FILES)


def test_the_folder_of_lower_case_alone_will_do(tmp_path):
    names = [name.replace(PLANTS, PLANTS.lower(), 1) for name in LEAF_FILES]
    write(tmp_path, *names)
    images, problems = index_images(get_data_set("plants"), tmp_path)
    assert set(images["path"]) == set(names)
    assert len(problems) == 1


def test_a_leaf_in_train_and_valid_is_a_leak(index_plants):
    images, _ = index_plants()
    assert images["group"].nunique() == 3
    assert find_leaks(images, images["part"])["leaked"].to_dict() == {"train": 1, "valid": 1}


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("x___RS_Late.B 5096", "x___RS_Late.B 5096"),
        (f"{LEAF}___RS_Late.B 5096_newPixel25", f"{LEAF}___RS_Late.B 5096"),
        ("RS_Rust 1563", "RS_Rust 1563"),
        ("RS_Rust 1563_flipLR", "RS_Rust 1563"),
        ("x___R.S_HL 8315 copy", "x___R.S_HL 8315"),
        ("x___R.S_HL 8315 copy 2", "x___R.S_HL 8315"),
        ("x___R.S_HL 8315 copy 2_new30degFlipLR", "x___R.S_HL 8315"),
        ("x___GHLB_PS Leaf 15 Day 8_flipLR", "GHLB_PS Leaf 15"),
        ("y___GHLB_PS Leaf 15 Day 10", "GHLB_PS Leaf 15"),
        ("x___GHLB2 Leaf 149.3_90deg", "GHLB2 Leaf 149"),
        ("x___GHLB2 Leaf 149.3", "GHLB2 Leaf 149"),
        ("x___GHLB2 Leaf 9065", "GHLB2 Leaf 9065"),
        ("x___GHLB2 Leaf 9065_flipLR", "GHLB2 Leaf 9065"),
        ("x___GH_HL Leaf 308.1_new30degFlipLR", "GH_HL Leaf 308"),
        ("x___FREC_Scab 3335_new30degFlipTB", "x___FREC_Scab 3335"),
        ("x___FREC_C.Rust 3655_270deg", "x___FREC_C.Rust 3655"),
        ("x___Rutg._HL 2349_flipTB", "x___Rutg._HL 2349"),
        ("x___FREC_Scab 3335 ", "x___FREC_Scab 3335"),
        ("x___FREC_Scab 3335 _180deg", "x___FREC_Scab 3335"),
    ],
)
def test_names_of_leaves(index_plants, name, group):
    place = f"train/{POTATO}/{name}"
    images, problems = index_plants(f"{LEAVES}/{place}.JPG")
    assert images.loc[place, "group"] == group
    assert len(problems) == 1


def test_archives_are_named_with_the_command_that_unpacks_them(folder, index):
    for name in ("val.zip", "train/NORMAL.tar.gz", "train/NORMAL/more.7z"):
        write(folder / "chest_xray", name)
    _, problems = index()
    assert {each["file"]: each["action"] for each in problems} == {
        f"chest_xray/{name}": IGNORED for name in ("val.zip", "train/NORMAL.tar.gz", "train/NORMAL/more.7z")
    }
    shutil.rmtree(folder / NORMAL)
    place = folder / "chest_xray/train"
    told = (
        "chest_xray/train/NORMAL.tar.gz is packed: "
        f"unpack it with python -m tarfile --filter data -e {place}/NORMAL.tar.gz {place}"
    )
    with pytest.raises(InputError, match=re.escape(told)):
        index()
