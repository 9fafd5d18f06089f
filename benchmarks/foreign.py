"""Foreign images: how well models notice what is unlike their training images, on the real data sets in ``DATA_DIR``.

``python -m benchmarks.foreign [DATA_SET ...]`` trains a small network on some thousand images of each data set (kept in
``CACHE_DIR``) and shows it images of the others, and drawn ones. It prints a table of AUROC against the test images,
the share of foreign images beyond the limit in brackets, and the shares of the model's own images beyond it.
"""

import sys
import time

import numpy as np
import pandas as pd

from helpers.training import fast, fit, networks  # isort: skip  (first: they start TensorFlow without its log lines)
from helpers.data import opening, pixels, preprocess
from helpers.evaluation import foreign
from helpers.settings import read_settings
from samples.strangers import draw_strangers

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
    distances |= {kind: compare(images) for kind, images in draw_strangers(shape, DRAWN).items()}
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
