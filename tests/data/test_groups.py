"""Groups: joined by what they have in common, left out where their labels contradict each other."""

import numpy as np
import pandas as pd
import pytest

from helpers.data.audit import check_split, find_conflicts, join_groups, leave_out_contradictions, leave_out_unusable
from helpers.data.images import hash_files
from helpers.data.index import LEFT_OUT, PROBLEM_COLUMNS
from helpers.data.split import split_by_group
from helpers.errors import InputError

NONE = pd.DataFrame(columns=PROBLEM_COLUMNS)


def join(groups, keys):
    joined = join_groups(pd.DataFrame({"group": list(groups)}), pd.Series(list(keys)))
    return "".join(joined)


@pytest.mark.parametrize(
    ("groups", "keys", "joined"),
    [
        ("aabbc", "12234", "aaaac"),
        ("abcd", "1234", "abcd"),
        ("aabb", "1122", "aabb"),
        ("abcd", "1212", "abab"),
        ("abcd", "1111", "aaaa"),
        ("aabbccd", "1223345", "aaaaaad"),  # a and b by 2, b and c by 3
        ("ccbbaad", "1223345", "ccccccd"),
        ("abcabc", "123231", "aaaaaa"),  # each with the next, in a ring
        ("dcba", "1231", "dcbd"),
        ("bab", "122", "bbb"),
        ("a", "1", "a"),
    ],
)
def test_groups_with_a_key_in_common_are_joined_under_the_name_of_the_first(groups, keys, joined):
    assert join(groups, keys) == joined


def test_without_a_key_in_common_nothing_changes():
    images = pd.DataFrame({"group": ["q", "p", "q", "r"]})
    pd.testing.assert_series_equal(join_groups(images, pd.Series(["1", "2", "3", "4"])), images["group"])


@pytest.mark.parametrize("index", [[10, 20, 30, 40], [3, 2, 1, 0], list("wxyz")])
def test_the_joined_groups_are_aligned_with_the_images(index):
    images = pd.DataFrame({"group": list("abbc")}, index=index)
    before = images.copy()
    joined = join_groups(images, pd.Series([1, 2, 3, 1], index=index))
    assert joined.index.tolist() == index
    assert joined.tolist() == ["a", "b", "b", "a"]
    assert joined.name == "group"
    pd.testing.assert_frame_equal(images, before)


def test_the_order_of_the_rows_changes_the_names_but_not_who_is_together():
    rng = np.random.default_rng(4)
    images = pd.DataFrame({"group": rng.integers(0, 60, 120).astype(str), "key": rng.integers(0, 110, 120)})
    together = {}
    for number in range(5):
        shuffled = images.sample(frac=1, random_state=number)
        joined = join_groups(shuffled, shuffled["key"]).sort_index()
        together[number] = [frozenset(rows) for rows in joined.groupby(joined).indices.values()]
        assert joined.groupby(images["group"]).nunique().eq(1).all(), "a group was torn apart"
        assert joined.groupby(images["key"]).nunique().eq(1).all(), "a key is in two groups"
        assert set(joined) <= set(images["group"])
    assert len({frozenset(found) for found in together.values()}) == 1
    assert 1 < len(together[0]) < 60


def test_identical_files_end_up_in_one_set(tmp_path):
    images = pd.DataFrame({"path": [f"{number}.png" for number in range(40)], "label": list("ab") * 20})
    images["group"] = images["path"].str.removesuffix(".png")
    for number, path in enumerate(images["path"]):
        (tmp_path / path).write_text(str(number if number < 30 else number - 30))
    with pytest.raises(ValueError, match="on two sides"):
        check_split(images.assign(group=hash_files(images, tmp_path)), split_by_group(images, {"x": 0.5, "y": 0.5}))
    images["group"] = join_groups(images, hash_files(images, tmp_path))
    split = split_by_group(images, {"x": 0.5, "y": 0.5})
    check_split(images.assign(group=hash_files(images, tmp_path)), split)
    assert images["group"].tolist() == [str(number if number < 30 else number - 30) for number in range(40)]


@pytest.fixture
def images():
    """Make an index in which the groups q and t carry two labels each."""
    groups = ["p", "q", "q", "r", "t", "t", "t"]
    ids = [f"i{number}" for number in range(7)]
    return pd.DataFrame(
        {"image_id": ids, "path": [f"{name}.png" for name in ids], "label": list("babaabb"), "group": groups},
        index=[6, 5, 4, 3, 2, 1, 0],
    )


def test_groups_with_contradicting_labels_are_left_out_and_listed(images):
    before = images.copy()
    kept, problems = leave_out_contradictions(images, NONE)
    pd.testing.assert_frame_equal(kept, images.loc[[6, 3]].reset_index(drop=True))
    pd.testing.assert_frame_equal(images, before)
    assert problems.columns.tolist() == PROBLEM_COLUMNS
    assert problems.index.equals(pd.RangeIndex(5))
    assert problems["file"].tolist() == ["i1.png", "i2.png", "i4.png", "i5.png", "i6.png"]
    assert problems["image_id"].tolist() == ["i1", "i2", "i4", "i5", "i6"]
    assert problems["problem"].tolist() == ["its group q is in a and b"] * 2 + ["its group t is in a and b"] * 3
    assert set(problems["action"]) == {LEFT_OUT}
    assert find_conflicts(kept).empty


def test_all_labels_of_the_group_are_named_in_the_order_of_the_alphabet(images):
    images["label"] = list("bxcaabz")
    assert leave_out_contradictions(images, NONE)[1]["problem"].unique().tolist() == [
        "its group q is in c and x",
        "its group t is in a and b and z",
    ]


def test_problems_found_before_are_kept_in_front(images):
    found = pd.DataFrame([["notes.txt", "is no image file", "ignored", None]], columns=PROBLEM_COLUMNS)
    _, problems = leave_out_contradictions(images, found)
    assert problems["file"].tolist()[:2] == ["notes.txt", "i1.png"]
    assert len(problems) == 6


def test_without_contradictions_nothing_changes(images):
    images = images[images["label"] == "b"].reset_index(drop=True)
    kept, problems = leave_out_contradictions(images, NONE)
    pd.testing.assert_frame_equal(kept, images)
    assert problems.empty
    assert problems.columns.tolist() == PROBLEM_COLUMNS


def test_identical_files_under_different_labels_are_left_out_with_all_images_of_their_groups(images):
    images["label"], images["group"] = list("aaabbbb"), list("ppqrrst")
    keys = pd.Series([0, 1, 2, 1, 4, 5, 6], index=images.index)  # i1 of p, labelled a, is i3 of r, labelled b
    assert find_conflicts(images).empty
    images["group"] = join_groups(images, keys)
    kept, problems = leave_out_contradictions(images, NONE)
    assert kept["image_id"].tolist() == ["i2", "i5", "i6"]
    assert problems["image_id"].tolist() == ["i0", "i1", "i3", "i4"]
    assert problems["problem"].unique().tolist() == ["its group p is in a and b"]


def test_contradictions_count_as_images_left_out(images):
    kept, problems = leave_out_contradictions(images, NONE)
    with pytest.raises(InputError, match=r"^71\.4% of the images cannot be used"):
        leave_out_unusable(kept, problems)
