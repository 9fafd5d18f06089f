"""Labels: flipped labels are found, and nothing is made of labels that say nothing."""

import time

import numpy as np
import pandas as pd
import pytest
from cleanlab import filter as confident_learning

from helpers.evaluation.labels import find_label_issues
from helpers.evaluation.scores import get_probabilities, make_predictions

NAMES = ["a", "b", "c", "d"]


def simulate(count=600, flipped=0.08, names=NAMES, seed=0):
    """Draw predictions of a good model, and labels of which some are flipped; return also which."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(names), count)
    y_prob = rng.dirichlet(np.ones(len(names)), count) + 2 * np.eye(len(names))[truth]
    wrong = rng.random(count) < flipped
    given = np.where(wrong, (truth + rng.integers(1, len(names), count)) % len(names), truth)
    images = pd.DataFrame({"image_id": range(count), "group": range(count), "label": np.array(names)[given]})
    table = make_predictions(images, y_prob / y_prob.sum(axis=1, keepdims=True), names)
    return table, wrong, np.array(names)[truth]


def test_flipped_labels_are_found():
    for seed in range(3):
        table, wrong, truth = simulate(3000, seed=seed)
        found = find_label_issues(table, count=3000)
        rows = found["image_id"].to_numpy()
        assert wrong[rows].mean() > 0.95  # precision
        assert wrong[rows].sum() / wrong.sum() > 0.85  # recall
        assert (found["suggested"] == truth[rows]).mean() > 0.9


def test_the_rows_are_those_of_cleanlab():
    table = simulate()[0].set_index(pd.Index(range(5, 605)))
    y_prob, codes = get_probabilities(table)[0], table["y_true"].map(NAMES.index).to_numpy()
    mask = confident_learning.find_label_issues(codes, y_prob, n_jobs=1)
    expected = table[mask].assign(self_confidence=y_prob[mask, codes[mask]]).sort_values("self_confidence")
    found = find_label_issues(table, count=1000)
    assert list(found.columns) == [*table.columns, "suggested", "self_confidence"]
    pd.testing.assert_frame_equal(found.drop(columns="suggested"), expected)
    assert (found["suggested"] == found["y_pred"]).all()
    assert (found["suggested"] != found["y_true"]).all()
    assert len(found) > 20
    pd.testing.assert_frame_equal(find_label_issues(table), found.head(20))
    pd.testing.assert_frame_equal(find_label_issues(table, 3), found.head(3))
    assert "suggested" not in table


def test_classes_may_be_numbers_as_after_csv():
    table = simulate(names=["0", "1", "2"])[0]
    found = find_label_issues(table.astype({"y_true": int, "y_pred": int}))
    assert found.index.tolist() == find_label_issues(table).index.tolist()


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_class_that_is_absent_or_rare_does_no_harm(left, capfd):
    table, wrong, _ = simulate()
    rare = np.flatnonzero((table["y_true"] == "b") & ~wrong)[left:]
    kept = table.drop(index=[*rare, *np.flatnonzero((table["y_true"] == "b") & wrong)])
    rows = find_label_issues(kept, 600)["image_id"].to_numpy()
    assert wrong[rows].mean() > 0.9
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("count", [0, 1, 50])
def test_of_one_class_nothing_is_suspicious(count):
    table = simulate()[0]
    found = find_label_issues(table[table["y_true"] == "a"].head(count))
    assert found.empty
    assert list(found.columns) == [*table.columns, "suggested", "self_confidence"]


def test_labels_that_the_model_agrees_with_are_not_listed(predict):
    assert find_label_issues(predict(100, skill=1000)).empty


def test_unknown_labels_are_refused(predict):
    with pytest.raises(ValueError, match="y_true has"):
        find_label_issues(predict(10).assign(y_true="z"))


def test_ten_thousand_images_take_less_than_two_seconds():
    table = simulate(10_000, names=list("abcdefghij"))[0]
    start = time.process_time()
    assert len(find_label_issues(table)) == 20
    assert time.process_time() - start < 2
