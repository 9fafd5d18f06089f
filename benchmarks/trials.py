"""Trials: settings that were tried on validation images before a full run.

``DATA_DIR=... python -m benchmarks.trials NOTEBOOK [TRIAL ...]`` trains a network as the notebook does, but with other
settings, and predicts the validation images of the notebook; no test image is predicted. A row for each trial, also of
those that did not help, is kept in ``figures/<notebook>/validation_trials.csv``. ``--list`` names the trials.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from tempfile import TemporaryDirectory

from helpers import Experiment, open_data_set  # isort: skip  (first: it starts TensorFlow without log lines)
import keras
import numpy as np
import pandas as pd

from helpers.data import cells, preprocess, split
from helpers.evaluation import calibration, explain, scores
from helpers.files import InputError, replace_atomically
from helpers.settings import PROJECT_FOLDER
from helpers.training import augment, fit, networks, surgery, transfer
from helpers.training.fit import Recipe

METRICS = ["accuracy", "balanced_accuracy", "macro_f1", "roc_auc"]
LITE, MOBILENET = "efficientnet_lite0", "mobilenet_v2_0.35"
DIGIT, CHEST, LUNGS = (28, 28, 1), (128, 128, 1), (192, 192, 1)  # height, width, channels
LESION, MOLE, LARGE, LEAF, CELL = (144, 192, 3), (128, 128, 3), (160, 160, 3), (192, 192, 3), (112, 112, 3)
MIXUP, BLOCK_3, BLOCK_5 = {"mixup": 0.3}, "block_3_expand", "block_5_expand"
COVERED = 0.3  # of the side: the border that is covered, of chest X-rays
SMALL_MOVES = {"width_shift_range": 0.03, "height_shift_range": 0.03, "zoom_range": 0.03}
LOOK_ALIKE = {"rotation_range": 180, "horizontal_flip": True, "vertical_flip": True, "fill_mode": "reflect"}


def _make(**generator):
    return augment.make_augmenter(augment.ImageDataGenerator(**generator))


def _change_digits():
    moved = _make(rotation_range=20, width_shift_range=0.15, height_shift_range=0.15, zoom_range=0.2)
    nearly = _make(rotation_range=8, width_shift_range=0.06, height_shift_range=0.06, zoom_range=0.08, shear_range=6)
    styles = [moved, lambda batch, rng: augment.paste_on_canvas(batch, 56, rng)]
    return {
        "none": None,
        "notebook": augment.mix_augmenters([None, *styles], (0.2, 0.35, 0.45)),
        "nearly": augment.mix_augmenters([nearly, *styles], (0.2, 0.35, 0.45)),
        "nearly alone": augment.mix_augmenters([None, nearly], (0.5, 0.5)),
        "style 1": styles[0],
        "style 2": styles[1],
    }


def _change_xrays():
    move = _make(
        rotation_range=10, width_shift_range=0.08, height_shift_range=0.08, zoom_range=0.15, fill_mode="constant"
    )
    expose = augment.make_exposure_augmenter(gamma=0.5, contrast=0.35, brightness=0.15, sharpness=1, noise=8)
    some = [augment.mix_augmenters([None, move], (0.4, 0.6)), augment.mix_augmenters([None, expose], (0.2, 0.8))]

    def cover(images, rng):
        return explain.cover_border(images, rng.uniform(0, COVERED + 0.05, len(images)), 128)

    covered = augment.mix_augmenters([None, cover], (0.5, 0.5))
    return {
        "moved": some[0],
        "notebook": augment.chain_augmenters(*some),
        "covered": augment.chain_augmenters(*some, covered),
        "altered": augment.chain_augmenters(move, expose),
        "border covered": lambda images, _: explain.cover_border(images, COVERED, 128),
    }


def _change_cells():
    move = _make(**LOOK_ALIKE | {"fill_mode": "constant"}, **SMALL_MOVES)
    expose = augment.make_exposure_augmenter(gamma=0.5, contrast=0.4, sharpness=1.5, noise=8)
    return {
        "moved": move,
        "notebook": augment.chain_augmenters(move, augment.keep_background(expose, cells.BACKGROUND_LEVEL)),
    }


def _change(**generator):
    return lambda: {"notebook": _make(**LOOK_ALIKE, **generator), "random": change}


def _divide(**sets):
    return lambda data: data.split_images(**sets)


def _divide_part(data, part="train", validation=0.12):
    """Divide one shipped part alone, by group; all others are left out."""
    rows = data.images.index[data.images["part"] == part]
    shares = {"train": 1 - validation, "validation": validation}
    data.images["split"] = "left out"
    data.images.loc[rows, "split"] = split.split_by_group(data.images.loc[rows], shares, data.settings.seed)


def _divide_cells(data):
    data.images["split"] = data.images["part"].map({"training_data": "train"}).fillna("left out")


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
    augment : str, among the changes of the notebook, see `Setup`
    start : str, the trial whose network is trained further
    alike : bool, whether people weigh alike, where the trials are cross-validated by person; otherwise classes do
    """

    shape: tuple
    recipe: dict = field(default_factory=dict)
    base: str = ""
    network: dict = field(default_factory=dict)
    first: str = "pixels"
    augment: str = "notebook"
    start: str = ""
    alike: bool = True


@dataclass(frozen=True)
class Setup:
    """What the trials of a notebook have in common.

    Attributes
    ----------
    data_set : str
    divide : function, makes the sets of the data set
    changes : function, makes the augmenters by their names; "random" mirrors images and changes each in one way at
        random strength, as in TrivialAugment (Mueller and Hutter 2021)
    altered : tuple of str, the changes of the validation images that are predicted, too
    views : int, over how many the predictions are averaged
    recipe : dict, of all trials
    options : dict, keywords of `helpers.open_data_set`
    """

    data_set: str
    divide: Callable
    changes: Callable
    altered: tuple = ()
    views: int = 1
    recipe: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)


SETUPS = {
    "01_mnist": Setup(
        "mnist",
        _divide(validation=1 / 12),
        _change_digits,
        ("style 1", "style 2"),
        recipe={"batch_size": 128, "ema_epochs": 0.5},
    ),
    "02_ham10000": Setup(
        "ham10000",
        _divide(validation=0.13, test=0.15),
        _change(width_shift_range=0.1, height_shift_range=0.1, zoom_range=0.2, brightness_range=(0.85, 1.15)),
        views=4,
        recipe={"monitor": "val_accuracy"},
        options={"limit_by": None},
    ),
    "03_chest_xray": Setup(
        "chest-xray",
        _divide(validation=0.15),
        _change_xrays,
        ("altered", "border covered"),
        recipe={"ema_epochs": 0.5},
    ),
    "04_melanoma": Setup(
        "melanoma-isic",
        _divide(validation=0.12, leaked="copies"),
        _change(width_shift_range=0.08, height_shift_range=0.08, zoom_range=0.15, brightness_range=(0.8, 1.2)),
        views=8,
    ),
    "05_plants": Setup(
        "plants",
        _divide_part,
        _change(width_shift_range=0.1, height_shift_range=0.1, zoom_range=0.2, brightness_range=(0.8, 1.2)),
        views=8,
        recipe={"monitor": "val_accuracy", "ema_epochs": 0.5},
    ),
    "06_leukemia": Setup(
        "leukemia",
        _divide_cells,
        _change_cells,
        views=8,
        recipe={"monitor": "last", "ema_epochs": 0.1},
        options={"whole_groups": False},
    ),
}


def _tune(base, shape, epochs, rate, recipe=None, **options):
    return Trial(shape, {"epochs": epochs, "learning_rate": rate} | (recipe or {}), base, **options)


SMALL = {"average_pooling": True, "filters": ((32, 32), (64, 64), (128, 192))}
PLAIN = {"first_stride": 2, "average_pooling": True, "filters": ((32,), (32, 48), (64, 96), (128, 192))}
RESIDUAL = PLAIN | {"residual": True, "filters": ((32,), (48, 64), (96, 128), (192,))}
LEAVES = PLAIN | {"residual": True, "filters": ((32,), (64, 64), (128, 128), (256, 256))}
CELLS = {"average_pooling": True, "filters": ((16,), (32, 32), (64, 64), (128,))}
STROKES = {"filters": ((16, 32), (64, 64), (128, 128))}
BONES = {"first_stride": 2, "average_pooling": True, "filters": ((24,), (32, 48), (64, 96), (128, 192))}
TRIALS = {
    "01_mnist": {
        "clean digits, 10 epochs": Trial(DIGIT, {"epochs": 10}, network=STROKES, augment="none"),
        "clean digits, 5 epochs": Trial(DIGIT, {"epochs": 5}, network=STROKES, augment="none"),
        "clean digits, half moved a little, 5 epochs": Trial(
            DIGIT, {"epochs": 5}, network=STROKES, augment="nearly alone"
        ),
        "mix, 5 epochs": Trial(DIGIT, {"epochs": 5}, network=STROKES),
        "mix, 10 epochs": Trial(DIGIT, {"epochs": 10}, network=STROKES),
        "mix, originals moved a little, 5 epochs": Trial(DIGIT, {"epochs": 5}, network=STROKES, augment="nearly"),
        "mix, residual, 5 epochs": Trial(DIGIT, {"epochs": 5}, network=STROKES | {"residual": True}),
        "mix, label smoothing, 5 epochs": Trial(DIGIT, {"epochs": 5, "label_smoothing": 0.05}, network=STROKES),
        "mix, half as many filters again, 5 epochs": Trial(
            DIGIT, {"epochs": 5}, network={"filters": ((24, 48), (96, 96), (192, 192))}
        ),
        "mix, from the clean network on, 5 epochs": Trial(DIGIT, {"epochs": 5}, start="clean digits, 5 epochs"),
        "mix, from the clean network on, 10 epochs": Trial(DIGIT, {"epochs": 10}, start="clean digits, 5 epochs"),
    },
    "03_chest_xray": {
        "from scratch, moved, 8 epochs": Trial(CHEST, {"epochs": 8}, network=BONES, augment="moved"),
        "from scratch, exposed, 8 epochs": Trial(CHEST, {"epochs": 8}, network=BONES),
        "from scratch, exposed, border covered, 8 epochs": Trial(
            CHEST, {"epochs": 8}, network=BONES, augment="covered"
        ),
        "from scratch, exposed, border covered, mixup, 8 epochs": Trial(
            CHEST, {"epochs": 8, "mixup": 0.2}, network=BONES, augment="covered"
        ),
        "MobileNetV2 0.35, frozen": Trial(LUNGS, base=MOBILENET),
        "EfficientNet-Lite0, frozen": Trial(LUNGS, base=LITE),
        "MobileNetV2 0.35, all layers, exposed, 5 epochs": _tune(MOBILENET, LUNGS, 5, 7e-4),
        "MobileNetV2 0.35, all layers, border covered, 5 epochs": _tune(MOBILENET, LUNGS, 5, 7e-4, augment="covered"),
        "MobileNetV2 0.35, all layers, border covered, 10 epochs": _tune(MOBILENET, LUNGS, 10, 7e-4, augment="covered"),
        "EfficientNet-Lite0, from block 3 on, border covered, 3 epochs": _tune(
            LITE, LUNGS, 3, 3e-4, first=BLOCK_3, augment="covered"
        ),
    },
    "02_ham10000": {
        "MobileNetV2 0.35, frozen": Trial(LESION, base=MOBILENET),
        "EfficientNet-Lite0, frozen": Trial(LESION, base=LITE),
        "MobileNetV2 0.35, all layers, 12 epochs": _tune(MOBILENET, LESION, 12, 1e-3, MIXUP),
        "MobileNetV2 0.35, from block 3 on, 12 epochs": _tune(MOBILENET, LESION, 12, 1e-3, MIXUP, first=BLOCK_3),
        "EfficientNet-Lite0, from block 3 on, 5 epochs": _tune(LITE, LESION, 5, 5e-4, MIXUP, first=BLOCK_3),
        "EfficientNet-Lite0, from block 3 on, 11 epochs": _tune(LITE, LESION, 11, 5e-4, MIXUP, first=BLOCK_3),
        "MobileNetV2 0.35, all layers, random changes, 12 epochs": _tune(
            MOBILENET, LESION, 12, 1e-3, MIXUP, augment="random"
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
    "05_plants": {
        "MobileNetV2 0.35, frozen": Trial(LEAF, base=MOBILENET),
        "EfficientNet-Lite0, frozen": Trial(LEAF, base=LITE),
        "EfficientNet-Lite0, frozen, 256 x 256": Trial((256, 256, 3), base=LITE),
        "MobileNetV2 0.35, all layers, 12 epochs": _tune(MOBILENET, LEAF, 12, 1e-3),
        "EfficientNet-Lite0, from block 5 on, 6 epochs": _tune(LITE, LEAF, 6, 1e-3, first=BLOCK_5),
        "EfficientNet-Lite0, from block 3 on, 6 epochs": _tune(LITE, LEAF, 6, 5e-4, first=BLOCK_3),
        "EfficientNet-Lite0, from block 3 on, mixup, 6 epochs": _tune(
            LITE, LEAF, 6, 5e-4, {"mixup": 0.2}, first=BLOCK_3
        ),
        "from scratch, 10 epochs": Trial(MOLE, {"epochs": 10}, network=LEAVES),
        "from scratch, mixup, 10 epochs": Trial(MOLE, {"epochs": 10, "mixup": 0.2}, network=LEAVES),
        "from scratch, label smoothing, 10 epochs": Trial(MOLE, {"epochs": 10, "label_smoothing": 0.1}, network=LEAVES),
        "from scratch, 30 epochs": Trial(MOLE, {"epochs": 30}, network=LEAVES),
        "from scratch, 60 epochs": Trial(MOLE, {"epochs": 60}, network=LEAVES),
    },
    "06_leukemia": {
        "EfficientNet-Lite0, frozen": Trial(CELL, base=LITE),
        "EfficientNet-Lite0, frozen, cells alike": Trial(CELL, base=LITE, alike=False),
        "MobileNetV2 0.35, frozen": Trial(CELL, base=MOBILENET),
        "small network, 2 epochs": Trial(CELL, {"epochs": 2}, network=CELLS),
        "small network, cells alike, 10 epochs": Trial(
            CELL, {"epochs": 10, "ema_epochs": 0.5}, network=CELLS, alike=False
        ),
        "small network, without changes of the stain, 2 epochs": Trial(
            CELL, {"epochs": 2}, network=CELLS, augment="moved"
        ),
        "EfficientNet-Lite0, from block 5 on, 1 epoch": _tune(LITE, CELL, 1, 5e-4, first=BLOCK_5),
    },
}


class Trials:
    """The trials of a notebook: its data, divided as there, and the frozen networks that several of them share."""

    def __init__(self, notebook, folder):
        self.setup = setup = SETUPS[notebook]
        self.experiment = Experiment(notebook, folder, mode="full")
        self.data = open_data_set(setup.data_set, self.experiment, **setup.options)
        setup.divide(self.data)
        self.changes, self.features = setup.changes(), {}

    def run(self, name, trial):
        """Train, and predict the validation images, also altered ones; return a row of the table."""
        if "validation" not in set(self.data.images["split"]):
            return self._run_by_person(name, trial)
        rows, known = self.data.rows("validation"), TRIALS[self.experiment.name]
        if trial.start and trial.start not in self.experiment.models:
            self._fit(trial.start, known[trial.start], self.data.rows("train"), rows)
        self._fit(name, trial, self.data.rows("train"), rows)
        values = scores.compute_metrics(self.experiment.predict(name, "validation"), 0)["value"]
        row = {metric: values[metric] for metric in METRICS}
        for change in self.setup.altered:
            x = self.experiment.get_pixels(name)
            self.experiment.add_set(change, rows, augment.augment_images(self.changes[change], x, rows))
            values = scores.compute_metrics(self.experiment.predict(name, change), 0)["value"]
            row |= {f"{metric} {change}": values[metric] for metric in ("accuracy", "roc_auc")}
        return row | {"cpu_minutes": self.experiment.measure_cost(name)["cpu_minutes"]}

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

    def _run_by_person(self, name, trial):
        """Hold out each shipped fold of people in turn: metrics by cell are means of the folds."""
        experiment, images, by_fold, people = self.experiment, self.data.images, [], []
        runs = split.list_runs(images.loc[self.data.rows("train")], "fold", experiment.seed)
        for run, rows in runs.items():
            key, training = f"{name}, {run}", images.loc[rows["train"]]
            balanced, recipe = split.repeat_groups(training, experiment.seed), trial.recipe
            if not trial.alike:
                balanced = training.index.to_numpy()
                recipe = recipe | {"class_weights": fit.compute_class_weights(self.data.encode_labels(balanced))}
            self._fit(key, replace(trial, recipe=recipe), balanced, rows["test"])
            table = experiment.predict(key, rows["test"])
            by_fold.append(scores.compute_metrics(table, 0)["value"])
            people.append(scores.average_by_group(calibration.center_classes(table)))
        row = pd.concat(by_fold, axis=1).mean(axis=1)[METRICS].to_dict()
        by_person = scores.compute_metrics(pd.concat(people, ignore_index=True), 0)["value"]
        minutes = sum(experiment.measure_cost(f"{name}, {run}")["cpu_minutes"] for run in runs)
        return row | {"roc_auc by person": by_person["roc_auc"], "cpu_minutes": minutes}

    def _fit(self, name, trial, training, validation):
        experiment, x = self.experiment, self.data.load_pixels(trial.shape)
        rows = {"training": training, "validation": validation}
        options = {"batch_size": 32, "learning_rate": 3e-3, "weight_decay": 0.05} | self.setup.recipe
        if trial.base:
            extractor, features = self._extract(trial, rows)
            weights = {"class_weights": trial.recipe.get("class_weights")}
            head = Recipe(**options | weights | {"epochs": 20, "learning_rate": 2e-3, "ema_epochs": 0.5})
            experiment.fit(
                name,
                lambda: transfer.build_head(features[training], len(self.data.class_names)),
                features,
                head,
                precision="float32",
                extractor=extractor,
                predict_from=x,
                views=self.setup.views,
                **rows,
            )
        if "epochs" in trial.recipe:
            build = partial(self._build, trial, experiment.models.get(name), training)
            options = {"ema_epochs": 1} | options | {"augment": self.changes[trial.augment]}
            recipe = Recipe(**options | {"precision": experiment.precision} | trial.recipe)
            precision = "float32" if trial.base else None
            experiment.fit(name, build, x, recipe, precision=precision, views=self.setup.views, **rows)

    def _extract(self, trial, rows):
        """Compute the features of a frozen network once for all trials that use it."""
        key = trial.base, trial.shape
        if key not in self.features:
            prepare = self._prepare(trial.shape, for_pixels=True)
            x = self.data.load_pixels(trial.shape)
            self.experiment.choose_base([trial.base], x, **rows, prepare=prepare)
            extractor = self.experiment.build_extractor(trial.shape, prepare=prepare)
            self.features[key] = extractor, transfer.compute_features(extractor, x)
        return self.features[key]

    def _prepare(self, shape, for_pixels=False):
        """Make what standardizes single cells, each by itself; None for other images."""
        if self.setup.data_set != "leukemia":
            return None
        masks = cells.find_cells(self.data.load_pixels(shape))
        crop = cells.find_crop(masks[self.data.rows("train")], share=0.999)
        standardize = partial(networks.standardize_cells, size=crop, threshold=cells.BACKGROUND_LEVEL)
        return (lambda raw: transfer.to_pixel_range(standardize(raw), 2 * crop)) if for_pixels else standardize

    def _build(self, trial, frozen, training):
        if trial.start:
            return surgery.copy_model(self.experiment.models[trial.start], "further")
        if not trial.base:
            prepare = self._prepare(trial.shape)
            statistics = None
            if prepare is None:
                statistics = preprocess.compute_statistics(self.data.load_pixels(trial.shape), training)
            n_classes = len(self.data.class_names)
            return networks.build_cnn(trial.shape, n_classes, statistics, prepare=prepare, **trial.network)
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
