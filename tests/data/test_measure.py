"""Measuring image files: size, colour, or what is wrong; kept, but never used for files that have changed."""

import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.data import pixels, reading
from helpers.data.pixels import compute_fingerprint, load_pixels, measure_images
from helpers.files import InputError

COLUMNS = ["width", "height", "mode", "red", "green", "blue", "note", "error"]


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path):
    """Write images of several sizes, modes and colours, and return their index and folder."""
    folder = tmp_path / "files"
    folder.mkdir()
    Image.new("RGB", (8, 6), (200, 100, 50)).save(folder / "one.png")
    Image.new("RGB", (600, 450), (30, 60, 90)).save(folder / "two.jpg", quality=95)
    Image.new("L", (5, 7), 128).save(folder / "grey.png")
    half = np.zeros((4, 4, 3), "uint8")
    half[:, 2:] = (255, 0, 100)
    Image.fromarray(half).save(folder / "half.png")
    return make_index(["one.png", "two.jpg", "grey.png", "half.png"]), folder


def make_index(paths):
    return pd.DataFrame({"image_id": paths, "path": paths})


def forbid_measuring(monkeypatch):
    def fail(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(pixels, "_measure", fail)


def test_sizes_and_colours(files, cache):
    images, folder = files
    for _ in range(2):  # measured, then from the cache
        measured = measure_images(images, folder, cache)
        assert measured.columns.tolist() == COLUMNS
        assert measured["width"].tolist() == [8, 600, 5, 4]
        assert measured["height"].tolist() == [6, 450, 7, 4]
        assert measured["mode"].tolist() == ["RGB", "RGB", "L", "RGB"]
        assert (measured[["note", "error"]] == "").all(axis=None)
        colours = measured[["red", "green", "blue"]]
        np.testing.assert_allclose(colours.iloc[[0, 2, 3]], [[200, 100, 50], [128] * 3, [127.5, 0, 50]])
        np.testing.assert_allclose(colours.iloc[1], [30, 60, 90], atol=2)


def test_sizes_are_those_stored_however_the_image_is_turned(tmp_path, cache):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (800, 600)).save(tmp_path / "turned.jpg", exif=exif)
    measured = measure_images(make_index(["turned.jpg"]), tmp_path, cache)
    assert measured.loc[0, ["width", "height"]].tolist() == [800, 600]


def test_mean_colour_of_a_large_jpeg_is_that_of_all_its_pixels(tmp_path, cache):
    """It is decoded at a fraction of its size, which has to keep the mean."""
    y, x = np.mgrid[0:450, 0:600]
    scene = np.stack([120 + 80 * np.sin(x / 25), 255 * (x * y > 60_000), y / 2], axis=-1).astype("uint8")
    Image.fromarray(scene).save(tmp_path / "large.jpg", quality=95)
    measured = measure_images(make_index(["large.jpg"]), tmp_path, cache)
    np.testing.assert_allclose(measured.loc[0, ["red", "green", "blue"]].astype(float), scene.mean((0, 1)), atol=1.5)


def test_rows_are_those_of_the_index_in_its_order(files, cache):
    images, folder = files
    chosen = images.iloc[[3, 0, 1]]
    measured = measure_images(chosen, folder, cache)
    assert measured.index.equals(chosen.index)
    assert measured["width"].to_dict() == {3: 4, 0: 8, 1: 600}


def cut(content):
    return content[: len(content) * 2 // 3]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (cut, "truncated"),
        (lambda content: b"", "cannot identify"),
        (lambda content: b"<html>404 Not Found</html>", "cannot identify"),
        (lambda content: bytes(2000), "cannot identify"),
    ],
    ids=["truncated", "empty", "text", "zeros"],
)
def test_what_is_wrong_with_a_file_is_said_beside_it(files, cache, damage, complaint):
    images, folder = files
    two = folder / "two.jpg"
    two.write_bytes(damage(two.read_bytes()))
    for _ in range(2):
        measured = measure_images(images, folder, cache)
        assert measured.columns.tolist() == COLUMNS
        assert complaint in measured.loc[1, "error"]
        assert measured.loc[1, COLUMNS[:-2]].isna().all()
        rest = measured.drop(index=1)
        assert (rest["error"] == "").all()
        assert rest["width"].tolist() == [8, 5, 4]
        assert rest["mode"].tolist() == ["RGB", "L", "RGB"]


def test_first_file_damaged_and_all_files_damaged(files, cache):
    images, folder = files
    for path in images["path"]:
        (folder / path).write_bytes(b"damaged")
        measured = measure_images(images, folder, cache)
        assert measured.columns.tolist() == COLUMNS
        assert measured["error"].ne("").sum() == images["path"].tolist().index(path) + 1


def test_an_image_is_readable_exactly_when_it_is_measured_without_error(tmp_path, cache):
    """Else a run would stop at an image that the audit let through."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (90, 120, 3), "uint8")).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    paths = []
    for number, length in enumerate(np.linspace(1, len(content), 40, dtype=int)):
        paths.append(f"{number:02d}.jpg")
        (tmp_path / paths[-1]).write_bytes(content[:length])
    images = make_index(paths)
    measured = measure_images(images, tmp_path, cache)
    readable = []
    for path in paths:
        try:
            load_pixels(make_index([path]), tmp_path, (30, 40, 3), cache)
            readable.append(True)
        except InputError:
            readable.append(False)
    assert (measured["error"] == "").tolist() == readable
    assert readable[-1]
    assert not any(readable[:-3])


def test_the_second_call_does_not_measure(files, cache, monkeypatch):
    images, folder = files
    first = measure_images(images, folder, cache)
    forbid_measuring(monkeypatch)
    pd.testing.assert_frame_equal(measure_images(images, folder, cache), first)
    with pytest.raises(AssertionError, match="measured again"):
        measure_images(images.iloc[::-1], folder, cache)


def test_changed_file_is_measured_again(files, cache):
    images, folder = files
    measure_images(images, folder, cache)
    Image.new("RGB", (9, 6), (1, 2, 3)).save(folder / "one.png")
    measured = measure_images(images, folder, cache)
    assert measured.loc[0, ["width", "red", "green", "blue"]].tolist() == [9, 1, 2, 3]


def test_pixels_and_measures_do_not_answer_for_each_other(files, cache):
    images, folder = files
    load_pixels(images, folder, (6, 8, 3), cache)
    assert measure_images(images, folder, cache).columns.tolist() == COLUMNS
    assert load_pixels(images, folder, (6, 8, 3), cache).shape == (4, 6, 8, 3)


def test_files_are_hashed_once(files, monkeypatch):
    images, folder = files
    monkeypatch.setattr(reading, "_RECENT", 0)  # those that were written just now too
    hashed = []
    digest = reading.hashlib.file_digest
    monkeypatch.setattr(reading.hashlib, "file_digest", lambda file, name: hashed.append(1) or digest(file, name))
    first = compute_fingerprint(images, folder)
    assert len(hashed) == 4
    assert compute_fingerprint(images, folder) == first
    assert len(hashed) == 4
    (folder / "one.png").write_bytes((folder / "two.jpg").read_bytes())
    assert compute_fingerprint(images, folder) != first
    assert len(hashed) == 5


@pytest.mark.parametrize("same", ["size", "time"])
def test_changed_file_gives_a_new_fingerprint(files, same):
    images, folder = files
    path = folder / "one.png"
    before, content = path.stat(), path.read_bytes()
    first = compute_fingerprint(images, folder)
    path.write_bytes(content[:-1] + b"x" if same == "size" else content + b"x")
    later = before.st_mtime_ns + (10**9 if same == "size" else 0)
    os.utime(path, ns=(later, later))
    changed = compute_fingerprint(images, folder)
    assert changed != first
    path.write_bytes(content)
    os.utime(path, ns=(later + 10**9, later + 10**9))
    assert compute_fingerprint(images, folder) == first


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.replace(b"8,6,RGB", b"8,7,RGB"),
        lambda content: content[: content.index(b"5,7,L")],
        lambda content: content.replace(b'"images": 4', b'"images": 5'),
        lambda content: content[: content.index(b'{"version"')],
    ],
    ids=["another digit", "cut behind a line", "about", "of an older version"],
)
def test_damaged_measures_are_named_and_made_again(files, cache, capsys, damage):
    images, folder = files
    first = measure_images(images, folder, cache)
    (cached,) = (cache / "measured").iterdir()
    content = cached.read_bytes()
    assert damage(content) != content
    cached.write_bytes(damage(content))
    pd.testing.assert_frame_equal(measure_images(images, folder, cache), first)
    assert capsys.readouterr().out.startswith(f"{cached} was damaged (its ")
    assert cached.read_bytes() == content
