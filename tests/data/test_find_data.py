"""Finding a data set: which of local files, download and sample is taken, and what is said when it cannot be."""

import sys
from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace

import numpy as np
import pytest

import samples
from helpers.data.catalog import get_data_set
from helpers.data.opening import choose_data_set, find_data, index_images
from helpers.files import InputError
from helpers.settings import read_settings


@pytest.fixture(autouse=True)
def stub_sample(monkeypatch):
    """Stand in for drawing the sample, which has tests of its own."""

    def make(data_set, samples_folder):
        folder = samples_folder / data_set.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    monkeypatch.setattr(samples, "make_sample", make)


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


def write_plants(folder, outer):
    """Write images of two classes below an outer folder and an inner one, which the original has too."""
    inner = folder / outer / "New Plant Diseases Dataset(Augmented)"
    for part in ("train", "valid"):
        for name in ("Apple___healthy", "Apple___Black_rot"):
            (inner / part / name).mkdir(parents=True)
            (inner / part / name / f"{part}-{name}.JPG").touch()


@pytest.mark.parametrize("source", ["auto", "local", "download"])
@pytest.mark.parametrize(
    "outer", ["new plant diseases dataset(augmented)", "New Plant Diseases Dataset(Augmented)", "NEW PLANT DISEASES "]
)
def test_the_key_folder_is_found_in_upper_and_lower_case(source, outer, read, tmp_path):
    data_set, folder = get_data_set("plants"), tmp_path / "data" / "plants"
    outer = f"{outer}DATASET(AUGMENTED)" if outer.endswith(" ") else outer
    write_plants(folder, outer)
    (folder / "README.txt").touch()
    found = find_data(data_set, read(source))
    assert (found.kind, found.folder) == ("download" if source == "download" else "local", folder)
    images, _ = index_images(data_set, found.folder)
    assert images["path"].str.startswith(f"{outer}/").all()
    assert len(images) == 4


@pytest.mark.parametrize("name", ["new plant diseases dataset", "new plant diseases dataset(augmented).zip", "train"])
def test_a_name_that_is_only_similar_is_no_key_folder(name, read, tmp_path):
    (tmp_path / "data" / "plants" / name).mkdir(parents=True)
    with pytest.raises(InputError, match=r"/plants has no New Plant Diseases Dataset\(Augmented\)\. Put the"):
        find_data(get_data_set("plants"), read("auto"))


@pytest.mark.parametrize("source", ["auto", "local"])
def test_a_file_where_the_folder_should_be_is_no_data_set(source, read, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "plants").write_text("an archive, perhaps")
    with pytest.raises(InputError, match=r"data/plants has no New Plant .* Expected: .*/data/plants/New Plant "):
        find_data(get_data_set("plants"), read(source))
    assert choose_data_set(["melanoma", "plants"], read(source)).name == "melanoma"


def test_a_missing_folder_is_no_data_set(read, tmp_path):
    make_other(tmp_path / "data")
    with pytest.raises(InputError, match=r"data has no folder plants\. "):
        find_data(get_data_set("plants"), read("local"))
    assert find_data(get_data_set("plants"), read("auto")).is_sample


@pytest.mark.parametrize("name", ["MNIST.NPZ", "Mnist.npz"])
@pytest.mark.parametrize("source", ["auto", "local"])
def test_key_files_are_opened_by_their_name_and_not_found_under_another(name, source, read, data_set, folder):
    (folder / "mnist.npz").rename(folder / name)
    with pytest.raises(InputError, match=r"/mnist has no mnist\.npz\. Put the files there"):
        index_images(data_set, find_data(data_set, read(source)).folder)


@pytest.mark.parametrize("outer", ["new plant diseases dataset(augmented)", "New Plant Diseases Dataset(Augmented)"])
def test_the_folder_of_plants_is_not_its_parent_in_any_case(outer, read, tmp_path):
    write_plants(tmp_path / "plants", outer)
    with pytest.raises(InputError, match="/plants is the folder of plants itself: name its parent"):
        find_data(get_data_set("plants"), read("auto", tmp_path / "plants"))


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


# choose_data_set

NAMES = ["melanoma", "plants", "melanoma-isic"]


@pytest.fixture
def put(tmp_path):
    """Put the key folders of some data sets into ``DATA_DIR``."""

    def put(*names):
        (tmp_path / "data").mkdir()
        for name in names:
            (tmp_path / "data" / name / get_data_set(name).key_file.lower()).mkdir(parents=True)

    return put


@pytest.mark.parametrize("there", [[], ["plants"], NAMES], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_data_set_that_was_asked_for_is_chosen_whatever_is_there(name, there, put, tmp_path):
    put(*there)
    for value in (name, f" {name.upper()} "):
        settings = read_settings({"DATA_SET": value, "DATA_DIR": str(tmp_path / "data")})
        assert choose_data_set(NAMES, settings) is get_data_set(name)


@pytest.mark.parametrize("name", ["cifar10", "mnist", "melanoma_isic", "mel"])
def test_a_data_set_that_the_notebook_cannot_use_is_refused(name, put, tmp_path):
    """Also one that there is."""
    put("melanoma", "mnist")
    settings = read_settings({"DATA_SET": name, "DATA_DIR": str(tmp_path / "data")})
    with pytest.raises(InputError) as caught:
        choose_data_set(NAMES, settings)
    assert str(caught.value) == f"DATA_SET={name}: this notebook can use melanoma, plants, melanoma-isic."


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        (["melanoma"], "melanoma"),
        (["plants"], "plants"),
        (["melanoma-isic"], "melanoma-isic"),
        (["melanoma-isic", "plants"], "plants"),
        (["melanoma-isic", "melanoma"], "melanoma"),
        (NAMES, "melanoma"),
        (["mnist"], "melanoma"),
        ([], "melanoma"),
    ],
    ids=str,
)
@pytest.mark.parametrize("source", ["auto", "local", "download"])
def test_the_first_that_is_there_is_chosen_or_else_the_preferred_one(there, chosen, source, put, read):
    put(*there)
    assert choose_data_set(NAMES, read(source)) is get_data_set(chosen)
    assert choose_data_set(tuple(NAMES), read(source)).name == chosen


def test_a_folder_without_its_key_file_is_not_there(put, read, tmp_path):
    put("plants")
    (tmp_path / "data" / "melanoma" / "train").mkdir(parents=True)
    assert choose_data_set(NAMES, read("auto")).name == "plants"


def test_without_a_folder_of_data_the_preferred_one_is_chosen(read, tmp_path):
    assert choose_data_set(NAMES[::-1], read("auto", tmp_path / "nowhere")).name == "melanoma-isic"


def test_the_chosen_data_set_is_found(put, read):
    put("melanoma-isic")
    settings = read("auto")
    assert find_data(choose_data_set(NAMES, settings), settings).kind == "local"
