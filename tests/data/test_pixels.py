"""Pixels: those of the files in the order of the index, decoded once, never from an old cache."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import seals
from helpers.data import pixels as module
from helpers.data.opening import index_images
from helpers.data.pixels import compute_fingerprint, load_pixels, read_image
from helpers.files import InputError, WriteError

SHAPE = (28, 28, 1)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def table(data_set, folder):
    return index_images(data_set, folder)[0]


@pytest.fixture
def files(tmp_path):
    """Write image files in two folders and return an index of them and their pixels."""
    folder = tmp_path / "files"
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (4, 12, 9, 3), "uint8")
    paths = ["a/one.png", "a/two.PNG", "b/one.png", "b/x y é.bmp"]
    for path, image in zip(paths, pixels, strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / path)
    return pd.DataFrame({"image_id": paths, "path": paths}), folder, pixels


def list_cached(cache):
    return sorted(path for path in (cache / "pixels").rglob("*") if path.is_file())


def forbid_decoding(monkeypatch):
    def fail(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(module, "_decode", fail)


def test_pixels_of_arrays_are_the_arrays(table, folder, cache, arrays):
    pixels = load_pixels(table, folder, SHAPE, cache)
    assert (pixels.shape, pixels.dtype) == ((60, 28, 28, 1), np.uint8)
    np.testing.assert_array_equal(pixels[..., 0], np.concatenate([arrays["x_train"], arrays["x_test"]]))


def test_pixels_follow_the_order_of_the_index(table, folder, cache, arrays):
    every = np.concatenate([arrays["x_train"], arrays["x_test"]])
    rows = table.sample(25, random_state=1).index  # of both parts, mixed
    for order in (rows, rows[::-1]):
        chosen = table.loc[order].reset_index(drop=True)
        assert chosen["part"].ne(chosen["part"].shift()).sum() > 4
        np.testing.assert_array_equal(load_pixels(chosen, folder, SHAPE, cache)[..., 0], every[order])


def test_rows_that_are_not_numbered_from_0_are_refused(table, folder, cache):
    """They would be used as positions in the array and name other images."""
    for wrong in (table.iloc[1:], table.iloc[::-1], table.set_index("image_id", drop=False)):
        with pytest.raises(ValueError, match="reset_index"):
            load_pixels(wrong, folder, SHAPE, cache)


def test_pixels_of_files(files, cache):
    table, folder, expected = files
    np.testing.assert_array_equal(load_pixels(table, folder, (12, 9, 3), cache), expected)
    order = [2, 0, 3]
    chosen = table.iloc[order].reset_index(drop=True)
    np.testing.assert_array_equal(load_pixels(chosen, folder, (12, 9, 3), cache), expected[order])


def test_arrays_and_files_in_one_index(table, folder, cache, arrays):
    Image.fromarray(arrays["x_test"][0]).save(folder / "scan.png")
    scan = pd.DataFrame({"image_id": ["scan"], "path": ["scan.png"], "label": ["3"], "part": ["extra"]})
    mixed = pd.concat([table.iloc[[41, 5]], scan, table.iloc[[7]]], ignore_index=True)
    expected = [arrays["x_test"][1], arrays["x_train"][5], arrays["x_test"][0], arrays["x_train"][7]]
    np.testing.assert_array_equal(load_pixels(mixed, folder, SHAPE, cache)[..., 0], expected)


def test_pixels_are_memory_mapped_and_read_only(table, folder, cache):
    for _ in range(2):  # decoded, then from the cache
        pixels = load_pixels(table, folder, SHAPE, cache)
        assert isinstance(pixels, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            pixels[0] = 0


def test_the_second_call_does_not_decode(table, folder, cache, monkeypatch):
    first = np.array(load_pixels(table, folder, SHAPE, cache))
    forbid_decoding(monkeypatch)
    np.testing.assert_array_equal(load_pixels(table, folder, SHAPE, cache), first)
    with pytest.raises(AssertionError, match="decoded again"):
        load_pixels(table, folder, (14, 14, 1), cache)


def test_the_cache_does_not_depend_on_where_the_files_lie(table, folder, cache, tmp_path, monkeypatch):
    load_pixels(table, folder, SHAPE, cache)
    shutil.copytree(folder, tmp_path / "moved")
    forbid_decoding(monkeypatch)
    assert load_pixels(table, tmp_path / "moved", SHAPE, cache).shape == (60, *SHAPE)


def test_changed_arrays_give_new_pixels(data_set, table, folder, cache, arrays):
    path = folder / "mnist.npz"
    before = path.stat()
    load_pixels(table, folder, SHAPE, cache)
    arrays["x_train"][0] = 255 - arrays["x_train"][0]
    np.savez(path, **arrays)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size  # neither size nor time tells
    np.testing.assert_array_equal(load_pixels(table, folder, SHAPE, cache)[0, ..., 0], arrays["x_train"][0])


def test_changed_file_gives_new_pixels(files, cache):
    table, folder, expected = files
    load_pixels(table, folder, (12, 9, 3), cache)
    Image.fromarray(expected[0]).save(folder / "b/one.png")
    np.testing.assert_array_equal(load_pixels(table, folder, (12, 9, 3), cache)[2], expected[0])


@pytest.mark.parametrize("column", ["position", "path"])
def test_same_ids_of_other_images_give_other_pixels(column, table, folder, cache, arrays):
    shutil.copy(folder / "mnist.npz", folder / "copy.npz")
    np.savez(folder / "copy.npz", **arrays | {"x_train": 255 - arrays["x_train"]})
    chosen = table.iloc[[0, 1, 2, 3]].copy()
    chosen["path"] = ["mnist.npz", "copy.npz", "mnist.npz", "copy.npz"]
    first = load_pixels(chosen, folder, SHAPE, cache)
    chosen[column] = chosen[column].to_numpy()[[0, 1, 3, 2]]  # the same ids and files, in the same order of files
    stored = {"mnist.npz": arrays["x_train"], "copy.npz": 255 - arrays["x_train"]}
    expected = [stored[row.path][row.position] for row in chosen.itertuples()]
    assert not np.array_equal(first[..., 0], expected)
    np.testing.assert_array_equal(load_pixels(chosen, folder, SHAPE, cache)[..., 0], expected)


def test_fingerprint_tells_content_and_order(table, folder, files):
    first = compute_fingerprint(table, folder)
    assert first.startswith("sha256:")
    assert len(first) == 71
    assert compute_fingerprint(table.copy(), folder) == first
    assert compute_fingerprint(table.iloc[::-1], folder) != first
    assert compute_fingerprint(table.iloc[:-1], folder) != first
    images, place, pixels = files
    before = compute_fingerprint(images, place)
    Image.fromarray(pixels[0]).save(place / "b/one.png")
    assert compute_fingerprint(images, place) != before


@pytest.mark.parametrize("shape", [(14, 14, 1), (20, 36, 1), (56, 56, 1), (28, 28, 3)])
def test_arrays_are_resized(table, folder, cache, arrays, shape):
    pixels = load_pixels(table, folder, shape, cache)
    assert pixels.shape == (60, *shape)
    for number in (0, 59):
        image = Image.fromarray(arrays["x_train"][0] if number == 0 else arrays["x_test"][19])
        expected = np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
        for channel in range(shape[2]):
            np.testing.assert_array_equal(pixels[number, ..., channel], expected)


def test_height_and_width_are_not_swapped(tmp_path):
    image = np.zeros((20, 40), "uint8")  # wide, upper half white
    image[:10] = 255
    Image.fromarray(image).save(tmp_path / "half.png")
    small = read_image(tmp_path / "half.png", (10, 30, 1))
    assert small.shape == (10, 30, 1)
    assert (small[:4] == 255).all()
    assert not small[6:].any()


COLOUR = np.random.default_rng(5).integers(0, 256, (6, 4, 3), "uint8")
GREY = COLOUR[..., 0]


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
@pytest.mark.parametrize(
    ("stored", "channels", "expected"),
    [
        (GREY, 1, GREY[..., None]),
        (GREY, 3, np.repeat(GREY[..., None], 3, -1)),
        (COLOUR, 3, COLOUR),
        (COLOUR, 1, (COLOUR @ [0.299, 0.587, 0.114])[..., None]),
        (np.repeat(GREY[..., None], 3, -1), 1, GREY[..., None]),
    ],
    ids=["L", "L to RGB", "RGB", "RGB to L", "grey RGB to L"],
)
def test_lossless_files_keep_their_pixels(tmp_path, ending, stored, channels, expected):
    path = tmp_path / f"image.{ending}"
    Image.fromarray(stored).save(path)
    found = read_image(path, (6, 4, channels))
    assert (found.shape, found.dtype) == ((6, 4, channels), np.uint8)
    np.testing.assert_allclose(found, expected, atol=1 if channels < stored.ndim else 0)


def test_palette_images_keep_their_colours(tmp_path):
    image = Image.fromarray(COLOUR).quantize(256)
    image.save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_image(tmp_path / "image.png", (6, 4, 3)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("grey", [True, False])
def test_jpeg_is_read(tmp_path, grey):
    ramp = np.linspace(20, 220, 32 * 48).reshape(32, 48).astype("uint8")
    image = ramp if grey else np.dstack([ramp, ramp[::-1], ramp])
    Image.fromarray(image).save(tmp_path / "image.jpg", quality=95, subsampling=0)
    found = read_image(tmp_path / "image.jpg", (32, 48, 1 if grey else 3))
    assert np.abs(found.reshape(image.shape).astype(int) - image).max() <= 8


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(1, COLOUR), (2, COLOUR[:, ::-1]), (3, np.rot90(COLOUR, 2)), (6, np.rot90(COLOUR, -1)), (8, np.rot90(COLOUR))],
)
def test_exif_orientation_is_undone(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOUR).save(tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "image.png", upright.shape), upright)


def test_exif_orientation_of_jpeg_is_undone(tmp_path):
    image = np.zeros((16, 32), "uint8")
    image[:8] = 255  # the upper half; turned clockwise, the right half
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "image.jpg", quality=95, exif=exif)
    found = read_image(tmp_path / "image.jpg", (32, 16, 1))[..., 0]
    assert found[:, 9:].min() > 230
    assert found[:, :7].max() < 25


def test_deep_images_are_not_clipped_to_white(tmp_path):
    """16 bits per channel, as X-rays have them: scaled or refused, but not all white."""
    ramp = np.linspace(0, 65535, 24).reshape(6, 4).astype("uint16")
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    try:
        found = read_image(tmp_path / "deep.png", (6, 4, 1))
    except InputError as error:
        found, message = None, str(error)
    if found is None:
        assert str(tmp_path / "deep.png") in message
    else:
        np.testing.assert_allclose(found[..., 0], ramp / 257, atol=1)


def cut(content):
    return content[: len(content) // 2]


def damage_chunk(content):
    """Damage the name of the last of several chunks of pixels: Pillow finds it while it decodes."""
    before, name, after = content.rpartition(b"IDAT")
    assert before.count(name)
    return before + b"\xbe\xbe\xb8\xa6" + after


@pytest.mark.parametrize(
    ("ending", "damage"),
    [
        ("png", cut),
        ("jpg", cut),
        ("bmp", cut),
        ("png", damage_chunk),
        ("png", lambda content: b""),
        ("jpg", lambda content: b"<html>404 Not Found</html>"),
        ("png", None),
    ],
    ids=["cut png", "cut jpg", "cut bmp", "damaged chunk", "empty", "text", "missing"],
)
def test_unreadable_image_is_named_and_nothing_is_cached(tmp_path, cache, ending, damage):
    paths = [f"{name}.{ending}" for name in ("good", "bad", "last")]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 150, 3), "uint8"))
    for path in paths:
        image.save(tmp_path / path)
    bad = tmp_path / paths[1]
    if damage is None:
        bad.unlink()
    else:
        assert damage(bad.read_bytes()) != bad.read_bytes()
        bad.write_bytes(damage(bad.read_bytes()))
    table = pd.DataFrame({"image_id": paths, "path": paths})
    for _ in range(2):  # nor is a half-built cache taken for a whole one
        with pytest.raises(InputError) as caught:
            load_pixels(table, tmp_path, (40, 30, 3), cache)
        assert str(bad) in str(caught.value)
        assert "Fetch it again or remove it" in str(caught.value)
        assert list_cached(cache) == []
    good = table.iloc[[0, 2]].reset_index(drop=True)
    assert load_pixels(good, tmp_path, (40, 30, 3), cache).shape == (2, 40, 30, 3)


def test_damaged_png_files_end_in_pixels_or_in_an_input_error(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "image.png"
    Image.fromarray(COLOUR).save(path, exif=exif)
    content = path.read_bytes()
    messages = []
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert read_image(path, (6, 4, 3)).shape == (6, 4, 3)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > len(content) / 2
    assert all(str(path) in message for message in messages)


def test_interrupted_build_leaves_no_cache(table, folder, cache, arrays, monkeypatch):
    whole = module._decode

    def stop_half_way(images, *rest):
        whole(images.iloc[:30], *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_decode", stop_half_way)
    with pytest.raises(KeyboardInterrupt):
        load_pixels(table, folder, SHAPE, cache)
    assert list_cached(cache) == []
    monkeypatch.setattr(module, "_decode", whole)
    np.testing.assert_array_equal(load_pixels(table, folder, SHAPE, cache)[59, ..., 0], arrays["x_test"][19])


def test_no_more_than_a_chunk_stays_in_memory_while_decoding(files, cache, monkeypatch):
    images, folder, pixels = files
    released = []
    monkeypatch.setattr(module, "release_pages", released.append)
    monkeypatch.setattr(module, "CHUNK_FILES", 1)
    np.testing.assert_array_equal(load_pixels(images, folder, pixels.shape[1:], cache), pixels)
    assert len(released) == len(pixels)
    assert all(isinstance(array, np.memmap) for array in released)


# Damaged caches and full disks


def flip(content):
    return content[:500] + bytes([content[500] ^ 1]) + content[501:]


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda content: content[:256] + bytes(1000) + content[1256:],
        lambda content: content.replace(b"60, 28, 28, 1)", b"60, 14, 56, 1)"),
        lambda content: content[:-2000],
        lambda content: content + b"0",
        lambda content: b"",
    ],
    ids=["flipped bit", "zeros", "swapped header", "cut", "appended", "empty"],
)
def test_damaged_pixels_are_named_and_decoded_again(table, folder, cache, capsys, damage):
    first = np.array(load_pixels(table, folder, SHAPE, cache))
    (cached,) = list_cached(cache)
    content = cached.read_bytes()
    assert damage(content) != content
    cached.write_bytes(damage(content))
    np.testing.assert_array_equal(load_pixels(table, folder, SHAPE, cache), first)
    said = capsys.readouterr().out
    assert said.startswith(f"{cached} was damaged (its ")
    assert said.endswith("): it is made again\n")
    assert cached.read_bytes() == content


def test_pixels_are_checked_once_in_a_process_as_long_as_they_do_not_change(table, folder, cache, monkeypatch):
    checked, check = [], seals._check
    monkeypatch.setattr(seals, "_check", lambda file: checked.append(file.name) or check(file))
    monkeypatch.setattr(seals, "_checked", {})

    def count():
        load_pixels(table, folder, SHAPE, cache)
        return sum(str(name).endswith(".npy") for name in checked)

    assert [count() for _ in range(3)] == [0, 1, 1]
    (cached,) = list_cached(cache)
    times = cached.stat()
    os.utime(cached, ns=(times.st_atime_ns, times.st_mtime_ns))  # which changes the time of change only
    assert [count() for _ in range(2)] == [2, 2]


def test_what_pixels_are_is_kept_with_them(table, folder, cache):
    load_pixels(table, folder, SHAPE, cache, background=7)
    about, n_bytes = seals.read_seal(list_cached(cache)[0])
    expected = {"folder": str(folder), "images": 60, "shape": [28, 28, 1], "background": 7, "version": module.VERSION}
    assert (about, n_bytes) == (expected, 128 + 60 * 28 * 28)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells what is mapped")
def test_the_space_of_a_failed_build_is_free_though_the_error_is_kept(files, cache):
    table, folder, _ = files
    (folder / "b/one.png").write_bytes(b"damaged")
    with pytest.raises(InputError) as caught:
        load_pixels(table, folder, (12, 9, 3), cache)
    assert caught.tb is not None
    assert f"{cache}/pixels" not in Path("/proc/self/maps").read_text()


def test_a_full_disk_is_told_before_anything_is_decoded(table, folder, cache, monkeypatch):
    forbid_decoding(monkeypatch)
    monkeypatch.setattr("shutil.disk_usage", lambda path: (10**6, 960_000, 40_000))
    with pytest.raises(WriteError, match=r"pixels/\w+\.npy cannot be written .*needs 47,168 bytes, of which 40,000"):
        load_pixels(table, folder, SHAPE, cache)
    assert list_cached(cache) == []
