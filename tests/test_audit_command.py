"""The command that audits a folder: planted faults, names, what is bad input, and what a page may hold."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import audit
from helpers.audit import checks
from helpers.audit.folders import read_folder
from helpers.files import InputError, hold_lock
from samples import planted


def run(*arguments):
    return audit.main([str(argument) for argument in arguments])


def test_planted_faults_are_found(tmp_path, capsys):
    folder, out = tmp_path / "leaves", tmp_path / "audit.html"
    planted.draw_clean(folder, count=200)
    faults = planted.plant_faults(folder)
    assert len(faults) == 40
    assert run(folder, "--out", out) == 0
    findings = pd.read_csv(audit.name_table(out), keep_default_na=False)
    found = planted.match_findings(faults, findings)
    assert found.sum() >= 38, faults[~found]
    assert len(planted.find_false_alarms(faults, findings)) < 0.02 * 200
    told = capsys.readouterr().out
    assert told.startswith("Do not use it as it is: 4 copies in two classes")
    page = out.read_text(encoding="utf-8")
    assert page.index("Do not use it as it is") < page.index("<h2>")
    assert 'src="data:image/jpeg;base64,' in page
    assert "http" not in page
    assert "<script" not in page
    assert len(page) < 10**6


def test_names_tell_sets_classes_and_groups(tmp_path):
    files = ["x/train/images/cat/patient_7-1.png", "x/train/cat/patient_7-2.png", "x/Testing/dog/UID_H10_3.png"]
    images, notes = read_folder(files, tmp_path)
    assert images["set"].tolist() == ["train", "train", "testing"]
    assert images["label"].tolist() == ["cat", "cat", "dog"]
    assert images["group"].tolist() == ["patient_7", "patient_7", "UID_H10"]
    assert any("Groups from the names: 2 in 3 images" in note for note in notes)
    images, notes = read_folder(["a/part_1/1.png", "a/part_2/2.png"], tmp_path)
    assert images[["set", "label"]].isna().all(axis=None)
    assert images["group"].tolist() == ["a/part_1/1.png", "a/part_2/2.png"]
    assert any("no classes" in note for note in notes)


def test_a_table_and_an_expression_tell_groups(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("image_id,lesion_id,dx\nx1,L1,nv\nx2,L1,nv\nx3,L2,mel\n")
    files = ["x1.jpg", "x2.jpg", "x3.jpg"]
    images, _ = read_folder(files, tmp_path, metadata=table)
    assert images["group"].tolist() == ["L1", "L1", "L2"]
    assert images["label"].tolist() == ["nv", "nv", "mel"]
    images, _ = read_folder(files, tmp_path, group=r"x[12]")
    assert images["group"].tolist() == ["x1", "x2", "x3.jpg"]
    with pytest.raises(InputError, match="no regular expression"):
        read_folder(files, tmp_path, group="(")
    with pytest.raises(InputError, match="matches no path"):
        read_folder(files, tmp_path, group="patient")


def test_a_group_in_two_sets_is_found():
    images = pd.DataFrame(
        {"path": list("abc"), "set": ["train", "test", "test"], "label": "x", "group": ["p", "p", "q"]}
    )
    (finding,) = checks.find_shared_groups(images)
    assert (finding["file"], finding["other_file"], finding["number"]) == ("a", "b", 2)


def test_a_dark_folder_is_no_fault():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, (40, 96, 96, 3)).astype("uint8")
    images = pd.DataFrame({"path": [str(number) for number in range(40)], "set": None, "label": None})
    assert checks.find_odd_images(images, checks.measure_looks(pixels)) == []
    pixels[3], pixels[5] = 128, pixels[5] // 3
    odd = checks.find_odd_images(images, checks.measure_looks(pixels))
    assert {finding["file"]: finding["kind"] for finding in odd} == {"3": "blank", "5": "dark"}


def test_an_over_exposed_image_is_found():
    rng = np.random.default_rng(0)
    pixels = rng.integers(40, 200, (40, 96, 96, 3)).astype("uint8")
    light = 205 + pixels // 6
    pixels[7] = light[7]
    images = pd.DataFrame({"path": [str(number) for number in range(40)], "set": None, "label": None})
    (finding,) = checks.find_odd_images(images, checks.measure_looks(pixels))
    assert (finding["file"], finding["kind"]) == ("7", "over-exposed")
    assert checks.find_odd_images(images, checks.measure_looks(light)) == []


def make_labelled(count):
    names = [str(number) for number in range(count)]
    labels = np.where(np.arange(count) % 2, "a", "b")
    images = pd.DataFrame({"image_id": names, "path": names, "set": None, "label": labels, "group": names})
    return images, pd.DataFrame({"first": [], "second": []}, dtype=int), np.zeros(count, bool)


@pytest.mark.parametrize(("width", "value", "told"), [(3, 255, True), (3, 0, True), (0, 255, False)])
def test_a_frame_is_a_shortcut(width, value, told):
    """Smooth images, light at the edge; those of class a, or none, with an even frame."""
    images, pairs, blank = make_labelled(80)
    rng = np.random.default_rng(0)
    slopes = np.linspace(0, 1, 96) * rng.uniform(60, 120, (80, 1, 1))
    pixels = np.repeat((slopes + rng.uniform(60, 120, (80, 96, 1)))[..., None], 3, axis=-1).astype("uint8")
    for row in range(1, 80, 2):
        frame = np.ones((96, 96), bool)
        frame[width : 96 - width, width : 96 - width] = False
        pixels[row][frame] = value
    measured = pd.DataFrame({"width": 96, "height": 96, "red": 9.0, "green": 9.0, "blue": 9.0}, range(80))
    found = checks.find_shortcuts(images, pixels, measured, np.full(80, 900.0), pairs, blank)
    frames = [row for row in found if row["sentence"].startswith("The frame")]
    assert [{row["class"], row["other_class"]} for row in frames] == [{"a", "b"}] * told


@pytest.mark.parametrize(("apart", "wrong", "told"), [(6, 2, 2), (6, 12, 8), (0, 2, 0)])
def test_wrong_folders_are_told_where_classes_can_be_told_apart(apart, wrong, told):
    """At most 2 % of the 400 images; none of two classes that look the same."""
    images, pairs, blank = make_labelled(400)
    features = np.random.default_rng(0).normal(size=(400, 20)).astype("float32")
    features[images["label"] == "a", :4] += apart
    features[1 : 2 * wrong : 2, :4] -= apart
    found = checks.find_wrong_folders(images, features, pairs, blank)
    assert len(found) == told
    assert {row["file"] for row in found} <= {str(number) for number in range(1, 2 * wrong, 2)}
    assert {(row["class"], row["other_class"]) for row in found} <= {("a", "b")}


def test_images_alone_with_a_damaged_one(tmp_path, capsys):
    folder, rng = tmp_path / "alone", np.random.default_rng(0)
    folder.mkdir()
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), "uint8")).save(folder / f"<{number}>.png")
    (folder / "torn.png").write_bytes((folder / "<0>.png").read_bytes()[:900])
    out = tmp_path / "page.html"
    assert run(folder, "--out", out, "--strict") == 1
    assert "1 unreadable file in 3 images" in capsys.readouterr().out
    assert "<0>" not in out.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "page.findings.csv", "page.html"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "is no folder"),
        (["."], "no image in"),
        ([".", "--out", "x.csv"], "expected the name of a page"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["full", "read-only", "in use"])
def test_a_page_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path, small_disk, capsys, monkeypatch, kind):
    monkeypatch.setattr(audit, "_compute_features", lambda pixels: pixels.reshape(len(pixels), -1)[:, :8] / 255)
    folder, out = tmp_path / "alone", small_disk.folder / "page.html"
    folder.mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (70, 90, 3), "uint8")
        Image.fromarray(noise).save(folder / f"{number}.png")
    assert run(folder, "--out", out) == 0
    before = {path: path.read_bytes() for path in small_disk.folder.iterdir()}
    assert len(before) == 2
    (folder / "torn.png").write_bytes(b"\x89PNG")  # another page
    capsys.readouterr()
    if kind == "in use":
        with hold_lock(out):
            assert run(folder, "--out", out) == 2
    else:
        small_disk.fill() if kind == "full" else small_disk.protect()
        assert run(folder, "--out", out) == 2
    told = {"full": "cannot be written (No space left on device; ", "read-only": "cannot be written (Read-only"}
    error = capsys.readouterr().err
    assert error.startswith(f"error: {small_disk.folder}/page.")
    assert told.get(kind, "page.html is being written by another process. Wait") in error
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in small_disk.folder.iterdir() if path.name != "filler"} == before
