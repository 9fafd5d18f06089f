"""Files are complete or not there: after a failure, on a full disk, and after a kill. Mapped pages are given back."""

import csv
import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.files import guard_cell, release_pages, replace_atomically, unguard_cell

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    return path


def assert_only_the_old_file(path):
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_the_block_ends_well(path):
    with replace_atomically(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_the_temporary_file_can_be_renamed_and_tells_its_format(path):
    with replace_atomically(path) as unfinished, replace_atomically(path) as other:
        assert unfinished.parent == path.parent  # a rename across file systems is no rename
        assert unfinished.suffix == ".csv"
        assert len({path, unfinished, other}) == 3
        unfinished.write_text("first")
        other.write_text("second")
    assert path.read_text() == "first"


def test_folders_are_made(tmp_path):
    with replace_atomically(str(tmp_path / "a" / "b" / "file")) as unfinished:
        unfinished.write_text("new")
    assert (tmp_path / "a" / "b" / "file").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError("failed"), KeyboardInterrupt(), FileNotFoundError(2, "no", "other")])
def test_a_failing_block_leaves_the_old_file(path, error):
    def write():
        with replace_atomically(path) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error
    assert_only_the_old_file(path)


def test_what_the_disk_refused_before_the_block_is_not_what_failed_in_it(path):
    def write():
        try:
            raise OSError(errno.EACCES, "Permission denied")
        except OSError:
            with replace_atomically(path):
                raise RuntimeError("failed") from None

    with pytest.raises(RuntimeError, match="failed"):
        write()
    assert_only_the_old_file(path)


def test_a_block_that_writes_nothing_leaves_the_old_file(path):
    with pytest.raises(FileNotFoundError), replace_atomically(path):
        pass
    assert_only_the_old_file(path)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_found_late_leaves_the_old_file(path, function, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="No space left"), replace_atomically(path) as unfinished:
        unfinished.write_text("new")
    assert_only_the_old_file(path)


def test_content_reaches_the_disk_before_the_rename(path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, original=original: calls.append(name) or original(*args))
    with replace_atomically(path) as unfinished:
        unfinished.write_text("new")
    assert calls == ["fsync", "replace"]


def test_a_killed_process_leaves_the_old_file(path):
    code = """
import sys, time
from helpers.files import replace_atomically
with replace_atomically(sys.argv[1]) as unfinished, open(unfinished, "w") as file:
    file.write("half")
    file.flush()
    sys.stdout.write(f"{unfinished}\\n")
    sys.stdout.flush()
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, path], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as process:
        unfinished = Path(process.stdout.readline().strip())
        assert unfinished.read_text() == "half"  # the kill comes in the middle
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert path.read_text() == "old"

    with replace_atomically(path) as again:  # what the kill left is in nobody's way
        again.write_text("new")
    assert path.read_text() == "new"


def read_resident_file_pages():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="how much memory is mapped is read from /proc")
def test_pages_are_given_back(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(20_000_000, "uint8"))
    array = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert array.sum() == 20_000_000
    before = read_resident_file_pages()
    release_pages(array)
    assert read_resident_file_pages() < before - 15_000_000
    assert array.sum() == 20_000_000


@pytest.mark.parametrize("array", [np.ones(3), [1, 2, 3], None])
def test_other_arrays_are_left_alone(array):
    release_pages(array)
    assert array is None or list(array) == [1, 1, 1] or list(array) == [1, 2, 3]


TEXTS = [
    "=1+1",
    "+1",
    "-nv",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'",
    "'nv",
    "'=1",
    "''=1",
    "",
    "nv",
    "a=1",
    "p_-1",
    " =1",
    "-",
]


@pytest.mark.parametrize("text", TEXTS)
def test_no_cell_begins_as_a_formula(text):
    guarded = guard_cell(text)
    assert not guarded.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert (guarded == text) == (text == "" or text[0] not in "=+-@\t\r'")
    assert unguard_cell(guarded) == text
    file = io.StringIO(newline="")
    csv.writer(file).writerow([guarded])
    assert next(csv.reader(io.StringIO(file.getvalue(), newline="")), [""]) == [guarded]


@pytest.mark.parametrize("number", [-1, -0.5, 3, np.float32(-2), None, True])
def test_numbers_are_no_formulas(number):
    assert guard_cell(number) is number


def test_texts_that_others_wrote_are_left_alone():
    assert [unguard_cell(text) for text in ("nv", "'nv", "'", "")] == ["nv", "'nv", "'", ""]
