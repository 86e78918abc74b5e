"""The shards that a study will have, before they are acquired: its source is listed, and nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flows.config import Study
from storage.dataset import Dataset, planned
from storage.errors import BadInput
from storage.listing import Foreseen, foresee, read_listing
from storage.runs import Run
from storage.sources import Source
from storage.sources.registry import open_source
from storage.sources.section import Size, source_of

SAMPLE = 64  # about how many pictures are read to find the mean size of a source's pictures
PICTURE_BYTES = 60_000  # assumed for pictures not on disk yet: the mean of img2dataset's JPEGs of 256 to 384 pixels


class Shard(NamedTuple):
    """A shard of pairs, acquired or not."""

    number: int
    listing: Dataset
    images: int
    captions: int
    bytes: int  #: bytes of the pictures


class Foresight(NamedTuple):
    """The shards that a study will have."""

    shards: list[Shard]
    downloads: int  #: bytes that the source will download in addition to the datasets
    how: str  #: a sentence that says where the numbers come from; "" if the source was listed


def foresight(study: Study, store: Path, last: Run | None, *, anew: bool) -> Foresight:
    """The shards of a study. With `anew` the source is listed now; otherwise the last scan is used, if there is one.

    A source that must be downloaded to be listed is not listed: its last scan is used, or else its published size.
    Raises BadInput if the source cannot be listed, or if it has neither a scan nor a published size.
    """
    pairs = study.pairs
    remote = pairs.remote()
    if last is not None and last.of("scan") and (remote or not anew):
        shards = [_scanned(store, entry.shard or 0, entry.dataset) for entry in last.of("scan")]
        how = f"the size of the source is taken from run {last.number} found it"
        return Foresight(_with_bytes(shards, PICTURE_BYTES), 0, how)
    if remote is None:
        source = open_source(source_of(pairs), store)
        shards = foresee(store, source, pairs.shard_size)
        return Foresight(_with_bytes(shards, _mean_bytes(source, shards)), 0, "")
    size = pairs.known_size()
    if size is None:
        raise BadInput(
            f"pairs: the source can be listed only by downloading it from {remote}: run bridgescope run STUDY.toml "
            "--only acquire first; its size is then known"
        )
    taken = min(size.images, getattr(pairs, "limit", None) or size.images)
    return Foresight(_cut(size, taken, pairs.shard_size), size.downloads, "the size of the source is the published one")


def _scanned(store: Path, number: int, listing: Dataset) -> Foreseen:
    """A shard as the last scan found it."""
    rows = [row for row in read_listing(store, listing).to_dicts() if not row["removed"]]
    captions = sum(not caption["removed"] for row in rows for caption in row["captions"])
    return Foreseen(listing, len(rows), captions, [])


def _cut(size: Size, images: int, shard_size: int) -> list[Shard]:
    """Cut a source of known size into shards."""
    shards = []
    for number, start in enumerate(range(0, images, shard_size)):
        rows = min(shard_size, images - start)
        share = rows / size.images
        listing = planned(f"listings/{number}", rows)
        shards.append(Shard(number, listing, rows, round(size.captions * share), round(size.bytes * share)))
    return shards


def _with_bytes(shards: Sequence[Foreseen], mean: float) -> list[Shard]:
    return [
        Shard(number, shard.listing, shard.images, shard.captions, round(mean * shard.images))
        for number, shard in enumerate(shards)
    ]


def _mean_bytes(source: Source, shards: Sequence[Foreseen]) -> float:
    """Mean bytes of a picture, from a sample spread over the source. 0 for vectors, which come without pictures."""
    if source.name == "urls":
        return PICTURE_BYTES
    locators = [locator for shard in shards for locator in shard.locators]
    step = max(1, len(locators) // SAMPLE)
    read = list(source.read(locators[::step]))
    sizes = [len(data) for data in read if isinstance(data, bytes)]
    return sum(sizes) / len(sizes) if sizes else 0.0
