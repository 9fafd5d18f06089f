"""Workers of a Dask cluster that are killed, are of another version, see no files or join later; a lost scheduler.

Each stage that is spread has to give what it gives on this machine, to the last bit, whatever happens to its workers.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import chdir, contextmanager, suppress
from functools import partial
from pathlib import Path
from socket import gethostname
from unittest.mock import patch

import numpy as np
import pandas as pd
from PIL import Image

import helpers
from benchmarks.torture import Case
from benchmarks.torture.processes import Cluster
from benchmarks.torture.trials import train
from helpers import parallel
from helpers.data import reading
from helpers.data.pixels import hash_files, load_pixels, measure_images
from helpers.evaluation import bootstrap
from helpers.files import InputError
from helpers.parallel import run_in_parallel, use_cluster
from helpers.study import runner

_SHAPE, _TRIALS, _DEADLY = (24, 32, 3), 6, 2  # the item, counted in the order in which they begin, that kills or waits
_SAME = "what this machine gives, to the last bit"


def run(short=False):
    """Kill workers in each stage, and let others join that cannot work; the short form leaves out what takes long."""
    with tempfile.TemporaryDirectory() as folder, patch.object(reading, "_RECENT", 0):
        place = Path(folder)
        table = _draw_images(place / "files", 40 if short else 400)
        stages = {
            "hashing": partial(_hash, table, place / "files"),
            "measuring": partial(measure_images, table, place / "files"),
            "decoding": partial(_decode, table, place / "files"),
            "study": _study,
            "bootstrap": _bootstrap,
        }
        if not short:
            stages["study of networks"] = _study_networks
        use_cluster("")
        here = {name: stage(place / "here" / name) for name, stage in stages.items()}
        (place / "cluster").mkdir()
        cluster = Cluster(place / "cluster")
        try:
            _start_workers(cluster)
            use_cluster(cluster.address)
            with patch.object(bootstrap, "_CLUSTER_SECONDS", 0):
                cases = [_kill_one(name, stage, here[name], place) for name, stage in stages.items()]
                for name in ["decoding"] if short else stages:
                    cases.append(_kill_all(name, stages[name], here[name], place, cluster))
            if not short:
                cases.append(_kill_each(here["study"], place))
            cases += [_hide_files(name, stage, table, place, cluster) for name, stage in _READING.items()]
            if not short:
                cases += [_refuse_version(name, place, cluster) for name in _CHANGES]
                cases.append(_join_without_project(place, cluster))
            cases.append(_join_later(place, cluster))
            cases.append(_lose_scheduler(here["study"], place, cluster))
        finally:
            use_cluster("")
            cluster.close()
    return cases


# The stages


def _draw_images(folder, count):
    rng = np.random.default_rng(0)
    folder.mkdir()
    paths = [f"{number:03}.{'jpg' if number % 2 else 'png'}" for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (*rng.integers(20, 90, 2), 3), "uint8")).save(folder / path)
    return pd.DataFrame({"image_id": paths, "path": paths})


def _hash(table, folder, into):
    reading._hashes.clear()
    return hash_files(table, folder)


def _decode(table, folder, into):
    return np.array(load_pixels(table, folder, _SHAPE, into))


def _bootstrap(into):
    return bootstrap.bootstrap(partial(_average, np.arange(300) % 7), range(300), 203, 4)


def _average(values, weights):
    return {"mean": np.average(values, weights=weights) / 7}


def _study(into):
    trials = pd.DataFrame({"settings": [{"x": number} for number in range(_TRIALS)], "seed": 5})
    return runner.run_study(train, trials, into, (np.arange(99.0),), n_jobs=1).drop(columns="wall_seconds")


def _study_networks(into):
    """Train small networks, on this machine in processes of one thread each, as on workers."""
    from helpers.study.cnn import CNN_SETTINGS, train_cnn  # here only: it starts TensorFlow

    rng = np.random.default_rng(0)
    base = CNN_SETTINGS | {"blocks": 2, "convolutions": 1, "filters": 4, "epochs": 2, "batch_size": 16}
    trials = pd.DataFrame({"settings": [base, base | {"filters": 8}], "seed": 5}).loc[[0, 1]]
    trials = pd.concat([trials, trials.assign(seed=6)])
    arrays = (
        rng.integers(0, 256, (96, 8, 8, 1), "uint8"),
        np.eye(2, dtype="float32")[np.arange(96) % 2],
        np.repeat(["train", "validation", "test"], 32),
        np.array([[128.0], [74.0]]),
    )
    return runner.run_study(train_cnn, trials, into, arrays, n_jobs=2).drop(columns=["wall_seconds", "train_minutes"])


# Killed workers


@contextmanager
def _deadly(place, does):
    """Let one of the items, which are counted by files in a new folder, "kill" its worker, "wait", or kill "always"."""
    place.mkdir(parents=True)

    def spread(function, items, shared=()):
        return parallel_run(partial(_run_deadly, function, place, does), items, shared)

    parallel_run = parallel.run_on_cluster
    with patch.object(parallel, "run_on_cluster", spread), patch.object(runner, "run_on_cluster", spread):
        yield


def _run_deadly(function, place, does, item, *shared):
    if does == "always":
        if isinstance(item, dict) and item["settings"]["x"] == _DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
    elif _count_up(place) == _DEADLY:
        (place / does).touch()
        if does == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
    return function(item, *shared)


def _count_up(place):
    number = 0
    while True:
        with suppress(FileExistsError), open(place / f"{number}.begun", "x"):
            return number
        number += 1


def _kill_one(name, stage, here, place):
    into = place / "one" / name
    with _deadly(into / "begun", "kill"):
        found = stage(into)
    return _compare(f"{name}: a worker killed", here, found, (into / "begun" / "kill").exists(), "one killed")


def _kill_all(name, stage, here, place, cluster):
    into = place / "all" / name
    marker = into / "begun" / "wait"
    replaced = threading.Thread(target=_replace_workers, args=(cluster, marker))
    with _deadly(into / "begun", "wait"):
        replaced.start()
        found = stage(into)
    replaced.join()
    return _compare(f"{name}: all workers killed, new ones started", here, found, marker.exists(), "all were killed")


def _replace_workers(cluster, marker):
    _wait_for(marker.exists)
    cluster.kill_workers()
    _start_workers(cluster)


def _kill_each(here, place):
    """Let a trial kill each of its workers: it is recorded as failed, and the others are finished."""
    with _deadly(place / "each" / "begun", "always"):
        found = _study(place / "each")
    same, error = found.drop(index=_DEADLY).equals(here.drop(index=_DEADLY)), found["error"][_DEADLY]
    happened = f"failed, because {error}; the other trials are {'the same' if same else 'NOT the same'}"
    expected = "recorded as failed; the other trials as on this machine"
    return Case("study: a trial kills each of its workers", expected, happened, same and "was killed" in error)


def _compare(name, here, found, done, what):
    same = np.array_equal(here, found) if isinstance(here, np.ndarray) else here.equals(found)
    happened = f"{'the same' if same else 'NOT the same'}; {what if done else 'nobody was killed'}"
    return Case(name, _SAME, happened, bool(same and done))


# Workers that cannot work

_READING = {"hashing": _hash, "measuring": measure_images, "decoding": _decode}


def _hide_files(name, stage, table, place, cluster):
    """Read from a folder that is another one for each process, by the place where it was started."""
    folder, into = Path("/proc/self/cwd/files"), place / "hidden" / name
    with chdir(place):
        if stage is not _hash:
            use_cluster("")
            hash_files(table, folder)
            use_cluster(cluster.address)
        message = _read_refusal(stage, table, folder, into)
    named = re.search(r"files/\d+\.(png|jpg) cannot be opened on " + re.escape(gethostname()), message)
    right = bool(named and "must see the same folder" in message and not any(into.rglob("*.[nc][ps][yv]")))
    expected = "an error that names file and machine, nothing cached"
    happened = message.replace(f"{folder}/", "").replace(gethostname(), "HOST")
    return Case(f"{name}: workers without the file system", expected, happened, right)


def change_code(folder):
    """Copy this package into a folder, with a change of its code."""
    shutil.copytree(Path(helpers.__file__).parent, folder / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    with open(folder / "helpers" / "settings.py", "a") as file:
        file.write("# changed\n")


def change_numpy(folder):
    """Put into a folder what makes Python take NumPy for another version."""
    (folder / "numpy-1.0.dist-info").mkdir(parents=True)
    (folder / "numpy-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n")


def _make_older(folder):
    """Take out what tells versions, as in versions of the project that knew of none."""
    change_code(folder)
    module = folder / "helpers" / "parallel.py"
    module.write_text(module.read_text().replace("describe_versions", "describe_nothing"))


def leave_out_project(folder):
    """Put into a folder what makes Python not find this package."""
    (folder / "helpers").mkdir(parents=True)
    (folder / "helpers" / "__init__.py").write_text("raise ImportError('No module named helpers')\n")


_CHANGES = {  # how to make a folder that a worker imports from, and what its refusal says
    "other NumPy": (change_numpy, rf"NumPy 1\.0 there and {re.escape(np.__version__)} here"),
    "other code": (change_code, r"this project \S+ \(code (\w{8})\) there and \S+ \(code (?!\1)\w{8}\) here"),
    "an older project": (_make_older, r"this project none .+ there and \S+ \(code \w{8}\) here"),
}


def _refuse_version(name, place, cluster):
    change, expected = _CHANGES[name]
    change(place / name)
    process = _add_foreign(cluster, place / name)
    _wait_for(lambda: len(parallel._client.nthreads()) == 3)
    message = _read_refusal(use_cluster, cluster.address)
    _end(process)
    return _judge_refusal(f"a worker with {name}", expected, message)


def _join_later(place, cluster):
    """Start a worker with other code when work has begun: it does none."""
    ran = place / "ran"
    ran.mkdir()
    use_cluster(cluster.address)
    allowed = set(parallel._client.run(os.getpid).values())
    change_code(place / "later")
    processes = []

    def work():
        for position, _ in run_in_parallel(partial(_note_process, ran), range(600)):
            if not position:
                processes.append(_add_foreign(cluster, place / "later"))

    message = _read_refusal(work)
    _end(*processes)
    others = {int(path.name) for path in ran.iterdir()} - allowed
    case = _judge_refusal("a worker with other code joins later", _CHANGES["other code"][1], message)
    return case._replace(right=case.right and not others, happened=case.happened + "; it ran something" * bool(others))


def _join_without_project(place, cluster):
    leave_out_project(place / "none")
    process = _add_foreign(cluster, place / "none")
    with suppress(subprocess.TimeoutExpired):
        process.wait(60)
    right = bool(process.poll()) and len(parallel._client.nthreads()) == 2
    happened = f"it {'ends with an error' if process.poll() else 'goes on'}"
    return Case("a worker without this project joins later", "it does not join", happened, right)


def _note_process(place, item):
    (place / f"{os.getpid()}").touch()
    time.sleep(0.05)


def _judge_refusal(name, expected, message):
    found = re.search(expected, message)
    right = bool(found and re.search(r"the worker tcp://127\.0\.0\.1:\d+ is of another version", message))
    happened = re.sub(r"\(code \w+\)(?= there)", "(other code)", found[0] if found else message)
    happened = re.sub(r"(?<=used) \(.+\)(?= there)", "", re.sub(r"\(code \w+\)", "(this code)", happened))
    return Case(name, "refused, with both versions", happened, right)


def _add_foreign(cluster, path):
    return cluster.add_worker("--nthreads", "1", "--no-nanny", path=[path])


def _lose_scheduler(here, place, cluster):
    """Kill the scheduler during a study, and go on with it on this machine."""
    into = place / "lost"

    def is_in_the_middle():
        return (into / "begun" / "wait").exists() and any(into.glob("[!.]*.json"))

    use_cluster(cluster.address)
    killed = threading.Thread(target=lambda: (_wait_for(is_in_the_middle), cluster.kill_scheduler()))
    with _deadly(into / "begun", "wait"), patch.object(parallel, "_CONNECT_SECONDS", 1):
        killed.start()
        message = _read_refusal(_study, into)
    killed.join()
    use_cluster("")
    kept = {path: path.stat().st_mtime_ns for path in into.glob("*.json")}
    found = _study(into)
    again = sum(path.stat().st_mtime_ns != changed for path, changed in kept.items())
    told = re.search("the connection to the scheduler was lost|the scheduler is not reached", message)
    right = told and kept and not again and here.equals(found)
    happened = f"{told and told[0]}; {len(kept)} trials were finished, {again} of them run again"
    return Case("study: the scheduler killed, then run again", "an error; no trial lost", happened, bool(right))


def _read_refusal(function, *arguments):
    """Call what has to end in an InputError: its message, or what came instead."""
    try:
        return f"no error: {function(*arguments)}"
    except InputError as error:
        return str(error)


def _start_workers(cluster):
    cluster.add_worker("--nthreads", "1", "--nworkers", "2")


def _end(*processes):
    for process in processes:
        process.kill()
        process.wait()
    _wait_for(lambda: parallel._client.status != "running" or len(parallel._client.nthreads()) == 2)


def _wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("nothing happened for 60 seconds")
        time.sleep(0.02)
