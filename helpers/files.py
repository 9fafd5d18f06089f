"""Writing files so that they are complete or not there."""

import os
import secrets
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_atomically(path):
    """Give a temporary path beside ``path``, and rename it to ``path`` when the block ends well.

    A block that fails, a full disk and a killed process leave what was at ``path`` before.

    Parameters
    ----------
    path : str or Path
        The final place; its folder is made.

    Examples
    --------
    >>> with replace_atomically("figures/table.csv") as unfinished:  # doctest: +SKIP
    ...     table.to_csv(unfinished)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")  # the suffix tells the format
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
