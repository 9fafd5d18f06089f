"""Bad input ends in one readable message, in a notebook too."""

from pathlib import Path

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell
from PIL import Image

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")
def kernel():
    """Start one kernel for all notebooks, because importing TensorFlow takes seconds."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.fixture
def run_on(kernel):
    """Run a notebook on a folder of data until it fails; return what it shows of the error."""

    def run_on(folder, notebook):
        executed = nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", as_version=4)
        environment = {"DATA_DIR": str(folder), "DATA_SOURCE": "auto", "CACHE_DIR": str(folder / "cache")}
        executed.cells.insert(0, new_code_cell(f"%reset -f\nimport os\nos.environ |= {environment}"))
        client = NotebookClient(executed, km=kernel)
        with pytest.raises(CellExecutionError):
            client.execute()
        client.kc.stop_channels()
        (error,) = [o for cell in executed.cells for o in cell.get("outputs", []) if o.output_type == "error"]
        return "\n".join(error.traceback)

    return run_on


def test_truncated_file_is_named_without_a_traceback(tmp_path, run_on):
    (tmp_path / "mnist").mkdir()
    broken = tmp_path / "mnist" / "mnist.npz"
    broken.write_bytes(b"PK\x03\x04 and then the connection was lost")
    shown = run_on(tmp_path, "01_mnist")
    assert str(broken) in shown
    assert "truncated" in shown
    assert "DATA_SOURCE=sample" in shown
    assert len(shown.splitlines()) <= 4


def test_too_many_unusable_images_end_in_their_table(tmp_path, run_on):
    folder = tmp_path / "ham10000"
    (folder / "HAM10000_images_part_1").mkdir(parents=True)
    lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for number in range(10):
        Image.new("RGB", (20, 15), (number, 0, 0)).save(folder / f"HAM10000_images_part_1/ISIC_000000{number}.jpg")
        lines.append(f"HAM_{number},ISIC_000000{number},{'mel' if number else 'nv'},histo,50.0,male,back")
    (folder / "HAM10000_images_part_1/ISIC_0000003.jpg").write_bytes(b"no image")
    lines.append("HAM_10,ISIC_0000010,mel,histo,50.0,male,back")
    (folder / "HAM10000_metadata.csv").write_text("\n".join(lines))
    shown = run_on(tmp_path, "02_ham10000")
    assert "18.2%" in shown
    assert "HAM10000_images_part_1/ISIC_0000003.jpg" in shown
    assert "HAM10000_metadata.csv, line 12" in shown
    assert "left out" in shown
    assert "Traceback" not in shown


def test_unusable_chest_images_end_in_their_table(tmp_path, run_on):
    folder = tmp_path / "chest-xray" / "chest_xray"
    names = {"NORMAL": "IM-{:04d}-0001.jpeg", "PNEUMONIA": "person{}_virus_1.jpeg"}
    for part in ("train", "test"):
        for label, name in names.items():
            (folder / part / label).mkdir(parents=True)
            for number in range(5):
                Image.new("L", (20, 15), number).save(folder / part / label / name.format(number))
    (folder / "train" / "NORMAL" / "IM-0002-0001.jpeg").write_bytes(b"")
    (folder / "train" / "NORMAL" / "person9_bacteria_1.jpeg").write_bytes(b"filed in the wrong folder")
    shown = run_on(tmp_path, "03_chest_xray")
    assert "9.5%" in shown
    assert "chest_xray/train/NORMAL/IM-0002-0001.jpeg" in shown
    assert "its name says PNEUMONIA" in shown
    assert "Traceback" not in shown


def test_a_folder_of_data_without_the_data_set_does_not_end_in_the_sample(tmp_path, run_on):
    (tmp_path / "archive.zip").write_bytes(b"PK")
    shown = run_on(tmp_path, "06_leukemia")
    assert (
        "has no folder leukemia; it holds archive.zip. archive.zip is packed: unpack it with python -m zipfile" in shown
    )
    assert len(shown.splitlines()) <= 4
