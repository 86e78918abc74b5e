"""Pair shards: `images.parquet` and `captions.parquet`, with ids, split numbers and the original image bytes.

Images are written one row group at a time. So a shard of any size needs only the memory of one row group (GROUP_BYTES)
and of a few dozen images.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from storage.dataset import Dataset
from storage.listing import DROPPED, SHARD_ROWS, read_listing
from storage.sources import Source, SourceError
from storage.sources.captions import clean
from storage.split import split_u

IMAGES = pa.schema(
    {
        "image_id": pa.int64(),
        "source_key": pa.large_string(),
        "group_key": pa.large_string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "sha256": pa.large_string(),
        "split_u": pa.float64(),
        "error": pa.large_string(),
        "error_detail": pa.large_string(),
        "image": pa.large_binary(),
    }
)
CAPTIONS = {"pair_id": pl.Int64, "image_id": pl.Int64, "caption": pl.String, "source_key": pl.String}
GROUP_ROWS = 1024
GROUP_BYTES = 32 << 20  # a row group is closed at this size, even with fewer rows

Check = Callable[[bytes], tuple[int, int]]  # of an image's bytes: returns width and height, or raises SourceError


def write_shard(
    out: Path,
    store: Path,
    listing: Dataset,
    source: Source,
    check: Check,
    moved: Mapping[str, tuple[str, str]] | None = None,
) -> int:
    """Fetch the items of a listing and write the shard's two tables. Returns the number of acquired images.

    A failed item keeps its row and id, with the cause in `error`. `check` decodes each image once, in threads, so that
    an image that cannot be decoded fails before the embedding. `moved` holds {source_key: (cause, detail)} of items
    that a later shard has acquired; the rows of these items stay failed in this shard.
    """
    rows = read_listing(store, listing).filter(~pl.col("removed"))
    first = rows["shard"][0] * SHARD_ROWS if rows.height else 0
    acquired = 0
    with ImageWriter(out / "images.parquet") as images:
        for row, columns in _described(rows, source, check, moved or {}):
            acquired += columns["error"] is None
            images.add({"image_id": first + row["row"], "source_key": row["source_key"], **columns})
    _captions(rows, first).write_parquet(out / "captions.parquet")
    return acquired


class ImageWriter:
    """Writer of image rows to Parquet, one row group at a time."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self.size = path, list[dict[str, Any]](), 0

    def __enter__(self) -> ImageWriter:
        # Encoded images are neither compressed further nor given a dictionary or statistics, which would be of no use.
        plain = [name for name in IMAGES.names if name != "image"]
        codecs = dict.fromkeys(plain, "zstd") | {"image": "none"}
        self.writer = pq.ParquetWriter(
            self.path, IMAGES, compression=codecs, use_dictionary=plain, write_statistics=plain
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self.writer.close()

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.size += len(row["image"] or b"")
        if len(self.rows) == GROUP_ROWS or self.size >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=IMAGES))
        self.rows, self.size = [], 0


def _captions(rows: pl.DataFrame, first: int) -> pl.DataFrame:
    """Return the captions of a listing's rows. `first` is the id of the shard's row 0."""
    return (
        rows.select(pl.col("row").alias("of"), "captions")
        .explode("captions")
        .filter(pl.col("captions").is_not_null())
        .with_columns(pl.col("captions").struct.unnest())
        .filter(~pl.col("removed"))
        .select(
            pair_id=first + pl.col("row").cast(pl.Int64),
            image_id=first + pl.col("of").cast(pl.Int64),
            caption="text",
            source_key="source_key",
        )
        .cast(CAPTIONS)  # type: ignore[arg-type]
        .sort("pair_id")
    )


def _described(
    rows: pl.DataFrame, source: Source, check: Check, moved: Mapping[str, tuple[str, str]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each row of a listing with its columns of `images.parquet`, in order.

    Images are decoded in threads. An image that the source reports by `arrived` is decoded at once. All other images
    are decoded in order, a few rows ahead of the row that is yielded.
    """
    listed = rows.select("source_key", "group_key", "row", "locator").to_dicts()
    for row in listed:
        row["digest"] = source.digest_of(row["source_key"])
    requested = [row for row in listed if row["source_key"] not in moved]
    workers = os.cpu_count() or 1
    early: dict[int, Future[dict[str, Any]]] = {}
    pending: deque[tuple[dict[str, Any], bytes | SourceError | None, Future[dict[str, Any]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="check") as pool:

        def arrived(place: int, data: Callable[[], bytes]) -> None:
            early[place] = pool.submit(lambda: _describe(data(), requested[place], check))

        reading = enumerate(source.read([row["locator"] for row in requested], arrived))
        for row in listed:
            place, data = (-1, SourceError(*moved[row["source_key"]])) if row["source_key"] in moved else next(reading)
            future = early.pop(place, None) or pool.submit(_describe, data, row, check)
            pending.append((row, data, future))
            if len(pending) > 4 * workers:
                yield _with_bytes(*pending.popleft())
        while pending:
            yield _with_bytes(*pending.popleft())
        next(reading, None)  # runs the source's generator to its end, where it releases its locks and threads


def _with_bytes(
    row: dict[str, Any], data: bytes | SourceError | None, future: Future[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    columns = future.result()
    return row, {**columns, "image": data if isinstance(data, bytes) and columns["error"] is None else None}


def _describe(data: bytes | SourceError | None, row: dict[str, Any], check: Check) -> dict[str, Any]:
    """Return the columns of an image row except its id, its key and its bytes."""
    columns: dict[str, Any] = dict.fromkeys(IMAGES.names[2:])
    if isinstance(data, bytes):
        digest = hashlib.sha256(data).hexdigest()
        if digest.startswith(row["digest"]):
            columns["sha256"] = digest
            try:
                columns["width"], columns["height"] = check(data)
            except SourceError as error:
                data = error
        else:
            data = SourceError("wrong hash", f"sha256 is {digest}, expected {row['digest']}")
    if isinstance(data, SourceError):
        columns["error"], columns["error_detail"] = data.cause, clean(data.detail)  # a URL may hold half a character
    columns["group_key"] = row["group_key"] or columns["sha256"] or row["source_key"]
    columns["split_u"] = split_u(columns["group_key"])
    return columns


def read_images(store: Path, pairs: Dataset, columns: list[str] | None = None) -> pl.DataFrame:
    """Read the image rows of a shard, including failed images, in the order of the embedding rows."""
    return pl.read_parquet(store / pairs.path / "images.parquet", columns=columns, glob=False)


def read_captions(store: Path, pairs: Dataset, columns: list[str] | None = None) -> pl.DataFrame:
    """Read the caption rows of a shard, in the order of the embedding rows."""
    return pl.read_parquet(store / pairs.path / "captions.parquet", columns=columns, glob=False)


def read_failures(store: Path, pairs: Sequence[Dataset]) -> pl.DataFrame:
    """Return the items that failed in these shards and were acquired in none: source_key, shard, cause, detail."""
    shards = [read_images(store, shard, ["image_id", "source_key", "error", "error_detail"]) for shard in pairs]
    if not shards:
        return pl.DataFrame(schema=DROPPED)
    rows = pl.concat(shards)
    failed = rows.filter(pl.col("error").is_not_null())
    acquired = rows.filter(pl.col("error").is_null(), pl.col("source_key").is_in(failed["source_key"].implode()))
    missing = failed.join(acquired, on="source_key", how="anti").unique("source_key", keep="last", maintain_order=True)
    return missing.select(
        "source_key",
        shard=(pl.col("image_id") // SHARD_ROWS).cast(pl.Int32),
        cause=pl.col("error"),
        detail=pl.col("error_detail"),
    )
