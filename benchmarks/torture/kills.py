"""Whole runs that are killed (SIGKILL) at random and started again, beside one that was not.

``python -m benchmarks.torture.kills NOTEBOOK ...`` does the same with real notebooks, with two epochs each: it kills
the kernel of the first one, the runner of the second one, and so on, and prints what happened.
"""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.torture import Case
from helpers.seals import read_sealed
from helpers.settings import PROJECT_FOLDER

_KILLS, _SEED = 20, 23
_LONGEST = 1800  # seconds; what takes longer hangs
_PATIENCE = 5  # seconds, in which what a killed process has started has to end
_EXPECTED = "its workers end; started again, it ends with the same files, none unfinished"
_COMPARED = ("figures", "models", "cache/pixels", "cache/measured", "cache/samples")
_MEASURED = {  # time and memory, which no two runs share
    *("wall_seconds", "cpu_seconds", "wall_minutes", "cpu_minutes", "train_minutes", "ms_one", "ms_batch"),
    *("images per second", "images_per_second", "times as long", "peak_memory_mb"),
}
_COPIED = ("helpers", "samples", "notebooks", "figures", "pyproject.toml")  # of the project, to execute a notebook


def run(short=False):
    """Kill runs, each at a time of its own, two side by side: a `Case` for each."""
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:

        def prepare(name):
            folder = Path(place, name)
            command = [sys.executable, "-m", "benchmarks.torture.whole", str(folder), *["--short"] * short]
            return Run(folder, command, PROJECT_FOLDER)

        def kill(number, seconds):
            killed = prepare(f"killed {number}")
            killed.kill_after(seconds)
            return killed.judge(reference)

        reference = prepare("reference")
        if short:
            finished = pool.submit(reference.finish)
            killed = prepare("killed")
            killed.kill_when(lambda: killed.stage == "training second" and any(killed.folder.rglob("second.npz")))
            finished.result()
            return [killed.judge(reference)]
        again = prepare("again")
        longest = max(pool.map(Run.finish, [reference, again]))
        return [
            Case("not killed", "twice the same files", *again.compare(reference)),
            *pool.map(kill, range(_KILLS), np.random.default_rng(_SEED).uniform(0.5, longest, _KILLS)),
        ]


def main(notebooks):
    """Kill each of some notebooks, given by name, once; print what happened, and return the exit status."""
    rng, wrong = np.random.default_rng(_SEED), 0
    for number, name in enumerate(notebooks):
        victim = ("ipykernel_launcher", "helpers.run")[number % 2]
        with tempfile.TemporaryDirectory() as place:
            reference, killed = (prepare_notebook(Path(place, kind), name) for kind in ("reference", "killed"))
            killed.kill_after(rng.uniform(0.1, 1) * reference.finish(), victim)
            case = killed.judge(reference)
        wrong += not case.right
        print(f"{name}: {case.name}: {case.happened}", flush=True)
    return int(bool(wrong))


def prepare_notebook(folder, name):
    """Copy the project into a folder, set all epochs of a notebook to two: a `Run`."""
    shutil.copytree(PROJECT_FOLDER, folder, ignore=_leave_out)
    path = folder / "notebooks" / f"{name}.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["source"] = re.sub(r"(?m)^((?:\w+_)?EPOCHS) = .*", r"\1 = 2", "".join(cell["source"]))
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return Run(folder, [sys.executable, "-m", "helpers.run", name], folder)


class Run:
    """A command that is run in ``project``, whose figures, models and caches lie in ``folder``."""

    def __init__(self, folder, command, project):
        self.folder, self._command, self._project = folder, command, project
        self._temporary, self._log = folder / "temporary", folder / "log.txt"  # the former also marks its processes
        self._temporary.mkdir(parents=True)
        self._killed, self._left, self._opened = "", [], {}

    @property
    def stage(self):
        """What it was at when it wrote its last line: a stage of `benchmarks.torture.whole`, or a cell."""
        return (["", *re.findall(r"(?m)^(?:## |\w+  (?=cell ))(.*)\n", self._log.read_text())])[-1]

    def finish(self):
        """Run to the end, which takes the seconds that are returned. Raise RuntimeError if it fails, or hangs."""
        start, process = time.perf_counter(), self._start()
        try:
            status = process.wait(_LONGEST)
        except subprocess.TimeoutExpired:
            process.kill()
            status = f"none after {_LONGEST:,} seconds"
        if status:
            raise RuntimeError(f"{self._log.read_text()[-3000:].rstrip()} (status {status})")
        return time.perf_counter() - start

    def kill_after(self, seconds, victim=""):
        """Start it, and kill it after some seconds; where it has ended by then, do so anew, and sooner."""
        process = self._start()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._kill(process, seconds, victim)
        else:
            for part in ("figures/sample", "figures/quick", "models", "cache", "reports"):
                shutil.rmtree(self.folder / part, ignore_errors=True)
            self.kill_after(seconds * 0.7, victim)

    def kill_when(self, condition):
        """Start it, and kill it when ``condition()`` holds. Raise RuntimeError if it ends before."""
        start, process = time.perf_counter(), self._start()
        while not condition():
            if process.poll() is not None:
                raise RuntimeError(f"it ended before it was killed: {self._log.read_text()[-3000:].rstrip()}")
            time.sleep(0.02)
        self._kill(process, time.perf_counter() - start)

    def judge(self, reference):
        """Run the killed command again, and compare what there is then with a run that was not killed: a `Case`."""
        try:
            self.finish()
        except RuntimeError as error:
            return Case(self._killed, _EXPECTED, f"started again, it failed: {str(error).splitlines()[-1]}", False)
        happened, right = self.compare(reference)
        if self._left:
            happened += f"; left after {_PATIENCE} s: {', '.join(self._left)}"
        if unfinished := sorted(self._list_hidden() - reference._list_hidden()):  # some belong to the samples
            happened += f"; unfinished: {', '.join(unfinished)}"
        return Case(self._killed, _EXPECTED, happened, right and not self._left and not unfinished)

    def compare(self, reference):
        """Compare all files with those of another run: what is to be told, and whether they are the same."""
        own, others = self._read(), reference._read()
        differing = sorted(name for name in own.keys() | others.keys() if own.get(name) != others.get(name))
        if differing:
            return f"{len(differing)} of {len(others)} files differ: {', '.join(differing[:9])}", False
        return f"{len(own)} files are the same", bool(own)

    def _start(self):
        settings = {"TMPDIR": str(self._temporary), "CACHE_DIR": str(self.folder / "cache")}
        settings["PYTHONPATH"] = str(self._project)
        with open(self._log, "w") as log:
            return subprocess.Popen(self._command, cwd=self._project, env=os.environ | settings, stdout=log, stderr=log)

    def _kill(self, process, seconds, victim=""):
        victims = {pid: command for pid, command in self._find_processes().items() if victim and victim in command}
        pid = next(iter(victims), process.pid)  # a kernel may not be there yet
        what = f"{victim} " if victims else ""
        self._killed = f"{what}killed after {seconds:.1f} s, in {self.stage or 'the start'}"
        os.kill(pid, signal.SIGKILL)
        process.wait()  # of a kernel that was killed the runner ends by itself
        for path in (self.folder / "figures").glob("*/*/results.json"):
            self._opened[path.parent.name] = json.loads(path.read_text())["test_set_opened"]
        deadline = time.monotonic() + _PATIENCE
        while (left := self._find_processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        self._left = list(left.values())
        for pid in left:
            os.kill(pid, signal.SIGKILL)

    def _find_processes(self):
        """Find what is running of it: commands by the ids of the processes."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"TMPDIR={self._temporary}\0".encode() in (path / "environ").read_bytes():
                    found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ").strip()
        return found

    def _list_hidden(self):
        parts = (self.folder / part for part in ("figures", "models", "cache", "reports"))
        return {path.relative_to(self.folder).as_posix() for part in parts for path in part.rglob(".*")}

    def _read(self):
        """Read all results: by name what has to be the same in two runs."""
        paths = (path for part in _COMPARED for path in sorted((self.folder / part).rglob("*")) if path.is_file())
        return {path.relative_to(self.folder).as_posix(): self._simplify(path) for path in paths}

    def _simplify(self, path):
        """Leave out time and memory; and how often the run had been finished before."""
        if path.parent.name in ("pixels", "measured"):
            return read_sealed(path)  # without the folder of the images, which the end of the file tells
        before = self._opened.get(path.parent.name, 0)
        content = path.read_bytes()
        if path.suffix == ".json":
            return _leave_out_measured(json.loads(content), before)
        if path.suffix == ".csv":
            rows = list(csv.reader(io.StringIO(content.decode(errors="surrogateescape"))))
            kept = [place for place, name in enumerate(rows[0]) if name not in _MEASURED] if rows else []
            return [[row[place] for place in kept if place < len(row)] for row in rows]
        if path.suffix == ".md":
            text = re.sub(r"\S+ CPU-minutes", "", content.decode())
            return re.sub(r"(with this one: )(\d+)", lambda found: f"{found[1]}{int(found[2]) - before}", text)
        return content


def _leave_out_measured(value, before):
    if isinstance(value, dict):
        return {
            name: part - before if name == "test_set_opened" else _leave_out_measured(part, before)
            for name, part in value.items()
            if name not in _MEASURED
        }
    return value


def _leave_out(folder, names):
    """List what is not copied of the project."""
    if Path(folder) == PROJECT_FOLDER:
        return set(names) - set(_COPIED)
    return {name for name in names if name in ("__pycache__", "sample", "quick") or name.startswith(".")}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
