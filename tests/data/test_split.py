"""Splits: whole groups, every class shared out alike, decided by the seed and nothing else."""

import re
from itertools import product

import numpy as np
import pandas as pd
import pytest

from helpers.data.audit import find_leaks
from helpers.data.split import (
    draw_examples,
    limit_images,
    list_runs,
    repeat_groups,
    split_by_group,
    split_by_image,
)
from helpers.files import InputError

HALVES = {"train": 0.5, "validation": 0.5}
THIRDS = {"train": 0.7, "validation": 0.2, "test": 0.1}


def make_images(groups_per_class, largest=1, seed=0, mixed=False):
    """Draw a table: groups of 1 to ``largest`` images, shuffled; with ``mixed``, some images carry another label."""
    rng = np.random.default_rng(seed)
    labels = [name for name, count in groups_per_class.items() for _ in range(count)]
    sizes = rng.integers(1, largest + 1, len(labels))
    table = pd.DataFrame(
        {
            "label": np.repeat(labels, sizes),
            "group": np.repeat([f"g{n:04d}" for n in rng.permutation(len(sizes))], sizes),
        }
    )
    if mixed:
        astray = rng.random(len(table)) < 0.1
        table.loc[astray, "label"] = rng.choice(list(groups_per_class), astray.sum())
    return table.iloc[rng.permutation(len(table))].reset_index(drop=True).assign(part="train")


def label_groups(images):
    """Give each group its most frequent label, of several the first in the alphabet."""
    counts = pd.crosstab(images["group"], images["label"])
    return counts.idxmax(axis=1)


def test_a_small_case_by_hand():
    images = pd.DataFrame({"label": list("aaaabbbb"), "group": list("11223344")}, index=list("stuvwxyz"))
    found = split_by_group(images, HALVES)
    assert found.index.tolist() == list("stuvwxyz")
    assert found.name == "split"
    for label in "ab":
        sets = found[images["label"] == label]
        assert sorted(sets) == ["train", "train", "validation", "validation"]
        assert sets.iloc[0] == sets.iloc[1]
        assert sets.iloc[2] == sets.iloc[3]
    assert {type(name) for name in found} == {str}  # not numpy.str_, which shows as such


@pytest.mark.parametrize("fractions", [HALVES, THIRDS, {"train": 11 / 12, "validation": 1 / 12}, {"all": 1}], ids=str)
@pytest.mark.parametrize("mixed", [False, True])
def test_random_tables_keep_every_promise(fractions, mixed):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        counts = {name: int(rng.integers(len(fractions) + 2, 40)) for name in "abcd"[: rng.integers(1, 5)]}
        images = make_images(counts, largest=int(rng.integers(1, 7)), seed=seed, mixed=mixed)
        try:
            split = split_by_group(images, fractions, seed)
        except InputError:
            assert mixed  # labels gone astray can leave a class with too few groups
            assert label_groups(images).value_counts().min() < len(fractions)
            continue
        assert split.index.equals(images.index)
        assert set(split) == set(fractions)
        assert split.groupby(images["group"]).nunique().max() == 1, "a group was torn"
        label = images["group"].map(label_groups(images))
        for name, rows in images.groupby(label):
            assert set(split[rows.index]) == set(fractions), f"class {name} is not in every set"
            largest = rows.groupby("group").size().max()
            for set_name, share in fractions.items():
                excess = (split[rows.index] == set_name).sum() - share * len(rows)
                assert -largest * max(1, len(fractions) - 1) <= excess <= largest + 1e-9


def test_shares_are_exact_where_groups_allow():
    images = make_images({"a": 100, "b": 1000})
    counts = pd.crosstab(images["label"], split_by_group(images, THIRDS))
    assert counts.loc["a"].to_dict() == {"train": 70, "validation": 20, "test": 10}
    assert counts.loc["b"].to_dict() == {"train": 700, "validation": 200, "test": 100}


def share_out(sizes, fractions, seed=42):
    """Split groups of these sizes, of one class; return the largest deviation of a set from its share, in images."""
    images = pd.DataFrame({"label": "a", "group": np.repeat(np.arange(len(sizes)), sizes)})
    counts = split_by_group(images, fractions, seed).value_counts()
    return max(abs(counts.get(name, 0) - share * len(images)) for name, share in fractions.items())


def test_a_huge_group_does_not_take_the_share_of_others():
    sizes, fractions = [6, 5, 5, 3, 2, 4, 7, 77], {"train": 0.85, "validation": 0.15}
    assert all(share_out(sizes, fractions, seed) < 1 for seed in range(20))


@pytest.mark.parametrize("count", [2, 3])
def test_shares_are_met_about_as_closely_as_whole_groups_allow(count):
    """Beside the best of all ways to share out the groups."""
    rng = np.random.default_rng(0)
    for _ in range(25):
        sizes = rng.lognormal(1.5, 1.2, 6).round().clip(1, 60).astype(int)
        shares = rng.dirichlet(np.full(count, 4))
        found = share_out(sizes, dict(zip("abc", shares, strict=False)))
        best = min(
            np.abs(np.bincount(way, sizes, count) - shares * sizes.sum()).max()
            for way in product(range(count), repeat=6)
            if len(set(way)) == count
        )
        assert found <= sizes.max()
        assert found <= best + 0.06 * sizes.sum()


def test_folds_are_as_equal_as_whole_groups_allow():
    sizes = [1, 1, 2, 3, 4, 5, 8, 8, 20, 20]
    images = pd.DataFrame({"label": "a", "group": np.repeat(np.arange(10), sizes)})
    for seed in range(10):
        assert sorted(len(run["test"]) for run in list_runs(images, 3, seed).values()) == [24, 24, 24]


def test_no_class_is_left_out_of_a_small_set():
    for seed in range(30):
        images = make_images({"rare": 3, "common": 300}, largest=5, seed=seed)
        split = split_by_group(images, {"train": 0.98, "validation": 0.01, "test": 0.01}, seed)
        assert split[images["label"] == "rare"].nunique() == 3


def test_the_seed_decides():
    images = make_images({"a": 50, "b": 50})
    first = split_by_group(images, HALVES, seed=1)
    pd.testing.assert_series_equal(split_by_group(images, HALVES, seed=1), first)
    others = [split_by_group(images, HALVES, seed=seed) for seed in range(2, 6)]
    assert all(0.3 < (other == first).mean() < 0.7 for other in others)


def test_numpys_global_state_is_neither_read_nor_changed():
    images = make_images({"a": 50})
    np.random.seed(1)
    first, state = split_by_group(images, HALVES), np.random.get_state()[1].copy()
    np.random.seed(2)
    pd.testing.assert_series_equal(split_by_group(images, HALVES), first)
    np.random.seed(1)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_order_of_the_rows_does_not_matter(mixed):
    for seed in range(5):
        images = make_images({"a": 20, "b": 30, "c": 9}, largest=4, seed=seed, mixed=mixed)
        expected = split_by_group(images, THIRDS)
        for order in range(3):
            shuffled = images.sample(frac=1, random_state=order)
            pd.testing.assert_series_equal(split_by_group(shuffled, THIRDS).sort_index(), expected)


def test_rows_are_chosen_by_chance_not_by_place():
    images = pd.DataFrame({"label": "a", "group": [f"{n:04d}" for n in range(1000)]})
    chosen = np.flatnonzero(split_by_group(images, {"train": 0.9, "test": 0.1}) == "test")
    assert len(chosen) == 100
    assert 400 < chosen.mean() < 600
    assert np.histogram(chosen, 10, (0, 1000))[0].max() <= 25


def test_groups_with_several_labels_count_for_the_most_frequent():
    images = make_images({"a": 10, "b": 10})
    odd = pd.DataFrame({"label": list("aab"), "group": "odd", "part": "train"})
    split = split_by_group(pd.concat([images, odd], ignore_index=True), HALVES)
    assert len(set(split.iloc[-3:])) == 1
    only_odd = pd.DataFrame({"label": list("aabcc"), "group": list("11122")})
    assert split_by_group(only_odd, {"train": 1.0}).tolist() == ["train"] * 5  # "b" leads no group and asks for none


def test_class_with_too_few_groups_is_named_with_what_to_do():
    images = pd.DataFrame({"label": list("aaaabbbb"), "group": list("12345555")})
    with pytest.raises(InputError) as caught:
        split_by_group(images, HALVES)
    message = str(caught.value)
    assert "'b' has 1 group(s)" in message
    assert "2 sets (train, validation)" in message
    assert "Leave the class out" in message


@pytest.mark.parametrize(
    "fractions",
    [{}, {"a": 0.5}, {"a": 0.5, "b": 0.6}, {"a": 1.5, "b": -0.5}, {"a": 1.0, "b": 0.0}, {"a": float("nan"), "b": 1}],
    ids=str,
)
def test_wrong_shares(fractions):
    with pytest.raises(ValueError, match="expected positive shares that sum to 1") as caught:
        split_by_group(make_images({"a": 10}), fractions)
    assert not isinstance(caught.value, InputError)
    assert str(fractions) in str(caught.value)


def test_no_split_of_groups_leaks():
    images = make_images({"a": 20, "b": 30}, largest=4, mixed=True)
    assert find_leaks(images, split_by_group(images, THIRDS))["leaked"].tolist() == [0, 0, 0]


@pytest.fixture
def parts():
    large = make_images({"a": 300, "b": 100}, largest=3, seed=1)
    small = make_images({"a": 10, "b": 10}, seed=2).assign(part="test")
    return pd.concat([large, small.assign(group="t" + small["group"])], ignore_index=True)


def test_limited_parts_have_about_as_many_images_in_the_classes_shares(parts):
    kept = limit_images(parts.assign(row=parts.index), 200, seed=3)
    assert kept.index.equals(pd.RangeIndex(len(kept)))
    kept = kept.set_index("row").rename_axis(None)
    pd.testing.assert_frame_equal(kept, parts.loc[kept.index])
    train, every = kept[kept["part"] == "train"], parts[parts["part"] == "train"]
    assert abs(len(train) - 200) <= 2 * 3  # one group in each class
    for label in "ab":
        expected = 200 * (every["label"] == label).mean()
        assert abs((train["label"] == label).sum() - expected) <= 3
    left_out = every.drop(train.index)
    assert not set(train["group"]) & set(left_out["group"]), "a group was torn"
    assert (kept["part"] == "test").sum() == 20, "a small part stays whole"


def test_limit_above_all_parts_changes_nothing(parts):
    pd.testing.assert_frame_equal(limit_images(parts, 10_000), parts)


def test_limit_is_decided_by_the_seed(parts):
    first = limit_images(parts, 200, seed=1)
    pd.testing.assert_frame_equal(limit_images(parts, 200, seed=1), first)
    assert not limit_images(parts, 200, seed=2).equals(first)


@pytest.mark.parametrize("most", [200, 10_000])
def test_limit_keeps_the_order_of_any_table(parts, most):
    shuffled = parts.assign(row=parts.index).sample(frac=1, random_state=0)
    kept = limit_images(shuffled, most)
    expected = shuffled[shuffled["row"].isin(kept["row"])]
    pd.testing.assert_frame_equal(kept, expected.reset_index(drop=True))


@pytest.mark.parametrize("column", ["label", "group"])
def test_images_without_label_or_group_are_not_lost_in_silence(column):
    images = pd.DataFrame({"label": list("aaaabbbb"), "group": list("11223344")})
    images.loc[3, column] = None
    with pytest.raises(ValueError, match="no label or no group"):
        split_by_group(images, {"train": 0.5, "validation": 0.5})


def test_split_by_image_shares_out_each_class_exactly_and_tears_groups():
    images = make_images({"a": 100, "b": 40}, largest=5)
    images = images.groupby("label").head(100).set_index(np.arange(1000, 1000 + 200))
    split = split_by_image(images, THIRDS)
    assert split.index.equals(images.index)
    assert split.name == "split"
    counts = pd.crosstab(images["label"], split)
    for label in "ab":
        assert counts.loc[label].to_dict() == {"train": 70, "validation": 20, "test": 10}
    assert find_leaks(images, split).loc["test", "share"] > 0.4


def test_split_by_image_reads_no_groups():
    images = make_images({"a": 30, "b": 30}, largest=4)
    expected = split_by_image(images, HALVES)
    pd.testing.assert_series_equal(split_by_image(images.drop(columns="group"), HALVES), expected)
    pd.testing.assert_series_equal(split_by_image(images.assign(group="one"), HALVES), expected)
    assert not split_by_image(images, HALVES, seed=1).equals(expected)
    assert "group" in images


def test_limit_of_all_images_together(parts):
    assert parts["part"].nunique() == 2
    kept = limit_images(parts.assign(row=parts.index), 200, seed=3, by=None)
    assert abs(len(kept) - 200) <= 2 * 3  # one group in each class
    assert kept["row"].is_monotonic_increasing
    assert kept.index.equals(pd.RangeIndex(len(kept)))
    left_out = parts.drop(kept["row"])
    assert not set(kept["group"]) & set(left_out["group"]), "a group was torn"
    for label in "ab":
        assert abs((kept["label"] == label).sum() - 200 * (parts["label"] == label).mean()) <= 3
    without_parts = limit_images(parts.drop(columns="part"), 200, seed=3, by=None)
    pd.testing.assert_frame_equal(without_parts, kept[["label", "group"]])
    pd.testing.assert_frame_equal(limit_images(parts, len(parts), by=None), parts)


def test_limit_by_another_column(parts):
    kept = limit_images(parts.drop(columns="part"), 50, by="label")
    assert set(kept["label"]) == {"a", "b"}
    assert all(abs(count - 50) <= 3 for count in kept["label"].value_counts())


def test_examples_are_as_many_of_each_value_that_has_enough():
    images = make_images({"a": 9, "b": 2, "c": 5})
    drawn = draw_examples(images, "label", 3, seed=1)
    assert drawn["label"].tolist() == ["a"] * 3 + ["c"] * 3
    assert drawn.index.is_unique
    pd.testing.assert_frame_equal(drawn, images.loc[drawn.index])
    pd.testing.assert_frame_equal(drawn, draw_examples(images, "label", 3, seed=1))
    assert drawn.index.tolist() != draw_examples(images, "label", 3, seed=2).index.tolist()


def make_shipped():
    """Draw a table of two classes, each with two people in each of three folds."""
    rows = [(label, f"{label}{number}", f"fold_{number % 3}") for label in "ab" for number in range(6)]
    table = pd.DataFrame(rows, columns=["label", "group", "fold"])
    return table.loc[table.index.repeat(4)].reset_index(drop=True)


def test_shipped_folds_are_held_out_in_turn():
    images = make_shipped()
    runs = list_runs(images, "fold", refits=1)
    assert list(runs) == ["fold 1", "fold 2", "fold 3", "refit 1"]
    for number in range(3):
        rows = runs[f"fold {number + 1}"]
        assert set(images["fold"][rows["test"]]) == {f"fold_{number}"}
        assert sorted([*rows["test"], *rows["train"]]) == images.index.tolist()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda images: images.assign(fold="fold_0"), "lie in 1 fold(s), fold_0: expected"),
        (lambda images: images.assign(fold=images["fold"].mask(images.index == 3)), "lie in 3 fold(s)"),
        (
            lambda images: images.assign(fold=images["fold"].where(images.index != 0, "fold_2")),
            "in fold_2 and ",
        ),
        (
            lambda images: images[(images["label"] == "a") | (images["fold"] == "fold_1")],
            "fold_0 has no b; fold_2 has no b",
        ),
    ],
)
def test_shipped_folds_that_cannot_be_used_are_told(spoil, told):
    with pytest.raises(InputError, match=re.escape(told)):
        list_runs(spoil(make_shipped()), "fold")


def test_repeated_groups_weigh_alike():
    images = make_images({"a": 7, "b": 20}, largest=30)
    rows = repeat_groups(images)
    repeated = images.loc[rows]
    by_group = repeated.groupby(["label", "group"]).size()
    assert (by_group.groupby("label").max() == by_group.groupby("label").min()).all()
    by_class = by_group.groupby("label").sum()
    assert by_class.max() - by_class.min() < 20  # rounded up for each group
    times = pd.Series(rows).value_counts().reindex(images.index, fill_value=0).groupby(images["group"])
    assert (times.max() - times.min()).max() == 1  # no image is drawn twice before all were drawn
    n_groups = images.groupby("label")["group"].nunique()
    largest = images.groupby(["label", "group"]).size().groupby("label").max()
    whole = (n_groups * largest).idxmax()
    assert set(rows) >= set(images.index[images["label"] == whole])
    np.testing.assert_array_equal(rows, repeat_groups(images))
    assert not np.array_equal(rows, repeat_groups(images, seed=1))
