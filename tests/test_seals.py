"""Seals: a cached file that was cut, changed or exchanged is noticed, whatever byte it is."""

import errno

import numpy as np
import pytest

from helpers import seals
from helpers.seals import DamagedError, check_seal, read_cached, read_seal, read_sealed, seal

MISSING = "its end is missing: it was cut, or an older version has written it"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "cache.txt"
    path.write_bytes(b"0123456789" * 20)
    seal(path, version=3, folder="é")
    return path


def test_content_and_what_it_is_come_back(path):
    assert read_seal(path) == ({"version": 3, "folder": "é"}, 200)
    assert read_sealed(path) == b"0123456789" * 20


def test_every_byte_counts(path):
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        with pytest.raises(DamagedError):
            read_seal(path)


def test_every_cut_counts(path):
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DamagedError):
            read_seal(path)
    path.write_bytes(content + b"\n")
    with pytest.raises(DamagedError):
        read_seal(path)


def test_numpy_reads_a_sealed_array_as_before(tmp_path):
    path = tmp_path / "pixels.npy"
    np.save(path, np.arange(3_000_000, dtype="uint8"))
    seal(path)
    assert np.array_equal(np.load(path, mmap_mode="r"), np.arange(3_000_000, dtype="uint8"))
    assert read_seal(path)[1] == 3_000_128


def test_what_was_never_sealed_is_noticed(tmp_path):
    (tmp_path / "old").write_bytes(b"x" * 100)
    with pytest.raises(DamagedError, match=MISSING):
        read_seal(tmp_path / "old")


def test_what_was_checked_is_checked_again_when_it_changes(path):
    assert check_seal(path) == read_seal(path)
    content = path.read_bytes()
    path.write_bytes(content[:5] + b"x" + content[6:])
    with pytest.raises(DamagedError):
        check_seal(path)


def test_a_damaged_file_is_named_and_removed(path, capsys):
    assert read_cached(path) == b"0123456789" * 20
    path.write_bytes(path.read_bytes() + b"x")
    assert read_cached(path) is None
    assert capsys.readouterr().out == f"{path} was damaged ({MISSING}): it is made again\n"
    assert not path.exists()
    assert read_cached(path) is None
    assert capsys.readouterr().out == ""


def test_what_the_disk_cannot_read_is_damaged(path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(seals, "_sum_up", fail)
    with pytest.raises(DamagedError, match="the disk cannot read it"):
        read_seal(path)


def test_what_another_process_has_made_again_stays(path, capsys):
    def replace_and_fail(path):
        path.unlink()
        path.write_text("new")
        raise DamagedError("its checksum differs")

    assert read_cached(path, replace_and_fail) is None
    assert "was damaged" in capsys.readouterr().out
    assert path.read_text() == "new"
