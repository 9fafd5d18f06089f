"""Fitting: seeded batches, a learning-rate schedule, averaged weights, the best epoch, and resuming.

Every random choice is drawn from the seed and the number of the epoch or step. So the same seed gives the same weights
on the same machine, also when a training was killed and resumed.
"""

import functools
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from helpers.archives import open_arrays
from helpers.files import Interrupted, read_reason, release_pages, replace_atomically
from helpers.identity import describe
from helpers.progress import open_stage
from helpers.seals import DamagedError, read_cached
from helpers.training import tf
from helpers.training.augment import ImageDataGenerator, make_augmenter
from helpers.training.fast import FusedAdamW, computing_maps_in, list_layers

_BEST = {  # how to rank epochs; the first of the highest is the best
    "val_loss": lambda row: -row["val_loss"],
    "val_accuracy": lambda row: (row["val_accuracy"], row["epoch"]),
    "last": lambda row: row["epoch"],
}
_SHUFFLING, _AUGMENTATION, _DROPOUT = range(3)  # part of the seeds, so that no two streams are the same


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; an unknown ``monitor`` or ``epochs`` that are not positive are a ValueError.

    Attributes
    ----------
    batch_size : int, the images of a step; the last, incomplete batch of an epoch is left out
    learning_rate : float, the peak of the schedule
    augment : ImageDataGenerator or augmenter, see `helpers.training.augment`
    class_weights : sequence of float, for the training loss only, see `compute_class_weights`
    mixup : float, the parameter a of the distribution Beta(a, a) of blended shares; 0 does without
    ema_epochs : float, the time constant of the exponential moving average of the weights, in epochs
    monitor : {"val_loss", "val_accuracy", "last"}, says which epoch is the best
    precision : str, "mixed_bfloat16" computes the maps of any model so as long as it is trained; others change nothing

    Mixup blends each training image and its label with another one of the batch (Zhang et al. 2018). This works against
    over-fitting; training loss and accuracy are then those of blended images. With class weights the loss of a blended
    image is the sum of the losses of its two parts, each weighted by its share and by its own class. The validation
    accuracy (the last of several highest) may still rise while over-confidence, which temperature scaling mends, makes
    the loss worse. With "last" nothing is chosen, so that the validation images have no part in the training and may
    serve as test images.

    A pretrained network is built in float32, because bfloat16 changes its predictions visibly. While it is trained and
    validated, its maps may be computed in bfloat16, which is faster: ``precision`` may be that of the experiment.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 2e-3
    augment: Callable | ImageDataGenerator | None = None
    class_weights: Sequence | None = None
    mixup: float = 0.0
    label_smoothing: float = 0.0
    weight_decay: float = 1e-4
    ema_epochs: float = 0.5
    monitor: str = "val_loss"
    precision: str | None = None

    def __post_init__(self):
        if self.monitor not in _BEST:
            raise ValueError(f"monitor={self.monitor!r}: expected one of {', '.join(_BEST)}.")
        if self.epochs < 1 or self.ema_epochs <= 0:
            got = f"epochs={self.epochs}, ema_epochs={self.ema_epochs}"
            raise ValueError(f"{got}: expected at least 1, and more than 0.")


def fit_model(model, training, validation, recipe, *, seed=42, checkpoint=None, label=None):
    """Train a model and leave it with the weights of its best validation epoch, or of its last one.

    AdamW with a linear warm-up over half an epoch and cosine decay to zero. The weights that are validated after each
    epoch, and kept, are their exponential moving average.

    Parameters
    ----------
    model : keras.Model
        From raw pixels to class probabilities. Changed in place.
    training, validation : tuple of 2 or 3 arrays
        Raw pixels (n, height, width, channels), which may be memory-mapped; one-hot labels (n, n_classes); and, to use
        only some of the pixels, their rows (m,), with labels (m, n_classes) for these rows.
    recipe : Recipe
    checkpoint : str or Path, optional
        A file that keeps the state after each epoch, so that a training that was interrupted (which raises Interrupted)
        or killed goes on, and the weights of a finished one, so that it is not done again. That of another training is
        ignored. An augmenter is known by `helpers.identity.describe` and by what it does to 8 images.
    label : str, optional
        What the line of progress calls the training; by default the name of the model.

    Returns
    -------
    DataFrame with one row per epoch, index ``epoch`` from 1: ``loss, accuracy, val_loss, val_accuracy,
    learning_rate, wall_seconds, cpu_seconds``. ``history.attrs["best_epoch"]`` is the epoch of the kept weights.

    Raises
    ------
    ValueError
        Images and labels differ in number, or there are fewer training images than a batch holds.
    WriteError
        The checkpoint cannot be written. The training stops, because all that follows could be lost, and the next call
        goes on after the last epoch that was kept.
    """
    training = _check(training, "training", minimum=recipe.batch_size)
    validation = _check(validation, "validation", minimum=1)
    epochs, steps = recipe.epochs, len(training[1]) // recipe.batch_size
    compile_model(model, recipe.weight_decay, max(0.0, 1 - 1 / (recipe.ema_epochs * steps)), recipe.label_smoothing)

    if isinstance(recipe.augment, ImageDataGenerator):
        recipe = replace(recipe, augment=make_augmenter(recipe.augment))
    identity = None if checkpoint is None else _identify(model, training, validation, recipe, seed)
    rates = _schedule_rates(recipe.learning_rate, epochs, steps)
    recorder = _Recorder(model, seed, checkpoint, identity, _BEST[recipe.monitor], rates)
    recorder.resume()
    done = len(recorder.rows)
    if 0 < done < epochs:
        sys.stdout.write(f"{model.name}: going on after epoch {done} of {epochs}\n")
    if done < epochs:
        images = steps * recipe.batch_size
        try:
            stages = open_stage(label or model.name, epochs * images, done=done * images)
            with computing_maps_in(model, recipe.precision), stages as stage:
                model.fit(
                    make_batches(training, recipe, seed, range(done * steps, epochs * steps)),
                    steps_per_epoch=steps,
                    initial_epoch=done,
                    epochs=epochs,
                    validation_data=_make_ordered_batches(validation, recipe.batch_size),
                    callbacks=[recorder, keras.callbacks.SwapEMAWeights(), _Counter(stage, recipe.batch_size)],
                    shuffle=False,
                    verbose=0,
                )
        except KeyboardInterrupt:
            again = "go on from there" if checkpoint and recorder.rows else "start again"
            raise Interrupted(
                f"{model.name} was stopped after epoch {len(recorder.rows)} of {epochs}. Run the cell again to {again}."
            ) from None
    return recorder.finish()


def compile_model(model, weight_decay=1e-4, ema_momentum=0.99, label_smoothing=0.0):
    """Compile a model as `fit_model` trains it; its learning rate is 0 until it is set."""
    optimizer = FusedAdamW(0.0, weight_decay=weight_decay, use_ema=True, ema_momentum=ema_momentum)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)
    # Given as "accuracy", the metric would make its variables while the step is traced, which is then traced again.
    model.compile(optimizer, loss, metrics=[keras.metrics.CategoricalAccuracy("accuracy")])
    model.optimizer.build(model.trainable_variables)  # under float16 a wrapper of the one above


def compute_class_weights(y, power=1.0):
    """Compute weights (n_classes,) that balance classes of different sizes, given one-hot labels (n, n_classes).

    They are proportional to (images of the class) ** -power, scaled to the mean 1 over all images: a power of 1 gives
    all classes the same total weight, 0 all images the same, and 0.5 lies between. A class without images has 0.

    Examples
    --------
    >>> compute_class_weights(np.array([[1, 0], [1, 0], [1, 0], [0, 1]])).round(3).tolist()
    [0.667, 2.0]
    """
    counts = np.asarray(y, "float64").sum(axis=0)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0)
    return weights * counts.sum() / (weights * counts).sum()


def make_batches(training, recipe, seed, steps):
    """Make a data set of shuffled, augmented batches, each decided by the seed and its number alone.

    ``training, recipe, seed`` are as for `fit_model`, but the recipe's ``augment`` is a function; ``steps`` is a range
    of the numbers of batches, counted over all epochs. A batch is a tuple of float32 images and labels, with class
    weights also weights.
    """
    pixels, labels, rows = _unpack(training)
    batch_size, class_weights = recipe.batch_size, recipe.class_weights

    @functools.lru_cache(maxsize=1)
    def shuffle(epoch):
        return np.random.default_rng([seed, _SHUFFLING, epoch]).permutation(len(labels))

    def load(step):
        epoch, batch = divmod(int(step), len(labels) // batch_size)
        chosen = shuffle(epoch)[batch * batch_size : (batch + 1) * batch_size]
        chosen = np.sort(chosen)  # reads a memory-mapped file from front to back
        images, y = pixels[rows[chosen]], labels[chosen]
        release_pages(pixels)  # those around an image come into memory with it
        rng = np.random.default_rng([seed, _AUGMENTATION, epoch, batch])
        if recipe.augment is not None:
            images = recipe.augment(images, rng)
        if recipe.mixup:
            images, y = _blend(images, y, recipe.mixup, rng)
        if class_weights is None:
            return images, y
        weights = y @ np.asarray(class_weights)
        if recipe.mixup:  # the loss is that of the two parts, each weighted by its share and by its own class
            parts = y * np.asarray(class_weights)
            y = np.divide(parts, weights[:, None], out=y.astype("float64"), where=weights[:, None] > 0)
        return images, y, weights

    shapes = [pixels.shape[1:], labels.shape[1:], *([] if class_weights is None else [()])]
    return _make_dataset(load, steps, shapes, batch_size)


def _schedule_rates(peak, epochs, steps):
    """Compute the learning rate of each step; a schedule inside the optimizer would compute it for each weight."""
    warmup = steps // 2
    step = np.arange(epochs * steps + 1)
    decay = 0.5 * (1 + np.cos(np.pi * (step - warmup) / (epochs * steps - warmup)))
    return peak * np.where(step < warmup, step / max(warmup, 1), decay)


def _blend(images, y, mixup, rng):
    """Blend each image and label of a batch with another one of the batch."""
    shares = rng.beta(mixup, mixup, len(images)).astype("float32")
    shares = np.maximum(shares, 1 - shares)  # the image itself is the larger part, so that none is blended away
    others = rng.permutation(len(images))
    image_shares = shares.reshape(-1, *[1] * (images.ndim - 1))
    blended = image_shares * images + (1 - image_shares) * images[others]
    return blended, shares[:, None] * y + (1 - shares[:, None]) * y[others]


def _make_ordered_batches(data, batch_size):
    """Make a data set of batches in the order of the images."""
    pixels, labels, rows = data

    def load(number):
        part = slice(number * batch_size, (number + 1) * batch_size)
        images = pixels[rows[part]]
        release_pages(pixels)
        return images, labels[part]

    return _make_dataset(load, range(-(-len(labels) // batch_size)), [pixels.shape[1:], labels.shape[1:]])


def _make_dataset(load, numbers, shapes, batch_size=None):
    """Make a data set of ``load(number)``, prepared in the background while the model computes."""

    def load_float32(number):
        return tuple(np.asarray(array, np.float32) for array in load(number))

    def map_number(number):
        tensors = tf.numpy_function(load_float32, [number], [tf.float32] * len(shapes))
        for tensor, shape in zip(tensors, shapes, strict=True):
            tensor.set_shape((batch_size, *shape))
        return tuple(tensors)

    options = tf.data.Options()
    options.autotune.enabled = False  # nothing is to be tuned, and its thread would be waited for at the end
    return tf.data.Dataset.range(numbers.start, numbers.stop).map(map_number).prefetch(2).with_options(options)


class _Recorder(keras.callbacks.Callback):
    """Keep the history, the best weights and the checkpoint.

    It comes before SwapEMAWeights in the list of callbacks: when a validation ends, the averaged weights are still in
    the model, and when an epoch ends, the trained ones are back.
    """

    def __init__(self, model, seed, checkpoint, identity, rank, rates):
        super().__init__()
        self._trained, self._seed, self._identity, self._rank, self._rates = model, seed, identity, rank, rates
        self._checkpoint = None if checkpoint is None else Path(checkpoint)
        self.rows = []  # of the history, one per finished epoch

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._seed_dropout(epoch)
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def _seed_dropout(self, epoch):
        for number, layer in enumerate(list_layers(self._trained)):
            if generator := getattr(layer, "seed_generator", None):
                seeds = np.random.SeedSequence([self._seed, _DROPOUT, epoch, number])
                generator.state.assign(seeds.generate_state(2))

    def on_train_batch_begin(self, batch, logs=None):
        self._trained.optimizer.learning_rate = self._rates[self._epoch * self.params["steps"] + batch]

    def on_test_end(self, logs=None):
        self._averaged = self._trained.get_weights()

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1}
        row |= {name: float(logs[name]) for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
        row["learning_rate"] = self._rates[(epoch + 1) * self.params["steps"]]
        row["wall_seconds"] = time.perf_counter() - self._wall
        row["cpu_seconds"] = time.process_time() - self._cpu
        self.rows.append(row)
        if self._best_row() is row:
            self._best = self._averaged
        if self._checkpoint is not None:
            optimizer = [variable.value.numpy() for variable in self._trained.optimizer.variables]
            self._save(best=self._best, model=self._trained.get_weights(), optimizer=optimizer)

    def resume(self):
        """Restore the state of a killed training. A damaged checkpoint is named and removed."""
        anew = f"{self._trained.name} begins anew"
        found = self._checkpoint and read_cached(self._checkpoint, _read_checkpoint, anew)
        if not found or found[0]["identity"] != self._identity:
            return
        about, arrays = found
        self.rows, self._best = about["history"], arrays["best"]
        if "model" in arrays:  # it was not finished
            self._trained.set_weights(arrays["model"])
            for variable, value in zip(self._trained.optimizer.variables, arrays["optimizer"], strict=True):
                variable.assign(value)

    def finish(self):
        """Give the model its best weights, keep only these in the checkpoint, and return the history."""
        self._trained.set_weights(self._best)
        self._seed_dropout(len(self.rows))  # a saved model has its state, too
        if self._checkpoint is not None:
            self._save(best=self._best)
        history = pd.DataFrame(self.rows).set_index("epoch")
        history.attrs["best_epoch"] = self._best_row()["epoch"]
        return history

    def _best_row(self):
        return max(self.rows, key=self._rank)

    def _save(self, **lists):
        arrays = {f"{name}_{i}": array for name, values in lists.items() for i, array in enumerate(values)}
        counts = {name: len(values) for name, values in lists.items()}
        about = {"identity": self._identity, "history": self.rows, "arrays": counts}
        with replace_atomically(self._checkpoint) as unfinished, open(unfinished, "wb") as file:
            np.savez(file, about=json.dumps(about), **arrays)


def _read_checkpoint(path):
    """Read what a checkpoint tells of its training, and its lists of arrays. Raise DamagedError."""
    with open(path, "rb") as file:
        try:
            with open_arrays(file, most=path.stat().st_size) as state:
                about = json.loads(str(state["about"]))
                counts = about["arrays"].items()
                return about, {name: [state[f"{name}_{i}"] for i in range(count)] for name, count in counts}
        except MemoryError:  # of which no file is to blame
            raise
        except Exception as error:  # which fails in many ways inside NumPy and zipfile
            raise DamagedError(read_reason(error)) from error


class _Counter(keras.callbacks.Callback):
    """Tell a stage of `helpers.progress` how many images were trained on."""

    def __init__(self, stage, batch_size):
        super().__init__()
        self._stage, self._batch_size, self._second = stage, batch_size, stage.done + batch_size

    def on_epoch_begin(self, epoch, logs=None):
        self._before = epoch * self.params["steps"]
        self._stage.doing = f"epoch {epoch + 1} of {self.params['epochs']}"

    def on_train_batch_begin(self, batch, logs=None):  # after each batch, Keras would wait for its metrics
        self._stage.done = (self._before + batch) * self._batch_size
        if self._stage.done == self._second:  # the first batch was the slowest: the network was traced for it
            self._stage.begin()


def _check(data, name, minimum):
    """Check the sizes; return pixels, labels and rows."""
    pixels, labels, rows = _unpack(data)
    if len(rows) != len(labels):
        raise ValueError(f"The {name} set has {len(rows)} images but {len(labels)} labels; each image needs one.")
    if len(labels) < minimum:
        raise ValueError(f"The {name} set has {len(labels)} images, at least {minimum} are needed (one batch).")
    return pixels, labels, rows


def _unpack(data):
    """Return pixels, labels and the rows of the pixels that the labels belong to; all by default."""
    pixels, labels, *rows = data
    return pixels, labels, np.asarray(rows[0]) if rows else np.arange(len(pixels))


def _identify(model, training, validation, recipe, seed):
    """Hash what decides a training, which identifies its checkpoint."""
    settings = asdict(replace(recipe, augment=None)) | {"seed": seed}
    if recipe.class_weights is not None:
        settings["class_weights"] = np.asarray(recipe.class_weights).tolist()
    network = re.sub(r'_\d+"', '"', json.dumps(model.get_config(), default=str))  # Keras counts on in automatic names
    digest = hashlib.sha256(json.dumps([network, keras.version(), settings], default=str).encode())
    if recipe.augment is not None:  # what it does also tells what it calls in other modules
        digest.update(repr(describe(recipe.augment)).encode())
        first = training[0][training[2][:8]]
        digest.update(np.ascontiguousarray(recipe.augment(first, np.random.default_rng(0))).tobytes())
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    for pixels, labels, rows in (training, validation):
        digest.update(np.ascontiguousarray(labels).tobytes())
        for number, row in enumerate(rows):  # of each image a part, of some images everything
            flat = pixels[row].reshape(-1)
            part = flat if number % max(1, len(rows) // 1000) == 0 else flat[len(flat) // 2 :][:256]
            digest.update(np.ascontiguousarray(part).tobytes())
        release_pages(pixels)
    return digest.hexdigest()
