"""Execute notebooks headless: ``python -m helpers.run [NOTEBOOK ...]``.

Each notebook is executed in a kernel of its own. The executed copy and an HTML report go to ``reports/``, also when a
cell fails; the other notebooks are still executed then, and the exit status is 1.
"""

import argparse
import asyncio
import os
import re
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import InputError
from helpers.files import replace_atomically
from helpers.settings import PROJECT_FOLDER, read_settings

NOTEBOOKS_FOLDER = PROJECT_FOLDER / "notebooks"
REPORTS_FOLDER = PROJECT_FOLDER / "reports"
FIGURES_FOLDER = PROJECT_FOLDER / "figures"


def main(arguments=None):
    """Run the command line; return the exit status: 0, 1 (a notebook failed), 2 (bad input) or 130 (interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m helpers.run", description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="such as 01_mnist; all by default")
    parser.add_argument("--save", action="store_true", help="also save the outputs in notebooks/, if no cell fails")
    options = parser.parse_args(arguments)
    try:
        settings = read_settings()
        paths = find_notebooks(options.notebooks)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.environ.setdefault("NOTEBOOK_PROGRESS", "off")
    print(f"{len(paths)} notebook(s), {settings.mode} mode, data source {settings.source}", flush=True)
    started = time.time()
    runs = []
    try:
        for path in paths:
            runs.append(_Run(path))
            runs[-1].execute(options.save)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    _print_summary(runs, started)
    return int(any(run.problem for run in runs))


def find_notebooks(names):
    """Find notebooks by their names; all of them when none is named.

    Raises
    ------
    InputError
        There is no notebook of that name; the message lists those there are.
    """
    known = {path.stem: path for path in sorted(NOTEBOOKS_FOLDER.glob("*.ipynb"))}
    wanted = [Path(name).name.removesuffix(".ipynb") for name in names] or list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise InputError(f"no notebook is called {', '.join(unknown)}. There are: {', '.join(known) or 'none'}.")
    return [known[name] for name in wanted]


@dataclass
class _Run:
    """One notebook's execution."""

    path: Path
    problem: str = ""
    seconds: float = 0.0
    peak_memory_mb: int | None = None

    def execute(self, save):
        import nbformat
        from nbclient import NotebookClient

        self._notebook = nbformat.read(self.path, as_version=4)
        code = [i for i, cell in enumerate(self._notebook.cells) if cell.cell_type == "code" and cell.source.strip()]
        self._numbers = {index: number for number, index in enumerate(code, 1)}
        self._current, self._heading = 0, ""
        self._client = NotebookClient(
            self._notebook,
            timeout=None,
            kernel_name="python3",
            record_timing=False,
            extra_arguments=["--IPKernelApp.log_level=40"],  # no start-up warnings among the progress lines
            resources={"metadata": {"path": str(self.path.parent)}},
            on_cell_start=self._start_cell,
            on_cell_executed=self._end_cell,
        )
        started = self._cell_started = time.perf_counter()
        # In a thread of its own: this one keeps the live line and Ctrl-C, which nbclient would otherwise take.
        thread = threading.Thread(target=self._execute_cells, daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(1)
                self._show_live()
        except KeyboardInterrupt:
            self._client.km.provisioner.process.kill()
            thread.join(10)
            raise
        self.seconds = time.perf_counter() - started
        self._clear_live()
        print(f"{self.path.stem}  {self.problem or f'done in {self.seconds:.0f} s'}", flush=True)
        self._write_report()
        if save and not self.problem:
            with replace_atomically(self.path) as unfinished:
                nbformat.write(self._notebook, unfinished)

    def _execute_cells(self):
        from nbclient.exceptions import CellExecutionError, DeadKernelError

        try:
            asyncio.run(self._client.async_execute())
        except CellExecutionError as error:
            message = f"{error.ename}: {error.evalue}" if error.evalue else error.ename
            self._fail(message)
        except DeadKernelError:
            self._fail("the kernel died, perhaps for lack of memory")
        except Exception as error:  # a kernel that does not start, a full disk: named like any other failure
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, message):
        message = re.sub(r"\x1b\[[0-9;]*m", "", message).strip()
        self.problem = f"FAILED in cell {self._current} ({self._heading}): {message}"

    def _start_cell(self, cell, cell_index):
        self._cell_started = time.perf_counter()
        self._current = self._numbers.get(cell_index, self._current)
        if cell.cell_type == "markdown" and (found := re.findall(r"(?m)^#+ (.+)$", cell.source)):
            self._heading = found[-1]

    def _end_cell(self, cell, cell_index, execute_reply):
        self.peak_memory_mb = _read_peak_memory(self._client.km.provisioner.pid) or self.peak_memory_mb
        self._clear_live()
        if not sys.stdout.isatty() and cell_index in self._numbers:
            seconds = time.perf_counter() - self._cell_started
            print(f"{self._place()}  {seconds:6.1f} s  {self._heading}", flush=True)

    def _place(self):
        return f"{self.path.stem}  cell {self._current:3d}/{len(self._numbers)}"

    def _show_live(self):
        if sys.stdout.isatty():
            seconds = time.perf_counter() - self._cell_started
            print(f"\r\x1b[K{self._place()}  {seconds:6.1f} s  {self._heading}", end="", flush=True)

    def _clear_live(self):
        if sys.stdout.isatty():
            print("\r\x1b[K", end="", flush=True)

    def _write_report(self):
        import nbformat
        from nbconvert import HTMLExporter

        with replace_atomically(REPORTS_FOLDER / self.path.name) as unfinished:
            nbformat.write(self._notebook, unfinished)
        body, _ = HTMLExporter(embed_images=True).from_notebook_node(self._notebook)
        with replace_atomically(REPORTS_FOLDER / f"{self.path.stem}.html") as unfinished:
            unfinished.write_text(body, encoding="utf-8")


def _read_peak_memory(pid):
    """Read the peak resident memory of a process in MB; None where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024


def _print_summary(runs, started):
    print()
    for run in runs:
        memory = f"  {run.peak_memory_mb:6d} MB" if run.peak_memory_mb else ""
        print(f"{run.path.stem:20}  {'FAILED' if run.problem else 'done  '}  {run.seconds:6.0f} s{memory}")
    print(f"reports: {REPORTS_FOLDER.relative_to(PROJECT_FOLDER)}/")
    for path in sorted(FIGURES_FOLDER.rglob("results.json")):
        if path.stat().st_mtime >= started:
            print(f"figures: {path.parent.relative_to(PROJECT_FOLDER)}/")


if __name__ == "__main__":
    sys.exit(main())
