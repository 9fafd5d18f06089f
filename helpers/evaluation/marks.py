"""Marks: what a notebook shows says what it was made from, such as the drawn sample, where it is shown.

A mark is set once; then it stands above every table and sentence that the notebook displays. Figures get theirs from
`helpers.evaluation.report.Report.save_figure`. `Unmarked` is for what has another origin and says so itself.
"""

import io
from dataclasses import dataclass
from functools import partial

import pandas as pd
from IPython import get_ipython
from IPython.display import Markdown
from pandas.io.formats.style import Styler
from PIL import Image

_COLOURS = 128  # of a picture


@dataclass(repr=False)
class Unmarked:
    """Something to display without a mark: a table, a text in Markdown, or the bytes of a PNG, which has a ``name``."""

    content: pd.DataFrame | str | bytes
    name: str = ""

    def __repr__(self):
        return f"<figure {self.name}>" if isinstance(self.content, bytes) else str(self.content)

    def _repr_html_(self):
        return self.content.to_html() if isinstance(self.content, pd.DataFrame) else None

    def _repr_markdown_(self):
        return self.content if isinstance(self.content, str) else None

    def _repr_png_(self):
        return self.content if isinstance(self.content, bytes) else None


def mark_outputs(mark):
    """Let the notebook that is running mark all tables and Markdown that it displays from now on; "" ends this.

    Outside of a notebook nothing happens.
    """
    shell = get_ipython()
    if shell is None:
        return
    html, markdown = (shell.display_formatter.formatters[f"text/{kind}"] for kind in ("html", "markdown"))
    for formatter, kinds, show in (
        (html, (pd.DataFrame, Styler), lambda table: f"<small><em>{mark}</em></small>{table._repr_html_() or ''}"),
        (markdown, (Markdown,), partial(_mark_text, mark)),
    ):
        for kind in kinds:
            if mark:
                formatter.for_type(kind, show)
            elif kind in formatter:
                formatter.pop(kind)


def _mark_text(mark, text):
    data = text.data.lstrip()
    return f"*{mark}:*{' ' if data[:1].isalnum() or data.startswith(('*', '`')) else chr(10) * 2}{data}"


def encode_picture(picture):
    """Encode a picture of Pillow as the bytes of a PNG with few colours, a third of the size of one with all."""
    stream = io.BytesIO()
    picture.convert("RGB").quantize(_COLOURS).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def picture_figure(figure, name):
    """Draw a figure as a small picture for the screen, to display instead of the figure itself."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=figure.dpi, bbox_inches="tight")
    return Unmarked(encode_picture(Image.open(stream)), name)
