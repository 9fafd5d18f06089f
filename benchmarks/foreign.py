"""Foreign images: how well models notice what is unlike their training images, on the real data sets in ``DATA_DIR``.

``python -m benchmarks.foreign [DATA_SET ...]`` trains a small network on some thousand images of each data set (kept in
``CACHE_DIR``) and shows it images of the others, and drawn ones. It prints a table of AUROC against the test images,
the share of foreign images beyond the limit in brackets, and the shares of the model's own images beyond it.
"""

import sys
import time

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from helpers.training import fast, fit, networks  # isort: skip  (first: they start TensorFlow without its log lines)
from helpers.data import opening, pixels, preprocess
from helpers.evaluation import foreign
from helpers.settings import read_settings

DATA_SETS = {  # the test images, and how they are limited
    "mnist": ("test", {}),
    "ham10000": (0.2, {"limit_by": None}),
    "chest-xray": ("test", {}),
    "melanoma-isic": (0.2, {}),
    "plants": (0.2, {}),
    "leukemia": ("validation_data", {"whole_groups": False}),
}
ALIKE = {"ham10000", "melanoma-isic"}  # both dermatoscopic: told, but not counted
REPORTED = ("inverted", "drawn digits")  # not counted either
MOST_IMAGES, OTHERS, DRAWN = 3000, 400, 100
BATCH_SIZE, EPOCHS = 32, 8


def open_images(name, settings):
    """Open a data set and split it; images without a label are left out."""
    test, options = DATA_SETS[name]
    data = opening.open_data_set(name, settings, most=MOST_IMAGES, **options)
    data.images = data.images[data.images["label"].notna()].reset_index(drop=True)
    data.split_images(validation=0.15, test=test)
    return data


def train(data, x, settings):
    """Train a small network, or take that of an earlier run."""
    y, small = data.encode_labels(), x.shape[1] < 64
    rows, validation = data.rows("train"), data.rows("validation")
    fast.set_precision(settings.precision)
    fast.set_seed(settings.seed)
    model = networks.build_cnn(
        x.shape[1:],
        y.shape[1],
        preprocess.compute_statistics(x, rows),
        filters=((32, 32), (64, 64), (64,)) if small else ((16,), (32,), (64,), (64,)),
        first_stride=1 if small else 2,
        average_pooling=True,
    )
    sets = (x, y[rows], rows), (x, y[validation], validation)
    checkpoint = settings.cache_dir / "checkpoints" / "foreign" / f"{data.record.name}.npz"
    fit.fit_model(model, *sets, fit.Recipe(EPOCHS, BATCH_SIZE), seed=settings.seed, checkpoint=checkpoint)
    return model


def draw_kinds(shape, seed=0):
    """Draw images that are none: blanks, noise, and documents; a dict of uint8 arrays (n, height, width, channels)."""
    rng, (height, width, channels) = np.random.default_rng(seed), shape
    size = (DRAWN, height, width, channels)
    levels = rng.uniform(60, 200, (DRAWN, 1, 1, channels))
    grains = rng.choice([-1.0, 0.0, 1.0], (DRAWN, height, width, 1), p=[0.1, 0.8, 0.1])
    fields = [rng.integers(0, 256, (cells, cells, channels)) for cells in rng.integers(2, 9, DRAWN)]
    kinds = {
        "black": np.zeros(size),
        "white": np.full(size, 255),
        "grey": np.broadcast_to(rng.integers(1, 255, (DRAWN, 1, 1, 1)), size),
        "one colour": np.broadcast_to(rng.integers(0, 256, (DRAWN, 1, 1, channels)), size),
        "uniform noise": rng.integers(0, 256, size),
        "Gaussian noise": levels + rng.uniform(5, 60, (DRAWN, 1, 1, 1)) * rng.normal(size=size),
        "salt and pepper": levels + 300 * grains,
        "soft noise": [_resize(Image.fromarray(field.astype("uint8").squeeze()), shape) for field in fields],
        "text": [_resize(draw_page(rng), shape) for _ in range(DRAWN)],
        "dark text": [_resize(draw_page(rng, "#1e1e1e", "#dcdcdc"), shape) for _ in range(DRAWN)],
        "table": [_resize(draw_table(rng), shape) for _ in range(DRAWN)],
        "screenshot": [_resize(draw_screen(rng), shape) for _ in range(DRAWN)],
    }
    return {kind: np.clip(images, 0, 255).astype("uint8") for kind, images in kinds.items()}


def draw_page(rng, paper="white", ink="black", size=(620, 877)):
    """Draw a page of words."""
    page, margin, height = Image.new("RGB", size, paper), int(rng.integers(5, 80)), int(rng.integers(10, 26))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(height)
    for top in range(margin, size[1] - margin, int(1.4 * height)):
        letters = rng.choice([*"abcdefghijklmnopqrstuvwxyz    "], int(rng.uniform(0.5, 1) * 1.8 * size[0] / height))
        draw.text((margin, top), "".join(letters), ink, font)
    draw.rectangle((size[0] - margin, 0, *size), paper)
    return page


def draw_table(rng):
    """Draw a ruled table of numbers."""
    size = rng.integers(300, 900, 2)
    table = Image.new("RGB", tuple(size.tolist()), "white")
    draw, font = ImageDraw.Draw(table), ImageFont.load_default(14)
    across, down = (np.linspace(10, length - 10, rng.integers(4, 16)) for length in size)
    for x in across:
        draw.line((x, down[0], x, down[-1]), "black")
    for y in down:
        draw.line((across[0], y, across[-1], y), "black")
        for x in across[:-1]:
            draw.text((x + 4, y + 2), f"{rng.normal(0, 100):.2f}", "black", font)
    return table


def draw_screen(rng):
    """Draw a screen with windows of text."""
    screen = Image.new("RGB", (1280, 800), tuple(rng.integers(0, 256, 3).tolist()))
    for _ in range(rng.integers(2, 6)):
        dark = rng.random() < 0.4
        colours = ("#202830", "#d0d0d0") if dark else ("#f8f8f8", "black")
        size = tuple(rng.integers(200, 600, 2).tolist())
        window = draw_page(rng, *colours, size)
        ImageDraw.Draw(window).rectangle((0, 0, size[0], 24), tuple(rng.integers(0, 256, 3).tolist()))
        screen.paste(window, (int(rng.integers(0, 900)), int(rng.integers(0, 500))))
    return screen


def _resize(image, shape):
    height, width, channels = shape
    image = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2)).reshape(shape)


def measure(name, opened, settings):
    """Measure the distances of a model's own images and of all others: a dict of str to arrays."""
    data = opened[name]
    shape = data.record.image_shape
    x = data.load_pixels(shape)
    model = train(data, x, settings)

    def describe(images, rows):
        features = fast.predict_with_features(model, images, rows)[1]
        return features, np.concatenate([foreign.describe_pixels(images[part]) for part in np.array_split(rows, 20)])

    rows = data.rows("train")
    ids = data.images["image_id"].to_numpy()[rows]
    familiar = foreign.Familiar.fit(*describe(x, rows), ids, *describe(x, data.rows("validation")))

    def compare(images, rows=None):
        return familiar.compare(*describe(images, np.arange(len(images)) if rows is None else rows))[0]

    distances = {part: compare(x, data.rows(part)) for part in ("validation", "test")}
    for other in (other for other in opened if other != name):
        chosen = opened[other].images.sample(OTHERS, random_state=settings.seed).reset_index(drop=True)
        distances[other] = compare(pixels.load_pixels(chosen, opened[other].source.folder, shape, settings.cache_dir))
    distances |= {kind: compare(images) for kind, images in draw_kinds(shape).items()}
    test = data.rows("test")
    distances["inverted"] = compare(255 - x[test])
    if data.record.may_be_inverted:
        drawn = [pixels.read_image(path, shape) for path in sorted(settings.data_dir.glob("digits-drawn/*/*.png"))]
        if drawn:
            distances["drawn digits"], inverse = compare(np.stack(drawn)), compare(255 - np.stack(drawn))
            for kind, before, after in (
                ("test images", distances["test"], distances["inverted"]),
                ("drawn digits", distances["drawn digits"], inverse),
            ):
                exchanged = (before > 1) & (after < before / 2)
                print(f"{name}: light and dark exchanged in {100 * exchanged.mean():.2f} % of {kind}", flush=True)
    batch, seconds = x[:64], []
    features = describe(batch, np.arange(len(batch)))[0]
    for _ in range(50):
        start = time.perf_counter()
        familiar.compare(features, foreign.describe_pixels(batch))
        seconds.append((time.perf_counter() - start) / len(batch))
    size = sum(array.nbytes for array in familiar.to_arrays().values())
    print(f"{name}: {1e6 * min(seconds):.0f} µs an image, {size / 1e6:.2f} MB", flush=True)
    return distances


def summarize(name, distances):
    """Summarize by kind, see `helpers.evaluation.foreign.summarize_distances`; tell which kinds count."""
    kinds = {kind: distances[kind] for kind in ("test", *distances)}  # the test images come first
    tables = [pd.DataFrame({"kind": kind, "distance": values, "foreign": values > 1}) for kind, values in kinds.items()]
    table = foreign.summarize_distances(pd.concat(tables)).reset_index()
    counted = [kind not in ("validation", "test", *REPORTED) and not {name, kind} <= ALIKE for kind in table["kind"]]
    return table.assign(model=name, counted=counted)


def main(names=()):
    """Print the table for the models of some data sets, or of all."""
    settings = read_settings()
    opened = {name: open_images(name, settings) for name in DATA_SETS}
    table = pd.concat([summarize(name, measure(name, opened, settings)) for name in names or DATA_SETS])
    area = table["roc_auc"].map(lambda value: "" if np.isnan(value) else f"{value:.3f} ")
    shown = table.assign(cell=area + table["refused"].map(lambda share: f"({100 * share:.1f} %)"))
    shown = shown.pivot_table("cell", "kind", "model", "first").reindex(table["kind"].unique()).fillna("")
    print(shown.to_string())
    counted = table[table["counted"]]
    for what, part in (("data sets", counted["kind"].isin(DATA_SETS)), ("drawn", ~counted["kind"].isin(DATA_SETS))):
        print(f"{what}: mean AUROC {counted[part]['roc_auc'].mean():.4f}, beyond {counted[part]['refused'].mean():.4f}")
    print(f"all: mean AUROC {counted['roc_auc'].mean():.4f}, lowest {counted['roc_auc'].min():.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
