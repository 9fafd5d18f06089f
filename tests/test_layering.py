"""The rooms of ``helpers`` know nothing of one another, and importing them costs no more than it has to."""

import ast
import doctest
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ROOMS = ("helpers.data", "helpers.training", "helpers.evaluation")
SHARED = tuple(
    f"helpers.{name}"
    for name in ("settings", "files", "archives", "leftovers", "seals", "redaction", "identity", "parallel", "progress")
)
ABOVE = (
    "helpers.run",
    "helpers.reports",
    "helpers.lab",
    "helpers.doctor",
    "helpers.app",
    "helpers.audit",
    "helpers.predict",
    "helpers.card",
    "helpers.experiment",
    "helpers.review",
    "helpers.study",
)  # the rooms, which they know
HEAVY = {"tensorflow", "keras"}
NEEDING_TENSORFLOW = ("helpers.training", "helpers.study.cnn", "helpers.card", "helpers.experiment", "helpers.review")


def name_module(path):
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_module(path): path for path in sorted((PROJECT / "helpers").rglob("*.py"))}


def find_imports(name, functions=True):
    """List the modules that a module imports, in full and in order; without those inside functions if asked."""
    found = []
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    waiting = [ast.parse(MODULES[name].read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{base}.{alias.name}" for alias in node.names]
        elif functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found


def lies_in(name, packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


# What four tests look at, each in its turn, in one interpreter.
CODE = """
import sys; sys.path.insert(0, PROJECT)
import os, warnings  # which Python loads anyway
before = dict(os.environ), list(warnings.filters), os.getcwd(), list(sys.path)
modules = set(sys.modules)
import helpers
modules = sorted(set(sys.modules) - modules)
after = dict(os.environ), list(warnings.filters), os.getcwd(), list(sys.path)
found = {"modules": modules, "unchanged": before == after, "files": os.listdir()}

import contextlib, doctest, importlib, json
for name in LIGHT:
    importlib.import_module(name)
found["light"] = sorted({name.split(".")[0] for name in sys.modules})

from helpers import Experiment
import helpers.study.cnn
for stream in (sys.stdout, sys.stderr):
    print("TensorFlow has started", file=stream, flush=True)

with contextlib.redirect_stdout(sys.stderr):  # where failed examples are shown
    results = [doctest.testmod(importlib.import_module(name)) for name in TRAINING]
found["examples"] = [sum(r.failed for r in results), sum(r.attempted for r in results)]
sys.stdout.write(json.dumps(found))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Import the package in a fresh interpreter, and tell what was found."""
    light = [name for name in MODULES if not lies_in(name, NEEDING_TENSORFLOW)]
    training = [name for name in MODULES if lies_in(name, ["helpers.training"])]
    code = f"PROJECT, LIGHT, TRAINING = {str(PROJECT)!r}, {light}, {training}\n{CODE}"
    folder = tmp_path_factory.mktemp("empty")
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    (before, found), (errors, failed) = (text.split("TensorFlow has started\n") for text in (run.stdout, run.stderr))
    return json.loads(found) | {"at the start": before + errors, "errors": failed}


def test_all_modules_were_found():
    assert {*ROOMS, *SHARED, "helpers", "helpers.data.split", "helpers.evaluation.report"} <= set(MODULES)
    assert "helpers.settings.Settings" in find_imports("helpers.data.opening")
    assert "keras" in find_imports("helpers.data.opening")


@pytest.mark.parametrize("name", MODULES)
def test_no_room_imports_another(name):
    own = [room for room in ROOMS if lies_in(name, [room])]
    if lies_in(name, ABOVE):
        allowed = ["helpers"]
    elif name == "helpers":
        allowed = ["helpers.experiment", "helpers.review"]
        assert find_imports(name, functions=False) == []  # only when it is asked for
    elif name in SHARED:
        allowed = SHARED
    else:
        assert own, f"{name} lies in no room: say here what it may import"
        allowed = [*own, *SHARED]
    assert [found for found in find_imports(name) if lies_in(found, ["helpers"]) and not lies_in(found, allowed)] == []


@pytest.mark.parametrize("name", MODULES)
def test_only_training_imports_tensorflow_at_module_level(name):
    found = {imported.split(".")[0] for imported in find_imports(name, functions=False)}
    if not lies_in(name, NEEDING_TENSORFLOW):
        assert not found & HEAVY


def test_importing_the_package_does_nothing(imported):
    assert imported["modules"] == ["helpers"]
    assert imported["unchanged"]
    assert imported["files"] == []


def test_data_and_evaluation_do_without_tensorflow(imported):
    assert {"helpers", "pandas", "matplotlib"} <= set(imported["light"])  # it looked
    assert not HEAVY & set(imported["light"])


def test_tensorflow_starts_without_its_log_lines(imported):
    assert imported["at the start"] == ""


@pytest.mark.parametrize("name", [name for name in MODULES if lies_in(name, NEEDING_TENSORFLOW[1:])])
def test_tensorflow_is_started_by_training(name):
    """Which holds back the log lines, also where a module is the first to be imported."""
    found = [found for found in find_imports(name, functions=False) if lies_in(found, ["helpers.training", *HEAVY])]
    assert lies_in(found[0], ["helpers.training"])


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_has_a_docstring(name):
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    documented = (ast.FunctionDef, ast.ClassDef)
    public = [node for node in tree.body if isinstance(node, documented) and not node.name.startswith("_")]
    own_classes = [node for node in public if isinstance(node, ast.ClassDef) and not node.bases]
    public += [
        node for owner in own_classes for node in owner.body if isinstance(node, documented) and node.name[0] != "_"
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("name", [name for name in MODULES if lies_in(name, ["helpers.data", "helpers.evaluation"])])
def test_examples_run(name):
    module = import_module(name)
    assert doctest.testmod(module).failed == 0
    examples = [example for test in doctest.DocTestFinder().find(module) for example in test.examples]
    assert [example.source for example in examples if doctest.SKIP in example.options] == []  # so that none can lie


def test_examples_of_training_run(imported):
    failed, attempted = imported["examples"]
    assert failed == 0, imported["errors"]
    assert attempted >= 4
