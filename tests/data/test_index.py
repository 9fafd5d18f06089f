"""The index of ``mnist.npz``: one row per image, and a clear refusal of every file that is not as it should be."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from helpers.data.layouts.common import read_arrays
from helpers.data.opening import index_images
from helpers.files import InputError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def test_columns_and_rows(data_set, folder, arrays):
    table, problems = index_images(data_set, folder)
    assert list(problems.columns) == ["file", "problem", "action", "image_id"]
    assert problems.empty
    assert list(table.columns) == ["image_id", "path", "label", "group", "part", "array", "position"]
    assert list(table.index) == list(range(60))
    assert table["image_id"].is_unique
    assert table["image_id"].iloc[[0, 39, 40, 59]].tolist() == [
        "train_00000",
        "train_00039",
        "test_00000",
        "test_00019",
    ]
    assert (table["path"] == "mnist.npz").all()
    assert table["part"].tolist() == ["train"] * 40 + ["test"] * 20
    assert table["label"].tolist() == [str(y) for y in [*arrays["y_train"], *arrays["y_test"]]]
    assert set(table["label"]) == set(data_set.class_names)
    assert (table["array"] == "x_" + table["part"]).all()
    assert table["position"].tolist() == [*range(40), *range(20)]


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint16"])
def test_labels_of_any_integer_type(data_set, folder, arrays, dtype):
    expected, _ = index_images(data_set, folder)
    np.savez(folder / "mnist.npz", **arrays | {"y_train": arrays["y_train"].astype(dtype)})
    assert index_images(data_set, folder)[0]["label"].tolist() == expected["label"].tolist()


def test_identical_images_share_a_group_within_and_across_parts(data_set, folder, arrays):
    arrays["x_train"][7] = arrays["x_train"][3]
    arrays["x_test"][5] = arrays["x_train"][3]
    arrays["x_test"][6] = arrays["x_train"][3].T  # the same pixels elsewhere
    arrays["x_test"][8] = arrays["x_train"][3]
    arrays["x_test"][8, 0, 0] ^= 1  # one grey level in one pixel
    np.savez(folder / "mnist.npz", **arrays)
    table, _ = index_images(data_set, folder)
    assert table.index[table["group"] == table["group"][3]].tolist() == [3, 7, 45]
    assert table["group"].nunique() == 58


def assert_refused(data_set, folder, *expected):
    path = folder / "mnist.npz"
    with pytest.raises(InputError) as caught:
        index_images(data_set, folder)
    message = str(caught.value)
    assert message.startswith(str(path))
    for text in (*expected, "etch", "DATA_SOURCE=sample"):
        assert text in message, message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("x_train", np.zeros((40, 28, 27), "uint8"), "shape (n, 28, 28), but has (40, 28, 27)"),
        ("x_train", np.zeros((40, 784), "uint8"), "shape (n, 28, 28), but has (40, 784)"),
        ("x_test", np.zeros((20, 28, 28, 1), "uint8"), "shape (n, 28, 28), but has (20, 28, 28, 1)"),
        ("x_test", np.array(0, "uint8"), "shape (n, 28, 28), but has ()"),
        ("x_train", np.zeros((40, 28, 28), "float32"), "dtype uint8, grey levels from 0 to 255, but has float32"),
        ("x_test", np.zeros((20, 28, 28), "int64"), "dtype uint8, grey levels from 0 to 255, but has int64"),
        ("x_train", np.zeros((0, 28, 28), "uint8"), "at least one image"),
        ("x_test", np.zeros((0, 28, 28), "uint8"), "at least one image"),
        ("y_train", np.zeros(39, "uint8"), "one label for each image, shape (40,), but has (39,)"),
        ("y_test", np.zeros(40, "uint8"), "one label for each image, shape (20,), but has (40,)"),
        ("y_test", np.eye(10, dtype="uint8")[[0, 1] * 10], "one label for each image, shape (20,), but has (20, 10)"),
        ("y_train", np.zeros(40), "whole numbers, but has float64"),
        ("y_train", np.zeros(40, bool), "whole numbers, but has bool"),
        ("y_test", np.full(20, "7"), "whole numbers, but has <U1"),
        ("y_train", np.arange(40) % 11, "labels from 0 to 9, but has [10]"),
        ("y_test", np.arange(20) % 10 - 1, "labels from 0 to 9, but has [-1]"),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_wrong_array_names_file_array_and_what_was_expected(data_set, folder, arrays, name, value, expected, save):
    save(folder / "mnist.npz", **arrays | {name: value})
    assert_refused(data_set, folder, f"{name} should have {expected}")


@pytest.mark.parametrize("name", ARRAYS)
def test_missing_array(data_set, folder, arrays, name):
    del arrays[name]
    np.savez(folder / "mnist.npz", **arrays)
    assert_refused(data_set, folder, f"lacks {name}; it holds {', '.join(arrays)}")


def make_object_array(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays | {"x_train": np.array([object] * 40)})
    return buffer.getvalue()


def make_zip(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def make_npy(arrays):
    buffer = io.BytesIO()
    np.save(buffer, arrays["x_train"])
    return buffer.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda arrays: b"", id="empty"),
        pytest.param(lambda arrays: b"<html>404 Not Found</html>\n" * 100, id="text"),
        pytest.param(lambda arrays: bytes(5000), id="zeros"),
        pytest.param(lambda arrays: pickle.dumps(arrays), id="pickle"),
        pytest.param(make_object_array, id="object array"),
        pytest.param(make_npy, id="npy"),
        pytest.param(lambda arrays: make_zip({}), id="empty zip"),
        pytest.param(lambda arrays: make_zip({"readme.txt": "no arrays"}), id="other zip"),
        pytest.param(
            lambda arrays: make_zip(dict.fromkeys((f"{name}.npy" for name in ARRAYS), "text")), id="text in zip"
        ),
    ],
)
def test_other_files_under_the_same_name(data_set, folder, arrays, make):
    (folder / "mnist.npz").write_bytes(make(arrays))
    assert_refused(data_set, folder, "x_train")


def test_pickles_are_not_run(data_set, folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    array = np.empty(1, object)
    array[0] = Trap()
    np.savez(folder / "mnist.npz", **dict.fromkeys(ARRAYS, array))
    assert_refused(data_set, folder)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_at_any_length(data_set, folder, arrays, save):
    path = folder / "mnist.npz"
    save(path, **arrays)
    content = path.read_bytes()
    for length in [*range(1, 200, 20), *np.linspace(200, len(content) - 400, 10, dtype=int), *range(-400, 0, 40), -1]:
        path.write_bytes(content[:length])
        assert_refused(data_set, folder, "x_train")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flipped_bytes_end_in_a_table_or_in_an_input_error(data_set, folder, arrays, save):
    path = folder / "mnist.npz"
    save(path, **arrays)
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    messages = []
    for number in range(300):
        damaged = bytearray(content)
        where = rng.integers(0, 200) if number % 2 else -rng.integers(1, 400)  # headers are at both ends
        damaged[where] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert len(index_images(data_set, folder)[0]) == 60
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all(str(path) in message for message in messages)


def test_missing_file_and_folder_in_its_place(data_set, folder):
    (folder / "mnist.npz").unlink()
    assert_refused(data_set, folder, "x_train")
    (folder / "mnist.npz").mkdir()
    assert_refused(data_set, folder, "x_train")


def test_read_arrays_reads_only_what_was_asked_for(folder, arrays):
    found = read_arrays(folder / "mnist.npz", ["y_test", "x_test"])
    assert list(found) == ["y_test", "x_test"]
    np.testing.assert_array_equal(found["x_test"], arrays["x_test"])


def test_digits_without_images_are_named_by_part(data_set, folder, arrays):
    np.savez(folder / "mnist.npz", **arrays | {"y_train": arrays["y_train"] % 8, "y_test": arrays["y_test"] % 9})
    assert_refused(
        data_set,
        folder,
        " has no image of 8, 9 in train and no image of 9 in test; both need all ten digits. Expected: ",
    )
