"""A shard of pairs is written while its source is read, so a shard of any size needs the memory of a few images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.dataset import Dataset
from storage.duplicates import digest_of_duplicates, read_duplicates, write_distinct, write_duplicates
from storage.listing import scan
from storage.pairs import GROUP_BYTES, IMAGES, _described, write_shard
from storage.sources import Caption, Item, Listing, Source, SourceError

WRITE = """
import resource, sys
from pathlib import Path
from storage.listing import scan
from storage.pairs import write_shard
from storage.sources import Caption, Item, Listing, Source

class Big(Source):
    name, identity = "big", {"of": "test"}
    def __init__(self, count): self.count = count
    def list(self):
        return Listing([Item(f"{n:05}", "", str(n), (Caption(f"{n}", "x"),), "p") for n in range(self.count)], [])
    def read(self, locators, arrived=None):
        for locator in locators:
            yield int(locator).to_bytes(8, "big") * (1 << 17)  # 1 MiB, each its own

store, count = Path(sys.argv[1]), int(sys.argv[2])
listing = scan(store, Big(count), 4096).listings[0]
(store / "out").mkdir()
assert write_shard(store / "out", store, listing, Big(count), lambda data: (1, 1)) == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak(folder: Path, count: int) -> int:
    """Peak memory, in MiB, of a process that writes a shard of `count` images of 1 MiB."""
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", WRITE, str(folder), str(count)], capture_output=True, check=True)
    return int(done.stdout)


def test_memory_does_not_grow_with_the_shard(tmp_path: Path) -> None:
    small, large = peak(tmp_path / "small", 48), peak(tmp_path / "large", 144)
    assert (tmp_path / "large" / "out" / "images.parquet").stat().st_size > 144 << 20
    assert large - small < 50  # holding whole shards would take 96 MiB more


class EarlySource(Source):
    """A source of fixed bodies. It reports the bodies at the places `early` as arrived, then yields all in order."""

    name = "given"

    def __init__(self, bodies: list[bytes | SourceError], early: list[int]) -> None:
        self.bodies, self.early, self.identity = bodies, early, {"of": "test"}

    def list(self) -> Listing:
        return Listing(
            [Item(f"k{n:03}", "", str(n), (Caption(f"c{n}", f"t{n}"),), "p") for n in range(len(self.bodies))], []
        )

    def read(self, locators, arrived=None):
        for place in self.early:
            if arrived is not None and isinstance(self.bodies[place], bytes):
                arrived(place, lambda place=place: self.bodies[place])
        yield from (self.bodies[int(locator)] for locator in locators)


def check(data: bytes) -> tuple[int, int]:
    if data.startswith(b"bad"):
        raise SourceError("not an image")
    return len(data), 1


BODIES = st.lists(st.sampled_from([b"one", b"three", b"bad", SourceError("gone")]), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None)
@given(BODIES, st.randoms(use_true_random=False))
def test_rows_keep_their_order_whatever_arrives_first(bodies: list[bytes | SourceError], random) -> None:
    import polars as pl

    early = random.sample(range(len(bodies)), random.randint(0, len(bodies)))
    rows = pl.DataFrame(
        {
            "source_key": [f"k{n:03}" for n in range(len(bodies))],
            "group_key": [""] * len(bodies),
            "row": range(len(bodies)),
            "locator": [str(n) for n in range(len(bodies))],
        }
    )
    described = list(_described(rows, EarlySource(bodies, early), check, {}))
    assert [row["source_key"] for row, _ in described] == rows["source_key"].to_list()
    for body, (_, columns) in zip(bodies, described, strict=True):
        good = body in (b"one", b"three")
        assert columns["image"] == (body if good else None)
        assert columns["error"] == (None if good else "gone" if isinstance(body, SourceError) else "not an image")


def test_row_groups_are_bounded_in_rows_and_bytes(tmp_path: Path) -> None:
    source = EarlySource([bytes([n]) * (GROUP_BYTES // 4) for n in range(9)], [])
    listing = scan(tmp_path, source, 100).listings[0]
    (tmp_path / "out").mkdir()
    write_shard(tmp_path / "out", tmp_path, listing, source, lambda data: (1, 1))
    with pq.ParquetFile(tmp_path / "out" / "images.parquet") as file:
        assert file.schema_arrow.names == IMAGES.names
        assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [4, 4, 1]


def test_moved_items_are_not_read_and_duplicates_are_dropped_from_a_copy_of_their_shard(tmp_path: Path) -> None:
    source = EarlySource([b"same", b"gone on", b"new", b"same"], [])
    listing = scan(tmp_path, source, 100).listings[0]
    asked: list[bytes] = []

    def noted(data: bytes) -> tuple[int, int]:
        asked.append(data)
        return 1, 1

    moved = {"k001": ("HTTP 503", "then")}
    shards = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert write_shard(tmp_path / name, tmp_path, listing, source, noted, moved) == 3
        shards.append(Dataset(path=name, recipe=name, digest=name, rows=3))
    assert sorted(asked) == 2 * [b"new"] + 4 * [b"same"]

    (tmp_path / "table").mkdir()
    assert write_duplicates(tmp_path / "table", tmp_path, shards[:1]) == 1
    table = read_duplicates(tmp_path, Dataset(path="table", recipe="t", digest="t", rows=1))
    assert table == {"one": {3: "k000"}}
    assert digest_of_duplicates(table["one"]) != digest_of_duplicates({3: "k001"}) != digest_of_duplicates({})
    for name, originals, left in (("with", table["one"], 2), ("without", {}, 3)):
        (tmp_path / name).mkdir()
        assert write_distinct(tmp_path / name, tmp_path, shards[0], originals) == left
    rows = pq.read_table(tmp_path / "with" / "images.parquet").select(["error", "error_detail", "image"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (None, None, b"same"),
        ("HTTP 503", "then", None),
        (None, None, b"new"),
        ("duplicate", "same bytes as k000", None),
    ]
    for name in ("images.parquet", "captions.parquet"):
        assert (tmp_path / "without" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
