"""Disks that are full, read-only, or vanish while something is written: a clear word, and nothing is lost.

Everything is written once, then the disk is spoilt, and it is written again otherwise. The second time has to end in
one line that names the file and the reason. What was there before has to stay, without a hidden file beside it.
"""

import io
import os
import resource
import shutil
import tempfile
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks.common import draw_images, run_alone
from benchmarks.torture import Case
from benchmarks.torture.mounting import Disk, MountError, mount
from benchmarks.torture.trials import train
from helpers import audit, predict, reports
from helpers import run as running
from helpers.data import catalog, pixels
from helpers.evaluation.report import Report
from helpers.files import WriteError
from helpers.predict.classifier import Classifier
from helpers.settings import read_settings
from helpers.study import runner
from samples import make_sample

_FULL, _READ_ONLY = "No space left on device", "Read-only file system"
_TOO_LARGE, _VANISHED = "File too large", "No such file or directory"
_SHAPE = (16, 16, 3)  # of the images of a network
_EXPECTED = "a line that names the file and why; the old file stays, nothing is left over"


# What is written: functions of the folder and of the number of the attempt, 1 or 2


def _write_table(folder, number):
    _make_report(folder).save_table(pd.DataFrame({"number": [number] * 3000}), "table")


def _write_results(folder, number):
    _make_report(folder).save_results({"images": f"{number}" * 5000}, "protocol")


def _write_figure(folder, number):
    from helpers.evaluation import plots

    images = pd.DataFrame({"label": ["a", "b"] * number, "image_id": range(2 * number)})
    _make_report(folder).save_figure(plots.plot_counts(images, title=f"{number}"), "figure")


def _make_report(folder):
    settings = read_settings({"NOTEBOOK_MODE": "full"})
    return Report("01_mnist", settings, is_sample=False, figures_folder=folder)


def _write_notebook(folder, number):
    import nbformat

    text = nbformat.v4.new_markdown_cell(f"# Title\n\n{number} " + "A text. " * 3000)
    running._write_notebook(nbformat.v4.new_notebook(cells=[text]), folder / "notebook.ipynb")


def _write_study(folder, number):
    trials = pd.DataFrame({"settings": [{}], "seed": number})
    runner.run_study(train, trials, folder, n_jobs=1)


def _write_sample(folder, number):
    make_sample(catalog.get_data_set("mnist"), folder / f"{number}")


def _write_pixels(images, place, folder, number):
    pixels.load_pixels(images, place, (32 * number, 32, 3), folder)


def _write_measures(images, place, folder, number):
    pixels.measure_images(images, place, folder, background=number)


_READERS = (_write_pixels, _write_measures)


# How the disk is spoilt


@contextmanager
def _fill(disk):
    disk.fill()
    yield _FULL


@contextmanager
def _fill_nearly(disk):
    """Leave space for the beginning of a file: what is mapped into memory is larger than that."""
    disk.fill(leave=8192)
    yield _FULL


@contextmanager
def _protect(disk):
    disk.protect()
    yield _READ_ONLY


@contextmanager
def _limit(disk):
    """Let no file of this process become longer than 100 bytes, for which nothing has to be mounted."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield _TOO_LARGE
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def _remove(disk):
    """Remove the folder when the first file in it is written, but for its last step."""
    original = os.fsync

    def remove(number):
        original(number)
        if "hashes" not in Path(f"/proc/self/fd/{number}").readlink().parts:  # which nobody needs
            shutil.rmtree(disk.folder)

    with patch.object(os, "fsync", remove):
        yield _VANISHED


def _attempt(write, spoil, disk):
    """Write, spoil the disk, and write again: what was said, and what is wrong with it or with what is left."""
    write(disk.folder, 1)
    before = _read_files(disk)
    with spoil(disk) as reason:
        try:
            write(disk.folder, 2)
        except WriteError as error:
            told = str(error)
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
        else:
            told = "nothing was said"
    faults = []
    if not (told.startswith(f"{disk.folder}/") and f"cannot be written ({reason}" in told and "\n" not in told):
        faults.append("which is no such line")
    if spoil is not _remove and _read_files(disk) != before:
        faults.append("other files are there than before")
    return told.replace(f"{disk.folder}/", "").splitlines()[0], faults


def _read_files(disk):
    paths = (path for path in disk.folder.rglob("*") if path.is_file() and path != disk.filler)
    return {path: path.read_bytes() for path in paths}


def _try(name, spoil, *writers, attempt=_attempt):
    """Make a case of what is written, each on a disk of its own."""
    heard, faults = [], []
    for write in writers:
        with _make_disk(spoil) as disk:
            told, wrong = attempt(write, spoil, disk)
        heard.append(told)
        faults += [f"{told}: {fault}" for fault in wrong]
    more = f" So for {len(writers)} kinds of files." if len(writers) > 1 else ""
    return Case(name, _EXPECTED, "; ".join(faults) or heard[0] + more, not faults)


def _attempt_alone(*arguments):
    """Do as `_attempt` in a process of its own, because it may be killed (SIGBUS)."""
    try:
        return run_alone(_attempt, *arguments)
    except BrokenExecutor:
        return "nothing was said", ["the process was killed"]


@contextmanager
def _make_disk(spoil):
    """Make a folder: on a disk of its own if it is to be filled or protected."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place, "disk")
        folder.mkdir()
        yield stack.enter_context(mount(folder, 16)) if spoil in (_fill, _fill_nearly, _protect) else Disk(folder)


# The cases


def run(short=False):
    """Try all, or without models and commands: a list of `Case`.

    Where nothing can be mounted, the short form takes a limit for the length of files instead of a full disk, and none
    is read-only; the long form says that it was not tried.
    """
    with tempfile.TemporaryDirectory() as place:
        images = draw_images(Path(place), 20, (64, 48), 3, different=20)
        write_pixels, write_measures = (partial(function, images, Path(place)) for function in _READERS)
        try:
            with _make_disk(_fill):
                full = _fill
        except MountError as error:
            if not short:
                return [Case("small disks", "they can be mounted", f"not tried: {error}", False)]
            full = _limit
        small = (_write_table, _write_results, _write_notebook, _write_study)
        cases = [
            _try(
                "a full disk: tables, results and executed notebooks",
                full,
                _write_table,
                _write_results,
                _write_notebook,
            ),
            _try("a full disk: a figure", full, _write_figure),
            _try("a full disk: the measures of images", full, write_measures),
            _try("a full disk: a sample, drawn file by file", full, _write_sample),
            _try("a full disk: results of a study", full, _write_study),
            _try(
                "a full disk: the cache of pixels",
                _fill_nearly if full is _fill else full,
                write_pixels,
                attempt=_attempt_alone,
            ),
            _try("a folder that is removed", _remove, *small, _write_figure, write_pixels, write_measures),
        ]
        if full is _fill:
            read = (_write_figure, write_pixels, write_measures, _write_sample)
            cases.append(_try("a read-only disk", _protect, *small, *read))
    return cases if short else cases + run_alone(_try_models) + run_alone(_try_commands)


def _try_models():
    """Try what trains and saves networks, in a process of its own."""
    from helpers.training import fit, saving

    x, y = np.random.default_rng(0).integers(0, 256, (64, *_SHAPE), "uint8"), np.eye(3, dtype="float32")[[0, 1] * 32]

    def save(folder, number):
        saving.save_model(_build(number), folder / "model.keras", {"class_names": ["a", "b", "c"]})

    def export(folder, number):
        saving.measure_forms(_build(number), x, folder, seconds=0.01)

    def train(folder, number, epochs=1):
        recipe = fit.Recipe(epochs=epochs, batch_size=16, learning_rate=0.01 * number)
        fit.fit_model(model := _build(0), (x, y), (x, y), recipe, checkpoint=folder / "checkpoint.npz")
        return model.get_weights()

    def fill_late(recorder, epoch, logs=None, begin=fit._Recorder.on_epoch_begin):
        if epoch == 2:
            disk.fill()
        begin(recorder, epoch)

    cases = [_try("a full disk: models, ONNX, LiteRT and checkpoints", _fill, save, export, train)]
    cases.append(_try("a read-only disk: models, ONNX, LiteRT and checkpoints", _protect, save, export, train))
    told, heard = "", io.StringIO()
    with _make_disk(_fill) as disk, _make_disk(_remove) as other, redirect_stdout(heard):
        whole = train(other.folder, 1, epochs=4)
        try:
            with patch.object(fit._Recorder, "on_epoch_begin", fill_late):
                train(disk.folder, 1, epochs=4)
        except WriteError as error:
            told = f"{error}".replace(f"{disk.folder}/", "")
        disk.empty()
        same = all(map(np.array_equal, whole, train(disk.folder, 1, epochs=4)))
    right = same and "cannot be written" in told and "going on after epoch 2 of 4" in heard.getvalue()
    expected = "the training stops and names the checkpoint; it goes on when there is space, to the same weights"
    happened = f"{told}; {heard.getvalue().strip()}; {'the same' if same else 'other'} weights"
    return [*cases, Case("a disk that is full after two epochs of a training", expected, happened, right)]


def _build(seed):
    from helpers.training import networks  # isort: skip  (first: it starts TensorFlow without its log lines)
    import keras

    keras.utils.set_random_seed(seed)
    return networks.build_cnn(_SHAPE, 3, (np.full(3, 128.0), np.full(3, 60.0)), filters=((8,), (8,)))


def _try_commands():
    """Try the commands, whose message is one line and whose exit status is 2, in a process of its own."""
    from helpers.training import saving

    expected = "exit status 2 and a line that names the file; what was there stays"
    with tempfile.TemporaryDirectory() as place:
        model = saving.save_model(_build(1), Path(place, "model.keras"), {"class_names": ["a", "b", "c"]})
        draw_images(folder := Path(place, "scans"), 40, (64, 48), 3, different=40)
        return [
            _fill_predictions(model, folder),
            _refuse_predictions(model, folder, expected),
            _refuse_audit(folder, expected),
            _refuse_notebook(expected),
            _fill_shared_arrays(),
        ]


def _call(main, *arguments):
    """Run a command line: its exit status, what it says, and that in one line."""
    with redirect_stdout(io.StringIO()) as told, redirect_stderr(io.StringIO()) as error:
        status = main([str(argument) for argument in arguments])
    return status, told.getvalue() + error.getvalue()


def _is_clear(heard, path, reason):
    """Tell whether a command line has ended with one line that names the file and why."""
    return heard[0] == 2 and heard[1].count("\n") == 1 and f"error: {path} cannot be written ({reason}" in heard[1]


def _fill_predictions(model, folder):
    arguments = (model, folder, "--batch-size", 4)
    with _make_disk(_fill) as disk:
        out, whole = disk.folder / "table.csv", disk.folder / "whole.csv"
        _call(predict.main, *arguments, "--out", whole)
        disk.fill(leave=4096)
        first = _call(predict.main, *arguments, "--out", out)
        kept = out.read_bytes()
        disk.empty()
        second = _call(predict.main, *arguments, "--out", out)
        tables = [pd.read_csv(path)[["file", "class", "content"]] for path in (out, whole)]
        same, grown = tables[0].equals(tables[1]), out.read_bytes().startswith(kept)
    rows = kept.count(b"\n") - 1
    right = _is_clear(first, out, _FULL) and kept.endswith(b"\n") and 0 < rows < 40 and second[0] == 0
    return Case(
        "a disk that is full while predictions are written",
        "exit status 2 and a line that names the table, with whole rows only; the next run goes on",
        f"exit status {first[0]} after {rows} of 40 whole rows; then {second[1].strip().replace(f'{disk.folder}/', '')}"
        f"; {'the same' if same else 'another'} table as without",
        right and same and grown,
    )


def _refuse_predictions(model, folder, expected):
    def remove(classifier, images, original=Classifier.predict):
        shutil.rmtree(other.folder, ignore_errors=True)
        return original(classifier, images)

    with _make_disk(_protect) as disk, _make_disk(_remove) as other:
        out = disk.folder / "table.csv"
        _call(predict.main, model, folder / "first", "--out", out)
        before = out.read_bytes()
        disk.protect()
        read_only = _call(predict.main, model, folder, "--out", out)
        with patch.object(Classifier, "predict", remove):
            removed = _call(predict.main, model, folder, "--out", other.folder / "table.csv")
        right = _is_clear(read_only, out, _READ_ONLY) and out.read_bytes() == before
    right = right and removed[0] == 2 and "table.csv was removed while it was written" in removed[1]
    happened = f"exit status {read_only[0]} and {removed[0]}: {read_only[1]}{removed[1]}"
    happened = happened.replace(f"{disk.folder}/", "").replace(f"{other.folder}/", "").strip()
    return Case("predictions to a read-only disk, and to a folder that is removed", expected, happened, right)


def _refuse_audit(folder, expected):
    with _make_disk(_fill) as disk:
        out = disk.folder / "page.html"
        _call(audit.main, folder / "first", "--out", out)
        before = _read_files(disk)
        disk.fill()
        heard = _call(audit.main, folder, "--out", out)
        right = heard[0] == 2 and heard[1].startswith(f"error: {disk.folder}/page.") and _FULL in heard[1]
        right = right and heard[1].count("\n") == 1 and _read_files(disk) == before
    happened = f"exit status {heard[0]}: {heard[1].strip()}".replace(f"{disk.folder}/", "")
    return Case("a full disk: the page of an audit", expected, happened, right and len(before) == 2)


def _refuse_notebook(expected):
    with _make_disk(_fill) as disk, ExitStack() as stack:
        for module in (reports, running):
            stack.enter_context(patch.object(module, "PROJECT_FOLDER", disk.folder.parent))
        for name, folder in (("REPORTS_FOLDER", disk.folder), ("FIGURES_FOLDER", disk.folder.parent)):
            stack.enter_context(patch.object(reports, name, folder))
        _write_notebook(disk.folder.parent, 1)
        path = disk.folder.parent / "notebook.ipynb"
        done = _call(running.main, path)
        before = _read_files(disk)
        disk.fill()
        heard = _call(running.main, path)
        right = done[0] == 0 and heard[0] == 2 and _read_files(disk) == before and len(before) > 2
    line = next((line for line in heard[1].splitlines() if "FAILED" in line), "no line with FAILED")
    happened = f"exit status {heard[0]}: {line}".replace(f"{disk.folder}/", "")
    right = right and "FAILED: WriteError: " in line and f"notebook.ipynb cannot be written ({_FULL}" in line
    return Case("a full disk: a notebook that is executed", expected, happened, right)


def _fill_shared_arrays():
    trials, arrays = pd.DataFrame({"settings": [{}] * 2, "seed": range(2)}), (np.ones(10**6),)
    scores, told = [train({}, seed, *arrays)["score"] for seed in range(2)], "nothing was said"
    with _make_disk(_fill) as disk, _make_disk(_remove) as other, patch.dict(os.environ):
        os.environ["JOBLIB_TEMP_FOLDER"] = str(disk.folder)
        disk.fill()
        try:
            runner.run_study(train, trials, other.folder, arrays, n_jobs=2)
        except WriteError as error:
            told = str(error)
        disk.empty()
        results = runner.run_study(train, trials, other.folder, arrays, n_jobs=2)
    right = told.startswith(f"{disk.folder}, where") and _FULL in told and results["score"].tolist() == scores
    return Case(
        "a full disk: arrays that the processes of a study share",
        "a line that names the folder; the study goes on when there is space",
        f"{told.replace(str(disk.folder), 'disk')}; then {len(results)} results",
        right,
    )
