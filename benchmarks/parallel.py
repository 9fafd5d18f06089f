"""A study: its trainings side by side, a process with one thread each, against one after the other with all threads."""

import resource
import tempfile
import time
from functools import partial

import numpy as np

from benchmarks.augmentation import SETTINGS
from benchmarks.common import compare, draw_pixels, measure_in_turn
from helpers.study.cnn import CNN_SETTINGS, train_cnn
from helpers.study.design import list_trials
from helpers.study.runner import run_study
from helpers.training import fast

OURS, BESIDE = "ours, side by side", "one after the other, all threads"
UNIT = "trainings/min"


def measure_study(rounds=3, tiny=False):
    """Compare a study as `04_melanoma` has one, on drawn pixels, with the same in this process."""
    shape, count, epochs = ((16, 16, 3), 200, 1) if tiny else ((64, 64, 3), 2000, 3)
    pixels, y = draw_pixels(count, shape, 2)
    sets = np.repeat(["train", "validation", "test"], [count - count // 5, count // 10, count // 10])
    arrays = pixels.astype("uint8"), y, sets, np.array([[127.5] * 3, [74.0] * 3])
    base = CNN_SETTINGS | {"filters": 16, "first_stride": 2, "average_pooling": True, "epochs": epochs}
    base |= {"batch_size": 32, "augmentation": SETTINGS, "precision": fast.set_precision("auto")}
    factors = {"filters": {"8": {"filters": 8}, "16": {}}, "depth": {"2": {"blocks": 2}, "3": {}}}
    trials = list_trials(base, factors, [0] if tiny else [0, 1])

    def run(n_jobs):
        with tempfile.TemporaryDirectory() as folder:
            results = run_study(train_cnn, trials, folder, arrays, n_jobs)
        if results["error"].any():
            raise RuntimeError(results["error"].iloc[0])

    what = f"study, {len(trials)} trainings, {shape[0]}x{shape[1]}x{shape[2]}"
    return compare_ways(what, {OURS: partial(run, None), BESIDE: partial(run, 1)}, len(trials), epochs, rounds)


def compare_ways(what, ways, count, epochs, rounds):
    """Measure both ways in turn; the processes' start counts, and the processor time of both is told."""
    processor_time = dict.fromkeys(ways, 0.0)

    def measure(way):
        start, spent = time.perf_counter(), read_processor_time()
        ways[way]()
        processor_time[way] += (read_processor_time() - spent) / rounds
        return count * 60 / (time.perf_counter() - start)

    measured = measure_in_turn({way: partial(measure, way) for way in ways}, rounds)
    note = f"{epochs} epochs each, with the start of the processes; on average A takes {processor_time[OURS]:.0f} s of "
    note += f"the processor, B {processor_time[BESIDE]:.0f} s"
    return [compare(what, OURS, BESIDE, measured, UNIT, note=note)]


def read_processor_time():
    """Read the seconds of the processor that this process and those that it has ended have taken."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


ROWS = {"parallel-study": measure_study}
