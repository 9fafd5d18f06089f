"""The table in ``docs/speed.md``: how many times as fast, for each kind of machine, from the file of results."""

from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.common import RESULTS, read_results
from helpers.files import replace_atomically

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
BEGIN, END = "<!-- table: made by `make bench` -->\n", "<!-- end of the table -->"
LINES = (  # what, beside, which rows: a range spans those of a pattern, several patterns are divided by a slash
    ("training step, float32", "Keras, float32, the same network", "training step, *, float32, Keras"),
    ("", "Keras, float32, which pools last, as is common", "training step, *, float32, Keras, common order"),
    ("", "PyTorch eager, float32", "training step, *, float32, PyTorch"),
    ("", "its convolutions alone", "training step, *, float32, bound"),
    ("training step, bfloat16", "Keras, float32, the same network", "training step, *, mixed_bfloat16, Keras"),
    ("", "Keras, float32, which pools last", "training step, *, mixed_bfloat16, Keras, common order"),
    ("", "PyTorch eager, bfloat16", "training step, *, mixed_bfloat16, PyTorch"),
    ("", "its convolutions alone", "training step, *, mixed_bfloat16, bound"),
    ("an epoch of a published melanoma network", "Keras, float32", "epoch of the melanoma CNN, Keras"),
    ("", "a T4, as published", "epoch of the melanoma CNN, GPU"),
    (
        "features of EfficientNet-Lite0 / MobileNetV2, width 0.35 / 1",
        "Keras's `predict`, float32",
        "features, EfficientNet-Lite0",
        "features, MobileNetV2 0.35",
        "features, MobileNetV2 1.0",
    ),
    (
        "a step of fine-tuning all of it",
        "Keras, float32",
        "fine-tuning of all layers, EfficientNet-Lite0",
        "fine-tuning of all layers, MobileNetV2 0.35",
        "fine-tuning of all layers, MobileNetV2 1.0",
    ),
    (
        "augmentation, 160 × 120 / 28 × 28, two cores",
        "`ImageDataGenerator.flow`",
        "augmentation, 160x120x3",
        "augmentation, 28x28x1",
    ),
    (
        "the same on one core",
        "`ImageDataGenerator.flow`",
        "augmentation, 160x120x3, one core",
        "augmentation, 28x28x1, one core",
    ),
    (
        "preparing 600 × 450 on one core / two",
        "a loop of Pillow, one core",
        "preparation, 600x450, cold, one core",
        "preparation, 600x450, cold, loop",
    ),
    ("", "Keras, which leaves out pixels, two cores", "preparation, 600x450, cold, Keras"),
    (
        "preparing X-rays of 1900 × 1500 on one core / two",
        "a loop of Pillow, one core",
        "preparation, X-rays 1900x1500, cold, one core",
        "preparation, X-rays 1900x1500, cold, loop",
    ),
    ("", "Keras, which leaves out pixels, two cores", "preparation, X-rays 1900x1500, cold, Keras"),
    ("predicting one image", "`model.predict`", "prediction, *, batch 1, ours"),
    ("the same by ONNX Runtime", "`model.predict`", "prediction, *, batch 1, ONNX Runtime"),
    ("predicting many, float32", "`model.predict`", "prediction, *, float32, batch 256, ours"),
    ("", "its convolutions alone", "prediction, *, float32, batch 256, bound"),
    ("predicting many, bfloat16", "`model.predict`", "prediction, *, mixed_bfloat16, batch 256, ours"),
    ("a study, side by side", "one training after the other", "study, *"),
)


def write_page(results=RESULTS, page=PAGE):
    """Put the table of a file of results into a page, between the two lines that mark its place."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    with replace_atomically(page) as unfinished:
        unfinished.write_text(f"{before}{BEGIN}{format_ratios(read_results(results))}\n{END}{after}", encoding="utf-8")


def format_ratios(results):
    """Format the medians of the ratios as a Markdown table with a column for each kind of machine."""
    head = ["what", "beside", *(f"{kind}, times as fast" for kind in results)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for what, beside, *patterns in LINES:
        cells = [_format_ratios(machine["rows"], patterns) for machine in results.values()]
        lines.append(f"| {' | '.join([what, beside, *cells])} |")
    return "\n".join(lines)


def _format_ratios(rows, patterns):
    texts = [_format_range([row for row in rows if fnmatchcase(row["what"], pattern)]) for pattern in patterns]
    return " / ".join(texts) if any(text != "–" for text in texts) else "–"


def _format_range(rows):
    """Format the lowest and the highest ratio of some rows, or a dash if there is none."""
    # Of seconds fewer are better.
    ratios = sorted(row["ratio"]["median"] ** (-1 if row["unit"].startswith("s") else 1) for row in rows)
    ends = [f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:#.2g}" for ratio in (*ratios[:1], *ratios[-1:])]
    return " to ".join(dict.fromkeys(ends)) or "–"
