"""Report: the only module that writes what a run found, each file complete or not there.

A full run on real images exports to ``figures/<notebook>/``, everything else to folders that git ignores:
``figures/sample/<notebook>/`` for the built-in sample, ``figures/quick/<notebook>/`` for quick runs on real images.
"""

import json
import logging
import math
import os
import platform
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from pandas.api.types import is_numeric_dtype

from helpers.evaluation.alt_text import write_alt_text
from helpers.evaluation.bootstrap import FEWEST_GROUPS
from helpers.evaluation.drawing import describe_figure, list_tables
from helpers.evaluation.language import translate_figure
from helpers.evaluation.layout import DPI, find_page
from helpers.files import InputError, guard_cell, hold_lock, replace_atomically
from helpers.parallel import list_bfloat16_units
from helpers.settings import PROJECT_FOLDER, Settings

FIGURES_FOLDER = PROJECT_FOLDER / "figures"
FIGURES_FILE, TABLES_FOLDER = "figures.json", "tables"  # in the folder of a run: what its figures were drawn from
FORMATS = ("png", "pdf", "svg")  # of figures
_MOST_PARTS = 500  # points or cells that a PDF or SVG draws one by one
_TITLES = {
    "roc_auc": "ROC AUC",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "expected_calibration_error": "ECE",
}
_PACKAGES = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn", "pillow")
_exported = defaultdict(set)  # names of figures by folder: a kernel that opens a data set twice makes two reports of it
_found = {}  # by folder, the figures that it described when this kernel exported the first one


@dataclass
class Report:
    """Collects and exports the results of one run of a notebook, such as ``01_mnist``; those of a sample say so."""

    notebook: str
    settings: Settings
    is_sample: bool
    figures_folder: Path = FIGURES_FOLDER
    sample: str = "drawn sample"  # what a sample is called
    _results: dict = field(default_factory=dict)
    _opened: int = 0

    @property
    def mark(self) -> str:
        """What figures, tables and sentences of this run are marked with; those of a full run are not."""
        return self.sample if self.is_sample else "quick run" if self.settings.quick else ""

    @property
    def place(self) -> Path:
        """Relative folder for this kind of run, so that none overwrites another's: such as ``sample/01_mnist``."""
        kind = "sample" if self.is_sample else "quick" if self.settings.quick else ""
        return Path(kind) / self.notebook

    @property
    def folder(self) -> Path:
        """The folder that this run exports to."""
        return self.figures_folder / self.place

    def save_figure(self, figure, name, shows_images=False, alt=""):
        """Export a figure, or that of Axes, as PNG, PDF and SVG, and return it.

        What it was drawn from is written, too: tables in the subfolder ``tables/``, and how to draw them in
        ``figures.json``, from which `helpers.evaluation.redraw` draws it again. Figures that show pixels of images are
        not drawn again. Those of real images go to the subfolder ``images/``, which git ignores, because most data sets
        may not be passed on. The files carry what the figure shows in words, ``alt``, by default that of
        `helpers.evaluation.alt_text.write_alt_text`.
        """
        figure = getattr(figure, "figure", figure)
        entry, tables = (None, {}) if shows_images else describe_figure(figure, name)
        folder = self.folder / "images" if shows_images and not self.is_sample else self.folder
        save_picture(figure, folder, name, self.mark, alt, self.settings.language)
        with self._lock_figures():
            for table_name, table in tables.items():
                self.save_table(table, f"{TABLES_FOLDER}/{table_name}", decimals=None)
            exported, before = _exported[self.folder.resolve()], self._read_figures()
            figures = dict(before)  # a run of some cells keeps what it does not draw
            if entry is None or name not in exported:  # in the order of this run, in which models got their colours
                figures.pop(name, None)
            if entry is not None:
                figures[name] = entry | ({"alt": alt} if alt else {})
            exported.add(name)
            self._write_figures(before, figures)
        return figure

    def _lock_figures(self):
        """Wait until no other process changes which figures the folder describes, and keep others from it."""
        return hold_lock(self.folder / FIGURES_FILE, wait=True)

    def _read_figures(self):
        """Read the figures that the folder describes; there are none where the file is missing or broken."""
        figures = _read_json(self.folder / FIGURES_FILE).get("figures")
        figures = figures if isinstance(figures, dict) else {}
        _found.setdefault(self.folder.resolve(), figures)
        return figures

    def _write_figures(self, before, figures):
        """Write the figures that the folder describes, unless they are those from before."""
        if list(figures.items()) == list(before.items()):
            return
        with replace_atomically(self.folder / FIGURES_FILE) as unfinished:
            text = json.dumps({"mark": self.mark, "figures": figures}, indent=1, ensure_ascii=False)
            unfinished.write_text(text + "\n", encoding="utf-8")

    def _drop_stale_figures(self):
        """Forget older figures that this kernel has not exported, and delete the tables that no figure needs any more.

        What another process has exported in the meantime stays.
        """
        place = self.folder.resolve()
        with self._lock_figures():
            before = self._read_figures()
            figures = {
                name: about
                for name, about in before.items()
                if name in _exported[place] or about != _found[place].get(name)
            }
            self._write_figures(before, figures)
            needed = list_tables(figures)
            for path in (self.folder / TABLES_FOLDER).glob("*.csv"):
                if path.stem not in needed:
                    path.unlink()

    def save_table(self, table, name, decimals=4):
        """Export a DataFrame as CSV; that of a sample has a column that says so.

        Numbers are rounded, unless ``decimals`` are None. Texts that a spreadsheet would run are guarded by
        `helpers.files.guard_cell`; bytes of names that are no UTF-8 are written as escapes.
        """
        if self.is_sample:
            table = table.assign(source=self.mark)
        table = table if decimals is None else table.round(decimals)
        table = table.apply(lambda column: column if is_numeric_dtype(column) else column.map(guard_cell))
        with replace_atomically(self.folder / f"{name}.csv") as unfinished:
            table.rename(columns=guard_cell).to_csv(unfinished, index=False, errors="backslashreplace")

    def add_result(self, model, test_sets, cost=None, train=None):
        """Add the metrics of a model: for each test set a table of `helpers.evaluation.scores.compute_metrics`.

        ``cost`` is a dict such as ``epochs, wall_minutes, cpu_minutes, parameters, precision``; ``train`` is one of the
        metrics on the training images.
        """
        entry = self._results[model] = {name: _plain(table.to_dict("index")) for name, table in test_sets.items()}
        if train is not None:
            entry["train"] = {name: {"value": value} for name, value in _plain(train).items()}
        if cost is not None:
            entry["cost"] = _plain(cost)

    def save_results(self, data, protocol):
        """Write ``results.json``, from which all tables of results are made, and return what was written.

        ``data`` is a dict ``images, groups, source, fingerprint``; ``protocol`` says how the images were split and the
        model chosen. ``test_set_opened`` counts the runs of this kind that have scored the test sets. The run is now
        complete: ``figures.json`` and ``tables/`` lose what is older and what this kernel has not exported.
        """
        path = self.folder / "results.json"
        with hold_lock(path, wait=True):
            if not self._opened:  # so that a cell that is run twice counts once
                self._opened = _read_json(path).get("test_set_opened", 0) + 1
            results = {
                "notebook": self.notebook,
                "mode": self.settings.mode,
                "sample": self.is_sample,
                "seed": self.settings.seed,
                "data": _plain(data),
                "protocol": protocol,
                "results": self._results,
                "test_set_opened": self._opened,
                "peak_memory_mb": measure_peak_memory(),
                "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
                "cpu": describe_processor(),
                "cores": os.cpu_count(),
            }
            with replace_atomically(path) as unfinished:
                unfinished.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        self._drop_stale_figures()
        return results


def _read_json(path):
    """Read a file that holds a dict; an empty one where the file is missing or broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def save_picture(figure, folder, name, mark="", alt="", language="en"):
    """Write a figure with its mark to a folder as PNG (300 dpi), PDF and SVG, the same bytes whenever it is the same.

    In French, "fr", its files end in ``.fr.png`` and so on, so that they overwrite no others.
    """
    if mark and not any(text.get_gid() == "mark" for text in figure.texts):
        look = {"ha": "left", "va": "bottom", "fontsize": 7, "color": "#555555"}
        figure.text(0.01, 1, mark, gid="mark", **look)
    for ax in figure.axes:
        for collection in ax.collections:
            collection.set_rasterized(_count_parts(collection) > _MOST_PARTS)
        for line in ax.lines:
            line.set_rasterized(line.get_marker() not in ("", "None", None) and len(line.get_xdata()) > _MOST_PARTS)
    figure.alt = alt = alt or write_alt_text(figure)  # `Experiment.show` needs it, too
    if language == "fr":
        translate_figure(figure)
        name = f"{name}.fr"
    about = {
        "png": {"Software": None, "Description": alt},
        "pdf": {"CreationDate": None, "Subject": alt},
        "svg": {"Date": None, "Description": alt},
    }
    page = find_page(figure)  # laid out once: all files take it as it is
    _embed_less()
    figure.png = Path(folder, f"{name}.png")  # of which the screen gets a smaller one
    with plt.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)  # otherwise each file would be drawn twice, the first time in vain
        for ending in FORMATS:
            with replace_atomically(folder / f"{name}.{ending}") as unfinished:
                figure.savefig(unfinished, dpi=DPI, bbox_inches=page, metadata=about[ending])


def _embed_less():
    """Let fonts in PDFs have no tables for laying out text: they are not used there, and take most of the time."""
    from fontTools import subset

    logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns of the date in a font of Matplotlib
    left_out = {*subset.Options._drop_tables_default, "GDEF", "GPOS", "GSUB"}
    subset.Options._drop_tables_default = sorted(left_out)


def _count_parts(collection):
    """Count what a collection of points, cells or areas draws."""
    array = collection.get_array()
    return max(len(collection.get_offsets()), 0 if array is None else array.size)


def tabulate_scores(
    scores, names=("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "expected_calibration_error")
):
    """Set the metrics of several models and test sets side by side, as a DataFrame of text.

    ``scores`` has for each model and each of its test sets a table of `helpers.evaluation.scores.compute_metrics`.
    """
    known = [name for test_sets in scores.values() for table in test_sets.values() for name in table.index]
    if unknown := set(names) - set(known):
        raise InputError(f"No such metric: {', '.join(sorted(unknown))}. Known: {', '.join(dict.fromkeys(known))}.")
    rows = {
        (model, test_set): {get_title(name): format_metric(name, table.loc[name]) for name in names}
        for model, test_sets in scores.items()
        for test_set, table in test_sets.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["model", "test set"])


def tabulate_intervals(table):
    """Make a table of numbers readable: ``value, low, high, groups`` become one text, three digits, titles of words.

    The same is done for columns whose names begin with ``left_``. The first column becomes the index, and missing
    numbers are empty.
    """
    shown = table.copy()
    for prefix in ("", "left_"):
        columns = [f"{prefix}{name}" for name in ("value", "low", "high", "groups")]
        if set(columns) <= set(shown):
            rows = shown[columns].set_axis(["value", "low", "high", "groups"], axis=1)
            shown[columns[0]] = ["" if _lacks(row["value"]) else format_value(row) for _, row in rows.iterrows()]
            shown = shown.drop(columns=columns[1:])
    for name in shown.select_dtypes("number"):
        whole = (shown[name].dropna() % 1 == 0).all()
        shown[name] = [("" if _lacks(v) else f"{v:.0f}" if whole else f"{v:.3g}") for v in shown[name]]
    shown.columns = [get_title(name) for name in shown.columns]
    return shown.set_index(shown.columns[0])


def format_percent(metric, digits=2):
    """Format a metric as per cent with its interval, such as ``99.57 % (99.38 to 99.74)``.

    Where there is no interval because the groups are too few, it says so: ``89.09 % (1 group: no interval)``.
    """
    interval = _describe_interval(metric, lambda value: f"{100 * value:.{digits}f}")
    return f"{100 * metric['value']:.{digits}f} % ({interval})"


def format_value(metric, digits=3):
    """Format a metric with its interval as `format_percent` does, such as ``0.957 (0.948 to 0.967)``."""
    return f"{metric['value']:.{digits}f} ({_describe_interval(metric, lambda value: f'{value:.{digits}f}')})"


def format_difference(metric, digits=3):
    """Format a difference of metrics with its interval, such as ``+0.012 (−0.003 to +0.027)``."""
    return f"{format_sign(metric['value'], digits)} ({_describe_interval(metric, partial(format_sign, digits=digits))})"


def describe_difference(first, second, metric_row, name):
    """Say in a sentence whether a model is better than another one by a metric, of which more is better.

    ``metric_row`` is a row of `helpers.evaluation.scores.compare_metrics`: the first model minus the second.

    Examples
    --------
    >>> describe_difference("frozen", "scratch", {"value": 0.031, "low": 0.012, "high": 0.05}, "roc_auc")
    'ROC AUC: frozen is better than scratch (+0.031, +0.012 to +0.050).'
    """
    title, low, high = get_title(name), metric_row["low"], metric_row["high"]
    about, interval = format_sign(metric_row["value"]), _describe_interval(metric_row, format_sign)
    if _lacks(low):
        groups, few, _ = interval.rpartition(": ")
        what, about = ("too few groups", f"{about}; {groups}") if few else ("no interval", about)
        verdict = f"{what} to tell {first} from {second}"
    else:
        comparison = "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
        verdict, about = f"{first} is {comparison} {second}", f"{about}, {interval}"
    return f"{title[:1].upper()}{title[1:]}: {verdict} ({about})."


def _describe_interval(metric, show):
    """Give both ends of an interval, or say that there is none, and of how few groups where they are the reason."""
    if not _lacks(metric.get("low")):
        return f"{show(metric['low'])} to {show(metric['high'])}"
    groups = metric.get("groups")
    if _lacks(groups) or groups >= FEWEST_GROUPS or _lacks(metric["value"]):
        return "no interval"
    return f"{groups:.0f} group{'' if groups == 1 else 's'}: no interval"


def _lacks(number):
    """Tell whether a number is missing, as None or as NaN."""
    return number is None or math.isnan(number)


def make_key(name):
    """Make a name that can be a file, and a key of ``results.json``: "cnn, fold 1" becomes cnn_fold_1."""
    return name.replace(",", "").replace(" ", "_")


def format_sign(value, digits=3):
    """Format a number with its sign, minus as a minus instead of a hyphen."""
    return f"{value:+.{digits}f}".replace("-", "−")


def get_title(name):
    """Return the name of a metric that readers know."""
    return _TITLES.get(name, name.replace("_", " "))


def format_metric(name, metric):
    """Format a metric in its unit; one that is missing or that these images do not allow is empty."""
    if metric is None or _lacks(metric["value"]):
        return ""
    if name == "expected_calibration_error" and _lacks(metric.get("low")):  # as in runs before it had an interval
        return f"{metric['value']:.3f}"
    return format_value(metric) if name in ("roc_auc", "expected_calibration_error") else format_percent(metric)


def measure_peak_memory():
    """Measure the peak resident memory of this process so far, in 2**20 bytes; None where the system does not tell."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def read_cpu_name():
    """Read the name of the processor and, on Linux, its family: several kinds may have the same name."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine()
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    family = [f"family {about['cpu family']}"] if "cpu family" in about else []
    return ", ".join([about.get("model name", platform.machine()), *family])


def describe_processor():
    """Describe the processor by its name, its family and its units for bfloat16, which decide how fast it trains."""
    return ", ".join([read_cpu_name(), *list_bfloat16_units()])


def _plain(value):
    """Turn NumPy scalars into Python's, and NaN and infinity, which JSON does not have, into None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
