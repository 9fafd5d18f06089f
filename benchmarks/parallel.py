"""Several trainings: side by side, a process with one thread each, against one after the other with all threads."""

import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.augmentation import SETTINGS
from benchmarks.common import NETWORKS, compare, draw_pixels, measure_in_turn
from benchmarks.networks import build
from helpers.study.cnn import CNN_SETTINGS, train_cnn
from helpers.study.design import list_trials
from helpers.study.folds import fit_side_by_side
from helpers.study.runner import run_study
from helpers.training import fast
from helpers.training.augment import ImageDataGenerator
from helpers.training.fit import Recipe, fit_model

OURS, BESIDE = "ours, side by side", "one after the other, all threads"
UNIT = "trainings/min"
FOLDS = 4


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


def measure_folds(name, rounds=3, tiny=False):
    """Compare the folds of a cross-validation of a network of `NETWORKS` with `fit_model` for one after the other."""
    shape, batch_size, _ = NETWORKS[name]
    epochs, count = (1, 4 * batch_size) if tiny else (5, 8000 if shape[0] == 28 else 2000)  # a training takes 15 s
    pixels, y = draw_pixels(count, shape)
    pixels, recipe = pixels.astype("uint8"), Recipe(epochs, batch_size, augment=ImageDataGenerator(**SETTINGS))

    def run(side_by_side):
        with tempfile.TemporaryDirectory() as folder:
            trainings = {}
            for fold in range(FOLDS):
                fast.set_seed(fold)
                held_out = np.arange(len(y)) % FOLDS == fold
                data = {
                    part: (pixels, y[chosen], np.flatnonzero(chosen))
                    for part, chosen in (("training", ~held_out), ("validation", held_out))
                }
                about = {"model": build(name, "auto"), "recipe": recipe, "checkpoint": Path(folder) / f"{fold}.npz"}
                trainings[f"fold {fold}"] = about | data
            if side_by_side:
                fit_side_by_side("folds", trainings)
            for about in trainings.values():
                fit_model(**about)

    ways = {OURS: partial(run, True), BESIDE: partial(run, False)}
    return compare_ways(f"folds, {FOLDS} trainings, {name}", ways, FOLDS, epochs, rounds)


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


ROWS = {"parallel-study": measure_study} | {
    f"parallel-folds-{name}": partial(measure_folds, name) for name in ("28x28x1", "160x120x3")
}
