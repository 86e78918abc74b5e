"""What the embedding stage reads of a pair shard, without ever holding all of it: images' bytes row group by row group.

Also which rows repeat an earlier one, so that equal bytes and equal captions are embedded once.
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

READ_AT_ONCE = 32  # images: 640 x 480 JPEGs are about 5 MB
Ints = np.ndarray[Any, np.dtype[np.int64]]


def image_bytes(store: Path, pairs: Dataset, start: int = 0) -> Iterator[bytes | None]:
    """The bytes of a shard's images as they came, from a row on; None for one that failed.

    Holds a few images at a time; begins in the row group that holds `start`.
    """
    with pq.ParquetFile(store / pairs.path / "images.parquet", pre_buffer=False, buffer_size=2**20) as file:
        first, groups = 0, list(range(file.num_row_groups))
        while groups and first + file.metadata.row_group(groups[0]).num_rows <= start:
            first += file.metadata.row_group(groups.pop(0)).num_rows
        skip = start - first
        for batch in file.iter_batches(READ_AT_ONCE, row_groups=groups, columns=["image"]):
            column = batch.column(0)
            yield from (column[place].as_py() for place in range(min(skip, len(column)), len(column)))
            skip = max(0, skip - len(column))


def captions_of(store: Path, pairs: Dataset) -> pl.Series:
    """The captions of a shard, in the order of the embedding rows."""
    return read_captions(store, pairs, ["caption"])["caption"]


def first_images(store: Path, pairs: Dataset) -> tuple[int, Ints]:
    """(id of the first image, first row with the same bytes for each row) of a shard."""
    images = read_images(store, pairs, ["image_id", "sha256"])
    return (int(images["image_id"][0]) if images.height else 0), first_of(images["sha256"])


def first_of(values: pl.Series) -> Ints:
    """For each row the number of the first row with the same value: int64 [n]. A null is like no other."""
    rows = pl.DataFrame({"value": values}).with_row_index("row")
    first = pl.when(pl.col("value").is_null()).then(pl.col("row")).otherwise(pl.col("row").first().over("value"))
    return rows.select(first.cast(pl.Int64)).to_series().to_numpy()
