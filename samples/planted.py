"""A drawn folder of leaves in which 40 faults are planted, to measure what `helpers.audit` finds."""

import shutil

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter, ImageOps

from helpers.data.listing import IMAGE_ENDINGS
from samples import plants
from samples.drawing import save

_CLASSES = ("Corn_(maize)___healthy", "Potato___Late_blight", "Tomato___healthy")
_SHARE_TEST = 0.3
_COUNTS = {
    "exact copy": 5,
    "turned copy": 5,
    "cropped copy": 5,
    "slightly turned copy": 4,
    "shared patient": 4,
    "contradictory labels": 4,
    "blurred": 3,
    "dark": 3,
    "blank": 2,
    "wrong class folder": 4,
}
_TURNS = tuple(Image.Transpose)  # all orientations but the upright one
_WITH_FRAME = 0.85  # share of a class


def draw_clean(folder, seed=0, count=400):
    """Draw so many images without a fault as ``<set>/<class>/patient<number>_<n>.jpg``, 64 by 64 pixels.

    The sets are train and test; there are three classes. A leaf stands for a patient; every fourth one was photographed
    twice, both times in one set.
    """
    rng, patient, drawn = np.random.default_rng(seed), 0, 0
    while drawn < count:
        label, patient_seed = _CLASSES[patient % len(_CLASSES)], rng.integers(2**32)
        part = "test" if rng.random() < _SHARE_TEST else "train"
        for number in range(1, min(2 if patient % 4 == 0 else 1, count - drawn) + 1):
            image = plants._draw_leaf(label, patient_seed, rng)
            save(image, folder / part / label / f"patient{patient:04}_{number}.jpg", quality=90)
            drawn += 1
        patient += 1


def plant_faults(folder, seed=0):
    """Plant 40 faults in a folder ``<set>/<class>/patient<number>_<n>.<ending>`` that has the sets train and test.

    Copies across sets: 5 exact ones, 5 mirrored or turned by a multiple of 90 degrees, 5 cropped to .75 to .95 of each
    side, 4 turned by 4 to 12 degrees. 4 patients in both sets; 4 copies in another class; a white frame around 85 % of
    the images of a class; 3 images blurred, 3 darkened, 2 blank, 4 in the folder of another class.

    Return a row for each fault: its ``kind``, and its ``files`` relative to the folder, or the folder of the class that
    has the frame. A ValueError is raised where a class has too few images.
    """
    rng = np.random.default_rng(seed)
    places = sorted(path for path in folder.glob("*/*/*") if path.suffix.lower() in IMAGE_ENDINGS)
    classes = sorted({path.parent.name for path in places})
    if len(classes) < 2 or len(places) < 4 * sum(_COUNTS.values()):
        raise ValueError(f"{folder} has {len(places)} images in {len(classes)} classes: expected 156 in 2 or more.")
    framed = str(rng.choice(classes))
    for path in places:
        if path.parent.name == framed and rng.random() < _WITH_FRAME:
            _change(path, path, _frame)
    waiting = {part: [path for path in places if path.parts[-3] == part] for part in ("train", "test")}
    waiting = {part: [paths[number] for number in rng.permutation(len(paths))] for part, paths in waiting.items()}
    faults = [("border", (framed,))]
    for kind, count in _COUNTS.items():
        for number in range(count):
            patient = f"patient{9000 + len(faults)}"
            paths = _plant(kind, number, waiting, patient, classes, rng)
            faults.append((kind, tuple(path.relative_to(folder).as_posix() for path in paths)))
    return pd.DataFrame(faults, columns=["kind", "files"])


def match_findings(faults, findings):
    """Tell of each fault whether it is among the findings of `helpers.audit`, as what it is or as something graver.

    Return a boolean Series, aligned with ``faults``.
    """
    return pd.Series([_is_found(row.kind, row.files, findings) for row in faults.itertuples()], faults.index)


def find_false_alarms(faults, findings):
    """List the files with a finding about a file, a copy, a patient or a class, in which nothing was planted."""
    planted = {file for files in faults["files"] for file in files}
    alarms = findings[findings["kind"] != "shortcut"]
    pairs = zip(alarms["file"], alarms["other_file"], strict=True)
    files = [name for pair in pairs if planted.isdisjoint(pair) for name in pair if name]
    return sorted(set(files))


def _plant(kind, number, waiting, patient, classes, rng):
    """Plant one fault; return its files."""
    first = waiting["train"].pop()
    copy = first.parents[2] / "test" / first.parent.name / f"{patient}_1{first.suffix}"
    others = [name for name in classes if name != first.parent.name]
    match kind:
        case "exact copy":
            shutil.copy(first, copy)
        case "turned copy":
            _change(first, copy, lambda image: image.transpose(_TURNS[number % len(_TURNS)]))
        case "cropped copy":
            _change(first, copy, lambda image: _crop(image, rng))
        case "slightly turned copy":
            angle = rng.choice([-1, 1]) * rng.uniform(4, 12)
            _change(first, copy, lambda image: _turn(image, angle))
        case "shared patient":
            alike = [path for path in waiting["test"] if path.parent == copy.parent] or waiting["test"]
            second = alike[-1]
            waiting["test"].remove(second)
            first = first.rename(first.with_name(f"{patient}_1{first.suffix}"))
            copy = second.rename(second.with_name(f"{patient}_2{second.suffix}"))
        case "contradictory labels":
            copy = first.parents[1] / rng.choice(others) / f"{patient}_1{first.suffix}"
            _change(first, copy, lambda image: image)
        case "wrong class folder":
            return [first.rename(first.parents[1] / rng.choice(others) / f"{patient}_1{first.suffix}")]
        case _:
            _change(first, first, {"blurred": _blur, "dark": _darken, "blank": _blank}[kind])
            return [first]
    return [first, copy]


def _change(path, target, change):
    with Image.open(path) as image:
        image = image.convert("L" if image.mode == "L" else "RGB")
    save(change(image), target, quality=85)


def _crop(image, rng):
    """Crop an image at a random place, and bring it back to its size."""
    size = np.array(image.size)
    kept = size * rng.uniform(0.75, 0.95)
    corner = rng.uniform(0, size - kept)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=(*corner, *(corner + kept)))


def _turn(image, angle):
    """Turn an image by so many degrees; its corners are filled with what is at its edges."""
    pixels = np.asarray(image)
    margin = max(image.size) // 4
    padded = Image.fromarray(np.pad(pixels, [(margin, margin)] * 2 + [(0, 0)] * (pixels.ndim - 2), "edge"))
    turned = padded.rotate(angle, Image.Resampling.BICUBIC)
    return turned.crop((margin, margin, margin + image.width, margin + image.height))


def _frame(image):
    width = max(2, round(0.03 * min(image.size)))
    inner = image.crop((width, width, image.width - width, image.height - width))
    return ImageOps.expand(inner, width, 255 if image.mode == "L" else (255, 255, 255))


def _blur(image):
    return image.filter(ImageFilter.GaussianBlur(0.03 * min(image.size)))


def _darken(image):
    return image.point(lambda level: level * 0.12)


def _blank(image):
    return Image.new(image.mode, image.size, tuple([128] * len(image.getbands())))


def _is_found(kind, files, findings):
    """Tell whether a finding names the files of a fault, and is of its kind or of a graver one."""
    if kind == "border":  # of two classes, it tells one from the other
        told = findings[(findings["kind"] == "shortcut") & findings["sentence"].str.startswith("The frame")]
        return bool((told[["class", "other_class"]] == files[0]).any(axis=None))
    copies = ("exact copy", "near-duplicate", "crop or turn")
    kinds, relation = {
        "exact copy": (copies[:1], "across sets"),
        "turned copy": (copies[:2], "across sets"),
        "cropped copy": (copies, "across sets"),
        "slightly turned copy": (copies, "across sets"),
        "shared patient": (("shared group",), "across sets"),
        "contradictory labels": (copies, "across classes"),
        "blurred": (("blurred", "blank"), ""),
        "dark": (("dark", "blank"), ""),
        "blank": (("blank",), ""),
        "wrong class folder": (("class folder",), ""),
    }[kind]
    rows = findings[findings["kind"].isin(kinds) & (findings["relation"] == relation)]
    return any(set(files) <= {row.file, row.other_file} for row in rows.itertuples())
