"""Trials of `acting.act`, and studies of them that wait for good; in a module without TensorFlow, to start soon."""

import pandas as pd
from acting import act

from benchmarks.common import run_alone
from helpers.study.runner import run_study


def make_base(folder, **changes):
    return {"x": 1, "y": 10.0, "does": "", "folder": str(folder), "threads": False} | changes


def make_trials(folder, *does, counting=()):
    """Make a trial for each thing to do, numbered by x; those with a number in ``counting`` count their threads."""
    settings = [make_base(folder, x=number, does=what, threads=number in counting) for number, what in enumerate(does)]
    return pd.DataFrame([(each, 5) for each in settings], columns=["settings", "seed"])


def run_in_vain(folder):
    """Run a study whose trials wait for good."""
    run_study(act, make_trials(folder, "wait", "wait"), folder / "study", n_jobs=2)


def run_benchmark_in_vain(folder):
    run_alone(act, make_base(folder, does="wait"), 0)
