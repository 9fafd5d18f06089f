"""Fitting: learning, determinism, resuming, the best epoch. Small networks on 8 x 8 pixels."""

import functools
import gc
import logging
import signal
import threading
import types
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from helpers import progress
from helpers.files import Interrupted
from helpers.identity import describe
from helpers.training import augment, fit, tf
from helpers.training.fast import FusedBatchNormalization, FusedDepthwiseConv2D, predict_probabilities, set_precision
from helpers.training.fit import compute_class_weights
from helpers.training.networks import build_cnn
from helpers.training.transfer import build_head

EPOCHS, BATCH, STEPS = 4, 32, 7
TRAINING, VALIDATION = slice(0, 240), slice(240, 300)


def fit_model(model, training, validation, *, seed=42, checkpoint=None, label=None, **recipe):
    """Fit with a recipe given by its fields."""
    return fit.fit_model(
        model, training, validation, fit.Recipe(**recipe), seed=seed, checkpoint=checkpoint, label=label
    )


def make_batches(training, batch_size, seed, augment, steps, class_weights=None, mixup=0.0):
    recipe = fit.Recipe(1, batch_size, augment=augment, class_weights=class_weights, mixup=mixup)
    return fit.make_batches(training, recipe, seed, steps)


def make_data():
    """Make 300 images of three classes: bright above, bright below, or neither."""
    rng = np.random.default_rng(0)
    numbers = rng.permutation(np.arange(300) % 3)
    pixels = rng.integers(0, 140, (300, 8, 8, 1))
    pixels[numbers == 1, :4] += 80
    pixels[numbers == 2, 4:] += 80
    return pixels.astype("uint8"), np.eye(3, dtype="float32")[numbers]


PIXELS, LABELS = make_data()


def make_mlp(seed=0, fresh=True, rate=0.4, precision="float32"):
    """Make a quick model with all that has a state of its own.

    ``fresh`` starts the automatic names anew, as in a fresh process.
    """
    if fresh:
        keras.utils.clear_session(free_memory=False)  # sets the precision back as well
    set_precision(precision)
    keras.utils.set_random_seed(seed)
    inputs = layers.Input((8, 8, 1), name="pixels")
    x = FusedBatchNormalization(momentum=0.9, name="norm")(layers.Rescaling(1 / 255, name="rescaling")(inputs))
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(12, activation="relu", name="hidden")(x)
    x = layers.Dropout(rate, name="dropout")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="probabilities")(x), name="mlp")


def make_cnn(seed=0):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    return build_cnn((8, 8, 1), 3, ([90.0], [50.0]), filters=((4,),), dropout=0.2)


class Augmenter:
    """Disturb images at random, count the batches, and do something at one of them."""

    def __init__(self, at=None, action=None):
        self.batches, self.at, self.action, self.drawn = 0, at, action, []

    def __call__(self, images, rng):
        if len(images) == BATCH:
            self.drawn.append(rng.bit_generator.state["state"]["state"])
            self.batches += 1
            if self.batches == self.at:
                self.action()
        return images + rng.normal(0, 5, images.shape)

    def __getstate__(self):
        """Tell nothing: what it counts and does beside is no part of the training."""


def run(model, augment=None, **settings):
    """Run the training that all tests are about, with changes."""
    settings = {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "ema_epochs": 5 / STEPS,
        "learning_rate": 5e-3,
        "seed": 7,
    } | settings
    pixels, labels = settings.pop("pixels", PIXELS), settings.pop("labels", LABELS)
    sets = settings.pop("sets", None) or [(pixels[part], labels[part]) for part in (TRAINING, VALIDATION)]
    return fit_model(model, *sets, augment=augment or Augmenter(), **settings)


def assert_same_training(ours, theirs):
    """Compare (model, history) bit by bit, leaving out the time taken."""
    __tracebackhide__ = True
    for one, other in zip(ours[0].variables, theirs[0].variables, strict=True):  # weights, and the state of dropout
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    measured = ["wall_seconds", "cpu_seconds"]
    assert ours[1].drop(columns=measured).equals(theirs[1].drop(columns=measured))
    assert ours[1].attrs == theirs[1].attrs


@pytest.fixture(scope="module")
def whole():
    """Make the uninterrupted training that others are compared with."""
    model = make_mlp()
    return model, run(model)


@pytest.fixture(scope="module")
def other():
    """Make the training with another seed."""
    model = make_mlp()
    return model, run(model, seed=8)


class Killed(Exception):
    """Stands for whatever ends a training before its time."""


def kill():
    raise Killed


def train_until_killed(model, checkpoint, batch=2 * STEPS + 6, **settings):
    """Run the training up to a batch of the third epoch, at the end of what is prefetched."""
    with pytest.raises((Killed, tf.errors.OpError)):
        run(model, Augmenter(batch, kill), checkpoint=checkpoint, **settings)


class Started(Exception):
    """Carries the epoch at which a training would have started."""


@pytest.fixture
def find_start(monkeypatch):
    """Tell at which epoch a training would start, without running it."""

    def fit_nothing(model, *arguments, initial_epoch, **settings):
        raise Started(initial_epoch)

    def find(model, augment=None, **settings):
        with monkeypatch.context() as patch:
            patch.setattr(keras.Model, "fit", fit_nothing)
            with pytest.raises(Started) as started:
                run(model, augment, **settings)
        return started.value.args[0]

    return find


@pytest.fixture(scope="module")
def kept_checkpoint(tmp_path_factory):
    """Make a checkpoint of two epochs, as bytes."""
    path = tmp_path_factory.mktemp("kept") / "checkpoint.npz"
    train_until_killed(make_mlp(), path)
    return path.read_bytes()


@pytest.fixture
def checkpoint(tmp_path, kept_checkpoint):
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(kept_checkpoint)
    return path


# History and learning


def test_history_has_one_row_per_epoch(whole):
    _, history = whole
    assert list(history.index) == [1, 2, 3, 4]
    assert history.index.name == "epoch"
    names = ["loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "wall_seconds", "cpu_seconds"]
    assert list(history.columns) == names
    assert (history.dtypes == "float64").all()
    assert (history > -1e-12).all().all()
    assert (history[["loss", "val_loss", "wall_seconds"]] > 0).all().all()
    assert (history[["accuracy", "val_accuracy"]] <= 1).all().all()
    assert history.attrs["best_epoch"] == history["val_loss"].idxmin()
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_learning_rate_follows_the_cosine_down_to_zero(whole):
    _, history = whole
    warm_up, total = STEPS // 2, EPOCHS * STEPS
    steps = np.arange(1, EPOCHS + 1) * STEPS
    expected = 5e-3 * 0.5 * (1 + np.cos(np.pi * (steps - warm_up) / (total - warm_up)))
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-4, atol=1e-8)
    assert abs(history["learning_rate"].iloc[-1]) < 1e-9


def test_the_step_is_traced_once():
    model, traced = make_mlp(), []
    step = model.train_step
    model.train_step = lambda data: traced.append(1) or step(data)
    run(model)
    assert len(traced) == 1


def test_network_learns():
    model = make_cnn()
    validation = PIXELS[VALIDATION], LABELS[VALIDATION]

    def measure_accuracy():
        return (model.predict(validation[0], verbose=0).argmax(1) == validation[1].argmax(1)).mean()

    assert measure_accuracy() < 0.7
    history = run(model, epochs=6, learning_rate=1e-2)
    assert measure_accuracy() > 0.95
    assert measure_accuracy() == pytest.approx(history["val_accuracy"][history.attrs["best_epoch"]], abs=1e-6)
    assert history["accuracy"].iloc[-1] > 0.8


def test_training_is_that_of_a_plain_loop():
    """Repeat one epoch by hand: schedule, AdamW, moving average, averaged weights at the end."""
    settings = {"label_smoothing": 0.1, "weight_decay": 2.0, "learning_rate": 5e-3}
    model = make_mlp(rate=0.0)
    history = run(model, epochs=1, augment=lambda images, rng: images, **settings)

    by_hand = make_mlp(rate=0.0)
    optimizer = keras.optimizers.AdamW(0.0, weight_decay=2.0)
    by_hand.compile(optimizer, keras.losses.CategoricalCrossentropy(label_smoothing=0.1))
    averages = None
    training = PIXELS[TRAINING], LABELS[TRAINING]
    for step, (images, labels) in enumerate(make_batches(training, BATCH, 7, None, range(STEPS))):
        warm_up = STEPS // 2
        cosine = 0.5 * (1 + np.cos(np.pi * (step - warm_up) / (STEPS - warm_up)))
        optimizer.learning_rate = 5e-3 * (step / warm_up if step < warm_up else cosine)
        by_hand.train_on_batch(images, labels)
        weights = [weight.numpy() for weight in by_hand.trainable_weights]
        # An average over five steps.
        averages = [0.8 * a + 0.2 * w for a, w in zip(averages, weights, strict=True)] if averages else weights
    assert np.abs(weights[2] - averages[2]).max() > 1e-3  # the average is not the last step
    for weight, average in zip(by_hand.trainable_weights, averages, strict=True):
        weight.assign(average)
    for ours, expected in zip(model.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    assert history["val_loss"][1] == pytest.approx(
        by_hand.evaluate(PIXELS[VALIDATION], LABELS[VALIDATION], verbose=0), rel=1e-4
    )


def test_model_has_the_weights_of_its_best_epoch(tmp_path, monkeypatch):
    """Validate with wrong labels: the longer the training, the worse, so the best epoch is not the last."""
    labels = LABELS.copy()
    labels[VALIDATION] = np.roll(labels[VALIDATION], 1, axis=1)
    settings = {"labels": labels, "learning_rate": 2e-2, "ema_epochs": 2 / STEPS, "checkpoint": tmp_path / "state.npz"}
    model = make_cnn()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, missing_ok: None)  # the checkpoint stays
        history = run(model, **settings)
    assert history.attrs["best_epoch"] == history["val_loss"].idxmin() < EPOCHS
    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = model.evaluate(PIXELS[VALIDATION], labels[VALIDATION], verbose=0)
    assert loss == pytest.approx(history["val_loss"].min(), rel=1e-5)
    assert accuracy == pytest.approx(history["val_accuracy"][history.attrs["best_epoch"]], abs=1e-6)
    assert history["val_loss"].max() > 1.05 * loss

    resumed = make_cnn()  # after the last epoch: the best weights come from the checkpoint
    assert_same_training((resumed, run(resumed, **settings)), (model, history))


@pytest.mark.parametrize(("monitor", "best"), [("val_loss", 2), ("val_accuracy", 3), ("last", 4)])
def test_best_epoch_is_the_first_with_the_lowest_loss_or_what_is_asked_for(monitor, best):
    model = make_mlp()
    model.compile(keras.optimizers.AdamW())
    recorder = fit._Recorder(model, seed=0, checkpoint=None, identity=None, rank=fit._BEST[monitor], rates=np.zeros(9))
    recorder.set_params({"steps": 2})
    weights = []
    for epoch, (loss, accuracy) in enumerate([(0.5, 0.9), (0.3, 0.7), (0.4, 0.99), (0.3, 0.8)]):
        recorder.on_epoch_begin(epoch)
        model.set_weights([weight + 1 for weight in model.get_weights()])
        weights.append(model.get_weights())
        recorder.on_test_end()
        recorder.on_epoch_end(epoch, {"loss": 1, "accuracy": 0, "val_loss": loss, "val_accuracy": accuracy})
    history = recorder.finish()
    assert history.attrs["best_epoch"] == best
    for weight, expected in zip(model.get_weights(), weights[best - 1], strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_one_batch_is_enough():
    training = PIXELS[:BATCH], LABELS[:BATCH]
    history = fit_model(make_mlp(), training, (PIXELS[-1:], LABELS[-1:]), epochs=2, batch_size=BATCH)
    assert np.isfinite(history).all().all()


@pytest.mark.parametrize("resumed", [False, True])
def test_progress_is_that_of_the_whole_training(resumed, tmp_path, monkeypatch, capsys):
    lines, begun, count = [], [], fit._Counter.on_train_batch_begin

    def note(self, batch, logs=None):
        count(self, batch)
        lines.append((self._stage.label, self._stage.total, self._stage.doing, self._stage.done))

    if resumed:
        train_until_killed(make_mlp(), tmp_path / "checkpoint.npz")
    monkeypatch.setattr(fit._Counter, "on_train_batch_begin", note)
    monkeypatch.setattr(progress.Stage, "begin", lambda self: begun.append(self.done))
    run(make_mlp(), checkpoint=tmp_path / "checkpoint.npz", label="mlp, fold 1 of 2")
    first = 2 * STEPS if resumed else 0
    assert lines == [
        ("mlp, fold 1 of 2", EPOCHS * STEPS * BATCH, f"epoch {step // STEPS + 1} of {EPOCHS}", step * BATCH)
        for step in range(first, EPOCHS * STEPS)
    ]
    assert begun == [first * BATCH, (first + 1) * BATCH]  # again after the first batch, which takes longest
    assert "Epoch" not in capsys.readouterr().out  # Keras keeps silent


# The same seed


def test_same_seed_gives_the_same_weights_whatever_the_global_state(whole, tmp_path, capsys):
    """Run it again from memory-mapped pixels, with a checkpoint, and without a word."""
    np.save(tmp_path / "pixels.npy", PIXELS)
    model = make_mlp()
    keras.utils.set_random_seed(99)
    checkpoint = tmp_path / "folder" / "checkpoint.npz"
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    augment = Augmenter()
    history = run(model, augment, pixels=mapped, checkpoint=checkpoint)
    assert_same_training((model, history), whole)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    assert augment.batches == EPOCHS * STEPS
    assert capsys.readouterr() == ("", "")


def test_a_finished_training_is_not_done_again(whole, tmp_path, capsys):
    checkpoint, augment = tmp_path / "checkpoint.npz", Augmenter()
    run(make_mlp(), augment, checkpoint=checkpoint)
    with np.load(checkpoint) as state:
        assert all(name == "about" or name.startswith("best") for name in state)  # no optimizer, no second model
    model = make_mlp()
    history = run(model, augment, checkpoint=checkpoint)
    assert_same_training((model, history), whole)
    assert augment.batches == EPOCHS * STEPS
    assert capsys.readouterr() == ("", "")


def test_an_interrupt_says_how_far_it_came_and_the_next_run_goes_on(whole, tmp_path, capsys):
    checkpoint, augment = tmp_path / "checkpoint.npz", Augmenter()

    class Stopping(fit._Recorder):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                signal.raise_signal(signal.SIGINT)
            super().on_epoch_begin(epoch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "_Recorder", Stopping)
        with pytest.raises(Interrupted) as caught:
            run(make_mlp(), augment, checkpoint=checkpoint)
    assert str(caught.value) == "mlp was stopped after epoch 2 of 4. Run the cell again to go on from there."
    assert caught.value._render_traceback_() == [f"Interrupted: {caught.value}"]
    model = make_mlp()
    history = run(model, augment, checkpoint=checkpoint)
    assert_same_training((model, history), whole)
    assert capsys.readouterr().out == "mlp: going on after epoch 2 of 4\n"


def test_other_seed_gives_another_training(whole, other):
    assert np.abs(other[0].get_layer("hidden").kernel - whole[0].get_layer("hidden").kernel).max() > 1e-3
    assert (other[1]["loss"] != whole[1]["loss"]).all()


# Killed and resumed


def kill_while_saving_the_second_epoch(monkeypatch):
    savez, calls = np.savez, []

    def save_half(file, **arrays):
        calls.append(1)
        if len(calls) == 2:
            file.write(b"PK half a file")
            kill()
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", save_half)
    return Augmenter(), 1


def kill_at_the_end(monkeypatch):
    monkeypatch.setattr(fit._Recorder, "finish", lambda recorder: kill())
    return Augmenter(), EPOCHS


@pytest.mark.parametrize("prepare", [kill_while_saving_the_second_epoch, kill_at_the_end])
def test_killed_and_resumed_is_the_same_as_uninterrupted(whole, tmp_path, monkeypatch, prepare):
    checkpoint = tmp_path / "checkpoint.npz"
    with monkeypatch.context() as patch:
        augment, finished = prepare(patch)
        with pytest.raises((Killed, tf.errors.OpError)):
            run(make_mlp(), augment, checkpoint=checkpoint)
    assert checkpoint.is_file()

    model, augment = make_mlp(), Augmenter()
    keras.utils.set_random_seed(99)
    history = run(model, augment, checkpoint=checkpoint)
    assert augment.batches == (EPOCHS - finished) * STEPS  # really resumed
    assert_same_training((model, history), whole)


def test_training_is_resumed_in_the_same_process_too(find_start, checkpoint):
    """As in a notebook: the kernel is interrupted, and the cells are run again."""
    make_mlp().compile(keras.optimizers.AdamW())  # takes the first automatic name
    assert find_start(make_mlp(fresh=False), checkpoint=checkpoint) == 2


def test_names_that_keras_counts_on_make_no_difference(find_start, tmp_path):
    def build(*widths):
        keras.utils.set_random_seed(0)
        hidden = [layers.Dense(width, "relu") for width in widths]
        return keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), *hidden, layers.Dense(3, "softmax")])

    train_until_killed(build(8, 8), tmp_path / "checkpoint.npz")
    assert find_start(build(8, 8), checkpoint=tmp_path / "checkpoint.npz") == 2
    assert find_start(build(8, 9), checkpoint=tmp_path / "checkpoint.npz") == 0


def test_training_in_float16_is_resumed(find_start, tmp_path):
    checkpoint = tmp_path / "checkpoint.npz"
    train_until_killed(make_mlp(precision="mixed_float16"), checkpoint)
    assert find_start(make_mlp(precision="mixed_float16"), checkpoint=checkpoint) == 2


def make_depthwise():
    """Make a network of the kind that is fine-tuned, in float32."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    inputs = layers.Input((8, 8, 1), name="pixels")
    x = layers.Conv2D(4, 3, name="conv")(layers.Rescaling(1 / 255, name="rescaling")(inputs))
    x = layers.ReLU(name="relu")(FusedDepthwiseConv2D(3, padding="same", name="depthwise")(x))
    x = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="probabilities")(x), name="depthwise")


def test_maps_are_computed_in_the_precision_of_the_recipe_only_while_trained(tmp_path):
    computed = {}

    class Noting(Augmenter):
        def __call__(self, images, rng):
            computed[precision] = {layer.name for layer in model.layers if layer.compute_dtype == "bfloat16"}
            return super().__call__(images, rng)

    trained, histories, checkpoint = {}, {}, tmp_path / "checkpoint.npz"
    for precision in (None, "float32", "mixed_bfloat16", "mixed_float16"):
        model = trained[precision] = make_depthwise()
        histories[precision] = run(model, Noting(), precision=precision, checkpoint=checkpoint)
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    maps = {"conv", "depthwise", "relu"}
    assert computed == {None: set(), "float32": set(), "mixed_bfloat16": maps, "mixed_float16": set()}
    first = {precision: history["loss"].iloc[0] for precision, history in histories.items()}
    assert first[None] == first["float32"] == first["mixed_float16"]
    assert 0 < abs(first["mixed_bfloat16"] - first[None]) < 1e-2
    exact = predict_probabilities(trained["mixed_bfloat16"], PIXELS)
    np.testing.assert_allclose(exact, trained["mixed_bfloat16"](PIXELS), rtol=1e-5, atol=1e-6)


def test_an_interrupted_training_has_its_precision_back(tmp_path):
    model = make_depthwise()
    with pytest.raises(Interrupted):
        run(
            model,
            Augmenter(STEPS + 2, functools.partial(signal.raise_signal, signal.SIGINT)),
            precision="mixed_bfloat16",
        )
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_dropout_of_a_model_within_the_model_is_decided_by_the_seed_too():
    states = []
    for global_seed in (1, 2):
        keras.utils.set_random_seed(global_seed)
        dropout = layers.Dropout(0.4)
        head = keras.Sequential([layers.Input((64,)), layers.Dense(8), dropout, layers.Dense(3, "softmax")])
        model = keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), head])
        recorder = fit._Recorder(model, seed=7, checkpoint=None, identity=None, rank=fit._BEST["val_loss"], rates=[])
        recorder.on_epoch_begin(2)
        states.append(dropout.seed_generator.state.numpy())
    np.testing.assert_array_equal(*states)


# Checkpoints


def test_checkpoint_of_this_training_is_used(find_start, checkpoint):
    assert find_start(make_mlp(), checkpoint=checkpoint) == 2


def change_pixels(numbers):
    pixels = PIXELS.copy()
    pixels[numbers] = 255 - pixels[numbers]
    return pixels


def change_labels(number):
    labels = LABELS.copy()
    labels[number] = np.roll(labels[number], 1)
    return labels


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"epochs": 5},
        {"batch_size": 30},
        {"learning_rate": 6e-3},
        {"label_smoothing": 0.1},
        {"weight_decay": 1e-3},
        {"ema_epochs": 1},
        {"mixup": 0.2},
        {"class_weights": [1, 2, 1]},
        {"labels": change_labels(3)},
        {"labels": change_labels(250)},
        {"pixels": change_pixels(3)},
        {"pixels": change_pixels(250)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_checkpoint_of_other_settings_or_data_is_ignored(find_start, checkpoint, change):
    assert find_start(make_mlp(), checkpoint=checkpoint, **change) == 0


def test_checkpoint_of_another_model_is_ignored(find_start, checkpoint):
    assert find_start(make_mlp(seed=1), checkpoint=checkpoint) == 0  # other first weights
    assert find_start(make_mlp(rate=0.1), checkpoint=checkpoint) == 0
    assert find_start(make_cnn(), checkpoint=checkpoint) == 0


def test_checkpoint_of_another_augmenter_is_ignored(find_start, checkpoint):
    assert find_start(make_mlp(), lambda images, rng: 255.0 - images, checkpoint=checkpoint) == 0


class Darken:
    def __init__(self, share):
        self.share = share

    def __call__(self, images, rng):
        return images * np.float32(1 - rng.random() * self.share)


def write_augmenters(share, factor, name):
    """Write the code of augmenters, as in a notebook, and run it: each with a setting that 8 images may not show."""
    settings = types.ModuleType("settings")
    settings.SHARE = share
    scope = {
        "__name__": "notebook",
        "np": np,
        "settings": settings,
        "FACTOR": factor,
        "Darken": Darken,
        "augment": augment,
        "partial": functools.partial,
        "layers": layers,
    }
    code = f"""
def double(images):
    return images * {factor}

def by_code(images, rng):
    return double(images) if rng.random() < {share} else images

def by_global(images, rng):
    return images * FACTOR if rng.random() < 1e-9 else images

def scale(images, rng, factor):
    return images * factor if rng.random() < 1e-9 else images

def by_inner(images, rng):
    def change(image):
        return (lambda: image * FACTOR)()
    return np.stack([change(image) for image in images]) if rng.random() < 1e-9 else images

class Settings:
    share = {share}

class Method:
    least = 0.0
    def __call__(self, images, rng):
        return self.change(images) if rng.random() < 1e-9 else images
    def change(self, images):
        return images * FACTOR

class Attribute(Method):
    least = {share}
    @staticmethod
    def change(images):
        return images

mixed = augment.mix_augmenters([None, Darken(0.5)], [1 - {share} / 1e9, {share} / 1e9])
found = {{
    "code": by_code, "global": by_global, "partial": partial(scale, factor={factor}), "object": Darken({share}),
    "mixed": mixed, "chained": augment.chain_augmenters(mixed, by_global), "kept": augment.keep_background(mixed, 8),
    "exposure": augment.make_exposure_augmenter(noise={share}),
    "generator": augment.make_augmenter(augment.ImageDataGenerator(rotation_range={factor})),
    "method": Darken({share}).__call__, "lambda": lambda images, rng: images + min({share}, 0),
    "layer": (lambda layer: lambda images, rng: layer(images))(layers.RandomContrast({share}, seed=1)),
    "inner": by_inner, "method of a class": Method(), "class attribute": Attribute(),
    "settings": lambda images, rng: images + min(Settings.share, 0),
    "module": lambda images, rng: images + min(settings.SHARE, 0),
    "array": (lambda table: lambda images, rng: images + 0 * table[0])(np.array([1.0, {share}])),
}}
"""
    exec(compile(code, name, "exec"), scope)  # where no source can be read
    return scope["found"]


def test_an_augmenter_is_known_by_its_code_and_settings():
    ours, again = write_augmenters(0.5, 2, "cell 1"), write_augmenters(0.5, 2, "cell 2")
    other = write_augmenters(0.6, 3, "cell 1")
    for kind, function in ours.items():
        described = repr(describe(function))
        assert described == repr(describe(again[kind])), kind
        assert described != repr(describe(other[kind])), kind
        assert " at 0x" not in described


def test_an_augmenter_that_holds_itself_or_what_cannot_be_read_is_described_alike():
    def make(factor):
        held = {"lock": threading.Lock(), "factor": factor}

        def augmenter(images, rng):
            with held["lock"]:
                return images * held["factor"]

        held["itself"] = augmenter
        return repr(describe(augmenter))

    assert make(1.0) == make(1.0)
    assert make(1.0) != make(2.0)


def test_checkpoint_of_an_augmenter_with_other_shares_is_ignored(find_start, tmp_path):
    """Both leave the first images alone."""

    def mix(share):
        return augment.mix_augmenters([None, lambda images, rng: images + 9], [1 - share, share])

    settings = {"epochs": 1, "checkpoint": tmp_path / "checkpoint.npz"}
    history = run(make_mlp(), mix(1e-9), **settings)
    assert run(make_mlp(), mix(1e-9), **settings).equals(history)  # also the seconds: it is not done again
    assert find_start(make_mlp(), mix(2e-9), **settings) == 0


def test_ignored_checkpoint_leaves_no_trace_in_the_training(other, checkpoint):
    model, augment = make_mlp(), Augmenter()
    history = run(model, augment, seed=8, checkpoint=checkpoint)
    assert augment.batches == EPOCHS * STEPS
    assert_same_training((model, history), other)


def test_damaged_checkpoint_is_named_and_ignored(find_start, checkpoint, kept_checkpoint, capsys):
    half = len(kept_checkpoint) // 2
    damaged = {
        "empty": b"",
        "text": b"no checkpoint\n" * 50,
        "truncated": kept_checkpoint[:half],
        "first bytes": kept_checkpoint[:4],
        "overwritten": kept_checkpoint[:half] + b"damage" + kept_checkpoint[half + 6 :],
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name, content in damaged.items():
            checkpoint.write_bytes(content)
            assert find_start(make_mlp(), checkpoint=checkpoint) == 0, name
            assert capsys.readouterr().out.startswith(f"{checkpoint} was damaged ("), name
        gc.collect()  # what was left open would tell so
    assert [str(warning.message) for warning in caught] == []


def test_a_checkpoint_for_which_there_is_no_memory_stays(checkpoint, kept_checkpoint, monkeypatch):
    def fill_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr("helpers.training.fit.open_arrays", fill_memory)
    with pytest.raises(MemoryError):
        run(make_mlp(), checkpoint=checkpoint)
    assert checkpoint.read_bytes() == kept_checkpoint


def test_checkpoint_of_other_mixup_or_class_weights_is_ignored(find_start, tmp_path):
    checkpoint, settings = tmp_path / "checkpoint.npz", {"mixup": 0.4, "class_weights": [0.5, 1.5, 1.0]}
    train_until_killed(make_mlp(), checkpoint, **settings)
    assert find_start(make_mlp(), checkpoint=checkpoint, **settings) == 2
    others = [{"mixup": 0.2}, {"mixup": 0}, {"class_weights": [1.5, 0.5, 1.0]}, {"class_weights": None}]
    for other in others:
        assert find_start(make_mlp(), checkpoint=checkpoint, **(settings | other)) == 0


# Rows of larger arrays


def scatter(seed=0):
    """Put the images at random places among 100 others; return pixels and the places."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(400)[:300]
    pixels = rng.integers(0, 256, (400, 8, 8, 1)).astype("uint8")
    pixels[rows] = PIXELS
    return pixels, rows


def name_rows(pixels, rows):
    """Make training and validation sets that share their pixels."""
    return [(pixels, LABELS[part], rows[part]) for part in (TRAINING, VALIDATION)]


def test_naming_rows_is_the_same_as_copying_them(whole, tmp_path):
    """From a memory-mapped file, as bit for bit the training on arrays of their own."""
    pixels, rows = scatter()
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    model = make_mlp()
    assert_same_training((model, run(model, sets=name_rows(mapped, rows))), whole)


def test_rows_may_be_named_for_one_set_only_and_as_a_list():
    pixels, rows = scatter()
    histories = []
    for training in ((PIXELS[:64], LABELS[:64]), (pixels, LABELS[:64], rows[:64].tolist())):
        model = make_mlp()
        validation = PIXELS[VALIDATION], LABELS[VALIDATION]
        histories.append((model, fit_model(model, training, validation, epochs=1, batch_size=BATCH)))
    assert_same_training(*histories)


def test_no_more_than_a_batch_of_the_pixels_is_read_at_a_time(tmp_path):
    pixels, rows = scatter()
    reads = []

    class Spy:
        shape = pixels.shape

        def __len__(self):
            return len(pixels)

        def __getitem__(self, wanted):
            reads.append(np.size(wanted))
            return pixels[wanted]

    run(make_mlp(), sets=name_rows(Spy(), rows), epochs=1, checkpoint=tmp_path / "checkpoint.npz")
    assert max(reads) == BATCH
    assert sum(reads) < 2 * 300 + 10  # once for the training, once for the checkpoint


def test_checkpoint_belongs_to_the_images_that_the_rows_name(find_start, checkpoint):
    """It was made with arrays of their own."""
    pixels, rows = scatter()
    assert find_start(make_mlp(), checkpoint=checkpoint, sets=name_rows(pixels, rows)) == 2
    for number in (3, 250):
        other = rows.copy()
        other[number] = np.setdiff1d(np.arange(400), rows)[0]
        assert find_start(make_mlp(), checkpoint=checkpoint, sets=name_rows(pixels, other)) == 0


def test_each_of_many_images_belongs_to_the_checkpoint():
    pixels = np.random.default_rng(0).integers(0, 256, (2500, 8, 8, 1)).astype("uint8")
    data = pixels, np.tile(np.eye(3, dtype="float32"), (834, 1))[:2500], np.arange(2500)
    model, recipe = make_mlp(), fit.Recipe(1)
    first = fit._identify(model, data, data, recipe, seed=1)
    assert fit._identify(model, data, data, recipe, seed=1) == first
    for number in (0, 1, 1233, 2499):
        changed = pixels.copy()
        changed[number, 5] += 1
        assert fit._identify(model, (changed, *data[1:]), data, recipe, seed=1) != first


def test_rows_and_labels_that_differ_in_number_are_refused():
    good, bad = (PIXELS, LABELS[:64], np.arange(64)), (PIXELS, LABELS[:64], np.arange(63))
    with pytest.raises(ValueError, match="training set has 63 images but 64 labels"):
        fit_model(make_mlp(), bad, good, epochs=1, batch_size=BATCH)
    with pytest.raises(ValueError, match="validation set has 63 images but 64 labels"):
        fit_model(make_mlp(), good, bad, epochs=1, batch_size=BATCH)
    with pytest.raises(ValueError, match="validation set has 64 images but 300 labels"):
        fit_model(make_mlp(), good, (PIXELS, LABELS, np.arange(64)), epochs=1, batch_size=BATCH)
    with pytest.raises(ValueError, match="training set has 31 images, at least 32"):
        fit_model(make_mlp(), (PIXELS, LABELS[:31], np.arange(31)), good, epochs=1, batch_size=BATCH)


# Class weights


def make_labels(*counts):
    return np.repeat(np.eye(len(counts), dtype="float32"), counts, axis=0)


@pytest.mark.parametrize(
    ("counts", "power", "proportions"),
    [
        ((60, 30, 10), 1.0, (1 / 60, 1 / 30, 1 / 10)),
        ((60, 30, 10), 0.0, (1, 1, 1)),
        ((16, 4, 1), 0.5, (1 / 4, 1 / 2, 1)),
        ((40, 0, 10), 1.0, (1 / 4, 0, 1)),
        ((40, 0, 10), 0.0, (1, 0, 1)),
        ((7, 0), 0.5, (1, 0)),
    ],
)
def test_class_weights_are_powers_of_the_counts_with_mean_one_over_the_images(counts, power, proportions):
    y = make_labels(*counts)
    weights = compute_class_weights(y, power)
    assert weights.shape == (len(counts),)
    np.testing.assert_allclose(weights / weights.max(), np.divide(proportions, max(proportions)), rtol=1e-12)
    assert (y @ weights).mean() == pytest.approx(1, rel=1e-12)


def test_full_class_weights_give_all_classes_the_same_total():
    y = make_labels(60, 30, 10)
    np.testing.assert_allclose(y.sum(0) * compute_class_weights(y), 100 / 3, rtol=1e-12)
    np.testing.assert_array_equal(compute_class_weights(y), compute_class_weights(y, 1))


def make_linear(seed=0):
    """Make a model without a state of its own."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    inputs = layers.Input((8, 8, 1))
    x = layers.Flatten()(layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


def measure_errors(model, pixels, labels):
    """Compute the cross-entropy of each image by hand."""
    kernel, bias = (weight.astype("float64") for weight in model.get_weights())
    scores = pixels.reshape(len(pixels), -1) / 255 @ kernel + bias
    return np.log(np.exp(scores).sum(1)) - (scores * labels).sum(1)


@pytest.mark.parametrize("class_weights", [None, [3.0, 0.5, 0.1]])
def test_weights_count_in_the_training_loss_and_not_in_the_validation_loss(class_weights):
    """One batch, so that its loss is that of the initial weights."""
    training, validation = (PIXELS[:BATCH], LABELS[:BATCH]), (PIXELS[VALIDATION], LABELS[VALIDATION])
    model = make_linear()
    errors = measure_errors(model, *training)
    weights = training[1] @ np.array(class_weights or [1.0, 1.0, 1.0])
    history = fit_model(
        model, training, validation, epochs=1, batch_size=BATCH, learning_rate=0.1, class_weights=class_weights
    )
    assert abs((errors * weights).mean() - errors.mean()) > 0.05 or class_weights is None
    assert history["loss"][1] == pytest.approx((errors * weights).mean(), rel=1e-5)
    assert history["val_loss"][1] == pytest.approx(measure_errors(model, *validation).mean(), rel=1e-5)


def test_images_of_a_class_without_weight_teach_nothing():
    pixels = PIXELS.copy()
    pixels[TRAINING][LABELS[TRAINING, 1] == 1] = 0
    trained = {}
    for class_weights in (None, (1.5, 0, 1.5)):
        for name, training in (("original", PIXELS), ("blackened", pixels)):
            model = make_linear()
            sets = [(training[TRAINING], LABELS[TRAINING]), (PIXELS[VALIDATION], LABELS[VALIDATION])]
            run(model, lambda images, rng: images, sets=sets, epochs=1, class_weights=class_weights)
            trained[class_weights, name] = model.get_weights()[0]
    weighted, unweighted = (
        np.abs(trained[class_weights, "original"] - trained[class_weights, "blackened"]).max()
        for class_weights in ((1.5, 0, 1.5), None)
    )
    assert weighted < 1e-7
    assert unweighted > 1e-3


# Mixup


def read_blended(count, batch_size, mixup, steps, seed=3, **settings):
    """Read batches of images that tell their own number, blended and as they are."""
    training = number_images(count)
    blended = list(make_batches(training, batch_size, seed, None, steps, mixup=mixup, **settings))
    plain = list(make_batches(training, batch_size, seed, None, steps))
    return [tuple(map(np.array, batch)) for batch in blended], [tuple(map(np.array, batch)) for batch in plain]


def test_blended_labels_sum_to_one_and_tell_the_shares_of_the_images():
    blended, plain = read_blended(50, 8, 0.5, range(12))
    for (images, labels), (_, own) in zip(blended, plain, strict=True):
        assert images.dtype == labels.dtype == "float32"
        assert images.shape == (8, 2, 2, 1)
        np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-5)
        assert (labels >= 0).all()
        assert ((labels > 0).sum(1) <= 2).all()
        np.testing.assert_allclose(images[:, 0, 0, 0], labels @ np.arange(50), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(images, np.broadcast_to(images[:, :1, :1], images.shape))
        assert ((labels * own).sum(1) >= 0.5 - 1e-6).all()  # the image itself is the larger part
        assert (labels[:, own.sum(0) == 0] == 0).all()  # the other one is of the same batch
        assert (labels.max(1) < 1).any()


@pytest.mark.parametrize(("mixup", "expected"), [(0.2, 0.901), (1.0, 0.75), (4.0, 0.637)])
def test_shares_are_those_of_the_beta_distribution(mixup, expected):
    """The mean of max(share, 1 - share), worked out numerically."""
    blended, plain = read_blended(400, 200, mixup, range(20))
    shares = np.concatenate([(labels * own).sum(1) for (_, labels), (_, own) in zip(blended, plain, strict=True)])
    assert shares[shares < 1].mean() == pytest.approx(expected, abs=0.012)


def test_without_mixup_images_and_labels_are_left_alone():
    blended, plain = read_blended(50, 8, 0.0, range(6))
    for ours, expected in zip(blended, plain, strict=True):
        for array, wanted in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(array, wanted)


def test_blending_is_decided_by_seed_and_number_alone():
    whole, _ = read_blended(50, 8, 0.5, range(12))
    part, _ = read_blended(50, 8, 0.5, range(5, 12))
    for ours, expected in zip(part, whole[5:], strict=True):
        for array, wanted in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(array, wanted)
    other, _ = read_blended(50, 8, 0.5, range(12), seed=4)
    shares, others = (np.concatenate([labels.max(1) for _, labels in batches]) for batches in (whole, other))
    assert len(np.intersect1d(shares[shares < 1], others[others < 1])) == 0
    assert len(np.unique(shares[shares < 1])) == (shares < 1).sum()  # each image of each batch has its own


def test_blended_images_weigh_what_their_parts_weigh():
    weights = np.linspace(0.2, 3, 50)
    blended, _ = read_blended(50, 8, 0.5, range(6), class_weights=weights)
    shares, _ = read_blended(50, 8, 0.5, range(6))
    for (_, _, weighted), (_, labels) in zip(blended, shares, strict=True):
        assert weighted.shape == (8,)
        assert weighted.dtype == "float32"
        np.testing.assert_allclose(weighted, labels @ weights, rtol=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_balancing_weights_balance_blended_images_too(mixup, label_smoothing):
    """Of the constant predictions, the mean label of the loss is the best; with balancing weights all classes share."""
    labels = make_labels(360, 40)
    training, weights = (np.zeros((400, 2, 2, 1)), labels), compute_class_weights(labels)
    steps = range(50)
    total = np.zeros(2)
    for _, y, weighted in make_batches(training, 400, 3, None, steps, weights, mixup):
        np.testing.assert_allclose(np.sum(y, axis=1), 1, rtol=1e-5)  # as the gradient of the softmax needs it
        total += np.asarray(weighted) @ ((1 - label_smoothing) * np.asarray(y) + label_smoothing / 2)
    np.testing.assert_allclose(total / total.sum(), [0.5, 0.5], atol=0.005)
    assert total.sum() / 400 / len(steps) == pytest.approx(1, abs=0.01)


def test_the_loss_of_a_blended_image_is_that_of_its_parts():
    weights, losses = np.linspace(0.2, 3, 50), np.linspace(1, 2, 50)  # of each class
    weighted, _ = read_blended(50, 8, 0.5, range(6), class_weights=weights)
    plain, _ = read_blended(50, 8, 0.5, range(6))
    for (_, labels, total), (_, shares) in zip(weighted, plain, strict=True):
        np.testing.assert_allclose(total * (labels @ losses), shares @ (weights * losses), rtol=1e-5)


def test_blended_images_of_classes_without_weight_stay_finite():
    ((_, labels, weights),), _ = read_blended(8, 8, 0.5, range(1), class_weights=np.zeros(8))
    assert np.isfinite(labels).all()
    assert not weights.any()


def test_blending_comes_after_augmentation():
    """Each of the two parts is augmented on its own."""
    training = np.zeros((8, 2, 2, 1)), np.eye(8)

    def paint(images, rng):
        return np.broadcast_to(100.0 * (1 + np.arange(8))[:, None, None, None], images.shape)

    ((images, labels),) = make_batches(training, 8, 3, paint, range(1), mixup=1.0)
    assert np.max(labels, axis=1).min() < 1
    np.testing.assert_allclose(images[:, 1, 0, 0], np.array(labels) @ (100.0 * (1 + np.arange(8))), rtol=1e-5)


def test_killed_and_resumed_is_the_same_also_with_mixup_and_class_weights(tmp_path, whole):
    settings = {"mixup": 0.4, "class_weights": compute_class_weights(make_labels(30, 20, 10)), "label_smoothing": 0.1}
    uninterrupted = make_mlp()
    expected = uninterrupted, run(uninterrupted, **settings)
    checkpoint = tmp_path / "checkpoint.npz"
    train_until_killed(make_mlp(), checkpoint, **settings)
    model, augment = make_mlp(), Augmenter()
    keras.utils.set_random_seed(99)
    history = run(model, augment, checkpoint=checkpoint, **settings)
    assert augment.batches == (EPOCHS - 2) * STEPS  # really resumed
    assert_same_training((model, history), expected)
    assert np.abs(model.get_layer("hidden").kernel - whole[0].get_layer("hidden").kernel).max() > 1e-3


# Features instead of images


def test_classifier_learns_from_features_too():
    features = PIXELS.reshape(300, -1).astype("float32")
    trainings = []
    for pixels, rows in [(features, None), (np.repeat(features, 2, axis=0), 2 * np.arange(300))]:
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        head = build_head(features[TRAINING], 3, dropout=0.2)
        sets = [
            (pixels[part], LABELS[part]) if rows is None else (pixels, LABELS[part], rows[part])
            for part in (TRAINING, VALIDATION)
        ]
        trainings.append((head, run(head, sets=sets, mixup=0.2, learning_rate=2e-2, class_weights=[1, 1, 1])))
    history = trainings[0][1]
    assert history["val_accuracy"].max() > 0.95
    assert history["val_loss"].iloc[-1] < 0.7 * history["val_loss"].iloc[0] or history["val_loss"].min() < 0.1
    assert_same_training(*trainings)


# What is refused


def test_images_and_labels_that_differ_in_number_are_refused():
    good, bad = (PIXELS[:64], LABELS[:64]), (PIXELS[:64], LABELS[:63])
    with pytest.raises(ValueError, match="training set has 64 images but 63 labels"):
        fit_model(make_mlp(), bad, good, epochs=1, batch_size=BATCH)
    with pytest.raises(ValueError, match="validation set has 64 images but 63 labels"):
        fit_model(make_mlp(), good, bad, epochs=1, batch_size=BATCH)


def test_too_few_images_are_refused():
    good, few, none = ((PIXELS[:count], LABELS[:count]) for count in (64, 31, 0))
    with pytest.raises(ValueError, match="training set has 31 images, at least 32"):
        fit_model(make_mlp(), few, good, epochs=1, batch_size=BATCH)
    with pytest.raises(ValueError, match="validation set has 0 images, at least 1"):
        fit_model(make_mlp(), good, none, epochs=1, batch_size=BATCH)


# Batches


def number_images(count):
    """Make images that tell their own number, and labels that repeat it."""
    numbers = np.arange(count)
    return np.broadcast_to(numbers[:, None, None, None], (count, 2, 2, 1)), np.eye(count)[numbers]


def read_batches(training, batch_size, seed, steps, augment=None):
    batches = list(make_batches(training, batch_size, seed, augment, steps))
    return np.array([[*images[:, 0, 0, 0]] for images, _ in batches]), batches


def test_each_epoch_shows_each_image_at_most_once_in_another_order():
    epochs, _ = read_batches(number_images(50), 8, 3, range(18))
    epochs = epochs.reshape(3, 6, 8)
    for epoch in epochs:
        assert len(np.unique(epoch)) == 48
    sets = [{frozenset(batch) for batch in epoch} for epoch in epochs]
    assert not sets[0] & sets[1]
    left_out = [frozenset(range(50)) - frozenset(epoch.ravel()) for epoch in epochs]
    assert len(set(left_out)) == 3
    assert max(np.abs(np.corrcoef(epochs.reshape(3, -1)) - np.eye(3)).max(), 0) < 0.99


def test_batches_are_float32_and_labels_stay_with_their_images():
    _, batches = read_batches(number_images(50), 8, 3, range(6))
    for images, labels in batches:
        assert images.dtype == labels.dtype == "float32"
        assert images.shape == (8, 2, 2, 1)
        np.testing.assert_array_equal(np.argmax(labels, 1), images[:, 0, 0, 0])


def test_batch_is_decided_by_seed_and_number_alone():
    def add_noise(images, rng):
        return images + rng.uniform(0, 0.5, (len(images), 1, 1, 1))

    training = number_images(50)
    whole, _ = read_batches(training, 8, 3, range(18), add_noise)
    part, _ = read_batches(training, 8, 3, range(7, 18), add_noise)
    np.testing.assert_array_equal(part, whole[7:])
    other, _ = read_batches(training, 8, 4, range(18), add_noise)
    assert (other != whole).all(1).all()


def test_each_batch_is_augmented_by_random_numbers_of_its_own():
    augment = Augmenter()
    list(make_batches((PIXELS, LABELS), BATCH, 3, augment, range(27)))
    assert len(set(augment.drawn)) == 27


def test_augmentation_and_shuffling_do_not_share_their_random_numbers():
    augment = Augmenter()
    list(make_batches((PIXELS, LABELS), BATCH, 3, augment, range(9)))
    seeds = [[3], [3, 0], [3, fit._SHUFFLING, 0]]
    shuffling = [np.random.default_rng(seed).bit_generator.state["state"]["state"] for seed in seeds]
    assert not set(shuffling) & set(augment.drawn)


def test_each_step_of_each_epoch_has_its_own_dropout():
    masks = []

    class Spy(layers.Dropout):
        def call(self, inputs, training=False):
            outputs = super().call(inputs, training)
            if training:
                tf.py_function(lambda values: masks.append((values.numpy() == 0).tobytes()), [outputs], [])
            return outputs

    inputs = layers.Input((8, 8, 1))
    x = layers.Flatten()(layers.Rescaling(0, 1)(inputs))  # nothing but ones: what is zero was dropped
    spied = Spy(0.5)
    spied.supports_jit = False
    model = keras.Model(inputs, layers.Dense(3, "softmax")(spied(x)))
    run(model, epochs=3)
    assert len(masks) == 3 * STEPS
    assert len(set(masks)) == 3 * STEPS


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"epochs": 1, "ema_epochs": 0}])
def test_epochs_have_to_be_positive(wrong):
    with pytest.raises(ValueError, match="expected at least 1, and more than 0"):
        fit.Recipe(**wrong)


def test_many_networks_in_one_run_bring_no_warning_of_retracing(caplog):
    logger = logging.getLogger("tensorflow")
    with caplog.at_level("WARNING", logger="tensorflow"):
        logger.propagate, propagate = True, logger.propagate
        logger.warning("5 out of the last 5 calls to %r triggered tf.function retracing.", "predict")
        logger.warning("something else")
        logger.propagate = propagate
    assert [record.getMessage() for record in caplog.records] == ["something else"]
