"""Plots: what is drawn is what was given; nothing is shown, nothing is written."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from helpers.evaluation import plots
from helpers.evaluation.metrics import compute_calibration, compute_metrics


@pytest.fixture(autouse=True)
def write_nothing(tmp_path, monkeypatch):
    def savefig(*_, **__):
        raise AssertionError("a plot function wrote a file")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Figure, "savefig", savefig)
    yield
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def images():
    labels, parts = list("aaabbabbbc"), ["train"] * 5 + ["test"] * 5
    return pd.DataFrame({"label": labels, "part": parts, "sex": list("fmfmfmfmff")})


@pytest.fixture
def scores(predict):
    return {
        model: {
            name: compute_metrics(predict(80, seed=seed, skill=skill), 50)
            for seed, name in enumerate(["test", "style_1"])
        }
        for model, skill in {"clean": 1.0, "mixed": 2.0}.items()
    }


@pytest.fixture
def curves():
    rows = [
        {"strength": strength, "model": model, "value": value, "low": value - 0.05, "high": value + 0.02}
        for strength, values in [(0, (0.9, 0.8)), (10, (0.7, 0.75)), (25, (0.2, 0.6))]
        for model, value in zip(("clean", "mixed"), values, strict=True)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def layers():
    return pd.DataFrame(
        {
            "layer": ["pixels", "conv", "pool", "flat", "dense"],
            "kind": ["InputLayer", "Conv2D", "MaxPooling2D", "Flatten", "Dense"],
            "output_shape": [(28, 28, 1), (28, 28, 8), (14, 14, 8), (1568,), (10,)],
            "parameters": [0, 80, 0, 0, 15690],
        }
    )


def make_history(epochs, best=None, scale=1.0):
    history = pd.DataFrame(
        {
            "loss": scale / np.arange(1, epochs + 1),
            "accuracy": 1 - 0.5 / np.arange(1, epochs + 1) * scale,
            "val_loss": 1.1 * scale / np.arange(1, epochs + 1),
            "val_accuracy": 0.98 - 0.5 / np.arange(1, epochs + 1) * scale,
        },
        index=pd.RangeIndex(1, epochs + 1, name="epoch"),
    )
    if best:
        history.attrs["best_epoch"] = best
    return history


def get_lines(ax):
    return [(np.asarray(x).tolist(), np.asarray(y).tolist()) for x, y in (line.get_data() for line in ax.get_lines())]


def get_legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def get_ticks(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def get_segments(ax):
    collections = [item for item in ax.collections if isinstance(item, LineCollection)]
    return [np.asarray(segment) for collection in collections for segment in collection.get_segments()]


def get_bars(ax):
    """Give, for each colour, the height of the bar at each tick; bars of no height may be left out."""
    bars = [{round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in bars} for bars in ax.containers]
    return [{place: height for place, height in heights.items() if height} for heights in bars]


@pytest.fixture
def draw(images, scores, curves, layers, predict):
    """Every function that draws on one Axes, with something to draw."""
    return {
        "class_counts": lambda ax=None: plots.plot_class_counts(images, ["a", "b", "c"], ax=ax),
        "confusion_matrix": lambda ax=None: plots.plot_confusion_matrix(predict(50), ["a", "b", "c"], ax=ax),
        "metrics": lambda ax=None: plots.plot_metrics(scores, "accuracy", ax=ax),
        "robustness": lambda ax=None: plots.plot_robustness(curves, "rotation in degrees", ax=ax),
        "calibration": lambda ax=None: plots.plot_calibration(compute_calibration(predict(50)), ax=ax),
        "layers": lambda ax=None: plots.plot_layers(layers, ax=ax),
    }


NAMES = ["class_counts", "confusion_matrix", "metrics", "robustness", "calibration", "layers"]


@pytest.mark.parametrize("name", NAMES)
def test_axes_are_made_or_those_passed_in_are_used(draw, name):
    made = draw[name]()
    assert isinstance(made, Axes)
    assert plt.get_fignums() == [made.figure.number]

    figure, (other, given) = plt.subplots(1, 2)
    plt.sca(other)  # not simply the current one
    assert draw[name](given) is given
    assert given.has_data()
    assert not other.has_data()
    assert plt.get_fignums() == [made.figure.number, figure.number]
    made.figure.canvas.draw()
    figure.canvas.draw()


def test_every_function_is_tested_above_or_draws_a_grid():
    functions = {name for name in vars(plots) if name.startswith("plot_")}
    assert functions == {f"plot_{name}" for name in NAMES} | {"plot_image_grid", "plot_learning_curves"}


def test_the_style_is_set():
    with plt.rc_context():
        plots.set_style()
        assert plt.rcParams["figure.constrained_layout.use"]
        cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        np.testing.assert_allclose(cycle, plots.PALETTE)


@pytest.mark.parametrize(
    ("by", "expected"),
    [("part", {"train": [3, 2, 0], "test": [1, 3, 1]}), ("sex", {"f": [2, 3, 1], "m": [2, 2, 0]})],
)
def test_bars_are_as_high_as_the_classes_are_large(images, by, expected):
    ax = plots.plot_class_counts(images, ["a", "b", "c"], by=by)
    assert get_bars(ax) == [
        {place: count for place, count in enumerate(counts) if count} for counts in expected.values()
    ]
    assert get_legend(ax) == list(expected)
    assert get_ticks(ax.xaxis) == ["a", "b", "c"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("class", "images")
    assert [text.get_text() for text in ax.texts] == [str(n) for counts in expected.values() for n in counts if n]


def test_bars_stand_in_the_order_of_the_class_names(images):
    ax = plots.plot_class_counts(images, ["c", "b", "a"])
    assert get_ticks(ax.xaxis) == ["c", "b", "a"]
    assert get_bars(ax) == [{1: 2, 2: 3}, {0: 1, 1: 3, 2: 1}]


PREDICTIONS = pd.DataFrame({"y_true": list("aaaabbbb"), "y_pred": list("aaabbbbb")})


@pytest.mark.parametrize("order", ["abc", "cba"])
def test_confusion_matrix_shows_the_counts(order):
    ax = plots.plot_confusion_matrix(PREDICTIONS, list(order), title="clean model")
    counts = {("a", "a"): "3", ("a", "b"): "1", ("b", "b"): "4"}
    texts = {(round(t.get_position()[1] - 0.5), round(t.get_position()[0] - 0.5)): t.get_text() for t in ax.texts}
    expected = {
        (row, col): counts.get((true, pred), "") for row, true in enumerate(order) for col, pred in enumerate(order)
    }
    assert {place: texts.get(place, "") for place in expected} == expected  # true classes in rows; zero cells are empty
    assert get_ticks(ax.xaxis) == get_ticks(ax.yaxis) == list(order)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert ax.get_title() == "clean model (images)"
    assert ax.yaxis_inverted()  # the first class above


def test_normalized_confusion_matrix_shows_per_cent_of_the_true_class():
    ax = plots.plot_confusion_matrix(PREDICTIONS, ["a", "b", "c"], normalize=True)
    assert [text.get_text() for text in ax.texts if text.get_text()] == ["75.0", "25.0", "100.0"]
    assert "% of the true class" in ax.get_title()


def test_confusion_matrix_is_coloured_by_the_share_of_the_row():
    for normalize in (False, True):
        ax = plots.plot_confusion_matrix(PREDICTIONS, ["a", "b", "c"], normalize)
        shades = ax.collections[0].get_array().reshape(3, 3)
        np.testing.assert_allclose(shades**2, [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]], atol=1e-12)
        assert ax.collections[0].get_clim() == (0, 1)


def test_metrics_are_drawn_as_points_with_intervals(scores):
    ax = plots.plot_metrics(scores, "macro_f1")
    points = [point for x, y in get_lines(ax) for point in zip(x, y, strict=True)]
    segments = get_segments(ax)
    for of_sets in scores.values():
        for place, table in enumerate(of_sets.values()):
            row = table.loc["macro_f1"]
            (height,) = {y for x, y in points if x == row["value"]}
            assert abs(height - place) < 0.5  # beside the name of its test set
            (segment,) = [s for s in segments if s[0, 1] == height]
            np.testing.assert_allclose(sorted(segment[:, 0]), [row["low"], row["high"]])
    assert get_ticks(ax.yaxis) == ["test", "style 1"]
    assert ax.get_xlabel() == "macro f1 with 95 % interval"
    assert get_legend(ax) == ["clean", "mixed"]
    assert ax.yaxis_inverted()


def test_an_interval_beside_its_value_is_drawn_where_it_lies():
    """The bootstrap interval of a calibration error can lie above the value."""
    table = pd.DataFrame({"value": [0.02], "low": [0.03], "high": [0.05]}, index=["expected_calibration_error"])
    ax = plots.plot_metrics({"clean": {"test": table}}, "expected_calibration_error")
    (segment,) = get_segments(ax)
    np.testing.assert_allclose(sorted(segment[:, 0]), [0.03, 0.05])


def test_robustness_is_a_line_and_a_band_for_each_model(curves):
    ax = plots.plot_robustness(curves, "rotation in degrees", limit=20)
    lines = get_lines(ax)
    assert ([0, 10, 25], [0.9, 0.7, 0.2]) in lines
    assert ([0, 10, 25], [0.8, 0.75, 0.6]) in lines
    assert [x for x, _ in lines].count([20, 20]) == 1  # the limit
    assert get_legend(ax) == ["clean", "mixed"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("rotation in degrees", "accuracy")
    assert ax.get_ylim() == (0, 1.03)
    corners = [{tuple(corner) for corner in band.get_paths()[0].vertices} for band in ax.collections]
    assert len(corners) == 2
    assert {(0, 0.85), (0, 0.92), (25, 0.15), (25, 0.22)} <= {(x, round(y, 9)) for x, y in corners[0]}


def test_robustness_lines_differ_in_more_than_colour(curves):
    ax = plots.plot_robustness(curves, "shift")
    looks = [(line.get_linestyle(), line.get_marker()) for line in ax.get_lines()]
    assert len(set(looks)) == 2
    assert plots.plot_robustness(curves, "shift").get_lines()[0].get_color() == ax.get_lines()[0].get_color()


def test_no_model_is_dropped(curves, scores):
    names = [f"model {number}" for number in range(9)]
    first = curves[curves["model"] == "clean"]
    many = pd.concat([first.assign(model=name) for name in names])
    assert get_legend(plots.plot_robustness(many, "shift")) == names
    assert get_legend(plots.plot_metrics(dict.fromkeys(names, scores["clean"]))) == names
    figure = plots.plot_learning_curves({name: make_history(3) for name in names})
    assert len(figure.axes[0].get_lines()) == 18


def test_calibration_points(predict):
    calibration = compute_calibration(predict(120))
    ax = plots.plot_calibration(calibration, title="mixed model")
    expected = (calibration["confidence"].tolist(), calibration["accuracy"].tolist())
    assert expected in get_lines(ax)
    assert ([0, 1], [0, 1]) in get_lines(ax)  # the diagonal
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("mean confidence", "accuracy", "mixed model")


@pytest.mark.parametrize("count", [1, 2])
def test_learning_curves(count):
    histories = {"clean": make_history(4, best=3), "mixed": make_history(6, scale=0.8)}
    histories = dict(list(histories.items())[:count])
    figure = plots.plot_learning_curves(histories)
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == [figure.number]
    prefix = {1: "", 2: "clean, "}[count]
    expected_labels = [f"{prefix}training", f"{prefix}validation", f"{prefix}kept epoch"]
    expected_labels += ["mixed, training", "mixed, validation"] if count == 2 else []
    for ax, quantity in zip(figure.axes, ("accuracy", "loss"), strict=True):
        lines = {line.get_label(): [np.asarray(data).tolist() for data in line.get_data()] for line in ax.get_lines()}
        assert list(lines) == expected_labels
        for name, history in histories.items():
            prefix = f"{name}, " if count == 2 else ""
            epochs = history.index.tolist()
            assert lines[f"{prefix}training"] == [epochs, history[quantity].tolist()]
            assert lines[f"{prefix}validation"] == [epochs, history[f"val_{quantity}"].tolist()]
        prefix = "clean, " if count == 2 else ""
        assert lines[f"{prefix}kept epoch"] == [[3], [histories["clean"].loc[3, f"val_{quantity}"]]]
        assert ax.get_xlabel() == "epoch"
    assert get_legend(figure.axes[0]) == expected_labels
    assert [ax.get_yscale() for ax in figure.axes] == ["linear", "log"]


@pytest.mark.parametrize(
    ("count", "columns", "rows", "used_columns"), [(10, 5, 2, 5), (7, 3, 3, 3), (3, 10, 1, 3), (1, 10, 1, 1)]
)
def test_image_grid(count, columns, rows, used_columns):
    images = np.random.default_rng(0).integers(0, 256, (count, 6, 6, 1), "uint8")
    titles = [f"title {number}\nline" for number in range(count)]
    figure = plots.plot_image_grid(images, titles, columns=columns, title="all of them")
    assert isinstance(figure, Figure)
    assert len(figure.axes) == rows * used_columns
    grid = figure.axes[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (rows, used_columns)
    for number, ax in enumerate(figure.axes):
        assert ax.get_title() == (titles[number] if number < count else "")
        assert len(ax.get_images()) == (number < count)
        if number < count:
            np.testing.assert_array_equal(ax.get_images()[0].get_array(), images[number, ..., 0])
            assert ax.get_images()[0].get_clim() == (0, 255)  # grey levels are comparable between images
        assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    assert figure.get_suptitle() == "all of them"


def test_image_grid_grows_with_its_images():
    images = np.zeros((20, 10, 10, 1))
    small, wide, high, large = (
        plots.plot_image_grid(images[:4], columns=2),
        plots.plot_image_grid(images[:8], columns=4),
        plots.plot_image_grid(images[:8], columns=2),
        plots.plot_image_grid(images[:4], columns=2, size=2),
    )
    assert wide.get_figwidth() == pytest.approx(2 * small.get_figwidth())
    assert wide.get_figheight() == pytest.approx(small.get_figheight())
    assert high.get_figheight() == pytest.approx(2 * small.get_figheight())
    assert large.get_figwidth() > 1.8 * small.get_figwidth()
    titled = plots.plot_image_grid(images[:4], titles=["a\nb"] * 4, columns=2)
    assert titled.get_figheight() > small.get_figheight()
    assert plots.plot_image_grid(np.zeros((4, 20, 10, 1)), columns=2).get_figheight() > 1.6 * small.get_figheight()


def test_image_grid_shows_colours_and_clips_floats():
    colour = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), "uint8")
    figure = plots.plot_image_grid(colour)
    np.testing.assert_array_equal(figure.axes[1].get_images()[0].get_array(), colour[1])
    altered = np.array([-20.0, 0, 100, 255, 300, 30]).reshape(1, 2, 3, 1)
    shown = plots.plot_image_grid(list(altered)).axes[0].get_images()[0].get_array()
    assert shown.ravel().tolist() == [0, 0, 100, 255, 255, 30]


def test_image_grid_labels_its_rows():
    figure = plots.plot_image_grid(np.zeros((6, 4, 4, 1)), columns=3, row_labels=["original", "altered"])
    assert [ax.get_ylabel() for ax in figure.axes] == ["original", "", "", "altered", "", ""]


def test_image_grid_of_no_images_is_empty():
    """A model without errors has none to show."""
    figure = plots.plot_image_grid(np.zeros((0, 28, 28, 1), "uint8"), titles=[])
    assert [ax for ax in figure.axes if ax.get_images()] == []


def test_layers_are_boxes_as_high_as_their_images(layers):
    ax = plots.plot_layers(layers)
    assert len(ax.patches) == 5
    assert [bar.get_height() for bar in ax.patches[:3]] == [28, 28, 14]
    assert ax.patches[1].get_width() > ax.patches[0].get_width()  # more channels
    lefts = [bar.get_x() for bar in ax.patches]
    assert lefts == sorted(lefts)
    assert all(a.get_x() + a.get_width() <= b.get_x() for a, b in zip(ax.patches, ax.patches[1:], strict=False))
    texts = [text.get_text() for text in ax.texts]
    assert {"28×28×1", "28×28×8", "10"} <= set(texts)
    assert get_legend(ax) == list(layers["kind"])
    assert len({bar.get_facecolor() for bar in ax.patches}) == 5
