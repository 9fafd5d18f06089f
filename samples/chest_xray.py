"""Chest X-rays: drawn rib cages, with opacities for pneumonia."""

import shutil

import numpy as np
from scipy.special import expit

from samples.drawing import draw_ellipse, draw_spot, make_grid, make_image, save

# Of each part: the patients of each series, and the number that the first of them has.
_SERIES = {
    "train": {"IM": (60, 115), "NORMAL2-IM": (80, 383), "bacteria": (130, 1), "virus": (80, 131)},
    "val": {"NORMAL2-IM": (8, 1427), "bacteria": (8, 1946)},
    "test": {"IM": (25, 1), "NORMAL2-IM": (45, 7), "bacteria": (40, 78), "virus": (25, 1)},
}
_IMAGES_PER_PATIENT = {"NORMAL": ([1], [1.0]), "PNEUMONIA": ([1, 2, 3, 4], [0.45, 0.3, 0.15, 0.1])}
_SIZES = {"NORMAL": (270, 1.24), "PNEUMONIA": (240, 1.36)}  # mean width in pixels, and width to height
_MODES = (["L", "RGB", "CMYK"], [0.9, 0.08, 0.02])


def draw(data_set, folder):
    """Draw chest X-rays in the layout of Kermany's data set on Kaggle, with its traps.

    Several images of a patient; 16 images in ``val``; a second copy of everything below ``chest_xray/chest_xray``, and
    the files that macOS leaves; grey images stored as L, RGB and CMYK; sizes that differ by class; two identical files
    under different names; numbers that start again in ``test``, which has another mix of the classes and was exposed
    in another way.
    """
    rng = np.random.default_rng(2018)
    root = folder / data_set.key_file
    for part, patients in _SERIES.items():
        for series, (n_patients, first) in patients.items():
            label = "NORMAL" if series.endswith("IM") else "PNEUMONIA"
            counts, shares = _IMAGES_PER_PATIENT[label]
            number = first  # of the image
            for patient in range(first, first + n_patients):
                body = rng.integers(2**32)
                for _ in range(1 if part == "val" else rng.choice(counts, p=shares)):
                    name = f"{series}-{patient:04d}-0001" if label == "NORMAL" else f"person{patient}_{series}_{number}"
                    image = _draw_chest(series, _draw_size(label, rng), body, rng, other_exposure=part == "test")
                    image = image.convert(rng.choice(_MODES[0], p=_MODES[1]))
                    save(image, root / part / label / f"{name}.jpeg", quality=90)
                    number += 1
    normal = root / "train" / "NORMAL"
    shutil.copy(normal / "IM-0120-0001.jpeg", normal / "IM-0131-0001.jpeg")
    for part in _SERIES:
        shutil.copytree(root / part, root / data_set.key_file / part)
        (root / "__MACOSX" / part).mkdir(parents=True)
        (root / "__MACOSX" / part / "._IM-0001-0001.jpeg").write_bytes(b"\0\5\26\7")


def _draw_size(label, rng):
    width, aspect = _SIZES[label]
    width = np.clip(rng.normal(width, 44), 130, 370)
    return round(width / (aspect * rng.normal(1, 0.07))), round(width)


def _draw_chest(series, size, body, rng, other_exposure):
    """Draw one image of a patient: what ``body`` decides is the same in all images, what ``rng`` decides is not."""
    patient = np.random.default_rng(body)
    y, x = make_grid(*size)
    turn, zoom = rng.normal(0, 0.03), rng.normal(1, 0.04)
    x, y = (x * np.cos(turn) - y * np.sin(turn)) * zoom + rng.normal(0, 0.03), (x * np.sin(turn) + y) * zoom
    wide, high = patient.normal(0.29, 0.02), patient.normal(0.62, 0.03)
    lungs = sum(draw_ellipse(x - side * 0.40, y + 0.08, wide, high, 0.12) for side in (-1, 1))
    image = 25 + 130 * draw_ellipse(x, y - 0.1, 0.88, 1.25, 0.1)
    image = image - patient.uniform(78, 92) * lungs
    phase = patient.uniform(0, 2 * np.pi)
    ribs = np.cos(2 * np.pi * (3.4 * (y - 0.35 * np.abs(x) ** 1.6)) + phase)
    image += 22 * (ribs * ribs * ribs) ** 2 * (0.35 + 0.65 * lungs)
    image += 55 * np.exp(-((x / 0.09) ** 2))  # spine
    image += 75 * draw_ellipse(x - 0.16, y - 0.28, patient.normal(0.3, 0.02), 0.34, 0.15)  # heart
    image += 60 * expit((y - 0.62 - 0.06 * x) / 0.05)  # diaphragm
    image += (_draw_opacity(series, patient, rng, x, y) + _draw_vessels(patient, x, y)) * lungs
    if patient.random() < 0.15:  # an electrode on the skin, in either class
        center = patient.uniform(-0.75, 0.75), patient.uniform(-0.6, 0.6)
        image += patient.uniform(30, 70) * draw_ellipse(x - center[0], y - center[1], 0.06, 0.06, 0.2)
    image = image - image.min()
    exposure, gamma, black = rng.normal(1, 0.08), np.exp(rng.normal(0, 0.12)), max(0, rng.normal(4, 3))
    if other_exposure:
        gamma, black = gamma * 0.8, black + 14
    image = black + (250 - black) * np.clip(image * exposure / 260, 0, 1) ** gamma
    return make_image(image + rng.normal(0, 3, size))


def _draw_opacity(series, patient, rng, x, y):
    """Draw what pneumonia does to the lungs: bacteria whiten one lobe, viruses cloud both lungs."""
    if series.endswith("IM"):
        return 0.0
    if series == "bacteria":
        side, height, spread = patient.choice([-1, 1]), patient.uniform(-0.25, 0.35), patient.uniform(0.16, 0.3)
        depth = patient.uniform(60, 150) * rng.uniform(0.8, 1.2)
        return depth * draw_spot(x, y, (side * 0.42, height), spread)
    centers = patient.uniform(-1, 1, (14, 2)) * [0.55, 0.45]
    depth = patient.uniform(25, 60) * rng.uniform(0.8, 1.2)
    return depth * (0.6 + sum(draw_spot(x, y, center, np.sqrt(0.02)) for center in centers))


def _draw_vessels(patient, x, y):
    """Draw the vessels beside the heart, which are denser in some patients, healthy or not."""
    centers = patient.normal(0, 1, (10, 2)) * [0.14, 0.2]
    return patient.uniform(2, 12) * sum(draw_spot(np.abs(x) - 0.28, y - 0.08, center, 0.08) for center in centers)
