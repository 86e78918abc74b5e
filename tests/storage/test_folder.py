"""Folders of images, with captions in a table or in files beside the images. Captions and names are only data."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
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


def test_rare_formats_are_counted_and_never_read_beside_a_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    put(folder, "a.HEIC", "a.jpg", "b.heic", "c.svg", "d.eps", "e.psd")
    for name in "abce":
        (folder / f"{name}.txt").write_text(name)
    monkeypatch.setattr("storage.sources.files.find_spec", lambda name: None)  # as if pillow-heif were not installed
    assert texts(folder) == {"a.jpg": ["a"], "e.psd": ["e"]}
    assert source(folder).list().dropped == [
        ("a.HEIC", "another format of an image", "a.jpg"),
        ("b.heic", "format not read", "HEIC: pip install -c constraints.txt -e '.[heic]'"),
        ("c.svg", "format not read", "SVG"),
        ("d.eps", "no caption", "d.txt"),
    ]
    monkeypatch.setattr("storage.sources.files.find_spec", lambda name: object())
    assert texts(folder) == {"a.jpg": ["a"], "b.heic": ["b"], "e.psd": ["e"]}


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
    causes = Counter(d.cause for d in listing.dropped)
    assert causes == {"caption is empty": 1, "no caption": 1, "no such file": 1}
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


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/hostname", "sub/../../secret.jpg", "link.jpg", "a\0.jpg", "."])
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


@pytest.mark.parametrize("last", ["3.png,three\n4.png,four\n", "3.png,three\n"])
def test_each_file_of_a_table_has_a_header_line(last: str, tmp_path: Path) -> None:
    """As `split -l` does not write it. The last file may be a single line."""
    folder = tmp_path / "data"
    put(folder, *(f"{n}.png" for n in range(5)), "lists/aa.csv")
    (folder / "lists" / "aa.csv").write_text("file_name,caption\n0.png,zero\n1.png,one\n2.png,two\n")
    (folder / "lists" / "ab.csv").write_text(last)
    with pytest.raises(
        BadInput, match=r"lists/ab\.csv: there is no header line; the first line is data: 3\.png, three"
    ):
        source(folder, table="lists").list()
    (folder / "lists" / "ab.csv").write_text("file_name,caption\n" + last)
    assert texts(folder, table="lists")["3.png"] == ["three"]


def test_a_table_without_rows_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "a.jpg", "lists/t.csv", "lists/u.csv")
    (folder / "lists" / "t.csv").write_text("file_name,caption\n")
    with pytest.raises(BadInput, match=r"lists/t\.csv: the table has no rows"):
        source(folder, table="lists/t.csv").list()
    (folder / "lists" / "u.csv").write_text("file_name,caption\na.jpg,one\n")
    assert texts(folder, table="lists") == {"a.jpg": ["one"]}


def test_which_table_must_be_clear(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "a.jpg", "one.csv", "two.csv")
    with pytest.raises(BadInput, match=r"name one of one.csv, two.csv with pairs.table"):
        source(folder).list()
    with pytest.raises(BadInput, match="leads out"):
        source(folder, table="../memo.csv").list()
    with pytest.raises(BadInput, match="no such folder"):
        source(tmp_path / "none").list()


def causes(folder: Path, **options: object) -> list[tuple[str, str]]:
    return [(one.source_key, one.cause) for one in source(folder, **options).list().dropped]


def test_names_are_looked_up_below_the_folder_and_beside_the_table(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "top.jpg", "sub/beside.jpg", "sub/pictures/deep.jpg", "images/0.jpg", "other/two.jpg", "images/two.jpg")
    absolute = str(folder / "images" / "0.jpg")
    names = ["top.jpg", "./top.jpg", "beside.jpg", "deep.jpg", "0.jpg", "images/0.jpg", absolute, "two.jpg", " 0.jpg "]
    names += ["../images/two.jpg", "none.jpg", "n" * 300 + ".jpg"]
    table = pl.DataFrame({"file_name": names, "caption": [f"caption {n}" for n in range(len(names))]})
    table.write_csv(folder / "sub" / "t.csv")
    listing = source(folder, table="sub/t.csv").list()
    assert {item.source_key: [c.text for c in item.captions] for item in listing.items} == {
        "top.jpg": ["caption 0"],
        "./top.jpg": ["caption 1"],
        "sub/beside.jpg": ["caption 2"],
        "sub/pictures/deep.jpg": ["caption 3"],
        "images/0.jpg": ["caption 4", "caption 5", "caption 8"],
        absolute: ["caption 6"],
        "sub/../images/two.jpg": ["caption 9"],
    }
    assert listing.dropped == [
        ("two.jpg", "several files of this name", "images/two.jpg, other/two.jpg"),
        ("none.jpg", "no such file", ""),
        ("n" * 300 + ".jpg", "no such file", ""),
    ]
    read = list(source(folder).read([item.locator for item in listing.items]))
    assert all(isinstance(data, bytes) for data in read)
    assert "two.jpg" not in dict(causes(folder, table="sub/t.csv", images="other"))
    with pytest.raises(BadInput, match=r"pairs.images = 'none'"):
        source(folder, table="sub/t.csv", images="none").list()


def test_a_wrong_folder_of_images_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "a/b/0.png")
    (folder / "c.csv").write_text("file_name,caption\n0.png,one\n")
    assert causes(folder) == [("0.png", "no such file")]
    assert texts(folder, images="a/b") == {"a/b/0.png": ["one"]}


def test_names_that_are_no_text_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "42", "42.0", "x.jpg", "None")
    rows = [{"image": value, "caption": "x"} for value in (42, 42.0, None, "", {"path": "x.jpg"}, {"k": "x.jpg"}, True)]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert list(texts(folder)) == ["42", "x.jpg"]
    assert causes(folder) == [
        ("t.jsonl: line 2", "image name is no text"),
        ("t.jsonl: line 3", "no image name"),
        ("t.jsonl: line 4", "no image name"),
        ("t.jsonl: line 6", "image name is no text"),
        ("t.jsonl: line 7", "image name is no text"),
    ]


def test_paths_of_parquet_files_without_bytes_are_names(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "x.jpg")
    images = [{"bytes": None, "path": "x.jpg"}, {"bytes": b"png", "path": "x.jpg"}, {"bytes": None, "path": None}]
    pq.write_table(pa.table({"image": images, "caption": ["one", "two", "three"]}), folder / "t.parquet")
    assert texts(folder) == {"x.jpg": ["one"]}
    assert causes(folder) == [
        ("t.parquet: row 2", "image is in the table"),
        ("t.parquet: row 3", "image name is no text"),
    ]


def test_names_that_are_not_utf_8_are_shown_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "0.png")
    (folder / "0.txt").write_text("plain")
    name = os.fsdecode(b"caf\xe9 \xc3\xa9")
    for suffix, content in ((".png", b"picture"), (".txt", b"odd"), (".jpg", b"other")):
        (folder / f"{name}{suffix}").write_bytes(content)
    (folder / f"{name} 2.png").write_bytes(b"x")
    listing = source(folder).list()
    assert texts(folder) == {"0.png": ["plain"], "caf\\xe9 é.png": ["odd"], "caf\\xe9 é.jpg": ["odd"]}
    assert list(source(folder).read([item.locator for item in listing.items])) == [
        b"picture 0.png",
        b"other",
        b"picture",
    ]
    assert listing.dropped == [("caf\\xe9 é 2.png", "no caption", "caf\\xe9 é 2.txt")]
    json.dumps(listing, ensure_ascii=False).encode()  # every key and locator is UTF-8
    assert source(folder).list() == listing  # the second time from the memo of digests


def of_img2dataset(folder: Path) -> None:
    put(folder, "00000/000000000.jpg", "00000/000000001.jpg")
    for name, caption in (("000000000", "one"), ("000000001", "two")):
        (folder / "00000" / f"{name}.txt").write_text(caption)
        (folder / "00000" / f"{name}.json").write_text(json.dumps({"caption": caption, "key": name}))
    keys = ["000000000", "000000001", "000000002"]
    table = {"url": keys, "caption": ["one", "two", "three"], "key": keys, "status": ["success"] * 3}
    pl.DataFrame({**table, "error_message": [None] * 3}).write_parquet(folder / "00000.parquet")
    pl.DataFrame({**table, "error_message": [None] * 3}).write_parquet(folder / "00001.parquet")
    (folder / "00000_stats.json").write_text('{"count": 3}')


def test_the_files_that_img2dataset_writes_by_default(tmp_path: Path) -> None:
    of_img2dataset(folder := tmp_path / "data")
    expected = {"00000/000000000.jpg": ["one"], "00000/000000001.jpg": ["two"]}
    assert texts(folder) == expected
    (folder / "t.csv").write_text("file_name,caption\n00000/000000000.jpg,from the table\n")
    assert texts(folder) == {"00000/000000000.jpg": ["from the table"]}
    assert texts(folder, table=False) == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.txt", "image,caption\n0.jpg,A dog .\n"),
        ("results_20130124.token", "0.jpg#0\tA dog .\n"),
        ("results.csv", "image_name| comment_number| comment\n0.jpg| 0| A dog .\n"),
        ("dataset_flickr30k.json", '{"images": [{"filename": "0.jpg", "sentences": [{"raw": "A dog ."}]}]}'),
        ("blip.json", ' [{"image": "0.jpg", "caption": "A dog ."}]'),
    ],
)
def test_known_layouts_are_found(name: str, content: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "Images/0.jpg")
    (folder / "about.json").write_text('{"licence": "none"}')
    (folder / name).write_text(content)
    assert texts(folder) == {"Images/0.jpg": ["A dog ."]}
    (folder / "Images" / "0.txt").write_text("beside")  # captions beside the pictures were read first, and still are
    assert texts(folder) == {"Images/0.jpg": ["A dog ." if name == "results.csv" else "beside"]}


def test_splits_choose_rows_and_labels_name_what_the_table_says(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "0.jpg", "1.jpg", "2.jpg")
    rows = [
        {"image": "0.jpg", "caption": "a", "split": "train", "tags": ["x", "y"], "year": 1999},
        {"image": "0.jpg", "caption": "b", "split": "train", "tags": ["y", {"k": 1}], "year": None},
        {"image": "1.jpg", "caption": "c", "split": "val", "tags": [], "year": 2000},
        {"image": "2.jpg", "caption": "d", "split": None},
    ]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    listing = source(folder, labels=["tags", "year"]).list()
    assert listing.labels == [
        ("0.jpg", "tags", "x"),
        ("0.jpg", "tags", "y"),
        ("0.jpg", "year", "1999"),
        ("1.jpg", "year", "2000"),
    ]
    assert listing.dropped == [("0.jpg", "label is no text", "tags: dict {'k': 1}")]
    assert list(texts(folder, splits=["val", "test"])) == ["1.jpg"]
    with pytest.raises(BadInput, match=r"pairs.splits = \['tests'\].*split holds train, val"):
        source(folder, splits=["tests"]).list()
    with pytest.raises(BadInput, match=r"no column 'tag'; set pairs.labels to one of image"):
        source(folder, labels=["tag"]).list()
    with pytest.raises(BadInput, match="is read without one"):
        source(folder, table=False, labels=["tags"]).list()


def test_a_group_that_is_no_text_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "0.jpg", "1.jpg", "2.jpg")
    rows = [{"image": f"{n}.jpg", "caption": "x", "group": group} for n, group in enumerate(["g", {"g": 1}, 7])]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    listing = source(folder).list()
    assert [(item.source_key, item.group_key) for item in listing.items] == [("0.jpg", "g"), ("2.jpg", "7")]
    assert listing.dropped == [("1.jpg", "group is no text", "dict {'g': 1}")]


def test_a_folder_without_pictures_and_table_says_what_it_holds(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "a.pdf", "sub/b.PDF", "notes")
    with pytest.raises(BadInput, match=r"neither pictures nor a table.*2 .pdf, 1 files without an ext.*webdataset"):
        source(folder).list()


def test_undecodable_and_wide_caption_files(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "a.jpg", "b.jpg")
    (folder / "a.txt").write_bytes("café\nzwei\n".encode("utf-16"))
    (folder / "b.txt").write_bytes(b"caf\xe9\n")
    assert texts(folder) == {"a.jpg": ["café", "zwei"], "b.jpg": ["caf\ufffd"]}


def test_what_macos_adds_to_a_folder_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "a.jpg", "._a.jpg", "__MACOSX/._a.jpg", "__MACOSX/b.jpg")
    for name in ("a", "._a", "__MACOSX/._a", "__MACOSX/b"):
        (folder / f"{name}.txt").write_text("a dog")
    listing = source(folder).list()
    assert ([item.source_key for item in listing.items], listing.dropped) == (["a.jpg"], [])
    (folder / "c.csv").write_text("image,caption\na.jpg,a cat\n")
    (folder / "._c.csv").write_bytes(b"\0\5\x16\7Mac OS X")
    assert texts(folder) == {"a.jpg": ["a cat"]}


def test_captions_whose_picture_is_not_read_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder, "a.png", "b.CR2", "c.dng", "d.jpx", "g.xyz", "h.jpg", "h.nef", "sub/k.psd", "README")
    put(tmp_path / "big", "x.png")
    (folder / "e.png").symlink_to("/nowhere/objects/x")  # as git-annex leaves a file that is not fetched
    (folder / "k.png").symlink_to("k.png")
    (folder / "sub" / "k.jpg").symlink_to("none.jpg")
    (folder / "more").symlink_to("../big")
    (folder / "sub" / "back").symlink_to("..")
    (folder / "album.png").mkdir()
    for name in ("a", "b", "c", "d", "e", "f", "g", "h", "k", "sub/k", "album", "../big/x"):
        (folder / f"{name}.txt").write_text(name)
    (folder / "sub" / "notes.TXT").write_text("")
    assert texts(folder) == {"a.png": ["a"], "d.jpx": ["d"], "h.jpg": ["h"], "sub/k.psd": ["sub/k"]}
    assert source(folder).list().dropped == [
        ("b.CR2", "format not read", "CR2"),
        ("c.dng", "format not read", "DNG"),
        ("e.png", "no such file", "broken link"),
        ("h.nef", "another format of an image", "h.jpg"),
        ("k.png", "no such file", "broken link"),
        ("sub/k.jpg", "no such file", "broken link"),
        ("album.txt", "caption without an image", ""),
        ("f.txt", "caption without an image", ""),
        ("g.txt", "caption without an image", "g.xyz"),
        ("sub/notes.TXT", "caption without an image", ""),
        ("more", "link to a folder is not followed", ""),
        ("sub/back", "link to a folder is not followed", ""),
    ]


def test_a_folder_with_links_alone_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    put(tmp_path / "big", "x.png")
    (folder / "more").symlink_to("../big")
    for name in ("a.txt", "b.pdf"):
        (folder / name).symlink_to("none")
    with pytest.raises(BadInput, match=r"neither pictures nor a table.*but 2 broken links, 1 links to folders\."):
        source(folder).list()
    (folder / "e.png").symlink_to("none.png")
    assert source(folder).list().dropped == [
        ("e.png", "no such file", "broken link"),
        ("a.txt", "caption without an image", ""),
        ("more", "link to a folder is not followed", ""),
    ]
