"""Audit a folder of images: ``python -m helpers.audit FOLDER`` says whether it is fit to train and test a classifier.

It writes a page, the verdict first, and beside it a table of all findings, ``<name>.findings.csv``, with the columns
``kind``; ``relation``, of copies and groups: across classes, across sets or within; ``file, set, class`` and
``other_file, other_set, other_class``; ``number``, of which the sentence says what it is; ``sentence``.

Sets, classes and groups are read from the names of folders and files, see `helpers.audit.folders.read_folder`. What is
looked for: files that cannot be read or were changed in reading; copies, also mirrored, turned or cropped; groups in
two sets; blank, dark, over-exposed and blurred images; images in the folder of another class; and shortcuts, that is
sizes, file sizes, brightness, colours or borders that tell the classes apart. See `helpers.audit.checks`.
"""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.audit import checks, page
from helpers.audit.folders import read_folder
from helpers.data.pixels import load_pixels, measure_images
from helpers.files import InputError, guard_cell, hold_lock, replace_atomically, show_name
from helpers.leftovers import make_temporary_folder
from helpers.predict import find_images
from helpers.progress import open_stage, show
from helpers.settings import read_progress

SIDE = 96  # pixels to which images are resized
_NAMES = {  # of one finding, and of several
    "unreadable": "unreadable file|unreadable files",
    "across classes": "copy in two classes|copies in two classes",
    "across sets": "copy in two sets|copies in two sets",
    "shared group": "group in two sets|groups in two sets",
    "class folder": "image that may lie in the wrong folder|images that may lie in the wrong folder",
    "shortcut": "shortcut|shortcuts",
    "blank": "blank image|blank images",
    "dark": "dark image|dark images",
    "over-exposed": "over-exposed image|over-exposed images",
    "blurred": "blurred image|blurred images",
    "within": "copy within a set and class|copies within a set and class",
    "changed": "change in reading|changes in reading",
}
_GRAVE = ("unreadable", "across classes", "across sets", "shared group")


def main(arguments=None):
    """Run the command line; return the exit status.

    0, whether there are findings or not; 1 (there are findings, with ``--strict``); 2 (bad input, or the page could not
    be written); 130 (Ctrl-C).
    """
    parser = argparse.ArgumentParser(
        prog="python -m helpers.audit",
        description="Say whether a folder of images can be trusted for training and testing a classifier.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="<set>/<class>/images, <class>/images, or images alone")
    parser.add_argument("--out", default="audit.html", metavar="FILE", help="the page; default: audit.html")
    parser.add_argument("--group", metavar="REGEX", help="what in the relative path tells the group, such as a patient")
    parser.add_argument("--metadata", metavar="TABLE", help="a CSV file with a row per image: its group, class or set")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where there are findings")
    options = parser.parse_args(arguments)
    try:
        show(read_progress())
        audit = audit_folder(options.folder, options.out, group=options.group, metadata=options.metadata)
    except (InputError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return 130
    lines = [audit.verdict, *audit.notes, f"{options.out}: the page; {name_table(options.out)}: all findings"]
    sys.stdout.write("".join(f"{show_name(line)}\n" for line in lines))
    return int(options.strict and not audit.findings.empty)


class Audit(NamedTuple):
    """What `audit_folder` found."""

    verdict: str
    notes: list  # of str: what was read from the names, and what could not be looked for
    images: pd.DataFrame  # of `helpers.audit.folders.read_folder`, those that can be read
    findings: pd.DataFrame  # columns `helpers.audit.checks.COLUMNS`, the gravest first


def audit_folder(folder, out=None, *, group=None, metadata=None):
    """Audit a folder of images; write the page and the table of findings if ``out``, the name of the page, is given.

    ``group`` and ``metadata`` are as for `helpers.audit.folders.read_folder`.

    Raise InputError if there is no such folder, it has no image that can be read, a table or expression cannot be used,
    ``out`` cannot be a page, or another process writes it; nothing is written then. WriteError if the disk refuses it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name one that has images.")
    if out is not None and (Path(out).suffix.lower() not in (".html", ".htm") or Path(out).is_dir()):
        raise InputError(f"--out {out}: expected the name of a page, such as audit.html.")
    found = find_images([folder], folder)
    images, notes = read_folder(list(found.files), folder, group, metadata)
    with make_temporary_folder("audit") as cache, nullcontext() if out is None else hold_lock(out):
        measured = measure_images(images, folder, cache)
        findings = checks.find_unread(images, measured, found.unread)
        readable = (measured["error"] == "").to_numpy()
        if not readable.any():
            raise InputError(
                f"{folder} has no image that can be read: {findings[0]['file']}: {findings[0]['sentence']}"
            )
        images, measured = (table[readable].reset_index(drop=True) for table in (images, measured))
        pixels = load_pixels(images, folder, (SIDE, SIDE, 3), cache)
        features = _compute_features(pixels)
        looks = checks.measure_looks(pixels)
        odd = checks.find_odd_images(images, looks)
        blank = images["path"].isin([row["file"] for row in odd if row["kind"] == "blank"]).to_numpy()
        pairs = checks.find_pairs(images, folder, pixels, blank)
        findings += checks.find_copies(images, pairs) + checks.find_shared_groups(images) + odd
        file_sizes = np.array([(folder / path).stat().st_size for path in images["path"]], "float64")
        with open_stage("looking for images in wrong folders and for shortcuts", 2, "step") as stage:
            findings += checks.find_wrong_folders(images, features, pairs, blank)
            stage.update()
            findings += checks.find_shortcuts(images, pixels, measured, file_sizes, pairs, blank)
            stage.update()
        findings = _sort(pd.DataFrame(findings, columns=checks.COLUMNS))
        audit = Audit(_decide(findings, len(images)), [*found.others, *notes], images, findings)
        if out is not None:
            _write_table(findings, name_table(out))
            with replace_atomically(out) as unfinished:
                text = page.format_page(audit, show_name(folder), name_table(out).name, pixels, measured)
                unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    return audit


def name_table(out):
    """Name the table of findings of a page."""
    return Path(out).with_suffix(".findings.csv")


def list_topics(findings):
    """Tell of each finding what it is counted as: its relation for copies, or else its kind; a Series."""
    return findings["relation"].where(findings["kind"].isin(checks.COPIES), findings["kind"])


def count_topics(findings):
    """Count findings in words, the gravest first: a dict such as ``{"across sets": "2 copies in two sets"}``."""
    counts = list_topics(findings).value_counts()
    return {
        topic: f"{counts[topic]:,} {names.split('|')[int(counts[topic] > 1)]}"
        for topic, names in _NAMES.items()
        if topic in counts
    }


def _decide(findings, count):
    """Say in a sentence whether the folder can be used."""
    told = count_topics(findings)
    grave = [text for topic, text in told.items() if topic in _GRAVE]
    if grave:
        return f"Do not use it as it is: {', '.join(told.values())} in {count:,} images."
    if told:
        return f"Usable, with {len(findings):,} findings in {count:,} images: {', '.join(told.values())}."
    return f"Nothing found in {count:,} images."


def _sort(findings):
    order = list_topics(findings).map({topic: number for number, topic in enumerate(_NAMES)})
    return findings.iloc[np.argsort(order.to_numpy(), kind="stable")].reset_index(drop=True)


def _compute_features(pixels):
    from helpers.training import transfer  # here only: it brings TensorFlow

    weights, _ = transfer.find_weights(None, "efficientnet_lite0")
    extractor = transfer.build_feature_extractor(pixels.shape[1:], weights, "efficientnet_lite0")
    return transfer.compute_features(extractor, pixels)


def _write_table(findings, path):
    text = findings.columns.drop("number")
    table = findings.assign(**{name: findings[name].map(guard_cell) for name in text})
    with replace_atomically(path) as unfinished:
        table.to_csv(unfinished, index=False, errors="backslashreplace")
