"""The networks that the notebooks write out in plain Keras layers are those of `build_cnn`, in a fast form."""

import ast
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import keras
import nbformat
import numpy as np
import pytest
from keras import layers

from helpers.training.fast import fuse, set_precision, set_seed
from helpers.training.networks import build_cnn, standardize_cells

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CLASSES = ("a", "b", "c")
MEAN, STD = np.array([90.0, 120, 140]), np.array([40.0, 50, 60])
FILTERS = ((4, 6), (8,), (10, 12))
COLOR, GREY = (40, 32, 3), (28, 28, 1)
AVERAGED = {"filters": FILTERS, "average_pooling": True, "dropout": 0.4}

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def take_functions(notebook, names, variables):
    """Execute the functions of a notebook, with what they find there under their names."""
    cells = nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", as_version=4).cells
    trees = [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]
    functions = [node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    chosen = [function for function in functions if function.name in names]
    assert [function.name for function in chosen] == names
    found = {"keras": keras, "layers": layers, "class_names": CLASSES, "DROPOUT": 0.4, "FILTERS": FILTERS} | variables
    exec(compile(ast.Module(chosen, []), notebook, "exec"), found)
    return found


def build_digit_network():
    record = SimpleNamespace(record=SimpleNamespace(image_shape=GREY))
    variables = {"digits": record, "mean": MEAN[:1], "std": STD[:1]}
    return take_functions("01_mnist", ["build_digit_cnn"], variables)["build_digit_cnn"]()


def build_lesion_network():
    variables = {"SIZES": {"s": COLOR}, "statistics": {"s": (MEAN, STD)}, "FILTERS": {"s": FILTERS}}
    found = take_functions("02_ham10000", ["build_lesion_cnn"], variables | {"FIRST_STRIDES": {"s": 2}})
    return found["build_lesion_cnn"]("s")


def build_xray_network():
    found = take_functions("03_chest_xray", ["build_xray_cnn"], {})
    return found["build_xray_cnn"](GREY, (MEAN[:1], STD[:1]), FILTERS)


def build_melanoma_network():
    variables = {"SHAPE": COLOR, "mean": MEAN, "std": STD}
    found = take_functions("04_melanoma", ["build_melanoma_block", "build_melanoma_cnn"], variables)
    return found["build_melanoma_cnn"]()


def build_leaf_network():
    variables = {"SHAPE": COLOR, "mean": MEAN, "std": STD}
    return take_functions("05_plants", ["build_leaf_network"], variables)["build_leaf_network"]()


PREPARE = partial(standardize_cells, size=24, threshold=8)


def build_cell_network():
    variables = {"SHAPE": COLOR, "standardize_cells": PREPARE}
    return take_functions("06_leukemia", ["build_cell_cnn"], variables)["build_cell_cnn"]()


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    ("build", "shape", "settings"),
    [
        (build_digit_network, GREY, {"filters": FILTERS, "dropout": 0.4}),
        (build_lesion_network, COLOR, AVERAGED | {"first_stride": 2}),
        (build_xray_network, GREY, AVERAGED | {"first_stride": 2}),
        (build_melanoma_network, COLOR, AVERAGED | {"first_stride": 2, "residual": True}),
        (build_leaf_network, COLOR, AVERAGED | {"first_stride": 2, "residual": True}),
        (build_cell_network, COLOR, AVERAGED | {"prepare": PREPARE}),
    ],
)
def test_same_seed_same_weights_same_outputs(build, shape, settings, precision):
    policy = keras.config.dtype_policy()
    try:
        set_precision(precision)
        set_seed(3)
        written = fuse(build())
        set_seed(3)
        statistics = None if "prepare" in settings else (MEAN[: shape[2]], STD[: shape[2]])
        packaged = build_cnn(shape, len(CLASSES), statistics, **settings)
    finally:
        keras.config.set_dtype_policy(policy)
    assert len(written.layers) == len(packaged.layers)
    for weight, expected in zip(written.get_weights(), packaged.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape)).astype("float32")
    outputs = packaged(pixels, training=False).numpy()
    np.testing.assert_array_equal(written(pixels, training=False).numpy(), outputs)
    assert np.ptp(outputs, axis=0).max() > 1e-4  # they see the images
