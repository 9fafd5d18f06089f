"""Checking files of models and weights from others: what they may hold, and how large it is, before Keras reads it.

Keras refuses code in a model by itself (``safe_mode``). Of what it may still find there, such as files that a layer
reads, layers that fill the memory, or links inside of HDF5, only what models of images need is let through.
"""

import inspect
import io
import json
import math
from contextlib import contextmanager
from pathlib import Path

import h5py
import keras

from helpers.archives import MOST_BYTES, open_archive, read_member
from helpers.training import tf

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"  # the members that Keras writes
ABOUT, ARRAYS = "about.json", "arrays.npz"  # those that `helpers.training.saving.save_model` adds
MOST_VALUES = 2**26  # that an image may have in any layer: 64 channels of 1024 x 1024
_MOST_CALLS = 300_000  # of layers, with all that belongs to them: 8 views by 10 networks take 50,000
_DEEPEST = 60  # levels of the description of a model; ours have 13
_SLACK = 2**24  # bytes of weights that a model may have without finding them in its file, such as counters
_MOST_ATTRIBUTE = 2**20  # bytes
_MOST_NAMES = 10_000  # of layers
_MODELS = {
    *(("keras", name) for name in ("Sequential", "Model", "Functional", "DTypePolicy")),
    *(("keras.models", name) for name in ("Sequential", "Model", "Functional")),
    ("keras.src.models.functional", "Functional"),
    ("keras.src.models.sequential", "Sequential"),
    ("keras.src.models.model", "Model"),
}
_LAYERS = set(
    """
    Activation ActivityRegularization Add AdditiveAttention AlphaDropout Attention AutoContrast Average
    AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CenterCrop Concatenate Conv1D
    Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM2D Cropping1D Cropping2D Cropping3D Dense
    DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU EinsumDense Embedding Equalization Flatten GRU GRUCell
    GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention Identity InputLayer
    LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum
    MultiHeadAttention Multiply Normalization PReLU Permute RMSNormalization RandomBrightness RandomContrast RandomCrop
    RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomPerspective RandomRotation
    RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape
    Resizing SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax Solarization SpatialDropout1D
    SpatialDropout2D SpatialDropout3D SpectralNormalization Subtract TimeDistributed UnitNormalization UpSampling1D
    UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """.split()  # noqa: SIM905 - so many are easier to read so
)
_OPERATIONS = set(
    """
    Absolute Add Amax Amin Cast Clip Concatenate Divide Equal Exp ExpandDims Flip GetItem Greater GreaterEqual Less
    LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr Max Maximum Mean Min Minimum Moveaxis Multiply Negative
    NotEqual Power Relu Reshape Rsqrt Sigmoid Softmax Sqrt Square Squeeze Stack Std Subtract Sum Tanh Transpose
    TrueDivide Var Where
    """.split()  # noqa: SIM905 - so many are easier to read so
)
_METRICS = {
    "Accuracy",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "Mean",
    "MeanMetricWrapper",
    "SparseCategoricalAccuracy",
}
_KINDS = {  # modules of which any class will do: none of them reads a file, and their weights are counted
    f"keras.{name}"
    for name in ("initializers", "regularizers", "constraints", "optimizers", "optimizers.schedules", "losses")
}
_FUNCTIONS = {"builtins", *_KINDS, "keras.activations", "keras.metrics"}
_VALUES = {"__keras_tensor__", "__numpy__", "__slice__", "__tensor__", "__ellipsis__"}


def check_model(path):
    """Check a ``.keras`` file; return how many bytes of weights it holds. Raise ValueError if it will not do.

    The message tells why, without the name of the file.
    """
    with open(path, "rb") as file, open_archive(file) as archive:
        names = set(archive.namelist())
        if unknown := names - {CONFIG, METADATA, WEIGHTS, ABOUT, ARRAYS}:
            raise ValueError(f"it holds {min(unknown)!r}, which no model of images needs")
        _check_config(json.loads(read_member(archive, CONFIG)))
        return _check_hdf5(io.BytesIO(read_member(archive, WEIGHTS)))


def check_weights(path):
    """Check a file of weights alone, HDF5, of which older ones list the names of layers; errors as `check_model`."""
    if (size := Path(path).stat().st_size) > MOST_BYTES:
        raise ValueError(f"it has {size:,} bytes; at most {MOST_BYTES:,} are read")
    with open(path, "rb") as file:
        _check_hdf5(file, _MOST_NAMES)


def check_inputs(model):
    """Check that the images that a model takes, and what it makes of them, fit into memory. Errors as `check_model`."""
    for tensor in [*model.inputs, *model.outputs]:
        check_values(tensor.shape)


def check_values(shape):
    """Check how many values an image has that a layer makes; ``shape`` begins with the number of images."""
    if (count := math.prod(length or 1 for length in shape[1:])) > MOST_VALUES:
        raise ValueError(f"it makes {count:,} values of an image; at most {MOST_VALUES:,} are computed")


@contextmanager
def limit_weights(stored):
    """Refuse models with far more weights than ``stored``, the bytes of those in the file, before they are made."""
    most, total = 4 * stored + _SLACK, 0  # an optimizer keeps two more of each

    def create(following, **options):
        nonlocal total
        total += _measure(options["initial_value"])
        if total > most:
            raise ValueError(f"its layers need {total:,} bytes of weights and more; the file holds {stored:,}")
        return following(**options)

    with tf.variable_creator_scope(create):
        yield


def _measure(initial_value):
    """Measure the bytes of a weight by what is to make its first values, without making them."""
    if callable(initial_value):
        variable = inspect.getclosurevars(initial_value).nonlocals.get("self")
        if isinstance(variable, keras.Variable):  # which spares the other way, a millisecond each
            return math.prod(variable.shape) * tf.as_dtype(variable.dtype).size
        with tf.Graph().as_default():
            initial_value = initial_value()
    initial_value = tf.convert_to_tensor(initial_value)
    return initial_value.shape.num_elements() * initial_value.dtype.size


def _check_config(config):
    """Check that the description of a model names only what is known, and is not too deep or too long."""
    waiting, calls = [(config, 0, 1)], 0
    while waiting:
        value, depth, times = waiting.pop()
        if depth > _DEEPEST:
            raise ValueError(f"its {CONFIG} is more than {_DEEPEST} levels deep")
        if isinstance(value, dict) and "class_name" in value:
            _check_class(value)
            if isinstance(nodes := value.get("inbound_nodes"), list):
                times *= max(1, len(nodes))  # a model within a model is computed at each of its places
            calls += times
            if calls > _MOST_CALLS:
                raise ValueError(f"it calls layers and what belongs to them more than {_MOST_CALLS:,} times")
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting += [(child, depth + 1, times) for child in children]


def _check_class(value):
    """Check a class or a function that the description of a model names; what this process has registered is known."""
    module, name, registered = (value.get(key) for key in ("module", "class_name", "registered_name"))
    if isinstance(registered, str) and ">" in registered and keras.saving.get_registered_object(registered):
        return  # by `keras.saving.register_keras_serializable`, and Keras takes that one, whatever the module
    if name == "function":
        known, name = module in _FUNCTIONS, value.get("config")
    elif name in _VALUES:
        return
    else:
        known = (
            (module, name) in _MODELS
            or (module == "keras.layers" and name in _LAYERS)
            or (module == "keras.metrics" and name in _METRICS)
            or (module in _KINDS and str(name)[:1].isupper())
            or (str(module).startswith("keras.src.ops.") and name in _OPERATIONS)
        )
    if not known or registered not in (None, name):
        also = f", registered as {registered!r}" if registered not in (None, name) else ""
        why = (
            "would allow arbitrary code execution"
            if name in ("Lambda", "__lambda__")
            else "is not one of those that are let in"
        )
        raise ValueError(f"it asks for {'.'.join(filter(None, [module, name]))}{also}, which {why}")


def _check_hdf5(file, most_names=1):
    """Check an HDF5 file, given open: plain arrays in groups, and nothing else; return the bytes of its arrays.

    An attribute may hold ``most_names`` texts.
    """
    size = file.seek(0, io.SEEK_END)
    with h5py.File(file, "r") as content:
        waiting, seen, total = [(h5py.h5g.open(content.id, b"/"), "/")], set(), 0
        while waiting:
            place, name = waiting.pop()
            address = h5py.h5o.get_info(place).addr
            if address in seen:
                raise ValueError(f"{name} in its weights is linked twice")
            seen.add(address)
            for number in range(h5py.h5a.get_num_attrs(place)):
                _check_attribute(h5py.h5a.open(place, index=number), name, most_names)
            if isinstance(place, h5py.h5d.DatasetID):
                total += _check_dataset(place, name)
                if total > size:
                    raise ValueError(f"its weights claim {total:,} bytes, but the file has {size:,}")
                continue
            for key in place:
                below = f"{name.rstrip('/')}/{key.decode('utf-8', 'backslashreplace')}"
                if place.links.get_info(key).type != h5py.h5l.TYPE_HARD:
                    raise ValueError(f"{below} in its weights is a link to another place")
                found = h5py.h5o.open(place, key)
                if not isinstance(found, h5py.h5g.GroupID | h5py.h5d.DatasetID):
                    raise ValueError(f"{below} in its weights is neither a group nor an array")
                waiting.append((found, below))
    return total


def _check_attribute(attribute, name, most_names):
    count = math.prod(attribute.shape)
    is_text = h5py.check_string_dtype(attribute.dtype) and count <= most_names
    if count * attribute.dtype.itemsize > _MOST_ATTRIBUTE or (attribute.dtype.hasobject and not is_text):
        raise ValueError(f"{name} in its weights has an attribute that is not read")


def _check_dataset(dataset, name):
    """Check an array, a `h5py.h5d.DatasetID`, and return its bytes."""
    settings = dataset.get_create_plist()
    if settings.get_layout() == h5py.h5d.VIRTUAL or settings.get_external_count():
        raise ValueError(f"{name} in its weights lies in another file")
    if settings.get_nfilters():
        raise ValueError(f"{name} in its weights is compressed")
    claimed = math.prod(dataset.shape) * dataset.dtype.itemsize
    if dataset.dtype.kind not in "biufV" or dataset.dtype.hasobject:
        raise ValueError(f"{name} in its weights has values of the kind {dataset.dtype}, which are no numbers")
    if claimed and claimed > (held := dataset.get_storage_size()):
        raise ValueError(f"{name} in its weights claims {claimed:,} bytes, but holds {held:,}")
    return claimed
