"""Acquire: list a source (never cached), fetch a shard (cached), retry failed items, write the ledger."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import vlm
from storage import failures
from storage.dataset import Dataset
from storage.duplicates import digest_of_duplicates, read_duplicates, write_distinct, write_duplicates
from storage.errors import BadInput
from storage.failures import Progress
from storage.listing import Scan, commit_of, read_listing, write_ledger
from storage.listing import scan as scan_source
from storage.pairs import Check, read_failures, write_shard
from storage.sources import Dropped, Source, SourceError
from storage.sources.registry import open_source
from tasks.progress import bar
from tasks.stage import Runtime, stage

log = logging.getLogger("bridgescope")


def scan(source: dict[str, Any], shard_size: int, runtime: Runtime) -> Scan:
    """List the source, assign shards and rows, and compare with the last scan. Never cached: a source may grow."""
    return scan_source(runtime.store, open_source(source, runtime.store), shard_size)


def _opened(source: dict[str, Any], listing: Dataset, runtime: Runtime) -> Source:
    """Open the source to read the items of a listing, at the commit at which they were listed if it has commits."""
    opened = open_source(source, runtime.store)
    if (commit := commit_of(runtime.store, listing)) is not None:
        opened.pin(commit)
    return opened


@stage("pairs", version="2", unhashed=("source", "progress", "moved", "min_success"))
def fetch(
    out: Path,
    listing: Dataset,
    source: dict[str, Any],
    rules: dict[str, Any],
    runtime: Runtime,
    progress: Progress | None = None,
    moved: dict[str, tuple[str, str]] | None = None,
    min_success: float = 0.0,
) -> int:
    """Fetch the items of one shard. Returns the number of images fetched.

    The source is not part of the recipe, so the folder of the source may be moved. The digest of the listing
    identifies the items.

    progress: counts of the shards fetched before this one. When the share of items fetched so far, including this
        shard, is below `min_success`, TooFewPairs is raised and the shard is not kept.
    moved: {source key: (cause, detail)} of items that failed in this shard and were fetched in a later shard. In this
        shard they stay failed.
    """
    opened = _opened(source, listing, runtime)
    check = image_check(rules["max_pixels"])
    with bar(listing.rows, "acquire", "images", show=runtime.progress) as shown:

        def counted(data: bytes) -> tuple[int, int]:
            shown.update()
            return check(data)

        fetched = write_shard(out, runtime.store, listing, opened, counted, moved)
    written = Dataset(path=str(out.relative_to(runtime.store)), recipe="", digest="", rows=fetched)
    (progress or Progress()).check(runtime.store, written, min_success)
    opened.release(read_listing(runtime.store, listing)["locator"].to_list())
    return fetched


@stage("duplicates", version="1")
def duplicates(out: Path, pairs: list[Dataset], runtime: Runtime) -> int:
    """Write the table of images with the same bytes as an earlier image of these shards. Returns its number of rows."""
    return write_duplicates(out, runtime.store, pairs)


@stage("distinct", version="1", unhashed=("table",))
def distinct(out: Path, pairs: Dataset, dropped: str, table: Dataset, runtime: Runtime) -> int:
    """Write a shard of pairs without its duplicates. Returns the number of images that are left.

    dropped: digest of the rows of this shard in the table of duplicates. Only these rows decide the result.
    """
    originals = read_duplicates(runtime.store, table).get(pairs.digest, {})
    if digest_of_duplicates(originals) != dropped:
        raise BadInput(f"{table.path} is not the table of duplicates from which {pairs.path} is to be made")
    return write_distinct(out, runtime.store, pairs, originals)


def image_check(max_pixels: int) -> Check:
    """Return a function that measures (width, height) of an image, and raises SourceError if it does not decode."""

    def check(data: bytes) -> tuple[int, int]:
        try:
            return vlm.measure(data, max_pixels)
        except vlm.DecodeError as error:
            raise SourceError(error.cause, str(error)) from error

    return check


def retry(
    scanned: Scan, pairs: list[Dataset], source: dict[str, Any], rules: dict[str, Any], after: float, runtime: Runtime
) -> Dataset | None:
    """Try again to fetch items that failed temporarily. Returns the listing of a new shard, None if all failed."""
    return failures.retry(
        runtime.store,
        _opened(source, scanned.listings[0], runtime),
        scanned.source,
        scanned.listings,
        pairs,
        image_check(rules["max_pixels"]),
        retry_after=after,
        most=max(listing.rows for listing in scanned.listings),
    )


def ledger(dropped: list[Dropped], pairs: list[Dataset], min_success: float, runtime: Runtime) -> Dataset:
    """Write the ledger: items that the source dropped and items that failed. Its address is a hash of its content.

    Logs the counts. Raises TooFewPairs when the share of items fetched is below `min_success`.
    """
    written = write_ledger(runtime.store, dropped, read_failures(runtime.store, pairs))
    tally = failures.tally(runtime.store, pairs)
    if tally.causes or tally.duplicates:
        log.info("%s", tally.told())
    if tally.torn:
        log.warning(
            "pictures that occur under several group keys, and so perhaps on both sides of the split: %d", tally.torn
        )
    tally.check(min_success)
    return written
