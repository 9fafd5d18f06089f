"""The notebooks: what each takes in quick mode on the sample."""

import os
from functools import partial

from benchmarks.common import compare
from helpers.run import Run, find_notebooks


def measure_notebook(path, rounds=1, tiny=False):
    """Execute a notebook; compare the time that its kernel computes with the time that passes."""
    quick_on_sample = {"NOTEBOOK_MODE": "quick", "DATA_SOURCE": "sample"}
    before = {name: os.environ.get(name) for name in quick_on_sample}
    os.environ.update(quick_on_sample)
    runs = [Run(path) for _ in range(rounds)]
    try:
        for run in runs:
            run.run()
            if run.failure:
                raise RuntimeError(f"{run.name} failed{run.failure}")
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    measured = {"CPU time": [run.cpu_seconds for run in runs], "wall time": [run.seconds for run in runs]}
    peak = max(run.peak_memory for run in runs) / 1e9
    longest = runs[0].seconds_by_section.most_common(3)
    sections = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in longest)
    note = f"both of the same run; peak memory {peak:.2f} GB; longest: {sections}"
    return [compare(f"notebook {path.stem}", "CPU time", "wall time", measured, "s", peak_memory_gb=peak, note=note)]


ROWS = {f"notebooks-{path.stem}": partial(measure_notebook, path) for path in find_notebooks([])}
