"""Acquire: list a source (never cached), fetch a shard of it (cached), write the ledger of what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

import vlm
from storage.dataset import Dataset
from storage.listing import Scan, write_ledger
from storage.listing import scan as scan_source
from storage.pairs import read_failures, write_shard
from storage.sources import Dropped, Source, SourceError
from storage.sources.embeddings import EmbeddingsFolder
from storage.sources.npm_emoji import NpmEmoji
from tasks.stage import Runtime, stage


def open_source(source: dict[str, Any], store: Path) -> Source:
    """The source that a study's [pairs] names."""
    if source["source"] == "embeddings":
        return EmbeddingsFolder(Path(source["path"]), store / "sources" / "fingerprints.json")
    return NpmEmoji(store / "downloads", images=source["images"], metadata=source["metadata"], limit=source["limit"])


@task(persist_result=False, cache_policy=NO_CACHE)
def scan(source: dict[str, Any], shard_size: int, runtime: Runtime) -> Scan:
    """List the source, give out shards and rows, compare with the last scan. Never cached: it may have grown."""
    return scan_source(runtime.store, open_source(source, runtime.store), shard_size)


@stage("pairs", version="1", unhashed=("source",))
def fetch(out: Path, listing: Dataset, source: dict[str, Any], runtime: Runtime) -> int:
    """Fetch the items of one shard. The listing's digest stands for the source, which may lie anywhere."""
    return write_shard(out, runtime.store, listing, open_source(source, runtime.store), image_size)


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels of an image that decodes. Raises SourceError for one that does not."""
    try:
        return vlm.decode(data).size
    except vlm.DecodeError as error:
        raise SourceError(error.cause, str(error)) from error


@task(persist_result=False, cache_policy=NO_CACHE)
def ledger(dropped: list[Dropped], pairs: list[Dataset], runtime: Runtime) -> Dataset:
    """Put together what the source did not offer and what failed on the way. Addressed by its content."""
    return write_ledger(runtime.store, dropped, read_failures(runtime.store, pairs))
