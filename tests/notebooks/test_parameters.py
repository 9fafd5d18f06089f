"""The cell of parameters: what is set there counts, whoever sets it."""

import ast
import re
from pathlib import Path

import nbformat
import papermill
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("0[1-6]_*.ipynb"))
TRAINED = "{name: len(history) for name, history in experiment.histories.items()}"


def is_tagged(cell):
    return "parameters" in cell.metadata.get("tags", [])


def list_names(source, kind):
    """List the names in a cell that are assigned (ast.Store) or used (ast.Load), functions included."""
    nodes = list(ast.walk(ast.parse(source)))
    return [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, kind)]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def cells(request):
    notebook = nbformat.read(request.param, as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_each_parameter_is_assigned_once_and_used_later(cells):
    place = next(number for number, cell in enumerate(cells) if is_tagged(cell))
    names = list_names(cells[place].source, ast.Store)
    assert "EPOCHS" in names
    assert len(names) == len(set(names))
    others = [name for cell in cells[:place] + cells[place + 1 :] for name in list_names(cell.source, ast.Store)]
    assert set(names) & set(others) == set()
    used = {name for cell in cells[place + 1 :] for name in list_names(cell.source, ast.Load)}
    assert set(names) - used == set()


def test_each_parameter_is_one_plain_assignment(cells):
    """So that an edited value counts in both modes, and none follows from another one, which may be set after it."""
    (cell,) = filter(is_tagged, cells)
    statements = ast.parse(cell.source).body
    assert {type(statement) for statement in statements} == {ast.Assign}
    assert [statement for statement in statements if not isinstance(statement.targets[0], ast.Name)] == []
    assert set(list_names(cell.source, ast.Load)) == {"experiment"}
    texts = [ast.unparse(node) for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Attribute)]
    assert set(texts) == {"experiment.quick"}


def test_the_switch_to_the_full_run_is_told_beside_the_experiment(cells, request):
    name = request.node.callspec.params["cells"].stem
    notebook = nbformat.read(request.node.callspec.params["cells"], as_version=4)
    place = next(n for n, cell in enumerate(notebook.cells) if f'experiment = Experiment("{name}")' in cell.source)
    told = 'To make the full run from inside the notebook, write `Experiment("{}", mode="full")` in the next cell.'
    assert told.format(name) in notebook.cells[place - 1].source
    parameters = next(number for number, cell in enumerate(notebook.cells) if is_tagged(cell))
    told = "A value that you change here counts, whatever the mode; `papermill -p EPOCHS 1` changes one from outside."
    assert told in notebook.cells[parameters - 1].source


def test_papermill_trains_as_long_as_it_is_told(tmp_path, monkeypatch):
    for name, value in {"NOTEBOOK_MODE": "quick", "DATA_SOURCE": "sample", "CACHE_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    last = next(number for number, cell in enumerate(notebook.cells) if "experiment.fit(" in cell.source)
    skipped = re.compile(r"full_run|plain\.fit")
    notebook.cells = [cell for cell in notebook.cells[: last + 1] if not skipped.search(cell.source)]
    for cell in notebook.cells:  # no figure is to take the place of that of a run
        made = 'experiment = Experiment("01_mnist")'
        cell.source = cell.source.replace(made, f"{made}\nexperiment.show = lambda *_, **__: None")
    notebook.cells.append(nbformat.v4.new_code_cell(TRAINED))
    nbformat.write(notebook, tmp_path / "cut.ipynb")
    papermill.execute_notebook(
        tmp_path / "cut.ipynb",
        tmp_path / "out.ipynb",
        {"EPOCHS": 1, "MOST_IMAGES": 400},
        cwd=NOTEBOOKS[0].parent,
        progress_bar=False,
    )
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].data["text/plain"] == "{'cnn clean': 1}"
