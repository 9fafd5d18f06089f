"""Language: every text of a figure has French, and a figure in French is the same figure with other words."""

import ast
import csv
import json
import re
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, ScalarFormatter

from helpers.data.catalog import list_data_sets
from helpers.evaluation import language, plots
from helpers.evaluation.corruptions import KINDS, MOVEMENTS
from helpers.evaluation.language import find_untranslated, translate, translate_figure
from helpers.evaluation.report import Report
from helpers.settings import read_settings

PROJECT = Path(__file__).parents[2]
TABLE = Path(language.__file__).with_name("french.csv")
LABELS = ("title", "xlabel", "ylabel", "label", "legend_title", "row_labels", "titles", "labels")
SETTERS = ("set_title", "set_xlabel", "set_ylabel", "annotate", "text", "suptitle", "finish")


@pytest.mark.parametrize(
    ("english", "french"),
    [
        ("sensitivity", "sensibilité"),
        ("Confusion matrix", "Matrice de confusion"),
        ("accuracy", "exactitude"),
        ("Tomato: early blight", "Tomate : alternariose"),
        ("balanced_accuracy with 95 % interval", "exactitude équilibrée, intervalle à 95 %"),
        ("melanoma: ROC AUC 0.957", "mélanome : AUC 0,957"),
        ("fine tuned exposure, kept epoch", "affiné avec exposition, époque retenue"),
        ("Fine-tuned, fold 2", "Affiné, pli 2"),
        ("Malignant against the rest", "Malin contre le reste"),
        ("trunk (1,203)", "tronc (1 203)"),
        ("age: 45 to 59 (6)", "âge : 45 à 59 (6)"),
        ("nevus (0.99 / 0.65)", "nævus (0,99 / 0,65)"),
        ("average at 0.5", "moyenne au seuil 0,5"),
        ("melanoma?", "mélanome ?"),
        ("H23, leukemic", "H23, leucémique"),
        ("resnet18 (0.918)", "ResNet-18 (0,918)"),
        ("melanoma\n(123)", "mélanome\n(123)"),
        ("actinic\nkeratosis\n→ basal cell\ncarcinoma\n87%", "kératose\nactinique\n→ carcinome\nbasocellulaire\n87 %"),
        ("shot noise\nmotion blur", "bruit de grenaille\nflou de bougé"),
    ],
)
def test_names_labels_and_titles_are_translated(english, french):
    assert re.sub("[\u00a0\u202f]", " ", translate(english)) == french


@pytest.mark.parametrize(
    ("english", "french"),
    [
        ("0.05", "0,05"),
        ("12,345", "12\u202f345"),
        ("1,234,567.8", "1\u202f234\u202f567,8"),
        ("−0.5", "−0,5"),
        ("87.5%", "87,5\u202f%"),
        ("8 × 8", "8 × 8"),
        ("28x28", "28x28"),
        ("1.5", "1,5"),
        ("as_in_mnist.png", "as_in_mnist.png"),
        ("$\\mathdefault{10^{-1.5}}$", "$\\mathdefault{10^{-1.5}}$"),
        ("", ""),
    ],
)
def test_numbers_have_a_decimal_comma_and_codes_stay(english, french):
    assert translate(english) == french


def test_what_the_table_lacks_stays_english_without_an_error():
    assert translate("a purple elephant") == "a purple elephant"
    assert translate("elephant: ROC AUC 0.5") == "elephant\u00a0: AUC 0,5"
    figure, ax = plt.subplots()
    ax.set(title="A purple elephant", xlabel="accuracy")
    assert find_untranslated(figure) == ["A purple elephant"]


@pytest.fixture
def figure():
    figure, (left, right) = plt.subplots(1, 2, sharey=True)
    left.plot([0, 1], [0.25, 0.75], label="frozen, training")
    left.bar(["melanoma", "nevus"], [0.2, 0.5])
    left.legend(title="model")
    left.set(title="Confusion matrix", xlabel="Class", ylabel="Accuracy")
    right.annotate("shot noise", (0.5, 0.5))
    right.set(xticks=[0, 1], xticklabels=["benign", "malignant"])
    right.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    figure.suptitle("Abstaining")
    return figure


def read_texts(figure):
    figure.canvas.draw()
    return {text.get_text() for text in figure.findobj(Text) if text.get_text()}


def test_all_kinds_of_text_of_a_figure_are_translated(figure):
    before = read_texts(figure)
    assert {"frozen, training", "melanoma", "benign", "shot noise", "Abstaining"} <= before
    assert find_untranslated(figure) == []
    translate_figure(figure)
    texts = read_texts(figure)
    assert len(texts) == len(before)
    assert texts == {translate(text) for text in before}
    assert {"gelé, entraînement", "mélanome", "bénin", "bruit de grenaille", "Abstention", "modèle"} <= texts
    assert "20\u202f%" in texts


def test_ticks_are_translated_when_the_axis_changes_and_data_stay(figure):
    ax = figure.axes[0]
    data = ax.lines[0].get_xydata().tolist()
    ax.yaxis.set_major_formatter(ScalarFormatter())
    translate_figure(figure)
    ax.set_ylim(0, 12)
    ax.set_yticks([2.5, 10])
    assert {"2,5", "10,0"} <= read_texts(figure)
    assert ax.lines[0].get_xydata().tolist() == data


def test_a_figure_is_translated_once(figure):
    """Otherwise 1,234, which is 1.234 in French, would become 1 234."""
    figure.axes[1].annotate("1.234", (0.1, 0.1))
    translate_figure(figure)
    texts = read_texts(figure)
    translate_figure(figure)
    assert read_texts(figure) == texts
    assert "1,234" in texts


def test_french_figures_are_as_wide_as_english_ones():
    """Though their words are longer: names stand upright, and legends have fewer columns."""
    images = pd.DataFrame({"part": ["all", "leaky", "mixed", "test", "train", "valid"]})
    rows = [("cnn exposure", name, s, 0.9 - 0.1 * s) for name in ("gaussian noise", "shot noise") for s in range(6)]
    curves = pd.DataFrame(rows, columns=["model", "corruption", "severity", "value"])
    with plt.rc_context():
        plots.set_style()
        for ax in (plots.plot_counts(images, "part"), plots.plot_corruptions(curves)):
            translate_figure(ax.figure)
            ax.figure.draw_without_rendering()
            box = ax.figure.get_tightbbox()
            assert box.x0 > -0.05
            assert box.x1 < ax.figure.get_figwidth() + 0.05
            assert box.y0 > -0.05
            ends = [label.get_window_extent() for label in ax.get_xticklabels()]
            assert all(first.x1 < second.x0 for first, second in pairwise(ends))


@pytest.mark.parametrize("chosen", ["en", "fr"])
def test_french_figures_lie_beside_the_english_ones(figure, chosen, tmp_path):
    settings = read_settings({"NOTEBOOK_LANGUAGE": chosen})
    Report("01_mnist", settings, is_sample=True, figures_folder=tmp_path).save_figure(figure, "drawn", alt="Drawn.")
    names = {path.name for path in (tmp_path / "sample" / "01_mnist").iterdir()}
    middle = ".fr" if chosen == "fr" else ""
    assert {f"drawn{middle}.{ending}" for ending in ("png", "pdf", "svg")} <= names
    assert not any((".fr." in name) != (chosen == "fr") for name in names if name.startswith("drawn"))
    assert ("échantillon dessiné" in read_texts(figure)) == (chosen == "fr")


def test_the_table_is_written_as_it_is_looked_up():
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = [(row["english"], row["french"]) for row in csv.DictReader(file)]
    english = [row[0] for row in rows]
    assert sorted(english) == sorted(set(english))
    for first, second in rows:
        assert first == " ".join(first.casefold().split()) or "{}" in first
        assert first.count("{}") == second.count("{}")
        assert second
        assert second == second.strip()
        assert not re.search(r"[\w)][:;?!%]|['\u00a0\u202f]", second.replace("{}", "x")), second


def test_every_class_and_corruption_and_sample_has_french():
    names = [name for record in list_data_sets() for name in record.class_labels.values()]
    names += [record.sample for record in list_data_sets()] + [record.name for record in list_data_sets()]
    names += [name for kind in KINDS.values() for name in kind] + list(MOVEMENTS)
    assert find_missing(names) == []


def find_missing(texts):
    figure = plt.figure()
    for text in texts:
        figure.text(0, 0, text)
    return find_untranslated(figure)


def collect_texts(source):
    """Collect what a program writes into figures: the labels, titles and names that stand in it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            pairs = zip(reversed(node.args.args), reversed(node.args.defaults), strict=False)
            found += [default for argument, default in pairs if argument.arg in LABELS]
        if isinstance(node, ast.Call):
            found += [keyword.value for keyword in node.keywords if keyword.arg in LABELS]
            function = getattr(node.func, "attr", getattr(node.func, "id", ""))
            found += node.args if function in SETTERS or function.startswith("plot_") else []
    texts = []
    for node in found:
        nodes = node.elts if isinstance(node, ast.List | ast.Tuple) else [node]
        texts += [_read(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr)]
    return sorted({text for text in texts if isinstance(text, str)})


def _read(node):
    """Read a text; what is computed is a number."""
    if isinstance(node, ast.Constant):
        return node.value
    return "".join(part.value if isinstance(part, ast.Constant) else "1" for part in ast.iter_child_nodes(node))


SOURCES = sorted((PROJECT / "notebooks").glob("0[1-6]*.ipynb"))
SOURCES += [PROJECT / "helpers" / "evaluation" / "plots.py", PROJECT / "helpers" / "review.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_text_that_is_written_into_figures_has_french(path):
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(source)["cells"] if cell["cell_type"] == "code"]
        source = "\n".join("".join(cell["source"]) for cell in cells)
    texts = collect_texts(source)
    assert len(texts) >= 5
    assert find_missing(texts) == []
