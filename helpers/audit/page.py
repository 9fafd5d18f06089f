"""The page of an audit: one HTML file with the verdict first, that loads nothing from elsewhere."""

import base64
import html
from io import BytesIO

import numpy as np
from PIL import Image

from helpers.files import show_name

_SHOWN = 12  # findings of a topic, with their pictures
_HEIGHT = 96  # pixels of a picture on the page
_STYLE = """
body{font:16px/1.45 system-ui,sans-serif;color:#222;max-width:60rem;margin:0 auto;padding:1rem}
h1{font-size:1.3rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}
.verdict{padding:.8rem 1rem;border-left:.5rem solid;font-weight:600;background:#f5f5f5}
.bad{border-color:#b3261e}.some{border-color:#b7791f}.good{border-color:#2e7d32}
.finding{border-top:1px solid #ddd;padding:.5rem 0;overflow-wrap:anywhere}
.pictures{display:flex;gap:.4rem}.pictures img{border:1px solid #ccc;max-width:48%}
small{color:#555}li{margin:.2rem 0;overflow-wrap:anywhere}
"""
_TITLES = {
    "unreadable": "Files that cannot be read",
    "across classes": "Copies in two classes",
    "across sets": "Copies in two sets",
    "shared group": "Groups in two sets",
    "class folder": "Images that may lie in the wrong folder",
    "shortcut": "Shortcuts",
    "blank": "Blank images",
    "dark": "Dark images",
    "over-exposed": "Over-exposed images",
    "blurred": "Blurred images",
    "within": "Copies within a set and class",
    "changed": "Changed in reading",
}
_HINTS = {  # what to do
    "unreadable": "Fetch them again, or remove them.",
    "across classes": "Look which label is right, and remove the other copy.",
    "across sets": "Remove one copy of each pair, the one in the training set where a benchmark gives the test set.",
    "shared group": "Move all images of a group to one set. If numbers start again in each set, equal names do not "
    "mean the same group: then give --group an expression that takes the set into the group.",
    "class folder": "Let an expert decide, not a model. At most 2 % of the images are listed, the surest ones.",
    "shortcut": "A model can learn it in place of what is shown. Test on images that do not have it.",
    "within": "Keep one of each pair, or both in the same set: a new division into sets must not part them.",
    "changed": "Look whether they still show what they should.",
}
LIMITS = (
    "A label that is wrong for a whole class, or that only an expert would doubt.",
    "Two photographs of one person or object whose names tell no group, and a copy that was much cropped or turned.",
    "Shortcuts inside the picture, such as rulers, letters or the marks of a device, and those of several things.",
    "Whether the images are like those that the classifier will meet.",
    "Differences from the rest of the folder that most of its images share: blur and darkness are judged against it.",
)


def format_page(audit, name, table_name, pixels, measured):
    """Format the page of an `helpers.audit.Audit` of a folder called ``name``: HTML, as a str.

    ``pixels`` and ``measured``, with ``width`` and ``height``, belong to the images of the audit.
    """
    from helpers.audit import list_topics

    rows = {path: row for row, path in enumerate(audit.images["path"])}
    topics = list_topics(audit.findings)
    tone = {"Do": "bad", "Usable,": "some"}.get(audit.verdict.split(" ")[0], "good")
    parts = [f"<h1>Audit of {html.escape(name)}</h1>", f'<p class="verdict {tone}">{html.escape(audit.verdict)}</p>']
    parts.append(_format_list("What was read from the names", audit.notes))
    for topic, title in _TITLES.items():
        found = audit.findings[topics == topic]
        if len(found):
            parts.append(f"<h2>{title}: {len(found):,}</h2>")
            parts.append(f"<p>{_HINTS.get(topic, 'Look at them, and remove those that show too little.')}</p>")
            parts += [_format_finding(row, rows, pixels, measured) for row in found.head(_SHOWN).to_dict("records")]
        if len(found) > _SHOWN:
            parts.append(f"<p>The other {len(found) - _SHOWN:,} are in {html.escape(table_name)}.</p>")
    parts.append(_format_list("What these checks cannot see", LIMITS))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    title = f"<title>Audit of {html.escape(name)}</title>"
    body = "\n".join(parts)
    head = f"<head>{head}{title}<style>{_STYLE}</style></head>"
    return f'<!doctype html>\n<html lang="en">{head}<body>\n{body}\n</body></html>\n'


def _format_list(title, sentences):
    items = "".join(f"<li>{html.escape(show_name(text))}</li>" for text in sentences)
    return f"<h2>{title}</h2><ul>{items}</ul>"


def _format_finding(finding, rows, pixels, measured):
    files = [(finding[f"{prefix}file"], finding[f"{prefix}class"]) for prefix in ("", "other_")]
    shown = [rows[name] for name, _ in files if name in rows]
    pictures = "".join(_format_picture(pixels[row], measured.iloc[row]) for row in shown)
    names = [f"{name} ({label})" if label and label not in name else name for name, label in files if name]
    names = "<br>".join(html.escape(show_name(name)) for name in names)
    sentence = html.escape(show_name(finding["sentence"]))
    return f'<div class="finding"><div class="pictures">{pictures}</div>{sentence}<br><small>{names}</small></div>'


def _format_picture(pixels, size):
    """Embed a picture; it is shown in the proportions of its file."""
    content = BytesIO()
    Image.fromarray(np.asarray(pixels)).save(content, "JPEG", quality=80)
    source = base64.b64encode(content.getvalue()).decode()
    width = round(_HEIGHT * min(3, size["width"] / size["height"]))
    return f'<img alt="" width="{width}" height="{_HEIGHT}" src="data:image/jpeg;base64,{source}">'
