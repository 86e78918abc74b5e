"""Compressed tars are unpacked once into a folder of the store, since an image is read at its offset."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import lzma
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from storage.dataset import locked
from storage.errors import BadInput
from storage.places import changed

MAX_RATIO = 100  # tars of pictures shrink by a few percent, tars of tiny files to a tenth
ALWAYS_ALLOWED = 1 << 30  # bytes that any file may unpack to
CHUNK = 1 << 20
#: The first bytes of a file. Those of bzip2 include its first block, since a tar may begin with a name like "BZh1".
KINDS = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "bzip2": re.compile(rb"BZh[1-9]1AY&SY"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
}
_ENDING = re.compile(r"\.(tar\.(gz|bz2|xz|zst|zstd)|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
#: What is raised for damaged content while it is unpacked
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)


def compression(path: Path) -> str | None:
    """Return how a file is compressed, by its first bytes. None if it is not compressed. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(16)
    return next((kind for kind, magic in KINDS.items() if magic.match(head)), None)


def ending_of(name: str) -> str:
    """Return the extension, or the two extensions, of a file that is named as a tar (".tar", ".tar.gz"), else ""."""
    found = _ENDING.search(name)
    return found[0] if found else Path(name).suffix if name.lower().endswith(".tar") else ""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Open a file to read its content without compression from its beginning. Raises OSError.

    Reads raise one of DAMAGED.
    """
    kind = compression(path)
    with path.open("rb") as raw:
        if kind is None:
            yield raw
        else:
            with _opened(raw, kind) as stream:
                yield stream


def stem_of(path: Path) -> str:
    """Return the name of a tar without its extensions. A name like "x.tar.gz" has two, if the file is compressed."""
    found = _ENDING.search(path.name)
    if found and found.start() and path.is_file() and compression(path):
        return path.name[: found.start()]
    return path.stem


def unpacked(path: Path, folder: Path) -> Path:
    """Return the path of a tar without compression: `path` itself, or its unpacked copy below `folder`.

    The copy is made once for each state of the file, under a lock, and appears by one rename. Raises BadInput for a
    file that is missing, unreadable or damaged, and for one that unpacks to more than MAX_RATIO times its size and
    ALWAYS_ALLOWED. Raises OSError when the copy cannot be written.
    """
    try:
        kind = compression(path)
    except OSError as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise BadInput(f"pairs.shards: {path}: {why}") from None
    if kind is None:
        return path
    stat = path.stat()
    own = folder / hashlib.sha256(os.fsencode(path)).hexdigest()[:24]
    copy = own / f"{stat.st_size}-{changed(stat)}.tar"
    if copy.exists():
        return copy
    with locked(own):
        if not copy.exists():
            own.mkdir(exist_ok=True)
            for old in own.iterdir():  # copies of earlier states, and what a killed process left
                old.unlink()
            partial = copy.with_suffix(".partial")
            try:
                _unpack(path, kind, partial, max(ALWAYS_ALLOWED, MAX_RATIO * stat.st_size))
                os.replace(partial, copy)
            finally:
                partial.unlink(missing_ok=True)
    return copy


def _unpack(path: Path, kind: str, to: Path, limit: int) -> None:
    """Write the content of a compressed file to the file `to`. Raises BadInput after `limit` bytes, or for damage."""
    written = 0
    with path.open("rb") as raw, _opened(raw, kind) as stream, to.open("wb") as out:
        while data := _chunk(stream, path, kind):
            written += len(data)
            if written > limit:
                raise BadInput(
                    f"{path}: unpacks to more than {limit:,} bytes, which no tar of pictures does: write it without "
                    "compression if this is right"
                )
            out.write(data)


def _opened(raw: IO[bytes], kind: str) -> Any:
    match kind:
        case "gzip":
            return gzip.GzipFile(fileobj=raw)
        case "bzip2":
            return bz2.BZ2File(raw)
        case "xz":
            return lzma.LZMAFile(raw)
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd")


def _chunk(stream: Any, path: Path, kind: str) -> bytes:
    try:
        data: bytes = stream.read(CHUNK)
    except DAMAGED as error:
        raise BadInput(f"{path} is no readable tar: its compression ({kind}) is damaged: {error}") from error
    return data
