"""A web site's files as one archive: a store is better off with one file than with thousands of small ones.

It is read by name, without being unpacked. Knows nothing of what the files are.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SITE = "site.zip"
PACKED = (".json", ".svg")  # what deflating makes smaller: pictures are compressed already
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file: equal sites give equal archives


@contextlib.contextmanager
def writing(path: Path) -> Iterator[zipfile.ZipFile]:
    """A new archive at `path`."""
    with zipfile.ZipFile(path, "w") as site:
        yield site


def put(site: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add one file."""
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED if name.endswith(PACKED) else zipfile.ZIP_STORED
    entry.external_attr = 0o644 << 16
    site.writestr(entry, data)


def put_json(site: zipfile.ZipFile, name: str, value: Any) -> None:
    """Add a value as JSON. Raises ValueError for a number that JSON does not have."""
    put(site, name, compact(value))


def compact(value: Any) -> bytes:
    """A value as JSON: no spaces, real characters, NaN and infinity refused with a ValueError."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
