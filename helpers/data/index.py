"""Indexing: one row per image, and a table of what is wrong with the files.

The table of problems has the columns ``file``; ``problem``; ``action``, what was done about it, "left out" if that line
or file is not used; and ``image_id`` of the image concerned. `helpers.data.audit.leave_out_unusable` decides whether
what is left is enough.
"""

import pandas as pd

from helpers.data.layouts.class_folders import index_class_folders
from helpers.data.layouts.cnmc import index_cnmc
from helpers.data.layouts.common import LEFT_OUT, PROBLEM_COLUMNS
from helpers.data.layouts.ham10000 import index_ham10000
from helpers.data.layouts.mnist_archive import index_mnist_archive

__all__ = ["LEFT_OUT", "PROBLEM_COLUMNS", "index_images"]

_INDEXERS = {
    "mnist_archive": index_mnist_archive,
    "ham10000": index_ham10000,
    "class_folders": index_class_folders,
    "cnmc": index_cnmc,
}


def index_images(data_set, folder):
    """List the images of a data set.

    Parameters
    ----------
    data_set : DataSet
    folder : Path
        The data set's folder, from `helpers.data.sources.find_data`.

    Returns
    -------
    images : DataFrame
        One row per image and the columns ``image_id``; ``path``, relative to ``folder``; ``label``, one of the class
        names; ``group``, what has to stay together in a split; ``part``, the part of the original that the image is
        shipped in. ``label`` and ``group`` are missing where a data set ships images without labels: those can be
        neither split nor scored. For images inside an array file also ``array`` and ``position``. Metadata adds further
        columns.
    problems : DataFrame
        What could not be used and what looks wrong, see the module's description.

    Raises
    ------
    InputError
        A file that all images depend on is not as the layout says; the message names it.
    """
    images, problems = _INDEXERS[data_set.layout](data_set, folder)
    return images, pd.DataFrame(problems, columns=PROBLEM_COLUMNS)
