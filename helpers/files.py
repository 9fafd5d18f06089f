"""Files: written so that they are complete or not there, mapped into memory no longer than needed; bad input."""

import mmap
import os
import secrets
from contextlib import contextmanager
from pathlib import Path


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
    """Read the first line of what an error of another library says, or else its kind."""
    return str(error).partition("\n")[0] or type(error).__name__


def show_name(path):
    """Show the name of a file, whatever bytes it has: printable, with escapes such as ``\\xff`` and ``\\n``.

    Examples
    --------
    >>> print(show_name("two\\nlines.png"))
    two\\nlines.png
    """
    text = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


@contextmanager
def replace_atomically(path):
    """Give a temporary path beside ``path``, whose folder is made, and rename it to ``path`` when the block ends well.

    A block that fails, a full disk and a killed process leave what was at ``path`` before.

    Examples
    --------
    >>> with replace_atomically("figures/table.csv") as unfinished:  # doctest: +SKIP
    ...     table.to_csv(unfinished)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")  # the suffix tells the format
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


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
