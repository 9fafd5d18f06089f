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

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_MOST_COLUMNS, _MOST_BYTES = 10_000, 2**28  # of a table
_SPREADSHEETS = (b"PK\3\4", b"\xd0\xcf\x11\xe0")  # how .xlsx and .ods begin, and .xls


def read_metadata(path, needed):
    """Read a table as text; ``metadata_row`` numbers its rows from 0, ``line`` those of the file from 1.

    The separator is a comma, semicolon, tab or vertical bar; the encoding UTF-8, UTF-16 with a byte order mark, or
    Windows-1252. The columns ``needed`` are found whatever their case and the blanks in their names; other names become
    lower-case. Rows of empty cells have a number, but are left out.

    Raise InputError if the file is missing or is no table, if a column ``needed`` is missing or there twice, or if a
    row is longer than the head or ends before a column ``needed``.
    """
    try:
        with open(path, "rb") as file:
            if file.read(4) in _SPREADSHEETS:
                raise ValueError("it is a file of a spreadsheet program: open it there and save it as CSV, in UTF-8")
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise ValueError(f"it has {size:,} bytes; at most {_MOST_BYTES:,} are read")
        dialect = sniff(path)
        try:
            text = path.read_text(dialect["encoding"])
        except UnicodeDecodeError:
            text = path.read_text("cp1252")
        if "\0" in text:
            raise ValueError("it is no text")
        (_, head), *rows = _read_rows(text, dialect["sep"])
        if len(head) > _MOST_COLUMNS:
            raise ValueError(f"it has {len(head):,} columns; at most {_MOST_COLUMNS:,} are read")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a table with one row per image ({error}). {REMEDY}") from error
    rows = [(number, line, row) for number, (line, row) in enumerate(rows) if any(row)]
    names = _check_rows(path, head, rows, needed, f"(separator: {_SEPARATORS[dialect['sep']]})")
    clean = io.StringIO()
    csv.writer(clean).writerows([names, *(row for *_, row in rows)])
    clean.seek(0)
    table = pd.read_csv(clean, dtype="str", index_col=False).set_axis(names, axis="columns")  # words such as NA are NaN
    numbers = {"metadata_row": [number for number, *_ in rows], "line": [line for _, line, _ in rows]}
    return table.loc[:, ~table.columns.duplicated()].assign(**numbers)


def _read_rows(text, separator):
    """Read the rows of a table that are no blank lines: the number of the line where each ends, and its cells."""
    reader, rows = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True), []
    try:
        for row in reader:
            rows.append((reader.line_num, [cell.strip() for cell in row]))
    except csv.Error as error:
        raise ValueError(f"line {1 + (rows[-1][0] if rows else 0)}: {error}") from error
    rows = [(line, row) for line, row in rows if row not in ([], [""])]
    rows = rows[1:] if rows and rows[0][1][0].lower() == "sep=" else rows  # how Excel is told the separator
    if not rows:
        raise ValueError("it is empty")
    return rows


def _check_rows(path, head, rows, needed, sign):
    """Make sure that there are the columns and cells that are needed, and no more; give the names of the columns.

    A row of which only the end is missing is filled up.
    """
    written = {_fold(name): name for name in needed}
    names = [written.get(_fold(name), _fold(name)) for name in head]
    missing = [name for name in needed if name not in names]
    if wrong := missing or [name for name in needed if names.count(name) > 1]:
        there = textwrap.shorten(", ".join(filter(None, names)), 500, placeholder=" …")
        raise InputError(
            f"{path} has {'no column' if missing else 'two columns'} {', '.join(wrong)}; it has {there} {sign}. "
            f"Rename the columns if they have other names. {REMEDY}"
        )
    for _, line, row in rows:
        if not 1 + max(map(names.index, needed)) <= len(row) <= len(names):
            raise InputError(
                f"{path}, line {line}: {len(row)} cells, expected {len(names)}, as many as in the first line {sign}. "
                f"A cell that holds the separator, such as a decimal comma, has to be in quotes. {REMEDY}"
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
