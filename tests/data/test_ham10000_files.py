"""Finding HAM10000's image files: twins in lower-case folders, files of other systems, folders of other names."""

import shutil

import pytest
from PIL import Image

from helpers.data.catalog import get_data_set
from helpers.data.opening import LEFT_OUT, index_images

NAME = "HAM10000_metadata.csv"
PART_1, PART_2 = "HAM10000_images_part_1", "HAM10000_images_part_2"


@pytest.fixture
def data_set():
    return get_data_set("ham10000")


@pytest.fixture
def folder(tmp_path):
    """Write one image in each part."""
    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for number, part in enumerate((PART_1, PART_2), start=1):
        rows.append(f"HAM_{number},ISIC_{number},nv,histo,50.0,male,back")
        (tmp_path / part).mkdir()
        Image.new("RGB", (8, 6), (40 * number, 20, 30)).save(tmp_path / part / f"ISIC_{number}.jpg")
    (tmp_path / NAME).write_text("\n".join(rows))
    return tmp_path


@pytest.fixture
def twins(folder):
    """Add the lower-case twin of each folder, where the file system tells them apart."""
    if (folder / PART_1.lower()).exists():
        pytest.skip("the file system does not distinguish upper and lower case")
    for part in (PART_1, PART_2):
        shutil.copytree(folder / part, folder / part.lower())
    return folder


def test_twins_of_equal_size_are_one_image(data_set, twins):
    images, problems = index_images(data_set, twins)
    assert images["path"].tolist() == [f"{PART_1}/ISIC_1.jpg", f"{PART_2}/ISIC_2.jpg"]
    assert problems.empty


def test_twins_of_different_size_are_reported_and_the_original_is_used(data_set, twins):
    twin = twins / PART_2.lower() / "ISIC_2.jpg"
    twin.write_bytes(twin.read_bytes()[:-1])
    images, problems = index_images(data_set, twins)
    assert images["path"].tolist() == [f"{PART_1}/ISIC_1.jpg", f"{PART_2}/ISIC_2.jpg"]
    assert problems.drop(columns="image_id").to_dict("records") == [
        {
            "file": f"{PART_2.lower()}/ISIC_2.jpg",
            "problem": f"has the name of {PART_2}/ISIC_2.jpg, but another size",
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


@pytest.mark.parametrize("ending", ["JPG", "jpeg", "png"])
def test_other_endings_of_images(data_set, folder, ending):
    (folder / PART_1 / "ISIC_1.jpg").rename(folder / PART_1 / f"ISIC_1.{ending}")
    images, problems = index_images(data_set, folder)
    assert images["path"].tolist() == [f"{PART_1}/ISIC_1.{ending}", f"{PART_2}/ISIC_2.jpg"]
    assert problems.empty


@pytest.mark.parametrize(
    ("place", "part"),
    [
        (".", "other"),
        ("images", "other"),
        ("all/ham10000_IMAGES_part_2/x", PART_2),
        (f"{PART_1}/{PART_1}", PART_1),  # unpacked into a folder of the same name
        (f"{PART_1}_old", "other"),
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
    (folder / PART_1 / "ISIC_1.jpg").rename(folder / "kept")
    (folder / PART_1 / "ISIC_1.jpg").mkdir()
    images, problems = index_images(data_set, folder)
    assert images["image_id"].tolist() == ["ISIC_2"]
    assert problems["problem"].tolist() == ["ISIC_1 is listed, but there is no such image"]
