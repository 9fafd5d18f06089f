"""The headless runner, on tiny notebooks."""

import asyncio
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers import leftovers, reports, run
from helpers.files import hold_lock

PROJECT = Path(__file__).parents[1]
FOLDERS = {"NOTEBOOKS_FOLDER": "notebooks", "REPORTS_FOLDER": "reports", "FIGURES_FOLDER": "figures"}
# Each of the two waits for the other one.
BAD = """
import time
from pathlib import Path
Path("bad").touch()
while not Path("good").exists(): time.sleep(0.01)
"""
GOOD = """
import json, os, sys, time
from pathlib import Path
Path("good").touch()
while not Path("bad").exists(): time.sleep(0.01)
folder = Path("../figures/sample/2_good")
folder.mkdir(parents=True)
(folder / "results.json").write_text("{}")
print(json.dumps([sys.executable, os.getcwd(), os.environ["NOTEBOOK_PROGRESS"]]))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Give a project without notebooks, in which a kernel that is not this interpreter's is called python3."""
    for constant, name in FOLDERS.items():
        (tmp_path / name).mkdir()
        monkeypatch.setattr(reports, constant, tmp_path / name)
    for module in (run, reports):
        monkeypatch.setattr(module, "PROJECT_FOLDER", tmp_path)
    for name in ("NOTEBOOK_MODE", "DATA_SOURCE", "NOTEBOOK_PROGRESS", "NOTEBOOK_LANGUAGE"):
        monkeypatch.delenv(name, raising=False)
    other_kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    other_kernel.parent.mkdir(parents=True)
    other_kernel.write_text(json.dumps({"argv": ["/bin/false"], "display_name": "Other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    return tmp_path


def write_notebook(project, name, *cells):
    """Write a notebook; strings that begin with # are markdown."""
    cells = [new_markdown_cell(c) if c.startswith("#") else new_code_cell(c) for c in cells]
    cells[-1].outputs = [new_output("stream", text="from an earlier run")]
    path = project / "notebooks" / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_a_run_of_two_side_by_side(project, capsys):
    paths = [
        write_notebook(
            project, "1_bad", "# Title", "", BAD, "## Data", "raise ValueError('\\x1b[31mone\\ntwo\\x1b[0m')", "x"
        ),
        write_notebook(project, "2_good", "# Title", GOOD),
        write_notebook(project, "3_dead", "# Title\n\n```\n# comment\n```", "print('hi')", "import os; os._exit(9)"),
    ]
    for name in ("helpers.py", "runpy.py"):  # which are somebody's own
        (project / "notebooks" / name).write_text("raise SystemExit")
    before = [path.read_bytes() for path in paths]
    stale = project / "figures" / "1_bad" / "results.json"
    stale.parent.mkdir()
    stale.write_text("{}")

    assert run.main(["--jobs", "2"]) == 1

    assert [path.read_bytes() for path in paths] == before
    lines = capsys.readouterr().out.splitlines()
    assert any(re.fullmatch(r"1_bad  cell  1/3 +\d+\.\d s  Title", line) for line in lines[:2])
    failure = lines.index("1_bad  FAILED in cell 2 (Data): ValueError: one")
    assert lines[failure + 1] == "two"
    assert any(re.fullmatch(r"2_good  done in \d+ s", line) for line in lines)
    assert "3_dead  FAILED in cell 2 (Title): the kernel ended with status 9" in lines

    summary = [line.split()[:2] for line in lines[lines.index("") + 1 :]]
    assert summary[1:4] == [["1_bad", "FAILED"], ["2_good", "done"], ["3_dead", "FAILED"]]
    if Path("/proc/self/status").exists():
        assert re.search(r" s +\d+ MB +\d+ s$", lines[lines.index("") + 3])
    assert lines[-2:] == ["reports: reports/index.html", "figures: figures/sample/2_good/"]

    written = sorted(path.name for path in (project / "reports").iterdir())
    assert written == sorted(
        ["index.html"] + [f"{path.stem}{suffix}" for path in paths for suffix in (".html", ".ipynb")]
    )
    bad, good, dead = (nbformat.read(project / "reports" / path.name, as_version=4) for path in paths)
    assert json.loads(good.cells[1].outputs[0].text) == [sys.executable, str(project / "notebooks"), "off"]
    assert bad.cells[4].outputs[0].ename == "ValueError"
    assert bad.cells[5].outputs == []  # not reached
    assert dead.cells[1].outputs[0].text == "hi\n"
    assert "from an earlier run" not in "".join(path.read_text() for path in (project / "reports").iterdir())
    assert "<title>2_good</title>" in (project / "reports" / "2_good.html").read_text()


def test_how_a_kernel_died_is_told(project, capsys):
    ends = {
        "SIGKILL": "was killed, probably because memory ran out",
        "SIGBUS": "died because a disk was full, or a file was cut short that was mapped into memory",
        "SIGSEGV": "crashed",
        "SIGTERM": "was ended",
    }
    for name in ends:
        default = "" if name == "SIGKILL" else f"signal.signal(signal.{name}, signal.SIG_DFL)"
        write_notebook(project, name, "import os, signal", f"{default}\nos.kill(os.getpid(), signal.{name})")
    assert run.main(["--jobs", "4"]) == 1
    lines = capsys.readouterr().out.splitlines()
    for name, told in ends.items():
        assert f"{name}  FAILED in cell 2: the kernel {told} ({name})" in lines


@pytest.mark.parametrize(
    ("arguments", "scheduler", "together"),
    [(["--jobs", "1"], "", 1), (["--jobs", "3"], "", 3), ([], "", 2), ([], "tcp://127.0.0.1:9", 1)],
)
def test_the_longest_begin_and_so_many_are_executed_together(
    project, capsys, monkeypatch, arguments, scheduler, together
):
    seconds = {"1_short": 3.0, "2_new": None, "3_long": 50.0, "4_new": None}
    for name, last in seconds.items():
        write_notebook(project, name, "1")
        if last:
            (project / "reports" / f"{name}.ipynb").write_text(json.dumps({"metadata": {"run": {"seconds": last}}}))
    begun, running, most = [], 0, 0

    async def execute_cells(self, notebook):
        nonlocal running, most
        begun.append(self.name)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    monkeypatch.setattr(run.Run, "_execute_cells", execute_cells)
    monkeypatch.setattr(run.Run, "_write", lambda *_: None)
    monkeypatch.setattr(reports, "write_index", lambda: None)
    monkeypatch.setattr(run, "count_workers", lambda: 8)
    monkeypatch.setenv("DASK_SCHEDULER", scheduler)
    assert run.main(arguments) == 0
    assert begun == ["3_long", "1_short", "2_new", "4_new"]
    assert most == together
    lines = capsys.readouterr().out.splitlines()
    summary = [line.split()[0] for line in lines[lines.index("") + 2 :][:4]]
    assert summary == list(seconds)  # in the order of the notebooks


def test_one_core_executes_one_notebook_at_a_time(project, monkeypatch):
    write_notebook(project, "01_mnist", "1")
    monkeypatch.setattr(run, "count_workers", lambda: 1)
    monkeypatch.setattr(run, "run_side_by_side", lambda runs, jobs, save: jobs == 1 or pytest.fail(str(jobs)))
    assert run.main([]) == 0


def test_a_report_tells_how_long_its_notebook_took_and_a_saved_notebook_does_not(project):
    path = write_notebook(project, "01_mnist", "1 + 1")
    assert run.main(["--save"]) == 0
    report, saved = (nbformat.read(place, as_version=4) for place in (project / "reports" / path.name, path))
    assert report.cells == saved.cells
    assert saved.cells[0].outputs[0].data["text/plain"] == "2"
    about = report.metadata.pop("run")
    assert about["seconds"] > 0.1
    assert about["failure"] == ""
    assert report.metadata == saved.metadata


def test_ctrl_c_stops_at_once_and_leaves_no_kernel(project):
    for name in ("1_endless", "2_endless", "3_waiting"):
        write_notebook(project, name, "1", "while True: pass")
    code = f"""
import sys
from pathlib import Path
from helpers import reports, run
for constant, name in {FOLDERS}.items():
    setattr(reports, constant, Path({str(project)!r}) / name)
sys.exit(run.main(["--jobs", "2"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=PROJECT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        begun = {process.stdout.readline()[:20] for _ in range(2)}
        assert begun == {"1_endless  cell  1/2", "2_endless  cell  1/2"}  # the second cells run now
        tasks = Path(f"/proc/{process.pid}/task").glob("*/children")  # none but on Linux
        kernels = [int(pid) for path in tasks for pid in path.read_text().split()]
        assert len(kernels) == 2 or not Path("/proc/self/task").exists()
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.strip() == "interrupted"
    for pid in kernels:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert list((project / "reports").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who takes the orphans")
def test_a_kernel_ends_with_its_runner_even_while_it_starts(project):
    """A process that takes orphans, as of a desktop, hides from a kernel that has just started that its parent died."""
    write_notebook(project, "1_endless", "while True: pass")
    code = f"""
from pathlib import Path
from helpers import reports, run
reports.NOTEBOOKS_FOLDER = reports.REPORTS_FOLDER = reports.FIGURES_FOLDER = Path({str(project)!r}) / "notebooks"
run.main([])
"""
    take_orphans = partial(ctypes.CDLL(None).prctl, 36)  # PR_SET_CHILD_SUBREAPER
    take_orphans(1)
    try:
        process = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.DEVNULL)
        kernels = []
        while not kernels:
            tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
            kernels = [int(pid) for path in tasks for pid in path.read_text().split()]
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20  # the start of the kernel, and a second
        while os.waitpid(kernels[0], os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(kernels[0], signal.SIGKILL)
                pytest.fail("the kernel lives on")
            time.sleep(0.05)
    finally:
        take_orphans(0)


def test_what_killed_runs_have_left_is_removed(project, monkeypatch):
    write_notebook(project, "01_mnist", "1")
    with monkeypatch.context() as patch:
        patch.setattr(leftovers, "_read_start", lambda pid: 12345)  # of a process that is no more
        for folder in FOLDERS.values():
            leftovers.name_unfinished(project / folder / "01_mnist.ipynb").write_text("{")
    monkeypatch.setattr(run, "run_side_by_side", lambda *_: None)
    assert run.main([]) == 0
    assert list(project.rglob(".*")) == []


class Terminal:
    """A terminal that remembers what was written to it."""

    def __init__(self):
        self.written = ""

    def isatty(self):
        return True

    def write(self, text):
        self.written += text

    def flush(self):
        pass


@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_shows_one_line_that_is_rewritten(columns, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(run.time, "monotonic", lambda: 100.0)
    shown = run.Run(Path("01_mnist.ipynb"))
    shown._cells = 31
    for index, cell in enumerate([new_markdown_cell("## Convolutional network of three blocks"), new_code_cell("1")]):
        shown._start_cell(cell, index)
    monkeypatch.setattr(run.time, "monotonic", lambda: 112.3)
    run._show_live([shown])
    shown._end_cell(cell, 1, {})
    line = "01_mnist  cell 1/31  Convolutional network of three blocks"
    assert terminal.written == "\r" + (line[: columns - 9] + "  12.3 s").ljust(columns - 1)
    assert shown.seconds_by_section == {"Convolutional network of three blocks": pytest.approx(12.3)}

    terminal.written = ""
    second = run.Run(Path("02_ham10000.ipynb"))
    second._cell_started = 110.0
    run._show_live([shown, second])
    width = columns // 2 - 1
    halves = [
        (line[: width - 8] + "  12.3 s").ljust(width),
        "02_ham10000  starting the kernel"[: width - 7] + "  2.3 s",
    ]
    assert terminal.written == f"\r{halves[0]} {halves[1].ljust(width)}"
    run._show("01_mnist  done\n")
    assert terminal.written.endswith("\r" + " " * (columns - 1) + "\r01_mnist  done\n")


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_too_few_jobs_are_told(project, capsys, jobs):
    write_notebook(project, "01_mnist", "1")
    assert run.main(["--jobs", jobs]) == 2
    assert capsys.readouterr() == ("", f"error: --jobs {jobs}: expected 1 or more.\n")


def test_unknown_notebook_names_those_that_there_are(project, capsys):
    write_notebook(project, "01_mnist", "1")
    assert run.main(["01_mnist", "01_minst"]) == 2
    assert capsys.readouterr() == ("", "error: there is no notebook 01_minst. Known: 01_mnist.\n")


def test_no_notebook_at_all(project, capsys):
    assert run.main([]) == 2
    assert "there is no notebook in" in capsys.readouterr().err


def test_wrong_setting_is_told_before_anything_runs(project, capsys, monkeypatch):
    write_notebook(project, "01_mnist", "1")
    monkeypatch.setenv("NOTEBOOK_MODE", "fast")
    assert run.main([]) == 2
    assert capsys.readouterr() == ("", "error: NOTEBOOK_MODE=fast: expected one of quick, full.\n")


def test_notebooks_are_found_by_name_and_by_path(project, monkeypatch, capsys):
    first, second = (write_notebook(project, name, "1") for name in ("01_mnist", "02_ham10000"))
    (project / "notebooks" / ".01_mnist-1a2b.ipynb").write_text("what a killed program left")
    elsewhere = project / "mine.ipynb"
    elsewhere.write_bytes(first.read_bytes())
    monkeypatch.chdir(project)
    assert run.find_notebooks([]) == [first, second]
    assert run.find_notebooks(["02_ham10000", "01_mnist.ipynb", "notebooks/01_mnist.ipynb"]) == [second, first]
    assert run.find_notebooks(["mine.ipynb"]) == [elsewhere]
    assert run.main(["--list"]) == 0
    assert capsys.readouterr().out == "01_mnist\n02_ham10000\n"


def test_a_file_that_is_no_notebook_fails(project, capsys):
    (project / "notebooks" / "01_mnist.ipynb").write_text("{")
    assert run.main([]) == 1
    assert "01_mnist  FAILED: NotJSONError: " in capsys.readouterr().out


def test_what_the_cells_computed_is_kept_when_the_report_fails(project, capsys, monkeypatch):
    path = write_notebook(project, "01_mnist", "1 + 1")
    monkeypatch.setattr(reports, "describe_run", lambda *_: int("no number"))
    assert run.main([]) == 1
    assert "01_mnist  FAILED: ValueError: " in capsys.readouterr().out
    executed = nbformat.read(project / "reports" / path.name, as_version=4)
    assert executed.cells[0].outputs[0].data["text/plain"] == "2"


def test_an_index_that_cannot_be_written_is_told(project, capsys, monkeypatch):
    write_notebook(project, "01_mnist", "1")
    monkeypatch.setattr(run, "run_side_by_side", lambda *_: None)
    (project / "reports" / "mine.ipynb").write_text("{")
    assert run.main([]) == 2
    assert "error: no index of the reports: reports/mine.ipynb is no notebook" in capsys.readouterr().err


def test_importing_is_quick():
    code = "import json, sys, helpers.run; sys.stdout.write(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert not {"tensorflow", "keras", "nbclient", "nbconvert", "nbformat"} & set(json.loads(loaded.stdout))


def test_the_second_of_two_runs_of_a_notebook_ends_before_its_first_cell(project, capsys):
    path = write_notebook(project, "1_used", "open('executed', 'w').close()")
    with hold_lock(project / "reports" / path.name):
        assert run.main([str(path)]) == 1
    told = f"1_used  FAILED: InputError: {project}/reports/1_used.ipynb is being written by another process."
    assert told in capsys.readouterr().out
    assert not (path.parent / "executed").exists()
    assert sorted(path.name for path in (project / "reports").iterdir()) == ["index.html"]


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_reports_that_the_disk_refuses_are_named_and_the_old_ones_stay(project, small_disk, capsys, monkeypatch, kind):
    monkeypatch.setattr(reports, "REPORTS_FOLDER", small_disk.folder)
    path = write_notebook(project, "1_kept", "# Title\n\n" + "A text. " * 2000, "1")

    async def execute_cells(self, notebook):
        pass

    monkeypatch.setattr(run.Run, "_execute_cells", execute_cells)
    assert run.main([str(path)]) == 0
    before = {path: path.read_bytes() for path in small_disk.folder.iterdir()}
    capsys.readouterr()
    small_disk.fill() if kind == "full" else small_disk.protect()
    for command, status in ((run.main, 2), (reports.main, 2)):
        assert command([str(path)] if command == run.main else []) == status
        told, error = capsys.readouterr()
        refused = r"cannot be written \((No space left|Read-only)"
        if command == run.main:
            assert re.search(rf"^1_kept  FAILED: WriteError: {small_disk.folder}/1_kept\.ipynb {refused}", told, re.M)
        assert re.match(rf"error: .*{small_disk.folder}/\S+\.html {refused}.*\n$", error)
    assert {path: path.read_bytes() for path in small_disk.folder.iterdir() if path.name != "filler"} == before
