"""Export: the file predicts what the model does, or it is not written."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from helpers.training import saving
from helpers.training.fast import set_precision
from helpers.training.networks import build_cnn
from helpers.training.saving import run_onnx, save_onnx
from helpers.training.surgery import join
from helpers.training.transfer import build_feature_extractor, build_head, compute_features


@pytest.fixture(autouse=True)
def _keep_dtype_policy():
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


def make_pixels(count=6, size=(16, 12), channels=3, seed=0):
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


def make_cnn(channels=3, seed=0, gain=3.0, **options):
    statistics = [100.0, 120.0, 140.0][:channels], [40.0, 50.0, 70.0][:channels]
    model = build_cnn((16, 12, channels), 4, statistics, filters=((4, 4), (8,)), name="small", **options)
    return randomize(model, seed, gain)


def predict(model, pixels):
    return model(pixels.astype("float32"), training=False).numpy()


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def model():
    return make_cnn()


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
    model, channels = make_cnn(**options), options.get("channels", 3)
    pixels, others = make_pixels(channels=channels), make_pixels(9, channels=channels, seed=1)
    difference = save_onnx(model, tmp_path / "small.onnx", pixels)
    assert isinstance(difference, float)
    assert 0 <= difference < 1e-5
    expected, found = predict(model, others), run_onnx(tmp_path / "small.onnx", others)
    assert np.ptp(expected, axis=0).max() > 0.2  # the images differ
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32
    assert list_names(tmp_path) == ["small.onnx"]


def test_the_difference_is_the_largest_of_all_probabilities(tmp_path, monkeypatch, model):
    wrong = predict(model, make_pixels())
    wrong[[2, 4], [1, 3]] += [0.0003, -0.0007]
    monkeypatch.setattr(saving, "run_onnx", lambda path, pixels: wrong)
    assert save_onnx(model, tmp_path / "small.onnx", make_pixels()) == pytest.approx(0.0007, rel=1e-3)


@pytest.mark.parametrize("count", [1, 2, 33])
def test_the_file_takes_any_number_of_images(tmp_path, model, count):
    save_onnx(model, tmp_path / "small.onnx", make_pixels(3))
    pixels = make_pixels(count, seed=2)
    np.testing.assert_allclose(run_onnx(tmp_path / "small.onnx", pixels), predict(model, pixels), atol=1e-5)


def test_input_and_output_have_names_and_shapes(tmp_path, model):
    """Other programs ask for them by name; what is inside needs no operator that ONNX Runtime alone has."""
    save_onnx(model, tmp_path / "small.onnx", make_pixels())
    onnx.checker.check_model(tmp_path / "small.onnx", full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    (pixels,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (pixels.name, pixels.type, pixels.shape[1:]) == ("pixels", "tensor(float)", [16, 12, 3])
    assert (probabilities.name, probabilities.type, probabilities.shape[1:]) == ("probabilities", "tensor(float)", [4])
    assert not isinstance(pixels.shape[0], int)
    loaded = onnx.load(tmp_path / "small.onnx")
    assert [(opset.domain, opset.version) for opset in loaded.opset_import if not opset.domain] == [("", 18)]
    assert {node.domain for node in loaded.graph.node} == {""}
    values = session.run(["probabilities"], {"pixels": make_pixels(2).astype("float32")})[0]
    np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_pixels_may_have_any_type(tmp_path, model, dtype):
    pixels = make_pixels()
    save_onnx(model, tmp_path / "small.onnx", pixels.astype(dtype))
    np.testing.assert_allclose(
        run_onnx(str(tmp_path / "small.onnx"), pixels.astype(dtype)), predict(model, pixels), atol=1e-5
    )


def test_a_network_in_bfloat16_is_written_in_float32(tmp_path):
    """The file is nearer to the same weights in float32 than to the model, whose steps are 1/256 of a value."""
    exact = make_cnn(gain=1.0)
    set_precision("mixed_bfloat16")
    model, pixels = make_cnn(gain=1.0), make_pixels()
    for ours, wanted in zip(model.get_weights(), exact.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, wanted)
    assert model.get_layer("block1_1_conv").compute_dtype == "bfloat16"
    difference = save_onnx(model, tmp_path / "small.onnx", pixels, tolerance=0.02)
    found = run_onnx(tmp_path / "small.onnx", pixels)
    assert 1e-5 < difference < 0.02
    assert difference == pytest.approx(np.abs(found - predict(model, pixels)).max())
    np.testing.assert_allclose(found, predict(exact, pixels), atol=1e-5)
    loaded = onnx.load(tmp_path / "small.onnx")
    kinds = {tensor.data_type for tensor in loaded.graph.initializer}
    assert onnx.TensorProto.BFLOAT16 not in kinds
    assert onnx.TensorProto.FLOAT in kinds
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert model.get_layer("block1_1_conv").compute_dtype == "bfloat16"


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transferred_network_can_be_written(tmp_path, channels):
    extractor = randomize_extractor(build_feature_extractor((32, 32, channels), None))
    pixels = make_pixels(24, (32, 32), channels)
    model = join(extractor, build_head(compute_features(extractor, pixels), 3))
    expected = predict(model, pixels)
    assert np.ptp(expected, axis=0).min() > 0.1
    assert save_onnx(model, tmp_path / "transfer.onnx", pixels[:4]) < 1e-3
    np.testing.assert_allclose(run_onnx(tmp_path / "transfer.onnx", pixels), expected, atol=1e-3)


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
    model, pixels, path = make_cnn(), make_pixels(), tmp_path / "small.onnx"
    save_onnx(model, path, pixels)
    before = run_onnx(path, pixels)
    model.set_weights(make_cnn(seed=5).get_weights())
    save_onnx(model, path, pixels)
    assert np.abs(run_onnx(path, pixels) - before).max() > 0.1
    np.testing.assert_allclose(run_onnx(path, pixels), predict(model, pixels), atol=1e-5)
    assert list_names(tmp_path) == ["small.onnx"]


def test_writing_leaves_the_model_as_it_was(tmp_path):
    model, pixels = make_cnn(), make_pixels()
    before, expected = model.get_weights(), predict(model, pixels)
    kinds = [type(layer) for layer in model.layers]
    save_onnx(model, tmp_path / "small.onnx", pixels)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert [type(layer) for layer in model.layers] == kinds
    np.testing.assert_array_equal(predict(model, pixels), expected)
    np.testing.assert_array_equal(pixels, make_pixels())
    model.compile("sgd", "categorical_crossentropy")
    model.train_on_batch(pixels.astype("float32"), np.eye(4)[[0, 1, 2, 3, 0, 1]])  # can still be trained


def test_folders_are_made(tmp_path, model):
    save_onnx(model, tmp_path / "models" / "onnx" / "small.onnx", make_pixels(2))
    assert list_names(tmp_path / "models" / "onnx") == ["small.onnx"]


@pytest.mark.parametrize("there", [True, False], ids=["a file is there", "no file is there"])
@pytest.mark.parametrize(
    ("wrong", "shown"), [(0.25, "by up to 0.25"), (np.nan, "by up to nan")], ids=["another", "not a number"]
)
def test_a_file_that_predicts_otherwise_is_not_kept(tmp_path, monkeypatch, model, wrong, shown, there):
    path, pixels = tmp_path / "small.onnx", make_pixels()
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
    model, path, pixels = make_cnn(gain=1.0), tmp_path / "small.onnx", make_pixels()
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

    monkeypatch.setattr(saving, "_convert", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        save_onnx(model, path, make_pixels())
    assert list_names(tmp_path) == ["small.onnx"]
    assert path.read_bytes() == b"from before"
