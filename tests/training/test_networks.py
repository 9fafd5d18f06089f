"""Networks: build_cnn and ResNet18 by hand, standardization, and weights in KerasHub's layout. No downloads."""

from functools import partial

import keras
import numpy as np
import pytest
from keras import layers
from small_networks import STATISTICS, build_cell_network, draw_cells, make_cnn, make_pixels

from helpers.data.cells import BACKGROUND_LEVEL
from helpers.evaluation.baselines import fit_regression, regression_to_dense
from helpers.training import tf
from helpers.training.fast import FusedBatchNormalization, predict_probabilities, set_precision
from helpers.training.networks import (
    build_cnn,
    build_pixel_statistics,
    build_resnet18,
    build_resnet18_maps,
    build_simple_model,
    describe_layers,
    standardization_layer,
    standardize_cells,
)
from helpers.training.saving import load_model, run_onnx, save_model
from helpers.training.surgery import copy_model, expose_features

# Keras hands TensorFlow's variables to NumPy in the old way when it writes a file.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

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


@pytest.fixture
def plain_calls(monkeypatch):
    """Count the calls of Keras's own standardization."""
    calls, call = [], layers.Normalization.call
    monkeypatch.setattr(layers.Normalization, "call", lambda self, inputs: calls.append(1) or call(self, inputs))
    return calls


@pytest.mark.parametrize("std", [40.0, 1.0, 0.5, 0.0])
def test_standardization_is_that_of_keras_in_another_shape(plain_calls, std):
    pixels, settings = make_pixels().astype("float32"), {"mean": [100.0, 7.0], "variance": [std**2, 400.0]}
    theirs = layers.Normalization(**settings)(pixels)
    assert plain_calls == [1]
    ours = standardization_layer((settings["mean"], [std, 20.0]))(pixels)
    assert plain_calls == [1]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_standardization_is_fused_again_after_loading_and_plain_elsewhere(plain_calls, tmp_path):
    model = make_cnn(batch_norm=False)
    path = save_model(model, tmp_path / "model.keras")
    assert type(keras.models.load_model(path).get_layer("standardization")) is layers.Normalization
    plain_calls.clear()
    np.testing.assert_array_equal(
        predict_probabilities(load_model(path), make_pixels()), predict_probabilities(model, make_pixels())
    )
    assert not plain_calls


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


# build_cnn with residual connections


def test_residual_connections_add_one_convolution_of_one_pixel_to_each_block():
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


def test_residual_connections_without_batch_norm_have_biases_instead():
    options = {"input_shape": (12, 10, 3), "n_classes": 5, "statistics": ([1, 2, 3], [1, 1, 1]), "batch_norm": False}
    plain = build_cnn(**options, filters=((4, 4), (6, 6)))
    residual = build_cnn(**options, filters=((4, 4), (6, 6)), residual=True)
    assert residual.count_params() - plain.count_params() == (3 * 4 + 4) + (4 * 6 + 6)
    assert not [layer for layer in residual.layers if isinstance(layer, layers.BatchNormalization)]


def test_there_are_no_residual_connections_by_default():
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


def compute_residual(model, maps, side, block=1):
    """Compute what the residual connection of a block adds, by hand."""
    convolution = model.get_layer(f"block{block}_residual_conv")
    kernel, *bias = convolution.get_weights()
    branch = average_blocks(maps.astype("float64"), side) @ kernel[0, 0] + sum(bias)
    if not bias:
        norm = model.get_layer(f"block{block}_residual_norm")
        gamma, beta, mean, variance = norm.get_weights()
        branch = (branch - mean) / np.sqrt(variance + norm.epsilon) * gamma + beta
    return branch


def get_outputs(model, pixels, *names):
    outputs = keras.Model(model.input, [model.get_layer(name).output for name in names])(pixels, training=False)
    return [np.array(output) for output in outputs]


@pytest.mark.parametrize(
    ("size", "first_stride", "batch_norm"),
    [((8, 6), 1, True), ((13, 9), 1, False), ((13, 9), 2, True), ((7, 10), 2, False), ((11, 6), 2, True)],
)
def test_a_block_is_the_sum_of_its_convolutions_and_its_residual_connection(size, first_stride, batch_norm):
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
    short1 = compute_residual(model, before, 2 * first_stride)
    assert min(np.ptp(long1), np.ptp(short1)) > 0.1
    np.testing.assert_allclose(after1, np.maximum(long1 + short1, 0), rtol=1e-4, atol=1e-4)
    short2 = compute_residual(model, after1, 2, block=2)
    np.testing.assert_allclose(after2, np.maximum(long2 + short2, 0), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("first_stride", [1, 2])
def test_a_block_whose_convolutions_give_nothing_is_its_residual_connection(first_stride):
    """Scale and shift of its last normalization zero, as some start them."""
    model, pixels = make_cnn(residual=True, filters=((4, 5),), first_stride=first_stride), make_pixels()
    norm = model.get_layer("block1_2_norm")
    norm.gamma.assign(0 * norm.gamma)
    norm.beta.assign(0 * norm.beta)
    before, after = get_outputs(model, pixels, "standardization", "block1_2_relu")
    expected = np.maximum(compute_residual(model, before, 2 * first_stride), 0)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-4)


def test_blocks_whose_residual_connections_give_nothing_are_those_of_the_plain_network():
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
def test_residual_connections_fit_images_of_any_size(size, first_stride):
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
    """Each normalization in the fused kernel, those of the residual connections too."""
    model = make_cnn(residual=True)
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(tf.math.log(model(make_pixels(), training=True)[:, 1]))
    variables = [weight.value for weight in model.trainable_weights]
    gradients = tape.gradient(loss, variables)
    assert len(gradients) == 2 * 3 + 2 * 3 + 2
    assert all(np.abs(gradient).max() > 1e-6 for gradient in gradients)
    assert fused_calls == [True] * 4


def test_residual_networks_can_be_saved_and_copied(tmp_path):
    set_precision("mixed_bfloat16")
    model, pixels = make_cnn(residual=True, first_stride=2), make_pixels()
    loaded = load_model(save_model(model, tmp_path / "model.keras"))
    np.testing.assert_allclose(loaded(pixels), model(pixels), atol=1e-6)
    assert sum(type(layer) is FusedBatchNormalization for layer in loaded.layers) == 4
    assert model.get_layer("block1_add").compute_dtype == "bfloat16"
    np.testing.assert_allclose(copy_model(model, "exact", "float32")(pixels), model(pixels), atol=0.05)


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


# standardize_cells


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


# ResNet18

SHAPE = (48, 48, 3)


def scale(pixels):
    return layers.Rescaling(1 / 255, dtype="float32")(pixels)


@pytest.fixture(scope="module")
def resnet18():
    keras.utils.set_random_seed(0)
    return build_resnet18(SHAPE, 2, scale)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Write random weights without a classifier, as KerasHub ships them."""
    network = build_resnet18_maps((None, None, 3))
    rng = np.random.default_rng(1)
    network.set_weights([rng.uniform(0.1, 0.2, weight.shape) for weight in network.get_weights()])
    path = tmp_path_factory.mktemp("weights") / "model.weights.h5"
    network.save_weights(path)
    return path


def test_it_has_the_parameters_of_the_publication(resnet18):
    without_classifier = resnet18.count_params() - (512 + 1) * 2
    assert without_classifier == 11_186_112  # as KerasHub states for resnet_18_imagenet
    kinds = describe_layers(resnet18)["kind"].value_counts()
    assert kinds["Conv2D"] == 1 + 16 + 3  # the first, two in each of eight blocks, three of 1x1
    assert kinds["Add"] == 8


def test_it_can_be_half_as_deep():
    kinds = describe_layers(build_resnet18(SHAPE, 2, scale, blocks=1))["kind"].value_counts()
    assert kinds["Conv2D"] == 1 + 8 + 3
    assert kinds["Add"] == 4


def test_it_can_be_narrower():
    narrow = build_resnet18(SHAPE, 2, scale, blocks=1, filters=16)
    maps = [narrow.get_layer(f"stack{number}_block0_out").output.shape[-1] for number in range(4)]
    assert maps == [16, 32, 64, 128]


def test_each_stack_halves_the_size_but_the_first(resnet18):
    sizes = [resnet18.get_layer(f"stack{number}_block1_out").output.shape[1:] for number in range(4)]
    assert sizes == [(12, 12, 64), (6, 6, 128), (3, 3, 256), (2, 2, 512)]


def test_a_basic_block_without_weights_passes_its_input_on(resnet18):
    block = keras.Model(resnet18.get_layer("stack0_block0_out").output, resnet18.get_layer("stack0_block1_out").output)
    for layer in block.layers:
        if layer.name.endswith("_2_bn"):
            kept = layer.get_weights()
            layer.set_weights([np.zeros_like(weight) for weight in kept[:2]] + kept[2:])
            silent = layer, kept
    x = np.random.default_rng(0).uniform(0, 1, (2, 12, 12, 64)).astype("float32")
    np.testing.assert_allclose(block(x, training=False), x, atol=1e-6)
    silent[0].set_weights(silent[1])
    assert np.abs(block(x, training=False) - x).max() > 1e-3


def test_weights_of_a_file_are_in_all_layers_but_the_classifier(weights):
    loaded = build_resnet18(SHAPE, 2, scale, weights)
    names = {layer.name for layer in loaded.layers if layer.weights}
    assert len(names) == 41
    for name in names - {"probabilities"}:
        for weight in loaded.get_layer(name).get_weights():
            assert 0.1 <= weight.min() <= weight.max() <= 0.2
    assert np.abs(loaded.get_layer("probabilities").get_weights()[0]).min() < 0.1


def test_the_same_pixels_give_the_same_with_any_preparation_of_no_weights(weights):
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype("float32")
    loaded = build_resnet18(SHAPE, 2, lambda images: standardize_cells(images, 40, 8), weights)
    assert loaded.get_layer("crop").output.shape == (None, 40, 40, 3)
    np.testing.assert_allclose(loaded(pixels, training=False).numpy().sum(axis=1), 1, atol=1e-5)


def test_its_maps_are_those_before_its_classifier(weights):
    maps, whole = build_resnet18_maps(SHAPE, weights), build_resnet18(SHAPE, 2, scale, weights)
    assert maps.output_shape == (None, 2, 2, 512)
    assert maps.count_params() == 11_186_112
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype("float32")
    expected = keras.Model(whole.input, whole.get_layer("features").output)(pixels, training=False)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(np.mean(maps(pixels / 255, training=False), axis=(1, 2)), expected, rtol=1e-4)
    assert build_resnet18_maps((None, None, 3)).output_shape == (None, None, None, 512)


@pytest.mark.parametrize("build", [partial(build_resnet18, SHAPE, 2, scale), partial(build_resnet18_maps, SHAPE)])
@pytest.mark.parametrize("content", [b"", b"no weights at all", None])
def test_other_files_are_refused(tmp_path, content, build):
    path = tmp_path / "other.weights.h5"
    if content is None:
        other = keras.Sequential([layers.Input((4,)), layers.Dense(3)])
        other.save_weights(path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.weights\.h5 does not hold the weights of ResNet18 .* Fetch it again"):
        build(weights=path)


# build_pixel_statistics, build_simple_model


@pytest.mark.parametrize(("size", "channels"), [((17, 26), 3), ((8, 8), 1), ((3, 5), 2)], ids=str)
def test_statistics_of_pixels_are_those_of_a_plain_loop(size, channels):
    pixels = make_pixels(5, size, channels)
    pixels[0], pixels[1], pixels[2] = 0, 255, pixels[2] % 2 + 191  # levels 191 and 192: the latter are bright
    statistics = build_pixel_statistics((*size, channels))
    found = statistics(pixels).numpy()
    rows, columns = max(size[0] // 8, 1), max(size[1] // 8, 1)
    is_middle = np.zeros(size, bool)
    is_middle[rows:-rows, columns:-columns] = True
    for number, image in enumerate(pixels.astype("float64")):
        expected = []
        for area in (is_middle | True, ~is_middle, is_middle):
            levels = image[area]
            grey = levels.mean(1)
            expected += [*levels.mean(0), *levels.std(0), (grey < 64).mean(), (grey >= 192).mean()]
        np.testing.assert_allclose(found[number], expected, rtol=1e-5, atol=1e-4)
    assert found.dtype == "float32"
    assert not statistics.weights


def test_images_without_a_middle_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 9, 3\): expected at least 3 pixels"):
        build_pixel_statistics((2, 9, 3))


def make_simple_model(n_classes, channels=3):
    """Fit a simple model: images, the probabilities of the regression, and the network that holds it."""
    pixels = make_pixels(60, (12, 10), channels)
    codes = np.arange(60) % n_classes
    pixels = (pixels * (1 - codes[:, None, None, None] / 10)).astype("uint8")
    x = build_pixel_statistics(pixels.shape[1:])(pixels).numpy()
    regression = fit_regression(x, np.eye(n_classes)[codes])
    model = build_simple_model(pixels.shape[1:], *regression_to_dense(regression))
    return pixels, regression.predict_proba(x), model


@pytest.mark.parametrize(("n_classes", "precision"), [(2, "float32"), (4, "mixed_bfloat16")])
def test_a_simple_model_is_the_regression_also_after_loading(n_classes, precision, tmp_path):
    set_precision(precision)
    pixels, expected, model = make_simple_model(n_classes)
    assert np.ptp(expected, axis=0).min() > 0.1
    np.testing.assert_allclose(model(pixels), expected, atol=1e-5)
    loaded = load_model(save_model(model, tmp_path / "simple.keras"))
    np.testing.assert_allclose(loaded(pixels), expected, atol=1e-5)


def test_a_simple_model_shows_its_statistics_like_the_features_of_a_network():
    pixels, expected, model = make_simple_model(2)
    y_prob, features = expose_features(model)(pixels)
    np.testing.assert_allclose(y_prob, expected, atol=1e-5)
    np.testing.assert_allclose(features, build_pixel_statistics(pixels.shape[1:])(pixels), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")  # of Keras's exporter
def test_a_simple_model_is_exported_by_keras(tmp_path):
    pixels, expected, model = make_simple_model(3, channels=1)
    model(pixels[:1])
    model.export(tmp_path / "simple.onnx", format="onnx", verbose=False)
    np.testing.assert_allclose(run_onnx(tmp_path / "simple.onnx", pixels), expected, atol=1e-4)
