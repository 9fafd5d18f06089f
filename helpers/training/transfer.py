"""Transfer learning: a network trained on ImageNet, first as a frozen extractor of features, then fine-tuned.

The batch normalizations of the base network are folded into its convolutions, which makes it faster. They stay in
inference mode, also while fine-tuning, because the statistics of small batches would spoil those of ImageNet.
"""

import warnings
from dataclasses import dataclass

import keras
from keras import layers, ops

from helpers.files import read_reason
from helpers.training.fast import predict_views
from helpers.training.surgery import fold_batch_normalization


@dataclass(frozen=True)
class Base:
    """A network trained on ImageNet, as ``keras.applications`` has it."""

    application: str  # its name there
    weights_file: str  # without the classifier
    options: dict  # what ``application`` is called with
    scale: float  # with ``offset`` brings pixels from 0 to 255 to its own range
    offset: float
    source: str

    def build(self, input_shape, weights):
        """Build it without its classifier, for colour images with pixels in its own range."""
        application = getattr(keras.applications, self.application)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
            return application(input_shape=input_shape, include_top=False, weights=weights, **self.options)


def _mobilenet(alpha):
    file = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5"
    return Base("MobileNetV2", file, {"alpha": alpha}, 1 / 127.5, -1, "MobileNetV2 (Sandler et al. 2018)")


BASES = {
    "mobilenet_v2_0.35": _mobilenet(0.35),
    "mobilenet_v2_1.0": _mobilenet(1.0),
    "efficientnet_v2_b0": Base(
        "EfficientNetV2B0", "efficientnetv2-b0_notop.h5", {}, 1, 0, "EfficientNetV2-B0 (Tan and Le 2021)"
    ),
}


def find_weights(data_dir, base="mobilenet_v2_0.35"):
    """Find the ImageNet weights of a base network, a key of `BASES`: in ``data_dir/weights/``, else from Keras.

    Return the weights for `build_feature_extractor`: a file, "imagenet", or None for random ones, as always if
    ``data_dir`` is None; and a sentence about them, to be shown, which warns of random ones. An unknown base is a
    ValueError.
    """
    network = _get_base(base)
    warning = "⚠️ **Warning: random weights.** The base network has learnt nothing: this is no transfer learning."
    if data_dir is None:
        return None, f"{warning} A run on the sample does without the ImageNet weights."
    local = data_dir / "weights" / network.weights_file
    if local.is_file():
        return str(local), f"{network.source}: ImageNet weights from `weights/{local.name}`."
    try:
        network.build((224, 224, 3), "imagenet")  # Keras keeps the file in its own cache
    except Exception as error:  # whatever network, server or disk may come up with
        message = read_reason(error)
        return None, (
            f"{warning} Keras could not download the weights ({message}). "
            f"Put `{local.name}` into the folder `weights/` in `DATA_DIR`."
        )
    return "imagenet", f"{network.source}: ImageNet weights from Keras."


def build_feature_extractor(input_shape, weights, base="mobilenet_v2_0.35", until=None, prepare=None):
    """Build a base network from raw pixels to features (n, n_features) averaged over the image.

    It has no classifier, and its batch normalizations are folded as far as they can be.

    Parameters
    ----------
    input_shape : tuple of 3 ints
        Height, width and channels. The channel of grey images is repeated three times.
    weights : str or None
        From `find_weights`, for the same ``base``.
    until : str, optional
        Name of the last layer of the base network to keep, such as ``block_5_add`` of MobileNetV2; all by default. An
        unknown name is a ValueError, as is an unknown base.
    prepare : function ``tensor -> tensor``, optional
        Changes raw pixels (n, height, width, channels) before the base network gets them; its result may have another
        height and width, and is from 0 to 255 too.
    """
    source = _get_base(base)

    def prepare_for_base(pixels):
        if prepare is not None:
            pixels = prepare(pixels)
        if (source.scale, source.offset) != (1, 0):
            pixels = layers.Rescaling(source.scale, offset=source.offset, name="to_range_of_base")(pixels)
        return layers.Concatenate(name="grey_to_colour")([pixels] * 3) if input_shape[-1] == 1 else pixels

    network = source.build(prepare_for_base(layers.Input(input_shape)).shape[1:], weights)
    if until is not None:
        network = keras.Model(network.input, network.get_layer(until).output, name=network.name)
    folded = fold_batch_normalization(network, prepare_for_base, input_shape)
    features = layers.GlobalAveragePooling2D(name="features")(folded.output)
    return keras.Model(folded.input, features, name=base.replace(".", "_"))


def to_pixel_range(standardized, size):
    """Bring standardized images to the range of pixels and to another size: keras tensor (n, size, size, 3).

    0 becomes 128, and 1, about a standard deviation, 50 levels; values outside 0 to 255 are clipped.
    """
    enlarged = layers.Resizing(size, size, dtype="float32", name="resize")(standardized)
    return ops.clip(128 + 50 * enlarged, 0, 255)


def compute_features(extractor, pixels, rows=None, views=1):
    """Compute the features of images once, so that a classifier on top can be trained in seconds.

    ``pixels, rows, views`` are as for `helpers.training.fast.predict_probabilities`; more views make more training
    images. The result is a float32 array (views * m, n_features): all images in the first view, then all in the second.
    """
    outputs = predict_views(extractor, pixels, rows, views)
    return outputs.reshape(-1, outputs.shape[-1])


def build_head(features, n_classes, dropout=0.3):
    """Build the small classifier on top: standardized features, dropout, one dense layer.

    ``features`` (n, n_features) are those of the training images, for the statistics.
    """
    inputs = layers.Input(features.shape[1:], name="features_in")
    mean, variance = features.mean(axis=0, dtype="float64"), features.var(axis=0, dtype="float64").clip(1e-4)
    x = layers.Normalization(mean=mean, variance=variance, dtype="float32", name="feature_scaling")(inputs)
    x = layers.Dropout(dropout, name="dropout")(x)
    outputs = layers.Dense(n_classes, activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, outputs, name="head")


def _get_base(name):
    if name not in BASES:
        raise ValueError(f"No base network is called {name!r}. Known: {', '.join(BASES)}.")
    return BASES[name]
