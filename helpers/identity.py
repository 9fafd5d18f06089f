"""Identity: what functions, objects and data are, by code and content, so that no result is kept for another one."""

import dis
import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_MOST = 1000  # objects within a value


def describe(value, seen=None):
    """Describe a function, an object or data, so that another process describes it alike; `repr` of it can be hashed.

    A function is known by its code and by what that names: data, functions of the same module, and classes; of other
    modules the data and classes that it names. An object is known by its class and its ``__getstate__``; what belongs
    to a library by its name. What cannot be read, such as a lock, is known by its type alone.
    """
    seen = {} if seen is None else seen  # by id; kept, so that no id is given away again
    kind = f"{type(value).__module__}.{type(value).__qualname__}"

    def within(*parts):
        return [describe(part, seen) for part in parts]

    if value is None or isinstance(value, str | bytes | int | float):
        return value
    if isinstance(value, types.ModuleType | types.BuiltinFunctionType | np.ufunc):
        return value.__name__
    if isinstance(value, type) and _is_of_library(value.__module__):
        return value.__qualname__
    if isinstance(value, types.CodeType):
        return within(value.co_code, value.co_names, value.co_consts)
    if isinstance(value, tuple):
        return within(*value)
    if isinstance(value, set | frozenset):
        return sorted(map(repr, within(*value)))
    if id(value) in seen or len(seen) > _MOST:
        return kind
    seen[id(value)] = value
    try:
        if isinstance(value, list):
            return within(*value)
        if isinstance(value, Mapping):
            return within(*value.items())
        if isinstance(value, functools.partial):
            return within(value.func, value.args, value.keywords)
        if inspect.ismethod(value):
            return within(value.__func__, value.__self__)
        if inspect.isfunction(value):
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            return within(value.__code__, value.__defaults__, value.__kwdefaults__, cells, _find_named(value))
        if isinstance(value, property):
            return within(value.fget)
        if hasattr(value, "__wrapped__"):  # a static method, or a function with a cache
            return within(value.__wrapped__)
        if isinstance(value, type):
            own = {name: part for name, part in vars(value).items() if name[:2] != "__" or inspect.isfunction(part)}
            return within(value.__qualname__, value.__bases__, own)
        if hasattr(value, "__array__"):
            array = np.asarray(value)
            first = array.flat[: 2**20]
            content = first[:1000].tolist() if array.dtype == object else hashlib.sha256(first.tobytes()).hexdigest()
            return within(array.shape, str(array.dtype), content)
        if hasattr(value, "get_config"):  # a layer of Keras, which counts on in automatic names
            return [kind, *within(type(value), value.get_config() | {"name": None})]
        return [kind, *within(type(value), value.__getstate__())]
    except Exception:  # a lock, a file, an empty cell: whatever cannot be read
        return kind


def _find_named(function):
    """Find the global names that the code of a function reads, with the data of the modules among them."""
    codes = [function.__code__]
    for code in codes:  # those of inner functions follow
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    read = {step.argval for code in codes for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    named = {name: function.__globals__[name] for name in sorted(read & function.__globals__.keys())}
    for name, module in list(named.items()):
        if isinstance(module, types.ModuleType) and not _is_of_library(module.__name__):
            attributes = sorted({part for code in codes for part in code.co_names} & vars(module).keys())
            named |= {f"{name}.{attribute}": vars(module)[attribute] for attribute in attributes}
    foreign = (part for part in named.values() if inspect.isfunction(part) and part.__module__ != function.__module__)
    left_out = set(map(id, foreign))
    return {name: part for name, part in named.items() if id(part) not in left_out}


def _is_of_library(module):
    """Tell whether a module, given by its name, belongs to Python or is installed."""
    if module == "__main__":  # whatever runs the notebook
        return False
    path = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    installed = not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
    return installed or module.partition(".")[0] in sys.stdlib_module_names
