"""The error that bad input ends in."""


class InputError(ValueError):
    """A file, a folder or a setting is not as it has to be.

    The message names it, what was expected, and what to do. Notebooks show the message alone, without the
    traceback through the library.
    """

    def _render_traceback_(self):
        """Tell IPython what to show instead of the traceback."""
        return [f"{type(self).__name__}: {self}"]
