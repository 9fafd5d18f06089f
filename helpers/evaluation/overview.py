"""Overview: what the README and ``figures/RESULTS.md`` show of the committed full runs; ``make results`` writes it."""

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from helpers.evaluation.answers import SHORTCUTS, answer, choose_model
from helpers.evaluation.full_run import FullRun, list_sets
from helpers.evaluation.layout import PALETTE, finish, name_places, place_legend, readable
from helpers.evaluation.plots import make_panels, set_style
from helpers.evaluation.published import compare_published
from helpers.evaluation.report import format_difference, format_metric, get_title
from helpers.files import replace_atomically
from helpers.settings import PROJECT_FOLDER

_STARTS, _ENDS = "<!-- results: made by `make results` -->\n", "<!-- end of results -->"
_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "sensitivity", "specificity", "roc_auc")
_SHOWN += ("expected_calibration_error",)
_DIGITS, _PLANTS = "01_mnist", "05_plants"
_NAMES = {
    "scratch": "from scratch",
    "average": "average of networks",
}
_GREY, _PERCENT = "#666666", PercentFormatter(1, 0)
_CANVAS = "side of the canvas in pixels"


def load_runs(figures_folder):
    """Load the committed runs, those on all real images, as a dict from name to FullRun, in order."""
    names = [path.parent.name for path in sorted(figures_folder.glob("[0-9]*/results.json"))]
    return {name: FullRun(name, figures_folder) for name in names}


def read_titles(notebooks_folder):
    """Read the title of each notebook, such as ``MNIST: which digit is it?``, by the notebook's name, in order."""
    titles = {}
    for path in sorted(notebooks_folder.glob("[0-9]*.ipynb")):
        source = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]
        titles[path.stem] = "".join(source).partition("\n")[0].removeprefix("# ")
    return titles


def update(project_folder=PROJECT_FOLDER):
    """Write ``figures/RESULTS.md``, ``figures/overview.png`` and the results in the README."""
    figures_folder, readme = project_folder / "figures", project_folder / "README.md"
    titles, runs = read_titles(project_folder / "notebooks"), load_runs(figures_folder)
    answered = {name: runs[name] for name in titles if name in runs}
    figure = plot_overview(answered, titles, figures_folder)
    with replace_atomically(figures_folder / "overview.png") as unfinished:
        figure.savefig(unfinished, dpi=200, metadata={"Software": None})
    plt.close(figure)
    before, rest = readme.read_text(encoding="utf-8").split(_STARTS)
    _, after = rest.split(_ENDS)
    overview = format_overview(answered, titles, figures_folder)
    for path, text in (
        (figures_folder / "RESULTS.md", format_results(runs, titles, figures_folder)),
        (readme, f"{before}{_STARTS}{overview}\n{_ENDS}{after}"),
    ):
        with replace_atomically(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


# figures/RESULTS.md


def format_results(runs, titles, figures_folder):
    """Write all that is known of the full runs as Markdown.

    Each has a section with its ``notes.md``, its table, and what others report on the same data set.
    """
    sections = ["# Results", _read_notes(figures_folder), "\n".join(f"- [{name}](#{name})" for name in runs)]
    for name, run in runs.items():
        notebook = next(known for known in titles if name.startswith(known))
        sections += [f"## {name}", f"Notebook: [{titles[notebook]}](../notebooks/{notebook}.ipynb)"]
        sections += [_read_notes(figures_folder, name), format_table(run.results), _describe_run(run.results)]
        if published := compare_published(name, run):
            sections += ["### Published results beside ours", published]
    sections += [format_studies(figures_folder)]
    return "\n\n".join(filter(None, sections)) + "\n"


def format_studies(figures_folder):
    """Set the effects of the factors side by side, a column for each study that is kept; "" where there is none."""
    columns, lines = {}, []
    for path in sorted(figures_folder.glob("[0-9]*/study_factors.csv")):
        name, found = path.parent.name, pd.read_csv(path).set_index("factor")
        effects = found.rename(columns={"effect": "value"}).apply(format_difference, axis=1)
        columns[f"{name}: best level and effect"] = found["best"] + ": " + effects
        columns[f"{name}: spread"] = found["spread"].map("{:.3f}".format)
        sure = "; ".join(found.index[found["effect"] > found["luck_high"]]) or "no factor"
        lines.append(f"- {name}: the largest effect is that of {found['effect'].idxmax()}. More than luck: {sure}.")
    if not columns:
        return ""
    table = pd.DataFrame(columns).fillna("")
    rows = [["factor", *table.columns], ["---"] * (1 + len(table.columns)), *table.reset_index().to_numpy()]
    told = (
        "Each study changed one setting of a network from scratch at a time. An effect is the difference between the "
        "best and the worst level on validation images, with its 95 % interval: of the ROC AUC for melanoma, of the "
        "accuracy for plants. The spread is the standard deviation over the seeds of one level."
    )
    formatted = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n\n".join(["## Which factor matters where?", told, formatted, "\n".join(lines)])


def format_table(results):
    """Format the results of a run as a table in Markdown, with a row for each model and test set."""
    header = ["model", "test set", *map(get_title, _SHOWN), "majority class", "CPU-minutes"]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for model, entry in results["results"].items():
        cost = entry.get("cost", {}).get("cpu_minutes")
        for test_set in list_sets(entry):
            metrics = entry[test_set]
            cells = [model.replace("_", " "), test_set.replace("_", " ")]
            cells += [format_metric(name, metrics.get(name)) for name in _SHOWN]
            majority = metrics.get("majority_rate", {}).get("value")
            cells.append("" if majority is None else f"{100 * majority:.1f} %")
            cells.append("" if cost is None else f"{cost:.1f}")
            lines.append(f"| {' | '.join(cells)} |")
            cost = None
    return "\n".join(lines)


def _read_notes(figures_folder, name=""):
    """Read the text that is kept by hand, with links that fit the folder of figures."""
    path = figures_folder / name / "notes.md"
    text = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    return re.sub(r"\]\((?=[\w-]+\.\w+\))", f"]({name}/", text) if name else text


def _describe_run(results):
    """Say in a line of Markdown what a run had and used."""
    data, versions, peak = results["data"], results["versions"], results["peak_memory_mb"]
    size = f" of {data['stored_size']} pixels" if "stored_size" in data else ""
    memory = f" peak memory {peak * 2**20 / 1e9:.1f} GB," if peak else ""
    return (
        f"{data['images']:,} images{size}; {results['protocol']}; seed {results['seed']},{memory} "
        f"{results['cores']} cores ({results['cpu']}), TensorFlow {versions['tensorflow']}, Keras {versions['keras']}."
    )


# README.md


def format_overview(runs, titles, figures_folder):
    """Write the strip of charts with what it shows, and a table with the answer of each notebook, as Markdown."""
    lines = ["![Three charts of the full runs, described below](figures/overview.png)", ""]
    lines += [_describe_overview(runs, titles, figures_folder), ""]
    lines += ["| notebook | question | answer of the full run | CPU-minutes |", "|---|---|---|---|"]
    for name, run in runs.items():
        text = answer(name, run, figures_folder / name)
        lines.append(f"| [{name}](notebooks/{name}.ipynb) | {titles[name]} | {text} | {run.cpu_minutes:.0f} |")
    return "\n".join(lines)


def _about(metric):
    return f"{100 * metric['value']:.0f} %"


# The strip of charts


def plot_overview(runs, titles, figures_folder):
    """Draw three charts: networks beside what they have to beat, what a leak claims, and what distortion costs."""
    with plt.rc_context():
        set_style()
        figure, axes = make_panels(1, 3, height=72)
        _plot_networks(find_opponents(runs), titles, axes[0])
        _plot_leak(find_leak(runs[_PLANTS]), axes[1])
        _plot_distortion(find_distortion(figures_folder), axes[2])
    return figure


def find_opponents(runs):
    """Find for each run the accuracy of the network that answers, of the best shortcut, and of the majority class.

    Return a dict from the name of a run to a dict ``network, shortcut, majority`` of metrics; ``shortcut`` is None
    where the run has none.
    """
    found = {}
    for name, run in runs.items():
        model, part = choose_model(run)
        metrics = [run.get_metric(shortcut, part, "accuracy") for shortcut in SHORTCUTS]
        found[name] = {
            "network": run.get_metric(model, part, "accuracy"),
            "shortcut": max(filter(None, metrics), key=lambda metric: metric["value"], default=None),
            "majority": run.get_metric(model, part, "majority_rate"),
        }
    return found


def find_leak(run):
    """Find the accuracy of each model on clean and on leaky images, two metrics, those first that gain most."""
    models = run.results["results"]
    found = {name: [run.get_metric(name, part, "accuracy") for part in ("test", "leaky")] for name in models}
    return dict(sorted(found.items(), key=lambda item: item[1][0]["value"] - item[1][1]["value"]))


def find_distortion(figures_folder):
    """Find the accuracy on digits that stand on larger and larger canvases: a table for each way of training."""
    table = pd.read_csv(figures_folder / _DIGITS / "robustness_curves.csv")
    curves = table[table["change"] == _CANVAS].groupby("model")
    return {name.removeprefix("cnn "): curve for name, curve in curves}


def _plot_networks(opponents, titles, ax):
    majority, shortcut, network = (
        [row[kind] for row in opponents.values()] for kind in ("majority", "shortcut", "network")
    )
    majority = [{"value": metric["value"]} for metric in majority]
    _plot_metrics(ax, majority, marker="|", ms=8, mew=1.5, color=_GREY, label="Majority class")
    _plot_metrics(ax, shortcut, marker="D", color=PALETTE[1], label="Best shortcut")
    _plot_metrics(ax, network, marker="o", color=PALETTE[0], label="Network")
    _finish(ax, "Networks beside shortcuts", [_shorten(titles[name]) for name in opponents])


def _plot_leak(leak, ax):
    for row, (clean, leaky) in enumerate(leak.values()):
        ax.plot([clean["value"], leaky["value"]], [row, row], color=_GREY, lw=1, zorder=1)
    clean, leaky = zip(*leak.values(), strict=True)
    _plot_metrics(ax, clean, marker="o", color=PALETTE[0], label="New leaves")
    _plot_metrics(ax, leaky, marker="s", color=PALETTE[3], label="Leaves trained on")
    _finish(ax, "Plants: what a leak claims", [_NAMES.get(name, name.replace("_", " ")) for name in leak])


def _plot_distortion(curves, ax):
    looks = {"mixed": ("o", "-", PALETTE[0]), "clean": ("s", "--", PALETTE[3])}
    for name, (marker, line, color) in looks.items():
        curve = curves[name]
        ax.fill_between(curve["strength"], curve["low"], curve["high"], color=color, alpha=0.25, lw=0)
        ax.plot(
            curve["strength"], curve["value"], marker=marker, ls=line, color=color, label=f"Trained on {name} digits"
        )
    ax.set_ylim(0, 1.04)
    ax.yaxis.set_major_formatter(_PERCENT)
    finish(ax, _CANVAS, "accuracy", "MNIST: smaller digits")
    place_legend(ax)


def _plot_metrics(ax, metrics, **look):
    """Draw metrics in rows, with their intervals where they have any; a row may have none."""
    there = [(row, metric) for row, metric in enumerate(metrics) if metric]
    rows, values = [row for row, _ in there], np.array([metric["value"] for _, metric in there])
    ends = np.array([[metric.get(end) for end in ("low", "high")] for _, metric in there], float).T
    lengths = np.nan_to_num(abs(ends - values))
    ax.errorbar(values, rows, xerr=lengths, ls="", capsize=0, **look)


def _finish(ax, title, names):
    """Name the rows of a chart of accuracies, the first at the top, and explain the markers below."""
    name_places(ax.yaxis, [readable(name) for name in names], 25)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.04)
    ax.xaxis.set_major_formatter(_PERCENT)
    ax.grid(visible=False, axis="y")
    finish(ax, "accuracy", title=title)
    place_legend(ax)


def _shorten(title):
    """Shorten the title of a notebook to what stands before its question."""
    return title.partition(":")[0]


def _describe_overview(runs, titles, figures_folder):
    """Say in a few lines of Markdown what the charts show."""
    opponents, leak, curves = find_opponents(runs), find_leak(runs[_PLANTS]), find_distortion(figures_folder)
    beaten = [row["network"]["value"] > row["majority"]["value"] for row in opponents.values()]
    rivals = {name: row for name, row in opponents.items() if row["shortcut"]}
    lost = [name for name, row in rivals.items() if row["network"]["value"] <= row["shortcut"]["value"]]
    gains = [100 * (b["value"] - a["value"]) for name, (a, b) in leak.items() if name not in SHORTCUTS]
    colour = leak["mean_colour"]
    mixed, clean = (curves[name].iloc[-1] for name in ("mixed", "clean"))
    return "\n".join(
        [
            f"- **Left:** the networks are right more often than the majority class in {sum(beaten)} of {len(beaten)} "
            f"notebooks, and more often than the best shortcut (border pixels, colours or size alone) in "
            f"{len(rivals) - len(lost)} of {len(rivals)}"
            + (f": not in {' and '.join(_shorten(titles[name]) for name in lost)}." if lost else "."),
            f"- **Middle:** on leaves that training has seen, all networks seem {min(gains):.0f} to {max(gains):.0f} "
            f"points better; the nearest neighbour by mean colour, which sees no disease, rises from "
            f"{_about(colour[0])} to {_about(colour[1])}.",
            f"- **Right:** when digits are put on a larger canvas, which is then shrunk, they get smaller. At "
            f"{clean['strength']:.0f} pixels a network that was trained on clean digits reads {_about(clean)} of them, "
            f"one that was trained on distorted digits too {_about(mixed)}.",
        ]
    )


if __name__ == "__main__":
    update()
