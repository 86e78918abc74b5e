"""Tar shards are grouped by key and read in place. Links, odd names and truncated shards are counted or reported.

The samples within one archive are tested in test_tar.py.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from collections import Counter
from pathlib import Path

import duckdb
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_support import Web

from storage.errors import BadInput
from storage.listing import write_labels
from storage.sources import Label, SourceError, compressed
from storage.sources.download import Policy
from storage.sources.registry import open_source
from storage.sources.tar import Options
from storage.sources.webdataset import WebDataset, expand
from storage.statements import statement

POLICY = Policy(allow_private_addresses=True, back_off=0.01, timeout=5, tries=2)


def tarred(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return out.getvalue()


ZERO = {"0001.jpg": b"one", "0001.txt": b"a cat", "0001.json": b'{"k": "v"}', "0002.txt": b"a dog", "0002.png": b"two"}
ONE = {"sub/0001.seg.webp": b"three", "sub/0001.txt": b"a cow\nin a field", "0009.txt": b"no image", "0010.jpg": b"ten"}


def put(folder: Path) -> Path:
    folder.mkdir()
    (folder / "000.tar").write_bytes(tarred(ZERO))
    (folder / "001.tar").write_bytes(tarred(ONE))
    return folder


def source(shards: list[str], downloads: Path, **options: object) -> WebDataset:
    return WebDataset(shards, downloads, identity={"at": "test"}, policy=POLICY, options=Options(**options))  # type: ignore[arg-type]


def check(reader: WebDataset) -> None:
    listing = reader.list()
    assert [(item.source_key, [c.text for c in item.captions]) for item in listing.items] == [
        ("000/0001", ["a cat"]),
        ("000/0002", ["a dog"]),
        ("001/sub/0001", ["a cow\nin a field"]),
    ]
    assert Counter(d.cause for d in listing.dropped) == {"no image in the sample": 1, "no caption": 1}
    locators = [item.locator for item in listing.items]
    assert list(reader.read(locators)) == [b"one", b"two", b"three"]
    assert list(reader.read(locators[::-1])) == [b"three", b"two", b"one"]


@pytest.mark.parametrize("pattern", ["{000..001}.tar", "*.tar", "00{0,1}.tar"])
def test_samples_are_members_of_one_key(tmp_path: Path, pattern: str) -> None:
    check(source([f"{put(tmp_path / 'data')}/{pattern}"], tmp_path / "downloads"))


def test_shards_at_urls_are_downloaded_once(web: Web, tmp_path: Path) -> None:
    folder = put(tmp_path / "data")
    for name in ("000.tar", "001.tar"):
        web.serve(f"/{name}", (folder / name).read_bytes())
    for _ in range(2):
        check(source([web("/{000..001}.tar")], tmp_path / "downloads"))
    assert web.counts() == {"/000.tar": 1, "/001.tar": 1}


def test_a_shard_that_is_gone_is_counted_and_one_that_is_away_stops(web: Web, tmp_path: Path) -> None:
    web.serve("/000.tar", tarred(ZERO))
    listing = source([web("/{000..001}.tar")], tmp_path / "downloads").list()
    assert len(listing.items) == 2
    assert listing.dropped[0][:2] == (web("/001.tar"), "HTTP 404")
    web.refuse("/001.tar", 503)
    with pytest.raises(BadInput, match=r"001.tar cannot be downloaded at the moment: HTTP 503"):
        source([web("/{000..001}.tar")], tmp_path / "downloads").list()


def test_captions_in_json(tmp_path: Path) -> None:
    members = {
        "a.jpg": b"a", "a.json": json.dumps({"caption": ["x", "y"]}).encode(),
        "b.jpg": b"b", "b.json": b"[1, 2",
        "c.jpg": b"c", "c.json": b'{"caption": 3}',
    }  # fmt: skip
    (tmp_path / "s.tar").write_bytes(tarred(members))
    listing = source([str(tmp_path / "s.tar")], tmp_path / "downloads", caption="json:caption").list()
    assert [(item.source_key, [c.text for c in item.captions]) for item in listing.items] == [("s/a", ["x", "y"])]
    assert Counter(d.cause for d in listing.dropped) == {
        "no caption": 2,
        "caption file is not JSON": 1,
        "caption is no text": 1,
    }


def test_links_and_members_that_would_climb_out_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    climbing = {"../../up.jpg": b"up", "../../up.txt": b"x", "/abs.jpg": b"abs", "/abs.txt": b"x"}
    data = tarred(
        {"ok.jpg": b"ok", "ok.txt": b"fine", **climbing, "ln.txt": b"x"}, {"ln.jpg": str(tmp_path / "secret.jpg")}
    )
    (tmp_path / "s.tar").write_bytes(data)
    reader = source([str(tmp_path / "s.tar")], tmp_path / "downloads")
    listing = reader.list()
    assert [item.source_key for item in listing.items] == ["s/ok"]
    assert Counter(d.cause for d in listing.dropped) == {"path out of the archive": 2, "not a regular file": 1}
    assert not list(tmp_path.parent.rglob("up.jpg"))
    assert isinstance(next(reader.read([json.dumps(["s", "ln.jpg"])])), SourceError)


def test_a_sparse_member_that_claims_a_terabyte_is_refused(tmp_path: Path) -> None:
    # The header of this GNU sparse member claims 2^40 bytes, of which none is stored.
    info = tarfile.TarInfo("bomb.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[386:410] = b"%011o\0" % 0 + b"%011o\0" % 0  # one hole at offset 0
    head[483:495] = b"\x80" + (1 << 40).to_bytes(11, "big")  # the claimed size, in base 256
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head[:512])
    whole = bytes(head) + tarred({"bomb.txt": b"x", "ok.jpg": b"ok", "ok.txt": b"fine"})
    (tmp_path / "s.tar").write_bytes(whole)
    listing = source([str(tmp_path / "s.tar")], tmp_path / "downloads").list()
    assert [item.source_key for item in listing.items] == ["s/ok"]
    assert Counter(d.cause for d in listing.dropped) == {"not a regular file": 1}


def test_large_images_are_counted_and_a_changed_shard_is_indexed_anew(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(tarred({"a.jpg": bytes(101), "a.txt": b"x"}))
    reader = source([str(path)], tmp_path / "downloads", max_image_bytes=100)
    (item,) = reader.list().items
    (error,) = reader.read([item.locator])
    assert isinstance(error, SourceError)
    assert error.cause == "too large"
    path.write_bytes(tarred({"a.jpg": b"small", "a.txt": b"x", "pad.md": bytes(4096)}))
    assert reader.list().items[0].fingerprint != item.fingerprint
    assert list(reader.read([item.locator])) == [b"small"]


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, b"\x1f\x8b\x08 compressed"])
def test_a_file_that_is_no_tar_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.tar").write_bytes(content)
    with pytest.raises(BadInput, match=r"s.tar is no readable tar"):
        source([str(tmp_path / "s.tar")], tmp_path / "downloads").list()


def test_missing_shards_and_shards_named_twice_are_refused(tmp_path: Path) -> None:
    folder = put(tmp_path / "data")
    with pytest.raises(BadInput, match="no such file"):
        source([f"{folder}/{{000..002}}.tar"], tmp_path / "downloads").list()
    with pytest.raises(BadInput, match="no shard is there"):
        source([f"{folder}/x*.tar"], tmp_path / "downloads").list()
    with pytest.raises(BadInput, match="two shards are named 000"):
        source([f"{folder}/000.tar", f"{folder}/0*0.tar"], tmp_path / "downloads").list()
    with pytest.raises(BadInput, match="cannot be read: Is a directory"):
        source([str(folder)], tmp_path / "downloads").list()


def keys(reader: WebDataset) -> list[tuple[str, str]]:
    """The key of each item with the caption, after a check that the image has the caption's bytes."""
    items = reader.list().items
    assert list(reader.read([item.locator for item in items])) == [item.captions[0].text.encode() for item in items]
    return [(item.source_key, item.captions[0].text) for item in items]


def one(path: Path, text: str) -> None:
    """Write a shard of one sample, whose image has the caption's bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tarred({"k.jpg": text.encode(), "k.txt": text.encode()}))


def test_shards_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for place in ("b/0", "c/0", "x/b/0"):
        one(tmp_path / f"{place}.tar", place)
    downloads = tmp_path / "downloads"
    assert keys(source([f"{tmp_path}/b/*.tar"], downloads)) == [("0/k", "b/0")]
    # Folders that sort before and after the first one are added; a new folder has the name of an old one.
    grown = source([f"{tmp_path}/x/b/0.tar", f"{tmp_path}/?/0.tar"], downloads)
    assert keys(grown) == [("b/0/k", "x/b/0"), ("0/k", "b/0"), ("c/0/k", "c/0")]
    before = dict(keys(grown))
    one(tmp_path / "a/0.tar", "a/0")
    after = dict(keys(grown))
    assert after.items() >= before.items()
    assert len(after) == 4
    # In a new store, and after a loss of the memo, the first shard of a name keeps the bare name.
    (downloads / "names.json").write_text("{")
    assert keys(source([f"{tmp_path}/?/0.tar"], downloads))[0] == ("0/k", "a/0")
    assert keys(source([f"{tmp_path}/?/0.tar"], tmp_path / "new"))[0] == ("0/k", "a/0")


def test_a_moved_folder_of_shards_keeps_its_keys(tmp_path: Path) -> None:
    one(tmp_path / "old/0.tar", "x")
    assert keys(source([f"{tmp_path}/old/0.tar"], tmp_path / "downloads")) == [("0/k", "x")]
    (tmp_path / "old").rename(tmp_path / "new")
    assert keys(source([f"{tmp_path}/new/0.tar"], tmp_path / "downloads")) == [("0/k", "x")]


def test_shards_of_one_name_at_urls(web: Web, tmp_path: Path) -> None:
    for place in ("a", "b"):
        web.serve(f"/{place}/0.tar", tarred({"k.jpg": place.encode(), "k.txt": place.encode()}))
    assert keys(source([web("/{a,b}/0.tar")], tmp_path / "downloads")) == [("0/k", "a"), ("b/0/k", "b")]


def zstd(data: bytes) -> bytes:
    packed: bytes = pyarrow.compress(data, "zstd", asbytes=True)
    return packed


PACKED = {
    "tar.gz": gzip.compress, "tgz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress, "tar.zst": zstd,
    "tar": gzip.compress, "TAR.GZ": gzip.compress,
}  # fmt: skip


@pytest.mark.parametrize("ending", PACKED)
def test_compressed_shards_are_unpacked_once(tmp_path: Path, ending: str) -> None:
    pack, downloads = PACKED[ending], tmp_path / "downloads"
    for name, members in {"000": ZERO, "001": ONE}.items():
        (tmp_path / f"{name}.{ending}").write_bytes(pack(tarred(members)))
    check(source([f"{tmp_path}/*.{ending}"], downloads))
    copies = {path: path.stat().st_ino for path in downloads.glob("unpacked/*/*")}
    assert len(copies) == 2
    check(source([f"{tmp_path}/*.{ending}"], downloads))
    assert {path: path.stat().st_ino for path in downloads.glob("unpacked/*/*")} == copies
    (tmp_path / f"000.{ending}").write_bytes(pack(tarred({"k.jpg": b"new", "k.txt": b"new"})))
    (next(iter(copies)).parent / "killed.partial").write_bytes(b"half")
    assert ("000/k", "new") in keys(source([f"{tmp_path}/000.{ending}"], downloads))
    assert len(list(downloads.glob("unpacked/*/*.tar"))) == 2  # the copy of the earlier state is gone
    plain = {f"{name}/k" for name in ("000",)}
    assert {key for key, _ in keys(source([f"{tmp_path}/000.{ending}"], downloads))} == plain


def test_a_tar_without_compression_keeps_its_name(tmp_path: Path) -> None:
    one(tmp_path / "0.tar.gz", "x")  # as before compressed shards were read
    (tmp_path / "BZh9.tar").write_bytes(tarred({"BZh91.jpg": b"y", "BZh91.txt": b"y"}))
    shards = [f"{tmp_path}/0.tar.gz", f"{tmp_path}/BZh9.tar"]
    assert keys(source(shards, tmp_path / "downloads")) == [("0.tar/k", "x"), ("BZh9/BZh91", "y")]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_damaged_compression_and_bombs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: type[bytes]
) -> None:
    path, downloads = tmp_path / "s.tar.gz", tmp_path / "downloads"
    data = pack(tarred({"a.jpg": os.urandom(5000), "a.txt": b"x"}))
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=r"s.tar.gz is no readable tar: its compression \(\w+\) is damaged"):
        source([str(path)], downloads).list()
    monkeypatch.setattr(compressed, "ALWAYS_ALLOWED", 1 << 16)
    path.write_bytes(pack(bytes(8 << 20)))
    with pytest.raises(BadInput, match=r"s.tar.gz: unpacks to more than 65,536 bytes|to more than \d\d\d,\d\d\d bytes"):
        source([str(path)], downloads).list()
    assert not list(downloads.glob("unpacked/*/*"))


def test_an_index_of_an_earlier_version_is_not_read(tmp_path: Path) -> None:
    """The earlier version named the index by the path, size, time and these options."""
    import polars as pl

    from storage.sources.files import indexed

    path = put(tmp_path / "data") / "000.tar"
    old = pl.DataFrame({"key": ["0001"], "image": ["0001.jpg"], "offset": [0], "size": [4], "cause": [None]})
    indexed(path, tmp_path / "downloads/index", f"txt {32 << 20}", lambda _: old)
    assert keys_only(source([str(path)], tmp_path / "downloads")) == ["000/0001", "000/0002"]


def keys_only(reader: WebDataset) -> list[str]:
    return [item.source_key for item in reader.list().items]


def test_the_section_passes_its_keys(tmp_path: Path) -> None:
    members = {"a.x.jpg": b"x", "a.y.jpg": b"y", "a.txt": b"t", "a.json": b'{"kind": ["p", 7, null]}', "a.cls": b"3\n"}
    (tmp_path / "s.tar").write_bytes(tarred(members))
    section = {"source": "webdataset", "shards": [f"{tmp_path}/s.tar"], "image_member": "y.jpg", "labels": "json:kind"}
    reader = open_source(section, tmp_path / "store")
    listing = reader.list()
    assert list(reader.read([item.locator for item in listing.items])) == [b"y"]
    assert listing.labels == [Label("s/a", "cls", "3"), Label("s/a", "kind", "p"), Label("s/a", "kind", "7")]
    with pytest.raises(ValueError, match="neither an extension nor"):
        open_source({**section, "labels": ["a b"]}, tmp_path / "store")
    # The view of labels joins them to the images that were acquired.
    (tmp_path / "store").mkdir(exist_ok=True)
    labels = write_labels(tmp_path / "store", [*listing.labels, Label("s/gone", "cls", "4")])
    assert labels is not None
    with duckdb.connect() as con:
        con.execute("CREATE VIEW images AS SELECT 7 AS image_id, 's/a' AS source_key")
        con.execute(statement("views/labels", labels=[tmp_path / "store" / labels.path / "labels.parquet"]))
        assert con.execute("FROM labels ORDER BY ALL").fetchall() == [
            (7, "cls", "3"),
            (7, "kind", "7"),
            (7, "kind", "p"),
        ]


def test_braces() -> None:
    assert expand("a/{08..11}.tar") == ["a/08.tar", "a/09.tar", "a/10.tar", "a/11.tar"]
    assert expand("{a,b}-{0..1}") == ["a-0", "a-1", "b-0", "b-1"]
    with pytest.raises(BadInput, match="more than"):
        expand("{0..99999999}.tar")


@given(st.integers(0, 500), st.integers(0, 500), st.text("abc-", max_size=5))
def test_a_counting_brace_names_each_number_once(first: int, more: int, tail: str) -> None:
    names = expand(f"x{{{first:06d}..{first + more:06d}}}{tail}")
    assert names == [f"x{number:06d}{tail}" for number in range(first, first + more + 1)]
