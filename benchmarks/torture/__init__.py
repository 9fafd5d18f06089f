"""Torture: kills, full disks, damaged caches, two at once, hostile files, many images, workers that die.

``python -m benchmarks.torture [PART ...]``, or ``make torture``. Each part is a module with a function
``run(short=False)`` that tries its cases and returns a list of `Case`; the short form belongs to `make test`.
"""

from importlib import import_module
from typing import NamedTuple

PARTS = {
    "kills": "runs killed at random",
    "disks": "full, read-only and vanishing disks",
    "caches": "damaged caches",
    "together": "two at once",
    "hostile": "hostile files",
    "fuzz": "images damaged at random",
    "large": "100,000 images",
    "cluster": "workers of a cluster that die or differ",
}


class Case(NamedTuple):
    """One thing that was tried: what it was, what was expected, what happened, and whether that is right."""

    name: str
    expected: str
    happened: str
    right: bool


def run_part(part, short=False):
    """Run a part in this process: a list of `Case`."""
    return import_module(f"benchmarks.torture.{part}").run(short)
