"""Bad input ends in one readable message, in a notebook too."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_mnist.ipynb"


def test_truncated_file_is_named_without_a_traceback(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    broken = tmp_path / "mnist" / "mnist.npz"
    broken.write_bytes(b"PK\x03\x04 and then the connection was lost")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DATA_SOURCE", "auto")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.raises(CellExecutionError):
        NotebookClient(notebook, kernel_name="python3").execute()
    (error,) = [o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "error"]
    shown = "\n".join(error.traceback)
    assert str(broken) in shown
    assert "truncated" in shown
    assert "DATA_SOURCE=sample" in shown
    assert len(shown.splitlines()) <= 4
