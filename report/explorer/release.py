"""The explorer's data files as loose files, for a static host: all of them, or without images and captions."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage.site import compact


def unpack(path: Path, out: Path, *, items: bool = True) -> None:
    """Write the files of an archive below `out`, which is made. Without `items` no image and no caption is among them.

    Words stay, which name concepts: each stands in two captions or more. The manifest says which it is.
    """
    with zipfile.ZipFile(path) as site:
        for name in site.namelist():
            data = site.read(name) if items else without_items(name, site.read(name))
            if data is not None:
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (out / name).write_bytes(data)


def without_items(name: str, data: bytes) -> bytes | None:
    """A file without images and captions; None for one that holds nothing else."""
    top, *below = name.split("/")
    if top == "thumbs" or name.startswith("data/items/") or "codes" in below[4:5]:
        return None
    if name == "data/manifest.json":
        return _changed(data, lambda manifest: {**manifest, "items": False})
    if "concept" in below[4:5]:
        return _changed(data, lambda block: {i: {**one, "images": [], "texts": []} for i, one in block.items()})
    return data


def _changed(data: bytes, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    return compact(change(json.loads(data)))
