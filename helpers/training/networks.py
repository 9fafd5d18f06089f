"""Networks: the convolutional network, ResNet18, and the layers that standardize raw pixels for them.

A model takes raw pixels (uint8 or float, 0 to 255), because standardization is part of it, and returns class
probabilities in float32.
"""

import keras
import numpy as np
import pandas as pd
from keras import layers, ops

from helpers.files import read_reason
from helpers.training.fast import FusedBatchNormalization, FusedNormalization


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
    """Build a convolutional network from raw pixels to probabilities: blocks of 3x3 convolutions, each max-pooled.

    The last convolution of a block is pooled before it is normalized and activated, because that leaves a quarter of
    the work.

    Parameters
    ----------
    input_shape : tuple of 3 ints
        Height, width, channels.
    statistics : tuple of 2 arrays of length ``channels``, optional
        Mean and standard deviation of the training pixels on the scale 0 to 255.
    prepare : function ``tensor -> tensor``, optional
        Standardizes raw pixels in another way, instead of by ``statistics``.
    filters : sequence of sequences of ints
        For each block the number of filters of each of its convolutions.
    first_stride : int
        Stride of the first convolution; 2 makes the first block, which takes most of the time, four times cheaper.
    average_pooling : bool
        Whether the last feature maps are averaged over the image before the classifier, for images in which the place
        says nothing. Otherwise they are flattened.
    residual : bool
        Whether the input of each block is added to its output (He et al. 2016), after average pooling to the same size
        and a 1x1 convolution to the same number of maps.
    dropout : float
        Share of features dropped before the classifier during training.
    """
    inputs = x = layers.Input(input_shape, name="pixels")
    x = (prepare or standardization_layer(statistics))(x)
    for block, filters_of_block in enumerate(filters, 1):
        before, stride = x, first_stride if block == 1 else 1
        for number, n_filters in enumerate(filters_of_block, 1):
            prefix, strides = f"block{block}_{number}", stride if number == 1 else 1
            x = layers.Conv2D(n_filters, 3, strides, "same", use_bias=not batch_norm, name=f"{prefix}_conv")(x)
            is_last = number == len(filters_of_block)
            if is_last:
                x = layers.MaxPooling2D(2, padding="same", name=f"block{block}_pool")(x)
            if batch_norm:
                x = FusedBatchNormalization(momentum=0.95, name=f"{prefix}_norm")(x)
            if is_last and residual:
                before = layers.AveragePooling2D(2 * stride, padding="same", name=f"block{block}_residual_pool")(before)
                before = layers.Conv2D(n_filters, 1, use_bias=not batch_norm, name=f"block{block}_residual_conv")(
                    before
                )
                if batch_norm:
                    before = FusedBatchNormalization(momentum=0.95, name=f"block{block}_residual_norm")(before)
                x = layers.Add(name=f"block{block}_add")([x, before])
            x = layers.ReLU(name=f"{prefix}_relu")(x)
    x = (layers.GlobalAveragePooling2D if average_pooling else layers.Flatten)(name="features")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    outputs = layers.Dense(n_classes, activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, outputs, name=name)


def standardization_layer(statistics):
    """Make the layer that subtracts a mean and divides by a standard deviation, each an array of length channels."""
    mean, std = (np.asarray(values, "float64") for values in statistics)
    return FusedNormalization(mean=mean, variance=std**2, dtype="float32", name="standardization")


def standardize_cells(pixels, size, threshold):
    """Crop images of single cells to their middle, and standardize the colours of each, as part of a network.

    ``pixels`` is a keras tensor (n, height, width, 3), 0 to 255; the result is float32 (n, size, size, 3), each channel
    with mean 0 and a standard deviation of about 1 over the cell. The cell is every pixel that has a channel above
    ``threshold``, `helpers.data.cells.BACKGROUND_LEVEL`: loose parts are included and dark holes left out. The
    background becomes 0.
    """
    margins = [((length - size) // 2, (length - size + 1) // 2) for length in pixels.shape[1:3]]
    cropped = layers.Cropping2D(margins, dtype="float32", name="crop")(pixels)
    cell = ops.cast(ops.max(cropped, axis=-1, keepdims=True) > threshold, "float32")
    count = ops.sum(cell, axis=(1, 2), keepdims=True) + 1  # one more, for images without a cell
    centred = (cropped - ops.sum(cropped * cell, axis=(1, 2), keepdims=True) / count) * cell
    variance = ops.sum(ops.square(centred), axis=(1, 2), keepdims=True) / count
    return centred / ops.sqrt(variance + 1)


def build_resnet18(input_shape, n_classes, prepare, weights=None, dropout=0.3, blocks=2, filters=64):
    """Build ResNet18 (He et al. 2016) from raw pixels to probabilities, with a dropout before its classifier.

    After a 7x7 convolution and a max-pool come four stacks of two basic blocks. A basic block adds its input to the
    output of two 3x3 convolutions. The first block of the second to fourth stacks halves the size and doubles the
    number of maps; there the input passes a 1x1 convolution.

    Parameters
    ----------
    input_shape : tuple of 3 ints
        Height, width and 3 channels.
    prepare : function ``tensor -> tensor``
        Standardizes raw pixels.
    weights : Path, optional
        From `helpers.training.transfer.find_weights`; random ones by default. A file with others is a ValueError.
    blocks, filters : int
        Basic blocks in each stack, and filters in the first one. The pretrained weights are for 2 and 64.
    """
    inputs = layers.Input(input_shape, name="pixels")
    x = _add_stacks(prepare(inputs), blocks, filters)
    x = layers.GlobalAveragePooling2D(name="features")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    outputs = layers.Dense(n_classes, activation="softmax", dtype="float32", name="probabilities")(x)
    model = keras.Model(inputs, outputs, name="resnet18")
    if weights is not None:
        for layer in build_resnet18_maps((None, None, 3), weights, blocks).layers[1:]:
            model.get_layer(layer.name).set_weights(layer.get_weights())
    return model


def build_resnet18_maps(input_shape, weights=None, blocks=2):
    """Build ResNet18 without its classifier: from standardized colours to maps (n, h, w, 512); see `build_resnet18`."""
    inputs = layers.Input(input_shape)
    network = keras.Model(inputs, _add_stacks(inputs, blocks), name="resnet18_maps")
    if weights is not None:
        try:
            network.load_weights(weights)
        except Exception as error:  # a damaged file and another network fail in many ways inside h5py and Keras
            reason = read_reason(error)
            raise ValueError(f"{weights} does not hold the weights of ResNet18 ({reason}). Fetch it again.") from error
    return network


def _add_stacks(x, blocks, filters=64):
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = _convolve(x, filters, 7, "conv1", strides=2)
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1_pool")(x)
    for stack in range(4):
        for block in range(blocks):
            x = _add_basic_block(x, filters * 2**stack, stack > 0 and block == 0, f"stack{stack}_block{block}")
    return x


def _add_basic_block(x, filters, halves, name):
    branch, options = x, {"padding": "same"}
    if halves:
        branch, options = _convolve(x, filters, 1, f"{name}_0", strides=2), {"strides": 2}
        # Padded by hand: before an even size "same" would pad on one side only.
        x = layers.ZeroPadding2D(1, name=f"{name}_1_pad")(x)
    x = _convolve(x, filters, 3, f"{name}_1", **options)
    x = layers.Activation("relu", name=f"{name}_1_relu")(x)
    x = _convolve(x, filters, 3, f"{name}_2", padding="same")
    x = layers.Add(name=f"{name}_add")([branch, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


def _convolve(x, filters, kernel_size, prefix, **options):
    """Convolve and normalize."""
    x = layers.Conv2D(filters, kernel_size, use_bias=False, name=f"{prefix}_conv", **options)(x)
    return FusedBatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{prefix}_bn")(x)


def describe_layers(model):
    """List the layers of a model as a DataFrame with one row per layer.

    Its columns are ``layer, kind, output_shape`` (without the batch axis) and the numbers of ``parameters`` and of
    ``trainable`` ones.
    """
    return pd.DataFrame(
        {
            "layer": layer.name,
            "kind": type(layer).__name__,
            "output_shape": tuple(layer.output.shape[1:]),
            "parameters": layer.count_params(),
            "trainable": sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights),
        }
        for layer in model.layers
    )


def build_pixel_statistics(input_shape, name="pixel_statistics"):
    """Build a model from raw pixels to a few statistics of an image, which know no shape and no texture.

    It is made of plain layers and operations, and has no weights. The areas are the whole image, its border (an eighth
    of the height at the top and at the bottom, an eighth of the width on either side, rounded down but at least 1
    pixel) and the middle, which is the rest. For each area the statistics are the mean and the standard deviation of
    each channel, and the shares of dark and of bright pixels: those of which the mean of the channels is in the lowest
    or in the highest quarter of the levels.

    Parameters
    ----------
    input_shape : tuple of 3 ints
        Height, width, channels; at least 3 pixels high and wide, else a ValueError.

    Returns
    -------
    keras.Model with the output ``statistics``, float32 (n, 6 * channels + 6): those of the whole image, of the border
    and of the middle. Means and standard deviations are on the scale 0 to 255.
    """
    height, width, channels = input_shape
    if min(height, width) < 3:
        raise ValueError(f"input_shape={tuple(input_shape)}: expected at least 3 pixels of height and of width.")
    rows, columns = max(height // 8, 1), max(width // 8, 1)
    inputs = layers.Input(input_shape, name="pixels")

    def cut(top, bottom, left, right, name):
        """Cut an area out: its pixels (n, count, channels)."""
        area = layers.Cropping2D(((top, bottom), (left, right)), dtype="float32", name=name)(inputs)
        return ops.reshape(area, (-1, area.shape[1] * area.shape[2], channels))

    border = [
        cut(0, height - rows, 0, 0, "top"),
        cut(height - rows, 0, 0, 0, "bottom"),
        cut(rows, rows, 0, width - columns, "left"),
        cut(rows, rows, width - columns, 0, "right"),
    ]
    areas = [cut(0, 0, 0, 0, "whole"), ops.concatenate(border, axis=1), cut(rows, rows, columns, columns, "middle")]
    statistics = []
    for area in areas:
        grey = ops.mean(area, axis=-1)
        shares = [ops.mean(ops.cast(chosen, "float32"), axis=1) for chosen in (grey < 64.0, grey >= 192.0)]
        statistics += [ops.mean(area, axis=1), ops.std(area, axis=1), ops.stack(shares, axis=1)]
    return keras.Model(inputs, ops.concatenate(statistics, axis=1), name=name)


def build_simple_model(input_shape, kernel, bias, name="simple_model"):
    """Build a logistic regression on the statistics of `build_pixel_statistics`, from raw pixels to probabilities.

    It is a network like any other: it can be saved, exported and trained further. ``kernel``
    (6 * channels + 6, n_classes) and ``bias`` (n_classes,) are those of
    `helpers.evaluation.baselines.regression_to_dense`.
    """
    statistics = build_pixel_statistics(input_shape)
    classifier = layers.Dense(len(bias), activation="softmax", dtype="float32", name="probabilities")
    model = keras.Model(statistics.input, classifier(statistics.output), name=name)
    classifier.set_weights([kernel, bias])
    return model
