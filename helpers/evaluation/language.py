"""Language: the texts of figures in French, for readers who do not read English.

``french.csv`` has the French of each term, and of patterns such as ``{} with 95 % interval``, whose gaps are translated
in turn. What it lacks stays English. Nothing else is translated: notebooks, tables and results stay as they are.
"""

import csv
import re
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import Formatter

from helpers.evaluation import layout

_TABLE = Path(__file__).with_name("french.csv")
_GAP, _LETTER, _WORD = "{}", re.compile(r"[^\W\d_]"), re.compile(r"[^\W\d_]{2}")
_PLACES = ("left", "center", "right")  # of a title
_SMALLEST = 5  # points, of a title above a small image
_THIN, _FIXED = "\u202f", "\u00a0"  # spaces that no line breaks at: in numbers and before "%;?!", and before a colon


def translate(text):
    """Translate a name, a label or a title into French; what the table lacks stays English.

    A first capital and line breaks are kept, and numbers are written as the French do.

    Examples
    --------
    >>> translate("Nevus: ROC AUC 0.977")
    'Nævus\\xa0: AUC 0,977'
    """
    return _translate_lines(text)[0]


def translate_figure(figure):
    """Translate all texts of a figure, once: titles, labels, legends, notes, and the names and numbers of ticks.

    French takes more room. Therefore `helpers.evaluation.layout` lays out titles, names and legends again, and
    titles above images are smaller where they would touch.
    """
    if getattr(figure, "language", None):
        return
    figure.language = "fr"
    figure.draw_without_rendering()  # then Axes have the size that they are drawn with
    legends, panels = figure.findobj(Legend), [ax for ax in figure.axes if not ax.images]
    later = {text for legend in legends for text in legend.findobj(Text)}
    for ax in panels:
        later |= {ax.xaxis.label, ax.yaxis.label, *(child for child in ax.get_children() if isinstance(child, Text))}
        later -= set(ax.texts)
    for text in figure.findobj(Text):
        if text not in later:
            text.set_text(translate(text.get_text()))
    for ax in figure.axes:
        room = ax.bbox.width / figure.dpi / layout.MM
        if ax.images and (width := layout.measure([ax.get_title()])) > room:
            ax.title.set_fontsize(max(_SMALLEST, ax.title.get_fontsize() * room / width))
    for ax in panels:
        height = _measure_height(ax)
        _translate_ticks(ax)
        title = "".join(ax.get_title(loc) for loc in _PLACES)  # there is one
        for loc in _PLACES:
            ax.set_title("", loc=loc)
        layout.finish(ax, *(translate(_join(text)) for text in (ax.get_xlabel(), ax.get_ylabel(), title)))
        if len(figure.axes) == 1:
            figure.set_figheight(figure.get_figheight() + _measure_height(ax) - height)
    for legend in legends:
        _translate_legend(figure, legend)


def _measure_height(ax):
    """Measure how high what is written below the Axes is, in inches."""
    written = ax.xaxis.get_tightbbox(ax.figure.canvas.get_renderer()) if ax.axison else None
    return written.height / ax.figure.dpi if written else 0


def _translate_ticks(ax):
    """Translate what is written at the ticks, as long as the Axes lives; names at the x axis are placed anew."""
    names, places = [_join(label.get_text()) for label in ax.get_xticklabels()], ax.get_xticks()
    named = any(_WORD.search(name) and "$" not in name for name in names) and list(places) == list(range(len(places)))
    if named:
        room = ax.bbox.width / np.ptp(ax.get_xlim()) / ax.figure.dpi / layout.MM
        layout.name_places(ax.xaxis, [translate(name) for name in names], room)
    for axis in (ax.yaxis,) if named else (ax.xaxis, ax.yaxis):
        for ticks, set_formatter in ((axis.major, axis.set_major_formatter), (axis.minor, axis.set_minor_formatter)):
            if not isinstance(ticks.formatter, _FrenchFormatter):  # Axes may share theirs
                set_formatter(_FrenchFormatter(ticks.formatter))


def _translate_legend(figure, legend):
    """Put a French legend into the place of another one; the figure becomes as much higher as this one needs."""
    handles, labels = legend.legend_handles, [translate(text.get_text()) for text in legend.get_texts()]
    ax, box = legend.axes, legend.get_window_extent()
    if ax is None or len(figure.axes) == 1:
        figure.set_figheight(figure.get_figheight() - box.height / figure.dpi)
    if ax is None:
        legend.remove()
        layout.place_common_legend(figure, handles, labels)
    else:
        title = translate(legend.get_title().get_text()) or None
        above = box.y0 + box.y1 > ax.bbox.y0 + ax.bbox.y1
        outside = max((text.get_window_extent().x1 for text in ax.texts), default=0) - ax.bbox.x1
        right = max(0, outside / figure.dpi / layout.MM)
        layout.place_legend(ax, handles, labels, title, above, right, grow=len(figure.axes) == 1)


def _join(text):
    return " ".join(text.split("\n"))


def find_untranslated(figure):
    """Find the texts of a figure that have no French."""
    ticks = [label for ax in figure.axes for label in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    texts = dict.fromkeys(text.get_text() for text in (*figure.findobj(Text), *ticks))
    return [text for text in texts if not _translate_lines(text)[1]]


class _FrenchFormatter(Formatter):
    """Writes what another formatter of ticks writes, in French."""

    def __init__(self, formatter):
        self._formatter = formatter

    def __call__(self, x, pos=None):
        return translate(self._formatter(x, pos))

    def format_ticks(self, values):
        return [translate(text) for text in self._formatter.format_ticks(values)]

    def get_offset(self):
        return translate(self._formatter.get_offset())


@cache
def _translate_lines(text):
    """Translate a text of one or several lines; return it, and whether all of it is French.

    Names may be broken between words. Therefore as many lines as have a translation together are joined, and broken
    again into no more lines.
    """
    lines, shown, complete = text.split("\n"), [], True
    while lines:
        for count in range(len(lines), 0, -1):
            french, known = _translate_phrase(" ".join(lines[:count]))
            if known:
                break
        complete &= known
        if count > 1:
            widths = range(max(map(len, lines[:count])), len(french) + 1)
            broken = (layout.wrap(french, width) for width in widths)
            french = next((text for text in broken if text.count("\n") < count), french)
        shown.append(french)
        del lines[:count]
    return "\n".join(shown), complete


@cache  # without it, a text with many commas, which fits many patterns, would take seconds
def _translate_phrase(text):
    """Translate a text of one line by the table, or else by its patterns; return it, and whether all is French."""
    phrases, patterns = _read_table()
    key = re.sub(r"[_\s]+", " ", text).strip().casefold()
    if key in phrases:
        return _keep_capital(text, phrases[key]), True
    partly = ""
    for pattern, french in patterns:
        if match := pattern.fullmatch(text):
            parts, known = zip(*map(_translate_phrase, match.groups()), strict=True)
            shown = _keep_capital(text, french.format(*parts))
            if all(known):
                return shown, True
            partly = partly or shown
    return (_write_numbers(text), True) if _is_name(text) else (partly or text, False)


@cache
def _read_table():
    """Read the French of each term, and for each pattern a regular expression with its French, the longest first."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        rows = [(row["english"], re.sub(" (?=[%;?!])", _THIN, row["french"])) for row in csv.DictReader(file)]
    rows = [(english, french.replace(" :", f"{_FIXED}:")) for english, french in rows]
    patterns = [
        (re.compile("(.+?)".join(map(re.escape, english.split(_GAP))), re.IGNORECASE | re.DOTALL), french)
        for english, french in sorted(rows, key=lambda row: -len(row[0]))
        if _GAP in english
    ]
    return {english: french for english, french in rows if _GAP not in english}, patterns


def _keep_capital(text, french):
    return french[:1].upper() + french[1:] if text[:1].isupper() else french


def _is_name(text):
    """Tell whether a text needs no French: a formula, or all its words are numbers, codes or files, such as ``H23``."""
    words = [word for word in re.split(r"[\s,;:()/]+", text) if _LETTER.search(word)]
    return "$" in text or all(re.search(r"\d|\w\.\w", word) for word in words)


def _write_numbers(text):
    """Write numbers with a decimal comma and spaces between thousands; leave what has letters as it is."""
    if _LETTER.search(text):
        return text
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", _THIN, text)
    text = re.sub(r"(?<=\d)\.(?=\d)", ",", text)
    return re.sub(r"(?<=\d) ?%", f"{_THIN}%", text)
