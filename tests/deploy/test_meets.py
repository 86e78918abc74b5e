"""Two runs at the same time while the catalog is locked, and a run on a full disk. Real processes share one server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from deploy_support import Operator
from tests_support import RUN, begin, end, tables

from storage.dataset import verify
from storage.runs import numbers, read_run

SMALL_FILES = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))\n"


@pytest.fixture
def held_catalog(tmp_path: Path, study_file: Path) -> Iterator[Path]:
    """A store whose catalog file another program holds open for writing, as DuckDB's own shell does."""
    folder = tmp_path / "store" / "studies" / study_file.stem
    folder.mkdir(parents=True)
    with duckdb.connect(str(folder / "catalog.duckdb")) as con:
        con.execute("CREATE TABLE mine (x INTEGER)")
        yield tmp_path / "store"


def test_two_processes_share_one_study_beside_a_locked_catalog(
    study_file: Path, held_catalog: Path, operator: Operator, tmp_path: Path
) -> None:
    both = [begin(RUN, study_file, held_catalog, operator.client()) for _ in range(2)]
    ends = [end(process) for process in both]
    assert [code for code, _ in ends] == [0, 0], ends
    assert any("runs this study too: a dataset that both need is made once" in output for _, output in ends), ends
    assert numbers(held_catalog, study_file.stem) == [1, 2]
    first, second = (read_run(held_catalog, study_file.stem, number) for number in (1, 2))
    assert [e.dataset for e in first.entries] == [e.dataset for e in second.entries]
    assert [problem for e in first.entries if (problem := verify(held_catalog, e.dataset))] == []
    # The store holds exactly the datasets that both runs refer to: no second copies, and no partial datasets.
    manifests = {e.dataset.path for e in first.entries}
    assert {p.parent.relative_to(held_catalog).as_posix() for p in held_catalog.glob("*/*/dataset.json")} == manifests
    catalog = held_catalog / "studies" / study_file.stem / "catalog.duckdb"
    with duckdb.connect(str(shutil.copy(catalog, tmp_path / "new.duckdb")), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM images").fetchone() == (400,)


def test_a_full_disk_is_reported_and_the_next_run_completes(
    study_file: Path, tmp_path: Path, operator: Operator
) -> None:
    store = tmp_path / "store"
    code, output = end(begin(SMALL_FILES + RUN, study_file, store, operator.client()))
    assert code == 1
    assert "a file may not grow any more" in output
    assert "run the same command again" in output
    assert "Traceback" not in output
    assert numbers(store, study_file.stem) == []
    code, output = end(begin(RUN, study_file, store, operator.client()))
    assert code == 0, output
    run = read_run(store, study_file.stem, 1)
    assert [problem for entry in run.entries if (problem := verify(store, entry.dataset))] == []
    assert all(len(table) for table in tables(store, run).values())
