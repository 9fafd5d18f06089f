"""HAM10000: drawn skin lesions."""

import shutil

import numpy as np
import pandas as pd
from PIL import Image
from scipy.special import expit

from samples.drawing import add_waves, make_image, mix, turn

# Of each class: lesions; colour of the lesion; mean age; radius as a share of the height; raggedness of the border; how
# much lighter or darker than the lesion its spots are, and how many pixels apart; strength of the rim.
_LESIONS = {
    "akiec": (18, (196, 120, 104), 70, 0.30, 0.16, 45, 14, 0.0),
    "bcc": (26, (206, 134, 128), 68, 0.26, 0.08, -60, 26, 0.3),
    "bkl": (40, (152, 112, 78), 65, 0.30, 0.10, 35, 8, 0.0),
    "df": (14, (176, 122, 100), 52, 0.22, 0.04, 60, 60, 0.8),
    "mel": (40, (82, 56, 50), 60, 0.34, 0.26, -28, 18, 0.0),
    "nv": (270, (124, 80, 56), 45, 0.24, 0.05, 12, 12, 0.0),
    "vasc": (14, (150, 36, 52), 50, 0.22, 0.06, -25, 20, 0.4),
}
_AVERAGE = np.array([140, 95, 75, 0.26, 0.09, 15, 16, 0.1])  # colour, radius and so on that all classes tend to
_HAIR = (60, 45, 40)
_LOCALIZATIONS = ["back", "lower extremity", "trunk", "upper extremity", "abdomen", "face", "chest", "unknown"]


def draw(data_set, folder):
    """Draw skin lesions in the layout of HAM10000, with its traps.

    One to three images of each lesion under changing light and angle; two folders and their lower-case twins; ages as
    floats, some missing, some 0; unknown sexes and localizations; 28 x 28 pixels as a table. The classes differ in
    colour, border and texture; each lesion shows the signs of its class more or less clearly, and hairs cover some.
    """
    rng = np.random.default_rng(10_000)
    rows = []
    for label, (n_lesions, _, mean_age, *_) in _LESIONS.items():
        for _ in range(n_lesions):
            about = {
                "lesion_id": f"HAM_{len({row['lesion_id'] for row in rows}):07d}",
                "dx": label,
                "dx_type": "follow_up" if label == "nv" and rng.random() < 0.5 else "histo",
                "age": rng.choice(["", "0.0"]) if rng.random() < 0.02 else f"{_draw_age(mean_age, rng):.1f}",
                "sex": rng.choice(["male", "female", "unknown"], p=[0.53, 0.45, 0.02]),
                "localization": rng.choice(_LOCALIZATIONS),
                "seed": rng.integers(2**32),
            }
            rows += [about] * rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1])
    metadata = pd.DataFrame(rows)
    metadata.insert(1, "image_id", [f"ISIC_{number:07d}" for number in 24_306 + rng.permutation(len(metadata))])

    small = np.empty((len(metadata), 28, 28, 3), "uint8")
    for part in ("HAM10000_images_part_1", "HAM10000_images_part_2"):
        for name in (part, part.lower()):
            (folder / name).mkdir(exist_ok=True)  # the same folder where the file system ignores case
    for number, row in enumerate(metadata.itertuples()):
        image = _draw_lesion(row.dx, row.seed, rng)
        small[number] = image.resize((28, 28), Image.Resampling.BILINEAR)
        part = f"HAM10000_images_part_{1 + (number >= len(metadata) // 2)}"
        image.save(folder / part / f"{row.image_id}.jpg", quality=90)
        if not (folder / part.lower()).samefile(folder / part):
            shutil.copy(folder / part / f"{row.image_id}.jpg", folder / part.lower())
    metadata.drop(columns="seed").to_csv(folder / "HAM10000_metadata.csv", index=False)
    table = pd.DataFrame(small.reshape(len(small), -1)).rename(columns="pixel{:04d}".format)
    codes = {name: code for code, name in enumerate(data_set.pixel_table_codes)}
    table.assign(label=metadata["dx"].map(codes)).to_csv(folder / "hmnist_28_28_RGB.csv", index=False)


def _draw_age(mean, rng):
    return 5 * np.clip(round(rng.normal(mean, 14) / 5), 1, 17)


def _draw_lesion(label, seed, rng, size=(150, 200)):
    """Draw one image of a lesion: what ``seed`` decides is the same in all its images, what ``rng`` decides is not."""
    lesion = np.random.default_rng(seed)
    _, color, _, *signs = _LESIONS[label]
    signs = _AVERAGE + lesion.uniform(0.2, 1) * (np.array([*color, *signs]) - _AVERAGE)
    color, (radius, raggedness, contrast, distance, rim) = signs[:3], signs[3:]
    camera = lesion.normal(1, 0.04, 3)  # its balance of the colours
    skin = np.array([222, 176, 152]) + lesion.normal(0, 5, 3) + lesion.normal(0, 8)
    color = color + lesion.normal(0, 8, 3) + lesion.normal(0, 14)
    radius = size[0] * radius * lesion.uniform(0.7, 1.3)
    waves = lesion.normal(0, raggedness / np.arange(1, 7), 6) * lesion.uniform(0.5, 1.3)
    phases, stretch = lesion.uniform(0, 2 * np.pi, 6), lesion.uniform(0.75, 1.3)
    directions, offsets = lesion.uniform(0, 2 * np.pi, (2, 5))
    wave_numbers = 2 * np.pi / (distance * lesion.uniform(0.7, 1.4, 5))

    angle, zoom = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.15)
    y, x = np.indices(size) - (np.array(size) / 2 + rng.normal(0, 6, 2))[:, None, None]
    y, x = turn(y, x, angle)
    y, x = y * zoom, x * zoom * stretch
    far = np.hypot(y, x)
    around = np.polyval([*(waves * np.exp(1j * phases))[::-1], 0], (x + 1j * y) / far)  # wave k: k + 1 times around
    border = radius * (1 + around.real)
    inside = expit((border - far) / (2 + 6 * (1 - min(1, 8 * raggedness))))
    spots = add_waves(x, y, (wave_numbers * [np.cos(directions), np.sin(directions)]).T, offsets)
    shade = contrast * spots / 2 + 60 * rim * np.exp(-(((far - 0.9 * border) / 5) ** 2))
    image = mix(skin, color + shade[..., None], inside)
    for _ in range(rng.poisson(2)):
        along, across = turn(y, x, rng.uniform(0, 2 * np.pi))
        distance = np.abs(across - rng.uniform(-60, 60) - rng.normal(0, 0.002) * along**2)
        hair = distance < 1.6
        image[hair] = mix(image[hair], _HAIR, 0.8 * np.clip(1.6 - distance[hair], 0, 1))
    light = rng.normal(1, 0.05) * (1 - 0.12 * (far / far.max()) ** 2)
    return make_image(image * light[..., None] * camera + rng.normal(0, 1, (*size, 3)))
