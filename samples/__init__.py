"""The built-in samples: miniature data sets in the exact layout of the originals, to try and to test with.

One module for each data set, which draws it with the traps of the original.
"""

import os
import shutil
import sys
import zlib

from helpers.files import InputError, name_failed_writes, replace_atomically, show_name
from helpers.leftovers import name_unfinished
from samples import chest_xray, ham10000, leukemia, melanoma, mnist, plants

# Part of the samples' folder: raise it whenever a sample would be drawn otherwise.
VERSION = 11
_whole = set()  # folders that this process has found as they were drawn
_DRAWERS = {
    "mnist": mnist.draw,
    "ham10000": ham10000.draw,
    "chest-xray": chest_xray.draw,
    "melanoma": melanoma.draw,
    "melanoma-isic": melanoma.draw,
    "plants": plants.draw,
    "leukemia": leukemia.draw,
}


def make_sample(data_set, samples_folder):
    """Draw the sample of a data set, unless it was drawn before; return the folder that stands for its own.

    One that is not as it was drawn is named on standard output, and drawn again.
    """
    if data_set.name not in _DRAWERS:
        raise InputError(f"There is no built-in sample of {data_set.name}: expected one of {', '.join(_DRAWERS)}.")
    folder = samples_folder / f"v{VERSION}" / data_set.name
    if folder in _whole and folder.exists():
        return folder
    unfinished = name_unfinished(folder)
    try:
        if folder.exists() and (damage := find_damage(folder)):
            sys.stdout.write(f"{show_name(folder)} was damaged ({damage}): it is drawn again\n")
            os.replace(folder, unfinished)
            shutil.rmtree(unfinished)
        if not folder.exists():
            with name_failed_writes(folder, unfinished):
                unfinished.mkdir(parents=True)
                _DRAWERS[data_set.name](data_set, unfinished)
                with replace_atomically(_name_checksum(folder)) as file:
                    file.write_text(_sum_up(unfinished))
                os.replace(unfinished, folder)
    except OSError:
        if not folder.exists():  # otherwise another run has drawn it in the meantime
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _whole.add(folder)
    return folder


def find_damage(folder):
    """Tell in what a sample is not as it was drawn; an empty str if it is."""
    try:
        return "" if _name_checksum(folder).read_text() == _sum_up(folder) else "its checksum differs"
    except FileNotFoundError:
        return "it has no checksum: it was copied in part, or an older version has drawn it"


def _name_checksum(folder):
    return folder.with_name(f"{folder.name}.checksum")


def _sum_up(folder):
    """Compute a checksum (CRC-32) of the names of all files below a folder, and of the content of regular ones."""
    checksum = 0
    for path in sorted(folder.rglob("*")):
        checksum = zlib.crc32(os.fsencode(path.relative_to(folder)), checksum)
        if path.is_file() and not path.is_symlink():
            checksum = zlib.crc32(path.read_bytes(), checksum)
    return f"{checksum:08x}"
