"""Execute notebooks headless: ``python -m helpers.run [NOTEBOOK ...]``.

Each notebook has a kernel of its own, and two run side by side. The executed copy and an HTML report go to
``reports/``, also when a cell fails; the other notebooks are still executed then. ``reports/index.html`` lists all
reports. The files in ``notebooks/`` are changed by ``--save`` only.
"""

import argparse
import asyncio
import atexit
import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from helpers import reports
from helpers.files import InputError, hold_lock, replace_atomically
from helpers.leftovers import tidy_up
from helpers.parallel import count_workers
from helpers.redaction import hide_keys
from helpers.settings import PROJECT_FOLDER, read_settings

# A kernel looks itself whether its parent lives, but not before it has started: one whose parent is killed then stays.
_LAUNCH = """
import sys
sys.path = [place for place in sys.path if place]  # IPython adds the folder of the notebook later
from runpy import run_module
from helpers.parallel import end_with_parent
end_with_parent({})
run_module("ipykernel_launcher", run_name="__main__")
"""


def main(arguments=None):
    """Run the command line; return the exit status: 0, 1 (a notebook failed), 2 (bad input) or 130 (Ctrl-C)."""
    parser = argparse.ArgumentParser(prog="python -m helpers.run", description="Execute notebooks and write reports.")
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="a name such as 01_mnist; default: all")
    parser.add_argument("--list", action="store_true", help="list the notebooks and stop")
    parser.add_argument("--save", action="store_true", help="also save the outputs in the notebook, if no cell fails")
    parser.add_argument("--jobs", type=int, metavar="N", help="so many at a time; default: 2, or 1 on one core or Dask")
    options = parser.parse_args(arguments)
    try:
        settings = read_settings()  # a wrong value is told now, not by the first cell of every notebook
        jobs = (1 if settings.dask_scheduler else min(2, count_workers())) if options.jobs is None else options.jobs
        if jobs < 1:
            raise InputError(f"--jobs {jobs}: expected 1 or more.")
        runs = [Run(path) for path in find_notebooks(options.notebooks)]
        if options.list:
            print("\n".join(run.name for run in runs))
            return 0
        tidy_up(reports.REPORTS_FOLDER, reports.NOTEBOOKS_FOLDER, reports.FIGURES_FOLDER)
        results_before = _find_results()
        run_side_by_side(runs, jobs, options.save)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    _print_summary(runs)
    names = set().union(*(reports.name_folders(run.name) for run in runs))
    for path, written in _find_results().items():
        if results_before.get(path) != written and path.parent.name in names:
            print(f"figures: {path.parent.relative_to(PROJECT_FOLDER)}/")
    try:
        reports.write_index()
    except (InputError, OSError) as error:
        print(f"error: no index of the reports: {error}", file=sys.stderr)
        return 2
    return int(any(run.failure for run in runs))


def find_notebooks(names):
    """Find notebooks by names such as ``01_mnist``, or by their paths; all of the project when none is named.

    Raise InputError, which lists those that there are, if there is no such notebook.
    """
    known = {path.stem: path for path in sorted(reports.NOTEBOOKS_FOLDER.glob("[!.]*.ipynb"))}
    found = {}
    for name in names or known:
        path = Path(name)
        if path.suffix == ".ipynb" and path.is_file():
            path = path.resolve()
        elif (path := known.get(name.removesuffix(".ipynb"))) is None:
            raise InputError(f"there is no notebook {name}. Known: {', '.join(known) or 'none'}.")
        found[path] = None  # named twice, it is run once
    if not found:
        raise InputError(f"there is no notebook in {reports.NOTEBOOKS_FOLDER}.")
    return list(found)


def run_side_by_side(runs, jobs, save=False):
    """Execute notebooks, ``jobs`` at a time, those first that took longest last time; print how each ended.

    ``save`` keeps the outputs in the notebooks, where no cell failed.
    """

    async def execute_all():
        places = asyncio.Semaphore(jobs)
        longest_first = sorted(runs, key=_read_last_seconds, reverse=True)
        await asyncio.gather(*(run.execute(places, save) for run in longest_first))

    # In a thread of its own: nbclient takes the signals of the main thread, and would answer Ctrl-C with waiting.
    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as pool:
        loop = runner.get_loop()
        task = loop.create_task(execute_all())
        future = pool.submit(loop.run_until_complete, task)
        try:
            while wait([future], timeout=1).not_done:
                _show_live([run for run in runs if run.is_running])
            future.result()
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave the kernels behind
            for run in runs:
                run.is_stopped = True
                if run.client:
                    run.client.shutdown_kernel = "immediate"  # the kernel is killed, not asked to end
            loop.call_soon_threadsafe(task.cancel)
            raise


class Run:
    """The execution of one notebook: how far it is, what it took, and why it failed."""

    def __init__(self, path):
        self.path, self.name = path, path.stem
        self.is_running = self.is_stopped = False
        self.failure = ""
        self.seconds, self.seconds_by_section = 0.0, Counter()
        self.peak_memory = self.cpu_seconds = None  # of the kernel
        self._cell, self._cells, self._heading = 0, 0, ""
        self.client = self._kernel = None

    def run(self, save=False):
        """Execute this notebook alone; see `run_side_by_side`."""
        run_side_by_side([self], 1, save)

    async def execute(self, places, save=False):
        """Execute the notebook when a place is free, write its reports, and print how it ended."""
        import nbformat

        async with places:
            self.is_running = True
            started, self._cell_started = time.time(), time.monotonic()
            try:
                notebook = nbformat.read(self.path, as_version=4)
                for cell in notebook.cells:
                    if cell.cell_type == "code":  # the report of a failed run shows how far it came
                        cell.outputs, cell.execution_count = [], None
                with hold_lock(reports.REPORTS_FOLDER / self.path.name):
                    await self._execute_cells(notebook)
                    if self.is_stopped:  # nbclient may take the killed kernel for a failure instead of the cancellation
                        raise asyncio.CancelledError
                    await asyncio.to_thread(self._write, notebook, save, started)
            except (OSError, ValueError) as error:  # no notebook, no place for the reports, or another run writes them
                self.failure = self.failure or f": {type(error).__name__}: {error}"
            self.seconds = time.time() - started
            self.is_running = False
            ended = f"FAILED{self.failure}" if self.failure else f"done in {self.seconds:,.0f} s"
            _show(f"{self.name}  {ended}\n")

    def _write(self, notebook, save, started):
        import nbformat

        executed = reports.REPORTS_FOLDER / self.path.name
        for cell in notebook.cells:
            if "outputs" in cell:
                cell.outputs = nbformat.from_dict(_change_texts(hide_keys, cell.outputs))
        _write_notebook(notebook, executed)  # first: whatever fails below, what the cells computed is kept
        if save and not self.failure:
            _write_notebook(notebook, self.path)
        notebook.metadata["run"] = reports.describe_run(self.name, started, self.failure)
        _write_notebook(notebook, executed)
        reports.write_report(self.name, notebook)

    async def _execute_cells(self, notebook):
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
        manager.kernel_spec.argv[1:3] = ["-c", _LAUNCH.format(os.getpid())]  # instead of -m ipykernel_launcher
        self.client = NotebookClient(
            notebook,
            timeout=None,
            record_timing=False,  # would differ in every saved notebook
            resources={"metadata": {"path": str(self.path.parent)}},
            on_notebook_start=lambda notebook: setattr(self, "_kernel", manager.provisioner.process),
            on_cell_start=self._start_cell,
            on_cell_executed=self._end_cell,
        )
        self.client.km = manager  # not as an argument: the client would leave the kernel running
        defaults = {"NOTEBOOK_PROGRESS": "off", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}  # kernels may share a GPU
        try:
            await self.client.async_execute(env=defaults | os.environ)
        except CellExecutionError as error:
            self._fail(f"{error.ename}: {error.evalue}" if error.evalue else error.ename)
        except RuntimeError as error:  # nbclient's DeadKernelError, or a kernel that did not start
            self._fail(_describe_end(self._kernel.poll()) if self._cell else str(error))
        finally:
            if manager.has_kernel:  # stopped while it was starting, which nbclient does not clean up
                await manager.shutdown_kernel(now=True)
            atexit.unregister(self.client._cleanup_kernel)

    def _fail(self, message):
        heading = f" ({self._heading})" if self._heading else ""
        where = f" in cell {self._cell}{heading}" if self._cell else ""
        self.failure = f"{where}: " + hide_keys(re.sub(r"\x1b\[[0-9;]*m", "", message))

    def _start_cell(self, cell, cell_index):
        self._cell_started = time.monotonic()
        self._cell += _is_executed(cell)
        if cell.cell_type == "markdown":
            text = re.sub(r"(?ms)^(```|~~~).*?^\1", "", cell.source)  # what stands in a code block is no heading
            self._heading = "".join(re.findall(r"(?m)^#{1,6} +(.*\S)", text)[-1:]) or self._heading

    def _end_cell(self, cell, cell_index, execute_reply):
        self._read_usage()
        self.seconds_by_section[self._heading] += (seconds := time.monotonic() - self._cell_started)
        if not sys.stdout.isatty():
            where = f"{self.name}  cell {self._cell:2}/{self._cells}"
            _show(f"{where} {seconds:6.1f} s  {self._heading}".rstrip() + "\n")

    def describe(self, width):
        """Describe how far the notebook is, in so many characters."""
        self._read_usage()
        where = f"cell {self._cell}/{self._cells}  {self._heading}" if self._cell else "starting the kernel"
        seconds = f"  {time.monotonic() - self._cell_started:.1f} s"
        return (f"{self.name}  {where}"[: width - len(seconds)] + seconds).ljust(width)

    def _read_usage(self):
        """Note what the kernel has used so far, where Linux tells it."""
        try:
            process = Path(f"/proc/{self._kernel and self._kernel.pid}")  # none yet while the kernel starts
            peak = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
            times = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return
        if peak:  # a kernel that has just died has none
            self.peak_memory = int(peak[1]) * 1024
            self.cpu_seconds = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def _describe_end(status):
    """Describe how a kernel ended that has died, by its exit status, which is negative if a signal has ended it."""
    if status is None:
        return "the kernel does not answer"
    if status >= 0:
        return f"the kernel ended with status {status}"
    with suppress(ValueError):  # of signals without a name
        name = signal.Signals(-status).name
        return f"the kernel {_ENDS.get(name, 'was ended')} ({name})"
    return f"the kernel was ended (signal {-status})"


_ENDS = {
    "SIGKILL": "was killed, probably because memory ran out",
    "SIGBUS": "died because a disk was full, or a file was cut short that was mapped into memory",
    **dict.fromkeys(["SIGSEGV", "SIGABRT", "SIGILL", "SIGFPE"], "crashed"),
}


def _write_notebook(notebook, path):
    import nbformat

    with replace_atomically(path) as unfinished:
        nbformat.write(notebook, unfinished)


def _change_texts(function, value):
    """Call a function for all texts in nested dicts and lists; return these with what it returns."""
    if isinstance(value, dict):
        return {name: _change_texts(function, part) for name, part in value.items()}
    if isinstance(value, list):
        return [_change_texts(function, part) for part in value]
    return function(value) if isinstance(value, str) else value


def _is_executed(cell):
    return cell.cell_type == "code" and bool(cell.source.strip())


def _show(line):
    """Write a line; on a terminal in the place of the one that tells how far the notebooks are."""
    if sys.stdout.isatty():
        line = "\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r" + line
    sys.stdout.write(line)  # at once, because two threads write
    sys.stdout.flush()


def _show_live(runs):
    """Tell on one line how far each notebook is that runs."""
    columns = shutil.get_terminal_size().columns  # a line that wraps could not be rewritten
    described = " ".join([run.describe(columns // len(runs) - 1) for run in runs])
    if sys.stdout.isatty():
        sys.stdout.write("\r" + described)
        sys.stdout.flush()


def _read_last_seconds(run):
    """Read from its last report how long a notebook took; 0 where there is none."""
    try:
        return json.loads((reports.REPORTS_FOLDER / f"{run.name}.ipynb").read_text(encoding="utf-8"))["metadata"][
            "run"
        ]["seconds"]
    except (OSError, ValueError, LookupError):
        return 0


def _find_results():
    return {path: path.stat().st_mtime_ns for path in sorted(reports.FIGURES_FOLDER.rglob("results.json"))}


def _print_summary(runs):
    width = max(len("notebook"), *(len(run.name) for run in runs))
    print(f"\n{'notebook':{width}}  state   {'time':>10}  {'peak memory':>11}  {'CPU time':>10}")
    for run in runs:
        row = f"{run.name:{width}}  {'FAILED' if run.failure else 'done':6}  {run.seconds:8,.0f} s"
        if run.peak_memory:
            row += f"  {run.peak_memory / 1e6:8,.0f} MB  {run.cpu_seconds:8,.0f} s"
        print(row)
    print(f"\nreports: {reports.REPORTS_FOLDER.relative_to(PROJECT_FOLDER)}/index.html")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a heading that the terminal cannot show is no reason to stop
    sys.exit(main())
