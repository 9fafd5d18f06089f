"""Images of odd kinds: too large, cut off, deep, transparent, several in a file; and what is no image file at all."""

import contextlib
import io
import os
import socket
import struct
import warnings
import zlib

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import AvifImagePlugin, Image

from benchmarks import fuzz
from helpers.data import reading
from helpers.data.audit import leave_out_unusable
from helpers.data.opening import PROBLEM_COLUMNS
from helpers.data.pixels import compute_fingerprint, decode_image, load_pixels, measure_images, read_image
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
    assert measured.loc[1].drop(["note", "error"]).isna().all()


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


def test_lab_colours_can_be_read_as_grey(tmp_path):
    """They could be measured, which wants colours, but not loaded."""
    Image.new("LAB", (12, 16), (128, 128, 128)).save(tmp_path / "lab.tif")
    assert decode_image(tmp_path / "lab.tif", (16, 12, 1))[0].std() == 0


# Transparency

ALPHA = np.tile(np.linspace(0, 255, 12).astype("uint8"), (16, 1))
BLACK = np.zeros_like(GREY)


def lay_on(levels, alpha, background):
    """Compute what a viewer shows."""
    share = alpha.astype(float).reshape(16, 12, 1) / 255
    return share * np.reshape(levels, (16, 12, -1)) + (1 - share) * background


def make_layers(levels, alpha):
    return Image.fromarray(np.dstack([levels, alpha]).astype("uint8"))


@pytest.mark.parametrize("background", [255, 0, 128])
@pytest.mark.parametrize(
    ("ending", "mode", "image", "levels"),
    [
        ("png", "RGBA", make_layers(COLOUR, ALPHA), COLOUR),
        ("png", "LA", make_layers(GREY, ALPHA), GREY),
        ("png", "LA", make_layers(BLACK, ALPHA), BLACK),
        ("tif", "RGBA", make_layers(COLOUR, ALPHA), COLOUR),
        ("tif", "PA", make_layers(np.zeros_like(COLOUR), ALPHA).convert("PA"), BLACK),
        ("webp", "RGBA", make_layers(COLOUR, ALPHA), COLOUR),
    ],
)
def test_transparent_pixels_are_laid_on_the_background(tmp_path, ending, mode, image, levels, background):
    image.save(tmp_path / f"ink.{ending}", **({"lossless": True, "exact": True} if ending == "webp" else {}))
    with Image.open(tmp_path / f"ink.{ending}") as stored:
        assert stored.mode == mode
    found, note = decode_image(tmp_path / f"ink.{ending}", (16, 12, 3), background)
    np.testing.assert_allclose(found, np.broadcast_to(lay_on(levels, ALPHA, background), found.shape), atol=1.01)
    shade = {255: "white", 0: "black", 128: "grey level 128"}[background]
    assert note == f"is transparent: laid on {shade}"


def test_levels_that_were_multiplied_with_their_opacity(tmp_path):
    make_layers(BLACK, ALPHA).save(tmp_path / "ink.tif")
    content = (tmp_path / "ink.tif").read_bytes()
    entry = struct.pack("<HHI", 338, 3, 1)  # what the second channel is
    (tmp_path / "ink.tif").write_bytes(content.replace(entry + b"\2", entry + b"\1"))
    with Image.open(tmp_path / "ink.tif") as stored:
        assert stored.mode == "La"
    np.testing.assert_allclose(decode_image(tmp_path / "ink.tif", (16, 12, 1))[0], lay_on(BLACK, ALPHA, 255), atol=1)


def write_png(path, depth, color_type, content, *chunks):
    """Write a PNG file of 12 x 16 pixels that Pillow would not write."""
    rows = np.frombuffer(content, "uint8").reshape(16, -1)
    pixels = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())  # each row begins with its filter, 0
    header = struct.pack(">IIBBBBB", 12, 16, depth, color_type, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in ((b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))


CLEAR = np.zeros((16, 12), bool)
CLEAR[2:9, 3:7] = True


@pytest.mark.parametrize(
    ("depth", "color_type", "clear", "other", "shown"),
    [
        (8, 0, 7, 9, 9),
        (16, 0, 65_535, 257 * 40, 40),
        (16, 0, 1, 65_535, 255),
        (8, 2, 7, 9, 9),
        (16, 2, 40 * 256 + 3, 200 * 256 + 3, 200),
    ],
)
def test_one_level_of_a_png_may_be_transparent(tmp_path, depth, color_type, clear, other, shown):
    bands = 3 if color_type == 2 else 1
    levels = np.repeat(np.where(CLEAR, clear, other)[..., None], bands, -1)
    chunks = [(b"tRNS", struct.pack(f">{bands}H", *[clear] * bands))]
    write_png(tmp_path / "key.png", depth, color_type, levels.astype(f">u{depth // 8}").tobytes(), *chunks)
    found, note = decode_image(tmp_path / "key.png", (16, 12, 1))
    np.testing.assert_array_equal(found[..., 0], np.where(CLEAR, 255, shown))
    assert note.endswith("is transparent: laid on white")


@pytest.mark.parametrize(("depth", "clear", "other", "shown"), [(1, 0, 1, 255), (2, 1, 2, 170), (4, 9, 3, 51)])
def test_one_level_of_few_bits_may_be_transparent(tmp_path, depth, clear, other, shown):
    bits = np.unpackbits(np.where(CLEAR, clear, other).astype("uint8")[..., None], axis=-1)[..., -depth:]
    content = np.packbits(bits.reshape(16, -1), axis=-1).tobytes()
    write_png(tmp_path / "key.png", depth, 0, content, (b"tRNS", struct.pack(">H", clear)))
    found, _ = decode_image(tmp_path / "key.png", (16, 12, 1), background=128)
    np.testing.assert_array_equal(found[..., 0], np.where(CLEAR, 128, shown))


@pytest.mark.parametrize(("ending", "transparency"), [("gif", 1), ("png", 1), ("png", bytes([255, 0, 255]))])
def test_a_colour_of_a_palette_may_be_transparent(tmp_path, ending, transparency):
    image = Image.fromarray(np.where(CLEAR, 1, 2).astype("uint8"))
    image.putpalette([255, 0, 0, 0, 0, 0, 60, 60, 60])
    image.save(tmp_path / f"ink.{ending}", transparency=transparency)
    found, note = decode_image(tmp_path / f"ink.{ending}", (16, 12, 1))
    np.testing.assert_array_equal(found[..., 0], np.where(CLEAR, 255, 60))
    assert note == "is transparent: laid on white"


@pytest.mark.parametrize("image", [make_layers(COLOUR, 255 + BLACK), make_layers(GREY, 255 + BLACK)])
def test_an_opaque_image_stays_as_it_is(tmp_path, image):
    image.save(tmp_path / "opaque.png")
    found, note = decode_image(tmp_path / "opaque.png", (16, 12, 3), background=0)
    np.testing.assert_array_equal(found, image.convert("RGB"))
    assert note == ""


def test_the_background_is_part_of_what_is_kept(tmp_path, cache):
    make_layers(BLACK, ALPHA).save(tmp_path / "ink.png")
    images = make_index("ink.png")
    for background in (255, 0):
        pixels = load_pixels(images, tmp_path, (16, 12, 1), cache, background)
        measured = measure_images(images, tmp_path, cache, background)
        assert pixels[0, :, 0].tolist() == [[background]] * 16
        assert measured.loc[0, "red"] == pytest.approx(pixels.mean(), abs=0.01)
        assert measured.loc[0, "note"].startswith("is transparent")


# Depth


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize(
    ("highest", "depth"), [(100, 8), (255, 8), (256, 12), (1000, 12), (1100, 12), (4095, 12), (4096, 16), (16383, 16)]
)
def test_grey_levels_that_fill_a_part_of_16_bits_are_stretched(tmp_path, highest, depth, ending):
    ramp = np.linspace(0, highest, 16 * 12).round().reshape(16, 12).astype("uint16")
    Image.fromarray(ramp).save(tmp_path / f"deep.{ending}")
    found, note = decode_image(tmp_path / f"deep.{ending}", (16, 12, 1))
    np.testing.assert_allclose(found[..., 0], ramp * (255 / (2**depth - 1)), atol=0.51)
    stretched = f"has {depth} bits in 16: stretched to 8 bits"
    assert note == ("has 16 bits: scaled to 8 bits" if depth == 16 else stretched)


@pytest.mark.parametrize(
    ("stated", "highest", "depth"),
    [(1023, 1000, 10), (1023, 200, 10), (16383, 1000, 14), (1023, 1100, 16), (65535, 1000, 12), (999, 900, 12)],
)
def test_the_depth_of_grey_levels_is_what_a_tiff_states(tmp_path, stated, highest, depth):
    ramp = np.linspace(0, highest, 16 * 12).round().reshape(16, 12).astype("uint16")
    Image.fromarray(ramp).save(tmp_path / "deep.tif", tiffinfo={281: stated})
    found, note = decode_image(tmp_path / "deep.tif", (16, 12, 1))
    np.testing.assert_allclose(found[..., 0], ramp * (255 / (2**depth - 1)), atol=0.51)
    assert note.startswith(f"has {depth} bits")


def test_dark_grey_levels_that_are_stored_in_12_bits(tmp_path):
    levels = np.array([[0x038, 0x0C8]] * 4, "uint16")
    Image.fromarray(levels).save(tmp_path / "deep.tif")
    entry, packed = struct.pack("<HHI", 258, 3, 1), b"\x03\x80\xc8" * 4  # two pixels in three bytes
    content = (tmp_path / "deep.tif").read_bytes().replace(entry + b"\x10", entry + b"\x0c")
    (tmp_path / "deep.tif").write_bytes(content.replace(levels.tobytes(), packed + bytes(4)))
    found, note = decode_image(tmp_path / "deep.tif", (4, 2, 1))
    assert found[..., 0].tolist() == [[3, 12]] * 4
    assert note == "has 12 bits in 16: stretched to 8 bits"


def test_black_of_16_bits_stays_black(tmp_path):
    Image.fromarray(np.zeros((16, 12), "uint16")).save(tmp_path / "black.png")
    assert not decode_image(tmp_path / "black.png", (16, 12, 1))[0].any()


def test_16_bits_whose_0_is_white(tmp_path):
    ramp = np.linspace(0, 65535, 16 * 12).reshape(16, 12).astype("uint16")
    Image.fromarray(ramp).save(tmp_path / "film.tif", tiffinfo={262: 0})
    np.testing.assert_allclose(decode_image(tmp_path / "film.tif", (16, 12, 1))[0][..., 0], 255 - ramp / 257, atol=0.51)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("bands", [3, 4])
def test_colours_of_16_bits(tmp_path, ending, bands):
    levels = np.dstack([COLOUR.astype("uint16") * 257, np.full((16, 12, bands - 3), 65535, "uint16")])
    for depth in (16, 14, 12, 8):
        path = tmp_path / f"{depth}.{ending}"
        levels[..., :3] >>= 16 - depth
        path.write_bytes(cv2.imencode(f".{ending}", levels)[1].tobytes())  # in the order blue, green, red
        levels[..., :3] <<= 16 - depth
        if depth == 16:
            found, note = decode_image(path, (16, 12, 3))
            np.testing.assert_array_equal(found, COLOUR[..., ::-1])
            assert note == "has 16 bits: scaled to 8 bits"
        else:
            with pytest.raises(InputError, match="would be nearly blank: stretch it to 8 bits first"):
                decode_image(path, (16, 12, 3))


RAMP = np.add.outer(np.arange(64), np.arange(48)) * 2  # smaller ones are not written as JPEG 2000


def code_jpeg_2000(levels, bits=16):
    """Code levels in 16 bits, and let the file state another number."""
    middle = 2**15 - 2 ** (bits - 1)  # which is stored as 0, in 16 bits and in fewer
    content = bytearray(cv2.imencode(".jp2", (levels + middle).astype("uint16"))[1].tobytes())
    size = content.index(b"\xff\x4f\xff\x51")
    for place in range(size + 42, size + (51 if levels.ndim == 3 else 45), 3):
        content[place] = bits - 1
    return bytes(content)


def test_grey_jpeg_2000_has_the_depth_that_it_states():
    for bits, factor in ((16, 257), (12, 4)):
        found, note = decode_image(code_jpeg_2000(RAMP * factor, bits), (64, 48, 1))
        np.testing.assert_allclose(found[..., 0], RAMP * (factor * 255 / (2**bits - 1)), atol=2)
        assert note.startswith(f"has {bits} bits")
    for factor in (16, 64):  # 12 or 14 bits in 16
        with pytest.raises(InputError, match=r"would be nearly blank: stretch it to 8 bits first\)\.$"):
            decode_image(code_jpeg_2000(RAMP * factor), (64, 48, 1))


@pytest.mark.parametrize("bits", [12, 16])
def test_jpeg_2000_of_deep_colours_is_refused(bits):
    """Pillow would make black of white."""
    content = code_jpeg_2000(np.full((64, 48, 3), 2**bits - 1), bits)
    assert np.asarray(Image.open(io.BytesIO(content))).min() == 0
    with pytest.raises(InputError, match=f"has colours of {bits} bits that Pillow shows wrong: save it as PNG"):
        decode_image(content, (64, 48, 3))


def test_channels_of_16_bits_one_after_the_other_are_refused(tmp_path):
    """Pillow takes them for channels of 8 bits."""
    values = {256: 12, 257: 16, 258: 16, 259: 1, 262: 2, 277: 3, 278: 16, 284: 2}
    content = make_tiff(values | {273: 200, 279: 384}) + bytes(3000)
    (tmp_path / "planes.tif").write_bytes(content)
    with pytest.raises(InputError, match="has colours of 16 bits that Pillow shows wrong"):
        decode_image(tmp_path / "planes.tif", (16, 12, 3))


def make_tiff(values):
    """Make the head of a TIFF file of three channels."""
    threes, entries, place = (258, 273, 279), b"", 8 + 6 + 12 * len(values)
    for tag, value in sorted(values.items()):
        entries += struct.pack("<HHII", tag, 4, *((3, place + 12 * threes.index(tag)) if tag in threes else (1, value)))
    return (
        struct.pack("<4sIH", b"II*\0", 8, len(values))
        + entries
        + bytes(4)
        + b"".join(struct.pack("<III", *[values[tag]] * 3) for tag in threes)
    )


@pytest.mark.parametrize("masks", [(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)])
def test_16_bits_for_all_channels_of_a_pixel_are_no_depth(tmp_path, masks):
    """A dark bitmap of 5 bits per channel: it was taken for 16 bits that are filled in part."""
    head = struct.pack("<IiiHHIIiiII", 40, 12, 16, 1, 16, 3, 0, 0, 0, 0, 0) + struct.pack("<III", *masks)
    pixels = struct.pack("<H", 3) * (12 * 16)  # blue
    file = struct.pack("<2sIII", b"BM", 14 + len(head) + len(pixels), 0, 14 + len(head)) + head + pixels
    (tmp_path / "dark.bmp").write_bytes(file)
    found, note = decode_image(tmp_path / "dark.bmp", (16, 12, 3))
    assert found[0, 0].tolist() == [0, 0, 24]
    assert note == ""


def test_black_ink_of_16_bits_on_a_transparent_ground(tmp_path):
    levels = np.dstack([np.zeros((16, 12, 3), "uint16"), ALPHA.astype("uint16") * 257])
    (tmp_path / "ink.png").write_bytes(cv2.imencode(".png", levels)[1].tobytes())
    found, note = decode_image(tmp_path / "ink.png", (16, 12, 1))
    np.testing.assert_allclose(found, lay_on(BLACK, ALPHA, 255), atol=1)
    assert note == "has 16 bits: scaled to 8 bits; is transparent: laid on white"


# Files of several images, of other formats, and no files


@pytest.mark.parametrize(
    ("ending", "what"), [("gif", "frames"), ("png", "frames"), ("webp", "frames"), ("tif", "pages")]
)
def test_of_several_images_the_first_one_is_taken(tmp_path, ending, what):
    first, *others = (Image.new("L", (12, 16), level) for level in (250, 10, 90))
    first.save(
        tmp_path / f"many.{ending}",
        save_all=True,
        append_images=others,
        **({"lossless": True} if ending == "webp" else {}),
    )
    found, note = decode_image(tmp_path / f"many.{ending}", (16, 12, 1))
    assert set(found.ravel().tolist()) == {250}
    assert note == f"has further {what}: the first one taken"


@pytest.mark.parametrize("ending", ["gif", "tif"])
def test_of_several_images_only_the_first_one_has_to_be_whole(tmp_path, ending):
    first, *others = (Image.fromarray((GREY // 2 + level).astype("uint8")) for level in (0, 60, 120))
    first.save(tmp_path / f"one.{ending}")
    first.save(tmp_path / f"many.{ending}", save_all=True, append_images=others)
    whole, content = (tmp_path / f"one.{ending}").stat().st_size, (tmp_path / f"many.{ending}").read_bytes()
    expected = decode_image(tmp_path / f"one.{ending}", (16, 12, 1))[0]
    for size in range(whole + 30, len(content), 7):
        (tmp_path / f"torn.{ending}").write_bytes(content[:size])
        with warnings.catch_warnings(action="ignore"):
            found, _ = decode_image(tmp_path / f"torn.{ending}", (16, 12, 1))
        np.testing.assert_array_equal(found, expected)


def test_the_preview_beside_a_photograph_is_not_noted(tmp_path):
    photograph = Image.fromarray(np.tile(COLOUR, (10, 10, 1)))
    photograph.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[photograph.reduce(4)])
    with Image.open(tmp_path / "phone.jpg") as stored:
        assert (stored.format, stored.n_frames) == ("MPO", 2)
    assert decode_image(tmp_path / "phone.jpg", (16, 12, 3))[1] == ""


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "is a HEIC photograph: save it as JPEG or PNG"),
        (bytes(128) + b"DICM" + bytes(50), "is a DICOM file: save it as JPEG or PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is a drawing: save it as JPEG or PNG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS: fetch the file itself"),
        (b"P5 2 2 255\n1234", "cannot identify image file"),
        (b"", "cannot identify image file"),
    ],
)
def test_files_of_other_formats_are_told(tmp_path, cache, content, complaint):
    (tmp_path / "photo.jpg").write_bytes(content)
    for source in (tmp_path / "photo.jpg", content):
        with pytest.raises(InputError, match=complaint) as caught:
            decode_image(source, (16, 12, 1))
        name = "The file" if source == content else str(source)
        assert str(caught.value).startswith(f"{name} cannot be read as an image (")
        assert str(caught.value).endswith("Fetch it again or remove it.") == ("identify" in complaint)  # one remedy
    assert complaint in measure_images(make_index("photo.jpg"), tmp_path, cache)["error"][0]


def test_an_image_that_does_not_fit_into_memory_is_a_problem(tmp_path, cache, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "large.png")

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", fail)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(
        InputError, match=r"large\.png cannot be read as an image \(does not fit .* save it smaller\)\.$"
    ):
        decode_image(tmp_path / "large.png", (16, 12, 1))
    assert "does not fit" in measure_images(make_index("large.png"), tmp_path, cache)["error"][0]


def test_content_is_decoded_as_the_file_is(tmp_path):
    make_layers(COLOUR, ALPHA).save(tmp_path / "ink.png")
    for source in (tmp_path / "ink.png", str(tmp_path / "ink.png"), (tmp_path / "ink.png").read_bytes()):
        found, note = decode_image(source, (8, 6, 3))
        np.testing.assert_array_equal(found, read_image(tmp_path / "ink.png", (8, 6, 3)))
        assert note == "is transparent: laid on white"


def test_a_format_that_pillow_lacks_is_a_problem(tmp_path, cache, monkeypatch):
    Image.fromarray(COLOUR).save(tmp_path / "photo.avif")
    monkeypatch.setattr(AvifImagePlugin, "SUPPORTED", False)
    assert measure_images(make_index("photo.avif"), tmp_path, cache)["error"].tolist() == ["cannot identify image file"]


def test_warnings_of_pillow_about_exif_are_not_shown(tmp_path, cache):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a name"
    Image.fromarray(COLOUR).save(tmp_path / "photo.jpg", exif=exif.tobytes()[:-20])
    assert load_pixels(make_index("photo.jpg"), tmp_path, (12, 16, 3), cache).shape == (1, 12, 16, 3)


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as opened, contextlib.chdir(path.parent):  # whose paths may be short only
        opened.bind(path.name)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (make_pipe, "is a pipe, no regular file"),
        (make_socket, "is a socket, no regular file"),
        (lambda path: path.symlink_to("/dev/null"), "is a device, no regular file"),
        (lambda path: path.symlink_to("nowhere"), "is a link that leads nowhere"),
        (lambda path: path.symlink_to(path), "is a link that leads nowhere"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: None, "cannot be reached"),
    ],
    ids=["pipe", "socket", "device", "dangling link", "circular link", "folder", "missing"],
)
def test_what_is_no_file_ends_no_run(tmp_path, cache, make, complaint):
    good = [f"{number:02d}.png" for number in range(20)]
    for name in good:
        Image.fromarray(GREY).save(tmp_path / name)
    make(tmp_path / "bad.png")
    images = make_index(*good, "bad.png")
    measured = measure_images(images, tmp_path, cache)
    assert complaint in measured["error"].iloc[-1]
    kept, problems = leave_out_unusable(images, NONE, measured)
    assert kept["path"].tolist() == good
    assert problems["file"].tolist() == ["bad.png"]
    with pytest.raises(InputError, match=r"bad\.png cannot be opened"):
        load_pixels(images, tmp_path, (16, 12, 1), cache)
    with pytest.raises(InputError, match=r"bad\.png cannot be read as an image"):
        decode_image(tmp_path / "bad.png", (16, 12, 1))


def test_a_file_that_may_not_be_read_ends_no_run_and_is_read_when_it_may(tmp_path, cache, monkeypatch):
    for name in ("good.png", "closed.png"):
        Image.fromarray(GREY).save(tmp_path / name)
    images, opens, may = make_index("good.png", "closed.png"), open, os.access
    monkeypatch.setattr(reading, "_RECENT", 0)  # what was hashed just now is remembered too

    def refuse(path, *rest, **options):
        if "closed" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opens(path, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: "closed" not in str(path) and may(path, mode))
        closed = compute_fingerprint(images, tmp_path, cache)  # without trying, because workers would try too
        patch.setattr("builtins.open", refuse)
        assert measure_images(images, tmp_path, cache)["error"].tolist() == ["", "Permission denied"]
        with pytest.raises(InputError, match=r"closed\.png cannot be opened"):
            load_pixels(images, tmp_path, (16, 12, 1), cache)
        patch.setattr(os, "access", may)  # as it may be on a shared drive
        assert compute_fingerprint(images, tmp_path, cache) == closed
    assert compute_fingerprint(images, tmp_path, cache) != closed
    assert measure_images(images, tmp_path, cache)["error"].tolist() == ["", ""]
    assert load_pixels(images, tmp_path, (16, 12, 1), cache).shape == (2, 16, 12, 1)


def test_names_of_any_bytes(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(reading, "_RECENT", 0)
    name = os.fsdecode(b"caf\xe9.png")
    Image.fromarray(GREY).save(tmp_path / "good.png")
    (tmp_path / "good.png").rename(tmp_path / name)
    images = make_index(name)
    for _ in range(2):  # hashed, then from the cache
        monkeypatch.setattr(reading, "_hashes", {})
        assert measure_images(images, tmp_path, cache)["error"].tolist() == [""]
        np.testing.assert_array_equal(load_pixels(images, tmp_path, (16, 12, 1), cache)[0, ..., 0], GREY)
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"caf\\xe9\.png cannot be read as an image"):
        load_pixels(images, tmp_path, (16, 12, 1), cache)


# Damaged at random


def test_libtiff_writes_nothing_to_stderr(tmp_path, cache, capfd):
    Image.fromarray(np.tile(GREY, (9, 9))).save(tmp_path / "bad.tif", compression="tiff_adobe_deflate")
    content = (tmp_path / "bad.tif").read_bytes()
    (tmp_path / "bad.tif").write_bytes(content[:50] + bytes(50) + content[100:])
    assert measure_images(make_index("bad.tif"), tmp_path, cache)["error"][0] != ""
    assert capfd.readouterr().err == ""


def test_damaged_files_are_read_or_refused(monkeypatch):
    monkeypatch.setattr(fuzz, "_decode_strictly", lambda *_: None)  # it imports TensorFlow
    table, wrong = fuzz.measure(96)
    assert wrong == []
    assert table["files"].sum() == 96
    assert 0 < table["read"].sum() == 96 - table["refused"].sum() < 96


def test_what_goes_wrong_with_a_damaged_file_is_noticed(monkeypatch):
    def decode(*_):
        warnings.warn("odd", stacklevel=1)
        os.write(2, b"bad code")
        raise IndexError("out of range")

    monkeypatch.setattr(fuzz, "decode_image", decode)
    table, wrong = fuzz.measure(1)
    assert table["wrong"].sum() == 1
    assert wrong == [f"0 (JPEG): {fault}" for fault in ("IndexError('out of range')", "odd", "bad code")]
