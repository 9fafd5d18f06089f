"""Marks: what a notebook shows says what it was made from, such as the drawn sample, where it is shown.

A mark is set once; then it stands above every table and sentence that the notebook displays. Figures get theirs from
`helpers.evaluation.report.Report.save_figure`. `Unmarked` is for what has another origin and says so itself.
"""

import hashlib
import io
from dataclasses import dataclass
from functools import partial

import pandas as pd
from IPython import get_ipython
from IPython.display import Markdown
from pandas.io.formats.style import Styler
from PIL import Image

from helpers.evaluation.layout import DPI

_COARSER = 0.7  # where it shows images, which take most of the space of a notebook


@dataclass(repr=False)
class Unmarked:
    """Something to display without a mark: a table, a text in Markdown, or the bytes of a PNG.

    A PNG has a ``name``, and ``alt``, which tells in words what it shows.
    """

    content: pd.DataFrame | str | bytes
    name: str = ""
    alt: str = ""

    def __repr__(self):
        return f"<figure {self.name}>" if isinstance(self.content, bytes) else str(self.content)

    def _repr_html_(self):
        return self.content.to_html() if isinstance(self.content, pd.DataFrame) else None

    def _repr_markdown_(self):
        return self.content if isinstance(self.content, str) else None

    def _repr_png_(self):
        return (self.content, {"alt": self.alt}) if isinstance(self.content, bytes) else None


def mark_outputs(mark):
    """Let the notebook that is running mark all tables and Markdown that it displays from now on; "" ends this.

    Outside of a notebook nothing happens.
    """
    shell = get_ipython()
    if shell is None:
        return
    html, markdown, plain = (
        shell.display_formatter.formatters[f"text/{kind}"] for kind in ("html", "markdown", "plain")
    )
    for formatter, kind, show in (
        (html, pd.DataFrame, lambda table: f"<small><em>{mark}</em></small>{table._repr_html_() or ''}"),
        (html, Styler, lambda table: f"<small><em>{mark}</em></small>{_render(table)}"),
        (plain, Styler, lambda table, printer, cycle: printer.text("<styled table>")),  # without its address
        (markdown, Markdown, partial(_mark_text, mark)),
    ):
        if mark:
            formatter.for_type(kind, show)
        elif kind in formatter:
            formatter.pop(kind)


def _mark_text(mark, text):
    data = text.data.lstrip()
    return f"*{mark}:*{' ' if data[:1].isalnum() or data.startswith(('*', '`')) else chr(10) * 2}{data}"


def _render(table):
    """Render a styled table with an id that its content decides: the same table is saved as the same text."""
    table.cell_ids = False  # only cells that have a style of their own need one
    parts = table._repr_html_().split(f"T_{table.uuid}")
    return f"T_{hashlib.sha256(''.join(parts).encode()).hexdigest()[:8]}".join(parts)


def encode_picture(picture):
    """Encode a picture of Pillow as the bytes of a PNG with few colours, a third of the size of one with all."""
    stream = io.BytesIO()
    picture = picture.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)  # a tenth of the time of the other ways
    picture.putpalette([min(255, round(level * 255 / 254)) for level in picture.getpalette()])  # its white is 254
    picture.save(stream, "PNG")
    return stream.getvalue()


def picture_figure(figure, name, alt=""):
    """Make a small picture of a figure for the screen, to display instead of the figure itself; see `Unmarked`.

    It is made from the PNG that `helpers.evaluation.report.save_picture` has written.
    """
    dpi = figure.dpi * (_COARSER if any(ax.images for ax in figure.axes) else 1)
    with Image.open(figure.png) as picture:
        return Unmarked(encode_picture(shrink(picture.convert("RGB"), dpi)), name, alt)


def shrink(picture, dpi):
    """Shrink an exported picture to that of so many dots per inch; it is not made larger."""
    return picture.resize([round(pixels * min(dpi / DPI, 1)) for pixels in picture.size], Image.Resampling.BOX)
