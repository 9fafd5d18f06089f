"""Explanations: where in an image a model looks."""

import numpy as np
import pandas as pd

_PIXELS_AT_ONCE = 2**18  # all maps of a network are kept for these: about 1 kB a pixel in EfficientNet-Lite0


def compute_grad_cam(model, images, class_indices, layer=None, size=None):
    """Compute where in each image the evidence for a class lies, by Grad-CAM (Selvaraju et al. 2017).

    Parameters
    ----------
    model : keras.Model
        A functional model from raw pixels (n, height, width, channels) to probabilities (n, n_classes), without nested
        models, whose last layer is dense; else a ValueError. The score before its softmax is explained, because its
        gradient does not vanish where the model is sure.
    images, class_indices : array (n, height, width, channels), and the class to explain for each image
    layer : str, optional
        Name of a layer with a feature map as output; by default the last one.
    size : tuple of 2 ints, optional
        Height and width of the result, by default those of the images. Where the model crops them first, the result
        belongs to the crop.

    Returns
    -------
    float32 array (n, height, width) from 0 to 1: the share of the strongest evidence in the image; zeros where nothing
    speaks for the class.
    """
    import keras
    import tensorflow as tf

    *inner, last = (layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer))
    shapes = {layer.name: getattr(layer.output, "shape", ()) for layer in inner}
    maps = [name for name, shape in shapes.items() if len(shape) == 4 and shape[1] and shape[1] * shape[2] > 1]
    name = layer or next(reversed(maps), None)
    if name not in maps or any(hasattr(layer, "layers") for layer in inner):
        raise ValueError(
            f"{model.name} has no layer {name!r} with a map of features among {', '.join(maps) or 'its layers'}. "
            "Layers of a nested model cannot be reached: build the model flat, as helpers.training.transfer does."
        )
    if not isinstance(last, keras.layers.Dense):
        raise ValueError(f"The last layer of {model.name} is {type(last).__name__}; expected a Dense one.")
    # The scores come from the output without its softmax: a layer that two models share has several inputs.
    both = keras.Model(model.input, [model.get_layer(name).output, model.output])

    def explain(batch, codes):
        batch = tf.constant(np.asarray(batch, "float32"))
        with tf.GradientTape() as tape:
            tape.watch(batch)  # so that the features are recorded even where no layer is trainable
            activation, last.activation = last.activation, keras.activations.linear
            try:
                features, scores = both(batch, training=False)
            finally:
                last.activation = activation
            score = tf.gather(scores, codes, axis=1, batch_dims=1)
        gradients = tf.cast(tape.gradient(score, features), tf.float32)
        weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
        evidence = tf.nn.relu(tf.reduce_sum(weights * tf.cast(features, tf.float32), axis=-1, keepdims=True))
        return tf.image.resize(evidence, size or images.shape[1:3])[..., 0].numpy()

    step = max(1, _PIXELS_AT_ONCE // int(np.prod(images.shape[1:3])))
    parts = [slice(start, start + step) for start in range(0, max(len(images), 1), step)]
    evidence = np.concatenate([explain(images[part], np.asarray(class_indices)[part]) for part in parts])
    strongest = evidence.max(axis=(1, 2), keepdims=True)
    return np.divide(evidence, strongest, out=np.zeros_like(evidence), where=strongest > 0)


def render_feature_maps(model, image, layer, count=8):
    """Show what a layer of a functional model makes of an image (height, width, channels): its most varied maps.

    Return a uint8 array (at most ``count``, map height, map width, 1): each map from its smallest value, black, to its
    largest.
    """
    import keras

    outputs = {inner.name: inner.output for inner in model.layers}
    if layer not in outputs or len(outputs[layer].shape) != 4:
        raise ValueError(f"{model.name} has no layer {layer!r} with a map of features. Layers: {', '.join(outputs)}.")
    maps = keras.Model(model.input, outputs[layer])(np.asarray(image, "float32")[None], training=False)
    maps = np.moveaxis(keras.ops.convert_to_numpy(keras.ops.cast(maps, "float32"))[0], -1, 0)
    maps = maps[np.argsort(-maps.std(axis=(1, 2)), kind="stable")[:count]]
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    return (255 * (maps - low) / np.maximum(high - low, 1e-6)).round().astype("uint8")[..., None]


def cover_border(images, share, level):
    """Cover the border of images (n, height, width, channels), to see what a model makes of the middle alone.

    The cover reaches in from each side by a ``share`` of it, from 0 to 0.5, which leaves nothing; an array (n,) has a
    share for each image. The ``level`` of the cover is the same for all images, because their own mean would tell
    something about what is covered. Return a float32 array.
    """
    return np.where(_find_middle(images.shape, share), images, np.float32(level)).astype("float32", copy=False)


def cover_middle(images, share, level):
    """Cover all but the border of images: the counterpart of `cover_border`, with its parameters."""
    return np.where(_find_middle(images.shape, share), np.float32(level), images).astype("float32", copy=False)


def _find_middle(shape, share):
    """Return which pixels of images of this shape do not lie in the border: bool (height, width, 1), or n of these."""
    shares = np.asarray(share, "float64")[..., None]
    if not ((shares >= 0) & (shares <= 0.5)).all():
        raise ValueError(f"share={share}: expected 0 to 0.5 of the side.")
    rows, columns = (np.minimum(range(side), range(side)[::-1]) >= np.floor(shares * side + 0.5) for side in shape[1:3])
    return rows[..., :, None, None] & columns[..., None, :, None]


def find_foreground(images, background=None):
    """Estimate where in each image the object lies: what differs in colour from the border.

    Otsu's threshold (1979) of the distance to the background colour divides the pixels; the largest connected part that
    is far from it is the object, and its holes are filled. This is an estimate and no outline drawn by a person: it
    fails where the object reaches the border, has the colour of the background, or lies beside something that stands
    out more. Of 24 drawn images each it outlined, judged by eye, the cell in all 24 of C-NMC, the lesion in 19 of
    HAM10000 and 11 of the ISIC collection, where dark corners mislead it, and the whole leaf in 8 of PlantVillage,
    where shadows do; of chest X-rays it finds the body, not the lungs.

    Parameters
    ----------
    images : array (n, height, width, channels)
    background : sequence of float, one per channel, optional
        The colour of the background, on the scale of the images; by default the median of the border of each image,
        which is a twentieth of each side wide.

    Returns
    -------
    bool array (n, height, width), all False for an image of one colour.
    """
    import cv2
    from scipy.ndimage import binary_fill_holes

    border = ~_find_middle(images.shape, 0.05)[..., 0]
    border[[0, -1]] = border[:, [0, -1]] = True
    masks = np.zeros(images.shape[:3], bool)
    for mask, image in zip(masks, images, strict=True):
        pixels = image.astype("float32")
        colour = np.median(pixels[border], axis=0) if background is None else np.asarray(background, "float32")
        distance = np.sqrt(np.square(pixels - colour).sum(axis=-1))
        if np.ptp(distance) < 1e-6:
            continue
        levels = (255 * distance / distance.max()).round().astype("uint8")
        _, far = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(far)
        largest = 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
        mask[:] = binary_fill_holes(parts == largest)
    return masks


def measure_evidence(heatmaps, masks):
    """Measure which share of the evidence for a class lies inside a mask, such as that of the lesion or the lungs.

    Parameters
    ----------
    heatmaps : array (n, height, width), at least 0, of `compute_grad_cam`
    masks : bool array (n, mask height, mask width) of the same images
        Where its size is another one, each pixel of the heatmap counts by the share of it that the mask covers.

    Returns
    -------
    DataFrame with a row per image: ``inside``, the share of the evidence inside the mask; ``area``, the share of the
    image that the mask covers; and ``ratio``, their quotient: above 1 the model looks at the mask more than at the
    rest. ``inside`` and ``ratio`` are NaN where there is no evidence, or the mask covers nothing or everything.

    Raises
    ------
    ValueError
        Their number differs, or a heatmap has negative values or NaN.
    """
    import cv2

    heatmaps, masks = np.asarray(heatmaps, "float32"), np.asarray(masks, bool)
    if len(heatmaps) != len(masks) or not (heatmaps >= 0).all():
        raise ValueError(
            f"Found {len(heatmaps)} heatmaps from {heatmaps.min(initial=np.inf)} and {len(masks)} masks: expected one "
            "mask for each heatmap, and no negative evidence."
        )
    rows = []
    for heatmap, mask in zip(heatmaps, masks, strict=True):
        share = cv2.resize(mask.astype("float32"), heatmap.shape[::-1], interpolation=cv2.INTER_AREA)
        total, area = heatmap.sum(dtype="float64"), mask.mean()
        measurable = total > 0 and 0 < area < 1
        inside = (heatmap * share).sum(dtype="float64") / total if measurable else np.nan
        rows.append({"inside": inside, "area": area, "ratio": inside / area if measurable else np.nan})
    return pd.DataFrame(rows, columns=["inside", "area", "ratio"])


def summarize_evidence(table, kinds):
    """Average the table of `measure_evidence` over the images of each kind, such as right, wrong and foreign ones.

    ``kinds`` is a sequence with the kind of each row. Return a DataFrame with the index ``kind``, in the order in which
    they come, and the columns ``inside, area, ratio`` and ``images``, the number of images that could be measured, to
    which the means belong.
    """
    measured = table.where(table["ratio"].notna()).groupby(np.asarray(kinds), sort=False)
    return measured.mean().assign(images=measured["ratio"].count()).rename_axis("kind")
