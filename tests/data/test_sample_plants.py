"""The built-in sample of plant diseases: the original's layout with its traps, learnable."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.ensemble import RandomForestClassifier

from helpers.data.audit import check_split, find_conflicts, find_leaks, leave_out_unusable
from helpers.data.catalog import get_data_set
from helpers.data.layouts.common import IGNORED
from helpers.data.pixels import hash_files, load_pixels, measure_images
from helpers.data.split import split_by_group
from samples import make_sample

OUTER = "New Plant Diseases Dataset(Augmented)"
PLACE = f"{OUTER}/{OUTER}"
MARKS = ["90deg", "180deg", "270deg", "flipLR", "flipTB", "new30degFlipLR"]
MARK = rf"_(?:{'|'.join(MARKS)})$"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
FLAT = {
    "AppleCedarRust": ("Apple___Cedar_apple_rust", 4),
    "AppleScab": ("Apple___Apple_scab", 3),
    "CornCommonRust": ("Corn_(maize)___Common_rust_", 3),
    "PotatoEarlyBlight": ("Potato___Early_blight", 5),
    "PotatoHealthy": ("Potato___healthy", 2),
    "TomatoEarlyBlight": ("Tomato___Early_blight", 6),
    "TomatoHealthy": ("Tomato___healthy", 4),
    "TomatoYellowCurlVirus": ("Tomato___Tomato_Yellow_Leaf_Curl_Virus", 6),
}


@pytest.fixture(scope="module")
def data_set():
    return get_data_set("plants")


@pytest.fixture(scope="module")
def folder(data_set, cache_with_samples):
    return make_sample(data_set, cache_with_samples / "samples")


@pytest.fixture(scope="module")
def images(indexed):
    """The images in class folders, with the stems of their names."""
    images = indexed[0][indexed[0]["part"] != "test"]
    return images.assign(stem=images["image_id"].str.rpartition("/")[2]).reset_index(drop=True)


@pytest.fixture(scope="module")
def pixels(images, folder, cache):
    return load_pixels(images, folder, (64, 64, 3), cache).astype(float)


def list_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_nothing_is_wrong_with_it_but_the_second_copies_and_the_missing_classes(data_set, indexed, folder, cache):
    images, problems = indexed
    kept, problems = leave_out_unusable(images, problems, measure_images(images, folder, cache))
    absent = [name for name in data_set.class_names if name not in set(images["label"])]
    copies = (images["part"] != "test").sum()
    assert problems["problem"].tolist() == [
        f"{copies:,} second copies under the same part, class and name, with the same content",
        f"26 of 38 classes are not in this copy: {', '.join(absent)}",
    ]
    assert problems["action"].tolist() == [IGNORED] * 2
    assert len(kept) == len(images)
    assert find_conflicts(images).empty


def test_layout_is_that_of_the_original(folder, indexed):
    images = indexed[0]
    places = images["path"].str.rpartition("/")[0]
    labels = images["label"].unique()
    assert len(labels) == 12
    expected = {f"{PLACE}/{part}/{label}" for part in ("train", "valid") for label in labels}
    assert set(places) == expected | {"test/test"}
    assert {name.split("/")[0] for name in list_files(folder)} == {OUTER, OUTER.lower(), "test"}


def test_classes_are_those_that_teach_most(images):
    crops = images["label"].str.partition("___")[0]
    assert images["label"].groupby(crops).nunique().to_dict() == {
        "Apple": 4,
        "Corn_(maize)": 2,
        "Potato": 3,
        "Tomato": 3,
    }
    counts = pd.crosstab(images["label"], images["part"])
    assert counts["train"].between(25, 90).all()
    assert counts["valid"].min() >= 5
    assert 0.15 < counts["valid"].sum() / len(images) < 0.25


def test_everything_lies_there_a_second_time_in_lower_case(folder):
    if (folder / OUTER).samefile(folder / OUTER.lower()):
        pytest.skip("the file system does not distinguish upper and lower case")
    names = list_files(folder / OUTER)
    assert names == list_files(folder / OUTER.lower())
    assert all(name.startswith(f"{OUTER}/") for name in names)
    for name in names[::50]:
        assert (folder / OUTER / name).read_bytes() == (folder / OUTER.lower() / name).read_bytes()


def test_files_are_small_images_with_several_endings(folder, indexed, cache):
    images = indexed[0]
    measured = measure_images(images, folder, cache)
    assert (measured[["width", "height"]] == 64).all(axis=None)
    assert (measured["mode"] == "RGB").all()
    endings = images["path"].str.rpartition(".")[2]
    assert set(endings) == {"JPG", "jpg", "png"}
    for ending, kind in (("JPG", "JPEG"), ("jpg", "JPEG"), ("png", "PNG")):
        with Image.open(folder / images["path"][endings == ending].iloc[0]) as image:
            assert image.format == kind
    assert endings.groupby(images["label"]).nunique().min() >= 2, "the ending tells the class"


def test_labels_of_the_flat_folder_are_in_the_names(indexed):
    flat = indexed[0][indexed[0]["part"] == "test"]
    expected = {
        f"test/test/{start}{number}.JPG": label
        for start, (label, count) in FLAT.items()
        for number in range(1, count + 1)
    }
    assert dict(zip(flat["path"], flat["label"], strict=True)) == expected
    assert flat["group"].is_unique
    assert not set(flat["group"]) & set(indexed[0].loc[indexed[0]["part"] != "test", "group"])


def test_names_are_like_those_of_the_original(images):
    stems = images["stem"].str.replace(MARK, "", regex=True)
    rust = images["label"] == "Corn_(maize)___Common_rust_"
    assert stems[rust].str.fullmatch(r"RS_Rust \d{4}").all()
    assert stems[~rust].str.match(f"{UUID}___").all()
    rest = stems[~rust].str.partition("___")[2]
    assert rest.str.contains(" ").all()
    for trap in (
        r" copy$",
        r" copy 2$",
        r" copy $",
        r"Leaf \d+\.2$",
        r"Leaf \d+$",
        r"C\.Rust \d{4}$",
        r"R\.S_HL \d{4}$",
    ):
        assert rest.str.contains(trap).any(), trap


def test_groups_are_leaves(images):
    """A photograph and its copies are one group; photographs of one leaf are too where names have its number."""
    leaf = images["stem"].str.extract(r"___(.*\bLeaf \d+)")[0].fillna(images["stem"].str.replace(MARK, "", regex=True))
    assert pd.factorize(images["group"])[0].tolist() == pd.factorize(leaf)[0].tolist()
    assert (images.groupby("label")["group"].nunique() == 34).all()


def test_less_than_half_of_the_photographs_have_copies(images):
    copied = images["stem"].str.contains(MARK)
    photographs = images["stem"].str.replace(MARK, "", regex=True)
    assert set(images["stem"][copied].str.rpartition("_")[2]) == set(MARKS)
    assert set(photographs[copied]) <= set(images["stem"][~copied])
    assert 0.3 < photographs[copied].nunique() / (~copied).sum() < 0.5


def test_some_leaves_were_photographed_several_times(images):
    photographs = images[~images["stem"].str.contains(MARK)]
    counts = photographs.groupby(["label", "group"]).size()
    assert set(counts["Tomato___healthy"]) == {1, 2, 3}
    assert (counts.drop("Tomato___healthy") == 1).all()


def test_half_of_the_validation_images_have_their_leaf_in_train(images):
    leaks = find_leaks(images, images["part"])
    assert 0.4 < leaks.loc["valid", "share"] < 0.6
    split = split_by_group(images, {"train": 0.8, "validation": 0.2})
    check_split(images, split)
    assert (pd.crosstab(images["label"], split) > 5).all(axis=None)


def test_no_two_files_are_identical(folder, images):
    assert hash_files(images, folder).is_unique


@pytest.mark.parametrize(
    ("mark", "change"),
    [
        ("90deg", lambda image: np.rot90(image)),
        ("180deg", lambda image: np.rot90(image, 2)),
        ("270deg", lambda image: np.rot90(image, 3)),
        ("flipLR", lambda image: image[:, ::-1]),
        ("flipTB", lambda image: image[::-1]),
    ],
)
def test_copies_are_what_their_names_say(images, pixels, mark, change):
    rows = {stem: row for row, stem in enumerate(images["stem"])}
    pairs = [(rows[stem.removesuffix(f"_{mark}")], row) for stem, row in rows.items() if stem.endswith(f"_{mark}")]
    assert len(pairs) >= 5
    for source, copy in pairs:
        assert np.abs(change(pixels[source]) - pixels[copy]).mean() < 6


def test_copies_turned_by_30_degrees_have_their_corners_filled(images, pixels):
    rows = {stem: row for row, stem in enumerate(images["stem"])}
    turned = [row for stem, row in rows.items() if stem.endswith("_new30degFlipLR")]
    assert len(turned) >= 5
    assert pixels[turned][:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(-1).min() > 40
    for row in turned:
        source = Image.fromarray(pixels[rows[images["stem"][row].removesuffix("_new30degFlipLR")]].astype("uint8"))
        expected = np.asarray(source.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(30, Image.Resampling.BILINEAR))
        middle = np.s_[16:-16, 16:-16]
        assert np.abs(expected[middle] - pixels[row][middle]).mean() < 8


def test_photographs_of_a_leaf_are_alike_but_not_the_same(images, pixels):
    """In the colour of the leaf; it lies there otherwise."""
    rows = images[(images["label"] == "Tomato___healthy") & ~images["stem"].str.contains(MARK)]
    green = pd.Series(pixels[rows.index, 24:40, 24:40, 1].mean((1, 2)), rows.index)
    within = green.groupby(rows["group"]).std().dropna()
    assert 0 < within.mean() < 0.8 * green.std()


def test_leaves_are_green_and_the_background_is_grey(pixels):
    middle, border = pixels[:, 28:36, 28:36].mean((0, 1, 2)), pixels[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean((0, 1))
    assert middle.argmax() == 1
    assert middle[1] > middle[2] + 30
    assert np.ptp(border) < 25
    assert border[1] == border.min()


def test_the_background_tells_more_than_chance(images, pixels):
    """The shortcut of the original (Noyan 2022): eight pixels at the border, which show no leaf or little of it."""
    features = pixels[:, [0, 0, 0, 32, 32, -1, -1, -1], [0, 32, -1, 0, -1, 0, 32, -1]].reshape(len(pixels), -1)
    train = (split_by_group(images, {"train": 0.7, "test": 0.3}) == "train").to_numpy()
    forest = RandomForestClassifier(200, random_state=0).fit(features[train], images["label"][train])
    assert 2 / 12 < forest.score(features[~train], images["label"][~train]) < 0.5


def test_diseases_change_the_colour_of_the_leaves(images, pixels):
    middle = pixels[:, 20:44, 20:44]
    red = pd.Series(np.quantile(middle[..., 0] - middle[..., 1], 0.95, axis=(1, 2))).groupby(images["label"]).median()
    assert red["Apple___Cedar_apple_rust"] > red["Apple___healthy"] + 30
    assert red["Corn_(maize)___Common_rust_"] > red["Corn_(maize)___healthy"] + 20
    dark = pd.Series(np.quantile(middle.mean(-1), 0.1, axis=(1, 2))).groupby(images["label"]).median()
    assert dark["Potato___Late_blight"] < dark["Potato___healthy"] - 15
    yellow = pd.Series(middle[..., :2].min(-1).mean((1, 2))).groupby(images["label"]).median()
    assert yellow["Tomato___Tomato_Yellow_Leaf_Curl_Virus"] > yellow["Tomato___healthy"] + 30
