"""ResNet18: its size, its shortcuts, and weights that come in KerasHub's layout. No downloads."""

import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

from helpers.training import networks
from helpers.training.networks import build_resnet18, describe_layers, find_resnet18_weights, standardize_cells

# Keras hands TensorFlow's variables to NumPy in the old way when it writes a file.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SHAPE = (48, 48, 3)


def scale(pixels):
    return layers.Rescaling(1 / 255, dtype="float32")(pixels)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return build_resnet18(SHAPE, 2, scale)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Write random weights without a classifier, as KerasHub ships them."""
    inputs = layers.Input((None, None, 3))
    network = keras.Model(inputs, networks._add_stacks(inputs, 2))
    rng = np.random.default_rng(1)
    network.set_weights([rng.uniform(0.1, 0.2, weight.shape) for weight in network.get_weights()])
    path = tmp_path_factory.mktemp("weights") / "model.weights.h5"
    network.save_weights(path)
    return path


def test_it_has_the_parameters_of_the_publication(model):
    without_classifier = model.count_params() - (512 + 1) * 2
    assert without_classifier == 11_186_112  # as KerasHub states for resnet_18_imagenet
    kinds = describe_layers(model)["kind"].value_counts()
    assert kinds["Conv2D"] == 1 + 16 + 3  # the first, two in each of eight blocks, three shortcuts
    assert kinds["Add"] == 8


def test_it_can_be_half_as_deep():
    kinds = describe_layers(build_resnet18(SHAPE, 2, scale, blocks=1))["kind"].value_counts()
    assert kinds["Conv2D"] == 1 + 8 + 3
    assert kinds["Add"] == 4


def test_each_stack_halves_the_size_but_the_first(model):
    sizes = [model.get_layer(f"stack{number}_block1_out").output.shape[1:] for number in range(4)]
    assert sizes == [(12, 12, 64), (6, 6, 128), (3, 3, 256), (2, 2, 512)]


def test_a_basic_block_without_weights_passes_its_input_on(model):
    block = keras.Model(model.get_layer("stack0_block0_out").output, model.get_layer("stack0_block1_out").output)
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


@pytest.mark.parametrize("content", [b"", b"no weights at all", None])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.weights.h5"
    if content is None:
        other = keras.Sequential([layers.Input((4,)), layers.Dense(3)])
        other.save_weights(path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.weights\.h5 does not hold the weights of ResNet18"):
        build_resnet18(SHAPE, 2, scale, path)


def test_local_weights_come_first(tmp_path):
    path = tmp_path / "weights" / "resnet_18_imagenet.weights.h5"
    path.parent.mkdir()
    path.write_bytes(b"")
    found, note = find_resnet18_weights(tmp_path)
    assert found == path
    assert path.name in note
    assert str(tmp_path) not in note


def test_weights_come_from_kaggle_otherwise(tmp_path, monkeypatch):
    asked = []

    def download(handle, path):
        asked.append((handle, path))
        return str(tmp_path / "downloaded.h5")

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(model_download=download))
    found, note = find_resnet18_weights(tmp_path)
    assert found == tmp_path / "downloaded.h5"
    assert asked == [("keras/resnetv1/keras/resnet_18_imagenet/3", "model.weights.h5")]
    assert "Kaggle" in note


def test_without_weights_it_says_so_and_what_to_do(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no network\nat all")

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(model_download=fail))
    found, note = find_resnet18_weights(tmp_path)
    assert found is None
    assert "from scratch" in note
    assert "(no network)" in note
    assert "resnet_18_imagenet.weights.h5" in note


def test_the_sample_does_without_weights():
    assert find_resnet18_weights(None)[0] is None
