"""Checks of embeddings: counts and norms worked out by hand, and captions of the right and of the wrong images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from storage.checks import TABLE, alignment, pooled, tell, write_checks
from storage.dataset import Dataset
from storage.embeddings import finish, write_modality
from storage.listing import SHARD_ROWS


def shard(store: Path, image: np.ndarray, text: np.ndarray, owner: list[int], number: int = 0) -> Dataset:
    """Write a shard of pairs and its embeddings, check the embeddings, and return the dataset of checks."""
    pairs, embedded, out = (store / f"{name}{number}" for name in ("pairs", "embeddings", "checks"))
    pairs.mkdir()
    out.mkdir()
    first = number * SHARD_ROWS
    pl.DataFrame({"image_id": range(first, first + len(image))}).write_parquet(pairs / "images.parquet")
    pl.DataFrame({"image_id": [first + row for row in owner]}).write_parquet(pairs / "captions.parquet")
    for name, rows in (("image", image), ("text", text)):
        write_modality(embedded, name, *rows.shape, lambda a, b, rows=rows: rows[a:b], lambda _: None)
    finish(embedded, {"failed_rows": np.flatnonzero(np.isnan(image[:, 0])).tolist()})
    handles = [Dataset(path=path.name, recipe="r", digest="d", rows=0) for path in (pairs, embedded, out)]
    write_checks(out, store, *handles[:2])
    return handles[2]


def test_counts_norms_and_equal_rows_by_hand(tmp_path: Path) -> None:
    image = np.array([[3, 4], [0, 2], [0, 2], [np.nan, np.nan]], np.float32)
    text = np.array([[1, 0], [0, 1], [0, 1], [0, 1], [1, 0]], np.float32)
    checks = shard(tmp_path, image, text, [0, 1, 1, 2, 3], number=2)
    table = pl.read_parquet(tmp_path / checks.path / TABLE)
    of_image, of_text = table.iter_rows(named=True)
    assert {key: of_image[key] for key in ("shard", "modality", "rows", "failed", "nan")} == {
        "shard": 2, "modality": "image", "rows": 4, "failed": 1, "nan": 0,
    }  # fmt: skip
    # The three rows without NaN have the norms 5, 2 and 2. Two of these rows are equal.
    assert (of_image["norm_min"], of_image["norm_mean"], of_image["norm_max"]) == (2, 3, 5)
    assert (of_image["equal_share"], of_text["equal_share"]) == (pytest.approx(2 / 3), 1)
    # Image 0 has the cosine .6 to its caption; images 1 and 2 have the cosine 1. Image 3 failed and is left out.
    assert (of_image["images_with_captions"], of_image["matched"]) == (3, pytest.approx((0.6 + 1 + 1) / 3))
    assert of_text["matched"] == of_image["matched"]


def test_matched_pairs_are_above_shuffled_ones_and_permuted_pairs_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    image = rng.standard_normal((400, 16)).astype(np.float32)
    text = image + rng.standard_normal((400, 16)).astype(np.float32)
    right, wrong = ([*range(400)], rng.permutation(400).tolist())
    line, sound = tell(tmp_path, [shard(tmp_path, image, text, right, 0), shard(tmp_path, image, text, right, 1)])
    assert sound
    assert "800 image rows (norms " in line
    assert "0.0% duplicates" in line
    line, sound = tell(tmp_path, [shard(tmp_path, image, text, wrong, 3)])
    assert not sound
    assert line.endswith("not more alike than shuffled ones: do images and captions belong together?")


def test_the_interval_of_several_shards_narrows_as_that_of_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    image, text = (rng.standard_normal((600, 8)).astype(np.float32) for _ in range(2))
    tables = [
        pl.read_parquet(tmp_path / shard(tmp_path, image[part], text[part], [*range(300)], n).path / TABLE)
        for n, part in enumerate((slice(300), slice(300, 600)))
    ]
    both, whole = pooled(pl.concat(tables)), alignment(image, text, np.arange(600))
    assert both is not None
    assert whole is not None
    assert both.images == whole.images == 600
    assert both.matched == pytest.approx(whole.matched, abs=1e-3)
    assert both.high - both.low == pytest.approx(whole.high - whole.low, rel=0.1)


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_images_leave_the_comparison_empty(tmp_path: Path, images: int) -> None:
    rows = np.ones((images, 2), np.float32)
    checks = shard(tmp_path, rows, rows, [*range(images)])
    table = pl.read_parquet(tmp_path / checks.path / TABLE)
    assert table["matched"].null_count() == table["difference_low"].null_count() == 2
    line, sound = tell(tmp_path, [checks])
    assert sound
    assert line.startswith(f"{images} image rows")
