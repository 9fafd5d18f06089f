"""Leftovers: what a killed process has not finished is removed by the next one; what another one writes stays."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from helpers import leftovers
from helpers.files import InputError, WriteError, hold_lock, replace_atomically, reserve_space
from helpers.leftovers import find_unfinished, make_temporary_folder, name_unfinished, remove_unfinished

PROJECT = Path(__file__).parents[1]
_WRITING = """
import sys, time
from helpers.files import hold_lock, replace_atomically
with hold_lock(sys.argv[1]), replace_atomically(sys.argv[1]) as unfinished:
    unfinished.write_text("half")
    sys.stdout.write("writing\\n")
    sys.stdout.flush()
    time.sleep(60)
"""


@pytest.fixture
def writing(tmp_path):
    """Start a process that is writing a table, and has the lock of it."""
    command = [sys.executable, "-c", _WRITING, tmp_path / "table.csv"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def test_what_a_living_process_writes_stays(writing, tmp_path):
    assert find_unfinished(tmp_path) == []
    assert remove_unfinished(tmp_path) == 0
    assert len(list(tmp_path.glob(".table-*.csv"))) == 1


def test_what_a_killed_process_has_left_is_removed(writing, tmp_path):
    writing.send_signal(signal.SIGKILL)
    writing.wait()
    (tmp_path / "table-0.csv").write_text("complete")
    assert remove_unfinished(tmp_path) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".table.csv.lock", "table-0.csv"]
    with hold_lock(tmp_path / "table.csv"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["table-0.csv"]


def test_the_process_that_has_the_number_of_a_dead_one_owns_nothing(tmp_path, monkeypatch):
    path = name_unfinished(tmp_path / "a.npy")
    path.touch()
    assert find_unfinished(tmp_path) == []
    monkeypatch.setattr(leftovers, "_read_start", lambda pid: 12345)
    assert find_unfinished(tmp_path) == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="whether a process is dead is read from /proc")
def test_a_killed_process_that_nobody_has_waited_for_is_dead(writing, tmp_path):
    writing.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, writing.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert [path.suffix for path in find_unfinished(tmp_path)] == [".csv"]


def test_a_process_that_the_system_hides_may_live(writing, tmp_path, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        assert find_unfinished(tmp_path) == []


@pytest.mark.parametrize("name", [".table-20261129.csv", ".table-before-20261129", ".table-0a1b2c3d/kept.csv"])
def test_old_copies_that_somebody_has_hidden_stay(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    for place in (path, path.parent):
        os.utime(place, (0, 0))
    with hold_lock(tmp_path / "table.csv"):
        assert remove_unfinished(tmp_path) == 0
    assert path.exists()


def test_what_another_machine_writes_is_nobodys_after_a_day(tmp_path, monkeypatch):
    path = name_unfinished(tmp_path / "folder")
    (path / "inner").mkdir(parents=True)
    monkeypatch.setattr(leftovers, "_describe_machine", lambda: "01234567")
    assert find_unfinished(tmp_path) == []
    os.utime(path, (0, 0))
    assert remove_unfinished(tmp_path) == 0  # an empty folder takes no bytes of files
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_of_a_file_is_removed_by_who_gets_its_lock(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(leftovers, "_read_start", lambda pid: 12345)  # of a process that is no more
        for name in ("table.csv", "table.problems.csv", "other.csv"):
            name_unfinished(tmp_path / name).touch()
    alive = name_unfinished(tmp_path / "table.csv")
    alive.touch()
    with hold_lock(tmp_path / "table.csv"):
        left = {path for path in tmp_path.iterdir() if path.suffix == ".csv"}
    assert alive in left
    assert [path.name[:7] for path in left - {alive}] == [".other-"]


def test_a_temporary_folder_of_a_killed_process_is_removed_by_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(leftovers, "_read_start", lambda pid: 12345)
        (name_unfinished(tmp_path / "audit") / "pixels").mkdir(parents=True)
    with make_temporary_folder("audit") as folder:
        assert list(tmp_path.iterdir()) == [folder]
        (folder / "pixels").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_told_at_once(writing, tmp_path):
    with (
        pytest.raises(InputError, match=r"table\.csv is being written by another process"),
        hold_lock(tmp_path / "table.csv"),
    ):
        pass


def test_a_folder_that_vanishes_is_named(tmp_path):
    def write():
        with replace_atomically(tmp_path / "a" / "b.csv") as unfinished:
            (tmp_path / "a").rmdir()
            unfinished.write_text("new")

    with pytest.raises(WriteError, match=r"b\.csv cannot be written .*Its folder has vanished"):
        write()


def test_space_that_is_not_there_is_told_in_bytes(tmp_path):
    def write():
        with replace_atomically(tmp_path / "b.npy") as unfinished:
            unfinished.touch()
            reserve_space(unfinished, 2**55)

    with pytest.raises(WriteError, match=r"b\.npy cannot be written .*needs 36,028,797,018,963,968 bytes, of which"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch, number):
    def refuse(file, operation):
        raise OSError(number, "refused")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold_lock(tmp_path / "table.csv"):
        (tmp_path / "table.csv").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no space")
def test_a_file_system_that_cannot_reserve_space_is_written(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    (tmp_path / "a.npy").touch()
    reserve_space(tmp_path / "a.npy", 1)


def test_a_file_system_that_does_not_tell_its_space_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: (0, 0, 0))
    (tmp_path / "a.npy").touch()
    reserve_space(tmp_path / "a.npy", 1)
