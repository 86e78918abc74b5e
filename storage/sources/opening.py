"""From a study's section [pairs] to its source."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from storage.errors import BadInput
from storage.sources import Arrived, Listing, Source, SourceError
from storage.sources.coco import Coco, is_url
from storage.sources.download import Policy
from storage.sources.embeddings import EmbeddingsFolder
from storage.sources.folder import Folder
from storage.sources.huggingface import HuggingFace
from storage.sources.npm_emoji import NpmEmoji
from storage.sources.urls import Urls
from storage.sources.webdataset import WebDataset


def open_source(section: dict[str, Any], store: Path) -> Source:
    """The source that a section [pairs] names. Opens nothing yet. Raises BadInput for one that is not known."""
    kind = section["source"]
    if kind == "embeddings":
        return EmbeddingsFolder(Path(section["path"]), store / "sources" / "fingerprints.json")
    if kind == "npm-emoji":
        return NpmEmoji(
            store / "downloads", images=section["images"], metadata=section["metadata"], limit=section["limit"]
        )
    identity = _identity(section)
    own = store / "downloads" / kind / hashlib.sha256(repr(sorted(identity.items())).encode()).hexdigest()[:12]
    makers = {"coco": _coco, "folder": _folder, "webdataset": _webdataset, "urls": _urls, "huggingface": _hub}
    if kind not in makers:
        raise BadInput(f"pairs.source = {kind!r}: sources are npm-emoji, embeddings, {', '.join(makers)}")
    source = makers[kind](section, own, identity)
    return source if section.get("limit") is None else First(source, section["limit"])


class First(Source):
    """The first so many items of a source. The limit is no part of the identity: raising it is growth."""

    def __init__(self, source: Source, limit: int) -> None:
        self.source, self.limit = source, limit
        self.name, self.identity = source.name, source.identity

    def list(self) -> Listing:
        """The source's list, cut."""
        listing = self.source.list()
        return listing._replace(items=listing.items[: self.limit])

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """The source's own `read`."""
        return self.source.read(locators, arrived)

    def release(self, locators: Sequence[str]) -> None:
        """The source's own `release`."""
        self.source.release(locators)


def _identity(section: dict[str, Any]) -> dict[str, Any]:
    """What names a source in the store: the study's own name for it, else the place that does not change as it grows.

    Only the list of what was given which id hangs on it: datasets are addressed by what they hold.
    """
    if section.get("id"):
        return {"id": section["id"]}
    match section["source"]:
        case "coco":
            place = [section["path"], section["annotations"], section["images"]]
            return {"subset": section["subset"], "at": [_resolved(one) for one in place if one is not None]}
        case "webdataset":
            # More shards beside the first are the same source, grown.
            return {"below": _resolved(section["shards"][0].partition("{")[0].rpartition("/")[0])}
        case "huggingface":
            repo = section["repo"]
            return {"repo": _resolved(repo) if os.path.isabs(repo) else repo, "image": section["image_column"]}
    return {"at": _resolved(section["path"])}


def _resolved(place: str) -> str:
    return place if is_url(place) else os.path.realpath(place)


def _policy(section: dict[str, Any]) -> Policy:
    return Policy(
        concurrency=section["concurrency"],
        timeout=section["timeout"],
        tries=section["tries"],
        max_bytes=section["max_image_bytes"],
        allow_private_addresses=section["allow_private_addresses"],
        respect_noai=section["respect_noai"],
    )


def _given(section: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The arguments of a source that the study gives under the same names."""
    return {key: section[key] for key in (*keys, "max_image_bytes")}


def _coco(section: dict[str, Any], own: Path, identity: dict[str, Any]) -> Source:
    keys = ("subset", "annotations", "images", "annotations_digest", "images_digest")
    return Coco(section["path"], own, identity=identity, policy=_policy(section), **_given(section, *keys))


def _folder(section: dict[str, Any], own: Path, identity: dict[str, Any]) -> Source:
    keys = ("table", "image_column", "caption_column", "group_column")
    memo = own / "digests.parquet"
    return Folder(Path(section["path"]), memo, identity=identity, **_given(section, *keys))


def _webdataset(section: dict[str, Any], own: Path, identity: dict[str, Any]) -> Source:
    return WebDataset(section["shards"], own, identity=identity, policy=_policy(section), **_given(section, "caption"))


def _urls(section: dict[str, Any], own: Path, identity: dict[str, Any]) -> Source:
    columns = {key: section[key] for key in ("url_column", "caption_column", "group_column", "sha256_column")}
    return Urls(Path(section["path"]), own, identity=identity, policy=_policy(section), **columns)


def _hub(section: dict[str, Any], own: Path, identity: dict[str, Any]) -> Source:
    keys = ("revision", "files", "image_column", "caption_column", "group_column")
    return HuggingFace(section["repo"], own, identity=identity, **_given(section, *keys))
