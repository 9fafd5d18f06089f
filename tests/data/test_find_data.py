"""Finding a data set: which of local files, download and sample is taken, and what is said when it cannot be."""

import gzip
import os
import shutil
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import samples
from helpers.data.catalog import get_data_set
from helpers.data.opening import choose_data_set, find_data, index_images
from helpers.data.pixels import load_pixels
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
    assert "DATA_DIR/mnist" in found.note
    assert "say nothing about real images" in found.note


def test_auto_takes_the_sample_and_says_so_where_the_data_set_is_not(read, data_set, tmp_path):
    make_other(tmp_path / "data")
    found = find_data(data_set, replace(read("auto"), data_dir_given=False))
    assert found.is_sample
    assert found == find_data(data_set, read("sample"))  # so that saved notebooks do not differ
    assert "say nothing about real images" in found.note


def test_a_folder_that_was_named_never_ends_in_the_sample(read, data_set, tmp_path):
    make_other(tmp_path / "data")
    (tmp_path / "data" / "notes.txt").touch()
    with pytest.raises(InputError) as caught:
        find_data(data_set, read("auto"))
    there = (
        "data has no folder mnist; it holds notes.txt, other/. If one of these folders holds the data set, rename it"
    )
    assert f"{there} to mnist. Put " in str(caught.value)


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


def write_classes(folder, parts=("train", "test"), labels=("NORMAL", "PNEUMONIA"), suffix=".jpeg"):
    for part in parts:
        for label in labels:
            (folder / part / label).mkdir(parents=True)
            (folder / part / label / f"1{suffix}").touch()


MELANOMA = ("benign", "malignant")
CHESTS = ("NORMAL", "PNEUMONIA")


@pytest.mark.parametrize("source", ["auto", "local", "download"])
@pytest.mark.parametrize(
    ("place", "found", "note"),
    [
        ("chest-xray/chest_xray", "chest-xray", "data/chest-xray"),
        ("chest-xray-pneumonia/chest_xray", "chest-xray-pneumonia", "data/chest-xray-pneumonia"),
        ("Chest_XRay/CHEST_XRAY", "Chest_XRay", "data/Chest_XRay"),
        ("chest xray", "chest xray", "data/chest xray"),
        ("chest_xray", "chest_xray", "data/chest_xray"),
        ("chest-xray", "chest-xray", "data/chest-xray"),
        ("chest-xray/archive/chest_xray", "chest-xray/archive", "data/chest-xray/archive"),
        ("archive/chest_xray", "archive", "data/archive"),
        ("ZhangLabData/CellData/chest_xray", "ZhangLabData/CellData", "data/ZhangLabData/CellData"),
        ("datasets/paultimothymooney/chest-xray-pneumonia/versions/2/chest_xray", *["{}/versions/2"] * 2),
        (".", ".", "data"),
    ],
)
def test_folders_as_people_have_them(source, place, found, note, read, tmp_path):
    data_dir = tmp_path / "data"
    write_classes(data_dir / place)
    source = find_data(get_data_set("chest-xray"), read(source))
    owner = "datasets/paultimothymooney/chest-xray-pneumonia"
    assert source.folder == data_dir / found.format(owner)
    assert source.note.endswith(f", from {note.format(f'data/{owner}')}.")
    assert not source.is_sample


@pytest.mark.parametrize("place", ["chest-xray", "chest_xray"])
def test_the_folder_that_was_named_may_be_that_of_the_data_set(place, read, tmp_path):
    for folder in (tmp_path / place, tmp_path / place / "chest_xray"):
        write_classes(folder)
        found = find_data(get_data_set("chest-xray"), read("auto", tmp_path / place))
        assert found.folder == folder
        for part in ("train", "test"):
            shutil.rmtree(folder / part)


@pytest.mark.parametrize("place", ["mnist", "MNIST", "downloads", "archive/keras"])
def test_the_key_file_is_found_in_other_folders(place, read, data_set, folder, tmp_path):
    target = tmp_path / "elsewhere" / place
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)
    assert find_data(data_set, read("auto", tmp_path / "elsewhere")).folder == target
    assert find_data(data_set, read("auto", target)).folder == target


@pytest.mark.parametrize(
    ("name", "there", "found"),
    [
        ("melanoma", {"archive/melanoma_cancer_dataset": MELANOMA}, "archive"),
        ("melanoma", {"archive": MELANOMA}, None),
        ("melanoma", {"breast-histology": MELANOMA}, None),
        ("melanoma", {"melanoma/archive": MELANOMA}, "melanoma/archive"),
        ("melanoma", {"archive": ("Benign", "Malignant")}, None),
        ("melanoma", {"melanoma": ("Benign", "Malignant")}, None),
        ("melanoma", {"melanoma-isic": MELANOMA}, None),
        ("melanoma", {"melanoma-isic": ("Benign", "Malignant")}, None),
        ("melanoma-isic", {"archive": ("Benign", "Malignant")}, None),
        ("melanoma-isic", {"melanoma-isic/dataset": ("Benign", "Malignant")}, "melanoma-isic/dataset"),
        ("melanoma-isic", {"archive": MELANOMA}, None),
        ("melanoma-isic", {"archive/melanoma_cancer_dataset": MELANOMA}, None),
        ("melanoma-isic", {"melanoma-cancer-dataset": ("Benign", "Malignant")}, "melanoma-cancer-dataset"),
        ("melanoma", {"melanoma-cancer-dataset": ("Benign", "Malignant")}, None),
        ("melanoma", {"a": MELANOMA, "b": ("Benign", "Malignant")}, None),
        ("melanoma", {"a/melanoma": MELANOMA, "b": ("Benign", "Malignant")}, "a/melanoma"),
        ("chest-xray", {"archive": CHESTS}, None),
        ("chest-xray", {"covid": ("COVID19", "NORMAL", "PNEUMONIA")}, None),
        ("chest-xray", {"CellData/OCT": ("CNV", "NORMAL"), "CellData/chest_xray": CHESTS}, "CellData"),
        ("chest-xray", {"chest-xray/archive": CHESTS, "archive": CHESTS}, "chest-xray/archive"),
        ("chest-xray", {"x/versions/1/chest_xray": CHESTS, "x/versions/2/chest_xray": CHESTS}, "x/versions/2"),
        ("plants", {"PlantVillage": ("Apple___healthy", "Tomato___healthy")}, "PlantVillage"),
        ("plants", {"plants": ("Apple___healthy", "Tomato___healthy")}, "plants"),
    ],
)
def test_a_data_set_is_known_by_its_layout_and_never_taken_for_another(name, there, found, read, tmp_path):
    for place, labels in there.items():
        write_classes(tmp_path / "data" / place, ("train", "valid" if name == "plants" else "test"), labels)
    if found:
        assert find_data(get_data_set(name), read("auto")).folder == tmp_path / "data" / found
        assert choose_data_set(["mnist", name], read("auto")).name == name
    else:
        with pytest.raises(InputError, match=rf"has no .*; it holds .*rename it to {name}|/{name} has no "):
            find_data(get_data_set(name), read("auto"))
        assert choose_data_set(["mnist", name], read("auto")).name == "mnist"


def test_a_folder_that_may_be_that_of_the_data_set_is_named_and_the_sample_is_not_taken(read, tmp_path):
    write_classes(tmp_path / "data" / "own" / "archive")
    settings = replace(read("auto"), data_dir_given=False)
    with pytest.raises(
        InputError, match=r"data/own/archive is laid out like it\. If it is it, rename it to chest-xray\."
    ):
        find_data(get_data_set("chest-xray"), settings)
    (tmp_path / "data" / "own" / "archive").rename(tmp_path / "data" / "chest-xray")
    assert find_data(get_data_set("chest-xray"), settings).kind == "local"


def test_the_error_tells_that_not_all_folders_were_searched(read, tmp_path, monkeypatch):
    write_classes(tmp_path / "data" / "own" / "chest_xray")
    monkeypatch.setattr("helpers.data.opening._MOST_FOLDERS", 2)
    with pytest.raises(InputError, match=r"The search ended after 2 folders; others were not looked at\. Put"):
        find_data(get_data_set("chest-xray"), read("auto"))


def test_several_folders_that_fit_are_listed(read, tmp_path):
    place = tmp_path / "data" / "chest-xray"
    for name in ("archive", "masks"):
        write_classes(place / name)
    with pytest.raises(InputError) as caught:
        find_data(get_data_set("chest-xray"), read("auto"))
    told = f"lies in several folders: {place}/archive, {place}/masks. Move all but one out of DATA_DIR={tmp_path}/data."
    assert told in str(caught.value)
    (place / "masks").rename(tmp_path / "masks")
    assert find_data(get_data_set("chest-xray"), read("auto")).folder == place / "archive"


def test_links_lead_to_a_data_set_but_not_in_circles(read, tmp_path):
    write_classes(tmp_path / "disk" / "chest_xray")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "xrays").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "up").symlink_to("..")
    assert find_data(get_data_set("chest-xray"), read("auto")).folder == tmp_path / "data" / "xrays"


@pytest.mark.parametrize("place", ["leukemia", ".", "archive"])
@pytest.mark.parametrize(
    "inner", ["C-NMC_Leukemia/training_data", "PKG - C-NMC 2019/C-NMC_training_data", "TRAINING_DATA"]
)
def test_the_cells_are_found_in_the_folders_of_kaggle_and_of_the_publisher(place, inner, read, tmp_path):
    training = tmp_path / "data" / place / inner
    (training / "fold_0" / "all").mkdir(parents=True)
    found = find_data(get_data_set("leukemia"), read("auto"))
    assert training.is_relative_to(found.folder)
    assert len(training.relative_to(found.folder).parts) <= 2


@pytest.mark.parametrize(
    "place", ["ham10000", "HAM10000", ".", "dataverse_files", "skin-cancer-mnist-ham10000/archive"]
)
@pytest.mark.parametrize("table", ["HAM10000_metadata.csv", "HAM10000_metadata.tab"])
def test_the_table_of_lesions_is_found(place, table, read, tmp_path):
    folder = tmp_path / "data" / place
    (folder / "HAM10000_images_part_1").mkdir(parents=True)
    (folder / table).write_text("lesion_id,image_id,dx")
    found = find_data(get_data_set("ham10000"), read("auto")).folder
    assert folder.is_relative_to(found)
    assert found != tmp_path / "data" or place == "."


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("archive.zip", "python -m zipfile -e {}/archive.zip {}"),
        ("a b.TAR.GZ", "python -m tarfile --filter data -e '{}/a b.TAR.GZ' {}"),
        ("xrays.tgz", "python -m tarfile --filter data -e {}/xrays.tgz {}"),
        ("xrays.7z", "7z x {}/xrays.7z -o{}"),
        ("xrays.rar", "7z x {}/xrays.rar -o{}"),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_a_packed_archive_is_named_with_the_command_that_unpacks_it(name, command, inside, read, tmp_path):
    own = tmp_path / "data" / "chest-xray"
    place = own if inside else tmp_path / "data"
    place.mkdir(parents=True)
    (place / name).write_bytes(b"PK")
    with pytest.raises(InputError) as caught:
        find_data(get_data_set("chest-xray"), read("auto"))
    assert f"{name} is packed: unpack it with {command.format(place, own)}. Put " in str(caught.value)


def test_folders_that_cannot_be_entered_are_passed_over(read, data_set, folder, monkeypatch):
    (folder.parent / "closed").mkdir()
    folder.rename(folder.parent / "open")
    exists = Path.exists

    def refuse(path):
        if "closed" in path.parts or path.parent.name == "mnist":
            raise PermissionError(13, "Permission denied")
        return exists(path)

    monkeypatch.setattr(Path, "exists", refuse)
    assert find_data(data_set, read("auto")).folder == folder.parent / "open"


def test_a_named_folder_that_cannot_be_entered_is_no_missing_one(read, data_set, tmp_path, monkeypatch):
    make_other(tmp_path / "data")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"DATA_DIR=.*/data cannot be entered\. Put"):
        find_data(data_set, read("auto"))


# The IDX files of MNIST's publisher

IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def write_idx(folder, arrays, change=lambda name: name):
    folder.mkdir(parents=True, exist_ok=True)
    for key, name in IDX.items():
        array = arrays[key]
        content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()
        name = change(name)
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


@pytest.mark.parametrize(
    "change", [str, lambda name: f"{name}.gz", lambda name: name.replace("-idx", ".idx"), str.upper], ids=range(4)
)
@pytest.mark.parametrize("place", ["mnist", "MNIST/raw", "mnist-dataset", "MNIST original", "mnist_database/x"])
def test_idx_files_are_read_like_the_archive(change, place, read, data_set, folder, arrays, tmp_path):
    expected, _ = index_images(data_set, folder)
    pixels = load_pixels(expected, folder, (28, 28, 1), tmp_path / "cache")
    (folder / "mnist.npz").unlink()
    write_idx(tmp_path / "data" / place, arrays, change)
    found = find_data(data_set, read("auto"))
    assert found.folder == tmp_path / "data" / place
    images, problems = index_images(data_set, found.folder)
    assert problems.empty
    pd.testing.assert_frame_equal(images.drop(columns="path"), expected.drop(columns="path"))
    np.testing.assert_array_equal(load_pixels(images, found.folder, (28, 28, 1), tmp_path / "cache"), pixels)


def test_a_missing_idx_file_is_named(read, data_set, arrays, tmp_path):
    place = tmp_path / "data" / "mnist"
    write_idx(place, arrays)
    (place / IDX["y_test"]).unlink()
    with pytest.raises(InputError, match=r"mnist has IDX files, but not t10k-labels\. Expected: mnist"):
        index_images(data_set, find_data(data_set, read("auto")).folder)


def test_packed_idx_files_and_folders_of_the_same_name_may_lie_beside(read, data_set, folder, arrays):
    (folder / "mnist.npz").unlink()
    write_idx(folder, arrays, lambda name: f"{name}.gz")
    (folder / IDX["x_train"]).mkdir()
    write_idx(folder, arrays | {"x_test": 255 - arrays["x_test"]}, lambda name: name.replace("-idx", ".idx"))
    images, _ = index_images(data_set, find_data(data_set, read("auto")).folder)
    assert images["path"].unique().tolist() == ["train-images.idx3-ubyte", "t10k-images.idx3-ubyte"]


@pytest.mark.parametrize("data_dir", ["data", "mnist-project/data", "mnist"])
@pytest.mark.parametrize(
    "place", ["FashionMNIST/raw", "fashion-mnist", "fashion", "mnist_fashion", "kmnist", "EMNIST/a"]
)
def test_idx_files_of_others_are_not_taken_for_mnist(place, data_dir, read, data_set, arrays, tmp_path):
    write_idx(tmp_path / data_dir / place, arrays)
    with pytest.raises(InputError, match="has no folder mnist; it holds "):
        find_data(data_set, read("auto", tmp_path / data_dir))


@pytest.mark.parametrize("data_dir", ["data", "mnist-project/data"])
def test_idx_files_without_a_name_are_not_taken_for_mnist(data_dir, read, data_set, arrays, tmp_path):
    write_idx(tmp_path / data_dir / "archive", arrays)
    with pytest.raises(InputError, match=r"it holds archive/\. If .* rename it to mnist"):
        find_data(data_set, read("auto", tmp_path / data_dir))


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x0d\3", b"\x1f\x8b\x08", b"\0\0\x08\3\0\0\0\1\0\0\0\1\0\0\0\2\7", b"no"]
)
def test_damaged_idx_files_are_named(content, data_set, folder, arrays):
    (folder / "mnist.npz").unlink()
    write_idx(folder, arrays)
    (folder / IDX["x_test"]).write_bytes(content)
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte cannot be read as an IDX file .* may be truncated"):
        index_images(data_set, folder)


def test_mnist_as_tables_says_what_is_read(read, data_set, tmp_path):
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    (tmp_path / "data" / "mnist" / "mnist_train.csv").touch()
    with pytest.raises(InputError, match=r"it holds mnist_train\.csv\. .* tables of pixels \(\.csv\) are not read"):
        find_data(data_set, read("auto"))


# Key folders in upper and lower case


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
    with pytest.raises(InputError, match=r"/plants has no New Plant Diseases Dataset\(Augmented\); it holds "):
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
    for source in ("local", "auto"):
        with pytest.raises(InputError, match=r"data has no folder plants; it holds other/\. "):
            find_data(get_data_set("plants"), read(source))


@pytest.mark.parametrize("name", ["MNIST.NPZ", "Mnist.npz"])
@pytest.mark.parametrize("source", ["auto", "local"])
def test_the_key_file_is_found_in_another_case(name, source, read, data_set, folder, tmp_path):
    expected, _ = index_images(data_set, folder)
    (folder / "mnist.npz").rename(folder / name)
    assert find_data(data_set, read(source)).folder == folder
    images, _ = index_images(data_set, folder)
    pd.testing.assert_frame_equal(images, expected.assign(path=name))
    assert load_pixels(images, folder, data_set.image_shape, tmp_path / "cache").any()


@pytest.mark.parametrize("outer", ["new plant diseases dataset(augmented)", "New Plant Diseases Dataset(Augmented)"])
@pytest.mark.parametrize("place", ["plants", "downloads", "new-plant-diseases-dataset"])
def test_the_folder_of_plants_may_be_the_one_that_was_named(outer, place, read, tmp_path):
    """It holds them twice, as Kaggle ships them, and some in a folder beside."""
    write_plants(tmp_path / place, outer)
    write_plants(tmp_path / place, "NEW plant DISEASES dataset(AUGMENTED)")
    (tmp_path / place / "test" / "test").mkdir(parents=True)
    (tmp_path / place / "test" / "test" / "AppleScab1.JPG").touch()
    assert find_data(get_data_set("plants"), read("auto", tmp_path / place)).folder == tmp_path / place


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
    assert find_data(data_set, replace(read("auto"), data_dir_given=False)).is_sample


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
