"""Surgery: copies, built-in temperatures, cut and combined networks."""

import functools

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers
from small_networks import build_cell_network, draw_cells, make_cnn, make_pixels

from helpers.data.cells import BACKGROUND_LEVEL
from helpers.training.fast import list_layers, predict_probabilities, set_precision
from helpers.training.networks import build_cnn, build_resnet18, standardize_cells
from helpers.training.saving import load_model, save_model, save_onnx
from helpers.training.surgery import (
    build_in_temperature,
    combine_networks,
    copy_model,
    cut_at,
    expose_features,
    join,
    unfreeze_from,
)
from helpers.training.transfer import build_feature_extractor, build_head, compute_features, to_pixel_range

# Keras hands TensorFlow's variables to NumPy in the old way when it writes a file.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

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


def test_copy_in_another_precision_leaves_functions_and_nested_models_as_they_are():
    set_precision("mixed_bfloat16")
    network, pixels = build_cell_network(), draw_cells()
    combined = combine_networks([network, network], "combined", 4, 2.0, (0.1, 0.01), BACKGROUND_LEVEL)
    for model in (network, combined):
        copied = copy_model(model, "exact", "float32")
        assert [type(layer) for layer in list_layers(copied)] == [type(layer) for layer in list_layers(model)]
        assert {layer.compute_dtype for layer in list_layers(copied) if layer.weights} == {"float32"}
        np.testing.assert_allclose(copied(pixels), model(pixels), atol=0.02)
    assert network.get_layer("block1_1_conv").compute_dtype == "bfloat16"


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


def test_a_temperature_can_be_built_into_a_network_that_standardizes_cells():
    set_precision("mixed_bfloat16")
    model, pixels = build_cell_network(), draw_cells()
    expected = soften(predict_probabilities(model, pixels), 0.2)
    np.testing.assert_allclose(
        predict_probabilities(build_in_temperature(model, 0.2, "sharp"), pixels), expected, atol=0.05
    )


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


def build_transfer(prepare=None):
    extractor = build_extractor(prepare, keras.config.dtype_policy().name)
    return join(extractor, build_head(compute_features(extractor, draw_cells(size=32)), 2))


@functools.cache
def build_extractor(prepare, precision):
    """Build it once for each precision."""
    return build_feature_extractor((32, 32, 3), None, until="block_2_add", prepare=prepare)


def standardize(pixels):
    return standardize_cells(pixels, 20, BACKGROUND_LEVEL)


def combine_cells(**options):
    return combine_networks([build_cell_network()], "combined", **options)


BUILT = {  # every kind of network that the notebooks build
    "cnn": make_cnn,
    "cnn, all options": lambda: make_cnn(
        first_stride=2, average_pooling=True, batch_norm=False, residual=True, dropout=0
    ),
    "cells": build_cell_network,
    "resnet18": lambda: build_resnet18((24, 24, 3), 2, standardize, blocks=1),
    "transfer": build_transfer,
    "transfer of cells": lambda: build_transfer(lambda pixels: to_pixel_range(standardize(pixels), 32)),
    "fine-tuned": lambda: unfreeze_from(model := build_transfer(), "block_2_expand") or model,
    "combined": lambda: combine_cells(temperature=0.5),
    "combined, 4 views and area": lambda: combine_cells(views=4, regression=(0.1, 0.01), threshold=BACKGROUND_LEVEL),
    "area alone": lambda: combine_networks([], "area", 1, 1.0, (-1.0, 0.01), BACKGROUND_LEVEL, (24, 24, 3)),
    "combined again": lambda: combine_networks([combine_cells(), build_cell_network(1)], "twice"),
    "softmax of its own": lambda: keras.Sequential(
        [layers.Input((24, 24, 3)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(3), layers.Softmax()]
    ),
}


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        *((kind, "mixed_bfloat16") for kind in BUILT),
        *((kind, "float32") for kind in ("cnn", "cells", "transfer", "combined")),
    ],
)
def test_every_network_takes_a_temperature_and_becomes_onnx(tmp_path, kind, precision):
    from helpers.evaluation.calibration import apply_temperature
    from helpers.evaluation.scores import get_probabilities, make_predictions

    set_precision(precision)
    model = BUILT[kind]()
    height, _, channels = model.input_shape[1:]
    pixels = draw_cells(size=height) if channels == 3 else make_pixels()
    calibrated = build_in_temperature(model, 0.4, "calibrated")
    classes = ["a", "b", "c"][: model.output_shape[-1]]
    images = pd.DataFrame({"image_id": range(6), "group": range(6), "label": "a"})
    y_prob = copy_model(model, "exact", "float32")(pixels.astype("float32"))
    expected, _ = get_probabilities(apply_temperature(make_predictions(images, y_prob, classes), 0.4))
    np.testing.assert_allclose(calibrated(pixels.astype("float32")), expected, atol=1e-6)
    assert save_onnx(calibrated, tmp_path / "calibrated.onnx", pixels) < 1e-5
    assert np.ptp(expected, axis=0).max() > 1e-4


def test_a_single_output_needs_a_dense_layer_at_the_end():
    model = keras.Sequential([layers.Input((4,)), layers.Dense(1), layers.Activation("sigmoid")])
    with pytest.raises(ValueError, match="after Activation; expected a Dense layer at the end"):
        build_in_temperature(model, 2.0, "cooled")


# expose_features


def list_cases():
    """List models, and what gives their features by itself."""
    network, other, pixels = build_cell_network(0), build_cell_network(1), layers.Input((24, 24, 3))
    head = build_head(np.random.default_rng(0).normal(size=(9, 16)), 2)
    combined = combine_networks([network, other], "combined", 4, 2.0, (0.1, 0.01), BACKGROUND_LEVEL)
    convolved = keras.Sequential([layers.Input((24, 24, 3)), layers.Conv2D(5, 3), layers.Conv2D(2, 1)])
    pooled = keras.Sequential([convolved, layers.GlobalAveragePooling2D(), layers.Softmax()])
    flat = keras.Sequential([layers.Input((24, 24, 3)), layers.GlobalAveragePooling2D(), layers.Softmax()])
    features, others = cut_at(network, "features"), cut_at(other, "features")

    def scale(images):
        return head.get_layer("feature_scaling")(features(images))

    return {
        "alone": (network, features),
        "joined": (join(features, head), scale),
        "within": (keras.Model(pixels, layers.Dense(3)(convolved(pixels))), convolved),
        "combined": (combined, lambda images: np.concatenate([features(images), others(images)], axis=1)),
        "convolution": (pooled, convolved.layers[0]),
        "nothing learnt": (flat, flat),
    }


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_features_are_the_input_of_the_classifier_in_the_same_pass(precision):
    set_precision(precision)
    images = draw_cells().astype("float32")
    for name, (model, compute) in list_cases().items():
        probabilities, features = expose_features(model)(images, training=False)
        np.testing.assert_array_equal(probabilities, model(images, training=False), err_msg=name)
        expected = np.asarray(compute(images), "float32")
        expected = expected if expected.ndim == 2 else expected.mean(axis=(1, 2))
        assert features.dtype == "float32"
        tolerance = 1e-5 if precision == "float32" else 0.02
        np.testing.assert_allclose(features, expected, rtol=tolerance, atol=tolerance, err_msg=name)
        assert np.ptp(features, axis=0).max() > 0.01


def test_exposing_shares_the_layers_and_leaves_the_model_as_it_is():
    model, images = build_cell_network(), draw_cells().astype("float32")
    model.compile("adam", "categorical_crossentropy")
    config, exposed = model.get_config(), expose_features(model)
    assert model.get_config() == config
    assert not exposed.compiled
    model.set_weights([2 * weight for weight in model.get_weights()])
    np.testing.assert_array_equal(exposed(images)[0], model(images))


# cut_at and combine_networks


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
    predicted = [predict_probabilities(network, pixels, views=views) for network in networks]
    average = (2 * predicted[0] + predicted[1]) / 3
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


def test_the_area_alone_is_a_model_of_the_regression(tmp_path):
    pixels = draw_cells()
    options = {"temperature": 2.0, "regression": (-1.0, 0.01), "threshold": BACKGROUND_LEVEL}
    model = combine_networks([], "area", views=8, input_shape=(24, 24, 3), **options)
    area = (14 + 2 * (np.arange(6) % 3)) ** 2
    positive = 1 / (1 + np.exp((1 - 0.01 * area) / 2))  # the temperature divides the log odds
    expected = np.column_stack([1 - positive, positive])
    np.testing.assert_allclose(predict_probabilities(model, pixels), expected, atol=1e-6)
    path = save_model(model, tmp_path / "area.keras", {"class_names": ["a", "b"]})
    np.testing.assert_array_equal(predict_probabilities(load_model(path), pixels), predict_probabilities(model, pixels))
    assert not model.weights


@pytest.mark.parametrize("options", [{}, {"input_shape": (24, 24, 3)}, {"regression": (-1.0, 0.01), "threshold": 8}])
def test_nothing_cannot_be_combined(options):
    with pytest.raises(ValueError, match="nothing: without networks give a regression and the input_shape"):
        combine_networks([], "nothing", **options)


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
