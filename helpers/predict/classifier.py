"""A saved model, ready to predict the images of a table."""

import hashlib
import reprlib
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.files import InputError, guard_cell

# From the training images of MNIST, with light and dark exchanged: 499 of 500 digits on white paper are nearer; the
# nearest table is at 12, a blank page at 15.
_FAR = 8
_GRAINS = 3  # standard deviations of the paper's grey levels
_LEAST_CONTRAST = 64  # grey levels between paper and ink: less would be noise made visible
_ROUNDING = 0.01  # of probabilities in half precision
_BEFORE = ["file", "class", "confidence", "uncertain", "foreign", "distance", "nearest"]  # the probabilities
_BEHIND = ["note", "views", "content", "model"]


class Decoded(NamedTuple):
    """An image that was read."""

    pixels: np.ndarray  # (height, width, channels)
    note: str  # what was changed in it or left out
    content: str  # the beginning of the SHA-256 of its file


class Judgement(NamedTuple):
    """What a model says of images; what it cannot tell is None."""

    pixels: np.ndarray  # (n, height, width, channels), those that were predicted
    y_prob: np.ndarray  # (n, n_classes)
    sets: pd.DataFrame | None  # from `helpers.evaluation.calibration.predict_sets`
    distances: np.ndarray | None  # (n,), to the training images; above 1 an image is foreign
    nearest: np.ndarray | None  # (n,), the ids of the training images that are most like them
    notes: list  # of str, what was changed in them


class Classifier:
    """A saved model with what it says about itself.

    Attributes
    ----------
    shape : tuple of 3 ints, height, width and channels of the images that it takes
    class_names : list of str, in the order of its outputs
    data_set : str, the name in the catalog of what it was trained on, or "" where it does not say so
    thresholds : dict of str to float, of `helpers.evaluation.calibration.fit_conformal`; empty if it has none
    training_ids : set of str, of the training images that it keeps
    background, views, digest, header : see `helpers.predict`
    """

    def __init__(self, path, views=None):
        from helpers.evaluation import foreign
        from helpers.training import saving
        from helpers.training.fast import list_layers

        self._path = path
        try:
            about, arrays = saving.read_about(path), saving.read_arrays(path)
            self._model = saving.load_model(path)
        except (FileNotFoundError, ValueError) as error:
            raise InputError(str(error)) from error
        match self._model.input_shape, self._model.output_shape:
            case (_, int(), int(), 1 | 3) as pixels, (_, int(n_outputs)):
                self.shape = tuple(pixels[1:])
            case shapes:
                raise InputError(f"{path} is no classifier of grey or colour images: from {shapes[0]} to {shapes[1]}.")
        last = getattr(list_layers(self._model)[-1], "activation", None)
        if n_outputs == 1 and getattr(last, "__name__", "") != "sigmoid":
            raise InputError(f"{path} has one output, which is no probability: end it with a sigmoid.")
        n_classes = max(n_outputs, 2)
        with open(path, "rb") as file:
            self.digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        try:
            self._take(about, n_classes, views)
            self._familiar = foreign.Familiar.from_arrays(arrays) if arrays else None
            self.training_ids = set(self._familiar.ids.tolist()) if arrays else set()
            self.header = [*_BEFORE, *(f"p_{name}" for name in self.class_names), *_BEHIND]
            self._labels = [guard_cell(name) for name in self.class_names]
            self.predict([Decoded(np.full(self.shape, level, "uint8"), "", "") for level in (0, 255)])
        except InputError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"{path} cannot be used: {error}") from error

    def _take(self, about, n_classes, views):
        """Take what a model says of itself, which may be anything that JSON can hold; ValueError if it will not do."""
        names = about.get("class_names") or [f"class_{number}" for number in range(n_classes)]
        known = isinstance(names, list) and all(isinstance(name, str | int) for name in names)
        self.class_names = [str(name) for name in names] if known else []
        if not len(set(self.class_names)) == len(self.class_names) == n_classes:
            raise ValueError(f"it has {n_classes} classes, but class_names are {reprlib.repr(names)}")
        "".join(self.class_names).encode()  # half a pair of surrogates cannot be written
        self.thresholds = about.get("conformal") or {}
        if self.thresholds and not _are_thresholds(self.thresholds, self.class_names):
            found, expected = reprlib.repr(self.thresholds), reprlib.repr(self.class_names)
            raise ValueError(f"its conformal thresholds are {found}; expected those of {expected}, from 0 to 1")
        if (background := about.get("background", 255)) not in range(256):
            raise ValueError(f"its background is {reprlib.repr(background)}; expected a grey level from 0 to 255")
        if (views := views or about.get("views") or 1) not in (1, 4, 8):
            raise ValueError(f"views={reprlib.repr(views)}; expected 1, 4 or 8")
        if not isinstance(data_set := about.get("data_set", ""), str):
            raise ValueError(f"its data_set is {reprlib.repr(data_set)}; expected a name")
        self.background, self.views, self.data_set = int(background), int(views), data_set
        self._may_be_inverted = bool(about.get("may_be_inverted"))

    def predict(self, images):
        """Predict images; return for each its row of the table, without the file's name, and how many are foreign."""
        found = self.judge(images)
        uncertain, likeness = [""] * len(images), [["", "", ""]] * len(images)
        if found.sets is not None:
            uncertain = found.sets["uncertain"].tolist()
        if found.distances is not None:
            likeness = [
                [far > 1, f"{far:.3g}", guard_cell(name)]
                for far, name in zip(found.distances.tolist(), found.nearest.tolist(), strict=True)
            ]
        rows = []
        for image, probabilities, flag, cells, note in zip(
            images, found.y_prob.tolist(), uncertain, likeness, found.notes, strict=True
        ):
            largest = max(probabilities)
            confidence, *others = [f"{value:.6g}" for value in (largest, *probabilities)]
            row = [self._labels[probabilities.index(largest)], confidence, flag, *cells, *others]
            rows.append([*row, note, self.views, image.content, self.digest])
        return rows, 0 if found.distances is None else np.count_nonzero(found.distances > 1)

    def judge(self, images):
        """Predict images, given as a list of `Decoded`, and compare them with the training images: a `Judgement`."""
        pixels, notes = np.stack([image.pixels for image in images]), [image.note for image in images]
        y_prob, distances, nearest = found = self._compute(pixels)
        if self._may_be_inverted and (distances > 1).any():
            doubtful = np.flatnonzero(distances > 1)
            original, most = pixels[doubtful], np.minimum(distances[doubtful] / 2, _FAR)
            for exchanged in (255 - original, _exchange_light_and_dark(original)):
                inverse = self._compute(exchanged)
                better = inverse[1] < most
                most[better] = inverse[1][better]
                pixels[doubtful[better]] = exchanged[better]
                for row in doubtful[better]:
                    notes[row] = "; ".join(filter(None, [images[row].note, "light and dark exchanged"]))
                for array, other in zip(found, inverse, strict=True):
                    array[doubtful[better]] = other[better]
        sets = None
        if self.thresholds:
            from helpers.evaluation.calibration import predict_sets  # here only: it takes a second to import

            table = pd.DataFrame(y_prob, columns=[f"p_{name}" for name in self.class_names])
            sets = predict_sets(table, self.thresholds)
        return Judgement(pixels, y_prob, sets, *((distances, nearest) if self._familiar else (None, None)), notes)

    def find_similar(self, pixels, count):
        """Find the training images most like one (height, width, channels): ids, the nearest first; none if unknown."""
        from helpers.evaluation import foreign
        from helpers.training import fast

        if not self._familiar:
            return []
        _, features = fast.predict_with_features(self._model, pixels[None])
        return self._familiar.find_similar(features, foreign.describe_pixels(pixels[None]), count)[0].tolist()

    def explain(self, pixels, code):
        """Find where in an image (height, width, channels) the evidence for a class lies, given by its number.

        Return an array (height, width) of `helpers.evaluation.explain.compute_grad_cam`; None where the model has no
        map of features to look at, or only one output.
        """
        from helpers.evaluation.explain import compute_grad_cam

        if self._model.output_shape[1] == 1:
            return None
        try:
            return compute_grad_cam(self._model, pixels[None], [code])[0]
        except ValueError:
            return None

    def _compute(self, pixels):
        """Predict images: probabilities (n, n_classes), distances to training images (n,), and ids of the nearest."""
        from helpers.evaluation import foreign
        from helpers.training import fast

        distances, nearest = np.zeros(len(pixels)), np.zeros(len(pixels))
        if self._familiar:
            y_prob, features = fast.predict_with_features(self._model, pixels, views=self.views)
            distances, nearest = self._familiar.compare(features, foreign.describe_pixels(pixels))
        else:
            y_prob = fast.predict_probabilities(self._model, pixels, views=self.views)
        y_prob = y_prob.astype("float64")
        if y_prob.shape[1] == 1:  # the probability of the second of two classes
            y_prob = np.concatenate([1 - y_prob, y_prob], axis=1)
        if not (y_prob.min() >= 0 and np.abs(y_prob.sum(axis=1) - 1).max() <= _ROUNDING):  # or NaN
            raise InputError(f"{self._path} cannot be used: its outputs are no probabilities: add a softmax.")
        return y_prob, distances, nearest


def _are_thresholds(value, names):
    if not isinstance(value, dict) or set(value) != set(names):
        return False
    return all(isinstance(threshold, int | float) and 0 <= threshold <= 1 + _ROUNDING for threshold in value.values())


def _exchange_light_and_dark(pixels):
    """Exchange light and dark of images (n, height, width, channels): paper, the level of the border, becomes black.

    The darkest ink becomes white. What differs from the paper as little as most of the border does is taken for paper.
    """
    sides = pixels[:, [0, -1]].reshape(len(pixels), -1), pixels[:, :, [0, -1]].reshape(len(pixels), -1)
    border = np.concatenate(sides, axis=1).astype("float32")
    paper = np.median(border, axis=1, keepdims=True)
    grain = 1.48 * np.median(np.abs(border - paper), axis=1, keepdims=True)  # as a standard deviation
    flat = pixels.reshape(len(pixels), -1).astype("float32")
    lightest = paper - _GRAINS * grain
    contrast = np.maximum(lightest - flat.min(axis=1, keepdims=True), _LEAST_CONTRAST)
    return np.clip((lightest - flat) * (255 / contrast), 0, 255).round().astype("uint8").reshape(pixels.shape)
