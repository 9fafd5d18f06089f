"""Reading many files: some at a time, side by side, here or on a Dask cluster; the hashes of their content."""

import hashlib
import json
import os
import stat
import time
from contextlib import nullcontext, suppress
from functools import partial
from socket import gethostname

from helpers.data.listing import find_obstacle
from helpers.files import InputError, replace_atomically, show_name
from helpers.parallel import count_workers, run_in_parallel, uses_cluster
from helpers.progress import open_stage
from helpers.seals import read_cached, seal

CHUNK_FILES = 256  # at most, that a worker reads at a time
# Nanoseconds. A file that changed so shortly before could change again under the same times, whose clocks tick slowly.
_RECENT = 2 * 10**9
UNREADABLE = "0" * 64  # in the place of a hash: the file cannot be opened, or is no regular file
_hashes = {}  # of files: by folder, then by path the state of the file and its hash


def hash_contents(paths, folder, cache_dir=None):
    """Hash the content of files, of each once as long as it stays in the same state.

    ``paths`` are str, relative to ``folder``. The result, a dict in their order, has for each the SHA-256 in
    hexadecimal digits, or `UNREADABLE`. Hashes are remembered by each process, and with ``cache_dir`` also by others.
    """
    place = str(folder.absolute())
    cached = cache_dir and cache_dir / "hashes" / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.txt"
    known, saved = _hashes.setdefault(place, {}), _load_hashes(cached) if cached else {}
    settled = time.time_ns() - _RECENT
    states = _read_states(paths, folder)

    def list_new():
        return [path for path, state in states.items() if not (state and known.get(path, "").startswith(state))]

    known.update({path: saved[path] for path in list_new() if path in saved})
    hashes = dict.fromkeys(list_new(), UNREADABLE)
    new = [path for path in hashes if states[path] and os.access(folder / path, os.R_OK)]
    hashes |= dict(zip(new, read_files(hash_each, [folder / path for path in new], "hashing files"), strict=True))
    for path in new:  # unlike the time of modification, that of change cannot be set back
        if int(states[path].split()[2]) < settled and hashes[path] != UNREADABLE:
            known[path] = states[path] + hashes[path]
    if cached and not known.items() <= saved.items():
        known = _load_hashes(cached) | known  # loaded again, because another process may have saved
        _save_hashes(known, cached, place)
    return {path: hashes.get(path) or known[path][len(state) :] for path, state in states.items()}


def _read_states(paths, folder):
    """Read what changes with a file, as git does: size, times of change and inode; "" if it is no regular file."""
    states = dict.fromkeys(paths, "")
    for path in states:
        with suppress(OSError):
            now = os.stat(f"{folder}/{path}")  # noqa: PTH116 - a Path for each file takes longer than its state
            if stat.S_ISREG(now.st_mode):
                states[path] = f"{now.st_size} {now.st_mtime_ns} {now.st_ctime_ns} {now.st_ino} "
    return states


def _load_hashes(path):
    """Load a file of hashes; none from one that is missing or damaged."""
    try:
        content = read_cached(path)
    except OSError:
        return {}
    return {} if content is None else json.loads(content)


def _save_hashes(hashes, path, folder):
    with suppress(OSError), replace_atomically(path) as unfinished:  # a cache that cannot be written can be read
        unfinished.write_text(json.dumps(hashes))
        seal(unfinished, folder=folder, files=len(hashes))


def hash_each(paths):
    """Hash the content of files: a list with the SHA-256 of each, or `UNREADABLE`."""
    digests = [UNREADABLE] * len(paths)
    for number, path in enumerate(paths):
        if not find_obstacle(path):  # a pipe would be waited for
            with suppress(OSError), open(path, "rb") as file:
                digests[number] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def refuse_unreadable(hashes, folder):
    """Raise InputError, which names the first of the files whose hash is `UNREADABLE`."""
    for path, content in hashes.items():
        if content == UNREADABLE:
            raise InputError(
                f"{show_name(folder / path)} cannot be opened, or is no regular file. Fetch it again or remove it from "
                "the index."
            )


def read_files(function, paths, label, context=nullcontext):
    """Call a function for files, some at a time, and join the lists that it returns in the order of the files."""
    chunks = sorted(read_chunks(function, paths, label, context=context), key=lambda found: found[0].start)
    return [result for _, found in chunks for result in found]


def read_chunks(function, paths, label, largest=CHUNK_FILES, context=nullcontext):
    """Call a function for files, some at a time; yield positions and result of each chunk when it is finished.

    ``label`` is what the line of progress calls it.
    """
    if not paths:
        return
    size = min(largest, len(paths) // (8 * count_workers()) + 1)  # so that all have work until the end
    chunks = [slice(start, start + size) for start in range(0, len(paths), size)]
    if uses_cluster():
        paths, function = [path.absolute() for path in paths], partial(_read_seen, function)
    with open_stage(label, len(paths), "file") as stage:
        for number, found in run_in_parallel(function, [paths[chunk] for chunk in chunks], context=context):
            yield chunks[number], found
            stage.update(len(found))


def _read_seen(function, paths):
    """Call a function for files on a worker that has them, which else would look like damaged images."""
    try:
        for path in paths:
            open(path, "rb").close()
    except OSError as error:
        raise InputError(
            f"{show_name(path)} cannot be opened on {gethostname()} ({error.strerror}). The workers of DASK_SCHEDULER "
            "must see the same folder as the notebook, under the same path."
        ) from error
    return function(paths)
