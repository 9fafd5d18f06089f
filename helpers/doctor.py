"""Look through what runs have left, caches, models, results and reports: ``python -m helpers.doctor [--repair]``.

Everything is read once, most of it against a checksum. Nothing of a living process is touched, so that it can be
called while a notebook runs.
"""

import argparse
import json
import shutil
import sys
from collections import Counter
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from helpers import progress
from helpers.archives import MOST_BYTES, open_archive, read_member
from helpers.data import pixels
from helpers.files import InputError, read_reason, show_name
from helpers.leftovers import count_bytes, find_unfinished
from helpers.seals import DamagedError, read_seal
from helpers.settings import CACHES, PROJECT_FOLDER, read_settings
from helpers.study.runner import read_record

_PROJECT = {"models": "models", "results": "figures", "reports": "reports"}
_STATES = ("fine", "other version", "unused", "unreadable", "damaged", "half-written", "stale")
_USABLE = _STATES[:3]
_KEPT = {  # also in a repair, and what is told of them
    "unused": "A repair keeps it; remove it yourself if the images will not come back",
    "unreadable": "A repair keeps it; see who may read it",
}
_TAIL = 2048  # bytes, within which a page says that it ends


class Finding(NamedTuple):
    """A thing that was found, and how it is.

    ``kind`` is "pixels", "measured" and so on; ``n_bytes`` are those on disk; ``why`` says more about its ``state``;
    and ``seen`` tells it from what another process may put in its place. The states:

    fine, other version (it can be used), unused (its images are not there, as when a disk is not mounted), unreadable
    (this user may not read it), damaged, half-written (by a process that is dead), stale (nothing will use it again).
    """

    kind: str
    path: Path
    n_bytes: int
    state: str
    why: str
    seen: tuple

    @property
    def is_removable(self):
        """Whether a repair removes it: all of a cache will be made again, and what is half-written is of no use."""
        return self.state == "half-written" or (self.kind in CACHES and self.state in ("damaged", "stale"))


def main(arguments=None):
    """Run the command line; return the exit status: 0 (all is fine, or repaired), 1 (it is not) or 2 (bad input)."""
    parser = argparse.ArgumentParser(prog="python -m helpers.doctor", description="Check caches, models and results.")
    told = "remove half-written files, and from the caches what is damaged or stale; never a model or a result"
    parser.add_argument("--repair", action="store_true", help=told)
    options = parser.parse_args(arguments)
    try:
        settings = read_settings()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    progress.show(settings.progress)
    findings = examine(settings.cache_dir, PROJECT_FOLDER)
    print(_format_table(findings))
    left, freed = 0, 0
    for finding in (finding for finding in findings if finding.state != "fine"):
        removed = options.repair and finding.is_removable and _remove(finding)
        freed += removed and finding.n_bytes
        left += not removed and finding.state not in _USABLE
        print(f"{finding.state}: {_show(finding.path)}, {finding.n_bytes:,} bytes: {finding.why}. ", end="")
        print(_tell_remedy(finding, options.repair, removed))
    removable = sum(finding.n_bytes for finding in findings if finding.is_removable)
    if options.repair and freed:
        print(f"{freed:,} bytes were freed.")
    elif removable and not options.repair:
        print(f"A repair, `make doctor REPAIR=1` or `python -m helpers.doctor --repair`, frees {removable:,} bytes.")
    print(f"{left:,} of these cannot be used." if left else "All is fine, or can be used.")
    return int(bool(left))


def examine(cache_dir, project):
    """Examine a cache, and what a project has in ``models/``, ``figures/`` and ``reports/``: a list of `Finding`."""
    from samples import VERSION, find_damage  # here only: it brings what draws them

    folders = {kind: cache_dir / kind for kind in CACHES} | {kind: project / name for kind, name in _PROJECT.items()}
    about = {"folders": folders, "samples": f"v{VERSION}", "find_damage": find_damage}
    found = [(kind, path, _judge_left) for kind, folder in folders.items() for path in find_unfinished(folder)]
    for kind, pattern, judge in _JUDGES:
        paths = sorted(folders[kind].glob(pattern))
        found += [(kind, path, judge) for path in paths if not _is_hidden(path.relative_to(folders[kind]))]
    findings = [_examine(*item, about) for item in progress.track(found, "checking files", unit="file")]
    return [finding for finding in findings if finding]


def _is_hidden(path):
    return any(part.startswith(".") for part in path.parts)


def _examine(kind, path, judge, about):
    """Examine a thing; None if it has vanished in the meantime."""
    try:
        seen, n_bytes = _identify(path), count_bytes(path)
        try:
            state, why = judge(path, **about) or ("fine", "")
        except FileNotFoundError:
            raise
        except PermissionError as error:
            state, why = "unreadable", read_reason(error)
        except (DamagedError, OSError) as error:
            state, why = "damaged", read_reason(error)
    except FileNotFoundError:
        return None
    return Finding(kind, path, n_bytes, state, why, seen)


def _identify(path):
    now = path.lstat()
    return now.st_ino, path.is_dir() or (now.st_size, now.st_mtime_ns)  # a folder may lose what is in it, too


# Judges: each returns None for what is fine, or a state and why, or raises DamagedError.


def _judge_left(path, **_):
    return "half-written", "the process that wrote it is dead"


def _judge_sealed(path, folders, samples, **_):
    about, _ = read_seal(path)
    if about.get("version", pixels.VERSION) != pixels.VERSION:
        return "stale", "another version of this project has made it"
    folder = Path(about["folder"])
    is_old = folders["samples"] in folder.parents and folders["samples"] / samples not in folder.parents
    if is_old or not folder.is_dir():
        return "stale" if is_old else "unused", f"its images, in {_show(folder)}, are gone"
    return None


def _judge_samples(path, samples, find_damage, **_):
    if path.name != samples:
        return "stale", f"it is of another version of the samples than {samples}"
    for folder in filter(Path.is_dir, path.glob("[!.]*")):
        if damage := find_damage(folder):
            raise DamagedError(f"{folder.name}: {damage}")
    return None


def _judge_checkpoint(path, **_):
    _test_archive(path, ["about.npy"])


def _judge_record(path, **_):
    return _compare_versions(read_record(path)["versions"], "stale")


def _judge_keras(path, **_):
    contents = _test_archive(path, ["config.json", "metadata.json", "model.weights.h5"])
    texts = {name: _parse(json.loads, content) for name, content in contents.items()}
    made = _parse(lambda: {"keras": texts["metadata.json"]["keras_version"]})
    return _compare_versions(made, "other version")


def _judge_onnx(path, **_):
    import onnx  # here only: it takes time

    _parse(onnx.checker.check_model, str(path))


def _judge_litert(path, **_):
    with open(path, "rb") as file:
        if file.read(8)[4:] != b"TFL3":
            raise DamagedError("it is no model of LiteRT")


def _judge_results(path, **_):
    versions = _parse(lambda: json.loads(path.read_bytes())["versions"])
    made = _parse(lambda: {name: versions[name] for name in ("tensorflow", "keras")})
    return _compare_versions(made, "other version")


def _judge_json(path, **_):
    _parse(json.loads, path.read_bytes())


def _judge_page(path, **_):
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        if (b"%%EOF" if path.suffix == ".pdf" else b"</html>") not in file.read():
            raise DamagedError("its end is missing")


_HASHED = "[0-9a-f]" * 32  # so files are called whose names come from what they are made of
_JUDGES = (
    ("pixels", f"{_HASHED}.npy", _judge_sealed),
    ("measured", f"{_HASHED}.csv", _judge_sealed),
    ("hashes", f"{_HASHED}.txt", _judge_sealed),
    ("samples", "v*", _judge_samples),
    ("checkpoints", "**/*.npz", _judge_checkpoint),
    ("studies", "**/*.json", _judge_record),
    ("models", "**/*.keras", _judge_keras),
    ("models", "**/*.onnx", _judge_onnx),
    ("models", "**/*.tflite", _judge_litert),
    ("results", "**/results.json", _judge_results),
    ("results", "**/figures.json", _judge_json),
    ("reports", "*.ipynb", _judge_json),
    ("reports", "*.html", _judge_page),
    ("reports", "*.pdf", _judge_page),
)


def _parse(read, *given):
    """Read something by a function that fails in whatever way where it is damaged."""
    try:
        return read(*given)
    except OSError:
        raise
    except Exception as error:
        raise DamagedError(f"it cannot be read: {read_reason(error)}") from error


def _test_archive(path, names):
    """Check all checksums of a zip archive, and that it has some members: the content of its ``.json`` files."""
    try:
        with open(path, "rb") as file, open_archive(file, max(MOST_BYTES, path.stat().st_size)) as archive:
            if (broken := archive.testzip()) is not None:
                raise DamagedError(f"the checksum of {broken} in it differs")
            if missing := sorted(set(names) - set(archive.namelist())):
                raise DamagedError(f"it lacks {', '.join(missing)}")
            return {name: read_member(archive, name) for name in archive.namelist() if name.endswith(".json")}
    except DamagedError:
        raise
    except Exception as error:  # which fails in many ways inside zipfile and zlib
        raise DamagedError(f"it is no whole archive: {read_reason(error)}") from error


def _compare_versions(made, state):
    others = [f"{name} {made[name]} (here {version(name)})" for name in made if made[name] != version(name)]
    return (state, f"it was made with {', '.join(others)}") if others else None


# What is told and done


def _format_table(findings):
    """Format how many things of each kind there are, their bytes, and how they are."""
    rows = {}
    for kind in (*CACHES, *_PROJECT):
        own = [finding for finding in findings if finding.kind == kind]
        states = Counter(finding.state for finding in own)
        numbers = len(own), sum(finding.n_bytes for finding in own), *(states[state] for state in _STATES)
        rows[kind] = [f"{number:,}" for number in numbers]
    return pd.DataFrame(rows, index=["number", "bytes", *_STATES]).T.to_string()


def _tell_remedy(finding, repair, removed):
    """Tell what a repair has done or would do, or what to run."""
    if finding.is_removable:
        done = "It was removed" if removed else "It could not be removed" if repair else "A repair removes it"
        return f"{done}."
    if finding.state in _KEPT:
        return f"{_KEPT[finding.state]}."
    return f"{'It can be used; ' if finding.state in _USABLE else ''}`{_tell_command(finding)}` makes it again."


def _tell_command(finding):
    """Tell the command that makes a model, a result or a report again."""
    if finding.kind == "reports":
        return f"make run NB={finding.path.stem}" if finding.path.suffix == ".ipynb" else "make report"
    folder = finding.path.parent
    known = sorted(path.stem for path in (PROJECT_FOLDER / "notebooks").glob("[!.]*.ipynb"))
    notebook = next((name for name in known if folder.name.startswith(name)), folder.name)  # or one of its data sets
    if folder.parent.name == "sample":
        return f"make run NB={notebook}"
    return f"make {'run' if folder.parent.name == 'quick' else 'full'} NB={notebook} DATA_DIR=/path/to/data"


def _remove(finding):
    """Remove what is still what was seen; tell whether it is gone."""
    with suppress(OSError):
        if _identify(finding.path) == finding.seen:
            shutil.rmtree(finding.path) if finding.path.is_dir() else finding.path.unlink()
    return not finding.path.exists()


def _show(path):
    return show_name(path.relative_to(PROJECT_FOLDER) if path.is_relative_to(PROJECT_FOLDER) else path)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a name that the terminal cannot show is no reason to stop
    sys.exit(main())
