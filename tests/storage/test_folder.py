"""Folders of images, with captions in a table or in files beside the images. Captions and names are only data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from storage.errors import BadInput
from storage.sources import SourceError
from storage.sources.folder import Folder

HOSTILE = [
    "'; DROP TABLE images; --",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    '{"a": [1, 2',
    'a,b\t"c"\nsecond line',
    "\u202eright to left\u202c 😀 ﷽",
    "=cmd|' /C calc'!A0",
]


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"picture " + name.encode())


def source(folder: Path, **options: object) -> Folder:
    return Folder(folder, folder.parent / "memo.parquet", identity={"at": "test"}, **options)  # type: ignore[arg-type]


def texts(folder: Path, **options: object) -> dict[str, list[str]]:
    return {item.source_key: [c.text for c in item.captions] for item in source(folder, **options).list().items}


def test_captions_beside_the_images_are_one_a_line(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "b.jpg", "sub/a.PNG", "c.webp", "notes.md")
    (folder / "b.txt").write_text("\ufefftwo dogs\n\n  a cat  \n", encoding="utf-8")
    (folder / "sub" / "a.txt").write_text("one\n")
    assert texts(folder) == {"b.jpg": ["two dogs", "a cat"], "sub/a.PNG": ["one"]}
    assert source(folder).list().dropped == [("c.webp", "no caption", "c.txt")]


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_rows_that_name_one_image_are_one_item(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "data"
    put(folder, "a.jpg", "b.jpg", "c.jpg")
    table = pl.DataFrame(
        {
            "file_name": ["a.jpg", "b.jpg", "a.jpg", "c.jpg", "none.jpg"],
            "caption": ["one", "two", "one", None, "five"],
            "group": ["g", "h", "g", "h", "h"],
        }
    )
    path = folder / f"captions.{form}"
    match form:
        case "csv":
            table.write_csv(path)
        case "tsv":
            table.write_csv(path, separator="\t")
        case "jsonl":
            table.write_ndjson(path)
        case _:
            table.write_parquet(path)
    listing = source(folder).list()
    assert [(i.source_key, i.group_key, [c.text for c in i.captions]) for i in listing.items] == [
        ("a.jpg", "g", ["one", "one"]),  # two equal captions are both kept
        ("b.jpg", "h", ["two"]),
    ]
    assert Counter(d.cause for d in listing.dropped) == {"caption is empty": 1, "no caption": 1, "no such file": 1}
    assert len({c.source_key for i in listing.items for c in i.captions}) == 3


def test_lists_of_captions_and_columns_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "a.jpg")
    pl.DataFrame({"bild": ["a.jpg"], "texte": [["eins", "zwei", ""]]}).write_parquet(folder / "t.parquet")
    assert texts(folder, image_column="bild", caption_column="texte") == {"a.jpg": ["eins", "zwei"]}
    with pytest.raises(BadInput, match=r"no column named file_name.*set pairs.image_column to one of bild, texte"):
        source(folder).list()


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_captions_are_data(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "data"
    put(folder, *(f"{n}.jpg" for n in range(len(HOSTILE))))
    table = pl.DataFrame({"image": [f"{n}.jpg" for n in range(len(HOSTILE))], "caption": HOSTILE})
    {"csv": table.write_csv, "jsonl": table.write_ndjson, "parquet": table.write_parquet}[form](folder / f"t.{form}")
    assert [c for (c,) in texts(folder).values()] == HOSTILE


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/hostname", "sub/../../secret.jpg", "link.jpg", "a\0.jpg", ""])
def test_names_that_lead_out_of_the_folder_are_dropped(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    put(folder, "ok.jpg")
    put(tmp_path, "secret.jpg")
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    rows = [{"file_name": "ok.jpg", "text": "fine"}, {"file_name": name, "text": "not fine"}]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    listing = source(folder).list()
    assert [item.source_key for item in listing.items] == ["ok.jpg"]
    assert [d.cause for d in listing.dropped] == ["path out of the folder"]
    assert isinstance(next(source(folder).read([name])), SourceError)


def test_reads_what_it_listed_and_says_what_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "a.jpg", "b.jpg")
    (folder / "b.jpg").write_bytes(bytes(101))
    bodies = list(source(folder, max_image_bytes=100).read(["a.jpg", "b.jpg", "gone.jpg"]))
    assert bodies[0] == b"picture a.jpg"
    assert [error.cause for error in bodies[1:]] == ["too large", "no such file"]


def test_fingerprints_follow_bytes_and_captions_not_times(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "a.jpg", "b.jpg", "c.jpg")
    for name in "abc":
        (folder / f"{name}.txt").write_text("x")
    before = {item.source_key: item.fingerprint for item in source(folder).list().items}
    (folder / "a.jpg").touch()
    (folder / "b.jpg").write_bytes(b"other")
    (folder / "c.txt").write_text("y")
    after = {item.source_key: item.fingerprint for item in source(folder).list().items}
    assert [key for key in before if before[key] != after[key]] == ["b.jpg", "c.jpg"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.parquet", b"PAR1 not really", "cannot be read as parquet"),
        ("t.jsonl", b'{"image": "a.jpg", ', "cannot be read as jsonl"),
        ("t.csv", b"\xff\xfe\x00\x00", "cannot be read as csv|no column named"),
    ],
)
def test_a_broken_table_is_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    folder = tmp_path / "data"
    put(folder, "a.jpg")
    (folder / name).write_bytes(content)
    with pytest.raises(BadInput, match=says):
        source(folder).list()


def test_which_table_must_be_clear(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "a.jpg", "one.csv", "two.csv")
    with pytest.raises(BadInput, match=r"name one of one.csv, two.csv with pairs.table"):
        source(folder).list()
    with pytest.raises(BadInput, match="leads out"):
        source(folder, table="../memo.csv").list()
    with pytest.raises(BadInput, match="no such folder"):
        source(tmp_path / "none").list()
