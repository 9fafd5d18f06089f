"""Transfer learning: a network trained on ImageNet, first as a frozen extractor of features, then fine-tuned.

The batch normalizations of the base network are folded into its convolutions, which makes it faster. They stay in
inference mode, also while fine-tuning, because the statistics of small batches would spoil those of ImageNet.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
from keras import layers, ops

from helpers.files import InputError, read_reason
from helpers.training.checking import check_weights
from helpers.training.efficientnet_lite import PACKAGE, build_efficientnet_lite0
from helpers.training.fast import predict_views
from helpers.training.networks import build_resnet18_maps
from helpers.training.surgery import fold_batch_normalization


@dataclass(frozen=True)
class Base:
    """A network trained on ImageNet, without its classifier."""

    source: str
    build: Callable  # (input_shape, weights) -> keras.Model, from colours in its own range to maps
    scale: float | tuple = 1  # with ``offset`` brings pixels from 0 to 255 to its own range
    offset: float | tuple = 0
    blue_first: bool = False  # whether it expects blue, green, red
    weights_file: str = ""  # in the folder weights/; without one, installed packages bring the weights
    preset: str = ""  # on Kaggle, where Keras itself does not have the weights

    def download(self):
        """Download the weights into the cache of Keras or kagglehub; return what `build` takes, and where from."""
        if self.preset:
            import kagglehub  # here only: not needed for local files

            return kagglehub.model_download(self.preset, "model.weights.h5"), f"Kaggle's `{self.preset}`"
        self.build((224, 224, 3), "imagenet")
        return "imagenet", "Keras"


def _build_application(name, input_shape, weights, **options):
    """Build a network of ``keras.applications``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
        application = getattr(keras.applications, name)
        return application(input_shape=input_shape, include_top=False, weights=weights, **options)


def _describe_mobilenet(alpha):
    return Base(
        "MobileNetV2 (Sandler et al. 2018)",
        partial(_build_application, "MobileNetV2", alpha=alpha),
        1 / 127.5,
        -1,
        weights_file=f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5",
    )


def _describe_older(name, source):
    """Describe a network that takes blue, green and red less the means of ImageNet."""
    file = f"{name.lower()}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    means = (-123.68, -116.779, -103.939)
    return Base(source, partial(_build_application, name), 1, means, blue_first=True, weights_file=file)


_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for pixels from 0 to 1
BASES = {
    "efficientnet_lite0": Base(
        "EfficientNet-Lite0 (Tan and Le 2019)",
        partial(build_efficientnet_lite0, include_top=False),
        1 / 128,
        -127 / 128,
    ),
    "mobilenet_v2_0.35": _describe_mobilenet(0.35),
    "mobilenet_v2_1.0": _describe_mobilenet(1.0),
    "efficientnet_v2_b0": Base(
        "EfficientNetV2-B0 (Tan and Le 2021)",
        partial(_build_application, "EfficientNetV2B0"),
        weights_file="efficientnetv2-b0_notop.h5",
    ),
    "vgg16": _describe_older("VGG16", "VGG16 (Simonyan and Zisserman 2015)"),
    "resnet50": _describe_older("ResNet50", "ResNet50 (He et al. 2016)"),
    "resnet18": Base(
        "ResNet18 (He et al. 2016)",
        build_resnet18_maps,
        tuple(1 / (255 * std) for std in _STD),
        tuple(-mean / std for mean, std in zip(_MEAN, _STD, strict=True)),
        weights_file="resnet_18_imagenet.weights.h5",
        preset="keras/resnetv1/keras/resnet_18_imagenet/3",
    ),
}


def find_weights(data_dir, base="efficientnet_lite0"):
    """Find the ImageNet weights of a base network, a key of `BASES`: in ``data_dir/weights/``, else from Keras.

    Those of EfficientNet-Lite0 come with the installed packages. If ``data_dir`` is None, others are not looked for.

    Return the weights for `build_feature_extractor`, or None where there are none; and a sentence about them, to be
    shown. An unknown base is a ValueError.
    """
    network = _get_base(base)
    if not network.weights_file:
        return "imagenet", f"{network.source}: ImageNet weights from the package `{PACKAGE}`."
    if data_dir is None:
        return None, f"{network.source} has no weights here: those that need a file are not looked for on the sample."
    local = data_dir / "weights" / network.weights_file
    if local.is_file():
        return str(local), f"{network.source}: ImageNet weights from `weights/{local.name}`."
    try:
        weights, source = network.download()
    except Exception as error:  # whatever network, server or disk may come up with
        message = read_reason(error)
        renamed = f"the `model.weights.h5` of Kaggle's `{network.preset}` as " if network.preset else ""
        return None, (
            f"{network.source} has no weights here: they could not be downloaded ({message}). To use them, put "
            f"{renamed}`{local.name}` into the folder `weights/` in `DATA_DIR`."
        )
    return weights, f"{network.source}: ImageNet weights from {source}."


def build_feature_extractor(input_shape, weights="imagenet", base="efficientnet_lite0", until=None, prepare=None):
    """Build a base network from raw pixels to features (n, n_features) averaged over the image.

    It has no classifier, and its batch normalizations are folded as far as they can be.

    Parameters
    ----------
    input_shape : tuple of 3 ints
        Height, width and channels. The channel of grey images is repeated three times.
    weights : str or None
        From `find_weights`, for the same ``base``; None for random ones, whose features mean nothing.
    until : str, optional
        Name of the last layer of the base network to keep, such as ``block_5_add`` of MobileNetV2; all by default. An
        unknown name is a ValueError, as is an unknown base. A file of weights that is damaged, or is more than plain
        arrays, is an InputError.
    prepare : function ``tensor -> tensor``, optional
        Changes raw pixels (n, height, width, channels) before the base network gets them; its result may have another
        height and width, and is from 0 to 255 too.
    """
    source = _get_base(base)

    def prepare_for_base(pixels):
        if prepare is not None:
            pixels = prepare(pixels)
        if input_shape[-1] == 1:
            pixels = layers.Concatenate(name="grey_to_colour")([pixels] * 3)
        if (source.scale, source.offset) != (1, 0):
            pixels = layers.Rescaling(source.scale, offset=source.offset, name="to_range_of_base")(pixels)
        return ops.flip(pixels, axis=-1) if source.blue_first else pixels

    if weights not in (None, "imagenet"):
        _check_file(weights)
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
    columns = np.array_split(features, 16, axis=1)  # some at a time: float64 takes twice the memory
    mean = np.concatenate([part.mean(axis=0, dtype="float64") for part in columns])
    variance = np.concatenate([part.var(axis=0, dtype="float64") for part in columns]).clip(1e-4)
    x = layers.Normalization(mean=mean, variance=variance, dtype="float32", name="feature_scaling")(inputs)
    x = layers.Dropout(dropout, name="dropout")(x)
    outputs = layers.Dense(n_classes, activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, outputs, name="head")


def _check_file(weights):
    """Check a file of weights before Keras reads it."""
    try:
        check_weights(weights)
    except Exception as error:  # a damaged file fails in many ways inside h5py
        raise InputError(
            f"{weights} cannot be read as weights ({read_reason(error)}). Fetch it again, or remove it."
        ) from error


def _get_base(name):
    if name not in BASES:
        raise ValueError(f"No base network is called {name!r}. Known: {', '.join(BASES)}.")
    return BASES[name]
