"""The pictures of a page: those that a run exported, in twice the pixels of the screen."""

import base64
import io
import re

import numpy as np
from PIL import Image

from helpers.evaluation.full_run import FullRun
from helpers.evaluation.marks import encode_picture
from helpers.files import InputError

_NAME = re.compile(r"<figure (.+?)( of the full run)?>")  # how a notebook names a picture
_THUMBNAIL = (100, 75)
_ALIKE = 14  # grey levels, of 255: the mean difference of two pictures of one figure is less
_SMALL = 120_000  # bytes of a picture that is not worth encoding again


class Pictures:
    """Collects the pictures of a page. They stand in its text as ``picture-0`` and so on, until `embed` puts them in.

    In French those with French labels are taken, where there are any.
    """

    def __init__(self, figures_folder, language="en"):
        self._figures_folder = figures_folder
        self._endings = [f".{language}.png"] * (language != "en") + [".png"]
        self._contents = []

    def add(self, output, place, width=None):
        """Add the picture of a cell's output, to be shown on so many CSS pixels, by default those of the picture.

        ``place`` is the folder in ``figures_folder`` to which the run exported its figures, None where there is none.
        Return what its HTML element has to know: a dict ``key, alt, width, height``.
        """
        shown = base64.b64decode(output["data"]["image/png"])
        found = _NAME.fullmatch("".join(output["data"].get("text/plain", "")))
        name = found[1].replace("_", " ") if found else ""
        larger = self._find_export(*found.groups(), place, shown) if found and place else None
        with Image.open(io.BytesIO(shown)) as picture:
            size = picture.size
        content = _shrink(larger or shown, 2 * (width or size[0]))
        self._contents.append(f"data:image/png;base64,{base64.b64encode(content).decode()}")
        alt = output.get("metadata", {}).get("image/png", {}).get("alt") or f"Figure: {name}"
        return {"key": len(self._contents) - 1, "alt": alt, "width": size[0], "height": size[1]}

    def embed(self, text):
        """Put the pictures into the text of a page."""
        return re.sub(r'(?<=src=")picture-(\d+)', lambda found: self._contents[int(found[1])], text)

    def _find_export(self, name, is_full_run, place, shown):
        """Find the exported file of a figure, as bytes; None where there is none, or a later run has changed it."""
        folder = self._figures_folder / place
        if is_full_run:
            try:
                content = FullRun(folder.name, self._figures_folder).show_figure(name, scale=2).content
            except InputError:
                return None
            return content if isinstance(content, bytes) and _are_alike(content, shown) else None
        for parent in (folder, folder / "images"):
            for ending in self._endings:
                path = parent / f"{name}{ending}"
                if path.is_file() and _are_alike(content := path.read_bytes(), shown):
                    return content
        return None


def find_output(notebook, name):
    """Find the output of a notebook that shows a figure of this name, None where none does."""
    outputs = (output for cell in notebook["cells"] for output in cell.get("outputs", ()))
    return next((o for o in outputs if o.get("data", {}).get("text/plain") == f"<figure {name}>"), None)


def _are_alike(content, shown):
    """Tell whether an exported picture shows the same as a smaller one."""
    with Image.open(io.BytesIO(content)) as opened, Image.open(io.BytesIO(shown)) as small:
        if abs(opened.width / opened.height / (small.width / small.height) - 1) > 0.04:
            return False
        thumbnails = [np.asarray(picture.convert("L").resize(_THUMBNAIL), float) for picture in (opened, small)]
    return abs(thumbnails[0] - thumbnails[1]).mean() < _ALIKE


def _shrink(content, width):
    """Encode a picture with few colours and at most so many pixels across."""
    with Image.open(io.BytesIO(content)) as opened:
        if opened.width <= 1.2 * width and len(content) < _SMALL:
            return content
        picture = opened.convert("RGB")
    if picture.width > 1.2 * width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.BICUBIC)
    return encode_picture(picture)
