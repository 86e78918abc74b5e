"""Ids are assigned once: an item keeps its shard and row when its source lists items in another order or grows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import BadInput
from storage.listing import assign, read_listing, scan, write_ledger
from storage.pairs import read_captions, read_failures, read_images, write_shard
from storage.sources import Arrived, Caption, Dropped, Item, Listing, Source, SourceError


def item(key: str, *texts: str, group: str = "") -> Item:
    captions = tuple(Caption(f"{key}/{i}", text) for i, text in enumerate(texts or ("a", "b")))
    return Item(key, group, f"file-{key}", captions, f"print-{key}-{texts}")


class Fixed(Source):
    """A source of fixed items. The bytes of an item are its locator; a locator with "bad" cannot be read."""

    name = "fixed"

    def __init__(self, *items: Item, dropped: list[Dropped] | None = None) -> None:
        self.items, self.dropped, self.identity = list(items), dropped or [], {"of": "test"}

    def list(self) -> Listing:
        return Listing(self.items, self.dropped)

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        for locator in locators:
            yield SourceError("gone", locator) if "bad" in locator else locator.encode()


def size(data: bytes) -> tuple[int, int]:
    if b"torn" in data:
        raise SourceError("does not decode", "torn")
    return len(data), 1


def test_new_items_fill_shards_in_order_and_captions_count_through() -> None:
    shards = assign([], [item("a"), item("b", "one"), item("c")], shard_size=2)
    assert [[row["source_key"] for row in shard] for shard in shards] == [["a", "b"], ["c"]]
    assert [[c["row"] for c in row["captions"]] for row in shards[0]] == [[0, 1], [2]]
    assert [c["row"] for c in shards[1][0]["captions"]] == [0, 1]


def test_growth_makes_a_new_shard_and_leaves_the_old_ones_untouched() -> None:
    first = assign([], [item("b"), item("d")], shard_size=2)
    grown = assign(first, [item("a"), item("b"), item("c"), item("d")], shard_size=2)
    assert grown[0] == first[0]
    assert [row["source_key"] for row in grown[1]] == ["a", "c"]


def test_a_removed_item_leaves_its_row_empty_and_may_come_back() -> None:
    first = assign([], [item("a"), item("b")], shard_size=2)
    without = assign(first, [item("b")], shard_size=2)
    assert [(row["source_key"], row["removed"]) for row in without[0]] == [("a", True), ("b", False)]
    assert all(c["removed"] for c in without[0][0]["captions"])
    assert assign(without, [item("a"), item("b")], shard_size=2) == first


def test_a_new_caption_gets_a_row_behind_all_others() -> None:
    first = assign([], [item("a", "x"), item("b", "y")], shard_size=2)
    more = assign(first, [item("a", "x", "new"), item("b", "y")], shard_size=2)
    assert [(c["row"], c["text"]) for c in more[0][0]["captions"]] == [(0, "x"), (2, "new")]
    assert more[0][1]["captions"] == first[0][1]["captions"]


@given(st.lists(st.lists(st.integers(0, 30), unique=True, min_size=1), min_size=1, max_size=5), st.integers(1, 7))
def test_rows_are_never_reused_or_moved(scans: list[list[int]], shard_size: int) -> None:
    place: dict[str, tuple[int, int]] = {}
    shards: list = []
    for keys in scans:
        shards = assign(shards, [item(f"k{key:02}") for key in keys], shard_size)
        now = {row["source_key"]: (n, row["row"]) for n, shard in enumerate(shards) for row in shard}
        assert len(set(now.values())) == len(now)
        assert all(now[key] == where for key, where in place.items())
        alive = {row["source_key"] for shard in shards for row in shard if not row["removed"]}
        assert alive == {f"k{key:02}" for key in keys}
        place = now


@given(st.sets(st.integers(0, 12), min_size=1), st.data())
def test_a_moved_item_leaves_its_old_row_alone_and_is_kept_current_in_the_new_one(keys: set[int], data) -> None:
    names = [f"k{key:02}" for key in sorted(keys)]
    first = assign([], [item(name, "old") for name in names], 4)
    moved = data.draw(st.sets(st.sampled_from(names), min_size=1))
    new = [
        {**row, "row": n} for n, row in enumerate(row for shard in first for row in shard if row["source_key"] in moved)
    ]
    again = assign([*first, new], [item(name, "new") for name in names], 4)
    assert len(again) == len(first) + 1
    for shard, rows in zip([*first, new], again, strict=True):
        for old, now in zip(shard, rows, strict=True):
            left = shard is not new and old["source_key"] in moved
            assert (now == old) if left else (now["row"] == old["row"] and now["fingerprint"] != old["fingerprint"])
    # A moved item that the source no longer lists is marked as removed in its new shard, not in its old shard.
    after = assign([*first, new], [item("other")], 4)
    assert all(row["removed"] == (row["source_key"] not in moved) for rows in after[: len(first)] for row in rows)
    assert all(row["removed"] for row in after[len(first)])


def test_a_key_listed_twice_is_refused() -> None:
    with pytest.raises(BadInput, match="twice"):
        assign([], [item("a"), item("a")], 2)


def test_scan_gives_equal_listings_for_an_unchanged_source_and_counts_changes(tmp_path: Path) -> None:
    first = scan(tmp_path, Fixed(item("a"), item("b"), item("c")), shard_size=2)
    again = scan(tmp_path, Fixed(item("a"), item("b"), item("c")), shard_size=2)
    assert first.listings == again.listings
    assert (first.new, again.new, again.changed) == (2, 0, 0)
    changed = scan(tmp_path, Fixed(item("a"), item("b"), item("c", "other"), item("d")), shard_size=2)
    assert changed.listings[0] == first.listings[0]
    assert (changed.new, changed.changed) == (1, 1)


def test_an_empty_source_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no image-text pairs"):
        scan(tmp_path, Fixed(), 2)


def test_a_shard_keeps_failed_items_with_their_cause(tmp_path: Path) -> None:
    source = Fixed(item("a", group="g"), item("bad"), item("torn"), dropped=[Dropped("z", "no picture")])
    listing = scan(tmp_path, source, shard_size=3).listings[0]
    out = tmp_path / "out"
    out.mkdir()
    assert write_shard(out, tmp_path, listing, source, size) == 1
    shard = listing.model_copy(update={"path": "out"})
    images = read_images(tmp_path, shard)
    assert images["image_id"].to_list() == [0, 1, 2]
    assert images["error"].to_list() == [None, "gone", "does not decode"]
    assert images["image"].to_list() == [b"file-a", None, None]
    assert images["group_key"][0] == "g"
    assert images["group_key"][2] == images["sha256"][2]  # the default group is the checksum of the bytes
    assert read_captions(tmp_path, shard)["pair_id"].to_list() == [0, 1, 2, 3, 4, 5]
    ledger = write_ledger(tmp_path, source.dropped, read_failures(tmp_path, [shard]))
    causes = pl.read_parquet(tmp_path / ledger.path / "ledger.parquet")
    assert dict(causes["cause"].value_counts().iter_rows()) == {"gone": 1, "does not decode": 1, "no picture": 1}


def test_ids_carry_the_shard_number(tmp_path: Path) -> None:
    source = Fixed(item("a"), item("b"), item("c"))
    listing = scan(tmp_path, source, shard_size=2).listings[1]
    out = tmp_path / "out"
    out.mkdir()
    write_shard(out, tmp_path, listing, source, size)
    shard = listing.model_copy(update={"path": "out"})
    assert read_images(tmp_path, shard)["image_id"].to_list() == [2**20]
    assert read_captions(tmp_path, shard)["pair_id"].to_list() == [2**20, 2**20 + 1]
    assert read_listing(tmp_path, listing)["shard"].to_list() == [1]
