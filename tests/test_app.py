"""Your own image: what is said of good, odd and hostile pictures, and that the page goes on after them."""

import functools
import io
import json
import random
import warnings
import zipfile
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import app, predict
from helpers.app import __main__ as command
from helpers.app import page, reader, rendering
from helpers.app.reader import Reader, Sample, list_models
from helpers.app.rendering import describe_probability, render_answer
from helpers.data import opening
from helpers.data.catalog import DataSet, get_data_set
from helpers.evaluation.foreign import Familiar, describe_pixels
from helpers.files import InputError
from helpers.training.fast import predict_with_features
from helpers.training.networks import build_cnn
from helpers.training.saving import save_model

# Keras hands TensorFlow's variables to NumPy in the old way when it writes a file.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

DIGITS, COLOUR = "sample/01_mnist/small_cnn.keras", "02_ham10000/small_cnn.keras"
SHAPE = 16, 20, 3
EVIL = '<img src=x onerror="alert(1)">.png'


def save_small(path, shape, images, ids, about):
    """Save a network that was not trained, and knows some images."""
    statistics = np.full(shape[2], 99.0), np.full(shape[2], 60.0)
    model = build_cnn(shape, len(about["class_names"]), statistics, filters=((4,), (5,)))
    values = predict_with_features(model, images)[1], describe_pixels(images)
    familiar = Familiar.fit(*values, ids, *values)
    return save_model(model, path, about, familiar.to_arrays())


def draw_spots(count, seed=0):
    """Draw reddish spots on a ground of skin: uint8 (count, 16, 20, 3)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(180, 190, (count, *SHAPE), "uint8") - np.array([0, 50, 60], "uint8")
    for image, (row, column) in zip(images, rng.integers(3, 9, (count, 2)), strict=True):
        image[row : row + 5, column : column + 5] = rng.integers(40, 90), 30, 30
    return images


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(cache, tmp_path_factory):
    """Save two models as notebooks do, one of the sample of digits and one of real images; and what is no model."""
    folder = tmp_path_factory.mktemp("models")
    classifier = SimpleNamespace(shape=(28, 28, 1), training_ids=set())
    digits = Sample(get_data_set("mnist"), classifier)
    ids = digits._images["image_id"].tolist()[:300]
    pixels = np.stack([digits.show(known)[1] for known in ids])
    names = [str(number) for number in range(10)]
    thresholds = dict.fromkeys(names, 0.05) | {"3": 0.0}
    about = {"class_names": names, "data_set": "mnist", "may_be_inverted": True, "conformal": thresholds}
    save_small(folder / DIGITS, (28, 28, 1), pixels, ids, about)
    about = {"class_names": ["<b>nevus", "<b>melanoma"], "data_set": "ham10000"}
    spots = [f"ISIC_{number}" for number in range(60)]
    save_small(folder / COLOUR, SHAPE, draw_spots(60), spots, about)
    (folder / "damaged.keras").write_bytes(b"PK no archive")
    (folder / ".unfinished.keras").write_bytes((folder / COLOUR).read_bytes())
    with zipfile.ZipFile(folder / "of_others.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    return folder


@pytest.fixture(scope="module")
def load(folder):
    """Load a model once for all tests."""
    return functools.cache(lambda name: Reader(folder / name, folder))


def encode(pixels, kind="PNG", **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.squeeze(pixels))
    image.save(stream := io.BytesIO(), kind, **options)
    return stream.getvalue()


def test_models_have_readable_names_and_other_files_are_left_out(folder):
    assert list_models(folder) == {
        "Sample of 8 × 8 digits · MNIST handwritten digits: small cnn": folder / DIGITS,
        "Real images · HAM10000 skin lesions: small cnn": folder / COLOUR,
    }


def test_models_of_two_notebooks_on_one_data_set_are_both_there(tmp_path):
    for name in ("02_ham10000", "02_mine"):
        (tmp_path / name).mkdir()
        with zipfile.ZipFile(tmp_path / name / "cnn.keras", "w") as archive:
            archive.writestr("about.json", json.dumps({"data_set": "ham10000"}))
    names = ["Real images · HAM10000 skin lesions: cnn", "Real images · HAM10000 skin lesions: cnn, 02_mine"]
    assert [*list_models(tmp_path)] == names


def test_a_quick_run_is_told_and_a_model_of_an_earlier_version_has_the_name_of_its_folder(tmp_path):
    (tmp_path / "quick" / "03_chest_xray").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "quick" / "03_chest_xray" / "cnn.keras", "w") as archive:
        archive.writestr("about.json", json.dumps({"class_names": ["a", "b"]}))
    assert [*list_models(tmp_path)] == ["Real images, quick run · 03_chest_xray: cnn"]


def test_the_answer_is_that_of_the_command_line(load, folder, tmp_path):
    digits = load(DIGITS)
    name, content = digits.sample.get_new(3)
    answer = digits.read(name, content)
    (tmp_path / "digit.png").write_bytes(content)
    predict.predict_files(folder / DIGITS, tmp_path / "digit.png", tmp_path / "table.csv")
    row = pd.read_csv(tmp_path / "table.csv", dtype={"class": str}).iloc[0]
    first = answer.classes.iloc[0]
    assert (first["class"], f"{first['probability']:.6g}") == (row["class"], f"{row['confidence']:.6g}")
    assert answer.distance == pytest.approx(row["distance"], rel=0.01)
    assert answer.classes["probability"].is_monotonic_decreasing
    expected = answer.classes["class"][(answer.classes["probability"] >= 0.05) | (answer.classes["class"] == "3")]
    assert answer.classes["class"][answer.classes["in_set"]].tolist() == expected.tolist()
    assert answer.always == ["3"]
    np.testing.assert_array_equal(answer.pixels.squeeze(), np.asarray(Image.open(tmp_path / "digit.png")))
    assert answer.heatmap.shape == (28, 28)
    assert answer.doubts == []


def test_similar_training_images_of_the_sample_are_shown_and_others_are_named(load):
    digits, spots = load(DIGITS), load(COLOUR)
    known = digits.sample._images.iloc[7]
    label, pixels = digits.sample.show(known["image_id"])
    (first, shown), *others = digits.read("", encode(pixels)).similar
    assert first == label == known["label"]
    np.testing.assert_array_equal(shown, pixels)
    assert len(others) == reader.SIMILAR - 1
    assert spots.sample is None
    (first, shown), *_ = spots.read("", encode(draw_spots(60)[7])).similar
    assert (first, shown) == ("ISIC_7", None)


def test_pictures_of_the_sample_are_of_groups_that_training_has_not_seen(load):
    sample = load(DIGITS).sample
    seen = set(sample._images["group"].iloc[:300])
    assert not set(sample._new["group"]) & seen
    assert sample.get_new(0) == sample.get_new(len(sample._new))
    assert sample.get_new(0) != sample.get_new(1)


def test_a_sample_of_files_is_read_from_them(tmp_path, cache, monkeypatch):
    for number, (label, colour) in enumerate([("a", "red"), ("a", "blue"), ("b", "green")]):
        place = tmp_path / "train" / label
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), colour).save(place / f"{number}.png")
    (place / "9.png").write_bytes(b"damaged")
    about = dict.fromkeys(("task", "files", "handle", "group_rule", "allowed_augmentation", "citation", "licence"), "")
    record = DataSet(
        **{"name": "letters", "title": "Letters", "class_names": ("a", "b"), "class_labels": {"a": "A", "b": "B"}},
        **{"layout": "class_folders", "key_file": "train", "expected_counts": {"train": 4}, "image_shape": (8, 8, 3)},
        **about,
    )
    monkeypatch.setattr(opening, "find_data", lambda *_: opening.Source("sample", tmp_path, ""))
    sample = Sample(record, SimpleNamespace(shape=(8, 8, 3), training_ids={"train/a/0"}))
    label, pixels = sample.show("train/a/0")
    assert (label, pixels[0, 0].tolist(), pixels.shape) == ("A", [255, 0, 0], (8, 8, 3))
    assert sample.show("train/a/77") == ("train/a/77", None)
    given = [sample.get_new(number) for number in range(2)]
    assert sorted(given) == [
        ("1 (in truth: A)", (tmp_path / "train/a/1.png").read_bytes()),
        ("2 (in truth: B)", (tmp_path / "train/b/2.png").read_bytes()),
    ]


def make_bomb():
    return encode(Image.new("1", (10_000, 9_000)))


HOSTILE = {
    "nothing": (lambda: b"", "is empty"),
    "text": (lambda: b"hello, this is no picture", "cannot identify image file"),
    "page": (lambda: b"<html><script>alert(1)</script></html>", "cannot identify image file"),
    "drawing": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "cannot identify"),
    "truncated": (lambda: encode(random_noise(200, 200), "JPEG")[:3000], "truncated"),
    "bomb": (make_bomb, "decompression bomb"),
    "large": (lambda: bytes(30 * 10**6), "has 30 MB; at most 20 MB are read"),
    "telephone": (lambda: b"\0\0\0\x18ftypheic" + bytes(99), "HEIC photograph: save it as JPEG or PNG"),
}


def random_noise(*shape):
    return np.random.default_rng(0).integers(0, 255, (*shape, 3), "uint8")


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_read_is_told_in_a_sentence(load, name):
    make, expected = HOSTILE[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which are errors in tests, but not in a notebook
        with pytest.raises(InputError, match=expected) as error:
            load(COLOUR).read(name, make())
    assert str(error.value).endswith(("Choose another picture.", "best a JPEG or PNG.", "best as JPEG."))
    assert "Fetch it again" not in str(error.value)


def make_animation():
    frames = [Image.new("RGB", (40, 32), colour) for colour in ("red", "blue")]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


def make_turned(kind):
    exif = Image.Exif()
    exif[274] = 6
    return encode(Image.fromarray(random_noise(32, 64)), kind, exif=exif)


ODD = {
    "16 bits": (lambda: encode(np.arange(1024, dtype="uint16").reshape(32, 32) * 64), (32, 32), "has 16 bits"),
    "CMYK": (lambda: encode(Image.new("CMYK", (40, 32), (0, 90, 90, 0)), "JPEG"), (40, 32), ""),
    "animation": (make_animation, (40, 32), "has further frames: the first one taken"),
    "transparent": (lambda: encode(Image.new("RGBA", (40, 32), (200, 0, 0, 90))), (40, 32), "is transparent"),
    "turned": (functools.partial(make_turned, "JPEG"), (32, 64), ""),
    "turned TIFF": (functools.partial(make_turned, "TIFF"), (32, 64), ""),
    "one pixel": (lambda: encode(Image.new("RGB", (1, 1), "red")), (1, 1), ""),
    "a line": (lambda: encode(Image.new("RGB", (5000, 1), "red")), (5000, 1), ""),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_are_answered_and_what_was_changed_is_told(load, name):
    make, size, note = ODD[name]
    answer = load(COLOUR).read(name, make())
    assert answer.size == size
    assert note in "; ".join(answer.notes)
    assert max(answer.picture.shape[:2]) <= 320
    assert answer.picture.shape[0] >= answer.picture.shape[1] or size[0] > size[1]
    assert answer.classes["probability"].sum() == pytest.approx(1, abs=0.01)
    assert all(note in render_answer(answer, False) for note in answer.notes)


DOUBTS = {
    "one colour": (lambda: Image.new("RGB", (40, 32), "red"), "nearly of one colour"),
    "small": (lambda: Image.fromarray(draw_spots(1)[0]).resize((12, 10)), "is small, 12 × 10 pixels"),
    "wide": (lambda: Image.fromarray(draw_spots(1)[0]).resize((90, 30)), "too wide"),
    "high": (lambda: Image.fromarray(draw_spots(1)[0]).resize((30, 90)), "too high"),
    "grey": (lambda: Image.fromarray(draw_spots(1)[0]).convert("L"), "trained on colour pictures"),
    "negative": (lambda: Image.fromarray(255 - draw_spots(60)[3]), "may be a negative"),
}


@pytest.mark.parametrize("name", DOUBTS)
def test_what_may_be_wrong_is_told(load, name):
    make, expected = DOUBTS[name]
    answer = load(COLOUR).read(name, encode(make()))
    assert [doubt for doubt in answer.doubts if expected in doubt]
    good = load(COLOUR).read("good", encode(draw_spots(60)[3]))
    assert good.doubts == []
    assert "What may be wrong" in render_answer(answer, False)
    assert "What may be wrong" not in render_answer(good, False)


def test_a_model_of_grey_pictures_tells_of_colour_and_turns_dark_ink_over(load):
    digits = load(DIGITS)
    _, pixels = digits.sample.show("train_00000")
    coloured = np.concatenate([pixels, pixels // 2, pixels // 3], axis=-1)
    assert any("in colour" in doubt for doubt in digits.read("", encode(coloured)).doubts)
    turned = digits.read("", encode(255 - pixels))
    assert "light and dark exchanged" in turned.notes
    assert turned.distance < 1
    np.testing.assert_array_equal(turned.pixels, pixels)  # what it gets, not what was given


def test_the_page_warns_always_and_shows_no_text_from_outside_as_html(load):
    spots = load(COLOUR)
    for pixels, headline in ((draw_spots(60)[3], "The model says"), (random_noise(32, 40), "Do not trust the answer")):
        answer = spots.read(EVIL, encode(pixels))
        html = render_answer(answer, is_sample=False)
        assert (answer.distance > 1) == ("Do not trust" in html)
        assert f"<h3>{headline}" in html
        assert rendering.WARNING in html
        assert "<img src=x" not in html
        assert "<b>" not in html
        assert "&lt;img src=x" in html
        assert "http" not in html
        assert html.count("data:image/png;base64,") == 3
    assert rendering.SAMPLE_WARNING in render_answer(answer, is_sample=True)
    assert "saved without it" in html  # this model has no conformal set


def test_what_a_model_cannot_tell_is_said(load):
    answer = load(DIGITS).read("", encode(random_noise(32, 32)))
    assert "has no map of features" in render_answer(answer._replace(heatmap=None), False)
    assert "saved without them" in render_answer(answer._replace(distance=None, similar=[]), False)
    none = answer._replace(classes=answer.classes.assign(in_set=False))
    number = describe_probability(answer.classes["probability"][0]).split(", ")[1]
    usual = f"{number} is less than this model usually gives to a right answer."
    assert f"The set is empty: {usual}" in render_answer(none, False)
    second = answer.classes["class"][1]
    one = answer._replace(classes=answer.classes.assign(in_set=answer.classes.index == 1), always=[])
    html = render_answer(one, False)
    assert (
        f"Only <strong>{second}</strong> is in the set. {answer.classes['class'][0]} is not in the set: {usual}" in html
    )
    assert "star" not in html
    html = render_answer(one._replace(always=[second, "other"]), False)
    assert f"Only <strong>{second}</strong>* is in the set." in html
    assert "A class with a star (*) is always in the set" in html
    assert "5 other classes together" in html
    first = answer._replace(classes=answer.classes.assign(in_set=answer.classes.index == 0))
    assert usual not in render_answer(first, False)


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (0.001, "is 0.00; 1 is the limit. It is within the limit."),
        (0.996, "is 1.00; 1 is the limit. It is within the limit."),
        (1.004, "is 1.00; 1 is the limit. It is just beyond the limit, so it is foreign."),
        (1.06, "is 1.06; 1 is the limit. It is beyond the limit, so it is foreign."),
        (23.4, "is 23; 1 is the limit. It is beyond the limit, so it is foreign."),
    ],
)
def test_the_distance_is_written_so_that_the_limit_can_be_seen(load, distance, expected):
    html = render_answer(load(DIGITS).read("", encode(random_noise(32, 32)))._replace(distance=distance), False)
    assert expected in html
    assert ("this mark can be wrong" in html) == (distance > 1)
    assert ("one of the training images, or a copy" in html) == (distance < 0.01)


def test_started_outside_a_project_it_says_where_to_start(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "_NOTEBOOK", tmp_path / "07.ipynb")
    with pytest.raises(SystemExit) as error:
        command.main(["--no-browser"])
    assert error.value.code == 2
    assert "start python -m helpers.app in the project's folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("probability", "expected"),
    [
        (1, "virtually certain, more than 99 of 100"),
        (0.99, "virtually certain, 99 of 100"),
        (0.9, "very likely, 90 of 100"),
        (0.66, "likely, 66 of 100"),
        (0.5, "about as likely as not, 50 of 100"),
        (0.2, "unlikely, 20 of 100"),
        (0.012, "very unlikely, 1 of 100"),
        (0.004, "exceptionally unlikely, fewer than 1 of 100"),
    ],
)
def test_probabilities_in_words(probability, expected):
    assert describe_probability(probability) == expected


def test_a_long_name_is_shortened_and_keeps_its_ending():
    name = rendering.shorten_name("a\nb" + "x" * 200 + ".jpeg")
    assert len(name) == 80
    assert name.startswith("a\\nbx")
    assert name.endswith("x.jpeg")


# The widgets


@pytest.fixture
def opened(folder, load, monkeypatch):
    """Open the page without a browser."""
    monkeypatch.setattr(page, "Reader", lambda path, folder: load(path.relative_to(folder).as_posix()))
    opened = page.Page(list_models(folder), folder)
    opened.wait()
    return opened


def give(opened, *files):
    """Give files to the page as the browser does, and wait for the answer."""
    opened.upload.value = tuple(
        {
            "name": name,
            "type": "",
            "size": len(content),
            "content": memoryview(content),
            "last_modified": datetime.now(UTC),
        }
        for name, content in files
    )
    opened.wait()
    return opened.status.value, opened.answer.value


def test_the_page_answers_and_goes_on_after_hostile_pictures(opened):
    assert "Ready. Which digit is it?" in opened.status.value
    good = encode(draw_spots(60)[3])
    names = random.Random(0).sample([*HOSTILE], len(HOSTILE))
    for name in names:
        status, answer = give(opened, (f"<i>{name}", HOSTILE[name][0]()))
        assert f"&lt;i&gt;{name}: The file" in status or f"&lt;i&gt;{name}: " in status
        assert 'class="alarm"' in status
        assert answer == ""
        assert opened.upload.value == ()
    status, answer = give(opened, ("good.png", good))
    assert "Answered in" in status
    assert "good.png" in answer
    assert give(opened, ("good.png", good))[1] == answer  # the same picture once more


def test_of_several_pictures_the_first_one_is_read(opened):
    files = [(f"{number}.png", encode(draw_spots(9)[number])) for number in range(3)]
    status, answer = give(opened, *files)
    assert "Only the first of 3 pictures was read" in status
    assert "0.png" in answer
    assert "1.png" not in answer


def test_another_model_reads_the_same_picture_and_a_broken_one_is_told(opened, folder):
    opened.example.click()
    opened.wait()
    assert "in truth: " in opened.answer.value
    assert rendering.SAMPLE_WARNING in opened.answer.value
    opened.model.value = folder / COLOUR
    opened.wait()
    assert "in truth: " in opened.answer.value
    assert rendering.SAMPLE_WARNING not in opened.answer.value
    assert opened.example.disabled
    opened.model.options = [*opened.model.options, ("broken", folder / "damaged.keras")]
    opened._folder = folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "Reader", Reader)
        opened.model.value = folder / "damaged.keras"
        opened.wait()
    assert "this is no .keras model" in opened.status.value
    assert "No model is loaded" in give(opened, ("good.png", encode(draw_spots(1))))[0]
    opened.model.value = folder / DIGITS
    opened.wait()
    assert "Answered in" in give(opened, ("good.png", encode(draw_spots(1))))[0]


def test_an_error_of_ours_does_not_end_the_page(opened, monkeypatch):
    monkeypatch.setattr(page, "render_answer", lambda *_: 1 / 0)
    assert "ZeroDivisionError" in give(opened, ("good.png", encode(draw_spots(1))))[0]
    monkeypatch.undo()
    assert "Answered in" in give(opened, ("good.png", encode(draw_spots(1))))[0]


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr(page, "display", lambda *things: shown.extend(things))
    return shown


def test_without_a_model_it_says_what_to_do(tmp_path, displayed):
    app.show_page(tmp_path)
    assert "`make run`" in displayed[0].data


def test_where_nobody_watches_a_picture_of_the_sample_is_read(folder, load, displayed, monkeypatch):
    monkeypatch.setattr(page, "Reader", lambda path, folder: load(path.relative_to(folder).as_posix()))
    monkeypatch.setenv("NOTEBOOK_PROGRESS", "off")
    app.show_page(folder)
    model = "Model: Sample of 8 × 8 digits · MNIST handwritten digits: small cnn. Which digit is it?"
    assert displayed[0].data == f"Saved answer; run the cell to choose your own picture.\n\n{model}"
    assert "in truth: " in displayed[1].data
    assert displayed[1].data.startswith(rendering.STYLE)


def test_where_a_person_watches_the_widgets_are_shown(folder, load, displayed, monkeypatch):
    monkeypatch.setattr(page, "Reader", lambda path, folder: load(path.relative_to(folder).as_posix()))
    monkeypatch.setenv("NOTEBOOK_PROGRESS", "on")
    app.show_page(folder)
    assert "own-image-page" in displayed[0]._dom_classes
    assert "ownImageDrop" in displayed[1].data
