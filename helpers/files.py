"""Files: written so that they are complete or not there, mapped into memory no longer than needed; bad input."""

import errno
import fcntl
import mmap
import os
import re
import shutil
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from helpers.leftovers import name_unfinished, remove_beside
from helpers.redaction import hide_secrets


class InputError(ValueError):
    """A file, a folder or a setting is not as it has to be.

    The message names it, what was expected, and what to do. Notebooks show the message alone, without the
    traceback through the library.
    """

    def _render_traceback_(self):
        """Tell IPython what to show instead of the traceback."""
        return [f"{type(self).__name__}: {self}"]


class Interrupted(KeyboardInterrupt):
    """Work was interrupted by who watches it; the message tells how far it is and how to go on."""

    _render_traceback_ = InputError._render_traceback_


def read_reason(error):
    """Read the first line of what an error of another library says, without secrets, or else its kind."""
    return hide_secrets(str(error).partition("\n")[0]) or type(error).__name__


def show_name(path):
    """Show the name of a file, whatever bytes it has: printable, with escapes such as ``\\xff`` and ``\\n``.

    Examples
    --------
    >>> print(show_name("two\\nlines.png"))
    two\\nlines.png
    """
    if (text := str(path)).isprintable():  # as nearly all are
        return text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class WriteError(InputError, OSError):
    """A file could not be written. The message names it, says why, how many bytes are free, and what to do."""


@contextmanager
def replace_atomically(path):
    """Give a temporary path beside ``path``, whose folder is made, and rename it to ``path`` when the block ends well.

    A block that fails, a full disk and a killed process leave what was at ``path`` before. What the disk refuses is a
    WriteError, which names ``path``.

    Examples
    --------
    >>> with replace_atomically("figures/table.csv") as unfinished:  # doctest: +SKIP
    ...     table.to_csv(unfinished)
    """
    path = Path(path)
    unfinished = name_unfinished(path)
    try:
        with name_failed_writes(path, unfinished):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            with open(unfinished, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


@contextmanager
def name_failed_writes(path, unfinished=None):
    """Turn what the disk refuses in the block into a WriteError that names ``path``; other errors stay as they are.

    ``unfinished`` is the name that the file, or the folder, has until it is complete.
    """
    path, before = Path(path), sys.exception()
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if (reason := _find_refusal(error, path, unfinished, before)) is None:
            raise
        raise WriteError(_describe_refusal(path, reason)) from error


def reserve_space(path, n_bytes):
    """Reserve the disk space of a file of so many bytes that is to be mapped into memory and written there.

    Without it a full disk would kill the process (SIGBUS) when a page is written. What does not fit is an OSError,
    which `replace_atomically` turns into a WriteError. Some file systems cannot reserve space, or do not tell how much
    they have.
    """
    total, _, free = shutil.disk_usage(Path(path).parent)
    try:
        if n_bytes > free and total:
            raise OSError(errno.ENOSPC, "")
        with open(path, "rb+") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            return
        if error.errno != errno.ENOSPC:
            raise
        what = f"No space left on device: it needs {n_bytes:,} bytes, of which {free:,} are free"
        raise OSError(errno.ENOSPC, what) from error


def _find_refusal(error, path, unfinished, before):
    """Find what the disk refused in an error or in what led to it since ``before``; None if it is something else."""
    places = {str(place) for place in (path, unfinished, *path.parents) if place}
    while error not in (None, before):
        named = getattr(error, "filename", None)
        inside = unfinished is not None and f"{named}".startswith(f"{unfinished}{os.sep}")  # of a folder
        if isinstance(error, OSError) and (named is None or inside or str(named) in places):
            unnumbered = error.errno is None and type(error) is OSError and re.search("writ", str(error))
            if error.errno in _REFUSALS or unnumbered:  # the latter as of NumPy and h5py
                return error
            if error.errno == errno.ENOENT and not path.parent.is_dir():
                return error
        error = error.__cause__ or error.__context__
    return None


def _describe_refusal(path, error):
    reason, remedy = error.strerror or read_reason(error), _REMEDIES.get(error.errno, "See that it can be written")
    if error.errno in (errno.ENOSPC, None) and "bytes" not in reason:
        with suppress(OSError):
            place = next(folder for folder in path.absolute().parents if folder.is_dir())
            reason += f"; {shutil.disk_usage(place).free:,} bytes are free"
    return f"{show_name(path)} cannot be written ({reason}). {remedy}, and run it again. What was there before is kept."


_REMEDIES = {
    errno.ENOSPC: "Make space on this disk, or use another one",
    errno.EDQUOT: "Your share of this disk is used up: make space",
    errno.EROFS: "The disk is read-only: use another one",
    errno.EACCES: "Allow writing there, or use another folder",
    errno.EPERM: "Allow writing there, or use another folder",
    errno.EIO: "The disk has a fault: use another one",
    errno.ENOENT: "Its folder has vanished while it was written: see that it stays",
    errno.ENOTDIR: "A part of its path is a file: remove it, or use another folder",
    errno.EISDIR: "There is a folder of this name: remove it",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.EFBIG: "The disk takes no file of this size: use another one",
}
_REFUSALS = _REMEDIES.keys() - {errno.ENOENT}


@contextmanager
def hold_lock(path, wait=False):
    """Keep other processes that ask for the same lock from working on ``path`` during the block.

    If another one holds it, raise InputError at once, or ``wait``. The lock is a hidden file beside ``path``; it ends
    with the process, however that ends. Where the file system has no locks, as on some clusters, nobody is kept out.
    """
    path = Path(path)
    place = path.with_name(f".{path.name}.lock")
    with name_failed_writes(path, place):
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = open(place, "w")  # noqa: SIM115 - it is closed when the lock ends
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                file.close()
                raise InputError(
                    f"{show_name(path)} is being written by another process. Wait until it has ended."
                ) from None
            except OSError:
                break
            with suppress(OSError):
                if os.path.samestat(os.fstat(file.fileno()), place.stat()):
                    break
            file.close()  # who held it has removed it in the meantime
    remove_beside(path)
    try:
        yield
    finally:
        with suppress(OSError):
            place.unlink()
        file.close()


def release_pages(array):
    """Give back the memory that the parts of a memory-mapped array took that have been read; other arrays stay.

    They are read again from the file, or the system's cache of it, when they are needed.
    """
    mapped = getattr(array, "base", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


_GUARDED = ("=", "+", "-", "@", "\t", "\r", "\n", "'")  # where a cell begins so, spreadsheets run it or drop a sign


def guard_cell(value):
    """Put an apostrophe before a text that a spreadsheet would take for a formula; other values stay as they are.

    A text that begins with an apostrophe gets one more, so that `unguard_cell` gives every text back.

    Examples
    --------
    >>> [guard_cell(value) for value in ("=1+1", "nv", -0.5)]
    ["'=1+1", 'nv', -0.5]
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_GUARDED) else value


def unguard_cell(text):
    """Give back the text that `guard_cell` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_GUARDED) else text
