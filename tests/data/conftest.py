"""A small ``mnist.npz`` to work on."""

import numpy as np
import pytest

from helpers.data.catalog import get_data_set


@pytest.fixture
def data_set():
    return get_data_set("mnist")


@pytest.fixture
def arrays():
    """Make random images: 40 for training, 20 for testing, each class alike."""
    rng = np.random.default_rng(7)
    return {
        "x_train": rng.integers(0, 256, (40, 28, 28), "uint8"),
        "y_train": np.tile(np.arange(10, dtype="uint8"), 4),
        "x_test": rng.integers(0, 256, (20, 28, 28), "uint8"),
        "y_test": np.tile(np.arange(10, dtype="uint8"), 2),
    }


@pytest.fixture
def folder(tmp_path, arrays):
    """Write the arrays where `find_data` looks for them: ``<tmp_path>/data/mnist/mnist.npz``."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    np.savez(folder / "mnist.npz", **arrays)
    return folder
