"""What the layouts have in common: finding image files, reading arrays and tables, and telling of problems."""

import difflib
import functools
import gzip
import math
import re
import shlex
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.archives import bound_unpacked, open_arrays
from helpers.data.listing import IMAGE_ENDINGS, list_files, tell_kind
from helpers.data.reading import UNREADABLE, hash_contents
from helpers.files import InputError, show_name

PROBLEM_COLUMNS = ["file", "problem", "action", "image_id"]
LEFT_OUT, IGNORED = "left out", "ignored"
_PACKED = "is packed: unpack it with "
_UNPACK = {  # how to unpack archives, by their endings; the first two on every system
    (".zip",): "python -m zipfile -e {} {}",
    (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz"): "python -m tarfile --filter data -e {} {}",
    (".7z", ".rar"): "7z x {} -o{}",
}
IDX_NAME = re.compile(r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?", re.IGNORECASE)
REMEDY = "Fetch the original again, or set DATA_SOURCE=sample."


def read_arrays(path, names):
    """Read arrays from an ``.npz`` file, or the one array of an IDX file under the names asked for.

    Raise InputError if it is damaged, no such file, or lacks one of them.
    """
    if IDX_NAME.fullmatch(path.name):
        return dict.fromkeys(names, _read_idx(path))
    try:
        with open(path, "rb") as file, open_arrays(file) as archive:
            found = {name: archive[name] for name in names if name in archive}
            held = ", ".join(archive) or "nothing"
    except Exception as error:  # a damaged archive fails in many ways, inside NumPy, zipfile and zlib
        raise InputError(
            f"{path} cannot be read as an .npz file with the arrays {', '.join(names)} ({error}). "
            f"It may be truncated. {REMEDY}"
        ) from error
    if missing := [name for name in names if name not in found]:
        raise InputError(f"{path} lacks {', '.join(missing)}; it holds {held}. {REMEDY}")
    return found


def _read_idx(path):
    """Read the array of an IDX file: zeros, type, number of axes, their lengths as big-endian int32, and the values."""
    try:
        with open(path, "rb") as packed:
            is_packed = packed.read(2) == b"\x1f\x8b"
            packed.seek(0)
            file = gzip.GzipFile(fileobj=packed) if is_packed else packed
            head = file.read(4)
            if head[:3] != b"\0\0\x08" or not 1 <= head[3] <= 3:
                raise ValueError("it does not begin as an IDX file of whole numbers from 0 to 255")
            shape = np.frombuffer(file.read(4 * head[3]), ">i4").tolist()
            most = bound_unpacked(path.stat().st_size)
            if min(shape) < 0 or math.prod(shape) > most:
                raise ValueError(f"it claims to have {math.prod(shape):,} values; at most {most:,} are read")
            content = file.read(math.prod(shape) + 1)  # and no more, whatever it would unpack to
        return np.frombuffer(content, np.uint8).reshape(shape)
    except Exception as error:  # a damaged file fails in many ways, inside NumPy, gzip and zlib
        raise InputError(f"{path} cannot be read as an IDX file ({error}). It may be truncated. {REMEDY}") from error


@dataclass
class Places:
    """Where the images of a data set lie, and what else was found.

    Attributes
    ----------
    paths : list of Path: all files
    found : dict of tuple to list of Path: places, and the images that lie there; several of one place differ in content
    problems : list of dict
    folders : Counter of images that lie in no place, by the folder that they have to themselves, a Path
    unread : Counter of files in the layout's folders that are no image that is read, by their place without the name,
        and their ending
    """

    paths: list = field(default_factory=list)
    found: dict = field(default_factory=dict)
    problems: list = field(default_factory=list)
    folders: Counter = field(default_factory=Counter)
    unread: Counter = field(default_factory=Counter)

    def note(self, file, problem, action=IGNORED):
        """Add a problem that no image is left out for."""
        self.problems.append({"file": show_name(file), "problem": problem, "action": action})

    def refuse(self, folder, data_set, lack, lacking):
        """Raise the error of a data set that lacks images; it tells what is there in their stead.

        ``lacking`` are the places that have none, without their last item.
        """
        hints = [
            f"{'/'.join(place)}/ has {count:,} files with the ending {ending or '(none)'}, which is not read"
            for (place, ending), count in self.unread.items()
            if place in lacking
        ][:5]
        names = {name.lower(): name for place in lacking for name in place}
        for place, count in self.folders.most_common(5):
            (name, *_) = difflib.get_close_matches(place.name.lower(), names, 1, 0.5) or [""]
            aim = f"to {names[name]}/ " if name else ""
            hints.append(f"There is {show_name(place)}/ with {count:,} images: rename it {aim}if it is what is missing")
        closed = [each for each in self.problems if each["file"].endswith("/") and each["action"] == LEFT_OUT]
        packed = [each for each in self.problems if each["problem"].startswith(_PACKED)]
        hints += [f"{each['file']} {each['problem']}" for each in (*packed[:5], *closed[:5])]
        refuse(folder, data_set, ". ".join([lack, *hints]))


def find_places(data_set, folder, locate, outside, repeated, cache_dir=None):
    """Find the image files by their places in the layout; give `Places`.

    Of several files of one place those in the catalog's own folders are taken, of files with the same content the one
    that lies least deep. Other folders of the layout, such as those of thumbnails, are set aside if the catalog's have
    any images; folders that are none of the layout's are set aside in any case.

    Parameters
    ----------
    locate : callable
        Tells about a path: a tuple, the names of the folders above those of the layout (a tuple) and then the place,
        whose last item is the name of the image; None outside the layout; or a str, why an image cannot be used there.
    outside, repeated : str
        Why an image outside the layout cannot be used, and in what the copies of an image agree.
    cache_dir : Path, optional
        Where hashes are kept.
    """
    listing = list_files(folder)
    places, candidates, misplaced, unread = Places(listing.paths), {}, [], []
    for path in listing.paths:
        where, kind = locate(path), "image"
        if path.suffix.lower() not in IMAGE_ENDINGS:
            kind, what = tell_kind(folder / path)
        if kind == "image" and isinstance(where, tuple):
            candidates.setdefault(where[1:], []).append((where[0], path))
        elif kind == "image":
            misplaced.append((path, where))
        elif how := tell_packed(folder / path, (folder / path).parent):
            places.note(path, how)
        elif kind == "unread" or (kind == "text" and where not in (None, outside)):  # elsewhere such as LICENSE
            unread.append((path, where, f"is no image that is read: {what}"))
        elif where not in (None, outside):
            places.note(path, "is no image file")
    places.found, aside, copies = _choose_copies(data_set, folder, candidates, cache_dir)
    holding = {path.parent for paths in places.found.values() for path in paths}
    top = {Path(), *holding, *(parent for inner in holding for parent in inner.parents)}
    key = data_set.key_file.casefold()

    def find_own_folder(path):
        """Find the folder that a path shares with no image in its place, or None."""
        return next((p for p in reversed(path.parents) if p not in top and p.name.casefold() != key), None)

    for path, where in misplaced:
        alike = (locate(parent / path.name) for parent in path.parents[1:])
        is_copy = any(isinstance(place, tuple) and place[1:] in places.found for place in alike)
        own = find_own_folder(path)
        if own and (is_copy or locate(own / path.name) is None):
            aside.append(path)
        else:
            places.problems.append(leave_out(path, where or outside))
            places.folders.update([own] if own else [])
    for own, count in Counter(map(find_own_folder, aside)).items():
        places.folders[own] += count
        places.note(f"{own.as_posix()}/", f"holds {count:,} images, but is no folder of the data set")
    for name, what in listing.unreadable.items():
        unread.append((Path(name), "" if name.endswith("/") else locate(Path(name)), what))
    for path, where, problem in unread:
        if where not in (None, outside):
            name = f"{path.as_posix()}/" if problem.startswith("cannot be entered") else path
            places.problems.append(leave_out(name, problem))
            if isinstance(where, tuple):
                places.unread[where[1:-1], path.suffix.lower()] += 1
    if unknown := [path for path, where, _ in unread if where in (None, outside)]:
        places.note(unknown[0], f"is one of {len(unknown):,} files outside the data set's folders that cannot be read")
    if copies:
        places.note(
            f"*/{data_set.key_file}", f"{copies:,} second copies under the same {repeated}, with the same content"
        )
    if listing.leftovers:
        left = "files that systems and tools leave behind; they are no images"
        places.note("__MACOSX/, .*", f"{listing.leftovers:,} {left}")
    return places


def _choose_copies(data_set, folder, candidates, cache_dir):
    """Choose from several files of one place: give places with their files, what is set aside, the number of copies."""
    key = data_set.key_file.casefold()

    @functools.cache
    def rank(above):  # 0: the catalog's own folders; 1: these, deeper; 2: others
        names = [name.casefold() for name in above]
        return 0 if set(names) <= {key} else 1 if names[-1] == key else 2

    own = set()  # where the catalog's folders with images lie; beside them are the parts without class folders
    for place, files in candidates.items():
        files.sort(key=lambda item: rank(item[0]))
        if rank(files[0][0]) < 2 and place[0] not in data_set.flat_parts:
            own.add(tuple(name for name in files[0][0] if name.casefold() != key))
    content = read_contents([[path for _, path in files] for files in candidates.values()], folder, cache_dir)
    found, aside, copies = {}, [], 0
    for place, files in candidates.items():
        kept, known, best = [], set(), rank(files[0][0])
        for above, path in files:
            if content.get(path) in known:
                copies += 1
            elif rank(above) == best and (best < 2 or not own or (place[0] in data_set.flat_parts and above in own)):
                kept.append(path)
                known.add(content.get(path))
            else:
                aside.append(path)
        if kept:
            found[place] = kept
    return found, aside, copies


def read_contents(groups, folder, cache_dir):
    """Read what tells the files of each group, a list of Path, apart: their sizes, or hashes where these are equal."""
    groups = [paths for paths in groups if len(paths) > 1]
    sizes = {path: (folder / path).stat().st_size for paths in groups for path in paths}
    twins = [p for paths in groups for p in paths if sum(sizes[p] == sizes[other] for other in paths) > 1]
    hashes = hash_contents([path.as_posix() for path in twins], folder, cache_dir).values()
    # Nobody knows what a file that cannot be read is a copy of.
    return sizes | {p: p if found == UNREADABLE else found for p, found in zip(twins, hashes, strict=True)}


def tell_packed(path, target):
    """Tell how to unpack an archive, a Path, into a folder, as a problem; an empty str if it is no archive."""
    command = next((command for endings, command in _UNPACK.items() if path.name.lower().endswith(endings)), "")
    return command and _PACKED + command.format(shlex.quote(show_name(path)), shlex.quote(show_name(target)))


def list_folders(folder):
    """List the folders in a folder, but for hidden ones, in alphabetical order; none if it cannot be entered."""
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return []


def order_naturally(name):
    """Make a key that sorts numbers in names by their value: 9 before 10."""
    return [int(piece) if number % 2 else piece for number, piece in enumerate(re.split(r"(\d+)", name))]


def leave_out(path, problem, image_id=None):
    """Make the problem of an image file that is left out."""
    name = show_name(path)
    return {"file": name, "problem": problem, "action": LEFT_OUT, "image_id": image_id or name}


def tell_lacking(data_set, lacking):
    """Tell which classes a copy lacks."""
    return f"{len(lacking)} of {len(data_set.class_names)} classes are not in this copy: {', '.join(lacking)}"


def refuse(folder, data_set, lack):
    """Raise the error of a data set that has no images, or no table, where some are needed."""
    raise InputError(f"{folder} has {lack}. Expected: {data_set.files}. {REMEDY}")


def refuse_unusable(folder, data_set, problems):
    """Raise the error of a data set of which no image can be used; it tells the most frequent kinds of problems."""
    kinds = pd.Series([re.sub(r"ISIC_\d+", "…", problem["problem"]) for problem in problems]).value_counts()
    listed = "; ".join(f"{count} times: {problem}" for problem, count in kinds.head(5).items())
    raise InputError(f"{folder}: no image can be used. Expected: {data_set.files}. Found: {listed or 'nothing'}.")
