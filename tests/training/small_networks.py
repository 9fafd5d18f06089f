"""Small networks and images, for tests of several modules."""

import keras
import numpy as np

from helpers.data.cells import BACKGROUND_LEVEL
from helpers.training.networks import build_cnn, standardize_cells

STATISTICS = ([100.0, 50.0], [40.0, 20.0])


def make_pixels(count=6, size=(8, 6), channels=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, channels)).astype("uint8")


def make_cnn(seed=0, **settings):
    """Build a small network whose weights and moving statistics are all at random."""
    model = build_cnn((8, 6, 2), 3, STATISTICS, **({"filters": ((4,), (5,))} | settings))
    rng = np.random.default_rng(seed)
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights(
        [rng.normal(0, 0.2, shape) if len(shape) > 1 else rng.uniform(0.5, 1.5, shape) for shape in shapes]
    )
    return model


def make_square_cnn():
    """Build a network on square images for which every view is another image."""
    model = build_cnn((6, 6, 2), 3, STATISTICS, filters=((4,),))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.3, weight.shape) ** (1 + (weight.ndim == 1)) for weight in model.get_weights()])
    return model


def draw_cells(count=6, size=24, seed=0):
    """Draw noise in squares of several sizes on black, each with its own stain."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((count, size, size, 3), "uint8")
    for number in range(count):
        half = 7 + number % 3
        square = pixels[number, size // 2 - half : size // 2 + half, size // 2 - half : size // 2 + half]
        square[:] = rng.normal(rng.uniform(90, 170, 3), rng.uniform(20, 30), square.shape).clip(20, 255)
    return pixels


def build_cell_network(seed=0, size=20):
    keras.utils.set_random_seed(seed)
    prepare = {"prepare": lambda pixels: standardize_cells(pixels, size, BACKGROUND_LEVEL)}
    return build_cnn((24, 24, 3), 2, filters=((8,), (16,)), average_pooling=True, name=f"net{seed}", **prepare)
