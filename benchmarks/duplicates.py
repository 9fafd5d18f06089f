"""Derived copies: how many planted crops and turns are found, and how many other pairs, on each data set.

``python -m benchmarks.duplicates [DATA_SET ...]`` takes some thousand images of each data set, from ``DATA_DIR`` or the
sample. It adds 400 copies, each of another image: cropped to 70 to 95 % of the side or turned by 3 to 20 degrees, half
of them mirrored, with another brightness and as JPEG. It prints the share that is found, the other pairs and seconds.
"""

import sys
import time

import cv2
import numpy as np
import pandas as pd

from helpers.data import opening
from helpers.data.duplicates import find_derived_copies
from helpers.settings import read_settings

DATA_SETS = {"ham10000": {"limit_by": None}, "chest-xray": {}, "plants": {}, "melanoma-isic": {}}
MOST_IMAGES, COPIES = 3000, 400
LARGE, SIDE = 192, 96


def derive(image, rng, crop):
    """Crop or turn a grey image, mirror it or not, change its brightness and encode it again.

    Return the copy and by how much: the share of the side, or degrees.
    """
    side = len(image)
    if crop:
        kept = round(side * rng.uniform(0.7, 0.95))
        (top, left), amount = rng.integers(0, side - kept + 1, 2), kept / side
        image = image[top : top + kept, left : left + kept]
    else:
        amount, filled = rng.uniform(3, 20), rng.choice([cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE])
        way = cv2.getRotationMatrix2D(((side - 1) / 2,) * 2, amount * rng.choice([-1, 1]), 1)
        image = cv2.warpAffine(image, way, (side, side), borderMode=int(filled))
        if rng.random() < 1 / 3:  # without the corners
            edge = int(side * (1 - 1 / (np.cos(np.radians(amount)) + np.sin(np.radians(amount)))) / 2) + 1
            image = image[edge:-edge, edge:-edge]
    image = np.clip(image[:, :: rng.choice([-1, 1])] * rng.uniform(0.9, 1.1), 0, 255).astype("uint8")
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), amount


def measure(data):
    """Measure the shares of copies that are found, by kind, and the other pairs, of one data set: a dict."""
    rng, large = np.random.default_rng(0), data.load_pixels((LARGE, LARGE, 1))
    originals = rng.permutation(len(large))[:COPIES]
    copies = [derive(large[row, ..., 0], rng, crop=number % 2) for number, row in enumerate(originals)]
    images = [*large[..., 0], *(image for image, _ in copies)]
    pixels = np.stack([cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in images])
    start = time.perf_counter()
    pairs = find_derived_copies(pixels[..., None])
    seconds = time.perf_counter() - start
    known = set(zip(pairs["first"], pairs["second"], strict=True))
    found = np.array([(row, len(large) + number) in known for number, row in enumerate(originals)])
    amount, crop = np.array([amount for _, amount in copies]), np.arange(len(copies)) % 2 == 1
    kinds = {
        "crops from 75 %": crop & (amount >= 0.75),
        "smaller crops": crop & (amount < 0.75),
        "turns to 15 degrees": ~crop & (amount <= 15),
        "larger turns": ~crop & (amount > 15),
    }
    others = pairs[pairs["second"] < len(large)]
    groups = data.images["group"].to_numpy()
    apart = others[groups[others["first"]] != groups[others["second"]]]
    shares = {kind: f"{found[rows].sum()} of {rows.sum()}" for kind, rows in kinds.items()}
    in_a_pair = len(np.unique(apart[["first", "second"]])) / len(large)
    about = {"pairs of one group": len(others) - len(apart), "other pairs": len(apart)}
    return {"images": len(large)} | shares | about | {"images in them": f"{100 * in_a_pair:.2f} %", "seconds": seconds}


def main(names=()):
    """Print the table for some data sets, or for all."""
    settings, rows = read_settings(), {}
    for name in names or DATA_SETS:
        rows[name] = measure(opening.open_data_set(name, settings, most=MOST_IMAGES, **DATA_SETS[name]))
    print(pd.DataFrame(rows).to_string(float_format="{:.1f}".format))


if __name__ == "__main__":
    main(sys.argv[1:])
