"""Report: the only module that writes what a run found, each file complete or not there.

A full run on real images exports to ``figures/<notebook>/``, everything else to folders that git ignores:
``figures/sample/<notebook>/`` for the built-in sample, ``figures/quick/<notebook>/`` for quick runs on real images.
"""

import json
import math
import os
import platform
import sys
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

from helpers.evaluation.bootstrap import FEWEST_GROUPS
from helpers.files import InputError, guard_cell, replace_atomically
from helpers.settings import PROJECT_FOLDER, Settings

FIGURES_FOLDER = PROJECT_FOLDER / "figures"
_TITLES = {
    "roc_auc": "ROC AUC",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "expected_calibration_error": "ECE",
}
_PACKAGES = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn", "pillow")


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

    def save_figure(self, figure, name, shows_images=False):
        """Export a figure, or that of Axes, as PNG (200 dpi) and PDF, and return it.

        Figures of real images that show pixels go to the subfolder ``images/``, which git ignores, because most data
        sets may not be passed on.
        """
        figure = getattr(figure, "figure", figure)
        if self.mark and not any(text.get_gid() == "mark" for text in figure.texts):
            look = {"ha": "left", "va": "bottom", "fontsize": 10, "fontstyle": "italic", "color": "#555555"}
            figure.text(0, 1, self.mark, gid="mark", **look)
        folder = self.folder / "images" if shows_images and not self.is_sample else self.folder
        for ending, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            with replace_atomically(folder / f"{name}.{ending}") as unfinished:
                figure.savefig(unfinished, dpi=200, bbox_inches="tight", metadata=metadata)
            figure.set_layout_engine("none")  # laid out once: the next file and the screen take it as it is
        return figure

    def save_table(self, table, name, decimals=4):
        """Export a DataFrame as CSV, numbers rounded; that of a sample has a column that says so.

        Texts that a spreadsheet would run are guarded by `helpers.files.guard_cell`; bytes of names that are no UTF-8
        are written as escapes.
        """
        if self.is_sample:
            table = table.assign(source=self.mark)
        table = table.round(decimals).apply(
            lambda column: column if is_numeric_dtype(column) else column.map(guard_cell)
        )
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
        model chosen. ``test_set_opened`` counts the runs of this kind that have scored the test sets.
        """
        path = self.folder / "results.json"
        if not self._opened:  # so that a cell that is run twice counts once
            before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            self._opened = before.get("test_set_opened", 0) + 1
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
            "cpu": read_cpu_name(),
            "cores": os.cpu_count(),
        }
        with replace_atomically(path) as unfinished:
            unfinished.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        return results


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
    """Read the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _plain(value):
    """Turn NumPy scalars into Python's, and NaN and infinity, which JSON does not have, into None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
