"""An experiment: the settings, models, predictions and results of one notebook, and what is done with them.

This module stands above the three rooms and knows them all. It is thin: plain arrays, DataFrames and Keras models go in
and come out, and each step can also be done by hand with the functions of the rooms.
"""

import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import Markdown, display

from helpers.training import fast, fit, networks, saving, surgery, transfer  # isort: skip  (first: they start TensorFlow without its log lines)
import keras

from helpers import card, progress
from helpers.data import opening, preprocess
from helpers.data.catalog import list_data_sets
from helpers.evaluation import baselines, calibration, choosing, foreign, plots, scores
from helpers.evaluation.alt_text import read_first_sentence
from helpers.evaluation.full_run import FullRun
from helpers.evaluation.marks import mark_outputs, picture_figure
from helpers.evaluation.report import Report, make_key, tabulate_scores
from helpers.files import InputError
from helpers.leftovers import tidy_up
from helpers.parallel import count_workers, use_cluster
from helpers.settings import CACHES, PROJECT_FOLDER, read_settings
from helpers.study import cnn, design, runner
from samples.strangers import draw_strangers

_FORGOTTEN = 90 * 86_400  # seconds, after which nobody goes on with a training
_CHECKED = 64  # images that a saved model predicts once more when it is loaded again


def open_data_set(name, experiment, **options):
    """Find or download a data set, index and measure it, and set aside what cannot be used.

    Parameters
    ----------
    name : str, DataSet or sequence of str
        As in `helpers.data.catalog`, or a record of your own; of several, ``DATA_SET`` chooses, or else the first that
        lies in ``DATA_DIR``.
    experiment : Experiment
        Works with this data set from now on; its report knows whether the images are the built-in sample.
    **options
        ``most, limit_by, whole_groups`` of `helpers.data.opening.open_data_set`, which says what is raised, too.

    Returns
    -------
    OpenDataSet, see `helpers.data.opening`.
    """
    data = opening.open_data_set(name, experiment.settings, **options)
    notebook = "_".join(filter(None, [experiment.name, data.record.edition]))
    experiment.data = data
    # Forget what belongs to the data set that was open before.
    kept = experiment.predictions, experiment._final, experiment._sets, experiment._familiar
    for known in (*kept, experiment.saved, experiment.reviews):
        known.clear()
    experiment.base, folder = None, experiment.folder / "figures"
    experiment.report = Report(notebook, experiment.settings, data.source.is_sample, folder, data.record.sample)
    experiment.report.save_table(data.problems, "problems")
    mark_outputs(experiment.report.mark)
    return data


class Experiment:
    """What one notebook tries. What killed runs have left unfinished is removed first.

    ``name`` is that of the notebook, such as ``02_ham10000``; its results go to folders of this name in ``figures/``
    and ``models/`` of ``folder``, the project's by default. ``mode``, "quick" or "full", takes the place of
    ``NOTEBOOK_MODE``; an unknown one is an InputError.

    Attributes
    ----------
    settings, seed, quick
        Read from the environment, see `helpers.settings`.
    precision : str
        The Keras dtype policy of the networks, see `helpers.training.fast.set_precision`.
    data, report : OpenDataSet and Report, since a data set was opened
    models, histories : dict of str to keras.Model and DataFrame, of each name that was fitted
    predictions : dict of (str, str) to DataFrame
        Of each model and set, from `helpers.evaluation.scores.make_predictions`; those of models before calibration,
        those that were added, averages and runs of a cross-validation as they are.
    temperatures : dict of str to float
    scores : dict of str to dict of str to DataFrame, of each model and set
    chosen : str, the model that `choose` chose
    lead : Series, by how much the best model was ahead of the best simple one then
    base : str, the pretrained network that `choose_base` chose
    saved : dict of str to dict, of each saved model: ``path``, ``model``, and over how many ``views`` it was evaluated
    reviews : dict of str to Review, of each model that was reviewed
    full_run : FullRun, what the committed full run found, see `helpers.evaluation.full_run`
    """

    def __init__(self, name, folder=PROJECT_FOLDER, mode=None):
        self.name, self.folder, self.settings = name, Path(folder), read_settings(mode=mode)
        progress.show(self.settings.progress)
        self.seed, self.quick = self.settings.seed, self.settings.quick
        use_cluster(self.settings.dask_scheduler)
        fast.use_all_gpus()
        self.precision = fast.set_precision(self.settings.precision)
        plots.set_style()
        _shorten_interrupts()
        caches = [self.settings.cache_dir / name for name in CACHES]  # beside which may be what is not ours
        tidy_up(*caches, self.folder / "models", self.folder / "figures")
        _forget_trainings(self.settings.cache_dir / "checkpoints")
        self.data = self.report = self.chosen = self.lead = self.base = None
        self.models, self.histories, self.predictions, self.temperatures, self.scores = {}, {}, {}, {}, {}
        self.saved, self.reviews = {}, {}
        self._sets, self._fits, self._final, self._familiar, self._weights = {}, {}, {}, {}, {}

    def __repr__(self):
        where = f"{count_workers()} {'workers of a Dask cluster' if self.settings.dask_scheduler else 'cores'}"
        return f"{self.name}: {self.settings.mode} mode, seed {self.seed}, {self.precision}, {where}"

    # Training

    def fit(
        self,
        name,
        build,
        x,
        recipe,
        *,
        training="train",
        validation="validation",
        seed=None,
        precision=None,
        views=1,
        extractor=None,
        predict_from=None,
        label=None,
    ):
        """Build a model and train it; a training that was interrupted goes on, a finished one is not done again.

        Parameters
        ----------
        name : str
            Of the model. A comma divides the name of a model from that of a run of it, such as "cnn, fold 1".
        build : function ``() -> keras.Model``
            Builds a fresh model, from ``x`` to probabilities of the classes. Plain layers of Keras are made fast, see
            `helpers.training.fast.fuse`.
        x : array
            A row for each image of the data set: raw pixels (n, height, width, channels), features (n, n_features), or
            features of several views (views, n, n_features), all of which are trained on.
        recipe : Recipe
            See `helpers.training.fit`.
        training, validation : str, array of int, or tuple of 2 or 3 arrays
            The name of a set, the rows of its images, or pixels or features, one-hot labels, and rows of their own.
        seed, precision : optional
            Those of the experiment by default.
        views : {1, 4, 8}
            For test-time augmentation: over how many views of an image its predictions are averaged.
        extractor : keras.Model, optional
            What has computed the features; it is joined with the trained classifier to one model.
        predict_from : array, optional
            The pixels that the joined model is to predict, instead of the features.
        label : str, optional
            What the line of progress calls the training; by default the name.

        Returns
        -------
        keras.Model, trained.

        Raises
        ------
        InputError
            The model has not an output for each class, or there is no such set.
        Interrupted
            The training was interrupted; it goes on when the cell is run again.
        """
        seed = self.seed if seed is None else seed
        with _building(precision or self.settings.precision, seed) as precision:
            model = self._build(name, build)
        data = self._select(x, training, every_view=True), self._select(x, validation)
        checkpoint = self._checkpoints / f"{make_key(name)}.npz"
        history = fit.fit_model(model, *data, recipe, seed=seed, checkpoint=checkpoint, label=label or name)
        model.compile("sgd")  # lets go of an optimizer that holds three copies of all weights
        head, pixels = model, x if predict_from is None else predict_from
        if extractor is not None:
            model = surgery.join(extractor, head, make_key(name))
            surgery.unfreeze_from(model, "feature_scaling")
        about = {"x": pixels, "head": head, "views": views, "recipe": recipe, "precision": precision}
        about |= {"training": training, "validation": validation}
        if name in self._fits and not _predict_alike(about, self._fits[name]):
            self._forget(name)
        self.models[name], self.histories[name] = model, history
        self._fits[name] = self._fits.get(name, {}) | about
        return model

    def fit_simple(self, name, x, training="train", validation="validation"):
        """Fit the simplest model that a network has to beat: a logistic regression on statistics of the pixels.

        The statistics, see `helpers.training.networks.build_pixel_statistics`, are brightness and colour of the whole,
        the middle and the border: no shape and no texture. What is fitted is a Keras model like the others, from raw
        pixels to probabilities, and can be calibrated, chosen, saved and exported like them. It is fitted in one step,
        so that it has no history; ``validation`` only tells which images are held out.
        """
        rows = self._find_rows(training)
        y = self._need_data().encode_labels(rows)
        with _building("float32", self.seed):
            statistics = networks.build_pixel_statistics(x.shape[1:])
            known = fast.predict_probabilities(statistics, x, rows)
            kernel, bias = baselines.regression_to_dense(baselines.fit_regression(known, y))
            # The regression takes all classes for equally frequent; as it is given here, they are as in training.
            model = networks.build_simple_model(x.shape[1:], kernel, bias + np.log(y.mean(axis=0)), make_key(name))
        about = {"x": x, "head": model, "views": 1, "recipe": None, "precision": "float32"}
        if name in self._fits and not _predict_alike(about, self._fits[name]):
            self._forget(name)
        self.models[name] = model
        self._fits[name] = about | {"training": training, "validation": validation}
        return model

    def cross_validate(self, name, build, x, recipe, runs, **options):
        """Train a model once for each run, so that every image is predicted by networks that never saw its group.

        Parameters
        ----------
        name, x, options
            As for `fit`; the runs are called "<name>, <run>".
        build : function ``run -> keras.Model``
            Builds a fresh model for a run, given by its name.
        recipe : Recipe, or function ``run -> Recipe``
        runs : dict of str to dict
            From `helpers.data.split.list_runs`: for each run the rows ``train``, ``validation`` and ``test``, and its
            ``seed``.

        Returns
        -------
        array (n, n_classes): probabilities of all images, averaged where several runs predict the same one; NaN for
        images that none predicts.
        """
        total = np.zeros((len(self._need_data().images), len(self.data.class_names)))
        count = np.zeros((len(total), 1))
        for key in [key for key in self._fits if key.startswith(f"{name}, ") and key[len(name) + 2 :] not in runs]:
            self._forget(key)  # of a cross-validation with more runs
        for run, rows in runs.items():
            key = f"{name}, {run}"
            alike = sum(other.rpartition(" ")[0] == run.rpartition(" ")[0] for other in runs)  # folds, or refits
            about = {"label": f"{key} of {alike}, seed {rows['seed']}", "seed": rows["seed"]}
            about |= {"training": rows["train"], "validation": rows["validation"]}
            self.fit(key, partial(build, run), x, recipe(run) if callable(recipe) else recipe, **about, **options)
            self._fits[key]["run_for"] = name
            for part in ("validation", "test"):
                self.add_predictions(key, part, self.predict_probabilities(key, rows[part]), rows[part])
            total[rows["test"]] += scores.get_probabilities(self.predictions[key, "test"])[0]
            count[rows["test"]] += 1
        return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)

    def run_study(self, x, base, factors, seeds, sets=None):
        """Train small networks on ``x``, one factor changed at a time around a base, and save the table of results.

        ``base, factors, seeds`` are those of `helpers.study.design.list_trials`, with the settings of
        `helpers.study.cnn.train_cnn`, whose precision is that of the experiment; ``sets`` name the set of each image,
        by default that of the split.

        Returns
        -------
        DataFrame, from `helpers.study.design.expand_results`; trials that failed have an ``error``.
        """
        if sets is None:
            self._need_data().rows("train")  # or an error that tells what to do
            sets = self.data.images["split"]
        sets = np.asarray(sets, str)
        statistics = np.array(preprocess.compute_statistics(x, np.flatnonzero(sets == "train")))
        base = base | {"precision": self.precision}
        folder = self.settings.cache_dir / "studies" / self.report.place
        arrays = x, self.data.encode_labels(), sets, statistics
        trials = design.list_trials(base, factors, seeds)
        results = runner.run_study(cnn.train_cnn, trials, folder, arrays)
        table = design.expand_results(results, base, factors)
        self.report.save_table(table, "study")
        return table

    def choose_base(self, names, x, *, training="train", validation="validation", prepare=None, most=2000):
        """Choose a network that was trained on ImageNet, by how well its features suit the images; keep it in ``base``.

        A logistic regression is fitted to the features of the frozen networks. The one with the highest mean ROC AUC on
        validation images is chosen. Networks whose weights are not at hand are left out; where one alone is left, it is
        taken. On the sample only those are looked for that come with the installed packages.

        Parameters
        ----------
        names : sequence of str, keys of `helpers.training.transfer.BASES`
        x : array (n, height, width, channels) of pixels
        training, validation : str or array of int
            Sets, or the rows of their images.
        prepare : function ``tensor -> tensor``, optional
            As for `helpers.training.transfer.build_feature_extractor`.
        most : int
            At most so many training images, drawn at random, are used.

        Returns
        -------
        DataFrame with a row for each network: where its weights come from; and, where several have some, its ROC AUC
        and how many images its features were computed of in a second.

        Raises
        ------
        InputError
            None of the networks has weights.
        """
        self.base, data_dir = None, None if self._need_data().source.is_sample else self.settings.data_dir
        found = {name: transfer.find_weights(data_dir, name) for name in names}
        self._weights = {name: weights for name, (weights, _) in found.items() if weights is not None}
        if not self._weights:
            raise InputError(" ".join(note for _, note in found.values()))
        rows, held_out = self._find_rows(training), self._find_rows(validation)
        rows = np.sort(np.random.default_rng(self.seed).permutation(rows)[:most])
        table = {name: {"ROC AUC": np.nan, "images per second": np.nan, "weights": found[name][1]} for name in names}
        for name in self._weights if len(self._weights) > 1 else ():
            self.base, start = name, time.perf_counter()
            extractor = self.build_extractor(x.shape[1:], prepare=prepare)
            features = transfer.compute_features(extractor, x, np.concatenate([rows, held_out]))
            table[name]["images per second"] = round(len(features) / (time.perf_counter() - start))
            regression = baselines.fit_regression(features[: len(rows)], self.data.encode_labels(rows))
            predicted = self._tabulate(regression.predict_proba(features[len(rows) :]), held_out)
            table[name]["ROC AUC"] = scores.compute_metrics(predicted, 0).loc["roc_auc", "value"]
        self.base = max(self._weights, key=lambda name: np.nan_to_num(table[name]["ROC AUC"]))
        return pd.DataFrame(table).T.rename_axis("network").dropna(axis="columns", how="all")

    def build_extractor(self, input_shape, until=None, prepare=None):
        """Build the chosen network from raw pixels to features, in float32, which its features need.

        See `helpers.training.transfer.build_feature_extractor`. Raise InputError before `choose_base`.
        """
        if self.base is None:
            raise InputError("No pretrained network is chosen: call choose_base first.")
        with _building("float32", self.seed):
            return transfer.build_feature_extractor(input_shape, self._weights[self.base], self.base, until, prepare)

    # Prediction

    def add_set(self, name, rows, *pixels):
        """Add a set of altered images: the rows (m,) that they were made from, and pixels for each size of image."""
        rows = np.asarray(rows)
        if any(len(x) != len(rows) for x in pixels):
            raise InputError(f"The set {name!r} has {len(rows)} rows, but pixels of {[len(x) for x in pixels]} images.")
        self._sets[name] = rows, pixels
        self._drop(lambda key: key[1] == name)

    def get_pixels(self, name):
        """Get the pixels that a model predicts, a row for each image of the data set."""
        return self._need_fit(name)["x"]

    def predict_probabilities(self, name, part):
        """Predict the probabilities of a set, given by its name or its rows: float32 (m, n_classes)."""
        about = self._need_fit(name)
        x, _, rows = self._select(about["x"], part)
        if about["x"].ndim == 3:
            return np.mean([fast.predict_probabilities(about["head"], view, rows) for view in about["x"]], axis=0)
        whole = about["x"].ndim == 4
        return fast.predict_probabilities(self.models[name] if whole else about["head"], x, rows, about["views"])

    def predict(self, name, part="test"):
        """Predict a set, or rows, by a model: a table from `make_predictions`, before calibration."""
        if not isinstance(part, str):
            return self._tabulate(self.predict_probabilities(name, part), part)
        key = name, part
        if key in self.predictions and key not in self._final and name in self._fits:
            ids = self.data.images["image_id"].to_numpy()[self._find_rows(part)]
            if not np.array_equal(self.predictions[key]["image_id"], ids):
                del self.predictions[key]  # of a split that was made before
        if key not in self.predictions:
            if name not in self._fits and name in {known for known, _ in self.predictions}:
                raise InputError(f"{name!r} has no predictions of {part!r}, and there is no model to make them.")
            self.predictions[key] = self._tabulate(self.predict_probabilities(name, part), part)
        return self.predictions[key]

    def add_predictions(self, name, part, y_prob, rows=None):
        """Add predictions that come from elsewhere, such as a baseline; they are not calibrated.

        ``y_prob`` are probabilities (m, n_classes) of the images of the set, or of ``rows`` of the data set, or a table
        of predictions as it is.
        """
        if not isinstance(y_prob, pd.DataFrame):
            y_prob = self._tabulate(y_prob, part if rows is None else rows)
        self.predictions[name, part] = y_prob
        self._final[name, part] = ()

    def average(self, name, members, *parts):
        """Add the average of several models' probabilities on some sets under a name of its own."""
        for part in parts:
            tables = [self.calibrated(member, part) for member in members]
            y_prob = np.mean([scores.get_probabilities(table)[0] for table in tables], axis=0)
            self.add_predictions(name, part, scores.replace_probabilities(tables[0], y_prob))
            self._final[name, part] = tuple(members)

    def calibrate(self, part="validation", names=None, undo_weights=False):
        """Fit a temperature for each model on a set (Guo et al. 2017), by which its predictions are calibrated.

        ``undo_weights`` first corrects the probabilities of models that were trained with class weights to the shares
        that the classes have in training.
        """
        for name in self._list_uncalibrated(part) if names is None else names:
            self._need_fit(name)["undo_weights"] = undo_weights
            self.temperatures[name] = calibration.fit_temperature(self.undo_weights(name, part))
        return self.temperatures

    def undo_weights(self, name, part):
        """Predict a set; where `calibrate` was told to, for the shares that the classes have in training."""
        about = self._need_fit(name)
        weights = about["recipe"] and about["recipe"].class_weights
        if weights is None or not about.get("undo_weights"):
            return self.predict(name, part)
        prior = self.prior
        return calibration.correct_prior(self.predict(name, part), prior * weights, new_prior=prior)

    @property
    def prior(self):
        """The shares of the classes in training: float32 (n_classes,)."""
        return self._need_data().encode_labels(self.data.rows("train")).mean(axis=0)

    def calibrated(self, name, part="test"):
        """Predict a set by a model, calibrated where `calibrate` has fitted a temperature."""
        if (name, part) in self._final or name not in self.temperatures:
            return self.predict(name, part)
        return calibration.apply_temperature(self.undo_weights(name, part), self.temperatures[name])

    # Evaluation

    def choose(self, metric="roc_auc", part="validation", among=None, simple=()):
        """Choose the model with the highest metric on a set; keep its name in ``chosen``.

        Where that set does not tell one of the ``simple`` models from it, the simple one is chosen, see
        `helpers.evaluation.choosing.choose_simple`. Models are compared before calibration. The runs of a
        cross-validation, which have sets of their own, are left out unless they are ``among`` those to choose from.

        Returns
        -------
        DataFrame with one row per model, of all or those ``among``: its metrics.
        """
        names = list(self._list_uncalibrated(part) if among is None else among)
        if not names:
            raise InputError("There is no model to choose from: call fit first.")
        values = {name: scores.compute_metrics(self.predict(name, part), 0)["value"] for name in names}
        table = pd.DataFrame(values).T.rename_axis("model")
        comparable = table.columns.drop(["expected_calibration_error", "majority_rate"])
        if metric not in comparable:
            raise InputError(
                f"metric={metric!r}: expected one of {', '.join(comparable)}, of which a higher one is better."
            )
        tables = {name: self.predict(name, part) for name in names}
        best = table[metric].drop(list(simple), errors="ignore").idxmax()
        self.chosen, self.lead = choosing.choose_simple(tables, best, simple, metric) if simple else (best, None)
        return table

    def score(self, *parts, names=None, metrics=None, resamples=1000):
        """Score models on sets, "test" by default, with 95 % intervals over groups; keep all metrics in ``scores``.

        ``names`` are by default all that were fitted, and all that predictions of the sets were added for.

        Returns
        -------
        DataFrame of str, one row per model and set, with the ``metrics`` that are to be shown.
        """
        parts = parts or ("test",)
        if names is None:
            added = [key for key in self._final if key[1] in parts]
            keys = dict.fromkeys([*((name, part) for name in self.models for part in parts), *added])
        else:
            keys = [(name, part) for name in ([names] if isinstance(names, str) else names) for part in parts]
        if not keys:
            raise InputError("There is nothing to score: call fit first.")
        shown = {}
        for name, part in keys:
            table = scores.compute_metrics(self.calibrated(name, part), resamples)
            self.scores.setdefault(name, {})[part] = shown.setdefault(name, {})[part] = table
        table = tabulate_scores(shown, metrics) if metrics else tabulate_scores(shown)
        return table if len(parts) > 1 else table.droplevel("test set")

    def compare(self, first, second, part="test", resamples=1000):
        """Compare two models on the same images: metrics of the first minus those of the second, with intervals."""
        return scores.compare_metrics(self.calibrated(first, part), self.calibrated(second, part), resamples)

    def plot_history(self, *names, watched="validation"):
        """Draw accuracy and loss over the epochs of some models, or of all; see `plot_learning_curves`."""
        for name in names:
            self._need_fit(name)
        return plots.plot_learning_curves({name: self.histories[name] for name in names or self.histories}, watched)

    # Results

    def show(self, figure, name, takeaway="", shows_images=False, alt=""):
        """Export a figure, or that of Axes, under a name; display it, and below it a sentence that says what it shows.

        ``takeaway`` is in Markdown. ``shows_images`` tells that the figure shows images, see
        `helpers.evaluation.report.Report.save_figure`. ``alt`` is what those hear who do not see the figure: by default
        what is drawn in it, and the first sentence of the takeaway.
        """
        figure = self.report.save_figure(figure, name, shows_images, alt)
        alt = alt or f"{figure.alt} {read_first_sentence(takeaway)}".strip()
        display(picture_figure(figure, name, alt), *([Markdown(takeaway)] if takeaway else []))
        plt.close(figure)

    def measure_cost(self, name):
        """Sum up what a model cost in all runs of its cross-validation, and tell what it is: for ``results.json``."""
        runs = [key for key in self.histories if self._fits[key].get("run_for", key) == name]
        if not runs:
            return {}
        history = pd.concat([self.histories[key] for key in runs])
        model = self.models[runs[0]]
        return {
            "epochs": len(history),
            "wall_minutes": history["wall_seconds"].sum() / 60,
            "cpu_minutes": history["cpu_seconds"].sum() / 60,
            "parameters": model.count_params(),
            "precision": self._fits[runs[0]]["precision"],
            "input": "x".join(map(str, model.input_shape[1:])),
        }

    def collect(self, *parts, names=None):
        """Put the calibrated predictions of several models and sets into one table with ``model`` and ``test_set``."""
        known = dict.fromkeys(name for name, part in self.predictions if part in parts)
        names = known if names is None else names
        tables = {(name, part): self.calibrated(name, part) for name in names for part in parts}
        table = pd.concat(tables, names=["model", "test_set"]).reset_index(["model", "test_set"])
        return table if len(parts) > 1 else table.drop(columns="test_set")

    def save_model(self, name, model=None, pixels=None, training=None, validation=None, **about):
        """Save a model for `helpers.predict`, load it again, make sure that it predicts the same; return the file.

        Its model card is written beside it, see `helpers.card`; `save` completes it.

        Parameters
        ----------
        model : keras.Model, optional
            Another model than the one that was fitted under this name, such as a calibrated copy.
        pixels : array (n, height, width, channels), optional
            What it takes, a row for each image of the data set; by default what the fitted model took.
        training, validation : str or array of int, optional
            The sets, or the rows of its images, that tell which images are familiar to the model, see
            `helpers.evaluation.foreign`; by default those that it was fitted with.
        **about
            Kept with the model besides the name of the data set, the classes and, for sets of classes, the
            ``conformal`` thresholds of the validation images, see `helpers.training.saving.save_model`.
        """
        fitted = self._fits.get(name, {}) if model is not None else self._need_fit(name)
        model = self.models[name] if model is None else model
        pixels = fitted.get("x") if pixels is None else pixels
        if pixels is None or pixels.shape[1:] != model.input_shape[1:] or len(pixels) != len(self.data.images):
            raise InputError(f"{name}: give pixels=..., of shape {model.input_shape[1:]}, a row for each image.")
        given = {"training": training, "validation": validation}
        sets = {kind: fitted.get(kind) if part is None else part for kind, part in given.items()}
        rows, held_out = self._sample_rows(**sets)
        familiar = self._learn_familiar(model, pixels, rows, held_out)
        self._familiar[name] = model, pixels, familiar
        if "conformal" not in about:
            y_prob = fast.predict_probabilities(model, pixels, held_out, about.get("views", 1))
            about["conformal"] = calibration.fit_conformal(self._tabulate(y_prob, held_out))
        record = self.data.record
        about = {
            "class_names": self.data.class_names,
            "data_set": record.name,
            "background": record.background,
            "may_be_inverted": record.may_be_inverted,
        } | about
        path = self.folder / "models" / self.report.place / f"{make_key(name)}.keras"
        checked = np.arange(min(_CHECKED, len(pixels)))

        def check(loaded):
            before, after = (fast.predict_probabilities(either, pixels, checked) for either in (model, loaded))
            if not np.array_equal(before, after):
                raise RuntimeError(f"{path}: loaded again, the model predicts otherwise. It was not saved.")

        saving.save_model(model, path, about, familiar.to_arrays(), check)
        self.saved[name] = {"path": path, "model": model, "views": fitted.get("views", 1)}
        card.write_card(self, name)
        return path

    def gather_strangers(self, shape, count=100):
        """Gather pictures that are none of this data set, to see whether a model would notice.

        They are some of each other data set that is there, in ``DATA_DIR`` or as a sample, and those of
        `samples.strangers.draw_strangers`. A line says which data set is left out, and why.

        Returns
        -------
        dict of str to uint8 arrays (at most ``count``, height, width, channels), of the ``shape`` of an image.
        """
        strangers, missing, tasks = {}, {}, {self._need_data().record.task}
        for record in list_data_sets():
            if record.task not in tasks:  # two collections have the same one
                try:
                    strangers[record.name] = opening.load_some(record, self.settings, shape, count)
                    tasks.add(record.task)
                except InputError as error:
                    missing[record.task] = f"{record.name} is left out: {error}\n"
        for reason in (missing[task] for task in missing if task not in tasks):
            sys.stdout.write(reason)
        return strangers | draw_strangers(shape, count, self.seed)

    def measure_distances(self, name, others, part="test"):
        """Measure how unlike the training images of a saved model the images of a set, and others, are.

        Parameters
        ----------
        name : str
            Of a model that `save_model` has saved.
        others : dict of str to uint8 arrays (n, height, width, channels)
            Images of each kind, of the size that the model takes.
        part : str or array of int
            A set, or rows of its images, which are then the kind "test".

        Returns
        -------
        DataFrame, one row per image: ``kind``; ``distance``, of which more than 1 is ``foreign``; and ``nearest``, the
        nearest training image.
        """
        if name not in self._familiar:
            raise InputError(f"{name!r} is not saved: call save_model first.")
        model, pixels, familiar = self._familiar[name]
        kinds = {part if isinstance(part, str) else "test": (pixels, self._find_rows(part))}
        kinds |= {kind: (x, np.arange(len(x))) for kind, x in others.items()}
        tables = []
        for kind, images in kinds.items():
            distance, nearest = familiar.compare(*self._describe(model, *images))
            about = {"kind": kind, "distance": distance, "foreign": distance > 1, "nearest": nearest}
            tables.append(pd.DataFrame(about))
        return pd.concat(tables, ignore_index=True)

    def save(self, protocol, cost=None, train=None):
        """Save all scores as ``results.json``, histories, costs and model cards; forget finished trainings.

        ``protocol`` says how the images were split and the model chosen. ``cost`` and ``train`` hold, for names of
        models, what else to tell of their cost, and metrics on their training images. The path that is returned, of the
        folder of figures and tables, is relative to ``folder``.
        """
        if not self.scores:
            raise InputError("There are no scores to save: call score first.")
        for name, test_sets in self.scores.items():
            about = (
                ({} if self.chosen is None else {"chosen": name == self.chosen})
                | self.measure_cost(name)
                | (cost or {}).get(name, {})
            )
            test_sets = {make_key(part): table for part, table in test_sets.items()}
            self.report.add_result(make_key(name), test_sets, about, (train or {}).get(name))
        if self.histories:
            histories = pd.concat(self.histories, names=["model"]).reset_index()
            self.report.save_table(histories, "histories", decimals=6)
            costs = {name: cost for name in self.scores if (cost := self.measure_cost(name))}
            self.report.save_table(pd.DataFrame(costs).T.rename_axis("model").reset_index(), "costs")
        results = self.report.save_results(self.data.summarize(), protocol)
        for name in self.saved:
            card.write_card(self, name, results)
        for name in self.histories:
            (self._checkpoints / f"{make_key(name)}.npz").unlink(missing_ok=True)
        return self.report.folder.relative_to(self.folder)

    # The full run

    @property
    def full_run(self):
        """What the committed full run on real images found, see `helpers.evaluation.full_run`."""
        return FullRun(self.name if self.report is None else self.report.notebook, self.folder / "figures")

    def compare_with_full_run(self, *metrics, names=None, part="test"):
        """Set metrics of models beside those of the full run; by default of all models that were scored."""
        return self.full_run.compare(self.scores, list(names or self.scores), metrics, part, self._mark)

    def compare_directions(self, *pairs, metric="accuracy", part="test"):
        """Say for pairs of models which is better, here and in the full run, and which run to believe.

        See `helpers.evaluation.full_run.FullRun.compare_directions`.
        """
        n_tested = max((len(table) for (_, known), table in self.predictions.items() if known == part), default=0)
        why = f"this run tested {n_tested:,} images of the {self._mark}" if self.data.source.is_sample else ""
        return self.full_run.compare_directions(self.scores, pairs, metric, part, self._mark, why)

    @property
    def _mark(self):
        return self.report.mark or "this run"

    # What the methods share

    def _sample_rows(self, training, validation):
        """Draw from the sets of a saved model the rows of images that say what it knows, and of held-out ones."""
        sets = (training, "train"), (validation, "validation")
        rows, held_out = (
            self._find_rows(default if part is None or isinstance(part, tuple) else part) for part, default in sets
        )
        rng = np.random.default_rng(self.seed)
        return [np.sort(rng.permutation(some)[: foreign.PROTOTYPES]) for some in (rows, held_out)]

    def _learn_familiar(self, model, pixels, rows, held_out):
        """Learn what the training images of a model look like, and how far held-out images are from them."""
        ids = self.data.images["image_id"].to_numpy()[rows]
        return foreign.Familiar.fit(*self._describe(model, pixels, rows), ids, *self._describe(model, pixels, held_out))

    @staticmethod
    def _describe(model, pixels, rows):
        """Describe images by what a model sees and by simple statistics."""
        chunks = [rows[start : start + 256] for start in range(0, len(rows), 256)]
        statistics = np.concatenate([foreign.describe_pixels(pixels[chunk]) for chunk in chunks])
        return fast.predict_with_features(model, pixels, rows)[1], statistics

    def _build(self, name, build):
        if isinstance(build, keras.Model):
            raise InputError(f"{name}: expected a function that builds a fresh model, got the model {build.name}.")
        if alike := [known for known in self._fits if known != name and make_key(known) == make_key(name)]:
            raise InputError(f"{name}: its results would be written over those of {alike[0]}; choose another name.")
        model = build()
        if any(model is known for known in (*self.models.values(), *(about["head"] for about in self._fits.values()))):
            raise InputError(
                f"{name}: build gave a model that was trained before; give a copy, see surgery.copy_model."
            )
        model = fast.fuse(model)
        model.name = make_key(name)
        class_names = self._need_data().class_names
        if model.output_shape[1:] != (len(class_names),):
            raise InputError(
                f"{name}: the model has outputs of shape {model.output_shape[1:]}; expected ({len(class_names)},), one "
                f"for each of the classes {', '.join(class_names)}."
            )
        return model

    def _forget(self, name):
        """Forget a model, and all that was made from it."""
        self._drop(lambda key: key[0] == name or name in self._final.get(key, ()))
        kept = self.models, self.histories, self._fits, self._familiar, self.temperatures, self.scores, self.saved
        for known in kept:
            known.pop(name, None)
        if self.chosen == name:
            self.chosen = None

    def _drop(self, condition):
        for key in [key for key in self.predictions if condition(key)]:
            del self.predictions[key]
            self._final.pop(key, None)

    def _list_uncalibrated(self, part):
        return [name for name in self.models if (name, part) not in self._final]

    @property
    def _checkpoints(self):
        return self.settings.cache_dir / "checkpoints" / self.report.place

    def _need_data(self):
        if self.data is None:
            raise InputError("No data set is open: call open_data_set(name, experiment) first.")
        return self.data

    def _need_fit(self, name):
        if name not in self._fits:
            raise InputError(f"There is no model {name!r}. Fitted: {', '.join(self._fits) or 'none: call fit first'}.")
        return self._fits[name]

    def _tabulate(self, y_prob, part):
        images = self._need_data().images.iloc[self._find_rows(part)]
        return scores.make_predictions(images, y_prob, self.data.class_names)

    def _find_rows(self, part):
        """Find the rows of a set, given by its name or by its rows."""
        if not isinstance(part, str):
            return np.asarray(part)
        return self._sets[part][0] if part in self._sets else self._need_data().rows(part)

    def _select(self, x, part, every_view=False):
        """Select what belongs to a set: pixels or features, one-hot labels, and the rows that they are in."""
        if isinstance(part, tuple):
            return part
        rows = self._find_rows(part)
        y = self._need_data().encode_labels(rows)
        if isinstance(part, str) and part in self._sets:
            altered = {pixels.shape[1:]: pixels for pixels in self._sets[part][1]}
            if x.shape[1:] not in altered:
                raise InputError(f"The set {part!r} has no pixels of shape {x.shape[1:]}: add them with add_set.")
            return altered[x.shape[1:]], y, np.arange(len(rows))
        if x is not None and x.ndim == 3:  # the features of all images in the first view, then in the second, ...
            views = len(x) if every_view else 1
            rows = np.concatenate([rows + number * x.shape[1] for number in range(views)])
            return x.reshape(-1, x.shape[-1]), np.tile(y, (views, 1)), rows
        return x, y, rows


@contextmanager
def _building(precision, seed):
    """Set precision and seed for what is built in the block, and the dtype policy back afterwards; give the policy."""
    before = keras.config.dtype_policy()
    precision = fast.set_precision(precision)
    fast.set_seed(seed)
    try:
        yield precision
    finally:
        keras.config.set_dtype_policy(before)


def _forget_trainings(folder):
    """Remove the checkpoints that no run has gone on with for 90 days, such as those of a name that is used no more."""
    for path in folder.rglob("*.npz"):
        with suppress(OSError, BadZipFile):  # another process may remove it too
            if time.time() - path.stat().st_mtime > _FORGOTTEN:
                with ZipFile(path) as archive:
                    is_ours = "about.npy" in archive.namelist()
                if is_ours:
                    path.unlink()


def _shorten_interrupts():
    """Let IPython show an interrupt in one line instead of the traceback through the libraries."""

    def show(shell, kind, error, trace, tb_offset=None):
        line = str(error) or "Run the cell again. What was finished before is kept."
        shell._showtraceback(kind, error, [f"{kind.__name__}: {line}"])

    if shell := get_ipython():
        shell.set_custom_exc((KeyboardInterrupt,), show)


def _predict_alike(about, before):
    """Tell whether a model that was trained again has the weights that it had."""
    weights, known = about["head"].get_weights(), before["head"].get_weights()
    same = len(weights) == len(known) and all(map(np.array_equal, weights, known))
    return same and about["views"] == before["views"] and about["x"].shape == before["x"].shape
