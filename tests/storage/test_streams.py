"""Reading a shard in parts from any row, and finding the rows that repeat an earlier row."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.dataset import Dataset
from storage.pairs import IMAGES
from storage.streams import first_images, first_of, image_bytes

PAIRS = Dataset(path="p", recipe="r", digest="d", rows=0)


def write(folder: Path, images: list[bytes | None], group: int) -> None:
    (folder / "p").mkdir(exist_ok=True)
    rows = [{"image_id": 5 * 2**20 + row, "image": data, "sha256": str(data)} for row, data in enumerate(images)]
    pq.write_table(pa.Table.from_pylist(rows, IMAGES), folder / "p" / "images.parquet", row_group_size=group)


@pytest.mark.parametrize("group", [7, 50, 1000])
def test_bytes_come_in_order_from_any_row(tmp_path: Path, group: int) -> None:
    images = [None if row % 9 == 4 else f"image {row}".encode() for row in range(120)]
    write(tmp_path, images, group)
    for start in (0, 1, 6, 7, 8, 49, 50, 119, 120):
        assert list(image_bytes(tmp_path, PAIRS, start)) == images[start:]


def test_equal_bytes_have_one_first_row(tmp_path: Path) -> None:
    write(tmp_path, [b"a", b"b", b"a", b"c", b"b"], 2)
    image_id, first = first_images(tmp_path, PAIRS)
    assert image_id == 5 * 2**20
    assert first.tolist() == [0, 1, 0, 3, 1]


@given(st.lists(st.sampled_from(["", "a", "A", "b", None]), max_size=30))
def test_first_of_is_the_first_equal_row(values: list[str | None]) -> None:
    wanted = [row if value is None else values.index(value) for row, value in enumerate(values)]
    assert first_of(pl.Series(values, dtype=pl.String)).tolist() == wanted
