"""Models from others: ours pass, and what would fill the memory is refused before it is made.

What else is refused is tried through the public doors by ``benchmarks/torture/hostile.py``.
"""

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from small_networks import build_cell_network, make_cnn, make_pixels, make_square_cnn

from helpers.files import InputError
from helpers.training import checking, tf
from helpers.training.fast import FusedAdamW, predict_probabilities
from helpers.training.networks import build_pixel_statistics, build_resnet18, build_simple_model
from helpers.training.saving import load_model, save_model
from helpers.training.surgery import build_in_temperature, combine_networks
from helpers.training.transfer import build_feature_extractor

# Keras hands TensorFlow's variables to NumPy in the old way when it writes a file.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def build_compiled():
    model = make_cnn()
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    model.compile(FusedAdamW(1e-3), loss, metrics=["accuracy"])
    model.fit(make_pixels(3), np.eye(3), verbose=0)
    return model


def build_combined():
    networks = [build_cell_network(), build_cell_network(1)]
    return combine_networks(networks, "combined", 4, regression=(0.1, 0.01), threshold=8)


def build_shared():
    """Build a network whose layers share two objects, for which Keras writes addresses in memory."""
    shared = {
        "kernel_initializer": keras.initializers.HeNormal(seed=1),
        "kernel_regularizer": keras.regularizers.L2(1e-3),
    }
    model = keras.Sequential([keras.Input((8,)), *(layers.Dense(4, **shared) for _ in range(3))])
    model.compile(FusedAdamW(1e-3), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def build_simple():
    count = build_pixel_statistics((16, 16, 3)).output_shape[1]
    return build_simple_model((16, 16, 3), np.ones((count, 3)), np.zeros(3))


@keras.saving.register_keras_serializable("tests")
class Doubling(layers.Layer):
    """A layer of one's own."""

    def call(self, inputs):
        return 2 * inputs


def build_with_own_layer():
    """Build a network as a reader might: layers of other kinds, and one that the notebook itself registers."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Reshape((64, 12))(Doubling()(inputs))
    x = layers.GlobalAveragePooling1D()(layers.Attention()([x, layers.Conv1D(12, 3, padding="same")(x)]))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


BUILDERS = {
    "own": build_with_own_layer,
    "compiled": build_compiled,
    "combined": build_combined,
    "views": lambda: combine_networks([make_square_cnn()], "views", 8, 1.3),
    "temperature": lambda: build_in_temperature(make_cnn(), 1.7, "cooler"),
    "resnet": lambda: build_resnet18((32, 32, 3), 3, lambda pixels: pixels, blocks=1),
    "simple": build_simple,
    "mobilenet": lambda: build_feature_extractor((32, 32, 1), None, "mobilenet_v2_0.35", until="block_2_add"),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_networks_of_the_notebooks_are_let_in(tmp_path, name):
    model = BUILDERS[name]()
    loaded = load_model(save_model(model, tmp_path / "model.keras"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(loaded(pixels), model(pixels), atol=1e-5)


def test_a_layer_that_this_process_has_not_registered_is_refused(tmp_path):
    path = save_model(build_with_own_layer(), tmp_path / "model.keras")
    keras.saving.get_custom_objects().pop("tests>Doubling")
    try:
        with pytest.raises(ValueError, match="registered as 'tests>Doubling', which is not one of those"):
            load_model(path)
    finally:
        keras.saving.register_keras_serializable("tests")(Doubling)


SAVE_TWICE = """
import sys
sys.path.insert(0, sys.argv[1])
kept = [object() for _ in range(100_001)]  # so that addresses differ
import test_checking
test_checking.save_twice(sys.argv[2])
"""


def save_twice(folder):
    keras.utils.clear_session()  # which counts names anew
    model = build_shared()
    for name in ("first", "second"):
        save_model(model, f"{folder}/{name}.keras", {"views": 4}, {"ids": np.arange(3)})


def test_the_same_weights_are_the_same_bytes_in_every_process(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    save_twice(tmp_path / "here")
    arguments = [sys.executable, "-c", SAVE_TWICE, Path(__file__).parent, tmp_path / "there"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    assert done.returncode == 0, done.stderr
    contents = [path.read_bytes() for path in tmp_path.rglob("*.keras")]
    assert len(contents) == 4
    assert len(set(contents)) == 1


def test_saving_keeps_what_keras_writes_but_for_times_and_addresses(tmp_path):
    network = build_shared()
    network.save(tmp_path / "keras.keras")
    save_model(network, tmp_path / "ours.keras")
    theirs, ours = (read_members(tmp_path / f"{name}.keras") for name in ("keras", "ours"))
    assert list(ours) == list(theirs)
    assert ours["model.weights.h5"] == theirs["model.weights.h5"]
    assert json.loads(ours["metadata.json"]) == {"keras_version": keras.__version__}
    plain, kept = (json.loads(members["config.json"], object_hook=forget_addresses) for members in (theirs, ours))
    assert kept == plain
    before, after = (re.findall(rb'"shared_object_id": (\d+)', members["config.json"]) for members in (theirs, ours))
    assert [after.index(number) for number in after] == [before.index(number) for number in before]
    assert len(set(after)) > 1


def read_members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def forget_addresses(value):
    return value | {"shared_object_id": 0} if "shared_object_id" in value else value


def test_weights_are_refused_before_they_are_made():
    made = []
    with pytest.raises(ValueError, match="the file holds 100"), checking.limit_weights(100):
        keras.Sequential(
            [keras.Input((10**4,)), layers.Dense(10**5, kernel_initializer=lambda *_, **__: made.append(1))]
        )
    assert not made
    with checking.limit_weights(100):
        assert keras.Sequential([keras.Input((10,)), layers.Dense(10)]).count_params() == 110


def test_weights_are_measured_too_where_keras_makes_them_otherwise():
    assert checking._measure(lambda: tf.random.normal((10**6, 10**4))) == 4 * 10**10
    assert checking._measure(np.zeros(3, "float32")) == 12


def test_an_image_that_is_enlarged_without_end_is_not_predicted():
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.UpSampling2D(4000), layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match=r"makes 3,072,000,000 values of an image; at most 67,108,864"):
        predict_probabilities(model, np.zeros((1, 8, 8, 3), "uint8"))


def test_base_weights_with_a_link_to_another_file_are_refused(tmp_path):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["kernel"] = h5py.ExternalLink(tmp_path / "other.h5", "/a")
    with pytest.raises(InputError, match=r"weights\.h5 cannot be read as weights \(/kernel in .* another place"):
        build_feature_extractor((32, 32, 3), str(tmp_path / "weights.h5"), "mobilenet_v2_0.35")


def test_a_model_that_is_called_very_often_is_refused():
    value = {"module": "keras.layers", "class_name": "ReLU", "config": {}}
    for _ in range(10):
        value = {"module": "keras", "class_name": "Model", "config": {"layers": [value]}, "inbound_nodes": [0] * 4}
    with pytest.raises(ValueError, match="more than 300,000 times"):
        checking._check_config(value)


def test_names_of_older_weights_are_read_but_not_in_a_model():
    with h5py.File(content := io.BytesIO(), "w") as file:
        file.attrs["layer_names"] = ["a", "b"]
    assert checking._check_hdf5(content, 2) == 0
    with pytest.raises(ValueError, match="attribute that is not read"):
        checking._check_hdf5(content)
