"""The built-in sample of HAM10000: the original's layout with its traps, learnable."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.data.audit import compare_with_original, find_conflicts, leave_out_unusable
from helpers.data.catalog import get_data_set
from helpers.data.opening import index_images
from helpers.data.pixels import load_pixels, measure_images, read_pixel_table
from helpers.data.split import split_by_group
from samples import make_sample

NAME = "HAM10000_metadata.csv"
TABLE_CODES = ("akiec", "bcc", "bkl", "df", "nv", "vasc", "mel")  # of the original hmnist_28_28_RGB.csv


@pytest.fixture(scope="module")
def data_set():
    return get_data_set("ham10000")


@pytest.fixture(scope="module")
def folder(data_set, cache_with_samples):
    return make_sample(data_set, cache_with_samples / "samples")


def test_nothing_is_wrong_with_it(data_set, folder, images, cache):
    _, problems = index_images(data_set, folder)
    assert problems.empty
    measured = measure_images(images, folder, cache)
    kept, problems = leave_out_unusable(images, problems, measured)
    assert problems.empty
    assert len(kept) == len(images)
    assert (measured["mode"] == "RGB").all()
    assert measured[["width", "height"]].drop_duplicates().to_numpy().tolist() == [[200, 150]]


def test_layout_is_that_of_the_original(data_set, folder, images):
    table = pd.read_csv(folder / NAME)
    assert table.columns.tolist() == ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    assert table["lesion_id"].str.fullmatch(r"HAM_\d{7}").all()
    assert table["image_id"].str.fullmatch(r"ISIC_\d{7}").all()
    assert table["image_id"].is_unique
    assert not table["image_id"].is_monotonic_increasing
    assert set(table["dx"]) == set(data_set.class_names)
    assert images["metadata_row"].tolist() == list(range(len(table)))
    parts = images["part"].value_counts()
    assert set(parts.index) == set(data_set.expected_counts)
    assert abs(parts.iloc[0] - parts.iloc[1]) <= 1
    assert (compare_with_original(images, data_set)["found"] > 200).all()


def test_the_lower_case_folders_hold_the_same_images_again(data_set, folder):
    for part in data_set.expected_counts:
        if (folder / part).samefile(folder / part.lower()):
            pytest.skip("the file system does not distinguish upper and lower case")
        names = sorted(path.name for path in (folder / part).iterdir())
        assert names == sorted(path.name for path in (folder / part.lower()).iterdir())
        assert (folder / part / names[0]).read_bytes() == (folder / part.lower() / names[0]).read_bytes()


def test_traps_in_the_metadata(folder, images):
    text = pd.read_csv(folder / NAME, dtype="str", keep_default_na=False)
    written = set(text["age"])
    assert {"", "0.0"} <= written
    assert all(age == "" or age.endswith(".0") for age in written)
    assert set(text["sex"]) == {"male", "female", "unknown"}
    assert "unknown" in set(text["localization"])
    assert set(text.loc[text["dx"] != "nv", "dx_type"]) == {"histo"}, "dx_type gives the label away"
    assert "follow_up" in set(text.loc[text["dx"] == "nv", "dx_type"])
    assert images["age"].dropna().between(0, 85).all()
    assert 0 < images["age"].isna().mean() < 0.05


def test_classes_are_as_uneven_as_those_of_the_original(images):
    shares = images["label"].value_counts(normalize=True)
    assert 0.6 <= shares["nv"] <= 0.7
    assert shares.min() > 0.02
    assert images["label"].value_counts().min() >= 12


def test_lesions_have_one_or_several_images_and_one_diagnosis(images):
    sizes = images.groupby("group").size()
    assert set(sizes) == {1, 2, 3}
    assert 0.6 < (sizes == 1).mean() < 0.8
    assert find_conflicts(images).empty
    about = images.groupby("group")[["sex", "localization", "dx_type"]].nunique()
    assert (about == 1).all(axis=None)


def test_it_can_be_split_into_three_sets_with_every_class(images):
    split = split_by_group(images, {"train": 0.7, "validation": 0.15, "test": 0.15})
    assert (pd.crosstab(images["label"], split) > 0).all(axis=None)


def test_images_of_one_lesion_are_alike_but_not_the_same(folder, images, cache):
    """So that a split by image leaks."""
    pixels = load_pixels(images, folder, (15, 20, 3), cache).astype(float)
    assert len(np.unique(pixels.reshape(len(pixels), -1), axis=0)) == len(images)
    nevi = images[images["label"] == "nv"]
    first, second = (nevi[nevi.groupby("group").cumcount() == number].set_index("group") for number in (0, 1))
    first = first.loc[second.index]
    colours = {name: pixels.mean((1, 2))[rows["metadata_row"]] for name, rows in (("a", first), ("b", second))}
    same = np.abs(colours["a"] - colours["b"]).mean()
    other = np.abs(colours["a"] - np.roll(colours["b"], 1, axis=0)).mean()
    assert 0 < same < 0.8 * other


def test_classes_differ_in_what_is_seen_but_overlap(folder, images, cache):
    """The nearest class by mean colour beats chance and is often wrong."""
    measured = measure_images(images, folder, cache)[["red", "green", "blue"]]
    middle = load_pixels(images, folder, (15, 20, 3), cache)[:, 5:10, 7:13].mean((1, 2))
    features = np.hstack([measured, middle])
    means = pd.DataFrame(features).groupby(images["label"]).mean()
    nearest = means.index[np.linalg.norm(features[:, None] - means.to_numpy(), axis=2).argmin(1)]
    recall = (nearest == images["label"]).groupby(images["label"]).mean()
    assert 0.35 < recall.mean() < 0.85  # chance: 1/7


def test_the_table_of_pixels_agrees_with_the_images(folder, images, cache):
    coded = images.assign(code=images["label"])  # as `open_data_set` does
    table = read_pixel_table(folder / "hmnist_28_28_RGB.csv", coded, TABLE_CODES, (28, 28, 3))
    pixels = load_pixels(images, folder, (28, 28, 3), cache)
    difference = np.abs(table.astype(int) - pixels).mean((1, 2, 3))
    assert difference.max() < 6  # JPEG in between
    shifted = np.abs(np.roll(table, 1, axis=0).astype(int) - pixels).mean((1, 2, 3))
    assert (shifted > 2 * difference).mean() > 0.95


def test_the_table_of_pixels_has_the_originals_columns(folder):
    header = pd.read_csv(folder / "hmnist_28_28_RGB.csv", nrows=0).columns.tolist()
    assert header == [*[f"pixel{number:04d}" for number in range(28 * 28 * 3)], "label"]


def test_images_fit_their_names(folder, images):
    for row in images.iloc[[0, 100, -1]].itertuples():
        assert row.path == f"{row.part}/{row.image_id}.jpg"
        with Image.open(folder / row.path) as image:
            assert image.format == "JPEG"
