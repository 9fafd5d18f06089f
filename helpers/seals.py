"""Seals: the end of a cached file, which tells what it is and holds a checksum of all."""

import errno
import json
import os
import sys
import zlib
from contextlib import suppress

from helpers.files import show_name


class DamagedError(ValueError):
    """A sealed file is not as it was written; the message says what is wrong with it, without its name."""


_FOOT = 24  # bytes: the length of what the file is, the checksum, and a word
_WORD = b" sealed\n"
_checked = {}  # files that this process has found whole: by path, their state then and what they are


def seal(path, **about):
    """Append to a file what it is, as JSON can hold it, and a checksum (CRC-32) of its content and of that.

    Readers that stop at the end of their own content, such as `numpy.load`, read it as before.
    """
    text = json.dumps(about).encode()
    text += f"{len(text):08x}".encode()
    with open(path, "rb+") as file:
        checksum = zlib.crc32(text, _sum_up(file, os.fstat(file.fileno()).st_size))
        file.write(text + f"{checksum:08x}".encode() + _WORD)


def read_seal(path):
    """Check a sealed file: what it is, as `seal` was told, and how many bytes of content it has.

    Raise DamagedError if it was cut or changed, or never sealed. All of it is read, and none of it kept in memory.
    """
    with open(path, "rb") as file:
        return _check(file)


def check_seal(path):
    """Check a sealed file as `read_seal` does, but only once in this process as long as it stays in the same state."""
    with open(path, "rb") as file:
        state = _read_state(file.fileno())
        if path not in _checked or _checked[path][0] != state:
            _checked[path] = state, _check(file)
    return _checked[path][1]


def read_sealed(path):
    """Read the content of a sealed file: bytes. Raise DamagedError as `read_seal`."""
    with open(path, "rb") as file:
        _, length = _check(file)
        file.seek(0)
        return file.read(length)


def read_cached(path, read=read_sealed, remedy="it is made again"):
    """Read a file by a function that may raise DamagedError: None if there is none, or a damaged one.

    That is named on standard output and removed, which makes room for the new one.
    """
    try:
        state = _read_state(path)
        return read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedError as error:
        sys.stdout.write(f"{show_name(path)} was damaged ({error}): {remedy}\n")
        with suppress(OSError):
            if _read_state(path) == state:  # else another process has made it again
                path.unlink()
        return None


def _read_state(file):
    """Read what changes with a file: size, times of change and inode."""
    now = os.stat(file)  # noqa: PTH116 - of an open file, too
    return now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino


def _check(file):
    """Check an open sealed file, and return what `read_seal` does."""
    try:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _FOOT))
        foot = file.read(_FOOT)
        if len(foot) < _FOOT or foot[16:] != _WORD:
            raise DamagedError("its end is missing: it was cut, or an older version has written it")
        file.seek(0)
        if foot[8:16] == f"{_sum_up(file, size - 16):08x}".encode():
            length = int(foot[:8], 16)
            file.seek(size - _FOOT - length)
            return json.loads(file.read(length)), size - _FOOT - length
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise DamagedError("the disk cannot read it") from error
    raise DamagedError("its checksum differs")


def _sum_up(file, length):
    """Compute the CRC-32 of the next bytes of an open file."""
    checksum, chunk = 0, bytearray(2**20)
    while length and (count := file.readinto(memoryview(chunk)[: min(length, len(chunk))])):
        checksum, length = zlib.crc32(memoryview(chunk)[:count], checksum), length - count
    return checksum
