"""Try what can go wrong: ``python -m benchmarks.torture [PART ...]``; the tables go to ``docs/torture.md``."""

import argparse
import json
import re
import sys
import time
import traceback
from datetime import date
from pathlib import Path

from benchmarks.common import describe_machine, run_alone
from benchmarks.torture import PARTS, Case, run_part
from helpers.files import replace_atomically

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[2] / "docs" / "torture.md"


def main(arguments=None):
    """Run the command line; return the exit status: 0, or 1 if a case went wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torture", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--short", action="store_true", help="the form of make test; nothing is written")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"no part is called {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    wrong = 0
    for part in options.parts or PARTS:
        start = time.perf_counter()
        try:
            cases = [Case(*case) for case in run_alone(run_part, part, options.short)]
        except Exception as error:  # the other parts are tried all the same
            traceback.print_exc()
            cases = [Case("the part itself", "it ends", f"{type(error).__name__}: {error}", False)]
        seconds = time.perf_counter() - start
        failed = [case for case in cases if not case.right]
        wrong += len(failed)
        print(f"{part}: {len(cases) - len(failed)} of {len(cases)} as expected, {seconds:,.0f} s", flush=True)
        for case in failed:
            print(f"  {case.name}: expected {case.expected}; {case.happened}", flush=True)
        if not options.short:
            save(part, cases, seconds)
    return int(bool(wrong))


def save(part, cases, seconds):
    """Keep the results of a part, and write the page again."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    machine = describe_machine()
    about = {"date": f"{date.today()}", "machine": f"{machine['processor']}, {machine['cores']} cores"}
    results[part] = about | {"seconds": round(seconds), "cases": cases}
    with replace_atomically(RESULTS) as unfinished:
        unfinished.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with replace_atomically(PAGE) as unfinished:
        unfinished.write_text(format_page(results), encoding="utf-8")


def format_page(results):
    """Format all results as a page of Markdown."""
    lines = [
        "# What was tried to break it",
        "",
        "Made by `make torture`, which takes some 30 minutes on two cores. A short form belongs to `make test`.",
        "",
        "| part | what | as expected | seconds | day | machine |",
        "|---|---|---|---|---|---|",
    ]
    for part in (name for name in PARTS if name in results):
        found = results[part]
        right = sum(Case(*case).right for case in found["cases"])
        counted = f"{right:,} of {len(found['cases']):,}"
        lines.append(
            f"| {part} | {PARTS[part]} | {counted} | {found['seconds']:,} | {found['date']} | {found['machine']} |"
        )
    for part in (name for name in PARTS if name in results):
        lines += ["", f"## {PARTS[part].capitalize()}", "", "| tried | expected | happened |", "|---|---|---|"]
        for case in (Case(*case) for case in results[part]["cases"]):
            cells = [re.sub(r"([|<*_])", r"\\\1", text).replace("\n", " ") for text in case[:3]]
            lines.append(f"| {' | '.join(cells)}{'' if case.right else ' **wrong**'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
