"""Saving: models as ``.keras`` files that are complete or not there, and as ONNX for programs without Keras."""

import io
import json
import os
import tempfile
import time
import warnings
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import layers

from helpers.archives import open_archive, open_arrays, read_member
from helpers.files import name_failed_writes, read_reason, replace_atomically
from helpers.training import _silent_start_up, tf
from helpers.training.checking import ABOUT, ARRAYS, CONFIG, METADATA, check_inputs, check_model, limit_weights
from helpers.training.fast import FUSED_LAYERS, list_layers, predict_probabilities
from helpers.training.surgery import copy_model

_BATCH = 64  # images that measure_forms predicts at once


def save_model(model, path, about=None, arrays=None, check=None):
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
    check : function ``keras.Model -> None``, optional
        Gets the model that was loaded; if it raises an error, nothing is saved.

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
        members[ABOUT] = json.dumps(about, default=_simplify, allow_nan=False, ensure_ascii=False, indent=1)
    if arrays:
        np.savez(buffer := io.BytesIO(), allow_pickle=False, **arrays)  # which writes no time either
        members[ARRAYS] = buffer.getvalue()
    with replace_atomically(path) as unfinished:
        _write(model, unfinished, members)
        loaded = load_model(unfinished)
        if check is not None:
            check(loaded)
    return path


def _write(model, path, members):
    """Write a model and some more members to a file."""
    model.save(path)
    members = _read_written(path) | members
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # without the time of writing


def _read_written(path):
    """Read the members that Keras has written: a dict, without what differs when the same model is saved again.

    Those are the time, and addresses in memory that stand for objects that are used in several places.
    """
    with zipfile.ZipFile(_find_archive(path)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    numbers = {}

    def number_shared(value):
        if "shared_object_id" in value:
            value["shared_object_id"] = numbers.setdefault(value["shared_object_id"], 1 + len(numbers))
        return value

    metadata = json.loads(members[METADATA])
    metadata.pop("date_saved", None)
    config = json.loads(members[CONFIG], object_hook=number_shared)
    return members | {METADATA: json.dumps(metadata), CONFIG: json.dumps(config)}


def read_about(path):
    """Read what `save_model` was told about a model: a dict, empty if it was told nothing.

    A missing file is a FileNotFoundError, one that is no Keras model or damaged a ValueError.
    """
    about = _read_member(path, ABOUT, json.loads)
    if not isinstance(about, dict):
        raise ValueError(f"{path}: {ABOUT} in it is a {type(about).__name__}; expected an object.")
    return about


def read_arrays(path):
    """Read the arrays that `save_model` kept with a model: a dict, empty if there are none. Errors as `read_about`."""
    return _read_member(path, ARRAYS, _parse_arrays)


def _parse_arrays(content):
    with open_arrays(io.BytesIO(content)) as arrays:
        return dict(arrays)


def _read_member(path, name, parse):
    path = _find_archive(path)
    try:
        with open(path, "rb") as file, open_archive(file) as archive:
            archive.getinfo(CONFIG)  # which every Keras model has
            return parse(read_member(archive, name)) if name in archive.namelist() else {}
    except Exception as error:  # a damaged archive fails in many ways inside zipfile, zlib and NumPy
        raise ValueError(f"{path}: this is no .keras model, or it is damaged: {read_reason(error)}") from error


def load_model(path):
    """Load a model that `save_model` wrote, ready to predict and to be trained further.

    It may come from others: see `helpers.training.checking` for what is refused before Keras reads it. A missing file
    is a FileNotFoundError, one that is no Keras model, too large, or would run code of its own a ValueError.
    """
    path = _find_archive(path)
    try:
        with limit_weights(check_model(path)):
            model = keras.models.load_model(path, custom_objects=FUSED_LAYERS, safe_mode=True)
        check_inputs(model)
    except Exception as error:  # Keras, h5py and zipfile fail in many ways
        raise ValueError(f"{path} cannot be loaded as a model: {read_reason(error)}") from error
    return model


def _find_archive(path):
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a .keras file.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. The notebooks save their models in models/: train one first.")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: this is no .keras model, or it was cut. The notebooks save such models in models/.")
    return path


def _simplify(value):
    """Turn what JSON does not know into what it knows."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} cannot be kept in {ABOUT}: JSON has no {type(value).__name__}.")


def save_onnx(model, path, check_on, tolerance=1e-3):
    """Write a model as an ONNX file that computes in float32, and check that it predicts the same.

    The folder of ``path`` is made. ``check_on`` holds raw pixels (n, height, width, channels) of some images. Return
    the largest difference between a probability of the file in ONNX Runtime and one of the model in float32; if it is
    above ``tolerance``, raise a ValueError and write nothing.
    """
    return _save_exported(model, path, check_on, tolerance, "ONNX", _export_onnx, run_onnx)


def run_onnx(path, pixels):
    """Predict raw pixels (n, height, width, channels) with an ONNX file: float32 array (n, n_classes)."""
    return _open_onnx(path)(pixels)


def measure_forms(model, pixels, folder, name="model", seconds=1.0, tolerance=1e-3):
    """Measure what a model weighs and how fast it predicts as Keras model and in two forms that need no Keras.

    ``<name>.onnx``, for ONNX Runtime, and ``<name>.tflite``, for LiteRT on phones and small computers, are written to
    ``folder`` and stay. Both compute in float32. Each is checked as `save_onnx` does, with the same ValueError.

    Parameters
    ----------
    pixels : array (n, height, width, channels)
        Raw pixels; the first 64 are used, and repeated if there are fewer. None at all is a ValueError.
    seconds : float
        About how long each form is measured, in three turns; in one where a batch takes as long.

    Returns
    -------
    DataFrame
        A row for ``keras`` (predicted by `helpers.training.fast.predict_probabilities`), ``onnx`` and ``litert``:
        ``megabytes`` of the file (10^6 bytes), that of Keras as `save_model` writes it; ``largest_difference`` from a
        probability of the Keras model in float32, which for a Keras model in bfloat16 is its rounding; ``ms_one``,
        milliseconds for one image alone; ``ms_batch``, milliseconds per image in a batch of 64. Times are the shortest
        of all repeats, with all cores of the processor; the forms take turns, so that other work on the computer slows
        all of them.
    """
    if not len(pixels):
        raise ValueError("No pixels to measure with; expected an array of at least one image.")
    folder, images = Path(folder), np.asarray(pixels[:_BATCH])
    onnx, litert = folder / f"{name}.onnx", folder / f"{name}.tflite"
    exact = _compute_in_float32(model)
    rounding = np.abs(predict_probabilities(model, images) - predict_probabilities(exact, images)).max()
    differences = [
        float(rounding),
        save_onnx(exact, onnx, images, tolerance),
        _save_exported(exact, litert, images, tolerance, "LiteRT", _export_litert, _run_litert),
    ]
    with tempfile.TemporaryDirectory() as temporary, name_failed_writes(kept := Path(temporary) / "model.keras"):
        _write(model, kept, {})
        sizes = [path.stat().st_size / 1e6 for path in (kept, onnx, litert)]
    predict_keras = partial(predict_probabilities, model, batch_size=_BATCH)
    times = _measure_in_turn([predict_keras, _open_onnx(onnx), _open_litert(litert)], images, seconds)
    columns = {"megabytes": sizes, "largest_difference": differences, "ms_one": times[0], "ms_batch": times[1]}
    return pd.DataFrame(columns, index=pd.Index(["keras", "onnx", "litert"], name="form"))


def _measure_in_turn(ways, images, seconds, rounds=3):
    """Measure ways to predict: their milliseconds for one image, and per image in a batch of 64 (2, n_ways)."""
    best = np.full((2, len(ways)), np.inf)
    batches = images[:1], np.resize(images, (_BATCH, *images.shape[1:]))
    last = time.perf_counter() + seconds * len(ways)
    for _ in range(rounds):
        for number, predict in enumerate(ways):
            for kind, batch in enumerate(batches):
                end = time.perf_counter() + seconds / rounds / len(batches)
                while (start := time.perf_counter()) < end or best[kind, number] == np.inf:
                    predict(batch)
                    taken = 1e3 * (time.perf_counter() - start) / len(batch)
                    best[kind, number] = min(best[kind, number], taken)
        if time.perf_counter() > last:
            break
    return best


def _save_exported(model, path, check_on, tolerance, form, export, run):
    """Write another form of a model if it predicts the same; return the largest difference."""
    expected = predict_probabilities(_compute_in_float32(model), np.asarray(check_on))
    with replace_atomically(path) as unfinished:
        export(copy_model(model, model.name, "float32", _replace_standardization), unfinished)
        difference = float(np.abs(run(unfinished, check_on) - expected).max())
        if not difference <= tolerance:
            raise ValueError(f"{path}: as {form} {model.name} predicts otherwise, by up to {difference:.2g}.")
    return difference


def _compute_in_float32(model):
    """Copy a model that does not compute in float32: in bfloat16 it rounds a probability by up to 0.02."""
    if all(layer.compute_dtype == "float32" for layer in list_layers(model)):
        return model
    return copy_model(model, model.name, "float32")


def _replace_standardization(layer):
    """Replace standardization by rescaling: the ONNX converter takes the constants of the former for inputs."""
    if not isinstance(layer, layers.Normalization) or layer.input_mean is None:
        return None
    mean, variance = np.ravel(layer.input_mean), np.ravel(layer.input_variance)
    std = np.maximum(np.sqrt(variance), keras.config.epsilon())  # as Keras does
    return layers.Rescaling((1 / std).tolist(), (-mean / std).tolist(), dtype="float32", name=layer.name)


def _export_onnx(model, path):
    named = keras.Model(model.inputs[0], {"probabilities": model.outputs[0]}, name=model.name)
    signature = [keras.InputSpec("float32", (None, *model.input_shape[1:]), name="pixels")]
    os.environ.setdefault("TF2ONNX_CATCH_ERRORS", "FALSE")  # otherwise tf2onnx copies its graph 24 times and more
    with _silent_start_up(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)  # of Keras 3.15
        named.export(path, format="onnx", verbose=False, input_signature=signature, opset_version=18)
    _normalize_onnx(path)


def _normalize_onnx(path):
    """Order the steps in an ONNX file, number the names, and store equal constants once.

    So the same model is the same bytes: the converter takes steps in the order of sets, another one in each process,
    and counts on in names whatever the process has converted or computed before.
    """
    import onnx  # here only: it takes a second to import

    model = onnx.load(path)
    graph, constants = model.graph, {}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    names = {"": ""} | {value.name: value.name for value in (*graph.input, *graph.output)}

    def rename(name):
        if name not in stored:
            return names.setdefault(name, f"value_{len(names)}")
        stored[name].name = ""
        content = stored[name].SerializeToString(deterministic=True)
        constants.setdefault(content, f"constant_{len(constants)}")
        return constants[content]

    makers = {name: number for number, node in enumerate(graph.node) for name in node.output}
    ordered, waiting = {}, [makers[value.name] for value in graph.output]
    while waiting:  # each step after those whose results it takes, in the order in which it takes them
        needed = [makers[name] for name in graph.node[waiting[-1]].input if name in makers]
        needed = [number for number in needed if number not in ordered]
        if needed:
            waiting.append(needed[0])
        else:
            ordered[waiting.pop()] = None
    nodes = [onnx.NodeProto.FromString(graph.node[number].SerializeToString()) for number in ordered]
    del graph.node[:]
    graph.node.extend(nodes)
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    del graph.initializer[:], graph.value_info[:]
    graph.ClearField("doc_string")
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "images"
    for content, name in constants.items():
        graph.initializer.add().ParseFromString(content)
        graph.initializer[-1].name = name
    path.write_bytes(model.SerializeToString(deterministic=True))


def _open_onnx(path):
    import onnxruntime  # here only: not needed to train

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": np.asarray(pixels, "float32")})[0]


def _export_litert(model, path):
    @tf.function(input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), name="pixels")], autograph=False)
    def predict(pixels):
        return model(pixels, training=False)

    with _silent_start_up():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([predict.get_concrete_function()], model)
        converter.experimental_lower_to_saved_model = False  # which takes ``model.export`` 4 to 7 times as long
        path.write_bytes(converter.convert())


def _open_litert(path):
    with _silent_start_up(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated", UserWarning)
        interpreter = tf.lite.Interpreter(str(path), num_threads=os.cpu_count())
        interpreter.allocate_tensors()
    (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()

    def predict(pixels):
        if len(pixels) != interpreter.get_input_details()[0]["shape"][0]:
            interpreter.resize_tensor_input(given["index"], pixels.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], np.asarray(pixels, "float32"))
        interpreter.invoke()
        return interpreter.get_tensor(found["index"])

    return predict


def _run_litert(path, pixels):
    return _open_litert(path)(pixels)
