"""Review: the same questions to every model, answered from its predictions, pixels and features, without training.

This module stands above the three rooms. Every method answers one question: it exports a figure and a table, shows the
figure with a sentence that says what it tells, and returns the table. The numbers come from functions that can also be
called by hand: `helpers.evaluation` computes all of them.
"""

import hashlib
import time
from functools import cached_property, partial

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from helpers.training import fast, saving  # isort: skip  (first: they start TensorFlow without its log lines)

from helpers.data import audit, duplicates, preprocess
from helpers.evaluation import (
    baselines,
    calibration,
    choosing,
    corruptions,
    explain,
    foreign,
    labels,
    leaks,
    plots,
    report,
    robustness,
    scores,
    takeaways,
    thresholds,
)
from helpers.evaluation.bootstrap import compute_proportion
from helpers.files import InputError

_FARTHEST = 5  # standard deviations from the mean of a feature
_ALL_ALIKE = 0.98  # cosine of the features: above, they tell the class and little else
_FEWEST_FEATURES = 16  # with fewer, images are compared by simple statistics


class Review:
    """What is to be known of a model before it is trusted.

    Parameters
    ----------
    experiment : Experiment, with an open data set
    name : str
        Of a model with predictions of ``part`` and ``validation``.
    x, model : uint8 array (n, height, width, channels) and keras.Model, optional
        A row for each image of the data set, and the model from these pixels to probabilities; by default what was
        fitted under this name.
    part, validation : str
        The set that it is reviewed on, and the one that limits and thresholds come from.
    training : str or array of int
        The set, or the rows of the images, that it was trained on.
    positive : sequence of str, optional
        The classes that raise an alarm, from ``threshold`` on; without them the most probable class is taken.
    kind : str, of `helpers.evaluation.corruptions.KINDS`
    most : int
        At most so many test images, drawn at random, are altered or explained.
    resamples : int, of the bootstrap

    Attributes
    ----------
    tested, validated : DataFrame, the predictions of both sets
    answers : dict of str to DataFrame, the table of each question that was asked, by the name of its file
    rows : array of int, the test images among those of the data set
    strangers : dict of str to arrays, images of something else: see `Experiment.gather_strangers`
    """

    def __init__(
        self,
        experiment,
        name,
        *,
        x=None,
        model=None,
        part="test",
        validation="validation",
        training="train",
        positive=(),
        threshold=0.5,
        kind="photograph",
        most=500,
        resamples=1000,
    ):
        self.experiment, self.name, self.part, self.validation = experiment, name, part, validation
        self.x = experiment.get_pixels(name) if x is None else x
        self.model = experiment.models[name] if model is None else model
        if self.x.shape[1:] != self.model.input_shape[1:]:
            raise InputError(f"{name} takes images of {self.model.input_shape[1:]}, but x has {self.x.shape[1:]}.")
        self.data, self.images, self.report = experiment.data, experiment.data.images, experiment.report
        self.tested, self.validated = (experiment.calibrated(name, known) for known in (part, validation))
        self.training = experiment.data.rows(training) if isinstance(training, str) else np.asarray(training)
        self.rows = self._find_rows(self.tested)
        self.held_out = np.setdiff1d(self._find_rows(self.validated), self.training)
        self.positive, self.threshold, self.kind, self.resamples = list(positive), threshold, kind, resamples
        drawn = np.random.default_rng(experiment.seed).permutation(len(self.rows))[:most]
        self.drawn = np.sort(drawn)  # positions among the test images
        self.answers = {}
        experiment.reviews[name] = self

    # Questions, in the order of the notebooks

    def check_leaks(self, copies=("identical", "mirrored or turned", "cropped or tilted")):
        """Is the test set clean, or were test images, their copies or others of their groups trained on?

        Copies are looked for among all images of the three sets. The figure shows how like its nearest training image
        each test image is, by the features of the model. The table has the accuracy and ROC AUC of the model, and the
        accuracy of naming the class of that nearest image, on all and on clean test images.
        """
        used = np.concatenate([self.training, self.held_out, self.rows])
        sets = np.repeat(["training", "validation", "test"], [len(self.training), len(self.held_out), len(self.rows)])
        pairs = self._find_copies(used, copies)
        images = self.images.iloc[used].reset_index(drop=True)
        first, second = (pairs[end].to_numpy() for end in ("first", "second"))
        pairs["sets"] = ["same set" if sets[a] == sets[b] else "two sets" for a, b in zip(first, second, strict=True)]
        pairs["labels"] = (images["label"].to_numpy()[first] != images["label"].to_numpy()[second]).tolist()
        named = pairs.assign(**{end: images["image_id"].to_numpy()[pairs[end]] for end in ("first", "second")})
        self.report.save_table(named, "copies")
        start = len(used) - len(self.rows)
        trained = np.r_[first, second][sets[np.r_[second, first]] == "training"]
        leaked = np.isin(np.arange(start, len(used)), trained)
        leaked |= images["group"].iloc[start:].isin(images["group"].iloc[: len(self.training)]).to_numpy()
        nearest, similarity = leaks.find_nearest(self._features[used[start:]], self._features[self.training])
        shown = pd.DataFrame({"similarity": similarity, "test images": np.where(leaked, "leaked", "clean")})
        shown = shown.sort_values("test images")  # so that the clean ones have the first colour
        ax = plots.plot_distribution(
            shown, "similarity", "test images", xlabel="similarity to the nearest training image"
        )
        by_neighbour = self._predict_labels(self.images["label"].to_numpy()[self.training[nearest]])
        tables = {self.name: self.tested, "nearest training image": by_neighbour}
        across, two_labels = int((pairs["sets"] == "two sets").sum()), int(pairs["labels"].sum())
        text = (
            f"Pairs of copies among {len(used):,} images: {len(pairs):,}; in two sets: {across:,}; with two labels: "
            f"{two_labels:,}. Leaked test images: {leaked.sum():,} of {len(leaked):,}."
        )
        if np.median(similarity) > _ALL_ALIKE:
            text += " To this model nearly all images of a class are alike, so that its features do not show a copy."
        if leaked.all() or not leaked.any():
            price = pd.DataFrame({name: self._score(table).loc["accuracy"] for name, table in tables.items()}).T
            price = price.rename_axis("model").reset_index()
            text += " No clean image is left to compare with." if leaked.any() else ""
        else:
            price = {
                name: leaks.compute_price(table, leaked, resamples=self.resamples) for name, table in tables.items()
            }
            price = (
                pd.concat(price, names=["model", "metric"]).drop(("nearest training image", "roc_auc")).reset_index()
            )
            worth = price.iloc[0][["value", "low", "high"]].astype(float) * 100
            text += (
                f" On all test images the accuracy is {report.format_difference(worth, 1)} points above the clean ones."
            )
        self.experiment.show(ax, "leaks", text)
        return self._keep(price, "leaks")

    def check_calibration(self, coverage=0.9):
        """Can the confidence be trusted, and is the model right more often if it may abstain?

        The left panel compares confidence with accuracy. The right one shows the accuracy on those images that the
        model is surest of, over their share. The table has the calibration error before and after calibration, and how
        sets of classes do that were made to hold the true class of the share ``coverage`` of the images of each class.
        """
        abstaining = calibration.compute_abstaining(self.tested, resamples=self.resamples)
        figure, axes = plots.make_panels(1, 2, height=68)
        plots.plot_calibration(calibration.compute_calibration(self.tested), model=self.name, ax=axes[0])
        plots.plot_abstaining({self.name: abstaining}, ax=axes[1])
        self.report.save_table(abstaining, "abstaining")
        limits = calibration.fit_conformal(self.validated, coverage)
        sets = calibration.score_sets(self.tested, limits, resamples=self.resamples)
        stages, temperature = {"calibration error": self.tested}, self.experiment.temperatures.get(self.name)
        if temperature:
            stages = {"before calibration": calibration.apply_temperature(self.tested, 1 / temperature), **stages}
        scored = [scores.compute_calibration_error(table, self.resamples) for table in stages.values()]
        errors = pd.DataFrame(scored, index=list(stages))
        text = f"The expected calibration error is {report.format_value(errors.iloc[0])}."
        if temperature:
            text = takeaways.describe_calibration(*scored, temperature)
        half = abstaining.iloc[(abstaining["answered"] - 0.5).abs().argmin()]
        surest, held = (
            report.format_percent(row, 1) for row in (half.rename({"accuracy": "value"}), sets.loc["coverage"])
        )
        text += (
            f" On the half that it is surest of it is right for {surest}, on all images for "
            f"{abstaining['accuracy'].iloc[0]:.1%}. The sets hold the true class of {held} of the images "
            f"({coverage:.0%} was aimed at), and {sets.loc['mean_set_size', 'value']:.2f} of {len(limits)} classes on "
            f"average; {sets.loc['share_uncertain', 'value']:.0%} of the images are uncertain."
        )
        if few := sum(limit == 0 for limit in limits.values()):
            text += (
                f" {few} classes have too few held-out images for a threshold. They are in every set, so that the sets "
                "say little."
            )
        self.experiment.show(figure, "calibration", text)
        table = pd.concat([errors, sets]).rename_axis("measure").reset_index()
        return self._keep(table, "calibration")

    def check_shortcuts(self):
        """Would a shortcut do, and what is left of the score when it is balanced away?

        Classifiers are trained that see nothing but the size, the brightness, the colour, the border or the file of an
        image. `helpers.evaluation.baselines.balance_away` then compares only images that such a classifier finds alike.
        """
        rows, sizes = np.concatenate([self.training, self.rows]), None
        if "path" in self.images and "width" in self.images:
            paths = [self.data.source.folder / path for path in self.images["path"].iloc[rows]]
            sizes = self.images.iloc[rows][["width", "height"]].assign(bytes=[path.stat().st_size for path in paths])
        features = baselines.compute_shortcut_features(self.x, rows, sizes)
        trained_on = features.iloc[: len(self.training)]
        features = features.loc[:, trained_on.max() > trained_on.min()]  # what is constant tells nothing
        known, asked = np.split(np.arange(len(rows)), [len(self.training)])
        y_train = self.data.encode_labels(self.training)
        found = {}
        for name, y_prob in baselines.predict_shortcuts(features, y_train, known, asked).items():
            table = scores.replace_probabilities(self.tested, y_prob)
            left = baselines.balance_away(self.tested, table, self.resamples).loc["roc_auc_balanced"]
            alone = self._score(table).loc["roc_auc"]
            found[name] = {**alone, **left.add_prefix("left_")}
        table = pd.DataFrame(found).T.rename_axis("shortcut").reset_index()
        reached = self._score(self.tested).loc["roc_auc"]
        best = table.loc[table["value"].idxmax()]
        left = best.filter(like="left_").rename(lambda name: name.removeprefix("left_"))
        text = (
            f"**{self.name}** reaches a ROC AUC of {report.format_value(reached)}, the dotted line. The best of the "
            f"shortcuts, {best['shortcut']}, reaches {report.format_value(best)}. Where it is balanced away, "
            f"{report.format_value(left)} is left."
        )
        ax = plots.plot_shortcuts(table, reached["value"])
        self.experiment.show(ax, "shortcuts", text)
        return self._keep(table, "shortcuts")

    def check_robustness(self, but=(), background=0):
        """How much change can the model take: the corruptions published for such images, and shift, zoom and rotation?

        ``but`` names corruptions that the model was trained on, with or without their kind. They are left out, because
        what is trained on says nothing about what was not foreseen. One number sums up: the mean balanced accuracy over
        all of them.
        """
        known = dict.fromkeys((*corruptions.KINDS[self.kind], *corruptions.MOVEMENTS))
        names = [name for name in known if not {name, name.split(": ")[-1]} & set(but)]
        predict = {self.name: partial(fast.predict_probabilities, self.model)}
        images, table = self.x[self.rows[self.drawn]], self.tested.iloc[self.drawn].reset_index(drop=True)
        curves, summary = robustness.score_corruptions(
            predict, images, table, names, background=background, resamples=self.resamples
        )
        curves["corruption"] = curves["corruption"].str.split(": ").str[-1]  # without the kind
        summary["worst"] = summary["worst"].str.split(": ").str[-1]
        self.report.save_table(curves, "robustness")
        found, chance = summary.loc[self.name], 1 / table["y_true"].nunique()
        last = curves[curves["severity"] == curves["severity"].max()]
        lost = last.loc[last["value"] <= chance + 0.01, "corruption"]
        mean = report.format_percent(found.rename({"corrupted": "value"}), 1)
        text = (
            f"The balanced accuracy is {found['clean']:.1%} on {len(images)} unaltered test images and, as a mean over "
            f"{len(names)} corruptions in five severities, {mean}. Guessing would have {chance:.1%}; of what lies "
            f"above, {(found['corrupted'] - chance) / max(found['clean'] - chance, 1e-9):.0%} is kept. "
            f"**{found['worst']}** does most harm. To guessing it falls with: {', '.join(lost) or 'none of them'}."
        )
        self.experiment.show(plots.plot_corruptions(curves, chance), "robustness", text)
        return self._keep(summary.reset_index(), "robustness_summary")

    def check_views(self):
        """What does it bring, and cost, to average predictions over mirrored and turned views of an image?"""
        images = np.asarray(self.x[self.rows[self.drawn]])
        rows = {}
        for views in (1, 4, 8)[: 3 if images.shape[1] == images.shape[2] else 2]:
            fast.predict_probabilities(self.model, images[:64], views=views)  # the first call is slower
            start = time.perf_counter()
            y_prob = fast.predict_probabilities(self.model, images, views=views)
            seconds = time.perf_counter() - start
            table = scores.replace_probabilities(self.tested.iloc[self.drawn], y_prob)
            metrics = self._score(table)
            rows[views] = {
                "accuracy": report.format_percent(metrics.loc["accuracy"], 1),
                "ROC AUC": f"{metrics.loc['roc_auc', 'value']:.3f}",
                "times as long": seconds,
            }
        table = pd.DataFrame(rows).T.rename_axis("views")
        table["times as long"] = (table["times as long"] / table["times as long"].iloc[0]).astype(float).round(1)
        first, last = table.iloc[0], table.iloc[-1]
        display(
            Markdown(
                f"On {len(images)} unaltered test images {table.index[-1]} views take {last['times as long']} times as "
                f"long as one, and change the accuracy from {first['accuracy']} to {last['accuracy']}."
            )
        )
        return table

    def check_subgroups(self, values):
        """For whom does it work: sensitivity and specificity at the operating point for each subgroup of ``values``.

        ``values`` is a DataFrame with a row for each image of the data set and a column for each way to divide them, or
        a dict of such columns.
        """
        values = pd.DataFrame(values).iloc[self.rows].set_axis(self.tested.index)
        point = {"positive": self.positive, "threshold": self.threshold} if self.positive else {}
        table = thresholds.compute_subgroups(self.tested, values, **point, resamples=self.resamples)
        figure, axes = plots.make_panels(1, 2, height=14 + 2.4 * len(table), sharex=True, sharey=True)
        lines, names = [], None
        for ax, metric in zip(axes, ("sensitivity", "specificity"), strict=True):
            part = table[table["metric"] == metric]
            if names is None:  # with the numbers of images of the left panel
                names = (part["by"] + ": ").replace("all: ", "") + part["subgroup"]
                names = (names + " (" + part["images"].astype(str) + ")").to_numpy()
            plots.plot_intervals(part.assign(name=names), "name", f"{metric} with 95 % interval", ax=ax)
            lines.append(takeaways.describe_worst(thresholds.find_worst_subgroup(table, metric), metric))
        shown, whole = len(table[["by", "subgroup"]].drop_duplicates()) - 1, values.nunique().sum()
        if shown < whole:
            lines.append(f"Left out, because they have fewer than {thresholds.FEWEST_IMAGES} images: {whole - shown}.")
        self.experiment.show(figure, "subgroups", " ".join(lines))
        return self._keep(table, "subgroups")

    def show_errors(self, count=8):
        """Which errors is it surest of? Below each is the training image that the model finds most like it."""
        wrong = scores.find_errors(self.tested, count)
        places = self.tested.index.get_indexer(wrong.index)
        nearest, _ = leaks.find_nearest(self._features[self.rows[places]], self._features[self.training])
        nearest = self.training[nearest]
        titles = [f"{row.y_true}\n→ {row.y_pred}\n{row.confidence:.0%}" for row in wrong.itertuples()]
        titles += [f"nearest:\n{label}" for label in self.images["label"].iloc[nearest]]
        pictures = np.concatenate([self.x[self.rows[places]], self.x[nearest]])
        figure = plots.plot_image_grid(pictures, titles, max(len(wrong), 1), size=20)
        same = (self.images["label"].to_numpy()[nearest] == wrong["y_pred"].to_numpy()).sum()
        every = scores.find_errors(self.tested)
        text = (
            f"{len(every):,} of {len(self.tested):,} test images are classified wrong, "
            f"{(every['confidence'] > 0.9).sum():,} of them with a confidence above 90 %. For {same} of the "
            f"{len(wrong)} shown, the nearest training image is of the class that was predicted."
        )
        self.experiment.show(figure, "errors", text, shows_images=True)
        about = ["image_id", "group", "y_true", "y_pred", "confidence"]
        table = wrong[about].assign(nearest=self.images["image_id"].to_numpy()[nearest])
        return self._keep(table, "errors")

    def find_doubtful_labels(self, count=20):
        """Which labels of test images may be wrong? Confident learning lists those that contradict the model most."""
        found = labels.find_label_issues(self.tested, count)
        places = self.tested.index.get_indexer(found.index)
        titles = [f"{row.y_true}?\n{row.suggested}" for row in found.itertuples()]
        about = ["image_id", "group", "y_true", "suggested", "self_confidence"]
        if found.empty:
            self._keep(found[about], "doubtful_labels")
            return Markdown("No label is doubtful: the model contradicts none more than is to be expected.")
        figure = plots.plot_image_grid(self.x[self.rows[places]], titles, 8, size=20)
        text = (
            f"Doubtful labels: {len(found)}. Above each image stand its label, with a question mark, and the class "
            "that the model would give. An error of the model looks the same as one of the label: only an expert can "
            "tell."
        )
        self.experiment.show(figure, "doubtful_labels", text, shows_images=True)
        return self._keep(found[about], "doubtful_labels")

    def show_evidence(self, masks=None, count=4):
        """Where does it look, in images that it gets right, in others, and in images of something else?

        Grad-CAM is bright where the evidence for the predicted class lies. ``masks`` is a function ``images -> bool (n,
        height, width)`` that finds the object, by default an estimate. The table tells the share of the evidence that
        lies inside the object, beside the share of the area that it covers.
        """
        if not any("Conv" in type(layer).__name__ for layer in fast.list_layers(self.model)):
            return Markdown(f"**{self.name}** has no convolution, and so no map of where it looks.")
        masks = masks or explain.find_foreground
        tested = self.tested.iloc[self.drawn]
        right = scores.is_right(tested).to_numpy()
        pixels_of = {
            kind: self.x[self.rows[self.drawn[which]]] for kind, which in (("right", right), ("wrong", ~right))
        }
        pixels_of["foreign"] = np.concatenate([images[:count] for images in self.strangers.values()])
        pixels_of = {kind: np.asarray(images) for kind, images in pixels_of.items() if len(images)}
        ends = np.cumsum([len(images) for images in pixels_of.values()])[:-1]
        explained = np.concatenate(list(pixels_of.values()))
        codes = fast.predict_probabilities(self.model, explained).argmax(axis=1)
        found = np.split(explain.compute_grad_cam(self.model, explained, codes), ends)
        heatmaps = dict(zip(pixels_of, found, strict=True))
        measured = {kind: explain.measure_evidence(heatmaps[kind], masks(images)) for kind, images in pixels_of.items()}
        kinds = np.repeat(list(measured), [len(table) for table in measured.values()])
        table = explain.summarize_evidence(pd.concat(measured.values(), ignore_index=True), kinds)
        spread = {
            kind: np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)
            for kind, images in pixels_of.items()
        }
        shown = np.concatenate([images[spread[kind]] for kind, images in pixels_of.items()])
        overlays = plots.overlay_heatmaps(shown, np.concatenate([heatmaps[kind][spread[kind]] for kind in pixels_of]))
        titles = [kind for kind in pixels_of for _ in spread[kind]] + [""] * len(shown)
        pictures = np.concatenate([np.broadcast_to(shown, overlays.shape), overlays])
        figure = plots.plot_image_grid(pictures, titles, len(shown))
        first = table.iloc[0]
        verdict = "more than" if first["ratio"] > 1.1 else "no more than"
        text = (
            f"In images that are classified {table.index[0]}, {first['inside']:.0%} of the evidence lies inside the "
            f"mask, which covers {first['area']:.0%} of the area. That is {verdict} an even spread would give "
            f"(mean ratio {first['ratio']:.1f}, {first['images']:.0f} images)."
        )
        self.experiment.show(figure, "evidence", text, shows_images=True)
        return self._keep(table.reset_index(), "evidence")

    def check_choice(self, metric="roc_auc", tables=None):
        """Was it chosen well: does the best on one half of the held-out groups turn out best on the other half?

        ``tables`` are the predictions of all models that were to choose from, of the same held-out images; by default
        those of all fitted models.
        """
        if tables is None:
            tables = {name: self.experiment.predict(name, self.validation) for name in self.experiment.models}
        table, rules = choosing.check_rule(tables, metric, seed=self.experiment.seed)
        rule = rules.loc["all models"]
        ax = plots.plot_choice(table)
        title = report.get_title(metric)
        text = (
            f"In {rule['best']:.0%} of {rule['splits']:.0f} divisions the model with the highest {title} on one half "
            f"is best on the other half, too; on average it is {rule['regret']:.3f} behind the best there."
        )
        self.experiment.show(ax, "choice", text)
        return self._keep(table.reset_index(), "choice")

    def check_strangers(self, alike=()):
        """Would it refuse images of something else? See `helpers.evaluation.foreign`; the model has to be saved.

        ``alike`` are kinds of strangers that were photographed like the images here, so that no distance tells them
        apart; the sentence is not about them.
        """
        distances = self.experiment.measure_distances(self.name, self.strangers, self.rows)
        table = foreign.summarize_distances(distances)
        known, others = table["refused"].iloc[0], table["refused"].iloc[1:].drop(list(alike), errors="ignore")
        refused = report.format_percent(compute_proportion(table["images"].iloc[0] * known, table["images"].iloc[0]), 1)
        missed = others[others < 1].sort_values()
        kinds = ", ".join(f"**{name}** ({share:.0%})" for name, share in missed.items())
        spared = [name for name in alike if name in table.index]
        text = f"Of the test images {refused} are marked as foreign by mistake. "
        text += f"Without {' and '.join(spared)}, a" if spared else "A"
        text += "ll images of the other kinds are marked" + (f", but for these: {kinds}." if len(missed) else ".")
        if known > 0.2:
            text += " To this model the test images look foreign, so that the mark tells little here."
        self.experiment.show(plots.plot_distances(distances), "distances", text)
        return self._keep(table.reset_index(), "refused")

    def export_forms(self):
        """Write the model as ONNX, too, and compare size, time and predictions of all forms on test images."""
        images = np.asarray(self.x[self.rows[self.drawn[:64]]])
        folder = self.experiment.folder / "models" / self.report.place
        seconds = 0.2 if self.experiment.quick else 1.0
        table = saving.measure_forms(self.model, images, folder, report.make_key(self.name), seconds)
        others = table["largest_difference"].drop("keras")
        display(
            Markdown(
                f"On {len(images)} test images no probability of the other forms differs by more than "
                f"{others.max():.0e} from that of the Keras model in float32."
            )
        )
        return self._keep(table.reset_index(), "forms")

    # What the questions share

    @cached_property
    def strangers(self):
        """Images of something else, and test images with light and dark exchanged: arrays by kind."""
        count = 40 if self.experiment.quick else 100
        inverted = 255 - self.x[self.rows[:count]]
        return self.experiment.gather_strangers(self.x.shape[1:], count) | {"inverted": inverted}

    @cached_property
    def _features(self):
        """What the model sees in every image of the data set, standardized: float32 (n, k).

        Of a model that sees less than a few numbers, such as the area of a cell, simple statistics take their place.
        """
        features = fast.predict_with_features(self.model, self.x)[1]
        if features.shape[1] < _FEWEST_FEATURES:
            chunks = np.array_split(np.arange(len(self.x)), len(self.x) // 256 + 1)
            features = np.concatenate([foreign.describe_pixels(self.x[chunk]) for chunk in chunks])
        for some in np.array_split(features, 16, axis=1):  # a copy of all training images would fill the memory
            known = some[self.training]
            some -= known.mean(axis=0)
            some /= known.std(axis=0) + 1e-6
        return np.clip(features, -_FARTHEST, _FARTHEST, out=features)  # what hardly varies would outweigh all else

    def _score(self, table):
        return scores.compute_metrics(table, self.resamples)

    def _keep(self, table, name):
        """Save a table as it is; return it as it is shown."""
        self.answers[name] = table
        self.report.save_table(table, name)
        return report.tabulate_intervals(table)

    def _find_rows(self, table):
        rows = pd.Index(self.images["image_id"]).get_indexer(table["image_id"])
        if (rows < 0).any():
            raise InputError(f"{(rows < 0).sum()} predictions are of images that the data set does not have.")
        return rows

    def _predict_labels(self, labels):
        """Make predictions of the test images that are sure of these labels."""
        y_prob = preprocess.encode_labels(labels, self.data.class_names)[:, None] == range(len(self.data.class_names))
        return scores.replace_probabilities(self.tested, y_prob)

    def _find_copies(self, rows, copies):
        """Find copies among some images, of these kinds; see `helpers.data.audit.find_copies`."""
        contents = [hashlib.sha256(np.ascontiguousarray(self.x[row])).hexdigest() for row in rows]
        thumbnails, detail = (
            self.data.load_pixels(shape)[rows] if kind in copies else None
            for kind, shape in (("mirrored or turned", duplicates.THUMBNAIL), ("cropped or tilted", duplicates.DETAIL))
        )
        return audit.find_copies(contents, thumbnails, detail)
