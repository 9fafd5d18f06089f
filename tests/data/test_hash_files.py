"""Hashes of files: equal exactly for identical files, whatever their names."""

import hashlib
import shutil

import pandas as pd
import pytest

from helpers.data.images import hash_files
from helpers.errors import InputError


@pytest.fixture
def images(tmp_path):
    """Write two identical files in different folders, one that differs in a byte, and an empty one."""
    contents = {"a/one.jpeg": b"x-ray", "b/two.png": b"x-ray", "a/three.jpeg": b"x-raY", "four.jpeg": b""}
    for path, content in contents.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    return pd.DataFrame({"image_id": list("1234"), "path": list(contents)})


def test_equal_hashes_are_identical_files(images, tmp_path):
    hashes = hash_files(images, tmp_path)
    assert hashes.duplicated(keep=False).tolist() == [True, True, False, False]
    assert hashes.map(len).tolist() == [64] * 4
    assert hashes[0] == hashlib.sha256(b"x-ray").hexdigest()


@pytest.mark.parametrize("order", [[3, 1, 0, 2], [2], [0, 0, 3], []])
def test_hashes_are_aligned_with_the_images(images, tmp_path, order):
    every = hash_files(images, tmp_path)
    chosen = images.iloc[order].set_axis([f"row {number}" for number in range(len(order))], axis=0)
    hashes = hash_files(chosen, tmp_path)
    assert hashes.index.equals(chosen.index)
    assert hashes.tolist() == every.iloc[order].tolist()
    assert hashes.dtype == pd.Series(["hash"], dtype="str").dtype


def test_a_changed_file_has_another_hash(images, tmp_path):
    before = hash_files(images, tmp_path)
    shutil.copy(tmp_path / "a/one.jpeg", tmp_path / "a/three.jpeg")
    (tmp_path / "four.jpeg").write_bytes(b"0")
    after = hash_files(images, tmp_path)
    assert (before == after).tolist() == [True, True, False, False]
    assert after.nunique() == 2


@pytest.mark.parametrize("in_its_place", ["nothing", "folder"])
def test_a_file_that_cannot_be_opened_is_named(images, tmp_path, in_its_place):
    (tmp_path / "b/two.png").unlink()
    if in_its_place == "folder":
        (tmp_path / "b/two.png").mkdir()
    with pytest.raises(InputError, match=r"b/two\.png cannot be opened"):
        hash_files(images, tmp_path)
