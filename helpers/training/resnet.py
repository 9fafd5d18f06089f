"""ResNet18 (He et al. 2016), its layers named as in KerasHub, so that its pretrained weights fit."""

from pathlib import Path

import keras
from keras import layers

from helpers.training.models import FusedBatchNormalization

_FILTERS = (64, 128, 256, 512)  # of each stack
_PRESET = "keras/resnetv1/keras/resnet_18_imagenet/3"  # on Kaggle
_WEIGHTS_FILE = "resnet_18_imagenet.weights.h5"


def find_resnet18_weights(data_dir):
    """Find the ImageNet weights of ResNet18: in ``data_dir/weights/``, else KerasHub's on Kaggle.

    Parameters
    ----------
    data_dir : Path or None
        None stands for a run that does without the weights.

    Returns
    -------
    weights : Path or None
        For `build_resnet18`; None stands for random weights.
    note : str
        A sentence about it, to be shown.
    """
    if data_dir is None:
        return None, "ResNet18 from scratch: a run on the sample, or in quick mode, does without the ImageNet weights."
    local = data_dir / "weights" / _WEIGHTS_FILE
    if local.is_file():
        return local, f"ResNet18: ImageNet weights from `weights/{local.name}`."
    try:
        import kagglehub  # here only: not needed for local files

        path = Path(kagglehub.model_download(_PRESET, "model.weights.h5"))
    except Exception as error:  # whatever network, server or disk may come up with
        message = str(error).partition("\n")[0] or type(error).__name__
        return None, (
            f"ResNet18 from scratch: its ImageNet weights could not be downloaded ({message}). To use them, put the "
            f"`model.weights.h5` of Kaggle's `{_PRESET}` into the folder `weights/` in `DATA_DIR` as `{local.name}`."
        )
    return path, f"ResNet18: ImageNet weights of KerasHub, from Kaggle's `{_PRESET}`."


def build_resnet18(input_shape, n_classes, prepare, weights=None, dropout=0.3, blocks=2, name="resnet18"):
    """Build ResNet18: a 7x7 convolution, a max-pool, and four stacks of two basic blocks.

    A basic block has two 3x3 convolutions, and what goes in is added to what comes out. The first block of the second
    to fourth stacks halves the size and doubles the number of maps; there what goes in passes a 1x1 convolution.

    Parameters
    ----------
    input_shape : tuple of 3 ints
        Height, width and 3 channels.
    n_classes : int
    prepare : function ``tensor -> tensor``
        What comes before the first convolution: raw pixels, 0 to 255, become about standardized ones.
    weights : Path, optional
        From `find_resnet18_weights`; random ones by default.
    dropout : float
        Share of the 512 features dropped before the classifier during training.
    blocks : int
        Basic blocks in each stack; 2 makes it ResNet18. The pretrained weights are for 2.
    name : str

    Returns
    -------
    keras.Model from raw pixels (n, height, width, 3) to probabilities (n, n_classes) in float32.

    Raises
    ------
    ValueError
        The file is none with the weights of this network; the message names it.
    """
    inputs = layers.Input(input_shape, name="pixels")
    x = _add_stacks(prepare(inputs), blocks)
    x = layers.GlobalAveragePooling2D(name="features")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    outputs = layers.Dense(n_classes, activation="softmax", dtype="float32", name="probabilities")(x)
    model = keras.Model(inputs, outputs, name=name)
    if weights is not None:
        _copy_weights(weights, model, blocks)
    return model


def _copy_weights(path, model, blocks):
    """Copy the weights of a file into all layers but the classifier."""
    inputs = layers.Input((None, None, 3))
    network = keras.Model(inputs, _add_stacks(inputs, blocks))
    try:
        network.load_weights(path)
    except Exception as error:  # a damaged file and another network fail in many ways inside h5py and Keras
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} does not hold the weights of ResNet18 ({reason}). Fetch it again.") from error
    for layer in network.layers:
        if layer.weights:
            model.get_layer(layer.name).set_weights(layer.get_weights())


def _add_stacks(x, blocks):
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = layers.Conv2D(64, 7, strides=2, use_bias=False, name="conv1_conv")(x)
    x = _normalize(x, "conv1_bn")
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1_pool")(x)
    for stack, filters in enumerate(_FILTERS):
        for block in range(blocks):
            halves = stack > 0 and block == 0
            x = _add_basic_block(x, filters, halves, f"stack{stack}_block{block}")
    return x


def _add_basic_block(x, filters, halves, name):
    """Add two convolutions, and what goes into them to what comes out."""
    shortcut = x
    if halves:
        shortcut = layers.Conv2D(filters, 1, strides=2, use_bias=False, name=f"{name}_0_conv")(x)
        shortcut = _normalize(shortcut, f"{name}_0_bn")
        # Padded by hand: before an even size "same" would pad on one side only.
        x = layers.ZeroPadding2D(1, name=f"{name}_1_pad")(x)
    options = {"strides": 2, "padding": "valid"} if halves else {"padding": "same"}
    x = layers.Conv2D(filters, 3, use_bias=False, name=f"{name}_1_conv", **options)(x)
    x = _normalize(x, f"{name}_1_bn")
    x = layers.Activation("relu", name=f"{name}_1_relu")(x)
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_2_conv")(x)
    x = _normalize(x, f"{name}_2_bn")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


def _normalize(x, name):
    return FusedBatchNormalization(epsilon=1e-5, momentum=0.9, name=name)(x)
