"""Hostile files: each is refused by name, or does no harm; none runs code, fills the memory or touches other files."""

import contextlib
import csv
import io
import json
import os
import pickle
import re
import shlex
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from functools import partial
from html import escape
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from benchmarks.torture import Case
from helpers.data.layouts.common import read_arrays, tell_packed
from helpers.data.layouts.tables import read_metadata
from helpers.files import read_reason

_MOST_MEMORY, _MOST_SECONDS, _MOST_SIGNS = 0.6e9, 60, 1000  # that a case may take, and its message
_HUGE, _BOMB = 4_900_000_000, "would unpack to 4,900,"  # bytes that a bomb unpacks to; why it is refused
_SHAPE, _CLASSES = (8, 8, 3), ["mole", "melanoma"]


class Doors:
    """The doors that files come in by, and one model to make hostile ones of; ``outside`` is what no case may touch."""

    def __init__(self, folder):
        import keras  # here only: it takes seconds

        from helpers.training import saving

        self.folder, self.outside = folder, folder / "outside"
        self.inside = folder / "inside"
        for place in (self.outside, self.inside):
            place.mkdir()
        (self.outside / "secret.txt").write_text("secret")
        _write_array(self.outside / "secret.h5")
        self.marker = self.outside / "code_ran"
        model = keras.Sequential(
            [keras.Input(_SHAPE), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, activation="softmax")]
        )
        path = saving.save_model(model, folder / "good.keras", {"class_names": _CLASSES})
        with zipfile.ZipFile(path) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}
        (images := folder / "images").mkdir()
        for number in range(3):
            Image.fromarray(np.full(_SHAPE, 50 * number, "uint8")).save(images / f"{number}.png")

    def load(self, path):
        """Load a model."""
        from helpers.training import saving

        saving.load_model(path)

    def classify(self, path):
        """Load a model as a classifier does."""
        from helpers.predict.classifier import Classifier

        Classifier(path)

    def about(self, path):
        """Read what a model tells of itself."""
        from helpers.training import saving

        saving.read_about(path)

    def arrays(self, path):
        """Read the arrays beside a model."""
        from helpers.training import saving

        saving.read_arrays(path)

    def predict(self, path, images=None):
        """Run ``python -m helpers.predict``."""
        from helpers.predict import main

        self.run(main, [str(path), str(images or self.folder / "images"), "--out", str(self.inside / "table.csv")])

    def predict_below(self, images):
        """Predict a folder by the good model."""
        self.predict(self.folder / "good.keras", images)

    picture = "<img src=x onerror=alert(1)>.png"  # as whoever hands it in may call it

    def ask(self, path):
        """Ask what a model says of a picture, as on the page `Your own image`."""
        from helpers.app.reader import Reader
        from helpers.app.rendering import render_answer

        answer = Reader(path).read(self.picture, (self.folder / "images" / "1.png").read_bytes())
        (self.inside / "answer.html").write_text(render_answer(answer, is_sample=False))

    def audit(self, folder, *options):
        """Run ``python -m helpers.audit``."""
        from helpers.audit import main

        self.run(main, [str(folder), "--out", str(self.inside / "page.html"), *options])

    def run(self, main, arguments):
        """Run a command line; bad input is a ValueError with its message."""
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()) as told,
        ):
            status = main(arguments)
        if status == 2:
            raise ValueError(told.getvalue().strip())

    def list_models(self, path):
        """List the models of the page `Your own image`; one that is left out is a ValueError."""
        from helpers.app.reader import list_models

        if path not in list_models(path.parent).values():
            raise ValueError(f"{path.name} is left out")

    def extract_features(self, path):
        """Build a base network with a file of weights."""
        from helpers.training.transfer import build_feature_extractor

        build_feature_extractor((32, 32, 3), str(path), "mobilenet_v2_0.35")

    def unpack(self, path):
        """Unpack an archive with the command that is told for it."""
        (target := self.inside / "unpacked").mkdir(exist_ok=True)
        command = shlex.split(tell_packed(path, target).partition("unpack it with ")[2])
        command[0] = sys.executable
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"{path.name}: {done.stderr.strip().splitlines()[-1]}")


def run(short=False):
    """Try all files: a `Case` for each; the short form leaves audits out."""
    with tempfile.TemporaryDirectory() as folder:
        doors = Doors(Path(folder).resolve())
        cases = [*_list_models(doors), *_list_weights(doors), *_list_others(doors)]
        return [_try(doors, *case) for case in cases if not (short and case[3] == doors.audit)]


HARMLESS = "harmless"


def _try(doors, what, name, make, door, why, check=None):
    """Make a file and try it: refused in one line that names it and says why, or `HARMLESS`; with nothing else done."""
    path = doors.inside / name
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    before, memory, start = _describe(doors.outside), _forget_peak(), time.perf_counter()
    try:
        door(path)
        happened, fault = "read; nothing happened", "" if why == HARMLESS else "not refused"
    except (ValueError, OSError) as error:
        text = str(error).replace(str(doors.folder), "…")
        good = name in text and "\n" not in text and len(text) < _MOST_SIGNS
        fault = "" if good else f"not named, on several lines or too long: {type(error).__name__}"
        fault = fault or ("" if why in text else "refused for another reason")
        happened = text if len(text) < 300 else f"{text[:300]} …"
    except Exception as error:  # anything else is a fault
        happened, fault = "another error", f"{type(error).__name__}: {read_reason(error)[:200]}"
    seconds, memory = time.perf_counter() - start, _read_memory("VmHWM") - memory
    faults = [fault] if fault else []
    faults += ["files outside were touched"] if _describe(doors.outside) != before else []
    faults += [f"it took {memory / 1e9:.1f} GB"] if memory > _MOST_MEMORY else []
    faults += [f"it took {seconds:.0f} s"] if seconds > _MOST_SECONDS else []
    if not faults and check and (fault := check()):
        faults.append(fault)
    if path.is_file():
        path.unlink()
    expected = HARMLESS if why == HARMLESS else f"refused, the file named: {why}"
    return Case(what, expected, "; ".join([happened, *faults]), not faults)


def _describe(folder):
    """Describe all that is in a folder and beside it: names, sizes, contents."""
    found = {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
    return found, sorted(path.name for path in folder.parent.iterdir())


def _read_memory(name):
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def _forget_peak():
    """Begin to measure the peak of memory anew; return the memory in use."""
    Path("/proc/self/clear_refs").write_text("5")
    return _read_memory("VmRSS")


# Archives, written by hand so that they can lie


def _deflate(n_bytes, head=b""):
    """Make a stream that unpacks to so many zeros behind a head, in no time: one part of it again and again."""
    packer, part = zlib.compressobj(9, zlib.DEFLATED, -15), 10_000_000
    begin = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(part)) + packer.flush(zlib.Z_FULL_FLUSH)
    return begin + zeros * (n_bytes // part) + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def _write_zip(path, members):
    """Write an archive of ``name, packed bytes, method, size, checksum, flags, offset or None`` as it is told."""
    body, entries = io.BytesIO(), io.BytesIO()
    for name, packed, method, claimed, checksum, flags, offset in members:
        name = name.encode()
        place = body.tell() if offset is None else offset
        fields = struct.pack("<HHHHLLL", flags, method, 0, 33, checksum, len(packed), min(claimed, 2**32 - 1))
        extra = struct.pack("<HHQ", 1, 8, claimed) if claimed >= 2**32 - 1 else b""
        lengths = struct.pack("<HH", len(name), len(extra))
        body.write(b"PK\3\4" + struct.pack("<H", 45) + fields + lengths + name + extra + packed)
        entries.write(b"PK\1\2" + struct.pack("<HH", 45, 45) + fields + lengths)
        entries.write(struct.pack("<HHHLL", 0, 0, 0, 0, place) + name + extra)
    count = len(members) % 65536
    end = struct.pack("<HHHHLLH", 0, 0, count, count, entries.tell(), body.tell(), 0)
    path.write_bytes(body.getvalue() + entries.getvalue() + b"PK\5\6" + end)


def _store(name, content, offset=None, flags=0):
    return name, content, 0, len(content), zlib.crc32(content), flags, offset


def _pack(name, packed, claimed, content=b""):
    """Make a member of packed bytes that claims a size, and the checksum of what it claims to hold."""
    return name, packed, 8, claimed, zlib.crc32(content), 0, None


def _pack_lying(name, content):
    """Make a member that says that it holds this, which is true up to there, and unpacks to 2 GB."""
    return _pack(name, _deflate(2_000_000_000, content), len(content), content)


def _write_model(doors, path, extra=(), **changed):
    """Write the good model with members that are changed, by their names up to the dot, and further ones."""
    members = [_store(name, changed.get(name.partition(".")[0], content)) for name, content in doors.members.items()]
    replaced = {member[0] for member in extra}
    _write_zip(path, [member for member in members if member[0] not in replaced] + list(extra))


def _change_config(doors, change, path):
    """Write the good model with another description."""
    config = json.loads(doors.members["config.json"])
    _write_model(doors, path, config=json.dumps(change(config) or config).encode())


def _put_layer(module, name, registered=None, **settings):
    """Put a layer into the description of a model."""
    layer = {"module": module, "class_name": name, "registered_name": registered, "config": settings}
    return lambda config: config["config"]["layers"].insert(1, layer)


def _put_activation(value):
    def change(config):
        config["config"]["layers"][-1]["config"]["activation"] = value

    return change


def _name_function(module, name):
    return _put_activation({"module": module, "class_name": "function", "config": name, "registered_name": name})


def _nest(levels):
    def change(config):
        value = {}
        for _ in range(levels):
            value = {"a": value}
        config["config"]["further"] = value

    return change


def _double(levels):
    """Make a model that calls one twice that calls one twice, and so on."""

    def change(config):
        def name_tensor(layer):
            history = {"shape": [None, 4], "dtype": "float32", "keras_history": [layer, 0, 0]}
            return {"class_name": "__keras_tensor__", "config": history}

        inner = {
            "module": "keras.layers",
            "class_name": "ReLU",
            "config": {"name": "inner"},
            "registered_name": None,
        }
        for level in range(levels):
            first = {"module": "keras.layers", "class_name": "InputLayer", "registered_name": None, "name": "x"}
            first |= {"config": {"batch_shape": [None, 4], "dtype": "float32", "name": "x"}, "inbound_nodes": []}
            calls = [{"args": [name_tensor("x")], "kwargs": {}}] * 2
            inner = inner | {"name": "inner", "inbound_nodes": calls}
            settings = {"name": "inner" if level < levels - 1 else "outer", "layers": [first, inner]}
            settings |= {"input_layers": [["x", 0, 0]], "output_layers": [["inner", 1, 0]], "trainable": True}
            inner = {"module": "keras.src.models.functional", "class_name": "Functional", "config": settings}
            inner |= {"registered_name": "Functional"}
        return inner

    return change


# HDF5


def _write_array(path, **settings):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.zeros((3, 2), "float32"), **settings)


def _change_weights(doors, change, path):
    """Write the good model with other weights; ``change`` gets them open, and the name of the first array."""
    content = io.BytesIO(doors.members["model.weights.h5"])
    with h5py.File(content, "r+") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        change(file, names[0])
    _write_model(doors, path, model=content.getvalue())


def _replace(make):
    def change(file, name):
        del file[name]
        make(file, name)

    return change


def _link_outside(doors):
    return _replace(lambda file, name: file.__setitem__(name, h5py.ExternalLink(doors.outside / "secret.h5", "/a")))


def _store_outside(doors):
    where = [(str(doors.outside / "secret.txt"), 0, 6)]
    return _replace(lambda file, name: file.create_dataset(name, (6,), "uint8", external=where))


def _make_virtual(doors):
    layout = h5py.VirtualLayout((3, 2), "float32")
    layout[:] = h5py.VirtualSource(str(doors.outside / "secret.h5"), "a", (3, 2))
    return _replace(lambda file, name: file.create_virtual_dataset(name, layout))


def _make_compressed(file, name):
    array = file.create_dataset(name, (2**20, 2**8), "float32", chunks=(2**16, 2**8), compression="gzip")
    array.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**26), 1))


def _claim_shape(file, name):
    file.create_dataset(name, (10**6, 10**6), "float32")


def _claim_chunks(file, name):
    file.create_dataset(name, (10**6, 10**6), "float32", chunks=(100, 100))


def _write_legacy(link):
    def write(path):
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = np.array([b"Conv1"])
            link(file.create_group("Conv1"))

    return write


# What would run code if it were unpickled


class _Bomb:
    def __init__(self, marker):
        self._marker = marker

    def __reduce__(self):
        return Path.touch, (self._marker,)


def _pack_objects(doors):
    objects = np.empty(1, object)
    objects[0] = _Bomb(doors.marker)
    return objects


def _save_arrays(objects):
    np.savez(content := io.BytesIO(), ids=objects)
    return content.getvalue()


def _write_header(shape):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return content.getvalue()


def _write_lying_zip(path):
    """Write an array of 1,000 values, as both its header and the list of members say, that unpacks to 2 GB."""
    head = _write_header((1000,))
    _write_zip(path, [_pack_lying("x.npy", head + bytes(4000))])


def _list_models(doors):
    write, config = partial(_write_model, doors), partial(partial, _change_config, doors)
    zeros = _deflate(_HUGE)
    huge = _pack("model.weights.h5", zeros, _HUGE)
    bomb = io.BytesIO()
    _write_zip(bomb_path := doors.inside / "bomb.npz", [_pack("ids.npy", zeros, _HUGE)])
    bomb.write(bomb_path.read_bytes())
    claims = io.BytesIO()
    with zipfile.ZipFile(claims, "w") as archive:
        archive.writestr("ids.npy", _write_header((10**12,)) + bytes(100))
    overlap = doors.members["config.json"]

    def append(path):
        write(path)
        path.write_bytes(doors.members["model.weights.h5"] + path.read_bytes())

    def tell(**about):
        return lambda path: write(path, about=json.dumps({"class_names": _CLASSES} | about).encode())

    def lie(member, path):
        write(path, [_pack_lying(member, doors.members[member])])

    def name_many(path):
        """Write some 60 kB that unpack to 60 MB of JSON, of which each three bytes would take 72."""
        text = b'{"class_names":[' + b"{}," * 20_000_000 + b"{}]}"
        write(path, [_pack("about.json", zlib.compress(text, 9, -15), len(text), text)])

    name, load, outside = "m.keras", doors.load, doors.outside
    odd = ["=<script>alert(1)</script>", '=cmd|" /C calc"!A0\nsecond line']

    def nest_about(path):
        write(path, about=b'{"a":' * 100_000 + b"1" + b"}" * 100_000)

    def check_answer():
        page = (doors.inside / "answer.html").read_text()
        good = all(page.count(escape(name)) >= 2 for name in odd) and escape(doors.picture) in page
        if "<script" in page or "<img src=x" in page:
            return "the page has the names as HTML"
        return "" if good else "the page lacks names"

    def check_table():
        with open(doors.inside / "table.csv", newline="") as file:
            head, *rows = csv.reader(file)
        good = f"p_{odd[1]}" in head and len(rows) == 3 and all(row[1].startswith("'=") for row in rows)
        return "" if good else "the table is not as it has to be"

    return [
        ("model whose weights unpack to 4.9 GB", name, lambda path: write(path, [huge]), load, _BOMB),
        ("the same for python -m helpers.predict", name, lambda path: write(path, [huge]), doors.predict, _BOMB),
        *(
            (f"model whose {kind} unpack to 2 GB behind what they say", name, partial(lie, member), load, "Bad CRC-32")
            for kind, member in (("weights", "model.weights.h5"), ("layers", "config.json"))
        ),
        (
            "model whose description unpacks to 4.9 GB",
            name,
            lambda path: write(path, [_pack("config.json", zeros, _HUGE)]),
            load,
            _BOMB,
        ),
        (
            "model whose arrays unpack to 4.9 GB, within an archive within it",
            name,
            lambda path: write(path, [_store("arrays.npz", bomb.getvalue())]),
            doors.arrays,
            _BOMB,
        ),
        (
            "model with an array that claims 10^12 values",
            name,
            lambda p: write(p, [_store("arrays.npz", claims.getvalue())]),
            doors.arrays,
            "claims 4,000,000,000,000 bytes",
        ),
        (
            "model with an array of pickles",
            name,
            lambda p: write(p, [_store("arrays.npz", _save_arrays(_pack_objects(doors)))]),
            doors.arrays,
            "allow_pickle",
        ),
        (
            "model with pickles, as a classifier",
            name,
            lambda p: write(p, [_store("arrays.npz", _save_arrays(_pack_objects(doors)))]),
            doors.classify,
            "allow_pickle",
        ),
        (
            "model whose about.json unpacks to 4.9 GB",
            name,
            lambda path: write(path, [_pack("about.json", zeros, _HUGE)]),
            doors.about,
            _BOMB,
        ),
        (
            "the same in the list of the page of models",
            name,
            lambda path: write(path, [_pack("about.json", zeros, _HUGE)]),
            doors.list_models,
            "left out",
        ),
        (
            "model with two descriptions",
            name,
            lambda p: write(p, [_store("config.json", overlap), _store("config.json", overlap)]),
            load,
            "is in it twice",
        ),
        (
            "model with members that overlap",
            name,
            lambda path: write(path, [_store("config.json", overlap, 0)]),
            load,
            "overlaps with another member",
        ),
        (
            "archive of a million members",
            name,
            lambda p: _write_zip(p, [_store("a", b"")] * 1_000_000),
            load,
            "the list of its members takes",
        ),
        (
            "encrypted member",
            name,
            lambda p: write(p, [_store("config.json", overlap, flags=1)]),
            load,
            "is encrypted, or packed",
        ),
        (
            "member packed with LZMA",
            name,
            lambda p: write(p, [("config.json", b"", 14, _HUGE, 0, 0, None)]),
            load,
            "is encrypted, or packed",
        ),
        (
            "member ../../outside/file",
            name,
            lambda p: write(p, [_store("../../outside/new", b"x")]),
            load,
            "no model of images needs",
        ),
        (
            "member with an absolute name",
            name,
            lambda p: write(p, [_store(str(outside / "new"), b"x")]),
            load,
            "no model of images needs",
        ),
        (
            "member for the assets of a layer",
            name,
            lambda p: write(p, [_store("assets/layers/a.txt", b"x")]),
            load,
            "no model of images needs",
        ),
        ("HDF5 file with an archive at its end, as .h5", "m.h5", append, load, "is no .keras model"),
        (
            "pickle called .keras",
            name,
            lambda p: p.write_bytes(pickle.dumps(_Bomb(doors.marker))),
            load,
            "is no .keras model",
        ),
        (
            "Lambda layer",
            name,
            config(_put_layer("keras.layers", "Lambda", function="a")),
            load,
            "asks for keras.layers.Lambda",
        ),
        (
            "lambda as activation",
            name,
            config(_put_activation({"class_name": "__lambda__", "config": {"value": "YQ=="}})),
            load,
            "asks for __lambda__",
        ),
        (
            "function of another module: os.system",
            name,
            config(_name_function("os", "system")),
            load,
            "asks for os.system",
        ),
        (
            "class of another module: subprocess.Popen",
            name,
            config(_put_layer("subprocess", "Popen", args="true")),
            load,
            "asks for subprocess.Popen",
        ),
        (
            "function keras.utils.get_file",
            name,
            config(_name_function("keras.utils", "get_file")),
            load,
            "asks for keras.utils.get_file",
        ),
        (
            "function keras.config.enable_unsafe_deserialization",
            name,
            config(_name_function("keras.config", "enable_unsafe_deserialization")),
            load,
            "asks for keras.config.",
        ),
        (
            "layer registered under another name",
            name,
            config(_put_layer("keras.layers", "Dense", "a>B", units=3)),
            load,
            "registered as 'a>B'",
        ),
        (
            "StringLookup that reads a file",
            name,
            config(_put_layer("keras.layers", "StringLookup", vocabulary=str(outside / "secret.txt"))),
            load,
            "asks for keras.layers.StringLookup",
        ),
        (
            "TextVectorization that reads a file",
            name,
            config(_put_layer("keras.layers", "TextVectorization", vocabulary=str(outside / "secret.txt"))),
            load,
            "asks for keras.layers.TextVectorization",
        ),
        (
            "TFSMLayer that loads a folder",
            name,
            config(_put_layer("keras.layers", "TFSMLayer", filepath=str(outside))),
            load,
            "asks for keras.layers.TFSMLayer",
        ),
        (
            "layer of a billion units",
            name,
            config(_put_layer("keras.layers", "Dense", units=10**9)),
            load,
            "bytes of weights and more",
        ),
        ("description 500 levels deep", name, config(_nest(500)), load, "levels deep"),
        (
            "description 100,000 levels deep",
            name,
            lambda p: write(p, config=b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
            load,
            "while decoding a JSON",
        ),
        ("model that calls itself 2^20 times over", name, config(_double(20)), load, "300,000 times"),
        (
            "layer that enlarges an image 10^8 times",
            name,
            config(_put_layer("keras.layers", "UpSampling2D", size=[10**4, 10**4])),
            doors.classify,
            "19,200,000,000 values of an image",
        ),
        (
            "model of images of 10^6 x 10^6",
            name,
            config(lambda c: c["config"]["layers"][0]["config"].update(batch_shape=[None, 10**6, 10**6, 3])),
            doors.classify,
            "3,000,000,000,000 values of an image",
        ),
        (
            "10,000 names of classes, of which it has two",
            name,
            tell(class_names=[f"name {number}" for number in range(10_000)]),
            doors.classify,
            "it has 2 classes",
        ),
        (
            "names of classes with HTML, a formula, two lines",
            name,
            tell(class_names=odd, conformal=dict.fromkeys(odd, 0)),
            doors.predict,
            HARMLESS,
            check_table,
        ),
        (
            "the same on the page `Your own image`, with HTML in the name of the picture",
            name,
            tell(class_names=odd, conformal=dict.fromkeys(odd, 0)),
            doors.ask,
            HARMLESS,
            check_answer,
        ),
        *(
            (f"model whose {key} is {told}", name, tell(**{key: value}), doors.classify, reason)
            for key, told, value, reason in [
                ("background", "a text", "x", "background is 'x'"),
                ("background", "10^9", 10**9, "background is 1000000000"),
                ("views", "10^9", 10**9, "views=1000000000"),
                ("views", "a text", "x", "views='x'"),
                ("conformal", "a text", "x", "conformal thresholds are 'x'"),
                ("conformal", "10^400", dict.fromkeys(_CLASSES, 10**400), "conformal thresholds are"),
                ("class_names", "a text", "ab", "class_names are 'ab'"),
                ("class_names", "half a sign", ["\ud800", "b"], "surrogates"),
                ("data_set", "a list", [1], "data_set is [1]"),
            ]
        ),
        ("the last one in the list of the page of models", name, tell(data_set=[1]), doors.list_models, "left out"),
        ("model whose about.json would take 1.5 GB when parsed", name, name_many, doors.classify, "of JSON are read"),
        ("about.json 100,000 levels deep, in the list of models", name, nest_about, doors.list_models, "left out"),
        ("good model", name, write, doors.classify, HARMLESS),
        ("good model whose description is written again", name, config(lambda c: None), doors.classify, HARMLESS),
    ]


def _list_weights(doors):
    weights = partial(partial, _change_weights, doors)
    name, load, legacy = "m.keras", doors.load, "old.h5"
    secret = doors.outside / "secret.h5"
    return [
        ("good weights, written again", name, weights(lambda file, name: None), load, HARMLESS),
        (
            "weights with a link to another file",
            name,
            weights(_link_outside(doors)),
            load,
            "is a link to another place",
        ),
        (
            "weights with a soft link",
            name,
            weights(_replace(lambda f, n: f.__setitem__(n, h5py.SoftLink("/")))),
            load,
            "is a link to another place",
        ),
        ("weights that lie in another file", name, weights(_store_outside(doors)), load, "lies in another file"),
        ("weights that are a view of another file", name, weights(_make_virtual(doors)), load, "lies in another file"),
        ("compressed weights", name, weights(_replace(_make_compressed)), load, "is compressed"),
        ("weights that claim 4 TB", name, weights(_replace(_claim_shape)), load, "claims 4,000,000,000,000 bytes"),
        (
            "weights that claim 4 TB in parts",
            name,
            weights(_replace(_claim_chunks)),
            load,
            "claims 4,000,000,000,000 bytes",
        ),
        (
            "weights in a group that holds itself",
            name,
            weights(lambda f, n: f.__setitem__("again", f["/"])),
            load,
            "is linked twice",
        ),
        (
            "weights that are texts",
            name,
            weights(_replace(lambda f, n: f.__setitem__(n, ["a", "b"]))),
            load,
            "which are no numbers",
        ),
        (
            "base weights with a link to another file",
            legacy,
            _write_legacy(lambda group: group.__setitem__("kernel", h5py.ExternalLink(secret, "/a"))),
            doors.extract_features,
            "is a link to another place",
        ),
        (
            "base weights, compressed",
            legacy,
            _write_legacy(lambda group: _make_compressed(group, "kernel")),
            doors.extract_features,
            "is compressed",
        ),
    ]


def _list_others(doors):
    huge = _deflate(_HUGE)
    idx_head = b"\0\0\x08\3" + struct.pack(">3i", 60_000, 28, 28)
    gzip_head, idx = b"\x1f\x8b\x08" + bytes(7), "train-images-idx3-ubyte.gz"
    arrays = lambda path: read_arrays(path, ["x"])  # noqa: E731 - a door like the others
    table = lambda path: read_metadata(path, ["image_id"])  # noqa: E731
    outside = "../../outside/new"

    def write_claim(path):
        np.savez(path, x=np.zeros(3))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", _write_header((10**12,)) + bytes(100))

    def write_tar(path, name=outside, link=None):
        with tarfile.open(path, "w") as archive:
            if link:
                member = tarfile.TarInfo("inner")
                member.type, member.linkname = tarfile.SYMTYPE, link
                archive.addfile(member)
            (member := tarfile.TarInfo(name)).size = 1
            archive.addfile(member, io.BytesIO(b"x"))

    def draw(folder, *names):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((24, 24), 90).save(folder / name, "PNG")

    def make_odd_folder(folder):
        draw(folder, "a/1.png", "b/2.png")
        os.mkfifo(folder / "a" / "pipe.png")
        for name, target in (("loop", folder), ("self.png", folder / "self.png"), ("up", folder.parent)):
            (folder / name).symlink_to(target)

    def name_html(folder):
        draw(folder, "<img src=x onerror=alert(1)>/<script>.png", *(f"b/{number}.png" for number in range(3)))
        draw(folder, "<img src=x onerror=alert(1)>/&.png", "<img src=x onerror=alert(1)>/=1+1.png")

    def check_values():
        return "" if read_arrays(doors.inside / "x.npz", ["x"])["x"].shape == (1000,) else "it has other values"

    def check_page():
        page = (doors.inside / "page.html").read_text()
        return "the page has the names as HTML" if "<img src=x" in page or "<script>.png" in page else ""

    return [
        (".npz that unpacks to 4.9 GB", "x.npz", lambda p: _write_zip(p, [_pack("x.npy", huge, _HUGE)]), arrays, _BOMB),
        (".npz that says 4 kB and unpacks to 2 GB", "x.npz", _write_lying_zip, arrays, HARMLESS, check_values),
        (".npz with an array that claims 10^12 values", "x.npz", write_claim, arrays, "claims 4,000,000,000,000 bytes"),
        (".npz of pickles", "x.npz", lambda p: np.savez(p, x=_pack_objects(doors)), arrays, "allow_pickle"),
        (
            "pickle called .npz",
            "x.npz",
            lambda p: p.write_bytes(pickle.dumps(_Bomb(doors.marker))),
            arrays,
            "not a zip file",
        ),
        (
            "IDX file that unpacks to 4.9 GB",
            idx,
            lambda p: p.write_bytes(gzip_head + _deflate(_HUGE, idx_head) + bytes(8)),
            arrays,
            "cannot reshape",
        ),
        (
            "IDX file that claims 10^13 values",
            "train-images-idx3-ubyte",
            lambda p: p.write_bytes(b"\0\0\x08\3" + struct.pack(">3i", 10**9, 100, 100)),
            arrays,
            "claims to have 10,000,000,000,000 values",
        ),
        (
            "table with formulas and paths for images",
            "t.csv",
            lambda p: p.write_text("image_id,dx\n../../x,=cmd|1\n/etc/passwd,@SUM(1)\n"),
            table,
            HARMLESS,
        ),
        ("table with NUL", "t.csv", lambda p: p.write_bytes(b"image_id,dx\na\0b,c\n"), table, "it is no text"),
        (
            "table with a cell of 10 MB",
            "t.csv",
            lambda p: p.write_text("image_id,dx\n" + "a" * 10**7 + ",b\n"),
            table,
            "field limit",
        ),
        (
            "table of a million columns",
            "t.csv",
            lambda p: p.write_text("image_id," * 10**6 + "dx\n"),
            table,
            "1,000,001 columns",
        ),
        ("zip archive with ..", "a.zip", lambda p: _write_zip(p, [_store(outside, b"x")]), doors.unpack, HARMLESS),
        ("tar archive with ..", "a.tar", write_tar, doors.unpack, "outside the destination"),
        (
            "tar archive with a link that leads outside",
            "a.tar",
            partial(write_tar, name="inner/new", link=str(doors.outside)),
            doors.unpack,
            "AbsoluteLinkError",
        ),
        ("loops of links and a pipe among images, audited", "odd", make_odd_folder, doors.audit, HARMLESS),
        ("HTML in the names of folders and files, audited", "html", name_html, doors.audit, HARMLESS, check_page),
    ]
