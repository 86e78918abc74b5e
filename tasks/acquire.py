"""Acquire: list a source (never cached), fetch a shard of it (cached), try again what failed, write the ledger."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

import vlm
from storage import failures
from storage.dataset import Dataset
from storage.listing import Scan, read_listing, write_ledger
from storage.listing import scan as scan_source
from storage.pairs import Check, Earlier, read_failures, write_shard
from storage.sources import Dropped, SourceError
from storage.sources.registry import open_source
from tasks.stage import Runtime, stage

log = logging.getLogger("bridgescope")


@task(persist_result=False, cache_policy=NO_CACHE)
def scan(source: dict[str, Any], shard_size: int, runtime: Runtime) -> Scan:
    """List the source, give out shards and rows, compare with the last scan. Never cached: it may have grown."""
    return scan_source(runtime.store, open_source(source, runtime.store), shard_size)


@stage("pairs", version="2", unhashed=("source", "earlier", "moved", "min_success"))
def fetch(
    out: Path,
    listing: Dataset,
    source: dict[str, Any],
    rules: dict[str, Any],
    runtime: Runtime,
    earlier: Sequence[Dataset] = (),
    moved: dict[str, tuple[str, str]] | None = None,
    min_success: float = 0.0,
) -> int:
    """Fetch the items of one shard. The listing's digest stands for the source, which may lie anywhere.

    `earlier` shards say which bytes are there already, and how much came through so far: below `min_success` nothing
    is kept, and TooFewPairs raised. `moved` items came through in a later shard: here they stay failed.
    """
    opened = open_source(source, runtime.store)
    seen = failures.sums(runtime.store, earlier) if rules["duplicates"] == "drop" else None
    checked = image_check(rules["max_pixels"])
    came = write_shard(out, runtime.store, listing, opened, checked, Earlier(moved or {}, seen))
    written = Dataset(path=str(out.relative_to(runtime.store)), recipe="", digest="", rows=came)
    failures.tally(runtime.store, [*earlier, written]).check(min_success)
    opened.release(read_listing(runtime.store, listing)["locator"].to_list())
    return came


def image_check(max_pixels: int) -> Check:
    """A function that tells width and height of an image that decodes. It raises SourceError for one that does not."""

    def check(data: bytes) -> tuple[int, int]:
        try:
            return vlm.measure(data, max_pixels)
        except vlm.DecodeError as error:
            raise SourceError(error.cause, str(error)) from error

    return check


@task(persist_result=False, cache_policy=NO_CACHE)
def retry(
    scanned: Scan, pairs: list[Dataset], source: dict[str, Any], rules: dict[str, Any], after: float, runtime: Runtime
) -> Dataset | None:
    """Try again what failed for now. Returns the listing of a new shard, or None when nothing came through."""
    return failures.retry(
        runtime.store,
        open_source(source, runtime.store),
        scanned.source,
        scanned.listings,
        pairs,
        image_check(rules["max_pixels"]),
        retry_after=after,
        most=max(listing.rows for listing in scanned.listings),
    )


@task(persist_result=False, cache_policy=NO_CACHE)
def ledger(dropped: list[Dropped], pairs: list[Dataset], min_success: float, runtime: Runtime) -> Dataset:
    """Put together what the source did not offer and what failed on the way, and tell it. Addressed by its content.

    Raises TooFewPairs when less than `min_success` came through.
    """
    written = write_ledger(runtime.store, dropped, read_failures(runtime.store, pairs))
    counted = failures.tally(runtime.store, pairs)
    if counted.causes or counted.duplicates:
        log.info("%s", counted.told())
    if counted.torn:
        log.warning("%d images lie on both sides of the split, under different group keys", counted.torn)
    counted.check(min_success)
    return written
