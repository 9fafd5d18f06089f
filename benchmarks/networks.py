"""The notebooks' convolutional networks, as this project trains them and as Keras comes."""

import numpy as np

from benchmarks.common import DEFAULT_FILTERS, N_CLASSES, NETWORKS, draw_pixels
from helpers.training import fast, fit, networks, surgery, tf


def list_precisions():
    """List float32 and, where the processor multiplies bfloat16 in hardware, mixed_bfloat16."""
    return list(dict.fromkeys(["float32", fast.set_precision("auto")]))


def build(name, precision):
    """Build a network of `NETWORKS`."""
    shape, _, options = NETWORKS[name]
    fast.set_precision(precision)
    return networks.build_cnn(shape, N_CLASSES, make_statistics(shape), **options)


def make_statistics(shape):
    """Make mean and standard deviation of random pixels."""
    return np.full(shape[-1], 127.5), np.full(shape[-1], 74.0)


def draw_batch(name):
    """Draw a batch of a network of `NETWORKS`: float32 pixels and one-hot labels."""
    shape, batch_size, _ = NETWORKS[name]
    return draw_pixels(batch_size, shape, N_CLASSES)


def compile_as_fit(model, learning_rate=1e-3):
    """Compile a model as the notebooks train it."""
    fit.compile_model(model)
    model.optimizer.learning_rate = learning_rate
    return model


def build_as_commonly_written(name):
    """Build a network of `NETWORKS` as Keras comes, in the common order: normalized and activated, then pooled."""
    layers = tf.keras.layers
    shape, _, options = NETWORKS[name]
    fast.set_precision("float32")
    mean, std = make_statistics(shape)
    inputs = x = layers.Input(shape)
    x = layers.Normalization(mean=mean, variance=std**2)(x)
    stride = options.get("first_stride", 1)
    for of_block in options.get("filters", DEFAULT_FILTERS):
        for n_filters in of_block:
            x = layers.Conv2D(n_filters, 3, stride, padding="same", use_bias=False)(x)
            x, stride = layers.ReLU()(layers.BatchNormalization()(x)), 1
        x = layers.MaxPooling2D(2, padding="same")(x)
    x = (layers.GlobalAveragePooling2D if options.get("average_pooling") else layers.Flatten)()(x)
    x = layers.Dense(N_CLASSES, "softmax")(layers.Dropout(0.3)(x))
    return compile_plain(tf.keras.Model(inputs, x))


def copy_as_keras(model, learning_rate=1e-3):
    """Copy a model, with its weights, to what Keras makes of it: float32, its own layers and its own AdamW."""
    plain = {
        fast.FusedBatchNormalization: tf.keras.layers.BatchNormalization,
        fast.FusedNormalization: tf.keras.layers.Normalization,
    }

    def replace(layer):
        config = layer.get_config() | {"dtype": "float32"}
        return plain[type(layer)].from_config(config) if type(layer) in plain else None

    return compile_plain(surgery.copy_model(model, "keras", "float32", replace), learning_rate)


def compile_plain(model, learning_rate=1e-3):
    """Compile a model as most notebooks do."""
    optimizer = tf.keras.optimizers.AdamW(learning_rate, weight_decay=1e-4)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    return model
