"""Melanoma: drawn skin lesions, benign and malignant, for both of the collections."""

import io
from functools import partial
from itertools import count

import numpy as np
from PIL import Image, ImageDraw
from scipy.special import expit

from samples.drawing import draw_waves, make_grid, make_image, mix, turn

_N_LESIONS, _N_TEST = 250, 60  # of each class: lesions in all, and images in test
_COPIED = 16  # one lesion in so many has a second image
_SIZES = {"melanoma": 96, "melanoma-isic": 80}
_SKINS = np.array([[238, 204, 186], [172, 124, 96]])  # the lightest and the darkest
_BROWN = np.array([134, 88, 62])
# What malignant lesions have beside brown: black, red, blue-grey.
_COLORS = np.array([[44, 30, 30], [160, 76, 72], [110, 114, 128]])
_draw_clouds = partial(draw_waves, count=6, spread=1.7)


def draw(data_set, folder):
    """Draw skin lesions in the layout of one of the two collections, with its traps.

    Names are mere numbers that tell of no patient. Some pictures are there twice, turned or mirrored and saved again
    under another number, in whichever part; three files are there twice within their class, and two in both classes.
    The classes differ in symmetry, border and colours, with overlap in each.
    """
    rng = np.random.default_rng([2020, _SIZES[data_set.name]])
    benign, malignant = (_draw_class(is_malignant, _SIZES[data_set.name], rng) for is_malignant in (False, True))
    benign += benign[1:3] + malignant[3:4]
    malignant += malignant[1:2] + benign[3:4]
    images = {
        label: [files[number] for number in rng.permutation(len(files))]
        for label, files in zip(data_set.class_names, (benign, malignant), strict=True)
    }
    root = folder if data_set.key_file in data_set.expected_counts else folder / data_set.key_file
    if data_set.name == "melanoma":
        start, numbers = "melanoma_", dict.fromkeys(images, count())  # both classes are numbered together
    else:
        start, numbers = "", {label: count(1) for label in images}
    for part, rows in (("train", slice(None, -_N_TEST)), ("test", slice(-_N_TEST, None))):
        for label, files in images.items():
            place = root / part / label
            place.mkdir(parents=True)
            for image in files[rows]:
                (place / f"{start}{next(numbers[label])}.jpg").write_bytes(image)


def _draw_class(is_malignant, size, rng):
    """Draw the lesions of one class, as the content of files: first the lesions, then second images of some."""
    lesions = [_draw_lesion(is_malignant, size, rng) for _ in range(_N_LESIONS)]
    copies = [_change(image, rng) for image in lesions[::-_COPIED]]
    return [_encode(image, 92) for image in lesions] + [_encode(image, rng.integers(70, 90)) for image in copies]


def _encode(image, quality):
    file = io.BytesIO()
    image.save(file, "jpeg", quality=int(quality))
    return file.getvalue()


def _change(image, rng):
    """Turn or mirror a picture and change its brightness a little, so that it looks the same and no byte is."""
    turned = np.rot90(np.asarray(image)[:, :: rng.choice([-1, 1])], rng.integers(4))
    return make_image(turned * rng.uniform(0.96, 1.04))


def _draw_lesion(is_malignant, size, rng):
    """Draw a lesion on skin with hairs, in light that may fade towards the corners."""
    malignancy = expit(1.5 * rng.normal(2.1 if is_malignant else -2.1, 1))  # how malignant it looks
    y, x = make_grid(size, size)
    light = rng.normal(1, 0.05) * (1 - rng.choice([0.05, 0.28], p=[0.75, 0.25]) * np.hypot(x, y) ** 4)
    darkness = rng.beta(1.5, 2.5)
    skin = (1 - darkness) * _SKINS[0] + darkness * _SKINS[1] + rng.normal(0, 4, 3)
    image = skin + 3 * _draw_clouds(x, y, 6, rng)[..., None]

    y, x = y - rng.normal(0, 0.09), x - rng.normal(0, 0.09)
    x, y = turn(x, y, rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(0, 0.12 + 0.1 * malignancy)))
    depth = _draw_border(x, y, malignancy, rng) - np.hypot(x, y)
    inside = expit(depth / rng.uniform(0.015, 0.045))
    image = _draw_hairs(mix(image, _draw_pigment(x, y, depth, malignancy, rng), inside), rng)
    grain = rng.normal(0, 7, (size // 4, size // 4)).astype("float32")  # without it all round moles are alike
    grain = np.asarray(Image.fromarray(grain).resize((size, size), Image.Resampling.BICUBIC))
    image = (image + grain[..., None]) * light[..., None]
    return make_image(image + rng.normal(0, 2, image.shape))


def _draw_border(x, y, malignancy, rng):
    """Draw how far the border of a lesion is from its centre in the direction of each point."""
    orders = np.arange(1, 9)[:, None, None]
    waves = rng.normal(0, (0.025 + 0.17 * malignancy * rng.uniform(0.55, 1.2)) / orders**0.8)
    shape = 1 + (waves * np.cos(orders * np.arctan2(y, x) + rng.uniform(0, 2 * np.pi, waves.shape))).sum(0)
    return shape.clip(0.4) * (rng.uniform(0.32, 0.54) + 0.08 * malignancy)


def _draw_pigment(x, y, depth, malignancy, rng):
    """Draw the brown of a lesion, darker in the middle, with patches of other colours."""
    color = _BROWN + rng.normal(0, 4, 3) + rng.normal(0, 20) - 16 * malignancy
    pigment = color + 3 * (_draw_clouds(x, y, 8, rng) + _draw_clouds(x, y, 24, rng))[..., None]
    pigment = pigment - (rng.uniform(0, 60) * depth.clip(0))[..., None]
    for patch in _COLORS:
        strength = malignancy * rng.uniform(0.2, 1.2) * (rng.random() < 0.8) + 0.25 * (rng.random() < 0.09)
        covered = strength * expit(3 * (_draw_clouds(x, y, 4, rng) - 0.9))
        pigment = mix(pigment, patch, covered.clip(0, 0.85))
    return pigment


def _draw_hairs(image, rng):
    """Draw a few thin curves over an image, or none."""
    size = len(image)
    mask = Image.new("L", (2 * size, 2 * size))
    for _ in range(rng.choice([0, 0, 0, 1, 2, 4, 8])):
        start, end = rng.uniform(-0.2, 1.2, (2, 2))
        middle = (start + end) / 2 + rng.normal(0, 0.12, 2)
        t = np.linspace(0, 1, 20)[:, None]
        curve = 2 * size * ((1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end)
        ImageDraw.Draw(mask).line([tuple(point) for point in curve], fill=255, width=2)
    covered = np.asarray(mask.reduce(2)) / 255 * rng.uniform(0.5, 0.9)
    return mix(image, rng.uniform(25, 80) * np.array([1, 0.8, 0.7]), covered)
