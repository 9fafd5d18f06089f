"""Groups: joined by what they have in common, left out where their labels contradict each other."""

import numpy as np
import pandas as pd
import pytest

from helpers.data.audit import (
    check_split,
    find_conflicts,
    find_leaks,
    join_groups,
    leave_out_contradictions,
    leave_out_leaks,
    leave_out_unusable,
)
from helpers.data.opening import LEFT_OUT, PROBLEM_COLUMNS
from helpers.data.pixels import hash_files
from helpers.data.split import split_by_group
from helpers.files import InputError

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


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
@pytest.mark.parametrize(
    ("keys", "joined"),
    [("----", "abcd"), ("1-1-", "abad"), ("--12", "abcd"), ("-11-", "abbd"), ("1---", "abcd"), ("1221", "abba")],
)
def test_images_without_a_key_have_nothing_in_common(keys, joined, missing):
    assert join("abcd", [missing if key == "-" else key for key in keys]) == joined


def test_an_image_without_a_key_stays_with_its_group():
    assert join("abab", ["1", "1", None, None]) == "aaaa"
    assert join("abbc", ["1", None, "1", None]) == "aaac"


@pytest.mark.parametrize("keys", [[1.0, np.nan, np.nan, 1.0], pd.array([1, None, None, 1], dtype="Int64")])
def test_keys_that_are_numbers_may_be_missing_too(keys):
    assert join("abcd", keys) == "abca"


def test_missing_keys_are_not_changed():
    keys = pd.Series(["1", None, None])
    before = keys.copy()
    join_groups(pd.DataFrame({"group": list("abc")}), keys)
    pd.testing.assert_series_equal(keys, before)


@pytest.mark.parametrize("keys", [[], ["1", "2"]])
def test_of_no_images_there_are_no_groups(keys):
    images = pd.DataFrame({"group": list("ab"), "key": ["1", "1"]}).iloc[:0]
    joined = join_groups(images, pd.Series(keys, dtype="object")[:0])
    assert joined.empty
    assert joined.name == "group"
    assert images.assign(group=joined).columns.tolist() == ["group", "key"]


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


@pytest.fixture
def shipped():
    """Make an index in which the groups p and r are in several parts."""
    ids = [f"i{number}" for number in range(8)]
    parts = ["train", "train", "val", "train", "val", "test", "test", "train"]
    table = {"image_id": ids, "path": [f"{name}.png" for name in ids], "part": parts, "group": list("ppprsrtu")}
    return pd.DataFrame(table | {"label": "a"}, index=range(80, 0, -10))


@pytest.mark.parametrize(
    ("kept_part", "left_out"),
    [("test", ["i3"]), ("val", ["i0", "i1"]), ("train", ["i2", "i5"]), ("elsewhere", [])],
)
def test_images_that_share_a_group_with_the_part_to_be_kept_are_left_out_and_listed(shipped, kept_part, left_out):
    before = shipped.copy()
    kept, problems = leave_out_leaks(shipped, NONE, kept_part)
    expected = shipped[~shipped["image_id"].isin(left_out)].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, expected)
    pd.testing.assert_frame_equal(shipped, before)
    assert problems.columns.tolist() == PROBLEM_COLUMNS
    assert problems.index.equals(pd.RangeIndex(len(left_out)))
    assert problems["image_id"].tolist() == left_out
    assert problems["file"].tolist() == [f"{name}.png" for name in left_out]
    assert set(problems["problem"]) <= {f"its group is also in {kept_part}"}
    assert set(problems["action"]) <= {LEFT_OUT}


def test_by_default_the_shipped_test_part_is_kept_whole_and_leaks_no_more(shipped):
    assert find_leaks(shipped, shipped["part"]).loc["test", "leaked"] == 1
    kept, problems = leave_out_leaks(shipped, NONE)
    assert problems["image_id"].tolist() == ["i3"]
    pd.testing.assert_frame_equal(
        kept[kept["part"] == "test"].reset_index(drop=True), shipped[shipped["part"] == "test"].reset_index(drop=True)
    )
    assert find_leaks(kept, kept["part"]).loc["test", "leaked"] == 0
    assert find_leaks(kept, kept["part"])["leaked"].sum() == 3  # between the other parts they may go on


def test_problems_found_before_the_leaks_are_kept_in_front(shipped):
    found = pd.DataFrame([["notes.txt", "is no image file", "ignored", None]], columns=PROBLEM_COLUMNS)
    _, problems = leave_out_leaks(shipped, found)
    assert problems["file"].tolist() == ["notes.txt", "i3.png"]
    assert problems.index.equals(pd.RangeIndex(2))


def test_leaving_out_leaks_again_changes_nothing(shipped):
    kept, problems = leave_out_leaks(shipped, NONE)
    again, still = leave_out_leaks(kept, problems)
    pd.testing.assert_frame_equal(again, kept)
    pd.testing.assert_frame_equal(still, problems)


def test_of_no_images_none_leak(shipped):
    kept, problems = leave_out_leaks(shipped.iloc[:0], NONE)
    assert kept.empty
    assert problems.empty


def test_identical_files_on_two_sides_leave_the_group_of_the_other_side_out(shipped):
    """Joined by a key first: the whole group goes, not only the image that is there twice."""
    keys = pd.Series([1, 2, 3, 4, 5, 6, 2, None], index=shipped.index)  # i1 of p, in train, is i6 of t, in test
    kept, problems = leave_out_leaks(shipped.assign(group=join_groups(shipped, keys)), NONE)
    assert problems["image_id"].tolist() == ["i0", "i1", "i2", "i3"]
    assert kept["image_id"].tolist() == ["i4", "i5", "i6", "i7"]


def test_leaks_count_as_images_left_out(shipped):
    kept, problems = leave_out_leaks(shipped, NONE)
    with pytest.raises(InputError, match=r"^12\.5% of the images cannot be used"):
        leave_out_unusable(kept, problems)
