"""MNIST: the small digits of scikit-learn in MNIST's form."""

import numpy as np
from PIL import Image


def draw(data_set, folder):
    """Bring the 1,797 real digits of scikit-learn (8x8) to MNIST's form and store them like ``mnist.npz``.

    The last fifth becomes the test set, in the order of the file: its neighbours may be by the same hand, and
    shuffling would put them on both sides.
    """
    from sklearn.datasets import load_digits  # here only: not needed for real images

    digits = load_digits()
    images = np.stack([_bring_to_mnist_form(image) for image in digits.images])
    labels = digits.target.astype("uint8")
    (x_train, x_test), (y_train, y_test) = (np.split(array, [round(0.8 * len(labels))]) for array in (images, labels))
    np.savez_compressed(folder / "mnist.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def _bring_to_mnist_form(digit):
    """Scale a digit into a 20x20 box, keeping its proportions, and centre its mass in 28x28 (LeCun et al. 1998)."""
    inked = np.argwhere(digit > 0)
    (top, left), (bottom, right) = inked.min(0), inked.max(0) + 1
    cropped = Image.fromarray((digit[top:bottom, left:right] * (255 / 16)).astype("uint8"))
    scale = 20 / max(cropped.size)
    width, height = (max(1, round(side * scale)) for side in cropped.size)
    box = np.asarray(cropped.resize((width, height), Image.Resampling.BICUBIC), "float64")
    box = box * (255 / box.max())

    rows, columns = np.indices(box.shape)
    row = np.clip(round(13.5 - np.average(rows, weights=box)), 0, 28 - height)
    column = np.clip(round(13.5 - np.average(columns, weights=box)), 0, 28 - width)
    canvas = np.zeros((28, 28), "uint8")
    canvas[row : row + height, column : column + width] = box.round()
    return canvas
