"""Corruptions: what goes wrong with images in practice, in five published severities.

The names, sets and severities are those of MedMNIST-C (Di Salvo, Doerrich and Ledig 2024, arXiv:2406.17536; package
``medmnistc``, file ``corruptions/registry.py``) for dermatoscopy (DermaMNIST-C), x-ray (PneumoniaMNIST-C) and
microscopy (BloodMNIST-C), and a selection of ImageNet-C (Hendrycks and Dietterich 2019) for photographs and of the code
of MNIST-C (Mu and Gilmer 2019) for digits. ``docs/robustness.md`` lists them and says what differs.

Published lengths are pixels of images of 224 x 224, those of the digits of 28 x 28. They are scaled with the shorter
side of the images. Shares, factors, levels of noise and qualities of JPEG are taken as they are.
"""

import string
from io import BytesIO

import numpy as np
from PIL import Image

SEVERITIES = range(1, 6)

_SIDE = {"digits": 28}  # of the published images, of all others 224
_ZOOM_BLUR = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))  # end and step of the factors
_PUBLISHED = {
    "digits": {
        "gaussian noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot noise": (60, 25, 12, 5, 3),
        "impulse noise": (0.03, 0.06, 0.09, 0.17, 0.27),
        "motion blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "shear": (0.2, 0.4, 0.6, 0.8, 1.0),
        "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg compression": (25, 18, 15, 10, 7),
    },
    "dermatoscopy": {
        "pixelate": (0.7, 0.5, 0.4, 0.3, 0.25),
        "jpeg compression": (30, 20, 15, 10, 7),
        "gaussian noise": (0.04, 0.08, 0.12, 0.18, 0.26),
        "speckle noise": (0.05, 0.15, 0.2, 0.35, 0.45),
        "impulse noise": (0.01, 0.03, 0.06, 0.09, 0.17),
        "shot noise": (60, 25, 18, 10, 5),
        "defocus blur": ((4, 0.1), (5, 0.2), (6, 0.3), (7, 0.4), (8, 0.5)),
        "motion blur": ((10, 5), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom blur": _ZOOM_BLUR,
        "brightness up": (1.1, 1.2, 1.3, 1.4, 1.5),
        "brightness down": (0.9, 0.8, 0.7, 0.6, 0.5),
        "contrast up": (1.1, 1.2, 1.3, 1.4, 1.6),
        "contrast down": (0.8, 0.7, 0.6, 0.5, 0.4),
        "black corner": (1.1, 1.05, 1.0, 0.9, 0.95),  # the last two stand in this order in the publication
        "characters": ((1, 6, 0.14), (2, 7, 0.15), (3, 8, 0.16), (4, 9, 0.17), (6, 10, 0.18)),
    },
    "x-ray": {
        "pixelate": (0.8, 0.7, 0.6, 0.5, 0.4),
        "jpeg compression": (50, 30, 15, 10, 7),
        "gaussian noise": (0.04, 0.05, 0.06, 0.07, 0.08),
        "speckle noise": (0.05, 0.07, 0.1, 0.15, 0.2),
        "impulse noise": (0.005, 0.01, 0.013, 0.017, 0.02),
        "shot noise": (300, 200, 150, 100, 80),
        "gaussian blur": (3, 5, 7, 9, 11),
        "brightness up": (1.1, 1.2, 1.3, 1.4, 1.5),
        "brightness down": (0.9, 0.8, 0.7, 0.6, 0.5),
        "contrast up": (1.1, 1.2, 1.3, 1.4, 1.6),
        "contrast down": (0.9, 0.8, 0.7, 0.6, 0.4),
        "gamma up": (1.1, 1.2, 1.3, 1.4, 1.6),
        "gamma down": (0.9, 0.8, 0.7, 0.6, 0.4),
    },
    "microscopy": {
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg compression": (50, 30, 15, 10, 7),
        "defocus blur": ((2, 0.01), (3, 0.1), (4, 0.1), (5, 0.1), (6, 0.1)),
        "motion blur": ((3, 3), (5, 5), (10, 5), (10, 7), (10, 9)),
        "brightness up": (1.1, 1.2, 1.3, 1.35, 1.4),
        "brightness down": (0.9, 0.8, 0.7, 0.6, 0.5),
        "contrast up": (1.1, 1.15, 1.2, 1.25, 1.3),
        "contrast down": (0.9, 0.8, 0.7, 0.6, 0.5),
        "saturate": (0.05, 0.1, 0.15, 0.17, 0.2),
        "stain deposit": (1, 2, 3, 3, 3),
        "bubble": ((5, 10), (7, 10), (10, 10), (12, 12), (15, 12)),
    },
    "photograph": {
        "gaussian noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot noise": (60, 25, 12, 5, 3),
        "impulse noise": (0.03, 0.06, 0.09, 0.17, 0.27),
        "defocus blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "motion blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom blur": _ZOOM_BLUR,
        "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg compression": (25, 18, 15, 10, 7),
    },
}
KINDS = {kind: tuple(f"{kind}: {name}" for name in table) for kind, table in _PUBLISHED.items()}
MOVEMENTS = ("shift", "zoom out", "rotation")
PARAMETERS = {f"{kind}: {name}": values for kind, table in _PUBLISHED.items() for name, values in table.items()} | {
    "shift": (0.8 / 28, 1.6 / 28, 2.4 / 28, 3.2 / 28, 4 / 28),  # of the side
    "zoom out": (1.4, 1.8, 2.2, 2.6, 3.0),  # side of the canvas / side of the image
    "rotation": (12, 24, 36, 48, 60),  # degrees
}


def corrupt(images, name, severity, seed=0, background=0, first=0):
    """Corrupt images in one way.

    Chance is drawn anew for each image, from ``seed`` and its position, so that it does not depend on the batches. It
    is the same for all severities.

    Parameters
    ----------
    images : uint8 array (n, height, width, 1 or 3)
    name : str
        One of ``KINDS[kind]``, "<kind>: <corruption>", or of ``MOVEMENTS``.
    severity : int from 1 to 5
    background : number or one per channel
        Fills what moving leaves empty.
    first : int
        Position of the first image, where the images are a batch of more.

    Returns
    -------
    uint8 array like ``images``. X-rays are corrupted in colour and turned grey again, as published, so that three
    equal channels stay equal.

    Raises
    ------
    ValueError
        The images are no such array, there is no such corruption or severity, or grey images are to be saturated.

    Examples
    --------
    >>> corrupt(np.full((1, 2, 2, 1), 100, "uint8"), "x-ray: brightness up", 5).ravel().tolist()
    [150, 150, 150, 150]
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        found = f"{images.dtype} array of shape {images.shape}"
        raise ValueError(f"The images are a {found}: expected uint8 and (n, height, width, 1 or 3).")
    if name not in PARAMETERS:
        known = ", ".join([*MOVEMENTS, *(f"KINDS[{kind!r}]" for kind in KINDS)])
        raise ValueError(f"There is no corruption {name!r}: expected one of {known}.")
    if severity not in SEVERITIES:
        raise ValueError(f"There is no severity {severity!r}: expected a whole number from 1 to 5.")
    kind, _, short = name.rpartition(": ")
    if short == "saturate" and images.shape[3] == 1:
        raise ValueError(f"{name!r} needs colour, but the images have 1 channel: leave it out.")
    parameter, alter = PARAMETERS[name][int(severity) - 1], _FUNCTIONS[short]
    scale = min(images.shape[1:3]) / _SIDE.get(kind, 224)
    background = np.broadcast_to(np.asarray(background, "float64"), images.shape[3])
    settings = {"background": background.tolist()} if short in _FILLING else {}
    corrupted = np.empty_like(images)
    for number, image in enumerate(images):
        rng = np.random.default_rng([seed, first + number])
        image = np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)) if kind == "x-ray" else image)
        result = _round(alter(image, parameter, scale, rng, **settings)).reshape(image.shape)
        corrupted[number] = _turn_grey(result) if kind == "x-ray" else result
    return corrupted


def _round(values):
    return values if values.dtype == np.uint8 else np.clip(np.rint(values), 0, 255).astype("uint8")


def _turn_grey(image):
    """Turn an image grey, to (height, width, 1)."""
    import cv2

    return image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]


# Each takes an image, the parameter of the severity, the scale of lengths and a random generator.


def _add_gaussian_noise(image, deviation, scale, rng):
    return image + 255 * deviation * rng.standard_normal(image.shape, "float32")


def _add_speckle_noise(image, deviation, scale, rng):
    return image * (1 + deviation * rng.standard_normal(image.shape, "float32"))


def _add_impulse_noise(image, share, scale, rng):
    """Set a share of the values to 0 or to 255."""
    drawn = rng.random(image.shape, "float32")
    return np.where(drawn < share, np.where(drawn < share / 2, 0, 255), image).astype("uint8")


def _add_shot_noise(image, photons, scale, rng):
    """Count photons, of which a white pixel sends this many on average."""
    return rng.poisson((np.arange(256) * photons / 255)[image]) * (255 / photons)


def _pixelate(image, share, scale, rng):
    picture = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
    small = picture.resize([max(1, int(side * share)) for side in picture.size], Image.Resampling.BOX)
    return np.asarray(small.resize(picture.size, Image.Resampling.BOX))


def _compress(image, quality, scale, rng):
    file = BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _blur_gaussian(image, size, scale, rng):
    """Blur by the Gaussian whose standard deviation OpenCV and torchvision derive from a kernel of this size."""
    import cv2

    return cv2.GaussianBlur(image, (0, 0), (0.15 * size + 0.35) * scale)


def _blur_defocus(image, parameter, scale, rng):
    """Spread each pixel over a disk, whose edge is smoothed."""
    import cv2

    radius, smoothing = np.multiply(parameter, scale)
    steps = np.arange(-int(np.ceil(radius)) - 1, int(np.ceil(radius)) + 2)
    kernel = np.clip(radius + 0.5 - np.hypot(steps, steps[:, None]), 0, 1)
    return cv2.filter2D(image, -1, cv2.GaussianBlur(kernel / kernel.sum(), (3, 3), smoothing))


def _blur_motion(image, parameter, scale, rng):
    """Draw each pixel out to one side, up to 45 degrees from the horizontal, by half a Gaussian, as ImageMagick does.

    The trail is twice the radius long.
    """
    import cv2

    radius, deviation = parameter
    distance = np.linspace(0, 2 * radius, 16 * radius + 1)
    weight = np.exp(-((distance / deviation) ** 2) / 2)
    angle, reach = np.radians(rng.uniform(-45, 45)), int(np.ceil(2 * radius * scale)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    column, row = (reach + scale * distance * part for part in (np.cos(angle), np.sin(angle)))
    left, top = column.astype(int), row.astype(int)
    for right, below in ((0, 0), (0, 1), (1, 0), (1, 1)):  # shared among four pixels, as in bilinear sampling
        near = (1 - abs(left + right - column)) * (1 - abs(top + below - row))
        np.add.at(kernel, (top + below, left + right), weight * near)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def _blur_zoom(image, parameter, scale, rng):
    """Average the image with itself zoomed in about its centre."""
    total, factors = image.astype("float32"), np.arange(1, *parameter)
    for factor in factors:
        total += _warp(image, np.eye(2) / factor).reshape(image.shape)
    return total / (len(factors) + 1)


def _scale_brightness(image, factor, scale, rng):
    return image * np.float32(factor)


def _add_brightness(image, share, scale, rng):
    """Add to the value of HSV, which is the largest channel; hue and saturation stay."""
    value = image.max(axis=2, keepdims=True).astype("float32")
    brighter = np.minimum(value + 255 * share, 255)
    return np.where(value > 0, image * (brighter / np.maximum(value, 1)), brighter)


def _scale_contrast(image, factor, scale, rng):
    """Scale the distance to the mean grey value of the image."""
    mean = np.rint(_turn_grey(image).mean(dtype="float64")).astype("float32")
    return mean + factor * (image - mean)


def _scale_contrast_of_channels(image, factor, scale, rng):
    """Scale the distance to the mean of each channel."""
    mean = image.mean(axis=(0, 1), dtype="float64").astype("float32")
    return mean + factor * (image - mean)


def _correct_gamma(image, gamma, scale, rng):
    return _round(255 * (np.arange(256) / 255) ** gamma)[image]


def _saturate(image, share, scale, rng):
    """Add to the saturation of HSV."""
    import cv2

    colours = cv2.cvtColor(image.astype("float32") / 255, cv2.COLOR_RGB2HSV)
    colours[..., 1] = np.minimum(colours[..., 1] + share, 1)
    return 255 * cv2.cvtColor(colours, cv2.COLOR_HSV2RGB)


def _blacken_corners(image, factor, scale, rng):
    """Blacken what lies outside an ellipse; one of factor 1 touches all four sides."""
    height, width = image.shape[:2]
    y, x = (2 * (np.arange(side) + 0.5) / side - 1 for side in (height, width))
    return image * (np.hypot(x, y[:, None]) <= factor)[..., None]


def _write_characters(image, parameter, scale, rng):
    """Write words in small letters, each in a colour of its own."""
    import cv2

    words, letters, size = parameter
    canvas = _make_canvas(image)
    for _ in range(rng.integers(1, words + 1)):
        word = "".join(rng.choice(list(string.ascii_lowercase), rng.integers(3, letters + 1)))
        place = _draw_place(canvas, rng, 10, 8 * len(word), 10)
        colour = (*rng.integers(0, 256, 3).tolist(), 255)
        cv2.putText(canvas, word, place, cv2.FONT_HERSHEY_DUPLEX, rng.uniform(0.14, size), colour, 1, cv2.LINE_AA)
    return _lay_over(image, canvas)


def _add_bubbles(image, parameter, scale, rng):
    """Add white disks that cover 100 / 255 of what lies below, with an edge of 2 pixels that covers 130 / 255."""
    import cv2

    radius, bubbles = parameter
    canvas = _make_canvas(image)
    for _ in range(rng.integers(7, bubbles + 1)):
        size = int(rng.integers(3, radius + 1))
        place = _draw_place(canvas, rng, size, size, size)
        cv2.circle(canvas, place, size + 2, (130,) * 4, -1)
        cv2.circle(canvas, place, size, (100,) * 4, -1)
    return _lay_over(image, canvas)


def _deposit_stain(image, marks, scale, rng):
    """Deposit black marks with an uneven outline, 8 to 20 pixels in radius."""
    import cv2

    canvas = _make_canvas(image)
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    for _ in range(rng.integers(1, marks + 1)):
        waves = sum(rng.uniform(-0.5, 0.5) / n * np.sin(n * angle + rng.uniform(0, 6)) for n in range(2, 7))
        radius = rng.uniform(8, 20) * (1 + 0.6 * waves)
        outline = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
        outline += _draw_place(canvas, rng, 30, 30, 30)
        cv2.fillPoly(canvas, [np.rint(outline).astype("int32")], (0, 0, 0, 255))
    return _lay_over(image, canvas)


def _make_canvas(image):
    """Make an empty canvas in the proportions of an image, of which the shorter side has the published 224 pixels.

    Its channels are red, green, blue and opacity, the colours already multiplied by the opacity.
    """
    height, width = image.shape[:2]
    ratio = 224 / min(height, width)
    return np.zeros((round(height * ratio), round(width * ratio), 4), "uint8")


def _draw_place(canvas, rng, left, right, margin):
    """Draw a place on a canvas, at least so far from its left, its right, and its upper and lower border."""
    height, width = canvas.shape[:2]
    return int(rng.integers(left, width - right + 1)), int(rng.integers(margin, height - margin + 1))


def _lay_over(image, canvas):
    import cv2

    height, width = image.shape[:2]
    canvas = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    colour = canvas[..., :3] if image.shape[2] == 3 else _turn_grey(np.ascontiguousarray(canvas[..., :3]))
    return image * (1 - canvas[..., 3:] / np.float32(255)) + colour


def _shear(image, angle, scale, rng, background):
    angle *= rng.choice([-1, 1])
    return _warp(image, [[1, -np.sin(angle)], [0, np.cos(angle)]], background=background)


def _shift(image, share, scale, rng, background):
    """Shift in a random direction, by a share of the shorter side."""
    angle = rng.uniform(0, 2 * np.pi)
    offset = share * min(image.shape[:2]) * np.array([np.cos(angle), np.sin(angle)])
    return _warp(image, np.eye(2), offset, background=background)


def _rotate(image, angle, scale, rng, background):
    """Turn by an angle in degrees to a random side."""
    angle = np.radians(angle) * rng.choice([-1, 1])
    return _warp(image, [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], background=background)


def _zoom_out(image, factor, scale, rng, background):
    """Put the image at a random place of a canvas whose sides are so many times as long, seen from farther off."""
    import cv2

    height, width = image.shape[:2]
    size = max(1, round(width / factor)), max(1, round(height / factor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], -1)
    top, left = int(rng.random() * (height - size[1] + 1)), int(rng.random() * (width - size[0] + 1))
    moved = np.empty_like(image)
    moved[:] = _round(np.asarray(background))
    moved[top : top + size[1], left : left + size[0]] = small
    return moved


def _warp(image, matrix, offset=(0, 0), background=None):
    """Warp about the centre: the matrix tells where, before the offset, each pixel comes from.

    Without a background the border is repeated.
    """
    import cv2

    height, width = image.shape[:2]
    border = cv2.BORDER_REPLICATE if background is None else cv2.BORDER_CONSTANT
    centre, matrix = np.array([width - 1, height - 1]) / 2, np.asarray(matrix)
    inverse = np.column_stack([matrix, centre - matrix @ (centre + offset)])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, inverse, (width, height), flags=flags, borderMode=border, borderValue=background)


_FILLING = {"shear": _shear, "shift": _shift, "rotation": _rotate, "zoom out": _zoom_out}
_FUNCTIONS = _FILLING | {
    "gaussian noise": _add_gaussian_noise,
    "speckle noise": _add_speckle_noise,
    "impulse noise": _add_impulse_noise,
    "shot noise": _add_shot_noise,
    "pixelate": _pixelate,
    "jpeg compression": _compress,
    "gaussian blur": _blur_gaussian,
    "defocus blur": _blur_defocus,
    "motion blur": _blur_motion,
    "zoom blur": _blur_zoom,
    "brightness up": _scale_brightness,
    "brightness down": _scale_brightness,
    "brightness": _add_brightness,
    "contrast up": _scale_contrast,
    "contrast down": _scale_contrast,
    "contrast": _scale_contrast_of_channels,
    "gamma up": _correct_gamma,
    "gamma down": _correct_gamma,
    "saturate": _saturate,
    "black corner": _blacken_corners,
    "characters": _write_characters,
    "bubble": _add_bubbles,
    "stain deposit": _deposit_stain,
}
