"""Trainings side by side, such as the folds of a cross-validation: each in a process of its own.

One after the other, they leave cores idle much of the time: a network is traced, fed and stepped by one thread.
"""

import pickle
from contextlib import closing
from pathlib import Path

from helpers.training.fast import fuse  # isort: skip  (first: it starts TensorFlow without log lines)
import keras

from helpers.parallel import count_workers, uses_cluster
from helpers.progress import open_stage
from helpers.study.runner import run_in_processes
from helpers.training import tf
from helpers.training.fit import fit_model, is_finished


def fit_side_by_side(label, trainings):
    """Train several models, so that `fit_model` finds them finished in their checkpoints.

    They share the cores of this machine: where there are fewer cores than trainings, each has one thread. This gives
    other bits than `fit_model` with all threads, and the same ones each time, also when it is interrupted or killed and
    goes on. Nothing is done for one training alone, on one core, on a GPU, and with a Dask cluster, whose workers may
    have other disks: `fit_model` trains there. So it does after an error, which it then tells.

    Parameters
    ----------
    label : str
        What the line of progress calls them all.
    trainings : dict of str to dict
        For each name the arguments of `helpers.training.fit.fit_model`, with a ``checkpoint``. The models are as
        `helpers.training.fast.fuse` returns them, and are not changed.
    """
    cores = count_workers()
    if uses_cluster() or min(cores, len(trainings)) < 2 or tf.config.list_physical_devices("GPU"):
        return
    arrays, trials = {}, {}
    for about in trainings.values():
        if is_finished(**about):
            continue
        checkpoint = Path(about["checkpoint"])
        settings = about | {"policy": keras.config.dtype_policy().name, "model": pickle.dumps(about["model"])}
        for part in ("training", "validation"):
            pixels, *rest = about[part]
            place = pixels.ctypes.data, pixels.shape
            arrays[place] = pixels  # once, however many trainings take them
            settings[part] = [*arrays].index(place), *rest
        trials[checkpoint.stem] = {"trial": checkpoint.stem, "settings": settings, "seed": about.get("seed")}
    if not trials:
        return
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    threads = max(1, cores // len(trainings))  # also when some are finished already
    finished = run_in_processes(_fit, trials, checkpoint.parent, [*arrays.values()], cores // threads, threads)
    with open_stage(label, len(trials), "training") as stage, closing(finished):
        for _ in finished:
            stage.update()


def _fit(settings, seed, *arrays):
    """Train one model: a ``train`` for `helpers.study.runner`."""
    settings = dict(settings)
    keras.config.set_dtype_policy(settings.pop("policy"))
    for part in ("training", "validation"):
        position, *rest = settings[part]
        settings[part] = arrays[position], *rest
    try:
        fit_model(**settings | {"model": fuse(pickle.loads(settings["model"]))})  # read as plain Keras layers
    finally:
        keras.utils.clear_session()  # of the trainings before nothing stays in memory
    return {}
