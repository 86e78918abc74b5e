"""Reading of local files for sources: names must stay inside a folder, sizes are limited, digests are cached."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes, unquote_to_bytes

from storage.dataset import locked
from storage.errors import BadInput
from storage.places import changed
from storage.sources import Dropped, SourceError

if TYPE_CHECKING:  # polars takes a fifth of a second to import
    import polars as pl

log = logging.getLogger("bridgescope")

DIGESTS = ("path", "size", "mtime_ns", "sha256")  # columns of a memo, the file that caches digests
PICTURES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "jp2", "avif", "jfif"})
#: Extensions of pictures that are seldom used, and of those that are read only with the package pillow-heif, or never.
#: They are listed, so that no such file vanishes, but never take the place of a file in PICTURES.
SELDOM = frozenset({"psd", "tga", "ico", "icns", "qoi", "pcx", "dds", "dib", "sgi", "jpe", "mpo", "apng", "pnm", "pbm"})
JPEG_2000 = frozenset({"jpx", "jpf", "j2k", "j2c", "jpc"})  # .jp2 is usual
HEIF = frozenset({"heic", "heif", "hif"})
RAW = frozenset({"dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "rw2"})  # of cameras
NEVER = frozenset({"jxl", "jxr", "svg", "svgz", "eps", "wmf", "emf", "exr", "hdr", "djvu"}) | RAW
RARE = SELDOM | JPEG_2000 | HEIF | NEVER
NOT_READ = "format not read"  # the cause, also of files whose bytes have such a format
INSTALL_HEIC = "pip install -c constraints.txt -e '.[heic]'"  # in the folder of the checkout


def is_picture(name: str) -> bool:
    """Whether a file has the extension of a picture. Its content is checked only when it is decoded."""
    return name.rpartition(".")[2].lower() in PICTURES | RARE


def is_rare(name: str) -> bool:
    """Whether a file has the extension of a picture that is seldom or never read."""
    return name.rpartition(".")[2].lower() in RARE


def not_read(name: str) -> Dropped | None:
    """How the ledger counts a file whose format is not read, by its extension. None for every other file."""
    extension = name.rpartition(".")[2].lower()
    if extension in HEIF and find_spec("pillow_heif") is None:
        return Dropped(key_of(name), NOT_READ, f"HEIC: {INSTALL_HEIC}")
    return Dropped(key_of(name), NOT_READ, extension.upper()) if extension in NEVER else None


def of_macos(name: str) -> bool:
    """Whether macOS added a file for itself, by its path: the attributes of a file, or of a folder."""
    *folders, base = name.split("/")
    return base.startswith("._") or base == ".DS_Store" or "__MACOSX" in folders


def key_of(name: str) -> str:
    """Return the key of a file's name. In a name that is not UTF-8, the key shows the wrong bytes as "\\xe9"."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def locator_of(name: str) -> str:
    """Return a text in UTF-8 from which `name_of` returns the name, whatever the bytes of the name are."""
    key = key_of(name)
    return name if key == name else f"\0{quote_from_bytes(name.encode(errors='surrogateescape'))}"


def name_of(locator: str) -> str:
    """Return the name of a file from its locator."""
    return os.fsdecode(unquote_to_bytes(locator[1:])) if locator.startswith("\0") else locator


def confined(root: Path, name: str) -> Path | None:
    """Path of the file `name` below the resolved path `root`. None when the name or a link leads out of `root`."""
    if not name or "\0" in name:
        return None
    try:
        path = (root / name).resolve()
    except (OSError, ValueError):  # the links form a loop, or the file system cannot encode the name
        return None
    return path if path.is_relative_to(root) and path != root else None


def read_bounded(path: Path, max_bytes: int) -> bytes | SourceError:
    """Read a file's bytes. Returns a SourceError when it is missing, unreadable or larger than `max_bytes`."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        return SourceError("no such file", key_of(path.name))
    except OSError as error:
        return SourceError("cannot be read", f"{key_of(path.name)}: {error.strerror}")
    if len(data) > max_bytes:
        return SourceError("too large", f"more than the {max_bytes:,} bytes allowed")
    return data


def digests(files: Sequence[Path], memo: Path) -> list[str]:
    """Return the sha256 of each file, "" if it is unreadable. The file `memo` caches digests by path, size and time."""
    known = _known(memo)

    def one(file: Path) -> tuple[str, int, int, str]:
        try:
            stat = file.stat()
            key = (locator_of(str(file)), stat.st_size, changed(stat))
            if key in known:
                return *key, known[key]
            with file.open("rb") as opened:
                return *key, hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError:
            return locator_of(str(file)), -1, 0, ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(one, files))
    if any(row[3] and row[:3] not in known for row in rows):
        import polars as pl

        keep = {row[0] for row in rows}
        with locked(memo):
            rest = [(*key, digest) for key, digest in _known(memo).items() if key[0] not in keep]
            _replace(memo, pl.DataFrame(rest + [row for row in rows if row[3]], schema=list(DIGESTS), orient="row"))
    return [row[3] for row in rows]


def _known(memo: Path) -> dict[tuple[str, int, int], str]:
    """Read a memo of digests: {(path, size, time): sha256}. Empty if the memo is missing or damaged."""
    table = _read(memo)
    if table is None or table.columns != list(DIGESTS):
        return {}
    return {(path, size, at): digest for path, size, at, digest in table.iter_rows()}


def indexed(file: Path, memo: Path, key: str, build: Callable[[Path], pl.DataFrame]) -> pl.DataFrame:
    """Return the index of an archive. The folder `memo` caches it by the archive's path, size and time.

    `build` makes the index; `key` identifies the options of `build`. A damaged index is built again. Raises the errors
    of `build`.
    """
    stat = file.stat()
    state = f"{file} {stat.st_size} {changed(stat)} {key}"
    name = hashlib.sha256(state.encode(errors="surrogateescape")).hexdigest()[:24]
    path = memo / f"{name}.parquet"
    table = _read(path)
    if table is None:
        table = build(file)
        try:
            with locked(path):
                _replace(path, table)
        except (BadInput, OSError) as error:  # a memo saves time; a store that cannot be written can be read
            log.debug("%s is not written: %s", path, error)
    return table


def _read(path: Path) -> pl.DataFrame | None:
    """Read a cached table. Returns None when the table is missing or damaged."""
    import polars as pl

    try:
        return pl.read_parquet(path, glob=False)
    except FileNotFoundError:
        return None
    except (pl.exceptions.PolarsError, OSError) as error:
        log.warning("%s cannot be read and counts as empty: %s", path, str(error).splitlines()[0])
        return None


def _replace(path: Path, table: pl.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    table.write_parquet(partial)
    os.replace(partial, path)
