"""Transfer learning: folded networks against the unfolded ones, what is trained, what is found. No downloads."""

import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

from helpers.training.efficientnet_lite import PACKAGE, build_efficientnet_lite0
from helpers.training.fast import predict_probabilities
from helpers.training.fit import Recipe, fit_model
from helpers.training.networks import build_cnn, build_resnet18_maps, describe_layers, standardize_cells
from helpers.training.saving import load_model, save_model
from helpers.training.surgery import copy_model, cut_at, fold_batch_normalization, join, unfreeze_from
from helpers.training.transfer import (
    BASES,
    build_feature_extractor,
    build_head,
    compute_features,
    find_weights,
    to_pixel_range,
)

# Keras hands TensorFlow's variables to NumPy in the old way when it writes a file.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SHAPE = (64, 96, 3)
FILES = {
    "mobilenet_v2_0.35": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5",
    "mobilenet_v2_1.0": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
    "efficientnet_v2_b0": "efficientnetv2-b0_notop.h5",
    "vgg16": "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "resnet50": "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "resnet18": "resnet_18_imagenet.weights.h5",
}  # as Keras, or Kaggle, calls them
NARROW = "mobilenet_v2_0.35"


def randomize(model, seed=0):
    """Give every weight a random value, also to what else is 0 or 1, so that no layer swallows its input."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        values = []
        for weight in layer.weights:
            if len(weight.shape) > 1:
                depthwise = isinstance(layer, layers.DepthwiseConv2D)
                inputs = np.prod(weight.shape[: 2 if depthwise else -1])
                values.append(rng.normal(0, np.sqrt(2 / inputs), weight.shape))
            elif weight.name in ("gamma", "moving_variance"):
                values.append(rng.uniform(0.5, 1.8, weight.shape))
            else:
                values.append(rng.normal(0, 0.2, weight.shape))
        layer.set_weights(values)
    return model


def make_pixels(count=4, shape=SHAPE, seed=0):
    """Make smooth images, each with colours of its own."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, shape[0] // 8, shape[1] // 8, shape[2]))
    return coarse.repeat(8, axis=1).repeat(8, axis=2).astype("uint8")


def count_layers(model, kind):
    return sum(isinstance(layer, kind) for layer in model.layers)


def build_network(base, shape=SHAPE):
    """Build a network with random weights and statistics, and the preprocessing that its makers document."""
    options = {"input_shape": shape, "include_top": False, "weights": None}
    applications = keras.applications
    if base == "efficientnet_v2_b0":
        network = randomize(applications.EfficientNetV2B0(**options))
        for block in {layer.name.removesuffix("add") for layer in network.layers if layer.name.endswith("_add")}:
            gamma = network.get_layer(f"{block}project_bn").gamma
            gamma.assign(0.2 * gamma)  # else values grow until rounding decides
        return network, applications.efficientnet_v2.preprocess_input
    if base == "vgg16":
        return randomize(applications.VGG16(**options)), applications.vgg16.preprocess_input
    if base == "resnet50":
        return randomize(applications.ResNet50(**options)), applications.resnet.preprocess_input
    if base == "resnet18":
        return randomize(build_resnet18_maps(shape)), lambda x: (x / 255 - IMAGENET_MEAN) / IMAGENET_STD
    if base == "efficientnet_lite0":
        return build_efficientnet_lite0(shape, include_top=False), lambda x: (x - 127) / 128
    network = applications.MobileNetV2(**options, alpha=float(base.rpartition("_")[2]))
    return randomize(network), applications.mobilenet_v2.preprocess_input


IMAGENET_MEAN, IMAGENET_STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Make a folder of data with room for weights."""
    data_dir = tmp_path_factory.mktemp("data")
    (data_dir / "weights").mkdir()
    return data_dir


@pytest.fixture(scope="module")
def networks(data_dir):
    """Give a network and its features of colour and of grey images in inference mode; its weights are in a file."""
    made = {}

    def get(base):
        if base not in made:
            network, preprocess = build_network(base)
            if base in FILES:
                path = data_dir / "weights" / FILES[base]
                (network.save_weights if path.name.endswith(".weights.h5") else network.save)(path)
            images = np.concatenate([make_images(1).repeat(3, axis=-1), make_images(3)]).astype("float32")
            features = np.mean(network(preprocess(images), training=False), axis=(1, 2))
            made[base] = network, dict(zip((1, 3), np.split(features, 2), strict=True))
        return made[base]

    return get


def make_images(channels):
    return make_pixels(shape=(*SHAPE[:2], channels), seed=3 - channels)


@pytest.fixture(scope="module")
def extractors(networks, data_dir):
    """Give an extractor with the weights of a network: for colours from its file, for grey images from itself."""
    made = {}

    def get(base, channels=3):
        if (base, channels) not in made:
            network, _ = networks(base)
            weights, _ = find_weights(data_dir, base)
            with pytest.MonkeyPatch.context() as patch:
                if channels == 1:
                    patch.setitem(BASES, base, replace(BASES[base], build=lambda *_: network))
                made[base, channels] = build_feature_extractor((*SHAPE[:2], channels), weights, base)
        return made[base, channels]

    return get


@pytest.fixture(scope="module")
def mobilenet(networks):
    return networks(NARROW)


@pytest.fixture(scope="module")
def extractor(extractors):
    return extractors(NARROW)


# find_weights


@pytest.fixture
def downloads(monkeypatch):
    """Replace what downloads, Keras and kagglehub; what is appended to ``errors`` is raised."""
    asked, errors = [], []

    def ask(name, *arguments, **options):
        asked.append((name, *arguments, options))
        if errors:
            raise errors[0]
        return "/cache/model.weights.h5"

    for name in ("MobileNetV2", "EfficientNetV2B0", "VGG16", "ResNet50"):
        monkeypatch.setattr(keras.applications, name, partial(ask, name))
    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(model_download=partial(ask, "kagglehub")))
    return asked, errors


@pytest.mark.parametrize("base", FILES)
def test_weights_in_the_folder_of_data_come_first_but_not_those_of_another_network(tmp_path, downloads, base):
    asked, errors = downloads
    errors.append(OSError("no network"))
    (tmp_path / "weights").mkdir()
    for other in FILES.keys() - {base}:
        (tmp_path / "weights" / FILES[other]).touch()
    weights, note = find_weights(tmp_path, base)
    assert weights is None
    assert f"`{FILES[base]}`" in note
    asked.clear()
    path = tmp_path / "weights" / FILES[base]
    path.touch()
    weights, note = find_weights(tmp_path, base)
    assert weights == str(path)
    assert note == f"{BASES[base].source}: ImageNet weights from `weights/{FILES[base]}`."
    assert asked == []


@pytest.mark.parametrize(
    ("base", "source", "application", "options"),
    [
        (NARROW, "MobileNetV2 (Sandler et al. 2018)", "MobileNetV2", {"alpha": 0.35}),
        ("mobilenet_v2_1.0", "MobileNetV2 (Sandler et al. 2018)", "MobileNetV2", {"alpha": 1.0}),
        ("efficientnet_v2_b0", "EfficientNetV2-B0 (Tan and Le 2021)", "EfficientNetV2B0", {}),
        ("vgg16", "VGG16 (Simonyan and Zisserman 2015)", "VGG16", {}),
        ("resnet50", "ResNet50 (He et al. 2016)", "ResNet50", {}),
    ],
)
def test_weights_are_else_asked_of_keras(tmp_path, downloads, base, source, application, options):
    weights, note = find_weights(tmp_path, base)
    assert weights == "imagenet"
    assert note == f"{source}: ImageNet weights from Keras."
    expected = {"input_shape": (224, 224, 3), "include_top": False, "weights": "imagenet"} | options
    assert downloads[0] == [(application, expected)]


def test_weights_of_resnet18_are_else_asked_of_kaggle(tmp_path, downloads):
    preset = "keras/resnetv1/keras/resnet_18_imagenet/3"
    weights, note = find_weights(tmp_path, "resnet18")
    assert weights == "/cache/model.weights.h5"
    assert note == f"ResNet18 (He et al. 2016): ImageNet weights from Kaggle's `{preset}`."
    assert downloads[0] == [("kagglehub", preset, "model.weights.h5", {})]


@pytest.mark.parametrize("data", [None, "folder"])
def test_weights_of_efficientnet_lite_are_installed(tmp_path, downloads, data):
    source = "EfficientNet-Lite0 (Tan and Le 2019)"
    expected = "imagenet", f"{source}: ImageNet weights from the package `{PACKAGE}`."
    assert find_weights(data and tmp_path) == find_weights(data and tmp_path, "efficientnet_lite0") == expected
    assert downloads[0] == []


@pytest.mark.parametrize("data", [None, "folder"])
def test_weights_of_an_unknown_network_are_refused(tmp_path, downloads, data):
    known = ", ".join(["efficientnet_lite0", *FILES])
    with pytest.raises(ValueError, match=rf"No base network is called 'resnet'\. Known: {known}\.$"):
        find_weights(data and tmp_path, "resnet")
    assert downloads[0] == []


@pytest.mark.parametrize("base", FILES)
def test_no_files_are_looked_for_on_the_sample(downloads, base):
    weights, note = find_weights(None, base)
    assert weights is None
    assert note.startswith(f"{BASES[base].source} has no weights here")
    assert "on the sample" in note
    assert downloads[0] == []


@pytest.mark.parametrize("base", [NARROW, "vgg16", "resnet18"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Exception("URL fetch failure on https://example.org: 403 -- Forbidden\nmore lines"), "403 -- Forbidden)"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (TimeoutError(), ""),  # says nothing, as that of sockets
    ],
    ids=["fetch", "disk", "wordless"],
)
def test_after_a_refused_download_it_is_told_where_to_put_the_file(tmp_path, downloads, base, error, reason):
    downloads[1].append(error)
    weights, note = find_weights(tmp_path, base)
    assert weights is None
    assert note.startswith(f"{BASES[base].source} has no weights here: they could not be downloaded (")
    assert reason in note
    assert "more lines" not in note
    assert note.endswith(f"`{FILES[base]}` into the folder `weights/` in `DATA_DIR`.")
    assert ("the `model.weights.h5` of Kaggle's `keras/resnetv1" in note) == (base == "resnet18")


# build_feature_extractor


WIDTHS = {"vgg16": 512, "resnet50": 2048, "resnet18": 512}


@pytest.mark.parametrize(("base", "channels"), [*((base, 3) for base in BASES), (NARROW, 1), ("efficientnet_lite0", 1)])
def test_extractor_computes_the_same_as_the_unfolded_network(networks, extractors, base, channels):
    """That of Keras, with the preprocessing that Keras documents; grey images are taken for colours without colour."""
    (network, features), extractor = networks(base), extractors(base, channels)
    expected, largest = features[channels], np.abs(features[channels]).max()
    assert np.ptp(expected, axis=0).max() > 0.05 * largest  # the images differ
    np.testing.assert_allclose(
        extractor(make_images(channels), training=False), expected, rtol=1e-3, atol=1e-4 * largest
    )
    assert extractor.name == base.replace(".", "_")
    assert extractor.input_shape == (None, *SHAPE[:2], channels)
    assert extractor.output_shape == (None, WIDTHS.get(base, 1280))
    kinds = layers.Conv2D | layers.DepthwiseConv2D
    assert count_layers(extractor, layers.BatchNormalization) == 0
    assert count_layers(extractor, kinds) == count_layers(network, kinds)
    convolutions = {layer.name for layer in network.layers if isinstance(layer, kinds)}
    assert convolutions < {layer.name for layer in extractor.layers}  # the names stay
    # Layers of a model inside cannot be unfrozen one by one, nor explained.
    assert not any(hasattr(layer, "layers") for layer in extractor.layers)
    assert [type(layer) for layer in extractor.layers].count(layers.InputLayer) == 1
    assert (extractor.layers[0].name, extractor.layers[-1].name) == ("pixels", "features")


def test_mobilenet_has_52_convolutions(extractor):
    assert count_layers(extractor, (layers.Conv2D, layers.DepthwiseConv2D)) == 52


def test_extractor_does_the_same_in_training(extractor):
    """No statistics of the batch, no dropout."""
    np.testing.assert_array_equal(extractor(make_pixels(), training=True), extractor(make_pixels(), training=False))


def test_mobilenets_are_of_the_asked_width(extractors):
    for base, filters in (("mobilenet_v2_1.0", 32), (NARROW, 16)):
        assert extractors(base).get_layer("Conv1").filters == filters


def test_extractor_without_weights_is_random():
    shape = (32, 32, 3)
    pixels = make_pixels(3, shape)
    first, second = (build_feature_extractor(shape, None, NARROW)(pixels).numpy() for _ in range(2))
    assert first.shape == (3, 1280)
    assert np.isfinite(first).all()
    assert np.abs(first - second).max() > 0


def test_extractor_of_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match=r"No base network is called 'mobilenet_v2'\. Known: efficientnet_lite0, "):
        build_feature_extractor(SHAPE, None, "mobilenet_v2")


# fold_batch_normalization


def make_input():
    return layers.Input((8, 8, 2), name="in")


def normalize(x, **settings):
    return layers.BatchNormalization(**settings)(x)


def make_plain(**settings):
    inputs = make_input()
    return keras.Model(inputs, layers.ReLU()(normalize(layers.Conv2D(5, 3, **settings)(inputs), epsilon=0.1)))


def make_depthwise(**settings):
    inputs = make_input()
    return keras.Model(inputs, normalize(layers.DepthwiseConv2D(3, **settings)(inputs)))


def make_grouped():
    inputs = make_input()
    return keras.Model(inputs, normalize(layers.Conv2D(6, 3, groups=2)(inputs)))


def make_chain():
    """Make two foldable ones, and between them what stays: an activation, a pool."""
    inputs = make_input()
    x = layers.ReLU()(normalize(layers.Conv2D(4, 3, padding="same")(inputs)))
    x = layers.MaxPooling2D()(x)
    branch = x = normalize(layers.Conv2D(3, 1, use_bias=False)(x))
    x = normalize(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(layers.ReLU()(x)))
    return keras.Model(inputs, layers.Add()([branch, x]))


def make_partial(**settings):
    inputs = make_input()
    return keras.Model(inputs, normalize(layers.Conv2D(5, 3)(inputs), **settings))


@pytest.mark.parametrize(
    ("make", "folds"),
    [
        pytest.param(make_plain, 1, id="bias"),
        pytest.param(lambda: make_plain(use_bias=False, strides=2), 1, id="no bias"),
        pytest.param(make_depthwise, 1, id="depthwise with bias"),
        pytest.param(lambda: make_depthwise(use_bias=False), 1, id="depthwise"),
        pytest.param(lambda: make_depthwise(depth_multiplier=2), 1, id="depthwise, two filters a channel"),
        pytest.param(make_grouped, 1, id="groups"),
        pytest.param(make_chain, 3, id="chain"),
        pytest.param(lambda: build_cnn((8, 8, 2), 3, ([9, 9], [5, 5]), filters=((4, 4),)), 1, id="our own network"),
        pytest.param(
            lambda: build_cnn((8, 8, 2), 3, ([9, 9], [5, 5]), filters=((4, 4),), residual=True), 2, id="residual"
        ),
        pytest.param(lambda: make_partial(scale=False), 1, id="without scale"),
        pytest.param(lambda: make_partial(center=False), 1, id="without centre"),
    ],
)
def test_folded_network_computes_the_same_in_fewer_layers(make, folds):
    model = randomize(make())
    before, pixels = model.get_weights(), make_pixels(5, (8, 8, 2), seed=3).astype("float32") / 100
    pixels = pixels + np.random.default_rng(0).normal(size=pixels.shape).astype("float32")
    folded = fold_batch_normalization(model)
    expected = model(pixels, training=False)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(folded(pixels, training=False), expected, rtol=1e-4, atol=1e-4)
    assert len(folded.layers) == len(model.layers) - folds
    kind = layers.BatchNormalization
    assert count_layers(folded, kind) == count_layers(model, kind) - folds
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    folded.set_weights([weight * 0 for weight in folded.get_weights()])
    np.testing.assert_array_equal(model(pixels, training=False), expected)  # nothing is shared


def make_normalization_first():
    inputs = make_input()
    return keras.Model(inputs, layers.Conv2D(3, 3)(normalize(inputs)))


def make_activated():
    inputs = make_input()
    return keras.Model(inputs, normalize(layers.Conv2D(3, 3, activation="relu")(inputs)))


def make_pooled():
    inputs = make_input()
    return keras.Model(inputs, normalize(layers.MaxPooling2D()(layers.Conv2D(3, 3)(inputs))))


def make_twice_used():
    inputs = make_input()
    x = layers.Conv2D(3, 3)(inputs)
    return keras.Model(inputs, layers.Add()([normalize(x), layers.ReLU()(x)]))


def make_twice_normalized():
    inputs = make_input()
    x = layers.Conv2D(3, 3)(inputs)
    return keras.Model(inputs, layers.Subtract()([normalize(x), normalize(x)]))


def make_convolution_that_is_an_output():
    inputs = make_input()
    x = layers.Conv2D(3, 3)(inputs)
    return keras.Model(inputs, [x, normalize(x)])


@pytest.mark.parametrize(
    "make",
    [
        make_normalization_first,
        make_activated,
        make_pooled,
        make_twice_used,
        make_twice_normalized,
        make_convolution_that_is_an_output,
    ],
)
def test_what_cannot_be_folded_is_copied_and_frozen(make):
    model = randomize(make())
    pixels = np.random.default_rng(0).normal(size=(5, 8, 8, 2)).astype("float32")
    folded = fold_batch_normalization(model)
    ours, expected = (keras.tree.flatten(network(pixels, training=False)) for network in (folded, model))
    for array, wanted in zip(ours, expected, strict=True):
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-4)
    assert [type(layer) for layer in folded.layers] == [type(layer) for layer in model.layers]
    for layer in folded.layers:
        assert layer.trainable == (not isinstance(layer, layers.BatchNormalization))


def make_padded(zeros, size=(8, 8), convolution=layers.DepthwiseConv2D, read_beside=False, **settings):
    inputs = layers.Input((*size, 2), name="in")
    arguments = (3,) if convolution is layers.DepthwiseConv2D else (4, 3)
    padded = layers.ZeroPadding2D(zeros)(inputs)
    x = normalize(convolution(*arguments, **{"strides": 2} | settings)(padded))
    return keras.Model(inputs, [x, padded] if read_beside else x)


MOBILENETS = ((0, 1), (0, 1))


@pytest.mark.parametrize(
    ("model", "stay"),
    [
        pytest.param(lambda: make_padded(MOBILENETS), 0, id="MobileNet, even"),
        pytest.param(lambda: make_padded(((1, 1), (1, 1)), (9, 7)), 0, id="MobileNet, odd"),
        pytest.param(lambda: make_padded(((1, 1), (0, 1)), (9, 8), layers.Conv2D), 0, id="plain convolution"),
        pytest.param(lambda: make_padded(1, strides=1), 0, id="stride 1"),
        pytest.param(lambda: make_padded(1), 1, id="on the other side too"),
        pytest.param(lambda: make_padded(MOBILENETS, (9, 8)), 1, id="one axis only"),
        pytest.param(lambda: make_padded(2, strides=1, dilation_rate=2), 1, id="dilated"),
        pytest.param(lambda: make_padded(MOBILENETS, padding="same"), 1, id="already padded"),
        pytest.param(lambda: make_padded(MOBILENETS, read_beside=True), 1, id="read beside"),
        pytest.param(lambda: make_padded(MOBILENETS, (None, None)), 1, id="any size"),
    ],
)
def test_paddings_are_left_to_the_convolution_where_it_pads_alike(model, stay):
    model = randomize(model())
    size = [length or 8 for length in model.input_shape[1:3]]
    pixels = np.random.default_rng(0).normal(size=(3, *size, 2)).astype("float32")
    folded = fold_batch_normalization(model)
    ours, expected = (keras.tree.flatten(network(pixels, training=False)) for network in (folded, model))
    for array, wanted in zip(ours, expected, strict=True):
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-4)
    assert count_layers(folded, layers.ZeroPadding2D) == stay
    assert count_layers(folded, layers.BatchNormalization) == 0


def test_paddings_stay_in_a_copy_for_images_of_another_size():
    """Where a convolution may pad otherwise than the network for the other size was padded."""
    model = randomize(make_padded(MOBILENETS))
    folded = fold_batch_normalization(model, input_shape=(9, 7, 2))
    pixels = np.random.default_rng(0).normal(size=(3, 9, 7, 2)).astype("float32")
    same_weights = make_padded(MOBILENETS, (9, 7))
    same_weights.set_weights(model.get_weights())
    np.testing.assert_allclose(folded(pixels), same_weights(pixels, training=False), rtol=1e-4, atol=1e-4)


def make_branches():
    inputs = make_input()
    return keras.Model(inputs, layers.Concatenate()([layers.Conv2D(3, 3)(inputs), layers.Conv2D(3, 3)(inputs)]))


def make_plain_residual():
    inputs = make_input()
    x = layers.Conv2D(2, 3, padding="same")(inputs)
    return keras.Model(inputs, layers.Add()([normalize(x), inputs]))


@pytest.mark.parametrize("make", [make_chain, make_normalization_first, make_branches, make_plain_residual])
def test_preprocessing_comes_before_everything_else(make):
    model = randomize(make())
    pixels = np.random.default_rng(0).normal(size=(5, 8, 8, 2)).astype("float32")
    folded = fold_batch_normalization(model, layers.Rescaling(0.5, offset=2.0, name="pre"))
    assert count_layers(folded, layers.Rescaling) == 1
    expected = model(0.5 * pixels + 2, training=False)
    np.testing.assert_allclose(folded(pixels, training=False), expected, rtol=1e-4, atol=1e-4)


def double_channels(pixels):
    return layers.Concatenate(name="doubled")([pixels, layers.Rescaling(2.0, offset=1.0, name="scaled")(pixels)])


@pytest.mark.parametrize("make", [make_chain, make_normalization_first, make_branches, make_plain_residual])
def test_what_comes_first_may_take_images_of_another_shape(make):
    model = randomize(make())
    pixels = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype("float32")
    folded = fold_batch_normalization(model, double_channels, (8, 8, 1))
    assert folded.input_shape == (None, 8, 8, 1)
    expected = model(np.concatenate([pixels, 2 * pixels + 1], axis=-1), training=False)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(folded(pixels, training=False), expected, rtol=1e-4, atol=1e-4)
    assert {layer.name for layer in folded.layers} >= {"pixels", "doubled", "scaled"}


def test_a_convolutional_network_may_take_images_of_another_size():
    model = randomize(make_chain())
    folded, larger = fold_batch_normalization(model), fold_batch_normalization(model, input_shape=(12, 10, 2))
    assert larger.output_shape == (None, 6, 5, 3)
    for weight, expected in zip(larger.get_weights(), folded.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


# compute_features


def test_features_are_averages_over_the_image_in_the_order_of_the_rows(mobilenet, extractor, tmp_path):
    pixels, expected = make_images(3), mobilenet[1][3]
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    tolerance = {"rtol": 1e-3, "atol": 1e-4 * np.abs(expected).max()}
    features = compute_features(extractor, mapped)
    assert (features.shape, features.dtype) == ((4, 1280), np.float32)
    np.testing.assert_allclose(features, expected, **tolerance)
    some = compute_features(extractor, mapped, np.array([3, 0, 3]))
    np.testing.assert_allclose(some, expected[[3, 0, 3]], **tolerance)


def make_noise(count):
    return np.random.default_rng(4).integers(0, 256, (count, 8, 8, 2)).astype("uint8")


@pytest.mark.parametrize("rows", [None, [3, 0, 3, 1, 2, 2]], ids=str)
@pytest.mark.parametrize("views", [1, 4, 8])
def test_features_of_several_views_follow_one_another(views, rows):
    """All images in the first view, then all in the second: labels are repeated as a whole."""
    (extractor, _), pixels = make_small(), make_noise(6)
    wanted = pixels if rows is None else pixels[rows]
    mirrored = [wanted, wanted[:, :, ::-1], wanted[:, ::-1], wanted[:, ::-1, ::-1]]
    turned = (mirrored + [np.swapaxes(view, 1, 2) for view in mirrored])[:views]
    expected = np.concatenate([extractor(view) for view in turned])
    features = compute_features(extractor, pixels, None if rows is None else np.array(rows), views)
    assert features.shape == (views * len(wanted), extractor.output_shape[1])
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    by_view = features.reshape(views, len(wanted), -1)
    for first in range(views):
        for second in range(first):
            assert np.abs(by_view[first] - by_view[second]).max() > 0.01 * np.abs(expected).max()


def test_features_of_one_view_are_the_default():
    (extractor, _), pixels = make_small(), make_noise(6)
    np.testing.assert_array_equal(compute_features(extractor, pixels), compute_features(extractor, pixels, views=1))
    with pytest.raises(ValueError, match="views=2"):
        compute_features(extractor, pixels, views=2)


# build_head


def make_features(count=200, n_features=6):
    rng = np.random.default_rng(0)
    spread, centre = 10.0 ** np.arange(-1, n_features - 1), np.arange(n_features) * 100
    return (rng.normal(size=(count, n_features)) * spread + centre).astype("float32")


def test_head_standardizes_the_features_and_gives_probabilities():
    features = make_features()
    head = build_head(features, 4)
    scaled = keras.Model(head.input, head.get_layer("feature_scaling").output)(features)
    np.testing.assert_allclose(np.mean(scaled, axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(np.std(scaled, axis=0), 1, rtol=1e-2)
    probabilities = head(features)
    assert probabilities.shape == (200, 4)
    np.testing.assert_allclose(np.sum(probabilities, axis=1), 1, rtol=1e-5)
    assert head.count_params() == 6 * 4 + 4  # the statistics are not learned
    assert [layer.name for layer in head.layers] == ["features_in", "feature_scaling", "dropout", "probabilities"]
    assert head.get_layer("dropout").rate == 0.3
    assert build_head(features, 4, dropout=0.7).get_layer("dropout").rate == 0.7


@pytest.mark.parametrize(("base", "until"), [("efficientnet_lite0", "block_4_add"), (NARROW, "block_5_add")])
def test_a_base_network_can_be_cut(extractors, base, until):
    whole, cut = extractors(base), build_feature_extractor((32, 32, 3), None, base, until)
    assert cut.layers[-2].name == until
    assert cut.output_shape == (None, cut.get_layer(until).output.shape[-1])
    assert cut.count_params() < 0.2 * whole.count_params()
    with pytest.raises(ValueError, match="block_99"):
        build_feature_extractor((32, 32, 3), None, base, until="block_99")


def test_features_that_are_always_the_same_do_no_harm():
    features = make_features()
    features[:, 2] = 0.0
    features[:, 4] = 6.0
    head = build_head(features, 3)
    features[0, 2] = 0.02  # a new image may differ
    scaled = keras.Model(head.input, head.get_layer("feature_scaling").output)(features)
    assert np.abs(scaled).max() < 10
    np.testing.assert_allclose(scaled[1:, 2], 0, atol=1e-6)
    np.testing.assert_allclose(scaled[1:, 4], 0, atol=1e-6)


# join and unfreeze_from


def make_small(seed=0):
    """Make a small extractor with one normalization that cannot be folded, and a head on top."""
    inputs = layers.Input((8, 8, 2), name="in")
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(name="norm1")(layers.Conv2D(4, 3, name="conv1")(inputs)))
    x = layers.BatchNormalization(name="norm2")(layers.MaxPooling2D(name="pool2")(layers.Conv2D(5, 3, name="conv2")(x)))
    x = layers.Conv2D(6, 2, name="conv3")(x)
    extractor = fold_batch_normalization(randomize(keras.Model(inputs, x), seed), layers.Rescaling(1 / 255, name="pre"))
    extractor = keras.Model(extractor.input, layers.GlobalAveragePooling2D(name="features")(extractor.output))
    head = build_head(extractor(make_pixels(50, (8, 8, 2))).numpy(), 3)
    return extractor, head


def test_joined_model_is_head_after_extractor_with_shared_layers():
    extractor, head = make_small()
    model, pixels = join(extractor, head, "joined"), make_pixels(5, (8, 8, 2), seed=5)
    assert model.name == "joined"
    expected = head(extractor(pixels))
    assert np.ptp(expected, axis=0).max() > 0.01
    np.testing.assert_allclose(model(pixels), expected, rtol=1e-5, atol=1e-6)
    assert list(map(id, model.layers)) == list(map(id, extractor.layers + head.layers[1:]))
    head.get_layer("probabilities").bias.assign([0, 5, 0])
    np.testing.assert_allclose(model(pixels), head(extractor(pixels)), rtol=1e-5, atol=1e-6)


ALL = {"conv1", "conv2", "conv3", "probabilities"}


@pytest.mark.parametrize(
    ("first", "learning"),
    [
        ("pixels", ALL),
        ("conv1", ALL),
        ("relu1", ALL - {"conv1"}),
        ("conv2", ALL - {"conv1"}),
        ("norm2", {"conv3", "probabilities"}),
        ("dropout", {"probabilities"}),
        ("probabilities", {"probabilities"}),
    ],
)
def test_layers_from_the_named_one_on_are_trainable_but_no_batch_normalization(first, learning):
    model = join(*make_small())
    unfreeze_from(model, "conv3")
    unfreeze_from(model, first)  # whatever stood before
    assert {layer.name for layer in model.layers if layer.trainable_weights} == learning
    assert len(model.trainable_weights) == 2 * len(learning)
    assert not model.get_layer("norm2").trainable
    table = describe_layers(model).set_index("layer")
    assert set(table.index[table["trainable"] > 0]) == learning


@pytest.mark.parametrize(
    ("base", "first"),
    [
        ("efficientnet_lite0", "block_11_expand"),
        (NARROW, "block_13_expand"),
        ("mobilenet_v2_1.0", "Conv_1"),
        ("efficientnet_v2_b0", "block6a_expand_conv"),
        ("efficientnet_v2_b0", "top_conv"),
        ("vgg16", "block5_conv1"),
        ("resnet50", "conv5_block1_1_conv"),
        ("resnet18", "stack3_block0_1_conv"),
    ],
)
def test_the_end_of_a_base_network_can_be_unfrozen(extractors, base, first):
    extractor = extractors(base)
    frozen = extractor.trainable
    model = join(extractor, build_head(np.random.default_rng(0).normal(size=(20, WIDTHS.get(base, 1280))), 3))
    try:
        unfreeze_from(model, first)
        table = describe_layers(model)
        place = table["layer"].tolist().index(first)
        with_weights = table["kind"].isin(["Conv2D", "DepthwiseConv2D", "Dense"])
        assert (table["trainable"] > 0).tolist() == (with_weights & (table.index >= place)).tolist()
        assert 0 < place < len(table) - 3
        assert table["trainable"].sum() == sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        assert (table["trainable"] == table["parameters"])[with_weights & (table.index >= place)].all()
    finally:
        for layer in model.layers:
            layer.trainable = frozen


def test_unknown_layer_is_refused_and_the_known_ones_are_named():
    model = join(*make_small(), "joined")
    before = [layer.trainable for layer in model.layers]
    with pytest.raises(ValueError, match=r"joined has no layer 'conv9'.*conv1.*probabilities"):
        unfreeze_from(model, "conv9")
    assert [layer.trainable for layer in model.layers] == before


def list_changes(model, before):
    """Name the layers with a weight that is not what it was."""
    pairs = ((layer.name, layer.get_weights(), before[layer.name]) for layer in model.layers)
    return {name for name, now, then in pairs if any((a != b).any() for a, b in zip(now, then, strict=True))}


@pytest.mark.parametrize(("first", "learning"), [("pixels", ALL), ("norm2", {"conv3", "probabilities"})])
def test_training_changes_the_unfrozen_layers_and_no_statistics(first, learning):
    model = join(*make_small())
    before = {layer.name: layer.get_weights() for layer in model.layers}
    unfreeze_from(model, first)
    pixels, labels = make_pixels(16, (8, 8, 2)), np.eye(3, dtype="float32")[np.arange(16) % 3]
    fit_model(model, (pixels, labels), (pixels, labels), Recipe(epochs=1, batch_size=8))
    assert list_changes(model, before) == learning


def test_fine_tuning_the_copy_of_a_joined_network_and_saving_it(extractor, tmp_path):
    """From features to the file, as in the notebook, on the first blocks."""
    first_blocks = cut_at(extractor, "block_5_add")
    extractor = keras.Model(first_blocks.input, layers.GlobalAveragePooling2D(name="features")(first_blocks.output))
    pixels, labels = make_pixels(8, seed=1), np.eye(3, dtype="float32")[np.arange(8) % 3]
    head = build_head(compute_features(extractor, pixels), 3)
    frozen = join(extractor, head, "frozen")
    y_frozen = predict_probabilities(frozen, pixels)
    np.testing.assert_allclose(y_frozen, head(compute_features(extractor, pixels)), rtol=1e-3, atol=1e-5)
    before = {layer.name: layer.get_weights() for layer in frozen.layers}
    trainable = [layer.trainable for layer in frozen.layers]

    tuned = copy_model(frozen, "tuned")
    unfreeze_from(tuned, "block_5_depthwise")
    fit_model(tuned, (pixels, labels), (pixels, labels), Recipe(epochs=1, batch_size=4))
    assert list_changes(tuned, before) == {"block_5_depthwise", "block_5_project", "probabilities"}
    assert list_changes(frozen, before) == set()
    assert [layer.trainable for layer in frozen.layers] == trainable
    np.testing.assert_array_equal(predict_probabilities(frozen, pixels), y_frozen)

    y_tuned = predict_probabilities(tuned, pixels)
    assert np.abs(y_tuned - y_frozen).max() > 1e-4
    loaded = load_model(save_model(tuned, tmp_path / "tuned.keras"))
    assert loaded.name == "tuned"
    assert describe_layers(loaded)["trainable"].equals(describe_layers(tuned)["trainable"])
    np.testing.assert_allclose(predict_probabilities(loaded, pixels), y_tuned, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("base", "until"), [("vgg16", "block1_pool"), ("resnet18", "pool1_pool")])
def test_the_range_of_a_base_network_is_saved_with_it(base, until, tmp_path):
    """Blue, green and red; a mean for each colour."""
    pixels = make_pixels(8)
    extractor = build_feature_extractor(SHAPE, None, base, until)
    model = join(extractor, build_head(compute_features(extractor, pixels), 3))
    expected = predict_probabilities(model, pixels)
    assert np.abs(predict_probabilities(model, pixels[..., ::-1]) - expected).max() > 1e-3
    loaded = load_model(save_model(model, tmp_path / "model.keras"))
    np.testing.assert_allclose(predict_probabilities(loaded, pixels), expected, rtol=1e-5, atol=1e-6)


def test_standardized_images_get_the_range_of_pixels_and_another_size():
    inputs = layers.Input((4, 4, 3))
    model = keras.Model(inputs, to_pixel_range(inputs, 8))
    levels = np.array([0, 1, -1, 100, -100])
    images = np.ones((5, 4, 4, 3), "float32") * levels[:, None, None, None]
    result = model(images, training=False).numpy()
    assert result.shape == (5, 8, 8, 3)
    np.testing.assert_allclose(result[:, 3, 3, 0], [128, 178, 78, 255, 0], atol=1e-4)


def test_extractor_sees_prepared_images_of_another_size():
    def prepare(pixels):
        return to_pixel_range(standardize_cells(pixels, 24, 8), 48)

    keras.utils.set_random_seed(0)
    extractor = build_feature_extractor((32, 32, 3), None, until="block_2_add", prepare=prepare)
    plain = keras.Model(extractor.get_layer("to_range_of_base").output, extractor.output)
    assert plain.input.shape == (None, 48, 48, 3)
    pixels = np.random.default_rng(0).integers(9, 256, (3, 32, 32, 3)).astype("float32")
    inputs = layers.Input((32, 32, 3))
    prepared = keras.Model(inputs, prepare(inputs))(pixels, training=False).numpy()
    expected = plain((prepared - 127) / 128, training=False)
    np.testing.assert_allclose(compute_features(extractor, pixels), expected, atol=1e-4)
    stained = np.clip(pixels * 0.5 + 20, 9, 255)
    np.testing.assert_allclose(compute_features(extractor, stained), expected, atol=0.02)
