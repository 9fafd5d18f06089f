"""Fast: fused layers and optimizer against Keras's own, precision, and prediction."""

import gc
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from small_networks import make_cnn, make_pixels, make_square_cnn

from helpers.training import fast, tf
from helpers.training.fast import (
    FusedAdamW,
    FusedBatchNormalization,
    FusedDepthwiseConv2D,
    computing_maps_in,
    fuse,
    list_layers,
    predict_probabilities,
    predict_views,
    predict_with_features,
    set_precision,
    set_seed,
)
from helpers.training.networks import build_cnn

# Keras hands TensorFlow's variables to NumPy in the old way when it writes a file.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

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


# fuse

MEAN, STD = [100.0, 120.0, 140.0], [40.0, 50.0, 70.0]
PLAIN = {layers.BatchNormalization, layers.Normalization}


def write_out(average_pooling=False, residual=False, dropout=0.3):
    """Write the network of `build_cnn` out in plain Keras layers, as the notebooks do."""
    inputs = keras.Input((13, 10, 3))
    x = layers.Normalization(mean=MEAN, variance=np.square(STD), dtype="float32")(inputs)
    for filters in (4, 6):
        before = x
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.95)(x)
        x = layers.ReLU()(x)
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.MaxPooling2D(2, padding="same")(x)
        x = layers.BatchNormalization(momentum=0.95)(x)
        if residual:
            branch = layers.AveragePooling2D(2, padding="same")(before)
            branch = layers.Conv2D(filters, 1, use_bias=False)(branch)
            x = layers.Add()([x, layers.BatchNormalization(momentum=0.95)(branch)])
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x) if average_pooling else layers.Flatten()(x)
    if dropout:
        x = layers.Dropout(dropout)(x)
    return keras.Model(inputs, layers.Dense(5, activation="softmax", dtype="float32")(x))


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("options", [{}, {"average_pooling": True, "dropout": 0}, {"residual": True}], ids=str)
def test_a_network_written_out_and_fused_is_build_cnn_to_the_last_bit(options, precision):
    set_precision(precision)
    set_seed(3)
    ours = fuse(write_out(**options))
    set_seed(3)
    expected = build_cnn((13, 10, 3), 5, (MEAN, STD), filters=((4, 4), (6, 6)), **options)
    assert [type(layer) for layer in ours.layers] == [type(layer) for layer in expected.layers]
    for weight, wanted in zip(ours.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, wanted)
    kernels = {weight.tobytes() for weight in ours.get_weights() if weight.ndim == 4}
    assert len(kernels) == (6 if "residual" in options else 4)  # each its own
    pixels = make_pixels(7, (13, 10), 3)
    np.testing.assert_array_equal(predict_probabilities(ours, pixels), predict_probabilities(expected, pixels))
    for training in (False, True):
        outputs, wanted = (
            keras.Model(model.input, model.layers[-2].input)(pixels, training=training) for model in (ours, expected)
        )
        np.testing.assert_array_equal(tf.cast(outputs, "float32"), tf.cast(wanted, "float32"))


def make_sequential():
    steps = [layers.Normalization(mean=MEAN, variance=np.square(STD)), layers.Conv2D(4, 3, use_bias=False)]
    steps += [layers.BatchNormalization(momentum=0.8), layers.ReLU(), layers.Flatten(), layers.Dropout(0.4, seed=1)]
    return keras.Sequential([layers.Input((13, 10, 3)), *steps, layers.Dense(5, "softmax")], name="small")


def make_nested():
    inputs = layers.Input((13, 10, 3))
    return keras.Model(inputs, layers.Dense(5, "softmax")(keras.Sequential(make_sequential().layers[:-1])(inputs)))


@pytest.mark.parametrize("build", [make_sequential, lambda: write_out(residual=True), make_nested])
def test_a_fused_model_computes_and_learns_as_the_plain_one(build):
    set_seed(0)
    plain = build()
    rng = np.random.default_rng(0)
    plain.set_weights([rng.uniform(0.5, 1.5, w.shape) if w.ndim == 1 else w for w in plain.get_weights()])
    before, kinds, pixels = plain.get_weights(), [type(layer) for layer in plain.layers], make_pixels(32, (13, 10), 3)
    fused = fuse(plain)
    assert fused.name == plain.name
    assert not {type(layer) for layer in list_layers(fused)} & PLAIN
    assert not {id(layer) for layer in list_layers(fused)} & {id(layer) for layer in list_layers(plain)}
    np.testing.assert_allclose(fused(pixels, training=False), plain(pixels, training=False), atol=1e-5)
    assert np.ptp(plain(pixels, training=False), axis=0).max() > 0.01
    for model in (fused, plain):
        for layer in list_layers(model):
            if isinstance(layer, layers.Dropout):
                layer.rate = 0  # the two would draw other noise
        model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
        if model is plain:
            assert [type(layer) for layer in plain.layers] == kinds
            for weight, value in zip(plain.get_weights(), before, strict=True):
                np.testing.assert_array_equal(weight, value)
        model.train_on_batch(pixels, np.eye(5)[np.arange(32) % 5])
    for weight, wanted, value in zip(fused.get_weights(), plain.get_weights(), before, strict=True):
        np.testing.assert_allclose(weight, wanted, rtol=1e-3, atol=1e-4)
        assert np.abs(wanted - value).max() > 0


def test_statistics_that_were_adapted_are_kept():
    normalization, pixels = layers.Normalization(), make_pixels(20).astype("float32")
    normalization.adapt(pixels)
    fused = fuse(keras.Sequential([layers.Input(pixels.shape[1:]), normalization]))
    np.testing.assert_allclose(fused(pixels), normalization(pixels), rtol=1e-5, atol=1e-5)
    assert abs(np.mean(fused(pixels))) < 0.01


def test_a_model_without_anything_to_fuse_is_returned_itself():
    plain = keras.Sequential([layers.Input((8, 6, 2)), layers.Flatten(), layers.Dense(3, "softmax")])
    assert fuse(plain) is plain
    fused = fuse(make_sequential())
    assert fuse(fused) is fused


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


# FusedDepthwiseConv2D


def compute_depthwise(kind, images, wanted, **options):
    """Compute outputs, and the gradients of kernel, bias and images, in float32."""
    layer = kind(bias_initializer="ones", activation="tanh", **options)
    images = tf.Variable(images)
    with tf.GradientTape() as tape:
        outputs = tf.cast(layer(images), "float32")
        loss = tf.reduce_sum(outputs * wanted(outputs.shape))
    kernel, bias = layer.trainable_variables
    return [outputs, *tape.gradient(loss, [kernel.value, bias.value, images])]


@pytest.mark.parametrize("units", [None, []], ids=["this processor", "without units for bfloat16"])
@pytest.mark.parametrize("size", [(9, 12), (8, 7)], ids=str)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_depthwise_convolution_in_bfloat16_is_that_of_keras_in_float32(
    kernel, stride, padding, size, units, monkeypatch
):
    images = np.random.default_rng(0).normal(size=(4, *size, 6)).astype("float32")
    options = {"kernel_size": kernel, "strides": stride, "padding": padding}
    options["depthwise_initializer"] = keras.initializers.RandomNormal(stddev=0.3, seed=1)

    def wanted(shape):
        return np.random.default_rng(1).normal(size=shape).astype("float32")

    expected = compute_depthwise(layers.DepthwiseConv2D, images, wanted, dtype="float32", **options)
    monkeypatch.setattr(layers.DepthwiseConv2D, "call", None)  # it is not what is used
    if units is not None:
        monkeypatch.setattr(fast, "list_bfloat16_units", lambda: units)
    computed = compute_depthwise(FusedDepthwiseConv2D, images, wanted, dtype="mixed_bfloat16", **options)
    for ours, keras_own in zip(computed, expected, strict=True):
        assert ours.dtype == "float32"
        assert ours.shape == keras_own.shape
        assert np.abs(ours - keras_own).max() < 0.03 * np.abs(keras_own).max()


def test_the_gradient_of_a_bias_keeps_growing_in_bfloat16():
    images, options = np.zeros((8, 64, 64, 2), "float32"), {"kernel_size": 3, "padding": "same"}
    layer = FusedDepthwiseConv2D(dtype="mixed_bfloat16", **options)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.cast(layer(images), "float32"))
    np.testing.assert_allclose(tape.gradient(loss, layer.bias.value), images[..., 0].size, rtol=0.01)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float32"},
        {"dtype": "mixed_bfloat16", "depth_multiplier": 2},
        {"dtype": "mixed_bfloat16", "dilation_rate": 2},
        {"dtype": "mixed_bfloat16", "kernel_size": (3, 5)},
        {"dtype": "mixed_bfloat16", "kernel_size": 7},
    ],
    ids=str,
)
def test_other_depthwise_convolutions_are_left_to_keras(options):
    images = np.random.default_rng(0).normal(size=(2, 12, 14, 3)).astype("float32")
    options = {"kernel_size": 3, "depthwise_initializer": "ones"} | options
    results = [
        compute_depthwise(kind, images, np.ones, **options) for kind in (FusedDepthwiseConv2D, layers.DepthwiseConv2D)
    ]
    for ours, keras_own in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, keras_own)


# FusedAdamW

SETTINGS = {"learning_rate": 0.02, "weight_decay": 0.3, "use_ema": True, "ema_momentum": 0.8}


@pytest.fixture
def fused_updates(monkeypatch):
    calls = []
    kernel = tf.raw_ops.ResourceApplyAdam
    monkeypatch.setattr(tf.raw_ops, "ResourceApplyAdam", lambda **arguments: calls.append(1) or kernel(**arguments))
    return calls


def train(optimizer, steps=5, seed=0):
    """Apply the same gradients; return weights, momentums and averages."""
    rng = np.random.default_rng(seed)
    variables = [keras.Variable(rng.normal(size=shape).astype("float32")) for shape in ((3, 4), (4,))]
    optimizer.build(variables)
    for step in range(steps):
        optimizer.learning_rate = 0.02 / (step + 1)
        optimizer.apply([keras.ops.convert_to_tensor(rng.normal(size=v.shape).astype("float32")) for v in variables])
    return [np.asarray(variable) for variable in [*variables, *optimizer.variables]]


@pytest.mark.parametrize("changed", [{}, {"weight_decay": 0.0}, {"use_ema": False}, {"beta_1": 0.5, "epsilon": 0.1}])
def test_weights_are_those_of_keras(changed, fused_updates):
    ours = train(FusedAdamW(**SETTINGS | changed))
    assert len(fused_updates) == 10
    theirs = train(keras.optimizers.AdamW(**SETTINGS | changed))
    assert len(fused_updates) == 10
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_average_begins_with_the_first_weights():
    optimizer = FusedAdamW(**SETTINGS)
    weights, *_ = train(optimizer, steps=1)
    np.testing.assert_allclose(np.asarray(optimizer._model_variables_moving_average[0]), weights, rtol=1e-6)


def test_what_the_kernel_has_not_is_left_to_keras(fused_updates):
    ours, theirs = (train(kind(**SETTINGS, amsgrad=True)) for kind in (FusedAdamW, keras.optimizers.AdamW))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    table = keras.Variable(np.ones((4, 2), "float32"))
    optimizer = FusedAdamW(0.1, weight_decay=0.0)
    optimizer.build([table])
    optimizer.apply([tf.IndexedSlices(tf.ones((1, 2)), tf.constant([2]), tf.constant([4, 2]))])
    np.testing.assert_allclose(np.asarray(table)[2], 0.9, atol=1e-5)
    assert not fused_updates


def test_a_trained_model_can_be_forgotten():
    model = keras.Sequential([layers.Input((2,)), layers.Dense(1)])
    model.compile(FusedAdamW(**SETTINGS), "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    momentum = weakref.ref(model.optimizer._momentums[0].value.handle)
    gc.collect()
    assert momentum() is not None
    model.compile("sgd")
    gc.collect()
    assert momentum() is None


def test_saved_model_opens_with_plain_keras(tmp_path):
    model = keras.Sequential([layers.Input((2,)), layers.Dense(1)])
    model.compile(FusedAdamW(**SETTINGS), "mse")
    model.train_on_batch(np.ones((2, 2)), np.ones((2, 1)))
    model.save(tmp_path / "model.keras")
    assert type(keras.models.load_model(tmp_path / "model.keras").optimizer) is keras.optimizers.AdamW


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


def test_progress_counts_the_images_of_several_batches(stages):
    model, pixels = make_cnn(), make_pixels(23)
    predict_probabilities(model, pixels, batch_size=7)
    predict_probabilities(model, pixels, batch_size=23)  # over at once
    assert [(stage.label, stage.done, stage.total) for stage in stages] == [
        (f"computing the output of {model.name}", 23, 23)
    ]


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


def test_four_views_are_the_mean_over_the_mirror_images():
    model, pixels = make_cnn(), make_pixels(9)
    by_view = [model(np.flip(pixels, axes), training=False) for axes in ((), (1,), (2,), (1, 2))]
    assert min(np.abs(view - by_view[0]).max() for view in by_view[1:]) > 0.01
    result = predict_probabilities(model, pixels, views=4, batch_size=4)
    np.testing.assert_allclose(result, np.mean(by_view, axis=0), rtol=1e-5, atol=1e-6)
    some = predict_probabilities(model, pixels, [7, 2], 4)
    np.testing.assert_allclose(some, result[[7, 2]], rtol=1e-5, atol=1e-6)


def test_eight_views_are_the_mean_over_all_turns_of_the_image_and_of_its_mirror_image():
    model, pixels = make_square_cnn(), make_pixels(9, (6, 6))
    turned = [np.rot90(either, turns, (1, 2)) for either in (pixels, pixels[:, :, ::-1]) for turns in range(4)]
    by_view = [model(view, training=False) for view in turned]
    for number in range(8):  # each counts
        without = np.mean(by_view[:number] + by_view[number + 1 :], axis=0)
        assert np.abs(without - np.mean(by_view, axis=0)).max() > 1e-3
    result = predict_probabilities(model, pixels, views=8, batch_size=4)
    np.testing.assert_allclose(result, np.mean(by_view, axis=0), rtol=1e-5, atol=1e-6)
    assert result.dtype == np.float32
    four = np.mean([by_view[number] for number in (0, 2, 4, 6)], axis=0)
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


@pytest.mark.parametrize("views", [1, 8])
def test_features_come_with_the_same_predictions(views):
    model, pixels, rows = make_square_cnn(), make_pixels(9, (6, 6)), np.array([7, 2, 2])
    expected = keras.Model(model.input, model.get_layer("features").output)(pixels)
    for given, batch_size in ((None, None), (None, 4), (rows, 2), (rows[:0], None)):
        probabilities, features = predict_with_features(model, pixels, given, views, batch_size)
        np.testing.assert_array_equal(probabilities, predict_probabilities(model, pixels, given, views, batch_size))
        wanted = expected if given is None else expected.numpy()[given]
        assert (features.shape, features.dtype) == (wanted.shape, np.float32)
        np.testing.assert_allclose(features, wanted, rtol=1e-5, atol=1e-5)


def exchange_activation(model):
    model.layers[-1].activation = keras.activations.linear


def exchange_activation_within(model):
    model.layers[-2].layers[-1].activation = keras.activations.tanh


def exchange_activation_by_own_function(model):
    model.layers[-1].activation = lambda scores: scores / 2


def exchange_weights(model):
    model.set_weights([weight + 1 for weight in model.get_weights()])


def exchange_layer(model):
    last = model.layers[-1]
    model.pop()
    model.add(layers.Dense(3, "softmax", kernel_initializer="ones", name=last.name))


@pytest.mark.parametrize(
    "exchange",
    [
        exchange_activation,
        exchange_activation_within,
        exchange_activation_by_own_function,
        exchange_weights,
        exchange_layer,
    ],
)
def test_what_is_exchanged_after_a_prediction_is_noticed(exchange):
    set_seed(0)
    inner = keras.Sequential([layers.Input((8, 6, 2)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(4)])
    model, pixels = keras.Sequential([inner, layers.Dense(3, "softmax")]), make_pixels()
    before = predict_probabilities(model, pixels)
    predict_with_features(model, pixels)
    exchange(model)
    expected = model(pixels.astype("float32"))
    assert np.abs(expected - before).max() > 0.01
    np.testing.assert_allclose(predict_probabilities(model, pixels), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(predict_with_features(model, pixels)[0], expected, rtol=1e-5, atol=1e-6)


def test_an_exchanged_activation_can_be_put_back():
    model, pixels = make_cnn(), make_pixels()
    before, last = predict_probabilities(model, pixels), model.layers[-1]
    exchange_activation(model)
    assert np.abs(predict_probabilities(model, pixels) - before).max() > 0.1
    last.activation = keras.activations.softmax
    np.testing.assert_array_equal(predict_probabilities(model, pixels), before)


def test_a_prediction_within_another_precision_is_not_kept_for_later():
    model, pixels = make_cnn(), make_pixels()
    before = predict_probabilities(model, pixels)
    with computing_maps_in(model, "mixed_bfloat16"):
        rounded = predict_probabilities(model, pixels)
    assert 0 < np.abs(rounded - before).max() < 0.05
    np.testing.assert_array_equal(predict_probabilities(model, pixels), before)


def test_a_model_is_traced_once(monkeypatch):
    model, traced = make_cnn(), []
    call = type(model).call
    monkeypatch.setattr(type(model), "call", lambda *a, **options: traced.append(1) or call(*a, **options))
    for _ in range(3):
        predict_probabilities(model, make_pixels(5), batch_size=2)
        predict_with_features(model, make_pixels(5), batch_size=2)
    assert len(traced) == 2


def test_prediction_leaves_the_model_as_it_is():
    model = make_cnn(dropout=0.5)
    before = model.get_weights()
    first = predict_probabilities(model, make_pixels())
    np.testing.assert_array_equal(predict_probabilities(model, make_pixels()), first)  # no dropout
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
