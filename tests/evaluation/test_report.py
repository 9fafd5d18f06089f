"""Reports: exported whole or not at all, to the folder that the run deserves."""

import errno
import io
import json
import platform
import re
import zlib
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fontTools.ttLib import TTFont
from matplotlib.figure import Figure
from PIL import Image

from helpers.evaluation import report as module
from helpers.evaluation.report import (
    Report,
    describe_difference,
    format_difference,
    format_metric,
    format_percent,
    format_value,
    tabulate_intervals,
    tabulate_scores,
)
from helpers.evaluation.scores import compute_metrics
from helpers.files import WriteError
from helpers.settings import PROJECT_FOLDER, read_settings


@pytest.fixture
def make(tmp_path):
    def make(mode="full", is_sample=False, notebook="01_mnist"):
        return Report(notebook, read_settings({"NOTEBOOK_MODE": mode, "SEED": "7"}), is_sample, tmp_path / "figures")

    return make


@pytest.fixture
def figure():
    """Make a figure of 3 x 2 inches that its Axes fill."""
    figure = plt.figure(figsize=(3, 2), layout="none")
    figure.add_axes([0, 0, 1, 1], xticks=[], yticks=[]).plot([0, 1], [0, 1])
    return figure


@pytest.fixture
def scores(predict):
    return {name: compute_metrics(predict(60, seed=seed), 20) for seed, name in enumerate(["test", "style_1"])}


def list_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("mode", "is_sample", "expected"),
    [
        ("full", False, "01_mnist"),
        ("quick", False, "quick/01_mnist"),
        ("full", True, "sample/01_mnist"),
        ("quick", True, "sample/01_mnist"),
    ],
)
@pytest.mark.parametrize("shows_images", [False, True])
def test_what_is_exported_goes_to_its_folder(make, figure, scores, tmp_path, mode, is_sample, expected, shows_images):
    report = make(mode, is_sample)
    assert report.folder == tmp_path / "figures" / expected
    report.save_figure(figure, "drawn", shows_images=shows_images)
    report.save_table(pd.DataFrame({"a": [1]}), "table")
    report.save_results({}, "protocol")
    place = f"{expected}/images" if shows_images and not is_sample else expected
    files = [f"{place}/drawn.{ending}" for ending in ("png", "pdf", "svg")]
    assert list_files(tmp_path / "figures") == sorted([*files, f"{expected}/table.csv", f"{expected}/results.json"])


def test_reports_go_to_the_projects_figures_by_default():
    report = Report("02_other", read_settings({"NOTEBOOK_MODE": "full"}), is_sample=False)
    assert report.folder == PROJECT_FOLDER / "figures" / "02_other"


@pytest.mark.parametrize("given", ["figure", "axes"])
def test_figures_are_exported_for_print(make, figure, given):
    report = make()
    assert report.save_figure(figure if given == "figure" else figure.axes[0], "drawn") is figure
    with Image.open(report.folder / "drawn.png") as image:
        assert image.format == "PNG"
        assert min(image.info["dpi"]) >= 299.9
        assert 900 <= image.width <= 990  # 3 inches and the padding
        assert 600 <= image.height <= 690
        assert np.asarray(image.convert("L")).std() > 1
    pdf = (report.folder / "drawn.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")
    svg = ElementTree.parse(report.folder / "drawn.svg").getroot()
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    assert 216 <= float(svg.get("width").removesuffix("pt")) <= 238


def test_fonts_in_a_pdf_have_letters_and_no_tables_for_laying_out_text(make, figure, monkeypatch):
    monkeypatch.setitem(plt.rcParams, "pdf.fonttype", 42)  # as in `set_style`
    report = make()
    figure.text(0.5, 0.5, "letters")
    report.save_figure(figure, "drawn")
    pdf = (report.folder / "drawn.pdf").read_bytes()
    streams = [zlib.decompress(part) for part in re.findall(rb"stream\r?\n(x.*?)\r?\nendstream", pdf, re.DOTALL)]
    (font,) = [TTFont(io.BytesIO(stream)) for stream in streams if stream.startswith(b"\0\1\0\0")]
    assert len(font.getGlyphOrder()) > 3
    assert not {"GDEF", "GPOS", "GSUB"} & set(font.keys())


def test_many_points_and_cells_are_one_picture_in_vector_files(make):
    report, sizes = make(), {}
    rng = np.random.default_rng(0)
    for count in (100, 4000):
        figure, axes = plt.subplots(1, 3, layout="none")
        axes[0].scatter(*rng.random((2, count)))
        axes[1].pcolormesh(rng.random((10, count // 10)))
        axes[2].plot(rng.random(count), "o")
        axes[2].plot(rng.random(count))
        report.save_figure(figure, "drawn")
        sizes[count] = [(report.folder / f"drawn.{ending}").stat().st_size for ending in ("pdf", "svg")]
        pictures = (report.folder / "drawn.svg").read_text().count("<image")
        assert pictures == (3 if count == 4000 else 0)
    assert max(sizes[4000]) < 500_000


def test_the_same_figure_gives_the_same_files(make, figure, monkeypatch):
    report = make()
    contents = []
    monkeypatch.setitem(plt.rcParams, "svg.hashsalt", "figures")  # as in `set_style`
    for time in ("1", "1000000000"):  # what Matplotlib takes for now
        monkeypatch.setenv("SOURCE_DATE_EPOCH", time)
        report.save_figure(figure, "drawn")
        contents.append([(report.folder / f"drawn.{ending}").read_bytes() for ending in ("png", "pdf", "svg")])
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("mode", "is_sample", "marks"),
    [
        ("full", False, []),
        ("quick", False, ["quick run"]),
        ("quick", True, ["drawn sample"]),
        ("full", True, ["drawn sample"]),
    ],
)
def test_figures_that_are_not_of_a_full_run_say_so_once(make, figure, monkeypatch, mode, is_sample, marks):
    """In the files and on the screen, also where a figure is exported twice."""
    written = []
    savefig = Figure.savefig

    def watch(self, *args, **kwargs):
        written.append([text.get_text() for text in self.texts])
        savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", watch)
    for _ in range(2):
        make(mode, is_sample).save_figure(figure, "drawn")
    assert written == [marks] * 6
    assert [text.get_text() for text in figure.texts] == marks


def test_figures_of_the_sample_look_different(make, figure):
    pixels = []
    for is_sample in (False, True):
        report = make(is_sample=is_sample)
        report.save_figure(figure, "drawn")
        with Image.open(report.folder / "drawn.png") as image:
            pixels.append(np.asarray(image.convert("L")))
    assert pixels[0].shape != pixels[1].shape or (pixels[0] != pixels[1]).any()


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
@pytest.mark.parametrize("is_sample", [False, True])
def test_a_failing_export_leaves_the_old_files(make, figure, monkeypatch, ending, is_sample):
    report = make(is_sample=is_sample)
    report.save_figure(figure, "drawn")
    before = {path: path.read_bytes() for path in report.folder.iterdir()}
    savefig = Figure.savefig

    def fail(self, path, **kwargs):
        if path.suffix != f".{ending}":
            return savefig(self, path, **kwargs)
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    figure.axes[0].plot([0, 1], [1, 0])
    with pytest.raises(OSError, match="No space left"):
        report.save_figure(figure, "drawn")
    assert set(report.folder.iterdir()) == set(before)
    unchanged = report.folder / f"drawn.{ending}"
    assert unchanged.read_bytes() == before[unchanged]


def test_tables(make):
    table = pd.DataFrame({"name": ["a", "b"], "value": [1 / 3, 123456.789], "count": [1234567, 2]}, index=[9, 8])
    report = make()
    report.save_table(table, "table")
    assert (report.folder / "table.csv").read_text() == "name,value,count\na,0.3333,1234567\nb,123456.789,2\n"
    report.save_table(table, "table", decimals=2)
    assert (report.folder / "table.csv").read_text().splitlines()[1] == "a,0.33,1234567"
    report.save_table(table, "table", decimals=None)
    assert (report.folder / "table.csv").read_text().splitlines()[1] == "a,0.3333333333333333,1234567"
    assert list_files(report.folder) == ["table.csv"]


def test_cells_that_a_spreadsheet_would_run_and_bytes_that_are_no_text_are_written_harmlessly(make):
    table = pd.DataFrame({"file": ["=1+1", "caf\udce9", "é"], "value": np.float32([-0.5, 0.1, 1])})
    report = make()
    report.save_table(table.assign(kind=pd.Categorical(["@", "b", "b"])), "table")
    text = (report.folder / "table.csv").read_text(encoding="utf-8")
    assert text == "file,value,kind\n'=1+1,-0.5,'@\ncaf\\udce9,0.1,b\né,1.0,b\n"


def test_tables_of_the_sample_say_so(make):
    table = pd.DataFrame({"value": [1, 2]})
    report = make(is_sample=True)
    report.save_table(table, "table")
    assert pd.read_csv(report.folder / "table.csv")["source"].tolist() == ["drawn sample"] * 2
    assert list(table.columns) == ["value"]


def read_strictly(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_results(make, scores):
    report = make()
    scores["test"].loc["roc_auc"] = np.nan
    cost = {"epochs": np.int64(3), "cpu_minutes": np.float32(1.5), "wall_minutes": np.inf}
    report.add_result("cnn_clean", scores, cost, train={"accuracy": np.float64(0.75), "loss": np.nan})
    report.add_result("cnn_mixed", {"test": scores["style_1"]})
    data = {"images": np.int64(60), "groups": 59, "source": "local", "fingerprint": "sha256:0"}
    returned = report.save_results(data, protocol="shipped test set")
    written = read_strictly(report.folder / "results.json")
    assert written == returned
    assert list(written) == [
        *("notebook", "mode", "sample", "seed", "data", "protocol", "results", "test_set_opened"),
        *("peak_memory_mb", "versions", "cpu", "cores"),
    ]
    assert [written[key] for key in ("notebook", "mode", "sample", "seed")] == ["01_mnist", "full", False, 7]
    assert written["data"] == {"images": 60, "groups": 59, "source": "local", "fingerprint": "sha256:0"}
    assert written["protocol"] == "shipped test set"
    assert set(written["versions"]) == {"python", "tensorflow", "keras", "numpy", "pandas", "scikit-learn", "pillow"}
    assert written["versions"]["numpy"] == np.__version__
    assert 20 < written["peak_memory_mb"] < 50_000
    assert written["cores"] >= 1
    assert written["cpu"]

    clean = written["results"]["cnn_clean"]
    assert list(clean) == ["test", "style_1", "train", "cost"]
    assert clean["test"]["accuracy"] == scores["test"].loc["accuracy"].to_dict()
    assert clean["test"]["roc_auc"] == {"value": None, "low": None, "high": None, "groups": None}
    assert clean["style_1"]["accuracy"]["groups"] == 60
    assert clean["train"] == {"accuracy": {"value": 0.75}, "loss": {"value": None}}
    assert clean["cost"] == {"epochs": 3, "cpu_minutes": 1.5, "wall_minutes": None}
    assert list(written["results"]["cnn_mixed"]) == ["test"]


def test_runs_that_open_the_test_sets_are_counted(make):
    """Those of each kind on their own; a cell that is run twice counts once."""
    opened = []
    for mode in ("full", "full", "quick", "full"):
        report = make(mode)
        opened.append([report.save_results({}, "")["test_set_opened"] for _ in range(2)])
    assert opened == [[1, 1], [2, 2], [1, 1], [3, 3]]


def test_results_from_before_the_runs_were_counted_count_as_none(make):
    report = make()
    report.save_results({}, "")
    path = report.folder / "results.json"
    path.write_text(json.dumps({"notebook": "01_mnist"}))
    assert make().save_results({}, "")["test_set_opened"] == 1


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_results_that_are_broken_do_not_stop_the_run_that_writes_new_ones(make, content):
    report = make()
    report.folder.mkdir(parents=True)
    (report.folder / "results.json").write_text(content)
    assert report.save_results({}, "")["test_set_opened"] == 1
    assert read_strictly(report.folder / "results.json")["test_set_opened"] == 1


@pytest.mark.parametrize("kind", ["full", "read-only"])
@pytest.mark.parametrize(
    ("write", "files"),
    [
        (lambda report, figure: report.save_figure(figure, "drawn"), ["drawn.pdf", "drawn.png", "drawn.svg"]),
        (lambda report, figure: report.save_table(pd.DataFrame({"a": range(2000)}), "a/table"), ["a/table.csv"]),
        (lambda report, figure: report.save_results({"images": "1" * 5000}, ""), ["results.json"]),
    ],
)
def test_what_the_disk_refuses_is_named_and_what_was_there_stays(small_disk, figure, kind, write, files):
    report = Report("01_mnist", read_settings({"NOTEBOOK_MODE": "full"}), False, small_disk.folder)
    write(report, figure)
    before = {name: (report.folder / name).read_bytes() for name in list_files(report.folder)}
    small_disk.fill() if kind == "full" else small_disk.protect()
    report = Report("01_mnist", report.settings, False, small_disk.folder)
    with pytest.raises(WriteError, match=r"cannot be written \((No space left|Read-only)") as caught:
        write(report, figure)
    message = str(caught.value)
    assert any(message.startswith(f"{report.folder / name} ") for name in files)
    assert "\n" not in message
    assert {name: (report.folder / name).read_bytes() for name in list_files(report.folder)} == before


def test_results_of_the_sample_say_so(make):
    assert make(is_sample=True).save_results({}, "")["sample"] is True
    assert make("quick").save_results({}, "")["mode"] == "quick"


def test_interrupted_results_leave_the_old_ones(make, monkeypatch):
    report = make()
    report.save_results({"images": 1}, "first")
    before = (report.folder / "results.json").read_bytes()

    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.json, "dumps", fail)
    with pytest.raises(KeyboardInterrupt):
        report.save_results({"images": 2}, "second")
    assert (report.folder / "results.json").read_bytes() == before
    assert list_files(report.folder) == ["results.json"]


def test_reports_do_not_share_results(make, scores):
    first, second = make(), make()
    first.add_result("cnn", scores)
    assert second.save_results({}, "")["results"] == {}


def test_percent():
    assert format_percent({"value": 0.99571, "low": 0.9938, "high": 0.99744}) == "99.57 % (99.38 to 99.74)"
    assert format_percent(pd.Series({"value": 1.0, "low": 0.5, "high": 1.0})) == "100.00 % (50.00 to 100.00)"


def test_percent_with_fewer_decimals():
    metric = {"value": 0.99573, "low": 0.9938, "high": 0.99741}
    assert format_percent(metric, digits=1) == "99.6 % (99.4 to 99.7)"


def test_value():
    metric = {"value": 0.9567, "low": 0.9481, "high": 0.9666}
    assert format_value(metric) == "0.957 (0.948 to 0.967)"
    assert format_value(pd.Series(metric), digits=1) == "1.0 (0.9 to 1.0)"


@pytest.mark.parametrize("missing", [None, np.nan])
def test_without_an_interval_the_number_of_groups_is_told(missing):
    metric = {"value": 0.8909, "low": missing, "high": missing, "groups": 1}
    assert format_percent(metric) == "89.09 % (1 group: no interval)"
    assert format_percent(pd.Series(metric | {"groups": 4})) == "89.09 % (4 groups: no interval)"
    assert format_value(metric) == "0.891 (1 group: no interval)"
    assert format_difference(metric) == "+0.891 (1 group: no interval)"
    assert format_value({"value": 0.5, "low": missing, "high": missing}) == "0.500 (no interval)"
    expected = "Accuracy: too few groups to tell frozen from scratch (+0.891; 1 group)."
    assert describe_difference("frozen", "scratch", metric, "accuracy") == expected
    enough = {"value": 0.5, "low": missing, "high": missing, "groups": 5}
    assert format_value(enough) == "0.500 (no interval)"  # not drawn, or resamples that are all the same
    assert format_value(metric | {"value": np.nan}) == "nan (no interval)"
    expected = "Accuracy: no interval to tell frozen from scratch (+0.500)."
    assert describe_difference("frozen", "scratch", enough, "accuracy") == expected


def test_results_over_too_few_groups_show_no_interval(make, predict):
    table = predict(60, groups=np.arange(60) % 3)
    report = make()
    report.add_result("cnn", {"test": compute_metrics(table, 20)})
    written = report.save_results({}, "")
    metric = written["results"]["cnn"]["test"]["accuracy"]
    assert (metric["low"], metric["high"], metric["groups"]) == (None, None, 3)
    assert tabulate_scores({"cnn": {"test": compute_metrics(table, 20)}}).iloc[0, 0] == format_percent(metric)


@pytest.mark.parametrize(("platform", "unit"), [("linux", 2**10), ("darwin", 2**20)])
def test_peak_memory_has_the_unit_of_the_system(monkeypatch, platform, unit):
    """Linux counts in KiB, macOS in bytes."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(module.sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=300 * unit))
    assert module.measure_peak_memory() == 300


def test_difference():
    metric = {"value": 0.0121, "low": -0.0031, "high": 0.0269}
    assert format_difference(metric) == "+0.012 (−0.003 to +0.027)"
    assert format_difference(pd.Series(metric), digits=2) == "+0.01 (−0.00 to +0.03)"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.012, 0.05, "better than scratch (+0.031, +0.012 to +0.050)"),
        (-0.05, -0.012, "worse than scratch (−0.031, −0.050 to −0.012)"),
        (-0.012, 0.05, "not distinguishable from scratch (+0.031, −0.012 to +0.050)"),
        (0.0, 0.05, "not distinguishable from scratch (+0.031, +0.000 to +0.050)"),
    ],
)
def test_a_difference_is_a_sentence(low, high, expected):
    row = pd.Series({"value": np.copysign(0.031, high), "low": low, "high": high})
    assert describe_difference("frozen", "scratch", row, "roc_auc") == f"ROC AUC: frozen is {expected}."
    assert describe_difference("frozen", "scratch", row, "balanced_accuracy").startswith("Balanced accuracy: frozen is")


def test_scores_side_by_side(scores):
    table = tabulate_scores({"clean": scores, "mixed": {"test": scores["style_1"]}}, names=("macro_f1", "accuracy"))
    assert table.index.tolist() == [("clean", "test"), ("clean", "style_1"), ("mixed", "test")]
    assert table.index.names == ["model", "test set"]
    assert table.columns.tolist() == ["macro F1", "accuracy"]
    assert table.loc[("clean", "test"), "accuracy"] == format_percent(scores["test"].loc["accuracy"])
    assert table.loc[("mixed", "test"), "macro F1"] == format_percent(scores["style_1"].loc["macro_f1"])


def test_scores_have_the_unit_that_fits_them(scores):
    row = tabulate_scores({"clean": scores}).loc[("clean", "test")]
    assert list(row.index) == ["accuracy", "balanced accuracy", "macro F1", "ROC AUC", "ECE"]
    auc = scores["test"].loc["roc_auc"]
    assert row["ROC AUC"] == f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"
    assert row["macro F1"] == format_percent(scores["test"].loc["macro_f1"])
    assert row["ECE"] == format_value(scores["test"].loc["expected_calibration_error"])
    assert format_metric("expected_calibration_error", {"value": 0.0312}) == "0.031"  # of a run without an interval


def test_tables_are_made_readable():
    table = pd.DataFrame(
        {
            "model": ["net", "tree"],
            "value": [0.91234, np.nan],
            "low": [0.8, np.nan],
            "high": [0.95, np.nan],
            "groups": [40, 3],
            "left_value": [0.7, 0.6],
            "left_low": [np.nan, 0.5],
            "left_high": [np.nan, 0.7],
            "left_groups": [3, 9],
            "images": [120.0, 7.0],
            "ms_one": [0.123456, np.nan],
        }
    )
    shown = tabulate_intervals(table)
    assert shown.index.tolist() == ["net", "tree"]
    assert shown.columns.tolist() == ["value", "left value", "images", "ms one"]
    assert shown.loc["net"].tolist() == ["0.912 (0.800 to 0.950)", "0.700 (3 groups: no interval)", "120", "0.123"]
    assert shown.loc["tree"].tolist() == ["", "0.600 (0.500 to 0.700)", "7", ""]
    assert table["value"].iloc[0] == 0.91234  # the table itself stays


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "model name\t: A B\ncpu family\t: 26\nflags\t\t: fpu avx512_bf16\n\nmodel name\t: A C\n",
            "A B, family 26, avx512_bf16",
        ),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", platform.machine()),
    ],
)
def test_the_processor_is_named_with_what_decides_its_speed(monkeypatch, text, name):
    monkeypatch.setattr(module.Path, "read_text", lambda path: text)
    assert module.describe_processor() == name
