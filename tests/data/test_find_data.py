"""Finding a data set: which of local files, download and sample is taken, and what is said when it cannot be."""

import sys
from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.data import sources
from helpers.data.catalog import get_data_set
from helpers.data.index import index_images
from helpers.data.sources import find_data
from helpers.errors import InputError
from helpers.settings import read_settings


@pytest.fixture(autouse=True)
def stub_sample(monkeypatch):
    """Stand in for drawing the sample, which has tests of its own."""

    def make(data_set, samples_folder):
        folder = samples_folder / data_set.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    monkeypatch.setattr(sources, "make_sample", make)


@pytest.fixture
def read(tmp_path):
    def read(source, data_dir=tmp_path / "data"):
        return read_settings(
            {"DATA_SOURCE": source, "DATA_DIR": str(data_dir), "CACHE_DIR": str(tmp_path / "cache")},
        )

    return read


def list_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("source", ["auto", "local"])
def test_local_files_are_taken(source, read, data_set, folder):
    found = find_data(data_set, read(source))
    assert (found.kind, found.folder, found.is_sample) == ("local", folder, False)
    assert found.note == "MNIST handwritten digits, from data/mnist."


def test_the_sample_is_taken_when_asked_for(read, data_set, folder, tmp_path):
    found = find_data(data_set, read("sample"))
    assert (found.kind, found.is_sample) == ("sample", True)
    assert found.folder.is_relative_to(tmp_path / "cache")
    assert "DATA_SOURCE=sample" in found.note
    assert "say nothing about real images" in found.note


def test_auto_takes_the_sample_and_says_so_where_the_data_set_is_not(read, data_set, tmp_path):
    (tmp_path / "data" / "other").mkdir(parents=True)
    found = find_data(data_set, read("auto"))
    assert found.is_sample
    assert "data/mnist" in found.note
    assert "say nothing about real images" in found.note


@pytest.mark.parametrize("source", ["auto", "local", "sample"])
def test_the_default_folder_need_not_exist(source, read, data_set, tmp_path):
    settings = replace(read(source), data_dir_given=False)
    if source == "local":
        with pytest.raises(InputError, match="has no folder mnist"):
            find_data(data_set, settings)
    else:
        assert find_data(data_set, settings).is_sample
    assert not (tmp_path / "data").exists()


def make_nothing(folder):
    pass


def make_file(folder):
    folder.write_text("not a folder")


def make_empty(folder):
    folder.mkdir()


def make_other(folder):
    (folder / "other").mkdir(parents=True)


def make_without_key_file(folder):
    (folder / "mnist").mkdir(parents=True)
    (folder / "mnist" / "mnist.npz.part").touch()


@pytest.mark.parametrize(
    ("make", "source", "complaint"),
    [
        (make_nothing, "auto", "DATA_DIR={0} is no folder"),
        (make_nothing, "local", "DATA_DIR={0} is no folder"),
        (make_file, "auto", "DATA_DIR={0} is no folder"),
        (make_empty, "auto", "DATA_DIR={0} is empty"),
        (make_empty, "local", "DATA_DIR={0} is empty"),
        (make_other, "local", "{0} has no folder mnist"),
        (make_without_key_file, "auto", "{0}/mnist has no mnist.npz"),
        (make_without_key_file, "local", "{0}/mnist has no mnist.npz"),
    ],
)
def test_what_is_wrong_what_was_expected_and_what_to_do(make, source, complaint, read, data_set, tmp_path):
    data_dir = tmp_path / "data"
    make(data_dir)
    before = list_files(tmp_path)
    with pytest.raises(InputError) as caught:
        find_data(data_set, read(source))
    message = str(caught.value)
    assert complaint.format(data_dir) in message
    assert f"Expected: {data_dir}/mnist/mnist.npz" in message
    assert "DATA_SOURCE=download" in message
    assert "DATA_SOURCE=sample" in message
    assert list_files(tmp_path) == before


def test_a_full_run_takes_the_sample_only_when_asked_for(data_set, tmp_path):
    make_other(tmp_path / "data")
    settings = {"NOTEBOOK_MODE": "full", "DATA_DIR": str(tmp_path / "data"), "CACHE_DIR": str(tmp_path / "cache")}
    with pytest.raises(InputError, match="has no folder mnist"):
        find_data(data_set, read_settings(settings))
    assert find_data(data_set, read_settings(settings | {"DATA_SOURCE": "sample"})).is_sample


@pytest.mark.parametrize("source", ["auto", "local"])
@pytest.mark.parametrize("name", ["mnist", "chest-xray"])
def test_the_folder_of_the_data_set_is_not_its_parent(name, source, read, tmp_path):
    data_set = get_data_set(name)
    (tmp_path / name / data_set.key_file).mkdir(parents=True)
    with pytest.raises(InputError, match=f"/{name} is the folder of {name} itself: name its parent") as caught:
        find_data(data_set, read(source, tmp_path / name))
    assert "move" not in str(caught.value)
    assert find_data(data_set, read(source, tmp_path)).folder == tmp_path / name, "the advice does not help"


@pytest.mark.parametrize("source", ["auto", "local"])
@pytest.mark.parametrize("name", ["mnist", "chest-xray"])
@pytest.mark.parametrize("called", ["downloads", "chest_xray", "mnist2"])
def test_what_lies_in_the_folder_of_all_data_sets_belongs_into_one_of_its_own(name, called, source, read, tmp_path):
    """Its parent would be no better: it has no folder of the data set's name."""
    data_set, data_dir = get_data_set(name), tmp_path / called
    key = data_set.key_file
    (data_dir / key).mkdir(parents=True)
    before = list_files(tmp_path)
    with pytest.raises(InputError) as caught:
        find_data(data_set, read(source, data_dir))
    message = str(caught.value)
    assert f"DATA_DIR={data_dir} holds {key} itself: move it into a folder {name} there. " in message
    assert "name its parent" not in message
    assert f"Expected: {data_dir}/{name}/{key}" in message
    assert list_files(tmp_path) == before
    (data_dir / name).mkdir()
    (data_dir / key).rename(data_dir / name / key)
    assert find_data(data_set, read(source, data_dir)).folder == data_dir / name, "the advice does not help"


@pytest.fixture
def keras_download(monkeypatch, arrays):
    """Stand in for Keras, whose import is slow and whose download needs a network; count the downloads."""
    calls = []

    def load_data():
        calls.append("mnist")
        return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])

    mnist = SimpleNamespace(load_data=load_data)
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(datasets=SimpleNamespace(mnist=mnist)))
    return SimpleNamespace(calls=calls, mnist=mnist)


def test_download_puts_the_file_where_local_files_are(read, data_set, arrays, keras_download, tmp_path):
    found = find_data(data_set, read("download"))
    assert (found.kind, found.folder, found.is_sample) == ("download", tmp_path / "data" / "mnist", False)
    assert list_files(tmp_path / "data") == ["mnist", "mnist/mnist.npz"]
    with np.load(found.folder / "mnist.npz") as stored:
        assert set(stored) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(stored[name], array)
    assert len(index_images(data_set, found.folder)[0]) == 60
    assert find_data(data_set, read("local")).folder == found.folder


def test_what_was_downloaded_is_not_downloaded_again(read, data_set, keras_download):
    for _ in range(2):
        assert find_data(data_set, read("download")).kind == "download"
    assert keras_download.calls == ["mnist"]


def test_auto_downloads_nothing(read, data_set, keras_download):
    find_data(data_set, replace(read("auto"), data_dir_given=False))
    assert keras_download.calls == []


def assert_failed_download(data_set, settings, reason, tmp_path):
    with pytest.raises(InputError) as caught:
        find_data(data_set, settings)
    message = str(caught.value)
    assert "keras:mnist" in message
    assert reason in message
    assert str(tmp_path / "data" / "mnist") in message
    assert "DATA_SOURCE=sample" in message
    assert list_files(tmp_path / "data") == ["other"]


def test_failed_download_leaves_nothing(read, data_set, keras_download, tmp_path):
    (tmp_path / "data" / "other").mkdir(parents=True)

    def fail():
        raise ConnectionError("no network")

    keras_download.mnist.load_data = fail
    assert_failed_download(data_set, read("download"), "no network", tmp_path)


def test_download_to_a_full_disk_leaves_nothing(read, data_set, keras_download, tmp_path, monkeypatch):
    (tmp_path / "data" / "other").mkdir(parents=True)

    def fail(file, **_):
        file.write(b"PK")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    assert_failed_download(data_set, read("download"), "No space left", tmp_path)
    assert find_data(data_set, read("auto")).is_sample


def test_unknown_data_set_lists_those_there_are():
    with pytest.raises(InputError, match=r"'emnist'.*Known: .*mnist"):
        get_data_set("emnist")


def test_the_record_cannot_be_changed(data_set):
    with pytest.raises(FrozenInstanceError):
        data_set.name = "other"
    with pytest.raises(TypeError):
        data_set.expected_counts["train"] = 1
    assert data_set.name == "mnist"
    assert dict(data_set.expected_counts) == {"train": 60_000, "test": 10_000}
