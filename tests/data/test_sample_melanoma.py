"""The built-in samples of both melanoma collections: layouts and traps of the originals, learnable."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.data.audit import find_conflicts, join_groups, leave_out_contradictions, leave_out_unusable
from helpers.data.catalog import get_data_set
from helpers.data.pixels import hash_files, load_pixels
from helpers.data.split import split_by_group
from samples import make_sample

SIZES = {"melanoma": 96, "melanoma-isic": 80}


@pytest.fixture(scope="module", params=["melanoma", "melanoma-isic"])
def data_set(request):
    return get_data_set(request.param)


@pytest.fixture(scope="module")
def folder(data_set, cache_with_samples):
    return make_sample(data_set, cache_with_samples / "samples")


@pytest.fixture(scope="module")
def malignant(images):
    return (images["label"].str.lower() == "malignant").to_numpy()


@pytest.fixture(scope="module")
def pixels(images, folder, cache):
    return load_pixels(images, folder, (32, 32, 3), cache).astype(float)


@pytest.fixture(scope="module")
def hashes(images, folder):
    return hash_files(images, folder)


@pytest.fixture(scope="module")
def alike(pixels):
    """Compare each image with the eight views of each other one: the distance of the most similar view."""
    views = [np.rot90(mirrored, turns, (1, 2)) for mirrored in (pixels, pixels[:, :, ::-1]) for turns in range(4)]
    flat = [(view - view.mean((1, 2), keepdims=True)).reshape(len(view), -1) for view in views]
    squares = (flat[0] ** 2).sum(1)
    distances = np.min([squares[:, None] + squares - 2 * flat[0] @ view.T for view in flat], axis=0) / flat[0].shape[1]
    np.fill_diagonal(distances, np.inf)
    return np.sqrt(distances.clip(0))


def list_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def find_pairs(alike, hashes):
    """Find the pairs of images that are alike: their rows, and whether the files are identical."""
    pairs = np.argwhere(np.triu(alike < 4))
    return pairs, (hashes.to_numpy()[pairs[:, 0]] == hashes.to_numpy()[pairs[:, 1]])


def test_nothing_is_wrong_with_the_files(indexed, measured):
    images, problems = indexed
    kept, problems = leave_out_unusable(images, problems, measured)
    assert problems.empty
    assert len(kept) == len(images)


def test_layout_is_that_of_the_original(data_set, folder, images):
    start = "melanoma_cancer_dataset/" if data_set.name == "melanoma" else ""
    assert list_files(folder) == sorted(images["path"])
    assert {path.rpartition("/")[0] for path in images["path"]} == {
        f"{start}{part}/{label}" for part in ("train", "test") for label in data_set.class_names
    }
    assert images["part"].unique().tolist() == ["train", "test"]


def test_files_are_square_jpegs_in_colour(data_set, folder, images, measured):
    assert (measured[["width", "height"]] == SIZES[data_set.name]).all(axis=None)
    assert (measured["mode"] == "RGB").all()
    for path in images["path"].iloc[[0, 300, -1]]:
        with Image.open(folder / path) as image:
            assert image.format == "JPEG"


def test_counts(images):
    counts = pd.crosstab(images["part"], images["label"])
    assert 410 <= counts.loc["train"].sum() <= 430
    assert counts.loc["test"].sum() == 120
    assert (counts.max(axis=1) - counts.min(axis=1) <= 5).all()


def test_names_are_numbers(data_set, images):
    """They run through both classes in the one collection, and start again with each class in the other."""
    images = images.assign(number=images["path"].str.extract(r"/(?:melanoma_)?(\d+)\.jpg$")[0].astype(int))
    assert images["path"].str.contains("/melanoma_").all() == (data_set.name == "melanoma")
    images = images.sort_values(["part", "label", "number"], ascending=[False, True, True])
    runs = [images] if data_set.name == "melanoma" else [rows for _, rows in images.groupby("label")]
    for run in runs:
        first = 0 if data_set.name == "melanoma" else 1
        assert run["number"].tolist() == list(range(first, first + len(run)))


def test_names_tell_no_groups(images):
    assert images.columns.tolist() == ["image_id", "path", "label", "group", "part"]
    assert images["group"].is_unique
    assert find_conflicts(images).empty


def test_three_files_are_there_twice_in_their_class_and_two_in_both(images, hashes):
    twins = images.groupby(hashes.rename("hash"))["label"].agg(["size", "nunique"]).query("size > 1")
    assert twins["size"].tolist() == [2] * 5
    assert sorted(twins["nunique"]) == [1, 1, 1, 2, 2]
    within = images[hashes.isin(twins.index[twins["nunique"] == 1])]
    assert within["label"].nunique() == 2


def test_files_with_two_labels_are_found_and_left_out(images, hashes):
    joined = images.assign(group=join_groups(images, hashes))
    assert joined["group"].nunique() == len(images) - 5
    kept, problems = leave_out_contradictions(joined, pd.DataFrame())
    assert len(kept) == len(images) - 4
    assert problems["problem"].str.contains(" is in [Bb]enign and [Mm]alignant$").all()


def test_some_pictures_are_there_twice_turned_or_mirrored_and_saved_again(images, alike, hashes):
    pairs, identical = find_pairs(alike, hashes)
    assert identical.sum() == 5
    assert (~identical).sum() == 32
    assert len(np.unique(pairs)) == 2 * len(pairs)
    labels = images["label"].to_numpy()[pairs[~identical]]
    assert (labels[:, 0] == labels[:, 1]).all()


def test_most_of_them_are_not_in_place(pixels, alike, hashes):
    """Compared without turning, most are as different as other images."""
    pairs, identical = find_pairs(alike, hashes)
    first, second = pixels[pairs[~identical]].swapaxes(0, 1)
    assert (np.abs(first - second).mean((1, 2, 3)) > 4).mean() > 0.7


def test_some_pictures_of_test_are_also_in_train(images, alike, hashes):
    pairs, identical = find_pairs(alike, hashes)
    parts = images["part"].to_numpy()[pairs[~identical]]
    across = (parts[:, 0] != parts[:, 1]).sum()
    assert 5 <= across <= 20
    assert (parts == "train").all(1).any()


def test_other_images_are_not_alike(alike, hashes):
    """So that there is a distance that tells second images from others."""
    pairs, _ = find_pairs(alike, hashes)
    others = alike.copy()
    others[pairs[:, 0], pairs[:, 1]] = others[pairs[:, 1], pairs[:, 0]] = np.inf
    assert others.min() > 1.5 * alike[pairs[:, 0], pairs[:, 1]].max()


def test_lesions_are_darker_than_the_skin_and_near_the_middle(pixels):
    grey = np.median(pixels, axis=0).mean(-1)
    middle, around = grey[12:20, 12:20].mean(), np.concatenate([grey[2, 8:24], grey[-3, 8:24]]).mean()
    assert middle < 0.75 * around
    rows, columns = np.indices(grey.shape)
    weight = np.clip(around - grey, 0, None) * (np.hypot(rows - 15.5, columns - 15.5) < 14)
    assert (
        np.abs([(rows * weight).sum() / weight.sum() - 15.5, (columns * weight).sum() / weight.sum() - 15.5]).max() < 1
    )


def test_the_skin_varies_and_does_not_tell_the_class(pixels, malignant):
    skin = np.median(pixels[:, [1, 1, 5, 5, -2, -2, -6, -6], [5, -6, 1, -2, 5, -6, 1, -2]], axis=1).mean(-1)
    assert skin.std() > 15
    error = skin.std() * np.sqrt(4 / len(skin))
    assert abs(skin[malignant].mean() - skin[~malignant].mean()) < 2.5 * error


@pytest.mark.parametrize("sign", ["asymmetry", "colours"])
def test_the_classes_differ_in_each_sign_and_overlap(pixels, malignant, sign):
    if sign == "asymmetry":
        values = sum(np.abs(pixels - mirrored).mean((1, 2, 3)) for mirrored in (pixels[:, ::-1], pixels[:, :, ::-1]))
    else:
        values = (pixels[..., 0] - pixels[..., 2])[:, 11:21, 11:21].std((1, 2))
    thresholds = np.quantile(values, np.linspace(0, 1, 100))
    recalls = [((values > t)[malignant].mean() + (values <= t)[~malignant].mean()) / 2 for t in thresholds]
    assert values[malignant].mean() > 1.2 * values[~malignant].mean()
    assert 0.6 < max(recalls) < 0.9


def test_it_can_be_split_into_training_and_validation(images):
    development = images[images["part"] == "train"].reset_index(drop=True)
    split = split_by_group(development, {"train": 0.8, "validation": 0.2})
    assert (pd.crosstab(development["label"], split) > 30).all(axis=None)
