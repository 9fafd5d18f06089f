"""The benchmarks: measuring in turn, rows and their file, and that a row still runs. Nothing about speed."""

import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from benchmarks import __main__ as command_line
from benchmarks import augmentation, common, evaluation, preparation


@pytest.fixture
def machine(monkeypatch):
    """Give a machine that can be exchanged for another one."""
    machine = {"processor": "one", "cores": 2, "amx_bf16": True, "avx512_bf16": False, "versions": {"keras": "3"}}
    monkeypatch.setattr(common, "describe_machine", lambda: dict(machine))
    return machine


def make_row(what, ours=(2.0, 3.0, 8.0), beside=(1.0, 2.0, 2.0), **details):
    return common.compare(what, "new", "old", {"new": list(ours), "old": list(beside)}, **details)


def test_ways_are_measured_in_turn():
    calls = []
    ways = {name: lambda name=name: calls.append(name) or len(calls) for name in "ABC"}
    assert common.measure_in_turn(ways, 2) == {"A": [1, 4], "B": [2, 5], "C": [3, 6]}
    assert "".join(calls) == "ABCABC"


def test_a_row_has_the_ratio_of_each_round():
    row = make_row("step", note="drawn")
    assert row["ratio"] == {"median": 2.0, "low": 1.5, "high": 4.0}  # not the ratio of the medians, 1.5
    assert row["of_ours"] == {"median": 3.0, "low": 2.0, "high": 8.0}
    assert (row["rounds"], row["unit"], row["note"]) == (3, "images/s", "drawn")
    with pytest.raises(ValueError, match="zip"):
        make_row("step", beside=[1.0])


def test_the_peak_of_memory_is_in_gigabytes(monkeypatch):
    monkeypatch.setattr(common.Path, "read_text", lambda path: "VmPeak:\t 9 kB\nVmHWM:\t 2000000 kB\nVmRSS:\t 1 kB\n")
    assert common.read_peak_memory() == 2.048


def test_rates_count_every_call():
    calls = []
    assert common.compute_rate(lambda: calls.append(1), count=10, calls=3) > 0
    assert len(calls) == 3


def test_rows_are_merged_by_name(machine, tmp_path, capsys):
    path = tmp_path / "results.json"
    common.save_rows([make_row("a"), make_row("b")], path)
    common.save_rows([make_row("a", ours=[9, 9, 9]), make_row("c", note="a note")], path)
    results = json.loads(path.read_text())
    assert [row["what"] for row in results["rows"]] == ["a", "b", "c"]
    assert results["rows"][0]["of_ours"]["median"] == 9
    assert {name: results[name] for name in machine} == machine
    table = path.with_suffix(".md").read_text()
    assert "| b | new | old | 3 (2 to 8) | 2 (1 to 2) | images/s | 2 (1.5 to 4) | 3 |" in table
    assert "- c: a note" in table

    machine["processor"] = "another"
    common.save_rows([make_row("d")], path)
    assert [row["what"] for row in json.loads(path.read_text())["rows"]] == ["d"]
    assert "another machine" in capsys.readouterr().out


def test_a_row_that_fails_loses_no_other(machine, tmp_path, monkeypatch, capsys):
    def fail(rounds=3, tiny=False):
        raise OSError("no room")

    def measure(rounds=3, tiny=False):
        return [make_row("measured", ours=[1.0] * rounds, beside=[2.0] * rounds)]

    monkeypatch.setattr(command_line, "find_rows", lambda: {"bad": fail, "good-1": measure, "other": fail})
    path = tmp_path / "results.json"
    assert command_line.main(["bad", "good", "--rounds", "5", "--out", str(path)]) == 1
    assert [row["rounds"] for row in json.loads(path.read_text())["rows"]] == [5]
    output = capsys.readouterr()
    assert "no room" in output.err
    assert "failed: bad\n" in output.err
    assert command_line.main(["worse"]) == 2
    assert "no row begins with worse\nbad\ngood-1\nother\n" in capsys.readouterr().out


def test_tiny_rows_are_not_written(monkeypatch):
    def measure(rounds=3, tiny=False):
        assert tiny
        return [make_row("tiny")]

    monkeypatch.setattr(command_line, "find_rows", lambda: {"row": measure})
    monkeypatch.setattr(command_line, "save_rows", lambda rows, path: pytest.fail("written"))
    assert command_line.main(["--tiny"]) == 0


def test_drawn_images(tmp_path):
    images = common.draw_images(tmp_path / "images", 5, (40, 30), 3, different=2)
    assert images["label"].tolist() == ["first", "second", "first", "second", "first"]
    contents = [(tmp_path / "images" / path).read_bytes() for path in images["path"]]
    assert len(set(contents)) == 2
    assert images.attrs["mean_kilobytes"] == np.mean([len(content) for content in contents[:2]]) / 1e3
    with Image.open(tmp_path / "images" / images["path"][0]) as image:
        assert image.size == (40, 30)
    assert len(list((tmp_path / "images").iterdir())) == 2


def test_a_measurement_has_a_process_of_its_own():
    assert common.run_alone(os.getpid) != os.getpid()


@pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")  # of Keras's generator
def test_a_row_runs(tmp_path, monkeypatch):
    def run_here(function, *arguments, one_core=False):
        function, arguments = pickle.loads(pickle.dumps((function, arguments)))  # as on the way to another process
        return function(*arguments)

    for module in (augmentation, preparation):
        monkeypatch.setattr(module, "run_alone", run_here)
    path = tmp_path / "results.json"
    rows = ["augmentation-28x28x1", "preparation-opening-600x450"]
    assert command_line.main([*rows, "--tiny", "--rounds", "1", "--out", str(path)]) == 0
    measured = json.loads(path.read_text())["rows"]
    assert [row["what"] for row in measured] == [
        "augmentation, 28x28x1",
        "opening, 600x450, small",
        "opening, 600x450, large",
    ]
    assert all(row["ratio"]["median"] > 0 for row in measured)


def test_every_step_of_an_evaluation_is_timed():
    seconds = evaluation.measure_steps(200, 20)
    assert len(seconds) == 12
    assert (seconds > 0).all()
