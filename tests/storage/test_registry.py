"""The registry turns the section [pairs] into a source. One file adds a source, and growth keeps its identity."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from web_support import picture

from storage.errors import BadInput
from storage.listing import scan
from storage.sources import Source
from storage.sources.registry import SECTIONS, open_source
from storage.sources.section import FilesSection, source_of

MINIMAL: dict[str, dict[str, Any]] = {
    "coco": {},
    "folder": {"path": "data"},
    "webdataset": {"shards": ["tars/{000..003}.tar"]},
    "urls": {"path": "list.csv"},
    "huggingface": {"repo": "owner/name"},
}
TOY = """
from typing import ClassVar, Literal

from storage.sources import Caption, Item, Listing, Source
from storage.sources.section import FilesSection


class ToySection(FilesSection):
    paths: ClassVar = ("at",)

    source: Literal["toy"]
    at: str

    def place(self):
        return {"at": self.at}

    def reader(self, own, identity):
        return Toy(identity)


class Toy(Source):
    name = "toy"

    def __init__(self, identity):
        self.identity = identity

    def list(self):
        return Listing([Item(key, "", key, (Caption(key, "a toy"),), key) for key in "abc"], [])
"""
STUDY = """
name = "toys"
[pairs]
source = "toy"
at = "chest"
limit = 2
[[models]]
name = "any"
spec = "open_clip:ViT-B-32/x"
[[saes]]
name = "main"
width = 8
k = 2
"""
READ = """
import sys, storage.sources
from pathlib import Path
storage.sources.__path__.append(sys.argv[1])
from flows.config import load_study
from storage.sources.registry import open_source
from storage.sources.section import rules_of, source_of
pairs = load_study(sys.argv[2], sys.argv[3:]).pairs
opened = open_source(source_of(pairs), Path("store"))
print(opened.identity, [item.source_key for item in opened.list().items], sorted(rules_of(pairs)))
"""


def opened(store: Path, kind: str, **keys: Any) -> Source:
    return open_source(source_of(SECTIONS[kind](source=kind, **{**MINIMAL.get(kind, {}), **keys})), store)


@pytest.mark.parametrize("kind", MINIMAL)
def test_every_source_opens_from_its_section(tmp_path: Path, kind: str) -> None:
    source = opened(tmp_path, kind)
    assert source.name == kind
    assert issubclass(SECTIONS[kind], FilesSection)
    assert list(tmp_path.iterdir()) == []  # opening a source writes nothing


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
    with pytest.raises(BadInput, match="sources are coco, embeddings, folder"):
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
    assert moved.listings == grown.listings  # no item is fetched again


def read_toys(folder: Path, *changes: str) -> subprocess.CompletedProcess[str]:
    """Write a toy source and a study that uses it, and read the study in a new process that finds the source."""
    (folder / "more").mkdir()
    (folder / "more" / "toy.py").write_text(TOY)
    (folder / "toys.toml").write_text(STUDY)
    command = [sys.executable, "-c", READ, str(folder / "more"), str(folder / "toys.toml"), *changes]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_source_is_added_by_one_file(tmp_path: Path) -> None:
    done = read_toys(tmp_path)
    # The path `at` is relative to the study file. Limit, identity and rules come from FilesSection, as for all sources.
    rules = ["duplicates", "max_image_bytes", "max_pixels"]
    assert done.stdout == f"{ {'at': str(tmp_path / 'chest')} } ['a', 'b'] {rules}\n", done.stderr


def test_an_added_source_is_validated_like_the_others(tmp_path: Path) -> None:
    done = read_toys(tmp_path, "pairs.colour=red")
    assert "pairs.colour: unknown key; allowed here: at, duplicates, heldout, id, licence, limit" in done.stderr


def test_all_sections_are_read_without_heavy_libraries() -> None:
    code = "import sys, flows.config; print(sorted({'torch', 'prefect', 'zarr', 'pyarrow', 'polars'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
