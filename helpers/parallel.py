"""How work is spread: over the cores of this machine with joblib, or over a Dask cluster.

A notebook says once which of the two, with `use_cluster`; all that spreads its work looks here.
"""

import functools
import hashlib
import os
import re
import sys
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError
from contextlib import closing, nullcontext
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path

from helpers.files import InputError

# TensorFlow and OpenCV read them once, when they start. For the other libraries `dask worker` does the same itself.
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
_CONNECT_SECONDS, _WORKERS_SECONDS = 10, 60
_IN_FLIGHT = 2  # items for each worker: one at work, and one waiting so that the worker never does
_LOSSES = 3  # of all workers at once, that an item is run again after
_PACKAGES = {  # what pixels and trainings depend on
    "NumPy": "numpy",
    "Pillow": "pillow",
    "OpenCV": "opencv-python-headless",
    "Keras": "keras",
    "TensorFlow": "tensorflow",
}

_address, _client = "", None
_checked = set()  # addresses of workers that are of the same versions


class KilledWorkerError(RuntimeError):
    """An item ended each worker that it was given to, as by a lack of memory."""


class OtherVersionError(InputError):
    """A worker is of another version, so that its results could differ. The message names it and both versions."""


def use_cluster(address):
    """Spread work over a Dask cluster from now on, or over this machine again.

    ``address`` is that of the scheduler, such as "tcp://host:8786", or "" for this machine. The workers have this
    package installed and one thread each (``dask worker --nthreads 1``).

    Raise InputError if the scheduler is not reached within 10 seconds, has no worker within 60, or one with several
    threads or of other versions, see `describe_versions`.
    """
    global _address, _client
    if _client is not None:
        _client.close()
    _address, _client = address, None
    _checked.clear()
    if address:
        _connect()


def uses_cluster():
    """Tell whether work is spread over a Dask cluster."""
    return bool(_address)


def count_workers():
    """Count what works side by side: the workers of the Dask cluster, or the cores of this machine."""
    if _address:
        return len(_connect().nthreads())
    from joblib import cpu_count

    return cpu_count()


@functools.cache  # the code of a process stays the one that it has loaded, whatever happens to the files
def describe_versions():
    """Describe what the results of this process depend on: a dict of names to versions, "none" where one is missing."""
    digest, folder = hashlib.sha256(), Path(__file__).parent
    for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py")):
        if "/." not in f"/{name}":  # where JupyterLab keeps older copies
            digest.update(f"{name}\n".encode() + (folder / name).read_bytes())
    project = f"{_read_version('image-classification-notebooks')} (code {digest.hexdigest()[:8]})"
    packages = {name: _read_version(package) for name, package in _PACKAGES.items()}
    return {"Python": "{}.{}".format(*sys.version_info), "this project": project} | packages


def run_in_parallel(function, items, shared=(), context=nullcontext):
    """Call a function for each item, on the Dask cluster or in threads of this machine.

    Yield the position of each item and its result, in the order in which they are finished. Raise what the function
    raises, `KilledWorkerError`, or InputError as `run_on_cluster` does.

    Parameters
    ----------
    function : function ``(item, *shared) -> result``
        Threads are quick only where it releases Python's lock, as decoding and hashing do.
    items : iterable
        Taken as they are needed, so that only a few of them and of their results are in memory at a time.
    shared : sequence
        Further arguments, sent to each worker once.
    context : function ``() -> context manager``
        Entered by each process that works: here once around all calls, on a worker around each.
    """
    if _address:
        with closing(run_on_cluster(_run_within, items, (function, context, *shared))) as finished:
            for position, result, error in finished:
                if error:
                    raise error
                yield position, result
        return
    from joblib import Parallel, delayed

    def call(position, item):
        return position, function(item, *shared)

    pool = Parallel(-1, backend="threading", return_as="generator_unordered")
    calls = (delayed(call)(*numbered) for numbered in enumerate(items))
    with context(), closing(pool(calls)) as finished:
        yield from finished


def run_on_cluster(function, items, shared=()):
    """Call a function for each item on the Dask cluster as `run_in_parallel` does, and also tell which failed.

    Yield the position of each item; its result; and the exception that it ended in, or None. Raise InputError as
    `use_cluster` does, or because the connection was lost. A worker of another version, also one that joins later, ends
    all: it runs nothing.

    The item of a worker that was killed is given to others, as often as Dask's scheduler is set to
    (``allowed-failures``, 3), and once more when all others are finished, because it may only have waited behind the
    one that ended its workers. All goes through futures, because joblib's Dask backend waits forever then.
    """
    from dask.distributed import KilledWorker, as_completed

    client = _connect()
    waiting, running = enumerate(items), as_completed(loop=client.loop)
    begun, losses, checked = {}, Counter(), (f"DASK_SCHEDULER={_address}", describe_versions())
    suspects, tried_alone = [], set()

    def send():
        # Each time anew: to find out whether the workers have it already would mean to hash all of it.
        return client.scatter(list(shared), broadcast=True, hash=False) if len(shared) else []

    def submit(numbered):
        for position, item in numbered:
            future = client.submit(_run_checked, *checked, function, item, *sent, pure=False)
            begun[future] = position, item, sent
            running.add(future)

    def submit_next():
        submit(islice(waiting, max(0, _IN_FLIGHT * max(1, len(client.nthreads())) - len(begun))))
        if not begun and suspects:
            tried_alone.add(suspects[-1][0])
            submit([suspects.pop()])

    sent = send()
    try:
        submit_next()
        for future in running:
            position, item, had = begun.pop(future)
            result = error = None
            try:
                result = future.result()
            except CancelledError as caught:
                if client.status != "running":
                    raise _lose() from caught
                losses[position] += 1
                if losses[position] <= _LOSSES:  # all workers that had what was sent are gone
                    _connect()
                    sent = send() if had is sent else sent
                    submit([(position, item)])
                    continue
                error = KilledWorkerError("all workers were killed, each time it was run")
            except KilledWorker as caught:
                if position not in tried_alone:
                    suspects.append((position, item))
                    submit_next()
                    continue
                error = KilledWorkerError(str(caught))
            except OtherVersionError:  # of one that has joined in the meantime
                raise
            except Exception as caught:
                _connect()  # because a worker that has just joined may know no such function
                error = caught
            submit_next()
            yield position, result, error
    except OSError as error:  # of the connection; those of the function are yielded
        raise _lose() from error
    finally:
        if begun and client.status == "running":  # left early: what waits on the cluster is not begun
            client.cancel(list(begun))


def end_with_parent(parent):
    """End this process within a second after the one that started it, whose id is ``parent``, however that ended.

    A killed process cannot end those that it started. On Windows, where no id of a parent ever changes, nothing ends.
    """

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _connect():
    """Give a connection to a cluster that can work; the one there is, unless it was lost."""
    global _client
    where = f"DASK_SCHEDULER={_address}"
    if _client is None or _client.status != "running":
        _client = _open(where)
    try:
        _client.wait_for_workers(1, timeout=_WORKERS_SECONDS)
        threads = _client.nthreads()
        _check_versions(where, sorted(threads.keys() - _checked))
    except TimeoutError as error:
        raise InputError(
            f"{where} has had no worker for {_WORKERS_SECONDS} seconds. Start some: dask worker --nthreads 1 {_address}"
            ". If they end at once, their output says why: they may lack this project."
        ) from error
    except OSError as error:
        raise _lose() from error
    if max(threads.values()) > 1:  # Keras and Pillow's limits keep their state once for each process
        raise InputError(f"{where} has a worker with several threads. Start the workers with --nthreads 1.")
    return _client


def _open(where):
    from dask.distributed import Client, Security

    if _address.startswith("tls:") and not Security().get_connection_args("client")["ssl_context"]:
        raise InputError(f"{where}: Dask knows no certificate. Name its files in its setting distributed.comm.tls.")
    try:
        client = Client(_address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except OSError as error:
        remedy = "Start it with `dask scheduler`, or leave DASK_SCHEDULER empty to use this machine."
        raise InputError(f"{where}: the scheduler is not reached ({error}). {remedy}") from error
    _checked.clear()
    try:
        client.register_worker_callbacks(_limit_threads)
    except Exception as error:  # Dask gives that of a worker as a text, where other workers may be fine
        client.close()
        if not re.search("ImportError|ModuleNotFoundError|AttributeError", repr(error)):
            raise
        raise InputError(f"{where}: a worker cannot import this project ({error}). Install it there too.") from error
    return client


def _check_versions(where, workers):
    """Ask workers, given by their addresses, once for their versions. Raise OtherVersionError if one has others."""
    if not workers:
        return
    for worker, there in _client.run(describe_versions, workers=workers, on_error="return").items():
        if isinstance(there, OSError):  # it has just been killed
            continue
        if isinstance(there, Exception):
            there = {"this project": f"none that can be used ({there})"}
        _refuse_others(where, worker, there, describe_versions())
        _checked.add(worker)


def _refuse_others(where, worker, there, here):
    """Raise OtherVersionError if a worker, given by its address, has other versions than the notebook."""
    if there != here:
        differing = [
            f"{name} {there[name]} there and {here.get(name)} here" for name in there if there[name] != here.get(name)
        ]
        raise OtherVersionError(
            f"{where}: the worker {worker} is of another version: {', '.join(differing)}. Its results could differ in "
            "the last bit. Install there what is installed here and start it again, or end it; then run the cell again."
        )


def _run_checked(where, versions, function, item, *shared):
    """Call a function on a worker that has the versions of the notebook, which gives them."""
    from dask.distributed import get_worker

    _refuse_others(where, get_worker().address, describe_versions(), versions)
    return function(item, *shared)


def _read_version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _limit_threads():
    os.environ.update(ONE_THREAD)


def _lose():
    what = "the connection to the scheduler was lost. Run the cell again when it is back."
    return InputError(f"DASK_SCHEDULER={_address}: {what}")


def _run_within(item, function, context, *shared):
    with context():
        return function(item, *shared)


def list_bfloat16_units():
    """List the units of the processor that multiply bfloat16, by their names in ``/proc/cpuinfo``, which Linux has."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return []
    return [unit for unit in ("amx_bf16", "avx512_bf16") if unit in words]
