"""Drawing: what a figure was drawn from, as tables and settings, so that it can be drawn again without the run.

A function that is `redrawable` remembers on its figure, or on its panel, what it was called with. It draws from what
its tables will give back: rows that only count are counted, and numbers of long tables are rounded. So files are small,
and the figure that is drawn again is the same. `describe_figure` makes the tables, and `restore` reads them.
"""

import functools
import inspect
import json
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.files import unguard_cell

_LONG, _DIGITS = 1000, 4  # rows; significant digits of the numbers of longer tables, more than a figure shows
_FEW = 100  # labels that are listed where they are used; more become a table
_KEYS = ("name", "part")  # columns that tell tables apart that a dict holds, and dicts of dicts


class _Call(NamedTuple):
    """A function that drew something, its arguments, and the name of the argument whose rows only count."""

    function: str
    arguments: dict
    counted: str | None


def redrawable(*columns):
    """Let a function that draws remember what it was called with; a decorator.

    The function takes data and an optional ``ax``, and returns Axes, a Figure, or a Figure and an array of its panels.
    What is added to the Axes afterwards, such as a line or a title, is lost when the figure is drawn again: it has to
    be an argument of the function.

    Parameters
    ----------
    columns : str
        Columns of the first argument, or names of arguments that name them. Where they are given, the table is reduced
        to them, and the order of its rows means nothing.
    """

    def decorate(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def draw(*args, **kwargs):
            arguments = dict(signature.bind(*args, **kwargs).arguments)
            target = arguments.pop("ax", None)
            first = next(iter(arguments), None)
            if columns:
                defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
                used = [(defaults | arguments).get(name, name) for name in columns]
                arguments[first] = _reduce(arguments[first], [name for name in dict.fromkeys(used) if name])
            arguments = {name: _settle(value) for name, value in arguments.items()}
            call = _Call(function.__name__, arguments, first if columns else None)
            drawn = function(**arguments) if target is None else function(**arguments, ax=target)
            if isinstance(drawn, tuple):
                drawn[0].panels = drawn[1]
            if target is None:
                target = (drawn[0] if isinstance(drawn, tuple) else drawn).figure
            target.drawn_by = call
            return drawn

        return draw

    return decorate


def describe_figure(figure, name):
    """Describe what a figure was drawn from.

    Returns
    -------
    A dict that JSON can hold, or None where a panel was not drawn by one function that is `redrawable`, or was drawn
    from what no file can hold, such as tables with an index of several levels; and the tables of the figure by their
    names, which begin with ``name``.
    """
    try:
        entry, tables = _describe_figure(figure, name)
        json.dumps(entry)
    except (TypeError, ValueError):  # it is exported all the same: a notebook does not stop for it
        return None, {}
    return entry, tables


def _describe_figure(figure, name):
    whole = getattr(figure, "drawn_by", None)
    panels = [getattr(ax, "drawn_by", None) for ax in getattr(figure, "panels", ())]
    if whole is None or None in panels:
        return None, {}
    tables = []
    entry = _describe_call(whole, tables)
    if panels:
        entry["panels"] = [_describe_call(panel, tables) for panel in panels]
    names = [f"{name}_{number}" if len(tables) > 1 else name for number in range(1, len(tables) + 1)]
    for (_, places), table_name in zip(tables, names, strict=True):
        for place in places:
            place["table"] = table_name
    return entry, {table_name: table for table_name, (table, _) in zip(names, tables, strict=True)}


def list_tables(described):
    """List the names of the tables that figures need, given what `describe_figure` described; a set."""
    if isinstance(described, list):
        return set().union(*map(list_tables, described))
    if not isinstance(described, dict):
        return set()
    own = {described["table"]} if isinstance(described.get("table"), str) else set()
    return own.union(*map(list_tables, described.values()))


def restore(value, read):
    """Restore an argument that `describe_figure` described; ``read`` reads a table by its name, cells as text."""
    if isinstance(value, list):
        return [restore(item, read) for item in value]
    if not isinstance(value, dict):
        return value
    if "table" not in value:
        if "keys" not in value:
            return {key: restore(item, read) for key, item in value["dict"].items()}
        keys = [tuple(key) if isinstance(key, list) else key for key in value["keys"]]
        return {key: restore(item, read) for key, item in zip(keys, value["dict"], strict=True)}
    cells, dtypes = read(value["table"]), value["columns"]
    columns = [_restore_column(cells.iloc[:, i], *dtype) for i, dtype in enumerate(dtypes.items())]
    table = pd.concat(columns, axis=1)
    if value.get("counted"):
        table = _repeat(table)
    if "tables" not in value:
        return _restore_kind(table, value, value.get("attrs"))
    found, levels = {}, list(table.columns[: len(value["tables"][0]["key"])])
    for about in value["tables"]:
        part = table[(table[levels] == about["key"]).all(axis=1)].drop(columns=levels).reset_index(drop=True)
        inner = functools.reduce(lambda place, step: place.setdefault(step, {}), about["key"][:-1], found)
        inner[about["key"][-1]] = _restore_kind(part, value, about.get("attrs"))
    return found


def _reduce(data, columns):
    """Reduce a table, or each one of a dict, to some columns."""
    if isinstance(data, dict):
        return {name: _reduce(table, columns) for name, table in data.items()}
    reduced = data[columns]
    if not _is_anonymous(reduced.index):
        return reduced
    return _repeat(_count(_settle(reduced)))


def _count(table):
    """Count equal rows, in the order in which they come first."""
    return table.groupby(list(table.columns), sort=False, dropna=False, observed=True).size().reset_index(name="count")


def _repeat(counted):
    """Repeat rows that were counted."""
    return counted.loc[counted.index.repeat(counted["count"])].drop(columns="count").reset_index(drop=True)


def _settle(value):
    """Turn a value into what its table will give back."""
    if isinstance(value, dict):
        return {key: _settle(item) for key, item in value.items()}
    if isinstance(value, pd.DataFrame):
        table = value.reset_index(drop=True) if _is_anonymous(value.index) else value
        table = table.infer_objects()
        return table.apply(_round) if len(table) > _LONG else table
    if isinstance(value, pd.Series):
        return _settle(value.to_frame(value.name or "value")).iloc[:, 0]
    if isinstance(value, np.ndarray) and value.ndim == 2:
        return _settle(pd.DataFrame(value)).to_numpy()
    return value


def _round(column):
    is_float = pd.api.types.is_float_dtype(column)
    return column.map(lambda number: float(f"{number:.{_DIGITS}g}")) if is_float else column


def _is_anonymous(index):
    """Tell whether an index is nothing but numbers of rows."""
    return index.nlevels == 1 and index.name is None and pd.api.types.is_integer_dtype(index)


def _describe_call(call, tables):
    arguments = {name: _describe(value, tables, counted=name == call.counted) for name, value in call.arguments.items()}
    return {"draw": call.function, "with": arguments}


def _describe(value, tables, counted=False):
    """Describe an argument; its table is added to ``tables``, each with the places where its name is to be written."""
    if isinstance(value, dict):
        flat = _flatten(value)
        if not flat or not all(isinstance(table, pd.DataFrame) for table in flat.values()):
            items = [_describe(item, tables) for item in value.values()]
            if all(isinstance(key, str) for key in value):
                return {"dict": dict(zip(value, items, strict=True))}
            return {"keys": [_describe(key, tables) for key in value], "dict": items}  # JSON has keys of text alone
        levels = _KEYS[: len(next(iter(flat)))]
        parts = [_name_index(table).assign(**dict(zip(levels, key, strict=True))) for key, table in flat.items()]
        table = pd.concat(parts, ignore_index=True)
        about = _describe_index(next(iter(flat.values())))
        about["tables"] = [{"key": list(key), **_describe_attrs(table)} for key, table in flat.items()]
        return _add(table[[*levels, *table.columns.drop(list(levels))]], about, tables)
    if isinstance(value, pd.Categorical) or (isinstance(value, np.ndarray) and value.ndim == 1 and len(value) > _FEW):
        value = pd.Series(value, name="value")
    if isinstance(value, pd.DataFrame | pd.Series) or getattr(value, "ndim", 0) == 2:
        table = value.to_frame() if isinstance(value, pd.Series) else pd.DataFrame(value)
        about = _describe_index(table) | _describe_attrs(table)
        if not isinstance(value, pd.DataFrame):
            about["kind"] = "series" if isinstance(value, pd.Series) else "array"
        rows = _count(table) if counted and _is_anonymous(table.index) else None
        if rows is not None and len(rows) < len(table):
            return _add(rows, about | {"counted": True}, tables)
        return _add(_name_index(table), about, tables)
    if isinstance(value, list | tuple | range | pd.Index | np.ndarray):
        return [_describe(item, tables) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"A figure cannot be drawn again from {type(value).__name__}: expected tables, numbers or texts.")


def _flatten(tables, above=()):
    """Turn a dict of tables, or of dicts of tables, into one whose keys are tuples."""
    flat = {}
    for key, value in tables.items():
        flat |= _flatten(value, (*above, key)) if isinstance(value, dict) else {(*above, key): value}
    return flat


def _describe_index(table):
    """Name the index, "" if it has labels but no name, if there is something to keep."""
    return {} if _is_anonymous(table.index) else {"index": table.index.name or ""}


def _describe_attrs(table):
    return {"attrs": dict(table.attrs)} if table.attrs else {}


def _name_index(table):
    """Turn the index into the first column, if there is something to keep."""
    if _is_anonymous(table.index):
        return table.reset_index(drop=True)
    return table.rename_axis(table.index.name or "index").reset_index()


def _add(table, about, tables):
    columns = [_describe_column(table.iloc[:, i]) for i in range(table.shape[1])]
    if table.columns.nlevels > 1 or not table.columns.is_unique:
        raise TypeError(f"A CSV cannot hold the columns {list(table.columns)}.")
    table = pd.concat([cells for cells, _ in columns], axis=1)
    table.columns = table.columns.map(str)
    about["columns"] = {name: dtype for name, (_, dtype) in zip(table.columns, columns, strict=True)}
    for known, places in tables:
        if known.equals(table):
            places.append(about)
            break
    else:
        tables.append((table, [about]))
    return about


def _describe_column(column):
    """Return a column with cells that a CSV can hold, and what tells how to restore it."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories, cells = list(column.cat.categories), column.astype(object)
        cells = cells.map(json.dumps) if "" in categories else cells
        return cells, {"categories": categories, "ordered": column.cat.ordered}
    if pd.api.types.is_numeric_dtype(column):
        return column, str(column.dtype)
    if column.map(lambda cell: isinstance(cell, list | tuple)).any():
        return column.map(json.dumps), "tuple"
    if column.isin([""]).any():  # as text, a cell that is missing is empty, too
        return column.map(json.dumps), "json"
    return column, "text"


def _restore_column(cells, name, dtype):
    known = cells.where(cells != "")
    if dtype == "text":
        column = known.map(unguard_cell, na_action="ignore")
    elif dtype == "tuple":
        column = cells.map(json.loads).map(tuple)
    elif dtype == "json":
        column = cells.map(unguard_cell).map(json.loads)
    elif dtype == "bool":
        column = cells == "True"
    elif isinstance(dtype, dict):
        write = json.dumps if "" in dtype["categories"] else str
        by_text = {write(category): category for category in dtype["categories"]}
        column = known.map(unguard_cell, na_action="ignore").map(by_text)
        column = column.astype(pd.CategoricalDtype(dtype["categories"], dtype["ordered"]))
    else:
        column = known.astype(dtype)
    return column.rename(name)


def _restore_kind(table, about, attrs):
    if "index" in about:
        table = table.set_index(about["index"] or "index").rename_axis(about["index"] or None)
    table.attrs.update(attrs or {})
    return {"table": table, "series": table.iloc[:, 0], "array": table.to_numpy()}[about.get("kind", "table")]
