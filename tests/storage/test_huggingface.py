"""Parquet files of a Hugging Face dataset, read from a folder, or without a network from the hub's cache."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_support import Hub, point_to, serving
from huggingface_hub import close_session, constants
from PIL import Image

from storage.dataset import Dataset
from storage.errors import BadInput
from storage.listing import append_shard, commit_of
from storage.pairs import read_images
from storage.sources.huggingface import HuggingFace, HuggingFaceSection
from storage.sources.section import rules_of, source_of
from tasks.acquire import fetch, scan
from tasks.stage import Runtime

STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (4, 4), shade).save(out, "png")
    return out.getvalue()


def table(rows: list[tuple[bytes | None, object]], kind: pa.DataType = STRUCT) -> pa.Table:
    images = [row[0] if kind != STRUCT else {"bytes": row[0], "path": "x.png"} for row in rows]
    return pa.table({"image": pa.array(images, kind), "caption": [row[1] for row in rows]})


def put(folder: Path) -> Path:
    """Write a train split of two Parquet files. One image is in two rows, and one row has no image bytes."""
    (folder / "data").mkdir(parents=True)
    first = [(png(n), f"grey {n}") for n in range(100)]
    second = [(png(7), "seven again"), (None, "nothing"), (png(200), "light")]
    pq.write_table(table(first), folder / "data" / "train-00000-of-00002.parquet", row_group_size=40)
    pq.write_table(table(second), folder / "data" / "train-00001-of-00002.parquet")
    (folder / "data" / "test-00000-of-00001.parquet").write_bytes(b"not looked at")
    (folder / "evil.py").write_text("raise SystemExit('code of a dataset must never run')")
    return folder


def hub_cache(cache: Path, repo: str) -> Path:
    """Write a dataset in the cache layout of huggingface_hub."""
    place = cache / f"datasets--{repo.replace('/', '--')}"
    snapshot = put(place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    (place / "blobs").mkdir()
    for number, file in enumerate(sorted(snapshot.rglob("*.parquet"))):
        blob = place / "blobs" / f"{number:064x}"
        file.rename(blob)
        file.symlink_to(blob)
    return snapshot


def source(repo: Path | str, downloads: Path, **options: object) -> HuggingFace:
    arguments = {"files": "data/train-*.parquet", **options}
    return HuggingFace(str(repo), downloads, identity={"at": "test"}, **arguments)  # type: ignore[arg-type]


def check(reader: HuggingFace) -> None:
    listing = reader.list()
    assert len(listing.items) == 101
    by_first = {item.captions[0].text: item for item in listing.items}
    assert [c.text for c in by_first["grey 7"].captions] == ["grey 7", "seven again"]
    assert Counter(d.cause for d in listing.dropped) == {"no bytes in the table": 1}
    locators = [item.locator for item in listing.items]
    assert list(reader.read(locators)) == [*(png(n) for n in range(100)), png(200)]
    wanted = [locators[n] for n in (90, 3, 100, 41, 40, 39, 3)]  # not in the order of files and row groups
    assert list(reader.read(wanted)) == [png(n) for n in (90, 3, 200, 41, 40, 39, 3)]


def test_a_folder_is_read_as_it_is(tmp_path: Path) -> None:
    check(source(put(tmp_path / "repo"), tmp_path / "downloads"))


def test_the_cache_of_the_hub_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub_cache(tmp_path / "hub", "owner/pairs")
    check(source("owner/pairs", tmp_path / "downloads"))
    check(source("owner/pairs", tmp_path / "downloads", revision=COMMIT))


def test_a_dataset_neither_cached_nor_reachable_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(BadInput, match=r"'owner/none' at 'main' is not in the cache .*hub.*HF_HOME.*HF_HUB_OFFLINE"):
        source("owner/none", tmp_path / "downloads").list()
    with pytest.raises(BadInput, match=r"pairs\.repo: .*no such folder"):
        source(tmp_path / "none", tmp_path / "downloads").list()
    with pytest.raises(BadInput, match=r"pairs\.repo"):
        source("no/such/name/at/all", tmp_path / "downloads").list()


def test_binary_columns_lists_of_captions_and_names(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    rows = table([(png(1), ["a", "b"]), (png(2), [])], pa.large_binary()).rename_columns(["img", "texts"])
    rows = rows.append_column("who", pa.array(["g", "h"]))
    pq.write_table(rows, tmp_path / "repo" / "x.parquet")
    options = {"files": "*.parquet", "image_column": "img", "caption_column": "texts", "group_column": "who"}
    listing = source(tmp_path / "repo", tmp_path / "downloads", **options).list()
    assert [(i.group_key, [c.text for c in i.captions]) for i in listing.items] == [("g", ["a", "b"])]
    assert [d.cause for d in listing.dropped] == ["no caption"]


def test_an_image_has_the_first_group_that_its_rows_name_and_whole_numbers_are_one_group(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    numbers = pa.array([1.0, None, None, 2.0, 3.0])
    for name, shades, groups in (("a", (1, 2), pa.array([1, 2])), ("b", (3, 4, 4, 4, 4), numbers)):
        rows = table([(png(shade), "text") for shade in shades], pa.binary()).append_column("doc", groups)
        pq.write_table(rows, tmp_path / "repo" / f"{name}.parquet")
    listing = source(tmp_path / "repo", tmp_path / "downloads", files="*.parquet", group_column="doc").list()
    assert [item.group_key for item in listing.items] == ["1", "2", "1", "2"]
    assert [(one.cause, one.detail) for one in listing.dropped] == [("several groups", "2 and 3")]


def test_a_file_whose_pictures_are_all_null_is_counted_row_by_row(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    pq.write_table(table([(png(1), "one")], pa.binary()), tmp_path / "repo" / "a.parquet")
    pq.write_table(pa.table({"image": pa.nulls(2), "caption": ["x", "y"]}), tmp_path / "repo" / "b.parquet")
    listing = source(tmp_path / "repo", tmp_path / "downloads", files="*.parquet").list()
    assert [[caption.text for caption in item.captions] for item in listing.items] == [["one"]]
    assert [(one.source_key, one.cause) for one in listing.dropped] == [
        ("b.parquet:0", "no bytes in the table"),
        ("b.parquet:1", "no bytes in the table"),
    ]


def test_more_files_leave_what_was_listed_as_it_was(tmp_path: Path) -> None:
    repo = put(tmp_path / "repo")
    before = source(repo, tmp_path / "downloads").list().items
    pq.write_table(table([(png(201), "new")]), repo / "data" / "train-00002-of-00003.parquet")
    after = source(repo, tmp_path / "downloads").list().items
    assert after[:-1] == before
    assert after[-1].captions[0].text == "new"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"caption_column": "text"}, r"pairs.caption_column = 'text': .* has the columns image, caption"),
        ({"image_column": "caption"}, r"holds string there, not encoded pictures \(source = \"urls\""),
        ({"files": "data/test-*.parquet"}, "not a readable Parquet file"),
        ({"files": "*.parquet"}, "matches no Parquet file"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, str], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        source(put(tmp_path / "repo"), tmp_path / "downloads", **options).list()


def test_too_large_is_counted(tmp_path: Path) -> None:
    reader = source(put(tmp_path / "repo"), tmp_path / "downloads", max_image_bytes=10)
    assert {error.cause for error in reader.read([reader.list().items[0].locator])} == {"too large"}


@pytest.mark.parametrize(
    ("captions", "kept", "causes"),
    [
        (pa.array([b"one", b"\xff", b"two"]).view(pa.string()), ["one", "\ufffd", "two"], {}),
        (pa.array([1, 2, None], pa.timestamp("ns")), [], {"caption is no text": 2, "caption is empty": 1}),
        (pa.array([[("en", "a dog")]] * 3, pa.map_(pa.string(), pa.string())), [], {"caption is no text": 3}),
    ],
)
def test_values_that_python_cannot_hold_are_read_or_counted(
    tmp_path: Path, captions: pa.Array, kept: list[str], causes: dict[str, int]
) -> None:
    images = pa.array([png(shade) for shade in (1, 2, 3)])
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"image": images, "caption": captions}), tmp_path / "data" / "a.parquet")
    listed = source(tmp_path / "data", tmp_path / "own", files="*.parquet").list()
    assert [caption.text for item in listed.items for caption in item.captions] == kept
    found = Counter(one.cause for one in listed.dropped)
    assert {cause: found[cause] for cause in found if cause != "no caption"} == causes


def test_hidden_files_are_left_out_unless_the_pattern_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / ".cache").mkdir(parents=True)
    for name, shade in (("a.parquet", 1), (".cache/a.parquet", 2)):
        pq.write_table(pa.table({"image": [png(shade)], "caption": [name]}), folder / name)
    (folder / "._a.parquet").write_bytes(b"macOS")
    for pattern, kept in (("**/*.parquet", "a.parquet"), (".cache/*.parquet", ".cache/a.parquet")):
        (item,) = source(folder, tmp_path / "own", files=pattern).list().items
        assert item.captions[0].text == kept


def test_a_column_that_is_there_twice_and_a_name_that_is_not_utf8_are_refused(tmp_path: Path) -> None:
    table = pa.table([[png(1)], ["one"], ["two"]], names=["image", "caption", "caption"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=r"a\.parquet has several columns of the name 'caption'"):
        source(tmp_path, tmp_path / "own", files="*.parquet").list()
    os.rename(tmp_path / "a.parquet", os.fsencode(tmp_path) + b"/\xe9.parquet")
    with pytest.raises(BadInput, match="is not UTF-8: rename the file"):
        source(tmp_path, tmp_path / "own", files="*.parquet").list()


def publish(hub: Hub, folder: Path, shades: Sequence[int], commit: str) -> None:
    """Publish a commit of a dataset of one file, to which the branch main points from now on."""
    (folder / "data").mkdir(parents=True)
    pq.write_table(table([(png(shade), f"grey {shade}") for shade in shades]), folder / "data" / "a.parquet")
    hub.add("owner/pairs", folder, commit)


def images_of(store: Path, pairs: HuggingFaceSection, listings: Sequence[Dataset]) -> pl.DataFrame:
    """Fetch the shards of these listings, each as a task of its own, and return their images."""
    options = {"source": source_of(pairs), "rules": rules_of(pairs)}
    shards = [fetch.make(Runtime(store=store, progress=False), listing=one, **options) for one in listings]
    return pl.concat([read_images(store, shard) for shard in shards])


def test_a_branch_that_moves_after_the_scan_moves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = HuggingFaceSection(source="huggingface", repo="owner/pairs")
    store, first, second = tmp_path / "store", "1" * 40, "2" * 40
    store.mkdir()
    with serving() as hub:
        point_to(hub, tmp_path / "hub", monkeypatch)
        publish(hub, tmp_path / "v1", [1, 2, 3, 4], first)
        scanned = scan(source_of(pairs), 2, Runtime(store=store))
        publish(hub, tmp_path / "v2", [3, 5, 6, 7], second)
        images = images_of(store, pairs, scanned.listings)
        assert images["image"].to_list() == [png(shade) for shade in (1, 2, 3, 4)]
        again = scan(source_of(pairs), 2, Runtime(store=store))
        assert (len(again.listings), again.new, again.changed) == (4, 2, 2)
        images = images_of(store, pairs, again.listings)
        assert images["image"].to_list() == [png(shade) for shade in (3, 5, 6, 7)]
    key = images["source_key"][0]
    assert commit_of(store, append_shard(store, again.source, [key])) == second
    assert [commit_of(store, listing) for listing in (*scanned.listings, *again.listings)] == [first] * 2 + [second] * 4


def test_bytes_that_are_not_those_that_were_listed_fail(tmp_path: Path) -> None:
    pairs = HuggingFaceSection(source="huggingface", repo=str(tmp_path / "repo"))
    (tmp_path / "repo").mkdir()
    (tmp_path / "store").mkdir()
    pq.write_table(table([(png(1), "one"), (png(2), "two")]), tmp_path / "repo" / "a.parquet")
    scanned = scan(source_of(pairs), 8, Runtime(store=tmp_path / "store"))
    pq.write_table(table([(png(1), "one"), (png(3), "three")]), tmp_path / "repo" / "a.parquet")
    images = images_of(tmp_path / "store", pairs, scanned.listings)
    assert images.select("error", "image").rows() == [(None, png(1)), ("wrong hash", None)]
    expected = hashlib.sha256(png(2)).hexdigest()[:24]
    assert images["error_detail"][1] == f"sha256 is {hashlib.sha256(png(3)).hexdigest()}, expected {expected}"


def test_the_cache_is_enough_when_the_hub_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as hub:
        point_to(hub, tmp_path / "hub", monkeypatch)
        publish(hub, tmp_path / "v1", [1, 2], "1" * 40)
        before = source("owner/pairs", tmp_path / "own", files="data/*.parquet").list()
    close_session()  # an open connection would still be answered
    assert source("owner/pairs", tmp_path / "own", files="data/*.parquet").list() == before
