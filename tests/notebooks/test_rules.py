"""The rules that every notebook keeps, read from its file."""

import ast
import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path
from statistics import median

import nbformat
import pytest

import helpers

PROJECT = Path(__file__).parents[2]
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
HEADINGS = [
    "Setup",
    "Data",
    "Exploratory data analysis",
    "Preprocessing",
    "Augmentation",
    "Convolutional network",
    "Transfer learning",
    "Evaluation",
    "Conclusion",
    "Further analyses",
]
MOST_CELLS = 45  # of the story up to the conclusion, and of what follows
MOST_FUNCTIONS = 4
OPTIONAL_HEADINGS = {"Transfer learning"}
IGNORED = "nbval-ignore-output"


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_notebook_is_valid_and_small(path, notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert path.stat().st_size < 1_500_000


def test_headings_are_the_same_in_all(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert found == [heading for heading in HEADINGS if heading in found or heading not in OPTIONAL_HEADINGS]
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")


def test_the_story_and_what_follows_are_short(notebook):
    (turn,) = [number for number, cell in enumerate(notebook.cells) if cell.source.startswith("## Further analyses")]
    for cells in (notebook.cells[:turn], notebook.cells[turn:]):
        assert len([cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]) <= MOST_CELLS


def test_functions_are_few_and_no_two_notebooks_have_one_of_the_same_name():
    defined = {path.stem: list_functions(nbformat.read(path, as_version=4)) for path in NOTEBOOKS}
    assert {name: len(names) for name, names in defined.items() if len(names) > MOST_FUNCTIONS} == {}
    names = [name for names in defined.values() for name in names]
    assert sorted(names) == sorted(set(names))


def list_functions(notebook):
    trees = [ast.parse(cell.source) for cell in code_cells(notebook)]
    return [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def test_parameters_stand_in_one_cell(notebook):
    assert ["parameters" in cell.metadata.get("tags", []) for cell in code_cells(notebook)].count(True) == 1


def test_networks_are_written_as_layers_of_keras(notebook):
    code = "\n".join(cell.source for cell in code_cells(notebook))
    assert "layers.Conv2D(" in code
    assert "layers.Dense(" in code
    assert "build_cnn(" not in code.replace("_build_cnn(", "").replace("def build_cnn(", "").replace(
        "partial(build_cnn", ""
    )


def test_cells_are_short(notebook):
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    assert max(lengths) <= 25
    assert median(lengths) <= 6


def test_every_cell_was_executed_in_order(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_no_errors_no_warnings_no_noise(notebook):
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.get("text")
        assert len(output.get("text", "").splitlines()) <= 40


def test_enough_outputs_are_compared_strictly(notebook):
    strict = [cell for cell in code_cells(notebook) if IGNORED not in cell.metadata.get("tags", [])]
    with_text = [cell for cell in strict if any(holds_text(output) for output in cell.outputs)]
    assert len(with_text) >= 10


def holds_text(output):
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    return bool(text) and not text.startswith("<Figure")


def test_no_path_of_one_machine(path):
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|Users|work)/", path.read_text(encoding="utf-8"))


def test_outputs_are_those_of_the_sample(notebook):
    text = "".join(str(output) for output in outputs(notebook))
    assert "figures/sample/" in text


def test_no_function_that_a_helper_has(notebook):
    modules = [import_module(m.name) for m in pkgutil.walk_packages(helpers.__path__, "helpers.")]
    known = {name for module in modules for name, _ in inspect.getmembers(module, inspect.isfunction)}
    assert not set(list_functions(notebook)) & known


NAMES = [*sorted((PROJECT / "helpers").rglob("*.py")), *sorted((PROJECT / "samples").rglob("*.py")), *NOTEBOOKS]


@pytest.mark.parametrize("path", NAMES, ids=lambda path: path.stem)
def test_no_variable_is_called_of(path):
    sources = [path.read_text(encoding="utf-8")]
    if path.suffix == ".ipynb":
        sources = [cell.source for cell in code_cells(nbformat.read(path, as_version=4))]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    names = {node.id for node in nodes if isinstance(node, ast.Name)} | {n.arg for n in nodes if isinstance(n, ast.arg)}
    assert {name for name in names if name == "of" or name.startswith("of_")} == set()


def test_numbers_in_prose_are_not_results(notebook):
    """Accuracies stand in computed cells; prose that states one would be wrong after the next run."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"\d{2}[.,]\d+ ?%", cell.source), cell.source
