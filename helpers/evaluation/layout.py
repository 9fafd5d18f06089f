"""Layout: what all plots share, so that each is readable at the size it is printed: names, legends, looks of models.

Lengths are in millimetres on paper. Legends stand below their data, never on them. Names that do not fit beside one
another stand upright, and long ones have several lines.
"""

import textwrap
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Bbox, ScaledTranslation

MM = 1 / 25.4  # a millimetre in inches
COLUMN, PAGE = 85, 174  # widths of printed figures
DPI = 300  # of their PNGs
LINE = 3.1  # height of a line of text
PALETTE = sns.color_palette("colorblind")
# Eight colours, without light pink and yellow, which are hardly seen on paper, and without grey, which has no model;
# seven markers, seven lines: up to seven models differ in more than colour.
_COLORS, _MARKERS = [*PALETTE[:6], PALETTE[9], (0.13, 0.13, 0.13)], "osD^vPX"
_LINES = ["-", "--", "-.", ":", (0, (9, 2)), (0, (4, 1, 1, 1, 1, 1)), (0, (2, 1))]  # the last three in points: on, off
_UPRIGHT_LETTERS, _SHORTEST = 16, 8  # letters in a line of an upright name, and in a line at least
_WRITTEN = {"mnist": "MNIST", "ham10000": "HAM10000", "chest-xray": "Chest X-ray", "roc auc": "ROC AUC"}
_WRITTEN |= {"jpeg compression": "JPEG compression"}

#: Names of models in the order in which figures first showed them: a model has one colour, marker and line in all of
#: them. `helpers.evaluation.plots.set_style` empties the list.
MODELS = []


def style(items):
    """Give each item a colour, a marker and a line: tuples of four."""
    return zip(items, cycle(_COLORS), cycle(_MARKERS), cycle(_LINES), strict=False)


def style_models(names):
    """Give each model the colour, the marker and the line that it has in all figures: tuples of four.

    A model of one fold, such as "frozen, fold 1", looks like the others of its name, unless they are in one figure.
    """
    names = list(names)
    keys = [name.partition(", fold ")[0] for name in names]
    keys = keys if len(set(keys)) == len(keys) else names
    MODELS.extend(key for key in dict.fromkeys(keys) if key not in MODELS)
    looks = {key: look for key, *look in style(MODELS)}
    return [(name, *looks[key]) for name, key in zip(names, keys, strict=True)]


def name_metric(name):
    """Make the name of a metric readable, such as ``macro_f1``: "Macro F1"."""
    return readable(name).replace(" f1", " F1")


def readable(name):
    """Write a name with spaces instead of underscores, and a capital first letter, or as it is known."""
    name = str(name).replace("_", " ")
    return _WRITTEN.get(name, name[:1].upper() + name[1:])


def wrap(name, letters):
    """Break a name between words into lines of so many letters."""
    lines = str(name).splitlines()
    return "\n".join(textwrap.fill(line, max(1, int(letters)), break_long_words=False) for line in lines)


def measure(texts, size=7):
    """Measure how wide the longest line of some texts is on paper."""
    font = FontProperties(family=plt.rcParams["font.family"], size=size)
    lines = [line for text in texts for line in str(text).splitlines()]
    return (
        max((text_to_path.get_text_width_height_descent(line, font, False)[0] for line in lines), default=0) / 72 / MM
    )


def new_axes(ax, height=60, width=COLUMN):
    """Make Axes in a figure of this size, if there are none yet."""
    return plt.subplots(figsize=(width * MM, height * MM))[1] if ax is None else ax


def get_width(ax):
    """Give the width of the figure, or that of one of its columns where it has several."""
    spec = ax.get_subplotspec()
    share = 1 if spec is None else len(spec.colspan) / spec.get_gridspec().ncols
    return ax.figure.get_figwidth() / MM * share


def fit(names, room, size=7):
    """Break names between words so that they are no wider than the room, if their words allow it."""
    for letters in range(max((len(str(name)) for name in names), default=0), _SHORTEST, -1):
        broken = [wrap(name, letters) for name in names]
        if measure(broken, size) <= room:
            return broken
    return [wrap(name, _SHORTEST) for name in names]


def count_lines(texts):
    """Count the lines of the text that has most of them."""
    return max((str(text).count("\n") + 1 for text in texts if text), default=0)


def name_places(axis, names, room, grow=False):
    """Write names at the places 0, 1, 2, … of an axis, at the x axis upright where they are wider than the room.

    With ``grow`` the figure becomes higher by what names take that are no single line.
    """
    lying = fit(names, room - 0.5)
    upright = axis.axis_name == "x" and measure(lying) > room - 0.5
    broken = [wrap(name, _UPRIGHT_LETTERS) for name in names]
    standing = broken if room > count_lines(broken) * LINE else [str(name) for name in names]
    axis.set_ticks(range(len(names)), standing if upright else lying, rotation=90 if upright else 0)
    if grow:
        height = measure(standing) if upright else LINE * count_lines(lying)
        axis.figure.set_figheight(axis.figure.get_figheight() + (height - LINE) * MM)


def finish(ax, xlabel="", ylabel="", title=""):
    """Write title and labels with a capital; an axis that panels share is labelled once, below or at the left."""
    beneath, before = _find_neighbours(ax)
    ax.set_ylabel("" if before else readable(ylabel))
    left = ax.yaxis.get_tightbbox(ax.figure.canvas.get_renderer()) if ax.axison else None
    room = get_width(ax) - 4
    beside = room - (left.width / ax.figure.dpi / MM if left else 0)  # where names at the left leave room for data
    for text, write in (("" if beneath else xlabel, ax.set_xlabel), (title, ax.set_title)):
        (text,) = fit([readable(text)], room, 8)
        write(text, loc="right" if measure([text], 8) > beside else "center")


def _find_neighbours(ax):
    """Find whether a panel below shares the x axis of this one, and whether one at the left shares the y axis."""
    spec = ax.get_subplotspec()
    if spec is None:
        return False, False
    others = [
        [other.get_subplotspec() for other in shared.get_siblings(ax) if other is not ax]
        for shared in (ax.get_shared_x_axes(), ax.get_shared_y_axes())
    ]
    beneath = any(o.colspan == spec.colspan and o.rowspan.start > spec.rowspan.start for o in others[0])
    return beneath, any(o.rowspan == spec.rowspan and o.colspan.start < spec.colspan.start for o in others[1])


def place_legend(ax, handles=None, labels=None, title=None, above=False, right=0, grow=False):
    """Put the legend below the Axes and what is written there, or ``above``, in as many columns as there is room for.

    ``right`` is how wide the texts are that stand at the right of the Axes. With ``grow`` the figure becomes as much
    higher, so that no room is lost for the data.
    """
    if handles is None:
        handles, labels = ax.get_legend_handles_labels()
    figure, renderer = ax.figure, ax.figure.canvas.get_renderer()
    length = _get_length(handles)
    columns, width = _arrange(labels, get_width(ax) - 4 - right, length)
    ax.apply_aspect()
    below, left = (axis.get_tightbbox(renderer) if ax.axison else None for axis in (ax.xaxis, ax.yaxis))
    below = (ax.bbox.y0 - below.y0) / figure.dpi if below else 0
    left = left.width / figure.dpi / MM if left else 0
    fits = (
        width < get_width(ax) - left - right - 4
    )  # below the data; otherwise it reaches below the names at the left, too
    place, x, y, gap = ("upper", 0.5, 0, -below - 0.03) if not above else ("lower", 0.5, 1, 0.03)
    legend = ax.legend(
        handles,
        labels,
        ncols=columns,
        title=title,
        handlelength=length,
        loc=f"{place} {'center' if fits else 'right'}",
        bbox_to_anchor=(x if fits else 1, y),
        bbox_transform=ax.transAxes + ScaledTranslation(0, gap, figure.dpi_scale_trans),
    )
    if grow:
        figure.set_figheight(figure.get_figheight() + legend.get_window_extent(renderer).height / figure.dpi)


def place_common_legend(figure, handles, labels):
    """Put a legend of all panels below them, and make the figure as much higher."""
    length = _get_length(handles)
    columns, _ = _arrange(labels, figure.get_figwidth() / MM - 4, length)
    legend = figure.legend(handles, labels, ncols=columns, loc="outside lower center", handlelength=length)
    height = legend.get_window_extent(figure.canvas.get_renderer()).height / figure.dpi
    figure.set_figheight(figure.get_figheight() + height)


def find_page(figure):
    """Lay a figure out, once; return its page and what stands above it, such as a mark: a box in inches."""
    if figure.axes and (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")
    return Bbox.union([figure.bbox_inches, figure.get_tightbbox()])


def _get_length(handles):
    """Give the length of what explains an entry of a legend: that of a line is long enough to tell the lines."""
    return 2.8 if any(isinstance(handle, Line2D) and handle.get_linestyle() != "None" for handle in handles) else 1.4


def _arrange(labels, room, length):
    """Find how many columns of a legend there is room for; return the number of columns and their width."""
    em = FontProperties(size=plt.rcParams["legend.fontsize"]).get_size_in_points() / 72 / MM
    widths = [measure([label]) + em * (length + plt.rcParams["legend.handletextpad"]) for label in labels]
    for columns in range(len(labels), 0, -1):
        parts = np.array_split(widths, columns)  # as Matplotlib fills them
        width = sum(part.max() for part in parts) + em * plt.rcParams["legend.columnspacing"] * (columns - 1)
        if width <= room:
            break
    return columns, width
