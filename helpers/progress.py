"""Progress: one line that tells how far a training or another stage is, for a person who watches.

In a notebook the line stands below its cell, on a terminal on standard error. It is removed when the stage ends, so
that nothing of it is saved. Nobody is taken to watch before `show` says so.
"""

import shutil
import sys
import threading
import time
from contextlib import contextmanager
from contextvars import copy_context

from helpers.settings import is_kernel

_DELAY, _INTERVAL = 1.0, 0.4  # seconds, before a line appears and between two updates of it

_shown = False
_stage = None  # the one that has the line


def show(shown):
    """Say whether lines are shown from now on; see ``progress`` of `helpers.settings.Settings`."""
    global _shown
    _shown = shown


class Stage:
    """How far a stage is: its text is the line that a person sees.

    Parameters
    ----------
    label : str
    total : int, optional
        How many units there are to do; None if nobody knows.
    unit : str, in the singular
    done : int
        How many of them were done before, as by a training that goes on; the rate does not count them.

    Examples
    --------
    >>> stage = Stage("cnn, fold 2 of 5", 1000, done=250)
    >>> stage.update(60)
    >>> str(stage)
    'cnn, fold 2 of 5: 31 % · 0:00 passed'
    """

    def __init__(self, label, total=None, unit="image", done=0):
        self.label, self.doing, self.total, self.unit, self.done = label, "", total, unit, done
        self._started = time.monotonic()
        self.begin()

    def begin(self):
        """Measure the rate from now on; what came before, such as tracing a network, would make it too low."""
        self._measured = time.monotonic(), self.done

    def update(self, count=1):
        """Tell that so many further units are done."""
        self.done += count

    def __str__(self):
        now = time.monotonic()
        start, before = self._measured
        rate = (self.done - before) / max(now - start, 1e-3) if now - start > _INTERVAL else 0
        times = f"{_format_time(now - self._started)} passed"
        share = f"{self.done:,} {self.unit}s" if self.done else ""
        if self.total:
            share = f"{100 * self.done / self.total:.0f} %"
            times += f", {_format_time(max(self.total - self.done, 0) / rate)} left" if rate else ""
        parts = [", ".join(filter(None, [self.doing, share]))]
        if rate:
            parts.append(f"{rate:,.0f} {self.unit}s/s" if rate > 2 else f"{1 / rate:.1f} s per {self.unit}")
        return f"{self.label}: {' · '.join(filter(None, [*parts, times]))}"


@contextmanager
def open_stage(label, total=None, unit="image", done=0):
    """Give a `Stage`, and show its line as long as the block runs, unless that takes less than a second.

    A stage within another one shows nothing. The line is drawn by a thread of its own: `Stage.update` takes no time,
    and the clock goes on while the stage waits. It may be updated by other threads of this process.
    """
    global _stage
    stage = Stage(label, total, unit, done)
    if not _shown or _stage is not None:
        yield stage
        return
    _stage, ended = stage, threading.Event()
    # In a copy of the context, which tells a notebook's kernel which cell the line belongs to.
    drawing = threading.Thread(target=copy_context().run, args=(_draw, stage, ended, _choose_writer()), daemon=True)
    drawing.start()
    try:
        yield stage
    finally:
        ended.set()
        _stage = None  # before the wait, which a second Ctrl-C may end
        drawing.join()


def track(items, label, total=None, unit="step"):
    """Give items one by one, and show how many of ``total``, by default of their number, are done; see `open_stage`."""
    with open_stage(label, len(items) if total is None else total, unit) as stage:
        for item in items:
            yield item
            stage.update()


def _draw(stage, ended, write):
    if ended.wait(_DELAY):
        return
    write(str(stage))
    while not ended.wait(_INTERVAL):
        write(str(stage))
    write("")


def _choose_writer():
    """Choose where the line goes: a function that replaces its text, and removes it for an empty one."""
    if not is_kernel():
        return _write_to_terminal
    from IPython.display import display, update_display

    handle = []

    def write(text):
        data = {"text/plain": text} if text else {}
        if handle:
            update_display(data, raw=True, display_id=handle[0].display_id)
        else:
            handle.append(display(data, raw=True, display_id=True))

    return write


def _write_to_terminal(text):
    width = shutil.get_terminal_size().columns - 1
    sys.stderr.write(f"\r\033[K{text[:width]}")  # back to the beginning, and clears the line
    sys.stderr.flush()


def _format_time(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
