"""The explorer's data files as they are published: the single files for a static host, the manifest for any host."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report.claims import VERDICTS
from report.queries import MIN_FIRINGS, UNIMODAL
from storage.site import PAGE, compact

MANIFEST = "data/manifest.json"


def handed_out(manifest: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The explorer's manifest as a host serves it: with the current definitions, and with `changes`.

    The manifest in the dataset lacks the definitions (such as the limits for unimodal concepts). They come from the
    code that serves the manifest, as on the study's page.
    """
    verdicts = {"holds": VERDICTS[True], "fails": VERDICTS[False], "open": VERDICTS[None]}
    definitions = {"unimodal": UNIMODAL, "min_firings": MIN_FIRINGS, "verdicts": verdicts}
    return {**manifest, "definitions": definitions, **changes}


def unpack(path: Path, out: Path, *, items: bool = True) -> None:
    """Write the files of an archive below the folder `out`, which is created. See `released` for `items`."""
    with zipfile.ZipFile(path) as site:
        for name in site.namelist():
            data = released(name, site.read(name), items=items)
            if data is not None:
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (out / name).write_bytes(data)


def released(name: str, data: bytes, *, items: bool = True) -> bytes | None:
    """The content of a file as it is published; None if the file is not published.

    With items=False, images and captions are removed, and files that contain nothing else are not published. The words
    that name concepts stay, because each of them occurs in two or more captions. The manifest states `items`.
    """
    if name == MANIFEST:
        kept = {} if items else {"maps": [], "firings": False, "page": None}
        return _changed(data, lambda manifest: handed_out(manifest, items=items, **kept))
    if items:
        return data
    top, *below = name.split("/")
    if name == PAGE or top == "thumbs" or name.startswith("data/items/") or {"codes", "pairs"} & set(below[4:5]):
        return None
    if "concept" in below[4:5]:
        return _changed(
            data, lambda block: {i: {**one, "images": [], "texts": [], "levels": []} for i, one in block.items()}
        )
    return data


def _changed(data: bytes, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    return compact(change(json.loads(data)))
