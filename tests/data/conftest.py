"""A small ``mnist.npz`` to work on, and what is read from the sample that a module names and makes."""

import os

import numpy as np
import pytest

from helpers.data.catalog import get_data_set
from helpers.data.opening import index_images
from helpers.data.pixels import measure_images


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


@pytest.fixture(scope="session")
def cache_with_samples(tmp_path_factory):
    """Keep the samples of all tests, so that each is drawn once; processes of pytest-xdist share it."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache_with_samples"


# Of one module each, because each has another data set and folder.


@pytest.fixture(scope="module")
def indexed(data_set, folder):
    return index_images(data_set, folder)


@pytest.fixture(scope="module")
def images(indexed):
    return indexed[0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def measured(images, folder, cache):
    return measure_images(images, folder, cache)
