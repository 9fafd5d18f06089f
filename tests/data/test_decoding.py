"""Decoding in several threads, and large JPEGs at a fraction of their size: faster, with the same pixels."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from helpers.data import pixels as module
from helpers.data.pixels import load_pixels, read_image


def draw_scene(height=450, width=600, seed=0):
    """Draw something like a photograph: smooth shades, edges, hairs, and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    far = np.hypot(y - 0.45 * height, 0.8 * (x - 0.55 * width))
    inside = far < 0.25 * height * (1 + 0.2 * np.cos(5 * np.arctan2(y - height / 2, x - width / 2)))
    image = np.where(inside[..., None], [110, 70, 55], [225, 180, 160]) + 20 * np.sin(x / 30)[..., None]
    image[np.abs(y - 0.6 * x - 40) < 2] = 30
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype("uint8")


def resize_whole(path, shape):
    """Decode an image at its full size, then resize it."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image).convert("RGB" if shape[2] == 3 else "L")
        return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "most"),
    [
        ((120, 160, 3), 5),
        ((112, 150, 3), 5),
        ((224, 224, 3), 5),
        ((60, 80, 1), 5),
        ((30, 200, 3), 5),
        ((28, 28, 3), 20),  # hairs thinner than a tenth of a pixel come out differently
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpeg_is_within_a_few_grey_levels_of_the_whole_one(tmp_path, shape, most, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(draw_scene()).save(tmp_path / "large.jpg", quality=92, exif=exif)
    found, expected = read_image(tmp_path / "large.jpg", shape), resize_whole(tmp_path / "large.jpg", shape)
    difference = np.abs(found.astype(int) - expected)
    assert difference.mean() < 1.5
    assert np.quantile(difference, 0.99) <= most
    assert difference.max() <= 40


@pytest.mark.parametrize(
    ("size", "shape", "decoded"),
    [
        ((900, 1200), (112, 150, 3), (300, 225)),  # a quarter, twice what is wanted
        ((450, 600), (120, 160, 3), (300, 225)),  # half, 1.9 times what is wanted
        ((450, 600), (60, 80, 3), (300, 225)),  # not a quarter, 1.9 times what is wanted
        ((450, 600), (132, 176, 3), (600, 450)),  # not half, 1.7 times what is wanted
    ],
)
def test_large_jpeg_is_decoded_at_a_fraction_of_its_size(tmp_path, monkeypatch, size, shape, decoded):
    sizes = []
    resize = module._resize
    monkeypatch.setattr(module, "_resize", lambda image, shape: sizes.append(image.size) or resize(image, shape))
    Image.fromarray(draw_scene(*size)).save(tmp_path / "large.jpg")
    read_image(tmp_path / "large.jpg", shape)
    assert sizes == [decoded]


def test_pixels_are_averaged_before_they_are_resized_to_a_quarter(tmp_path):
    image = Image.fromarray(draw_scene(480, 640))
    image.save(tmp_path / "large.png")
    expected = image.reduce(2).resize((160, 120), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(read_image(tmp_path / "large.png", (120, 160, 3)), np.asarray(expected))


@pytest.mark.parametrize("size", [(120, 160), (150, 200), (200, 300)])
def test_small_jpeg_is_decoded_whole(tmp_path, size):
    Image.fromarray(draw_scene(*size)).save(tmp_path / "small.jpg")
    expected = resize_whole(tmp_path / "small.jpg", (120, 160, 3))
    np.testing.assert_array_equal(read_image(tmp_path / "small.jpg", (120, 160, 3)), expected)


def test_many_files_in_threads_keep_their_order(tmp_path):
    rng = np.random.default_rng(1)
    paths = []
    for number in range(60):  # of very different sizes, so that some threads are overtaken
        height, width = rng.integers(5, 60, 2) * (1 if number % 7 else 10)
        paths.append(f"{number:02d}.{'jpg' if number % 2 else 'png'}")
        Image.fromarray(rng.integers(0, 256, (height, width, 3), "uint8")).save(tmp_path / paths[-1])
    images = pd.DataFrame({"image_id": paths, "path": paths}).sample(frac=1, random_state=0).reset_index(drop=True)
    found = load_pixels(images, tmp_path, (12, 16, 3), tmp_path / "cache")
    expected = [read_image(tmp_path / path, (12, 16, 3)) for path in images["path"]]
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found.reshape(60, -1), axis=0)) == 60
