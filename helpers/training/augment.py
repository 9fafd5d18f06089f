"""Augmentation: written as an ``ImageDataGenerator``, run on whole batches.

Keras runs an ``ImageDataGenerator`` image by image through SciPy. Here its settings are drawn for a whole batch at
once, and OpenCV rotates, shifts, shears and zooms in one bilinear resampling.

An *augmenter* is any function ``augment(images, rng)`` that takes images of shape (n, height, width, channels) with
values from 0 to 255 and a NumPy random generator, and returns float32 images of the same shape.
"""

import warnings

import cv2
import numpy as np

from helpers.training import tf

ImageDataGenerator = tf.keras.preprocessing.image.ImageDataGenerator

_BATCH = 64
_INTERPOLATION = {0: cv2.INTER_NEAREST, 1: cv2.INTER_LINEAR}
_BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "nearest": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT,
}  # no "wrap": in Keras and SciPy the first row lies upon the last one, in OpenCV beside it


def make_augmenter(generator):
    """Make an augmenter that runs the settings of an ``ImageDataGenerator`` on whole batches.

    With ``preprocessing_function``, ``zca_whitening``, an ``interpolation_order`` above 1, the ``fill_mode`` "wrap" or
    channels first, Keras runs the generator image by image, and a warning says so.

    Examples
    --------
    >>> augment = make_augmenter(ImageDataGenerator(rotation_range=10, horizontal_flip=True))
    >>> augment(np.zeros((2, 28, 28, 1), "uint8"), np.random.default_rng(0)).shape
    (2, 28, 28, 1)
    """
    obstacles = {
        "preprocessing_function": generator.preprocessing_function is not None,
        "zca_whitening": generator.zca_whitening,
        f"interpolation_order={generator.interpolation_order}": generator.interpolation_order not in _INTERPOLATION,
        f"fill_mode={generator.fill_mode!r}": generator.fill_mode not in _BORDERS,
        "data_format='channels_first'": generator.data_format != "channels_last",
    }
    if any(obstacles.values()):
        warnings.warn(
            f"{', '.join(name for name in obstacles if obstacles[name])} cannot be run on whole batches: "
            "ImageDataGenerator is run image by image, which is several times slower.",
            stacklevel=2,
        )
        return lambda images, rng: _augment_one_by_one(images, generator, rng)

    def augment(images, rng):
        size = images.shape[1:3]
        parameters = turn_about_centre(draw_parameters(generator, len(images), size, rng), size)
        return _standardize(apply_parameters(images, parameters, generator), generator)

    return augment


def draw_parameters(generator, count, size, rng):
    """Draw the random transforms of ``count`` images of a size (height, width), as ``ImageDataGenerator`` draws them.

    ``ty``, which moves images up and down, is drawn from ``height_shift_range``, and ``tx`` from ``width_shift_range``,
    as Keras documents them. Keras itself exchanges the two (keras-team/keras#17398).

    Returns
    -------
    dict of arrays of length ``count``, under the names of ``ImageDataGenerator.get_random_transform``: ``theta``
    and ``shear`` in degrees, ``tx`` and ``ty`` in pixels, the factors ``zx`` and ``zy``, the booleans
    ``flip_horizontal`` and ``flip_vertical``; and ``channel_shift_intensity`` and ``brightness``, None when unused.
    """
    g = generator
    channel_shift, brightness = g.channel_shift_range, g.brightness_range
    zx, zy = rng.uniform(*g.zoom_range, (2, count))
    return {
        "theta": rng.uniform(-g.rotation_range, g.rotation_range, count),
        "tx": _draw_shift(g.width_shift_range, size[1], count, rng),
        "ty": _draw_shift(g.height_shift_range, size[0], count, rng),
        "shear": rng.uniform(-g.shear_range, g.shear_range, count),
        "zx": zx,
        "zy": zy,
        "flip_horizontal": (rng.random(count) < 0.5) & bool(g.horizontal_flip),
        "flip_vertical": (rng.random(count) < 0.5) & bool(g.vertical_flip),
        "channel_shift_intensity": rng.uniform(-channel_shift, channel_shift, count) if channel_shift else None,
        "brightness": rng.uniform(*brightness, count) if brightness is not None else None,
    }


def turn_about_centre(parameters, size):
    """Adjust ``tx`` and ``ty`` so that rotation, shear and zoom act about the centre of images that are not square.

    Keras takes (height, width) for the (x, y) of the centre: an image of 120 x 160 pixels turns about a point 20 pixels
    beside and below it. The adjusted parameters are right here and in ``ImageDataGenerator.apply_transform``.
    """
    away = (size[1] - size[0]) / 2 * np.array([1.0, -1.0])  # from the centre that Keras takes to the right one
    rotation, sheared, zoom = _linear_matrices(parameters)
    moved = away - rotation @ sheared @ zoom @ away
    tx, ty = (rotation.transpose(0, 2, 1) @ moved[..., None])[..., 0].T
    return parameters | {"tx": parameters["tx"] + tx, "ty": parameters["ty"] + ty}


def apply_parameters(images, parameters, generator):
    """Transform images (n, height, width, channels), each by its own parameters from `draw_parameters`, to float32.

    The ``fill_mode``, ``cval`` and ``interpolation_order`` of the generator are used. The result agrees with
    ``ImageDataGenerator.apply_transform`` within 1 grey level of 255 away from the border; with a brightness b within
    1 + b, because Keras rounds down to whole levels before and after.
    """
    images = np.asarray(images, np.float32)
    matrices = _affine_matrices(parameters, images.shape[1:3])
    if not np.allclose(matrices, np.eye(3)):
        images = _resample(images, matrices, generator)
    if parameters["channel_shift_intensity"] is not None:
        low, high = images.min((1, 2, 3), keepdims=True), images.max((1, 2, 3), keepdims=True)
        images = np.clip(images + _per_image(parameters["channel_shift_intensity"]), low, high)
    if parameters["brightness"] is not None:
        images = np.clip(images * _per_image(parameters["brightness"]), 0, 255)
    return images


def transform(images, fill_mode="constant", **parameters):
    """Transform images (n, height, width, channels) by given parameters of `draw_parameters`, to float32.

    Each parameter is a number for all images or an array of length n. ``fill_mode`` says what lies beyond the border:
    "constant" (black), "nearest" or "reflect".

    Examples
    --------
    >>> transform(np.zeros((2, 28, 28, 1)), theta=[10, -10]).shape
    (2, 28, 28, 1)
    """
    if fill_mode not in _BORDERS:
        raise ValueError(f"fill_mode={fill_mode!r}: expected one of {', '.join(_BORDERS)}.")
    generator, size = ImageDataGenerator(fill_mode=fill_mode), images.shape[1:3]
    neutral = draw_parameters(generator, len(images), size, np.random.default_rng(0))
    if unknown := parameters.keys() - neutral.keys():
        raise TypeError(f"No such parameter: {', '.join(sorted(unknown))}. Known: {', '.join(neutral)}.")
    given = {name: np.broadcast_to(value, len(images)) for name, value in parameters.items()}
    return apply_parameters(images, turn_about_centre(neutral | given, size), generator)


def paste_on_canvas(images, canvas, rng):
    """Paste each image at a random place of a larger black canvas and reduce it to its own size by max-pooling.

    ``canvas`` is the side of the canvas in pixels; one smaller than the images is a ValueError. Shape (n, height,
    width, channels) and dtype stay. Max-pooling keeps thin strokes, which averaging would fade. Where the canvas is no
    multiple of the image, the pooling windows overlap by a pixel (adaptive max-pooling).
    """
    count, height, width, channels = images.shape
    if canvas < max(height, width):
        raise ValueError(f"canvas={canvas} is smaller than the images ({height} x {width} pixels).")
    pasted = np.zeros((count, canvas, canvas, channels), images.dtype)
    rows = rng.integers(0, canvas - height + 1, count)[:, None, None] + np.arange(height)[:, None]
    columns = rng.integers(0, canvas - width + 1, count)[:, None, None] + np.arange(width)
    pasted[np.arange(count)[:, None, None], rows, columns] = images
    for axis, length in ((1, height), (2, width)):
        edges = np.arange(length + 1) * canvas
        first, last = edges[:-1] // length, (edges[1:] - 1) // length  # of each window
        steps = range((last - first).max() + 1)
        pasted = np.max([pasted.take(np.minimum(first + step, last), axis) for step in steps], axis=0)
    return pasted


def make_exposure_augmenter(*, gamma=0.0, contrast=0.0, brightness=0.0, sharpness=0.0, noise=0.0):
    """Make an augmenter that changes images as another exposure, detector or processing would.

    Each change is drawn for each image, from nothing to as much as the parameter says, up or down. Levels stay from 0
    to 255. A negative parameter and a contrast of 1 or more are a ValueError.

    Parameters
    ----------
    gamma : float
        The exponent of the tone curve is drawn from exp(-gamma) to exp(gamma), uniformly in its logarithm.
    contrast : float below 1
        Distances from the mean level of an image are multiplied by 1 - contrast to 1 + contrast.
    brightness : float
        Levels are shifted, by at most this share of the range of 255.
    sharpness : float
        Drawn from -sharpness to sharpness: this share of the difference between the image and a blurred one, over 5 x 5
        pixels, is added.
    noise : float
        The noise added to each pixel has a standard deviation drawn from 0 to this, in grey levels.
    """
    if min(gamma, brightness, sharpness, noise) < 0 or not 0 <= contrast < 1:
        raise ValueError("Expected no negative values, and a contrast below 1.")

    def expose(images, rng):
        count = len(images)
        images = np.asarray(images, np.float32)
        if gamma:
            images = 255 * (np.maximum(images, 0) / 255) ** _per_image(np.exp(rng.uniform(-gamma, gamma, count)))
        if contrast:
            mean = images.mean((1, 2, 3), keepdims=True)
            images = mean + (images - mean) * _per_image(rng.uniform(1 - contrast, 1 + contrast, count))
        if brightness:
            images = images + _per_image(255 * rng.uniform(-brightness, brightness, count))
        if sharpness:
            blurred = tf.nn.avg_pool2d(tf.nn.avg_pool2d(images, 3, 1, "SAME"), 3, 1, "SAME").numpy()
            images = images + (images - blurred) * _per_image(rng.uniform(-sharpness, sharpness, count))
        if noise:
            images = images + rng.standard_normal(images.shape, np.float32) * _per_image(rng.uniform(0, noise, count))
        return np.clip(images, 0, 255)

    return expose


def keep_background(augmenter, threshold):
    """Keep an augmenter that moves nothing from changing the background of images of single cells on black.

    Pixels are background where no channel is above ``threshold``; they become 0, and the others at least
    ``threshold + 1``.
    """

    def augment(images, rng):
        is_cell = images.max(axis=-1, keepdims=True) > threshold
        return np.where(is_cell, np.maximum(augmenter(images, rng), threshold + 1), 0).astype(np.float32)

    return augment


def chain_augmenters(*augmenters):
    """Make an augmenter that runs several one after the other."""

    def augment(images, rng):
        images = np.asarray(images, np.float32)
        for augmenter in augmenters:
            images = augmenter(images, rng)
        return images

    return augment


def augment_images(augmenter, images, rows=None, seed=42, copies=1):
    """Augment images once and for all, such as validation images that are to represent another place.

    ``images`` is a uint8 array (n, height, width, channels), which may be memory-mapped, and ``rows`` (m,) the images
    to use, all by default. The result has the shape (copies * m, height, width, channels): the first copy of all
    images, then the second, and so on.
    """
    rows = np.tile(np.arange(len(images)) if rows is None else rows, copies)
    augmented = np.empty((len(rows), *images.shape[1:]), np.uint8)
    for number, start in enumerate(range(0, len(rows), _BATCH)):
        chunk = slice(start, start + _BATCH)
        augmented[chunk] = augmenter(images[rows[chunk]], np.random.default_rng([seed, number])).round()
    return augmented


def mix_augmenters(augmenters, probabilities=None):
    """Make an augmenter that gives each image to one of several augmenters, drawn at random.

    An augmenter may be None, which leaves an image as it is. The probabilities sum to 1; they are equal by default.
    """

    def augment(images, rng):
        chosen = rng.choice(len(augmenters), len(images), p=probabilities)
        mixed = np.array(images, np.float32)
        for number, augmenter in enumerate(augmenters):
            rows = chosen == number
            if augmenter is not None and rows.any():
                mixed[rows] = augmenter(images[rows], rng)
        return mixed

    return augment


def _augment_one_by_one(images, generator, rng):
    """Run the generator itself; its draws come from NumPy's global state, which is put back afterwards."""
    state = np.random.get_state()
    np.random.seed(rng.integers(2**32))
    try:
        images = np.asarray(images, np.float32)
        return np.float32([generator.standardize(generator.random_transform(image)) for image in images])
    finally:
        np.random.set_state(state)


def _draw_shift(shift_range, length, count, rng):
    """Draw shifts in pixels: a float is a range, an int n means the whole pixels below n, a list its members."""
    if np.ndim(shift_range) or isinstance(shift_range, int | np.integer):
        if not np.any(shift_range):
            return np.zeros(count)
        shift = rng.choice(shift_range, count) * rng.choice([-1.0, 1.0], count)
    else:
        shift = rng.uniform(-shift_range, shift_range, count)
    return shift * length if np.max(shift_range) < 1 else shift


def _linear_matrices(parameters):
    """Compute, for each image, the 2x2 matrices of rotation, shear and zoom."""
    theta, shear = np.deg2rad(parameters["theta"]), np.deg2rad(parameters["shear"])
    zero, one = np.zeros(len(theta)), np.ones(len(theta))
    rotation = [[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]]
    sheared = [[one, -np.sin(shear)], [zero, np.cos(shear)]]
    zoom = [[parameters["zx"], zero], [zero, parameters["zy"]]]
    return [np.ascontiguousarray(np.moveaxis(matrix, -1, 0)) for matrix in (rotation, sheared, zoom)]


def _affine_matrices(parameters, size):
    """Compute, for each image, the matrix from output (x, y, 1) to input, where x is the column and y the row."""
    rotation, sheared, zoom = _linear_matrices(parameters)
    linear = rotation @ sheared @ zoom
    shift = np.stack([parameters["tx"], parameters["ty"]], -1)[..., None]
    centre = np.array(size)[:, None] / 2 - 0.5  # (height, width) for (x, y), as in Keras: see turn_about_centre
    matrices = np.tile(np.eye(3), (len(linear), 1, 1))
    matrices[:, :2, :2] = linear
    matrices[:, :2, 2:] = centre + rotation @ shift - linear @ centre

    # A flip comes after the resampling: output (x, y) reads from the mirrored place.
    for axis, name in enumerate(("flip_horizontal", "flip_vertical")):
        mirror = np.eye(3)
        mirror[axis, axis], mirror[axis, 2] = -1, size[1 - axis] - 1
        matrices = np.where(parameters[name][:, None, None], matrices @ mirror, matrices)
    return matrices


def _resample(images, matrices, generator):
    """Resample each image once through its matrix."""
    images = np.ascontiguousarray(images)
    height, width, channels = images.shape[1:]
    if channels not in (1, 3, 4):  # of images with other numbers OpenCV rounds the places to 1/32 of a pixel
        return np.concatenate([_resample(images[..., [i]], matrices, generator) for i in range(channels)], axis=-1)
    resampled = np.empty_like(images)
    flags = cv2.WARP_INVERSE_MAP | _INTERPOLATION[generator.interpolation_order]
    border = {"borderMode": _BORDERS[generator.fill_mode], "borderValue": (float(generator.cval),) * 4}
    for image, matrix, target in zip(images, matrices[:, :2], resampled, strict=True):
        cv2.warpAffine(image, matrix, (width, height), target, flags, **border)
    return resampled


def _standardize(images, generator):
    """Apply the rescaling and standardization settings, in ImageDataGenerator's order."""
    if generator.rescale:
        images = images * np.float32(generator.rescale)
    if generator.samplewise_center:
        images = images - images.mean((1, 2, 3), keepdims=True)
    if generator.samplewise_std_normalization:
        images = images / (images.std((1, 2, 3), keepdims=True) + 1e-6)
    if generator.featurewise_center:  # which featurewise_std_normalization includes
        if generator.mean is None:
            raise ValueError("featurewise_* settings need statistics: call generator.fit(training_images) first.")
        images = images - np.asarray(generator.mean, np.float32)
        if generator.featurewise_std_normalization:
            images = images / (np.asarray(generator.std, np.float32) + 1e-6)
    return images


def _per_image(values):
    return np.asarray(values, np.float32)[:, None, None, None]
