"""Drawing: what the samples have in common. Colours are levels from 0 to 255, shares lie between 0 and 1."""

import numpy as np
from PIL import Image
from scipy.special import expit


def make_grid(height, width):
    """Make the coordinates y and x of all pixels, from -1 to 1."""
    return np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]


def turn(x, y, angle, stretch=1):
    """Turn coordinates by an angle in radians, then stretch x and shrink y."""
    return (x * np.cos(angle) - y * np.sin(angle)) * stretch, (x * np.sin(angle) + y * np.cos(angle)) / stretch


def mix(image, other, share):
    """Cover an image with another one, or with a colour, by a share at each point."""
    return image + share[..., None] * (other - image)


def draw_ellipse(x, y, wide, high, blur):
    """Draw a blurred ellipse, 1 inside and 0 outside."""
    return expit((1 - np.sqrt((x / wide) ** 2 + (y / high) ** 2)) / blur * 2)


def draw_spot(x, y, center, radius):
    """Draw a round spot, 1 in its middle and 0 far from it."""
    return np.exp(-(((x - center[0]) ** 2 + (y - center[1]) ** 2) / radius**2))


def draw_waves(x, y, frequency, rng, count=5, spread=1.6, bent=False):
    """Draw a smooth random field of so many waves, with mean 0 and standard deviation about 1.

    ``bent`` says that x and y do not grow evenly along rows and columns, which takes longer.
    """
    waves, phases = frequency * rng.normal(0, 1, (count, 2)), rng.uniform(0, 2 * np.pi, count)
    if not bent:
        return add_waves(x, y, waves, phases) / spread
    return sum(np.cos(a * x + b * y + phase) for (a, b), phase in zip(waves, phases, strict=True)) / spread


def add_waves(x, y, waves, phases):
    """Add up cos(a x + b y + phase) of all waves (a, b); x and y grow evenly along rows and columns.

    A wave is then a row times a column of complex numbers, so that a few hundred cosines are enough.
    """
    down = np.exp(1j * (waves @ [x[:, 0] - x[0, 0], y[:, 0] - y[0, 0]]))
    across = np.exp(1j * (waves @ [x[0], y[0]] + phases[:, None]))
    return np.einsum("ki,kj->ij", down, across).real


def make_image(levels):
    """Make an image of levels, cut off below 0 and above 255."""
    return Image.fromarray(np.clip(levels, 0, 255).astype("uint8"))


def save(image, path, **options):
    """Save an image, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
