"""Export: a trained model as an ONNX file, for programs without Keras."""

import keras
import numpy as np
from keras import layers

from helpers.files import replace_atomically
from helpers.training import tf
from helpers.training.models import copy_model

_OPSET = 18


def save_onnx(model, path, check_on, tolerance=1e-3):
    """Write a model as an ONNX file that takes raw pixels, and check that it predicts the same.

    Parameters
    ----------
    model : keras.Model
        From raw pixels (n, height, width, channels) to probabilities.
    path : Path
        Ends in ``.onnx``; its folder is made.
    check_on : array (n, height, width, channels)
        Raw pixels of some images. The file is kept only if no probability differs by more than ``tolerance``.
    tolerance : float

    Returns
    -------
    float: the largest difference between a probability of the file in ONNX Runtime and one of the model.

    Raises
    ------
    ValueError
        The difference is larger than ``tolerance``; nothing was written.

    Notes
    -----
    The file computes in float32, whatever the model does.
    """
    exported = copy_model(model, model.name, "float32", _replace_standardization)
    pixels = np.asarray(check_on, "float32")
    expected = model(pixels, training=False).numpy()
    with replace_atomically(path) as unfinished:
        _convert(exported, unfinished)
        difference = float(np.abs(run_onnx(unfinished, pixels) - expected).max())
        if not difference <= tolerance:
            raise ValueError(f"{path}: as ONNX {model.name} predicts otherwise, by up to {difference:.2g}.")
    return difference


def run_onnx(path, pixels):
    """Predict with an ONNX file in ONNX Runtime.

    Parameters
    ----------
    path : Path
    pixels : array (n, height, width, channels)
        Raw pixels.

    Returns
    -------
    float32 array (n, n_classes)
    """
    import onnxruntime  # here only: not needed to train

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: np.asarray(pixels, "float32")})[0]


def _replace_standardization(layer):
    """Give standardization by constants, which the converter takes for missing inputs, a form that it can read."""
    if not isinstance(layer, layers.Normalization) or layer.input_mean is None:
        return None
    mean, std = np.ravel(layer.input_mean), np.sqrt(np.ravel(layer.input_variance))
    std = np.maximum(std, keras.config.epsilon())  # as Keras does
    return layers.Rescaling((1 / std).tolist(), (-mean / std).tolist(), dtype="float32", name=layer.name)


def _convert(model, path):
    import tf2onnx  # here only: it takes a second to import

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="pixels")]

    @tf.function(input_signature=signature)
    def predict(pixels):
        return {"probabilities": model(pixels, training=False)}

    tf2onnx.convert.from_function(predict, signature, opset=_OPSET, output_path=str(path))
