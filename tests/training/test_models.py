"""Models: the fused batch normalization against Keras's own, the network by hand, saving and loading."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import MappingProxyType

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from helpers import files
from helpers.data.cells import BACKGROUND_LEVEL
from helpers.training import saving, tf
from helpers.training.fast import FusedBatchNormalization, predict_probabilities, predict_views, set_precision
from helpers.training.networks import build_cnn, describe_layers, standardization_layer, standardize_cells
from helpers.training.saving import load_model, read_about, save_model
from helpers.training.surgery import build_in_temperature, combine_networks, copy_model, cut_at

# Keras hands TensorFlow's variables to NumPy in the old way when it writes a file.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

STATISTICS = ([100.0, 50.0], [40.0, 20.0])


@pytest.fixture(autouse=True)
def _keep_dtype_policy():
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture
def fused_calls(monkeypatch):
    """Count the calls of the fused kernel."""
    calls = []
    kernel = tf.raw_ops.FusedBatchNormV3

    def count(**arguments):
        calls.append(arguments["is_training"])
        return kernel(**arguments)

    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", count)
    return calls


def make_pixels(count=6, size=(8, 6), channels=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, channels)).astype("uint8")


def make_cnn(seed=0, **settings):
    """Build a small network whose weights and moving statistics are all at random."""
    model = build_cnn((8, 6, 2), 3, STATISTICS, **({"filters": ((4,), (5,))} | settings))
    rng = np.random.default_rng(seed)
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights(
        [rng.normal(0, 0.2, shape) if len(shape) > 1 else rng.uniform(0.5, 1.5, shape) for shape in shapes]
    )
    return model


# FusedBatchNormalization


def make_pair(shape, dtype=None, **settings):
    """Make the fused layer and Keras's with the same random weights."""
    pair = FusedBatchNormalization(dtype=dtype, **settings), layers.BatchNormalization(dtype=dtype, **settings)
    rng = np.random.default_rng(1)
    for layer in pair:
        layer.build(shape)
    values = [rng.uniform(0.5, 1.5, weight.shape) for weight in pair[0].weights]
    for layer in pair:
        layer.set_weights(values)
    return pair


def run_layer(layer, inputs, training, **arguments):
    """Compute outputs and gradients (of the inputs, gamma and beta) of a fixed function of the outputs."""
    inputs = tf.cast(inputs, layer.compute_dtype)
    direction = tf.constant(np.random.default_rng(2).normal(size=inputs.shape), "float32")
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=training, **arguments)
        loss = tf.reduce_mean(direction * tf.cast(outputs, "float32") ** 2)
    sources = [inputs, *(weight.value for weight in layer.trainable_weights)]
    return outputs, [tf.cast(gradient, "float32").numpy() for gradient in tape.gradient(loss, sources)]


def make_inputs(shape=(5, 4, 3, 6), step=0):
    rng = np.random.default_rng(10 + step)
    return (rng.normal(size=shape) * rng.uniform(0.5, 3, shape[-1]) + rng.normal(size=shape[-1])).astype("float32")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 0.05), ("mixed_float16", 5e-3)])
@pytest.mark.parametrize("training", [True, False])
def test_fused_layer_equals_keras_in_outputs_and_gradients(fused_calls, dtype, tolerance, training):
    fused, plain = make_pair((None, 4, 3, 6), dtype, momentum=0.8, epsilon=1e-2)
    for step in range(3):
        inputs = make_inputs(step=step)
        outputs, gradients = run_layer(fused, inputs, training)
        expected, expected_gradients = run_layer(plain, inputs, training)
        assert outputs.dtype == expected.dtype == fused.compute_dtype
        scale = np.abs(tf.cast(expected, "float32")).max()
        np.testing.assert_allclose(
            tf.cast(outputs, "float32"), tf.cast(expected, "float32"), rtol=tolerance, atol=tolerance * scale
        )
        assert len(gradients) == len(expected_gradients) == 3
        for gradient, wanted in zip(gradients, expected_gradients, strict=True):
            np.testing.assert_allclose(gradient, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max())
            assert np.abs(wanted).max() > 1e-3
    assert fused_calls == [training] * 3


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("mixed_bfloat16", 1e-2), ("mixed_float16", 1e-3)])
def test_moving_statistics_equal_keras_after_several_steps(dtype, tolerance):
    fused, plain = make_pair((None, 4, 3, 6), dtype, momentum=0.7)
    before = np.array(fused.moving_variance)
    for step in range(5):
        for layer in (fused, plain):
            layer(tf.cast(make_inputs(step=step), layer.compute_dtype), training=True)
    for name in ("moving_mean", "moving_variance"):
        ours, theirs = (np.array(getattr(layer, name)) for layer in (fused, plain))
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    assert np.abs(fused.moving_variance - before).max() > 0.5
    for layer in (fused, plain):  # inference uses them and does not touch them
        statistics = np.array(layer.moving_mean)
        layer(tf.cast(make_inputs(step=9), layer.compute_dtype), training=False)
        np.testing.assert_array_equal(layer.moving_mean, statistics)


def test_variance_is_the_biased_one_also_in_the_smallest_batch():
    fused, plain = make_pair((None, 2, 1, 3), momentum=0.0)
    inputs = make_inputs((1, 2, 1, 3))  # two values per channel: biased and unbiased differ by a factor of 2
    fused(inputs, training=True)
    plain(inputs, training=True)
    np.testing.assert_allclose(fused.moving_variance, inputs.var((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(fused.moving_variance, plain.moving_variance, rtol=1e-5)


def test_frozen_layer_equals_keras_and_keeps_its_statistics():
    fused, plain = make_pair((None, 4, 3, 6))
    for layer in (fused, plain):
        layer.trainable = False
    statistics = [np.array(weight) for weight in fused.weights]
    outputs, gradients = run_layer(fused, make_inputs(), training=True)
    expected, expected_gradients = run_layer(plain, make_inputs(), training=True)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    assert len(gradients) == len(expected_gradients) == 1
    np.testing.assert_allclose(gradients[0], expected_gradients[0], rtol=1e-5, atol=1e-6)
    for weight, before in zip(fused.weights, statistics, strict=True):
        np.testing.assert_array_equal(weight, before)


def test_inputs_other_than_images_with_channels_last_are_left_to_keras(fused_calls):
    mask = np.array([[[True], [False], [True]]])[:, :, 0]
    cases = [
        ((4, 6), {}, {}),
        ((4, 5, 6), {}, {}),
        ((4, 5, 3, 6), {"axis": 1}, {}),
        ((4, 5, 3, 6), {"scale": False}, {}),
        ((4, 5, 3, 6), {"center": False}, {}),
        ((1, 3, 2, 6), {}, {"mask": tf.constant(np.repeat(mask[:, :, None], 2, 2))}),
        ((4, 3, 2, 2, 6), {}, {}),
    ]
    for shape, settings, arguments in cases:
        fused, plain = make_pair((None, *shape[1:]), **settings)
        outputs, gradients = run_layer(fused, make_inputs(shape), True, **arguments)
        expected, expected_gradients = run_layer(plain, make_inputs(shape), True, **arguments)
        np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
        for gradient, wanted in zip(gradients, expected_gradients, strict=True):
            np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(fused.moving_variance, plain.moving_variance, rtol=1e-5)
    assert fused_calls == []


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_weights_that_are_not_float32_are_left_to_keras(dtype):
    fused, plain = make_pair((None, 4, 3, 6), dtype)
    inputs = tf.cast(make_inputs(), dtype)
    outputs, expected = (tf.cast(layer(inputs, training=True), "float32") for layer in (fused, plain))
    np.testing.assert_allclose(outputs, expected, rtol=0.05, atol=0.05)


def test_layer_learns_in_a_model_as_keras_does(fused_calls):
    """Run whole compiled training steps, with a batch size that the graph does not know."""
    histories = []
    for kind in (FusedBatchNormalization, layers.BatchNormalization):
        model = keras.Sequential(
            [
                layers.Input((4, 3, 6)),
                kind(momentum=0.5),
                layers.Flatten(),
                layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=1)),
            ]
        )
        model.compile(keras.optimizers.SGD(0.05), "mse")
        inputs = make_inputs((22, 4, 3, 6))
        model.fit(inputs, inputs[:, 0, 0, :1], batch_size=8, epochs=3, shuffle=False, verbose=0)
        histories.append([*model.get_weights(), model.predict(inputs, verbose=0)])
    for ours, theirs in zip(*histories, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    assert True in fused_calls
    assert False in fused_calls


# Precision


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_precision_is_set_and_returned(precision):
    assert set_precision(precision) == precision
    assert keras.config.dtype_policy().name == precision
    layer = layers.Dense(2)
    layer.build((None, 3))
    assert layer.compute_dtype == precision.removeprefix("mixed_")
    assert layer.kernel.dtype == "float32"


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="float7"):
        set_precision("float7")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx2 avx512f avx512_bf16 amx_tile", "mixed_bfloat16"),
        ("flags : fpu avx2 amx_bf16", "mixed_bfloat16"),
        ("flags : fpu avx2 avx512f", "float32"),
        (OSError("no such file"), "float32"),
    ],
)
def test_automatic_precision_follows_the_processor(monkeypatch, flags, expected):
    def read_text(path, *arguments, **settings):
        assert str(path) == "/proc/cpuinfo"
        if isinstance(flags, OSError):
            raise flags
        return flags

    monkeypatch.setattr(Path, "read_text", read_text)
    chosen = set_precision()
    monkeypatch.undo()
    assert chosen == expected
    assert keras.config.dtype_policy().name == expected


# build_cnn


def test_network_has_the_shapes_and_parameters_worked_out_by_hand():
    model = build_cnn((12, 10, 3), 5, ([1, 2, 3], [1, 1, 1]), filters=((4, 4), (6, 6)))
    # Convolutions 3x3 without bias, 4 numbers per normalized channel, pooled 12x10 -> 6x5 -> 3x3.
    by_hand = (27 * 4 + 16) + (36 * 4 + 16) + (36 * 6 + 24) + (54 * 6 + 24) + (3 * 3 * 6 * 5 + 5)
    assert model.count_params() == by_hand == 1147
    assert model.output_shape == (None, 5)
    assert model.name == "cnn"
    assert model.get_layer("block1_pool").output.shape == (None, 6, 5, 4)
    assert model.get_layer("features").output.shape == (None, 54)


def test_network_without_batch_norm_has_biases_instead():
    model = build_cnn(
        (12, 10, 3), 5, ([1, 2, 3], [1, 1, 1]), filters=((4, 4), (6, 6)), batch_norm=False, dropout=0, name="plain"
    )
    assert model.count_params() == (27 * 4 + 4) + (36 * 4 + 4) + (36 * 6 + 6) + (54 * 6 + 6) + (54 * 5 + 5)
    kinds = {type(layer) for layer in model.layers}
    assert not kinds & {layers.Dropout, layers.BatchNormalization, FusedBatchNormalization}
    assert model.name == "plain"


@pytest.mark.parametrize(
    ("stride", "shapes"),
    [(1, [(13, 10), (13, 10), (7, 5), (7, 5), (4, 3)]), (2, [(7, 5), (7, 5), (4, 3), (4, 3), (2, 2)])],
)
def test_stride_is_that_of_the_first_convolution_alone(stride, shapes):
    model = build_cnn((13, 10, 3), 5, ([1, 2, 3], [1, 1, 1]), filters=((4, 4), (6,)), first_stride=stride)
    names = ["block1_1_conv", "block1_2_conv", "block1_pool", "block2_1_conv", "block2_pool"]
    assert [model.get_layer(name).output.shape[1:3] for name in names] == shapes
    assert [layer.strides for layer in model.layers if isinstance(layer, layers.Conv2D)] == [
        (stride,) * 2,
        (1, 1),
        (1, 1),
    ]
    height, width = shapes[-1]
    assert model.get_layer("features").output.shape == (None, height * width * 6)
    assert model(make_pixels(2, (13, 10), 3)).shape == (2, 5)


def test_blocks_may_differ_in_depth():
    model = build_cnn((8, 8, 1), 2, ([1], [1]), filters=((3, 5), (7,), (2, 4, 6)), batch_norm=False)
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [3, 5, 7, 2, 4, 6]
    pools = [layer.output.shape[1] for layer in model.layers if isinstance(layer, layers.MaxPooling2D)]
    assert pools == [4, 2, 1]


def test_blocks_pool_before_they_normalize_and_activate():
    model = build_cnn((8, 6, 2), 3, STATISTICS, filters=((4, 4),), dropout=0.25)
    kinds = [type(layer) for layer in model.layers[2:]]
    convolution, normalization = layers.Conv2D, FusedBatchNormalization
    block = [convolution, normalization, layers.ReLU, convolution, layers.MaxPooling2D, normalization, layers.ReLU]
    assert kinds == [*block, layers.Flatten, layers.Dropout, layers.Dense]
    assert model.get_layer("dropout").rate == 0.25


def test_pooling_before_normalizing_and_activating_loses_nothing_but_work():
    model = make_cnn(filters=((4,),))  # random positive scales: activation and pooling change places freely
    model.get_layer("block1_1_norm").gamma.assign(np.linspace(0.2, 2, 4))
    pixels = make_pixels()
    x = standardization_layer(STATISTICS)(pixels)
    for name in ("block1_1_conv", "block1_1_norm", "block1_1_relu", "block1_pool", "features", "probabilities"):
        x = model.get_layer(name)(x)
    np.testing.assert_allclose(model(pixels), x, rtol=1e-4, atol=1e-6)


def test_standardization_is_inside_the_network():
    model, pixels = make_cnn(), make_pixels()
    standardized = (pixels.astype("float64") - STATISTICS[0]) / STATISTICS[1]
    np.testing.assert_allclose(standardization_layer(STATISTICS)(pixels), standardized, rtol=1e-5, atol=1e-5)

    rest = keras.Model(model.get_layer("standardization").output, model.output)
    expected = rest(standardized.astype("float32"))
    np.testing.assert_allclose(model(pixels), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(model(pixels), model(pixels.astype("float32")))
    assert np.abs(model(pixels) - rest(pixels.astype("float32"))).max() > 0.01
    assert not model.get_layer("standardization").weights  # not learned


@pytest.mark.parametrize(("std", "fused"), [(40.0, True), (1.0, True), (0.5, False), (0.0, False)])
def test_standardization_is_that_of_keras_and_fused_unless_the_spread_is_tiny(fused_calls, std, fused):
    pixels, settings = make_pixels().astype("float32"), {"mean": [100.0, 7.0], "variance": [std**2, 400.0]}
    theirs = layers.Normalization(**settings)(pixels)
    assert not fused_calls
    ours = standardization_layer((settings["mean"], [std, 20.0]))(pixels)
    assert fused_calls == [False] * fused
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_standardization_is_fused_again_after_loading_and_plain_elsewhere(fused_calls, tmp_path):
    model = make_cnn(batch_norm=False)
    path = save_model(model, tmp_path / "model.keras")
    assert type(keras.models.load_model(path).get_layer("standardization")) is layers.Normalization
    fused_calls.clear()
    np.testing.assert_array_equal(
        predict_probabilities(load_model(path), make_pixels()), predict_probabilities(model, make_pixels())
    )
    assert fused_calls == [False, False]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_probabilities_are_float32_and_sum_to_one(precision):
    set_precision(precision)
    model = make_cnn()
    probabilities = model(make_pixels())
    assert probabilities.dtype == "float32"
    np.testing.assert_allclose(np.sum(probabilities, 1), 1, atol=1e-5)
    assert model.get_layer("block1_1_conv").compute_dtype == precision.removeprefix("mixed_")
    assert model.get_layer("standardization").compute_dtype == "float32"
    set_precision("float32")
    exact = make_cnn()(make_pixels())
    np.testing.assert_allclose(probabilities, exact, atol=1e-6 if precision == "float32" else 0.05)


def test_dropout_acts_in_training_only():
    model, pixels = make_cnn(dropout=0.5), make_pixels()
    np.testing.assert_array_equal(model(pixels, training=False), model(pixels, training=False))
    dropped = keras.Model(model.input, model.get_layer("dropout").output)(pixels, training=True)
    features = keras.Model(model.input, model.get_layer("features").output)(pixels, training=True)
    share = (np.array(dropped) == 0)[np.array(features) != 0].mean()
    assert 0.3 < share < 0.7


# build_cnn with shortcuts


def test_shortcuts_add_one_convolution_of_one_pixel_to_each_block():
    """Parameters by hand: 1x1 convolutions without bias, and 4 numbers for each normalized channel."""
    options = {"input_shape": (12, 10, 3), "n_classes": 5, "statistics": ([1, 2, 3], [1, 1, 1])}
    plain = build_cnn(**options, filters=((4, 4), (6, 6)))
    residual = build_cnn(**options, filters=((4, 4), (6, 6)), residual=True)
    assert residual.count_params() - plain.count_params() == (3 * 4 + 16) + (4 * 6 + 24) == 76
    added = ["residual_pool", "residual_conv", "residual_norm", "add"]
    names = [layer.name for layer in plain.layers]
    assert [layer.name for layer in residual.layers if layer.name in names] == names
    assert {layer.name for layer in residual.layers} - set(names) == {f"block{n}_{x}" for n in (1, 2) for x in added}
    for name in names:
        assert residual.get_layer(name).output.shape == plain.get_layer(name).output.shape


def test_shortcuts_without_batch_norm_have_biases_instead():
    options = {"input_shape": (12, 10, 3), "n_classes": 5, "statistics": ([1, 2, 3], [1, 1, 1]), "batch_norm": False}
    plain = build_cnn(**options, filters=((4, 4), (6, 6)))
    residual = build_cnn(**options, filters=((4, 4), (6, 6)), residual=True)
    assert residual.count_params() - plain.count_params() == (3 * 4 + 4) + (4 * 6 + 6)
    assert not [layer for layer in residual.layers if isinstance(layer, layers.BatchNormalization)]


def test_there_are_no_shortcuts_by_default():
    assert not [layer for layer in make_cnn().layers if isinstance(layer, layers.Add)]
    assert len([layer for layer in make_cnn(residual=True).layers if isinstance(layer, layers.Add)]) == 2


def average_blocks(maps, side):
    """Average over squares; those that reach over the edge have fewer pixels."""
    count, height, width, channels = maps.shape
    averages = np.empty((count, -(-height // side), -(-width // side), channels))
    margins = [(-size % side) // 2 for size in (height, width)]  # as TensorFlow pads: half of it in front
    for row in range(averages.shape[1]):
        for column in range(averages.shape[2]):
            top, left = (max(0, at * side - margin) for at, margin in zip((row, column), margins, strict=True))
            bottom, right = ((at + 1) * side - margin for at, margin in zip((row, column), margins, strict=True))
            averages[:, row, column] = maps[:, top:bottom, left:right].mean(axis=(1, 2))
    return averages


def compute_shortcut(model, maps, side, block=1):
    """Compute the short way of a block by hand."""
    convolution = model.get_layer(f"block{block}_residual_conv")
    kernel, *bias = convolution.get_weights()
    shortcut = average_blocks(maps.astype("float64"), side) @ kernel[0, 0] + sum(bias)
    if not bias:
        norm = model.get_layer(f"block{block}_residual_norm")
        gamma, beta, mean, variance = norm.get_weights()
        shortcut = (shortcut - mean) / np.sqrt(variance + norm.epsilon) * gamma + beta
    return shortcut


def get_outputs(model, pixels, *names):
    outputs = keras.Model(model.input, [model.get_layer(name).output for name in names])(pixels, training=False)
    return [np.array(output) for output in outputs]


@pytest.mark.parametrize(
    ("size", "first_stride", "batch_norm"),
    [((8, 6), 1, True), ((13, 9), 1, False), ((13, 9), 2, True), ((7, 10), 2, False), ((11, 6), 2, True)],
)
def test_a_block_is_the_sum_of_its_long_and_its_short_way(size, first_stride, batch_norm):
    model = build_cnn(
        (*size, 2),
        3,
        STATISTICS,
        filters=((4, 5), (6,)),
        first_stride=first_stride,
        batch_norm=batch_norm,
        residual=True,
    )
    rng = np.random.default_rng(0)
    model.set_weights(
        [rng.normal(0, 0.3, w.shape) if w.ndim > 1 else rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()]
    )
    pixels = make_pixels(5, size)
    long = ["block1_2_norm", "block2_1_norm"] if batch_norm else ["block1_pool", "block2_pool"]
    names = ["standardization", *long, "block1_2_relu", "block2_1_relu"]
    before, long1, long2, after1, after2 = get_outputs(model, pixels, *names)
    short1 = compute_shortcut(model, before, 2 * first_stride)
    assert min(np.ptp(long1), np.ptp(short1)) > 0.1
    np.testing.assert_allclose(after1, np.maximum(long1 + short1, 0), rtol=1e-4, atol=1e-4)
    short2 = compute_shortcut(model, after1, 2, block=2)
    np.testing.assert_allclose(after2, np.maximum(long2 + short2, 0), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("first_stride", [1, 2])
def test_a_block_whose_long_way_gives_nothing_is_its_short_way(first_stride):
    """Scale and shift of its last normalization zero, as some start them."""
    model, pixels = make_cnn(residual=True, filters=((4, 5),), first_stride=first_stride), make_pixels()
    norm = model.get_layer("block1_2_norm")
    norm.gamma.assign(0 * norm.gamma)
    norm.beta.assign(0 * norm.beta)
    before, after = get_outputs(model, pixels, "standardization", "block1_2_relu")
    expected = np.maximum(compute_shortcut(model, before, 2 * first_stride), 0)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-4)


def test_blocks_whose_short_ways_give_nothing_are_those_of_the_plain_network():
    plain, residual, pixels = make_cnn(), make_cnn(residual=True), make_pixels()
    for layer in plain.layers:
        residual.get_layer(layer.name).set_weights(layer.get_weights())
    assert np.abs(residual(pixels) - plain(pixels)).max() > 0.01
    for block in (1, 2):
        norm = residual.get_layer(f"block{block}_residual_norm")
        norm.gamma.assign(0 * norm.gamma)
        norm.beta.assign(0 * norm.beta)
    np.testing.assert_allclose(residual(pixels), plain(pixels), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("first_stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (5, 9)], ids=str)
def test_shortcuts_fit_images_of_any_size(size, first_stride):
    options = {"filters": ((2, 2), (3,)), "first_stride": first_stride, "average_pooling": True}
    plain, residual = (build_cnn((*size, 2), 3, STATISTICS, **options, residual=given) for given in (False, True))
    for block, last in ((1, 2), (2, 1)):
        shape = residual.get_layer(f"block{block}_add").output.shape
        assert shape == plain.get_layer(f"block{block}_{last}_relu").output.shape
        assert shape == residual.get_layer(f"block{block}_residual_pool").output.shape[:3] + shape[3:]


def test_the_sum_is_activated_and_not_its_parts():
    """What was activated before could only ever be raised by a block."""
    model = make_cnn(residual=True, filters=((4, 5),))
    for name in ("block1_2_norm", "block1_residual_norm"):
        values = np.array(get_outputs(model, make_pixels(), name))
        assert values.min() < 0 < values.max()
    assert [type(layer) for layer in model.layers[-5:]] == [
        layers.Add,
        layers.ReLU,
        layers.Flatten,
        layers.Dropout,
        layers.Dense,
    ]


def test_every_weight_of_a_residual_network_learns(fused_calls):
    """Each normalization in the fused kernel, those of the short ways too."""
    model = make_cnn(residual=True)
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(tf.math.log(model(make_pixels(), training=True)[:, 1]))
    variables = [weight.value for weight in model.trainable_weights]
    gradients = tape.gradient(loss, variables)
    assert len(gradients) == 2 * 3 + 2 * 3 + 2
    assert all(np.abs(gradient).max() > 1e-6 for gradient in gradients)
    assert fused_calls == [False] + [True] * 4  # standardization, then the normalizations


def test_residual_networks_can_be_saved_and_copied(tmp_path):
    set_precision("mixed_bfloat16")
    model, pixels = make_cnn(residual=True, first_stride=2), make_pixels()
    loaded = load_model(save_model(model, tmp_path / "model.keras"))
    np.testing.assert_allclose(loaded(pixels), model(pixels), atol=1e-6)
    assert sum(type(layer) is FusedBatchNormalization for layer in loaded.layers) == 4
    assert model.get_layer("block1_add").compute_dtype == "bfloat16"
    np.testing.assert_allclose(copy_model(model, "exact", "float32")(pixels), model(pixels), atol=0.05)


# copy_model


def test_copy_predicts_the_same_under_another_name():
    model, pixels = make_cnn(), make_pixels()
    model.get_layer("block1_1_conv").trainable = False
    before = predict_probabilities(model, pixels)  # leaves its graph in the model, not in the copy
    copied = copy_model(model, "twin")
    assert (copied.name, model.name) == ("twin", "cnn")
    assert [type(layer) for layer in copied.layers] == [type(layer) for layer in model.layers]
    assert [layer.name for layer in copied.layers] == [layer.name for layer in model.layers]
    assert not {id(layer) for layer in copied.layers} & {id(layer) for layer in model.layers}
    assert [layer.trainable for layer in copied.layers] == [layer.trainable for layer in model.layers]
    np.testing.assert_array_equal(predict_probabilities(copied, pixels), before)
    copied.set_weights([np.zeros_like(weight) for weight in copied.get_weights()])
    np.testing.assert_array_equal(predict_probabilities(copied, pixels), np.full((6, 3), 1 / 3, "float32"))
    np.testing.assert_array_equal(predict_probabilities(model, pixels), before)


def test_training_the_copy_leaves_the_model_as_it_is():
    model, pixels = make_cnn(), make_pixels()
    before, frozen = model.get_weights(), [layer.trainable for layer in model.layers]
    copied = copy_model(model, "twin")
    copied.get_layer("block2_1_conv").trainable = False
    copied.compile("adam", "categorical_crossentropy")
    copied.fit(pixels, np.eye(3, dtype="float32")[[0, 1, 2, 0, 1, 2]], epochs=1, verbose=0)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert [layer.trainable for layer in model.layers] == frozen
    changed = [np.abs(weight - value).max() > 0 for weight, value in zip(copied.get_weights(), before, strict=True)]
    assert changed.count(False) == 1


def test_copy_in_another_precision_has_the_same_weights():
    set_precision("mixed_bfloat16")
    model = build_cnn((8, 8, 1), 2, ([100.0], [50.0]), filters=((4,),))
    copied = copy_model(model, "exact", "float32")
    assert {layer.compute_dtype for layer in copied.layers[1:]} == {"float32"}
    for ours, theirs in zip(copied.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(copied(pixels), model(pixels), atol=0.02)
    assert model.get_layer("block1_1_conv").compute_dtype == "bfloat16"


# describe_layers


def test_layers_are_listed_with_shapes_and_parameters():
    model = build_cnn((12, 10, 3), 5, ([1, 2, 3], [1, 1, 1]), filters=((4,),))
    model.get_layer("probabilities").trainable = False
    table = describe_layers(model)
    assert list(table.columns) == ["layer", "kind", "output_shape", "parameters", "trainable"]
    assert [tuple(row) for row in table.itertuples(index=False)] == [
        ("pixels", "InputLayer", (12, 10, 3), 0, 0),
        ("standardization", "Normalization", (12, 10, 3), 0, 0),
        ("block1_1_conv", "Conv2D", (12, 10, 4), 108, 108),
        ("block1_pool", "MaxPooling2D", (6, 5, 4), 0, 0),
        ("block1_1_norm", "BatchNormalization", (6, 5, 4), 16, 8),
        ("block1_1_relu", "ReLU", (6, 5, 4), 0, 0),
        ("features", "Flatten", (120,), 0, 0),
        ("dropout", "Dropout", (120,), 0, 0),
        ("probabilities", "Dense", (5,), 605, 0),
    ]
    assert table["parameters"].sum() == model.count_params()


# predict_probabilities


def test_predictions_equal_those_of_keras_in_the_order_of_the_images(tmp_path):
    model, pixels = make_cnn(), make_pixels(23)
    expected = model.predict(pixels, verbose=0)
    assert np.ptp(expected, axis=0).max() > 0.05  # images differ, so a wrong order shows
    for batch_size in (7, 23, 256):
        result = predict_probabilities(model, pixels, batch_size=batch_size)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
        assert result.dtype == np.float32
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    np.testing.assert_allclose(predict_probabilities(model, mapped), expected, rtol=1e-5, atol=1e-6)


def test_named_rows_are_predicted_in_their_order(tmp_path):
    model, pixels = make_cnn(), make_pixels(23)
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    expected = model.predict(pixels, verbose=0)
    for rows in ([20, 3, 3, 0, 22, 7], np.array([5]), np.arange(22, -1, -1), []):
        wanted = expected[np.asarray(rows, int)]
        for batch_size in (None, 4):
            result = predict_probabilities(model, mapped, np.asarray(rows, int), batch_size=batch_size)
            assert result.shape == (len(rows), 3)
            np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)


def test_bytes_and_other_numbers_predict_alike_also_after_training():
    model, pixels = make_square_cnn(), make_pixels(9, (6, 6))
    for _ in range(2):
        result = predict_probabilities(model, pixels)
        for dtype in ("float32", "float64", "int32"):
            np.testing.assert_array_equal(predict_probabilities(model, pixels.astype(dtype)), result)
        expected = model(pixels.astype("float32"), training=False)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
        model.set_weights([0.5 * weight for weight in model.get_weights()])  # as a further training would


def test_no_more_than_one_batch_is_read_at_once():
    """Also of large images, of which fewer make a batch."""
    reads = []

    class Spy:
        def __init__(self, pixels):
            self.pixels, self.shape, self.dtype = pixels, pixels.shape, pixels.dtype

        def __getitem__(self, rows):
            reads.append((rows[0], len(rows)))
            return self.pixels[rows]

    model = keras.Sequential([layers.Input((None, None, 1)), layers.GlobalAveragePooling2D()])
    for pixels, batch_size, expected in [
        (make_pixels(9, (8, 6), 1), 4, [4, 4, 1]),
        (make_pixels(300, (8, 6), 1), None, [256, 44]),
        (make_pixels(40, (320, 250), 1), None, [16, 16, 8]),
        (make_pixels(40, (256, 128), 1), None, [32, 8]),
    ]:
        reads.clear()
        averages = predict_probabilities(model, Spy(pixels), np.arange(len(pixels)), batch_size=batch_size)
        first = np.cumsum([0, *expected[:-1]]).tolist()
        assert sorted(reads) == list(zip(first, expected, strict=True))  # two threads may swap them
        np.testing.assert_allclose(averages[:, 0], pixels.mean((1, 2, 3)), rtol=1e-4)


def make_square_cnn():
    """Build a network on square images for which every view is another image."""
    model = build_cnn((6, 6, 2), 3, STATISTICS, filters=((4,),))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.3, weight.shape) ** (1 + (weight.ndim == 1)) for weight in model.get_weights()])
    return model


def test_four_views_are_the_mean_over_the_mirror_images():
    model, pixels = make_cnn(), make_pixels(9)
    of_views = [model(np.flip(pixels, axes), training=False) for axes in ((), (1,), (2,), (1, 2))]
    assert min(np.abs(view - of_views[0]).max() for view in of_views[1:]) > 0.01
    result = predict_probabilities(model, pixels, views=4, batch_size=4)
    np.testing.assert_allclose(result, np.mean(of_views, axis=0), rtol=1e-5, atol=1e-6)
    some = predict_probabilities(model, pixels, [7, 2], 4)
    np.testing.assert_allclose(some, result[[7, 2]], rtol=1e-5, atol=1e-6)


def test_eight_views_are_the_mean_over_all_turns_of_the_image_and_of_its_mirror_image():
    model, pixels = make_square_cnn(), make_pixels(9, (6, 6))
    turned = [np.rot90(either, turns, (1, 2)) for either in (pixels, pixels[:, :, ::-1]) for turns in range(4)]
    of_views = [model(view, training=False) for view in turned]
    for number in range(8):  # each counts
        without = np.mean(of_views[:number] + of_views[number + 1 :], axis=0)
        assert np.abs(without - np.mean(of_views, axis=0)).max() > 1e-3
    result = predict_probabilities(model, pixels, views=8, batch_size=4)
    np.testing.assert_allclose(result, np.mean(of_views, axis=0), rtol=1e-5, atol=1e-6)
    assert result.dtype == np.float32
    four = np.mean([of_views[number] for number in (0, 2, 4, 6)], axis=0)
    np.testing.assert_allclose(predict_probabilities(model, pixels, views=4), four, rtol=1e-5, atol=1e-6)


def turn_views(pixels, views):
    """List the views in their order: the image, its mirror images, and these turned about the diagonal."""
    mirrored = [pixels, pixels[:, :, ::-1], pixels[:, ::-1], pixels[:, ::-1, ::-1]]
    return (mirrored + [np.swapaxes(view, 1, 2) for view in mirrored])[:views]


@pytest.mark.parametrize("rows", [None, [7, 2, 2]], ids=str)
@pytest.mark.parametrize("views", [1, 4, 8])
def test_views_are_predicted_one_after_the_other(views, rows):
    model, pixels = make_square_cnn(), make_pixels(9, (6, 6))
    wanted = pixels if rows is None else pixels[rows]
    expected = np.array([model(view, training=False) for view in turn_views(wanted, views)])
    for batch_size in (None, 2):
        result = predict_views(model, pixels, rows, views, batch_size)
        assert (result.shape, result.dtype) == ((views, len(wanted), 3), np.float32)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
        mean = predict_probabilities(model, pixels, rows, views, batch_size)
        np.testing.assert_array_equal(mean, result.mean(axis=0))
    assert predict_views(model, pixels, np.array([], int), views).shape == (views, 0, 3)


def test_all_views_of_an_image_differ_where_the_network_sees_a_difference():
    """So that the tests of their order would notice two that were exchanged."""
    result = predict_views(make_square_cnn(), make_pixels(9, (6, 6)), views=8)
    for first in range(8):
        for second in range(first):
            assert np.abs(result[first] - result[second]).max() > 1e-3
    np.testing.assert_array_equal(predict_views(make_square_cnn(), make_pixels(9, (6, 6))), result[:1])


def test_views_of_images_that_are_not_square_are_four():
    model, pixels = make_cnn(), make_pixels(5)
    expected = np.array([model(view, training=False) for view in turn_views(pixels, 4)])
    np.testing.assert_allclose(predict_views(model, pixels, views=4), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"views=8 of images \(8, 6\): expected 1, 4, or for square images 8"):
        predict_views(model, pixels, views=8)


@pytest.mark.parametrize(("views", "size"), [(8, (8, 6)), (0, (8, 6)), (2, (8, 6)), (3, (8, 8)), (16, (8, 8))])
def test_other_views_are_refused(views, size):
    model = keras.Sequential([layers.Input((*size, 2)), layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match=rf"views={views} of images \({size[0]}, {size[1]}\)"):
        predict_probabilities(model, make_pixels(size=size), views=views)


def test_prediction_leaves_the_model_as_it_is():
    model = make_cnn(dropout=0.5)
    before = model.get_weights()
    first = predict_probabilities(model, make_pixels())
    np.testing.assert_array_equal(predict_probabilities(model, make_pixels()), first)  # no dropout
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


# build_in_temperature


def soften(y_prob, temperature):
    scores = np.log(np.asarray(y_prob, "float64")) / temperature
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.3, 0.9, 1.0, 1.7, 5.0])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_temperature_built_in_divides_the_scores_before_the_softmax(temperature, batch_norm):
    model, pixels = make_cnn(batch_norm=batch_norm), make_pixels(20)
    y_prob = predict_probabilities(model, pixels)
    calibrated = build_in_temperature(model, temperature, "calibrated")
    result = predict_probabilities(calibrated, pixels)
    np.testing.assert_allclose(result, soften(y_prob, temperature), atol=1e-5)
    np.testing.assert_array_equal(result.argmax(axis=1), y_prob.argmax(axis=1))
    if temperature != 1:
        assert np.abs(result - y_prob).max() > 1e-3
    assert calibrated.name == "calibrated"


def test_a_temperature_built_in_gives_what_the_decisions_make_of_the_predictions():
    from helpers.evaluation.calibration import apply_temperature, fit_temperature
    from helpers.evaluation.scores import get_probabilities, make_predictions

    model, pixels = make_cnn(), make_pixels(30)
    labels = np.random.default_rng(0).choice(["a", "b", "c"], 30)
    ids = [f"i{number}" for number in range(30)]
    images = pd.DataFrame({"image_id": ids, "group": ids, "label": labels})
    predictions = make_predictions(images, predict_probabilities(model, pixels), ["a", "b", "c"])
    for temperature in (fit_temperature(predictions), 0.5, 2.5):
        expected, _ = get_probabilities(apply_temperature(predictions, temperature))
        calibrated = build_in_temperature(model, temperature, "calibrated")
        np.testing.assert_allclose(predict_probabilities(calibrated, pixels), expected, atol=1e-5)


def test_a_temperature_of_one_changes_nothing():
    model, pixels = make_cnn(), make_pixels(20)
    same = build_in_temperature(model, 1, "same")
    np.testing.assert_array_equal(predict_probabilities(same, pixels), predict_probabilities(model, pixels))
    for weight, value in zip(same.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, value)


def test_building_a_temperature_in_leaves_the_original_as_it_is():
    """Nor does what was traced for the original answer for the copy."""
    model, pixels = make_cnn(), make_pixels(20)
    before, y_prob, name = model.get_weights(), predict_probabilities(model, pixels), model.name
    calibrated = build_in_temperature(model, 3.0, "calibrated")
    np.testing.assert_array_equal(predict_probabilities(model, pixels), y_prob)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert model.name == name
    assert not {id(layer) for layer in model.layers} & {id(layer) for layer in calibrated.layers}
    changed = [
        not np.array_equal(weight, value) for weight, value in zip(calibrated.get_weights(), before, strict=True)
    ]
    assert changed == [False] * (len(before) - 2) + [True] * 2  # the kernel and the bias of the last layer


def test_a_model_with_its_temperature_computes_in_float32():
    set_precision("mixed_bfloat16")
    model, pixels = make_cnn(), make_pixels(20)
    assert {layer.compute_dtype for layer in model.layers} > {"bfloat16"}
    calibrated = build_in_temperature(model, 2.0, "calibrated")
    assert {layer.compute_dtype for layer in calibrated.layers[1:]} == {"float32"}
    assert {layer.variable_dtype for layer in calibrated.layers[1:]} == {"float32"}
    assert calibrated.output.dtype == "float32"
    expected = soften(predict_probabilities(copy_model(model, "exact", "float32"), pixels), 2.0)
    np.testing.assert_allclose(predict_probabilities(calibrated, pixels), expected, atol=1e-5)
    assert keras.config.dtype_policy().name == "mixed_bfloat16"


def test_a_model_with_its_temperature_can_be_saved(tmp_path):
    calibrated, pixels = build_in_temperature(make_cnn(), 2.0, "calibrated"), make_pixels()
    loaded = load_model(save_model(calibrated, tmp_path / "model.keras"))
    np.testing.assert_allclose(loaded(pixels), calibrated(pixels), atol=1e-6)


# Saving and loading

OPEN_WITHOUT_HELPERS = """
import sys
sys.modules["helpers"] = None  # any import of it fails
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
assert not [layer for layer in model.layers if not type(layer).__module__.startswith("keras.")], model.layers
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
"""


def test_saved_model_opens_in_plain_keras_where_this_package_is_missing(tmp_path):
    model, pixels = make_cnn(), make_pixels()
    path = save_model(model, tmp_path / "model.keras")
    np.save(tmp_path / "pixels.npy", pixels)
    arguments = [path, tmp_path / "pixels.npy", tmp_path / "probabilities.npy"]
    done = subprocess.run(
        [sys.executable, "-c", OPEN_WITHOUT_HELPERS, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), model(pixels), atol=1e-5)


def test_loading_gives_the_fused_layers_back(tmp_path):
    model, pixels = make_cnn(), make_pixels()
    path = save_model(model, str(tmp_path / "new" / "folder" / "model.keras"))
    assert path == tmp_path / "new" / "folder" / "model.keras"
    loaded = load_model(str(path))
    kinds = [type(layer) for layer in loaded.layers]
    assert kinds == [type(layer) for layer in model.layers]
    assert kinds.count(FusedBatchNormalization) == 2
    np.testing.assert_allclose(loaded(pixels), model(pixels), atol=1e-6)
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_loaded_model_can_be_trained_further(tmp_path):
    model, labels = make_cnn(), np.eye(3, dtype="float32")[[0, 1, 2, 0, 1, 2]]
    model.compile("adam", "categorical_crossentropy")
    model.fit(make_pixels(), labels, epochs=1, verbose=0)
    loaded = load_model(save_model(model, tmp_path / "model.keras"))
    steps = int(loaded.optimizer.iterations)
    loaded.fit(make_pixels(), labels, epochs=1, verbose=0)
    assert (steps, int(loaded.optimizer.iterations)) == (1, 2)


def test_saving_leaves_nothing_but_the_file_and_replaces_an_earlier_one(tmp_path):
    save_model(make_cnn(seed=1), tmp_path / "model.keras")
    save_model(make_cnn(seed=2), tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
    np.testing.assert_allclose(load_model(tmp_path / "model.keras")(make_pixels()), make_cnn(seed=2)(make_pixels()))


def fail_halfway(model, path, *arguments, **settings):
    Path(path).write_bytes(b"half a file")
    raise OSError("disk full, on purpose")


def write_rubbish(model, path, *arguments, **settings):
    Path(path).write_bytes(b"not what load_model expects")


def fail_to_replace(source, target):
    assert Path(source).is_file()
    raise OSError("disk full, on purpose")


@pytest.mark.parametrize(
    ("owner", "name", "failure", "error"),
    [
        (keras.Model, "save", fail_halfway, OSError),
        (keras.Model, "save", write_rubbish, ValueError),
        (files.os, "replace", fail_to_replace, OSError),
    ],
    ids=["halfway", "unreadable", "renaming"],
)
def test_failed_saving_keeps_the_earlier_file_and_leaves_no_rubbish(tmp_path, monkeypatch, owner, name, failure, error):
    path = save_model(make_cnn(seed=1), tmp_path / "model.keras")
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failure)
        with pytest.raises(error):
            save_model(make_cnn(seed=2), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.keras"]


def test_model_that_would_not_load_again_is_not_saved(tmp_path):
    model = keras.Sequential([layers.Input((2,)), layers.Lambda(lambda values: values + 1)])
    with pytest.raises(ValueError, match="Lambda"):
        save_model(model, tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.h5", "model", "model.keras.zip"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"\.keras"):
        save_model(make_cnn(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_missing_file_is_named(tmp_path):
    for path in (tmp_path / "missing.keras", tmp_path):
        with pytest.raises(FileNotFoundError, match=path.name):
            load_model(path)


def write_text(path):
    path.write_text("this is no model\n")


def write_nothing(path):
    path.touch()


def write_truncated(path):
    make_cnn().save(path)
    path.write_bytes(path.read_bytes()[:-2000])


def write_damaged(path):
    make_cnn().save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def write_other_archive(path):
    with saving.zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "no model")


def write_lambda(path):
    keras.Sequential([layers.Input((2,)), layers.Lambda(lambda values: values + 1)]).save(path)


@pytest.mark.parametrize(
    "write", [write_text, write_nothing, write_truncated, write_damaged, write_other_archive, write_lambda]
)
def test_what_is_no_safe_model_is_refused_by_name(tmp_path, write):
    path = tmp_path / "suspicious.keras"
    write(path)
    with pytest.raises(ValueError, match=r"suspicious\.keras"):
        load_model(path)


def test_a_model_that_asks_for_code_of_its_own_is_refused_in_one_line(tmp_path):
    write_lambda(tmp_path / "suspicious.keras")
    with pytest.raises(ValueError, match=r"suspicious\.keras.*Lambda.*arbitrary code execution") as raised:
        load_model(tmp_path / "suspicious.keras")
    assert "\n" not in str(raised.value)


# What a saved model says about itself

ABOUT = {
    "class_names": ["all", "hem"],
    "class_labels": {"hem": "gesund", "all": "Leukämie"},
    "views": 8,
    "conformal": {"all": 0.1 + 0.2, "hem": 1e-300},
}


def list_members(path):
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_what_a_model_is_about_is_kept_in_its_file(tmp_path):
    path = save_model(make_cnn(), tmp_path / "model.keras", ABOUT)
    about = read_about(str(path))
    assert about == ABOUT
    assert list(about["class_labels"]) == ["hem", "all"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.keras"]
    assert list_members(path).count("about.json") == 1


def test_a_model_with_about_opens_in_plain_keras_and_in_ours(tmp_path):
    model, pixels = make_cnn(), make_pixels()
    path = save_model(model, tmp_path / "model.keras", ABOUT)
    for loaded in (keras.models.load_model(path), load_model(path)):
        np.testing.assert_allclose(loaded(pixels), model(pixels), atol=1e-5)


@pytest.mark.parametrize("about", [None, {}])
def test_a_model_saved_with_nothing_to_say_is_about_nothing(tmp_path, about):
    assert read_about(save_model(make_cnn(), tmp_path / "model.keras", about)) == {}
    make_cnn().save(tmp_path / "plain.keras")
    assert read_about(tmp_path / "plain.keras") == {}


def test_saving_again_keeps_nothing_of_the_earlier_about(tmp_path):
    save_model(make_cnn(), tmp_path / "model.keras", ABOUT)
    save_model(make_cnn(), tmp_path / "model.keras")
    assert read_about(tmp_path / "model.keras") == {}
    assert "about.json" not in list_members(tmp_path / "model.keras")


def test_numpy_and_mappings_come_back_as_what_json_has(tmp_path):
    about = {
        "labels": MappingProxyType({"a": "A"}),
        "share": np.float32(0.5),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "shares": np.array([0.25, 0.75]),
        "names": ("a", "b"),
    }
    expected = {
        "labels": {"a": "A"}, "share": 0.5, "count": 3, "flag": True, "shares": [0.25, 0.75], "names": ["a", "b"]
    }  # fmt: skip
    assert read_about(save_model(make_cnn(), tmp_path / "model.keras", about)) == expected


def test_the_member_does_not_tell_when_it_was_written(tmp_path):
    members = []
    for name in ("first.keras", "second.keras"):
        with zipfile.ZipFile(save_model(make_cnn(), tmp_path / name, ABOUT)) as archive:
            member = archive.getinfo("about.json")
            members.append((member.date_time, archive.read(member)))
    assert members[0] == members[1]
    assert members[0][0] == (1980, 1, 1, 0, 0, 0)


@pytest.mark.parametrize(
    ("about", "error", "message"),
    [
        (["all", "hem"], ValueError, "about is a list; expected a dict"),
        ({"threshold": float("nan")}, ValueError, "not JSON compliant"),
        ({"folder": Path("models")}, TypeError, "cannot be kept in about.json"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_written(tmp_path, about, error, message):
    path = save_model(make_cnn(), tmp_path / "model.keras", ABOUT)
    before = path.read_bytes()
    with pytest.raises(error, match=message):
        save_model(make_cnn(), path, about)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.keras"]


def test_failing_to_add_about_keeps_the_earlier_file(tmp_path, monkeypatch):
    path = save_model(make_cnn(seed=1), tmp_path / "model.keras", ABOUT)
    before = path.read_bytes()

    class FullDisk(zipfile.ZipFile):
        def writestr(self, member, *arguments, **settings):
            if getattr(member, "filename", "") == "about.json":
                raise OSError("disk full, on purpose")
            super().writestr(member, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(saving.zipfile, "ZipFile", FullDisk)
        with pytest.raises(OSError, match="on purpose"):
            save_model(make_cnn(seed=2), path, {"views": 1})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.keras"]


def write_about(path, content):
    make_cnn().save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("about.json", content)


@pytest.mark.parametrize(
    "write",
    [
        write_text,
        write_nothing,
        write_truncated,
        write_other_archive,
        lambda path: write_about(path, "{"),
        lambda path: write_about(path, b"\xff\xfe\x00"),
        lambda path: write_about(path, json.dumps(["all", "hem"])),
    ],
    ids=["text", "nothing", "truncated", "other archive", "no JSON", "no text", "a list"],
)
def test_what_no_model_says_is_refused_by_name(tmp_path, write):
    path = tmp_path / "suspicious.keras"
    write(path)
    with pytest.raises(ValueError, match=r"suspicious\.keras"):
        read_about(path)


def test_about_of_a_missing_file_names_it(tmp_path):
    for path in (tmp_path / "missing.keras", tmp_path):
        with pytest.raises(FileNotFoundError, match=path.name):
            read_about(path)


def test_temperature_needs_a_dense_layer_at_the_end():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Activation("softmax")(keras.layers.Dense(2)(inputs)))
    with pytest.raises(ValueError, match="expected a Dense one"):
        build_in_temperature(model, 2.0, "cooled")


def draw_cells(count=6, size=24, seed=0):
    """Draw noise in squares of several sizes on black, each with its own stain."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((count, size, size, 3), "uint8")
    for number in range(count):
        half = 7 + number % 3
        of_cell = pixels[number, size // 2 - half : size // 2 + half, size // 2 - half : size // 2 + half]
        of_cell[:] = rng.normal(rng.uniform(90, 170, 3), rng.uniform(20, 30), of_cell.shape).clip(20, 255)
    return pixels


def build_cell_network(seed=0, size=20):
    keras.utils.set_random_seed(seed)
    prepare = {"prepare": lambda pixels: standardize_cells(pixels, size, BACKGROUND_LEVEL)}
    return build_cnn((24, 24, 3), 2, filters=((8,), (16,)), average_pooling=True, name=f"net{seed}", **prepare)


def standardize(pixels, size=20):
    inputs = layers.Input(pixels.shape[1:])
    return keras.Model(inputs, standardize_cells(inputs, size, BACKGROUND_LEVEL))(pixels.astype("float32")).numpy()


@pytest.mark.parametrize("size", [20, 19])
def test_cells_are_cropped_and_standardized(size):
    pixels = draw_cells()
    standardized = standardize(pixels, size)
    start = (24 - size) // 2
    cropped = pixels[:, start : start + size, start : start + size]
    assert standardized.shape == cropped.shape
    for image, raw in zip(standardized, cropped, strict=True):
        cell = raw.max(axis=-1) > BACKGROUND_LEVEL
        assert (image[~cell] == 0).all()
        np.testing.assert_allclose(image[cell].mean(axis=0), 0, atol=0.04)
        np.testing.assert_allclose(image[cell].std(axis=0), 1, atol=0.02)


def test_stain_and_light_make_no_difference_to_standardized_cells():
    pixels = draw_cells().astype("float32") / 2
    stained = np.where(pixels > 0, pixels * [0.9, 1.3, 0.7] + [15, 0, 30], 0)
    np.testing.assert_allclose(standardize(stained), standardize(pixels), atol=0.06)


def test_an_image_without_a_cell_becomes_zero():
    assert (standardize(np.zeros((1, 24, 24, 3))) == 0).all()


def test_cells_are_standardized_in_float32_under_bfloat16():
    set_precision("mixed_bfloat16")
    model = build_cell_network()
    assert model.get_layer("crop").output.dtype == "float32"
    pixels = draw_cells()
    set_precision("float32")
    np.testing.assert_allclose(
        predict_probabilities(model, pixels), predict_probabilities(build_cell_network(), pixels), atol=0.02
    )


def test_a_model_is_cut_after_a_layer():
    model = build_cell_network()
    cut = cut_at(model, "features")
    assert cut.output.shape == (None, 16)
    x = draw_cells().astype("float32")
    last = model.get_layer("probabilities")
    np.testing.assert_allclose(last(cut(x, training=False)), model(x, training=False), atol=1e-6)


@pytest.mark.parametrize("views", [1, 4, 8])
def test_combined_networks_predict_the_calibrated_average(views):
    pixels = draw_cells()
    networks = [build_cell_network(seed) for seed in range(2)]
    combined = combine_networks([*networks, networks[0]], "combined", views, temperature=2.0)
    of_networks = [predict_probabilities(network, pixels, views=views) for network in networks]
    average = (2 * of_networks[0] + of_networks[1]) / 3
    expected = np.sqrt(average) / np.sqrt(average).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predict_probabilities(combined, pixels), expected, atol=1e-5)


def test_combined_networks_can_know_the_area():
    pixels = draw_cells()
    network = build_cell_network()
    combined = combine_networks(
        [network], "combined", temperature=2.0, regression=(-1.0, 0.01), threshold=BACKGROUND_LEVEL
    )
    area = (14 + 2 * (np.arange(6) % 3)) ** 2
    positive = 1 / (1 + np.exp(1 - 0.01 * area))
    product = predict_probabilities(network, pixels) * np.column_stack([1 - positive, positive])
    expected = product**0.25 / (product**0.25).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predict_probabilities(combined, pixels), expected, atol=1e-5)


def test_combined_networks_are_copies_and_open_with_plain_keras(tmp_path):
    pixels = draw_cells()
    network = build_cell_network()
    combined = combine_networks(
        [network, network], "combined", views=4, temperature=1.5, regression=(0.1, 0.01), threshold=BACKGROUND_LEVEL
    )
    before = predict_probabilities(combined, pixels)
    path = save_model(combined, tmp_path / "combined.keras", {"class_names": ["a", "b"]})
    network.set_weights([0 * weight for weight in network.get_weights()])
    np.testing.assert_allclose(
        keras.models.load_model(path)(pixels.astype("float32"), training=False), before, atol=1e-6
    )
    np.testing.assert_array_equal(predict_probabilities(combined, pixels), before)
