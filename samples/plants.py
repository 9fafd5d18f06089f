"""Plants: drawn leaves of four crops, healthy and ill."""

import re
import shutil
import uuid
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps
from scipy.special import expit

from samples.drawing import draw_waves, make_grid, make_image, mix, save, turn

_SIZE = 64
_LEAVES = 34  # of each class
_SHARE_VALID, _SHARE_COPIED = 0.25, 0.4


@dataclass(frozen=True)
class _Class:
    """How the files of a class are named, and how its disease looks."""

    pattern: str
    spots: tuple = (0, 0)  # the least and the most
    radius: tuple = (0.1, 0.1)  # of a spot, where 2 is the side of the image
    rings: tuple = ()  # from outside to inside: how far a ring reaches, in radii, and its colour
    ragged: float = 0.1  # how irregular the spots are
    long: float = 1.0  # how much longer than wide they are, along the leaf
    at_edge: bool = False  # whether they begin at the edge of the leaf
    yellow: float = 0.0  # how much of the leaf between the veins turns yellow


_SCAB = ((1.25, 98, 100, 52), (1.0, 62, 60, 38))
_BLACK_ROT = ((1.3, 92, 52, 68), (0.85, 176, 142, 106), (0.3, 120, 84, 60))
_APPLE_RUST = ((1.4, 196, 92, 48), (0.9, 236, 170, 40))
_CORN_RUST = ((1.5, 178, 160, 80), (1.0, 138, 66, 32))
_POTATO_EARLY = ((1.2, 128, 112, 56), (1.0, 66, 48, 34), (0.6, 100, 74, 52))
_LATE_BLIGHT = ((1.3, 152, 156, 96), (1.0, 74, 64, 48), (0.5, 54, 44, 38))
_TOMATO_EARLY = ((1.7, 172, 164, 62), (1.0, 112, 74, 42), (0.72, 142, 104, 66), (0.4, 70, 46, 30))
_CLASSES = {
    "Apple___Apple_scab": _Class("FREC_Scab {:04d}", (4, 9), (0.09, 0.17), _SCAB, ragged=0.4),
    "Apple___Black_rot": _Class("JR_FrgE.S {:04d}", (2, 5), (0.09, 0.14), _BLACK_ROT),
    "Apple___Cedar_apple_rust": _Class("FREC_C.Rust {:04d}", (4, 9), (0.07, 0.12), _APPLE_RUST),
    "Apple___healthy": _Class("RS_HL {:04d}"),
    "Corn_(maize)___Common_rust_": _Class("RS_Rust {:04d}", (22, 45), (0.025, 0.045), _CORN_RUST, long=1.8),
    "Corn_(maize)___healthy": _Class("R.S_HL {:04d}"),
    "Potato___Early_blight": _Class("RS_Early.B {:04d}", (5, 10), (0.07, 0.13), _POTATO_EARLY),
    "Potato___Late_blight": _Class("RS_LB {:04d}", (1, 2), (0.32, 0.5), _LATE_BLIGHT, ragged=0.3, at_edge=True),
    "Potato___healthy": _Class("RS_HL {:04d}"),
    "Tomato___Early_blight": _Class("RS_Erly.B {:04d}", (3, 6), (0.1, 0.17), _TOMATO_EARLY, ragged=0.2),
    "Tomato___Tomato_Yellow_Leaf_Curl_Virus": _Class("UF.GRC_YLCV_Lab {:05d}", yellow=0.85),
    "Tomato___healthy": _Class("GH_HL Leaf {:d}"),
}
# Of each crop: the colour of its leaves, their length and width where 1 is half the side of the image, how early the
# width shrinks towards the ends, how much wider they are below the middle; depth and number of the lobes.
_CROPS = {
    "apple": ((86, 116, 62), 0.82, 0.52, 0.5, 0.25, 0.03, 22),
    "corn": ((112, 146, 66), 0.98, 0.25, 0.25, 0.05, 0.0, 1),
    "potato": ((84, 122, 56), 0.8, 0.62, 0.6, 0.15, 0.0, 1),
    "tomato": ((74, 120, 66), 0.86, 0.6, 0.6, 0.3, 0.3, 6),
}
_CHANGES = {
    "90deg": lambda image: image.rotate(90),
    "180deg": lambda image: image.rotate(180),
    "270deg": lambda image: image.rotate(270),
    "flipLR": ImageOps.mirror,
    "flipTB": ImageOps.flip,
    "new30degFlipLR": lambda image: _turn_by_30(ImageOps.mirror(image)),
}
# How the names of the photographs of one leaf end, where they have its number.
_PHOTOGRAPHS = [[""], [".1"], [".1", ".2"], [".1", ".2", ".3"]]
_FLAT = (4, 3, 3, 5, 2, 6, 4, 6)  # images of each name in the flat folder


def draw(data_set, folder):
    """Draw leaves in the layout of the New Plant Diseases Dataset, with its traps.

    Twelve of its classes. Copies of the photographs, turned and mirrored, thrown into ``train`` and ``valid`` at
    random, as were the photographs; leaves photographed several times; a second copy of everything in a folder that
    differs in upper and lower case; a flat folder whose labels are in the names; several endings, blanks and dots in
    the names. The tone of the background and the side that the light comes from differ a little from class to class.
    """
    rng = np.random.default_rng(38)
    root = folder / data_set.key_file / data_set.key_file
    for label in _CLASSES:
        for name, image in _draw_class(label, rng):
            part = "valid" if rng.random() < _SHARE_VALID else "train"
            ending = rng.choice([".JPG", ".jpg", ".png"], p=[0.82, 0.13, 0.05])
            save(image, root / part / label / f"{name}{ending}", quality=90)
    for (start, label), count in zip(data_set.flat_parts["test"].items(), _FLAT, strict=True):
        for number in range(1, count + 1):
            image = _draw_leaf(label, rng.integers(2**32), rng)
            save(image, folder / "test" / "test" / f"{start}{number}.JPG", quality=90)
    again = folder / data_set.key_file.lower()
    if not again.exists():  # the same folder where the file system ignores case
        shutil.copytree(root.parent, again)


def _draw_class(label, rng):
    """Yield the photographs of a class and the copies derived from them, with their names."""
    number = rng.integers(100, 3000)
    for leaf in rng.integers(2**32, size=_LEAVES):
        number += rng.integers(1, 9)
        for name in _name_photographs(_CLASSES[label].pattern.format(number), rng):
            image = _draw_leaf(label, leaf, rng)
            yield name, image
            n_copies = rng.choice([1, 2, 3], p=[0.75, 0.18, 0.07]) if rng.random() < _SHARE_COPIED else 0
            for change in rng.choice(list(_CHANGES), n_copies, replace=False):
                yield f"{name}_{change}", _CHANGES[change](image)


def _name_photographs(name, rng):
    """Name the photographs of a leaf: mostly one, with a random prefix that the first collection of rusts lacks."""
    if name.startswith("RS_Rust"):
        return [name]
    if "Leaf" in name:
        names = [name + ending for ending in _PHOTOGRAPHS[rng.choice(len(_PHOTOGRAPHS), p=[0.35, 0.35, 0.2, 0.1])]]
    else:
        names = [name + (rng.choice(["", " copy", " copy 2", " copy "]) if name.startswith("R.S_HL") else "")]
    return [f"{uuid.UUID(bytes=rng.bytes(16), version=4)}___{name}" for name in names]


def _turn_by_30(image):
    """Turn an image by 30 degrees; its corners are filled with what is at its edges."""
    pixels = np.pad(np.asarray(image), [(_SIZE // 2, _SIZE // 2)] * 2 + [(0, 0)], "edge")
    turned = Image.fromarray(pixels).rotate(30, Image.Resampling.BILINEAR)
    return turned.crop((_SIZE // 2, _SIZE // 2, _SIZE * 3 // 2, _SIZE * 3 // 2))


def _draw_leaf(label, seed, rng):
    """Draw a photograph of a leaf: what ``seed`` decides is the same in all of its photographs."""
    crop, sign = re.match("[a-z]+", label.lower())[0], _CLASSES[label]
    leaf = np.random.default_rng(seed)
    y, x = make_grid(2 * _SIZE, 2 * _SIZE)
    image = _draw_background(list(_CLASSES).index(label), x, y, rng)
    along, across = _place(x, y, leaf, rng)
    depth = _find_depth(crop, along, across, sign, leaf)
    shadow = np.roll(depth, (5, 4), (0, 1))
    image *= 1 - 0.45 * expit(shadow / 0.05)[..., None]
    surface = _draw_surface(crop, along, across, depth, sign, leaf)
    surface = _draw_spots(surface, along, across, depth, sign, leaf)
    image = mix(image, surface, expit(depth / 0.015))
    return make_image(image * rng.normal(1, 0.08) + rng.normal(0, 4, image.shape)).reduce(2)


def _draw_background(number, x, y, rng):
    """Draw a grey sheet in uneven light: its tone, and where the light comes from, depend a little on the class."""
    session = np.random.default_rng(number)  # each class was photographed in one of its own
    tone = np.array([152, 145, 156]) + 8 * session.normal(size=3) + rng.normal(0, 6, 3) + rng.normal(0, 12)
    slope = 8 * session.normal(size=2) + rng.normal(0, 8, 2)
    return tone + (slope[0] * x + slope[1] * y + 3 * draw_waves(x, y, 12, rng))[..., None]


def _place(x, y, leaf, rng):
    """Find the coordinates along and across a leaf that lies somewhere near the middle, bent and turned."""
    bend, size = leaf.normal(0, 0.12), leaf.uniform(0.88, 1.12)
    angle, zoom = rng.uniform(0, 2 * np.pi), rng.uniform(0.92, 1.08) * size
    x, y = (x - rng.normal(0, 0.06)) / zoom, (y - rng.normal(0, 0.06)) / zoom
    across, along = turn(x, y, angle)
    return along, across + bend * (along**2 - 0.3)


def _find_depth(crop, along, across, sign, leaf):
    """Find how far each point is inside the leaf, about 0 at its edge and negative outside."""
    _, length, width, shrink, below, lobes, n_lobes = _CROPS[crop]
    width *= leaf.uniform(0.88, 1.12) * (1 - 0.3 * sign.yellow)
    end = 1 - (along / length) ** 2
    half = width * end.clip(0) ** shrink * (1 - below * along)
    half *= 1 - lobes * leaf.uniform(0.7, 1.2) * np.sin(n_lobes * along * np.pi / 2 + np.sign(across) * 0.4) ** 2
    half *= 1 + (0.02 + 0.1 * sign.yellow) * draw_waves(along, across, 9, leaf, bent=True)
    stalk = np.where((along < 0) & (along > -1.15 * length), 0.025, -1) - np.abs(across)
    return np.maximum(np.where(end > 0, half - np.abs(across), -1), stalk)


def _draw_surface(crop, along, across, depth, sign, leaf):
    """Draw the green of a leaf with its veins."""
    color = _CROPS[crop][0] + leaf.normal(0, 9, 3) + leaf.normal(0, 18)
    if crop == "corn":
        veins = 0.4 * np.cos(across * leaf.uniform(70, 90))
    else:
        veins = np.cos(2 * np.pi * (leaf.uniform(2.6, 3.6) * (along - 0.7 * np.abs(across)))) ** 12
    veins = np.maximum(veins, 1.3 * np.exp(-((across / 0.025) ** 2)))
    shade = 10 * draw_waves(along, across, 6, leaf, bent=True) - 18 * np.exp(-depth.clip(0) / 0.05)
    surface = color + (18 * veins + shade)[..., None]
    yellow = sign.yellow * leaf.uniform(0.6, 1.15) * (1 - 0.8 * veins.clip(0, 1)) * (1.1 - depth.clip(0, 0.5))
    return mix(surface, [204, 190, 84], yellow.clip(0, 1))


def _draw_spots(surface, along, across, depth, sign, leaf):
    """Draw the spots of a disease onto a leaf, ring after ring."""
    candidates = np.flatnonzero((depth > 0.0) & (depth < 0.12) if sign.at_edge else depth > 0.04)
    places = leaf.choice(candidates, leaf.integers(*sign.spots, endpoint=True)) if sign.rings else []
    nearest = np.full(depth.shape, np.inf)
    for place in places:
        far = np.hypot((along - along.flat[place]) / sign.long, across - across.flat[place])
        nearest = np.minimum(nearest, far / leaf.uniform(*sign.radius))
    nearest = nearest * (1 + sign.ragged * draw_waves(along, across, 14, leaf, bent=True))
    for reach, *color in sign.rings:
        surface = mix(surface, np.array(color) + leaf.normal(0, 6, 3), expit((reach - nearest) / 0.1))
    return surface
