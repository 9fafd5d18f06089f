"""The command line that predicts image files: the table by hand, resuming, and what can be wrong."""

import csv
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers
from PIL import Image

from helpers import predict, progress
from helpers.data.pixels import read_image
from helpers.evaluation.calibration import predict_sets
from helpers.evaluation.foreign import Familiar, describe_pixels
from helpers.files import InputError
from helpers.predict import classifier
from helpers.training import saving
from helpers.training.fast import predict_probabilities, predict_with_features
from helpers.training.networks import build_cnn
from helpers.training.saving import load_model, save_model

# Keras hands TensorFlow's variables to NumPy in the old way when it writes a file.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

PROJECT = Path(__file__).parents[1]
ABOUT = {
    "class_names": ["a", "second, with a comma", "c"],
    "conformal": {"a": 0.2, "second, with a comma": 0.2, "c": 0.2},
}
PROBABILITIES = [f"p_{name}" for name in ABOUT["class_names"]]
COLUMNS = ["file", "class", "confidence", "uncertain", "foreign", "distance", "nearest", *PROBABILITIES]
COLUMNS += ["note", "views", "content", "model"]
NAMES = ["1.bmp", "2.bmp", "10.bmp", "Part 2/x.PNG", "Part 2/y.jpg", "Part 10/a, b\nc.png", "Part 10/ü.tif"]


def save_cnn(path, shape=(16, 16, 3), about=ABOUT, seed=7):
    """Save a small network that takes different images for different classes."""
    statistics = np.full(shape[2], 128.0), np.full(shape[2], 60.0)
    model = build_cnn(shape, 3, statistics, filters=((4,), (5,)))
    rng = np.random.default_rng(seed)
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights(
        [rng.normal(0, 0.5, shape) if len(shape) > 1 else rng.uniform(0.5, 1.5, shape) for shape in shapes]
    )
    return save_model(model, path, about)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save models once for all tests, and load them once: one that says what it is about, and others."""
    folder = tmp_path_factory.mktemp("models")
    paths = {
        "full": save_cnn(folder / "full.keras"),
        "other": save_cnn(folder / "other.keras", seed=2),
        "silent": save_cnn(folder / "silent.keras", about=None),
        "grey": save_cnn(folder / "grey.keras", (16, 12, 1), about={"class_names": ABOUT["class_names"], "views": 4}),
    }
    load_once = functools.cache(load_model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            saving, "load_model", lambda path: (load_once if Path(path) in paths.values() else load_model)(path)
        )
        yield paths


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Write images where the tests run: seven in ``scans``, with what is no image among them."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in NAMES:
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = rng.choice([40, 210], 3)
        Image.fromarray((colour + rng.integers(-40, 40, (20, 24, 3))).astype("uint8")).save(path)
    (tmp_path / "scans" / "notes.txt").write_text("no image")
    (tmp_path / "scans" / "._1.bmp").write_text("what macOS leaves")
    (tmp_path / "scans" / ".trash").mkdir()
    (tmp_path / "scans" / ".trash" / "3.bmp").write_text("hidden")
    return tmp_path / "scans"


def run(*arguments):
    return predict.main([str(argument) for argument in arguments])


def read_table(path="predictions.csv"):
    return pd.read_csv(path, keep_default_na=False, dtype={"model": "str", "uncertain": "str"})


def compute_expected(model_path, names, views=1):
    model = load_model(model_path)
    pixels = np.stack([read_image(Path(name), model.input_shape[1:]) for name in names])
    return predict_probabilities(model, pixels, views=views)


@pytest.fixture
def count_reads(monkeypatch):
    """Note the files that are read to be predicted."""
    read, original = [], predict._try_to_read

    def note(path, *options):
        read.append(path.as_posix())
        return original(path, *options)

    monkeypatch.setattr(predict, "_try_to_read", note)
    return read


# The table


def test_a_folder(saved, folder, capsys):
    assert run(saved["full"], "scans", "--batch-size", 3) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "scans: 7 of 8 files are images; the others: 1 other file (.txt)",
        "predictions.csv: predicted 7",
    ]
    assert err == ""
    assert sorted(path.name for path in Path().iterdir()) == ["predictions.csv", "scans"]

    table = read_table()
    assert table.columns.tolist() == COLUMNS
    assert table["file"].tolist() == [f"scans/{name}" for name in NAMES]  # in natural order
    y_prob = compute_expected(saved["full"], table["file"])
    np.testing.assert_allclose(table[PROBABILITIES], y_prob, atol=1e-5)
    np.testing.assert_allclose(table["confidence"], y_prob.max(axis=1), atol=1e-5)
    assert table["class"].tolist() == [ABOUT["class_names"][code] for code in y_prob.argmax(axis=1)]
    assert len(set(table["class"])) > 1
    sets = predict_sets(pd.DataFrame(y_prob, columns=PROBABILITIES), ABOUT["conformal"])
    assert table["uncertain"].tolist() == sets["uncertain"].astype(str).tolist()
    assert table["uncertain"].nunique() == 2
    assert table["content"].tolist() == [compute_sha256(path)[:16] for path in table["file"]]
    assert set(table["model"]) == {compute_sha256(saved["full"])[:12]}
    assert set(table["views"]) == {1}
    assert set(table[["foreign", "distance", "nearest", "note"]].to_numpy().ravel()) == {""}


def compute_sha256(path):
    with open(path, "rb") as file:
        return subprocess.run(["sha256sum"], stdin=file, capture_output=True, text=True, check=True).stdout


def test_files_and_folders_stand_in_the_order_given_and_only_once(saved, folder):
    assert (
        run(saved["full"], "scans/10.bmp", folder / "Part 2", "./scans/10.bmp", "scans/1.bmp", "--out", "new/t.csv")
        == 0
    )
    expected = ["scans/10.bmp", f"{folder.as_posix()}/Part 2/x.PNG", f"{folder.as_posix()}/Part 2/y.jpg", "scans/1.bmp"]
    assert read_table("new/t.csv")["file"].tolist() == expected


def test_a_model_that_says_nothing_numbers_its_classes(saved, folder):
    assert run(saved["silent"], "scans") == 0
    table = read_table()
    assert table.columns.tolist()[7:10] == ["p_class_0", "p_class_1", "p_class_2"]
    assert set(table["class"]) <= {"class_0", "class_1", "class_2"}
    assert set(table["uncertain"]) == {""}


def test_a_grey_model_in_the_views_that_it_asks_for(saved, folder):
    assert run(saved["grey"], "scans", "--out", "four.csv") == 0
    assert run(saved["grey"], "scans", "--out", "one.csv", "--views", 1) == 0
    results = []
    for name, views in (("four.csv", 4), ("one.csv", 1)):
        table = read_table(name)
        results.append(table[PROBABILITIES].to_numpy())
        np.testing.assert_allclose(results[-1], compute_expected(saved["grey"], table["file"], views), atol=1e-5)
    assert np.abs(results[0] - results[1]).max() > 1e-3


def test_from_a_notebook(saved, folder):
    outcome = predict.predict_files(saved["full"], folder, "table.csv", relative_to=folder)
    assert (outcome.predicted, outcome.before, len(outcome.problems)) == (7, 0, 0)
    assert read_table("table.csv")["file"].tolist() == NAMES
    assert outcome.problems.columns.tolist() == ["file", "problem"]


@pytest.mark.parametrize("setting", ["on", "off"])
def test_progress_is_shown_on_standard_error(saved, folder, capsys, monkeypatch, setting):
    monkeypatch.setattr(progress, "_DELAY", 0)
    monkeypatch.setattr(progress, "_shown", False)  # which the command changes
    monkeypatch.setenv("NOTEBOOK_PROGRESS", setting)
    assert predict.main([str(saved["full"]), "scans", "--out", "table.csv"]) == 0
    out, err = capsys.readouterr()
    assert "predicting: " not in out
    assert ("predicting: " in err) == (setting == "on")


def test_no_more_than_two_batches_are_held(saved, folder, count_reads, monkeypatch):
    held = []
    original = predict.Classifier.predict

    def note(self, images):
        held.append((len(images), len(count_reads)))
        return original(self, images)

    monkeypatch.setattr(predict.Classifier, "predict", note)
    predict.predict_files(saved["full"], ["scans"], "table.csv", batch_size=2)
    sizes, read = zip(*held[1:], strict=True)  # the first one is the trial
    assert sizes == (2, 2, 2, 1)
    assert all(number <= limit for number, limit in zip(read, (4, 6, 7, 7), strict=True))


def test_names_that_are_no_unicode_come_back(saved, folder):
    name = os.fsdecode(b"scans/\xff.bmp")
    try:
        Path(name).write_bytes((folder / "1.bmp").read_bytes())
    except OSError:
        pytest.skip("this file system takes Unicode only")
    assert run(saved["full"], "scans") == 0
    assert b"scans/\xff.bmp," in Path("predictions.csv").read_bytes()
    assert predict.predict_files(saved["full"], ["scans"], "predictions.csv").before == 8


def test_every_file_of_a_folder_is_predicted_or_told(saved, folder, capsys):
    """Known by their content: images without an ending or with a rare one; other formats; what cannot be opened."""
    Path("scans").rename("all")
    image = Image.open("all/1.bmp")
    for name in ("photos/a.jfif", "photos/b.jpe", "photos/inner/ISIC_0024306"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        image.save(name, format="JPEG")
    Path("photos/IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    Path("photos/scan").write_bytes(bytes(128) + b"DICM" + bytes(50))
    Path("photos/scan.dcm").write_bytes(bytes(128) + b"DICM" + bytes(50))
    Path("photos/labels.csv").touch()
    Path("photos/.DS_Store").touch()
    os.mkfifo("photos/pipe.png")
    Path("photos/gone.png").symlink_to("nowhere.png")
    Path("photos/inner/up").symlink_to("..")
    assert run(saved["full"], "photos") == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "photos: 3 of 9 files are images; the others: 1 HEIC photograph (.heic), 1 other file (.csv), "
        "2 DICOM files (no ending, .dcm), 2 paths that cannot be opened (.png)",
        "predictions.csv: predicted 3",
    ]
    assert err.startswith("could not read 5, see predictions.problems.csv:\n")
    assert read_table()["file"].tolist() == ["photos/a.jfif", "photos/b.jpe", "photos/inner/ISIC_0024306"]
    problems = read_table("predictions.problems.csv").set_index("file")["problem"]
    heic = "cannot be read as an image (is a HEIC photograph: save it as JPEG or PNG)."
    assert problems["photos/IMG_1.HEIC"] == heic
    assert problems["photos/scan"] == heic.replace("HEIC photograph", "DICOM file")
    assert problems["photos/pipe.png"].startswith("is a pipe")
    assert problems["photos/gone.png"].startswith("is a link that leads nowhere")
    assert len(problems) == 5
    Path("photos/IMG_1.HEIC").rename("scan.jpg")
    assert predict.predict_files(saved["full"], ["all/1.bmp", "scan.jpg"], "t.csv").problems["problem"].item() == heic


def test_files_that_are_named_are_tried_if_they_may_be_images(saved, folder):
    image = Image.open("scans/1.bmp")
    image.save("picture.txt", format="PNG")
    os.mkfifo("pipe.png")
    Path("gone.png").symlink_to("nowhere.png")
    Path("IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    outcome = predict.predict_files(saved["full"], ["picture.txt", "pipe.png", "gone.png", "IMG_1.HEIC"], "table.csv")
    assert read_table("table.csv")["file"].tolist() == ["picture.txt"]
    problems = outcome.problems.set_index("file")["problem"]
    assert problems.index.tolist() == ["pipe.png", "gone.png", "IMG_1.HEIC"]
    assert "pipe" in problems["pipe.png"]
    assert "leads nowhere" in problems["gone.png"]
    assert problems["IMG_1.HEIC"] == "cannot be read as an image (is a HEIC photograph: save it as JPEG or PNG)."
    image.save("photo.dng", format="TIFF")
    with pytest.raises(InputError, match=r"no image in photo\.dng: .* \(is a raw photograph: save it as JPEG or PNG\)"):
        predict.predict_files(saved["full"], ["photo.dng"], "table.csv")


def test_a_folder_without_images_is_told_with_what_it_holds(saved, folder, capsys):
    Path("photos").mkdir()
    for number in range(12):
        Path(f"photos/{number}.heic").touch()
    os.mkfifo("photos/pipe.png")
    assert run(saved["full"], "photos") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: no image in photos: expected JPEG, ")
    assert "photos: 0 of 13 files are images; the others: 12 HEIC photographs (.heic), 1 path that" in err
    assert "photos/pipe.png is a pipe" in err


def test_what_was_changed_in_an_image_is_noted(saved, folder):
    rgba = Image.open("scans/1.bmp").convert("RGBA")
    rgba.putalpha(100)
    rgba.save("ink.png")
    predict.predict_files(saved["full"], ["scans/1.bmp", "ink.png"], "table.csv")
    plain, ink = read_table("table.csv")["note"]
    assert plain == ""
    assert "white" in ink
    dark = save_cnn(Path("dark.keras"), about=ABOUT | {"background": 0})
    predict.predict_files(dark, ["ink.png"], "dark.csv")
    assert "black" in read_table("dark.csv")["note"].item()


def test_no_spreadsheet_runs_what_names_say(saved, folder, count_reads):
    model = save_cnn(Path("m.keras"), about={"class_names": ["=a", "-b", "'c"]})
    names = ["=1+1.bmp", "@x.bmp", "'quoted.bmp", "-3.bmp"]
    for name in names:
        Path(name).write_bytes(Path("scans/1.bmp").read_bytes())
    Path("+bad.bmp").touch()
    predict.predict_files(model, [*names, "+bad.bmp"], "table.csv")
    table = read_table("table.csv")
    assert table["file"].tolist() == ["'=1+1.bmp", "'@x.bmp", "''quoted.bmp", "'-3.bmp"]
    assert set(table["class"]) <= {"'=a", "'-b", "''c"}
    assert read_table("table.problems.csv")["file"].tolist() == ["'+bad.bmp"]
    count_reads.clear()
    assert predict.predict_files(model, names, "table.csv").before == 4
    assert not count_reads


# Images that look unlike the training images


def draw_marks(count, seed):
    """Draw light marks on dark ground: uint8 (count, 16, 16, 1)."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 30, (count, 16, 16, 1), "uint8")
    for image, (row, column) in zip(pixels, rng.integers(3, 9, (count, 2)), strict=True):
        image[row : row + 5, column : column + 3] = rng.integers(200, 255)
    return pixels


@pytest.fixture(scope="module")
def marks(tmp_path_factory):
    """Save a network that knows 300 marks; a mark, the same dark on light, noise, and as ink on nothing."""
    place = tmp_path_factory.mktemp("marks")
    model = load_model(save_cnn(place / "plain.keras", (16, 16, 1)))
    known, held_out = (
        (predict_with_features(model, x)[1], describe_pixels(x)) for x in (draw_marks(300, 1), draw_marks(200, 2))
    )
    familiar = Familiar.fit(*known, [f"=mark {number}" for number in range(300)], *held_out)
    for name, inverted in (("marks", False), ("either", True)):
        save_model(model, place / f"{name}.keras", ABOUT | {"may_be_inverted": inverted}, familiar.to_arrays())
    mark = draw_marks(300, 1)[7, ..., 0]
    noise = np.random.default_rng(3).integers(0, 255, (16, 16), "uint8")
    for number, pixels in enumerate([mark, 255 - mark, noise]):
        Image.fromarray(pixels).save(place / f"{number}.png")
    Image.merge("LA", [Image.new("L", (16, 16)), Image.fromarray(mark)]).save(place / "3.png")
    return place


def test_images_unlike_the_training_images_are_told(marks, folder, capsys):
    assert run(marks / "marks.keras", marks) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "predictions.csv: predicted 4",
        "3 of 4 look unlike the training images: see the column foreign",
    ]
    table = read_table()
    assert table["foreign"].tolist() == [False, True, True, True]
    assert table["distance"][0] < 0.1
    assert (table["distance"][1:] > 1).all()
    assert table["nearest"][0] == "'=mark 7"
    assert table["note"][:3].tolist() == [""] * 3
    y_prob = compute_expected(marks / "marks.keras", table["file"])
    np.testing.assert_allclose(table[PROBABILITIES], y_prob, atol=1e-5)


def test_a_foreign_image_is_predicted_with_light_and_dark_exchanged_if_that_is_familiar(marks, folder, capsys):
    assert run(marks / "either.keras", marks) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 of 4 look unlike the training images")
    table = read_table()
    assert table["foreign"].tolist() == [False, False, True, False]
    assert table["note"][:3].tolist() == ["", "light and dark exchanged", ""]
    assert table["note"][3].endswith("laid on white; light and dark exchanged")
    assert table["nearest"][[0, 1, 3]].tolist() == ["'=mark 7"] * 3
    y_prob = compute_expected(marks / "either.keras", [marks / name for name in ("0.png", "0.png", "2.png", "0.png")])
    np.testing.assert_allclose(table[PROBABILITIES], y_prob, atol=1e-5)
    assert np.abs(y_prob[0] - compute_expected(marks / "either.keras", [marks / "1.png"])).max() > 0.01


@pytest.mark.parametrize(("paper", "ink", "grain"), [(255, 0, 0), (250, 0, 0), (230, 30, 0), (235, 20, 3)])
def test_ink_on_any_paper_becomes_white_on_black(paper, ink, grain):
    digit = np.zeros((2, 28, 28, 1), "uint8")
    digit[0, 6:22, 12:16] = digit[1, 8:12, 6:22] = 255
    noise = np.random.default_rng(0).normal(0, grain, digit.shape)
    scanned = np.clip(np.where(digit > 0, ink, paper) + noise, 0, 255).astype("uint8")
    exchanged = classifier._exchange_light_and_dark(scanned)
    assert exchanged.dtype == np.uint8
    np.testing.assert_allclose(exchanged[digit > 0], 255, atol=10 * grain)
    assert np.mean(exchanged[digit == 0] > 5) <= 0.01


def test_the_grain_of_a_blank_page_does_not_become_a_digit():
    page = np.random.default_rng(0).normal(240, 4, (3, 28, 28, 1)).astype("uint8")
    assert classifier._exchange_light_and_dark(page).max() < 64


def test_a_blank_page_is_not_exchanged(marks, folder):
    """As a black one it is much nearer, but no mark either."""
    Image.new("L", (16, 16), 255).save("blank.png")
    predict.predict_files(marks / "either.keras", ["blank.png"], "table.csv")
    table = read_table("table.csv")
    assert table["foreign"].item()
    assert table["note"].item() == ""


# Two classes by one output, and what are no probabilities


def save_last_layer(path, units, activation, about=None):
    """Save a model that takes the mean of a grey image, and ends in such a layer."""
    inputs = keras.Input((16, 16, 1))
    values = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(inputs))
    last = layers.Dense(units, kernel_initializer="ones", bias_initializer=keras.initializers.Constant(-0.25))
    return save_model(keras.Model(inputs, layers.Activation(activation)(last(values))), path, about)


def test_one_sigmoid_output_is_the_probability_of_the_second_class(folder):
    for level in (0, 255):
        Image.new("L", (20, 20), level).save(f"{level}.png")
    save_last_layer(Path("silent.keras"), 1, "sigmoid")
    thresholds = {"healthy": 0.5, "ill": 0.5}
    save_last_layer(Path("named.keras"), 1, "sigmoid", {"class_names": ["healthy", "ill"], "conformal": thresholds})
    for name, names in (("silent", ["class_0", "class_1"]), ("named", ["healthy", "ill"])):
        predict.predict_files(f"{name}.keras", ["0.png", "255.png"], f"{name}.csv")
        table = read_table(f"{name}.csv")
        expected = 1 / (1 + np.exp([0.25, -0.75]))
        np.testing.assert_allclose(table[f"p_{names[1]}"], expected, atol=1e-5)
        np.testing.assert_allclose(table[f"p_{names[0]}"], 1 - expected, atol=1e-5)
        assert table["class"].tolist() == names
        np.testing.assert_allclose(table["confidence"], [1 - expected[0], expected[1]], atol=1e-5)


@pytest.mark.parametrize(
    ("units", "activation", "message"),
    [
        (1, "linear", "m.keras has one output, which is no probability: end it with a sigmoid."),
        (1, "softmax", "m.keras has one output, which is no probability"),
        (3, "linear", "m.keras cannot be used: its outputs are no probabilities: add a softmax."),
        (3, "sigmoid", "its outputs are no probabilities"),
    ],
)
def test_outputs_that_are_no_probabilities(folder, units, activation, message):
    save_last_layer(Path("m.keras"), units, activation)
    with pytest.raises(InputError, match=message):
        predict.predict_files("m.keras", ["scans"], "predictions.csv")
    assert not list(Path().glob("*.csv"))


def test_outputs_that_are_no_numbers_end_the_run(folder, monkeypatch, capsys):
    original = predict.Classifier.predict

    def spoil(self, images):
        if images[0].content:  # not the trial
            self._model.set_weights([weight * np.nan for weight in self._model.get_weights()])
        return original(self, images)

    monkeypatch.setattr(predict.Classifier, "predict", spoil)
    assert run(save_cnn(Path("m.keras")), "scans") == 2
    assert "its outputs are no probabilities" in capsys.readouterr().err
    assert read_table().empty


# Resuming


def test_a_run_killed_anywhere_goes_on_where_it_was(saved, folder, count_reads):
    """Cut after any number of bytes, the table becomes the same again, and no file is predicted twice."""
    predict.predict_files(saved["full"], ["scans"], "table.csv")
    content = Path("table.csv").read_bytes()
    ends = [0]  # of complete rows; one name has a line break in it
    for row in csv.reader(content.decode().splitlines(keepends=True)):
        ends.append(ends[-1] + len(predict._format_rows([row])))
    assert (len(ends), ends[-1]) == (9, len(content))
    in_the_name = content.index(b"a, b\n") + 5
    cuts = {
        0,
        10,
        ends[1] - 1,
        ends[1],
        ends[1] + 1,
        ends[4] - 1,
        ends[4],
        in_the_name,
        in_the_name + 4,
        ends[8] - 1,
        ends[8],
    }
    for cut in sorted(cuts):
        Path("table.csv").write_bytes(content[:cut])
        count_reads.clear()
        outcome = predict.predict_files(saved["full"], ["scans"], "table.csv")
        rows = max(sum(end <= cut for end in ends) - 2, 0)
        assert (outcome.before, outcome.predicted) == (rows, 7 - rows)
        assert sorted(count_reads) == sorted(f"scans/{name}" for name in NAMES[rows:])
        check_same(Path("table.csv").read_bytes(), content)


def check_same(result, expected):
    """Compare two tables; batches of other sizes may differ in the last digit."""
    Path("result.csv").write_bytes(result)
    Path("expected.csv").write_bytes(expected)
    pd.testing.assert_frame_equal(read_table("result.csv"), read_table("expected.csv"), atol=1e-5)


def test_further_images_are_added(saved, folder, capsys):
    assert run(saved["full"], "scans/Part 2") == 0
    before = Path("predictions.csv").read_bytes()
    assert run(saved["full"], "scans") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "predictions.csv: predicted 5 (2 before)"
    assert Path("predictions.csv").read_bytes().startswith(before)
    assert sorted(read_table()["file"]) == sorted(f"scans/{name}" for name in NAMES)


def test_ctrl_c_keeps_what_is_done(saved, folder, monkeypatch, capsys):
    (folder / "1.bmp").write_text("damaged")
    original, calls = predict.Classifier.predict, []

    def stop(self, images):
        calls.append(len(images))
        if len(calls) == 4:  # a trial, two batches, and this one
            raise KeyboardInterrupt
        return original(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(predict.Classifier, "predict", stop)
        assert run(saved["full"], "scans", "--batch-size", 2) == 130
    assert capsys.readouterr() == ("", "\ninterrupted\n")
    assert read_table()["file"].tolist() == [f"scans/{name}" for name in NAMES[1:4]]
    assert read_table("predictions.problems.csv")["file"].tolist() == ["scans/1.bmp"]
    assert run(saved["full"], "scans") == 1
    assert read_table()["file"].tolist() == [f"scans/{name}" for name in NAMES[1:]]


def test_a_file_that_has_changed_is_predicted_anew(saved, folder, capsys, count_reads):
    assert run(saved["full"], "scans") == 0
    before = read_table()
    for name in ("2.bmp", "Part 10/a, b\nc.png"):
        Image.new("RGB", (20, 24), (250, 0, 0)).save(folder / name)
    (folder / "Part 2" / "x.PNG").write_bytes(b"damaged")
    count_reads.clear()
    assert run(saved["full"], "scans") == 1
    assert capsys.readouterr().out.splitlines()[-1] == "predictions.csv: predicted 2 (4 before, 2 changed since)"
    changed = ["scans/2.bmp", "scans/Part 2/x.PNG", "scans/Part 10/a, b\nc.png"]
    assert count_reads == changed
    after = read_table()
    assert after["file"].tolist() == [name for name in before["file"] if name not in changed] + changed[::2]
    right = predict.predict_files(saved["full"], ["scans/2.bmp"], "right.csv")
    assert right.predicted == 1
    check_same(Path("right.csv").read_bytes(), predict._format_rows([after.columns, after.to_numpy(dtype="str")[4]]))


def test_rows_of_other_views_are_left_as_they_are(saved, folder, capsys):
    assert run(saved["grey"], "scans") == 0
    before = Path("predictions.csv").read_bytes()
    assert run(saved["grey"], "scans", "--views", 1) == 2
    assert "error: predictions.csv was predicted with --views 4; now it is 1." in capsys.readouterr().err
    assert Path("predictions.csv").read_bytes() == before
    assert run(saved["grey"], "scans", "--views", 4) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text, digest: text.replace(digest, "0123456789ab"), "is of the model 0123456789ab; this one is"),
        (lambda text, digest: text[: text.rindex(digest)] + "0123456789ab\n", "is of the model 0123456789ab"),
        (lambda text, digest: text.replace(",1,", ",4,"), "was predicted with --views 4; now it is 1"),
        (lambda text, digest: text.replace("p_c,", "p_d,"), "is no table of this model's predictions"),
        (lambda text, digest: text.replace(",views,content", ""), "is no table of this model's predictions"),
        (lambda text, digest: "image,label\n1,2\n", "is no table of this model's predictions"),
        (lambda text, digest: "one line without an end", "is no table of this model's predictions"),
        (lambda text, digest: text + "1,2\n", "line 10 is no row of such a table"),
        (lambda text, digest: text + '"1"2,3\n', "line 10 cannot be read"),
    ],
    ids=[
        "model",
        "model of the last row",
        "views",
        "classes",
        "older table",
        "other table",
        "no table",
        "short row",
        "no CSV",
    ],
)
def test_another_table_is_left_as_it_is(saved, folder, capsys, change, message):
    predict.predict_files(saved["full"], ["scans"], "table.csv")
    text = Path("table.csv").read_text()
    Path("table.csv").write_text(change(text, text.rstrip().rpartition(",")[2]))
    before = Path("table.csv").read_bytes()
    assert run(saved["full"], "scans", "--out", "table.csv") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: table.csv")
    assert message in err
    assert err.endswith("It was left as it is: choose another --out.\n")
    assert Path("table.csv").read_bytes() == before


def test_the_table_of_another_model_is_left_as_it_is(saved, folder, capsys):
    assert run(saved["full"], "scans") == 0
    before = Path("predictions.csv").read_bytes()
    assert run(saved["other"], "scans") == 2
    assert "error: predictions.csv is of the model" in capsys.readouterr().err
    assert Path("predictions.csv").read_bytes() == before


# Files that cannot be read


def test_files_that_cannot_be_read_are_told_and_tried_again(saved, folder, capsys):
    good = (folder / "2.bmp").read_bytes()
    (folder / "2.bmp").write_bytes(good[:100])
    (folder / "Part 2" / "z.png").write_text("no image")
    assert run(saved["full"], "scans", "--batch-size", 1) == 1
    out, err = capsys.readouterr()
    assert out.endswith("\npredictions.csv: predicted 6\n")
    lines = err.splitlines()
    assert lines[0] == "could not read 2, see predictions.problems.csv:"
    assert [line.split(": ")[0] for line in lines[1:]] == ["  scans/2.bmp", "  scans/Part 2/z.png"]
    problems = read_table("predictions.problems.csv")
    assert problems.columns.tolist() == ["file", "problem"]
    assert problems["file"].tolist() == ["scans/2.bmp", "scans/Part 2/z.png"]
    assert problems["problem"].str.startswith("cannot be read as an image (").all()
    assert "scans/2.bmp" not in read_table()["file"].tolist()

    (folder / "2.bmp").write_bytes(good)
    (folder / "Part 2" / "z.png").unlink()
    assert run(saved["full"], "scans") == 0
    assert read_table()["file"].tolist()[-1] == "scans/2.bmp"
    assert not Path("predictions.problems.csv").exists()


def test_many_problems_are_told_in_part(saved, folder, capsys):
    for number in range(25):
        (folder / f"bad {number}.png").touch()
    assert run(saved["full"], "scans") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "could not read 25, see predictions.problems.csv (here the first 20):"
    assert len(lines) == 21
    assert lines[20].startswith("  scans/bad 19.png: ")
    assert len(read_table("predictions.problems.csv")) == 25


def test_a_file_that_unpacks_to_gigabytes_is_a_problem(saved, folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # the images have 480: Pillow only warns
    outcome = predict.predict_files(saved["full"], ["scans/1.bmp"], "table.csv")
    assert outcome.predicted == 0
    assert "decompression bomb" in outcome.problems["problem"].item()
    assert read_table("table.csv").empty


def test_a_file_that_does_not_fit_into_memory_is_a_problem(saved, folder, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(Path, "read_bytes", fail)  # large files are read in parts
    monkeypatch.setattr(predict, "_MOST_BYTES", 0)
    assert predict.predict_files(saved["full"], ["scans/1.bmp", "scans/2.bmp"], "table.csv").predicted == 2
    monkeypatch.setattr("helpers.data.pixels._resize", fail)
    outcome = predict.predict_files(saved["full"], ["scans/1.bmp", "scans/2.bmp"], "other.csv")
    assert outcome.problems["problem"].str.contains("does not fit into memory").tolist() == [True, True]


# Bad input


def write_lambda(path):
    inputs = keras.Input((16, 16, 3))
    flat = layers.Flatten()(layers.Lambda(lambda values: values + 1)(inputs))
    keras.Model(inputs, layers.Dense(3, activation="softmax")(flat)).save(path)


def write_text_model(path):
    keras.Sequential([layers.Input((4,)), layers.Dense(3, activation="softmax")]).save(path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, r"m.keras: no such file"),
        (lambda path: path.write_text("no model"), r"m.keras: this is no .keras model"),
        (write_lambda, r"m.keras cannot be loaded as a model: .*Lambda.*arbitrary code"),
        (write_text_model, r"m.keras is no classifier of grey or colour images: from \(None, 4\) to \(None, 3\)"),
        (lambda path: save_cnn(path, (16, 16, 2)), r"m.keras is no classifier of grey or colour images"),
        (lambda path: save_cnn(path, about={"class_names": ["a", "b"]}), r"it has 3 classes, but class_names are \['a"),
        (lambda path: save_cnn(path, about={"class_names": ["a", "b", "b"]}), r"it has 3 classes"),
        (lambda path: save_cnn(path, about={"class_names": 3}), r"m.keras cannot be used"),
        (
            lambda path: save_cnn(path, about={"class_names": "abc"}),
            r"m.keras cannot be used: .* class_names are 'abc'",
        ),
        (lambda path: save_cnn(path, about={"background": "x"}), r"m.keras cannot be used: its background is 'x'"),
        (lambda path: save_cnn(path, about={"data_set": [1]}), r"m.keras cannot be used: its data_set is \[1\]"),
        (lambda path: save_cnn(path, about={"conformal": dict.fromkeys("abc", 10**400)}), r"m.keras cannot be used"),
        (lambda path: save_cnn(path, about={"conformal": {"a": 0.5}}), r"m.keras cannot be used: .*expected those of"),
        (lambda path: save_cnn(path, about={"conformal": 0.5}), r"m.keras cannot be used"),
        (lambda path: save_cnn(path, about={"views": 3}), r"m.keras cannot be used: views=3"),
        (lambda path: save_cnn(path, (16, 12, 3), about={"views": 8}), r"m.keras cannot be used: views=8"),
    ],
)
def test_models_that_cannot_be_used(folder, capsys, write, message):
    write(Path("m.keras"))
    with pytest.raises(InputError, match=message):
        predict.predict_files("m.keras", ["scans"], "predictions.csv")
    if message.startswith("m.keras: "):
        assert run("m.keras", "scans") == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: m.keras: ")
        assert err.count("\n") == 1
    assert not list(Path().glob("*.csv"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder."),
        (["scans", "scans/11.bmp"], "scans/11.bmp: no such file or folder."),
        (["empty"], "no image in empty: expected JPEG, PNG, BMP, "),
        (["scans", "--out", "scans/1.bmp/table.csv"], "scans/1.bmp/table.csv cannot be written: "),
        (["scans", "--out", "empty"], "empty is a folder; expected the name of a CSV file."),
        (["scans", "--batch-size", "0"], "batch size 0: expected 1 or more."),
    ],
)
def test_bad_input_is_told_in_one_line_before_the_model_is_opened(folder, capsys, arguments, message):
    Path("empty").mkdir()
    assert run("missing.keras", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert not list(Path().rglob("*.csv"))


def test_on_a_full_disk_all_rows_are_whole_and_the_next_run_goes_on(saved, folder, small_disk, capsys):
    out, names = small_disk.folder / "table.csv", [f"scans/{letter * 200}.bmp" for letter in "abcdefghijklmnopqrst"]
    for name in names:
        Image.new("RGB", (8, 8)).save(name)
    (folder / "1.bmp").write_text("damaged")
    small_disk.fill(leave=4096)  # of which the rows of two images take some 700
    assert run(saved["full"], "scans", "--out", out, "--batch-size", 2) == 2
    told, err = capsys.readouterr()
    assert (told, err.count("\n")) == ("", 1)
    assert err.startswith(f"error: {out} cannot be written (No space left on device; ")
    assert " bytes are free). Make space on this disk" in err
    before = out.read_bytes()
    assert before.endswith(b"\n")
    assert 5 < len(read_table(out)) < 20
    assert {path.name for path in small_disk.folder.iterdir()} == {"table.csv", "filler"}

    small_disk.empty()
    assert run(saved["full"], "scans", "--out", out, "--batch-size", 2) == 1
    assert out.read_bytes().startswith(before)
    assert sorted(read_table(out)["file"]) == sorted([*names, *(f"scans/{name}" for name in NAMES[1:])])
    assert {path.name for path in small_disk.folder.iterdir()} == {"table.csv", "table.problems.csv"}


def test_a_table_on_a_read_only_disk_is_left_as_it_is(saved, folder, small_disk, capsys):
    out = small_disk.folder / "table.csv"
    assert run(saved["full"], "scans/Part 2", "--out", out) == 0
    before = out.read_bytes()
    capsys.readouterr()
    small_disk.protect()
    assert run(saved["full"], "scans", "--out", out) == 2
    assert capsys.readouterr().err == (
        f"error: {out} cannot be written (Read-only file system). The disk is read-only: use another one, and run it "
        "again. What was there before is kept.\n"
    )
    assert out.read_bytes() == before


@pytest.mark.parametrize("what", ["table", "folder"])
def test_a_table_that_is_removed_while_it_is_written_is_told(saved, folder, capsys, monkeypatch, what):
    original, calls = predict.Classifier.predict, []

    def remove(self, images):
        calls.append(len(images))
        if len(calls) == 3:  # a trial, a batch, and this one
            shutil.rmtree("results") if what == "folder" else Path("results/table.csv").unlink()
        return original(self, images)

    monkeypatch.setattr(predict.Classifier, "predict", remove)
    assert run(saved["full"], "scans", "--out", "results/table.csv", "--batch-size", 2) == 2
    error = "error: results/table.csv was removed while it was written. See that it stays, and run it again.\n"
    assert capsys.readouterr() == ("", error)
    assert len(calls) == 3


def test_the_second_of_two_on_one_table_ends_and_tears_nothing(saved, folder, capsys, monkeypatch):
    """Also where the first one has put a new file in the place of the table, because images have changed."""
    assert run(saved["full"], "scans") == 0
    Image.new("RGB", (8, 8)).save(folder / "1.bmp")
    capsys.readouterr()
    original, ended = predict.Classifier.predict, []

    def start_another(self, images):
        if len(images) == 1 and not ended:  # the one that has changed
            ended.append(None)
            ended[0] = run(saved["full"], "scans"), capsys.readouterr().err
        return original(self, images)

    monkeypatch.setattr(predict.Classifier, "predict", start_another)
    assert run(saved["full"], "scans") == 0
    error = "predictions.csv is being written by another process. Wait until it has ended."
    assert ended == [(2, f"error: {error}\n")]
    assert sorted(read_table()["file"]) == sorted(f"scans/{name}" for name in NAMES)
    assert sorted(path.name for path in Path().iterdir() if path.is_file()) == ["predictions.csv"]


def test_help_does_without_tensorflow():
    code = """
import json, sys
from helpers import predict
try:
    predict.main(["--help"])
except SystemExit as stop:
    sys.stderr.write(json.dumps([stop.code, sorted(sys.modules)]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    status, loaded = json.loads(done.stderr)
    assert status == 0
    assert not {"tensorflow", "keras", "sklearn", "scipy"} & set(loaded)
    assert "FOLDER_OR_FILE" in done.stdout


def test_problems_of_files_that_are_not_asked_for_stay_listed(saved, folder):
    (folder / "1.bmp").write_bytes(b"BM")
    (folder.parent / "more").mkdir()
    Image.new("RGB", (8, 8)).save(folder.parent / "more" / "x.png")
    assert run(saved["full"], "scans", "--out", "t.v1") == 1
    assert run(saved["full"], "more", "--out", "t.v1") == 0
    assert read_table("t.v1.problems.csv")["file"].tolist() == ["scans/1.bmp"]
    Image.new("RGB", (8, 8)).save(folder / "1.bmp")
    assert run(saved["full"], "scans", "--out", "t.v1") == 0
    assert not Path("t.v1.problems.csv").exists()


def test_names_with_carriage_returns_can_be_read_again(saved, folder):
    (folder / "1.bmp").rename(folder / "a\rb\r\nc.bmp")
    assert run(saved["full"], "scans") == 0
    assert pd.read_csv("predictions.csv", lineterminator="\n")["file"].str.contains("\r").sum() == 1
    before = Path("predictions.csv").read_bytes()
    assert run(saved["full"], "scans") == 0
    assert Path("predictions.csv").read_bytes() == before


def test_the_table_that_a_link_leads_to_is_written(saved, folder):
    Path("link.csv").symlink_to("table.csv")
    Path("table.csv").touch()
    assert run(saved["full"], "scans", "--out", "link.csv") == 0
    Image.new("RGB", (8, 8)).save(folder / "1.bmp")
    assert run(saved["full"], "scans", "--out", "link.csv") == 0
    assert Path("link.csv").is_symlink()
    assert len(pd.read_csv("table.csv")) == len(NAMES)


def test_a_pipe_is_no_table_and_an_empty_path_no_folder(saved, folder, capsys):
    os.mkfifo("pipe")
    assert run(saved["full"], "scans", "--out", "pipe") == 2
    assert "pipe is no regular file" in capsys.readouterr().err
    assert run(saved["full"], "") == 2
    assert "A path is empty" in capsys.readouterr().err
