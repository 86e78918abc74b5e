"""A path names one file only, even if its signs could be read as a pattern that matches a neighbour."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from storage.catalog import open_catalog, write_catalog_file
from storage.dataset import Dataset
from storage.duplicates import read_duplicates
from storage.errors import BadInput
from storage.pairs import read_captions, read_images
from storage.runs import Entry, Run
from storage.sources.files import digests
from storage.sources.tables import read_table
from storage.sources.webdataset import _matching
from storage.statements import exact
from storage.vectors import open_vectors

#: Pairs of names: read as a pattern, the first name would match the second.
NAMES = [("v [1]", "v 1"), ("v*", "v1"), ("v?", "v1"), ("k=3", "k"), ("it's #%20 {a,b}", "it's a"), ("v\\[1]", "v1")]


def pair(tmp_path: Path, names: tuple[str, str]) -> tuple[Path, Path]:
    folders = tmp_path / names[0], tmp_path / names[1]
    for folder in folders:
        folder.mkdir()
    return folders


def write(table: pl.DataFrame, path: Path) -> None:
    with path.open("wb") as file:
        table.write_parquet(file)


@pytest.mark.parametrize("names", NAMES)
def test_tables_and_vectors_are_those_of_the_folder_that_is_named(tmp_path: Path, names: tuple[str, str]) -> None:
    for folder, word in zip(pair(tmp_path, names), ("right", "wrong"), strict=True):
        for name in ("image", "text"):
            np.save(folder / f"{name}.npy", np.eye(2, dtype=np.float32))
        table = pl.DataFrame({"image_row": [0, 1], "caption": [word, word]})
        write(table, folder / "metadata.parquet")
        table.select("caption").write_csv((folder / "t.csv").open("wb"))
        (folder / "t.jsonl").write_text(json.dumps({"caption": word}) + "\n")
    here = tmp_path / names[0]
    assert open_vectors(here).captions == ["right", "right"]
    for name in ("metadata.parquet", "t.csv", "t.jsonl"):
        found = read_table(here / name)
        assert found["caption"][0] == "right"
        assert set(found.columns) <= {"image_row", "caption"}
    memo = here / "digests.parquet"
    assert digests([here / "t.csv"], memo) == digests([here / "t.csv"], memo) != digests([here / "t.jsonl"], memo)


@pytest.mark.parametrize("names", NAMES)
def test_the_catalog_reads_the_store_that_is_named(tmp_path: Path, names: tuple[str, str]) -> None:
    runs = []
    for number, store in enumerate(pair(tmp_path, names)):
        folder = store / "pairs" / "r"
        folder.mkdir(parents=True)
        row = {"image_id": number, "source_key": "k", "group_key": "g", "width": 1, "height": 1, "sha256": "s"}
        write(pl.DataFrame([{**row, "split_u": 0.5, "error": None, "image": None}]), folder / "images.parquet")
        caption = {"pair_id": 0, "image_id": number, "caption": "c", "source_key": "k"}
        write(pl.DataFrame([caption]), folder / "captions.parquet")
        entry = Entry(kind="acquire", shard=0, dataset=Dataset(path="pairs/r", recipe="r", digest="d", rows=1))
        config = {"pairs": {"heldout": 0.2}}
        runs.append(Run(study="s", config=config, entries=[entry], started="", seconds=0, versions={}))
        (store / "studies" / "s").mkdir(parents=True)
    store, run = tmp_path / names[0], runs[0]
    for guarded in (False, True):
        with open_catalog(store, run=run, guarded=guarded) as con:
            assert con.execute("SELECT image_id, count(*) FROM pairs GROUP BY ALL").fetchall() == [(0, 1)]
    # DuckDB takes a backslash in a database's path for a slash, so the test opens a copy with a plain name.
    written = shutil.copy(write_catalog_file(store, run), tmp_path / "copy.duckdb")
    with duckdb.connect(str(written), read_only=True) as con:
        assert con.execute("SELECT image_id FROM images").fetchall() == [(0,)]
    assert read_images(store, run.entries[0].dataset)["image_id"].to_list() == [0]
    assert read_captions(store, run.entries[0].dataset).height == 1
    write(
        pl.DataFrame({"pairs": ["d"], "image_id": [0], "original": ["k"]}), store / "pairs" / "r" / "duplicates.parquet"
    )
    assert read_duplicates(store, run.entries[0].dataset) == {"d": {0: "k"}}


def test_a_pattern_of_shards_begins_where_the_path_ends(tmp_path: Path) -> None:
    right, wrong = pair(tmp_path, ("tars [v2]", "tars v"))
    for folder in (right, wrong):
        for name in ("0.tar", "1.tar", "[2].tar"):
            (folder / name).write_bytes(b"")
    assert _matching(right / "*.tar") == [right / "0.tar", right / "1.tar", right / "[2].tar"]
    assert _matching(right / "[01].tar") == [right / "0.tar", right / "1.tar"]
    assert _matching(right / "[2].tar") == [right / "[2].tar"]
    assert _matching(tmp_path / "*" / "0.tar") == [right / "0.tar", wrong / "0.tar"]
    assert _matching(right / "none.tar") == [right / "none.tar"]
    assert _matching(right / "none*.tar") == []


def test_two_stars_are_any_number_of_folders(tmp_path: Path) -> None:
    names = ["0.tar", "a/1.tar", "a/b/2.tar"]
    for name in (*names, "a/3.zip", ".hidden/4.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert _matching(tmp_path / "**" / "*.tar") == [tmp_path / name for name in names]
    assert _matching(tmp_path / "a" / "**" / "*.tar") == [tmp_path / name for name in names[1:]]
    with pytest.raises(BadInput, match=r"pairs\.shards: .*\*\* stands for folders, so it must be a whole part"):
        _matching(tmp_path / "**.tar")


def test_exact_escapes_what_a_pattern_would_match() -> None:
    assert exact(Path("/a [1]/b*?.parquet")) == "/a [[]1]/b[*][?].parquet"
    assert exact(Path("/plain/path.parquet")) == "/plain/path.parquet"
