"""Redraw: the figures of a run are drawn again from its tables, the same to the last bit."""

import inspect
import json
import subprocess
import sys
import threading
from collections import defaultdict
from functools import partial

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from helpers.evaluation import plots, report
from helpers.evaluation import redraw as module
from helpers.evaluation.drawing import describe_figure, redrawable, restore
from helpers.evaluation.redraw import redraw
from helpers.evaluation.report import Report
from helpers.evaluation.scores import compute_metrics, compute_precision_recall, compute_roc
from helpers.files import InputError
from helpers.settings import read_settings

CLASSES = ["0", "basal cell carcinoma", "=1+1"]  # a digit, spaces, and what a spreadsheet would run
pytestmark = pytest.mark.filterwarnings("ignore:vert.*was deprecated:DeprecationWarning")  # of seaborn's boxes
rng = np.random.default_rng(0)


def make_images(count=300):
    images = pd.DataFrame(
        {
            "label": rng.choice(CLASSES, count),
            "sex": rng.choice(["female", "male"], count),
            "age": np.where(rng.random(count) < 0.1, np.nan, rng.integers(20, 90, count)),
            "level": rng.uniform(0, 255, count),
            "width": rng.choice([28, 640], count),
            "height": 480,
        }
    )
    return images.assign(red=images["level"], green=images["level"] / 2, blue=rng.uniform(0, 9, count)).iloc[::-1]


def make_history(best_epoch):
    losses = 1 / np.arange(1.0, 9)
    history = pd.DataFrame({"loss": losses, "accuracy": 1 - losses / 2, "val_loss": 1.1 * losses})
    history = history.assign(val_accuracy=0.9 - losses / 2, wall_seconds=3.0)
    history.index = pd.RangeIndex(1, 9, name="epoch")
    history.attrs["best_epoch"] = best_epoch
    return history


def make_curve(**columns):
    values = np.linspace(0.3, 1, 8)
    return pd.DataFrame({**columns, "value": values, "low": values - 0.1, "high": values + 0.1})


def make_rows(names, column):
    """Make a table whose numbers are objects, as those that are made from rows."""
    rows = {name: {"value": np.float64(0.7), "low": 0.6, "high": np.nan} for name in names}
    return pd.DataFrame(rows).T.astype(object).rename_axis(column).reset_index()


def make_study():
    rows = [(f, level, 0.1 * s + 0.5) for f in ("depth", "rate") for level in ("1", "0.01") for s in (0, 1)]
    table = pd.DataFrame(rows, columns=["factor", "level", "validation_accuracy"])
    return table.assign(test_accuracy=table["validation_accuracy"] - 0.1)


def make_layers():
    rows = [("in", "InputLayer", (28, 28, 1)), ("conv", "Conv2D", (28, 28, 8)), ("dense", "Dense", (10,))]
    return pd.DataFrame(rows, columns=["layer", "kind", "output_shape"])


def make_clusterings():
    rows = [{"method": m, "clusters": c, "silhouette": 1 / c} for m in ("k-means", "Ward") for c in (2, 3, 5)]
    return pd.DataFrame(rows).assign(agreement_class=0.3, agreement_group=0.1)


def make_scores(predict):
    tables = {seed: compute_metrics(predict(60, seed=seed), 20) for seed in range(4)}
    return {"cnn": {"test": tables[0], "style_1": tables[1]}, "frozen": {"test": tables[2], "style_1": tables[3]}}


FIGURES = {
    "plot_counts": lambda _: plots.plot_counts(make_images(), "label", by="sex"),
    "plot_counts, horizontal": lambda _: plots.plot_counts(make_images(), "label", horizontal=True),
    "plot_distribution": lambda _: plots.plot_distribution(make_images(), "level", "label"),
    "plot_distribution, long": lambda _: plots.plot_distribution(make_images(2500), "age", binwidth=5),
    "plot_boxes": lambda _: plots.plot_boxes(make_images(), "label", "age", "sex", CLASSES),
    "plot_distances": lambda _: plots.plot_distances(
        pd.DataFrame({"kind": np.repeat(["test", "noise"], 40), "distance": np.linspace(0.5, 9, 80)})
    ),
    "plot_image_sizes": lambda _: plots.plot_image_sizes(make_images(), "label"),
    "plot_mean_colors": lambda _: plots.plot_mean_colors(make_images(1500), CLASSES),
    "plot_learning_curves": lambda _: plots.plot_learning_curves({"cnn": make_history(4), "1": make_history(None)}),
    "plot_confusion_matrix": lambda predict: plots.plot_confusion_matrix(predict(80, CLASSES), CLASSES, normalize=True),
    "plot_metrics": lambda predict: plots.plot_metrics(make_scores(predict), "balanced_accuracy"),
    "plot_robustness": lambda _: plots.plot_robustness(
        make_curve(model=np.repeat(["cnn", "frozen"], 4), strength=np.tile(np.arange(4.0), 2)),
        "angle, °",
        np.float32(2),
    ),
    "plot_corruptions": lambda _: plots.plot_corruptions(
        make_curve(model="cnn", corruption=np.repeat(["fog", "zoom"], 4), severity=np.tile(range(4), 2)),
        np.float64(0.2),
    ),
    "plot_occlusion": lambda _: plots.plot_occlusion(
        pd.DataFrame({"border covered": [0.9, 0.7], "middle covered": [0.5, 0.8]}, [0.0, 0.4]).rename_axis("width")
    ),
    "plot_shortcuts": lambda _: plots.plot_shortcuts(
        make_rows(["size", "colour"], "shortcut").assign(left_value=0.5, left_low=0.4, left_high=np.nan), 0.9
    ),
    "plot_choice": lambda _: plots.plot_choice(
        pd.DataFrame({"chosen": [0.25, 0.75], "best": [0.5, 0.5]}, index=pd.Index(["cnn", "frozen"]))
    ),
    "plot_calibration": lambda _: plots.plot_calibration(
        make_curve(confidence=np.linspace(0.2, 0.9, 8)).rename(columns={"value": "accuracy"}), title="Calibration of it"
    ),
    "plot_abstaining": lambda _: plots.plot_abstaining(
        {"cnn": make_curve(answered=np.linspace(0.1, 1, 8)).rename(columns={"value": "accuracy"})}
    ),
    "plot_roc": lambda predict: plots.plot_roc(compute_roc(predict(300, CLASSES)), {"a point": (0.8, np.float64(0.7))}),
    "plot_precision_recall": lambda predict: plots.plot_precision_recall(
        compute_precision_recall(predict(1500, CLASSES, skill=0.3))
    ),
    "plot_net_benefit": lambda _: plots.plot_net_benefit(
        {
            name: pd.DataFrame({"threshold": [0.1, 0.5], "model": [0.3, high], "all": [0.2, -0.1]})
            for name, high in (("cnn", 0.2), ("area", 0.1))
        }
    ),
    "plot_intervals": lambda _: plots.plot_intervals(make_rows(["x", "y"], "name"), "name", "accuracy with interval"),
    "plot_effects": lambda _: plots.plot_effects(make_study()),
    "plot_embedding": lambda _: plots.plot_embedding(
        rng.normal(size=(1200, 2)), pd.Categorical(rng.choice(["b", "a"], 1200), ["b", "a", "none"])
    ),
    "plot_clusterings": lambda _: plots.plot_clusterings(make_clusterings()),
    "plot_layers": lambda _: plots.plot_layers(make_layers()),
}


@pytest.fixture
def make(tmp_path):
    def make(mode="full", is_sample=False):
        plots.set_style()
        return Report("01_mnist", read_settings({"NOTEBOOK_MODE": mode}), is_sample, tmp_path / "figures")

    return make


@pytest.fixture
def small_pictures(monkeypatch):
    """Write small PNGs and no other files, in a third of the time."""

    def save_small(figure, folder, name, *_):
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png", dpi=100)

    for place in (report, module):
        monkeypatch.setattr(place, "save_picture", save_small)


def compare(report, into):
    """Draw the figures of a report again, and compare the files with those that are there."""
    names = redraw(report.folder, into)
    for path in into.iterdir():
        assert path.read_bytes() == (report.folder / path.name).read_bytes(), path.name
    return names


def test_every_function_is_tried():
    shows_pixels = {"plot_image_grid"}
    functions = {name for name, _ in inspect.getmembers(plots, inspect.isfunction) if name.startswith("plot_")}
    assert {name.partition(",")[0] for name in FIGURES} == functions - shows_pixels


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.usefixtures("small_pictures")
def test_a_figure_drawn_again_is_the_same(make, predict, tmp_path, name):
    report = make()
    report.save_figure(FIGURES[name](predict), "drawn")
    assert compare(report, tmp_path / "again") == ["drawn"]


def test_figures_of_several_panels_are_drawn_again_in_their_order(make, predict, tmp_path):
    """Two panels have one table, of the others each has its own; a place that is not needed stays empty."""
    report = make(is_sample=True)
    images, tested = make_images(), predict(50)
    figure, axes = plots.make_panels(2, 2, height=90, sharex=True, count=3)
    plots.plot_distribution(images, "level", ax=axes[0])
    plots.plot_distribution(images, "age", "sex", ax=axes[1])
    plots.plot_distribution(images, "level", ax=axes[2], title="again")
    report.save_figure(figure, "panels", alt="three panels")
    report.save_figure(plots.plot_confusion_matrix(tested, ["a", "b", "c"]), "alone")
    assert compare(report, tmp_path / "again") == ["panels", "alone"]
    assert len(list((tmp_path / "again").iterdir())) == 6  # PNG, PDF and SVG
    tables = {path.name: pd.read_csv(path) for path in (report.folder / "tables").iterdir()}
    assert sorted(tables) == ["alone.csv", "panels_1.csv", "panels_2.csv"]
    assert list(tables["alone.csv"].columns) == ["y_true", "y_pred", "count", "source"]
    assert tables["alone.csv"]["count"].sum() == len(tested)
    assert all((table["source"] == "drawn sample").all() for table in tables.values())


@pytest.mark.usefixtures("small_pictures")
def test_long_tables_stay_small(make):
    report = make()
    images = make_images(10_000)
    report.save_figure(plots.plot_counts(images), "counts")
    report.save_figure(plots.plot_mean_colors(images, CLASSES), "colors")
    sizes = {path.stem: path.stat().st_size for path in (report.folder / "tables").iterdir()}
    assert sizes["counts"] < 100
    assert sizes["colors"] < 400_000


@pytest.mark.parametrize("draw", ["by hand", "one panel by hand", "images"])
def test_what_no_function_drew_is_exported_but_not_drawn_again(make, draw):
    report = make()
    if draw == "images":
        figure = plots.plot_image_grid(np.zeros((2, 4, 4, 1)))
    else:
        figure, axes = plots.make_panels(1, 2)
        axes[0].plot([0, 1])
        if draw == "one panel by hand":
            plots.plot_counts(make_images(), ax=axes[1])
    report.save_figure(figure, "drawn", shows_images=draw == "images")
    assert [path.suffix for path in sorted(report.folder.rglob("*.*"))] == [".pdf", ".png", ".svg"]


@pytest.mark.usefixtures("small_pictures")
def test_a_second_export_takes_the_place_of_the_first(make):
    report = make()
    for title in ("before", "after"):
        report.save_figure(plots.plot_counts(make_images(), title=title), "drawn")
    described = json.loads((report.folder / "figures.json").read_text())["figures"]
    assert [entry["with"]["title"] for entry in described.values()] == ["after"]


def read_described(report):
    return json.loads((report.folder / "figures.json").read_text())["figures"]


@pytest.fixture
def restart():
    """Forget which figures were exported, as a kernel that is started again."""
    return lambda: (report._exported.clear(), report._found.clear())


@pytest.mark.usefixtures("small_pictures")
def test_a_run_of_some_cells_keeps_the_other_figures_and_a_complete_run_drops_them(make, restart, tmp_path):
    """Another Report of the same kernel drops nothing; other files stay, and other editions."""
    first, other = make(), Report("01_mnist_2", make().settings, False, tmp_path / "figures")
    first.save_figure(plots.plot_counts(make_images()), "kept")
    figure, axes = plots.make_panels(1, 2)
    for ax, column in zip(axes, ("level", "age"), strict=True):
        plots.plot_distribution(make_images(), column, ax=ax)
    first.save_figure(figure, "old")
    other.save_figure(plots.plot_counts(make_images()), "old")
    first.save_table(make_study(), "study")
    restart()
    second = make()
    second.save_figure(plots.plot_counts(make_images(), title="new"), "kept")
    second.save_figure(plots.plot_counts(make_images()), "new")
    second.save_figure(plots.plot_counts(make_images(), title="new"), "kept")
    assert list(read_described(second)) == ["old", "kept", "new"]  # in the order of the second run
    assert compare(second, tmp_path / "again") == ["old", "kept", "new"]
    for complete in (second, make()):
        complete.save_results({}, "")
        described = read_described(complete)
        assert (list(described), described["kept"]["with"]["title"]) == (["kept", "new"], "new")
        assert sorted(path.name for path in (complete.folder / "tables").iterdir()) == ["kept.csv", "new.csv"]
    assert {"old.png", "study.csv"} <= {path.name for path in second.folder.iterdir()}
    assert list(read_described(other)) == ["old"]
    assert (other.folder / "tables" / "old.csv").is_file()


@pytest.mark.usefixtures("small_pictures")
def test_two_kernels_that_export_at_once_lose_no_figure(make, monkeypatch):
    """The second one comes while the first one has read which figures there are, and not yet written them."""
    first, original, others = make(), Report._read_figures, []
    figures = {name: plots.plot_counts(make_images(), title=name) for name in ("first", "second")}

    def let_the_second_in(self):
        found = original(self)
        if not others:
            others.append(threading.Thread(target=self.save_figure, args=(figures["second"], "second")))
            others[0].start()
            others[0].join(0.3)
        return found

    monkeypatch.setattr(Report, "_read_figures", let_the_second_in)
    first.save_figure(figures["first"], "first")
    others[0].join()
    assert sorted(read_described(first)) == ["first", "second"]
    assert not list(first.folder.glob(".*"))


@pytest.mark.usefixtures("small_pictures")
def test_a_complete_run_keeps_what_another_kernel_has_exported_meanwhile(make, restart, monkeypatch):
    make().save_figure(plots.plot_counts(make_images()), "old")
    restart()
    first = make()
    first.save_figure(plots.plot_counts(make_images()), "own")
    with monkeypatch.context() as patch:  # which knows of no exported figure
        patch.setattr(report, "_exported", defaultdict(set))
        patch.setattr(report, "_found", {})
        make().save_figure(plots.plot_counts(make_images()), "other")
    first.save_results({}, "")
    assert sorted(read_described(first)) == ["other", "own"]
    assert sorted(path.name for path in (first.folder / "tables").iterdir()) == ["other.csv", "own.csv"]


@pytest.mark.usefixtures("small_pictures")
def test_a_figure_that_no_function_draws_any_more_is_not_drawn_over(make):
    report = make()
    report.save_figure(plots.plot_counts(make_images()), "drawn")
    report.save_figure(plots.make_panels(1, 1)[0], "drawn")
    assert redraw(report.folder) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"figures": 3}'])
@pytest.mark.usefixtures("small_pictures")
def test_a_broken_description_does_not_stop_a_run(make, text):
    report = make()
    report.folder.mkdir(parents=True)
    (report.folder / "figures.json").write_text(text)
    report.save_figure(plots.plot_counts(make_images()), "drawn")
    assert redraw(report.folder) == ["drawn"]


SEVERAL_LEVELS = pd.MultiIndex.from_product([["a", "b"], [1, 2]])


@pytest.mark.parametrize(
    "value",
    [
        pd.DataFrame({"x": range(4)}, SEVERAL_LEVELS),
        pd.DataFrame(np.ones((1, 4)), columns=SEVERAL_LEVELS),
        pd.DataFrame(np.ones((1, 2)), columns=["x", "x"]),
        pd.Categorical(pd.cut([1, 2, 3], 2)),
        {"x": {"y": {"z": pd.DataFrame({"x": [1]})}}},
        {1, 2},
        np.datetime64("2020-01-01"),
    ],
    ids=repr,
)
@pytest.mark.usefixtures("small_pictures")
def test_what_no_file_can_hold_is_exported_but_not_drawn_again(make, value):
    report = make()
    assert describe_figure(draw_anything(value), "drawn") == (None, {})
    report.save_figure(draw_anything(value), "drawn")
    assert [path.name for path in report.folder.iterdir()] == ["drawn.png"]


@redrawable()
def draw_anything(data):
    """Draw nothing, from whatever it is."""
    return Figure()


EMPTY_TEXT = ["", "b", None, "=1", '"']


@pytest.mark.parametrize(
    "value",
    [
        pd.Series(EMPTY_TEXT, name="value"),
        pd.Series(["", -0.5, "-0.5"], name="value"),
        pd.Series(pd.Categorical(EMPTY_TEXT, ["b", "", '"', "=1"]), name="value"),
        {1: "a", 2: {0.5: "b"}, "x": {"y": 1}},
        {"x": 1, "y": {np.int64(2): None, (1, "z"): 3}},
    ],
    ids=repr,
)
@pytest.mark.parametrize("is_sample", [True, False])
def test_arguments_come_back_as_they_were(make, value, is_sample):
    report = make(is_sample=is_sample)
    entry, tables = describe_figure(draw_anything(value), "drawn")
    for name, table in tables.items():
        report.save_table(table, f"tables/{name}", decimals=None)
    restored = restore(json.loads(json.dumps(entry))["with"]["data"], partial(module._read_cells, report.folder))
    if isinstance(value, dict):
        assert restored == value
    else:
        pd.testing.assert_series_equal(restored, value)


@pytest.mark.parametrize("damage", ["no file", "no table", "unknown function", "unknown argument", "no JSON"])
@pytest.mark.usefixtures("small_pictures")
def test_what_does_not_fit_is_named(make, damage):
    report = make()
    if damage != "no file":
        report.save_figure(plots.plot_counts(make_images()), "drawn")
        path = report.folder / "figures.json"
        text = path.read_text()
        changes = {"unknown function": ("plot_counts", "plot_nothing"), "unknown argument": ("column", "colour")}
        changes["no JSON"] = (text, "{")
        if damage == "no table":
            (report.folder / "tables" / "drawn.csv").unlink()
        else:
            path.write_text(text.replace(*changes[damage]))
    with pytest.raises(InputError, match=r"figures\.json.*[Ee]xpected"):
        redraw(report.folder)


def test_drawing_again_is_a_command_that_needs_no_tensorflow(make):
    report = make("quick")
    report.save_figure(plots.plot_counts(make_images()), "drawn")
    (report.folder / "drawn.png").unlink()
    code = (
        "import sys; from helpers.evaluation import redraw; code = redraw.main(); "
        "assert 'tensorflow' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, report.folder], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{report.folder}: 1 figures\n"
    assert (report.folder / "drawn.png").is_file()


def test_where_nothing_can_be_drawn_a_sentence_says_so(make, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(module, "FIGURES_FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["redraw"])
    assert module.main() == 2
    assert capsys.readouterr().err == (
        f"{tmp_path} has no figures.json in the folder of a run: run a notebook first.\n"
    )
    monkeypatch.setattr(sys, "argv", ["redraw", str(tmp_path)])
    assert module.main() == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path} has no figures.json: expected the folder of a run")
    report = make()
    report.save_figure(plots.plot_counts(make_images()), "drawn")

    def refuse(*_):
        raise PermissionError(13, "Permission denied", "drawn.png")

    monkeypatch.setattr(module, "save_picture", refuse)
    monkeypatch.setattr(sys, "argv", ["redraw", str(report.folder)])
    assert module.main() == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"{report.folder} cannot be drawn again ([Errno 13] Permission denied: 'drawn.png').")
