"""Running a study: its trials side by side, one thread each, on the cores of this machine or a Dask cluster.

Each result is a file of its own, written at once, so that a study that was interrupted goes on where it stopped.
"""

import ast
import hashlib
import inspect
import json
import os
import re
import sys
import time
import traceback
import warnings
import zlib
from contextlib import closing, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from pickle import PicklingError
from unittest.mock import patch

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from helpers.files import WriteError, name_failed_writes, release_pages, replace_atomically
from helpers.identity import describe
from helpers.leftovers import name_unfinished, remove_unfinished
from helpers.parallel import ONE_THREAD, KilledWorkerError, end_with_parent, run_on_cluster, uses_cluster
from helpers.progress import open_stage
from helpers.redaction import hide_secrets
from helpers.seals import DamagedError, read_cached
from helpers.study.design import dump_settings

_TRIAL, _RUN = ("trial", "settings", "seed"), ("wall_seconds", "error")  # columns beside the results
_RECORD = {*_TRIAL, "results", *_RUN, "traceback", "versions"}
_SAMPLE_BYTES = 2**26  # of each array, to tell it from others


def run_study(train, trials, folder, arrays=(), n_jobs=None):
    """Run the trials that have no result yet, and return all results.

    Parameters
    ----------
    train : function ``(settings, seed, *arrays) -> dict of str to number``
        A result is identified by its name and source; by the functions and data that it names, see
        `helpers.identity.describe`; by the code, without comments, of its module and of all modules of its package and
        of this one that these import; by the versions of Keras, TensorFlow and NumPy; and by settings, seed and arrays.
        Anything but a function is a ValueError.
    trials : DataFrame
        From `list_trials`.
    folder : str or Path
        Gets one file ``<trial>.json`` per trial, which holds a checksum: the trial of a damaged one, which is named on
        standard output, is run again.
    arrays : sequence of arrays
        Read-only for the trials. Processes on this machine share large ones in memory, and read a memory-mapped one
        from its file. They are identified by shape, type and a sample of their content.
    n_jobs : int, optional
        How many processes on this machine; as many as there are cores by default. With 1 the trials run in this
        process, with all its threads, and one that kills its process ends all. A Dask cluster, if there is one
        (`helpers.parallel.use_cluster`), takes all its workers instead.

    Returns
    -------
    DataFrame with one row per trial: ``trial`` (its key), ``settings, seed``, the results, ``wall_seconds`` and
    ``error``, which is empty unless the trial failed. A failed trial has no results; its file has the traceback, and
    the next run of the study runs it again.

    Raises
    ------
    InputError
        As `helpers.parallel.run_on_cluster`.
    WriteError
        The disk refuses a result, or the large arrays that processes share. Finished trials are kept.
    TerminatedWorkerError
        A process was killed while it ran no trial. When it is killed during one, as by a lack of memory, joblib ends
        all others; their trials are run one by one at the end, and one whose process is killed again is recorded as
        failed. On a cluster Dask itself tries a trial on four workers before it counts as killed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    identity = _identify(train, arrays)
    trials = [{"settings": row.settings, "seed": int(row.seed)} for row in trials.itertuples()]
    trials = {hashlib.sha256(dump_settings([trial, identity]).encode()).hexdigest()[:16]: trial for trial in trials}
    again = "its trial is run again"
    records = {key: read_cached(folder / f"{key}.json", read_record, again) for key in trials}
    waiting = {key: {"trial": key} | trials[key] for key, record in records.items() if not record or record["error"]}
    n_jobs = effective_n_jobs(-1 if n_jobs is None else n_jobs)
    if uses_cluster() and waiting:
        finished = _retry_lost(partial(_run_on_cluster, train, arrays), waiting)
    elif n_jobs == 1 or not waiting:
        finished = ((key, _run_trial(trial, train, *arrays)) for key, trial in waiting.items())
    else:
        finished = _retry_lost(partial(_run_in_processes, train, arrays, n_jobs, folder), waiting)
    done = len(trials) - len(waiting)
    with open_stage("study", len(trials), "trial", done) as stage, closing(finished):
        stage.doing = f"{done} of {len(trials)} trials"
        for key, record in finished:
            records[key] = record
            _save_record(record, folder / f"{key}.json")
            stage.update()
            stage.doing = f"{stage.done} of {len(trials)} trials"
    return pd.DataFrame(
        {name: record[name] for name in _TRIAL} | record["results"] | {name: record[name] for name in _RUN}
        for record in records.values()
    )


def _identify(train, arrays):
    """Hash function and data, which identify a result."""
    if not inspect.isfunction(train):
        raise ValueError(f"train is {train!r}; expected a function.")
    about = [train.__module__, train.__qualname__, inspect.getsource(train), _read_code(train)]
    about.append([*list_versions().values()])
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode() + repr(describe(train)).encode())
    for array in arrays:
        array = np.atleast_1d(array)
        digest.update(str((array.shape, array.dtype)).encode())
        sample = array[:: array.nbytes // _SAMPLE_BYTES + 1]
        digest.update((sample.astype(str) if sample.dtype == object else sample).tobytes())
        release_pages(array)
    return digest.hexdigest()


def _read_code(train):
    """Read the code, by module, that a function can run: see `run_study`. Nothing is imported for that.

    Of a function in a notebook the modules are those that it names.
    """
    module = sys.modules.get(train.__module__)
    package = sys.modules.get(train.__module__.partition(".")[0])
    roots = {Path(__file__).parents[1].name: Path(__file__).parents[2]}
    if hasattr(package, "__path__"):
        roots[package.__name__] = Path(package.__path__[0]).parent

    def find(name):
        if module is not None and name == module.__name__:
            return Path(getattr(module, "__file__", None) or "")
        path = roots.get(name.partition(".")[0], Path()).joinpath(*name.split("."))
        return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")

    named = inspect.getclosurevars(train).globals.values()
    waiting = [train.__module__, *(getattr(value, "__module__", None) or "" for value in named)]
    waiting += [value.__name__ for value in named if inspect.ismodule(value)]
    code = {}
    while waiting:
        name = waiting.pop()
        path = find(name)
        if name in code or not path.is_file() or name.partition(".")[0] not in {*roots, train.__module__}:
            continue
        tree = ast.parse(path.read_bytes())
        code[name] = ast.unparse(tree)
        parts = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = parts[: len(parts) + 1 - node.level] if node.level else []
                base = ".".join([*base, *filter(None, [node.module])])
                inner = [f"{base}.{alias.name}" for alias in node.names]
                waiting += [name if find(name).is_file() else base for name in inner]
    return code


def list_versions():
    """List the versions of the packages that a result depends on: a dict of str. Results of others are not taken."""
    return {package: version(package) for package in ("keras", "tensorflow", "numpy")}


def _save_record(record, path):
    record = json.loads(json.dumps(record | {"versions": list_versions()}))  # as it will be read again
    with replace_atomically(path) as unfinished:
        unfinished.write_text(json.dumps(record | {"checksum": _sum_up(record)}, indent=1))


def read_record(path):
    """Read the record of a trial: a dict. Raise DamagedError if it is not as it was written."""
    try:
        record = json.loads(path.read_bytes())
        checksum = record.pop("checksum")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError("it is no record with a checksum") from error
    if record.keys() != _RECORD or checksum != _sum_up(record):
        raise DamagedError("its checksum differs")
    if record["trial"] != path.stem:
        raise DamagedError("it is that of another trial")
    return record


def _sum_up(record):
    """Compute a checksum of a record, however it is laid out."""
    return f"{zlib.crc32(json.dumps(record, sort_keys=True).encode()):08x}"


def _make_record(trial, results=None, wall_seconds=None, error="", trace=""):
    return trial | {"results": results or {}, "wall_seconds": wall_seconds, "error": error, "traceback": trace}


def _run_trial(trial, train, *arrays, marker=None):
    """Run a trial, in whatever process; a file ``marker``, if one is named, is there as long as it runs."""
    if marker:
        with name_failed_writes(marker.with_name(f"{trial['trial']}.json"), marker):
            marker.touch()
    start = time.perf_counter()
    try:
        results = dict(train(trial["settings"], trial["seed"], *arrays))
        if taken := results.keys() & {*_TRIAL, *_RUN}:
            raise ValueError(f"Results must not be called {', '.join(sorted(taken))}.")
        results = json.loads(json.dumps(results, default=lambda number: number.item()))
        record = _make_record(trial, results, time.perf_counter() - start)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        told = hide_secrets(text), hide_secrets(traceback.format_exc())[-3000:]
        record = _make_record(trial, None, time.perf_counter() - start, *told)
    if marker:
        with suppress(OSError):
            marker.unlink()
    return record


def _retry_lost(run, trials):
    """Run trials together; then, each alone, those whose processes were killed. Yield key and record of each."""
    lost = {}
    with closing(run(trials)) as finished:
        for key, record in finished:
            if record is None:
                lost[key] = trials[key]
            else:
                yield key, record
    error = "its process was killed, as by a lack of memory: once among others, and once alone"
    for key, trial in lost.items():
        with closing(run({key: trial})) as finished:
            _, record = next(finished)
        yield key, record or _make_record(trial, error=error)


def _run_in_processes(train, arrays, n_jobs, folder, trials):
    """Run trials side by side; yield key and record of each when it is finished, None if its process was killed."""
    markers = {key: name_unfinished(folder / f"{key}.started") for key in trials}  # two at once run the same study
    waiting = dict(trials)
    one_thread = patch.dict(os.environ, ONE_THREAD)
    get_reusable_executor(reuse=True).shutdown()  # older processes may have started TensorFlow with more threads
    try:
        workers = {"inner_max_num_threads": 1, "initializer": end_with_parent, "initargs": (os.getpid(),)}
        with one_thread, parallel_config(backend="loky", **workers), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*tasks which were still being processed")  # when interrupted
            while waiting:
                tasks = [delayed(_run_trial)(waiting[key], train, *arrays, marker=markers[key]) for key in waiting]
                # With one process joblib would run them in this one. A batch of several would be finished together.
                pool = Parallel(min(n_jobs, max(2, len(tasks))), batch_size=1, return_as="generator_unordered")
                try:
                    with closing(pool(tasks)) as finished:
                        for record in finished:
                            del waiting[record["trial"]]
                            yield record["trial"], record
                except TerminatedWorkerError:
                    killed = [key for key in waiting if markers[key].exists()]  # joblib ends them all when one is
                    if not killed:
                        raise
                    for key in killed:
                        del waiting[key]
                        yield key, None
                except PicklingError as error:  # whose cause is known as a text only
                    if refused := re.search(r"^OSError: \[Errno \d+\] ([^:\n]+)", str(error.__cause__), re.M):
                        place = os.environ.get("JOBLIB_TEMP_FOLDER", "/dev/shm or TMPDIR")
                        raise WriteError(
                            f"{place}, where processes share the arrays of a study, cannot be written ({refused[1]}). "
                            "Make space there, or name another folder in JOBLIB_TEMP_FOLDER, and run it again. "
                            "Finished trials are kept."
                        ) from error
                    raise
    finally:
        get_reusable_executor(reuse=True).shutdown(kill_workers=True)
        for marker in markers.values():
            with suppress(OSError):
                marker.unlink()


def _run_on_cluster(train, arrays, trials):
    """Run trials on the cluster; yield key and record of each when it is finished, None if its worker was killed."""
    keys = list(trials)
    with closing(run_on_cluster(_run_trial, trials.values(), (train, *arrays))) as finished:
        for position, record, error in finished:
            key = keys[position]
            if error and not isinstance(error, KilledWorkerError):  # on the way to the worker or back
                record = _make_record(trials[key], error=f"{type(error).__name__}: {error}")
            yield key, record
