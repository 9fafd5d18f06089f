"""Hashes of files: equal exactly for identical files, whatever their names; kept for other processes too."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from helpers.data import reading
from helpers.data.pixels import compute_fingerprint, hash_files, load_pixels, measure_images
from helpers.files import InputError

PROJECT = Path(__file__).parents[2]


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


def test_what_is_no_file_has_no_hash(images, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    names = ("pipe", "a", "missing", "a/one.jpeg")
    assert reading.hash_each([tmp_path / name for name in names]) == [
        *[reading.UNREADABLE] * 3,
        hashlib.sha256(b"x-ray").hexdigest(),
    ]


# Kept in a file


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def hashed(monkeypatch):
    """List the files that are hashed, those that were written just now like any others."""
    hashed, digest = [], hashlib.file_digest

    def hash_file(file, name):
        hashed.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(reading.hashlib, "file_digest", hash_file)
    monkeypatch.setattr(reading, "_RECENT", 0)
    forget(monkeypatch)
    return hashed


def forget(monkeypatch):
    """Know as little as a new process."""
    monkeypatch.setattr(reading, "_hashes", {})


def find_saved(cache):
    (saved,) = (path for path in cache.rglob("*") if path.is_file())
    return saved


def test_the_fingerprint_has_not_changed(images, tmp_path, cache):
    """It is kept in the results of earlier runs and is part of the names in the cache."""
    digest = hashlib.sha256(images[["image_id", "path"]].to_csv(index=False).encode())
    for path in images["path"]:
        digest.update(hashlib.sha256((tmp_path / path).read_bytes()).digest())
    assert compute_fingerprint(images, tmp_path) == f"sha256:{digest.hexdigest()}"
    assert compute_fingerprint(images, tmp_path, cache) == f"sha256:{digest.hexdigest()}"


CODE = """
import json, sys
from pathlib import Path
import pandas as pd
from helpers.data import pixels, reading
hashed, digest = [], reading.hashlib.file_digest
reading.hashlib.file_digest = lambda file, name: hashed.append(file.name) or digest(file, name)
reading._RECENT = 0
folder = Path(sys.argv[1])
images = pd.DataFrame({"image_id": sys.argv[2:], "path": sys.argv[2:]})
measured = pixels.measure_images(images, folder, folder / "cache")
fingerprint = pixels.compute_fingerprint(images, folder)
sys.stdout.write(json.dumps([len(hashed), fingerprint, measured["error"].tolist()]))
"""


def test_the_second_process_hashes_nothing(images, tmp_path):
    command = [sys.executable, "-c", CODE, tmp_path, *images["path"]]
    runs = [subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120) for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], runs
    first, second = (json.loads(run.stdout) for run in runs)
    assert (first[0], second[0]) == (4, 0)
    assert first[1:] == second[1:]


def test_other_functions_know_what_one_has_hashed(images, tmp_path, cache, hashed):
    measure_images(images, tmp_path, cache)
    assert len(hashed) == 4
    with pytest.raises(InputError, match="cannot be read as an image"):
        load_pixels(images, tmp_path, (4, 4, 1), cache)
    hash_files(images, tmp_path)
    assert len(hashed) == 4


def test_hashes_from_before_the_cache_was_named_are_kept_too(images, tmp_path, cache, hashed, monkeypatch):
    hash_files(images, tmp_path)
    first = compute_fingerprint(images, tmp_path, cache)
    forget(monkeypatch)
    assert compute_fingerprint(images, tmp_path, cache) == first
    assert len(hashed) == 4


@pytest.mark.parametrize("set_back", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_of_the_same_size_is_noticed(images, tmp_path, cache, hashed, monkeypatch, in_place, set_back):
    path = tmp_path / "a/one.jpeg"
    before, first = path.stat(), compute_fingerprint(images, tmp_path, cache)
    if not in_place:
        path.unlink()
    path.write_bytes(b"X-ray")
    if set_back:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    forget(monkeypatch)
    changed = compute_fingerprint(images, tmp_path, cache)
    assert changed != first
    assert hashed[4:] == ["one.jpeg"]
    forget(monkeypatch)
    assert compute_fingerprint(images, tmp_path, cache) == changed
    assert len(hashed) == 5


@pytest.mark.parametrize("number", range(4))
def test_each_part_of_the_state_tells_a_change(images, tmp_path, cache, hashed, monkeypatch, number):
    compute_fingerprint(images, tmp_path, cache)
    forget(monkeypatch)
    read = reading._read_states

    def change(paths, folder):
        states = {path: state.split() for path, state in read(paths, folder).items()}
        states["four.jpeg"][number] += "1"
        return {path: " ".join(state) + " " for path, state in states.items()}

    monkeypatch.setattr(reading, "_read_states", change)
    monkeypatch.setattr(reading, "_RECENT", -(10**20))
    compute_fingerprint(images, tmp_path, cache)
    assert hashed[4:] == ["four.jpeg"]


def test_exchanged_files_and_another_order_have_other_fingerprints(images, tmp_path, cache, hashed, monkeypatch):
    first = compute_fingerprint(images, tmp_path, cache)
    assert compute_fingerprint(images.iloc[::-1], tmp_path, cache) != first
    for name, other in (("a/one.jpeg", "swap"), ("a/three.jpeg", "a/one.jpeg"), ("swap", "a/three.jpeg")):
        (tmp_path / name).rename(tmp_path / other)
    forget(monkeypatch)
    assert compute_fingerprint(images, tmp_path, cache) != first


def test_the_hash_of_a_file_that_has_just_changed_is_not_kept(images, tmp_path, cache, hashed, monkeypatch):
    """It could change again within the same tick of the file system's clock, and its state would not tell."""
    monkeypatch.setattr(reading, "_RECENT", 3600 * 10**9)
    first = compute_fingerprint(images, tmp_path, cache)
    assert not cache.exists()
    states = reading._read_states(images["path"], tmp_path)
    (tmp_path / "a/one.jpeg").write_bytes(b"X-ray")
    monkeypatch.setattr(reading, "_read_states", lambda *_: states)  # the clock has not ticked
    assert compute_fingerprint(images, tmp_path, cache) != first
    assert len(hashed) == 8


def test_what_is_just_changed_is_some_seconds():
    assert 10**9 < reading._RECENT < 10**10


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"{}",
        lambda content: content.replace(b"four", b"FOUR"),
        lambda content: content[:-4] + b'0"}\n',
        lambda content: b"\xff\x00" * 500,
        None,
    ],
    ids=["cut", "empty", "no check", "another name", "other digits", "binary", "missing"],
)
def test_from_a_damaged_file_of_hashes_nothing_is_taken(images, tmp_path, cache, hashed, monkeypatch, damage, capsys):
    first = compute_fingerprint(images, tmp_path, cache)
    saved = find_saved(cache)
    content = saved.read_bytes()
    if damage is None:
        saved.unlink()
    else:
        assert damage(content) != content
        saved.write_bytes(damage(content))
    forget(monkeypatch)
    assert compute_fingerprint(images, tmp_path, cache) == first
    assert len(hashed) == 8
    assert saved.read_bytes() == content
    assert capsys.readouterr().out.count(f"{saved} was damaged (its ") == (damage is not None)


def test_hashes_of_a_part_are_added_to_those_of_others(images, tmp_path, cache, hashed, monkeypatch):
    for rows in (slice(2), slice(2, 4), slice(4)):
        compute_fingerprint(images[rows], tmp_path, cache)
        forget(monkeypatch)
    assert len(hashed) == 4


def test_two_processes_may_write_at_the_same_time(images, tmp_path, cache, hashed, monkeypatch):
    first = compute_fingerprint(images, tmp_path)
    content = {path: value for path, value in reading._hashes[str(tmp_path)].items() if path < "b"}
    save = reading._save_hashes

    def save_twice(hashes, *place):
        save(hashes, *place)
        save(content, *place)  # by a process that has read nothing of the one above

    monkeypatch.setattr(reading, "_save_hashes", save_twice)
    assert compute_fingerprint(images, tmp_path, cache) == first
    forget(monkeypatch)
    assert compute_fingerprint(images, tmp_path, cache) == first
    assert sorted(hashed[4:]) == ["four.jpeg", "two.png"]
    assert [path.name[0] for path in find_saved(cache).parent.iterdir()] != ["."]


def test_a_cache_that_cannot_be_written_is_no_error(images, tmp_path, cache, hashed):
    cache.write_text("not a folder")
    assert compute_fingerprint(images, tmp_path, cache) == compute_fingerprint(images, tmp_path)
