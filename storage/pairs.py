"""Pair shards: `images.parquet` and `captions.parquet`, with ids, split numbers and the images' bytes as they came."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from storage.dataset import Dataset
from storage.listing import DROPPED, SHARD_ROWS, read_listing
from storage.sources import Source, SourceError
from storage.split import split_u

IMAGES = {
    "image_id": pl.Int64,
    "source_key": pl.String,
    "group_key": pl.String,
    "width": pl.Int32,
    "height": pl.Int32,
    "sha256": pl.String,
    "split_u": pl.Float64,
    "error": pl.String,
    "error_detail": pl.String,
    "image": pl.Binary,
}
CAPTIONS = {"pair_id": pl.Int64, "image_id": pl.Int64, "caption": pl.String, "source_key": pl.String}

Check = Callable[[bytes], tuple[int, int]]  # width and height of an image, or a SourceError


def write_shard(out: Path, store: Path, listing: Dataset, source: Source, check: Check) -> int:
    """Fetch the items of a listing and write the shard's two tables. Returns the number of images that came through.

    A failed item keeps its row and id, with the cause in `error`. `check` decodes the bytes once, so that what cannot
    be embedded is known here.
    """
    rows = read_listing(store, listing).filter(~pl.col("removed"))
    first = rows["shard"][0] * SHARD_ROWS if rows.height else 0
    images: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for row, got in zip(rows.iter_rows(named=True), source.read(rows["locator"].to_list()), strict=True):
        image_id = first + row["row"]
        images.append({"image_id": image_id, "source_key": row["source_key"], **_described(got, row, check)})
        captions += [
            {"pair_id": first + c["row"], "image_id": image_id, "caption": c["text"], "source_key": c["source_key"]}
            for c in row["captions"]
            if not c["removed"]
        ]
    pl.DataFrame(images, schema=IMAGES).write_parquet(out / "images.parquet", row_group_size=1024)
    pl.DataFrame(captions, schema=CAPTIONS).sort("pair_id").write_parquet(out / "captions.parquet")
    return sum(image["error"] is None for image in images)


def _described(got: bytes | SourceError | None, row: dict[str, Any], check: Check) -> dict[str, Any]:
    """The columns of an image row that depend on its bytes."""
    found: dict[str, Any] = dict.fromkeys(IMAGES.keys() - {"image_id", "source_key"})
    if isinstance(got, bytes):
        found["sha256"] = hashlib.sha256(got).hexdigest()
        try:
            found["width"], found["height"] = check(got)
            found["image"] = got
        except SourceError as error:
            got = error
    if isinstance(got, SourceError):
        found["error"], found["error_detail"] = got.cause, got.detail
    found["group_key"] = row["group_key"] or found["sha256"] or row["source_key"]
    found["split_u"] = split_u(found["group_key"])
    return found


def read_images(store: Path, pairs: Dataset, columns: list[str] | None = None) -> pl.DataFrame:
    """The image rows of a shard, failed ones too, in the order of the embedding rows."""
    return pl.read_parquet(store / pairs.path / "images.parquet", columns=columns)


def read_captions(store: Path, pairs: Dataset, columns: list[str] | None = None) -> pl.DataFrame:
    """The caption rows of a shard, in the order of the embedding rows."""
    return pl.read_parquet(store / pairs.path / "captions.parquet", columns=columns)


def read_failures(store: Path, pairs: list[Dataset]) -> pl.DataFrame:
    """What failed in these shards: source_key, shard, cause, detail."""
    shards = [read_images(store, shard, ["image_id", "source_key", "error", "error_detail"]) for shard in pairs]
    if not shards:
        return pl.DataFrame(schema=DROPPED)
    return (
        pl.concat(shards)
        .filter(pl.col("error").is_not_null())
        .select(
            "source_key",
            shard=(pl.col("image_id") // SHARD_ROWS).cast(pl.Int32),
            cause=pl.col("error"),
            detail=pl.col("error_detail"),
        )
    )
