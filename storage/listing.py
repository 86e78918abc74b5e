"""The scan of a source: gives out shard numbers and rows once, and says what changed since the last scan.

A listing is an immutable dataset with one row an item; the mutable part is one small file a source, replaced whole.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from storage.dataset import Address, Dataset, address, locked, materialize, write_atomically
from storage.errors import BadInput
from storage.sources import Dropped, Item, Source

SHARD_ROWS = 2**20  # ids are shard number x 2^20 + row
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
DROPPED: dict[str, Any] = {"source_key": pl.String, "shard": pl.Int32, "cause": pl.String, "detail": pl.String}


class Scan(NamedTuple):
    """What a scan found."""

    listings: list[Dataset]  #: one a shard, in the order of shard numbers
    dropped: list[Dropped]  #: what the source holds and does not offer
    new: int  #: shards that the last scan did not have
    changed: int  #: shards whose listing is another than at the last scan


def scan(store: Path, source: Source, shard_size: int) -> Scan:
    """List a source and give every item its shard and row.

    An item that was listed before keeps its place; a new one goes into a new shard; a removed one leaves its row
    empty for ever. A shard whose items did not change has the same listing, byte for byte.
    """
    listing = source.list()
    if not listing.items:
        raise BadInput(f"the source {source.name!r} holds no image-text pairs: {source.identity}")
    at = address("sources", "1", {"source": source.identity, "name": source.name, "shard_size": shard_size})
    folder = store / at.path
    with locked(folder):
        folder.mkdir(exist_ok=True)
        manifest = folder / "manifest.json"
        before = [Dataset(**shard) for shard in json.loads(manifest.read_text())["shards"]] if manifest.exists() else []
        shards = assign([_rows(store, shard) for shard in before], listing.items, shard_size)
        listings = [_write(store, at, number, rows) for number, rows in enumerate(shards)]
        record = {
            "name": source.name,
            "source": source.identity,
            "shard_size": shard_size,
            "shards": [shard.model_dump() for shard in listings],
        }
        write_atomically(manifest, json.dumps(record, indent=1, sort_keys=True))
    kept = zip(before, listings, strict=False)
    return Scan(
        listings,
        listing.dropped,
        new=len(listings) - len(before),
        changed=sum(old.digest != now.digest for old, now in kept),
    )


def assign(before: list[list[dict[str, Any]]], items: list[Item], shard_size: int) -> list[list[dict[str, Any]]]:
    """Give every item a shard and a row, keeping those that were given before. Pure: lists in, lists out."""
    offered = {item.source_key: item for item in items}
    if len(offered) != len(items):
        raise BadInput("the source lists a key twice: keys of items must be unique")
    shards = [_updated(rows, offered) for rows in before]
    placed = {row["source_key"] for rows in before for row in rows}
    fresh = [item for item in items if item.source_key not in placed]
    for start in range(0, len(fresh), shard_size):
        rows = [
            {"row": row, **_fields(item), "removed": False, "captions": []}
            for row, item in enumerate(fresh[start : start + shard_size])
        ]
        shards.append(_updated(rows, offered))
    return shards


def _updated(rows: list[dict[str, Any]], offered: dict[str, Item]) -> list[dict[str, Any]]:
    """A shard's rows as the source has them now. Rows and caption rows once given stay; new captions go behind them."""
    free = 1 + max((caption["row"] for row in rows for caption in row["captions"]), default=-1)
    updated = []
    for row in rows:
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
    """The rows of one shard's listing, removed ones too."""
    return pl.read_parquet(store / listing.path / "listing.parquet")


def _write(store: Path, source: Address, number: int, rows: list[dict[str, Any]]) -> Dataset:
    content = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    at = address("listings", "1", {"source": source.recipe, "shard": number, "content": content})

    def body(out: Path) -> int:
        table = pl.DataFrame(rows, schema=SCHEMA).with_columns(shard=pl.lit(number, pl.Int32))
        table.write_parquet(out / "listing.parquet")
        return sum(not row["removed"] for row in rows)

    return materialize(store, at, body)


def write_ledger(store: Path, dropped: list[Dropped], failed: pl.DataFrame) -> Dataset:
    """Write the ledger: every item that the source holds and the study does not get, with its cause."""
    rows = [{"source_key": d.source_key, "shard": None, "cause": d.cause, "detail": d.detail} for d in dropped]
    ledger = pl.concat([pl.DataFrame(rows, schema=DROPPED), failed.cast(DROPPED)])  # type: ignore[arg-type]
    ledger = ledger.sort("cause", "source_key")
    content = hashlib.sha256(ledger.write_json().encode()).hexdigest()

    def body(out: Path) -> int:
        ledger.write_parquet(out / "ledger.parquet")
        return ledger.height

    return materialize(store, address("ledgers", "1", {"content": content}), body)
