"""The map of a model's items is made from one shard of embeddings at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report.explorer.layout import in_square, principal
from storage.dataset import Dataset
from storage.listing import SHARD_ROWS
from storage.rows import Rows
from tasks.explore import IDS, LAYOUT, item_layout
from tasks.stage import Runtime

ITEMS, SHARDS, DIM = 40, 3, 8


def of_shard(number: int) -> Rows:
    random = np.random.default_rng(number)
    image, text = (random.standard_normal((ITEMS, DIM)).astype(np.float32) for _ in range(2))
    ids = number * SHARD_ROWS + np.arange(ITEMS)
    return Rows(image, text, ids, ids + 1, np.arange(ITEMS), np.zeros(ITEMS))


def test_shards_are_read_one_at_a_time_and_items_are_in_the_order_of_their_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def select(store: Path, pairs: list[Dataset], embeddings: list[Dataset], heldout: float) -> Rows:
        (pair,), (embedded,) = pairs, embeddings
        assert pair.recipe == embedded.recipe
        return of_shard(int(pair.recipe))

    def umap(rows: Any, images: int = 0) -> Any:
        return principal(rows)

    monkeypatch.setattr("tasks.explore.select", select)
    monkeypatch.setattr("report.explorer.places._umap", umap)
    handles = [Dataset(path=f"x/{n}", recipe=str(n), digest="", rows=ITEMS) for n in (2, 0, 1)]
    assert item_layout.body(tmp_path, handles, handles, [], Runtime(store=tmp_path)) == 2 * SHARDS * ITEMS
    ids = np.concatenate([of_shard(number).image_id for number in range(SHARDS)])
    assert np.load(tmp_path / IDS).tolist() == [*ids, *(ids + 1)]
    rows = []
    for side in ("image", "text"):
        of_side = np.concatenate([getattr(of_shard(number), side) for number in range(SHARDS)])
        rows.append(of_side - of_side.mean(0, dtype=np.float64))
    centred = np.concatenate(rows)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(tmp_path / LAYOUT), in_square(principal(centred)), atol=1e-5)
