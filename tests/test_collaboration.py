"""What GitHub and git read: workflows, templates, the citation, and how notebooks are compared."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

PROJECT = Path(__file__).parents[1]
ABOUT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TEMPLATES = sorted((PROJECT / ".github" / "ISSUE_TEMPLATE").glob("[0-9]*.yml"))


def read(path):
    return yaml.safe_load((PROJECT / path).read_text(encoding="utf-8"))


def test_the_workflow_runs_all_tests_on_every_python():
    workflow = read(".github/workflows/ci.yml")
    job = workflow["jobs"]["test"]
    runs = job["strategy"]["matrix"]["include"]
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", ABOUT["requires-python"]).groups()
    assert sorted(run["python"] for run in runs) == [f"3.{minor}" for minor in range(int(low), int(high))]
    assert [run["python"] for run in runs if run["command"] == ".ci/run"] == ["3.12"]
    assert job["timeout-minutes"] <= 90
    assert workflow["permissions"] == {"contents": "read"}
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert len(used) == 3
    assert [action for action in used if not re.fullmatch(r"actions/[\w-]+@v\d+", action)] == []
    assert workflow[True].keys() == {"push", "pull_request"}  # YAML takes "on" for true


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_issue_templates_are_forms(path):
    form = read(path)
    assert set(form) == {"name", "description", "labels", "body"}
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids)) >= 3
    for field in form["body"]:
        assert field["type"] in {"input", "textarea", "dropdown"}
        assert field["attributes"]["label"]
        assert field["validations"] == {"required": True}


def test_there_is_a_template_for_each_kind_of_issue():
    assert [path.stem for path in TEMPLATES] == ["1-bug", "2-result", "3-data-set"]


def test_the_citation_is_that_of_the_project_and_names_nobody_yet():
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # which its schema requires
    assert [citation[key] for key in ("title", "version", "license")] == [ABOUT["name"], ABOUT["version"], "MIT"]
    assert ABOUT["description"] in citation["abstract"]
    assert citation["authors"] == [{"name": "OWNER (placeholder)"}]
    assert citation["repository-code"] == "https://github.com/OWNER/REPOSITORY"


# Notebooks in git


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Make a repository with one notebook of three cells, and a function that runs git."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    folder = tmp_path / "project"
    (folder / ".ci").mkdir(parents=True)
    for name in (".gitattributes", ".ci/nbdime"):
        (folder / name).write_bytes((PROJECT / name).read_bytes())
    (folder / ".ci" / "nbdime").chmod(0o755)

    def git(*arguments, check=True):
        command = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.com", *arguments]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0 or not check, run.stderr
        return run.stdout

    git("init", "--quiet", "--initial-branch=main")
    cells = [nbformat.v4.new_code_cell(f"x = {number}", id=f"cell{number}") for number in range(3)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "n.ipynb")
    git("add", ".")
    git("commit", "--quiet", "--message=first")
    return folder, git


def change(folder, number, source):
    notebook = nbformat.read(folder / "n.ipynb", as_version=4)
    notebook.cells[number].source = source
    nbformat.write(notebook, folder / "n.ipynb")


def set_up(folder, git, with_nbdime):
    subprocess.run([".ci/nbdime", "setup"], cwd=folder, check=True, timeout=60)
    assert git("config", "--local", "diff.jupyternotebook.command") == ".ci/nbdime diff\n"
    if with_nbdime:
        (folder / ".venv").symlink_to(PROJECT / ".venv", target_is_directory=True)


def test_setup_leaves_an_outer_repository_alone(repository):
    """Such as where an archive was unpacked inside a repository of something else."""
    folder, git = repository
    inner = folder / "unpacked"
    inner.mkdir()
    subprocess.run([folder / ".ci/nbdime", "setup"], cwd=inner, check=True, timeout=60)
    assert git("config", "--local", "--get-regexp", "jupyternotebook", check=False) == ""


def test_a_diff_shows_cells(repository):
    folder, git = repository
    set_up(folder, git, with_nbdime=True)
    change(folder, 1, "x = 'new'")
    assert re.search(r"(?s)modified /cells/1/source:.*-\s*x = 1\n\+\s*x = 'new'", git("diff"))


def test_without_nbdime_a_diff_shows_text(repository):
    folder, git = repository
    change(folder, 1, "x = 'new'")
    line = "\n+    \"x = 'new'\"\n"
    assert line in git("diff")
    set_up(folder, git, with_nbdime=False)
    assert line in git("diff")


def test_a_broken_notebook_does_not_end_a_diff(repository):
    folder, git = repository
    set_up(folder, git, with_nbdime=True)
    (folder / "n.ipynb").write_text("<<<<<<< no notebook\n", encoding="utf-8")
    assert "+<<<<<<< no notebook" in git("diff")


@pytest.mark.parametrize("with_nbdime", [True, False])
def test_changes_of_different_cells_are_merged(repository, with_nbdime):
    folder, git = repository
    set_up(folder, git, with_nbdime)
    git("checkout", "--quiet", "-b", "other")
    change(folder, 0, "x = 'theirs'")
    git("commit", "--quiet", "--all", "--message=theirs")
    git("checkout", "--quiet", "main")
    change(folder, 2, "x = 'ours'")
    git("commit", "--quiet", "--all", "--message=ours")
    git("merge", "--quiet", "other", "--message=both")
    merged = nbformat.read(folder / "n.ipynb", as_version=4)
    assert [cell.source for cell in merged.cells] == ["x = 'theirs'", "x = 1", "x = 'ours'"]
