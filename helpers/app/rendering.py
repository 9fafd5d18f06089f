"""The answer of a model as HTML: one text that is readable on a screen and on a telephone, and loads nothing."""

import base64
from html import escape

import numpy as np
from PIL import Image

from helpers.evaluation.marks import encode_picture
from helpers.evaluation.plots import overlay_heatmaps
from helpers.files import show_name

WARNING = (
    "Not for clinical use: a model for study. It names one of its classes for any picture, also where none is right."
)
SAMPLE_WARNING = (
    "This model was trained on the built-in sample. It shows how the page works; what it says of a real picture is "
    "worth nothing."
)
_FOREIGN_MISTAKE = (
    "On images from another source or year than the training images this mark can be wrong. The model card, a text "
    "file beside the saved model, tells how many test images are marked."
)
_KNOWN = "This picture is one of the training images, or a copy: the answer says nothing about new pictures."
_JUST = 1.05  # times the limit
_COPY = 0.01  # of the limit: so near to a training image, a picture is the same one
_SHOWN = 5  # classes; the others are added up
# What a probability is called: the scale of the reports of the IPCC (Mastrandrea et al. 2010).
_WORDS = {
    0.99: "virtually certain",
    0.9: "very likely",
    0.66: "likely",
    0.33: "about as likely as not",
    0.1: "unlikely",
    0.01: "very unlikely",
    0: "exceptionally unlikely",
}
STYLE = """<style>
.own-image { max-width: 52rem; line-height: 1.5; font-size: 15px; overflow-wrap: anywhere; }
.own-image h3 { margin: 0.8rem 0 0.3rem; font-size: 1.15rem; line-height: 1.4; }
.own-image h4 { margin: 1.1rem 0 0.3rem; font-size: 1rem; }
.own-image p, .own-image ul { margin: 0.3rem 0; }
.own-image .note { border-left: 4px solid #8a8a8a; padding: 0.2rem 0.7rem; }
.own-image .alarm { border-left: 4px solid #c04000; padding: 0.2rem 0.7rem; }
.own-image .row { display: flex; flex-wrap: wrap; gap: 0.9rem; margin: 0.6rem 0; }
.own-image figure { margin: 0; width: 250px; }
.own-image .row.small figure { width: 128px; }
.own-image figure img { display: block; width: 100%; height: 200px; object-fit: contain; background: #8882; margin: 0;
  image-rendering: pixelated; }
.own-image .row.small figure img { height: 128px; }
.own-image figcaption { font-size: 13px; line-height: 1.35; margin-top: 0.2rem; }
.own-image .class { display: grid; grid-template-columns: minmax(6rem, 12rem) minmax(3rem, 1fr) minmax(9rem, 20rem);
  gap: 0.2rem 0.7rem; align-items: center; margin: 0.2rem 0; }
.own-image .bar { background: #8883; height: 0.8rem; }
.own-image .bar div { background: #0072b2; height: 100%; }
@media (max-width: 480px) {
  .own-image .class { grid-template-columns: 1fr 1fr; } .own-image .class .bar { grid-column: 1 / 3; grid-row: 2; }
  .own-image figure { width: calc(50% - 0.5rem); } .own-image .row.small figure { width: calc(50% - 0.5rem); }
}
</style>"""


def describe_probability(probability):
    """Say a probability in words: "likely, 72 of 100"."""
    hundredths = round(100 * probability)
    word = next(word for least, word in _WORDS.items() if hundredths >= 100 * least)
    number = "more than 99" if hundredths == 100 else "fewer than 1" if hundredths == 0 else str(hundredths)
    return f"{word}, {number} of 100"


def _count_hundredths(probability):
    return describe_probability(probability).rsplit(", ", 1)[1]


def render_answer(answer, is_sample):
    """Write an `helpers.app.reader.Answer` as HTML; all that comes from outside is escaped."""
    first, is_foreign = answer.classes.iloc[0], answer.distance is not None and answer.distance > 1
    name, words = escape(str(first["class"])), describe_probability(first["probability"])
    parts = [f'<p class="alarm"><strong>{WARNING}</strong></p>']
    parts += [f'<p class="note">{SAMPLE_WARNING}</p>'] if is_sample else []
    if is_foreign:
        parts += ["<h3>Do not trust the answer: this picture is unlike the training images.</h3>"]
        parts += [
            f"<p>Asked all the same, the model says: <strong>{name}</strong> ({words}).</p><p>{_FOREIGN_MISTAKE}</p>"
        ]
    else:
        parts.append(f"<h3>The model says: {name} ({words})</h3>")
        if answer.distance is not None and answer.distance <= _COPY:
            parts.append(f'<p class="alarm">{_KNOWN}</p>')
    if answer.doubts:
        parts.append(f"<h4>What may be wrong</h4>{_list(answer.doubts)}")
    parts += [_render_pictures(answer), _render_classes(answer.classes), _render_set(answer, is_foreign)]
    parts += [_render_likeness(answer, is_foreign)]
    return f'<div class="own-image">{"".join(parts)}</div>'


def render_message(text, kind="note"):
    """Write a sentence as HTML; ``kind`` is "note" or "alarm"."""
    return f'<div class="own-image"><p class="{kind}">{escape(text)}</p></div>'


def shorten_name(name, most=80):
    """Shorten the name of a file to so many printable signs."""
    name = show_name(name)
    return name if len(name) <= most else f"{name[: most - 12]}…{name[-11:]}"


def _render_pictures(answer):
    height, width, channels = answer.pixels.shape
    changed = f" Changed: {'; '.join(answer.notes)}." if answer.notes else ""
    colours = "grey" if channels == 1 else "colour"
    figures = [
        _render_figure(
            answer.picture, f"Your picture: {shorten_name(answer.name)}, {answer.size[0]} × {answer.size[1]}"
        ),
        _render_figure(answer.pixels, f"What the model gets: {width} × {height} pixels, {colours}.{changed}"),
    ]
    text = (
        "<p>This model has no map of features; therefore Grad-CAM cannot show where it looks. It is an average of "
        "networks, or it rests on a few numbers such as brightness, colour or size.</p>"
    )
    if answer.heatmap is not None:
        name = answer.classes["class"].iloc[0]
        overlay = overlay_heatmaps(answer.pixels[None], answer.heatmap[None])[0]
        figures.append(_render_figure(overlay, f"Where it looks (Grad-CAM): yellow speaks most for {name}."))
        text = ""
    return f'<h4>What the model sees</h4><div class="row">{"".join(figures)}</div>{text}'


def _render_figure(pixels, caption):
    image = Image.fromarray(np.squeeze(pixels, -1) if pixels.shape[-1] == 1 else pixels)
    source = base64.b64encode(encode_picture(image)).decode()
    caption = escape(caption)
    return (
        f'<figure><img src="data:image/png;base64,{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    )


def _render_classes(classes):
    shown, others = classes.head(_SHOWN), classes.iloc[_SHOWN:]
    rows = [(row["class"], row["probability"]) for _, row in shown.iterrows()]
    if len(others):
        rows.append((f"{len(others)} other classes together", others["probability"].sum()))
    lines = [
        f'<div class="class"><span>{escape(str(name))}</span>'
        f'<div class="bar"><div style="width: {100 * value:.0f}%"></div></div>'
        f"<span>{describe_probability(value)}</span></div>"
        for name, value in rows
    ]
    return f"<h4>How likely it finds each class</h4>{''.join(lines)}"


def _render_set(answer, is_foreign):
    """Write the conformal set, and which classes are in it for want of images."""
    if answer.always is None:
        text = "<p>The model was saved without it. Run its notebook again to have it.</p>"
    else:
        names = [
            f"<strong>{escape(str(name))}</strong>{'*' if name in answer.always else ''}"
            for name in answer.classes["class"][answer.classes["in_set"]]
        ]
        first = answer.classes.iloc[0]
        usual = f"{_count_hundredths(first['probability'])} is less than this model usually gives to a right answer."
        if not names:
            said = f"The set is empty: {usual}"
        elif len(names) == 1:
            said = f"Only {names[0]} is in the set."
        else:
            said = f"In the set are {', '.join(names[:-1])} and {names[-1]}: the model cannot rule out any of them."
        if names and not first["in_set"]:
            said += f" {escape(str(first['class']))} is not in the set: {usual}"
        text = (
            f"<p>{said} The set is made so that it holds the true class of 9 in 10 pictures of each class. That is "
            "true of pictures like those of the validation set"
            f"{', and this picture is not like them' if is_foreign else ', not of any picture'}.</p>"
        )
        if answer.always:
            text += (
                "<p>A class with a star (*) is always in the set, because too few validation images show it to rule it "
                "out.</p>"
            )
    return f"<h4>Certainty set (conformal set)</h4>{text}"


def _render_likeness(answer, is_foreign):
    if answer.distance is None:
        return "<h4>Is it like the training images?</h4><p>The model does not know: it was saved without them.</p>"
    just = "just " if answer.distance <= _JUST else ""
    how = f"{just}beyond the limit, so it is foreign" if is_foreign else "within the limit"
    number = f"{answer.distance:.{2 if answer.distance < 10 else 0}f}"
    text = f"<p>Its distance from the training images is {number}; 1 is the limit. It is {how}."
    text += "</p>" if is_foreign else " That it looks familiar does not make the class right.</p>"
    text += "<p>The most similar training images, as the model sees them:</p>"
    if all(pixels is None for _, pixels in answer.similar):
        return f"<h4>Is it like the training images?</h4>{text}{_list(name for name, _ in answer.similar)}"
    figures = [_render_figure(pixels, name) for name, pixels in answer.similar if pixels is not None]
    return f'<h4>Is it like the training images?</h4>{text}<div class="row small">{"".join(figures)}</div>'


def _list(sentences):
    return f"<ul>{''.join(f'<li>{escape(str(text))}</li>' for text in sentences)}</ul>"
