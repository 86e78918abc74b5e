"""The catalog file for DuckDB's own shell is replaced as a whole, is read-only, and never meets an older file's log."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import polars as pl
import pytest

from storage.catalog import refresh_catalog_file, write_catalog_file
from storage.dataset import address, materialize
from storage.runs import Entry, Run

#: A session that writes into the catalog file and is killed, so that its write-ahead log stays behind.
KILLED = """
import duckdb, os, signal, sys
con = duckdb.connect(sys.argv[1])
con.execute("CREATE TABLE my_notes AS SELECT 1 AS note")
os.kill(os.getpid(), signal.SIGKILL)
"""
#: The shell of a user who may not write the store. Root gives up its rights first, since root may open any file.
NOBODY = """
import duckdb, os, sys
if os.getuid() == 0:
    os.setuid(65534)
try:
    duckdb.connect(sys.argv[1]).execute("CREATE TABLE my_notes AS SELECT 1 AS note")
except duckdb.Error as error:
    print("refused", error)
print(duckdb.connect(sys.argv[1], read_only=True).execute("SELECT count(*) FROM training").fetchall())
"""


def training(out: Path) -> int:
    point = {"step": 1, "epoch": 1.0, "loss": 0.5, "r2": 0.5, "l0": 3.0, "dead_fraction": 0.0, "rows_per_second": 1.0}
    pl.DataFrame([point]).write_parquet(out / "training.parquet")
    return 1


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose catalog holds one view."""
    dataset = materialize(tmp_path / "store", address("saes", "1", {}), training)
    (tmp_path / "store" / "studies" / "small").mkdir(parents=True)
    entry = Entry(kind="train", model="own", sae="main", seed=0, dataset=dataset)
    config = {"pairs": {"heldout": 0.2}}
    return Run(study="small", number=1, config=config, entries=[entry], started="", seconds=0, versions={})


def count(file: Path) -> int:
    with duckdb.connect(str(file), read_only=True) as con:
        return int(con.execute("SELECT count(*) FROM training").fetchall()[0][0])


@pytest.mark.parametrize("how", ["written by the next run", "refreshed by the next command"])
def test_the_log_of_a_killed_session_goes_with_its_file(tmp_path: Path, run: Run, how: str) -> None:
    store = tmp_path / "store"
    file = write_catalog_file(store, run)
    file.chmod(0o644)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False)
    assert killed.returncode == -9
    assert Path(f"{file}.wal").exists()
    if how.startswith("written"):
        write_catalog_file(store, run)
    else:
        refresh_catalog_file(store, run)
    assert not Path(f"{file}.wal").exists()
    assert count(file) == 1


@pytest.mark.parametrize("junk", [b"", b"junk", b"\xff" * 5000])
def test_a_damaged_or_older_file_is_thrown_away(tmp_path: Path, run: Run, junk: bytes) -> None:
    store = tmp_path / "store"
    file = write_catalog_file(store, run)
    file.unlink()
    file.write_bytes(junk)
    refresh_catalog_file(store, run)
    assert count(file) == 1
    file.with_suffix(".root").write_bytes(junk)
    (file.parent / "catalog.partial.wal").write_bytes(b"of a process that was killed")
    before = file.stat().st_ino
    refresh_catalog_file(store, run)
    assert file.stat().st_ino != before
    assert count(file) == 1
    before = file.stat().st_ino
    refresh_catalog_file(store, run)
    assert file.stat().st_ino == before  # the file is up to date, so nothing is written
    refresh_catalog_file(store, run.model_copy(update={"number": 2}))
    assert file.stat().st_ino == before  # another run of the same datasets
    refresh_catalog_file(store, run.model_copy(update={"config": {"pairs": {"heldout": 0.3}}}))
    assert file.stat().st_ino != before
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "catalog.duckdb",
        "catalog.duckdb.lock",
        "catalog.root",
    ]


def test_a_moved_store_with_a_lost_file_keeps_its_other_commands(
    tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    write_catalog_file(tmp_path / "store", run)
    moved = Path(shutil.move(tmp_path / "store", tmp_path / "moved"))
    (moved / run.entries[0].dataset.path / "training.parquet").unlink()
    refresh_catalog_file(moved, run)
    assert "catalog.duckdb is not written again" in caplog.text
    assert "training.parquet is missing" in caplog.text


@pytest.mark.parametrize("cause", ["a damaged file of the run", "a place that cannot be written"])
def test_a_catalog_file_that_cannot_be_written_is_a_warning(
    tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture, cause: str
) -> None:
    store = tmp_path / "store"
    if cause.startswith("a damaged"):
        (store / run.entries[0].dataset.path / "training.parquet").write_bytes(b"junk")
    else:
        (store / "studies" / "small" / "catalog.partial" / "folder").mkdir(parents=True)
    refresh_catalog_file(store, run)
    assert "catalog.duckdb is not written again: " in caplog.text
    assert not (store / "studies" / "small" / "catalog.duckdb").exists()


def test_a_shell_that_would_write_is_refused_and_one_that_reads_is_not(run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder:  # other users cannot read the folders that pytest makes
        os.chmod(folder, 0o755)
        store = Path(folder) / "store"
        dataset = materialize(store, address("saes", "1", {}), training)
        (store / "studies" / "small").mkdir(parents=True)
        own = run.model_copy(update={"entries": [run.entries[0].model_copy(update={"dataset": dataset})]})
        file = write_catalog_file(store, own)
        assert file.stat().st_mode & 0o777 == 0o444
        done = subprocess.run([sys.executable, "-c", NOBODY, str(file)], capture_output=True, text=True, check=False)
        assert done.stdout.startswith("refused"), done.stderr
        assert done.stdout.endswith("[(1,)]\n")
