"""Images of odd kinds: too large to open, empty, cut off, with deep or coloured pixels where grey ones are wanted."""

import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.data.audit import leave_out_unusable
from helpers.data.opening import PROBLEM_COLUMNS
from helpers.data.pixels import load_pixels, measure_images
from helpers.files import InputError

NONE = pd.DataFrame(columns=PROBLEM_COLUMNS)
COLOUR = np.random.default_rng(5).integers(0, 256, (16, 12, 3), "uint8")
GREY = COLOUR[..., 0]
LUMINANCE = COLOUR @ [0.299, 0.587, 0.114]


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def make_index(*paths):
    return pd.DataFrame({"image_id": paths, "path": paths, "label": "x", "group": paths})


@pytest.fixture
def bombs(tmp_path, monkeypatch):
    """Write one image as large as Pillow's limit, one between it and its double, and one above."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    for name, height in (("allowed.png", 10), ("warned.png", 11), ("refused.png", 30)):
        Image.new("L", (20, height), 90).save(tmp_path / name)
    return tmp_path


WARNINGS_OFF = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as in a notebook


@WARNINGS_OFF
@pytest.mark.parametrize("name", ["warned.png", "refused.png"])
def test_an_image_that_may_be_a_bomb_is_measured_as_an_error(bombs, cache, name):
    measured = measure_images(make_index("allowed.png", name), bombs, cache)
    assert measured.loc[0, ["width", "height", "red", "error"]].tolist() == [20, 10, 90, ""]
    assert "exceeds limit" in measured.loc[1, "error"]
    assert measured.loc[1].drop("error").isna().all()


@WARNINGS_OFF
@pytest.mark.parametrize("name", ["warned.png", "refused.png"])
def test_an_image_that_may_be_a_bomb_is_not_loaded(bombs, cache, name):
    with pytest.raises(InputError, match=rf"{name} cannot be read as an image \(.*exceeds limit"):
        load_pixels(make_index("allowed.png", name), bombs, (5, 5, 1), cache)
    assert load_pixels(make_index("allowed.png"), bombs, (5, 5, 1), cache).tolist() == [[[[90]] * 5] * 5]


@WARNINGS_OFF
def test_a_large_jpeg_is_a_bomb_even_if_it_would_be_decoded_small(tmp_path, cache, monkeypatch):
    Image.new("L", (800, 600)).save(tmp_path / "large.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 800 * 600 - 1)
    assert "exceeds limit" in measure_images(make_index("large.jpg"), tmp_path, cache).loc[0, "error"]
    with pytest.raises(InputError, match=r"large\.jpg"):
        load_pixels(make_index("large.jpg"), tmp_path, (5, 5, 1), cache)


@WARNINGS_OFF
def test_the_filters_of_warnings_are_as_before(bombs, cache):
    before = list(warnings.filters)
    measure_images(make_index("allowed.png", "warned.png"), bombs, cache)
    with pytest.raises(InputError):
        load_pixels(make_index("warned.png"), bombs, (5, 5, 1), cache)
    assert list(warnings.filters) == before


def write_damaged(folder, name, damage):
    Image.fromarray(np.tile(GREY, (20, 20))).save(folder / name)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(damage(content))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda content: b"", "cannot identify image file"),
        (lambda content: content[:10], "cannot identify image file|truncated|Truncated"),
        (lambda content: content[: len(content) // 2], "truncated"),
        (lambda content: content[: len(content) * 9 // 10], "truncated"),
    ],
    ids=["empty", "start of the header", "half", "nine tenths"],
)
@pytest.mark.parametrize("name", ["bad.jpeg", "bad.png"])
def test_empty_and_truncated_files_are_errors_for_both(tmp_path, cache, name, damage, complaint):
    Image.fromarray(GREY).save(tmp_path / "good.png")
    write_damaged(tmp_path, name, damage)
    images = make_index("good.png", name)
    measured = measure_images(images, tmp_path, cache)
    assert measured.loc[0, "error"] == ""
    assert pd.Series(measured.loc[1, "error"]).str.contains(complaint).all()
    with pytest.raises(InputError, match=rf"{name} cannot be read as an image"):
        load_pixels(images, tmp_path, (16, 12, 1), cache)


@pytest.mark.parametrize("count", [1, 3])
def test_all_files_damaged_end_in_an_input_error(tmp_path, cache, count):
    images = make_index(*[f"{number}.png" for number in range(count)])
    for path in images["path"]:
        (tmp_path / path).write_bytes(b"")
    with pytest.raises(InputError, match=r"^100\.0% of the images cannot be used"):
        leave_out_unusable(images, NONE, measure_images(images, tmp_path, cache))


@pytest.mark.parametrize("damaged", [0, 1])
def test_images_of_one_bit_are_usable(tmp_path, cache, damaged):
    images = make_index(*[f"{number:02d}.png" for number in range(20 + damaged)])
    for number, path in enumerate(images["path"]):
        Image.new("1", (4, 4), number % 2).save(tmp_path / path)
    if damaged:
        (tmp_path / images["path"].iloc[-1]).write_bytes(b"")
    measured = measure_images(images, tmp_path, cache)
    assert set(measured["mode"].dropna()) == {"1"}
    kept, problems = leave_out_unusable(images, NONE, measured)
    assert (len(kept), len(problems)) == (20, damaged)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bits_are_scaled_to_8(tmp_path, cache, ending):
    path = f"deep.{ending}"
    ramp = np.linspace(0, 65535, 16 * 12).reshape(16, 12).astype("uint16")
    Image.fromarray(ramp).save(tmp_path / path)
    images = make_index(path)
    found = load_pixels(images, tmp_path, (16, 12, 1), cache)
    np.testing.assert_allclose(found[0, ..., 0], ramp / 257, atol=0.5)
    measured = measure_images(images, tmp_path, cache)
    assert measured.loc[0, "mode"].startswith("I;16")
    assert measured.loc[0, "red"] == pytest.approx(127.5, abs=0.5)
    kept, problems = leave_out_unusable(images, NONE, measured)
    assert len(kept) == 1
    assert problems[PROBLEM_COLUMNS[:-1]].to_numpy().tolist() == [[path, "has 16 bits", "scaled to 8 bits"]]


def test_16_bits_in_the_byte_order_of_motorola(tmp_path, cache):
    ramp = np.linspace(0, 65535, 16 * 12).reshape(16, 12).astype(">u2")
    Image.frombytes("I;16B", (12, 16), ramp.tobytes()).save(tmp_path / "deep.tif")
    found = load_pixels(make_index("deep.tif"), tmp_path, (16, 12, 1), cache)
    np.testing.assert_allclose(found[0, ..., 0], ramp / 257, atol=0.5)
    assert measure_images(make_index("deep.tif"), tmp_path, cache).loc[0, "mode"] == "I;16B"


def make_palette_image():
    """Make an image of 256 colours that holds its grey levels, numbered backwards."""
    image = Image.fromarray(255 - GREY)
    image.putpalette([255 - number for number in range(256) for _ in range(3)])
    return image


@pytest.mark.parametrize(
    ("name", "mode", "image", "expected"),
    [
        ("cmyk.tif", "CMYK", Image.fromarray(COLOUR).convert("CMYK"), LUMINANCE),
        ("rgba.png", "RGBA", Image.fromarray(np.dstack([COLOUR, np.full_like(GREY, 255)])), LUMINANCE),
        ("grey-alpha.png", "LA", Image.fromarray(GREY).convert("LA"), GREY),
        ("rgb.png", "RGB", Image.fromarray(COLOUR), LUMINANCE),
        ("palette.png", "P", make_palette_image(), GREY),
        ("palette.gif", "P", make_palette_image(), GREY),
        ("bits.png", "1", Image.fromarray(GREY > 128), 255.0 * (GREY > 128)),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_images_of_any_mode_decode_to_one_channel(tmp_path, cache, name, mode, image, expected):
    image.save(tmp_path / name)
    with Image.open(tmp_path / name) as stored:
        assert stored.mode == mode
    found = load_pixels(make_index(name), tmp_path, (16, 12, 1), cache)
    assert (found.shape, found.dtype) == ((1, 16, 12, 1), np.uint8)
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=1)


def test_cmyk_jpeg_decodes_to_one_channel(tmp_path, cache):
    """Grey stored as CMYK, as some scanners do; inverted it would be a negative."""
    ramp = np.linspace(20, 220, 64 * 64).reshape(64, 64).astype("uint8")
    Image.fromarray(ramp).convert("CMYK").save(tmp_path / "cmyk.jpeg", quality=95)
    found = load_pixels(make_index("cmyk.jpeg"), tmp_path, (64, 64, 1), cache)
    assert np.abs(found[0, ..., 0].astype(int) - ramp).max() <= 4
    measured = measure_images(make_index("cmyk.jpeg"), tmp_path, cache)
    assert measured.loc[0, "mode"] == "CMYK"
    assert measured.loc[0, ["red", "green", "blue"]].tolist() == pytest.approx([ramp.mean()] * 3, abs=2)


@pytest.mark.parametrize(("dtype", "mode"), [("int32", "I"), ("float32", "F")])
def test_numbers_without_a_fixed_range_are_errors(tmp_path, cache, dtype, mode):
    Image.fromarray(GREY.astype(dtype)).save(tmp_path / "numbers.tif")
    assert f"mode {mode} has no fixed range" in measure_images(make_index("numbers.tif"), tmp_path, cache)["error"][0]
    with pytest.raises(InputError, match=rf"numbers\.tif .*mode {mode} has no fixed range"):
        load_pixels(make_index("numbers.tif"), tmp_path, (16, 12, 1), cache)
