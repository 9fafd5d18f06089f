"""Print: as wide as a column or a page each figure has type that can be read; nothing overlaps, nothing is cut off."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from helpers.data.catalog import get_data_set
from helpers.evaluation import plots
from helpers.evaluation.calibration import compute_abstaining, compute_calibration
from helpers.evaluation.layout import find_page
from helpers.evaluation.scores import compute_precision_recall, compute_roc
from helpers.evaluation.thresholds import compute_net_benefit, score_group_of_classes

# seaborn draws boxes with an old argument of Matplotlib's.
pytestmark = pytest.mark.filterwarnings("ignore:vert.*was deprecated:DeprecationWarning")

CLASSES = {
    name: list(get_data_set(name).class_labels.values())
    for name in ("mnist", "ham10000", "chest-xray", "melanoma-isic", "plants", "leukemia")
}
MODELS = ["cnn 28x28", "cnn 160x120", "cnn 28x28 weighted", "frozen", "fine tuned", "shortcut features", "average"]
CORRUPTIONS = ["gaussian noise", "elastic transform", "jpeg compression", "low resolution", "contrast"]


@pytest.fixture(autouse=True)
def printed():
    with plt.rc_context():
        plots.set_style()
        yield


@cache
def make_images(name):
    """Make up a table of images of a data set, its first class the most frequent."""
    names, rng = CLASSES[name], np.random.default_rng(0)
    labels = np.repeat(names, np.linspace(400, 40, len(names)).astype(int))
    images = pd.DataFrame(rng.integers(30, 220, (len(labels), 3)), columns=["red", "green", "blue"])
    images["label"], images["part"] = labels, rng.choice(["train", "validation", "test"], len(labels))
    images["sex"], images["age"] = (
        rng.choice(["female", "male", "unknown"], len(labels)),
        rng.integers(5, 90, len(labels)),
    )
    images["width"] = rng.choice([600, 640, 1024, 1060], len(labels))
    images["height"] = images["width"] * 3 // 4
    return images


@cache
def make_predictions(name, count=4000):
    """Make up predictions of which most are right."""
    names, rng = np.array(CLASSES[name]), np.random.default_rng(0)
    true = rng.integers(0, len(names), count)
    y_prob = rng.dirichlet(np.ones(len(names)), count) + 1.2 * rng.random((count, 1)) * np.eye(len(names))[true]
    y_prob /= y_prob.sum(1, keepdims=True)
    table = pd.DataFrame({"image_id": np.arange(count), "group": np.arange(count), "y_true": names[true]})
    table["y_pred"], table["confidence"] = names[y_prob.argmax(1)], y_prob.max(1)
    return table.assign(**{f"p_{name}": y_prob[:, code] for code, name in enumerate(names)})


def make_scores(models=MODELS):
    parts = ("test", "test_equal_prior", "style_1")
    table = pd.DataFrame({"value": [0.8, 0.7], "low": [0.75, 0.66], "high": [0.84, 0.75]})
    table.index = ["accuracy", "balanced_accuracy"]
    return {model: dict.fromkeys(parts, table - 0.05 * n) for n, model in enumerate(models)}


def make_curves(models=MODELS):
    rows = [(s, m, 0.9 - 0.01 * s - 0.05 * n) for n, m in enumerate(models) for s in range(0, 41, 10)]
    table = pd.DataFrame(rows, columns=["strength", "model", "value"])
    return table.assign(low=table["value"] - 0.03, high=table["value"] + 0.02)


def make_corruptions():
    rows = [(c, s, 0.95 - s * (0.17 - 0.004 * n)) for n, c in enumerate(CORRUPTIONS) for s in range(6)]
    return pd.DataFrame(rows, columns=["corruption", "severity", "value"]).assign(model="fine tuned, calibrated")


def make_histories(models=MODELS):
    epochs = pd.RangeIndex(1, 31, name="epoch")
    histories = {}
    for number, model in enumerate(models):
        loss = 2 / np.sqrt(epochs + number)
        history = {"loss": loss, "val_loss": 1.1 * loss, "accuracy": 1 - loss / 4, "val_accuracy": 0.98 - loss / 4}
        histories[model] = pd.DataFrame(history, index=epochs)
        histories[model].attrs["best_epoch"] = 30 - number
    return histories


def make_shortcuts():
    names = ["size", "brightness", "mean colour", "border pixels", "file", "all shortcuts"]
    table = pd.DataFrame({"shortcut": names, "value": 0.7, "low": 0.65, "high": 0.75})
    table = table.assign(left_value=0.9, left_low=0.85, left_high=0.93)
    table.loc[4, ["low", "high"]] = np.nan
    return table


def make_layers():
    kinds = [k for kinds in (("InputLayer",), *plots._LAYERS) for k in kinds if k not in ("Dense", "Flatten")] * 2
    sides = np.linspace(160, 10, len(kinds)).astype(int) // 10 * 10
    shapes = [(int(side), int(side), 16 * 2 ** (n // 8)) for n, side in enumerate(sides)]
    kinds, shapes = [*kinds, "Flatten", "Dense"], [*shapes, (4096,), (7,)]
    return pd.DataFrame({"layer": [f"layer {n}" for n in range(len(kinds))], "kind": kinds, "output_shape": shapes})


def make_study():
    levels = {
        "depth": ["2 blocks", "3 blocks", "4 blocks"],
        "activation": ["ReLU", "ELU", "leaky ReLU", "swish"],
        "normalization": ["none", "batch", "layer"],
        "filters": ["8, 16, 32", "16, 32, 64", "32, 64, 128"],
        "augmentation": ["none", "flips", "flips and rotations", "flips, rotations and brightness"],
    }
    rows = [
        (f, level, seed, 0.7 + 0.01 * seed, 0.65) for f, found in levels.items() for level in found for seed in (1, 2)
    ]
    return pd.DataFrame(rows, columns=["factor", "level", "seed", "validation_roc_auc", "test_roc_auc"])


def make_clusterings():
    rows = [
        (m, k, 0.5 - k / 40, 0.8 - k / 30, 0.1)
        for m in ("k-means", "hierarchical", "gaussian mixture")
        for k in range(2, 9)
    ]
    return pd.DataFrame(rows, columns=["method", "clusters", "silhouette", "agreement_class", "agreement_group"])


def make_intervals():
    names = [
        "all (1,450)",
        "sex: female (712)",
        "age: from 40 to below 60 (390)",
        "localization: lower extremity (402)",
    ]
    return pd.DataFrame({"name": names, "value": 0.8, "low": 0.7, "high": 0.9, "majority_rate": 0.75})


def make_distances():
    kinds = ["test", "mnist", "chest-xray", "melanoma", "plants", "leukemia", "blank", "noise", "document", "inverted"]
    return pd.DataFrame({"kind": np.repeat(kinds, 30), "distance": np.geomspace(0.2, 90, 300)})


def make_net_benefits():
    score = score_group_of_classes(make_predictions("chest-xray", 300), ["pneumonia"])
    curve = compute_net_benefit(score, np.linspace(0.02, 0.95, 30))
    return {name: curve.assign(model=curve["model"] - 0.03 * n) for n, name in enumerate(MODELS)}


def make_model_roc():
    roc = compute_roc(make_predictions("chest-xray", 300)).query("`class` == 'pneumonia'")
    return pd.concat([roc.assign(model=name) for name in MODELS])


POINTS = {
    "default threshold": (0.9, 0.8),
    "most probable class": (0.9, 0.8),
    "sensitivity of 95 % in validation": (0.89, 0.81),
    "prior corrected": (0.9, 0.8),
}


def draw_twelve():
    names, table = CLASSES["plants"][-12:], make_predictions("plants", 10000)
    return plots.plot_confusion_matrix(table[table[["y_true", "y_pred"]].isin(names).all(axis=1)], names)


def draw_counts(name, **options):
    horizontal = len(CLASSES[name]) > 12
    return plots.plot_counts(make_images(name), "label", CLASSES[name], horizontal=horizontal, **options)


def draw_image_grid():
    titles = [f"{name}\n→ dermatofibroma\n97 %" for name in CLASSES["ham10000"]]
    images = np.zeros((14, 12, 16, 3))
    return plots.plot_image_grid(images, titles, 7, ["test images", "nearest"], size=22, title="Errors")


def draw_panels(draw, rows, columns, height=None, **shared):
    figure, axes = plots.make_panels(rows, columns, height=height, **shared)
    for ax in axes:
        draw(ax)
    return figure


FIGURES = {
    **{f"counts: {name}": (lambda name=name: draw_counts(name)) for name in CLASSES},
    **{f"counts: {name}, by part": (lambda name=name: draw_counts(name, by="part")) for name in ("mnist", "plants")},
    "counts: of numbers": lambda: plots.plot_counts(make_images("mnist"), "width", title="Lesions by number of images"),
    "distribution": lambda: plots.plot_distribution(make_images("ham10000"), "age", binwidth=5, xlabel="age in years"),
    "distribution: by sex": lambda: plots.plot_distribution(make_images("ham10000"), "age", "sex", binwidth=5),
    "distribution: seven panels": lambda: draw_panels(
        lambda ax: plots.plot_distribution(
            make_images("ham10000"), "age", binwidth=5, title="basal cell carcinoma", ax=ax
        ),
        *(2, 4, 90),
        sharex=True,
        count=7,
    ),
    "boxes": lambda: plots.plot_boxes(
        make_images("ham10000"),
        "label",
        "age",
        "sex",
        CLASSES["ham10000"],
        "age in years",
        "Age by class and sex",
    ),
    "distances": lambda: plots.plot_distances(make_distances()),
    "distances: of one decade": lambda: plots.plot_distances(make_distances().query("distance < 7")),
    "image_sizes": lambda: plots.plot_image_sizes(make_images("chest-xray"), "label"),
    **{
        f"mean_colors: {name}": (lambda name=name: plots.plot_mean_colors(make_images(name), CLASSES[name]))
        for name in ("ham10000", "leukemia", "plants")
    },
    "image_grid": draw_image_grid,
    "learning_curves: one": lambda: plots.plot_learning_curves(make_histories(["cnn"])),
    "learning_curves": lambda: plots.plot_learning_curves(make_histories(), "held out"),
    **{
        f"confusion_matrix: {name}": (
            lambda name=name: plots.plot_confusion_matrix(make_predictions(name, 10000), CLASSES[name])
        )
        for name in ("mnist", "ham10000", "chest-xray", "plants")
    },
    "confusion_matrix: 12 plants": draw_twelve,
    "confusion_matrix: two panels": lambda: draw_panels(
        lambda ax: plots.plot_confusion_matrix(make_predictions("ham10000"), CLASSES["ham10000"], True, ax=ax), 1, 2, 90
    ),
    "metrics": lambda: plots.plot_metrics(make_scores()),
    "metrics: two panels": lambda: draw_panels(
        lambda ax: plots.plot_metrics(make_scores(), "balanced_accuracy", ax=ax), 1, 2, 75, sharey=True
    ),
    "robustness": lambda: plots.plot_robustness(make_curves(), "rotation in degrees", limit=20),
    "robustness: three panels": lambda: draw_panels(
        lambda ax: plots.plot_robustness(make_curves(MODELS[:2]), "side of the canvas in pixels", ax=ax),
        *(1, 3),
        sharey=True,
    ),
    "corruptions": lambda: plots.plot_corruptions(make_corruptions(), 0.14),
    "occlusion": lambda: plots.plot_occlusion(
        pd.DataFrame({"border covered": [0.9, 0.7], "middle covered": [0.6, 0.7]}, [0.1, 0.4]).rename_axis(
            "width of the border as a share of the side"
        )
    ),
    "shortcuts": lambda: plots.plot_shortcuts(make_shortcuts(), 0.93),
    "choice": lambda: plots.plot_choice(pd.DataFrame({"chosen": 0.2, "best": 0.1}, MODELS)),
    "calibration": lambda: plots.plot_calibration(
        compute_calibration(make_predictions("ham10000", 300)), model="cnn 28x28 weighted"
    ),
    "abstaining": lambda: plots.plot_abstaining(
        {name: compute_abstaining(make_predictions("ham10000", 300), 10) for name in MODELS}
    ),
    "roc": lambda: plots.plot_roc(compute_roc(make_predictions("ham10000", 300))),
    "roc: of models": lambda: plots.plot_roc(make_model_roc(), POINTS, "Pneumonia against normal, test folder"),
    "precision_recall": lambda: plots.plot_precision_recall(
        compute_precision_recall(make_predictions("ham10000", 300))
    ),
    "net_benefit": lambda: plots.plot_net_benefit(make_net_benefits()),
    "intervals": lambda: plots.plot_intervals(make_intervals(), "name", "Sensitivity with 95 % interval"),
    "intervals: with reference": lambda: plots.plot_intervals(
        make_intervals(), "name", "Accuracy with 95 % interval", "majority_rate", "Subgroups"
    ),
    "effects": lambda: plots.plot_effects(make_study(), ["validation_roc_auc", "test_roc_auc"]),
    "embedding": lambda: plots.plot_embedding(
        np.random.default_rng(0).normal(size=(420, 2)), CLASSES["ham10000"] * 60, "Small network, by class", "class"
    ),
    "embedding: subjects": lambda: plots.plot_embedding(
        np.random.default_rng(0).normal(size=(400, 2)), [f"H{n % 40}" for n in range(400)], legend_title="subject"
    ),
    "clusterings": lambda: plots.plot_clusterings(make_clusterings()),
    "layers": lambda: plots.plot_layers(make_layers()),
}


def find_texts(figure):
    """Find the texts that are drawn: no empty ones, and no numbers of ticks outside of the axes."""
    hidden = set()
    for ax in figure.axes:
        for axis, place in ((ax.xaxis, 0), (ax.yaxis, 1)):
            low, high = sorted(axis.get_view_interval())
            labels = axis.get_ticklabels()
            shown = [ax.axison and low <= label.get_position()[place] <= high for label in labels]
            hidden.update(label for label, is_shown in zip(labels, shown, strict=True) if not is_shown)
            hidden.update([] if ax.axison else [axis.label])
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text() and text not in hidden]


def find_overlaps(texts, boxes):
    """Find pairs of texts whose boxes overlap by more than a pixel."""
    left, bottom, right, top = boxes
    wide = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)
    high = np.minimum(top[:, None], top) - np.maximum(bottom[:, None], bottom)
    first, second = np.nonzero(np.triu((wide > 1) & (high > 1), 1))
    return [(texts[i].get_text(), texts[j].get_text()) for i, j in zip(first, second, strict=True)]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_can_be_read_in_print(name):
    drawn = FIGURES[name]()
    figure = getattr(drawn, "figure", drawn)
    figure.draw_without_rendering()
    width, height = (side * 25.4 for side in figure.get_size_inches())
    assert width == pytest.approx(85) or width == pytest.approx(174)
    assert height < 240
    texts = find_texts(figure)
    boxes = np.array([Text.get_window_extent(text).extents for text in texts]).T
    smallest = 6 if name == "confusion_matrix: plants" else 7
    assert [text.get_text() for text in texts if text.get_fontsize() < smallest] == []
    assert find_overlaps(texts, boxes) == []
    left, bottom, right, top = boxes
    outside = (left < 0) | (bottom < 0) | (right > figure.bbox.x1) | (top > figure.bbox.y1)
    assert [text.get_text() for text, is_outside in zip(texts, outside, strict=True) if is_outside] == []
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    for legend, ax in ((legend, ax) for legend in legends for ax in figure.axes):  # none covers data
        assert not legend.get_window_extent().overlaps(ax.get_window_extent())


def test_every_function_is_drawn_above():
    functions = {name for name in vars(plots) if name.startswith("plot_")}
    assert functions == {f"plot_{name.partition(':')[0]}" for name in FIGURES}


def test_pages_are_as_wide_as_printed_and_a_mark_stands_above():
    figure = FIGURES["calibration"]().figure
    height = figure.get_figheight()
    figure.text(0.01, 1, "drawn sample", va="bottom")
    page = find_page(figure)
    assert page.width == pytest.approx(85 / 25.4)
    assert height + 0.05 < page.height < height + 0.2
    places = [ax.get_position().bounds for ax in figure.axes]
    figure.draw_without_rendering()
    assert [ax.get_position().bounds for ax in figure.axes] == places  # laid out once


def test_fonts_are_embedded_as_publishers_ask_for(tmp_path):
    names = CLASSES["plants"][:13]
    table = pd.DataFrame({"y_true": names, "y_pred": names})
    plots.plot_confusion_matrix(table, names).figure.savefig(tmp_path / "figure.pdf")  # has a font for its numbers
    content = (tmp_path / "figure.pdf").read_bytes()
    assert b"/CIDFontType2" in content
    assert b"/Type3" not in content


def test_the_same_figure_is_the_same_svg(tmp_path):
    for number in (1, 2):
        FIGURES["roc"]().figure.savefig(tmp_path / f"{number}.svg", metadata={"Date": None})
    first, second = ((tmp_path / f"{number}.svg").read_bytes() for number in (1, 2))
    assert first == second
    assert b"<text" not in first  # letters are outlines
