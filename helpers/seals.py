"""Seals: the end of a cached file, which tells what it is and holds a checksum of all."""

import json
import os
import zlib


class DamagedError(ValueError):
    """A sealed file is not as it was written; the message says what is wrong with it, without its name."""


_FOOT = 24  # bytes: the length of what the file is, the checksum, and a word
_WORD = b" sealed\n"


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
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _FOOT))
        foot = file.read(_FOOT)
        if len(foot) < _FOOT or foot[16:] != _WORD:
            raise DamagedError("its end is missing")
        file.seek(0)
        if foot[8:16] == f"{_sum_up(file, size - 16):08x}".encode():
            length = int(foot[:8], 16)
            file.seek(size - _FOOT - length)
            return json.loads(file.read(length)), size - _FOOT - length
    raise DamagedError("its checksum differs")


def read_sealed(path):
    """Read the content of a sealed file: bytes. Raise DamagedError as `read_seal`."""
    _, length = read_seal(path)
    with open(path, "rb") as file:
        return file.read(length)


def _sum_up(file, length):
    """Compute the CRC-32 of the next bytes of an open file."""
    checksum, chunk = 0, bytearray(2**20)
    while length and (count := file.readinto(memoryview(chunk)[: min(length, len(chunk))])):
        checksum, length = zlib.crc32(memoryview(chunk)[:count], checksum), length - count
    return checksum
