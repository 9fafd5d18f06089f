"""Searching every byte of files for texts, also inside archives, compressed streams and base64."""

import base64
import gzip
import io
import re
import zipfile
import zlib
from contextlib import suppress

_ENCODED = re.compile(rb"[A-Za-z0-9+/]{64,}={0,2}")  # images of notebooks, pages and SVG


def search_folders(texts, *folders, leave_out=()):
    """Search names and contents of all files below folders: a list of the texts found, each with its file.

    ``leave_out`` are the suffixes of files whose content is not searched.
    """
    found = []
    for path in (path for folder in folders for path in sorted(folder.rglob("*"))):
        contents = [str(path.relative_to(path.parents[1])).encode()]
        if path.is_file() and path.suffix not in leave_out:
            contents += unpack(path.read_bytes())
        found += [f"{text} in {path}" for text in texts if any(text.encode() in content for content in contents)]
    return found


def unpack(content):
    """Yield a content, and what is inside it: members of zip and gzip, PNG's and PDF's streams, what base64 encodes."""
    yield content
    if content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                yield f"{member.filename} {member.comment}".encode()
                yield from unpack(archive.read(member))
    if content[:2] == b"\x1f\x8b":
        yield from unpack(gzip.decompress(content))
    if content[:5] == b"%PDF-":
        for stream in re.finditer(rb"stream\r?\n(.*?)endstream", content, re.DOTALL):
            with suppress(zlib.error):  # of one that is not compressed, which was searched already
                yield from unpack(zlib.decompressobj().decompress(stream[1]))
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        place = 8
        while place < len(content):
            length = int.from_bytes(content[place : place + 4])
            if content[place + 4 : place + 8] in (b"zTXt", b"iTXt", b"iCCP"):
                with suppress(ValueError, zlib.error):  # of a text that is not compressed, which was searched already
                    packed = content[content.index(b"x\x9c", place + 8) : place + 8 + length]
                    yield zlib.decompressobj().decompress(packed)
            place += length + 12
    else:
        for text in _ENCODED.findall(content.replace(b"\\n", b"").replace(b"\n", b"")):
            with suppress(ValueError):
                yield from unpack(base64.b64decode(text))
