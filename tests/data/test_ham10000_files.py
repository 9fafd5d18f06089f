"""Finding HAM10000's image files: twins in lower-case folders, files of other systems, folders of other names."""

import dataclasses
import errno
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from helpers.data.catalog import get_data_set
from helpers.data.opening import LEFT_OUT, index_images
from helpers.files import InputError

NAME = "HAM10000_metadata.csv"
PART_1, PART_2 = "HAM10000_images_part_1", "HAM10000_images_part_2"


@pytest.fixture
def data_set():
    return dataclasses.replace(get_data_set("ham10000"), class_names=("mel", "nv"))


@pytest.fixture
def folder(tmp_path):
    """Write one image in each part."""
    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for number, part in enumerate((PART_1, PART_2), start=1):
        rows.append(f"HAM_{number},ISIC_{number},{'mel' if number == 1 else 'nv'},histo,50.0,male,back")
        (tmp_path / part).mkdir()
        Image.new("RGB", (8, 6), (40 * number, 20, 30)).save(tmp_path / part / f"ISIC_{number}.jpg")
    (tmp_path / NAME).write_text("\n".join(rows))
    return tmp_path


def list_image(folder, number, dx="mel"):
    with open(folder / NAME, "a") as file:
        file.write(f"\nHAM_{number},ISIC_{number},{dx},histo,50.0,male,back")


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (200, 7 * seed, 30)).save(path)


@pytest.fixture
def twins(folder):
    """Add the lower-case twin of each folder, where the file system tells them apart."""
    if (folder / PART_1.lower()).exists():
        pytest.skip("the file system does not distinguish upper and lower case")
    for part in (PART_1, PART_2):
        shutil.copytree(folder / part, folder / part.lower())
    return folder


def test_twins_of_equal_content_are_one_image(data_set, twins):
    images, problems = index_images(data_set, twins)
    assert images["path"].tolist() == [f"{PART_1}/ISIC_1.jpg", f"{PART_2}/ISIC_2.jpg"]
    assert problems.empty


@pytest.mark.parametrize("end", [b"", b"x"], ids=["another size", "the same size"])
def test_twins_with_another_content_are_reported_and_the_original_is_used(data_set, twins, end):
    twin = twins / PART_2.lower() / "ISIC_2.jpg"
    twin.write_bytes(twin.read_bytes()[:-1] + end)
    images, problems = index_images(data_set, twins)
    assert images["path"].tolist() == [f"{PART_1}/ISIC_1.jpg", f"{PART_2}/ISIC_2.jpg"]
    assert problems.drop(columns="image_id").to_dict("records") == [
        {
            "file": f"{PART_2.lower()}/ISIC_2.jpg",
            "problem": f"has the name of {PART_2}/ISIC_2.jpg, but another content",
            "action": f"{PART_2}/ISIC_2.jpg used",
        }
    ]


def test_a_twin_stands_in_for_a_missing_image(data_set, twins):
    (twins / PART_1 / "ISIC_1.jpg").unlink()
    images, problems = index_images(data_set, twins)
    assert images["path"].tolist() == [f"{PART_1.lower()}/ISIC_1.jpg", f"{PART_2}/ISIC_2.jpg"]
    assert images["part"].tolist() == [PART_1, PART_2]
    assert problems.empty


def test_only_the_lower_case_folders_are_there(data_set, twins):
    for part in (PART_1, PART_2):
        shutil.rmtree(twins / part)
    images, problems = index_images(data_set, twins)
    assert images["path"].tolist() == [f"{PART_1.lower()}/ISIC_1.jpg", f"{PART_2.lower()}/ISIC_2.jpg"]
    assert images["part"].tolist() == [PART_1, PART_2]
    assert problems.empty


@pytest.mark.parametrize("hidden", [f"{PART_1}/._ISIC_1.jpg", "__MACOSX/._ISIC_2.jpg", f"{PART_1}/.ISIC_3.jpg"])
def test_hidden_files_of_other_systems_are_no_images(data_set, folder, hidden):
    expected, _ = index_images(data_set, folder)
    (folder / hidden).parent.mkdir(exist_ok=True)
    (folder / hidden).write_bytes(b"\x00\x05\x16\x07Mac OS X")
    images, problems = index_images(data_set, folder)
    assert images.equals(expected)
    assert problems.empty


@pytest.mark.parametrize("other", ["hmnist_28_28_RGB.csv", f"{PART_1}/Thumbs.db", f"{PART_1}/readme.txt", "LICENSE"])
def test_other_files_are_no_images(data_set, folder, other):
    (folder / other).write_bytes(b"other")
    images, problems = index_images(data_set, folder)
    assert len(images) == 2
    assert problems.empty


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".png", ".jfif", ""])
def test_other_endings_of_images(data_set, folder, ending):
    (folder / PART_1 / "ISIC_1.jpg").rename(folder / PART_1 / f"ISIC_1{ending}")
    images, problems = index_images(data_set, folder)
    assert images["path"].tolist() == [f"{PART_1}/ISIC_1{ending}", f"{PART_2}/ISIC_2.jpg"]
    assert problems.empty


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("images", "other"),
        ("all/ham10000_IMAGES_part_2", PART_2),
        (f"{PART_1}/{PART_1}", PART_1),  # unpacked into a folder of the same name
    ],
)
def test_images_in_other_folders_are_found(data_set, folder, place, part):
    (folder / place).mkdir(parents=True, exist_ok=True)
    (folder / PART_1 / "ISIC_1.jpg").rename(folder / place / "ISIC_1.jpg")
    images, problems = index_images(data_set, folder)
    assert images["image_id"].tolist() == ["ISIC_1", "ISIC_2"]
    assert (folder / images["path"].iloc[0]).samefile(folder / place / "ISIC_1.jpg")
    assert images["part"].tolist() == [part, PART_2]
    assert problems.empty


@pytest.mark.parametrize("place", [".", "masks", f"{PART_1}_old", f"{PART_2}/masks"])
def test_no_other_folder_stands_in_where_there_is_one_of_the_catalog(data_set, folder, place):
    list_image(folder, 3)
    write_image(folder / PART_1 / "ISIC_3.jpg", 3)
    (folder / place).mkdir(exist_ok=True)
    (folder / PART_1 / "ISIC_1.jpg").rename(folder / place / "ISIC_1.png")
    images, problems = index_images(data_set, folder)
    assert images["image_id"].tolist() == ["ISIC_2", "ISIC_3"]
    assert problems[["file", "problem", "action"]].to_numpy().tolist() == [
        [f"{NAME}, line 2", "ISIC_1 is listed, but there is no such image", LEFT_OUT],
        [f"{place}/", "1 files that lie outside the folders of the images", "ignored"],
    ]


def test_the_part_is_where_the_image_lies_not_what_its_number_says(data_set, folder):
    (folder / PART_1 / "ISIC_1.jpg").rename(folder / PART_2 / "ISIC_1.jpg")
    images, _ = index_images(data_set, folder)
    assert images["part"].tolist() == [PART_2, PART_2]


def test_unlisted_files_are_left_out_by_name(data_set, folder):
    for name in ("ISIC_8.jpg", "ISIC_1-checkpoint.jpg"):
        shutil.copy(folder / PART_1 / "ISIC_1.jpg", folder / PART_1 / name)
    images, problems = index_images(data_set, folder)
    assert images["image_id"].tolist() == ["ISIC_1", "ISIC_2"]
    assert problems["file"].tolist() == [f"{PART_1}/ISIC_1-checkpoint.jpg", f"{PART_1}/ISIC_8.jpg"]
    assert problems["image_id"].tolist() == ["ISIC_1-checkpoint", "ISIC_8"]
    assert set(problems["action"]) == {LEFT_OUT}


def test_part_folders_that_are_links(data_set, folder, tmp_path_factory):
    """Large folders often lie on another disk."""
    elsewhere = tmp_path_factory.mktemp("disk") / PART_1
    (folder / PART_1).rename(elsewhere)
    (folder / PART_1).symlink_to(elsewhere, target_is_directory=True)
    images, problems = index_images(data_set, folder)
    assert images["image_id"].tolist() == ["ISIC_1", "ISIC_2"]
    assert problems.empty


def test_a_folder_named_like_an_image_is_no_image(data_set, folder):
    list_image(folder, 3)
    write_image(folder / PART_2 / "ISIC_3.jpg", 3)
    (folder / PART_1 / "ISIC_1.jpg").rename(folder / ".kept")
    (folder / PART_1 / "ISIC_1.jpg").mkdir()
    images, problems = index_images(data_set, folder)
    assert images["image_id"].tolist() == ["ISIC_2", "ISIC_3"]
    assert problems["problem"].tolist() == ["ISIC_1 is listed, but there is no such image"]


PLACES = ["GroundTruth", "128x128", "masks", f"{PART_1}/masks", f"zoomed/{PART_1}", "images", "."]


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("place", PLACES)
def test_other_images_under_the_same_names_are_set_aside(data_set, folder, place, ending):
    """Whatever the alphabet: masks, thumbnails and the like are never taken for the images, not even for a lost one."""
    list_image(folder, 3)
    expected, _ = index_images(data_set, folder)
    for number in range(1, 5):
        write_image(folder / place / f"ISIC_{number}.{ending}", number)
    images, problems = index_images(data_set, folder)
    pd.testing.assert_frame_equal(images, expected)
    about = problems[problems["file"] == f"{place}/"]
    assert about["action"].tolist() == ["ignored"]
    assert "3 files that are other images under the same names" in about["problem"].iloc[0]
    assert f"1 files that {NAME} does not list" in about["problem"].iloc[0]
    assert problems["problem"].tolist()[:-1] == ["ISIC_3 is listed, but there is no such image"]


@pytest.mark.parametrize("first", ["images", "."])
def test_the_folder_images_and_the_folder_itself_go_before_others(data_set, folder, first):
    for number, part in enumerate((PART_1, PART_2), start=1):
        (folder / first).mkdir(exist_ok=True)
        (folder / part / f"ISIC_{number}.jpg").rename(folder / first / f"ISIC_{number}.jpg")
        write_image(folder / "A" / f"ISIC_{number}.png", number)
    (folder / "LICENSE").write_text("terms")
    (folder / "README").symlink_to("nowhere")
    images, problems = index_images(data_set, folder)
    assert {(folder / path).parent for path in images["path"]} == {folder / first}
    assert problems["file"].tolist() == ["./", "A/"]
    shutil.copy(folder / images["path"].iloc[0], folder / first / "ISIC_9.jpg")
    _, problems = index_images(data_set, folder)
    assert problems.loc[problems["action"] == LEFT_OUT, "image_id"].tolist() == ["ISIC_9"]


def test_masks_beside_their_images_are_no_images(data_set, folder):
    write_image(folder / PART_1 / "ISIC_1.png", 1)
    write_image(folder / PART_1 / "ISIC_1.bmp", 2)
    images, problems = index_images(data_set, folder)
    assert images["path"].iloc[0] == f"{PART_1}/ISIC_1.jpg"
    assert problems["action"].tolist() == [f"{PART_1}/ISIC_1.jpg used"] * 2


def test_images_that_are_not_listed_are_one_line_for_each_other_folder(data_set, folder):
    for number in range(10, 19):
        write_image(folder / "ISIC2018_Task3_Test_Images" / f"ISIC_{number}.jpg", number)
        write_image(folder / "segmentations" / f"ISIC_{number}_segmentation.png", number)
    shutil.copytree(folder / PART_2, folder / "favourites")
    images, problems = index_images(data_set, folder)
    assert len(images) == 2
    assert problems.drop(columns="image_id").to_dict("records") == [
        {"file": f"{place}/", "problem": f"{count} files that {reason}", "action": "ignored"}
        for place, count, reason in (
            ("ISIC2018_Task3_Test_Images", 9, f"{NAME} does not list"),
            ("favourites", 1, "are second copies"),
            ("segmentations", 9, f"{NAME} does not list"),
        )
    ]


@pytest.fixture
def renamed(folder):
    """Move the images into a folder of another name."""
    for number, part in enumerate((PART_1, PART_2), start=1):
        (folder / "photos").mkdir(exist_ok=True)
        (folder / part / f"ISIC_{number}.jpg").rename(folder / "photos" / f"ISIC_{number}.jpg")
        (folder / part).rmdir()
    return folder


def test_several_folders_with_different_images_and_none_is_the_catalogs(data_set, renamed):
    for number in (1, 2):
        write_image(renamed / "hairless" / f"ISIC_{number}.jpg", number)
    with pytest.raises(InputError) as caught:
        index_images(data_set, renamed)
    message = str(caught.value)
    assert "2 names, such as isic_1, stand for different images in hairless/, photos/." in message
    assert f"Keep the folder with the original images, named {PART_1}" in message


def test_several_folders_with_the_same_images(data_set, renamed):
    shutil.copytree(renamed / "photos", renamed / "pictures")
    images, problems = index_images(data_set, renamed)
    assert images["path"].tolist() == ["photos/ISIC_1.jpg", "photos/ISIC_2.jpg"]
    assert set(images["part"]) == {"other"}
    about = "is one of 1 folders whose images are used, because none has the original's name"
    assert problems[["file", "problem", "action"]].to_numpy().tolist() == [
        ["photos/", about, "used"],
        ["pictures/", "2 files that are second copies", "ignored"],
    ]


@pytest.mark.parametrize("listed", [True, False])
def test_files_that_cannot_be_read_count(data_set, folder, listed):
    """A photograph of another format, a link that leads nowhere and a pipe in the folders of the images."""
    (folder / PART_1 / "ISIC_3.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / PART_2 / "ISIC_4.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / PART_2 / "ISIC_5.jpg")
    for number in (3, 4, 5) if listed else ():
        list_image(folder, number)
    images, problems = index_images(data_set, folder)
    assert images["image_id"].tolist() == ["ISIC_1", "ISIC_2"]
    assert problems["file"].tolist() == [f"{PART_1}/ISIC_3.heic", f"{PART_2}/ISIC_4.jpg", f"{PART_2}/ISIC_5.jpg"]
    assert problems["image_id"].tolist() == ["ISIC_3", "ISIC_4", "ISIC_5"]
    assert set(problems["action"]) == {LEFT_OUT}
    for problem, word in zip(problems["problem"], ("HEIC", "leads nowhere", "pipe"), strict=True):
        assert word in problem


def test_what_cannot_be_read_elsewhere_does_not_count(data_set, folder):
    (folder / "others").mkdir()
    (folder / "others" / "a.dcm").write_bytes(b"")
    (folder / "others" / "b.jpg").symlink_to("nowhere.jpg")
    images, problems = index_images(data_set, folder)
    assert len(images) == 2
    assert problems[["file", "problem", "action"]].to_numpy().tolist() == [
        ["others/", "2 files that cannot be read", "ignored"]
    ]


def test_folders_that_cannot_be_entered(data_set, folder, monkeypatch):
    (folder / "private").mkdir()
    scan = os.scandir

    def refuse(path):
        if Path(path).name in ("private", PART_1.upper()):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    list_image(folder, 3)
    write_image(folder / PART_2 / "ISIC_3.jpg", 3)
    (folder / PART_1).rename(folder / PART_1.upper())
    images, problems = index_images(data_set, folder)
    assert images["image_id"].tolist() == ["ISIC_2", "ISIC_3"]
    about = problems[problems["problem"].str.contains("cannot be entered")].set_index("file")["action"].to_dict()
    assert about == {PART_1.upper(): LEFT_OUT, "private/": "ignored"}
