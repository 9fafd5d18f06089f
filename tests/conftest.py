"""What tests share: a Dask cluster of real processes, the stages of progress, and experiments with few images."""

import json
import os
import subprocess
import sys
import time

import pytest
from PIL import Image

from helpers import parallel, progress


class Cluster:
    """A scheduler and its workers, each an operating system's process on the loopback interface."""

    def __init__(self, folder):
        self._folder, self._processes = folder, []
        file = folder / "scheduler.json"
        self._start("scheduler", "--port", "0", "--scheduler-file", file)
        self._wait_for(file.exists)
        self.address = json.loads(file.read_text())["address"]

    def add_worker(self, *options):
        self._start("worker", self.address, "--local-directory", self._folder, *options)

    def _start(self, *arguments):
        command = [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(sys.path),  # what tests send to the workers lies in modules of theirs
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",  # so that an item kills two workers at most
        }
        with open(self._folder / f"{len(self._processes)}.log", "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, env=environment)
        self._processes.append(process)

    def _wait_for(self, condition):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, [path.read_text() for path in self._folder.glob("*.log")]
            time.sleep(0.02)

    def kill_scheduler(self):
        self._processes[0].kill()

    def close(self):
        """Kill every process by its id; the workers' own processes end when those that watch them are gone."""
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def make_cluster(tmp_path_factory):
    """Start clusters without workers, and end them."""
    clusters = []

    def make():
        clusters.append(Cluster(tmp_path_factory.mktemp("cluster")))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.close()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """Start a cluster with two workers, for the tests of a module: one that only waits takes time from the others."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.add_worker("--nthreads", "1", "--nworkers", "2")
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(two_workers):
    """Spread work over two workers; the address of their scheduler."""
    parallel.use_cluster(two_workers.address)
    deadline = time.monotonic() + 60
    while parallel.count_workers() < 2:  # the one that the test before killed may not be back yet
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield two_workers.address
    parallel.use_cluster("")


@pytest.fixture
def stages(monkeypatch):
    """Note all stages of `helpers.progress` that are opened, shown or not."""
    opened = []

    class Noted(progress.Stage):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            opened.append(self)

    monkeypatch.setattr(progress, "Stage", Noted)
    return opened


@pytest.fixture(scope="module")
def draw_experiment(tmp_path_factory):
    """Draw a data set of class folders and open it in an experiment that no setting from outside reaches."""
    from helpers import Experiment, open_data_set  # here only: they start TensorFlow, which most tests do not need

    with pytest.MonkeyPatch.context() as patch:

        def draw(name, record, draw_image, counts, validation, change=None):
            """``change`` alters the files, whose folder it gets, before they are opened."""
            folder = tmp_path_factory.mktemp("data")
            for part, count in counts.items():
                for label in record.class_names:
                    place = folder / record.name / part / label
                    place.mkdir(parents=True)
                    for number in range(count):
                        Image.fromarray(draw_image(label)).save(place / f"{part}_{label}_{number}.png")
            if change:
                change(folder / record.name)
            for setting, value in {"DATA_DIR": folder, "CACHE_DIR": tmp_path_factory.mktemp("cache")}.items():
                patch.setenv(setting, str(value))
            patch.setenv("NOTEBOOK_PROGRESS", "off")
            patch.setenv("PRECISION", "float32")
            for setting in ("DATA_SOURCE", "DATA_SET", "NOTEBOOK_MODE", "SEED", "DASK_SCHEDULER"):
                patch.delenv(setting, raising=False)
            experiment = Experiment(name, tmp_path_factory.mktemp("results"))
            open_data_set(record, experiment).split_images(validation=validation, test="test")
            return experiment

        yield draw
