"""Studies: every trial once, nothing lost, nothing taken for something else. Networks and images are tiny."""

import importlib
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import joblib
import keras
import numpy as np
import pandas as pd
import psutil
import pytest
from acting import act, act_otherwise
from trials import make_base, make_trials

from helpers import parallel
from helpers.files import WriteError
from helpers.study import cnn, runner
from helpers.study.cnn import CNN_SETTINGS, train_cnn
from helpers.study.design import expand_results, list_trials
from helpers.study.runner import run_study
from helpers.training.augment import make_augmenter
from helpers.training.networks import build_cnn

ARRAYS = (np.arange(4),)
FACTORS = {
    "width": {"narrow": {"x": 2}, "base": {}, "wide": {"x": 8}},
    "rate": {"fast": {"y": 9.5}, "slow": {}},
}


def read_calls(folder):
    """Read the calls so far as (x, seed), and forget them."""
    path = folder / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [tuple(map(int, line.split()[:2])) for line in lines]


@pytest.fixture
def run(tmp_path):
    """Run the trials of FACTORS, or others, in this process; the results lie in the folder ``study``."""

    def run(train=act, trials=None, arrays=ARRAYS, n_jobs=1, **options):
        trials = list_trials(make_base(tmp_path), FACTORS, [5, 6]) if trials is None else trials
        return run_study(train, trials, tmp_path / "study", arrays, n_jobs=n_jobs, **options)

    return run


# What the disk refuses


def test_a_full_folder_for_shared_arrays_is_told_and_the_study_goes_on_later(run, small_disk, monkeypatch, tmp_path):
    monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(small_disk.folder))
    small_disk.fill()
    trials, arrays = make_trials(tmp_path, "", ""), (np.ones(150_000),)
    with pytest.raises(WriteError, match=r"disk, where processes share .* \(No space left on device\)\. Make space"):
        run(trials=trials, arrays=arrays, n_jobs=2)
    small_disk.empty()
    results = run(trials=trials, arrays=arrays, n_jobs=2)
    assert results["error"].tolist() == ["", ""]
    assert results["mapped"].tolist() == [1, 1]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_read_only_folder_is_named(small_disk, tmp_path, n_jobs):
    trials = make_trials(tmp_path, "", "")
    folder = small_disk.folder / "study"
    run_study(act, trials[:1], folder, ARRAYS, n_jobs=1)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    small_disk.protect()
    with pytest.raises(
        WriteError, match=rf"^{folder}/[0-9a-f]{{16}}\.json cannot be written \(Read-only file system\)"
    ):
        run_study(act, trials, folder, ARRAYS, n_jobs=n_jobs)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


# The list of trials


def test_each_trial_is_listed_once_in_order():
    trials = list_trials({"x": 1, "y": 10.0}, FACTORS, seeds=[6, 5, 6])
    expected = [{"x": 2, "y": 10.0}, {"x": 1, "y": 10.0}, {"x": 8, "y": 10.0}, {"x": 1, "y": 9.5}]
    assert trials["settings"].tolist() == expected * 2
    assert trials["seed"].tolist() == [6] * 4 + [5] * 4


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"width": {"wide": {"z": 2}}}, "width: wide changes z"),
        ({"width": {"base": {}, "same": {"x": 1}}}, "width: two of its levels"),
    ],
)
def test_levels_that_make_no_sense(factors, message):
    with pytest.raises(ValueError, match=message):
        list_trials({"x": 1}, factors, [0])


def test_results_are_laid_out_by_factor_and_level(run, tmp_path):
    results = run()
    assert len(results) == 8
    table = expand_results(results, make_base(tmp_path), FACTORS)
    assert table.columns[:4].tolist() == ["factor", "level", "seed", "trial"]
    assert table.columns[-2:].tolist() == ["wall_seconds", "error"]
    rows = [("width", "narrow", 206), ("width", "base", 106), ("width", "wide", 806)]
    rows += [("rate", "fast", 106), ("rate", "slow", 106)]
    expected = [(factor, level, seed, total + seed) for factor, level, total in rows for seed in (5, 6)]
    assert list(zip(*(table[name] for name in ("factor", "level", "seed", "total")), strict=True)) == expected
    base, slow = (table[table["level"] == level] for level in ("base", "slow"))
    assert base["trial"].tolist() == slow["trial"].tolist()
    assert table["trial"].nunique() == 8


def test_results_of_another_base_are_not_laid_out(run):
    with pytest.raises(ValueError, match="no trial of width: narrow"):
        expand_results(run(), make_base("elsewhere"), FACTORS)


# Resuming


def test_a_finished_study_is_not_run_again(run, tmp_path):
    first = run()
    assert first["total"].tolist() == [211, 111, 811, 111, 212, 112, 812, 112]
    assert read_calls(tmp_path) == [(x, seed) for seed in (5, 6) for x in (2, 1, 8, 1)]
    pd.testing.assert_frame_equal(run(), first)
    assert read_calls(tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == sorted(
        f"{key}.json" for key in first["trial"]
    )


def test_only_missing_trials_are_run(run, tmp_path):
    run(trials=list_trials(make_base(tmp_path), FACTORS, [5]))
    read_calls(tmp_path)
    assert len(run()) == 8
    assert read_calls(tmp_path) == [(x, 6) for x in (2, 1, 8, 1)]


@pytest.mark.parametrize(
    "damage",
    [
        *(
            lambda content, other=other: other
            for other in (b"", b'{"seed": 5, "resu', b"[1]", b"{}", b"\xff\xfe", b"7")
        ),
        lambda content: content.replace(b'"total": 8', b'"total": 9'),
        lambda content: content.replace(b'"error"', b'"errer"'),
        lambda content: content.replace(b'"checksum"', b'"checksun"'),
        None,
    ],
)
def test_a_damaged_file_is_named_and_its_trial_run_again(run, tmp_path, damage, capsys):
    first = run()
    path, other = (tmp_path / "study" / f"{key}.json" for key in first["trial"][2:4])
    content = path.read_bytes()
    path.write_bytes(damage(content) if damage else other.read_bytes())
    assert path.read_bytes() != content
    read_calls(tmp_path)
    columns = ["trial", "seed", "total", "error"]
    pd.testing.assert_frame_equal(run()[columns], first[columns])
    assert read_calls(tmp_path) == [(8, 5)]
    assert capsys.readouterr().out.startswith(f"{path} was damaged (it")
    run()
    assert (read_calls(tmp_path), capsys.readouterr().out) == ([], "")


def test_a_record_is_readable_and_tells_the_versions(run, tmp_path):
    record = json.loads((tmp_path / "study" / f"{run()['trial'][0]}.json").read_text())
    assert record["settings"]["x"] == 2
    assert record["versions"] == {package: version(package) for package in ("keras", "tensorflow", "numpy")}
    assert len(record["checksum"]) == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"arrays": (np.array([0, 1, 2, 4]),)},
        {"arrays": (np.arange(4).reshape(2, 2),)},
        {"arrays": (np.arange(4).view("uint64"),)},
        {"arrays": (np.arange(4), np.arange(4))},
        {"arrays": ()},
        {"train": act_otherwise},
    ],
)
def test_results_of_other_data_are_not_taken(run, tmp_path, changes):
    first = run()
    read_calls(tmp_path)
    second = run(**changes)
    assert len(read_calls(tmp_path)) == 8
    assert not set(second["trial"]) & set(first["trial"])


def test_results_of_other_source_are_not_taken(run, tmp_path, monkeypatch):
    run()
    read_calls(tmp_path)
    monkeypatch.setattr(runner.inspect, "getsource", lambda function: "def act(): edited")
    run()
    assert len(read_calls(tmp_path)) == 8


TRAIN = """
from . import near
from .within.deep import compute as made

def train(settings, seed):
    import package.lazy
    return {"total": near.value()}
"""
NEAR = "def value():\n    return 1\n"
MODULES = {
    "__init__": "import package.other", "run": TRAIN, "near": NEAR, "lazy": "", "other": "x = 1",
    "within/__init__": "", "within/deep": "from package import beside\ndef compute(): pass", "beside": "a = 1",
}  # fmt: skip


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make a package, some modules of which a training uses: its folder, and the training."""
    for name, code in MODULES.items():
        path = tmp_path / "package" / f"{name}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "package", importlib.import_module("package.run").train
    for name in [name for name in sys.modules if name.partition(".")[0] == "package"]:
        del sys.modules[name]


@pytest.mark.parametrize("changed", ["run", "near", "lazy", "within/deep", "beside"])
def test_results_of_other_code_are_not_taken(package, changed):
    folder, train = package
    before, path = runner._identify(train, ()), folder / f"{changed}.py"
    path.write_text(path.read_text() + "\ny = 2\n")
    assert runner._identify(train, ()) != before


def test_comments_and_modules_that_are_not_imported_do_not_count(package):
    folder, train = package
    before = runner._identify(train, ())
    (folder / "other.py").write_text("x = 2")
    (folder / "near.py").write_text(f"# of no use\n{NEAR}")
    assert runner._identify(train, ()) == before


@pytest.mark.parametrize("change", [("EPOCHS = 3", "EPOCHS = 10"), ("return 1", "return 2"), ("rate = 1", "rate = 2")])
def test_a_training_in_a_notebook_is_known_by_what_it_names(monkeypatch, change):
    """Its source is the same, and it has no module that could be read."""
    code = """
EPOCHS = 3
class Defaults:
    rate = 1
def help():
    return 1
def train(settings, seed):
    return {"total": EPOCHS * Defaults.rate * help()}
"""
    monkeypatch.setattr(runner.inspect, "getsource", lambda function: "def train(settings, seed): ...")

    def identify(code):
        exec(compile(code, "cell", "exec"), scope := {"__name__": "__main__"})
        return runner._identify(scope["train"], ())

    assert identify(code) == identify(code)
    assert identify(code.replace(*change)) != identify(code)


def test_results_of_other_versions_are_not_taken(package, monkeypatch):
    before = runner._identify(package[1], ())
    monkeypatch.setattr(runner, "version", lambda name: "9.9" if name == "keras" else version(name))
    assert runner._identify(package[1], ()) != before


def test_a_study_of_networks_knows_the_code_of_training_and_of_its_scores():
    def in_a_notebook(settings, seed):
        return train_cnn(settings, seed, build_cnn)

    in_a_notebook.__module__ = "__main__"
    for train in (train_cnn, in_a_notebook):
        names = runner._read_code(train).keys()
        assert {"helpers.study.cnn", "helpers.training", "helpers.training.fit", "helpers.training.augment"} <= names
        assert {"helpers.training.networks", "helpers.evaluation.scores", "helpers.files"} <= names
        assert not names & {"helpers", "helpers.experiment", "helpers.evaluation.plots", "helpers.study.runner"}


def test_results_of_other_settings_and_seeds_are_not_taken(run, tmp_path):
    run()
    read_calls(tmp_path)
    run(trials=list_trials(make_base(tmp_path, y=11.0), FACTORS, [5]))
    assert len(read_calls(tmp_path)) == 3  # that with y=9.5 is the same
    run(trials=list_trials(make_base(tmp_path), FACTORS, [7]))
    assert len(read_calls(tmp_path)) == 4


def test_texts_and_large_arrays_are_told_from_others(run, tmp_path, monkeypatch):
    def count(settings, seed, *arrays):
        act(settings, seed)
        return {"total": 0}

    monkeypatch.setattr(runner, "_SAMPLE_BYTES", 4096)
    large, texts = np.zeros((500, 10)), pd.Series(["train", "test"], dtype="object")
    changed = large.copy()
    changed[:250] = 1
    equal = large.copy(), texts.str.upper().str.lower()
    for arrays in [(large, texts), (changed, texts), (large, texts[::-1]), equal]:
        run(count, make_trials(tmp_path, ""), arrays)
    assert len(read_calls(tmp_path)) == 3


# Failures


def test_a_failing_trial_is_recorded_and_tried_again(run, tmp_path):
    trials = make_trials(tmp_path, "", "raise once", "")
    results = run(trials=trials)
    assert results["error"].tolist() == ["", "RuntimeError: no luck", ""]
    assert results["total"].isna().tolist() == [False, True, False]
    record = json.loads((tmp_path / "study" / f"{results['trial'][1]}.json").read_text())
    assert 'raise RuntimeError("no luck")' in record["traceback"]
    read_calls(tmp_path)
    results = run(trials=trials)
    assert results["error"].tolist() == ["", "", ""]
    assert results["total"].tolist() == [11, 111, 211]
    assert read_calls(tmp_path) == [(1, 5)]


@pytest.mark.parametrize("returned", [None, 3.0, {"seed": 1}, {"array": np.zeros(2)}, {"object": object()}])
def test_results_that_cannot_be_kept_are_a_failure(run, tmp_path, returned):
    def give(settings, seed, *arrays):
        return returned

    results = run(give, make_trials(tmp_path, ""))
    assert results["error"][0].partition(":")[0] in ("TypeError", "ValueError", "AttributeError")


def test_missing_numbers_are_kept(run, tmp_path):
    def give(settings, seed, *arrays):
        return {"roc_auc": np.nan}

    for _ in range(2):
        results = run(give, make_trials(tmp_path, ""))
        assert results["roc_auc"].isna().all()
        assert results["error"].tolist() == [""]


def test_an_interrupted_study_keeps_what_is_finished(run, tmp_path):
    def stop(settings, seed, *arrays):
        if settings["x"] == 8 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt
        return act(settings, seed, *arrays)

    with pytest.raises(KeyboardInterrupt):
        run(stop)
    assert read_calls(tmp_path) == [(2, 5), (1, 5)]
    assert len(run(stop)) == 8
    assert read_calls(tmp_path) == [(8, 5), (1, 5)] + [(x, 6) for x in (2, 1, 8, 1)]


@pytest.mark.parametrize("train", [print, np.float32, None])
def test_what_cannot_be_told_from_others_is_refused(run, train):
    with pytest.raises(ValueError, match="expected a function"):
        run(train)


def test_progress_is_that_of_all_trials(run, stages, capsys, tmp_path):
    run(trials=list_trials(make_base(tmp_path), FACTORS, [5]))
    run()
    assert capsys.readouterr() == ("", "")
    assert [(stage.label, stage.doing, stage.total, stage.unit) for stage in stages] == [
        ("study", "4 of 4 trials", 4, "trial"),
        ("study", "8 of 8 trials", 8, "trial"),
    ]


# Several processes


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Interrupt a study in several processes, and run it again: folder, processes then, calls later, results."""
    folder = tmp_path_factory.mktemp("interrupted")
    trials = make_trials(folder, "", "interrupt once", "", "", "", counting=[4])
    np.save(folder / "large.npy", np.ones(200_000))  # joblib sends arrays below a megabyte
    arrays = (np.load(folder / "large.npy"), np.load(folder / "large.npy", mmap_mode="r"))
    before = dict(os.environ)
    with pytest.raises(KeyboardInterrupt):
        run_study(act, trials, folder / "study", arrays, n_jobs=2)
    assert dict(os.environ) == before
    processes = {int(line.split()[2]) for line in (folder / "calls").read_text().splitlines()}
    finished = len(list((folder / "study").glob("[!.]*.json")))
    read_calls(folder)
    results = run_study(act, trials, folder / "study", arrays, n_jobs=2)
    assert dict(os.environ) == before
    return folder, processes, finished, read_calls(folder), results


def test_an_interrupt_ends_the_processes(interrupted):
    _, processes, *_ = interrupted
    assert processes
    assert os.getpid() not in processes
    assert not [pid for pid in processes if psutil.pid_exists(pid)]


def test_an_interrupted_pool_keeps_what_is_finished(interrupted):
    folder, _, finished, calls, results = interrupted
    assert 2 <= finished <= 4
    assert len(calls) == len(set(calls)) == 5 - finished
    assert (1, 5) in calls
    assert results["total"].tolist() == [400_005 + 100 * number for number in range(5)]
    assert results["error"].tolist() == [""] * 5
    assert len(list((folder / "study").iterdir())) == 5


def test_each_process_has_one_thread(interrupted):
    results = interrupted[-1]
    assert set(results["limits"]) == {3}
    assert results["threads"][4] == (1 if sys.platform == "linux" else -1)


def test_large_arrays_are_mapped_into_memory(interrupted):
    assert set(interrupted[-1]["mapped"]) == {2}
    assert set(interrupted[-1]["own_file"]) == {1}  # which was mapped before, and is not copied


@pytest.mark.parametrize("start", ["run_in_vain", "run_benchmark_in_vain"])
def test_processes_end_when_the_one_that_started_them_is_killed(tmp_path, start):
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    code = f"import pathlib, trials; trials.{start}(pathlib.Path({str(tmp_path)!r}))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    expected = 2 if start == "run_in_vain" else 1
    try:
        wait_for(lambda: len(find_waiting(tmp_path)) == expected, 60)
        processes, marks = find_waiting(tmp_path), find_marks(tmp_path)
        assert len(marks) == 2 or start != "run_in_vain"
        run_study(act, make_trials(tmp_path, ""), tmp_path / "study", n_jobs=1)
        assert find_marks(tmp_path) == marks  # those of another process that runs a study there
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not any(map(psutil.pid_exists, processes)), 10)
    run_study(act, make_trials(tmp_path, ""), tmp_path / "study", n_jobs=1)
    assert find_marks(tmp_path) == []


def find_marks(folder):
    return sorted((folder / "study").glob(".*.started"))


def find_waiting(folder):
    calls = folder / "calls"
    return [int(line.split()[2]) for line in calls.read_text().splitlines()] if calls.exists() else []


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Run a study, some trials of which kill their processes: folder, calls, results."""
    folder = tmp_path_factory.mktemp("killed")
    trials = make_trials(folder, "kill", "kill once", "", "raise", "")
    (folder / "study").mkdir()
    results = run_study(act, trials, folder / "study", n_jobs=2)
    return folder, read_calls(folder), results


def test_a_trial_that_kills_its_process_each_time_is_recorded(killed):
    _, calls, results = killed
    assert "process was killed" in results["error"][0]
    assert calls.count((0, 5)) == 2
    assert results["total"].isna().tolist() == [True, False, False, True, False]


def test_a_trial_whose_process_was_killed_once_is_not_lost(killed):
    _, calls, results = killed
    assert results["total"].drop([0, 3]).tolist() == [105, 205, 405]
    assert results["error"].drop(0).tolist() == ["", "", "RuntimeError: no luck", ""]
    assert all(1 <= calls.count((number, 5)) <= 2 for number in range(5))


def test_nothing_but_results_is_left_behind(killed):
    folder, _, results = killed
    assert sorted(path.name for path in (folder / "study").iterdir()) == sorted(
        f"{key}.json" for key in results["trial"]
    )


def test_a_process_killed_between_trials_ends_the_study(run, monkeypatch):
    """Nobody can say which trial to leave out, so that going on might never end."""

    def lose(pool, tasks):
        raise runner.TerminatedWorkerError("killed")
        yield

    monkeypatch.setattr(joblib.Parallel, "__call__", lose)
    with pytest.raises(runner.TerminatedWorkerError):
        run(n_jobs=2)


# Cluster


@pytest.mark.usefixtures("cluster")
def test_a_cluster_gives_the_same_results_though_a_worker_is_killed(run, tmp_path):
    before = dict(os.environ)
    trials = make_trials(tmp_path, "", "raise", "", "kill once", "", "", counting=[5])
    results = run(trials=trials)
    assert dict(os.environ) == before
    calls = (tmp_path / "calls").read_text().splitlines()
    processes = {call.split()[2] for call in calls}
    assert str(os.getpid()) not in processes
    assert len(processes) >= 2
    assert [call.split()[0] for call in calls].count("3") == 2
    assert results["total"].drop(1).tolist() == [11, 211, 311, 411, 511]
    assert results["error"].tolist() == ["", "RuntimeError: no luck", "", "", "", ""]
    assert set(results["limits"].dropna()) == {3}
    assert results["threads"][5] == (1 if sys.platform == "linux" else -1)
    read_calls(tmp_path)
    parallel.use_cluster("")
    columns = ["trial", "seed", "total", "error"]
    again = run(trials=trials)
    assert read_calls(tmp_path) == [(1, 5)]
    pd.testing.assert_frame_equal(again[columns].drop(1), results[columns].drop(1))


def test_what_fails_on_the_way_to_the_cluster_is_recorded(run, tmp_path, monkeypatch):
    """A worker that is killed among others may have been killed because of them: its trial is run again, alone."""
    asked = []

    def run_on_cluster(function, items, shared):
        asked.append([item["settings"]["x"] for item in items])
        errors = {1: parallel.KilledWorkerError("key"), 2: TypeError("cannot pickle")}
        for position in reversed(range(len(items))):
            error = errors.get(asked[-1][position])
            yield position, None if error else function(list(items)[position], *shared), error

    monkeypatch.setattr(runner, "run_on_cluster", run_on_cluster)
    monkeypatch.setattr(runner, "uses_cluster", lambda: True)
    results = run(trials=make_trials(tmp_path, "", "", "", ""))
    assert asked == [[0, 1, 2, 3], [1]]
    assert "process was killed" in results["error"][1]
    assert results["error"].drop(1).tolist() == ["", "TypeError: cannot pickle", ""]
    assert results["total"].drop([1, 2]).tolist() == [11, 311]


# Networks


@pytest.fixture(autouse=True)
def _keep_dtype_policy():
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


TINY = CNN_SETTINGS | {"blocks": 2, "convolutions": 1, "filters": 4, "epochs": 3, "batch_size": 16}
STATISTICS = (np.array([100.0]), np.array([60.0]))


def make_images(n_classes=2, count=120):
    """Make images whose classes are bright at different heights, and the arrays of `train_cnn`."""
    rng = np.random.default_rng(0)
    numbers = np.arange(count) % n_classes
    pixels = rng.integers(0, 140, (count, 8, 8, 1))
    for number in range(n_classes):
        pixels[numbers == number, 2 * number : 2 * number + 2] += 100
    sets = np.repeat(["train", "validation", "test", "test_far", "excluded"], [60, 20, 16, 14, 10])
    return pixels.astype("uint8"), np.eye(n_classes, dtype="float32")[numbers], sets, np.array(STATISTICS)


def train_tiny(arrays=None, seed=1, **changes):
    return train_cnn(TINY | changes, seed, *(arrays or make_images()))


def drop_times(results):
    return {name: value for name, value in results.items() if name != "train_minutes"}


@pytest.fixture(scope="module")
def tiny():
    return train_tiny(epochs=12, learning_rate=1e-2)


def test_a_network_is_trained_and_scored(tiny):
    sets, metrics = ["validation", "test", "test_far"], ["accuracy", "balanced_accuracy", "roc_auc"]
    expected = ["parameters", "train_minutes", "best_epoch"]
    assert list(tiny) == expected + [f"{name}_{metric}" for name in sets for metric in metrics]
    assert tiny["parameters"] == sum(
        weight.numpy().size for weight in build_cnn((8, 8, 1), 2, STATISTICS, filters=((4,), (8,))).trainable_weights
    )
    assert tiny["train_minutes"] > 0
    assert 1 <= tiny["best_epoch"] <= 12
    assert min(tiny["validation_accuracy"], tiny["test_accuracy"], tiny["test_far_roc_auc"]) > 0.9


def test_the_same_seed_gives_the_same_results(tiny):
    keras.utils.set_random_seed(99)  # nothing of what came before plays a part
    again = train_tiny(epochs=12, learning_rate=1e-2)
    assert drop_times(again) == drop_times(tiny)


@pytest.fixture
def drawn(monkeypatch):
    """Leave networks as they were drawn: their first weights, seeds and augmenters."""
    drawn = []

    def fit(model, training, validation, recipe, *, seed):
        augment = None if recipe.augment is None else make_augmenter(recipe.augment)
        drawn.append((model.get_weights()[0].tolist(), seed, augment))
        history = pd.DataFrame({"cpu_seconds": [60.0, 120.0]}).rename_axis("epoch")
        history.attrs["best_epoch"] = 2
        return history

    monkeypatch.setattr(cnn, "fit_model", fit)
    return drawn


def test_seeds_and_augmentation_play_a_part(drawn):
    results = [
        train_tiny(seed=seed, augmentation=turn) for seed, turn in [(1, {}), (2, {}), (1, {"rotation_range": 90})]
    ]
    assert results[0]["train_minutes"] == 3
    weights, seeds, augmenters = zip(*drawn, strict=True)
    assert weights[0] != weights[1]
    assert weights[0] == weights[2]
    assert seeds == (1, 2, 1)
    assert augmenters[:2] == (None, None)
    image = np.arange(64.0).reshape(1, 8, 8, 1)
    assert not np.allclose(augmenters[2](image, np.random.default_rng(0)), image)


def test_other_threads_that_draw_numbers_change_no_network(drawn, monkeypatch):
    """As those of a Dask worker do; here it is drawn between the seed and the weights."""
    train_tiny()
    monkeypatch.setattr(cnn, "set_seed", lambda seed: (keras.utils.set_random_seed(seed), random.random()))
    train_tiny()
    assert drawn[0] == drawn[1]


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"blocks": 1, "filters": 6}, {"filters": ((6,),)}),
        ({"blocks": 3, "convolutions": 2, "residual": True}, {"filters": ((4, 4), (8, 8), (16, 16)), "residual": True}),
        ({"batch_norm": False}, {"batch_norm": False}),
        ({"average_pooling": True, "first_stride": 2, "dropout": 0.0}, {"average_pooling": True, "first_stride": 2}),
    ],
)
def test_settings_make_the_network(changes, options):
    results = train_tiny(epochs=1, **changes)
    expected = build_cnn((8, 8, 1), 2, STATISTICS, **{"filters": ((4,), (8,))} | options)
    assert results["parameters"] == sum(weight.numpy().size for weight in expected.trainable_weights)
    assert 0 <= results["validation_accuracy"] <= 1


def test_settings_reach_the_training(monkeypatch):
    found = {}

    def fit(model, training, validation, recipe, seed):
        found.update(
            asdict(recipe), seed=seed, training=training, validation=validation, policy=keras.config.dtype_policy().name
        )
        raise KeyboardInterrupt

    monkeypatch.setattr(cnn, "fit_model", fit)
    pixels, y, sets, statistics = make_images()
    keras.config.set_dtype_policy("mixed_float16")
    options = {"epochs": 7, "batch_size": 5, "learning_rate": 0.3, "weight_decay": 0.2}
    with pytest.raises(KeyboardInterrupt):
        train_cnn(TINY | options | {"precision": "mixed_bfloat16"}, 1, pixels, y, sets, statistics)
    assert {name: found[name] for name in options} == options
    assert found["policy"] == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "mixed_float16"  # as before
    for name, rows in [("training", range(60)), ("validation", range(60, 80))]:
        assert found[name][0] is pixels
        np.testing.assert_array_equal(found[name][1], y[rows])
        np.testing.assert_array_equal(found[name][2], rows)


@pytest.mark.usefixtures("drawn")
def test_scores_are_those_of_each_set(monkeypatch):
    """Of three classes; the set of one row lacks two of them."""
    pixels, y, sets, statistics = make_images(3, 6)
    sets = np.array(["train", "validation", "validation", "test", "test", "test"])
    y, y_prob = np.eye(3)[[0, 0, 0, 1, 1, 2]], np.eye(3)[[0, 0, 1, 1, 2, 2]]
    monkeypatch.setattr(cnn, "predict_probabilities", lambda model, pixels, rows: y_prob[rows])
    results = train_cnn(TINY | {"epochs": 1, "batch_size": 1}, 1, pixels, y, sets, statistics)
    assert results["validation_accuracy"] == results["validation_balanced_accuracy"] == 0.5
    assert results["test_accuracy"] == pytest.approx(2 / 3)
    assert results["test_balanced_accuracy"] == 0.75
    assert not [name for name in results if "roc" in name]


@pytest.mark.usefixtures("drawn")
def test_a_set_of_one_class_has_no_roc_curve():
    pixels, y, sets, statistics = make_images()
    results = train_cnn(TINY | {"epochs": 1}, 1, pixels[::2], y[::2], sets[::2], statistics)
    assert np.isnan(results["test_roc_auc"])


@pytest.mark.parametrize("changes", [{"block": 2}, {"blocks": ...}])
def test_missing_and_unknown_settings_are_named(changes):
    settings = {name: value for name, value in (TINY | changes).items() if value is not ...}
    with pytest.raises(ValueError, match=f"unknown settings: {next(iter(changes))}"):
        train_cnn(settings, 1, *make_images())


def test_sets_without_images_are_named():
    pixels, y, sets, statistics = make_images()
    with pytest.raises(ValueError, match="validation set has 0 images"):
        train_tiny((pixels, y, np.where(sets == "validation", "other", sets), statistics))
