"""The benchmarks: measuring in turn, rows and their file, and that a row still runs. Nothing about speed."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks import __main__ as command_line
from benchmarks import augmentation, common, evaluation, parallel, preparation, profile, speed, speedrun, trials
from helpers.data import split
from helpers.files import InputError


@pytest.fixture
def machine(monkeypatch):
    """Give a machine that can be exchanged for another one."""
    machine = {"processor": "one", "cores": 2, "amx_bf16": False, "avx512_bf16": True, "gpu": False}
    machine["versions"] = {"keras": "3"}
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


def test_rows_are_merged_by_name(machine, tmp_path):
    path = tmp_path / "results.json"
    common.save_rows([make_row("a"), make_row("b")], path)
    common.save_rows([make_row("a", ours=[9, 9, 9]), make_row("c", note="a note")], path)
    results = common.read_results(path)["without AMX"]
    assert [row["what"] for row in results["rows"]] == ["a", "b", "c"]
    assert results["rows"][0]["of_ours"]["median"] == 9
    assert results == machine | {"rows": results["rows"]}
    table = path.with_suffix(".md").read_text()
    assert "| b | without AMX | new | old | 3 (2 to 8) | 2 (1 to 2) | images/s | 2 (1.5 to 4) | 3 |" in table
    assert "- c (without AMX): a note" in table


def test_rows_of_another_kind_of_processor_stand_beside(machine, tmp_path):
    path = tmp_path / "results.json"
    common.save_rows([make_row("a"), make_row("b")], path)
    before = common.read_results(path)
    machine |= {"processor": "another", "amx_bf16": True}
    common.save_rows([make_row("b", ours=[9, 9, 9])], path)
    results = common.read_results(path)
    assert results["without AMX"] == before["without AMX"]
    assert [row["what"] for row in results["with AMX"]["rows"]] == ["b"]
    lines = path.with_suffix(".md").read_text().splitlines()
    assert [line.split(" | ")[:2] for line in lines if line.startswith(("| a", "| b"))] == [
        ["| a", "without AMX"],
        ["| b", "without AMX"],
        ["| b", "with AMX"],
    ]


def test_a_row_of_an_earlier_run_keeps_machine_and_versions(machine, tmp_path):
    path, first = tmp_path / "results.json", dict(machine)
    common.save_rows([make_row("a"), make_row("b"), make_row("c")], path)
    for versions, what in (("4", "b"), ("5", "c")):
        machine |= {"processor": "another", "versions": {"keras": versions}}
        common.save_rows([make_row(what)], path)
    a, b, c = common.read_results(path)["without AMX"]["rows"]
    assert a["measured"] == {name: first[name] for name in ("processor", "versions")}
    assert b["measured"] == {"versions": {"keras": "4"}}
    assert "measured" not in c
    table = path.with_suffix(".md").read_text()
    assert "- without AMX: another, 2 cores, avx512_bf16; keras 5" in table
    assert "- a (without AMX): measured with processor one, keras 3\n- b (without AMX): measured with keras 4" in table


@pytest.mark.parametrize(
    ("about", "kind"),
    [({"avx512_bf16": False}, "without bfloat16"), ({"amx_bf16": True}, "with AMX"), ({"gpu": True}, "with a GPU")],
)
def test_kinds_of_machines(machine, about, kind):
    assert common.name_kind(machine | about) == kind


def test_the_real_machine_is_described():
    assert common.name_kind(common.describe_machine()) in common.KINDS


def test_the_page_shows_the_results():
    """After a change: ``python -m benchmarks --tables``."""
    results = common.read_results()
    assert speed.format_ratios(results) in speed.PAGE.read_text(encoding="utf-8")
    assert common.format_results(results) == common.RESULTS.with_suffix(".md").read_text(encoding="utf-8")
    for _, _, *patterns in speed.LINES:
        for pattern in patterns:  # one that fits no row would stand for a dash unnoticed
            assert any(speed.fnmatchcase(row["what"], pattern) for each in results.values() for row in each["rows"])


def test_the_page_has_the_ratios_of_each_kind(machine, tmp_path, monkeypatch):
    results, page = tmp_path / "results.json", tmp_path / "speed.md"
    page.write_text(f"before\n{speed.BEGIN}old\n{speed.END}\nafter\n")
    monkeypatch.setattr(speed, "LINES", (("step", "Keras", "step, *"), ("", "epoch", "epoch", "none")))
    common.save_rows([make_row("step, small"), make_row("step, large", beside=[0.1, 0.1, 0.1])], results)
    machine["amx_bf16"] = True
    common.save_rows([make_row("epoch", unit="s")], results)
    speed.write_page(results, page)
    assert page.read_text() == (
        f"before\n{speed.BEGIN}| what | beside | without AMX, times as fast | with AMX, times as fast |\n"
        f"|---|---|---|---|\n| step | Keras | 2.0 to 30 | – |\n|  | epoch | – | 0.50 / – |\n{speed.END}\nafter\n"
    )


def test_a_row_that_fails_loses_no_other(machine, tmp_path, monkeypatch, capsys):
    def fail(rounds=3, tiny=False):
        raise OSError("no room")

    def measure(rounds=3, tiny=False):
        return [make_row("measured", ours=[1.0] * rounds, beside=[2.0] * rounds)]

    monkeypatch.setattr(command_line, "find_rows", lambda: {"bad": fail, "good-1": measure, "other": fail})
    path = tmp_path / "results.json"
    assert command_line.main(["bad", "good", "--rounds", "5", "--out", str(path)]) == 1
    assert [row["rounds"] for row in common.read_results(path)["without AMX"]["rows"]] == [5]
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
    (machine,) = common.read_results(path).values()
    measured = machine["rows"]
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


def test_processor_time_of_both_ways_is_told(monkeypatch):
    seconds = iter([0, 3, 10, 12, 20, 25, 30, 32])
    monkeypatch.setattr(parallel, "read_processor_time", lambda: next(seconds))
    ways = dict.fromkeys((parallel.OURS, parallel.BESIDE), lambda: None)
    (row,) = parallel.compare_ways("folds", ways, count=4, epochs=2, rounds=2)
    assert row["note"].endswith("A takes 4 s of the processor, B 2 s")
    assert row["rounds"] == 2


def test_the_speedrun_divides_the_digits_once():
    parts = {part: speedrun.split_digits(60_000, part) for part in ("report", "tuning")}
    for training, validation in parts.values():
        assert sorted([*training, *validation]) == list(range(60_000))
    assert not set(parts["report"][1]) & set(parts["tuning"][1])
    assert len(parts["report"][1]) == speedrun.N_VALIDATION
    again = speedrun.split_digits(60_000, "report")
    assert all((a == b).all() for a, b in zip(parts["report"], again, strict=True))


def test_the_speedrun_cuts_shifted_digits():
    image = np.arange(28 * 28).reshape(28, 28)
    cut = speedrun.cut(np.stack([image, image]), np.array([0, 1]), np.array([0, -2]))
    assert (cut[0] == image[2:26, 2:26]).all()
    assert (cut[1] == image[3:27, 0:24]).all()


def test_the_speedrun_learns_the_same_again(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_SOURCE", "sample")
    images, labels = speedrun.open_digits()
    recipe = replace(speedrun.RECIPES["short"], filters=(8, 8, 16, 16), epochs=4, batch_size=32)
    results = [speedrun.run(images, labels, "report", recipe, seed)[0] for seed in (0, 0)]
    assert results[0] == results[1] < 0.2 * len(labels) / 4
    monkeypatch.setenv("DATA_SOURCE", "local")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match=r"mnist\.npz"):
        speedrun.open_digits()


def test_a_speedrun_is_two_rows():
    wrong, seconds = speedrun.make_rows("short", [(24, 30.0), (30, 50.0), (25, 20.0)])
    assert (wrong["of_ours"]["median"], wrong["of_beside"]["median"], wrong["unit"]) == (25, 25, "of 5,000")
    assert seconds["ratio"] == {"median": 0.75, "low": 0.5, "high": 1.25}
    assert "accuracy 99.50% (99.40% to 99.52%)" in wrong["note"]
    assert "2 of the runs reach 99.5%" in wrong["note"]


# Profile


@pytest.mark.parametrize(
    ("operation", "group"),
    [
        ("Conv2D", "convolutions forward"),
        ("Conv2DBackpropFilterWithBias", "their gradients"),
        ("DepthwiseConv2dNativeBackpropInput", "their gradients, depthwise"),
        ("FusedBatchNormGradV3", "its gradient"),
        ("FusedBatchNormEx", "normalization"),
        ("SelectV2", "dropout"),
        ("Sub", "optimizer and averaged weights"),
        ("Mystery", "other operations"),
    ],
)
def test_operations_are_grouped_by_the_longest_beginning(operation, group):
    assert profile._find_group(operation) == group


def test_a_profile_replaces_the_section_of_its_kind_only(tmp_path, monkeypatch):
    spent = {"convolutions forward": 3.0, "beside the graph": 1.0}
    page = tmp_path / "profile.md"
    page.write_text("# Page\n\n## With AMX\n\nkept\n\n## Without AMX\n\nold\n\n## With a GPU\n\nkept too\n")
    monkeypatch.setattr(profile, "PAGE", page)
    monkeypatch.setattr(profile, "run_alone", lambda *arguments, one_core: spent)
    monkeypatch.setattr(profile, "name_kind", lambda machine: "without AMX")
    profile.main()
    text = page.read_text()
    assert text.startswith("# Page\n\n## With AMX\n\nkept\n\n## With a GPU\n\nkept too\n\n## Without AMX\n")
    assert "old" not in text
    assert "| convolutions forward | 75.0 |" in text
    assert "| **whole step, ms** | **4** |" in text


def test_the_operations_of_a_step_are_found():
    from benchmarks.networks import build, compile_as_fit, draw_batch

    images, labels = draw_batch("28x28x1")
    spent = profile._profile(compile_as_fit(build("28x28x1", "float32")), images[:8], labels[:8])
    assert {"convolutions forward", "their gradients", "normalization", "pooling and its gradient"} < spent.keys()
    assert spent["their gradients"] > spent["dense layer and loss"]


def test_trials_keep_a_row_each_and_predict_no_test_image(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_SOURCE", "sample")
    monkeypatch.setattr(trials, "PROJECT_FOLDER", tmp_path)
    network = {"filters": ((4,), (8,)), "first_stride": 2, "average_pooling": True}
    known = {name: trials.Trial((28, 28, 3), {"epochs": 1}, network=network) for name in ("one", "two")}
    monkeypatch.setattr(trials, "TRIALS", {"04_melanoma": known})
    predicted = []
    monkeypatch.setattr(trials.Experiment, "predict", watch(trials.Experiment.predict, predicted))
    for name in ("one", "two", "one"):
        assert trials.main(["04_melanoma", name]) == 0
    table = pd.read_csv(tmp_path / "figures" / "04_melanoma" / "validation_trials.csv", index_col="trial")
    assert table.index.tolist() == ["two", "one"]
    assert table.loc["one", trials.METRICS].equals(table.loc["two", trials.METRICS])  # the same again
    assert set(predicted) == {"validation"}
    assert trials.main(["04_melanoma", "three"]) == 2
    with pytest.raises(SystemExit, match="2"):
        trials.main(["04_melanoma", "one", "two", "--folds", "5"])


def watch(predict, parts):
    def predict_and_note(experiment, name, part="test"):
        parts.append(part)
        return predict(experiment, name, part)

    return predict_and_note


@pytest.mark.parametrize(
    ("notebook", "shape", "columns"),
    [
        ("01_mnist", (28, 28, 1), {"accuracy style 2", "roc_auc style 1"}),
        ("03_chest_xray", (32, 32, 1), {"roc_auc altered", "roc_auc border covered"}),
        ("05_plants", (32, 32, 3), set()),
        ("06_leukemia", (48, 48, 3), {"roc_auc by person"}),
    ],
)
def test_trials_of_each_notebook(tmp_path, monkeypatch, notebook, shape, columns):
    monkeypatch.setenv("DATA_SOURCE", "sample")
    network = {"filters": ((4,), (8,)), "first_stride": 2, "average_pooling": True}
    tried = trials.Trials(notebook, tmp_path)
    row = tried.run("one", trials.Trial(shape, {"epochs": 1, "batch_size": 16}, network=network))
    assert columns | {*trials.METRICS, "cpu_minutes"} <= row.keys()
    assert all(0 <= value <= 1 for name, value in row.items() if name != "cpu_minutes")
    assert tried.changes.keys() >= {trial.augment for trial in trials.TRIALS[notebook].values()}


def test_a_trial_goes_on_from_the_network_of_another(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_SOURCE", "sample")
    network = {"filters": ((4,), (8,)), "first_stride": 2, "average_pooling": True}
    known = {"one": trials.Trial((28, 28, 1), {"epochs": 1}, network=network, augment="none")}
    known["two"] = trials.Trial((28, 28, 1), {"epochs": 1, "learning_rate": 1e-9}, start="one", augment="none")
    monkeypatch.setattr(trials, "TRIALS", {"01_mnist": known})
    tried = trials.Trials("01_mnist", tmp_path)
    tried.run("two", known["two"])
    one, two = (tried.experiment.predict(name, "validation")["confidence"] for name in known)
    assert np.abs(one - two).max() < 0.02  # hardly trained further


def test_trials_of_folds_predict_each_image_once(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_SOURCE", "sample")
    network = {"filters": ((4,), (8,)), "first_stride": 2, "average_pooling": True}
    tried = trials.Trials("04_melanoma", tmp_path)
    table = tried.cross_validate("one", trials.Trial((28, 28, 3), {"epochs": 1}, network=network), 2)
    assert table.index.tolist() == ["fold 1", "fold 2", "pooled", "pooled low", "pooled high"]
    assert table["accuracy"].between(0, 1).all()
    assert (
        table.loc["pooled low", "accuracy"] <= table.loc["pooled", "accuracy"] <= table.loc["pooled high", "accuracy"]
    )
    weight = tried.data.images.groupby(split.split_by_group(tried.data.images, {"fold 1": 0.5, "fold 2": 0.5})).size()
    assert table.loc["pooled", "accuracy"] == pytest.approx(np.average(table["accuracy"].iloc[:2], weights=weight))
