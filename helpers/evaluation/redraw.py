"""Redraw: figures are drawn again from the tables of a run, in the style of today, without its images and models.

``make figures`` does so for all runs, committed ones and those on this machine.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from helpers.evaluation import plots
from helpers.evaluation.drawing import restore
from helpers.evaluation.report import FIGURES_FILE, FIGURES_FOLDER, TABLES_FOLDER, save_picture
from helpers.files import InputError, read_reason
from helpers.settings import read_settings


def redraw(folder, into=None, language="en"):
    """Draw the figures of a run again, over those that are there or into another folder; return their names.

    ``folder`` is that of a run, such as ``figures/01_mnist``, with a ``figures.json`` and ``tables/``, see
    `helpers.evaluation.report.Report.save_figure`; ``language`` is "en" or "fr". Raise InputError if they are missing
    or do not fit.
    """
    folder = Path(folder)
    described = _read(folder)
    plots.set_style()  # once for all of them: a model has the same colour in each
    for name, entry in described["figures"].items():
        try:
            figure = _draw(entry, partial(_read_cells, folder))
        except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
            raise InputError(
                f"{folder / FIGURES_FILE}: {name} cannot be drawn again ({read_reason(error)}). Expected a figure that "
                "this version has exported, and its tables: run the notebook again."
            ) from error
        save_picture(figure, Path(into or folder), name, described["mark"], entry.get("alt", ""), language)
        plt.close(figure)
    return list(described["figures"])


def _read(folder):
    path = folder / FIGURES_FILE
    if not path.is_file():
        raise InputError(f"{folder} has no {FIGURES_FILE}: expected the folder of a run that has exported figures.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read ({read_reason(error)}). Expected JSON: run the notebook again."
        ) from error


def _draw(entry, read, **ax):
    """Draw what one entry describes: a figure, or with ``ax`` a panel."""
    drawn = getattr(plots, entry["draw"])(**{name: restore(value, read) for name, value in entry["with"].items()}, **ax)
    if "panels" not in entry:
        return drawn.figure
    figure, axes = drawn
    for panel, panel_ax in zip(entry["panels"], axes, strict=True):
        _draw(panel, read, ax=panel_ax)
    return figure


def _read_cells(folder, name):
    return pd.read_csv(folder / TABLES_FOLDER / f"{name}.csv", dtype=str, keep_default_na=False)


def main():
    """Draw the figures of the folders again that the command line names, or of all runs; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.evaluation.redraw", description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="folders of runs; by default all below figures/")
    places = (FIGURES_FOLDER / kind for kind in ("", "quick", "sample"))
    found = sorted(path.parent for place in places for path in place.glob(f"0*/{FIGURES_FILE}"))
    folders = parser.parse_args().folders or found
    if not folders:
        sys.stderr.write(f"{FIGURES_FOLDER} has no {FIGURES_FILE} in the folder of a run: run a notebook first.\n")
        return 2
    plt.switch_backend("Agg")  # nobody watches
    try:
        language = read_settings().language
        for folder in folders:
            sys.stdout.write(f"{folder}: {len(redraw(folder, language=language))} figures\n")
            sys.stdout.flush()
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"{folder} cannot be drawn again ({read_reason(error)}). Expected a folder to write to.\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
