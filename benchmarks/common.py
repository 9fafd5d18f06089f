"""What all benchmarks share: measuring in turn, rows of results, and the files that keep them."""

import json
import os
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from helpers.evaluation.report import read_cpu_name
from helpers.files import replace_atomically
from helpers.parallel import end_with_parent, list_bfloat16_units

RESULTS = Path(__file__).parent / "results.json"
KINDS = ("without bfloat16", "without AMX", "with AMX", "with a GPU")  # of machines; see `name_kind`
NETWORKS = {  # shape, batch size, what build_cnn is called with
    "28x28x1": ((28, 28, 1), 128, {"filters": ((16, 32), (64, 64), (128, 128))}),  # 01_mnist
    "160x120x3": (  # 02_ham10000
        (120, 160, 3),
        32,
        {"filters": ((32,), (32, 48), (64, 96), (128, 192)), "first_stride": 2, "average_pooling": True},
    ),
    "160x120x3 full stride": ((120, 160, 3), 32, {}),  # build_cnn as it comes
}
DEFAULT_FILTERS = ((32, 32), (64, 64), (128, 128))  # of build_cnn
N_CLASSES = 10
_PACKAGES = ("tensorflow", "keras", "numpy", "opencv-python-headless", "pillow", "onnxruntime")
_CLASSES = ("first", "second")


def measure_in_turn(ways, rounds):
    """Measure several ways to do the same in turn, A B C A B C ..., so that all meet the same hours of the machine.

    Parameters
    ----------
    ways : dict of functions without arguments, each returning a measurement
    rounds : int

    Returns
    -------
    dict of lists of measurements, one per round
    """
    measured = {name: [] for name in ways}
    for _ in range(rounds):
        for name, measure in ways.items():
            measured[name].append(measure())
    return measured


def compute_rate(work, count, calls=1):
    """Call ``work`` as often as ``calls`` says; return how many things it does per second, ``count`` in each call."""
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return count * calls / (time.perf_counter() - start)


def compare(what, ours, beside, measured, unit="images/s", **details):
    """Make a row of results: two of the ways in ``measured``, and the ratio of the first to the second in each round.

    Parameters
    ----------
    what : str
        The name of the row; no two rows share one.
    ours, beside : str
        Keys of ``measured``, and what they are called in the row.
    measured : dict of lists of floats
        From `measure_in_turn`.
    unit : str
    **details
        Whatever else is worth keeping, such as a ``note``.
    """
    pairs = zip(measured[ours], measured[beside], strict=True)
    return {
        "what": what,
        "ours": ours,
        "beside": beside,
        "unit": unit,
        "of_ours": summarize(measured[ours]),
        "of_beside": summarize(measured[beside]),
        "ratio": summarize([a / b for a, b in pairs]),
        "rounds": len(measured[ours]),
        **details,
    }


def summarize(values):
    """Return median, lowest and highest, each to four digits."""
    measures = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: float(f"{value:.4g}") for name, value in measures.items()}


def run_alone(function, *arguments, one_core=False):
    """Call a function in a fresh process, on one core if asked, and return what it returns.

    Its memory is its own, and TensorFlow counts the cores only there.
    """
    cores = sorted(os.sched_getaffinity(0))
    prepared = (cores[:1] if one_core else cores, os.getpid())
    with ProcessPoolExecutor(1, get_context("spawn"), _prepare, prepared) as pool:
        return pool.submit(function, *arguments).result()


def _prepare(cores, parent):
    os.sched_setaffinity(0, cores)
    end_with_parent(parent)


def read_peak_memory():
    """Read the peak resident memory of this process in GB; Linux only.

    The resource module would not do: what it tells of a process begins with the memory of the one that started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def draw_images(folder, count, size, channels, different=100, noise=8.0):
    """Draw JPEG images with soft shapes and grain, quality 90, and write them to disk.

    Parameters
    ----------
    folder : Path
    count : int
        Number of files, in two classes with a folder each.
    size : tuple of 2 ints
        Width and height.
    channels : {1, 3}
    different : int
        How many of the files differ; the others are copies, which no way of reading them can make use of.
    noise : float
        Standard deviation of the grain in grey levels; it decides how many bytes a pixel takes.

    Returns
    -------
    DataFrame: an index as of `helpers.data.opening`, ``image_id, path, label``; ``attrs["mean_kilobytes"]`` of a file.
    """
    rng = np.random.default_rng(0)
    rows = []
    for label in _CLASSES:
        (folder / label).mkdir(parents=True)
    drawn = [folder / f"{number}.jpg" for number in range(min(different, count))]
    for path in drawn:
        levels = rng.normal(0, noise, (size[1], size[0], channels)).astype("float32")
        for cells, contrast in ((4, 60), (32, 15)):
            field = rng.normal(128, contrast, (cells, cells, channels)).clip(0, 255).astype("uint8")
            field = Image.fromarray(field.squeeze()).resize(size, Image.Resampling.BICUBIC)
            levels += np.asarray(field, "float32").reshape(levels.shape) - 128
        image = Image.fromarray((levels + 128).clip(0, 255).astype("uint8").squeeze())
        image.save(path, quality=90, subsampling=0)
    contents = [path.read_bytes() for path in drawn]
    for path in drawn:
        path.unlink()
    for number in range(count):
        label = _CLASSES[number % 2]
        path = folder / label / f"{number:06}.jpg"
        path.write_bytes(contents[number % len(contents)])
        rows.append({"image_id": path.stem, "path": str(path.relative_to(folder)), "label": label})
    images = pd.DataFrame(rows)
    images.attrs["mean_kilobytes"] = sum(map(len, contents)) / len(contents) / 1e3
    return images


def draw_pixels(count, shape, n_classes=N_CLASSES):
    """Draw random pixels, as float32 from 0 to 255, and one-hot labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape)).astype("float32")
    return images, np.eye(n_classes, dtype="float32")[rng.integers(0, n_classes, count)]


def describe_machine():
    """Describe what the rows of one run have in common: processor and versions."""
    from helpers.training import tf  # here only: it takes seconds to start

    units = list_bfloat16_units()
    return {
        "processor": read_cpu_name(),
        "cores": os.cpu_count(),
        "amx_bf16": "amx_bf16" in units,
        "avx512_bf16": "avx512_bf16" in units,
        "gpu": bool(tf.config.list_physical_devices("GPU")),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
    }


def name_kind(machine):
    """Name the kind of a machine, one of `KINDS`: by what it multiplies in bfloat16 with, which decides most ratios."""
    if machine["gpu"]:
        return "with a GPU"
    if machine["amx_bf16"]:
        return "with AMX"
    return "without AMX" if machine["avx512_bf16"] else "without bfloat16"


def save_rows(rows, path=RESULTS):
    """Put rows into the file of results, in the place of earlier ones of the same names and the same kind of machine.

    A row that stays, and was measured on another machine of this kind or with other versions, keeps those.

    Parameters
    ----------
    rows : list of dict
        From `compare`.
    path : Path
        Ends in ``.json``; the same as a table goes to the ``.md`` file beside it.
    """
    machine = describe_machine()
    results = read_results(path)
    before = results.get(name_kind(machine), {"rows": []})
    kept = {row["what"]: _keep_apart(row, before, machine) for row in before["rows"]}
    new = {row["what"]: row | {"date": f"{date.today()}"} for row in rows}
    results[name_kind(machine)] = machine | {"rows": list((kept | new).values())}
    with replace_atomically(path) as unfinished:
        unfinished.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_table(path)


def read_results(path=RESULTS):
    """Read the file of results: a dict from each kind of machine, in the order of `KINDS`, to machine and ``rows``."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {kind: results[kind] for kind in KINDS if kind in results}


def write_table(path=RESULTS):
    """Write the file of results as a table, into the ``.md`` file beside it."""
    with replace_atomically(path.with_suffix(".md")) as unfinished:
        unfinished.write_text(format_results(read_results(path)), encoding="utf-8")


def _keep_apart(row, before, machine):
    """Note in a row of an earlier run what was different then."""
    then = {name: value for name, value in before.items() if name != "rows"} | row.get("measured", {})
    other = {name: value for name, value in then.items() if machine.get(name) != value}
    row = {name: value for name, value in row.items() if name != "measured"}
    return row | ({"measured": other} if other else {})


def format_results(results):
    """Format the file of results as Markdown: each row once for each kind of machine that it was measured on."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`. Each row was measured in turn, A B A B ..., where its note does not say otherwise; "
        "medians, in brackets lowest and highest. The kinds of processor are:",
        "",
    ]
    for kind, machine in results.items():
        has = [name for name in ("amx_bf16", "avx512_bf16") if machine[name]]
        lines.append(
            f"- {kind}: {machine['processor']}, {machine['cores']} cores, {' and '.join(has) or 'no bfloat16'}; "
            f"{_format_versions(machine['versions'])}"
        )
    by_kind = {kind: {row["what"]: row for row in machine["rows"]} for kind, machine in results.items()}
    names = dict.fromkeys(name for rows in by_kind.values() for name in rows)
    rows = [rows[name] | {"kind": kind} for name in names for kind, rows in by_kind.items() if name in rows]
    return "\n".join([*lines, "", format_table(rows), ""])


def format_table(rows):
    """Format rows of results as a Markdown table, their notes below it; a row may have a ``kind`` of machine."""
    head = ["what", *(["processor"] if any("kind" in row for row in rows) else [])]
    head += ["A", "B", "of A", "of B", "unit", "A / B", "rounds"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    notes = {}
    for row in rows:
        ours, beside, ratio = (_format_spread(row.get(name)) for name in ("of_ours", "of_beside", "ratio"))
        cells = [row["what"], *([row["kind"]] if "kind" in row else []), row["ours"], row["beside"], ours, beside]
        lines.append(f"| {' | '.join([*cells, row['unit'], ratio, str(row['rounds'])])} |")
        told = "; ".join(filter(None, [row.get("note"), _describe_other(row.get("measured", {}))]))
        notes.setdefault(told, []).append(row["what"] + (f" ({row['kind']})" if "kind" in row else ""))
    notes.pop("", None)
    return "\n".join(lines + [""] * bool(notes) + [f"- {'; '.join(names)}: {told}" for told, names in notes.items()])


def _format_spread(summary):
    """Format median, lowest and highest; of published and older measurements the median alone, or nothing, is known."""
    texts = [f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" for value in (summary or {}).values()]
    if len(set(texts)) < 2:
        return texts[0] if texts else ""
    return "{} ({} to {})".format(*texts)


def _describe_other(measured):
    """Say on which other machine, or with which other versions, a row was measured."""
    about = {name: value for name, value in measured.items() if name in ("processor", "cores")}
    told = [f"{name} {value}" for name, value in about.items()]
    told += [_format_versions(measured["versions"])] if "versions" in measured else []
    return f"measured with {', '.join(told)}" if told else ""


def _format_versions(versions):
    return ", ".join(f"{name} {number}" for name, number in versions.items())
