"""Memos: small JSON files of the store that save work, such as the digests of files by size and time.

A memo may be lost without harm. A damaged memo counts as empty. A memo that cannot be written stays as it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from storage.dataset import locked, write_atomically
from storage.errors import BadInput

log = logging.getLogger("bridgescope")

T = TypeVar("T")


def read_memo(path: Path, kind: TypeAdapter[dict[str, T]]) -> dict[str, T]:
    """Read the entries of a memo. A memo that is missing, damaged or of another kind has no entries."""
    try:
        return kind.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be read and counts as empty: %s", path, str(error).splitlines()[0])
        return {}


def update_memo(
    path: Path,
    kind: TypeAdapter[dict[str, T]],
    new: Mapping[str, T],
    gone: Collection[str] = (),
    *,
    first_stays: bool = False,
) -> dict[str, T]:
    """Add the entries `new` to a memo and delete the entries `gone`. Returns all its entries.

    Entries that other processes added stay. For a key that exists, the new entry replaces the old one; with
    `first_stays`, the old one stays. The file is replaced by one rename, under a lock, and only when its entries
    change. If the store cannot be written, the file stays as it is.
    """

    def changed(known: dict[str, T]) -> dict[str, T]:
        left = {key: value for key, value in known.items() if key not in gone}
        return {**new, **left} if first_stays else {**left, **new}

    before = read_memo(path, kind)
    after = changed(before)
    if after == before:
        return after
    try:
        with locked(path):
            after = changed(read_memo(path, kind))
            write_atomically(path, json.dumps(kind.dump_python(after, mode="json"), indent=1, sort_keys=True))
    except (OSError, BadInput) as error:
        log.debug("%s is not written: %s", path, error)
    return after
