"""Marks: tables and texts that a notebook displays say what they were made from."""

import io
import re
from types import ModuleType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import HTML, Markdown
from PIL import Image
from traitlets.config import Config

from helpers.evaluation import marks
from helpers.evaluation.marks import Unmarked, encode_picture, mark_outputs, picture_figure
from helpers.evaluation.report import save_picture

TABLE = pd.DataFrame({"count": [1, 2]})
START = "<small><em>drawn sample</em></small>"


@pytest.fixture
def shell(monkeypatch):
    """Start IPython's shell beside the tests; what it would display is read from its formatters."""
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell(config=config, user_module=ModuleType("scratch"))
    monkeypatch.setattr(marks, "get_ipython", lambda: shell)
    return shell


def show(shell, item):
    """Give what a cell displays of an object: a dict of str."""
    data, _ = shell.display_formatter.format(item)
    return data


def test_tables_and_texts_are_marked_until_there_is_no_mark(shell):
    table, styled, text = TABLE, TABLE.style.format("{:.1f}"), Markdown("The network is better.")
    plain = [show(shell, item) for item in (table, text)]
    mark_outputs("drawn sample")
    marked = show(shell, table)
    assert marked["text/html"] == START + plain[0]["text/html"]
    assert marked["text/plain"] == plain[0]["text/plain"]
    assert show(shell, styled)["text/html"].startswith(START + "<style")
    assert ">2.0</td>" in show(shell, styled)["text/html"]
    assert show(shell, styled) == show(shell, TABLE.style.format("{:.1f}"))  # without a random id or an address
    assert show(shell, text)["text/markdown"] == "*drawn sample:* The network is better."
    mark_outputs("quick run")  # another data set was opened: one mark, and the new one
    assert show(shell, table)["text/html"] == plain[0]["text/html"].join(["<small><em>quick run</em></small>", ""])
    assert show(shell, text)["text/markdown"].startswith("*quick run:*")
    for _ in range(2):
        mark_outputs("")
        assert [show(shell, item) for item in (table, text)] == plain
        assert "<em>" not in show(shell, styled)["text/html"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("All right.", "*mark:* All right."),
        ("  5 of 6 are right.", "*mark:* 5 of 6 are right."),
        ("**All** right.", "*mark:* **All** right."),
        ("`cnn` is better.", "*mark:* `cnn` is better."),
        ("| a | b |\n|---|---|", "*mark:*\n\n| a | b |\n|---|---|"),
        ("- first\n- second", "*mark:*\n\n- first\n- second"),
        ("### Result", "*mark:*\n\n### Result"),
        ("", "*mark:*\n\n"),
    ],
)
def test_the_mark_leaves_a_text_what_it_is(shell, text, expected):
    """Lists, headings and tables begin in a line of their own."""
    mark_outputs("mark")
    assert show(shell, Markdown(text))["text/markdown"] == expected


def test_the_style_of_a_table_stays_its_own(shell):
    mark_outputs("drawn sample")
    red, blue = (show(shell, TABLE.style.highlight_max(color=c))["text/html"] for c in ("red", "blue"))
    own = re.search(r"#(T_[0-9a-f]{8}_row1_col0) {\n  background-color: red", red)[1]
    assert f'<td id="{own}" class="data row1 col0" >2</td>' in red
    assert own.split("_row")[0] not in blue


def test_what_has_another_origin_is_not_marked(shell):
    mark_outputs("drawn sample")
    assert show(shell, Unmarked(TABLE)) == {"text/plain": str(TABLE), "text/html": TABLE.to_html()}
    assert show(shell, Unmarked("*a* text")) == {"text/plain": "*a* text", "text/markdown": "*a* text"}
    picture = encode_picture(Image.new("RGB", (5, 4)))
    data = show(shell, Unmarked(picture, "roc"))
    assert (data["text/plain"], set(data)) == ("<figure roc>", {"text/plain", "image/png"})
    assert show(shell, HTML("<b>bold</b>"))["text/html"] == "<b>bold</b>"


def test_outside_of_a_notebook_nothing_happens(monkeypatch):
    monkeypatch.setattr(marks, "get_ipython", lambda: None)
    mark_outputs("drawn sample")
    assert TABLE._repr_html_() == Unmarked(TABLE).content._repr_html_()


def test_figures_become_small_pictures_of_themselves(tmp_path):
    figure, ax = plt.subplots(figsize=(4, 3))
    ax.plot([0, 1], [0, 1], color="red", linewidth=5)
    save_picture(figure, tmp_path, "line", mark="drawn sample")
    picture = picture_figure(figure, "line")
    assert repr(picture) == "<figure line>"
    image = Image.open(io.BytesIO(picture.content))
    assert (image.format, image.mode) == ("PNG", "P")
    assert image.width == 4 * figure.dpi  # as wide as in print
    assert 1 < image.height / (3 * figure.dpi) < 1.1  # the mark stands above
    with Image.open(tmp_path / "line.png") as exported:
        original = exported.convert("RGB").resize(image.size)
    assert np.abs(np.asarray(image.convert("RGB"), float) - np.asarray(original, float)).mean() < 2
    original.save(stream := io.BytesIO(), "PNG")
    assert len(picture.content) < 0.5 * len(stream.getvalue())


def test_a_picture_that_shows_images_is_coarser(tmp_path):
    figure, ax = plt.subplots(figsize=(4, 3))
    ax.imshow(np.eye(3))
    save_picture(figure, tmp_path, "eye")
    width = Image.open(io.BytesIO(picture_figure(figure, "eye").content)).width
    assert width == pytest.approx(0.7 * 4 * figure.dpi, abs=1)
