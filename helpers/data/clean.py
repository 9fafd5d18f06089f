"""Cleaning: what metadata says, in one form, with a count of what was touched."""

import pandas as pd


def mark_unknown(images, unknown):
    """Turn the values that stand for "not known" into missing ones, and count them.

    Parameters
    ----------
    images : DataFrame
        One row per image.
    unknown : dict of str to sequence
        For each column the values that stand for "not known".

    Returns
    -------
    images : DataFrame
        With missing values in their place; no row is left out.
    steps : DataFrame
        One row per step: ``column, step, rows``, the number of rows that it touched.

    Examples
    --------
    >>> table = pd.DataFrame({"age": [0.0, 50.0, None]})
    >>> cleaned, steps = mark_unknown(table, {"age": [0]})
    >>> steps["rows"].tolist()
    [1, 1]
    """
    images, steps = images.copy(), []
    for column, values in unknown.items():
        steps.append({"column": column, "step": "missing or unreadable", "rows": int(images[column].isna().sum())})
        for value in values:
            found = images[column] == value
            images[column] = images[column].mask(found)
            steps.append({"column": column, "step": f"{value!r} taken as missing", "rows": int(found.sum())})
    return images, pd.DataFrame(steps)
