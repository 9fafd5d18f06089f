"""Transfer learning: features of a frozen MobileNetV2, a step of fine-tuning, an epoch of the head."""

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common import N_CLASSES, compare, compute_rate, draw_pixels, measure_in_turn
from benchmarks.networks import compile_as_fit, compile_plain, list_precisions
from helpers.training import fast, fit, surgery, tf, transfer

SHAPE = (160, 160, 3)
NAMES = {
    "efficientnet_lite0": "EfficientNet-Lite0",
    "mobilenet_v2_0.35": "MobileNetV2 0.35",
    "mobilenet_v2_1.0": "MobileNetV2 1.0",
}
KERAS = "plain Keras"


def build_both(base, tiny):
    """Build a base network with the same weights: this project's extractor, and Keras's with averaged features.

    Both take raw pixels, in float32, in which the notebooks keep it.
    """
    fast.set_precision("float32")
    shape = (64, 64, 3) if tiny else SHAPE
    about = transfer.BASES[base]
    with tempfile.TemporaryDirectory() as folder:
        if about.weights_file:
            weights = str(Path(folder) / "base.weights.h5")
            about.build(shape, None).save_weights(weights)
        else:
            weights = "imagenet"
        maps = about.build(shape, weights)
        extractor = transfer.build_feature_extractor(shape, weights, base)
    inputs = tf.keras.layers.Input(shape)
    x = maps(tf.keras.layers.Rescaling(about.scale, about.offset)(inputs), training=False)
    return extractor, maps, tf.keras.Model(inputs, tf.keras.layers.GlobalAveragePooling2D()(x))


def measure_features(base, rounds=7, tiny=False):
    """Compare `helpers.training.transfer.compute_features` with Keras's ``predict``."""
    extractor, _, plain = build_both(base, tiny)
    count = 16 if tiny else 256
    images = draw_pixels(count, extractor.input_shape[1:])[0].astype("uint8")
    works = {
        "ours, folded": partial(transfer.compute_features, extractor, images),
        KERAS: partial(plain.predict, images, verbose=0),
    }
    features = [work() for work in works.values()]
    difference = float(np.abs(features[0] - features[1]).max() / np.abs(features[1]).max())
    measured = measure_in_turn({way: partial(compute_rate, work, count) for way, work in works.items()}, rounds)
    note = f"{format_shape(extractor)}, random weights; the largest difference is {difference:.1g} of the range"
    return [compare(f"features, {NAMES[base]}", "ours, folded", KERAS, measured, difference=difference, note=note)]


def measure_step(base, rounds=7, tiny=False):
    """Compare a step of fine-tuning all layers with one as the guides of Keras have it."""
    extractor, maps, features = build_both(base, tiny)
    images, labels = draw_pixels(8 if tiny else 32, extractor.input_shape[1:])
    joined = surgery.join(extractor, transfer.build_head(np.zeros((1, extractor.output_shape[-1])), N_CLASSES))
    surgery.unfreeze_from(joined, joined.layers[0].name)
    maps.trainable = True
    plain = compile_plain(add_classifier(features), 1e-5)
    tuned = compile_as_fit(fast.fuse(joined), 1e-5)
    models = {"ours, folded": tuned, KERAS: plain}
    works = {way: partial(model.train_on_batch, images, labels) for way, model in models.items()}
    with fast.computing_maps_in(tuned, list_precisions()[-1]):  # as long as it is traced
        for work in works.values():
            work(), work()
    ways = {way: partial(compute_rate, work, len(images), 1 if tiny else 4) for way, work in works.items()}
    measured = measure_in_turn(ways, rounds)
    note = f"{format_shape(extractor)}, batches of {len(images)}"
    return [compare(f"fine-tuning of all layers, {NAMES[base]}", "ours, folded", KERAS, measured, note=note)]


def measure_head(base, rounds=5, tiny=False):
    """Compare an epoch of the head on features computed once with an epoch through the frozen base."""
    extractor, maps, through_base = build_both(base, tiny)
    count, batch_size = (32, 8) if tiny else (512, 32)
    images, labels = draw_pixels(count, extractor.input_shape[1:])
    images = images.astype("uint8")
    start = time.perf_counter()
    features = transfer.compute_features(extractor, images)
    once = time.perf_counter() - start
    head = compile_as_fit(transfer.build_head(features, N_CLASSES))
    maps.trainable = False
    plain = compile_plain(add_classifier(through_base))
    steps = count // batch_size

    def train_head():
        head.fit(
            fit.make_batches((features, labels), fit.Recipe(1, batch_size), 0, range(steps)), shuffle=False, verbose=0
        )

    works = {
        "ours, features kept": train_head,
        KERAS: partial(plain.fit, images, labels, batch_size=batch_size, verbose=0),
    }
    for work in works.values():
        work()  # tracing
    measured = measure_in_turn({way: partial(compute_rate, work, count) for way, work in works.items()}, rounds)
    note = f"{format_shape(extractor)}; the features take {once:.3g} s more, once for {count} images"
    return [compare(f"epoch of the head, {NAMES[base]}", "ours, features kept", KERAS, measured, note=note)]


def add_classifier(features):
    """Add dropout and a dense layer, as the guides of Keras do."""
    x = tf.keras.layers.Dropout(0.3)(features.output)
    return tf.keras.Model(features.input, tf.keras.layers.Dense(N_CLASSES, "softmax")(x))


def format_shape(model):
    """Format the shape of a model's input, such as 160x160x3."""
    return "x".join(map(str, model.input_shape[1:]))


ROWS = {
    f"transfer-{subject}-{base}": partial(measure, base)
    for subject, measure in (("features", measure_features), ("step", measure_step), ("head", measure_head))
    for base in NAMES
}
