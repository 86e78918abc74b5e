"""Identity and folder of each source. A change of either orphans the listings and downloads of finished stores."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from storage.sources.registry import SECTIONS, open_source
from storage.sources.section import First, rules_of, source_of

COLUMNS = {"image_column": "picture", "caption_column": "words", "group_column": "set"}
#: For each source: its section [pairs], its identity, its folder below the store, the digest of the dumped section.
PINNED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    (
        {"source": "npm-emoji"},
        {"images": "@lobehub/fluent-emoji-3d@1.1.0", "metadata": "emojibase-data@17.0.0"},
        "downloads",
        "307a0d3935f4",
    ),
    (
        {"source": "npm-emoji", "images": "pictures@1.2.3", "metadata": "@some/labels@4.5.6", "limit": 40},
        {"images": "pictures@1.2.3", "metadata": "@some/labels@4.5.6", "limit": 40},
        "downloads",
        "bd324091bef3",
    ),
    (
        {"source": "coco"},
        {"subset": "val2017", "at": ["http://images.cocodataset.org"]},
        "downloads/coco/91697e20a32d",
        "ce61dec0c1aa",
    ),
    (
        {
            "source": "coco",
            "subset": "train2017",
            "path": "/none/coco",
            "annotations": "/none/a.zip",
            "images": "https://a.example/i.zip",
            "limit": 9,
        },
        {"subset": "train2017", "at": ["/none/coco", "/none/a.zip", "https://a.example/i.zip"]},
        "downloads/coco/25fc693fe262",
        "c9ed8f870652",
    ),
    ({"source": "coco", "id": "mine", "timeout": 3}, {"id": "mine"}, "downloads/coco/f463fbcce477", "0b33eff132a9"),
    (
        {"source": "folder", "path": "/none/pictures"},
        {"at": "/none/pictures"},
        "downloads/folder/64ab55f8905b/digests.parquet",
        "0e1129436798",
    ),
    (
        {"source": "folder", "path": "/none/pictures", "table": "t.csv", "limit": 2, **COLUMNS},
        {"at": "/none/pictures"},
        "downloads/folder/64ab55f8905b/digests.parquet",
        "554d1506a623",
    ),
    (
        {"source": "folder", "path": "/none/pictures", "id": "mine", "max_image_bytes": 100},
        {"id": "mine"},
        "downloads/folder/f463fbcce477/digests.parquet",
        "3ee344df60ec",
    ),
    (
        {"source": "webdataset", "shards": "/none/tars/{000..003}.tar"},
        {"below": "/none/tars"},
        "downloads/webdataset/1c4c64a6be06",
        "f746ab5e3fa3",
    ),
    (
        {
            "source": "webdataset",
            "shards": ["https://a.example/t/0.tar", "/none/1.tar"],
            "caption": "json:text",
            "limit": 5,
        },
        {"below": "https://a.example/t"},
        "downloads/webdataset/fb6326c31518",
        "05f4ff5a7b12",
    ),
    (
        {"source": "webdataset", "shards": ["/none/1.tar"], "id": "mine", "concurrency": 2},
        {"id": "mine"},
        "downloads/webdataset/f463fbcce477",
        "a3223d7af737",
    ),
    (
        {"source": "urls", "path": "/none/list.csv"},
        {"at": "/none/list.csv"},
        "downloads/urls/2ea6e93ab7ec",
        "132a4a1eff76",
    ),
    (
        {"source": "urls", "path": "/none/list.csv", "url_column": "address", "limit": 8, "respect_noai": False},
        {"at": "/none/list.csv"},
        "downloads/urls/2ea6e93ab7ec",
        "e97f66e0d47e",
    ),
    (
        {"source": "urls", "path": "/none/list.csv", "id": "mine", "allow_private_addresses": True},
        {"id": "mine"},
        "downloads/urls/f463fbcce477",
        "546c0fa5de31",
    ),
    (
        {"source": "huggingface", "repo": "owner/name"},
        {"repo": "owner/name", "image": "image"},
        "downloads/huggingface/df806cde5675",
        "877df48bfb2c",
    ),
    (
        {
            "source": "huggingface",
            "repo": "/none/local",
            "revision": "v2",
            "files": "data/*.parquet",
            "limit": 3,
            **COLUMNS,
        },
        {"repo": "/none/local", "image": "picture"},
        "downloads/huggingface/7bb1e7a1164c",
        "60977a9a92e4",
    ),
    (
        {"source": "huggingface", "repo": "owner/name", "id": "mine", "duplicates": "drop", "max_pixels": 1000},
        {"id": "mine"},
        "downloads/huggingface/f463fbcce477",
        "65a23fd1214e",
    ),
]


@pytest.mark.parametrize(("keys", "identity", "folder", "digest"), PINNED)
def test_identity_folder_and_dicts_of_a_section_stay(
    keys: dict[str, Any], identity: dict[str, Any], folder: str, digest: str
) -> None:
    section = SECTIONS[keys["source"]](**keys)
    opened = open_source(source_of(section), Path("/store"))
    assert opened.name == keys["source"]
    assert opened.identity == identity
    reader: Any = opened.source if isinstance(opened, First) else opened
    kept = reader.memo if keys["source"] == "folder" else reader.downloads
    assert kept == Path("/store") / folder
    # The digest also depends on the order of the keys, since a run's configuration is written in the order of its keys.
    written = json.dumps([section.model_dump(mode="json"), source_of(section), rules_of(section)])
    assert hashlib.sha256(written.encode()).hexdigest()[:12] == digest


def test_vectors_are_named_by_their_place_so_that_a_folder_that_grows_keeps_its_ids(tmp_path: Path) -> None:
    section = SECTIONS["embeddings"](source="embeddings", path=str(tmp_path / "vectors"))
    opened = open_source(source_of(section), tmp_path / "store")
    assert opened.identity == {"at": str(tmp_path / "vectors")}
    assert not (tmp_path / "store").exists()
    assert (list(source_of(section)), rules_of(section)) == (
        ["source", "path"],
        {"duplicates": "keep", "max_pixels": 89_478_485},
    )


def test_every_source_is_pinned() -> None:
    assert {keys["source"] for keys, *_ in PINNED} | {"embeddings"} == SECTIONS.keys()
