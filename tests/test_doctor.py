"""The doctor: everything that is not fine is named, and a repair removes it from the caches and from nowhere else."""

import json
import os
import shutil
import subprocess
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from PIL import Image

from benchmarks.torture.trials import train
from helpers import doctor, leftovers
from helpers.data.pixels import load_pixels, measure_images
from helpers.leftovers import name_unfinished
from helpers.study.design import list_trials
from helpers.study.runner import run_study
from samples import VERSION

VERSIONS = {name: version(name) for name in ("tensorflow", "keras", "numpy")}
KINDS = ["pixels", "measured", "hashes", "samples", "checkpoints", "studies", "models", "results", "reports"]
NUMBERS = [1, 1, 1, 1, 1, 1, 3, 2, 3]
TRIALS = list_trials({"x": 1}, {"x": {"base": {}}}, [5])


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Make a project with something of each kind, all of which is fine."""
    monkeypatch.setattr("helpers.data.reading._RECENT", 0)
    monkeypatch.setattr("helpers.data.reading._hashes", {})
    cache, images = tmp_path / ".cache", tmp_path / "data"
    images.mkdir()
    Image.new("RGB", (8, 6)).save(images / "one.png")
    index = pd.DataFrame({"image_id": ["one"], "path": ["one.png"]})
    load_pixels(index, images, (60, 80, 3), cache)
    measure_images(index, images, cache)
    (cache / f"samples/v{VERSION}/plants").mkdir(parents=True)
    (cache / f"samples/v{VERSION}/plants.checksum").write_text("00000000")  # of no file
    run_study(train, TRIALS, cache / "studies/sample/01_mnist", n_jobs=1)
    (cache / "checkpoints/sample/01_mnist").mkdir(parents=True)
    np.savez(cache / "checkpoints/sample/01_mnist/cnn.npz", about=json.dumps({}), best_0=np.arange(1000.0))
    for folder in ("models/sample/01_mnist", "figures/sample/01_mnist", "reports", "notebooks"):
        (tmp_path / folder).mkdir(parents=True)
    write_model(tmp_path / "models/sample/01_mnist/cnn.keras")
    graph = onnx.helper.make_graph([], "none", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "models/sample/01_mnist/cnn.onnx")
    (tmp_path / "models/sample/01_mnist/cnn.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    write_results(tmp_path / "figures/sample/01_mnist/results.json")
    (tmp_path / "figures/sample/01_mnist/figures.json").write_text('{"figures": {}}')
    (tmp_path / "reports/01_mnist.ipynb").write_text('{"cells": []}')
    (tmp_path / "reports/01_mnist.html").write_text("<html></html>\n")
    (tmp_path / "reports/01_mnist.pdf").write_bytes(b"%PDF-1.4\n%%EOF\n")
    (tmp_path / "notebooks/01_mnist.ipynb").touch()
    monkeypatch.setattr(doctor, "PROJECT_FOLDER", tmp_path)
    monkeypatch.setenv("CACHE_DIR", str(cache))
    monkeypatch.setenv("NOTEBOOK_PROGRESS", "off")
    return tmp_path


def write_model(path, keras=VERSIONS["keras"], **members):
    members = {"metadata.json": json.dumps({"keras_version": keras}), "config.json": "{}"} | members
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in ({"model.weights.h5": bytes(1000)} | members).items():
            archive.writestr(name, content)


def write_results(path, versions=VERSIONS):
    path.write_text(json.dumps({"results": {}, "versions": versions}))


def find(project, pattern):
    (path,) = project.glob(pattern)
    return path


def list_files(project):
    return {path: path.is_file() and path.read_bytes() for path in project.rglob("*")}


def check(capsys, *arguments):
    """Call the doctor: the exit status, the numbers of the table, and the lines below it."""
    status = doctor.main([*arguments])
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: [int(cell.replace(",", "")) for cell in line.split()[1:]] for line in lines[1:10]}
    assert lines[-1] == "All is fine, or can be used." if status == 0 else lines[-1].endswith(" cannot be used.")
    return status, pd.DataFrame(rows, index=["number", "bytes", *doctor._STATES]).T, lines[10:-1]


def test_what_is_fine_is_counted(project, capsys):
    before = list_files(project)
    status, table, lines = check(capsys, "--repair")
    assert (status, lines, list_files(project)) == (0, [], before)
    assert table.index.tolist() == KINDS
    assert table["number"].tolist() == table["fine"].tolist() == NUMBERS
    assert table.loc["pixels", "bytes"] >= 60 * 80 * 3


def test_an_empty_project_is_fine(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "PROJECT_FOLDER", tmp_path)
    monkeypatch.setenv("CACHE_DIR", "cache")
    assert check(capsys)[0] == 0


def flip(content):
    return content[:700] + bytes([content[700] ^ 1]) + content[701:]


def cut(content):
    return content[: len(content) // 2]


CACHED = {
    ".cache/pixels/*.npy": flip,
    ".cache/measured/*.csv": cut,
    ".cache/hashes/*.txt": lambda content: content.replace(b"one.png", b"two.png"),
    ".cache/checkpoints/*/*/*.npz": flip,
    ".cache/studies/*/*/*.json": lambda content: content.replace(b'"score": ', b'"score": 1'),
}
OTHERS = {
    "models/*/*/*.keras": (flip, "make run NB=01_mnist"),
    "models/*/*/*.onnx": (cut, "make run NB=01_mnist"),
    "models/*/*/*.tflite": (cut, "make run NB=01_mnist"),
    "figures/*/*/results.json": (cut, "make run NB=01_mnist"),
    "figures/*/*/figures.json": (cut, "make run NB=01_mnist"),
    "reports/*.ipynb": (cut, "make run NB=01_mnist"),
    "reports/*.html": (cut, "make report"),
    "reports/*.pdf": (cut, "make report"),
}


@pytest.mark.parametrize("pattern", CACHED)
def test_a_damaged_cache_is_named_and_removed_by_a_repair(project, capsys, pattern):
    path = find(project, pattern)
    content = path.read_bytes()
    path.write_bytes(CACHED[pattern](content))
    assert path.read_bytes() != content
    before = list_files(project)
    n_bytes = f"{path.stat().st_blocks * 512:,} bytes"
    status, table, lines = check(capsys)
    assert (status, table["damaged"].sum(), len(lines), list_files(project)) == (1, 1, 2, before)
    assert lines[0].startswith(f"damaged: {path.relative_to(project)}, {n_bytes}: ")
    assert lines[0].endswith(". A repair removes it.")
    assert lines[1] == f"A repair, `make doctor REPAIR=1` or `python -m helpers.doctor --repair`, frees {n_bytes}."
    status, _, lines = check(capsys, "--repair")
    assert (status, lines[0][-16:], lines[1]) == (0, " It was removed.", f"{n_bytes} were freed.")
    assert list_files(project) == {place: content for place, content in before.items() if place != path}
    assert check(capsys)[::2] == (0, [])


@pytest.mark.parametrize("pattern", OTHERS)
def test_a_damaged_model_or_result_stays_and_a_command_is_told(project, capsys, pattern):
    path, (damage, command) = find(project, pattern), OTHERS[pattern]
    path.write_bytes(damage(path.read_bytes()))
    before = list_files(project)
    status, table, lines = check(capsys, "--repair")
    assert (status, table["damaged"].sum(), len(lines), list_files(project)) == (1, 1, 1, before)
    assert lines[0].startswith(f"damaged: {path.relative_to(project)}, ")
    assert lines[0].endswith(f" `{command}` makes it again.")


@pytest.mark.parametrize(
    ("place", "command"),
    [
        ("01_mnist", "make full NB=01_mnist DATA_DIR=/path/to/data"),
        ("01_mnist_10000", "make full NB=01_mnist DATA_DIR=/path/to/data"),
        ("quick/01_mnist", "make run NB=01_mnist DATA_DIR=/path/to/data"),
    ],
)
def test_the_command_is_that_of_the_kind_of_run(project, capsys, place, command):
    (project / "figures" / place).mkdir(parents=True)
    (project / "figures" / place / "results.json").touch()
    assert f"`{command}`" in check(capsys)[2][0]


@pytest.mark.parametrize("missing", ["config.json", "metadata.json", "model.weights.h5"])
def test_a_model_that_lacks_something_is_damaged(project, capsys, missing):
    path = find(project, "models/*/*/*.keras")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != missing}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert f": it lacks {missing}." in check(capsys)[2][0]


@pytest.mark.parametrize("versions", [{}, [], "3.0", None])
def test_models_and_results_that_tell_no_version_are_damaged(project, capsys, versions):
    write_model(find(project, "models/*/*/*.keras"), **{"metadata.json": json.dumps(versions)})
    write_results(find(project, "figures/*/*/results.json"), versions)
    assert check(capsys)[1]["damaged"].tolist() == [0] * 6 + [1, 1, 0]


def test_a_model_that_would_fill_the_memory_is_damaged(project, capsys):
    path = find(project, "models/*/*/*.keras")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("more.json", "w") as member:
        for _ in range(300):
            member.write(bytes(10**6))
    assert "would unpack to 300,0" in check(capsys)[2][0]


def test_models_and_results_of_other_versions_can_be_used(project, capsys):
    write_model(find(project, "models/*/*/*.keras"), "3.0")
    write_results(find(project, "figures/*/*/results.json"), VERSIONS | {"tensorflow": "2.0"})
    status, table, lines = check(capsys)
    assert (status, table["other version"].tolist()) == (0, [0] * 6 + [1, 1, 0])
    assert f"made with keras 3.0 (here {VERSIONS['keras']}). It can be used; `make run" in lines[0]
    assert f"made with tensorflow 2.0 (here {VERSIONS['tensorflow']}). It can be used; `make run" in lines[1]


# Stale


def leave_an_old_sample(project):
    path = project / ".cache/samples/v3"
    (path / "plants").mkdir(parents=True)
    (path / "plants/leaf.png").write_bytes(b"0")
    return [path], f"it is of another version of the samples than v{VERSION}"


def update_keras(project):
    path = find(project, ".cache/studies/*/*/*")
    path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helpers.study.runner.version", lambda name: "1" if name == "keras" else version(name))
        run_study(train, TRIALS, path.parent, n_jobs=1)
    return list(path.parent.iterdir()), f"it was made with keras 1 (here {VERSIONS['keras']})"


def update_project(project):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helpers.data.pixels.VERSION", 1)
        load_pixels(pd.DataFrame({"path": ["one.png"]}), project / "data", (1, 1, 3), project / ".cache")
    paths = (project / ".cache/pixels").iterdir()
    return [min(paths, key=lambda path: path.stat().st_size)], "another version of this project has made it"


STALE = [leave_an_old_sample, update_keras, update_project]


@pytest.mark.parametrize("grow_old", STALE)
def test_what_nothing_will_use_again_is_stale(project, capsys, grow_old):
    paths, why = grow_old(project)
    before = list_files(project)
    status, table, lines = check(capsys)
    assert (status, table["stale"].sum(), len(lines)) == (1, len(paths), len(paths) + 1)
    assert list_files(project) == before
    for path, line in zip(paths, lines[:-1], strict=True):
        assert line.startswith(f"stale: {path.relative_to(project)}, ")
        assert line.endswith(f" bytes: {why}. A repair removes it.")
    assert check(capsys, "--repair")[0] == 0
    kept = {place: content for place, content in before.items() if not {place, *place.parents} & {*paths}}
    assert list_files(project) == kept


def test_an_old_sample_is_removed_with_what_was_left_in_it(project, capsys):
    (old,), _ = leave_an_old_sample(project)
    left = old / ".plants-89abcdef"
    left.mkdir()
    os.utime(left, (0, 0))
    assert check(capsys, "--repair")[0] == 0
    assert not old.exists()


def test_what_this_user_may_not_read_is_kept(project, capsys, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(doctor, "read_record", refuse)
    before = list_files(project)
    status, table, lines = check(capsys, "--repair")
    assert (status, table.loc["studies", "unreadable"]) == (1, 1)
    assert lines[0].endswith("'. A repair keeps it; see who may read it.")
    assert list_files(project) == before


def test_pixels_are_kept_when_the_disk_of_their_images_is_not_there(project, capsys):
    (project / "data").rename(project / "moved")
    before = list_files(project)
    status, table, lines = check(capsys, "--repair")
    assert (status, table["unused"].sum(), len(lines)) == (0, 3, 3)
    kept = "A repair keeps it; remove it yourself if the images will not come back."
    assert all(line.endswith(f" bytes: its images, in data, are gone. {kept}") for line in lines)
    assert list_files(project) == before


def test_a_damaged_sample_is_removed(project, capsys):
    (project / f".cache/samples/v{VERSION}/plants/more.png").touch()
    status, table, lines = check(capsys, "--repair")
    assert (status, table.loc["samples", "damaged"]) == (0, 1)
    assert lines[0].endswith(" bytes: plants: its checksum differs. It was removed.")
    assert check(capsys)[0] == 0


def test_pixels_of_an_old_sample_are_stale_with_it(project, capsys):
    old = project / ".cache/samples/v3/plants"
    before = find(project, ".cache/pixels/*")
    shutil.copytree(project / "data", old)
    load_pixels(pd.DataFrame({"path": ["one.png"]}), old, (6, 7, 3), project / ".cache")
    assert check(capsys, "--repair")[0] == 0
    assert find(project, ".cache/pixels/*") == before
    assert check(capsys)[::2] == (0, [])


# Half-written


@pytest.mark.parametrize("kind", [".cache/pixels", ".cache/samples", "models/sample", "figures/sample", "reports"])
def test_what_dead_processes_have_left_is_removed_everywhere(project, capsys, kind, monkeypatch):
    dead = subprocess.Popen(["sleep", "60"])
    with monkeypatch.context() as patch:
        patch.setattr(leftovers.os, "getpid", lambda: dead.pid)
        left = name_unfinished(project / kind / "table.csv")
    dead.kill()
    dead.wait()
    living, before = name_unfinished(project / kind / "table.csv"), list_files(project)
    for path in (left, living):
        path.write_text("unfinished")
    status, table, lines = check(capsys)
    assert (status, table["half-written"].sum()) == (1, 1)
    assert lines[0].startswith(f"half-written: {left.relative_to(project)}, ")
    assert check(capsys, "--repair")[0] == 0
    assert list_files(project) == before | {living: b"unfinished"}


def test_what_older_versions_have_left_counts_after_a_day(project, capsys):
    left = project / ".cache/pixels/.0123-89abcdef.npy"
    left.touch()
    assert check(capsys, "--repair")[0] == 0
    os.utime(left, (0, 0))
    assert check(capsys)[0] == 1
    assert check(capsys, "--repair")[0] == 0
    assert not left.exists()


# While others work


def test_what_another_process_has_put_in_the_place_of_a_damaged_file_stays(project):
    path = find(project, ".cache/pixels/*")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    damaged = next(found for found in doctor.examine(project / ".cache", project) if found.state == "damaged")
    path.unlink()
    path.write_bytes(content)
    assert not doctor._remove(damaged)
    assert path.read_bytes() == content


def test_what_vanishes_meanwhile_is_left_out(project, monkeypatch, capsys):
    def check_and_remove(path):
        Path(path).unlink()
        raise FileNotFoundError(path)

    monkeypatch.setattr(doctor, "read_seal", check_and_remove)
    status, table, _ = check(capsys)
    assert (status, table["number"].tolist()[:4]) == (0, [0, 0, 0, 1])


def test_a_wrong_setting_is_told(monkeypatch, capsys):
    monkeypatch.setenv("SEED", "x")
    assert doctor.main([]) == 2
    assert capsys.readouterr().err.startswith("error: SEED=x")
