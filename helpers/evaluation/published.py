"""Published: what other people report on the same data sets, beside ours, from ``published.csv``.

A row of the file is one published figure, a fraction as in ``results.json``. The columns ``low`` and ``high`` are its
interval; a figure with ``high`` alone is a range of several results. ``our_model`` and ``our_set`` say what of ours it
stands beside, if that is not the chosen model on its test set. ``checked`` is "yes" where we saw the figure in its
source, "figure not seen" where we found the source alone, and "no" where we did not find the source.
"""

from pathlib import Path

import pandas as pd

from helpers.evaluation.report import format_metric, get_title

_TABLE = Path(__file__).with_name("published.csv")
_NOTES = {"yes": "", "figure not seen": " (figure not checked)", "no": " (source not found)"}
_HEADER = "| source | model | result | ours | protocol | may it be compared? |\n|---|---|---|---|---|---|"
_LINE = ["source", "link", "checked", "model", "our_model", "our_set", "protocol", "comparable"]


def list_published(notebook):
    """List the published figures of a notebook, such as ``05_plants``.

    Returns
    -------
    DataFrame with a row for each figure and the columns of ``published.csv``, see above; text that is missing is empty.
    It has no rows if there are no figures.

    Examples
    --------
    >>> list_published("01_mnist")["source"].tolist()
    ['several authors', 'An et al. 2020']
    """
    table = pd.read_csv(_TABLE).fillna({"link": "", "our_model": "", "our_set": ""})
    return table[table["notebook"] == notebook].reset_index(drop=True)


def compare_published(notebook, full_run):
    """Set the published figures of a notebook beside those of a full run, as a table in Markdown; "" if there are none.

    A line holds the figures of one model and protocol.

    Parameters
    ----------
    notebook : str, such as ``05_plants``
    full_run : helpers.evaluation.full_run.FullRun, which has results
    """
    chosen, tested = full_run.find_chosen()
    lines = []
    for cells, rows in list_published(notebook).groupby(_LINE, sort=False):
        source, link, checked, model, our_model, our_set, protocol, comparable = cells
        our_model, our_set = our_model or chosen, our_set or tested
        figures = rows.to_dict("records")
        results = "<br>".join(f"{get_title(row['metric'])} {_format_figure(row)}" for row in figures)
        ours = [format_metric(row["metric"], full_run.get_metric(our_model, our_set, row["metric"])) for row in figures]
        ours = "<br>".join([f"{our_model}, {our_set}:".replace("_", " "), *(text or "not measured" for text in ours)])
        source = (f"[{source}]({link})" if link else source) + _NOTES[checked]
        lines.append(f"| {source} | {model} | {results} | {ours} | {protocol} | {comparable} |")
    return "\n".join([_HEADER, *lines]) if lines else ""


def _format_figure(row):
    """Format a published figure in the unit of `helpers.evaluation.report.format_metric`, with the digits it has."""
    factor, unit = (1, "") if row["metric"] in ("roc_auc", "expected_calibration_error") else (100, " %")
    value, low, high = (f"{factor * row[name]:.4g}" for name in ("value", "low", "high"))
    if pd.notna(row["low"]):
        return f"{value}{unit} ({low} to {high})"
    return f"{value} to {high}{unit}" if pd.notna(row["high"]) else f"{value}{unit}"
