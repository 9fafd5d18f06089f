"""Surgery: copies of trained networks that are cut, joined, folded or combined."""

import keras
import numpy as np
from keras import layers, ops

from helpers.training.fast import list_layers, list_views

_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)


def copy_model(model, name, precision=None, replace=None):
    """Copy a functional model with its weights, so that training the copy leaves the model as it is.

    ``precision`` names a Keras dtype policy, such as "float32", for all layers of the copy; by default each keeps its
    own. ``replace(layer)`` gives the layer with the same weights that replaces another one, or None for a copy of it.
    """

    def copy(layer):
        config = layer.get_config()
        if precision and isinstance(layer, layers.Layer):  # functions of keras.ops take no dtype
            config["dtype"] = precision
        return (replace and replace(layer)) or type(layer).from_config(config)

    copied = keras.models.clone_model(model, clone_function=copy, recursive=True)
    copied.set_weights(model.get_weights())
    for layer in list_layers(copied):
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()  # takes over statistics that were learned by `adapt`
    copied.name = name
    return copied


def build_in_temperature(model, temperature, name):
    """Copy a model in float32 with a temperature built in, so that its probabilities are the calibrated ones.

    The scores before the softmax are divided by the temperature, from `helpers.evaluation.calibration.fit_temperature`.
    Where the last layer is not dense, as in a model of `combine_networks`, the logarithms of the probabilities are,
    which is the same; there a single output is a ValueError.
    """
    calibrated = copy_model(model, name, "float32")
    last = calibrated.layers[-1]
    if isinstance(last, layers.Dense):
        last.set_weights([weight / temperature for weight in last.get_weights()])
        return calibrated
    if calibrated.output_shape[-1] == 1:
        raise ValueError(
            f"{model.name} has one output, after {type(last).__name__}; expected a Dense layer at the end."
        )
    logarithm = ops.log(ops.maximum(calibrated.outputs[0], np.finfo("float32").tiny))
    return keras.Model(calibrated.inputs[0], ops.softmax(logarithm / float(temperature)), name=name)


def cut_at(model, layer):
    """Cut a model off after a layer, given by its name; the layers are shared, not copied."""
    return keras.Model(model.input, model.get_layer(layer).output, name=f"{model.name}_until_{layer}")


def expose_features(model):
    """Give a model its features as a second output, computed in the same pass; the layers are shared, not copied.

    The features are the input of the last layer with a kernel, which is the classifier, as a float32 tensor (n, k);
    those of a convolution are averaged over the image. Where the last part with weights is a model, as in that of
    `combine_networks`, they are the features of all models within, side by side, of the first view. Without any such
    layer they are the output itself.
    """
    inputs = layers.Input(batch_shape=model.inputs[0].shape, dtype=model.inputs[0].dtype, name="pixels")
    exposed, found = {}, {}  # models within; layers with a kernel and models, in their order: features

    def call(layer, *arguments, **options):
        if isinstance(layer, keras.Model):
            exposed[layer] = exposed.get(layer) or expose_features(layer)
            outputs, features = exposed[layer](*arguments, **options)
        else:
            outputs, features = layer(*arguments, **options), arguments[0]
        if (hasattr(layer, "kernel") or layer in exposed) and (layer not in found or arguments[0] is inputs):
            found[layer] = features
        return outputs

    functional = keras.Model(model.inputs[0], model.outputs[0])  # also of a sequential one, and not compiled
    output = keras.models.clone_model(functional, inputs, lambda layer: layer, call).output
    last = list(found)[-1:]
    kept = [found[layer] for layer in (exposed if last and last[0] in exposed else last)] or [output]
    kept = [ops.cast(x, "float32") for x in kept]
    kept = [ops.mean(x, axis=list(range(1, len(x.shape) - 1))) if len(x.shape) > 2 else x for x in kept]
    return keras.Model(inputs, [output, kept[0] if len(kept) == 1 else ops.concatenate(kept, axis=-1)], name=model.name)


def combine_networks(networks, name, views=1, temperature=1.0, regression=None, threshold=None, input_shape=None):
    """Combine copies of several networks to one model from raw pixels to probabilities: their average, calibrated.

    Parameters
    ----------
    networks : sequence of keras.Model
        From raw pixels of one shape to probabilities of the same classes. Without any the regression is the model.
    views : {1, 4, 8}
        Test-time augmentation, see `predict_probabilities`.
    temperature : float
        From `helpers.evaluation.calibration.fit_temperature`: the logarithms of the averages are divided by it.
    regression : tuple of 2 floats, optional
        Intercept and weight of a logistic regression of two classes on the area of the cell in pixels, from
        `helpers.evaluation.baselines.get_coefficients`. The geometric mean of its probabilities and the average of the
        networks replaces the average.
    threshold : float, optional
        Pixels belong to the cell where a channel is above it; needed with a regression only.
    input_shape : tuple of 3 ints, optional
        Height, width and channels of the pixels; needed without networks only.

    Raises
    ------
    ValueError
        There is no network, and no regression or no shape of its pixels.
    """
    if not networks and (regression is None or input_shape is None):
        raise ValueError(f"{name}: without networks give a regression and the input_shape of its pixels.")

    def log(probabilities):
        return ops.log(ops.clip(probabilities, 1e-6, 1.0))

    inputs = layers.Input(networks[0].input_shape[1:] if networks else input_shape, name="pixels")
    members = [copy_model(network, f"member_{number}") for number, network in enumerate(networks, 1)]
    outputs = [member(view) for member in members for view in list_views(inputs, views, ops.transpose)]
    logarithms = [log(sum(outputs[1:], outputs[0]) / len(outputs))] if networks else []
    if regression is not None:
        intercept, weight = regression
        area = ops.sum(ops.cast(ops.max(inputs, axis=-1) > threshold, "float32"), axis=(1, 2))
        odds = intercept + weight * area
        logarithms.append(log(ops.stack([ops.sigmoid(-odds), ops.sigmoid(odds)], axis=1)))
    mean = sum(logarithms[1:], logarithms[0]) / len(logarithms)
    return keras.Model(inputs, ops.softmax(mean / float(temperature)), name=name)


def join(extractor, head, name="transfer"):
    """Join extractor and head to one model from raw pixels to probabilities; the layers are shared, not copied."""
    x = extractor.output
    for layer in head.layers[1:]:
        x = layer(x)
    return keras.Model(extractor.input, x, name=name)


def unfreeze_from(model, first):
    """Make the layers from the one called ``first`` on trainable, but no batch normalization; freeze those before it.

    An unknown name is a ValueError.
    """
    names = [layer.name for layer in model.layers]
    if first not in names:
        raise ValueError(f"{model.name} has no layer {first!r}. Layers: {', '.join(names)}.")
    for number, layer in enumerate(model.layers):
        layer.trainable = number >= names.index(first) and not isinstance(layer, layers.BatchNormalization)


def fold_batch_normalization(model, prepare=None, input_shape=None):
    """Copy a network with each batch normalization, in inference mode, folded into the convolution before it.

    The copy computes the same in fewer layers. Paddings that the convolution after them can do by itself, as
    ``padding="same"``, are left to it. Batch normalizations that do not directly follow a convolution are copied and
    frozen.

    Parameters
    ----------
    model : keras.Model
        A functional model with one input, in which each layer is called once.
    prepare : function ``tensor -> tensor``, optional
        What comes before the first layer of the copy. Its input has the shape ``input_shape``, without the batch axis;
        by default that of the model's input.
    """
    inputs = layers.Input(input_shape or model.input_shape[1:], name="pixels")
    first = inputs if prepare is None else prepare(inputs)
    same_size = first.shape == model.input_shape
    producers = {id(layer.output): layer for layer in model.layers if isinstance(layer, _CONVOLUTIONS)}
    consumers = [id(tensor) for layer in model.layers[1:] for tensor in keras.tree.flatten(layer.input)]
    consumers += [id(tensor) for tensor in model.outputs]
    paddings = {id(layer.output): layer for layer in model.layers if isinstance(layer, layers.ZeroPadding2D)}
    folded, padded = {}, {}  # names of layers that are left out: the convolution that does what they did
    for layer in model.layers:
        before, alone = id(layer.input), consumers.count(id(layer.input)) == 1
        if isinstance(layer, layers.BatchNormalization) and before in producers and alone:
            if layer.axis in (-1, 3) and producers[before].activation is keras.activations.linear:
                folded[layer.name] = producers[before]
        elif isinstance(layer, _CONVOLUTIONS) and alone and same_size and _pads_alike(paddings.get(before), layer):
            padded[paddings[before].name] = layer

    def copy(layer):
        changes = {"use_bias": True} if layer in folded.values() else {}
        changes |= {"padding": "same"} if layer in padded.values() else {}
        return type(layer).from_config(layer.get_config() | changes)

    def call(layer, *arguments, **options):
        arguments = keras.tree.map_structure(lambda tensor: first if tensor is inputs else tensor, arguments)
        return arguments[0] if layer.name in folded | padded else layer(*arguments, **options)

    copied = keras.models.clone_model(model, input_tensors=inputs, clone_function=copy, call_function=call)
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    weights |= {layer.name: _fold(layer, model.get_layer(name)) for name, layer in folded.items()}
    for layer in copied.layers:
        if layer.name in weights:
            layer.set_weights(weights[layer.name])
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    return copied


def _pads_alike(padding, convolution):
    """Tell whether a layer adds the same zeros as the convolution after it would as ``padding="same"``."""
    sizes = padding.input.shape[1:3] if padding else (None,)
    if None in sizes or convolution.padding != "valid" or set(convolution.dilation_rate) != {1}:
        return False
    totals = [
        max((-(-size // stride) - 1) * stride + kernel - size, 0)
        for size, kernel, stride in zip(sizes, convolution.kernel_size, convolution.strides, strict=True)
    ]
    return [tuple(added) for added in padding.padding] == [(total // 2, total - total // 2) for total in totals]


def _fold(convolution, normalization):
    """Compute kernel and bias of a convolution that does what both layers did."""
    given = {weight.name: np.asarray(weight, "float64") for weight in normalization.weights}
    scale = given.get("gamma", 1) / np.sqrt(given["moving_variance"] + normalization.epsilon)
    kernel, *bias = convolution.get_weights()
    kernel = kernel * (scale.reshape(kernel.shape[-2:]) if isinstance(convolution, layers.DepthwiseConv2D) else scale)
    bias = given.get("beta", 0) + (sum(bias) - given["moving_mean"]) * scale
    return [kernel.astype("float32"), bias.astype("float32")]
