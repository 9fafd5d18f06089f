"""Predict the classes of images with a saved model: ``python -m helpers.predict MODEL FOLDER_OR_FILE ...``.

The table that it writes has one row per image and the columns ``file``; ``class``; ``confidence``, the largest
probability; ``uncertain``, from the model's conformal thresholds, empty if it has none; ``p_<class>`` for each class;
and ``model``, the beginning of the model file's SHA-256. Rows are written batch by batch: started again with the same
model, options and table it goes on where it was stopped. Files that cannot be read are listed beside it, in
``<name>.problems.csv``; they are tried again.

What it needs to know is in the model file, see ``about`` of `helpers.training.saving.save_model`; any of it may be
missing: ``class_names``, in the order of the outputs; ``class_labels``, a readable name for each; ``views``, how many
test-time augmentation averages over; ``conformal``, thresholds of `helpers.evaluation.calibration.fit_conformal`.
"""

import argparse
import csv
import hashlib
import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.data.layouts.common import IMAGE_ENDINGS, list_files, order_naturally
from helpers.data.pixels import read_image, refuse_bombs
from helpers.files import InputError, replace_atomically

_BATCH_SIZE = 64
_LISTED = 20  # so many problems are told
_PROBLEM_COLUMNS = ["file", "problem"]
_ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}  # any file name comes back as it was
_REMEDY = "It was left as it is: choose another --out."


def main(arguments=None):
    """Run the command line; return the exit status.

    0; 1 (some files could not be read, the others are predicted); 2 (bad input, or the table could not be written);
    130 (Ctrl-C, the rows written are kept).
    """
    parser = argparse.ArgumentParser(
        prog="python -m helpers.predict",
        description="Predict the classes of images with a saved model. Started again it goes on where it was stopped.",
    )
    parser.add_argument("model", metavar="MODEL", help="a .keras file that a notebook saved")
    parser.add_argument("paths", nargs="+", metavar="FOLDER_OR_FILE", help="images; folders with all below them")
    parser.add_argument("--out", default="predictions.csv", metavar="FILE", help="the table; default: predictions.csv")
    parser.add_argument("--batch-size", type=int, default=_BATCH_SIZE, metavar="N", help="images read at a time")
    parser.add_argument("--views", type=int, choices=(1, 4, 8), help="views for test-time augmentation")
    options = parser.parse_args(arguments)
    try:
        outcome = predict_files(
            options.model, options.paths, options.out, batch_size=options.batch_size, views=options.views
        )
    except (InputError, OSError) as error:
        sys.stderr.write(f"error: {_on_one_line(error)}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return 130
    before = f" ({outcome.before:,} before)" if outcome.before else ""
    sys.stdout.write(f"{options.out}: predicted {outcome.predicted:,}{before}\n")
    problems = outcome.problems
    if problems.empty:
        return 0
    further = f" (here the first {_LISTED})" if len(problems) > _LISTED else ""
    sys.stderr.write(f"could not read {len(problems):,}, see {_name_problems(Path(options.out))}{further}:\n")
    for row in problems.head(_LISTED).itertuples():
        sys.stderr.write(f"  {_on_one_line(row.file)}: {row.problem}\n")
    return 1


class Outcome(NamedTuple):
    """What `predict_files` did."""

    predicted: int  # images
    before: int  # images that were predicted before
    problems: pd.DataFrame  # columns file, problem: the files that could not be read


def predict_files(model_path, paths, out, *, batch_size=_BATCH_SIZE, views=None, relative_to=None, progress=None):
    """Predict the classes of image files, and write a table of them; see the module's description.

    Parameters
    ----------
    paths, relative_to
        As for `find_images`.
    out : str or Path
        The table, a CSV file. Rows that it has stay, and their files are skipped; a torn last row is dropped.
    batch_size : int
        How many images are read and written at a time; twice as many are held in memory.
    views : {1, 4, 8}, optional
        As for `helpers.training.fast.predict_probabilities`; by default what the model says, or else 1.
    progress : bool, optional
        Whether to show a progress bar; by default on terminals.

    Raises
    ------
    InputError
        The model or a path is missing, the model cannot be used, there is no image, or ``out`` cannot be the table of
        this model's predictions; nothing was written then.
    """
    out, problems = Path(out), []
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}: expected 1 or more.")
    if out.is_dir():
        raise InputError(f"{out} is a folder; expected the name of a CSV file.")
    place = next(folder for folder in out.absolute().parents if folder.exists())
    if not place.is_dir():
        raise InputError(f"{out} cannot be written: {place} is a file, not a folder.")
    files = find_images([paths] if isinstance(paths, str | Path) else paths, relative_to)
    classifier = _Classifier(model_path, views)
    done, size = _read_done(out, classifier)
    waiting = [item for item in files.items() if item[0] not in done]
    before = len(files) - len(waiting)
    bar_settings = {"unit": "image", "smoothing": 0.05, "disable": None if progress is None else not progress}
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(out, "ab") as table, tqdm(total=len(files), initial=before, **bar_settings) as bar:
            table.truncate(size)
            if not size:
                table.write(_format_rows([classifier.header]))
            _predict(classifier, waiting, batch_size, table, problems, bar)
    finally:
        if problems:  # also of a run that is stopped
            with replace_atomically(_name_problems(out)) as unfinished:
                unfinished.write_bytes(_format_rows([_PROBLEM_COLUMNS, *problems]))
    if not problems:  # what an earlier run listed can be read now
        _name_problems(out).unlink(missing_ok=True)
    return Outcome(len(waiting) - len(problems), before, pd.DataFrame(problems, columns=_PROBLEM_COLUMNS))


def find_images(paths, relative_to=None):
    """Find images: a dict of files by their names, the paths as given, or relative to ``relative_to``.

    ``paths`` are files, whatever their endings; and folders, which are searched with all folders below them, in natural
    order: 2.bmp before 10.bmp. Hidden files and those without the ending of an image are left out.

    Raise InputError if a path does not exist, or there is no image.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [below for below in list_files(path) if below.suffix.lower() in IMAGE_ENDINGS]
            inside = [below for below in inside if not any(part.startswith(".") for part in below.parts)]
            inside.sort(key=lambda below: ([order_naturally(part.casefold()) for part in below.parts], below))
            found += [path / below for below in inside]
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or folder.")
    if not found:
        endings = ", ".join(sorted(IMAGE_ENDINGS))
        raise InputError(f"no image in {', '.join(map(str, paths))}: expected files that end in {endings}.")
    return {(path.relative_to(relative_to) if relative_to else path).as_posix(): path for path in found}


class _Classifier:
    """A saved model with what it says about itself."""

    def __init__(self, path, views=None):
        from helpers.training import saving

        try:
            about = saving.read_about(path)
            self._model = saving.load_model(path)
        except (FileNotFoundError, ValueError) as error:
            raise InputError(str(error)) from error
        match self._model.input_shape, self._model.output_shape:
            case (_, int(), int(), 1 | 3) as pixels, (_, int(n_classes)):
                self.shape = tuple(pixels[1:])
            case shapes:
                raise InputError(f"{path} is no classifier of grey or colour images: from {shapes[0]} to {shapes[1]}.")
        self._names = about.get("class_names") or [f"class_{number}" for number in range(n_classes)]
        self._labels = about.get("class_labels") or {}
        self._views = views or about.get("views") or 1
        self._thresholds = about.get("conformal") or {}
        with open(path, "rb") as file:
            self.digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        try:
            if not len(set(self._names)) == len(self._names) == n_classes:
                raise ValueError(f"it has {n_classes} outputs, but class_names are {self._names}")
            self.header = ["file", "class", "confidence", "uncertain", *(f"p_{name}" for name in self._names), "model"]
            self.predict(np.zeros((1, *self.shape), "uint8"))
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{path} cannot be used: {error}") from error

    def predict(self, pixels):
        """Predict images; return for each its row of the table, without the name of the file."""
        from helpers.evaluation.calibration import predict_sets
        from helpers.training.fast import predict_probabilities

        y_prob = predict_probabilities(self._model, pixels, views=self._views).astype("float64")
        uncertain = [""] * len(y_prob)
        if self._thresholds:
            table = pd.DataFrame(y_prob, columns=[f"p_{name}" for name in self._names])
            uncertain = predict_sets(table, self._thresholds)["uncertain"].tolist()
        rows = []
        for probabilities, flag in zip(y_prob, uncertain, strict=True):
            name = self._names[probabilities.argmax()]
            confidence, *others = (f"{value:.6g}" for value in (probabilities.max(), *probabilities))
            rows.append([self._labels.get(name, name), confidence, flag, *others, self.digest])
        return rows


def _read_done(out, classifier):
    """Read which files a table has already, and how many bytes of it are complete rows."""
    done, complete = set(), 0
    if not out.exists():
        return done, complete
    with open(out, "rb") as file:
        lines = (line.decode(**_ENCODING) for line in file if line.endswith(b"\n"))  # a kill may have torn the last one
        rows = csv.reader(lines, strict=True)
        try:
            header = next(rows, None)
            if header is None and _format_rows([classifier.header]).startswith(out.read_bytes()):
                return done, complete
            if header != classifier.header:
                raise InputError(f"{out} is no table of this model's predictions. {_REMEDY}")
            complete = file.tell()
            for row in rows:
                if len(row) != len(header):
                    raise InputError(f"{out}: line {rows.line_num} is no row of such a table. {_REMEDY}")
                if row[-1] != classifier.digest:
                    raise InputError(f"{out} is of the model {row[-1]}; this one is {classifier.digest}. {_REMEDY}")
                done.add(row[0])
                complete = file.tell()
        except csv.Error as error:
            if "unexpected end of data" not in str(error):  # torn inside a name of several lines
                raise InputError(f"{out}: line {rows.line_num} cannot be read ({error}). {_REMEDY}") from error
    return done, complete


def _predict(classifier, files, batch_size, table, problems, bar):
    """Predict files batch by batch; while one batch is predicted the next one is read."""
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    pool = ThreadPoolExecutor(os.cpu_count())

    def start_reading(batch):
        return [pool.submit(_try_to_read, path, classifier.shape) for _, path in batch]

    with refuse_bombs():
        try:
            ahead = start_reading(batches[0]) if batches else []
            for batch, following in pairwise([*batches, []]):
                images, ahead = [future.result() for future in ahead], start_reading(following)
                named = [(name, image) for (name, _), image in zip(batch, images, strict=True)]
                problems += [(name, problem) for name, problem in named if isinstance(problem, str)]
                readable = [(name, image) for name, image in named if not isinstance(image, str)]
                if readable:
                    predicted = classifier.predict(np.stack([image for _, image in readable]))
                    table.write(_format_rows([name, *row] for (name, _), row in zip(readable, predicted, strict=True)))
                    table.flush()
                bar.update(len(batch))
        finally:
            pool.shutdown(cancel_futures=True)


def _try_to_read(path, shape):
    """Read an image, or tell in a str what is wrong with it."""
    try:
        return read_image(path, shape)
    except InputError as error:
        return _on_one_line(str(error).removeprefix(f"{path} "))


def _format_rows(rows):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(**_ENCODING)


def _name_problems(out):
    return out.with_name(f"{out.stem}.problems.csv")


def _on_one_line(text):
    return " ".join(str(text).split())


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a name that the terminal cannot show is no reason to stop
    sys.exit(main())
