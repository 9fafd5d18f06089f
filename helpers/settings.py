"""The settings of a run, read from environment variables.

Environment variables are the one channel that JupyterLab, nbval, nbconvert and papermill share.

=================== ======================================= =====================================================
variable            values                                  meaning
=================== ======================================= =====================================================
NOTEBOOK_MODE       quick (default), full                   quick: a minute, to try and to test; full: the real run
DATA_DIR            a folder (default: data/)               where the data sets lie, one folder each
DATA_SOURCE         auto (default), local, download, sample where the images come from; auto: local, or else the sample
SEED                an integer (default: 42)                seeds every random choice
PRECISION           auto (default), float32,                arithmetic of the networks; auto takes bfloat16 where
                    mixed_bfloat16, mixed_float16           the hardware multiplies it, float16 on older GPUs
DATA_SET            a name                                  for notebooks that can use several data sets
DASK_SCHEDULER      an address, such as tcp://host:8786     a Dask cluster to work on; otherwise this machine
CACHE_DIR           a folder (default: .cache/)             decoded pixels, samples, hashes, checkpoints
NOTEBOOK_PROGRESS   auto (default), on, off                 lines of progress; auto: only when a person watches
NOTEBOOK_LANGUAGE   en (default), fr                        language of the figures and of the head of each report
=================== ======================================= =====================================================
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from helpers.files import InputError
from helpers.redaction import hide_secrets

CACHES = ("pixels", "measured", "hashes", "samples", "checkpoints", "studies")  # folders below CACHE_DIR


def _find_project():
    """Find the folder of the project: where this package lies, or, where it is installed as a copy, where work goes on.

    The latter is the working directory or the nearest folder above it with ``notebooks/`` and ``helpers/``.
    """
    beside = Path(__file__).resolve().parents[1]
    if (beside / "pyproject.toml").is_file() and (beside / "notebooks").is_dir():
        return beside
    here = Path.cwd()
    above = (folder for folder in (here, *here.parents) if all((folder / n).is_dir() for n in ("notebooks", "helpers")))
    return next(above, here)


PROJECT_FOLDER = _find_project()

MODES = ("quick", "full")
SOURCES = ("auto", "local", "download", "sample")
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
PROGRESS = ("auto", "on", "off")
LANGUAGES = ("en", "fr")


@dataclass(frozen=True)
class Settings:
    """The settings of one run; see the module's table."""

    mode: str
    data_dir: Path
    data_dir_given: bool  # a folder that somebody named has to exist, the default folder need not
    source: str
    seed: int
    precision: str
    cache_dir: Path
    progress: bool
    data_set: str = ""
    dask_scheduler: str = ""
    language: str = "en"

    @property
    def quick(self) -> bool:
        """Whether this is a quick run."""
        return self.mode == "quick"


def read_settings(environment: Mapping[str, str] | None = None, mode: str | None = None) -> Settings:
    """Read the settings of this run from ``environment``, by default the process's environment variables.

    ``mode`` takes the place of ``NOTEBOOK_MODE``. Raise InputError if it or a variable holds an unknown value; the
    message lists those that it can hold.
    """
    environment = os.environ if environment is None else environment

    def read(name):
        return environment.get(name, "").strip()

    def find_folder(name, default):  # against the project, wherever the notebook's kernel was started
        given = environment.get(name)
        return (PROJECT_FOLDER / Path(given).expanduser()).resolve() if given else PROJECT_FOLDER / default

    seed = read("SEED") or "42"
    if not re.fullmatch("0*[0-9]{1,10}", seed) or int(seed[-10:]) >= 2**32:
        raise InputError(f"SEED={seed}: expected a whole number from 0 to {2**32 - 1}.")
    scheduler = read("DASK_SCHEDULER")
    address = re.fullmatch(r"(?:tcp|tls)://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", scheduler)
    if scheduler and not (address and 0 < int(address[1]) < 2**16):
        expected = "the address of a Dask scheduler, such as tcp://host:8786 or tls://host:8786, with its port"
        raise InputError(f"DASK_SCHEDULER={hide_secrets(scheduler)}: expected {expected}.")
    choose = partial(_choose, environment)
    if mode is not None and mode not in MODES:
        raise InputError(f"mode={mode!r}: expected one of {', '.join(MODES)}.")
    return Settings(
        mode=mode or choose("NOTEBOOK_MODE", MODES),
        data_dir=find_folder("DATA_DIR", "data"),
        data_dir_given=bool(environment.get("DATA_DIR")),
        source=choose("DATA_SOURCE", SOURCES),
        seed=int(seed[-10:]),
        precision=choose("PRECISION", PRECISIONS),
        cache_dir=find_folder("CACHE_DIR", ".cache"),
        progress=read_progress(environment),
        data_set=read("DATA_SET").lower(),
        dask_scheduler=scheduler,
        language=choose("NOTEBOOK_LANGUAGE", LANGUAGES),
    )


def read_progress(environment: Mapping[str, str] | None = None) -> bool:
    """Tell whether lines of progress are to be shown; "auto" shows them in JupyterLab, VS Code and on terminals.

    A command that was started there is watched only if it writes to a terminal. What nbval, nbconvert and papermill run
    is not watched, and a line is not written to a file. Raise InputError as `read_settings`.
    """
    environment = os.environ if environment is None else environment
    in_editor = is_kernel() and ("JPY_SESSION_NAME" in environment or "VSCODE_PID" in environment)
    watched = in_editor or sys.stderr.isatty()
    return {"auto": watched, "on": True, "off": False}[_choose(environment, "NOTEBOOK_PROGRESS", PROGRESS)]


def is_kernel() -> bool:
    """Tell whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")  # which has been imported wherever a notebook runs
    return hasattr(ipython and ipython.get_ipython(), "kernel")


def _choose(environment, name, known):
    """Read a variable that holds one of several values, by default the first."""
    value = environment.get(name, "").strip().lower() or known[0]
    if value not in known:
        raise InputError(f"{name}={value}: expected one of {', '.join(known)}.")
    return value
