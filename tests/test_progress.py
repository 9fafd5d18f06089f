"""Progress: one line for a person who watches, nothing of it anywhere else, and every stage that takes long has one."""

import time

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from PIL import Image

from helpers import progress
from helpers.data import duplicates, listing
from helpers.data.pixels import load_pixels, measure_images
from helpers.evaluation import robustness, scores
from helpers.settings import PROJECT_FOLDER

LINE = "cnn, fold 2 of 5: epoch 4 of 25, 31 % · 20 images/s · 0:03 passed, 0:34 left"


@pytest.fixture
def clock(monkeypatch):
    """Set the time by hand."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def quick(monkeypatch):
    """Show lines at once and often."""
    monkeypatch.setattr(progress, "_DELAY", 0.01)
    monkeypatch.setattr(progress, "_INTERVAL", 0.01)
    monkeypatch.setattr(progress, "_shown", True)


# What the line says


def test_a_line_tells_label_share_rate_and_times(clock):
    stage = progress.Stage("cnn, fold 2 of 5", 1000, done=250)
    stage.doing = "epoch 4 of 25"
    clock[0] += 3
    stage.update(60)
    assert str(stage) == LINE


def test_the_rate_counts_only_what_was_done_since_it_began(clock):
    stage = progress.Stage("cnn", 1000, done=500)
    clock[0] += 50  # to trace the network
    stage.update(100)
    stage.begin()
    clock[0] += 10
    stage.update(100)
    assert str(stage) == "cnn: 70 % · 10 images/s · 1:00 passed, 0:30 left"


@pytest.mark.parametrize(
    ("total", "unit", "done", "seconds", "line"),
    [
        (None, "file", 0, 2, "x: 0:02 passed"),
        (0, "file", 0, 2, "x: 0:02 passed"),
        (None, "file", 9000, 2, "x: 9,000 files · 4,500 files/s · 0:02 passed"),
        (8, "trial", 0, 65, "x: 0 % · 1:05 passed"),
        (8, "trial", 2, 3600, "x: 25 % · 1800.0 s per trial · 1:00:00 passed, 3:00:00 left"),
    ],
)
def test_lines_of_other_stages(clock, total, unit, done, seconds, line):
    stage = progress.Stage("x", total, unit)
    clock[0] += seconds
    stage.update(done)
    assert str(stage) == line


# Where it stands


@pytest.mark.usefixtures("quick")
def test_on_a_terminal_the_line_is_replaced_and_removed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    with progress.open_stage("a label that is longer than the terminal is wide", 4) as stage:
        stage.update()
        time.sleep(0.2)
    out, err = capsys.readouterr()
    lines = err.split("\r\033[K")
    assert out == lines[0] == lines[-1] == ""
    assert len(lines) > 4
    assert set(lines[1:-1]) == {"a label that is longer than the termina"}


def test_nothing_is_shown_unless_asked(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_DELAY", 0)
    with progress.open_stage("x", 4):
        time.sleep(0.05)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("quick")
def test_what_is_over_soon_shows_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_DELAY", 1)
    assert list(progress.track("abc", "x")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("quick")
def test_a_stage_within_another_shows_nothing(capsys):
    with progress.open_stage("outer", 2):
        time.sleep(0.05)
        with progress.open_stage("inner", 2):
            time.sleep(0.05)
    assert "inner" not in capsys.readouterr().err
    with progress.open_stage("inner", 2):
        time.sleep(0.1)
    assert "inner" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_an_interrupted_stage_leaves_nothing(capsys):
    def interrupt():
        with progress.open_stage("x", 2):
            time.sleep(0.1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert capsys.readouterr().err.endswith(" passed\r\033[K")
    assert progress._stage is None  # the next one is shown


CELL = """
import time
from helpers import progress
progress.show({shown})
with progress.open_stage("cnn", 40) as stage:
    for _ in range(20):
        stage.update(2)
        time.sleep(0.1)
print("done")
"""


@pytest.mark.parametrize("shown", [True, False])
def test_in_a_notebook_one_output_is_updated_and_emptied(shown):
    cell = nbformat.v4.new_code_cell(CELL.format(shown=shown))
    seen = []

    class Client(NotebookClient):
        def process_message(self, message, *rest):
            if "data" in message["content"]:
                seen.append((message["msg_type"], message["content"]["data"]))
            return super().process_message(message, *rest)

    metadata = {"metadata": {"path": str(PROJECT_FOLDER)}}
    Client(nbformat.v4.new_notebook(cells=[cell]), kernel_name="python3", resources=metadata).execute()
    kinds, data = zip(*seen, strict=True) if seen else ((), ())
    assert cell.outputs[-1]["text"] == "done\n"
    assert [output.output_type for output in cell.outputs] == ["display_data"] * shown + ["stream"]
    assert (kinds[:1], set(kinds[1:])) == ((("display_data",), {"update_display_data"}) if shown else ((), set()))
    if shown:
        assert cell.outputs[0].data == data[-1] == {}
        assert all(text["text/plain"].startswith("cnn: ") for text in data[:-1])
        assert 3 <= len(data) <= 6  # at most some a second


# Which stages have one


def list_labels(stages):
    assert [stage.label for stage in stages if stage.total not in (None, stage.done)] == []
    return [stage.label for stage in stages]


def test_listing_hashing_measuring_and_decoding(stages, tmp_path):
    (tmp_path / "images").mkdir()
    images = pd.DataFrame({"path": [f"{number}.png" for number in range(5)]})
    for path in images["path"]:
        Image.new("RGB", (10, 12)).save(tmp_path / "images" / path)
    assert len(listing.list_files(tmp_path / "images").paths) == 5
    measure_images(images, tmp_path / "images", tmp_path / "cache")
    load_pixels(images, tmp_path / "images", (8, 9, 3), tmp_path / "cache")
    expected = ["listing files", "hashing files", "measuring images", "decoding images to 8 × 9 pixels"]
    assert list(dict.fromkeys(list_labels(stages))) == expected  # files this new are hashed each time
    assert {stage.done for stage in stages} == {5}
    stages.clear()
    measure_images(images, tmp_path / "images", tmp_path / "cache")
    assert set(list_labels(stages)) == {"hashing files"}


def test_looking_for_copies(stages):
    coarse = np.random.default_rng(0).integers(0, 256, (6, 12, 12)).astype("uint8")
    pixels = coarse.repeat(8, axis=1).repeat(8, axis=2)[..., None]
    duplicates.find_near_duplicates(pixels)
    duplicates.find_derived_copies(pixels)
    what = ["finding key points", "finding similar images", "comparing similar images"]
    assert list_labels(stages) == ["looking for near-duplicates", *(f"looking for copies, {each}" for each in what)]


def test_corruptions(stages):
    images = np.zeros((4, 16, 16, 3), "uint8")
    table = pd.DataFrame({"image_id": list("abcd"), "label": list("xyxy"), "group": list("abcd")})
    y_prob = np.full((4, 2), 0.5)
    predictions = scores.make_predictions(table, y_prob, ("x", "y"))
    names = ["shift", "rotation"]
    robustness.score_corruptions({"m": lambda images: y_prob}, images, predictions, names, (1, 2), resamples=10)
    models = {"m": lambda images: table["label"]}
    robustness.compute_robustness(models, images, table["label"], lambda images, strength: images, [1, 2])
    assert list_labels(stages) == ["corrupting images and predicting them", "altering images and predicting them"]
