"""Trials: settings that were tried on validation images before a full run.

``DATA_DIR=... python -m benchmarks.trials NOTEBOOK [TRIAL ...]`` trains a network as the notebook does, but with other
settings, and predicts the validation images of the notebook; no test image is predicted. A row for each trial, also of
those that did not help, is kept in ``figures/<notebook>/validation_trials.csv``. ``--list`` names the trials.
"""

import argparse
import functools
import sys
from dataclasses import dataclass, field
from functools import partial
from tempfile import TemporaryDirectory

from helpers import Experiment, open_data_set  # isort: skip  (first: it starts TensorFlow without log lines)
import keras
import numpy as np
import pandas as pd

from helpers.data import preprocess, split
from helpers.evaluation import scores
from helpers.files import InputError, replace_atomically
from helpers.settings import PROJECT_FOLDER
from helpers.training import augment, networks, surgery, transfer
from helpers.training.fit import Recipe

METRICS = ["accuracy", "balanced_accuracy", "macro_f1", "roc_auc"]
LITE, MOBILENET = "efficientnet_lite0", "mobilenet_v2_0.35"
LESION, MOLE, LARGE = (144, 192, 3), (128, 128, 3), (160, 160, 3)  # height, width, channels
MIXUP, BLOCK_3, BLOCK_5 = {"mixup": 0.3}, "block_3_expand", "block_5_expand"
MOVES = {"rotation_range": 180, "horizontal_flip": True, "vertical_flip": True, "fill_mode": "reflect"}
GENERATORS = {  # of the notebooks
    "02_ham10000": MOVES
    | {"width_shift_range": 0.1, "height_shift_range": 0.1, "zoom_range": 0.2, "brightness_range": (0.85, 1.15)},
    "04_melanoma": MOVES
    | {"width_shift_range": 0.08, "height_shift_range": 0.08, "zoom_range": 0.15, "brightness_range": (0.8, 1.2)},
}


@dataclass(frozen=True)
class Trial:
    """What is trained, and how.

    Attributes
    ----------
    shape : tuple of 3 ints, of the images
    recipe : dict, what differs from the recipe of all trials, see `helpers.training.fit.Recipe`; without epochs, a
        pretrained network stays frozen
    base : str, the pretrained network; without one, a network is trained from random weights
    network : dict, keywords of `helpers.training.networks.build_cnn`
    first : str, the first layer of a pretrained network that is trained
    random : bool, whether images are mirrored and changed in one way at random strength, by `keras.layers.RandAugment`,
        as in TrivialAugment (Mueller and Hutter 2021), instead of by the generator of the notebook
    """

    shape: tuple
    recipe: dict = field(default_factory=dict)
    base: str = ""
    network: dict = field(default_factory=dict)
    first: str = "pixels"
    random: bool = False


def _tune(base, shape, epochs, rate, recipe=None, **options):
    return Trial(shape, {"epochs": epochs, "learning_rate": rate} | (recipe or {}), base, **options)


SMALL = {"average_pooling": True, "filters": ((32, 32), (64, 64), (128, 192))}
PLAIN = {"first_stride": 2, "average_pooling": True, "filters": ((32,), (32, 48), (64, 96), (128, 192))}
RESIDUAL = PLAIN | {"residual": True, "filters": ((32,), (48, 64), (96, 128), (192,))}
TRIALS = {
    "02_ham10000": {
        "MobileNetV2 0.35, frozen": Trial(LESION, base=MOBILENET),
        "EfficientNet-Lite0, frozen": Trial(LESION, base=LITE),
        "MobileNetV2 0.35, all layers, 12 epochs": _tune(MOBILENET, LESION, 12, 1e-3, MIXUP),
        "MobileNetV2 0.35, from block 3 on, 12 epochs": _tune(MOBILENET, LESION, 12, 1e-3, MIXUP, first=BLOCK_3),
        "EfficientNet-Lite0, from block 3 on, 5 epochs": _tune(LITE, LESION, 5, 5e-4, MIXUP, first=BLOCK_3),
        "EfficientNet-Lite0, from block 3 on, 11 epochs": _tune(LITE, LESION, 11, 5e-4, MIXUP, first=BLOCK_3),
        "MobileNetV2 0.35, all layers, random changes, 12 epochs": _tune(
            MOBILENET, LESION, 12, 1e-3, MIXUP, random=True
        ),
        "from scratch, 28 x 28, 16 epochs": Trial((28, 28, 3), {"epochs": 16}, network=SMALL),
        "from scratch, 160 x 120, 12 epochs": Trial((120, 160, 3), {"epochs": 12}, network=PLAIN),
        "from scratch, 160 x 120, residual, 12 epochs": Trial((120, 160, 3), {"epochs": 12}, network=RESIDUAL),
    },
    "04_melanoma": {
        "MobileNetV2 0.35, frozen, 160 x 160": Trial(LARGE, base=MOBILENET),
        "EfficientNet-Lite0, frozen, 160 x 160": Trial(LARGE, base=LITE),
        "MobileNetV2 0.35, all layers, 160 x 160, 6 epochs": _tune(MOBILENET, LARGE, 6, 1e-3),
        "EfficientNet-Lite0, from block 3 on, 128 x 128, 1 epoch": _tune(LITE, MOLE, 1, 5e-4, first=BLOCK_3),
        "EfficientNet-Lite0, from block 5 on, 128 x 128, 3 epochs": _tune(LITE, MOLE, 3, 1e-3, first=BLOCK_5),
        "EfficientNet-Lite0, from block 5 on, 160 x 160, 6 epochs": _tune(LITE, LARGE, 6, 1e-3, first=BLOCK_5),
        "EfficientNet-Lite0, from block 5 on, 160 x 160, mixup, 12 epochs": _tune(
            LITE, LARGE, 12, 1e-3, {"mixup": 0.2}, first=BLOCK_5
        ),
        "from scratch, 9 epochs": Trial(MOLE, {"epochs": 9}, network=RESIDUAL | {"dropout": 0.5}),
        "from scratch, 18 epochs": Trial(MOLE, {"epochs": 18}, network=RESIDUAL | {"dropout": 0.5}),
        "from scratch, mixup, 9 epochs": Trial(MOLE, {"epochs": 9, "mixup": 0.2}, network=RESIDUAL | {"dropout": 0.5}),
    },
}


class Trials:
    """The trials of a notebook: its data, divided as there, and the frozen networks that several of them share."""

    def __init__(self, notebook, folder):
        self.experiment = experiment = Experiment(notebook, folder, mode="full")
        if notebook == "02_ham10000":
            self.data = open_data_set("ham10000", experiment, limit_by=None)
            self.data.split_images(validation=0.13, test=0.15)
            self.monitor, self.views = "val_accuracy", 4
        else:
            self.data = open_data_set("melanoma-isic", experiment)
            self.data.split_images(validation=0.12, leaked="copies")
            self.monitor, self.views = "val_loss", 8
        self.augmenter = augment.make_augmenter(augment.ImageDataGenerator(**GENERATORS[notebook]))

    def run(self, name, trial):
        """Train, and predict the validation images; return a row of the table."""
        self._fit(name, trial, self.data.rows("train"), self.data.rows("validation"))
        values = scores.compute_metrics(self.experiment.predict(name, "validation"), 0)["value"]
        cost = {"cpu_minutes": self.experiment.measure_cost(name)["cpu_minutes"]}
        return {metric: values[metric] for metric in METRICS} | cost

    def cross_validate(self, name, trial, folds):
        """Train once for each fold, by group; return a table of metrics by fold, and of all folds pooled.

        The epoch is chosen on validation images out of the other folds, so that each image is predicted by a network
        that was neither trained nor chosen with its group.
        """
        images, tables, values = self.data.images, [], {}
        for run, rows in split.list_runs(images, folds, self.experiment.seed, validation=0.13).items():
            key = f"{name}, {run}"
            self._fit(key, trial, rows["train"], rows["validation"])
            tables.append(self.experiment.predict(key, rows["test"]))
            values[run] = scores.compute_metrics(tables[-1], 0)["value"][METRICS]
            print(key, values[run].round(4).to_dict(), flush=True)
        pooled = scores.compute_metrics(pd.concat(tables, ignore_index=True)).loc[METRICS]
        ends = pooled[["low", "high"]].rename(columns={"low": "pooled low", "high": "pooled high"}).T
        return pd.concat([pd.DataFrame(values).T, pooled[["value"]].T.set_axis(["pooled"]), ends])

    def _fit(self, name, trial, training, validation):
        experiment, x = self.experiment, self.data.load_pixels(trial.shape)
        rows = {"training": training, "validation": validation}
        options = {"batch_size": 32, "weight_decay": 0.05, "monitor": self.monitor}
        if trial.base:
            experiment.choose_base([trial.base], x, **rows)
            extractor = experiment.build_extractor(trial.shape)
            features = transfer.compute_features(extractor, x)
            experiment.fit(
                name,
                lambda: transfer.build_head(features[training], len(self.data.class_names)),
                features,
                Recipe(20, **options),
                precision="float32",
                extractor=extractor,
                predict_from=x,
                views=self.views,
                **rows,
            )
        if trial.recipe:
            build = partial(self._build, trial, experiment.models.get(name), training)
            options |= {"learning_rate": 3e-3, "ema_epochs": 1, "augment": change if trial.random else self.augmenter}
            recipe = Recipe(**options | {"precision": experiment.precision} | trial.recipe)
            precision = "float32" if trial.base else None
            experiment.fit(name, build, x, recipe, precision=precision, views=self.views, **rows)

    def _build(self, trial, frozen, training):
        if not trial.base:
            statistics = preprocess.compute_statistics(self.data.load_pixels(trial.shape), training)
            return networks.build_cnn(trial.shape, len(self.data.class_names), statistics, **trial.network)
        model = surgery.copy_model(frozen, "tuned")
        surgery.unfreeze_from(model, trial.first)
        return model


@functools.cache
def _make_random_layer():
    return keras.layers.RandAugment(value_range=(0, 255), num_ops=1, factor=0.5, seed=1)


def change(images, rng):
    """Mirror images, and change each in one way at random strength."""
    for axis in (1, 2):
        mirrored = rng.random(len(images)) < 0.5
        images = np.where(mirrored[:, None, None, None], np.flip(images, axis), images)
    return np.asarray(_make_random_layer()(images.astype("float32"), training=True))


def main(arguments=None):
    """Run the command line; return the exit status: 0, or 2 if there is no such notebook or trial."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trials", description=__doc__)
    parser.add_argument("notebook", choices=TRIALS)
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help="its name; default: all")
    parser.add_argument("--list", action="store_true", help="list the trials and stop")
    parser.add_argument("--folds", type=int, help="cross-validate one trial by group, into folds.csv beside the table")
    options = parser.parse_args(arguments)
    if options.folds and len(options.trials) != 1:
        parser.error("--folds: expected the name of one trial.")
    known = TRIALS[options.notebook]
    unknown = [name for name in options.trials if name not in known]
    if unknown or options.list:
        print(*(f"no trial is called {name!r}" for name in unknown), *known, sep="\n")
        return 2 if unknown else 0
    path = PROJECT_FOLDER / "figures" / options.notebook / "validation_trials.csv"
    if options.folds:
        (name,) = options.trials
        with TemporaryDirectory() as folder:
            table = Trials(options.notebook, folder).cross_validate(name, known[name], options.folds)
        with replace_atomically(path.with_name("folds.csv")) as unfinished:
            table.round(4).rename_axis("fold").to_csv(unfinished)
        return 0
    table = pd.read_csv(path, index_col="trial") if path.exists() else pd.DataFrame()
    with TemporaryDirectory() as folder:
        trials = Trials(options.notebook, folder)
        for name in options.trials or known:
            row = pd.DataFrame(trials.run(name, known[name]), [name]).rename_axis("trial")
            print(row.round(4).to_string(), flush=True)
            table = pd.concat([table.drop(index=name, errors="ignore"), row])
            with replace_atomically(path) as unfinished:
                table.round(4).to_csv(unfinished)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(str(error))
