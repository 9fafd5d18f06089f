"""Tables with one row per image, as spreadsheets and other programs save them."""

import codecs
import csv
import io
import re
import textwrap

import pandas as pd

from helpers.data.layouts.common import REMEDY
from helpers.data.listing import PICTURE_ENDINGS
from helpers.files import InputError

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_SPREADSHEETS = (b"PK\3\4", b"\xd0\xcf\x11\xe0")  # how .xlsx and .ods begin, and .xls


def read_metadata(path, needed):
    """Read a table as text, its rows numbered from 0 in ``metadata_row``.

    The separator is a comma, a semicolon or a tab; the encoding UTF-8, UTF-16 with a byte order mark, or Windows-1252.
    The columns ``needed`` are found whatever their case and the blanks in their names; other names become lower-case.

    Raise InputError if the file is missing or is no table, if a column ``needed`` is missing or there twice, or if a
    row is longer than the head or ends before a column ``needed``.
    """
    try:
        with open(path, "rb") as file:
            if file.read(4) in _SPREADSHEETS:
                raise ValueError("it is a file of a spreadsheet program: open it there and save it as CSV, in UTF-8")
        dialect = sniff(path)
        try:
            text = path.read_text(dialect["encoding"])
        except UnicodeDecodeError:
            text = path.read_text("cp1252")
        if "\0" in text:
            raise ValueError("it is no text")
        names = _check_rows(path, text, dialect["sep"], needed)
        table = pd.read_csv(io.StringIO(text), sep=dialect["sep"], dtype="str", skipinitialspace=True, index_col=False)
    except InputError:
        raise
    except (OSError, ValueError, csv.Error) as error:  # ValueError: what pandas makes of empty and binary files
        raise InputError(f"{path} cannot be read as a table with one row per image ({error}). {REMEDY}") from error
    table = table.apply(lambda column: column.str.strip()).set_axis(names, axis="columns")
    return table.loc[:, ~table.columns.duplicated()].assign(metadata_row=range(len(table)))


def _check_rows(path, text, separator, needed):
    """Make sure of what pandas does not say: it cuts long rows, or moves them, and fills up short ones; give the names.

    A row of which only the end is missing is filled up.
    """
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
    rows = (row for row in reader if row not in ([], [""]))  # pandas passes over empty lines too
    written, sign = {_fold(name): name for name in needed}, f"(separator: {_SEPARATORS[separator]})"
    names = [written.get(_fold(name), _fold(name)) for name in next(rows, [])]
    missing = [name for name in needed if name not in names]
    if names and (wrong := missing or [name for name in needed if names.count(name) > 1]):
        there = textwrap.shorten(", ".join(filter(None, names)), 500, placeholder=" …")
        raise InputError(
            f"{path} has {'no column' if missing else 'two columns'} {', '.join(wrong)}; it has {there} {sign}. "
            f"Without one of each name no image can be used. Rename the columns if they have other names. {REMEDY}"
        )
    for row in rows:
        if not 1 + max(map(names.index, needed)) <= len(row) <= len(names):
            raise InputError(
                f"{path}, line {reader.line_num}: {len(row)} cells, expected {len(names)}, as many as in the first "
                f"line {sign}. A cell that holds the separator, such as a decimal comma, has to be in quotes. {REMEDY}"
            )
    return names


def sniff(path):
    """Find out how a table is written, as `pandas.read_csv` wants it: its encoding, if marked, and its separator."""
    with open(path, "rb") as file:
        is_wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if is_wide else "utf-8-sig"
    with open(path, encoding=encoding, errors="replace") as file:
        head = next((line for line in file if line.strip()), "")
    return {"encoding": encoding, "sep": max(_SEPARATORS, key=head.count)}


def strip_ending(name):
    """Give the name of an image without its ending and its folders, if it has the ending of an image."""
    stem, dot, ending = name.rpartition(".")
    return stem.rpartition("/")[2] if stem and dot + ending.lower() in PICTURE_ENDINGS else name


def _fold(name):
    """Make one name of those that differ in case and in blanks."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())
