"""Measure: ``python -m benchmarks [ROW ...]``. Rows are written as they are measured; one that fails is skipped."""

import argparse
import sys
import traceback
from importlib import import_module
from pathlib import Path

from benchmarks.common import RESULTS, format_table, save_rows, write_table
from benchmarks.speed import write_page

SUBJECTS = (
    "training",
    "transfer",
    "augmentation",
    "preparation",
    "prediction",
    "parallel",
    "memory",
    "notebooks",
    "melanoma",
    "speedrun",
)
ONLY_IF_NAMED = ("speedrun",)  # it needs the real digits, and 47 minutes of the processor


def main(arguments=None):
    """Run the command line; return the exit status: 0, 1 (a row failed) or 2 (there is no such row)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="how their names begin; default: all but speedrun")
    parser.add_argument("--list", action="store_true", help="list the rows and stop")
    parser.add_argument("--rounds", type=int, help="how often each is measured; each row has a default")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, to see that it runs; nothing is written")
    parser.add_argument("--out", type=Path, help=f"the file of results; default: {RESULTS.name} beside this module")
    parser.add_argument("--tables", action="store_true", help="write the tables of what was measured again, and stop")
    options = parser.parse_args(arguments)
    if options.tables:
        write_table()
        write_page()
        return 0
    known = find_rows()
    unknown = [name for name in options.rows if not any(row.startswith(name) for row in known)]
    if unknown or options.list:
        print(*(f"no row begins with {name}" for name in unknown), *known, sep="\n")
        return 2 if unknown else 0
    out = options.out or (None if options.tiny else RESULTS)
    failed = []
    for name, measure in known.items():
        if not name.startswith(tuple(options.rows)) if options.rows else name.startswith(ONLY_IF_NAMED):
            continue
        try:
            rows = measure(**{"tiny": options.tiny} | ({"rounds": options.rounds} if options.rounds else {}))
        except Exception:  # whatever a row comes up with: the others are still measured
            traceback.print_exc()
            failed.append(name)
            continue
        print(f"\n{name}\n{format_table(rows)}", flush=True)
        if out:
            save_rows(rows, out)
        if out == RESULTS:
            write_page()
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def find_rows():
    """Find what can be measured: functions ``measure(rounds, tiny)`` that return rows, by name."""
    modules = [import_module(f"benchmarks.{subject}") for subject in SUBJECTS]  # here only: some import TensorFlow
    return {name: measure for module in modules for name, measure in module.ROWS.items()}


if __name__ == "__main__":
    sys.exit(main())
