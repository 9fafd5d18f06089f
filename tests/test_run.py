"""The headless runner, on tiny notebooks."""

import nbformat
import pytest

from helpers import run

HEADING = nbformat.v4.new_markdown_cell("# Title\n\n## Data")


def write_notebook(folder, name, *sources):
    cells = [HEADING, *(nbformat.v4.new_code_cell(source) for source in sources)]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), folder / f"{name}.ipynb")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for name in ("NOTEBOOKS_FOLDER", "REPORTS_FOLDER", "FIGURES_FOLDER"):
        folder = tmp_path / name.split("_")[0].lower()
        folder.mkdir()
        monkeypatch.setattr(run, name, folder)
    monkeypatch.setattr(run, "PROJECT_FOLDER", tmp_path)
    for name in ("NOTEBOOK_MODE", "DATA_SOURCE", "DATA_DIR", "NOTEBOOK_PROGRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_failures_are_named_and_the_others_still_run(folders, capsys):
    notebooks = folders / "notebooks"
    write_notebook(notebooks, "1_broken", "x = 1", "raise ValueError('no such file: digits.npz')")
    write_notebook(notebooks, "2_killed", "import os", "os._exit(9)")
    export = "from pathlib import Path\nfolder = Path('../figures/sample/3_sound')\nfolder.mkdir(parents=True)\n"
    write_notebook(notebooks, "3_sound", "", "6 * 7", f"{export}(folder / 'results.json').write_text('{{}}')")
    before = {path.name: path.read_bytes() for path in notebooks.iterdir()}

    status = run.main([])

    printed = capsys.readouterr().out
    assert status == 1
    assert "1_broken  FAILED in cell 2 (Data): ValueError: no such file: digits.npz" in printed
    assert "2_killed  FAILED in cell 2 (Data): the kernel died" in printed
    assert "3_sound  cell   1/2" in printed
    assert "3_sound  done in" in printed
    assert "reports: reports/" in printed
    assert "figures: figures/sample/3_sound/" in printed
    assert {path.name: path.read_bytes() for path in notebooks.iterdir()} == before
    reports = {path.name for path in (folders / "reports").iterdir()}
    assert reports == {f"{name}.{end}" for name in ("1_broken", "2_killed", "3_sound") for end in ("ipynb", "html")}
    assert "digits.npz" in (folders / "reports" / "1_broken.html").read_text()
    executed = nbformat.read(folders / "reports" / "3_sound.ipynb", as_version=4)
    assert executed.cells[2].outputs[0].data["text/plain"] == "42"


def test_save_keeps_the_outputs_of_a_notebook_that_ran_through(folders):
    notebooks = folders / "notebooks"
    write_notebook(notebooks, "sound", "6 * 7")
    write_notebook(notebooks, "broken", "6 * 7", "1 / 0")
    broken = (notebooks / "broken.ipynb").read_bytes()

    assert run.main(["--save"]) == 1

    assert "'42'" in str(nbformat.read(notebooks / "sound.ipynb", as_version=4).cells[1].outputs)
    assert (notebooks / "broken.ipynb").read_bytes() == broken


def test_unknown_notebook_is_an_error_that_lists_the_known(folders, capsys):
    write_notebook(folders / "notebooks", "01_mnist", "1")
    assert run.main(["01_minst"]) == 2
    assert "no notebook is called 01_minst. There are: 01_mnist" in capsys.readouterr().err


def test_notebooks_are_found_by_name_and_by_path(folders):
    for name in ("01_mnist", "02_ham10000"):
        write_notebook(folders / "notebooks", name, "1")
    by_name, by_path = run.find_notebooks(["02_ham10000", "notebooks/01_mnist.ipynb"])
    assert (by_name.stem, by_path.stem) == ("02_ham10000", "01_mnist")
    assert [path.stem for path in run.find_notebooks([])] == ["01_mnist", "02_ham10000"]


def test_wrong_setting_is_an_error_before_anything_runs(folders, capsys, monkeypatch):
    monkeypatch.setenv("NOTEBOOK_MODE", "fast")
    write_notebook(folders / "notebooks", "01_mnist", "1")
    assert run.main([]) == 2
    assert "NOTEBOOK_MODE=fast" in capsys.readouterr().err
    assert not any((folders / "reports").iterdir())
