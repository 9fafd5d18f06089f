"""The built-in samples: drawn once, the same way every time; and that of MNIST, in the original's layout."""

import hashlib
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import samples as sample
from helpers.data.catalog import get_data_set
from helpers.data.opening import find_data, index_images
from helpers.files import WriteError
from helpers.settings import read_settings
from samples import make_sample


@pytest.fixture(scope="module")
def folder(cache_with_samples):
    return make_sample(get_data_set("mnist"), cache_with_samples / "samples")


@pytest.fixture(scope="module")
def arrays(folder):
    with np.load(folder / "mnist.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def images(arrays):
    return np.concatenate([arrays["x_train"], arrays["x_test"]])


def test_a_full_disk_is_told_and_leaves_nothing(small_disk):
    small_disk.fill()
    with pytest.raises(WriteError, match=r"/disk/v\d+/mnist cannot be written \(No space left on device"):
        make_sample(get_data_set("mnist"), small_disk.folder)
    assert [path for path in small_disk.folder.rglob("*") if path.is_file()] == [small_disk.filler]
    small_disk.empty()
    assert make_sample(get_data_set("mnist"), small_disk.folder).is_dir()


@pytest.mark.parametrize("change", ["cut", "removed", "added", "copied without its checksum"])
def test_a_damaged_sample_is_named_and_drawn_again(tmp_path, monkeypatch, capsys, change):
    monkeypatch.setattr(sample, "_whole", set())
    folder = make_sample(get_data_set("mnist"), tmp_path)
    content = (folder / "mnist.npz").read_bytes()
    match change:
        case "cut":
            (folder / "mnist.npz").write_bytes(content[:-1])
        case "removed":
            (folder / "mnist.npz").unlink()
        case "added":
            (folder / "other.npz").touch()
        case _:
            folder.with_name("mnist.checksum").unlink()
    assert make_sample(get_data_set("mnist"), tmp_path) == folder  # which this process has found whole before
    assert capsys.readouterr().out == ""
    sample._whole.clear()
    assert make_sample(get_data_set("mnist"), tmp_path) == folder
    assert capsys.readouterr().out.startswith(f"{folder} was damaged (it")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"mnist.npz": content}
    assert sorted(path.name for path in folder.parent.iterdir()) == ["mnist", "mnist.checksum"]


def list_entries(folder):
    return sorted(folder.rglob("*"))


def find_ink(image):
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def test_layout_is_that_of_the_original(arrays, folder, data_set):
    assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {
        "x_train": ((1438, 28, 28), "uint8"),
        "y_train": ((1438,), "uint8"),
        "x_test": ((359, 28, 28), "uint8"),
        "y_test": ((359,), "uint8"),
    }
    table, problems = index_images(data_set, folder)
    assert problems.empty
    assert table.groupby("part")["label"].nunique().to_dict() == {"train": 10, "test": 10}
    assert table.groupby(["part", "label"]).size().min() >= 30


def test_no_image_is_on_both_sides(folder, data_set):
    table, _ = index_images(data_set, folder)
    assert not set(table.loc[table["part"] == "train", "group"]) & set(table.loc[table["part"] == "test", "group"])


def test_the_test_set_is_the_end_of_the_collection(arrays):
    labels = np.concatenate([arrays["y_train"], arrays["y_test"]])
    np.testing.assert_array_equal(labels, load_digits().target)


def test_digits_are_white_on_black(images):
    assert (images.max(axis=(1, 2)) == 255).all()
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert not corners.any()
    assert 15 < images.mean() < 60


def test_digits_fill_a_box_of_20_pixels(images):
    sides = [max(find_ink(image).shape) for image in images]
    assert max(sides) == 20
    assert min(sides) >= 17  # faint edges may round to black


def test_the_centre_of_mass_is_in_the_middle(images):
    mass = images.sum(axis=(1, 2))
    rows = (images.sum(axis=2) * np.arange(28)).sum(1) / mass
    columns = (images.sum(axis=1) * np.arange(28)).sum(1) / mass
    assert np.abs(rows - 13.5).max() < 1
    assert np.abs(columns - 13.5).max() < 1


def test_images_show_the_digits_they_were_made_of(images):
    """Scaled back to 8x8, each image is more like its original than like the next image's original."""
    originals = load_digits().images

    def scale_back(image, original):
        inked = np.argwhere(original > 0)
        height, width = inked.max(0) - inked.min(0) + 1
        small = np.asarray(Image.fromarray(find_ink(image)).resize((width, height), Image.Resampling.BOX), float)
        return np.corrcoef(small.ravel(), find_ink(original).ravel())[0, 1]

    shown = range(0, 1797, 10)
    assert min(scale_back(images[number], originals[number]) for number in shown) > 0.8
    assert np.mean([scale_back(images[number + 1], originals[number]) for number in range(0, 1790, 10)]) < 0.5


def test_drawing_is_deterministic(arrays, data_set, tmp_path):
    with np.load(make_sample(data_set, tmp_path) / "mnist.npz") as again:
        for name, array in arrays.items():
            assert hashlib.sha256(again[name]).digest() == hashlib.sha256(array).digest()


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("ham10000", 1001),
        ("chest-xray", 1001),
        ("melanoma", 501),
        ("melanoma-isic", 501),
        ("plants", 601),
        ("leukemia", 611),
    ],
)
def test_drawing_twice_gives_the_same_bytes(name, least, cache_with_samples, tmp_path):
    def hash_all(place):
        folder = make_sample(get_data_set(name), place)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    first = hash_all(cache_with_samples / "samples")
    assert len(first) >= least
    assert hash_all(tmp_path) == first


def test_drawn_once(data_set, tmp_path, monkeypatch):
    drawn = []

    def draw(data_set, folder):
        drawn.append(folder)
        (folder / "mnist.npz").write_bytes(b"sample")

    monkeypatch.setattr(sample, "_DRAWERS", {"mnist": draw})
    folders = {make_sample(data_set, tmp_path) for _ in range(3)}
    (folder,) = folders
    assert folder.name == "mnist"
    assert len(drawn) == 1
    checksum = folder.with_name("mnist.checksum")
    assert list_entries(tmp_path) == [folder.parent, folder, folder / "mnist.npz", checksum]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_interrupted_drawing_leaves_nothing(error, data_set, tmp_path, monkeypatch):
    def fail(file, **_):
        file.write_bytes(b"PK")
        raise error("half way")

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez_compressed", fail)
        with pytest.raises(error, match="half way"):
            make_sample(data_set, tmp_path)
    (version,) = list_entries(tmp_path)
    assert list_entries(version) == []
    assert len(index_images(data_set, make_sample(data_set, tmp_path))[0]) == 1797


def test_drawing_happens_beside_the_sample_until_it_is_whole(data_set, tmp_path, monkeypatch):
    """A reader that looks in the meantime finds no half-drawn sample."""
    final = []

    def draw(data_set, folder):
        final.append(folder.parent / "mnist")
        (folder / "mnist.npz").write_bytes(b"half")
        assert not final[0].exists()
        (folder / "mnist.npz").write_bytes(b"whole")

    monkeypatch.setattr(sample, "_DRAWERS", {"mnist": draw})
    assert (make_sample(data_set, tmp_path) / "mnist.npz").read_bytes() == b"whole"
    assert make_sample(data_set, tmp_path) == final[0]


def test_leftovers_of_a_killed_run_are_not_taken_for_a_sample(data_set, tmp_path, monkeypatch):
    half_drawn = []

    def draw_and_copy(data_set, folder):  # what a run leaves that is killed while it draws
        (folder / "mnist.npz").write_bytes(b"half")
        half_drawn.append(folder.with_name(f"{folder.name}x"))
        shutil.copytree(folder, half_drawn[0])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sample, "_DRAWERS", {"mnist": draw_and_copy})
        with pytest.raises(KeyboardInterrupt):
            make_sample(data_set, tmp_path)
    assert (half_drawn[0] / "mnist.npz").read_bytes() == b"half"
    folder = make_sample(data_set, tmp_path)
    assert folder != half_drawn[0]
    assert len(index_images(data_set, folder)[0]) == 1797


def test_the_sample_of_a_run_that_was_faster_is_taken(data_set, tmp_path, monkeypatch):
    def draw(data_set, folder):
        (folder / "mnist.npz").write_bytes(b"mine")
        other = folder.parent / "mnist"
        other.mkdir()
        (other / "mnist.npz").write_bytes(b"theirs")

    monkeypatch.setattr(sample, "_DRAWERS", {"mnist": draw})
    folder = make_sample(data_set, tmp_path)
    assert (folder / "mnist.npz").read_bytes() == b"theirs"
    assert list_entries(folder.parent) == [folder, folder / "mnist.npz", folder.with_name("mnist.checksum")]


def test_find_data_gives_the_sample(folder, data_set, tmp_path, monkeypatch):
    def forbid(data_set, folder):
        raise AssertionError("drawn again")

    samples = folder.parents[1]
    (tmp_path / "samples").symlink_to(samples)
    monkeypatch.setattr(sample, "_DRAWERS", {"mnist": forbid})
    found = find_data(data_set, read_settings({"DATA_SOURCE": "sample", "CACHE_DIR": str(tmp_path)}))
    assert found.is_sample
    assert len(index_images(data_set, found.folder)[0]) == 1797
