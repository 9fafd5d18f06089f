"""Predict the classes of images with a saved model: ``python -m helpers.predict MODEL FOLDER_OR_FILE ...``.

The table that it writes has one row per image and the columns ``file``; ``class``; ``confidence``, the largest
probability; ``uncertain``, from the model's conformal thresholds; ``foreign``, whether the image looks unlike those
that the model was trained on, ``distance``, how much (1 is the limit), and ``nearest``, the training image that is most
like it; ``p_<class>`` for each class; ``note``, what was changed in the image or left out of the file; ``views``; and
the beginnings of two SHA-256: ``content``, of the file, and ``model``, of the model's file. What a model cannot tell is
empty. Cells that a spreadsheet would run begin with an apostrophe, see `helpers.files.guard_cell`.

Rows are written batch by batch: started again with the same model, options and table it goes on where it was stopped,
also by a full disk, and predicts those files anew whose content has changed. Images that cannot be read are listed
beside it, in ``<name>.problems.csv``; they are tried again. Two processes do not write one table: the second one ends.

What it needs to know is in the model file, see ``about`` of `helpers.training.saving.save_model`; any of it may be
missing: ``class_names``, in the order of the outputs; ``views``, how many test-time augmentation averages over;
``conformal``, thresholds of `helpers.evaluation.calibration.fit_conformal`; ``background``, what transparent pixels are
laid on; ``may_be_inverted``, whether an image that looks foreign may be predicted with light and dark exchanged; and
the arrays of `helpers.evaluation.foreign.Familiar`.
"""

import argparse
import csv
import hashlib
import io
import os
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from threadpoolctl import threadpool_limits

from helpers.data.layouts.common import order_naturally
from helpers.data.listing import IMAGE_FORMATS, describe_unread, find_obstacle, list_files, tell_kind
from helpers.data.pixels import decode_image, refuse_bombs
from helpers.data.reading import hash_each, read_files
from helpers.files import (
    InputError,
    WriteError,
    guard_cell,
    hold_lock,
    name_failed_writes,
    replace_atomically,
    show_name,
    unguard_cell,
)
from helpers.predict.classifier import Classifier, Decoded
from helpers.progress import open_stage, show
from helpers.settings import read_progress

_BATCH_SIZE = 256
_CHUNK_SIZE = 8  # so many images a thread reads at a time
_MOST_BYTES = 2**26  # of a file that is held in memory
_LISTED = 20  # so many problems are told
_DIGITS = 16  # of the SHA-256 of a file
_ENDINGS = 5  # so many endings of other files are told
_PROBLEM_COLUMNS = ["file", "problem"]
_ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}  # any file name comes back as it was
_REMEDY = "It was left as it is: choose another --out."


def main(arguments=None):
    """Run the command line; return the exit status.

    0; 1 (some images could not be read, the others are predicted); 2 (bad input, or the table could not be written);
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
        show(read_progress())
        outcome = predict_files(
            options.model, options.paths, options.out, batch_size=options.batch_size, views=options.views
        )
    except (InputError, OSError) as error:
        sys.stderr.write(f"error: {_on_one_line(error)}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return 130
    told = {"before": outcome.before, "changed since": outcome.changed}
    told = ", ".join(f"{number:,} {what}" for what, number in told.items() if number)
    lines = [*outcome.others, f"{options.out}: predicted {outcome.predicted:,}{f' ({told})' if told else ''}"]
    if outcome.foreign:
        foreign = f"{outcome.foreign:,} of {outcome.predicted:,}"
        lines.append(f"{foreign} look unlike the training images: see the column foreign")
    sys.stdout.write("".join(f"{_on_one_line(line)}\n" for line in lines))
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
    changed: int  # of the images predicted: those that were predicted before, but whose files have changed
    foreign: int  # images predicted now that look unlike those that the model was trained on
    problems: pd.DataFrame  # columns file, problem: the images that could not be read
    others: list  # of str, for each folder with other files than images: what they are


def predict_files(model_path, paths, out, *, batch_size=_BATCH_SIZE, views=None, relative_to=None):
    """Predict the classes of image files, and write a table of them; see the module's description.

    Parameters
    ----------
    paths, relative_to
        As for `find_images`.
    out : str or Path
        The table, a CSV file. Its rows stay, and their files are skipped, unless their content has changed; a torn last
        row is dropped.
    batch_size : int
        How many images are read and written at a time; twice as many are held in memory.
    views : {1, 4, 8}, optional
        As for `helpers.training.fast.predict_probabilities`; by default what the model says, or else 1.

    Raises
    ------
    InputError
        The model or a path is missing, the model cannot be used, there is no image, or ``out`` cannot be the table of
        this model's predictions; nothing was written then. Or its outputs are no probabilities, which shows at the
        first images for which they are none: the rows before them stay. Or another process writes this table.
    WriteError
        The disk took no more rows. Those before stay, so that the next run goes on.
    """
    out = Path(out)
    out = out.resolve() if out.is_symlink() else out  # so that what the link leads to is replaced, not the link
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}: expected 1 or more.")
    if out.is_dir():
        raise InputError(f"{out} is a folder; expected the name of a CSV file.")
    if out.exists() and not out.is_file():
        raise InputError(f"{out} is no regular file; expected the name of a CSV file.")
    place = next(folder for folder in out.absolute().parents if folder.exists())
    if not place.is_dir():
        raise InputError(f"{out} cannot be written: {place} is a file, not a folder.")
    found = find_images([paths] if isinstance(paths, str | Path) else paths, relative_to)
    classifier = Classifier(model_path, views)
    with hold_lock(out):
        done, size = _read_done(out, classifier)
        changed = _find_changed(found.files, done)
        waiting = [item for item in found.files.items() if item[0] not in done or item[0] in changed]
        before, problems = len(found.files) - len(waiting), [*found.unread.items()]
        now = {*found.files, *found.unread}
        others = [row for row in _read_problems(out) if row[0] not in now and Path(relative_to or "", row[0]).exists()]
        with _append(out) as table:
            table.truncate(size)
            if not size:
                _write(table, [classifier.header])
        if changed:
            _drop_rows(out, changed)
        try:
            with _append(out) as table, open_stage("predicting", len(found.files), done=before) as stage:
                predicted, foreign = _predict(classifier, waiting, batch_size, table, problems, stage)
        except BaseException:
            with suppress(WriteError):  # what has stopped the run is to be told
                _write_problems(out, [*others, *problems])
            raise
        _write_problems(out, [*others, *problems])
    problems = pd.DataFrame(problems, columns=_PROBLEM_COLUMNS)
    return Outcome(predicted, before, len(changed.difference(problems["file"])), foreign, problems, found.others)


class Found(NamedTuple):
    """What `find_images` found."""

    files: dict  # the paths of images by their names
    unread: dict  # by name, why it cannot be read: images of other formats, links that lead nowhere, closed folders
    others: list  # of str, for each folder with other files than images: what they are


def find_images(paths, relative_to=None):
    """Find images, and what else there is. Names are the paths as given, or relative to ``relative_to``.

    ``paths`` are files, of any ending; and folders, which are searched with all folders below them by
    `helpers.data.listing.list_files`, in natural order: 2.bmp before 10.bmp. Hidden files are left out.

    Raise InputError if a path does not exist, or there is no image.
    """
    files, unread, others, expected = {}, {}, [], ", ".join(IMAGE_FORMATS)

    def name(path):
        return (path.relative_to(relative_to) if relative_to else path).as_posix()

    if not all(map(str, paths)):
        raise InputError("A path is empty: name files or folders, or . for the working folder.")
    for path in map(Path, paths):
        if path.is_dir():
            listing = list_files(path)
            listing.paths.sort(key=lambda inner: ([order_naturally(part.casefold()) for part in inner.parts], inner))
            tried, closed = {"image"}, {path / inner: reason for inner, reason in listing.unreadable.items()}
            kinds = {below: tell_kind(below) for below in map(path.joinpath, listing.paths)}
        elif os.path.lexists(path):
            tried, closed = {"image", "text", "other"}, {path: reason} if (reason := find_obstacle(path)) else {}
            kinds = {} if closed else {path: tell_kind(path)}
        else:
            raise InputError(f"{path}: no such file or folder.")
        images = {name(below): below for below, (kind, _) in kinds.items() if kind in tried}
        files |= images
        unread |= {name(below): reason for below, reason in closed.items()}
        for below, (kind, what) in kinds.items():
            if kind == "unread":
                unread[name(below)] = f"cannot be read as an image ({describe_unread(what)})."
        kinds |= dict.fromkeys(closed, ("unread", "path that cannot be opened"))
        if path.is_dir() and (told := _describe_others(kinds)):
            others.append(f"{path}: {len(images):,} of {len(kinds):,} files are images; the others: {told}")
    if not files:
        told = [*others, *(f"{name} {reason}" for name, reason in [*unread.items()][:_LISTED])]
        raise InputError(f"no image in {', '.join(map(str, paths))}: expected {expected}. {'; '.join(told)}".strip())
    return Found(files, unread, others)


def _describe_others(kinds):
    """Count the files that are no images by what they are, with their endings; an empty str if there are none."""
    groups = {}
    for path, (kind, what) in kinds.items():
        if kind != "image":
            groups.setdefault(what or "other file", Counter())[path.suffix.lower() or "no ending"] += 1
    told = []
    for what, endings in groups.items():
        what = re.sub("( of| that|:|$)", r"s\1", what, count=1) if endings.total() > 1 else what
        further = ", …" if len(endings) > _ENDINGS else ""
        told.append(f"{endings.total():,} {what} ({', '.join(list(endings)[:_ENDINGS])}{further})")
    return ", ".join(told)


def _read_done(out, classifier):
    """Read which files a table has already, with their content, and how many bytes of it are complete rows."""
    done, complete = {}, 0
    if not out.exists():
        return done, complete
    with open(out, "rb") as file:
        rows = _read_rows(file)
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
                *_, views, content, model = row
                if model != classifier.digest:
                    raise InputError(f"{out} is of the model {model}; this one is {classifier.digest}. {_REMEDY}")
                if views != str(classifier.views):
                    raise InputError(
                        f"{out} was predicted with --views {views}; now it is {classifier.views}. {_REMEDY}"
                    )
                done[unguard_cell(row[0])] = content
                complete = file.tell()
        except csv.Error as error:
            if "unexpected end of data" not in str(error):  # torn inside a name of several lines
                raise InputError(f"{out}: line {rows.line_num} cannot be read ({error}). {_REMEDY}") from error
    return done, complete


def _read_rows(file):
    lines = (line.decode(**_ENCODING) for line in file if line.endswith(b"\n"))  # a kill may have torn the last one
    return csv.reader(lines, strict=True)


def _find_changed(files, done):
    """Find the files that do not have the content any more that they were predicted with: a set of names."""
    names = [name for name in files if name in done]
    contents = read_files(hash_each, [files[name] for name in names], "hashing files")
    return {name for name, content in zip(names, contents, strict=True) if content[:_DIGITS] != done[name]}


def _drop_rows(out, names):
    """Write a table again without the rows of some files."""
    with replace_atomically(out) as unfinished, open(unfinished, "wb") as kept, open(out, "rb") as table:
        for row in _read_rows(table):
            if unguard_cell(row[0]) not in names:
                kept.write(_format_rows([row]))


@contextmanager
def _append(out):
    """Open a table to append to it, without a buffer; what the disk refuses is a WriteError."""
    with name_failed_writes(out), open(out, "ab", buffering=0) as table:
        yield table


def _write(table, rows):
    """Append rows to a table: all of them, or none where the disk is full or the process is interrupted."""
    content, about = _format_rows(rows), os.fstat(table.fileno())
    if not about.st_nlink:  # rows would go nowhere
        raise WriteError(
            f"{show_name(table.name)} was removed while it was written. See that it stays, and run it again."
        )
    try:
        while content:
            content = content[table.write(content) :]
    except BaseException:
        table.truncate(about.st_size)
        raise


def _read_problems(out):
    """Read what earlier runs could not read: pairs of file and problem; none from a list that is missing or damaged."""
    try:
        with open(_name_problems(out), newline="", **_ENCODING) as file:
            return [(unguard_cell(name), problem) for name, problem in [*csv.reader(file)][1:]]
    except (OSError, ValueError, csv.Error):
        return []


def _write_problems(out, problems):
    """Write the list of what could not be read; without problems remove that of an earlier run."""
    path = _name_problems(out)
    if not problems:
        path.unlink(missing_ok=True)
        return
    with replace_atomically(path) as unfinished:
        rows = ((guard_cell(name), problem) for name, problem in problems)
        unfinished.write_bytes(_format_rows([_PROBLEM_COLUMNS, *rows]))


def _predict(classifier, files, batch_size, table, problems, stage):
    """Predict files batch by batch; while one batch is predicted the next one is read.

    Return how many images were predicted, and how many of them are foreign.
    """
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    pool, n_predicted, n_foreign = ThreadPoolExecutor(os.cpu_count()), 0, 0

    def read(files):
        return [_try_to_read(path, classifier.shape, classifier.background) for _, path in files]

    def start_reading(batch):  # some images at a time: to hand each over by itself would take a tenth of the time
        return [pool.submit(read, batch[start : start + _CHUNK_SIZE]) for start in range(0, len(batch), _CHUNK_SIZE)]

    with refuse_bombs(), threadpool_limits(1, "blas"):  # whose threads wait actively for small matrices
        try:
            ahead = start_reading(batches[0]) if batches else []
            for batch, following in pairwise([*batches, []]):
                images, ahead = [image for some in ahead for image in some.result()], start_reading(following)
                named = [(name, image) for (name, _), image in zip(batch, images, strict=True)]
                problems += [(name, problem) for name, problem in named if isinstance(problem, str)]
                readable = {name: image for name, image in named if not isinstance(image, str)}
                if readable:
                    rows, foreign = classifier.predict([*readable.values()])
                    _write(table, ([guard_cell(name), *row] for name, row in zip(readable, rows, strict=True)))
                    n_predicted, n_foreign = n_predicted + len(rows), n_foreign + foreign
                stage.update(len(batch))
        finally:
            pool.shutdown(cancel_futures=True)
    return n_predicted, n_foreign


def _try_to_read(path, shape, background):
    """Read an image, or tell in a str what is wrong with it."""
    try:
        if find_obstacle(path) or path.stat().st_size > _MOST_BYTES:
            source, (content,) = (
                path,
                hash_each([path]),
            )  # first: if the file changes meanwhile, the next run notices it
        else:  # once for both
            source = path.read_bytes()
            content = hashlib.sha256(source).hexdigest()
        pixels, note = decode_image(source, shape, background)
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    except InputError as error:
        return _on_one_line(str(error).removeprefix("The file ").removeprefix(f"{show_name(path)} "))
    return Decoded(pixels, note, content[:_DIGITS])


def _format_rows(rows):
    lines = []
    for row in rows:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\r\n").writerow(row)  # which quotes names with either character
        lines.append(text.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines).encode(**_ENCODING)


def _name_problems(out):
    return out.with_name(f"{out.name.removesuffix('.csv')}.problems.csv")


def _on_one_line(text):
    return " ".join(str(text).split())
