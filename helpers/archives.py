"""Archives from others: what they would unpack to is bounded before anything of it is unpacked."""

import copy
import io
import math
import os
import zipfile
from contextlib import contextmanager

import numpy as np

MOST_BYTES = 2**31  # that are read from one file
_ALWAYS = 2**28  # bytes that even a small file may unpack to
_GROWTH = 20  # times its size a larger file may unpack to; MNIST takes 5
_MOST_TEXT = 2**24  # bytes of a member of JSON, of which each three may become 72 in memory
_MOST_LISTED = 2**20  # bytes of the list of members: some 10,000 of them
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def bound_unpacked(size, most=MOST_BYTES):
    """Tell how many bytes a file of ``size`` bytes may unpack to."""
    return min(most, max(_ALWAYS, _GROWTH * size))


@contextmanager
def open_archive(file, most=MOST_BYTES):
    """Open a zip archive, given as an open file, when all that it says of itself is bounded: a `zipfile.ZipFile`.

    Raise ValueError, without the name of the file, if it would unpack to more than `bound_unpacked` allows, lists too
    many members, has two of one name or two that overlap, or has one that is encrypted, or packed in other ways than
    most. What is no archive is a `zipfile.BadZipFile`.
    """
    size = file.seek(0, os.SEEK_END)
    reader = _Reader(file)
    try:
        with zipfile.ZipFile(reader) as archive:
            reader.most = None
            _check_members(archive, size, bound_unpacked(size, most))
            yield archive
    finally:
        reader.detach()


def read_member(archive, name):
    """Read a member of an archive: bytes, as many as its header says, which `open_archive` has bounded.

    One that would unpack to another number is a `zipfile.BadZipFile` or a ValueError: others, such as Keras, would
    unpack whatever there is. So is JSON that would fill the memory when it is parsed.
    """
    member = copy.copy(archive.getinfo(name))
    claimed = member.file_size
    if name.endswith(".json") and claimed > _MOST_TEXT:
        raise ValueError(f"{name!r} has {claimed:,} bytes; at most {_MOST_TEXT:,} of JSON are read")
    member.file_size += 1  # `zipfile` cuts off what is beyond
    with archive.open(member) as file:
        content = file.read(member.file_size)
    if len(content) != claimed:
        raise ValueError(f"{name!r} has another size than it claims")
    return content


@contextmanager
def open_arrays(file, most=MOST_BYTES):
    """Open an ``.npz`` archive, given as an open file, as `numpy.load` does; see `open_archive`.

    A member whose header claims more, or less, than it holds is a ValueError. Pickles are never read.
    """
    with open_archive(file, most) as archive:
        for member in archive.infolist():
            _check_array(archive, member)
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        yield arrays


class _Reader(io.BufferedReader):
    """Reads an archive, and refuses to read a list of members that would fill the memory."""

    most = _MOST_LISTED

    def read(self, size=-1, /):
        if self.most is not None and size is not None and size > self.most:
            raise ValueError(f"the list of its members takes {size:,} bytes; at most {self.most:,} are read")
        return super().read(size)


def _check_members(archive, size, most):
    names, end, unpacked = set(), 0, 0
    for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
        name = member.filename
        if name in names:
            raise ValueError(f"{name!r} is in it twice")
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name!r} is encrypted, or packed in a way that is not read")
        if member.header_offset < end:
            raise ValueError(f"{name!r} overlaps with another member")
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            raise ValueError(f"{name!r} has another size than it claims")
        end = member.header_offset + zipfile.sizeFileHeader + len(member.orig_filename) + member.compress_size
        names.add(name)
        unpacked += member.file_size
    if end > archive.start_dir:
        raise ValueError("its last member overlaps with the list of members")
    if unpacked > most:
        raise ValueError(f"its {size:,} bytes would unpack to {unpacked:,}; at most {most:,} are read")


def _check_array(archive, member):
    with archive.open(member) as file:
        try:
            shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
        except KeyError as error:
            raise ValueError(f"{member.filename!r} is an array of an unknown version") from error
        claimed = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            return  # NumPy refuses it when it is asked for
        if min(shape, default=0) < 0 or file.tell() + claimed != member.file_size or (math.prod(shape) and not claimed):
            raise ValueError(f"{member.filename!r} claims {claimed:,} bytes of values, but holds another number")
