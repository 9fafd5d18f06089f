"""The committed full run of a notebook: what it found on real images, to stand beside a quick look on the sample."""

import json

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from helpers.evaluation.marks import Unmarked, encode_picture, shrink
from helpers.evaluation.published import compare_published
from helpers.evaluation.report import FIGURES_FOLDER, format_metric, format_sign, get_title, make_key
from helpers.files import InputError

_SCREEN_DPI = 160  # as the figures of the notebook itself, see `helpers.evaluation.plots`
_STRIP = 22  # height of the line above a figure, pixels
_MAJORITY = "majority class"
_TIE = 0.0005  # a smaller difference of two metrics is none


class FullRun:
    """The results and figures in ``figures/<notebook>/``, which a full run on real images wrote.

    Attributes
    ----------
    results : dict, from ``results.json``; None where there was no full run
    """

    def __init__(self, notebook, figures_folder=FIGURES_FOLDER):
        self.notebook, self._folder = notebook, figures_folder / notebook
        path = self._folder / "results.json"
        self.results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def __repr__(self):
        return self._repr_markdown_().replace("**", "")

    def _repr_markdown_(self):
        """Say what the run cost and what its chosen model reached."""
        if self.results is None:
            return self._say_missing()
        name, part = self.find_chosen()
        metrics = self.results["results"][name][part]
        reached = ", ".join(
            f"{get_title(metric)} {format_metric(metric, metrics[metric])}" for metric in ("accuracy", "roc_auc")
        )
        memory = self.results["peak_memory_mb"]
        return (
            f"**The full run** on {self.results['data']['images']:,} real images: {_read(name)} reached {reached} "
            f"(set: {_read(part)}). Its trainings took {self.cpu_minutes:.0f} "
            f"CPU-minutes on {self.results['cores']} cores ({self.results['cpu']})"
            f"{f', and {memory * 2**20 / 1e9:.1f} GB of memory at the peak' if memory else ''}."
        )

    @property
    def cpu_minutes(self):
        """What all trainings together took."""
        return sum(entry.get("cost", {}).get("cpu_minutes", 0) for entry in self.results["results"].values())

    def find_chosen(self):
        """Find the model that was chosen, or else the first, and the first set that it was tested on."""
        models = self.results["results"]
        name = next((name for name, entry in models.items() if entry.get("cost", {}).get("chosen")), next(iter(models)))
        return name, list_sets(models[name])[0]

    def get_metric(self, model, part, metric):
        """Get a metric of a model on a set as a dict ``value, low, high, groups``, or None where there is none."""
        if self.results is None:
            return None
        if model == _MAJORITY:
            tested = (name for name, entry in self.results["results"].items() if make_key(part) in entry)
            model, metric = next(tested, model), "majority_rate"
        return self.results["results"].get(make_key(model), {}).get(make_key(part), {}).get(metric)

    def compare(self, scores, names, metrics, part, mark):
        """Set the metrics of the models of this run beside those of the full run.

        Parameters
        ----------
        scores : dict of str to dict of str to DataFrame, of each model and set
        names : list of str, the models
        metrics : list of str
        part : str, the set
        mark : str, what this run is called
        """
        if self.results is None:
            return Unmarked(self._say_missing())
        table = {}
        for metric in metrics:
            here = {name: scores[name][part].loc[metric] for name in names if part in scores.get(name, {})}
            full = {name: self.get_metric(name, part, metric) for name in names}
            for run, found in ((mark, here), ("full run", full)):
                table[get_title(metric), run] = {name: format_metric(metric, found.get(name)) for name in names}
        return Unmarked(pd.DataFrame(table).rename_axis("model"))

    def compare_directions(self, scores, pairs, metric, part, mark, why):
        """Say for pairs of models, or of a model and "majority class", which is better, here and in the full run.

        Each member is the name of a model, or a pair of a name and a set of its own. ``why`` says why the full run is
        to be believed where the two disagree, "" if it is not.
        """
        if self.results is None:
            return Unmarked(self._say_missing())
        lines = []
        for pair in pairs:
            members = [member if isinstance(member, tuple) else (member, part) for member in pair]
            here = [_find(scores, *member, metric) for member in members]
            full = [self.get_metric(*member, metric) for member in members]
            first, second = (name if name_part == part else f"{name} ({name_part})" for name, name_part in members)
            if any(value is None or pd.isna(value["value"]) for value in (*here, *full)):
                lines.append(f"- **{first}** and **{second}** are not both in both runs.")
                continue
            differences = [one["value"] - other["value"] for one, other in (here, full)]
            shown = [_show_difference(metric, difference) for difference in differences]
            overlap = " (their intervals overlap; a paired comparison may tell them apart)" if _overlap(*full) else ""
            if abs(differences[0]) < _TIE:
                verdict = "this run shows no difference"
            elif np.sign(differences[0]) == np.sign(differences[1]):
                verdict = "the same direction"
            elif why:
                verdict = f"**the directions differ; believe the full run**, because {why}"
            else:
                verdict = "**the directions differ**; each run speaks of its own images"
            lines.append(
                f"- {get_title(metric)} of **{first}** minus **{second}**: {shown[0]} ({mark}), {shown[1]} in the full "
                f"run{overlap}: {verdict}."
            )
        return Unmarked("\n".join(lines))

    def compare_published(self):
        """Set published results beside those of the full run, see `helpers.evaluation.published`."""
        if self.results is None:
            return Unmarked(self._say_missing())
        table = compare_published(self.notebook, self)
        return Unmarked(table or f"No published results are kept for `{self.notebook}`.")

    def read_table(self, name, **options):
        """Read a table that the full run exported, such as "predictions"; ``options`` are those of ``pd.read_csv``."""
        path = self._folder / f"{name}.csv"
        if not path.exists():
            there = ", ".join(sorted(file.stem for file in self._folder.glob("*.csv"))) or "none"
            raise InputError(f"The full run has no table {name!r}: expected one of {there}.")
        return pd.read_csv(path, **options)

    def show_trials(self, digits=3):
        """Show what was tried on validation images before the full run: the table of ``benchmarks/trials.py``."""
        return Unmarked(self.read_table("validation_trials", index_col="trial").round(digits))

    def show_figure(self, name, scale=1):
        """Show a figure of the full run as large as those of the notebook itself, with a line that says what it is.

        ``scale`` 2 gives twice as many pixels, but no more than were exported.
        """
        path = self._folder / f"{name}.png"
        if self.results is None:
            return Unmarked(self._say_missing())
        if not path.exists():
            there = ", ".join(sorted(file.stem for file in self._folder.glob("*.png")))
            raise InputError(f"The full run has no figure {name!r}: expected one of {there}.")
        with Image.open(path) as opened:
            picture, described = opened.convert("RGB"), opened.info.get("Description", f"{_read(name)}.")
        strip = scale * _STRIP
        picture = shrink(picture, scale * _SCREEN_DPI)
        framed = Image.new("RGB", (picture.width, picture.height + strip), "white")
        framed.paste(picture, (0, strip))
        text = f"full run, {self.results['data']['images']:,} real images"
        ImageDraw.Draw(framed).text((4 * scale, 4 * scale), text, "black", ImageFont.load_default(13 * scale))
        alt = f"{text[:1].upper()}{text[1:]}: {described}"
        return Unmarked(encode_picture(framed), f"{name} of the full run", alt)

    def _say_missing(self):
        return f"No full run of `{self.notebook}` is kept here: `make full NB={self.notebook}` makes one."


def list_sets(entry):
    """List the sets that a model was tested on, given its entry in ``results.json``."""
    return [name for name in entry if name not in ("train", "cost")]


def _find(scores, name, part, metric):
    if name == _MAJORITY:
        name, metric = next((known for known in scores if part in scores[known]), name), "majority_rate"
    return scores[name][part].loc[metric] if part in scores.get(name, {}) else None


def _overlap(first, second):
    """Tell whether the intervals of two metrics overlap; without intervals nobody knows."""
    ends = [metric.get(end) for metric in (first, second) for end in ("low", "high")]
    return None not in ends and ends[0] <= ends[3] and ends[2] <= ends[1]


def _show_difference(metric, difference):
    return format_sign(difference) if metric == "roc_auc" else f"{format_sign(100 * difference, 1)} points"


def _read(key):
    return key.replace("_", " ")
