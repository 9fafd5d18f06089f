"""Archives from others are refused before anything of them is unpacked."""

import io
import re
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from helpers.archives import bound_unpacked, open_archive, open_arrays, read_member


def make_archive(**members):
    with zipfile.ZipFile(content := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content


def make_arrays(**arrays):
    np.savez_compressed(content := io.BytesIO(), **arrays)
    return content


def change(content, before, after, count=-1):
    changed = content.getvalue().replace(before, after, count)
    assert changed != content.getvalue()
    return io.BytesIO(changed)


def make_header(shape, kind="<f4"):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": kind, "fortran_order": False, "shape": shape})
    return content.getvalue()


def test_members_and_arrays_come_as_they_were_written():
    with open_archive(make_archive(a=b"text", b=b"")) as archive:
        assert [read_member(archive, name) for name in "ab"] == [b"text", b""]
    arrays = {
        "x": np.arange(6).reshape(2, 3),
        "names": np.array(["a", ""]),
        "none": np.zeros((0, 2)),
        "one": np.array(3),
    }
    with open_arrays(make_arrays(**arrays)) as found:
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(("size", "most"), [(10, 2**28), (2**26, 20 * 2**26), (2**40, 2**31)])
def test_a_larger_file_may_unpack_to_more(size, most):
    assert bound_unpacked(size) == most


def test_what_would_unpack_to_too_much_is_refused_unread():
    size = struct.pack("<L", 4)
    claims = change(make_archive(a=b"text"), size + struct.pack("<H", 1), struct.pack("<LH", 2**31 - 5, 1))
    with pytest.raises(ValueError, match=r"would unpack to 2,147,483,643; at most 268,435,456"), open_archive(claims):
        pass


def test_a_member_that_unpacks_to_more_than_it_says_takes_no_memory():
    content, size = make_archive(a=bytes(10**8)), struct.pack("<L", 10**8)
    content = change(content, size, struct.pack("<L", 1000))
    tracemalloc.start()
    with pytest.raises(zipfile.BadZipFile, match="CRC"), open_archive(content) as archive:
        read_member(archive, "a")
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


@pytest.mark.parametrize(("text", "claimed"), [("text and more", 4), ("text", 3)])
def test_a_member_that_holds_more_than_it_says_is_refused_whatever_its_checksum(text, claimed):
    """Others would read all of it."""
    content = make_archive(a=text.encode())
    content = change(content, struct.pack("<L", len(text)), struct.pack("<L", claimed))
    for length in (claimed, claimed + 1):
        checksums = [struct.pack("<L", zlib.crc32(part.encode())) for part in (text, text[:length])]
        lying = io.BytesIO(content.getvalue().replace(*checksums))
        with pytest.raises((ValueError, zipfile.BadZipFile)), open_archive(lying) as archive:
            read_member(archive, "a")


def test_json_that_would_fill_the_memory_when_parsed_is_refused():
    content = make_archive(**{"a.json": bytes(2**24 + 1), "b.json": bytes(2**24)})
    with open_archive(content) as archive:
        assert len(read_member(archive, "b.json")) == 2**24
        with pytest.raises(ValueError, match="16,777,217 bytes; at most 16,777,216 of JSON are read"):
            read_member(archive, "a.json")


def list_too_much():
    with zipfile.ZipFile(content := io.BytesIO(), "w") as archive:
        for number in range(30_000):
            archive.writestr(f"{number}", b"")
    return content


def repeat_a_member():
    return change(make_archive(a=b"x", b=b"y"), b"b", b"a")


def overlap():
    content = make_archive(a=b"x" * 50, b=b"y" * 50)
    with zipfile.ZipFile(content) as archive:
        place = archive.getinfo("b").header_offset
    return change(content, struct.pack("<L", place) + b"b", struct.pack("<L", place - 3) + b"b")


def reach_the_list():
    content = make_archive(a=b"x" * 50)
    with zipfile.ZipFile(content) as archive:
        packed = archive.getinfo("a").compress_size
    return change(content, struct.pack("<LL", packed, 50), struct.pack("<LL", packed + 5, 50))


def lie_about_a_stored_member():
    with zipfile.ZipFile(content := io.BytesIO(), "w") as archive:
        archive.writestr("a", b"1234567")
    return change(content, struct.pack("<LL", 7, 7), struct.pack("<LL", 7, 9))


def pack_otherwise():
    with zipfile.ZipFile(content := io.BytesIO(), "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a", bytes(1000))
    return content


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (list_too_much, "list of its members takes"),
        (repeat_a_member, "'a' is in it twice"),
        (overlap, "'b' overlaps"),
        (reach_the_list, "overlaps with the list"),
        (lie_about_a_stored_member, "another size"),
        (pack_otherwise, "packed in a way"),
    ],
)
def test_an_archive_that_lies_is_refused(make, message):
    with pytest.raises(ValueError, match=message), open_archive(make()):
        pass


@pytest.mark.parametrize(
    "array",
    [
        make_header((10**12,)) + bytes(64),
        make_header((1,), "<U100000000") + bytes(64),
        make_header((10**12,), "|V0"),
        make_header((-4, -4)) + bytes(64),
        make_header((2,)) + bytes(64),
    ],
    ids=["long", "wide", "of nothing", "negative", "short"],
)
def test_an_array_whose_header_lies_is_refused(array):
    with pytest.raises(ValueError, match=r"'x\.npy' claims"), open_arrays(make_archive(**{"x.npy": array})):
        pass


def test_what_is_no_array_is_refused():
    with pytest.raises(ValueError, match="magic"), open_arrays(make_archive(x=zlib.compress(b"text"))):
        pass


def test_pickles_are_not_read():
    with open_arrays(make_arrays(x=np.array([{}]))) as arrays, pytest.raises(ValueError, match="allow_pickle"):
        arrays["x"]


UNSAFE = (
    r"import ([\w, ]+, )?pickle\b|from pickle import (?!PicklingError\b)|cPickle|\bdill\b|joblib\.load"
    r"|torch\.load|read_pickle|marshal\.loads|allow_pickle=True|safe_mode=False|enable_unsafe_deserialization|yaml\.(unsafe_)?load\("
)
ALLOWED = {"helpers/training/efficientnet_lite.py", "benchmarks/torture/hostile.py"}  # the one pinned file; made there


def test_nothing_reads_pickles_or_models_that_run_code():
    project = Path(__file__).parents[1]
    paths = [path for folder in ("helpers", "benchmarks", "samples") for path in (project / folder).rglob("*.py")]
    paths += (project / "notebooks").glob("*.ipynb")
    found = {
        path.relative_to(project).as_posix()
        for path in paths
        if re.search(UNSAFE, re.sub(r'(?m)#.*$|"""[\s\S]*?"""', "", path.read_text(encoding="utf-8")))
    }
    assert found == ALLOWED  # which also tells that the search finds something
