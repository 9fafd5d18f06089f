"""Leukemia: drawn white blood cells, cut out on black, of leukemic and of healthy subjects."""

from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from samples.drawing import draw_spot, make_grid, make_image, mix, save, turn

_SIZE, _FIELD = 72, 600
# Of each folder: its subjects and how many cells each has.
_TRAINING = {
    "fold_0": {"11": 49, "14": 43, "H1": 38},
    "fold_1": {"23": 46, "30": 44, "H3": 35},
    "fold_2": {"42": 47, "57": 48, "H7": 36, "H12": 34},
}
_VALIDATION = {"61": 31, "64": 27, "77": 26, "H20": 24, "H23": 22}
_TESTING = {"81": 21, "86": 19, "H31": 20}
# Subjects who are unlike their class: by how much the logarithm of their radii differs, and the state of their nuclei.
_SIZES = {"14": -0.18, "57": -0.1, "H7": 0.16}
_IMMATURITY = {"H20": 1.8, "H23": 0.4, "61": -0.4, "64": -1.6, "77": -1.3}
_LATER = {"11", "42", "57", "61", "77", "H20", "81", "H31"}  # stained on another day than the others
_DAY = np.array([1.2, -0.6, -0.9, 0.6])  # what the day does to a stain; on the other day it does the opposite
_NUCLEUS, _RIM, _PLASMA, _NUCLEOLUS = np.array([[86, 34, 98], [52, 42, 126], [128, 104, 164], [148, 98, 158]])


def draw(data_set, folder):
    """Draw white blood cells in the layout of C-NMC on Kaggle, with its traps.

    Training in three folds with other subjects in each, named after subject, microscope image and cell; numbered
    images of validation, of yet other subjects, in no order, with a table of their labels; numbered ones of testing
    without any. More leukemic cells than healthy ones. Each subject has its own stain, which is that of a day, and its
    own size of cells, and each microscope image its own light. Leukemic cells are larger, their chromatin is fine, and
    they show nucleoli; that of healthy ones is clumped; with overlap in each.

    What suits the training subjects misleads on others. In training, some subjects have cells of a size unlike their
    class, no healthy subject was stained on the later day, and chromatin is the best sign. In validation, size is the
    best sign, and chromatin misleads: subject H20 has cells that look immature, and 64 and 77 have mature ones.
    """
    rng = np.random.default_rng(2019)
    root = folder / data_set.key_file
    for fold, counts in _TRAINING.items():
        for name, image in _draw_subjects(counts, rng):
            save(image, root / "training_data" / fold / name.rpartition("_")[2] / f"{name}.bmp")
    for part, phase, counts in (("validation", "prelim", _VALIDATION), ("testing", "final", _TESTING)):
        cells = list(_draw_subjects(counts, rng))
        cells = [cells[number] for number in rng.permutation(len(cells))]
        place = root / f"{part}_data" / f"C-NMC_test_{phase}_phase_data"
        for number, (_, image) in enumerate(cells, start=1):
            save(image, place / f"{number}.bmp")
        if part == "validation":
            table = pd.DataFrame({"Patient_ID": [f"{name}.bmp" for name, _ in cells]})
            table["new_names"] = [f"{number}.bmp" for number in range(1, len(table) + 1)]
            table["labels"] = table["Patient_ID"].str.endswith("_all.bmp").astype(int)
            table.to_csv(f"{place}_labels.csv", index=False, lineterminator="\n")


def _draw_subjects(counts, rng):
    """Yield the names and images of the cells of some subjects, a few in each microscope image."""
    for subject, count in counts.items():
        label = "hem" if subject.startswith("H") else "all"
        stain = rng.normal(_DAY if subject in _LATER else -_DAY, 0.8)
        size = rng.normal(0.115 if label == "all" else -0.115, 0.015) + _SIZES.get(subject, 0)
        immaturity = rng.normal(1.5 if label == "all" else -1.5, 0.2) + _IMMATURITY.get(subject, 0)
        image, cell, light = 0, 0, 1.0
        for _ in range(count):
            if cell == 0:
                image, cell, light = image + rng.integers(1, 4), rng.integers(1, 7), rng.normal(1, 0.05)
            yield f"UID_{subject}_{image}_{cell}_{label}", _draw_cell(immaturity, stain, size, light, rng)
            cell -= 1


def _draw_cell(immaturity, stain, size, light, rng):
    """Draw a cell on black, near the immaturity and the size (the logarithm of the radius) of those of its subject."""
    immaturity = expit(1.6 * rng.normal(immaturity, 1))
    y, x = make_grid(_SIZE, _SIZE)
    y, x = y - rng.normal(0, 0.03), x - rng.normal(0, 0.03)
    radius = 0.53 * np.exp(rng.normal(size, 0.09))
    depth = _draw_outline(x, y, radius, 0.05, rng)  # from the border inwards
    shift, share = rng.normal(0, 0.03, 2), rng.uniform(0.84, 0.93) + 0.04 * immaturity
    nucleus = _draw_outline(x - shift[0], y - shift[1], share * radius, 0.035, rng)
    nucleus -= 0.12 * (rng.random() < 0.2) * draw_spot(x, y, radius * _draw_direction(rng), 0.16)  # a notch
    shade = _draw_chromatin(immaturity, rng) - 0.14 * (1 - (depth / radius).clip(0, 1)) ** 2
    image = _NUCLEUS * (1 + shade[..., None])
    for _ in range(rng.binomial(3, 0.1 + 0.6 * immaturity)):
        strength, center = rng.uniform(0.3, 0.75), radius * 0.55 * np.sqrt(rng.random()) * _draw_direction(rng)
        image = mix(image, _NUCLEOLUS, strength * draw_spot(x, y, center, rng.uniform(0.05, 0.08)))
    plasma = _PLASMA + 10 * _draw_noise(1.5, rng)[..., None]
    image = mix(plasma, image, expit(nucleus / 0.022))
    image = mix(image, _RIM, 0.7 * np.exp(-((depth / 0.035) ** 2)))
    inside = depth + 0.008 * _draw_noise(1, rng) > 0
    if rng.random() < 0.12:  # a piece of its surroundings that was not cut off
        piece = draw_spot(x, y, radius * 1.12 * _draw_direction(rng), 0.13) + 0.15 * _draw_noise(1.5, rng) > 0.6
        image = np.where((inside | ~piece)[..., None], image, _PLASMA - 15.0)
        inside = inside | piece
    return _stain(image + rng.normal(0, 2.5, image.shape), stain, light, inside)


def _stain(image, stain, light, inside):
    """Give an image the colours of a subject's stain and the light of a microscope image, and cut the cell out."""
    tint = 1 + np.array([0.1, 0.08, 0.09]) * stain[:3]
    image = np.clip(image * tint, 0, 255) / 255
    image = 255 * image ** np.exp(0.1 * stain[3]) * light
    return make_image(np.clip(image, 1, 255) * inside[..., None])


def _draw_outline(x, y, radius, roughness, rng):
    """Draw how deep each point lies within a round shape, below 0 outside."""
    x, y = turn(x, y, rng.uniform(0, np.pi), np.exp(rng.normal(0, 0.05)))
    angles, orders = np.linspace(-np.pi, np.pi, 181), np.arange(2, 8)[:, None]
    waves, phases = rng.normal(0, roughness / orders), rng.uniform(0, 2 * np.pi, orders.shape)
    border = radius * (1 + (waves * np.cos(orders * angles + phases)).sum(0))
    return np.interp(np.arctan2(y, x), angles, border) - np.hypot(x, y)


def _draw_chromatin(immaturity, rng):
    """Draw how much lighter the nucleus is than its mean at each point: finely grained, or in dark clumps."""
    fine = 0.07 * _draw_noise(0.7, rng) + 0.05 * _draw_noise(2.5, rng)
    coarse = 0.13 * np.tanh(1.8 * _draw_noise(1.9, rng) + 0.3) + 0.07 * _draw_noise(5, rng)
    looseness = np.clip(immaturity + rng.normal(0, 0.1), 0, 1)
    return (1.08 + 0.08 * looseness) * (1 + looseness * fine + (1 - looseness) * coarse) - 1


def _draw_noise(scale, rng):
    """Draw a smooth random field with mean 0 and standard deviation about 1."""
    top, left = rng.integers(0, _FIELD - _SIZE, 2)
    return _draw_field(scale)[top : top + _SIZE, left : left + _SIZE]


@lru_cache
def _draw_field(scale):
    """Draw a large random field to cut others from: smoothing one for each cell would take most of the time."""
    field = gaussian_filter(np.random.default_rng(round(10 * scale)).normal(0, 1, (_FIELD, _FIELD)), scale, mode="wrap")
    return field / field.std()


def _draw_direction(rng):
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])
