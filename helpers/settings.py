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
NOTEBOOK_PROGRESS   auto (default), on, off                 progress bars; auto: only when a person watches
=================== ======================================= =====================================================
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers.files import InputError

PROJECT_FOLDER = Path(__file__).resolve().parents[1]

MODES = ("quick", "full")
SOURCES = ("auto", "local", "download", "sample")
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
PROGRESS = ("auto", "on", "off")


@dataclass(frozen=True)
class Settings:
    """The settings of one run; see the module's table.

    ``data_dir_given`` tells an explicit ``DATA_DIR`` from the default: a folder that somebody named has to
    exist, the default folder need not.
    """

    mode: str
    data_dir: Path
    data_dir_given: bool
    source: str
    seed: int
    precision: str
    cache_dir: Path
    progress: bool
    data_set: str = ""
    dask_scheduler: str = ""

    @property
    def quick(self) -> bool:
        """Whether this is a quick run."""
        return self.mode == "quick"


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings of this run.

    Parameters
    ----------
    environment : mapping, optional
        Where to read from; the process's environment variables by default.

    Raises
    ------
    InputError
        A variable holds a value that it does not know; the message lists those that it does.
    """
    environment = os.environ if environment is None else environment
    progress = _choice(environment, "NOTEBOOK_PROGRESS", PROGRESS)
    data_dir = environment.get("DATA_DIR", "")
    return Settings(
        mode=_choice(environment, "NOTEBOOK_MODE", MODES),
        data_dir=_folder(data_dir, PROJECT_FOLDER / "data"),
        data_dir_given=bool(data_dir),
        source=_choice(environment, "DATA_SOURCE", SOURCES),
        seed=_seed(environment),
        precision=_choice(environment, "PRECISION", PRECISIONS),
        cache_dir=_folder(environment.get("CACHE_DIR", ""), PROJECT_FOLDER / ".cache"),
        progress=_is_watched(environment) if progress == "auto" else progress == "on",
        data_set=environment.get("DATA_SET", "").strip().lower(),
        dask_scheduler=_scheduler(environment),
    )


def _choice(environment, name, known):
    value = environment.get(name, "").strip().lower() or known[0]
    if value not in known:
        raise InputError(f"{name}={value}: expected one of {', '.join(known)}.")
    return value


def _seed(environment):
    value = environment.get("SEED", "").strip() or "42"
    digits = value.lstrip("0") or "0"
    if not digits.isascii() or not digits.isdigit() or len(digits) > 10 or int(digits) >= 2**32:
        raise InputError(f"SEED={value}: expected a whole number from 0 to {2**32 - 1}.")
    return int(digits)


def _scheduler(environment):
    value = environment.get("DASK_SCHEDULER", "").strip()
    address = re.fullmatch(r"(?:tcp|tls)://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", value)
    if value and not (address and 0 < int(address[1]) < 2**16):
        raise InputError(
            f"DASK_SCHEDULER={value}: expected the address of a Dask scheduler, such as tcp://host:8786 or "
            "tls://host:8786, with its port."
        )
    return value


def _folder(value, default):
    """Resolve a relative folder against the project, wherever the notebook's kernel was started."""
    return (PROJECT_FOLDER / Path(value).expanduser()).resolve() if value else default


def _is_watched(environment):
    """Tell JupyterLab, VS Code and terminals from headless runs, whose outputs are compared."""
    return "JPY_SESSION_NAME" in environment or "VSCODE_PID" in environment or sys.stdout.isatty()
