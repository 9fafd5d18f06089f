"""Execute notebooks with each code cell twice in a row: ``python tests/notebooks/twice.py [NOTEBOOK ...]``.

A reader runs cells again. No cell may fail then, show anything else, or change the tables that the notebook exports.
Run it on the sample in quick mode, as ``make twice`` does.
"""

import argparse
import configparser
import csv
import difflib
import json
import os
import re
import sys
import tempfile
from copy import deepcopy
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from helpers.files import InputError
from helpers.run import find_notebooks
from helpers.settings import PROJECT_FOLDER

FIGURES_FOLDER = PROJECT_FOLDER / "figures" / "sample"
ENVIRONMENT = {"NOTEBOOK_MODE": "quick", "DATA_SOURCE": "sample", "NOTEBOOK_PROGRESS": "off"}
TIMES = re.compile("seconds|minutes|memory|opened|^ms_")  # in the names of what may differ between two runs
UNITS = r"(?:s|ms|min|h|seconds|minutes|hours|CPU-minutes|[kMG]B|images/s)"
SHOWN_LINES = 6  # of a difference


def main(arguments=None):
    """Run the command line; return the exit status: 0, 1 (a notebook differs or fails) or 2 (bad input)."""
    parser = argparse.ArgumentParser(prog="python tests/notebooks/twice.py", description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="a name such as 01_mnist; default: all")
    parser.add_argument(
        "--against", type=Path, metavar="FOLDER", help="compare with the tables of a normal run in here"
    )
    options = parser.parse_args(arguments)
    try:
        paths = find_notebooks(options.notebooks)
        # Read first, because FOLDER may be where the notebooks write.
        expected = {path: options.against and read_tables(options.against / path.stem) for path in paths}
        writing = [path for path in paths if path.stem != "07_your_own_image"]  # which has no results
        if missing := [path.stem for path in writing if expected[path] == {}]:
            raise InputError(f"--against {options.against}: no tables of {', '.join(missing)}. Run it normally first.")
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    failed = False
    for path in paths:
        problems = execute_twice(path)
        if options.against and not problems:
            problems = compare_tables(expected[path], read_tables(FIGURES_FOLDER / path.stem))
        ended = "DIFFERS" if problems else "the same twice"
        sys.stdout.write("\n".join([f"{path.stem}  {ended}", *problems, ""]))
        sys.stdout.flush()
        failed |= bool(problems)
    return int(failed)


def execute_twice(path):
    """Execute each code cell of a notebook twice in a row, in one kernel; describe what failed or differed."""
    notebook = nbformat.read(path, as_version=4)
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    notebook.cells = [deepcopy(cell) for cell in code_cells for _ in range(2)]
    for cell in notebook.cells:
        cell.outputs, cell.id = [], nbformat.v4.new_code_cell().id
    error, started = None, []
    with tempfile.TemporaryDirectory() as cache:  # empty, so that no training is taken from an earlier run
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_start=lambda cell, cell_index: started.append(cell_index),
        )
        try:
            client.execute(env=os.environ | ENVIRONMENT | {"CACHE_DIR": cache})
        except (CellExecutionError, DeadKernelError) as caught:
            error = caught
    pairs = list(zip(notebook.cells[::2], notebook.cells[1::2], strict=True))
    if error:
        number, time = divmod(started[-1], 2)
        message = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error)
        failure = f"  cell {number + 1} fails the {('first', 'second')[time]} time: {message}"
        return [*compare_outputs(pairs[:number]), failure]
    return compare_outputs(pairs)


def compare_outputs(pairs):
    """Describe the cells that did not show the same both times."""
    differences = {
        number: show_difference(*(simplify_outputs(cell.outputs) for cell in pair))
        for number, pair in enumerate(pairs, start=1)
    }
    return [f"  cell {number} shows something else:\n{text}" for number, text in differences.items() if text]


def simplify_outputs(outputs):
    """List the lines of text, HTML and Markdown that outputs show, without what may differ between two runs."""
    shown, last = [], None
    for output in outputs:
        if last is not None and output.get("name") == last.get("name") and "text" in output and "text" in last:
            shown[-1] += output["text"]  # a stream comes in pieces, cut anywhere
            continue
        last = output
        data = output.get("data", {})
        kinds = [kind for kind in ("text/html", "text/markdown", "text/plain") if kind in data][
            :1
        ]  # the one that is seen
        shown += [output["text"]] if "text" in output else [data[kind] for kind in kinds]
    return [line for text in shown for line in sanitize(text).splitlines()]


def sanitize(text):
    """Replace what may differ between two runs of a cell: addresses, the ids of tables, and times."""
    sanitizers = configparser.ConfigParser(interpolation=None)
    sanitizers.read(Path(__file__).with_name("sanitize.cfg"), encoding="utf-8")
    for section in sanitizers.values():
        if "regex" in section:
            text = re.sub(section["regex"], section["replace"], text)
    text = re.sub(r"T_[0-9a-f]{5,}", "T_", text)
    text = re.sub(rf"\d[\d.,]* ?{UNITS}\b", "TIME", text)
    if re.search(
        "seconds|minutes", text
    ):  # a table with a column of times: which numbers they are is not told from its text
        text = re.sub(r"\d[\d.,]*", "0", re.sub(r"[ \t]+", " ", text))
    return text


def read_tables(folder):
    """Read the exported tables and ``results.json``, as lines, without times, costs and memory."""
    tables = {}
    for path in sorted(folder.glob("*.csv")):
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *rows = csv.reader(file)
        kept = [column for column, name in enumerate(header) if not TIMES.search(name)]
        lines = [",".join(row[column] for column in kept) for row in (header, *rows)]
        # The hash of a model's file, see helpers.predict: Keras writes addresses of its memory into the file.
        tables[path.name] = [re.sub(r"\b[0-9a-f]{12}$", "HASH", line) for line in lines]
    if (path := folder / "results.json").exists():
        results = json.loads(path.read_text(encoding="utf-8"), object_hook=drop_times)
        tables[path.name] = json.dumps(results, indent=1).splitlines()
    return tables


def drop_times(found):
    """Leave times, costs and memory out of a part of ``results.json``."""
    return {name: value for name, value in found.items() if not TIMES.search(name)}


def compare_tables(expected, found):
    """Describe the tables that are not those of the normal run."""
    names = sorted(expected.keys() | found.keys())
    differences = {name: show_difference(expected.get(name, []), found.get(name, [])) for name in names}
    return [f"  {name} is not that of the normal run:\n{text}" for name, text in differences.items() if text]


def show_difference(before, after):
    """Show the first lines that differ; "" if none does."""
    lines = [line for line in difflib.unified_diff(before, after, n=0, lineterm="") if line[:3] not in ("---", "+++")]
    lines = [line for line in lines if not line.startswith("@@")]
    more = [f"… {len(lines) - SHOWN_LINES} more"] if len(lines) > SHOWN_LINES else []
    return "\n".join(f"    {line[:110]}" for line in lines[:SHOWN_LINES] + more)


if __name__ == "__main__":
    sys.exit(main())
