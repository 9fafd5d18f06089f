"""A published course project trained its network on a GPU: what an epoch takes here."""

import time

from benchmarks.augmentation import SETTINGS
from benchmarks.common import compare, draw_pixels, measure_in_turn
from benchmarks.networks import compile_plain, make_statistics
from helpers.training import augment, fast, fit, networks, tf

SHAPE, BATCH_SIZE, LEARNING_RATE, FILTERS = (128, 128, 3), 64, 5e-4, (32, 64, 128, 256)
IMAGES, SECONDS_ON_T4 = 11_879, 17  # as published: training images, an epoch on a T4
KERAS, OURS = "Keras as it comes, ImageDataGenerator.flow", "ours, fit_model"


def build_published():
    """Build the network as published: convolution, batch normalization, ReLU, max-pool, four times; a dense layer."""
    layers = tf.keras.layers
    inputs = layers.Input(SHAPE)
    x = layers.Rescaling(1 / 255)(inputs)
    for n_filters in FILTERS:
        x = layers.Conv2D(n_filters, 3, padding="same")(x)
        x = layers.MaxPooling2D(2)(layers.ReLU()(layers.BatchNormalization()(x)))
    return tf.keras.Model(inputs, add_classifier(layers.Flatten()(x)))


def build_ours():
    """Build the same with this project's blocks, which pool first: the same function while no scale is negative."""
    fast.set_precision("auto")
    filters = [[n_filters] for n_filters in FILTERS]
    network = networks.build_cnn(SHAPE, 2, make_statistics(SHAPE), filters=filters, dropout=0)
    return tf.keras.Model(network.input, add_classifier(network.get_layer("features").output))


def add_classifier(x):
    """Add the published classifier."""
    x = tf.keras.layers.Dropout(0.5)(tf.keras.layers.Dense(512, "relu")(x))
    return tf.keras.layers.Dense(2, "softmax", dtype="float32")(x)


def measure_epoch(rounds=5, tiny=False):
    """Compare seconds for the published number of images, scaled from some dozens of steps."""
    steps = 2 if tiny else 30
    images, labels = draw_pixels(steps * BATCH_SIZE, SHAPE, 2)
    validation = images[:BATCH_SIZE].astype("uint8"), labels[:BATCH_SIZE]
    images = images.astype("uint8")
    generator = augment.ImageDataGenerator(**SETTINGS | {"zoom_range": 0.1})
    augmenter = augment.make_augmenter(generator)
    fast.set_precision("float32")
    plain = compile_plain(build_published(), LEARNING_RATE)

    def train_plain():
        start = time.perf_counter()
        plain.fit(generator.flow(images, labels, batch_size=BATCH_SIZE), validation_data=validation, verbose=0)
        return (time.perf_counter() - start) * IMAGES / len(images)

    def train_ours():
        recipe = fit.Recipe(epochs=2, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, augment=augmenter)
        history = fit.fit_model(build_ours(), (images, labels), validation, recipe)
        return history["wall_seconds"].iloc[-1] * IMAGES / len(images)  # of the second epoch: the first one traces

    train_plain()  # tracing
    measured = measure_in_turn({OURS: train_ours, KERAS: train_plain}, rounds)
    measured["published, T4"] = [SECONDS_ON_T4] * rounds
    unit = f"s for {IMAGES:,} images"
    note = f"scaled from {steps} steps of {BATCH_SIZE} images of 128x128x3, with augmentation"
    return [
        compare("epoch of the melanoma CNN, Keras", OURS, KERAS, measured, unit, note=note),
        compare(
            "epoch of the melanoma CNN, GPU", OURS, "published, T4", measured, unit, note=f"{note}; B is published"
        ),
    ]


ROWS = {"melanoma-epoch": measure_epoch}
