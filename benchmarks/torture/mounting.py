"""Small disks in memory, to be filled or made read-only; only who may mount has them."""

import os
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple


class MountError(OSError):
    """This process may not mount; the message says why."""


class Disk(NamedTuple):
    """A small disk in memory, mounted at ``folder``."""

    folder: Path

    @property
    def filler(self):
        """The file that fills it."""
        return self.folder / "filler"

    def fill(self, leave=0):
        """Fill it but for so many bytes, which are whole pages of 4,096."""
        with open(self.filler, "ab", buffering=0) as file:
            try:
                while file.write(bytes(2**20)):
                    pass
            except OSError:
                file.truncate(file.seek(0, os.SEEK_END) - leave)

    def empty(self):
        """Make space again."""
        self.filler.unlink()

    def protect(self):
        """Make it read-only."""
        _call("mount", "-o", "remount,ro", self.folder)


@contextmanager
def mount(folder, megabytes=2):
    """Mount a small disk over an empty folder during the block: a `Disk`. Raise MountError where that is forbidden."""
    _call("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder)
    try:
        yield Disk(Path(folder))
    finally:
        with suppress(MountError):  # which would hide the error of the block
            _call("umount", "--lazy", folder)


def _call(*command):
    try:
        subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MountError((getattr(error, "stderr", None) or str(error)).strip()) from error
