"""What tests share: a Dask cluster of real processes, the stages of progress, and experiments with few images."""

import time
from contextlib import ExitStack

import matplotlib
import pytest
from PIL import Image

from benchmarks.torture import mounting
from benchmarks.torture.processes import Cluster
from helpers import parallel, progress


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

    with pytest.MonkeyPatch.context() as patch, matplotlib.rc_context():  # an experiment sets the style of figures

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


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 2 MB, a `benchmarks.torture.mounting.Disk`; where that is forbidden the test is skipped."""
    (tmp_path / "disk").mkdir()
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(mounting.mount(tmp_path / "disk"))
        except mounting.MountError as error:
            pytest.skip(f"a small tmpfs cannot be mounted here: {error}")
        yield disk
