"""The scan of a source. It gives each item a shard and a row, which never change, and reports what is new.

A listing is an immutable dataset with one row per item of a shard. The manifest of a source is a small file that names
the source's listings. A scan replaces the manifest by one rename.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from pydantic import BaseModel, TypeAdapter, ValidationError

from storage.dataset import Address, Dataset, address, complete, locked, materialize, planned, write_atomically
from storage.errors import BadInput
from storage.manifest import Damaged
from storage.memo import read_memo, update_memo
from storage.sources import Dropped, Item, Label, Source
from storage.sources.captions import clean
from storage.sources.causes import nothing_offered

SHARD_ROWS = 2**20  # the id of an item is shard number x 2^20 + row
SCHEMA: dict[str, Any] = {
    "row": pl.Int32,
    "source_key": pl.String,
    "group_key": pl.String,
    "locator": pl.String,
    "fingerprint": pl.String,
    "removed": pl.Boolean,
    "captions": pl.List(
        pl.Struct({"row": pl.Int32, "source_key": pl.String, "text": pl.String, "removed": pl.Boolean})
    ),
}
LABELS: dict[str, Any] = {"source_key": pl.String, "name": pl.String, "label": pl.String}
DROPPED: dict[str, Any] = {"source_key": pl.String, "shard": pl.Int32, "cause": pl.String, "detail": pl.String}


class Attempt(NamedTuple):
    """The attempts at an item that failed by a transient cause."""

    tries: int
    at: float  #: time of the last try, in seconds since the epoch
    cause: str
    #: {shard: [cause, detail]} of the shards in which the item failed before a later shard acquired it
    left: dict[str, list[str]]


ATTEMPTS = TypeAdapter(dict[str, Attempt])
COMMITS = TypeAdapter(dict[str, str])  # type of a memo: {recipe of a listing: commit of its source}


class Scan(NamedTuple):
    """The result of a scan."""

    listings: list[Dataset]  #: one listing per shard, in the order of shard numbers
    dropped: list[Dropped]  #: items that the source holds but does not offer for the study
    new: int  #: number of shards that did not exist at the last scan
    changed: int  #: number of shards whose listing differs from the last scan
    source: str  #: recipe of the source, the name of the folder with its manifest and ledger of attempts
    labels: Sequence[Label]  #: labels that the source gives its items
    moved: dict[int, list[str]]  #: {shard: keys of the items that failed in it and were acquired in a later shard}


def scan(store: Path, source: Source, shard_size: int) -> Scan:
    """List a source and assign every item its shard and row.

    An item that was listed before keeps its place, a new item goes into a new shard, and the row of a removed item is
    never used again. A shard whose items did not change keeps its listing, byte for byte.
    """
    listing = source.list()
    if not listing.items:
        raise nothing_offered(source.name, source.identity, listing.dropped)
    at = _address(source, shard_size)
    folder = store / at.path
    with locked(folder):
        folder.mkdir(exist_ok=True)
        before = _shards(folder)
        shards = assign([_rows(store, shard) for shard in before], listing.items, shard_size)
        listings = [_write(store, number, rows) for number, rows in enumerate(shards)]
        _record(folder, listings, {"name": source.name, "source": source.identity, "shard_size": shard_size})
    if (commit := source.commit()) is not None:
        _note(store, listings, commit)
    kept = zip(before, listings, strict=False)
    home = _home(shards)
    moved = {n: [key for row in rows if home[key := row["source_key"]] != n] for n, rows in enumerate(shards)}
    return Scan(
        listings,
        listing.dropped,
        new=len(listings) - len(before),
        changed=sum(old.digest != now.digest for old, now in kept),
        source=at.recipe,
        labels=listing.labels,
        moved={shard: keys for shard, keys in moved.items() if keys},
    )


class Foreseen(NamedTuple):
    """A shard, as the next scan would list it."""

    listing: Dataset  #: handle of the listing, a planned one if the store does not hold the listing
    images: int
    captions: int
    locators: list[str]


def foresee(store: Path, source: Source, shard_size: int) -> list[Foreseen]:
    """List a source as `scan` does, but write nothing. Returns one entry per shard.

    Raises BadInput for the same reasons as `scan`.
    """
    listing = source.list()
    if not listing.items:
        raise nothing_offered(source.name, source.identity, listing.dropped)
    folder = store / _address(source, shard_size).path
    shards = assign([_rows(store, shard) for shard in _shards(folder)], listing.items, shard_size)
    foreseen = []
    for number, rows in enumerate(shards):
        at = _address_of_rows(number, rows)
        held = [row for row in rows if not row["removed"]]
        captions = sum(not caption["removed"] for row in held for caption in row["captions"])
        dataset = complete(store, at) or planned(at.path, len(held))
        foreseen.append(Foreseen(dataset, len(held), captions, [row["locator"] for row in held]))
    return foreseen


def _address(source: Source, shard_size: int) -> Address:
    return address("sources", "1", {"source": source.identity, "name": source.name, "shard_size": shard_size})


def _home(shards: list[list[dict[str, Any]]]) -> dict[str, int]:
    """Return {source_key: number of the last shard with the item}. Scans update an item only in its last shard."""
    return {row["source_key"]: shard for shard, rows in enumerate(shards) for row in rows}


def _shards(folder: Path) -> list[Dataset]:
    """Return the listings that the manifest of a source names; none if there is no manifest."""
    manifest = folder / "manifest.json"
    return read_shards(manifest) if manifest.exists() else []


class _SourceManifest(BaseModel):
    """The part of a source's manifest that is read back. The manifest also describes the source, for people."""

    shards: list[Dataset]


def read_shards(manifest: Path) -> list[Dataset]:
    """Read the listings that the manifest of a source names. Raises Damaged when the manifest cannot be read."""
    try:
        return _SourceManifest.model_validate_json(manifest.read_bytes(), strict=True).shards
    except (OSError, ValidationError) as error:
        problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise Damaged(
            f"{manifest} is damaged: {problem}. It holds the ids of the source's items: restore it, or delete it, and "
            "the next run numbers the items again"
        ) from error


def _record(folder: Path, listings: list[Dataset], known: dict[str, Any]) -> None:
    record = {**known, "shards": [shard.model_dump() for shard in listings]}
    write_atomically(folder / "manifest.json", json.dumps(record, indent=1, sort_keys=True))


def append_shard(store: Path, source: str, keys: Sequence[str]) -> Dataset:
    """Put items whose retry succeeded into a new shard, with new ids. Later scans keep the items in this shard.

    `source` is the recipe of the source, as in `Scan.source`. Raises BadInput when the source has no manifest.
    """
    folder = store / "sources" / source
    with locked(folder):
        listings = _shards(folder)
        if not listings:
            raise BadInput(f"{folder} holds no manifest: scan the source first")
        listed = {row["source_key"]: row for shard in listings for row in _rows(store, shard)}
        rows = []
        free = 0
        for number, key in enumerate(keys):
            captions = [caption for caption in listed[key]["captions"] if not caption["removed"]]
            texts = [{**caption, "row": free + place} for place, caption in enumerate(captions)]
            free += len(texts)
            rows.append({**listed[key], "row": number, "captions": texts})
        listings.append(_write(store, len(listings), rows))
        known = json.loads((folder / "manifest.json").read_text())
        _record(folder, listings, known)
    if (commit := commit_of(store, listings[0])) is not None:  # the last scan noted it for every listing
        _note(store, listings[-1:], commit)
    return listings[-1]


def commit_of(store: Path, listing: Dataset) -> str | None:
    """Return the commit of a source whose items, at their places, a listing holds. None for a source without commits.

    It is the commit of the last scan that found this listing. It is in a memo, not in the listing, since the listing
    is the same for all commits with the same items.
    """
    return read_memo(_commits(store), COMMITS).get(listing.recipe)


def _note(store: Path, listings: Sequence[Dataset], commit: str) -> None:
    """Note the commit of some listings, and forget the listings that the store no longer holds."""
    known = read_memo(_commits(store), COMMITS)
    gone = [recipe for recipe in known if not (store / "listings" / recipe).is_dir()]
    update_memo(_commits(store), COMMITS, {listing.recipe: commit for listing in listings}, gone)


def _commits(store: Path) -> Path:
    return store / "sources" / "commits.json"


def read_attempts(store: Path, source: str) -> dict[str, Attempt]:
    """Read the source's ledger of attempts: {source_key: Attempt} of the items that failed by a transient cause.

    The ledger is a memo. If it is lost, the count of attempts starts again at the first.
    """
    return read_memo(store / "sources" / source / "attempts.json", ATTEMPTS)


def write_attempts(store: Path, source: str, attempts: Mapping[str, Attempt]) -> None:
    """Replace the source's ledger of attempts. The ledger is no dataset, so a failed retry changes no dataset."""
    gone = read_attempts(store, source).keys() - attempts.keys()
    update_memo(store / "sources" / source / "attempts.json", ATTEMPTS, attempts, gone)


def assign(before: list[list[dict[str, Any]]], items: list[Item], shard_size: int) -> list[list[dict[str, Any]]]:
    """Assign every item a shard and a row. Earlier assignments are kept. This is a pure function.

    `before` holds the rows of each shard at the last scan. An item in two shards failed in the first and was acquired
    in the last. Only its row in the last shard is updated.
    """
    offered = {item.source_key: item for item in items}
    if len(offered) != len(items):
        raise BadInput("the source lists a key twice: keys of items must be unique")
    home = _home(before)
    shards = [
        _updated(rows, offered, {row["source_key"] for row in rows if home[row["source_key"]] != shard})
        for shard, rows in enumerate(before)
    ]
    fresh = [item for item in items if item.source_key not in home]
    for start in range(0, len(fresh), shard_size):
        rows = [
            {"row": row, **_fields(item), "removed": False, "captions": []}
            for row, item in enumerate(fresh[start : start + shard_size])
        ]
        shards.append(_updated(rows, offered, set()))
    return shards


def _updated(rows: list[dict[str, Any]], offered: dict[str, Item], moved: set[str]) -> list[dict[str, Any]]:
    """Update the rows of a shard from the items `offered`, except the keys `moved`, which a later shard holds.

    Rows and caption rows keep their numbers. New captions are appended.
    """
    free = 1 + max((caption["row"] for row in rows for caption in row["captions"]), default=-1)
    updated = []
    for row in rows:
        if row["source_key"] in moved:
            updated.append(row)
            continue
        item = offered.get(row["source_key"])
        texts = {caption.source_key: caption.text for caption in item.captions} if item else {}
        captions = [
            {
                **caption,
                "removed": caption["source_key"] not in texts,
                "text": texts.pop(caption["source_key"], caption["text"]),
            }
            for caption in row["captions"]
        ]
        for key, text in texts.items():
            captions.append({"row": free, "source_key": key, "text": text, "removed": False})
            free += 1
        updated.append({**row, **(_fields(item) if item else {}), "removed": item is None, "captions": captions})
    if free > SHARD_ROWS:
        raise BadInput(f"{free:,} captions in one shard: at most {SHARD_ROWS:,}; lower pairs.shard_size")
    return updated


def _fields(item: Item) -> dict[str, Any]:
    return {
        "source_key": item.source_key,
        "group_key": item.group_key,
        "locator": item.locator,
        "fingerprint": item.fingerprint,
    }


def _rows(store: Path, listing: Dataset) -> list[dict[str, Any]]:
    return read_listing(store, listing).drop("shard").to_dicts()


def read_listing(store: Path, listing: Dataset) -> pl.DataFrame:
    """Read the rows of one shard's listing, including the rows of removed items."""
    return pl.read_parquet(store / listing.path / "listing.parquet", glob=False)


def _write(store: Path, number: int, rows: list[dict[str, Any]]) -> Dataset:
    """Write the listing of shard `number`."""

    def body(out: Path) -> int:
        table = pl.DataFrame(rows, schema=SCHEMA).with_columns(shard=pl.lit(number, pl.Int32))
        table.write_parquet(out / "listing.parquet")
        return sum(not row["removed"] for row in rows)

    return materialize(store, _address_of_rows(number, rows), body)


def _address_of_rows(number: int, rows: list[dict[str, Any]]) -> Address:
    """Return the address of a listing. It depends only on the shard's number and rows, not on the source's place."""
    content = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return address("listings", "2", {"shard": number, "content": content})


def write_ledger(store: Path, dropped: list[Dropped], failed: pl.DataFrame) -> Dataset:
    """Write the ledger, which lists every item of the source that is not in the study, with the cause."""
    rows = [
        {"source_key": clean(d.source_key), "shard": None, "cause": d.cause, "detail": clean(d.detail)} for d in dropped
    ]
    ledger = pl.concat([pl.DataFrame(rows, schema=DROPPED), failed.cast(DROPPED)])  # type: ignore[arg-type]
    ledger = ledger.sort("cause", "source_key")
    content = hashlib.sha256(ledger.write_json().encode()).hexdigest()

    def body(out: Path) -> int:
        ledger.write_parquet(out / "ledger.parquet")
        return ledger.height

    return materialize(store, address("ledgers", "1", {"content": content}), body)


def write_labels(store: Path, labels: Sequence[Label]) -> Dataset | None:
    """Write the table of labels, sorted, each label of an item once. Returns None if there are no labels.

    The address of the table is a hash of its content, so a changed label leaves the shards of pairs as they are.
    """
    if not labels:
        return None
    table = pl.DataFrame(labels, schema=LABELS, orient="row").unique().sort("name", "label", "source_key")
    content = hashlib.sha256(table.write_json().encode()).hexdigest()

    def body(out: Path) -> int:
        table.write_parquet(out / "labels.parquet")
        return table.height

    return materialize(store, address("labels", "1", {"content": content}), body)
