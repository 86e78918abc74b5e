"""Fingerprints of files and folders. A fingerprint depends on the content, not on the path of the file or folder.

A memo caches the digests of files by their size and the times of the last change.

This module imports neither numpy nor zarr, so that `bridgescope status` starts quickly.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from storage.memo import read_memo, update_memo
from storage.places import changed, is_file, is_folder


class Stamped(NamedTuple):
    """The digest of a file, with the size and time that the file had when it was read."""

    size: int
    time: int  #: `storage.places.changed`
    sha256: str


FILES = TypeAdapter(dict[str, Stamped])


def files_of(path: Path) -> list[Path]:
    """Return all files below a folder, sorted; for the path of a file, that file alone; none if nothing is there.

    Links to folders are followed: what lies behind them is read too.
    """
    if is_folder(path):
        return sorted(item for item in _below(path) if item.is_file())
    return [path] if is_file(path) else []


def _below(folder: Path) -> Iterator[Path]:
    """Yield what lies below a folder. A folder inside itself, by a link, is not entered again."""
    above: dict[str, frozenset[str]] = {os.fspath(folder): frozenset({os.path.realpath(folder)})}
    for place, folders, files in os.walk(folder, followlinks=True):
        yield from (Path(place, name) for name in files)
        inside = above.pop(place)
        for name in list(folders):
            real = os.path.realpath(os.path.join(place, name))
            if real in inside:
                folders.remove(name)
            else:
                above[os.path.join(place, name)] = inside | {real}


def stamp(path: Path) -> str:
    """Hash the names, sizes and times of a folder's files, or of one file, without reading their bytes."""
    stats = [(file.relative_to(path).as_posix(), file.stat()) for file in files_of(path)]
    text = json.dumps([(name, stat.st_size, changed(stat)) for name, stat in stats])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def fingerprint(path: Path, memo: Path) -> str:
    """Hash the names and bytes of a folder's files, or of one file, with sha256. The file `memo` caches the digests."""
    known = read_memo(memo, FILES)
    total, seen = hashlib.sha256(), dict[str, Stamped]()
    for file in files_of(path):
        stat, name = file.stat(), _text(str(file))
        entry = known.get(name)
        if entry is None or entry[:2] != (stat.st_size, changed(stat)):
            with open(file, "rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            entry = Stamped(stat.st_size, changed(stat), digest)
        seen[name] = entry
        total.update(f"{file.relative_to(path).as_posix()} {entry.sha256}\n".encode(errors="surrogateescape"))
    update_memo(memo, FILES, seen, gone={name for name in known if name.startswith(_text(f"{path}/"))} - seen.keys())
    return total.hexdigest()


def _text(name: str) -> str:
    """Return the name of a file as text for a memo, in which bytes that are not UTF-8 are escaped."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
