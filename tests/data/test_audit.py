"""Audits: what they count is what is there, and they find what was planted."""

import numpy as np
import pandas as pd
import pytest

from helpers.data.audit import (
    check_split,
    compare_with_original,
    count_images,
    find_conflicts,
    find_copies,
    find_leaks,
)
from helpers.files import InputError


@pytest.fixture
def images():
    return pd.DataFrame(
        {
            "image_id": ["i0", "i1", "i2", "i3", "i4", "i5", "i6"],
            "label": list("babaabb"),
            "group": ["p", "q", "q", "r", "s", "p", "t"],
            "part": ["train", "train", "train", "train", "test", "test", "validation"],
        },
        index=[10, 11, 12, 13, 14, 15, 16],
    )


def test_counts_have_sums_and_keep_the_order_of_the_parts(images):
    table = count_images(images)
    assert table.index.tolist() == ["train", "test", "validation", "all"]
    assert table.columns.tolist() == ["a", "b", "all"]
    assert table.to_numpy().tolist() == [[2, 2, 4], [1, 1, 2], [0, 1, 1], [3, 4, 7]]


def test_counts_by_other_columns(images):
    table = count_images(images, by=("label", "group"))
    assert table.index.tolist() == ["b", "a", "all"]
    assert table.loc["b"].to_dict() == {"p": 2, "q": 1, "r": 0, "s": 0, "t": 1, "all": 4}


def test_comparison_with_the_original(images, data_set):
    table = compare_with_original(images, data_set)
    assert table.to_dict("index") == {
        "train": {"found": 4, "original": 60_000, "missing": 59_996},
        "test": {"found": 2, "original": 10_000, "missing": 9_998},
    }
    without_test = compare_with_original(images[images["part"] == "train"], data_set)
    assert without_test.loc["test"].tolist() == [0, 10_000, 10_000]


def test_a_planted_leak_is_found(images):
    leaks = find_leaks(images, images["part"])
    assert leaks.index.tolist() == ["train", "test", "validation"]
    assert leaks["images"].tolist() == [4, 2, 1]
    assert leaks["leaked"].tolist() == [1, 1, 0]  # group p: i0 in training, i5 in the test set
    assert leaks["share"].tolist() == [0.25, 0.5, 0]


def test_a_group_inside_one_set_is_no_leak(images):
    assert find_leaks(images[:4], images["part"][:4]).to_dict("list") == {"images": [4], "leaked": [0], "share": [0]}


def test_a_leak_counts_every_image_of_the_group(images):
    split = ["one", "one", "two", "one", "one", "two", "two"]
    leaks = find_leaks(images, split)
    assert leaks["leaked"].to_dict() == {"one": 2, "two": 2}  # groups p and q


def test_conflicting_labels_are_listed_group_after_group(images):
    conflicts = find_conflicts(images)
    assert conflicts["image_id"].tolist() == ["i1", "i2"]  # group q is a and b; group p is b twice
    pd.testing.assert_frame_equal(conflicts, images.loc[[11, 12]])
    images.loc[15, "label"] = "a"
    shuffled = images.sample(frac=1, random_state=2)
    assert find_conflicts(shuffled)["image_id"].tolist() == ["i0", "i5", "i1", "i2"]


def test_no_conflicts_give_an_empty_table(images):
    empty = find_conflicts(images.drop(index=[11]))
    assert len(empty) == 0
    assert empty.columns.tolist() == images.columns.tolist()


def test_check_split_stops_at_a_leak_and_says_where():
    images = pd.DataFrame({"group": ["2", "1", "1", "3"], "path": ["d.png", "a.png", "b.png", "c.png"]})
    images["image_id"] = images["path"].str[0]
    check_split(images, pd.Series(["train", "test", "test", "test"]))
    told = r"'train': 1, 'test': 1}, such as a\.png \(a\) in train and b\.png \(b\) in test\. .* Remove the images"
    with pytest.raises(InputError, match=told):
        check_split(images, pd.Series(["train", "train", "test", "test"]))


def test_copies_are_told_once_as_the_plainest_kind():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (4, 12, 12, 1), "uint8").repeat(8, axis=1).repeat(8, axis=2)
    pixels = np.concatenate([pictures, pictures[:1], pictures[1:2, :, ::-1]])
    thumbnails = pixels.reshape(-1, 32, 3, 32, 3, 1).mean(axis=(2, 4)).astype("uint8")
    contents = ["a", "b", "c", "d", "a", "e"]
    found = find_copies(contents, thumbnails, pixels)
    assert found.to_numpy().tolist() == [[0, 4, "identical"], [1, 5, "mirrored or turned"]]
    assert found[["first", "second"]].dtypes.tolist() == [int, int]
    assert find_copies(contents).to_numpy().tolist() == [[0, 4, "identical"]]
    assert find_copies(["x", "y"]).empty


def test_three_identical_images_are_pairs_with_the_first():
    assert find_copies(["a", "b", "a", "a"])[["first", "second"]].to_numpy().tolist() == [[0, 2], [0, 3]]
