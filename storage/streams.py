"""Readers of a pair shard for the embedding stage. The bytes of a few images are in memory at a time.

Rows that repeat an earlier row are identified, so that equal bytes and equal captions are embedded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from storage.dataset import Dataset
from storage.pairs import read_captions, read_images

READ_AT_ONCE = 128  # images in memory at a time; 128 JPEGs of 640 x 480 pixels take about 20 MB
Ints = np.ndarray[Any, np.dtype[np.int64]]


def image_bytes(store: Path, pairs: Dataset, start: int = 0) -> Iterator[bytes | None]:
    """Yield the original bytes of a shard's images, beginning at row `start`, and None for a failed image.

    Holds a few images in memory at a time. Does not read the Parquet row groups that end before row `start`.
    """
    with pq.ParquetFile(store / pairs.path / "images.parquet", pre_buffer=False, buffer_size=2**20) as file:
        first, groups = 0, list(range(file.num_row_groups))
        while groups and first + file.metadata.row_group(groups[0]).num_rows <= start:
            first += file.metadata.row_group(groups.pop(0)).num_rows
        skip = start - first
        for batch in file.iter_batches(READ_AT_ONCE, row_groups=groups, columns=["image"]):
            column = batch.column(0)
            yield from column.slice(min(skip, len(column))).to_pylist()
            skip = max(0, skip - len(column))


def captions_of(store: Path, pairs: Dataset) -> pl.Series:
    """Read the captions of a shard, in the order of the embedding rows."""
    return read_captions(store, pairs, ["caption"])["caption"]


def first_images(store: Path, pairs: Dataset) -> tuple[int, Ints]:
    """Return the id of a shard's first image, and for each row the number of the first row with the same bytes."""
    images = read_images(store, pairs, ["image_id", "sha256"])
    return (int(images["image_id"][0]) if images.height else 0), first_of(images["sha256"])


def first_of(values: pl.Series) -> Ints:
    """For each row, the number of the first row with the same value: int64 [n]. A null equals no other."""
    rows = pl.DataFrame({"value": values}).with_row_index("row")
    first = pl.when(pl.col("value").is_null()).then(pl.col("row")).otherwise(pl.col("row").first().over("value"))
    return rows.select(first.cast(pl.Int64)).to_series().to_numpy()
