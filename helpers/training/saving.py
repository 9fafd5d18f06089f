"""Saving: models as ``.keras`` files that are complete or not there, and as ONNX for programs without Keras."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
from keras import layers

from helpers.files import read_reason, replace_atomically
from helpers.training import tf
from helpers.training.fast import FUSED_LAYERS
from helpers.training.surgery import copy_model

_ABOUT, _ARRAYS = "about.json", "arrays.npz"  # the members of a saved model that save_model adds


def save_model(model, path, about=None, arrays=None):
    """Save a model as a ``.keras`` file, which is loaded once as a check and is either complete or not there.

    The folder is made, and the path is returned.

    Parameters
    ----------
    about : dict, optional
        What to know to use the model, such as ``class_names``; kept in the file, where Keras ignores it, for
        `read_about`. It holds what JSON can hold, and mappings, NumPy numbers and arrays, which come back as dicts,
        numbers and lists. Anything else is a TypeError.
    arrays : dict of str to arrays, optional
        What is too large for ``about``, kept likewise, for `read_arrays`. The same arrays are the same bytes.

    Raises
    ------
    ValueError
        The name does not end in ``.keras``, ``about`` is no mapping or holds NaN or infinity, or ``arrays`` holds an
        array of objects.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"{path}: the name of a saved model ends in .keras.")
    if about is not None and not isinstance(about, Mapping):
        raise ValueError(f"about is a {type(about).__name__}; expected a dict.")
    members = {}
    if about is not None:
        members[_ABOUT] = json.dumps(about, default=_simplify, allow_nan=False, ensure_ascii=False, indent=1)
    if arrays:
        np.savez(buffer := io.BytesIO(), allow_pickle=False, **arrays)  # which writes no time either
        members[_ARRAYS] = buffer.getvalue()
    with replace_atomically(path) as unfinished:
        model.save(unfinished)
        with zipfile.ZipFile(unfinished, "a") as archive:
            for name, content in members.items():
                archive.writestr(zipfile.ZipInfo(name), content)  # without the time of writing
        load_model(unfinished)
    return path


def read_about(path):
    """Read what `save_model` was told about a model: a dict, empty if it was told nothing.

    A missing file is a FileNotFoundError, one that is no Keras model or damaged a ValueError.
    """
    about = _read_member(path, _ABOUT, json.loads)
    if not isinstance(about, dict):
        raise ValueError(f"{path}: {_ABOUT} in it is a {type(about).__name__}; expected an object.")
    return about


def read_arrays(path):
    """Read the arrays that `save_model` kept with a model: a dict, empty if there are none. Errors as `read_about`."""
    return _read_member(path, _ARRAYS, lambda content: dict(np.load(io.BytesIO(content), allow_pickle=False)))


def _read_member(path, name, parse):
    path = _find_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            archive.getinfo("config.json")  # which every Keras model has
            return parse(archive.read(name)) if name in archive.namelist() else {}
    except Exception as error:  # a damaged archive fails in many ways inside zipfile, zlib and NumPy
        raise ValueError(f"{path}: this is no .keras model, or it is damaged: {error}") from error


def load_model(path):
    """Load a model that `save_model` wrote, ready to predict and to be trained further.

    A missing file is a FileNotFoundError, one that is no Keras model or would run code of its own a ValueError.
    """
    path = _find_archive(path)
    try:
        return keras.models.load_model(path, custom_objects=FUSED_LAYERS)
    except Exception as error:
        reason = read_reason(error)
        raise ValueError(f"{path}: Keras could not load this model: {reason}") from error


def _find_archive(path):
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. The notebooks save their models in models/: train one first.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: this is no .keras model (or it is truncated). Save it again with save_model.")
    return path


def _simplify(value):
    """Turn what JSON does not know into what it knows."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} cannot be kept in {_ABOUT}: JSON has no {type(value).__name__}.")


def save_onnx(model, path, check_on, tolerance=1e-3):
    """Write a model as an ONNX file that computes in float32, and check that it predicts the same.

    The folder of ``path`` is made. ``check_on`` holds raw pixels (n, height, width, channels) of some images. Return
    the largest difference between a probability of the file in ONNX Runtime and one of the model; if it is above
    ``tolerance``, raise a ValueError and write nothing.
    """
    pixels = np.asarray(check_on, "float32")
    expected = model(pixels, training=False).numpy()
    with replace_atomically(path) as unfinished:
        _convert(copy_model(model, model.name, "float32", _replace_standardization), unfinished)
        difference = float(np.abs(run_onnx(unfinished, pixels) - expected).max())
        if not difference <= tolerance:
            raise ValueError(f"{path}: as ONNX {model.name} predicts otherwise, by up to {difference:.2g}.")
    return difference


def run_onnx(path, pixels):
    """Predict raw pixels (n, height, width, channels) with an ONNX file: float32 array (n, n_classes)."""
    import onnxruntime  # here only: not needed to train

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: np.asarray(pixels, "float32")})[0]


def _replace_standardization(layer):
    """Replace standardization by constants, which the converter takes for missing inputs, by rescaling."""
    if not isinstance(layer, layers.Normalization) or layer.input_mean is None:
        return None
    mean, variance = np.ravel(layer.input_mean), np.ravel(layer.input_variance)
    std = np.maximum(np.sqrt(variance), keras.config.epsilon())  # as Keras does
    return layers.Rescaling((1 / std).tolist(), (-mean / std).tolist(), dtype="float32", name=layer.name)


def _convert(model, path):
    import tf2onnx  # here only: it takes a second to import

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="pixels")]

    @tf.function(input_signature=signature)
    def predict(pixels):
        return {"probabilities": model(pixels, training=False)}

    tf2onnx.convert.from_function(predict, signature, opset=18, output_path=str(path))
