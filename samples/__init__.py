"""The built-in samples: miniature data sets in the exact layout of the originals, to try and to test with.

One module for each data set, which draws it with the traps of the original.
"""

import os
import shutil

from helpers.files import InputError, name_failed_writes
from helpers.leftovers import name_unfinished
from samples import chest_xray, ham10000, leukemia, melanoma, mnist, plants

# Part of the samples' folder: raise it whenever a sample would be drawn otherwise.
VERSION = 11
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
    """Draw the sample of a data set, unless it was drawn before; return the folder that stands for its own."""
    if data_set.name not in _DRAWERS:
        raise InputError(f"There is no built-in sample of {data_set.name}: expected one of {', '.join(_DRAWERS)}.")
    folder = samples_folder / f"v{VERSION}" / data_set.name
    if not folder.exists():
        unfinished = name_unfinished(folder)
        try:
            with name_failed_writes(folder, unfinished):
                unfinished.mkdir(parents=True)
                _DRAWERS[data_set.name](data_set, unfinished)
                os.replace(unfinished, folder)
        except OSError:
            if not folder.exists():  # otherwise another run has drawn it in the meantime
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder
