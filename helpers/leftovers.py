"""Leftovers: what a process has not finished has a hidden name that tells the process, so that it can be removed.

A killed process cannot remove what it wrote; the next one does.
"""

import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

# Older versions did not tell the process. Eight digits alone may be the date of somebody's copy.
_UNFINISHED = re.compile(
    r"\..*?-(?:([0-9a-f]{8})-(\d{1,9})-(\d+)-[0-9a-f]{8}|(?!\d{8})[0-9a-f]{8})(\.[^.]*)?", re.DOTALL
)
_MUCH = 10**6  # bytes, which are worth a line
_FORGOTTEN = 86_400  # seconds, after which the unfinished file of a process that is not known here is nobody's


def name_unfinished(path):
    """Name what is to become ``path`` until it is complete: hidden, beside it, with the same suffix."""
    owner = f"{_describe_machine()}-{os.getpid()}-{_read_start(os.getpid())}"
    return path.with_name(f".{path.stem[:40]}-{owner}-{secrets.token_hex(4)}{path.suffix}")


def find_unfinished(folder):
    """Find what dead processes have left unfinished below a folder: Paths of files and folders.

    What processes of other machines or of older versions write, or have left, counts only when it has not changed for
    a day.
    """
    found = []
    for place, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            if (match := _UNFINISHED.fullmatch(name)) and _is_left(Path(place, name), *match.groups()[:3]):
                found.append(Path(place, name))
        folders[:] = [name for name in folders if not _UNFINISHED.fullmatch(name)]
    return found


def remove_unfinished(*folders):
    """Remove what dead processes have left unfinished below some folders; the bytes that were freed."""
    freed = 0
    for path in (path for folder in folders for path in find_unfinished(folder)):
        with suppress(OSError):
            freed += count_bytes(path)
        _remove(path)
    return freed


def tidy_up(*folders):
    """Remove what dead processes have left unfinished below some folders; a line tells it if it was much."""
    if (freed := remove_unfinished(*folders)) >= _MUCH:
        sys.stdout.write(f"{freed / 1e6:,.0f} MB were removed that a run that was killed had left unfinished\n")


def remove_beside(path):
    """Remove what dead processes have left unfinished of a file, and of those whose names begin like its own."""
    with suppress(OSError):  # the folder may not be there, or not be ours
        for name in os.listdir(path.parent):
            match = _UNFINISHED.fullmatch(name) if name.startswith(f".{path.stem[:40]}") else None
            if match and _is_left(path.with_name(name), *match.groups()[:3]):
                _remove(path.with_name(name))


@contextmanager
def make_temporary_folder(name):
    """Make a folder for temporary files, which is removed at the end; that of a killed process by the next one."""
    place = Path(tempfile.gettempdir(), name)
    remove_beside(place)
    folder = name_unfinished(place)
    folder.mkdir(0o700)
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(path):
    with suppress(OSError):  # another process may remove it too
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def count_bytes(path):
    """Count the bytes on disk of a file, or of all files below a folder."""
    paths = [path] if not path.is_dir() else (Path(place, name) for place, _, names in os.walk(path) for name in names)
    return sum(path.lstat().st_blocks * 512 for path in paths)


def _is_left(path, machine, pid, start):
    if machine == _describe_machine():
        return _read_start(int(pid)) not in (int(start), 0)
    with suppress(OSError):  # older versions have left files only
        return (machine is not None or not path.is_dir()) and time.time() - path.stat().st_mtime > _FORGOTTEN
    return False


@functools.cache
def _describe_machine():
    """Hash what tells apart machines, their starts, and containers, each of which counts processes anew."""
    about = [socket.gethostname()]
    with suppress(OSError):  # of systems without /proc
        about += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:8]


def _read_start(pid):
    """Read when a process was started, in ticks of the clock; -1 if it is dead, 0 where the system does not tell."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return -1
    except PermissionError:
        pass  # another user's
    try:
        about = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:  # some systems have no /proc, or hide there what others run
        return 0
    return -1 if about[0] in "ZX" else int(about[19])  # dead, but nobody has asked how it ended
