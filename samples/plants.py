"""Plants: drawn leaves of four crops, healthy and ill."""

import shutil
import uuid
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

_SIZE = 64
_LEAVES = 34  # of each class
_SHARE_VALID, _SHARE_COPIED = 0.2, 0.4


@dataclass(frozen=True)
class _Sign:
    """How a disease looks.

    Attributes
    ----------
    spots : tuple of 2 ints
        The least and the most.
    radius : tuple of 2 floats
        Of a spot, where 2 is the side of the image.
    rings : tuple of pairs
        From outside to inside: how far a ring reaches, in radii, and its colour.
    ragged : float
        How irregular the spots are.
    long : float
        How much longer than wide they are, along the leaf.
    at_edge : bool
        Whether they begin at the edge of the leaf.
    yellow : float
        How much of the leaf between the veins turns yellow.
    """

    spots: tuple[int, int] = (0, 0)
    radius: tuple[float, float] = (0.1, 0.1)
    rings: tuple[tuple[float, tuple[int, int, int]], ...] = ()
    ragged: float = 0.1
    long: float = 1.0
    at_edge: bool = False
    yellow: float = 0.0


_TARGET = ((1.7, (172, 164, 62)), (1.0, (112, 74, 42)), (0.72, (142, 104, 66)), (0.4, (70, 46, 30)))
# Of each class: crop, how its files are named, and its sign.
_CLASSES = {
    "Apple___Apple_scab": (
        "apple",
        "FREC_Scab {:04d}",
        _Sign((4, 9), (0.09, 0.17), ((1.25, (98, 100, 52)), (1.0, (62, 60, 38))), ragged=0.4),
    ),
    "Apple___Black_rot": (
        "apple",
        "JR_FrgE.S {:04d}",
        _Sign((2, 5), (0.09, 0.14), ((1.3, (92, 52, 68)), (0.85, (176, 142, 106)), (0.3, (120, 84, 60)))),
    ),
    "Apple___Cedar_apple_rust": (
        "apple",
        "FREC_C.Rust {:04d}",
        _Sign((4, 9), (0.07, 0.12), ((1.4, (196, 92, 48)), (0.9, (236, 170, 40)))),
    ),
    "Apple___healthy": ("apple", "RS_HL {:04d}", _Sign()),
    "Corn_(maize)___Common_rust_": (
        "corn",
        "RS_Rust {:04d}",
        _Sign((22, 45), (0.025, 0.045), ((1.5, (178, 160, 80)), (1.0, (138, 66, 32))), long=1.8),
    ),
    "Corn_(maize)___healthy": ("corn", "R.S_HL {:04d}", _Sign()),
    "Potato___Early_blight": (
        "potato",
        "RS_Early.B {:04d}",
        _Sign((5, 10), (0.07, 0.13), ((1.2, (128, 112, 56)), (1.0, (66, 48, 34)), (0.6, (100, 74, 52)))),
    ),
    "Potato___Late_blight": (
        "potato",
        "RS_LB {:04d}",
        _Sign(
            (1, 2),
            (0.32, 0.5),
            ((1.3, (152, 156, 96)), (1.0, (74, 64, 48)), (0.5, (54, 44, 38))),
            ragged=0.3,
            at_edge=True,
        ),
    ),
    "Potato___healthy": ("potato", "RS_HL {:04d}", _Sign()),
    "Tomato___Early_blight": ("tomato", "RS_Erly.B {:04d}", _Sign((3, 6), (0.1, 0.17), _TARGET, ragged=0.2)),
    "Tomato___Tomato_Yellow_Leaf_Curl_Virus": ("tomato", "UF.GRC_YLCV_Lab {:05d}", _Sign(yellow=0.85)),
    "Tomato___healthy": ("tomato", "GH_HL Leaf {:d}", _Sign()),
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
_PHOTOGRAPHS = [("",), (".1",), (".1", ".2"), (".1", ".2", ".3")]
# Of the flat folder: how many there are of each name.
_FLAT = {
    "AppleCedarRust": 4,
    "AppleScab": 3,
    "CornCommonRust": 3,
    "PotatoEarlyBlight": 5,
    "PotatoHealthy": 2,
    "TomatoEarlyBlight": 6,
    "TomatoHealthy": 4,
    "TomatoYellowCurlVirus": 6,
}


def draw(data_set, folder):
    """Draw leaves in the layout of the New Plant Diseases Dataset, with its traps.

    Twelve of its classes. Copies of the photographs, turned and mirrored, thrown into ``train`` and ``valid`` at
    random, as were the photographs; leaves photographed several times; a second copy of everything in a folder that
    differs in upper and lower case; a flat folder whose labels are in the names; several endings, blanks and dots in
    the names. The backgrounds differ a little from class to class.
    """
    rng = np.random.default_rng(38)
    root = folder / data_set.key_file / data_set.key_file
    for label in _CLASSES:
        for part in ("train", "valid"):
            (root / part / label).mkdir(parents=True)
        for name, image in _draw_class(label, rng):
            part = "valid" if rng.random() < _SHARE_VALID else "train"
            ending = rng.choice([".JPG", ".jpg", ".png"], p=[0.82, 0.13, 0.05])
            image.save(root / part / label / f"{name}{ending}", quality=90)
    flat = folder / "test" / "test"
    flat.mkdir(parents=True)
    for start, count in _FLAT.items():
        label = data_set.flat_parts["test"][start]
        for number in range(1, count + 1):
            _draw_leaf(label, rng.integers(2**32), rng).save(flat / f"{start}{number}.JPG", quality=90)
    again = folder / data_set.key_file.lower()
    if not again.exists():  # the same folder where the file system ignores case
        shutil.copytree(root.parent, again)


def _draw_class(label, rng):
    """Yield the photographs of a class and the copies derived from them, with their names."""
    _, pattern, _ = _CLASSES[label]
    number = rng.integers(100, 3000)
    for leaf in rng.integers(2**32, size=_LEAVES):
        number += rng.integers(1, 9)
        for name in _name_photographs(pattern.format(number), rng):
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
    crop, _, sign = _CLASSES[label]
    leaf = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : 2j * _SIZE, -1 : 1 : 2j * _SIZE]
    image = _draw_background(list(_CLASSES).index(label), x, y, rng)
    along, across = _place(x, y, leaf, rng)
    depth = _find_depth(crop, along, across, sign, leaf)
    shadow = np.roll(depth, (5, 4), (0, 1))
    image *= 1 - 0.45 * _soften(shadow, 0.05)[..., None]
    surface = _draw_surface(crop, along, across, depth, sign, leaf)
    surface = _draw_spots(surface, along, across, depth, sign, leaf)
    image += _soften(depth, 0.015)[..., None] * (surface - image)
    image = image * rng.normal(1, 0.08) + rng.normal(0, 4, image.shape)
    return Image.fromarray(np.clip(image, 0, 255).astype("uint8")).reduce(2)


def _draw_background(number, x, y, rng):
    """Draw a grey sheet in uneven light, whose tone depends a little on the class."""
    tone = np.array([152, 145, 156]) + 8 * np.random.default_rng(number).normal(size=3)
    tone = tone + rng.normal(0, 6, 3) + rng.normal(0, 12)
    slope = rng.normal(0, 8, 2)
    return tone + (slope[0] * x + slope[1] * y + 3 * _draw_waves(x, y, 12, rng))[..., None]


def _place(x, y, leaf, rng):
    """Find the coordinates along and across a leaf that lies somewhere near the middle, bent and turned."""
    bend, size = leaf.normal(0, 0.12), leaf.uniform(0.88, 1.12)
    turn, zoom = rng.uniform(0, 2 * np.pi), rng.uniform(0.92, 1.08) * size
    x, y = (x - rng.normal(0, 0.06)) / zoom, (y - rng.normal(0, 0.06)) / zoom
    along, across = x * np.sin(turn) + y * np.cos(turn), x * np.cos(turn) - y * np.sin(turn)
    return along, across + bend * (along**2 - 0.3)


def _find_depth(crop, along, across, sign, leaf):
    """Find how far each point is inside the leaf, about 0 at its edge and negative outside."""
    _, length, width, shrink, below, lobes, n_lobes = _CROPS[crop]
    width *= leaf.uniform(0.88, 1.12) * (1 - 0.3 * sign.yellow)
    end = 1 - (along / length) ** 2
    half = width * end.clip(0) ** shrink * (1 - below * along)
    half *= 1 - lobes * leaf.uniform(0.7, 1.2) * np.sin(n_lobes * along * np.pi / 2 + np.sign(across) * 0.4) ** 2
    half *= 1 + (0.02 + 0.1 * sign.yellow) * _draw_waves(along, across, 9, leaf)
    stalk = np.where((along < 0) & (along > -1.15 * length), 0.025, -1) - np.abs(across)
    return np.maximum(np.where(end > 0, half - np.abs(across), -1), stalk)


def _draw_surface(crop, along, across, depth, sign, leaf):
    """Draw the green of a leaf with its veins."""
    color = _CROPS[crop][0] + leaf.normal(0, 7, 3) + leaf.normal(0, 12)
    if crop == "corn":
        veins = 0.4 * np.cos(across * leaf.uniform(70, 90))
    else:
        veins = np.cos(2 * np.pi * (leaf.uniform(2.6, 3.6) * (along - 0.7 * np.abs(across)))) ** 12
    veins = np.maximum(veins, 1.3 * np.exp(-((across / 0.025) ** 2)))
    shade = 10 * _draw_waves(along, across, 6, leaf) - 18 * np.exp(-depth.clip(0) / 0.05)
    surface = color + (18 * veins + shade)[..., None]
    yellow = sign.yellow * leaf.uniform(0.6, 1.15) * (1 - 0.8 * veins.clip(0, 1)) * (1.1 - depth.clip(0, 0.5))
    return surface + yellow[..., None].clip(0, 1) * ([204, 190, 84] - surface)


def _draw_spots(surface, along, across, depth, sign, leaf):
    """Draw the spots of a disease onto a leaf, ring after ring."""
    candidates = np.flatnonzero((depth > 0.0) & (depth < 0.12) if sign.at_edge else depth > 0.04)
    places = leaf.choice(candidates, leaf.integers(*sign.spots, endpoint=True)) if sign.rings else []
    nearest = np.full(depth.shape, np.inf)
    for place in places:
        far = np.hypot((along - along.flat[place]) / sign.long, across - across.flat[place])
        nearest = np.minimum(nearest, far / leaf.uniform(*sign.radius))
    nearest = nearest * (1 + sign.ragged * _draw_waves(along, across, 14, leaf))
    for reach, color in sign.rings:
        color = np.array(color) + leaf.normal(0, 6, 3)
        surface = surface + _soften(reach - nearest, 0.1)[..., None] * (color - surface)
    return surface


def _draw_waves(x, y, frequency, rng):
    """Draw a smooth random field with mean 0 and standard deviation about 1."""
    waves, phases = frequency * rng.normal(0, 1, (5, 2)), rng.uniform(0, 2 * np.pi, 5)
    return sum(np.cos(a * x + b * y + phase) for (a, b), phase in zip(waves, phases, strict=True)) / 1.6


def _soften(depth, width):
    """Turn a distance into a mask, from 0 outside to 1 inside."""
    return 1 / (1 + np.exp(-np.clip(depth / width, -30, 30)))
