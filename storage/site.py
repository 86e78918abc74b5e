"""The files of a web site, stored as one zip, since a store handles one file better than thousands of small files.

A file of the site is read by its name, without unpacking the zip. This module does not depend on their contents.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SITE = "site.zip"
PAGE = "study.html"  # the study's page, beside the index.html of the explorer
PACKED = (".json", ".svg", ".bin", ".html")  # types that deflate shrinks; pictures are compressed already
EPOCH = (1980, 1, 1, 0, 0, 0)  # modification time of every file: sites with equal files are then zips with equal bytes


@contextlib.contextmanager
def writing(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a new archive at `path`."""
    with zipfile.ZipFile(path, "w") as site:
        yield site


def put(site: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add one file to the archive."""
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED if name.endswith(PACKED) else zipfile.ZIP_STORED
    entry.external_attr = 0o644 << 16
    site.writestr(entry, data)


def put_json(site: zipfile.ZipFile, name: str, value: Any) -> None:
    """Add a value as JSON. Raises ValueError for NaN and infinity."""
    put(site, name, compact(value))


def compact(value: Any) -> bytes:
    """Encode a value as compact JSON in UTF-8. Raises ValueError for NaN and infinity."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
