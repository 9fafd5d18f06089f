"""Execute notebooks headless: ``python -m helpers.run [NOTEBOOK ...]``.

Each notebook is executed in a kernel of its own. The executed copy and an HTML report go to ``reports/``, also when a
cell fails; the other notebooks are still executed then. The files in ``notebooks/`` are changed by ``--save`` only.
"""

import argparse
import asyncio
import atexit
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from helpers.files import InputError, replace_atomically
from helpers.settings import PROJECT_FOLDER, read_settings

NOTEBOOKS_FOLDER = PROJECT_FOLDER / "notebooks"
REPORTS_FOLDER = PROJECT_FOLDER / "reports"
FIGURES_FOLDER = PROJECT_FOLDER / "figures"


def main(arguments=None):
    """Run the command line; return the exit status: 0, 1 (a notebook failed), 2 (bad input) or 130 (Ctrl-C)."""
    parser = argparse.ArgumentParser(prog="python -m helpers.run", description="Execute notebooks and write reports.")
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="a name such as 01_mnist; default: all")
    parser.add_argument("--list", action="store_true", help="list the notebooks and stop")
    parser.add_argument("--save", action="store_true", help="also save the outputs in the notebook, if no cell fails")
    options = parser.parse_args(arguments)
    try:
        read_settings()  # a wrong value is told now, not by the first cell of every notebook
        paths = find_notebooks(options.notebooks)
        if options.list:
            print("\n".join(path.stem for path in paths))
            return 0
        results_before = _find_results()
        runs = [Run(path) for path in paths]
        for run in runs:
            run.run(options.save)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    _print_summary(runs)
    for path, written in _find_results().items():
        if results_before.get(path) != written and any(run.name in str(path.parent) for run in runs):
            print(f"figures: {path.parent.relative_to(PROJECT_FOLDER)}/")
    return int(any(run.failure for run in runs))


def find_notebooks(names):
    """Find notebooks by names such as ``01_mnist``, or by their paths; all of the project when none is named.

    Raises
    ------
    InputError
        There is no such notebook; the message lists those that there are.
    """
    known = {path.stem: path for path in sorted(NOTEBOOKS_FOLDER.glob("[!.]*.ipynb"))}
    found = {}
    for name in names or known:
        path = Path(name)
        if path.suffix == ".ipynb" and path.is_file():
            path = path.resolve()
        elif (path := known.get(name.removesuffix(".ipynb"))) is None:
            raise InputError(f"there is no notebook {name}. Known: {', '.join(known) or 'none'}.")
        found[path] = None  # named twice, it is run once
    if not found:
        raise InputError(f"there is no notebook in {NOTEBOOKS_FOLDER}.")
    return list(found)


class Run:
    """The execution of one notebook: how far it is, what it took, and why it failed."""

    def __init__(self, path):
        self.path, self.name = path, path.stem
        self.failure = ""
        self.seconds = 0.0
        self.seconds_by_section = Counter()
        self.peak_memory = self.cpu_seconds = None  # of the kernel
        self._cell, self._cells, self._heading = 0, 0, ""
        self._pid = None
        self._live = sys.stdout.isatty()

    def run(self, save=False):
        """Execute the notebook, write its reports, and print how it ended; ``save`` keeps the outputs in place."""
        import nbformat
        from nbconvert import HTMLExporter

        self._started = self._cell_started = time.monotonic()
        try:
            notebook = nbformat.read(self.path, as_version=4)
            for cell in notebook.cells:
                if cell.cell_type == "code":  # the report of a failed run shows how far it came
                    cell.outputs, cell.execution_count = [], None
            self._execute(notebook)
            with replace_atomically(REPORTS_FOLDER / f"{self.name}.ipynb") as unfinished:
                nbformat.write(notebook, unfinished)
            resources = {"metadata": {"name": self.name, "path": str(self.path.parent)}}
            html, _ = HTMLExporter(embed_images=True).from_notebook_node(notebook, resources)
            with replace_atomically(REPORTS_FOLDER / f"{self.name}.html") as unfinished:
                unfinished.write_text(html, encoding="utf-8")
            if save and not self.failure:
                with replace_atomically(self.path) as unfinished:
                    nbformat.write(notebook, unfinished)
        except (OSError, ValueError) as error:  # no notebook, or no place for the reports
            self.failure = self.failure or f": {type(error).__name__}: {error}"
        self.seconds = time.monotonic() - self._started
        if self._live:
            print("\r" + " " * (shutil.get_terminal_size().columns - 1), end="\r")
        print(f"{self.name}  FAILED{self.failure}" if self.failure else f"{self.name}  done in {self.seconds:,.0f} s")
        sys.stdout.flush()

    def _execute(self, notebook):
        from jupyter_client import AsyncKernelManager
        from jupyter_client.kernelspec import KernelSpecManager
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError

        self._cells = sum(map(_is_executed, notebook.cells))
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # this interpreter, whatever the home has installed
            transport_encryption="auto",  # without it each kernel prints a warning
        )
        client = NotebookClient(
            notebook,
            timeout=None,
            record_timing=False,  # would differ in every saved notebook
            resources={"metadata": {"path": str(self.path.parent)}},
            on_notebook_start=lambda notebook: setattr(self, "_pid", manager.provisioner.pid),
            on_cell_start=self._start_cell,
            on_cell_executed=self._end_cell,
        )
        client.km = manager  # not as an argument: the client would leave the kernel running

        async def execute():
            try:
                await client.async_execute(env={"NOTEBOOK_PROGRESS": "off", **os.environ})
            finally:
                if manager.has_kernel:  # stopped while it was starting, which nbclient does not clean up
                    await manager.shutdown_kernel(now=True)
                atexit.unregister(client._cleanup_kernel)

        # In a thread of its own: nbclient takes the signals of the main thread, and would answer Ctrl-C with waiting.
        with asyncio.Runner() as runner, ThreadPoolExecutor(1) as pool:
            loop = runner.get_loop()
            task = loop.create_task(execute())
            future = pool.submit(loop.run_until_complete, task)
            try:
                while wait([future], timeout=1).not_done:
                    self._show_live()
                future.result()
            except CellExecutionError as error:
                self._fail(f"{error.ename}: {error.evalue}" if error.evalue else error.ename)
            except RuntimeError as error:  # nbclient's DeadKernelError, or a kernel that did not start
                self._fail("the kernel died, probably because memory ran out" if self._cell else str(error))
            except KeyboardInterrupt:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave the kernel behind
                client.shutdown_kernel = "immediate"
                loop.call_soon_threadsafe(task.cancel)
                raise

    def _fail(self, message):
        heading = f" ({self._heading})" if self._heading else ""
        where = f" in cell {self._cell}{heading}" if self._cell else ""
        self.failure = f"{where}: " + re.sub(r"\x1b\[[0-9;]*m", "", message)

    def _start_cell(self, cell, cell_index):
        self._cell_started = time.monotonic()
        self._heading = _find_heading(cell) or self._heading
        self._cell += _is_executed(cell)

    def _end_cell(self, cell, cell_index, execute_reply):
        self._read_usage()
        seconds = time.monotonic() - self._cell_started
        self.seconds_by_section[self._heading] += seconds
        if not self._live:
            where = f"{self.name}  cell {self._cell:2}/{self._cells}"
            print(f"{where} {seconds:6.1f} s  {self._heading}".rstrip(), flush=True)

    def _show_live(self):
        self._read_usage()
        if self._live:
            where = f"cell {self._cell}/{self._cells}  {self._heading}" if self._cell else "starting the kernel"
            width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be rewritten
            seconds = f"  {time.monotonic() - self._cell_started:.1f} s"
            print("\r" + (f"{self.name}  {where}"[: width - len(seconds)] + seconds).ljust(width), end="", flush=True)

    def _read_usage(self):
        """Note what the kernel has used so far, where Linux tells it."""
        try:
            peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self._pid}/status").read_text())
            times = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return
        if peak:  # a kernel that has just died has none
            self.peak_memory = int(peak[1]) * 1024
            self.cpu_seconds = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def _is_executed(cell):
    return cell.cell_type == "code" and bool(cell.source.strip())


def _find_heading(cell):
    """Find the last heading of a markdown cell; what stands in a code block is none."""
    text = re.sub(r"(?ms)^(```|~~~).*?^\1", "", cell.source) if cell.cell_type == "markdown" else ""
    return "".join(re.findall(r"(?m)^#{1,6} +(.*\S)", text)[-1:])


def _find_results():
    return {path: path.stat().st_mtime_ns for path in sorted(FIGURES_FOLDER.rglob("results.json"))}


def _print_summary(runs):
    width = max(len("notebook"), *(len(run.name) for run in runs))
    print(f"\n{'notebook':{width}}  state   {'time':>10}  {'peak memory':>11}  {'CPU time':>10}")
    for run in runs:
        row = f"{run.name:{width}}  {'FAILED' if run.failure else 'done':6}  {run.seconds:8,.0f} s"
        if run.peak_memory:
            row += f"  {run.peak_memory / 1e6:8,.0f} MB  {run.cpu_seconds:8,.0f} s"
        print(row)
    print(f"\nreports: {REPORTS_FOLDER.relative_to(PROJECT_FOLDER)}/")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a heading that the terminal cannot show is no reason to stop
    sys.exit(main())
