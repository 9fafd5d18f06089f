"""`make test` compares the outputs of notebooks with the saved ones: it has to notice when they differ."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
from nbval.plugin import get_sanitize_patterns

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SANITIZED = Path(__file__).with_name("sanitize.cfg")


def find_number(output):
    return re.search(r">\d+<", output.get("data", {}).get("text/html", ""))


def shorten(notebook):
    """Leave out what follows the first table with a number; return its output."""
    for place, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()) if "tags" not in cell.metadata else ():
            if find_number(output):
                del notebook.cells[place + 1 :]
                return output
    raise LookupError("The notebook has no table that is compared.")


def test_a_changed_number_is_found(tmp_path):
    notebook = nbformat.read(NOTEBOOKS / "01_mnist.ipynb", as_version=4)
    table = shorten(notebook).data
    table["text/html"] = re.sub(r">(\d+)<", lambda found: f">{int(found[1]) + 1}<", table["text/html"], count=1)
    nbformat.write(notebook, tmp_path / "changed.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    run = subprocess.run(
        [*command, "--nbval-sanitize-with", SANITIZED, "changed.ipynb"],
        cwd=tmp_path,
        env=os.environ | {"NOTEBOOK_MODE": "quick", "DATA_SOURCE": "sample"},
        capture_output=True,
        text=True,
    )
    last = sum(cell.cell_type == "code" for cell in notebook.cells) - 1
    assert re.findall(r"FAILED .*::Cell (\d+)", run.stdout) == [str(last)], run.stdout[-2000:]
    assert f"1 failed, {last} passed" in run.stdout


def test_the_patterns_suit_pytest_notebook_too():
    """Its setting ``nb_diff_replace`` takes lines of a path, a regex and a replacement, split at blanks."""
    text = SANITIZED.read_text(encoding="utf-8")
    patterns = get_sanitize_patterns(text)
    assert len(patterns) == len(re.findall(r"(?m)^\[", text)) > 0
    lines = [f'/cells/*/outputs "{regex}" "{replacement}"' for regex, replacement in patterns]
    triples = [tuple(part.strip('"') for part in shlex.split(line, posix=False)) for line in lines]
    assert triples == [("/cells/*/outputs", *pattern) for pattern in patterns]
    output = "<Figure size 640x480 with 2 Axes> of <Axes at 0x7f3a2b1c9d10>"
    for _, regex, replacement in triples:
        assert re.search(regex, output), regex
        assert "\\" not in replacement
        output = re.sub(regex, replacement, output)
    assert output == "<Figure> of <Axes at 0x>"
