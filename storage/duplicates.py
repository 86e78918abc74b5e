"""Duplicates: images with the same bytes as an earlier image. Makes a table of them, and shards of pairs without them.

Which image comes first depends on all shards. So there are three steps: every shard is fetched with all its images; the
table is made from all shards; each shard is written again with its duplicates marked as failed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storage.dataset import Dataset

DUPLICATE = "duplicate"  #: the cause that a shard records for a dropped duplicate
TABLE = "duplicates.parquet"
COLUMNS = ("pairs", "image_id", "original")
FILES = ("images.parquet", "captions.parquet")


def write_duplicates(out: Path, store: Path, pairs: Sequence[Dataset]) -> int:
    """Write the table of the duplicates among the acquired images of all shards. Returns the number of duplicates.

    Columns: pairs (digest of the shard), image_id, original (source key of the first image with these bytes, in the
    order of the shards).
    """
    import polars as pl

    from storage.pairs import read_images

    first: dict[str, str] = {}
    rows = []
    for shard in pairs:
        images = read_images(store, shard, ["image_id", "sha256", "source_key", "error"])
        acquired = images.filter(pl.col("error").is_null(), pl.col("sha256").is_not_null())
        for image_id, sha256, key in acquired.select("image_id", "sha256", "source_key").iter_rows():
            original = first.setdefault(sha256, key)
            if original != key:
                rows.append((shard.digest, image_id, original))
    schema = dict(zip(COLUMNS, (pl.String, pl.Int64, pl.String), strict=True))
    pl.DataFrame(rows, schema, orient="row").write_parquet(out / TABLE)
    return len(rows)


def read_duplicates(store: Path, table: Dataset) -> dict[str, dict[int, str]]:
    """Read the table, as {digest of a shard: {image_id: source key of the first image with the same bytes}}."""
    import polars as pl

    found: dict[str, dict[int, str]] = {}
    for digest, image_id, original in pl.read_parquet(store / table.path / TABLE, glob=False).iter_rows():
        found.setdefault(digest, {})[image_id] = original
    return found


def digest_of_duplicates(originals: dict[int, str]) -> str:
    """Hash one shard's rows of the table. The hash is part of the recipe of the shard without duplicates."""
    return hashlib.sha256(repr(sorted(originals.items())).encode(errors="surrogatepass")).hexdigest()[:20]


def write_distinct(out: Path, store: Path, pairs: Dataset, originals: dict[int, str]) -> int:
    """Write a shard of pairs again, with its duplicates marked as failed. Returns the number of acquired images left.

    A duplicate keeps its row, its id and its captions, but not its bytes. Files that do not change are hard links
    to those of the original shard, so that they take no space.
    """
    import pyarrow.parquet as pq

    from storage.pairs import IMAGES, ImageWriter

    names = FILES[1:] if originals else FILES
    for name in names:
        link(store / pairs.path / name, out / name)
    if not originals:
        return pairs.rows
    left = 0
    with (
        pq.ParquetFile(store / pairs.path / FILES[0]) as read,
        ImageWriter(out / FILES[0]) as images,
    ):
        for batch in read.iter_batches(batch_size=64, columns=IMAGES.names):
            for row in batch.to_pylist():
                images.add({**row, **_failed(originals.get(row["image_id"]))})
                left += row["error"] is None and row["image_id"] not in originals
    return left


def _failed(original: str | None) -> dict[str, Any]:
    """The columns that change when an image is a duplicate of `original`. Empty when `original` is None."""
    if original is None:
        return {}
    return {"error": DUPLICATE, "error_detail": f"same bytes as {original}", "image": None}


def link(source: Path, target: Path) -> None:
    """Make a hard link, or a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
