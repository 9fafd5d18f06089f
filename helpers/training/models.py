"""Models: the convolutional network, precision, saving and loading.

A model takes raw pixels (uint8 or float, 0 to 255). Standardization is its first layer, with the statistics of the
training images, so that a saved model cannot be fed wrongly scaled input. It returns class probabilities in float32.
"""

import json
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import layers, ops

from helpers.files import release_pages, replace_atomically
from helpers.settings import BACKGROUND_LEVEL
from helpers.training import tf

_ABOUT = "about.json"  # the member of a saved model that save_model adds


class FusedBatchNormalization(layers.BatchNormalization):
    """Batch normalization in TensorFlow's fused kernel instead of Keras's separate operations; see ``benchmarks/``.

    Weights, hyperparameters and saved form are those of ``keras.layers.BatchNormalization``: a saved model opens with
    plain ``keras.models.load_model``, also where this package is not installed, and `load_model` makes it fused
    again. Inputs other than images with channels last are left to Keras.
    """

    def call(self, inputs, training=None, mask=None):
        fusible = len(inputs.shape) == 4 and self.axis in (-1, 3) and mask is None and self.variable_dtype == "float32"
        if not (fusible and self.scale and self.center) or self.synchronized or self.renorm:
            return super().call(inputs, training=training, mask=mask)
        learns = bool(training and self.trainable)
        empty = tf.zeros([0])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=empty if learns else self.moving_mean,
            variance=empty if learns else self.moving_variance,
            epsilon=self.epsilon,
            is_training=learns,
        )
        if learns:
            # The kernel returns the unbiased variance; Keras keeps the biased one.
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
            self._update(self.moving_mean, mean)
            self._update(self.moving_variance, variance * (count - 1) / count)
        return outputs

    def _update(self, moving, new):
        moving.assign(moving * self.momentum + new * (1 - self.momentum))


class FusedNormalization(layers.Normalization):
    """Standardization of images by given statistics, in the same kernel; see ``benchmarks/``.

    Keras subtracts and divides with the channels as innermost axis, which TensorFlow does slowly for so few of them.
    Saved and loaded like `FusedBatchNormalization`.
    """

    def call(self, inputs):
        fusible = len(inputs.shape) == 4 and self.input_mean is not None and not self.invert
        if not fusible or self.dtype_policy.name != "float32" or np.min(self.input_variance) < 1:
            return super().call(inputs)
        mean, variance = (tf.reshape(values, [-1]) for values in (self.mean, self.variance))
        outputs, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, tf.float32),
            scale=tf.ones_like(mean),
            offset=tf.zeros_like(mean),
            mean=mean,
            variance=variance,
            epsilon=_NO_EPSILON,
            is_training=False,
        )
        return outputs


_NO_EPSILON = 1e-10  # vanishes beside a variance of 1 and more
_FUSED = {"BatchNormalization": FusedBatchNormalization, "Normalization": FusedNormalization}
# Keras writes module and name of a class into the saved file: this is what makes it open as the built-in layer.
for _name, _layer in _FUSED.items():
    _layer.__name__ = _layer.__qualname__ = _name
    _layer.__module__ = "keras.layers"


def set_precision(precision="auto"):
    """Choose the arithmetic of the layers built from now on.

    Parameters
    ----------
    precision : {"auto", "float32", "mixed_bfloat16", "mixed_float16"}
        "auto" takes what the hardware multiplies fast, see ``benchmarks/``; weights stay float32. On processors with
        AMX or AVX-512 BF16 that is mixed_bfloat16; on Nvidia's cards mixed_bfloat16 from compute capability 8.0 on
        (Ampere) and mixed_float16 from 7.0 on (Volta, Turing), the oldest of several deciding; elsewhere float32.

    Returns
    -------
    str: the name of the Keras dtype policy that is now in force.
    """
    if precision == "auto":
        precision = _find_fast_precision()
    keras.config.set_dtype_policy(precision)
    return precision


def use_all_gpus(devices=None):
    """Train the models built from now on on several GPUs at once, if there are several.

    Each step's batch is divided among them and the gradients are summed (``tf.distribute.MirroredStrategy``); batch
    normalization takes the statistics of each part by itself.

    Parameters
    ----------
    devices : list of str, optional
        Names of devices such as "GPU:0"; by default all GPUs that TensorFlow sees.

    Returns
    -------
    int, how many devices train together: 1 where there are not several.
    """
    devices = devices or [f"GPU:{number}" for number in range(len(tf.config.list_physical_devices("GPU")))]
    if len(devices) > 1:
        tf.distribute.experimental_set_strategy(tf.distribute.MirroredStrategy(devices))
    return max(len(devices), 1)


def set_seed(seed):
    """Seed the initial weights of the networks built from now on (and Python's and NumPy's global state)."""
    keras.utils.set_random_seed(seed)


def build_cnn(
    input_shape,
    n_classes,
    statistics=None,
    *,
    prepare=None,
    filters=((32, 32), (64, 64), (128, 128)),
    first_stride=1,
    average_pooling=False,
    batch_norm=True,
    residual=False,
    dropout=0.3,
    name="cnn",
):
    """Build a convolutional network: blocks of 3x3 convolutions, each block ending in a 2x2 max-pool.

    The last convolution of a block is pooled before it is normalized and activated, which leaves a quarter of the
    pixels to normalize and to activate.

    Parameters
    ----------
    input_shape : tuple of 3 ints
        Height, width, channels.
    n_classes : int
    statistics : tuple of 2 arrays of length ``channels``, optional
        Mean and standard deviation of the training pixels on the scale 0 to 255.
    prepare : function ``tensor -> tensor``, optional
        Standardizes raw pixels in another way, instead of by ``statistics``.
    filters : sequence of sequences of ints
        For each block the number of filters of each of its convolutions.
    first_stride : int
        Stride of the first convolution. At 160 x 120 pixels most of the time goes into the first block, which 2 makes
        four times cheaper.
    average_pooling : bool
        Whether the last feature maps are averaged over the image before the classifier, so that it cannot learn where
        something is: fewer parameters, for images in which the place says nothing. Otherwise they are flattened.
    batch_norm : bool
        Whether each convolution is followed by batch normalization.
    residual : bool
        Whether what goes into a block is added to what comes out of it (He et al. 2016), reduced by averaging and, to
        have as many maps, by a 1x1 convolution. The block then learns what to change, and gradients have a short way.
    dropout : float
        Share of features dropped before the classifier during training.

    Returns
    -------
    keras.Model from raw pixels (n, height, width, channels) to probabilities (n, n_classes) in float32.
    """
    inputs = x = layers.Input(input_shape, name="pixels")
    x = (prepare or standardization_layer(statistics))(x)
    for block, filters_of_block in enumerate(filters, 1):
        before, stride = x, first_stride if block == 1 else 1
        for number, n_filters in enumerate(filters_of_block, 1):
            prefix = f"block{block}_{number}"
            options = {"strides": stride if number == 1 else 1, "use_bias": not batch_norm}
            x = layers.Conv2D(n_filters, 3, padding="same", name=f"{prefix}_conv", **options)(x)
            is_last = number == len(filters_of_block)
            if is_last:
                x = layers.MaxPooling2D(2, padding="same", name=f"block{block}_pool")(x)
            if batch_norm:
                x = FusedBatchNormalization(momentum=0.95, name=f"{prefix}_norm")(x)
            if is_last and residual:
                x = _add_shortcut(x, before, 2 * stride, batch_norm, f"block{block}")
            x = layers.ReLU(name=f"{prefix}_relu")(x)
    x = (layers.GlobalAveragePooling2D if average_pooling else layers.Flatten)(name="features")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    outputs = layers.Dense(n_classes, activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, outputs, name=name)


def _add_shortcut(x, before, stride, batch_norm, prefix):
    """Add what went into a block to what came out of it."""
    shortcut = layers.AveragePooling2D(stride, padding="same", name=f"{prefix}_shortcut_pool")(before)
    shortcut = layers.Conv2D(x.shape[-1], 1, use_bias=not batch_norm, name=f"{prefix}_shortcut_conv")(shortcut)
    if batch_norm:
        shortcut = FusedBatchNormalization(momentum=0.95, name=f"{prefix}_shortcut_norm")(shortcut)
    return layers.Add(name=f"{prefix}_add")([x, shortcut])


def standardization_layer(statistics):
    """Make the layer that subtracts the training mean and divides by the training standard deviation.

    Parameters
    ----------
    statistics : tuple of 2 arrays of length ``channels``
        Mean and standard deviation on the scale of the pixels.
    """
    mean, std = (np.asarray(values, "float64") for values in statistics)
    return FusedNormalization(mean=mean, variance=std**2, dtype="float32", name="standardization")


def standardize_cells(pixels, size, threshold=BACKGROUND_LEVEL):
    """Crop images of single cells to their middle, and standardize the colours of each, as part of a network.

    So that a saved model takes raw pixels. What `helpers.data.cells.standardize_colors` does to arrays, but for the
    cell: here it is every pixel that is not background, loose parts included and dark holes left out. The standard
    deviation is about 1.

    Parameters
    ----------
    pixels : keras tensor (n, height, width, 3)
        Raw pixels, 0 to 255.
    size : int
        Height and width to crop to, at most those of the images.
    threshold : float
        Pixels are background where no channel is above it.

    Returns
    -------
    keras tensor (n, size, size, 3), float32
    """
    margins = [((length - size) // 2, (length - size) - (length - size) // 2) for length in pixels.shape[1:3]]
    cropped = layers.Cropping2D(margins, dtype="float32", name="crop")(pixels)
    cell = ops.cast(ops.max(cropped, axis=-1, keepdims=True) > threshold, "float32")
    count = ops.sum(cell, axis=(1, 2), keepdims=True) + 1  # one more, for images without a cell
    centred = (cropped - ops.sum(cropped * cell, axis=(1, 2), keepdims=True) / count) * cell
    variance = ops.sum(ops.square(centred), axis=(1, 2), keepdims=True) / count
    return centred / ops.sqrt(variance + 1)


def copy_model(model, name, precision=None, replace=None):
    """Copy a functional model with its weights, so that training the copy leaves the model as it is.

    Parameters
    ----------
    model : keras.Model
    name : str
    precision : str, optional
        The name of a Keras dtype policy, such as "float32", for all layers of the copy; by default they keep theirs.
    replace : function ``layer -> keras.Layer or None``, optional
        Gives what stands for a layer in the copy, with the same weights; None for a copy of the layer.
    """

    def copy(layer):
        instead = replace(layer) if replace else None
        return instead or type(layer).from_config(layer.get_config() | ({"dtype": precision} if precision else {}))

    copied = keras.models.clone_model(model, clone_function=copy)
    copied.set_weights(model.get_weights())
    copied.name = name
    return copied


def build_in_temperature(model, temperature, name):
    """Copy a model in float32, a temperature for its probabilities built in.

    Parameters
    ----------
    model : keras.Model
        Its last layer is a dense one with softmax.
    temperature : float
        From `helpers.evaluation.decisions.fit_temperature`: the scores before the softmax are divided by it.
    name : str

    Returns
    -------
    keras.Model whose probabilities are the calibrated ones.

    Raises
    ------
    ValueError
        The last layer is no dense one.
    """
    calibrated = copy_model(model, name, "float32")
    last = calibrated.layers[-1]
    if not isinstance(last, layers.Dense):
        raise ValueError(f"The last layer of {model.name} is {type(last).__name__}; expected a Dense one.")
    last.set_weights([weight / temperature for weight in last.get_weights()])
    return calibrated


def cut_at(model, layer):
    """Cut a model off after a layer, given by its name; the layers are shared, not copied."""
    return keras.Model(model.input, model.get_layer(layer).output, name=f"{model.name}_until_{layer}")


def combine_networks(networks, name, views=1, temperature=1.0, regression=None, threshold=BACKGROUND_LEVEL):
    """Combine several networks to one model: their average, calibrated.

    Parameters
    ----------
    networks : sequence of keras.Model
        From raw pixels of one shape to probabilities of the same classes. They are copied.
    name : str
    views : {1, 4, 8}
        Over how many views of each image each network is averaged too, see `predict_probabilities`.
    temperature : float
        From `helpers.evaluation.decisions.fit_temperature`: the logarithms of the averages are divided by it.
    regression : tuple of 2 floats, optional
        Intercept and weight of a logistic regression of two classes on the area of the cell in pixels, from
        `helpers.evaluation.baselines.get_coefficients`. It has as much say as all networks together: the geometric mean
        of its probabilities and theirs takes the place of the average.
    threshold : float
        Pixels belong to the cell where a channel is above it.

    Returns
    -------
    keras.Model from raw pixels to probabilities in float32.
    """
    inputs = layers.Input(networks[0].input_shape[1:], name="pixels")
    members = [copy_model(network, f"member_{number}") for number, network in enumerate(networks, 1)]
    outputs = [member(view) for member in members for view in _list_views(inputs, views, ops.transpose)]
    average = sum(outputs[1:], outputs[0]) / len(outputs)
    logarithm = _compute_logarithm(average)
    if regression is not None:
        intercept, weight = regression
        cell = ops.cast(ops.max(inputs, axis=-1) > threshold, "float32")
        odds = intercept + weight * ops.sum(cell, axis=(1, 2))
        of_area = ops.stack([ops.sigmoid(-odds), ops.sigmoid(odds)], axis=1)
        logarithm = (logarithm + _compute_logarithm(of_area)) / 2
    return keras.Model(inputs, ops.softmax(logarithm / temperature), name=name)


def _compute_logarithm(probabilities):
    return ops.log(ops.clip(probabilities, 1e-6, 1.0))


def describe_layers(model):
    """List the layers of a model as a table.

    Returns
    -------
    DataFrame with one row per layer: ``layer, kind, output_shape, parameters, trainable``; shapes without
    the batch axis.
    """
    rows = [
        {
            "layer": layer.name,
            "kind": type(layer).__name__,
            "output_shape": tuple(layer.output.shape[1:]),
            "parameters": layer.count_params(),
            "trainable": sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights),
        }
        for layer in model.layers
    ]
    return pd.DataFrame(rows)


def predict_probabilities(model, images, rows=None, views=1, batch_size=None):
    """Predict class probabilities in the order of the images.

    Parameters
    ----------
    model : keras.Model
    images : array (n, height, width, channels)
        Raw pixels; may be memory-mapped, only two batches at a time are read.
    rows : array of int (m,), optional
        The images to predict; all by default.
    views : {1, 4, 8}
        Over how many views of each image the probabilities are averaged: 4 are the image and its mirror images, 8,
        for square images, also these turned by 90 degrees. For images without up and down, left and right.
    batch_size : int, optional
        By default as many images as make about a million pixels.

    Returns
    -------
    float32 array (m, n_classes)
    """
    return predict_views(model, images, rows, views, batch_size).mean(axis=0)


def predict_views(model, images, rows=None, views=1, batch_size=None):
    """Predict several views of each image, as `predict_probabilities` does, without averaging.

    Returns
    -------
    float32 array (views, m, n_outputs)
    """
    rows = np.arange(len(images)) if rows is None else np.asarray(rows)
    batch_size = batch_size or int(np.clip(2**20 // np.prod(images.shape[1:3]), 16, 256))
    dtype = "uint8" if images.dtype == np.uint8 else "float32"  # bytes are a quarter to copy
    graph = _trace_prediction(model, dtype)
    outputs = np.empty((views, len(rows), model.output_shape[-1]), "float32")

    def predict(start):
        batch = np.asarray(images[rows[start : start + batch_size]], dtype)
        release_pages(images)
        for view, of_view in enumerate(_list_views(batch, views)):
            outputs[view, start : start + batch_size] = graph(tf.constant(of_view)).numpy()

    starts = range(0, len(rows), batch_size)
    if len(starts) > 1:  # a single image would wait for the threads to start for almost half as long again
        with ThreadPoolExecutor(2) as pool:  # while a batch is read, and in pauses between layers, another is computed
            list(pool.map(predict, starts))
    else:
        list(map(predict, starts))
    return outputs


def _trace_prediction(model, dtype):
    """Trace a model once for batches of any size; Keras's predict_on_batch traces again for the last, smaller one."""
    if not hasattr(model, "prediction_graphs"):
        model.prediction_graphs = {}
    if dtype not in model.prediction_graphs:

        @tf.function(input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), dtype)])
        def predict(batch):
            return model(tf.cast(batch, "float32"), training=False)

        model.prediction_graphs[dtype] = predict.get_concrete_function()
    return model.prediction_graphs[dtype]


def _list_views(images, views, transpose=np.transpose):
    if views not in (1, 4, 8) or (views == 8 and images.shape[1] != images.shape[2]):
        raise ValueError(f"views={views} of images {images.shape[1:3]}: expected 1, 4, or for square images 8.")
    if views == 1:
        return [images]
    mirrored = [images, images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1]]
    return mirrored + [transpose(view, (0, 2, 1, 3)) for view in mirrored if views == 8]


def save_model(model, path, about=None):
    """Save a model as a ``.keras`` file that is either complete or not there.

    The model is written under a temporary name beside its place, loaded once as a check, and then renamed.

    Parameters
    ----------
    model : keras.Model
    path : str or Path
        Ends in ``.keras``; its folder is made.
    about : dict, optional
        What to know to use the model, such as ``class_names``; kept in the file, where Keras ignores it, for
        `read_about`. Of what JSON can hold, and of mappings, NumPy numbers and arrays, which come back as dicts,
        numbers and lists.

    Returns
    -------
    Path of the saved file.

    Raises
    ------
    ValueError
        The name does not end in ``.keras``, or ``about`` is no mapping or holds NaN or infinity.
    TypeError
        ``about`` holds something else that JSON cannot.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"{path}: the name of a saved model ends in .keras.")
    if about is not None and not isinstance(about, Mapping):
        raise ValueError(f"about is a {type(about).__name__}; expected a dict.")
    text = json.dumps(about, default=_simplify, allow_nan=False, ensure_ascii=False, indent=1)
    with replace_atomically(path) as unfinished:
        model.save(unfinished)
        if about is not None:
            with zipfile.ZipFile(unfinished, "a") as archive:
                archive.writestr(zipfile.ZipInfo(_ABOUT), text)  # without the time of writing
        load_model(unfinished)
    return path


def read_about(path):
    """Read what `save_model` was told about a model.

    Returns
    -------
    dict, empty if it was told nothing.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is no Keras model, or what it says about itself is damaged.
    """
    path = _find_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            archive.getinfo("config.json")  # which every Keras model has
            about = json.loads(archive.read(_ABOUT)) if _ABOUT in archive.namelist() else {}
    except Exception as error:  # a damaged archive fails in many ways inside zipfile and zlib
        raise ValueError(f"{path}: this is no .keras model, or it is damaged: {error}") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path}: {_ABOUT} in it is a {type(about).__name__}; expected an object.")
    return about


def load_model(path):
    """Load a model that `save_model` wrote, ready to predict and to be trained further.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is no Keras model, or would run code of its own when loaded.
    """
    path = _find_archive(path)
    try:
        return keras.models.load_model(path, custom_objects=_FUSED)
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: Keras could not load this model: {reason}") from error


def _find_archive(path):
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. The notebooks save their models in models/: train one first.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: this is no .keras model (or it is truncated). Save it again with save_model.")
    return path


def _simplify(value):
    """Turn what JSON does not know into what it knows."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} cannot be kept in {_ABOUT}: {type(value).__name__} is nothing that JSON can hold.")


def _find_fast_precision():
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "mixed_bfloat16" if _multiplies_bfloat16() else "float32"
    details = map(tf.config.experimental.get_device_details, gpus)
    capability = min(of_gpu.get("compute_capability", (0, 0)) for of_gpu in details)
    return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"


def _multiplies_bfloat16():
    """Look for bfloat16 instructions among the processor's flags (Linux; elsewhere none are assumed)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
