"""What the README and the page of results show follows the committed full runs, and nothing else."""

import json
import re
import shutil
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.evaluation import overview
from helpers.evaluation.answers import choose_model
from helpers.evaluation.overview import format_results, format_table, load_runs, plot_overview, read_titles, update
from helpers.evaluation.report import Report
from helpers.evaluation.scores import compute_metrics
from helpers.settings import PROJECT_FOLDER, read_settings

FIGURES = PROJECT_FOLDER / "figures"
HEADER = (
    "| model | test set | accuracy | balanced accuracy | macro F1 | sensitivity | specificity | ROC AUC | ECE "
    "| majority class | CPU-minutes |"
)
README = (
    "# Title\n\nBefore.\n\n<!-- results: made by `make results` -->\nold\n<!-- end of results -->\n\nAfter: 5 µm.\n"
)


@pytest.fixture
def report(tmp_path):
    return Report("07_fruit", read_settings({"NOTEBOOK_MODE": "full", "SEED": "7"}), False, tmp_path / "figures")


@pytest.fixture
def project(tmp_path):
    """Copy the numbers of the full runs into a project with a short README and notebooks of a title each."""
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    (tmp_path / "notebooks").mkdir()
    for name, title in read_titles(PROJECT_FOLDER / "notebooks").items():
        write_title(tmp_path, name, title)
    for path in [*FIGURES.glob("[0-9]*/results.json"), *FIGURES.glob("[0-9]*/*.csv"), *FIGURES.glob("**/notes.md")]:
        if path.stat().st_size < 200_000:
            copy = tmp_path / "figures" / path.relative_to(FIGURES)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch):
    """Draw no strip, where it is not looked at."""
    monkeypatch.setattr(overview, "plot_overview", lambda *_: plt.figure(figsize=(1, 1)))


def write_title(project, name, title):
    cells = [{"cell_type": "markdown", "source": [f"# {title}\n", "\n", "Text."]}]
    (project / "notebooks" / f"{name}.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")


def change(project, name, *keys, value):
    """Change a number of a full run."""
    path = project / "figures" / name / "results.json"
    found = results = json.loads(path.read_text(encoding="utf-8"))
    for key in keys[:-1]:
        found = found[key]
    found[keys[-1]] = value
    path.write_text(json.dumps(results), encoding="utf-8")


def read(project, name="README.md"):
    return (project / name).read_text(encoding="utf-8")


def read_answers(project):
    return dict(re.findall(r"^\| \[(\w+)\]\(.*?\) \| .*? \| (.*?) \|", read(project), re.MULTILINE))


def make_metrics(accuracy):
    names = {
        "accuracy": accuracy,
        "balanced_accuracy": 0.9,
        "macro_f1": 0.85,
        "roc_auc": 0.98765,
        "majority_rate": 0.1135,
        "expected_calibration_error": 0.0123,
    }
    return pd.DataFrame({"value": names, "low": {n: v - 0.01 for n, v in names.items()}, "high": names})


def read_cells(table, row=-1):
    """Read a row of a Markdown table, the last one by default."""
    head, *_ = lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return dict(zip(head, lines[row], strict=True))


def test_table_of_results(report):
    sets = {"test": make_metrics(0.99), "style_1": make_metrics(0.9)}
    report.add_result("cnn_clean", sets, {"cpu_minutes": 12.34}, train={"accuracy": 1.0})
    report.add_result("cnn_mixed", {"test": make_metrics(0.98)}, {"cpu_minutes": 20}, train={"accuracy": 1.0})
    same = (
        "90.00 % (89.00 to 90.00) | 85.00 % (84.00 to 85.00) |  |  "
        "| 0.988 (0.978 to 0.988) | 0.012 (0.002 to 0.012) | 11.3 %"
    )
    assert format_table(report.save_results({}, "")).split("\n") == [
        HEADER,
        "|---|---|---|---|---|---|---|---|---|---|---|",
        f"| cnn clean | test | 99.00 % (98.00 to 99.00) | {same} | 12.3 |",
        f"| cnn clean | style 1 | 90.00 % (89.00 to 90.00) | {same} |  |",  # a model's cost stands once
        f"| cnn mixed | test | 98.00 % (97.00 to 98.00) | {same} | 20.0 |",
    ]


def test_a_test_set_of_one_class_has_a_row_too(report, predict):
    """It has no ROC AUC; ``results.json`` then says null."""
    table = predict(40)
    report.add_result("cnn", {"test": compute_metrics(table[table["y_true"] == "a"], 5)})
    *_, row = format_table(report.save_results({}, "")).split("\n")
    assert row.startswith("| cnn | test | ")
    assert row.count("|") == HEADER.count("|")


def test_metrics_that_were_left_out_have_an_empty_cell(report):
    report.add_result("cnn", {"test_equal_prior": make_metrics(0.9).drop("expected_calibration_error")})
    cells = read_cells(format_table(report.save_results({}, "split by group")))
    assert cells["test set"] == "test equal prior"
    assert [name for name, cell in cells.items() if not cell] == ["sensitivity", "specificity", "ECE", "CPU-minutes"]


@pytest.mark.parametrize("left_out", [True, False])
def test_without_the_share_of_the_majority_its_cell_is_empty(report, left_out):
    metrics = make_metrics(0.9)
    if left_out:
        metrics = metrics.drop("majority_rate")
    else:
        metrics.loc["majority_rate"] = np.nan
    report.add_result("cnn", {"test": metrics, "style_1": make_metrics(0.8)}, {"cpu_minutes": 3})
    table = format_table(report.save_results({}, ""))
    assert [read_cells(table, row)["majority class"] for row in (2, 3)] == ["", "11.3 %"]
    assert read_cells(table, 2)["CPU-minutes"] == "3.0"
    assert read_cells(table, 2)["ECE"] == "0.012 (0.002 to 0.012)"


def test_of_two_classes_sensitivity_and_specificity_are_shown(report):
    metrics = make_metrics(0.9)
    metrics.loc["sensitivity"] = [0.875, 0.8, 0.95]
    metrics.loc["specificity"] = [0.6, 0.5, 0.7]
    report.add_result("cnn", {"test": metrics})
    cells = read_cells(format_table(report.save_results({}, "")))
    assert cells["sensitivity"] == "87.50 % (80.00 to 95.00)"
    assert cells["specificity"] == "60.00 % (50.00 to 70.00)"


def test_only_full_runs_on_real_images_are_loaded_in_order(tmp_path):
    for place in ("02_other", "01_mnist", "quick/03_quick", "sample/04_sample"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "results.json").write_text('{"results": {}}')
    (tmp_path / "05_no_results").mkdir()
    assert list(load_runs(tmp_path)) == ["01_mnist", "02_other"]


def test_what_is_committed_follows_the_full_runs():
    """If this fails, run `make results`."""
    titles, runs = read_titles(PROJECT_FOLDER / "notebooks"), load_runs(FIGURES)
    assert read(FIGURES, "RESULTS.md") == format_results(runs, titles, FIGURES)
    answered = {name: runs[name] for name in titles if name in runs}
    assert f"-->\n{overview.format_overview(answered, titles, FIGURES)}\n<!--" in read(PROJECT_FOLDER)


def test_the_committed_strip_is_the_one_of_the_full_runs(project):
    update(project)
    drawn, committed = (Image.open(folder / "overview.png").convert("L") for folder in (project / "figures", FIGURES))
    assert drawn.size == committed.size == (1370, 566)
    assert np.mean(np.abs(np.subtract(drawn, committed, dtype="float32"))) < 1


def test_what_is_around_the_results_stays_and_a_second_time_changes_nothing(project):
    update(project)
    names = ("README.md", "figures/RESULTS.md", "figures/overview.png")
    first = [(project / name).read_bytes() for name in names]
    before, after = README.split("old\n")
    assert read(project).startswith(f"{before}![")
    assert read(project).endswith(f"|\n{after}")
    update(project)
    assert [(project / name).read_bytes() for name in names] == first
    assert sorted(path.name for path in project.iterdir()) == ["README.md", "figures", "notebooks"]


@pytest.mark.usefixtures("undrawn")
def test_each_run_has_a_section_with_its_notebook_its_notes_and_its_table(project, report):
    report.add_result("cnn", {"test": make_metrics(0.42)})
    results = report.save_results({"images": 70_000, "groups": 5}, "by tree")
    write_title(project, "07_fruit", "Fruit: which one?")
    note = "Ripe ones.\n\n![Curves](curves.png) and [more](../notes.md), [there](https://example.org/a.png)\n"
    (project / "figures" / "07_fruit" / "notes.md").write_text(note, encoding="utf-8")
    shutil.copytree(project / "figures" / "04_melanoma", project / "figures" / "04_melanoma_10000")  # another edition
    update(project)
    text, studies = read(project, "figures/RESULTS.md").split("\n## Which factor matters where?\n")
    assert "| learning rate | " in studies
    assert text.index("[07_fruit](#07_fruit)") < text.index("## 07_fruit")
    assert text.endswith(
        "## 07_fruit\n\nNotebook: [Fruit: which one?](../notebooks/07_fruit.ipynb)\n\nRipe ones.\n\n"
        "![Curves](07_fruit/curves.png) and [more](../notes.md), [there](https://example.org/a.png)\n\n"
        f"{format_table(results)}\n\n{overview._describe_run(results)}\n"
    )
    melanoma = text[text.index("## 04_melanoma_10000") :]
    assert melanoma.index("(../notebooks/04_melanoma.ipynb)") < melanoma.index("## 05")
    assert read_answers(project)["07_fruit"] == "42.0 % (41.0 to 42.0) are right (majority class: 11 %)"
    assert "04_melanoma_10000" not in read(project)


def test_published_results_stand_below_the_table_of_each_notebook(project):
    change(project, "04_melanoma", "results", "scratch", "test_with_copies", "accuracy", "value", value=0.4242)
    folder = project / "figures"
    text = format_results(load_runs(folder), read_titles(project / "notebooks"), folder)
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    heading = "\n\n### Published results beside ours\n\n| source | model | result | ours |"
    assert [name for name, section in sections.items() if heading not in section] == []
    assert "ResNet9" in sections["05_plants"]
    assert "| scratch, test with copies:<br>42.42 % (" in sections["04_melanoma"]


@pytest.mark.parametrize(("peak", "told"), [(3541, "seed 7, peak memory 3.7 GB, 8 cores"), (None, "seed 7, 8 cores")])
def test_peak_memory_is_told_where_it_is_known(report, peak, told):
    results = report.save_results({"images": 5, "stored_size": "60x40"}, "by leaf")
    described = overview._describe_run(results | {"peak_memory_mb": peak, "cores": 8})
    assert described.startswith(f"5 images of 60x40 pixels; by leaf; {told}")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("name", "model", "test_set"),
    [("01_mnist", "cnn_mixed", "union"), ("02_ham10000", "fine_tuned", "test"), ("05_plants", "fine_tuned", "test")],
)
def test_answers_follow_the_results(project, name, model, test_set):
    metric = {"value": 0.4242, "low": 0.4111, "high": 0.4333, "groups": 50}
    change(project, name, "results", model, test_set, "accuracy", value=metric)
    update(project)
    assert read_answers(project)[name].startswith("42.4 % (41.1 to 43.3)")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("name", "model", "test_set"),
    [
        ("03_chest_xray", "fine_tuned_covered", "test"),
        ("04_melanoma", "fine_tuned", "test"),
        ("06_leukemia", "small_cnn", "people"),
    ],
)
def test_answers_of_two_classes_follow_the_results(project, name, model, test_set):
    metric = {"value": 0.6543, "low": None, "high": None, "groups": 3}
    change(project, name, "results", model, test_set, "roc_auc", value=metric)
    update(project)
    assert "0.654 (3 groups: no interval)" in read_answers(project)[name].partition(";")[0].partition(",")[0]


@pytest.mark.parametrize(
    ("by_person", "expected"), [({}, "average"), ({"cnn": 0.8, "resnet": 0.9, "cnn_and_area": 0.95}, "resnet")]
)
def test_a_network_answers_where_a_shortcut_was_chosen(by_person, expected):
    models = {name: {"cost": {"held_out_by_person": value}} for name, value in by_person.items()}
    results = {"results": {"area": {"cost": {"chosen": True, "held_out_by_person": 0.99}}, **models}}
    run = SimpleNamespace(notebook="09_sweets", results=results, find_chosen=lambda: ("area", "people"))
    assert choose_model(run) == (expected, "people")


@pytest.mark.usefixtures("undrawn")
def test_answers_read_the_tables_of_alarms_and_missed_lesions(project):
    for name, column, old, new in (
        ("02_ham10000/malignant", "metric", "sensitivity", {"value": 0.5, "low": 0.4, "high": 0.6}),
        ("04_melanoma/missed", "threshold", 0.5, {"missed": 123.4, "missed_low": 100, "missed_high": 140}),
    ):
        path = project / "figures" / f"{name}.csv"
        table = pd.read_csv(path)
        table.loc[table[column] == old, list(new)] = list(new.values())
        table.to_csv(path, index=False)
    update(project)
    assert "finds 50.0 % (40.0 to 60.0) of the images" in read_answers(project)["02_ham10000"]
    assert "123 (100 to 140) of 1,000" in read_answers(project)["04_melanoma"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("area", "low", "verdict", "sentence"),
    [(0.99, -0.2, "not measurably better", "4 of 5: not in L"), (0.5, 0.01, "measurably better", "5 of 5.")],
)
def test_a_network_that_does_not_beat_the_shortcut_is_not_said_to(project, area, low, verdict, sentence):
    for metric in ("accuracy", "roc_auc"):
        for model in ("area", "area_and_colour"):
            change(project, "06_leukemia", "results", model, "people", metric, "value", value=area)
    path = project / "figures" / "06_leukemia" / "differences.csv"
    pd.read_csv(path).assign(low=low).to_csv(path, index=False)
    update(project)
    assert f": the networks are {verdict}. By cell" in read_answers(project)["06_leukemia"]
    assert sentence in read(project)


@pytest.mark.usefixtures("undrawn")
def test_the_text_below_the_strip_follows_the_results(project):
    change(project, "05_plants", "results", "frozen", "leaky", "accuracy", "value", value=0.55)
    change(project, "05_plants", "results", "mean_colour", "leaky", "accuracy", "value", value=0.31)
    path = project / "figures" / "01_mnist" / "robustness_curves.csv"
    table = pd.read_csv(path)
    table.loc[(table["strength"] == 84) & (table["model"] == "cnn clean"), "value"] = 0.07
    table.to_csv(path, index=False)
    update(project)
    assert "all networks seem -39 to 4 points better" in read(project)
    assert "rises from 22 % to 31 %" in read(project)
    assert "trained on clean digits reads 7 %" in read(project)


def test_the_strip_shows_the_results(project):
    runs, titles = load_runs(project / "figures"), read_titles(project / "notebooks")
    runs = {name: runs[name] for name in titles if name in runs}
    figure = plot_overview(runs, titles, project / "figures")
    networks, leak, distortion = figure.axes
    assert [label.get_text() for label in networks.get_yticklabels()][:2] == ["MNIST", "HAM10000"]
    majority, shortcut, network = ([*container.lines[0].get_xydata()] for container in networks.containers)
    assert len(majority) == len(network) == len(runs)
    assert [row for _, row in shortcut] == [1, 2, 3, 4, 5]  # MNIST has none
    digits = runs["01_mnist"].results["results"]
    assert network[0][0] == digits["cnn_mixed"]["union"]["accuracy"]["value"]
    results = runs["03_chest_xray"].results["results"]
    shown = [results["fine_tuned_covered"]["test"], results["shortcut_features"]["test"]]
    assert [network[2][0], shortcut[1][0]] == [metrics["accuracy"]["value"] for metrics in shown]
    assert majority[2][0] == shown[0]["majority_rate"]["value"]
    assert shortcut[-1][0] == max(
        runs["06_leukemia"].results["results"][name]["people"]["accuracy"]["value"]
        for name in ("area", "mean_colour", "area_and_colour")
    )
    assert leak.get_yticklabels()[0].get_text() == "Mean colour"  # gains most
    clean, leaky = (container.lines[0].get_xdata() for container in leak.containers)
    assert (clean[0] < leaky[0], len(clean)) == (True, len(runs["05_plants"].results["results"]))
    mixed, plain = (line.get_ydata() for line in distortion.lines)
    assert mixed[-1] > plain[-1]
    assert {text.get_text() for text in distortion.get_legend().texts} == {
        "Trained on mixed digits",
        "Trained on clean digits",
    }


def test_studies_stand_side_by_side(tmp_path):
    assert overview.format_studies(tmp_path) == ""
    for name, effect in (("04_trees", 0.02), ("05_leaves", 0.2)):
        (tmp_path / name).mkdir()
        factors = {"factor": ["depth", "rate"], "best": ["4 blocks", "0.1"], "effect": [effect, 0.01]}
        ends = {"low": [0.01, -0.01], "high": [0.3, 0.02], "luck_high": [0.015, 0.03], "spread": 0.004}
        pd.DataFrame(factors | ends).iloc[:: 1 if effect < 0.1 else -1].to_csv(tmp_path / name / "study_factors.csv")
    text = overview.format_studies(tmp_path)
    assert (
        "| depth | 4 blocks: +0.020 (+0.010 to +0.300) | 0.004 | 4 blocks: +0.200 (+0.010 to +0.300) | 0.004 |" in text
    )
    assert "- 05_leaves: the largest effect is that of depth. More than luck: depth." in text
