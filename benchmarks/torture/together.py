"""Two at once: two processes begin the same at the same moment, several times; each gets right data or a clear word."""

import hashlib
import io
import json
import os
import tempfile
import time
import traceback
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks.common import draw_images
from benchmarks.torture import Case
from benchmarks.torture.trials import train
from helpers import audit, predict, reports
from helpers import run as running
from helpers.data import catalog, pixels, reading
from helpers.evaluation.drawing import list_tables
from helpers.evaluation.report import Report
from helpers.files import replace_atomically
from helpers.leftovers import find_unfinished
from helpers.parallel import end_with_parent
from helpers.settings import read_settings
from helpers.study import runner
from samples import make_sample

_SECONDS = 300  # at most, that one waits for the other
_TOLD = "is being written by another process. Wait until it has ended"


class _Race(NamedTuple):
    """What two processes do at the same moment, and how it is judged."""

    name: str
    expected: str
    work: object  # function (folder, number of the process) -> what it found, which can be pickled
    judge: object  # function (folder, both results) -> what is wrong: list of str
    rounds: int


def run(short=False):
    """Let two processes do everything, or what needs no network, at once: a list of `Case`."""
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        images = draw_images(place / "scans", 40, (64, 48), 3, different=40)
        races = _list_light(images, place / "scans", 2 if short else 20)
        if not short:
            races += _list_heavy(place)
        return _judge(races, place)


def _judge(races, place):
    """Let two processes run all races: a list of `Case`."""
    jobs = [
        (race.work, place / f"{number}" / f"{turn}") for number, race in enumerate(races) for turn in range(race.rounds)
    ]
    for _, folder in jobs:
        folder.mkdir(parents=True)
    results, cases = _run_both(jobs), []
    for number, race in enumerate(races):
        faults, told = [], 0
        for turn in range(race.rounds):
            found = results[place / f"{number}" / f"{turn}"]
            told += any(_is_told(result) for result in found)
            faults += [
                fault.replace(f"{place}", "") for fault in _find_faults(race, place / f"{number}" / f"{turn}", found)
            ]
        happened = f"right in {race.rounds - len(faults)} of {race.rounds} rounds"
        happened += f"; in {told} one of the two was told so" * bool(told)
        cases.append(Case(race.name, race.expected, "; ".join([happened, *faults[:3]]), not faults))
    return cases


def _find_faults(race, folder, found):
    """List what is wrong after a round, at most one text."""
    if errors := [result for result in found if isinstance(result, str) and result.startswith("Traceback")]:
        return [errors[0].strip().splitlines()[-1]]
    left = [path.name for path in [*find_unfinished(folder), *folder.rglob(".*.lock")]]
    return (race.judge(folder, found) or [f"left over: {name}" for name in left])[:1]


def _run_both(jobs):
    """Run jobs in two processes, which begin each at the same moment: by folder the results of both."""
    context = get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_work, args=(number, jobs, barrier, queue, os.getpid())) for number in range(2)]
    for process in processes:
        process.start()
    results = {folder: [None, None] for _, folder in jobs}
    try:
        for _ in range(2 * len(jobs)):
            number, folder, result = queue.get(timeout=_SECONDS)
            results[folder][number] = result
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    return results


def _work(number, jobs, barrier, queue, parent):
    end_with_parent(parent)
    for work, folder in jobs:
        barrier.wait(_SECONDS)
        try:
            result = work(folder, number)
        except Exception:
            result = traceback.format_exc()
        queue.put((number, folder, result))


def _is_told(result):
    """Tell whether a command line has ended with the word that another process writes the same."""
    return isinstance(result, tuple) and result[0] != 0 and _TOLD in result[1]


# Caches, samples, studies, figures


def _list_light(images, place, rounds):
    whole = pixels.load_pixels(images, place, (32, 48, 3), Path(tempfile.mkdtemp(dir=place.parent)))
    cache = Path(tempfile.mkdtemp(dir=place.parent))
    digest, measured = _hash(whole), pixels.measure_images(images, place, cache)
    trials = pd.DataFrame({"settings": [{"x": number} for number in range(6)], "seed": 5})
    data = "both have the right data"
    return [
        _Race("one cache of pixels", data, partial(_load, images, place), partial(_check_all, digest), rounds),
        _Race(
            "a damaged cache of pixels, while an older one is in use",
            "both have the right data, also the one in use",
            partial(_load_damaged, images, place),
            partial(_check_all, [digest, digest]),
            rounds,
        ),
        _Race(
            "one table of measures and one file of hashes",
            data,
            partial(_measure, images, place),
            partial(_check_measured, measured.to_csv()),
            rounds,
        ),
        _Race("one sample", data, _draw, partial(_check_all, _draw(place / "sample", 0)), rounds),
        _Race("one study", data, partial(_study, trials), _check_study, rounds),
        _Race(
            "figures, tables and results of one run",
            "no figure and no table of one is lost; both runs are counted",
            _export,
            _check_exported,
            1 + rounds // 10,
        ),
    ]


def _hash(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _check_all(expected, folder, found):
    return [] if found == [expected] * 2 else ["other data"]


def _load(images, place, folder, number):
    return _hash(pixels.load_pixels(images, place, (32, 48, 3), folder))


def _load_damaged(images, place, folder, number):
    before = pixels.load_pixels(images, place, (32, 48, 3), folder)
    _meet(folder, "built", number)
    if number == 0:
        (path,) = (folder / "pixels").glob("[!.]*")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        with replace_atomically(path) as unfinished:
            unfinished.write_bytes(content)
    _meet(folder, "damaged", number)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        again = pixels.load_pixels(images, place, (32, 48, 3), folder)
    return [_hash(before), _hash(again)]


def _meet(folder, name, number):
    """Wait until the other process is here, too."""
    (folder / f"{name}_{number}").touch()
    end = time.monotonic() + _SECONDS
    while not (folder / f"{name}_{1 - number}").exists() and time.monotonic() < end:
        time.sleep(0.001)


def _measure(images, place, folder, number):
    reading._hashes.clear()
    with patch.object(reading, "_RECENT", 0):  # hashes of files that were written just now are kept too
        return pixels.measure_images(images, place, folder).to_csv()


def _check_measured(expected, folder, found):
    hashes = [len(reading._load_hashes(path)) for path in (folder / "hashes").glob("[!.]*")]
    return _check_all(expected, folder, found) + [f"{hashes} hashes are kept"] * (hashes != [40])


def _draw(folder, number):
    sample = make_sample(catalog.get_data_set("mnist"), folder)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sample.iterdir()}


def _study(trials, folder, number):
    return runner.run_study(train, trials, folder, (np.arange(4),), n_jobs=1)[["score", "error"]].to_csv()


def _check_study(folder, found):
    scores = pd.DataFrame(train({"x": number}, 5, np.arange(4)) | {"error": ""} for number in range(6))
    return [] if found == [scores.to_csv()] * 2 and len(list(folder.glob("*.json"))) == 6 else ["other results"]


def _export(folder, number):
    import matplotlib.pyplot as plt

    from helpers.evaluation import plots

    plots.set_style()  # as when it is drawn again
    report = Report("01_mnist", read_settings({"NOTEBOOK_MODE": "full"}), False, folder)
    images = pd.DataFrame({"label": ["a", "b", "b"], "image_id": range(3)})
    report.save_figure(plots.plot_counts(images, title="common"), "common")
    _meet(folder, "begun", number)  # what is there before its first figure, a run takes for older
    figure = plots.plot_counts(images, title=f"own_{number}")
    report.save_figure(figure, f"own_{number}")
    with patch("helpers.evaluation.report.save_picture"):  # so that many are described in a short time
        for turn in range(20):
            report.save_figure(figure, f"quick_{number}_{turn}")
    report.save_table(images, "table")
    report.save_results({}, "protocol")
    plt.close("all")
    return "done"


def _check_exported(folder, found):
    run = folder / "01_mnist"
    described = json.loads((run / "figures.json").read_text(encoding="utf-8"))["figures"]
    opened = json.loads((run / "results.json").read_text(encoding="utf-8"))["test_set_opened"]
    if len(described) != 43:
        return [f"{len(described)} of 43 figures"]
    missing = list_tables(described) - {path.stem for path in (run / "tables").iterdir()}
    return ["tables are missing"] * bool(missing) + [f"counted {opened}"] * (opened != 2)


# Commands and trainings


def _list_heavy(place):
    from helpers.training import saving

    model = saving.save_model(_build(), place / "model.keras", {"class_names": ["a", "b", "c"]})
    with redirect_stdout(io.StringIO()):
        predict.main([str(model), str(place / "scans"), "--out", str(place / "whole.csv"), "--batch-size", "4"])
    clear = "right data, or exit status 2 and a line that says that another process writes it"
    return [
        _Race(
            "predictions of one table",
            clear,
            partial(_predict, model, place / "scans"),
            partial(_check_predicted, _read_predictions(place / "whole.csv")),
            5,
        ),
        _Race("one page of an audit", clear, partial(_audit, place / "scans"), _check_audited, 3),
        _Race("one training with one checkpoint", "both have the same weights", _train_network, _check_trained, 3),
        _Race("one notebook", "one is executed, the other one says so", _run_notebook, _check_notebook, 3),
    ]


def _build():
    from helpers.training import networks  # isort: skip  (first: it starts TensorFlow without its log lines)
    import keras

    keras.utils.set_random_seed(1)
    return networks.build_cnn((16, 16, 3), 3, (np.full(3, 128.0), np.full(3, 60.0)), filters=((8,), (8,)))


def _call(main, *arguments):
    """Run a command line: its exit status, and what it says."""
    with redirect_stdout(io.StringIO()) as told, redirect_stderr(io.StringIO()) as error:
        status = main([str(argument) for argument in arguments])
    return status, told.getvalue() + error.getvalue()


def _find_unclear(found):
    """List what is wrong with two ends of a command line: one has done it, the other one too or was told."""
    unclear = [text for status, text in found if status and not _is_told((status, text))]
    return unclear or ["none has done it"] * all(status for status, _ in found)


def _predict(model, scans, folder, number):
    return _call(predict.main, model, scans, "--out", folder / "table.csv", "--batch-size", 4)


def _read_predictions(path):
    return pd.read_csv(path)[["file", "class", "content"]].to_csv()


def _check_predicted(expected, folder, found):
    same = _read_predictions(folder / "table.csv") == expected
    return _find_unclear(found) + ["another table"] * (not same)


def _audit(scans, folder, number):
    return _call(audit.main, scans, "--out", folder / "page.html")


def _check_audited(folder, found):
    names = sorted(path.name for path in folder.iterdir())
    whole = (folder / "page.html").read_text(encoding="utf-8").endswith("</html>\n")
    return _find_unclear(found) + ["no page"] * (not whole or names != ["page.findings.csv", "page.html"])


def _train_network(folder, number):
    from helpers.training import fit

    x, y = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), "uint8"), np.eye(3, dtype="float32")[[0, 1] * 32]
    recipe = fit.Recipe(epochs=4, batch_size=16, learning_rate=0.01)
    with redirect_stdout(io.StringIO()):
        fit.fit_model(model := _build(), (x, y), (x, y), recipe, checkpoint=folder / "checkpoint.npz")
    return [_hash(weight) for weight in model.get_weights()]


def _check_trained(folder, found):
    (folder / "alone").mkdir()
    return _check_all(_train_network(folder / "alone", 0), folder, found)


def _run_notebook(folder, number):
    import nbformat

    path = folder / "notebook.ipynb"
    if number == 0:
        cell = nbformat.v4.new_code_cell("import time; time.sleep(2); print('done')")
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    _meet(folder, "written", number)
    with ExitStack() as stack:
        for module in (reports, running):
            stack.enter_context(patch.object(module, "PROJECT_FOLDER", folder))
        for name in ("REPORTS_FOLDER", "FIGURES_FOLDER"):
            stack.enter_context(patch.object(reports, name, folder / "reports"))
        return _call(running.main, path)


def _check_notebook(folder, found):
    import nbformat

    (cell,) = nbformat.read(folder / "reports" / "notebook.ipynb", as_version=4).cells
    page = (folder / "reports" / "notebook.html").read_text(encoding="utf-8")
    whole = cell.outputs[0].text == "done\n" and page.rstrip().endswith("</html>")
    return (
        _find_unclear(found) + ["both were executed"] * (sum(map(_is_told, found)) != 1) + ["no report"] * (not whole)
    )
