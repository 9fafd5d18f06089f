"""The training step: images per second, and whether the losses stay those of Keras."""

import statistics
from contextlib import ExitStack, closing
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np

from benchmarks.common import NETWORKS, compare, compute_rate, measure_in_turn
from benchmarks.networks import (
    build,
    build_as_commonly_written,
    compile_as_fit,
    copy_as_keras,
    draw_batch,
    list_precisions,
)
from benchmarks.pytorch import PyTorch
from helpers.training import fast, networks, tf

KERAS, COMMON = "Keras as it comes", "Keras as it comes, pooled last"


def measure_step(name, rounds=9, tiny=False):
    """Compare the step of `helpers.training.fit` with that of Keras, of PyTorch, and with its convolutions alone."""
    images, labels = draw_batch(name)
    images, labels = (images[:8], labels[:8]) if tiny else (images, labels)
    steps = 1 if tiny else max(1, 1500 // len(images) // (1 if len(images) == 128 else 8))
    precisions, torch_version = list_precisions(), find_torch()
    steps_of = {
        KERAS: copy_as_keras(build(name, "float32")).train_on_batch,
        COMMON: build_as_commonly_written(name).train_on_batch,
    }
    for precision in precisions:
        ours = compile_as_fit(build(name, precision))
        steps_of[f"ours, {precision}"] = ours.train_on_batch
        convolve = make_convolutions(ours, len(images), precision)
        steps_of[f"convolutions alone, {precision}"] = lambda images, labels, convolve=convolve: convolve()
    for step in steps_of.values():
        step(images, labels), step(images, labels)  # tracing
    ways = {
        way: partial(compute_rate, partial(step, images, labels), len(images), steps) for way, step in steps_of.items()
    }
    with ExitStack() as processes:
        if torch_version:
            for precision in precisions:
                process = processes.enter_context(closing(PyTorch(name, precision, len(images))))
                ways[f"PyTorch {torch_version} eager, {precision}"] = partial(process.measure, steps)
        measured = measure_in_turn(ways, rounds)
    return [
        compare(f"training step, {name}, {precision}, {subject}", f"ours, {precision}", way, measured)
        for precision in precisions
        for subject, way in (
            ("Keras", KERAS),
            ("Keras, common order", COMMON),
            *([("PyTorch", f"PyTorch {torch_version} eager, {precision}")] if torch_version else []),
            ("bound", f"convolutions alone, {precision}"),
        )
    ]


def find_torch():
    """Find the version of PyTorch; None, and a line about it, if it is not installed."""
    if find_spec("torch") is not None:
        return version("torch")
    print("PyTorch is not installed, its rows are left out: .venv/bin/uv pip install --group bench")
    return None


def make_convolutions(model, batch_size, precision, backward=True):
    """Make a function that computes the convolutions of a training step and nothing else: forward and both backward.

    The first one has no gradient of its input, which are the pixels. Without ``backward`` it computes a prediction's.
    """
    convolutions = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.Conv2D)]
    dtype = "bfloat16" if precision == "mixed_bfloat16" else "float32"

    def draw(shape):
        return tf.cast(tf.random.normal((batch_size, *shape[1:])), dtype)

    operands = [
        (draw(layer.input.shape), tf.cast(layer.kernel.value, dtype), draw(layer.output.shape))
        for layer in convolutions
    ]

    @tf.function
    def convolve(operands):
        results = []
        for number, (layer, (inputs, kernel, gradient)) in enumerate(zip(convolutions, operands, strict=True)):
            options = {"strides": [1, *layer.strides, 1], "padding": "SAME"}
            results.append(tf.nn.conv2d(inputs, kernel, **options))
            if backward:
                results.append(
                    tf.raw_ops.Conv2DBackpropFilter(
                        input=inputs, filter_sizes=kernel.shape, out_backprop=gradient, **options
                    )
                )
            if backward and number:
                results.append(
                    tf.raw_ops.Conv2DBackpropInput(
                        input_sizes=inputs.shape, filter=kernel, out_backprop=gradient, **options
                    )
                )
        return results

    return lambda: convolve(operands)[-1].numpy()  # waits for the end


def measure_losses(rounds=3, tiny=False):
    """Train from the same weights on the same batches as this project and as Keras; a round is a seed."""
    images, labels = load_digits()
    validation = images[1500:], labels[1500:]
    images, labels = (images[:128], labels[:128]) if tiny else (images[:1500], labels[:1500])
    epochs, batch_size = (1, 64) if tiny else (8, 64)
    precisions = list_precisions()
    curves = {way: [] for way in [KERAS, *(f"ours, {precision}" for precision in precisions)]}
    for seed in range(rounds):
        fast.set_seed(seed)
        start = build_digits_network("float32")
        networks = {KERAS: copy_as_keras(start)}
        for precision in precisions:
            networks[f"ours, {precision}"] = compile_as_fit(build_digits_network(precision))
            networks[f"ours, {precision}"].set_weights(start.get_weights())
        orders = np.random.default_rng(seed).permuted(np.tile(np.arange(len(images)), (epochs, 1)), axis=1)
        for way, network in networks.items():
            curves[way].append([])
            for order in orders:
                for rows in order[: len(order) // batch_size * batch_size].reshape(-1, batch_size):
                    network.train_on_batch(images[rows], labels[rows])
                curves[way][-1].append(float(network.evaluate(*validation, verbose=0)[0]))
    final = {way: [curve[-1] for curve in of_seeds] for way, of_seeds in curves.items()}
    return [describe_losses(precision, curves, final) for precision in precisions]


def describe_losses(precision, curves, final):
    """Make a row of the final losses, and say whether they differ by more than seeds do."""
    ours = f"ours, {precision}"
    difference = statistics.mean(final[ours]) - statistics.mean(final[KERAS])
    spread = max(final[KERAS]) - min(final[KERAS])
    within = abs(difference) <= spread
    return compare(
        f"validation loss, digits, {precision}",
        ours,
        KERAS,
        final,
        "loss after the last epoch",
        curves={way: np.round(curves[way], 5).tolist() for way in (KERAS, ours)},
        difference=difference,
        spread_of_seeds=spread,
        within_spread=within,
        note=f"the means differ by {difference:+.2g}, the seeds of Keras by {spread:.2g}: "
        f"{'within' if within else 'beyond'} the spread. A round is a seed",
    )


def load_digits():
    """Load scikit-learn's 1,797 digits of 8 x 8 pixels, doubled to 16 x 16 and shuffled."""
    from sklearn.datasets import load_digits as load

    images, codes = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images = np.kron(images[order].reshape(-1, 8, 8, 1), np.ones((1, 2, 2, 1))) * 15.9
    return images.astype("float32"), np.eye(10, dtype="float32")[codes[order]]


def build_digits_network(precision):
    """Build a small network of the notebooks' kind, without dropout, whose noise would differ."""
    fast.set_precision(precision)
    return networks.build_cnn((16, 16, 1), 10, ([78.0], [96.0]), filters=((16, 32), (64, 64)), dropout=0)


ROWS = {f"training-step-{name.replace(' ', '-')}": partial(measure_step, name) for name in NETWORKS}
ROWS["training-losses"] = measure_losses
