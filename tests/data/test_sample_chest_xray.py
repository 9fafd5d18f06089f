"""The built-in sample of chest X-rays: the original's layout with its traps, learnable."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.data.audit import (
    check_split,
    find_conflicts,
    find_leaks,
    join_groups,
    leave_out_contradictions,
    leave_out_unusable,
)
from helpers.data.catalog import get_data_set
from helpers.data.layouts.common import IGNORED
from helpers.data.pixels import hash_files, load_pixels
from helpers.data.split import split_by_group
from samples import make_sample

PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def data_set():
    return get_data_set("chest-xray")


@pytest.fixture(scope="module")
def folder(data_set, cache_with_samples):
    return make_sample(data_set, cache_with_samples / "samples")


@pytest.fixture(scope="module")
def pixels(images, folder, cache):
    return load_pixels(images, folder, (40, 40, 1), cache)[..., 0].astype(float)


def list_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_nothing_is_wrong_with_it_but_the_second_copies_and_the_files_of_macos(indexed, measured):
    images, problems = indexed
    kept, problems = leave_out_unusable(images, problems, measured)
    assert problems["file"].tolist() == ["*/chest_xray", "__MACOSX/, .*"]
    assert problems["problem"].tolist() == [
        f"{len(images):,} second copies under the same part, class and name, with the same content",
        "3 files that systems and tools leave behind; they are no images",
    ]
    assert problems["action"].tolist() == [IGNORED] * 2
    assert len(kept) == len(images)
    assert find_conflicts(images).empty


def test_layout_is_that_of_the_original(data_set, folder, images):
    names = list_files(folder)
    assert {name.split("/")[0] for name in names} == {"chest_xray"}
    shipped = {name for name in names if name.count("/") == 3 and "__MACOSX" not in name}
    assert shipped == set(images["path"])
    assert {name.rpartition("/")[0] for name in shipped} == {
        f"chest_xray/{part}/{label}" for part in PARTS for label in data_set.class_names
    }
    place = "chest_xray/" + images["part"] + "/" + images["label"] + "/"
    stems = [path.removeprefix(start) for path, start in zip(images["path"], place, strict=True)]
    normal = (images["label"] == "NORMAL").to_numpy()
    assert pd.Series(stems)[normal].str.fullmatch(r"(NORMAL2-)?IM-\d{4}-0001\.jpeg").all()
    assert pd.Series(stems)[~normal].str.fullmatch(r"person\d+_(bacteria|virus)_\d+\.jpeg").all()


def test_files_are_jpegs(folder, images):
    for path in images["path"].iloc[[0, 200, -1]]:
        with Image.open(folder / path) as image:
            assert image.format == "JPEG"


def test_a_second_copy_lies_below(folder, images):
    root = folder / "chest_xray"
    copies = list_files(root / "chest_xray")
    assert [f"chest_xray/{name}" for name in copies] == sorted(images["path"])
    for name in copies:
        assert (root / "chest_xray" / name).read_bytes() == (root / name).read_bytes()


def test_files_of_macos_lie_beside(folder):
    (macos,) = folder.rglob("__MACOSX")
    names = list_files(macos)
    assert names == sorted(f"{part}/._IM-0001-0001.jpeg" for part in PARTS)
    for name in names:
        assert b"JFIF" not in (macos / name).read_bytes()


def test_two_identical_files_have_different_names_and_patients(folder, images):
    hashes = hash_files(images, folder)
    twins = images[hashes.duplicated(keep=False)]
    assert len(twins) == twins["group"].nunique() == 2
    assert twins["label"].tolist() == ["NORMAL"] * 2
    joined = join_groups(images, hashes)
    assert set(joined[twins.index]) == {twins["group"].iloc[0]}
    assert joined.nunique() == images["group"].nunique() - 1
    assert len(leave_out_contradictions(images.assign(group=joined), pd.DataFrame())[0]) == len(images)


def test_grey_images_are_stored_in_three_modes(folder, images, measured):
    shares = measured["mode"].value_counts(normalize=True)
    assert set(shares.index) == {"L", "RGB", "CMYK"}
    assert shares["L"] > 0.8
    assert shares["RGB"] > shares["CMYK"] > 0.005
    for part in ("train", "test"):
        assert set(measured.loc[images["part"] == part, "mode"]) == {"L", "RGB", "CMYK"}
    colours = measured[["red", "green", "blue"]]
    assert (colours.max(axis=1) - colours.min(axis=1)).max() < 3


def test_images_of_every_mode_are_positives(pixels):
    """A CMYK image that was read as a negative would be the opposite of the others."""
    flat = pixels.reshape(len(pixels), -1)
    assert np.corrcoef(np.vstack([np.median(flat, axis=0), flat]))[0].min() > 0.5


def test_patients_with_pneumonia_have_one_or_several_images(images):
    sizes = images.groupby(["label", "group"]).size()
    assert set(sizes["NORMAL"]) == {1}
    assert set(sizes["PNEUMONIA"]) == {1, 2, 3, 4}
    assert 0.3 < (sizes["PNEUMONIA"] == 1).mean() < 0.6


def test_numbers_of_images_go_on_from_patient_to_patient(images):
    sick = images[images["label"] == "PNEUMONIA"]
    sick = sick.assign(image=sick["image_id"].str.rpartition("_")[2].astype(int))
    for _, rows in sick.groupby(["part", "series"]):
        rows = rows.sort_values("image")
        assert rows["image"].diff().dropna().eq(1).all()
        assert rows["number"].is_monotonic_increasing


def test_sizes_differ_by_class_and_overlap(images, measured):
    sizes = measured[["width", "height"]].assign(aspect=measured["width"] / measured["height"])
    normal, sick = (sizes[images["label"] == label] for label in ("NORMAL", "PNEUMONIA"))
    assert normal["width"].mean() > 1.08 * sick["width"].mean()
    assert normal["height"].mean() > 1.15 * sick["height"].mean()
    assert normal["aspect"].mean() < 0.95 * sick["aspect"].mean()
    for name in sizes:
        assert normal[name].std() > 0
        low, high = sorted([normal[name], sick[name]], key=np.mean)
        assert high.min() < low.max(), "one size tells the class of every image"


def test_the_classes_are_mixed_otherwise_in_test_than_in_train(images):
    shares = (images["label"] == "PNEUMONIA").groupby(images["part"]).mean()
    assert 0.7 < shares["train"] < 0.78
    assert 0.6 < shares["test"] < shares["train"] - 0.03


def test_parts_are_as_uneven_as_those_of_the_original(images):
    counts = images["part"].value_counts()
    assert counts.index.tolist() == ["train", "test", "val"]
    assert counts["val"] == 16
    assert counts["train"] > 2.5 * counts["test"]
    assert images.groupby(["part", "label"]).size().min() >= 8


def test_test_was_exposed_in_another_way(images, pixels):
    darkest = pd.Series(np.quantile(pixels, 0.02, axis=(1, 2))).groupby(images["part"]).mean()
    brightness = pd.Series(pixels.mean((1, 2))).groupby([images["part"], images["label"]]).mean()
    assert darkest["test"] > darkest["train"] + 5
    assert abs(darkest["val"] - darkest["train"]) < 5
    assert (brightness["test"] > brightness["train"] + 8).all()


def test_numbers_start_again_in_test(images):
    """Equal numbers in train and test are other patients: the files and the index keep them apart."""
    names = images["group"].str.removeprefix("test/")
    train, val, test = (set(names[images["part"] == part]) for part in PARTS)
    assert len(train & test) > 20
    assert not train & val
    assert not set(images.loc[images["part"] == "test", "group"]) & train
    assert find_leaks(images, images["part"])["leaked"].tolist() == [0, 0, 0]
    firsts = images.groupby(["part", "series"])["number"].min()
    for series in ("IM", "NORMAL2-IM", "virus"):
        assert firsts["test", series] < firsts["train", series]


def test_every_series_is_in_train_and_test(images):
    series = images.groupby("part")["series"].unique().map(set)
    assert series["train"] == series["test"] == {"IM", "NORMAL2-IM", "bacteria", "virus"}
    assert series["val"] == {"NORMAL2-IM", "bacteria"}


def test_it_can_be_split_into_training_and_validation(images):
    development = images[images["part"] != "test"].reset_index(drop=True)
    split = split_by_group(development, {"train": 0.85, "validation": 0.15})
    check_split(development, split)
    assert (pd.crosstab(development["label"], split) > 10).all(axis=None)


def test_images_of_a_patient_are_alike_but_not_the_same(images, pixels):
    """So that a split by image leaks: the image most like another is often one of the same patient."""
    rows = images[(images["part"] == "train") & (images["series"] == "bacteria")]
    rows = rows[rows["group"].duplicated(keep=False)]
    correlation = np.corrcoef(pixels[rows.index].reshape(len(rows), -1))
    np.fill_diagonal(correlation, -1)
    groups = rows["group"].to_numpy()
    by_chance = (groups == groups[:, None]).mean()
    assert correlation.max() < 0.9999
    assert (groups[correlation.argmax(1)] == groups).mean() > 6 * by_chance


@pytest.mark.parametrize("part", ["train", "test"])
def test_pneumonia_whitens_the_lungs_and_overlaps(images, pixels, part):
    """Lungs against the bodies beside them: classes differ, and no threshold tells them apart."""
    rows = (images["part"] == part).to_numpy()
    lungs = pixels[:, 12:26, [*range(8, 16), *range(24, 32)]].mean((1, 2))
    contrast = (lungs / pixels[:, 12:26, 19:21].mean((1, 2)))[rows]
    sick = (images["label"] == "PNEUMONIA").to_numpy()[rows]
    thresholds = np.linspace(contrast.min(), contrast.max(), 100)
    recalls = [((contrast > t)[sick].mean() + (contrast <= t)[~sick].mean()) / 2 for t in thresholds]
    assert contrast[sick].mean() > contrast[~sick].mean()
    assert 0.6 < max(recalls) < 0.99


def test_bacteria_whiten_one_side_and_viruses_both(images, pixels):
    left, right = pixels[:, 12:26, 8:16].mean((1, 2)), pixels[:, 12:26, 24:32].mean((1, 2))
    difference = pd.Series(np.abs(left - right)).groupby(images["series"]).std()
    assert difference["bacteria"] > 1.25 * difference["virus"]
    assert difference["bacteria"] > 2 * difference["IM"]
