"""JupyterLab: a notebook that was only run and saved is the text that it was, unless an output has changed."""

import json
from types import SimpleNamespace

import nbformat
import pytest
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from traitlets.config.loader import KVArgParseConfigLoader

from helpers import lab

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
PYTHON = {"name": "python", "version": "3.11.7"}


@pytest.fixture
def notebook(tmp_path):
    """A notebook that was executed, as a file and as what JupyterLab has of it."""
    value = new_output("execute_result", {"text/plain": "1"}, execution_count=1)
    told = new_output("stream", name="stdout", text="done\n")
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell("1", execution_count=1, outputs=[value]),
        new_code_cell(""),
        new_code_cell("fit()", execution_count=2, outputs=[told]),
    ]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": KERNEL, "language_info": PYTHON})
    nbformat.write(notebook, tmp_path / "a.ipynb")
    return notebook


@pytest.fixture
def save(tmp_path):
    """Save a notebook as JupyterLab does, and give its text."""

    def save(notebook, name="a.ipynb"):
        model = {"type": "notebook", "content": json.loads(nbformat.writes(notebook))}
        lab.clean_notebook(path=name, model=model, contents_manager=SimpleNamespace(root_dir=str(tmp_path)))
        nbformat.write(nbformat.from_dict(model["content"]), tmp_path / name)
        return (tmp_path / name).read_text()

    return save


def test_what_only_tells_of_the_running_is_not_saved(notebook, save, tmp_path):
    before = (tmp_path / "a.ipynb").read_text()
    _, first, _, second = notebook.cells
    first.execution_count = first.outputs[0].execution_count = 8
    second.execution_count = 11
    second.outputs.insert(0, new_output("display_data", {}))  # a line of progress that was removed
    second.outputs.append(new_output("stream", name="stderr", text=""))
    second.metadata["execution"] = {"iopub.status.idle": "2026-01-01T00:00:00Z"}
    notebook.metadata |= {"widgets": {}, "language_info": PYTHON | {"version": "3.13.1"}}
    assert save(notebook) == before


def test_what_has_changed_is_saved(notebook, save):
    _, first, empty, second = notebook.cells
    second.outputs[0].text, second.metadata["tags"], empty.source = "failed\n", ["parameters"], "new"
    notebook.metadata["kernelspec"] = KERNEL | {"name": "other"}
    first.execution_count, empty.execution_count, second.execution_count = 7, 5, 3  # not in their order
    saved = nbformat.reads(save(notebook), as_version=4)
    assert (saved.cells, saved.metadata) == (notebook.cells, notebook.metadata)
    assert [cell.get("execution_count") for cell in saved.cells[1:]] == [7, 5, 3]


def test_a_new_notebook_and_other_files_are_saved(notebook, save):
    assert nbformat.reads(save(notebook, "new.ipynb"), as_version=4) == notebook
    lab.clean_notebook("a.md", model := {"type": "file", "content": "text"}, None)
    assert model == {"type": "file", "content": "text"}


def test_jupyterlab_is_told_so(monkeypatch, capsys):
    given = []
    server = SimpleNamespace(web_app=SimpleNamespace(settings={}), start=lambda: given.append("started"))
    monkeypatch.setattr("jupyterlab.labapp.LabApp.initialize_server", lambda argv: given.extend(argv) or server)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    lab.main(["--port=8890"])
    assert given[-1] == "started"
    assert "--allow-root" not in given
    config = KVArgParseConfigLoader(given[:-1]).load_config()
    assert config.ServerApp.ip == "127.0.0.1"
    assert AsyncLargeFileManager(config=config).pre_save_hook is lab.clean_notebook
    page = server.web_app.settings["page_config_hook"](None, {"disabledExtensions": ["a"]})
    assert page == {"disabledExtensions": ["a", "@jupyterlab/apputils-extension:announcements"]}
    assert capsys.readouterr().out.count("\n") == 1
    monkeypatch.setattr("os.geteuid", lambda: 0)
    lab.main([])
    assert "--allow-root" in given
    assert "You are root" in capsys.readouterr().out
