"""Listing: the files below a folder, which of them are images, and what cannot be read.

A file is known by its ending. One without an ending, with an unknown one, or with that of a format that is not read, is
known by its first bytes.
"""

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from helpers.progress import open_stage

IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000")  # Pillow opens no others
_IMAGE_ENDINGS = (
    ".jpg .jpeg .jpe .jfif .jfi .jif .pjpeg .pjp .mpo .png .apng .bmp .dib .gif .tif .tiff .webp .avif .avifs "
    ".jp2 .j2k .j2c .jpc .jpf .jpx"
)
IMAGE_ENDINGS = frozenset(_IMAGE_ENDINGS.split())
_UNREAD = {  # images of formats that are not read, and what to do about them
    "HEIC photograph": (".heic", ".heif", ".hif"),
    "DICOM file": (".dcm", ".dicom", ".dic"),
    "NIfTI file": (".nii",),
    "drawing": (".svg", ".eps", ".ps", ".ai", ".wmf", ".emf"),
    "file of an image editor": (".psd", ".psb", ".xcf", ".kra"),
    "raw photograph": (".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
    "picture of another format": (".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".pcx", ".exr"),
    "slide": (".svs", ".ndpi", ".scn", ".mrxs", ".czi"),
    "part of a download: fetch it again": (".part", ".crdownload", ".partial"),
}
_KINDS = {ending: kind for kind, endings in _UNREAD.items() for ending in endings}
_WINS = ("raw photograph", "slide")  # by their first bytes these are TIFF files, whose first page is a preview
PICTURE_ENDINGS = IMAGE_ENDINGS | frozenset(_KINDS)  # whether they are read or not
_OTHER_ENDINGS = (  # tables, texts, programs, archives, models: no images, whatever folder they lie in
    ".csv .tsv .tab .txt .md .rst .html .htm .xml .json .jsonl .yaml .yml .toml .ini .cfg .log .pdf .doc .docx .odt "
    ".rtf .xls .xlsx .ods .py .ipynb .r .m .sh .bat .js .css .zip .tar .gz .tgz .bz2 .xz .7z .rar .npy .npz .mat .h5 "
    ".hdf5 .keras .onnx .pkl .pt .pth .db .sqlite .parquet .feather .mp4 .avi .mov .mp3 .wav .lnk .url .bak .tmp .old "
    ".md5 .sha256 .sha1 .asc .sig .torrent .bib .tex .license .lock .dvc"
)
_OTHER = frozenset(_OTHER_ENDINGS.split())
_MAGIC = (  # first bytes, and what they tell: "" is an image that is read
    (rb"\xff\xd8\xff", ""),
    (rb"\x89PNG\r\n\x1a\n", ""),
    (rb"GIF8", ""),
    (rb"BM.{4}\0{4}", ""),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", ""),
    (rb"RIFF.{4}WEBP", ""),
    (rb".{4}ftyp(avi|mi.{6,40}avif)", ""),
    (rb".{4}jP  \r\n\x87\n|\xff\x4f\xff\x51", ""),
    (rb".{4}ftyp(he|mif1|msf1)", "HEIC photograph"),
    (rb".{128}DICM", "DICOM file"),
    (rb"%!PS", "drawing"),
    (rb"8BPS", "file of an image editor"),
    (rb"version https://git-lfs", "pointer of Git LFS: fetch the file itself with git lfs pull"),
)
HEAD = 160  # bytes, in which all of these are
# What systems and tools leave behind, besides hidden files and folders.
_LEFTOVERS = frozenset(("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"))


@dataclass
class Listing:
    """What lies below a folder.

    Attributes
    ----------
    paths : list of Path, relative to the folder: its regular files, the least deep first, each depth in alphabetical
        order
    unreadable : dict of str to str: what cannot be opened, folders with a slash at the end, and why
    leftovers : int, how many hidden files and files of systems and tools were passed over
    """

    paths: list = field(default_factory=list)
    unreadable: dict = field(default_factory=dict)
    leftovers: int = 0


def list_files(folder):
    """List the files below a folder, at any depth; each folder is visited once, whatever links lead to it.

    Links are followed, those to folders last, so that a file is listed under the path without a link if it has one.
    A link to a folder that holds ``folder`` itself is not followed: what lies beside it does not belong to it.
    """
    above = (os.stat(place) for place in Path(folder).resolve().parents if place.exists())  # noqa: PTH116 - as below
    listing, visited, linked = Listing(), {(about.st_dev, about.st_ino) for about in above}, []
    with open_stage("listing files", unit="file") as stage:
        _visit(Path(folder), Path(), listing, visited, linked, stage)
        while linked:
            _visit(Path(folder), linked.pop(0), listing, visited, linked, stage)
    listing.paths.sort(key=lambda path: (len(path.parts), path))
    return listing


def _visit(folder, inner, listing, visited, linked, stage):
    """List the files of a folder and of those below it; note the links to folders."""
    waiting = [inner]
    while waiting:
        inner = waiting.pop(0)
        try:
            about = os.stat(folder / inner)  # noqa: PTH116 - the number of the device too
            if (about.st_dev, about.st_ino) in visited:
                continue
            visited.add((about.st_dev, about.st_ino))
            with os.scandir(folder / inner) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            listing.unreadable[f"{inner.as_posix()}/"] = f"cannot be entered ({error.strerror})"
            continue
        for entry in entries:
            path = inner / entry.name
            if entry.name.startswith(".") or entry.name.lower() in _LEFTOVERS or entry.name.endswith("~"):
                listing.leftovers += _count_files(entry)
            elif not entry.is_file(follow_symlinks=False) and (problem := find_obstacle(entry)):
                listing.unreadable[path.as_posix()] = problem
            elif entry.is_dir():
                (linked if entry.is_symlink() else waiting).append(path)
            else:
                listing.paths.append(path)
        stage.update(len(entries))


def find_obstacle(path):
    """Tell why a Path, or an entry of `os.scandir`, is neither a folder nor a regular file; an empty str if it is."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return (
            f"is a link that leads nowhere ({error.strerror})"
            if path.is_symlink()
            else f"cannot be reached ({error.strerror})"
        )
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    kinds = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return f"is a {kinds.get(stat.S_IFMT(mode), 'special file')}, no regular file"


def _count_files(entry):
    """Count the files of an entry that is passed over."""
    if not entry.is_dir(follow_symlinks=False):
        return 1
    return sum(len(names) for _, _, names in os.walk(entry.path))


def tell_kind(path):
    """Tell what a regular file is: "image"; "unread", an image of another format or nothing known; "text"; or "other".

    Return the kind, and for "unread" and "text", whose endings do not say so, what it is, such as "HEIC photograph".
    """
    path = Path(path)
    ending = ".nii" if path.name.lower().endswith(".nii.gz") else path.suffix.lower()
    if ending in IMAGE_ENDINGS:
        return "image", ""
    if ending in _OTHER:
        return "other", ""
    if _KINDS.get(ending) in _WINS:
        return "unread", _KINDS[ending]
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        return "unread", f"file that cannot be opened ({error.strerror})"
    kind = recognize(head)
    if kind == "":
        return "image", ""
    if not (kind or ending in _KINDS) and head and min(head) >= ord("\t"):  # a text, such as a licence
        return "text", "text"
    return "unread", kind or _KINDS.get(ending, "file of an unknown format")


def recognize(head):
    """Recognise a file by its first `HEAD` bytes: what it is, "" for an image that is read, None if it is unknown."""
    return next((kind for magic, kind in _MAGIC if re.match(magic, head, re.DOTALL)), None)


def describe_unread(what):
    """Say of a file that is not read as an image what it is, from `tell_kind` or `recognize`, and what to do."""
    return f"is a {what}" if re.search("[:(]", what) else f"is a {what}: save it as JPEG or PNG"
