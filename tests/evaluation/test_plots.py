"""Plots: what is drawn is what was given; nothing is shown, nothing is written."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from helpers.data.catalog import get_data_set
from helpers.evaluation import plots
from helpers.evaluation.calibration import compute_abstaining, compute_calibration
from helpers.evaluation.scores import compute_class_metrics, compute_metrics, compute_precision_recall, compute_roc
from helpers.evaluation.thresholds import compute_net_benefit, score_group_of_classes

# seaborn draws boxes with an old argument of Matplotlib's.
pytestmark = pytest.mark.filterwarnings("ignore:vert.*was deprecated:DeprecationWarning")


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
    return pd.DataFrame(
        {
            "label": labels,
            "part": parts,
            "sex": list("fmfmfmfmff"),
            "age": [5, 10, 20, 20, 20, 35, 40, 50, 60, np.nan],
            "width": [600] * 7 + [640, 640, 1200],
            "height": [450] * 7 + [480, 480, 450],
            "red": [100, 120, 140, 50, 70, 0, 60, 60, 60, 200],
            "green": [10, 10, 40, 50, 70, 20, 60, 60, 60, 100],
            "blue": [90, 80, 70, 150, 170, 0, 60, 60, 60, 250],
        }
    )


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


def make_net_benefits(predict, models=("clean", "mixed")):
    return {
        model: compute_net_benefit(score_group_of_classes(predict(80, skill=1 + number), ["b"]), [0.1, 0.2, 0.4, 0.6])
        for number, model in enumerate(models)
    }


OCCLUDED = pd.DataFrame({"border covered": [0.9, 0.8], "middle_covered": [0.5, 0.7]}, [0.0, 0.2]).rename_axis("width")
DISTANCES = pd.DataFrame(
    {"kind": ["test"] * 3 + ["noise"] * 3 + ["ham10000"], "distance": [0.2, 0.5, 0.9, 2.0, 5.0, 50.0, 60.0]}
)


@pytest.fixture
def draw(images, scores, curves, layers, predict):
    """Every function that draws on one Axes, with something to draw."""
    return {
        "counts": lambda ax=None: plots.plot_counts(images, by="part", ax=ax),
        "distribution": lambda ax=None: plots.plot_distribution(images, "age", "sex", ax=ax),
        "distances": lambda ax=None: plots.plot_distances(DISTANCES, ax=ax),
        "boxes": lambda ax=None: plots.plot_boxes(images, "label", "age", "sex", ax=ax),
        "image_sizes": lambda ax=None: plots.plot_image_sizes(images, ax=ax),
        "mean_colors": lambda ax=None: plots.plot_mean_colors(images, ["a", "b", "c"], ax=ax),
        "confusion_matrix": lambda ax=None: plots.plot_confusion_matrix(predict(50), ["a", "b", "c"], ax=ax),
        "metrics": lambda ax=None: plots.plot_metrics(scores, "accuracy", ax=ax),
        "robustness": lambda ax=None: plots.plot_robustness(curves, "rotation in degrees", ax=ax),
        "calibration": lambda ax=None: plots.plot_calibration(compute_calibration(predict(50)), ax=ax),
        "abstaining": lambda ax=None: plots.plot_abstaining({"clean": compute_abstaining(predict(50), 10)}, ax=ax),
        "roc": lambda ax=None: plots.plot_roc(compute_roc(predict(50)), ax=ax),
        "precision_recall": lambda ax=None: plots.plot_precision_recall(compute_precision_recall(predict(50)), ax=ax),
        "net_benefit": lambda ax=None: plots.plot_net_benefit(make_net_benefits(predict), ax=ax),
        "intervals": lambda ax=None: plots.plot_intervals(
            compute_class_metrics(predict(50), 10), "class", "share", ax=ax
        ),
        "corruptions": lambda ax=None: plots.plot_corruptions(make_corruptions(noise=0.2, blur=0.5), ax=ax),
        "occlusion": lambda ax=None: plots.plot_occlusion(OCCLUDED, ax=ax),
        "shortcuts": lambda ax=None: plots.plot_shortcuts(make_shortcuts(), 0.9, ax=ax),
        "choice": lambda ax=None: plots.plot_choice(pd.DataFrame({"chosen": [1], "best": [1]}, ["net"]), ax=ax),
        "layers": lambda ax=None: plots.plot_layers(layers, ax=ax),
        "embedding": lambda ax=None: plots.plot_embedding(np.arange(8).reshape(4, 2), list("abca"), ax=ax),
    }


NAMES = [
    *("counts", "distribution", "boxes", "image_sizes", "mean_colors", "confusion_matrix", "metrics"),
    *("robustness", "calibration", "roc", "precision_recall", "net_benefit", "intervals", "layers"),
    *("embedding", "distances", "abstaining", "corruptions", "choice", "shortcuts", "occlusion"),
]


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
    grids = {"plot_image_grid", "plot_learning_curves", "plot_effects", "plot_clusterings"}
    assert functions == {f"plot_{name}" for name in NAMES} | grids


def test_the_style_is_set():
    with plt.rc_context():
        plots.set_style()
        assert plt.rcParams["figure.constrained_layout.use"]
        cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        np.testing.assert_allclose(cycle, plots.PALETTE)


def test_panels_are_as_large_as_they_are_printed():
    figure, axes = plots.make_panels(2, 3, width=85, height=100)
    assert [round(25.4 * side) for side in figure.get_size_inches()] == [85, 100]
    assert axes.shape == (6,)
    assert [ax.get_subplotspec().num1 for ax in axes] == list(range(6))


def test_panels_that_share_an_axis_are_labelled_once(images):
    figure, axes = plots.make_panels(2, 2, sharex=True, sharey=True, count=3)
    assert len(axes) == len(figure.axes) == 3
    for ax in axes:
        plots.plot_distribution(images, "age", ax=ax)
    assert [ax.get_xlabel() for ax in axes] == ["", "Age", "Age"]  # nothing is below the second
    assert [ax.get_ylabel() for ax in axes] == ["Images", "", "Images"]
    figure.draw_without_rendering()
    shown = [any(tick.label1.get_visible() for tick in ax.xaxis.get_major_ticks()) for ax in axes]
    assert shown == [False, True, True]


@pytest.mark.parametrize(
    ("by", "expected"),
    [("part", {"train": [3, 2, 0], "test": [1, 3, 1]}), ("sex", {"f": [2, 3, 1], "m": [2, 2, 0]})],
)
def test_bars_are_as_high_as_the_classes_are_large(images, by, expected):
    ax = plots.plot_counts(images, order=["a", "b", "c"], by=by)
    assert get_bars(ax) == [
        {place: count for place, count in enumerate(counts) if count} for counts in expected.values()
    ]
    assert get_legend(ax) == [name.capitalize() for name in expected]
    assert get_ticks(ax.xaxis) == ["A", "B", "C"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Class", "Images")
    assert [text.get_text() for text in ax.texts] == [str(n) for counts in expected.values() for n in counts if n]


def test_bars_stand_in_the_order_of_the_class_names(images):
    ax = plots.plot_counts(images, "label", ["c", "b", "a"], by="part")
    assert get_ticks(ax.xaxis) == ["C", "B", "A"]
    assert get_bars(ax) == [{1: 2, 2: 3}, {0: 1, 1: 3, 2: 1}]


def test_bars_stand_in_the_order_of_the_values_by_default(images):
    ax = plots.plot_counts(images.iloc[::-1])
    assert get_ticks(ax.xaxis) == ["A", "B", "C"]
    assert get_bars(ax) == [{0: 4, 1: 5, 2: 1}]
    assert [text.get_text() for text in ax.texts] == ["4", "5", "1"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("Class", "Images", "Images per class")
    assert ax.get_legend() is None
    assert len({bar.get_facecolor() for bar in ax.containers[0]}) == 1  # colours would mean nothing


def test_numbers_are_counted_in_their_order():
    table = pd.DataFrame({"images_per_lesion": [10, 2, 2, 1, 2, 10]})
    ax = plots.plot_counts(table, "images_per_lesion", title="Lesions", ylabel="lesions")
    assert get_ticks(ax.xaxis) == ["1", "2", "10"]
    assert get_bars(ax) == [{0: 1, 1: 3, 2: 2}]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("Images per lesion", "Lesions", "Lesions")


def get_long_bars(ax):
    return [{round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in bars} for bars in ax.containers]


def test_horizontal_bars_stand_in_the_order_of_their_length(images):
    ax = plots.plot_counts(images, horizontal=True)
    assert get_ticks(ax.yaxis) == ["B", "A", "C"]
    assert ax.yaxis_inverted()  # the longest above
    assert get_long_bars(ax) == [{0: 5, 1: 4, 2: 1}]
    assert [text.get_text() for text in ax.texts] == ["5", "4", "1"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Images", "Class")
    ordered = plots.plot_counts(images, "sex", ["m", "f"], horizontal=True)
    assert get_ticks(ordered.yaxis) == ["M", "F"]
    assert get_long_bars(ordered) == [{0: 4, 1: 6}]
    assert ordered.get_ylabel() == "Sex"


def test_horizontal_bars_can_be_divided(images):
    ax = plots.plot_counts(images, "label", ["a", "b"], by="sex", horizontal=True)
    assert get_legend(ax) == ["F", "M"]
    assert get_long_bars(ax) == [{0: 2, 1: 3}, {0: 2, 1: 2}]


def test_labels_stay_inside_the_frame():
    """The number above the highest bar, or beside the longest one."""
    table = pd.DataFrame({"label": list("a" * 5000 + "b" * 10)})
    for horizontal in (False, True):
        ax = plots.plot_counts(table, horizontal=horizontal)
        ax.figure.canvas.draw()
        frame = ax.get_window_extent()
        for text in ax.texts:
            box = text.get_window_extent()
            assert frame.contains(box.x0, box.y0)
            assert frame.contains(box.x1, box.y1)


def test_figures_of_horizontal_bars_grow_with_their_number():
    table = pd.DataFrame({"label": [f"name {number:02d}" for number in range(20)]})
    high, low = (plots.plot_counts(part, horizontal=True).figure.get_figheight() for part in (table, table.head(3)))
    assert high > 2.5 * low


@pytest.mark.usefixtures("printed")
def test_numbers_of_bars_that_leave_no_room_for_them_are_left_out():
    table = pd.DataFrame({"label": [f"{number}" for number in range(10)] * 3, "part": ["a", "b", "c"] * 10})
    assert len(plots.plot_counts(table).texts) == 10
    assert len(plots.plot_counts(table, by="part").texts) == 0


def test_a_distribution_of_all_images_shows_their_numbers(images):
    ax = plots.plot_distribution(images, "age", binwidth=20, title="Age")
    heights = [bar.get_height() for bar in ax.patches]
    assert sum(heights) == 9  # the missing one is left out
    assert len(heights) >= 3
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("Age", "Images", "Age")
    assert ax.get_legend() is None
    assert plots.plot_distribution(images, "age", xlabel="age in years").get_xlabel() == "Age in years"


def test_values_at_the_distance_of_the_bins_have_a_bar_each():
    """Ages are given in steps of 5 years; the last two must not share a bar, which would feign a peak."""
    table = pd.DataFrame({"age": [70.0] * 4 + [75.0] * 3 + [80.0] * 2 + [85.0] * 2})
    ax = plots.plot_distribution(table, "age", binwidth=5)
    assert [bar.get_height() for bar in ax.patches if bar.get_height()] == [4, 3, 2, 2]


@pytest.fixture
def ages():
    """Make parts of very different size and place."""
    parts = {"male": [10.0] * 30 + [20.0] * 10, "female": [60.0, 60, 70, 70], "other": [40.0] * 7}
    rows = [(age, sex) for sex, values in parts.items() for age in values]
    table = pd.DataFrame([*rows, (np.nan, "male"), (99.0, None)], columns=["age", "sex"])
    return table.sample(frac=1, random_state=0)


def get_part_lines(ax):
    """Give the line of each part of a distribution, found by its colour in the legend."""
    lines = {to_hex(line.get_color()): line for line in ax.get_lines()}
    assert len(lines) == len(ax.get_lines())
    handles = ax.get_legend().legend_handles
    return {name: (lines[to_hex(h.get_color())], h) for name, h in zip(get_legend(ax), handles, strict=True)}


def test_parts_of_a_distribution_have_the_line_and_colour_that_the_legend_says(ages):
    lines = get_part_lines(plots.plot_distribution(ages, "age", by="sex", binwidth=5))
    assert set(lines) == {"Male", "Female", "Other"}
    for line, handle in lines.values():
        assert line.get_linestyle() == handle.get_linestyle()
    assert len({line.get_linestyle() for line, _ in lines.values()}) == 3
    centres = {}
    for name, (line, _) in lines.items():
        x, y = line.get_data()
        centres[name] = np.average(x, weights=y)
    assert centres["Male"] < 25 < centres["Other"] < 50 < centres["Female"]


def test_shares_of_each_part_sum_to_one(ages):
    ax = plots.plot_distribution(ages, "age", by="sex", binwidth=5)
    for line, _ in get_part_lines(ax).values():
        x, y = (np.asarray(data) for data in line.get_data())
        area = np.sum(np.diff(x) * (y[:-1] + y[1:]) / 2)  # a step has vertical lines, which count for nothing
        if line.get_drawstyle() != "default":
            area = np.sum(np.diff(x) * (y[:-1] if line.get_drawstyle() == "steps-post" else y[1:]))
        assert area == pytest.approx(5)
    assert ax.get_ylabel() == "Share of the images"
    assert ax.get_xlim()[1] < 99  # an image without a part is left out
    assert ax.get_ylim()[0] == 0


def test_a_panel_needs_no_legend_of_its_own(images, scores, curves):
    for draw in (
        lambda **options: plots.plot_distribution(images, "age", "sex", **options),
        lambda **options: plots.plot_boxes(images, "label", "age", "sex", **options),
        lambda **options: plots.plot_metrics(scores, **options),
        lambda **options: plots.plot_robustness(curves, "shift", **options),
    ):
        assert draw().get_legend() is not None
        assert draw(legend=False).get_legend() is None


def get_medians(ax):
    """Give for each place along the x axis the height of the median, and the number of boxes."""
    return [
        (round(np.mean(line.get_xdata()), 3), line.get_ydata()[0])
        for container in ax.containers
        for line in container.medians
    ]


def test_boxes_have_their_medians(images):
    ax = plots.plot_boxes(images.dropna(), "label", "age", order=["b", "a"], ylabel="age in years", title="Age")
    medians = images.groupby("label")["age"].median()
    assert get_medians(ax) == [(0, medians["b"]), (1, medians["a"])]
    assert get_ticks(ax.xaxis) == ["B", "A"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("Class", "Age in years", "Age")
    assert ax.get_legend() is None


def test_divided_boxes_stand_side_by_side(images):
    ax = plots.plot_boxes(images, "label", "age", by="sex", order=["a", "b"])
    assert get_legend(ax) == ["F", "M"]
    assert ax.get_ylabel() == "Age"
    found = get_medians(ax)
    medians = images.groupby(["sex", "label"])["age"].median()
    expected = [medians["f", "a"], medians["f", "b"], medians["m", "a"], medians["m", "b"]]
    assert [height for _, height in found] == expected
    places = [place for place, _ in found]
    assert -0.5 < places[0] < 0 < places[2] < 0.5 < places[1] < 1 < places[3]
    colors = [to_hex(container.boxes[0].get_facecolor()) for container in ax.containers]
    assert colors == [to_hex(handle.get_facecolor()) for handle in ax.get_legend().legend_handles]
    assert plots.plot_boxes(images, "sex", "age").get_xlabel() == "Sex"
    assert plots.plot_boxes(images, "sex", "age", xlabel="people").get_xlabel() == "People"


def test_distances_stand_beside_the_limit():
    ax = plots.plot_distances(DISTANCES, "Far?")
    assert get_ticks(ax.yaxis) == ["Test", "Noise", "HAM10000"]
    assert (ax.get_xscale(), ax.get_title()) == ("log", "Far?")
    known, foreign, _ = (to_hex(box.get_facecolor()) for box in ax.patches)
    assert known != foreign
    limits = [line for line in ax.lines if list(line.get_xdata()) == [1, 1]]
    assert [line.get_linestyle() for line in limits] == ["--"]


def test_image_sizes_are_points_as_large_as_they_are_frequent(images):
    ax = plots.plot_image_sizes(images)
    (points,) = ax.collections
    sizes = {tuple(place): size for place, size in zip(points.get_offsets().tolist(), points.get_sizes(), strict=True)}
    assert set(sizes) == {(600, 450), (640, 480), (1200, 450)}
    assert sizes[600, 450] > sizes[640, 480] > sizes[1200, 450]
    expected = {"600 × 450: 7": (600, 450), "640 × 480: 2": (640, 480), "1200 × 450: 1": (1200, 450)}
    assert {text.get_text(): text.xy for text in ax.texts} == expected
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Width in pixels", "Height in pixels")
    assert ax.get_xlim()[0] == ax.get_ylim()[0] == 0
    assert ax.get_xlim()[1] > 1200
    assert ax.get_ylim()[1] > 480


def test_only_the_most_frequent_sizes_have_a_label():
    widths = np.repeat(np.arange(100, 900, 100), [8, 1, 7, 2, 6, 3, 5, 4])
    ax = plots.plot_image_sizes(pd.DataFrame({"width": widths, "height": 1200}))
    assert [text.get_text() for text in ax.texts] == [
        *("100 × 1200: 8", "300 × 1200: 7", "500 × 1200: 6", "700 × 1200: 5", "800 × 1200: 4"),
    ]
    many = plots.plot_image_sizes(pd.DataFrame({"width": [600] * 10_015, "height": 450}))
    assert [text.get_text() for text in many.texts] == ["600 × 450: 10,015"]
    all_different = plots.plot_image_sizes(pd.DataFrame({"width": range(100, 140), "height": 1200}))
    assert not all_different.texts


def test_image_sizes_by_class():
    sizes = pd.DataFrame({"width": [10, 10, 30], "height": [20, 20, 40], "label": ["a", "b", "b"]})
    ax = plots.plot_image_sizes(sizes, "label")
    assert get_legend(ax) == ["A", "B"]
    assert [points.get_offsets().tolist() for points in ax.collections] == [[[10, 20]], [[10, 20], [30, 40]]]
    assert len({points.get_paths()[0].vertices.tobytes() for points in ax.collections}) == 2


def test_mean_colours_and_their_spread(images):
    order = ["b", "a"]
    ax = plots.plot_mean_colors(images, order)
    grouped = images.groupby("label")
    assert [container.get_label() for container in ax.containers] == get_legend(ax) == ["Red", "Green", "Blue"]
    for container, channel in zip(ax.containers, ["red", "green", "blue"], strict=True):
        means, stds = (getattr(grouped[channel], what)()[order].to_numpy() for what in ("mean", "std"))
        line, _, (bars,) = container
        assert np.round(line.get_xdata()).tolist() == [0, 1]
        np.testing.assert_allclose(line.get_ydata().astype(float), means)
        spans = np.array([segment[:, 1] for segment in bars.get_segments()])
        np.testing.assert_allclose(spans, np.stack([means - stds, means + stds], 1))
    assert len({container[0].get_marker() for container in ax.containers}) == 3
    colors = [to_rgb(container[0].get_color()) for container in ax.containers]
    assert [np.argmax(rgb) for rgb in colors] == [0, 1, 2]  # reddish, greenish, bluish
    assert get_ticks(ax.xaxis) == ["B", "A"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Class", "Mean level, 0 to 255")


def test_patches_have_the_mean_colour_and_stand_above_everything(images):
    ax = plots.plot_mean_colors(images, ["b", "a"])
    means = images.groupby("label")[["red", "green", "blue"]].mean() / 255
    for patch, name in zip(ax.patches, ["b", "a"], strict=True):
        np.testing.assert_allclose(patch.get_facecolor()[:3], means.loc[name])
        assert to_hex(patch.get_edgecolor()) == "#000000"
    assert [round(patch.get_x() + patch.get_width() / 2, 6) for patch in ax.patches] == [0, 1]
    bottom = min(patch.get_y() for patch in ax.patches)
    assert bottom > max(segment[:, 1].max() for segment in get_segments(ax))
    assert max(patch.get_y() + patch.get_height() for patch in ax.patches) <= ax.get_ylim()[1]


def test_a_class_without_images_has_no_colour(images):
    """A black patch would say that its images are black."""
    ax = plots.plot_mean_colors(images, ["a", "b", "z"])
    assert get_ticks(ax.xaxis) == ["A", "B", "Z"]
    drawn = [patch for patch in ax.patches if patch.get_visible() and patch.get_facecolor()[3] > 0]
    assert [round(patch.get_x() + patch.get_width() / 2, 6) for patch in drawn] == [0, 1]


def test_classes_of_one_image_have_a_colour_but_no_spread(images):
    ax = plots.plot_mean_colors(images[images["label"] == "c"], ["c"])
    np.testing.assert_allclose(ax.patches[0].get_facecolor()[:3], np.array([200, 100, 250]) / 255)
    assert ax.patches[0].get_y() > 250
    assert ax.get_ylim()[1] > 250


@pytest.fixture
def printed():
    """Draw as the notebooks do."""
    with plt.rc_context():
        plots.set_style()
        yield


PLANTS = get_data_set("plants")


def get_boxes(texts):
    """Give left, bottom, right and top of texts that have been drawn, in pixels."""
    boxes = [text.get_window_extent() for text in texts]
    return np.array([[box.x0, box.y0, box.x1, box.y1] for box in boxes]).T


def capitalize(names):
    return [f"{name[0].upper()}{name[1:]}" for name in names]


def get_texts(axis):
    return list(axis.get_ticklabels())


@pytest.mark.usefixtures("printed")
def test_mean_colours_of_many_classes_can_be_read():
    labels = list(PLANTS.class_labels.values())
    levels = pd.DataFrame(np.random.default_rng(0).integers(60, 200, (76, 3)), columns=["red", "green", "blue"])
    ax = plots.plot_mean_colors(levels.assign(label=labels * 2), labels)
    figure = ax.figure
    figure.canvas.draw()
    assert figure.get_figwidth() == pytest.approx(174 / 25.4)
    assert get_ticks(ax.xaxis) == capitalize(labels)
    left, bottom, right, _ = get_boxes(get_texts(ax.xaxis))
    assert (left[1:] > right[:-1]).all()
    assert bottom.min() > 0
    assert ax.get_window_extent().height > figure.bbox.height / 3  # the labels leave room for what they are about
    assert len(ax.patches) == 38


@pytest.mark.usefixtures("printed")
@pytest.mark.parametrize("name", ["ham10000", "melanoma-isic", "leukemia", "chest-xray"])
@pytest.mark.parametrize("draw", ["counts", "counts by sex", "boxes", "colours"])
def test_readable_names_of_classes_do_not_touch(name, draw):
    labels = list(get_data_set(name).class_labels.values())
    levels = np.random.default_rng(0).integers(60, 200, (len(labels) * 6, 3))
    table = pd.DataFrame(levels, columns=["red", "green", "blue"]).assign(label=labels * 6)
    table["sex"] = np.repeat(["female", "male"], len(labels) * 3)
    if draw == "boxes":
        ax = plots.plot_boxes(table, "label", "red", order=labels)
    elif draw == "colours":
        ax = plots.plot_mean_colors(table, labels)
    else:
        ax = plots.plot_counts(table, order=labels, by="sex" if draw.endswith("sex") else None)
    ax.figure.canvas.draw()
    assert [text.replace("\n", " ") for text in get_ticks(ax.xaxis)] == capitalize(labels)
    left, bottom, right, _ = get_boxes(get_texts(ax.xaxis))
    assert (left[1:] > right[:-1]).all()
    assert bottom.min() > 0


@pytest.mark.usefixtures("printed")
def test_names_that_are_wider_than_their_place_stand_upright():
    levels = pd.DataFrame({"label": ["healthy", "dermatofibroma"] * 4, "red": 100, "green": 120, "blue": 140})
    lying = plots.plot_mean_colors(levels, ["healthy", "dermatofibroma"])
    seven = ["healthy", "dermatofibroma", *"abcde"]
    standing = plots.plot_mean_colors(levels, seven)
    assert {text.get_rotation() for text in get_texts(lying.xaxis)} == {0}
    assert {text.get_rotation() for text in get_texts(standing.xaxis)} == {90}
    assert standing.figure.get_figheight() > lying.figure.get_figheight() + 15 / 25.4  # no room is lost for the data
    widths = [plots.plot_mean_colors(levels, [*seven, *"fghijk"][:n]).figure.get_figwidth() for n in (12, 13)]
    assert widths == pytest.approx([85 / 25.4, 174 / 25.4])


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
    assert get_ticks(ax.xaxis) == get_ticks(ax.yaxis) == capitalize(order)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Predicted class", "True class")
    assert ax.get_title() == "Clean model (images)"
    assert ax.yaxis_inverted()  # the first class above


def test_the_classes_of_a_confusion_matrix_may_be_numbers(predict):
    table = predict(50, ("0", "1", "2"))
    numbers, names = (plots.plot_confusion_matrix(table, classes) for classes in (range(3), ["0", "1", "2"]))
    assert [text.get_text() for text in numbers.texts] == [text.get_text() for text in names.texts]
    assert get_ticks(numbers.xaxis) == ["0", "1", "2"]
    with pytest.raises(ValueError, match=r"y_true has \['2'\]: expected labels among \['0', '1'\]"):
        plots.plot_confusion_matrix(table, range(2))


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


def make_sure_predictions(class_names, right=460, wrong=12):
    """Make as many right predictions of each class, and as many of the next one instead."""
    y_true = np.repeat(class_names, right + wrong)
    y_pred = np.where(np.arange(len(y_true)) % (right + wrong) < right, y_true, np.roll(y_true, -right))
    return pd.DataFrame({"y_true": y_true, "y_pred": y_pred})


def assert_names_fit(ax):
    """The names of both axes lie beside one another and inside the figure."""
    left, bottom, right, _ = get_boxes(get_texts(ax.xaxis))
    assert (left[1:] > right[:-1]).all()
    assert bottom.min() > 0
    left, bottom, _, top = get_boxes(get_texts(ax.yaxis))
    assert (top[1:] < bottom[:-1]).all()
    assert left.min() > 0


@pytest.mark.usefixtures("printed")
@pytest.mark.parametrize("normalize", [False, True])
def test_a_confusion_matrix_of_38_classes_can_be_read(normalize):
    """Labels beside one another and inside the figure, counts inside their cells."""
    labels = list(PLANTS.class_labels.values())
    ax = plots.plot_confusion_matrix(make_sure_predictions(labels), labels, normalize)
    figure = ax.figure
    figure.canvas.draw()
    assert figure.get_figwidth() == pytest.approx(174 / 25.4)
    assert get_ticks(ax.xaxis) == get_ticks(ax.yaxis) == capitalize(labels)
    assert_names_fit(ax)
    assert min(text.get_fontsize() for text in get_texts(ax.xaxis) + get_texts(ax.yaxis)) >= 6
    shown = [text for text in ax.texts if text.get_text()]
    expected = ["97", "3"] if normalize else ["460", "12"]
    assert [text.get_text() for text in shown] == expected * 37 + expected[::-1]
    left, _, right, _ = get_boxes(shown)
    cell = ax.get_window_extent().width / 38
    assert ax.get_window_extent().height == pytest.approx(38 * cell, rel=0.05)
    assert (right - left).max() < cell
    assert min(text.get_fontsize() for text in shown) >= 6


@pytest.mark.usefixtures("printed")
@pytest.mark.parametrize("name", ["ham10000", "melanoma-isic", "leukemia"])
def test_readable_names_of_a_few_classes_fit_beside_their_matrix(name):
    """Below it they stand upright where one of them is wider than its cell, and have a line for each word or two."""
    labels = list(get_data_set(name).class_labels.values())
    ax = plots.plot_confusion_matrix(make_sure_predictions(labels), labels)
    ax.figure.canvas.draw()
    for axis in (ax.xaxis, ax.yaxis):
        assert [text.replace("\n", " ") for text in get_ticks(axis)] == capitalize(labels)
        assert max(len(line) for text in get_ticks(axis) for line in text.split("\n")) <= 14
    assert {text.get_rotation() for text in get_texts(ax.xaxis)} == {90 if name == "ham10000" else 0}
    assert_names_fit(ax)


@pytest.mark.parametrize(("count", "shown", "rotation"), [(12, ["97.5", "2.5"], 0), (13, ["97", "3"], 0)])
def test_above_twelve_classes_a_confusion_matrix_is_as_wide_as_the_page(count, shown, rotation):
    names = [f"c{number:02d}" for number in range(count)]
    table = make_sure_predictions(names, right=975, wrong=25) if count == 12 else make_sure_predictions(names, 97, 3)
    ax = plots.plot_confusion_matrix(table, names, normalize=True)
    assert [text.get_text() for text in ax.texts if text.get_text()][:2] == shown
    assert {text.get_rotation() for text in get_texts(ax.xaxis)} == {rotation}
    assert {text.get_rotation() for text in get_texts(ax.yaxis)} == {0}
    assert ax.figure.get_figwidth() == pytest.approx((85 if count == 12 else 174) / 25.4)


def test_metrics_are_drawn_as_points_with_intervals(scores):
    ax = plots.plot_metrics(scores, "macro_f1")
    points = [point for x, y in get_lines(ax) for point in zip(x, y, strict=True)]
    segments = get_segments(ax)
    for test_sets in scores.values():
        for place, table in enumerate(test_sets.values()):
            row = table.loc["macro_f1"]
            (height,) = {y for x, y in points if x == row["value"]}
            assert abs(height - place) < 0.5  # beside the name of its test set
            (segment,) = [s for s in segments if s[0, 1] == height]
            np.testing.assert_allclose(sorted(segment[:, 0]), [row["low"], row["high"]])
    assert get_ticks(ax.yaxis) == ["Test", "Style 1"]
    assert ax.get_xlabel() == "Macro F1 with 95 % interval"
    assert get_legend(ax) == ["clean", "mixed"]
    assert ax.yaxis_inverted()


def test_an_interval_beside_its_value_is_drawn_where_it_lies():
    """As the percentiles of resamples of a calibration error do."""
    table = pd.DataFrame({"value": [0.02], "low": [0.03], "high": [0.05]}, index=["expected_calibration_error"])
    ax = plots.plot_metrics({"clean": {"test": table}}, "expected_calibration_error")
    (segment,) = get_segments(ax)
    np.testing.assert_allclose(sorted(segment[:, 0]), [0.03, 0.05])


def test_values_without_an_interval_are_drawn_alone():
    """As those over a few groups are."""
    table = pd.DataFrame({"value": [0.5], "low": [np.nan], "high": [np.nan], "groups": [1]}, index=["accuracy"])
    axes = [
        plots.plot_metrics({"clean": {"test": table}}),
        plots.plot_intervals(table.assign(name="a"), "name", "share"),
    ]
    for ax in axes:
        assert 0.5 in [x for line in get_lines(ax) for x in line[0]]
        ax.figure.canvas.draw()


def test_robustness_is_a_line_and_a_band_for_each_model(curves):
    ax = plots.plot_robustness(curves, "rotation in degrees", limit=20)
    lines = get_lines(ax)
    assert ([0, 10, 25], [0.9, 0.7, 0.2]) in lines
    assert ([0, 10, 25], [0.8, 0.75, 0.6]) in lines
    assert [x for x, _ in lines].count([20, 20]) == 1  # the limit
    assert get_legend(ax) == ["clean", "mixed"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Rotation in degrees", "Accuracy")
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
    ax = plots.plot_calibration(calibration, title="mixed model", model="net")
    expected = (calibration["confidence"].tolist(), calibration["accuracy"].tolist())
    assert expected in get_lines(ax)
    assert ([0, 1], [0, 1]) in get_lines(ax)  # the diagonal
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("Mean confidence", "Accuracy", "Mixed model")
    assert get_legend(ax) == ["Calibrated", "net"]


def test_abstaining_is_a_line_and_a_band_for_each_model(predict):
    curves = {f"skill {skill}": compute_abstaining(predict(100, skill=skill), 20) for skill in (1, 2)}
    ax = plots.plot_abstaining(curves)
    assert get_lines(ax) == [(curve["answered"].tolist(), curve["accuracy"].tolist()) for curve in curves.values()]
    assert get_legend(ax) == list(curves)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Share of the images that are answered", "Accuracy of these")
    for band, curve in zip(ax.collections, curves.values(), strict=True):
        corners = {tuple(corner) for corner in band.get_paths()[0].vertices}
        assert {(1, curve.loc[0, "low"]), (1, curve.loc[0, "high"])} <= corners
    assert len({(line.get_linestyle(), line.get_marker()) for line in ax.get_lines()}) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_learning_curves(count):
    histories = {"clean": make_history(4, best=3), "mixed": make_history(6, scale=0.8)}
    histories = dict(list(histories.items())[:count])
    figure = plots.plot_learning_curves(histories)
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == [figure.number]
    for ax, quantity in zip(figure.axes, ("accuracy", "loss"), strict=True):
        lines = get_lines(ax)
        expected = []
        for history in histories.values():
            epochs = history.index.tolist()
            expected += [(epochs, history[quantity].tolist()), (epochs, history[f"val_{quantity}"].tolist())]
        expected.insert(2, ([3], [histories["clean"].loc[3, f"val_{quantity}"]]))
        assert lines == expected
        dashed = [line.get_linestyle() for line in ax.get_lines() if len(line.get_xdata()) > 1]
        assert dashed == ["--", "-"] * count
        assert ax.get_xlabel() == "Epoch"
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == [*(list(histories) if count == 2 else []), "Training", "Validation", "Kept epoch"]
    assert [ax.get_yscale() for ax in figure.axes] == ["linear", "log"]


def get_looks(ax):
    return {
        line.get_label(): (to_hex(line.get_color()), line.get_marker(), line.get_linestyle()) for line in ax.get_lines()
    }


@pytest.mark.usefixtures("printed")
def test_a_model_looks_the_same_in_all_figures(predict, scores, curves):
    histories = {name: make_history(4) for name in ("first", "clean", "mixed")}
    figure = plots.plot_learning_curves(histories)
    looks = {name: line.get_color() for name, line in zip(histories, figure.axes[0].get_lines()[::2], strict=True)}
    reverse = {"mixed": scores["mixed"], "clean": scores["clean"]}
    abstaining = {name: compute_abstaining(predict(50), 10) for name in reverse}
    roc = pd.concat([compute_roc(predict(50)).query("`class` == 'a'").assign(model=name) for name in reverse])
    for ax in (
        plots.plot_metrics(reverse),
        plots.plot_robustness(curves, "shift"),
        plots.plot_abstaining(abstaining),
        plots.plot_net_benefit(make_net_benefits(predict, reverse)),
        plots.plot_roc(roc),
    ):
        found = {label.partition(" (")[0]: color for label, (color, *_) in get_looks(ax).items()}
        assert found["clean"] == to_hex(looks["clean"])
        assert found["mixed"] == to_hex(looks["mixed"])
    fold = get_looks(plots.plot_metrics({"mixed, fold 1": scores["mixed"]}))
    assert fold["mixed, fold 1"][0] == to_hex(looks["mixed"])
    folds = get_looks(plots.plot_metrics({f"mixed, fold {number}": scores["mixed"] for number in (1, 2)}))
    assert len({color for color, *_ in folds.values()}) == 2
    plots.set_style()  # another notebook
    found = get_looks(plots.plot_metrics(reverse))
    assert found["mixed"][0] == to_hex(looks["first"])


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((0.52, 0.61), ["0.52", "0.54", "0.56", "0.58", "0.6"]),
        ((0.5, 2.2), ["0.5", "1", "1.5", "2"]),
        ((0.003, 1.5), ["0.005", "0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"]),
    ],
)
def test_losses_have_plain_numbers_at_their_ticks(losses, expected):
    history = make_history(2).assign(loss=losses, val_loss=losses)
    ax = plots.plot_learning_curves({"clean": history}).axes[1]
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    shown = [label.get_text() for label in ax.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert shown == expected
    assert not ax.get_yticks(minor=True).size


@pytest.mark.parametrize(("low", "high"), [(0.4, 0.78), (0.9951, 0.9978), (0.0, 1.0), (0.09, 1.0)])
def test_shares_at_the_ticks_of_metrics_do_not_touch(low, high):
    table = pd.DataFrame({"value": [(low + high) / 2], "low": [low], "high": [high]}, index=["accuracy"])
    ax = plots.plot_metrics({"clean": {"test": table}}, ax=plt.figure(figsize=(6, 3)).subplots())
    ax.figure.canvas.draw()
    assert not any(label.get_text().endswith(".0%") for label in ax.get_xticklabels())
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    left, right = ax.get_xlim()
    assert sum(left <= tick <= right for tick in ax.get_xticks()) >= 3
    assert all(left.x1 + 5 < right.x0 for left, right in pairwise(boxes))


def test_learning_curves_of_images_that_are_not_for_validation():
    figure = plots.plot_learning_curves({"clean": make_history(3, best=2)}, watched="held out")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Training", "Held out", "Kept epoch"]


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
        assert ax.get_title() == (titles[number].capitalize() if number < count else "")
        assert len(ax.get_images()) == (number < count)
        if number < count:
            np.testing.assert_array_equal(ax.get_images()[0].get_array(), images[number, ..., 0])
            assert ax.get_images()[0].get_clim() == (0, 255)  # grey levels are comparable between images
        assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    assert figure.get_suptitle() == "All of them"


def test_image_grid_grows_with_its_images():
    images = np.zeros((20, 10, 10, 1))
    small, wide, high, large = (
        plots.plot_image_grid(images[:4], columns=2),
        plots.plot_image_grid(images[:16], columns=8),
        plots.plot_image_grid(images[:8], columns=2),
        plots.plot_image_grid(images[:4], columns=2, size=32),
    )
    assert [figure.get_figwidth() * 25.4 for figure in (small, wide, high, large)] == pytest.approx([85, 174, 85, 85])
    sides = [figure.axes[0].get_position().width * figure.get_figwidth() * 25.4 for figure in (small, wide, large)]
    assert sides == pytest.approx([16, 16, 32])
    assert high.get_figheight() == pytest.approx(2 * small.get_figheight())
    titled = plots.plot_image_grid(images[:4], titles=["a\nb"] * 4, columns=2)
    assert titled.get_figheight() > small.get_figheight()
    assert plots.plot_image_grid(np.zeros((4, 20, 10, 1)), columns=2).get_figheight() > 1.6 * small.get_figheight()


def test_image_grid_is_no_wider_than_a_page():
    figure = plots.plot_image_grid(np.zeros((20, 10, 10, 1)), columns=10, row_labels=["a long label"] * 2, size=30)
    assert figure.get_figwidth() == pytest.approx(174 / 25.4)
    assert all(0 < ax.get_position().x0 < ax.get_position().x1 < 1 for ax in figure.axes)


def test_images_of_a_grid_may_differ_in_size():
    figure = plots.plot_image_grid([np.zeros((10, 20, 3)), np.full((5, 10, 3), 90)])
    assert [ax.get_images()[0].get_array().shape for ax in figure.axes] == [(10, 20, 3), (5, 10, 3)]
    assert len({ax.get_position().width for ax in figure.axes}) == 1


def test_image_grid_shows_colours_and_clips_floats():
    colour = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), "uint8")
    figure = plots.plot_image_grid(colour)
    np.testing.assert_array_equal(figure.axes[1].get_images()[0].get_array(), colour[1])
    altered = np.array([-20.0, 0, 100, 255, 300, 30]).reshape(1, 2, 3, 1)
    shown = plots.plot_image_grid(list(altered)).axes[0].get_images()[0].get_array()
    assert shown.ravel().tolist() == [0, 0, 100, 255, 255, 30]


def test_image_grid_labels_its_rows():
    figure = plots.plot_image_grid(np.zeros((6, 4, 4, 1)), columns=3, row_labels=["original", "altered"])
    assert [ax.get_ylabel() for ax in figure.axes] == ["Original", "", "", "Altered", "", ""]
    figure = plots.plot_image_grid(np.zeros((1, 4, 4, 1)), ["block1_conv"], row_labels=["layer_2"])
    assert (figure.axes[0].get_title(), figure.axes[0].get_ylabel()) == ("block1_conv", "layer_2")


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


def test_each_kind_of_layer_has_a_look_of_its_own_in_all_figures():
    """Those of all our networks, and two that none has yet."""
    kinds = ["InputLayer", *(kind for family in plots._LAYERS for kind in family), "LSTM", "Softmax"]
    table = pd.DataFrame({"layer": kinds, "kind": kinds, "output_shape": [(8, 8, 4)] * len(kinds)})
    bars = plots.plot_layers(table).patches
    looks = {kind: (to_hex(bar.get_facecolor()), bar.get_hatch()) for kind, bar in zip(kinds, bars, strict=True)}
    assert len(set(looks.values())) == len(kinds)
    known = [kind for kind in reversed(kinds) if kind not in ("LSTM", "Softmax")]
    bars = plots.plot_layers(table.set_index("kind", drop=False).loc[known[::2]]).patches
    for kind, bar in zip(known[::2], bars, strict=True):
        assert (to_hex(bar.get_facecolor()), bar.get_hatch()) == looks[kind]


def get_labelled_lines(ax):
    return {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}


def test_roc_curves(predict):
    roc = compute_roc(predict(120, ("b", "a", "c")))
    ax = plots.plot_roc(roc)
    lines = get_labelled_lines(ax)
    roc_aucs = roc.drop_duplicates("class").set_index("class")["roc_auc"]
    assert list(lines) == get_legend(ax) == [f"{name.upper()} ({roc_aucs[name]:.3f})" for name in "bac"]
    assert ax.get_legend().get_title().get_text() == "Class (ROC AUC)"
    for name, line in zip("bac", lines.values(), strict=True):
        curve = roc[roc["class"] == name]
        assert line.get_xdata().tolist() == curve["false_positive_rate"].tolist()
        assert line.get_ydata().tolist() == curve["true_positive_rate"].tolist()
    assert ([0, 1], [0, 1]) in get_lines(ax)  # chance
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("1 − specificity", "Sensitivity")


def test_seven_roc_curves_can_be_told_apart_without_colours(predict):
    ax = plots.plot_roc(compute_roc(predict(200, tuple("abcdefg"))))
    looks = {str(line._dash_pattern) for line in get_labelled_lines(ax).values()}  # get_linestyle calls all dashes "--"
    assert len(looks) == 7


def test_a_roc_curve_may_be_that_of_a_model(predict):
    curves = [compute_roc(predict(120, seed=seed)).query("`class` == 'a'") for seed in (0, 1)]
    ax = plots.plot_roc(pd.concat([curves[0].assign(model="net"), curves[1].assign(model="simple")]))
    assert get_legend(ax) == [
        f"{n} ({c['roc_auc'].iloc[0]:.3f})" for n, c in zip(("net", "simple"), curves, strict=True)
    ]
    assert ax.get_legend().get_title().get_text() == "Model (ROC AUC)"


def test_operating_points_stand_on_the_roc_curve(predict):
    table = predict(120)
    points = {"from validation": (0.9, 0.6), "balanced": (0.7, 0.8), "corrected": (0.7, 0.8)}
    ax = plots.plot_roc(compute_roc(table), points, title="Malignant against the rest")
    marks = list(get_labelled_lines(ax).values())[-3:]
    assert [(*mark.get_xdata(), *mark.get_ydata()) for mark in marks] == [
        pytest.approx(place) for place in ((0.1, 0.6), (0.3, 0.8), (0.3, 0.8))
    ]
    assert get_legend(ax)[-3:] == ["From validation", "Balanced", "Corrected"]
    assert ax.get_title() == "Malignant against the rest"
    # None hides another one at the same place.
    assert {mark.get_markerfacecolor() for mark in marks} == {"none"}
    assert len({mark.get_marker() for mark in marks}) == 3
    sizes = [mark.get_markersize() for mark in marks]
    assert all(large > small + 1 for large, small in pairwise(sizes))


def test_precision_recall_curves(predict):
    table = predict(120, ("b", "a", "c"))
    curves = compute_precision_recall(table)
    ax = plots.plot_precision_recall(curves, title="Curves")
    lines = get_labelled_lines(ax)
    about = curves.drop_duplicates("class").set_index("class")
    expected = [
        f"{name.upper()} ({about['average_precision'][name]:.2f} / {about['prevalence'][name]:.2f})" for name in "bac"
    ]
    assert list(lines) == get_legend(ax) == expected
    for name, line in zip("bac", lines.values(), strict=True):
        x, y = (np.asarray(data) for data in line.get_data())
        assert line.get_drawstyle() == "steps-post"
        drawn = -np.sum(np.diff(x) * y[:-1])  # from each point on, the line stays at its height
        assert drawn == pytest.approx(about["average_precision"][name])
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("Recall (sensitivity)", "Precision", "Curves")
    assert ax.get_ylim()[0] <= 0
    assert ax.get_ylim()[1] >= 1
    assert ax.get_legend().get_title().get_text() == "Class (average precision / chance)"


@pytest.mark.parametrize("draw_curves", ["roc", "precision_recall"])
def test_curves_of_many_classes_all_look_different(predict, draw_curves):
    names = [f"class {number}" for number in range(12)]
    table = predict(400, names)
    compute = {"roc": compute_roc, "precision_recall": compute_precision_recall}[draw_curves]
    lines = get_labelled_lines(getattr(plots, f"plot_{draw_curves}")(compute(table)))
    assert len(lines) == 12
    assert len({(to_hex(line.get_color()), line.get_linestyle()) for line in lines.values()}) == 12


def test_net_benefit_of_each_model_beside_all_and_none(predict):
    curves = make_net_benefits(predict)
    ax = plots.plot_net_benefit(curves)
    lines = get_labelled_lines(ax)
    assert list(lines) == get_legend(ax) == ["clean", "mixed", "Alarm for all", "Alarm for none"]
    for name, curve in curves.items():
        assert lines[name].get_xdata().tolist() == [0.1, 0.2, 0.4, 0.6]
        assert lines[name].get_ydata().tolist() == curve["model"].tolist()
    assert not np.array_equal(curves["clean"]["model"], curves["mixed"]["model"])
    assert lines["Alarm for all"].get_xdata().tolist() == [0.1, 0.2, 0.4, 0.6]
    assert lines["Alarm for all"].get_ydata().tolist() == curves["clean"]["all"].tolist()
    assert set(lines["Alarm for none"].get_ydata()) == {0}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Threshold on the probability", "Net benefit per image")
    assert ax.get_title() == "Decision curve"
    assert plots.plot_net_benefit(curves, title="Malignant").get_title() == "Malignant"


def test_the_best_model_gives_the_scale_of_the_net_benefit(predict):
    """However negative it is to treat everybody, the models stay in sight, from a little below 0 on."""
    curves = make_net_benefits(predict)
    curves["mixed"] = curves["mixed"].assign(model=curves["mixed"]["model"] / 2)
    best = max(curve["model"].max() for curve in curves.values())
    assert curves["clean"]["all"].min() < -0.15 * best
    low, high = plots.plot_net_benefit(curves).get_ylim()
    assert best < high < 1.2 * best
    assert -0.3 * best < low < 0


@pytest.mark.usefixtures("printed")
def test_net_benefits_of_many_models_all_look_different(predict):
    lines = get_labelled_lines(plots.plot_net_benefit(make_net_benefits(predict, [f"m{n}" for n in range(12)])))
    assert len(lines) == 14
    assert len({(to_hex(line.get_color()), line.get_linestyle()) for line in lines.values()}) == 14


@pytest.fixture
def intervals():
    table = {
        "name": ["face (12)", "back (40)", "ear (3)"],
        "value": [0.7, 0.8, 0.4],
        "low": [0.5, 0.75, 0.1],
        "high": [0.9, 0.86, 0.7],
        "majority_rate": [0.6, 0.85, 0.45],
    }
    return pd.DataFrame(table, index=[7, 1, 7])


def test_intervals_are_drawn_row_by_row(intervals):
    ax = plots.plot_intervals(intervals, "name", "accuracy", title="Subgroups")
    assert get_ticks(ax.yaxis) == ["Face (12)", "Back (40)", "Ear (3)"]
    assert ax.yaxis_inverted()  # the first row above
    assert get_lines(ax) == [([0.7, 0.8, 0.4], [0, 1, 2])]
    segments = [segment.tolist() for segment in get_segments(ax)]
    assert segments == [[[0.5, 0], [0.9, 0]], [[0.75, 1], [0.86, 1]], [[0.1, 2], [0.7, 2]]]
    assert (ax.get_xlabel(), ax.get_title()) == ("Accuracy", "Subgroups")
    assert ax.get_legend() is None


def test_values_can_be_compared_with_a_reference(intervals):
    ax = plots.plot_intervals(intervals, "name", "accuracy", reference="majority_rate")
    value, reference = ax.get_lines()
    assert reference.get_xdata().tolist() == [0.6, 0.85, 0.45]
    assert reference.get_ydata().tolist() == [0, 1, 2]
    assert reference.get_marker() == "|"
    assert get_legend(ax)[-1] == "Majority rate"
    assert to_hex(value.get_color()) != to_hex(reference.get_color())


def test_a_missing_interval_leaves_its_row_empty(intervals):
    intervals.iloc[1, 1:4] = np.nan
    ax = plots.plot_intervals(intervals, "name", "accuracy")
    ax.figure.canvas.draw()
    assert get_ticks(ax.yaxis) == ["Face (12)", "Back (40)", "Ear (3)"]


@pytest.mark.parametrize("channels", [1, 3])
def test_heatmaps_are_laid_over_images(channels):
    images = np.full((2, 2, 2, channels), 100, "uint8")
    heatmaps = np.array([[[0, 0.5], [1, 0]], [[0, 0], [0, 0]]], "float32")
    found = plots.overlay_heatmaps(images, heatmaps, strength=0.4)
    assert found.shape == (2, 2, 2, 3)
    assert found.dtype == np.uint8
    colors = np.array([plt.get_cmap("viridis")(float(heat))[:3] for heat in (0, 0.5, 1)]) * 255
    expected = 0.6 * 100 + 0.4 * colors
    np.testing.assert_allclose(found[0].reshape(-1, 3)[[0, 1, 2]], expected, atol=1)
    np.testing.assert_allclose(found[1].reshape(-1, 3), np.tile(expected[0], (4, 1)), atol=1)
    assert (images == 100).all()


def test_the_strength_of_a_heatmap_is_its_share():
    images = np.random.default_rng(0).integers(0, 256, (1, 5, 5, 3)).astype("uint8")
    heatmaps = np.linspace(0, 1, 25).reshape(1, 5, 5)
    np.testing.assert_array_equal(plots.overlay_heatmaps(images, heatmaps, 0), images)
    full = plots.overlay_heatmaps(images, heatmaps, 1)
    np.testing.assert_allclose(full, plt.get_cmap("viridis")(heatmaps)[..., :3] * 255, atol=1)
    np.testing.assert_array_equal(full, plots.overlay_heatmaps(255 - images, heatmaps, 1))


def test_overlays_fit_into_the_grid_of_images():
    images = np.zeros((3, 6, 6, 1), "uint8")
    figure = plots.plot_image_grid(plots.overlay_heatmaps(images, np.full((3, 6, 6), 0.5)))
    assert len(figure.axes) == 3
    assert figure.axes[0].get_images()[0].get_array().shape == (6, 6, 3)


def get_shape(points):
    return points.get_paths()[0].vertices.tobytes()


def test_embedded_points_have_the_colour_and_marker_of_their_label():
    points = np.random.default_rng(0).normal(size=(9, 2))
    labels = pd.Series(list("babcabbbb"), index=range(20, 11, -1))
    ax = plots.plot_embedding(points, labels, title="Features", legend_title="class")
    assert get_legend(ax) == ["A", "B", "C"]
    assert ax.get_legend().get_title().get_text() == "Class"
    for name, drawn in zip("abc", ax.collections, strict=True):
        np.testing.assert_array_equal(drawn.get_offsets(), points[labels.to_numpy() == name])
    assert len({to_hex(drawn.get_facecolor()[0]) for drawn in ax.collections}) == 3
    assert len({get_shape(drawn) for drawn in ax.collections}) == 3
    for handle, drawn in zip(ax.get_legend().legend_handles, ax.collections, strict=True):
        assert to_hex(handle.get_facecolor()[0]) == to_hex(drawn.get_facecolor()[0])
        assert get_shape(handle) == get_shape(drawn)
    order = sorted("abc", key=lambda name: ax.collections["abc".index(name)].get_zorder())
    assert order[0] == "b"  # the many do not hide the few
    assert (ax.get_title(), len(ax.get_xticks()), len(ax.get_yticks())) == ("Features", 0, 0)


def test_labels_of_points_keep_their_order_and_may_be_numbers():
    points = np.arange(6).reshape(3, 2)
    labels = pd.Categorical(["low", "high", "low"], categories=["low", "middle", "high"])
    assert get_legend(plots.plot_embedding(points, labels)) == ["Low", "High"]
    assert get_legend(plots.plot_embedding(points, [10, 2, 2])) == ["2", "10"]
    assert len(plots.plot_embedding(points, ["a", None, "b"]).collections) == 2


@pytest.mark.usefixtures("printed")
@pytest.mark.parametrize("count", [2, 12, 45])
def test_points_of_many_labels_can_be_told_apart(count):
    points = np.random.default_rng(0).normal(size=(3 * count, 2))
    ax = plots.plot_embedding(points, [f"subject {number % count:02d}" for number in range(3 * count)])
    looks = {(to_hex(drawn.get_facecolor()[0]), get_shape(drawn)) for drawn in ax.collections}
    assert len(looks) == count
    ax.figure.canvas.draw()
    legend, figure = ax.get_legend().get_window_extent(), ax.figure.bbox
    assert legend.y1 <= ax.get_window_extent().y0  # below the points, not above them
    assert figure.x0 <= legend.x0 < legend.x1 <= figure.x1
    assert legend.y0 >= figure.y0
    assert ax.get_window_extent().height > 50 / 25.4 * ax.figure.dpi  # the figure is higher instead


def test_many_points_are_small_and_few_are_large():
    sizes = [plots.plot_embedding(np.zeros((n, 2)), ["a"] * n).collections[0].get_sizes()[0] for n in (5, 1000, 50_000)]
    assert sizes[0] > sizes[1] > sizes[2] > 2


def test_points_and_labels_belong_together():
    for points in (np.zeros((3, 2)), np.zeros((2, 3)), np.zeros(2)):
        with pytest.raises(ValueError, match="do not belong to 2 labels"):
            plots.plot_embedding(points, ["a", "b"])


@pytest.fixture
def clusterings():
    table = {"method": ["k-means"] * 3 + ["hierarchical"] * 3, "clusters": [2, 4, 3] * 2}
    table |= {"silhouette": [0.5, 0.2, 0.3, 0.45, 0.1, 0.2]}
    table |= {"agreement_class": [0.9, 0.7, 0.8, 0.6, 0.4, 0.5], "agreement_group": [0.1, 0.0, 0.2, 0.05, -0.1, 0.0]}
    return pd.DataFrame(table)


def test_clusterings_are_lines_over_the_number_of_clusters(clusterings):
    figure = plots.plot_clusterings(clusterings, group_name="patient")
    assert isinstance(figure, Figure)
    (left, right), (legend,) = figure.axes, figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["K-means", "Hierarchical", "With the class", "With the patient"]
    methods = {method: part.sort_values("clusters") for method, part in clusterings.groupby("method", sort=False)}
    lines = zip(left.get_lines(), *(iter(right.get_lines()[:4]),) * 2, strict=True)
    for part, handle, (line, by_class, by_group) in zip(
        methods.values(), legend.legend_handles[:2], lines, strict=True
    ):
        for drawn, column in ((line, "silhouette"), (by_class, "agreement_class"), (by_group, "agreement_group")):
            assert drawn.get_xdata().tolist() == [2, 3, 4]
            assert drawn.get_ydata().tolist() == part[column].tolist()
        assert handle.get_color() == line.get_color() == by_class.get_color() == by_group.get_color()
        assert handle.get_marker() == line.get_marker() == by_class.get_marker() == by_group.get_marker()
        assert by_class.get_linestyle() != by_group.get_linestyle()
        assert by_class.get_markerfacecolor() != by_group.get_markerfacecolor()
    assert len({line.get_marker() for line in left.get_lines()}) == 2
    assert len({to_hex(line.get_color()) for line in left.get_lines()}) == 2
    assert [ax.get_ylabel() for ax in figure.axes] == ["Silhouette", "Adjusted Rand index"]
    assert {ax.get_xlabel() for ax in figure.axes} == {"Number of clusters"}
    figure.canvas.draw()
    assert all(float(tick) == int(tick) for tick in right.get_xticks())


def make_corruptions(**last):
    """Draw up curves of several corruptions that fall from 0.9 to a last value each."""
    rows = [(name, step, "net", 0.9 + (end - 0.9) * step / 5) for name, end in last.items() for step in range(6)]
    return pd.DataFrame(rows, columns=["corruption", "severity", "model", "value"])


def test_corruptions_have_a_thick_mean_and_name_the_most_harmful():
    ax = plots.plot_corruptions(make_corruptions(noise=0.2, blur=0.5, light=0.8), chance=0.25)
    (thick,) = [line for line in ax.get_lines() if line.get_linewidth() > 1.5]
    assert thick.get_ydata().tolist() == pytest.approx(np.linspace(0.9, 0.5, 6).tolist())
    assert get_legend(ax) == ["net, mean of 3", "Guessing"]
    assert [0.25, 0.25] in [list(line.get_ydata()) for line in ax.get_lines()]
    assert {text.get_text(): round(text.xy[1], 2) for text in ax.texts} == {"Noise": 0.2, "Blur": 0.5}


def test_names_of_corruptions_that_end_alike_do_not_overlap():
    ax = plots.plot_corruptions(make_corruptions(noise=0.21, blur=0.2, light=0.8))
    ax.figure.draw_without_rendering()
    assert [text.get_text() for text in ax.texts] == ["Blur", "Noise"]
    (_, low, _, _), (_, _, _, high) = (Text.get_window_extent(text).extents for text in reversed(ax.texts))
    assert high < low


def test_choices_stand_beside_what_was_best():
    table = pd.DataFrame({"chosen": [0.7, 0.3], "best": [0.4, 0.6]}, index=["net", "simple"])
    ax = plots.plot_choice(table)
    assert [bar.get_width() for bar in ax.patches] == [0.7, 0.3, 0.4, 0.6]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["net", "simple"]
    assert get_legend(ax) == ["Chosen on one half", "Best on the other half"]


def test_occlusion_is_a_line_for_each_way_to_cover():
    ax = plots.plot_occlusion(OCCLUDED)
    assert get_lines(ax) == [([0.0, 0.2], [0.9, 0.8]), ([0.0, 0.2], [0.5, 0.7]), ([0, 1], [0.5, 0.5])]
    assert get_legend(ax) == ["Border covered", "Middle covered", "Guessing"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Width", "ROC AUC")


def make_shortcuts():
    """Draw up two shortcuts, of which the second rests on too few groups for an interval."""
    rows = [("border", 0.7, 0.6, 0.8, 0.85, 0.75, 0.92), ("file", 0.6, np.nan, np.nan, 0.9, np.nan, np.nan)]
    return pd.DataFrame(rows, columns=["shortcut", "value", "low", "high", "left_value", "left_low", "left_high"])


def test_shortcuts_stand_above_what_is_left_and_are_hollow_without_an_interval():
    ax = plots.plot_shortcuts(make_shortcuts(), 0.9)
    single = [line for line in ax.get_lines() if len(line.get_xdata()) == 1]
    points = {(line.get_xdata()[0], line.get_markerfacecolor() == "none") for line in single}
    assert points == {(0.7, False), (0.6, True), (0.85, False), (0.9, True)}
    names = ["Shortcut", "Model, shortcut balanced away", "Model"]
    assert get_legend(ax) == [*names[:2], "Too few groups for an interval", "Model"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Border", "File"]
    assert get_legend(plots.plot_shortcuts(make_shortcuts().head(1), 0.9)) == names
