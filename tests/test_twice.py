"""The check that cells can be run twice, on notebooks made on the spot."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FINE = """
import json, os, time
from pathlib import Path
import pandas as pd
start = time.perf_counter()
table = pd.DataFrame({"class": ["a", "b"], "seconds": [time.perf_counter(), time.time()]})
table
"""
EXPORT = """
folder = Path("exports/fine")
folder.mkdir(parents=True, exist_ok=True)
table.assign(share=[0.25, 0.75]).to_csv(folder / "table.csv", index=False)
results = {"sample": True, "peak_memory_mb": start, "results": {"cnn": {"accuracy": 0.5, "cost": {"minutes": start}}}}
(folder / "results.json").write_text(json.dumps(results)) and None
"""
SHOWN = """
from IPython.display import Markdown, display
display(Markdown(f"Trained in {time.perf_counter() - start:.9f} s, {time.time():,.1f} images/s."), object())
display(table[["class"]].style.hide(axis="index"))
print(os.environ["NOTEBOOK_MODE"], os.environ["DATA_SOURCE"], len(os.listdir(os.environ["CACHE_DIR"])))
"""


@pytest.fixture
def twice(tmp_path, monkeypatch):
    """Give the script, with the exports of a notebook in ``exports`` beside it."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "notebooks")
    import twice

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(twice, "FIGURES_FOLDER", tmp_path / "exports")
    return twice


def write_notebook(name, *sources):
    path = Path(f"{name}.ipynb")
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Title"), *map(new_code_cell, sources)]), path)
    return str(path)


def test_a_fine_notebook(twice, capsys, monkeypatch):
    path = write_notebook("fine", FINE, "", EXPORT, SHOWN)
    normal = Path("normal/fine")
    normal.mkdir(parents=True)
    (normal / "table.csv").write_text("class,seconds,share\na,1.5,0.25\nb,2.5,0.75\n")
    results = {"sample": True, "peak_memory_mb": 9, "results": {"cnn": {"accuracy": 0.5, "cost": {"minutes": 1}}}}
    (normal / "results.json").write_text(json.dumps(results))
    assert twice.main([path, "--against", "normal"]) == 0
    assert capsys.readouterr() == ("fine  the same twice\n", "")

    results["results"]["cnn"]["accuracy"] = 0.6
    (normal / "results.json").write_text(json.dumps(results))
    (normal / "table.csv").write_text("class,seconds,share\na,1.5,0.25\nb,2.5,0.7\n")
    (normal / "further.csv").write_text("a,b\n1,2\n")
    monkeypatch.setattr(twice, "execute_twice", lambda path: [])  # once is enough
    assert twice.main([path, "--against", "normal"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "fine  DIFFERS",
        "  further.csv is not that of the normal run:",
        "    -a,b",
        "    -1,2",
        "  results.json is not that of the normal run:",
        '    -   "accuracy": 0.6,',
        '    +   "accuracy": 0.5,',
        "  table.csv is not that of the normal run:",
        "    -b,0.7",
        "    +b,0.75",
    ]


def test_cells_that_differ_or_fail_are_told_and_the_other_notebooks_are_executed(twice, capsys):
    counting = write_notebook(
        "counting",
        "count = 0\nnames = ['a']",
        "count += 1\ncount",
        "print(f'epoch {count}')\ncount += 1",
        "f'<{count}>'",
        "print(*range(count + 20), sep='\\n')\ncount += 9",
        "names.remove('a')",
        "count",
    )
    assert twice.main([counting, write_notebook("plain", "1 + 1")]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "counting  DIFFERS",
        "  cell 2 shows something else:",
        "    -1",
        "    +2",
        "  cell 3 shows something else:",
        "    -epoch 2",
        "    +epoch 3",
        "  cell 5 shows something else:",
        *(f"    +{number}" for number in range(24, 30)),
        "    … 3 more",
        "  cell 6 fails the second time: ValueError: list.remove(x): x not in list",
        "plain  the same twice",
    ]


def test_a_kernel_that_dies(twice, capsys):
    assert twice.main([write_notebook("dead", "1", "import os; os._exit(9)")]) == 1
    assert capsys.readouterr().out.startswith("dead  DIFFERS\n  cell 2 fails the first time: Kernel died")


def test_bad_input(twice, capsys):
    path = write_notebook("fine", "1")
    assert twice.main(["nowhere"]) == 2
    assert twice.main([path, "--against", "exports"]) == 2
    assert capsys.readouterr().err.splitlines()[1] == (
        "error: --against exports: no tables of fine. Run it normally first."
    )
