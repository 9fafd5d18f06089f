"""Saving: files are complete or not there, open in plain Keras, and predict in ONNX Runtime what the model does."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import MappingProxyType

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers
from small_networks import build_cell_network, draw_cells, make_cnn, make_pixels

from helpers import files
from helpers.data.cells import BACKGROUND_LEVEL
from helpers.training import saving
from helpers.training.fast import FusedBatchNormalization, set_precision
from helpers.training.networks import build_cnn
from helpers.training.saving import (
    load_model,
    measure_forms,
    read_about,
    read_arrays,
    run_onnx,
    save_model,
    save_onnx,
)
from helpers.training.surgery import combine_networks, copy_model, join
from helpers.training.transfer import build_feature_extractor, build_head, compute_features

# Keras hands TensorFlow's variables to NumPy in the old way when it writes a file.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

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
    with pytest.raises(FileNotFoundError, match=r"missing\.keras: no such file"):
        load_model(tmp_path / "missing.keras")
    with pytest.raises(ValueError, match=f"{tmp_path.name} is a folder; expected a .keras file"):
        load_model(tmp_path)


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
    "translation": {"hem": "gesund", "all": "Leukämie"},
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
    assert list(about["translation"]) == ["hem", "all"]
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
    with pytest.raises(FileNotFoundError, match=r"missing\.keras"):
        read_about(tmp_path / "missing.keras")


# Arrays beside a model

ARRAYS = {
    "prototypes": np.arange(12, dtype="float32").reshape(3, 4),
    "ids": np.array(["a", "Ä"]),
    "none": np.zeros((0, 2)),
}


def test_arrays_are_kept_with_a_model_that_opens_in_plain_keras(tmp_path):
    model, pixels = make_cnn(), make_pixels()
    path = save_model(model, tmp_path / "model.keras", ABOUT, ARRAYS)
    read = read_arrays(str(path))
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    assert read_about(path) == ABOUT
    np.testing.assert_allclose(keras.models.load_model(path)(pixels), model(pixels), atol=1e-5)
    save_model(model, path)
    assert read_arrays(path) == {}


def test_the_same_arrays_are_the_same_bytes(tmp_path, monkeypatch):
    members = []
    for year in (1990, 2020):
        monkeypatch.setattr("time.localtime", lambda *_, year=year: (year, 1, 1, 0, 0, 0, 0, 1, 0))
        with zipfile.ZipFile(save_model(make_cnn(), tmp_path / "model.keras", arrays=ARRAYS)) as archive:
            members.append((archive.getinfo("arrays.npz").date_time, archive.read("arrays.npz")))
    assert members[0] == members[1]


def test_arrays_of_objects_are_neither_written_nor_read(tmp_path):
    path = save_model(make_cnn(), tmp_path / "model.keras")
    before, objects = path.read_bytes(), np.array([{"a": 1}], object)
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        save_model(make_cnn(), path, arrays={"objects": objects})
    assert path.read_bytes() == before
    with zipfile.ZipFile(path, "a") as archive, archive.open("arrays.npz", "w") as member:
        np.savez(member, objects=objects)
    with pytest.raises(ValueError, match=r"model\.keras.*allow_pickle"):
        read_arrays(path)


@pytest.mark.parametrize("content", [b"", b"no arrays", b"\x93NUMPY"])
def test_arrays_that_are_damaged_are_refused_by_name(tmp_path, content):
    path = save_model(make_cnn(), tmp_path / "model.keras")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("arrays.npz", content)
    with pytest.raises(ValueError, match=r"model\.keras"):
        read_arrays(path)


# save_onnx


def make_onnx_pixels(count=6, size=(16, 12), channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, channels)).astype("uint8")


def randomize(model, seed=0, gain=3.0):
    """Give all weights and statistics random values, and the classifier large ones, so that probabilities differ."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            continue
        values = []
        for weight in layer.get_weights():
            if weight.ndim > 1:
                values.append(rng.normal(0, np.sqrt(2 / np.prod(weight.shape[:-1])), weight.shape))
            else:
                values.append(rng.uniform(0.5, 1.5, weight.shape))
        layer.set_weights(values)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([gain * kernel, bias - bias.mean()])
    return model


def make_onnx_cnn(channels=3, seed=0, gain=3.0, **options):
    statistics = [100.0, 120.0, 140.0][:channels], [40.0, 50.0, 70.0][:channels]
    model = build_cnn((16, 12, channels), 4, statistics, filters=((4, 4), (8,)), name="small", **options)
    return randomize(model, seed, gain)


def predict(model, pixels):
    return model(pixels.astype("float32"), training=False).numpy()


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def model():
    return make_onnx_cnn()


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory, model):
    """Write the model once for the tests that only read its file."""
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    save_onnx(model, path, make_onnx_pixels(3))
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channels": 1},
        {"batch_norm": False},
        {"average_pooling": True, "first_stride": 2, "dropout": 0},
    ],
    ids=str,
)
def test_the_file_predicts_what_the_network_does(tmp_path, options):
    model, channels = make_onnx_cnn(**options), options.get("channels", 3)
    pixels, others = make_onnx_pixels(channels=channels), make_onnx_pixels(9, channels=channels, seed=1)
    difference = save_onnx(model, tmp_path / "small.onnx", pixels)
    assert isinstance(difference, float)
    assert 0 <= difference < 1e-5
    expected, found = predict(model, others), run_onnx(tmp_path / "small.onnx", others)
    assert np.ptp(expected, axis=0).max() > 0.2  # the images differ
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32
    assert list_names(tmp_path) == ["small.onnx"]


def test_the_difference_is_the_largest_of_all_probabilities(tmp_path, monkeypatch, model):
    wrong = predict(model, make_onnx_pixels())
    wrong[[2, 4], [1, 3]] += [0.0003, -0.0007]
    monkeypatch.setattr(saving, "run_onnx", lambda path, pixels: wrong)
    assert save_onnx(model, tmp_path / "small.onnx", make_onnx_pixels()) == pytest.approx(0.0007, rel=1e-3)


@pytest.mark.parametrize("count", [1, 2, 33])
def test_the_file_takes_any_number_of_images(onnx_file, model, count):
    pixels = make_onnx_pixels(count, seed=2)
    np.testing.assert_allclose(run_onnx(onnx_file, pixels), predict(model, pixels), atol=1e-5)


def test_input_and_output_have_names_and_shapes(onnx_file):
    """Other programs ask for them by name; what is inside needs no operator that ONNX Runtime alone has."""
    onnx.checker.check_model(onnx_file, full_check=True)
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    (pixels,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (pixels.name, pixels.type, pixels.shape[1:]) == ("pixels", "tensor(float)", [16, 12, 3])
    assert (probabilities.name, probabilities.type, probabilities.shape[1:]) == ("probabilities", "tensor(float)", [4])
    assert not isinstance(pixels.shape[0], int)
    loaded = onnx.load(onnx_file)
    assert [(opset.domain, opset.version) for opset in loaded.opset_import if not opset.domain] == [("", 18)]
    assert {node.domain for node in loaded.graph.node} == {""}
    values = session.run(["probabilities"], {"pixels": make_onnx_pixels(2).astype("float32")})[0]
    np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_pixels_may_have_any_type(tmp_path, model, dtype):
    pixels = make_onnx_pixels()
    save_onnx(model, tmp_path / "small.onnx", pixels.astype(dtype))
    np.testing.assert_allclose(
        run_onnx(str(tmp_path / "small.onnx"), pixels.astype(dtype)), predict(model, pixels), atol=1e-5
    )


def test_a_network_in_bfloat16_is_written_in_float32(tmp_path):
    """The file is nearer to the same weights in float32 than to the model, whose steps are 1/256 of a value."""
    exact = make_onnx_cnn(gain=1.0)
    set_precision("mixed_bfloat16")
    model, pixels = make_onnx_cnn(gain=1.0), make_onnx_pixels()
    for ours, wanted in zip(model.get_weights(), exact.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, wanted)
    assert model.get_layer("block1_1_conv").compute_dtype == "bfloat16"
    difference = save_onnx(model, tmp_path / "small.onnx", pixels)
    found = run_onnx(tmp_path / "small.onnx", pixels)
    assert difference < 1e-5
    assert 1e-5 < np.abs(found - predict(model, pixels)).max() < 0.02  # what the model rounds
    np.testing.assert_allclose(found, predict(exact, pixels), atol=1e-5)
    loaded = onnx.load(tmp_path / "small.onnx")
    kinds = {tensor.data_type for tensor in loaded.graph.initializer}
    assert onnx.TensorProto.BFLOAT16 not in kinds
    assert onnx.TensorProto.FLOAT in kinds
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert model.get_layer("block1_1_conv").compute_dtype == "bfloat16"


def test_a_transferred_network_can_be_written(tmp_path):
    """One for grey images; `test_surgery` writes those for colours."""
    extractor = randomize_extractor(build_feature_extractor((32, 32, 1), None, until="block_4_add"))
    pixels = make_onnx_pixels(24, (32, 32), 1)
    model = join(extractor, build_head(compute_features(extractor, pixels), 3))
    expected = predict(model, pixels)
    assert np.ptp(expected, axis=0).min() > 0.1
    assert save_onnx(model, tmp_path / "transfer.onnx", pixels[:4]) < 1e-3
    np.testing.assert_allclose(run_onnx(tmp_path / "transfer.onnx", pixels), expected, atol=1e-3)


def test_networks_that_standardize_cells_can_be_written_alone_and_combined(tmp_path):
    """In bfloat16; `test_surgery` writes them in float32."""
    set_precision("mixed_bfloat16")
    network, pixels = build_cell_network(), draw_cells()
    regression = {"regression": (0.1, 0.01), "threshold": BACKGROUND_LEVEL}
    for model in (network, combine_networks([network, network], "combined", 4, **regression)):
        save_onnx(model, tmp_path / "cells.onnx", pixels, tolerance=0.05)
        found = run_onnx(tmp_path / "cells.onnx", pixels)
        np.testing.assert_allclose(found, copy_model(model, "exact", "float32")(pixels), atol=1e-5)
        assert np.ptp(found[:, 0]) > 1e-3


def randomize_extractor(extractor):
    """Random weights alone shrink from layer to layer, so that all images would look alike."""
    rng = np.random.default_rng(0)
    for layer in extractor.layers:
        values = []
        for weight in layer.get_weights():
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            inputs = np.prod(weight.shape[: 2 if depthwise else -1])
            scale = np.sqrt(2 / inputs) if weight.ndim > 1 else 0.2
            values.append(rng.normal(0, scale, weight.shape))
        layer.set_weights(values)
    return extractor


def test_weights_are_those_that_the_model_has_now(tmp_path):
    model, pixels, path = make_onnx_cnn(), make_onnx_pixels(), tmp_path / "small.onnx"
    save_onnx(model, path, pixels)
    before = run_onnx(path, pixels)
    model.set_weights(make_onnx_cnn(seed=5).get_weights())
    save_onnx(model, path, pixels)
    assert np.abs(run_onnx(path, pixels) - before).max() > 0.1
    np.testing.assert_allclose(run_onnx(path, pixels), predict(model, pixels), atol=1e-5)
    assert list_names(tmp_path) == ["small.onnx"]


def test_writing_leaves_the_model_as_it_was(tmp_path):
    model, pixels = make_onnx_cnn(), make_onnx_pixels()
    before, expected = model.get_weights(), predict(model, pixels)
    kinds = [type(layer) for layer in model.layers]
    save_onnx(model, tmp_path / "small.onnx", pixels)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert [type(layer) for layer in model.layers] == kinds
    np.testing.assert_array_equal(predict(model, pixels), expected)
    np.testing.assert_array_equal(pixels, make_onnx_pixels())
    model.compile("sgd", "categorical_crossentropy")
    model.train_on_batch(pixels.astype("float32"), np.eye(4)[[0, 1, 2, 3, 0, 1]])  # can still be trained


def test_folders_are_made(tmp_path, model):
    save_onnx(model, tmp_path / "models" / "onnx" / "small.onnx", make_onnx_pixels(2))
    assert list_names(tmp_path / "models" / "onnx") == ["small.onnx"]


@pytest.mark.parametrize("there", [True, False], ids=["a file is there", "no file is there"])
@pytest.mark.parametrize(
    ("wrong", "shown"), [(0.25, "by up to 0.25"), (np.nan, "by up to nan")], ids=["another", "not a number"]
)
def test_a_file_that_predicts_otherwise_is_not_kept(tmp_path, monkeypatch, model, wrong, shown, there):
    path, pixels = tmp_path / "small.onnx", make_onnx_pixels()
    if there:
        path.write_bytes(b"from before")

    def predict_wrongly(path, pixels):
        y_prob = predict(model, pixels)
        y_prob[3, 1] += wrong
        return y_prob

    monkeypatch.setattr(saving, "run_onnx", predict_wrongly)
    with pytest.raises(ValueError, match=rf"small\.onnx: as ONNX small predicts otherwise, {shown}"):
        save_onnx(model, path, pixels)
    assert list_names(tmp_path) == (["small.onnx"] if there else [])
    assert not there or path.read_bytes() == b"from before"


def test_the_tolerance_decides(tmp_path):
    """With bfloat16 the two really differ."""
    set_precision("mixed_bfloat16")
    model, path, pixels = make_onnx_cnn(gain=1.0), tmp_path / "small.onnx", make_onnx_pixels()
    difference = save_onnx(model, path, pixels, tolerance=0.02)
    written = path.read_bytes()
    with pytest.raises(ValueError, match=f"by up to {difference:.2g}"):
        save_onnx(model, path, pixels, tolerance=difference / 2)
    assert path.read_bytes() == written
    assert save_onnx(model, path, pixels, tolerance=difference) == difference
    assert list_names(tmp_path) == ["small.onnx"]


def test_a_conversion_that_fails_leaves_what_was_there(tmp_path, monkeypatch, model):
    path = tmp_path / "small.onnx"
    path.write_bytes(b"from before")

    def fail(model, path):
        path.write_bytes(b"half a file")
        raise RuntimeError("on purpose")

    monkeypatch.setattr(saving, "_export_onnx", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        save_onnx(model, path, make_onnx_pixels())
    assert list_names(tmp_path) == ["small.onnx"]
    assert path.read_bytes() == b"from before"


# measure_forms


@pytest.mark.parametrize("count", [3, 70])
def test_forms_are_written_checked_and_measured(tmp_path, capfd, model, count):
    pixels, folder = make_onnx_pixels(count), tmp_path / "new" / "forms"
    table = measure_forms(model, pixels, folder, "small", seconds=0.05)
    assert list(table.index) == ["keras", "onnx", "litert"]
    assert list(table.columns) == ["megabytes", "largest_difference", "ms_one", "ms_batch"]
    assert list_names(folder) == ["small.onnx", "small.tflite"]
    for form, name in (("onnx", "small.onnx"), ("litert", "small.tflite")):
        assert table.loc[form, "megabytes"] == (folder / name).stat().st_size / 1e6
    save_model(model, tmp_path / "model.keras")
    assert table.loc["keras", "megabytes"] == (tmp_path / "model.keras").stat().st_size / 1e6
    others = make_onnx_pixels(9, seed=1)
    for run, name in ((run_onnx, "small.onnx"), (saving._run_litert, "small.tflite")):
        np.testing.assert_allclose(run(folder / name, others), predict(model, others), atol=1e-5)
    assert table.loc["keras", "largest_difference"] == 0
    assert (table["largest_difference"] < 1e-5).all()
    assert ((table[["ms_one", "ms_batch"]] > 0) & (table[["ms_one", "ms_batch"]] < 1000)).all(axis=None)
    assert capfd.readouterr() == ("", "")


def test_the_names_and_the_order_that_the_converter_chose_make_no_difference(tmp_path, model):
    path = tmp_path / "small.onnx"
    save_onnx(model, path, make_onnx_pixels(3))
    content, other = path.read_bytes(), onnx.load(path)
    given = {value.name for value in (*other.graph.input, *other.graph.output)}
    for node in other.graph.node:
        for names in (node.input, node.output):
            names[:] = [name if name in given else f"{name}_of_another_process" for name in names]
    for tensor in other.graph.initializer:
        tensor.name += "_of_another_process"
    other.graph.initializer.reverse()
    other.graph.node.reverse()
    other.graph.doc_string = "converted from call 64095"
    for value in (*other.graph.input, *other.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "unk__402"
    onnx.save(other, path)
    assert path.read_bytes() != content
    saving._normalize_onnx(path)
    assert path.read_bytes() == content


def test_times_are_the_shortest_for_one_image_and_per_image_of_a_batch(monkeypatch):
    """A clock that stands still but for the predictions."""
    clock, counts = [0.0], {"slow": [], "fast": []}
    monkeypatch.setattr(saving.time, "perf_counter", lambda: clock[0])

    def predict(name, duration):
        def run(images):
            counts[name].append(len(images))
            clock[0] += duration * len(images) * (2 if len(counts[name]) < 4 else 1)

        return run

    ways = [predict("slow", 0.002), predict("fast", 0.001)]
    best = saving._measure_in_turn(ways, np.zeros((3, 2, 2, 1), "uint8"), seconds=1.2)
    np.testing.assert_allclose(best, [[2, 1], [2, 1]])
    assert set(counts["slow"]) == set(counts["fast"]) == {1, 64}
    assert 2.4 <= clock[0] < 3.2


def test_a_slow_model_is_measured_once(monkeypatch):
    clock, counts = [0.0], []
    monkeypatch.setattr(saving.time, "perf_counter", lambda: clock[0])

    def predict(images):
        counts.append(len(images))
        clock[0] += len(images)

    best = saving._measure_in_turn([predict], np.zeros((1, 2, 2, 1), "uint8"), seconds=1.0)
    assert counts == [1, 64]
    np.testing.assert_allclose(best, [[1000], [1000]])


def test_no_form_that_predicts_otherwise_is_kept(tmp_path, monkeypatch, model):
    monkeypatch.setattr(saving, "_run_litert", lambda path, pixels: predict(model, pixels) + 0.25)
    with pytest.raises(ValueError, match=r"small\.tflite: as LiteRT small predicts otherwise, by up to 0\.25"):
        measure_forms(model, make_onnx_pixels(), tmp_path, "small", seconds=0)
    assert list_names(tmp_path) == ["small.onnx"]


def test_forms_of_a_network_in_bfloat16_compute_in_float32(tmp_path):
    set_precision("mixed_bfloat16")
    model, pixels = make_onnx_cnn(gain=1.0), make_onnx_pixels()
    table = measure_forms(model, pixels, tmp_path, seconds=0)
    assert (table.loc[["onnx", "litert"], "largest_difference"] < 1e-5).all()
    assert 1e-5 < table.loc["keras", "largest_difference"] < 0.02  # what it rounds
    exact = predict(copy_model(model, "exact", "float32"), pixels)
    for run, name in ((run_onnx, "model.onnx"), (saving._run_litert, "model.tflite")):
        np.testing.assert_allclose(run(tmp_path / name, pixels), exact, atol=1e-5)


def test_forms_need_pixels(tmp_path, model):
    with pytest.raises(ValueError, match="No pixels to measure with"):
        measure_forms(model, make_onnx_pixels(0), tmp_path)
    assert list_names(tmp_path) == []
