"""The full run beside this one: what it found, which directions agree, and its figures."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from helpers.evaluation import plots
from helpers.evaluation.full_run import FullRun
from helpers.evaluation.marks import Unmarked, picture_figure
from helpers.evaluation.report import save_picture
from helpers.files import InputError

COST = {"epochs": 3, "wall_minutes": 8.0, "cpu_minutes": 15.2, "chosen": False}


def metrics(accuracy, roc_auc=0.9, spread=0.02, majority=0.6):
    values = {"accuracy": accuracy, "roc_auc": roc_auc}
    rows = {name: {"value": value, "low": value - spread, "high": value + spread} for name, value in values.items()}
    rows["majority_rate"] = {"value": majority, "low": None, "high": None}
    return {name: row | {"groups": 500} for name, row in rows.items()}


RESULTS = {
    "notebook": "02_skin",
    "data": {"images": 10015},
    "results": {
        "baseline": {"validation": metrics(0.5), "cost": {"chosen": False}},
        "cnn": {"train": {"accuracy": {"value": 0.99}}, "test": metrics(0.786), "cost": COST},
        "fine_tuned": {
            "test": metrics(0.825, 0.951),
            "test_equal_prior": metrics(0.7, 0.94),
            "cost": COST | {"cpu_minutes": 20.0, "chosen": True},
        },
    },
    "peak_memory_mb": 1985,
    "cores": 2,
    "cpu": "Some CPU",
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def write(folder, results=RESULTS):
    place = folder / "02_skin"
    place.mkdir(exist_ok=True)
    (place / "results.json").write_text(json.dumps(results))
    return FullRun("02_skin", folder)


@pytest.fixture
def run(folder):
    return write(folder)


@pytest.fixture
def figures(run, folder):
    """Add two figures of several colours, partly transparent, as Matplotlib exports them."""
    for name, size in (("roc", (1600, 1200)), ("tall", (400, 3200))):
        pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 4)).astype("uint8")
        Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(folder / "02_skin" / f"{name}.png")


@pytest.fixture
def scores():
    """Make the scores of a run on a sample, in which the network from scratch is the better one."""
    tables = {
        ("cnn", "test"): metrics(0.9, 0.97),
        ("fine tuned", "test"): metrics(0.7, 0.99),
        ("fine tuned", "test, equal prior"): metrics(0.65, 0.98),
        ("new", "test"): metrics(0.8),
    }
    scores = {}
    for (name, part), rows in tables.items():
        scores.setdefault(name, {})[part] = pd.DataFrame(rows).T
    return scores


def compare_directions(run, scores, *pairs, metric="accuracy", part="test", why="this run tested 90 images"):
    shown = run.compare_directions(scores, pairs, metric, part, "drawn sample", why)
    assert isinstance(shown, Unmarked)
    return shown.content.splitlines()


def test_it_says_what_it_cost_and_what_its_chosen_model_reached(folder, run):
    text = run._repr_markdown_()
    assert text == (
        "**The full run** on 10,015 real images: fine tuned reached accuracy 82.50 % (80.50 to 84.50), ROC AUC 0.951 "
        "(0.931 to 0.971) (set: test). Its trainings took 35 CPU-minutes on 2 cores (Some CPU), and 2.1 GB of memory "
        "at the peak."
    )
    assert repr(run) == text.replace("**", "")
    nothing_chosen = {"cnn": RESULTS["results"]["cnn"]}
    text = write(folder, RESULTS | {"results": nothing_chosen, "peak_memory_mb": None})._repr_markdown_()
    assert "cnn reached accuracy 78.60 % (76.60 to 80.60)" in text  # on the test set, not in training
    assert text.endswith("15 CPU-minutes on 2 cores (Some CPU).")


def test_models_of_both_runs_stand_side_by_side(run, scores):
    shown = run.compare(scores, ["cnn", "fine tuned", "new", "baseline"], ["accuracy", "roc_auc"], "test", "sample")
    table = shown.content
    assert isinstance(shown, Unmarked)
    assert table.index.tolist() == ["cnn", "fine tuned", "new", "baseline"]
    runs = ["sample", "full run"]
    assert table.columns.tolist() == [(metric, run) for metric in ("accuracy", "ROC AUC") for run in runs]
    accuracy = table["accuracy"]
    assert accuracy.loc["cnn"].tolist() == ["90.00 % (88.00 to 92.00)", "78.60 % (76.60 to 80.60)"]
    assert accuracy.loc["fine tuned", "full run"] == "82.50 % (80.50 to 84.50)"  # fine_tuned in its file
    assert accuracy.loc["new"].tolist() == ["80.00 % (78.00 to 82.00)", ""]
    assert accuracy.loc["baseline"].tolist() == ["", ""]  # has no such set
    assert table["ROC AUC"].loc["cnn", "sample"] == "0.970 (0.950 to 0.990)"
    table = run.compare(scores, ["cnn", "fine tuned"], ["accuracy"], "test, equal prior", "sample").content
    assert table["accuracy"].loc["fine tuned"].tolist() == ["65.00 % (63.00 to 67.00)", "70.00 % (68.00 to 72.00)"]
    assert table["accuracy"].loc["cnn"].tolist() == ["", ""]


def test_where_directions_differ_the_full_run_is_to_be_believed(run, scores):
    (line,) = compare_directions(run, scores, ("cnn", "fine tuned"))
    assert line == (
        "- accuracy of **cnn** minus **fine tuned**: +20.0 points (drawn sample), −3.9 points in the full run (their "
        "intervals overlap; a paired comparison may tell them apart): **the directions differ; believe the full run**, "
        "because this run tested 90 images."
    )
    (line,) = compare_directions(run, scores, ("cnn", "fine tuned"), why="")
    assert line.endswith(": **the directions differ**; each run speaks of its own images.")
    (line,) = compare_directions(run, scores, ("fine tuned", "cnn"), metric="roc_auc")
    assert line == (
        "- ROC AUC of **fine tuned** minus **cnn**: +0.020 (drawn sample), +0.051 in the full run: the same direction."
    )


def test_a_model_is_compared_with_the_majority_class_and_with_itself_on_another_set(run, scores):
    lines = compare_directions(
        run, scores, ("cnn", "majority class"), ("fine tuned", ("fine tuned", "test, equal prior"))
    )
    assert lines[0].startswith("- accuracy of **cnn** minus **majority class**: +30.0 points (drawn sample), +18.6")
    assert lines[0].endswith(" points in the full run: the same direction.")
    assert lines[1].startswith("- accuracy of **fine tuned** minus **fine tuned (test, equal prior)**: +5.0 points (dr")
    assert "+12.5 points in the full run: the same direction" in lines[1]


def test_intervals_overlap_where_neither_ends_before_the_other_begins(folder, scores):
    def tell(spread):
        results = {"cnn": {"test": metrics(0.8, spread=spread)}, "fine_tuned": {"test": metrics(0.9, spread=spread)}}
        run = write(folder, RESULTS | {"results": results})
        found = {
            "overlap" in line
            for pair in (("cnn", "fine tuned"), ("fine tuned", "cnn"))
            for line in compare_directions(run, scores, pair)
        }
        (overlap,) = found
        return overlap

    assert (tell(0.04), tell(0.06)) == (False, True)


@pytest.mark.parametrize("difference", [0.0, 0.1])
def test_models_that_are_alike_have_no_direction(folder, scores, difference):
    scores["cnn"]["test"].loc["accuracy", "value"] = scores["fine tuned"]["test"].loc["accuracy", "value"]
    results = {"cnn": {"test": metrics(0.8 + difference)}, "fine_tuned": {"test": metrics(0.8)}}
    (line,) = compare_directions(write(folder, RESULTS | {"results": results}), scores, ("cnn", "fine tuned"))
    assert f": +0.0 points (drawn sample), {100 * difference:+.1f} points" in line
    assert line.endswith(": this run shows no difference.")


def test_what_one_run_lacks_is_not_compared(folder, run, scores):
    pairs = ("new", "cnn"), ("cnn", "baseline"), ("cnn", ("cnn", "test, equal prior")), ("nobody", "majority class")
    lines = compare_directions(run, scores, *pairs)
    assert lines[0] == "- **new** and **cnn** are not both in both runs."
    assert all(line.endswith(" are not both in both runs.") for line in lines)
    assert len(lines) == 4
    (line,) = compare_directions(run, scores, ("cnn", "majority class"), part="another set")
    assert line.endswith(" are not both in both runs.")
    scores["cnn"]["test"].loc["accuracy", "value"] = np.nan  # such as the ROC AUC where a class is missing
    assert compare_directions(run, scores, ("cnn", "fine tuned"))[0].endswith(" are not both in both runs.")
    results = {"cnn": {"test": metrics(0.8) | {"roc_auc": {"value": None}}}, "fine_tuned": {"test": metrics(0.7)}}
    run = write(folder, RESULTS | {"results": results})
    assert compare_directions(run, scores, ("cnn", "fine tuned"), metric="roc_auc")[0].endswith(" in both runs.")


def test_published_figures_stand_beside_those_of_the_run(folder, run):
    assert run.compare_published().content == "No published results are kept for `02_skin`."
    (folder / "02_skin").rename(folder / "05_plants")
    shown = FullRun("05_plants", folder).compare_published()
    assert isinstance(shown, Unmarked)
    assert shown.content.startswith("| source | model | result | ours |")
    assert shown.content.endswith(" |")
    assert "ResNet9" in shown.content


@pytest.mark.parametrize(("name", "width", "height"), [("roc", 853, 662), ("tall", 213, 1729)])
def test_figures_are_shown_small_and_say_where_they_come_from(run, figures, folder, name, width, height):
    shown = run.show_figure(name)
    assert repr(shown) == f"<figure {name} of the full run>"
    image = Image.open(io.BytesIO(shown.content))
    image.load()
    assert (image.format, image.size) == ("PNG", (width, height))
    assert len(shown.content) < 100_000
    strip = np.asarray(image.convert("L"))[:22]
    assert strip.min() < 100 < strip.max() == 255  # black letters on white
    Image.new("RGB", (1600, 1200)).save(folder / "02_skin" / "roc.png")
    other = np.asarray(Image.open(io.BytesIO(run.show_figure("roc").content)).convert("L"))
    assert (other[22:] == 0).all()


@pytest.mark.parametrize("width", [85, 174])
def test_figures_are_as_large_as_those_of_the_notebook(run, folder, width):
    plots.set_style()
    figure = Figure((width / 25.4, 2))
    save_picture(figure, folder / "02_skin", "roc")
    shown, own = (
        Image.open(io.BytesIO(content)).width
        for content in (run.show_figure("roc").content, picture_figure(figure, "roc").content)
    )
    with Image.open(folder / "02_skin" / "roc.png") as picture:
        exported = picture.width
    assert abs(shown - own) <= 1
    assert shown == {85: 535, 174: 1096}[width]
    assert Image.open(io.BytesIO(run.show_figure("roc", scale=2).content)).width == exported < 2 * shown


def test_the_line_above_a_figure_tells_how_many_images_there_were(folder, run, figures):
    def get_strip(run):
        return np.asarray(Image.open(io.BytesIO(run.show_figure("roc").content)).convert("L"))[:22]

    before = get_strip(run)
    assert (get_strip(run) == before).all()
    assert (get_strip(write(folder, RESULTS | {"data": {"images": 7}})) != before).any()


def test_figures_that_are_not_there_are_told(run, figures):
    with pytest.raises(InputError, match=r"The full run has no figure 'rock': expected one of roc, tall\."):
        run.show_figure("rock")


def test_without_a_full_run_everything_says_so(folder, scores):
    run = FullRun("07_sweets", folder)
    missing = "No full run of `07_sweets` is kept here: `make full NB=07_sweets` makes one."
    assert run.results is run.get_metric("cnn", "test", "accuracy") is None
    assert run._repr_markdown_() == repr(run) == missing
    assert run.compare(scores, ["cnn"], ["accuracy"], "test", "sample").content == missing
    assert compare_directions(run, scores, ("cnn", "fine tuned")) == [missing]
    assert run.show_figure("roc").content == run.compare_published().content == missing


def test_tables_are_read_and_trials_shown_rounded(folder, run):
    (folder / "02_skin" / "validation_trials.csv").write_text("trial,accuracy\nfrozen,0.81239\n")
    assert run.show_trials().content.to_dict() == {"accuracy": {"frozen": 0.812}}
    assert run.read_table("validation_trials", index_col="trial").loc["frozen", "accuracy"] == 0.81239


def test_tables_that_are_not_there_are_told(folder, run):
    (folder / "02_skin" / "seeds.csv").write_text("seed\n1\n")
    with pytest.raises(InputError, match=r"no table 'rock': expected one of seeds\."):
        run.read_table("rock")
