"""Preprocessing: exact statistics of the chosen images only, and labels in the classes' order."""

import numpy as np
import pandas as pd
import pytest

from helpers.data.preprocess import compute_statistics, encode_labels, frame_digits, one_hot
from helpers.files import InputError


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (2500, 5, 4, 3))  # more than two chunks
    return np.clip(levels * [1, 0.5, 0.1] + [0, 20, 200], 0, 255).astype("uint8")


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_numpy(pixels, channels):
    used = pixels[..., :channels]
    mean, std = compute_statistics(used)
    assert mean.dtype == std.dtype == np.float64
    assert mean.shape == std.shape == (channels,)
    np.testing.assert_allclose(mean, used.astype("float64").mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, used.astype("float64").std((0, 1, 2)), rtol=1e-12)


def test_only_the_given_rows_are_used(pixels):
    rows = np.random.default_rng(1).permutation(2500)[:1500]
    changed = pixels.copy()
    changed[np.setdiff1d(np.arange(2500), rows)] = 255
    expected = pixels[rows].astype("float64")
    for given in (rows, rows.tolist(), pd.Index(rows)):
        mean, std = compute_statistics(changed, given)
        np.testing.assert_allclose(mean, expected.mean((0, 1, 2)), rtol=1e-12)
        np.testing.assert_allclose(std, expected.std((0, 1, 2)), rtol=1e-12)


def test_memory_mapped_pixels(pixels, tmp_path):
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    for found, expected in zip(compute_statistics(mapped), compute_statistics(pixels), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("change", "rows", "complaint"),
    [
        (lambda pixels: pixels / 255, None, "dtype float64"),
        (lambda pixels: pixels[:0], None, "got 0"),
        (lambda pixels: pixels, [], "got 0"),
        (lambda pixels: pixels * np.array([1, 0, 1], "uint8"), None, "channel is the same in all images"),
    ],
    ids=["float", "no images", "no rows", "constant channel"],
)
def test_wrong_pixels(pixels, change, rows, complaint):
    with pytest.raises(ValueError, match=complaint):
        compute_statistics(change(pixels), rows)


@pytest.mark.parametrize("labels", [["b", "c", "b", "a"], pd.Series(["b", "c", "b", "a"], index=[7, 7, 1, 0])])
def test_labels_are_encoded_in_the_order_of_the_class_names(labels):
    assert encode_labels(labels, ("c", "a", "b")).tolist() == [2, 0, 2, 1]
    hot = one_hot(labels, ("c", "a", "b"))
    assert hot.dtype == np.float32
    assert hot.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_no_labels_make_no_rows():
    assert one_hot([], ["a", "b"]).shape == (0, 2)


@pytest.mark.parametrize("function", [encode_labels, one_hot])
@pytest.mark.parametrize(
    ("labels", "named"), [(["a", "z", "y", "z"], "y, z"), ([1, "a"], "1"), (["a", float("nan"), "z"], "nan, z")]
)
def test_unknown_labels_are_named_beside_what_is_known(function, labels, named):
    with pytest.raises(InputError) as caught:
        function(labels, ["a", "b"])
    assert f"{named}: expected a, b" in str(caught.value)


def test_no_more_than_a_chunk_stays_in_memory_while_counting(monkeypatch):
    released = []
    monkeypatch.setattr("helpers.data.preprocess.release_pages", released.append)
    monkeypatch.setattr("helpers.data.preprocess._CHUNK", 1000)
    pixels = np.random.default_rng(0).integers(0, 256, (2100, 2, 2, 1)).astype("uint8")
    compute_statistics(pixels)
    assert len(released) == 3


def test_digits_are_brought_to_the_form_of_mnist():
    images = np.zeros((3, 60, 40, 1), "uint8")
    images[0, 5:55, 30:35] = 200  # a stroke, far to the right
    images[1, 40:45, 2:12] = 90  # small, in a corner
    images[1, 0, 39] = 10  # not ink
    framed = frame_digits(images)
    assert (framed.shape, framed.dtype) == ((3, 28, 28, 1), np.uint8)
    for frame, (height, width) in zip(framed[:2, ..., 0], ((20, 2), (10, 20)), strict=True):
        rows, columns = (np.flatnonzero(frame.any(axis=axis)) for axis in (1, 0))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (height, width)
        assert frame.max() == 255
        share = frame / frame.sum()
        assert abs(share.sum(axis=1) @ np.arange(28) - 13.5) <= 0.5
        assert abs(share.sum(axis=0) @ np.arange(28) - 13.5) <= 0.5
    assert not framed[2].any()
