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
PAGE = PROJECT / "notebooks" / "07_your_own_image.ipynb"  # which trains nothing: it has rules of its own
NOTEBOOKS = sorted({*(PROJECT / "notebooks").glob("*.ipynb")} - {PAGE})
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
    "Honest evaluation",
]
QUESTIONS = [
    "Is the test set clean?",
    "Can the confidence be trusted?",
    "Would a shortcut do?",
    "How much change can it take?",
    "For whom does it work?",
    "Which errors, and which labels are doubtful?",
    "Where does it look?",
    "Was it chosen well?",
    "Would it refuse?",
    "Export",
]
ANSWERS = ["check_leaks", "check_calibration", "check_shortcuts", "check_robustness", "check_views", "check_subgroups"]
ANSWERS += ["show_errors", "find_doubtful_labels", "show_evidence", "check_choice", "check_strangers", "export_forms"]
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


def test_all_ask_the_same_questions_in_the_same_order(notebook):
    sources = [cell.source for cell in notebook.cells]
    start = next(number for number, text in enumerate(sources) if text.startswith("## Honest evaluation"))
    assert re.findall(r"^### (.+)$", "\n".join(sources[start:]), re.MULTILINE) == QUESTIONS
    code = "\n".join(cell.source for cell in notebook.cells[start:] if cell.cell_type == "code")
    calls = re.findall(r"review\.(\w+)\(", code)
    assert list(dict.fromkeys(calls)) == ANSWERS


def test_most_of_what_is_said_about_a_question_is_said_in_all():
    """A sentence that only some notebooks have tells of their data."""
    parts = [nbformat.read(path, as_version=4) for path in NOTEBOOKS]
    texts = ["\n".join(cell.source for cell in part.cells if cell.cell_type == "markdown") for part in parts]
    sentences = [set(re.split(r"(?<=[.:?]) |\n+", text.partition("## Honest evaluation")[2])) for text in texts]
    shared = set.intersection(*sentences)
    assert min(len(shared) / len(own) for own in sentences) > 0.7


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
    assert len(with_text) >= 20


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


# What is shown says what it was made from, and what it means


def find_calls(cell, method):
    """Find the calls of a method in a code cell, such as those of ``experiment.show``."""
    calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    return [call for call in calls if ast.unparse(call.func).endswith(method)]


def displays_text(cell):
    """Tell whether a cell is a text, and not only a heading, or displays one that it computes."""
    if cell.cell_type == "markdown":
        return not cell.source.startswith("#")
    return any(find_calls(cell, name) for name in ("Markdown", "Unmarked"))


def list_pairs(notebook):
    """List each code cell with the cell after it."""
    pairs = zip(notebook.cells, [*notebook.cells[1:], nbformat.v4.new_markdown_cell("#")], strict=True)
    return [(cell, following) for cell, following in pairs if cell.cell_type == "code" and cell.source.strip()]


def test_every_figure_has_a_takeaway(notebook):
    without = [
        ast.unparse(call)
        for cell, following in list_pairs(notebook)
        for call in [*find_calls(cell, "experiment.show"), *find_calls(cell, ".show_figure")]
        if not any(keyword.arg == "takeaway" for keyword in call.keywords)
        and (len(call.args) < 3 or call.func.attr == "show_figure")
        and not displays_text(cell)
        and not displays_text(following)
    ]
    assert without == []


def test_every_figure_is_shown_by_the_experiment(notebook):
    """Which exports it, marks it and keeps it small."""
    assert [cell.source for cell in code_cells(notebook) if "save_figure(" in cell.source] == []
    shown = [output.data["text/plain"] for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert shown
    assert [text for text in shown if not text.startswith("<figure ")] == []


MARKS = {"01_mnist": "sample of 8 × 8 digits"}


def test_tables_and_sentences_of_the_sample_say_so(path, notebook):
    """From the cell that opens the data set on, but for what cells tell of the full run."""
    mark = MARKS.get(path.stem, "drawn sample")
    cells = code_cells(notebook)
    start = next(number for number, cell in enumerate(cells) if find_calls(cell, "open_data_set")) + 1
    shown = [(cell, output.get("data", {})) for cell in cells[start:] for output in cell.outputs]
    for kind, beginning in (("html", f"<small><em>{mark}</em></small>"), ("markdown", f"*{mark}:*")):
        texts = [(cell.source, data[f"text/{kind}"]) for cell, data in shown if f"text/{kind}" in data]
        assert texts
        unmarked = [(source, text) for source, text in texts if not text.startswith(beginning)]
        assert [text[:200] for source, text in unmarked if not re.search("full|Unmarked", source)] == []


def test_the_full_run_stands_near_the_top_and_in_the_conclusion(notebook):
    sources = [cell.source for cell in notebook.cells]
    top = sources[: sources.index(next(text for text in sources if text.startswith("## Exploratory data analysis")))]
    assert any(re.search(r"experiment\.full_run\b", text) for text in top)
    headings = re.findall(r"^#+ (.+)$", "\n".join(sources), re.MULTILINE)
    assert headings.index("Conclusion") < headings.index("What the full run gave")
    text = "\n".join(sources).partition("What the full run gave\n")[2].partition("\n## ")[0]
    assert 2 <= text.count(".show_figure(") <= 4
    assert "compare_with_full_run(" in text
    assert "compare_directions(" in text


def test_it_ends_with_what_to_read_and_to_try(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert {"Related work and what to read on", "What to read on"} & set(headings)
    assert "Try it" in headings


def test_terms_are_linked_to_the_glossary(notebook):
    glossary = (PROJECT / "notebooks" / "glossary.md").read_text(encoding="utf-8")
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", glossary, re.MULTILINE)}
    linked = re.findall(r"glossary\.md#([\w-]*)", "\n".join(cell.source for cell in notebook.cells))
    assert linked
    assert set(linked) <= anchors


def test_no_network_with_random_weights_stands_beside_others(notebook):
    assert "random weights" not in "".join(str(output) for output in outputs(notebook)).lower()


def test_the_page_of_ones_own_image_keeps_the_rules_that_are_not_about_training():
    notebook = nbformat.read(PAGE, as_version=4)
    for rule in (test_every_cell_was_executed_in_order, test_cells_are_short, test_no_errors_no_warnings_no_noise):
        rule(notebook)
    for rule in (test_numbers_in_prose_are_not_results, test_terms_are_linked_to_the_glossary):
        rule(notebook)
    test_notebook_is_valid_and_small(PAGE, notebook)
    test_no_path_of_one_machine(PAGE)
    assert len(code_cells(notebook)) <= 4


def test_the_page_of_ones_own_image_is_saved_as_it_is_seen_without_a_kernel():
    notebook = nbformat.read(PAGE, as_version=4)
    data = [output.data for output in outputs(notebook) if "data" in output]
    shown = "".join(part.get("text/html", "") for part in data)
    assert "Not for clinical use" in shown
    assert "data:image/png" in shown
    assert [part for part in data if "application/vnd.jupyter.widget-view+json" in part] == []
    assert "widgets" not in notebook.metadata
