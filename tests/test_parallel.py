"""Work is spread over threads or over a cluster of real processes, with the same results, and none is lost."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from dask.distributed import Client
from PIL import Image

from benchmarks.torture.cluster import change_code, change_numpy, leave_out_project
from helpers import parallel
from helpers.data import pixels as images_module
from helpers.data import reading
from helpers.data.pixels import compute_fingerprint, hash_files, load_pixels, measure_images
from helpers.evaluation import bootstrap
from helpers.files import InputError
from helpers.parallel import (
    KilledWorkerError,
    count_workers,
    describe_versions,
    run_in_parallel,
    run_on_cluster,
    use_cluster,
    uses_cluster,
)

SHAPE = (20, 30, 3)


def add(item, *shared):
    return item + sum(map(np.sum, shared)), os.getpid()


@pytest.fixture
def images(tmp_path):
    """Write images of several kinds and return their index and folder."""
    folder, rng = tmp_path / "files", np.random.default_rng(0)
    folder.mkdir()
    paths = [f"{number:02}.{'jpg' if number % 2 else 'png'}" for number in range(40)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (*rng.integers(20, 90, 2), 3), "uint8")).save(folder / path)
    return pd.DataFrame({"image_id": paths, "path": paths}), folder


def forbid_reading(monkeypatch):
    """Let this process read no file; workers import the functions for themselves."""

    def fail(*_):
        raise AssertionError("read in this process")

    monkeypatch.setattr(images_module, "read_image", fail)
    monkeypatch.setattr(images_module, "_measure", fail)
    monkeypatch.setattr(reading.hashlib, "file_digest", fail)
    monkeypatch.setattr(reading, "_hashes", {})


# Threads


def test_threads_of_this_machine_are_the_default():
    entered = []

    @contextmanager
    def enter():
        entered.append("in")
        yield
        entered.append("out")

    assert not uses_cluster()
    assert count_workers() >= 1
    found = dict(run_in_parallel(add, range(20), [np.arange(3)], context=enter))
    assert found == {number: (number + 3, os.getpid()) for number in range(20)}
    assert entered == ["in", "out"]
    assert list(run_in_parallel(add, [])) == []


def test_an_error_in_a_thread_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(run_in_parallel(lambda item: 1 // (item - 5), range(1000)))


# Cluster


@pytest.mark.usefixtures("cluster")
def test_each_item_is_done_once_by_the_workers():
    taken = []

    def take():
        for number in range(40):
            taken.append(number)
            yield number

    @contextmanager
    def enter():
        os.environ["ENTERED"] = "1"
        yield
        del os.environ["ENTERED"]

    def work(item, *shared):
        time.sleep(0.02)
        return add(item, *shared), os.environ["ENTERED"]

    assert uses_cluster()
    assert count_workers() == 2
    before = dict(os.environ)
    found, most = {}, 0
    for position, result in run_in_parallel(work, take(), [np.arange(3), np.ones(2)], context=enter):
        assert position not in found
        found[position] = result
        most = max(most, len(taken) - len(found))
    assert {position: total for position, ((total, _), _) in found.items()} == {n: n + 5 for n in range(40)}
    processes = {process for (_, process), _ in found.values()}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert most <= 6  # memory stays flat however many items there are
    assert dict(os.environ) == before
    assert list(run_in_parallel(add, [])) == []


@pytest.mark.usefixtures("cluster")
def test_an_error_on_a_worker_is_raised_and_nothing_is_begun_after_it(tmp_path):
    def work(item):
        (tmp_path / str(item)).touch()
        time.sleep(1 if item else 0.1)
        if not item:
            raise InputError("0 is broken")

    with pytest.raises(InputError, match="0 is broken"):
        list(run_in_parallel(work, range(100)))
    assert len(list(run_in_parallel(add, range(8)))) == 8  # when the workers are free again
    assert len(list(tmp_path.iterdir())) <= 3  # the broken one, one beside it, and one begun before it was known


@pytest.mark.usefixtures("cluster")
def test_an_item_that_kills_its_workers_is_told_and_the_others_are_not_lost():
    def work(item):
        if item == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    found = {position: (result, type(error)) for position, result, error in run_on_cluster(work, range(6))}
    assert found.pop(2) == (None, KilledWorkerError)
    assert found == {number: (number, type(None)) for number in (0, 1, 3, 4, 5)}


def test_the_only_worker_may_be_killed_with_all_that_it_was_sent(make_cluster, tmp_path, monkeypatch):
    def work(item, values):
        if item == "always" or (item == "once" and not (tmp_path / "killed").exists()):
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item, values.sum()

    cluster = make_cluster()
    cluster.add_worker("--nthreads", "1")
    try:
        use_cluster(cluster.address)
        found = {result or type(error) for _, result, error in run_on_cluster(work, ["first", "once"], [np.arange(9)])}
        assert found == {("first", 36), ("once", 36)}
        monkeypatch.setattr(parallel, "_LOSSES", 1)
        (found,) = run_on_cluster(work, ["always"], [np.arange(9)])
        assert found[:2] == (0, None)
        assert isinstance(found[2], KilledWorkerError)
    finally:
        use_cluster("")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tcp://no-such-host.invalid:8786", "tls://127.0.0.1:9"])
def test_a_scheduler_that_is_not_reached_is_told(address, monkeypatch):
    monkeypatch.setattr(parallel, "_CONNECT_SECONDS", 0.5)
    start = time.monotonic()
    try:
        with pytest.raises(InputError, match=f"DASK_SCHEDULER={address}: ") as caught:
            use_cluster(address)
    finally:
        use_cluster("")
    assert ("distributed.comm.tls" if address.startswith("tls") else "dask scheduler") in str(caught.value)
    assert time.monotonic() - start < 10


def test_a_worker_without_the_project_is_told(make_cluster, tmp_path):
    cluster = make_cluster()
    leave_out_project(tmp_path)
    cluster.add_worker("--nthreads", "1", "--no-nanny", path=[tmp_path])
    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)  # one that joins later ends by itself
    try:
        with pytest.raises(InputError, match=r"cannot import this project \(.*No module named helpers"):
            use_cluster(cluster.address)
    finally:
        use_cluster("")


def test_clusters_that_cannot_work_are_told(make_cluster, monkeypatch):
    cluster = make_cluster()
    try:
        monkeypatch.setattr(parallel, "_WORKERS_SECONDS", 1)
        with pytest.raises(InputError, match="no worker for 1 seconds"):
            use_cluster(cluster.address)
        monkeypatch.setattr(parallel, "_WORKERS_SECONDS", 60)
        cluster.add_worker("--nthreads", "2", "--no-nanny")
        with pytest.raises(InputError, match="--nthreads 1"):
            use_cluster(cluster.address)
        cluster.kill_scheduler()
        monkeypatch.setattr(parallel, "_CONNECT_SECONDS", 0.5)
        with pytest.raises(InputError, match=r"scheduler was lost|is not reached"):
            list(run_in_parallel(add, range(3)))
    finally:
        use_cluster("")


def test_hidden_copies_of_the_code_make_no_other_version(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "__file__", str(tmp_path / "parallel.py"))
    versions = []
    for name in ("parallel.py", ".ipynb_checkpoints/parallel-checkpoint.py", "study/cnn.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        versions.append(describe_versions.__wrapped__()["this project"])
    assert versions[0] == versions[1] != versions[2]


def test_versions_are_told_without_starting_tensorflow(tmp_path):
    change_code(tmp_path)
    code = (
        "import sys; from helpers.parallel import describe_versions; print(describe_versions(), 'keras' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    here = describe_versions()
    there = here | {"this project": re.search(r"[\d.]+ \(code \w+\)", run.stdout)[0]}
    assert run.stdout == f"{there} False\n"
    assert there != here
    assert here["NumPy"] == np.__version__
    assert "none" not in here.values()


def test_a_worker_of_another_version_is_refused(make_cluster, tmp_path):
    """One that joins later is tried in `benchmarks.torture.cluster`."""
    change_code(tmp_path)
    change_numpy(tmp_path)
    cluster = make_cluster()
    cluster.add_worker("--nthreads", "1", path=[tmp_path])
    try:
        with pytest.raises(InputError) as caught:
            use_cluster(cluster.address)
        assert re.search(
            rf"DASK_SCHEDULER={cluster.address}: the worker tcp://127\.0\.0\.1:\d+ is of another version: this project "
            rf"\S+ \(code \w+\) there and .* here, NumPy 1\.0 there and {np.__version__} here\.",
            str(caught.value),
        )
        with pytest.raises(InputError, match="of another version"):  # as long as it is there
            list(run_in_parallel(add, range(3)))
    finally:
        use_cluster("")


# What is spread


def test_images_are_prepared_as_on_this_machine(images, tmp_path, cluster, monkeypatch):
    table, folder = images

    def prepare(cache):
        arrays = load_pixels(table, folder, SHAPE, tmp_path / cache)
        return arrays, measure_images(table, folder, tmp_path / cache), hash_files(table, folder)

    with monkeypatch.context() as patch:
        forbid_reading(patch)
        spread = [*prepare("spread"), compute_fingerprint(table, folder)]
    use_cluster("")
    monkeypatch.setattr(reading, "_hashes", {})
    here = [*prepare("here"), compute_fingerprint(table, folder)]
    np.testing.assert_array_equal(spread[0], here[0])
    pd.testing.assert_frame_equal(spread[1], here[1])
    pd.testing.assert_series_equal(spread[2], here[2])
    assert spread[3] == here[3]
    contents = [
        [path.read_bytes() for path in (tmp_path / cache).rglob("*.[nc][ps][yv]")] for cache in ("spread", "here")
    ]
    assert sorted(contents[0]) == sorted(contents[1])


@pytest.mark.usefixtures("cluster")
def test_a_worker_killed_in_preparation_loses_no_image(images, tmp_path, monkeypatch):
    table, folder = images
    decode, marker = images_module._decode_files, tmp_path / "killed"

    def die_once(paths, **options):
        if paths[0].name > "20" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(paths, **options)

    with monkeypatch.context() as patch:
        patch.setattr(images_module, "_decode_files", die_once)
        spread = load_pixels(table, folder, SHAPE, tmp_path / "spread")
    assert marker.exists()
    use_cluster("")
    np.testing.assert_array_equal(spread, load_pixels(table, folder, SHAPE, tmp_path / "here"))


def test_a_broken_image_is_told_as_on_this_machine(images, tmp_path, cluster):
    table, folder = images
    content = (folder / "07.jpg").read_bytes()
    (folder / "07.jpg").write_bytes(content[: len(content) // 2])
    messages = []
    for address in (cluster, ""):
        use_cluster(address)
        with pytest.raises(InputError) as caught:
            load_pixels(table, folder, SHAPE, tmp_path / "cache")
        messages.append(str(caught.value))
        assert not list((tmp_path / "cache").rglob("*.npy"))
        assert (measure_images(table, folder, tmp_path / f"cache{address[:3]}")["error"] != "").sum() == 1
    assert f"{folder / '07.jpg'} cannot be read as an image" in messages[0]
    assert messages[0] == messages[1]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("hashed", [False, True])
def test_workers_that_do_not_see_the_folder_are_told(images, tmp_path, monkeypatch, hashed):
    """Nor are their images taken for damaged ones."""
    table, folder = images
    monkeypatch.setattr(reading, "_RECENT", 0)
    states = reading._read_states(table["path"], folder)
    if hashed:
        compute_fingerprint(table, folder)
    monkeypatch.setattr(reading, "_read_states", lambda *_: states)  # this process sees the files
    monkeypatch.setattr(os, "access", lambda *_: True)
    folder.rename(tmp_path / "elsewhere")
    for prepare in (measure_images, lambda *args: load_pixels(*args[:2], SHAPE, args[2])):
        with pytest.raises(InputError, match="see the same folder as the notebook") as caught:
            prepare(table, folder, tmp_path / "cache")
        assert str(folder) in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.[nc][ps][yv]"))


@pytest.mark.usefixtures("cluster")
def test_what_cannot_be_opened_here_is_not_sent_to_workers(images, tmp_path):
    table, folder = images
    (folder / "07.jpg").unlink()
    os.mkfifo(folder / "07.jpg")
    measured = measure_images(table, folder, tmp_path / "cache")
    assert measured["error"].tolist() == [
        "is a pipe, no regular file" if path == "07.jpg" else "" for path in table["path"]
    ]
    with pytest.raises(InputError, match=r"07\.jpg cannot be opened"):
        load_pixels(table, folder, SHAPE, tmp_path / "cache")


def test_bombs_are_refused_on_workers_too(tmp_path, cluster):
    Image.new("1", (10_000, 9_000)).save(tmp_path / "bomb.png")
    table = pd.DataFrame({"image_id": ["bomb"], "path": ["bomb.png"]})
    errors = []
    for address in (cluster, ""):
        use_cluster(address)
        errors.append(measure_images(table, tmp_path, tmp_path / f"cache{address[:3]}")["error"][0])
    assert "exceeds limit" in errors[0]
    assert errors[0] == errors[1]


def test_the_bootstrap_is_the_same_to_the_last_bit(cluster, monkeypatch):
    rng = np.random.default_rng(0)
    values, groups = rng.random(300), rng.integers(0, 90, 300)

    def compute(weights):
        here = {"process": 0.5 if uses_cluster() else 0.1 * (weights[0] > 0)}
        return {"mean": np.average(values, weights=weights), "missing": np.nan if weights[0] else 1.0} | here

    def draw(seconds):
        monkeypatch.setattr(bootstrap, "_CLUSTER_SECONDS", seconds)
        return bootstrap.bootstrap(compute, groups, 203, seed=4)

    spread, small = draw(0), draw(1e9)
    assert spread.loc["process", "low"] < 0.5  # drawn on workers, which know of no cluster
    assert small.loc["process", ["low", "high"]].isna().all()  # always 0.5 here: too quick to be worth the way
    use_cluster("")
    here = draw(0)
    for drawn in (spread, small):
        pd.testing.assert_frame_equal(drawn.drop("process"), here.drop("process"), check_exact=True)
