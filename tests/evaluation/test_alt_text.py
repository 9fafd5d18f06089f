"""Alternative texts say in words what a figure shows first."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.evaluation import plots
from helpers.evaluation.alt_text import read_first_sentence, write_alt_text
from helpers.evaluation.report import Report
from helpers.settings import read_settings


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def describe(ax):
    return write_alt_text(getattr(ax, "figure", ax))


def test_bars_tell_their_lengths():
    images = pd.DataFrame({"label": ["nevus"] * 5 + ["melanoma"] * 2, "sex": ["f", "m", "f", "m", "f", "m", "m"]})
    assert "nevus 5, melanoma 2" in describe(plots.plot_counts(images, order=["nevus", "melanoma"])).lower()
    text = describe(plots.plot_counts(images, by="sex", horizontal=True)).lower()
    assert "f: " in text
    assert "nevus 3" in text


def test_many_bars_are_named_only():
    _, ax = plt.subplots()
    ax.bar([f"class {number}" for number in range(30)], range(30))
    assert describe(ax).endswith("class 10, class 11, and 18 more.")


def test_lines_tell_their_ends_unless_their_names_do():
    _, ax = plt.subplots()
    ax.plot([0, 1, 2], [0.5, 0.7, 0.93], label="cnn")
    ax.plot([0, 1, 2], [0, 0.9, 1], label="frozen: ROC AUC 0.98")
    ax.plot([0, 2], [0, 1], "k:")
    ax.set(xlabel="epoch\nof all", ylabel="accuracy", title="Accuracy")
    assert describe(ax) == (
        "Line chart: Accuracy. Horizontal axis: epoch of all. Vertical axis: accuracy. "
        "Lines: cnn from 0.5 to 0.93; frozen: ROC AUC 0.98."
    )


@pytest.mark.parametrize("normalize", [False, True])
def test_a_small_matrix_is_read_row_by_row(normalize):
    table = pd.DataFrame({"y_true": list("aaab"), "y_pred": list("aaba")})
    text = describe(plots.plot_confusion_matrix(table, ["a", "b"], normalize))
    assert text.startswith("Matrix: Confusion matrix")
    assert "A: A" in text.replace("a:", "A:").replace(" a ", " A ")
    names = [f"class {number}" for number in range(9)]
    table = pd.DataFrame({"y_true": names, "y_pred": names})
    text = describe(plots.plot_confusion_matrix(table, names))
    assert "lass 8" in text
    assert text.count("lass 8") == 1


def test_rows_of_points_tell_their_values():
    table = pd.DataFrame({"name": ["cnn", "frozen"], "value": [0.81, 0.925], "low": [0.7, 0.9], "high": [0.9, 0.95]})
    _, ax = plt.subplots()
    plots.plot_intervals(table, "name", "accuracy", ax=ax)
    text = describe(ax).lower()
    assert text.startswith("points in rows. horizontal axis: accuracy")
    assert "cnn 0.81, frozen 0.925" in text


def test_grids_tell_what_stands_above_the_images():
    images = np.zeros((4, 5, 5, 3), np.uint8)
    figure = plots.plot_image_grid(images, ["right", "wrong", "right", "right"], 4)
    assert describe(figure).lower() == "4 images. titles: right (3 times), wrong."


def test_a_figure_of_nothing_has_no_text():
    assert describe(plt.figure()) == ""


def test_a_long_text_ends_at_a_word():
    figure, axes = plt.subplots(1, 8)
    for ax in axes:
        ax.plot([0, 1, 2], [0, 1, 2], label="a line of a long name " * 5)
        ax.set_title("A title of many words " * 3)
    text = describe(figure)
    assert 700 < len(text) <= 902
    assert text.endswith(" …")


@pytest.mark.parametrize(
    ("markdown", "sentence"),
    [
        ("**nevus** has the most, `.5` of [all](glossary.md#all). More.", "nevus has the most, .5 of all."),
        ("- A *list* item of file_name_1", "A list item of file_name_1"),
        ("", ""),
        ("It is 0.5 % (0.1 to 0.9)! Good.", "It is 0.5 % (0.1 to 0.9)!"),
    ],
)
def test_the_first_sentence_is_read_without_its_signs(markdown, sentence):
    assert read_first_sentence(markdown) == sentence


@pytest.mark.parametrize("alt", ["", "Two bars."])
def test_exported_files_carry_the_text(tmp_path, alt):
    figure, ax = plt.subplots()
    ax.bar(["cat", "dog"], [3, 1])
    report = Report("01_mnist", read_settings({}), True, tmp_path)
    report.save_figure(figure, "bars", alt=alt)
    expected = alt or "Bar chart. cat 3, dog 1. Drawn sample."
    with Image.open(report.folder / "bars.png") as opened:
        assert opened.info["Description"] == expected
    assert expected.encode() in (report.folder / "bars.pdf").read_bytes()
    assert expected in (report.folder / "bars.svg").read_text(encoding="utf-8")
