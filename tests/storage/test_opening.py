"""From [pairs] to a source: what names it in the store, and that growth keeps the name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from web_support import picture

from flows.pairs import SOURCES, Files, source_of
from storage.errors import BadInput
from storage.listing import scan
from storage.sources import Source
from storage.sources.opening import open_source

MINIMAL: dict[str, dict[str, Any]] = {
    "coco": {},
    "folder": {"path": "data"},
    "webdataset": {"shards": ["tars/{000..003}.tar"]},
    "urls": {"path": "list.csv"},
    "huggingface": {"repo": "owner/name"},
}


def opened(store: Path, kind: str, **keys: Any) -> Source:
    return open_source(source_of(SOURCES[kind](source=kind, **{**MINIMAL.get(kind, {}), **keys})), store)


@pytest.mark.parametrize("kind", MINIMAL)
def test_every_source_opens_from_its_section(tmp_path: Path, kind: str) -> None:
    source = opened(tmp_path, kind)
    assert source.name == kind
    assert issubclass(SOURCES[kind], Files)
    assert list(tmp_path.iterdir()) == []  # opening touches nothing


@pytest.mark.parametrize(
    ("kind", "grown"),
    [
        ("webdataset", {"shards": ["tars/{000..099}.tar"]}),
        ("huggingface", {"revision": "v2"}),
        ("urls", {"limit": 10, "concurrency": 3, "respect_noai": False}),
        ("coco", {"limit": 10, "timeout": 3}),
        ("folder", {"max_image_bytes": 10}),
    ],
)
def test_growth_and_the_way_of_fetching_keep_the_name(tmp_path: Path, kind: str, grown: dict[str, Any]) -> None:
    assert opened(tmp_path, kind).identity == opened(tmp_path, kind, **grown).identity


def test_another_place_is_another_source_unless_the_study_names_it(tmp_path: Path) -> None:
    assert opened(tmp_path, "folder", path="a").identity != opened(tmp_path, "folder", path="b").identity
    same = [opened(tmp_path, "folder", path=path, id="mine").identity for path in ("a", "b")]
    assert same == [{"id": "mine"}, {"id": "mine"}]


def test_an_unknown_source_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="sources are npm-emoji"):
        open_source({"source": "laion", "path": "x"}, tmp_path)


def test_a_raised_limit_and_a_moved_folder_leave_listings_as_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for n in range(6):
        (folder / f"{n}.png").write_bytes(picture((n, 0, 0), "png"))
        (folder / f"{n}.txt").write_text(f"number {n}")
    first = scan(tmp_path, opened(tmp_path, "folder", path=str(folder), limit=2), 2)
    grown = scan(tmp_path, opened(tmp_path, "folder", path=str(folder), limit=6), 2)
    assert grown.listings[:1] == first.listings
    assert (grown.new, grown.changed) == (2, 0)
    folder.rename(tmp_path / "elsewhere")
    moved = scan(tmp_path, opened(tmp_path, "folder", path=str(tmp_path / "elsewhere")), 2)
    assert moved.listings == grown.listings  # so that nothing is fetched again
