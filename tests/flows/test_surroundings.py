"""What a study meets: a second process, a full disk, a store that may not be written, a server that is not there.

Each is the real thing, done to a process of its own that uses the tests' Prefect server.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from prefect.settings import PREFECT_API_URL
from tests_support import tables, write_study

from flows.failures import DatabaseLocked, check_database, explained
from storage.dataset import verify
from storage.errors import BadInput
from storage.lease import running
from storage.runs import numbers, read_run

RUN = "import sys\nfrom flows.cli import main\nsys.exit(main(['run', sys.argv[1], '--store', sys.argv[2]]))\n"
SMALL_FILES = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
# Everything is imported first: a user who may not write the store need not be able to read this installation.
NOBODY = "import flows.study, os\nif os.getuid() == 0: os.setuid(65534)\n"


@pytest.fixture(scope="module")
def server(prefect_server: None) -> dict[str, str]:
    """The environment of a process that uses the tests' server."""
    return os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value())}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), images=1200)


def begin(code: str, study: Path, store: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, str(study), str(store)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and standard error of a process."""
    _, said = process.communicate(timeout=300)
    return process.returncode, said


@pytest.fixture
def held_catalog(tmp_path: Path) -> Iterator[Path]:
    """A store whose catalog file another program holds open for writing, as DuckDB's own shell does."""
    folder = tmp_path / "store" / "studies" / "small"
    folder.mkdir(parents=True)
    with duckdb.connect(str(folder / "catalog.duckdb")) as con:
        con.execute("CREATE TABLE mine (x INTEGER)")
        yield tmp_path / "store"


def test_two_processes_share_one_study_beside_a_locked_catalog(
    study: Path, held_catalog: Path, server: dict[str, str]
) -> None:
    both = [begin(RUN, study, held_catalog, server) for _ in range(2)]
    ends = [end(process) for process in both]
    assert [code for code, _ in ends] == [0, 0], ends
    assert any("runs this study too: what both need is made once" in said for _, said in ends), ends
    assert numbers(held_catalog, "small") == [1, 2]
    first, second = (read_run(held_catalog, "small", number) for number in (1, 2))
    assert [e.dataset for e in first.entries] == [e.dataset for e in second.entries]
    assert [problem for e in first.entries if (problem := verify(held_catalog, e.dataset))] == []
    # Nothing was made twice: of the stages that take long, one of the two found every dataset there.
    manifests = {e.dataset.path for e in first.entries}
    assert {p.parent.relative_to(held_catalog).as_posix() for p in held_catalog.glob("*/*/dataset.json")} == manifests
    with duckdb.connect(str(held_catalog / "studies" / "small" / "catalog.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM images").fetchone() == (1200,)


def test_a_full_disk_is_said_and_the_next_run_completes(study: Path, tmp_path: Path, server: dict[str, str]) -> None:
    store = tmp_path / "store"
    code, said = end(begin(SMALL_FILES + RUN, study, store, server))
    assert code == 1
    assert "bridgescope: failed: a file of the store may not grow any more" in said
    assert "run the same command again" in said
    assert "Traceback" not in said
    assert numbers(store, "small") == []
    code, said = end(begin(RUN, study, store, server))
    assert code == 0, said
    run = read_run(store, "small", 1)
    assert [problem for entry in run.entries if (problem := verify(store, entry.dataset))] == []
    assert all(len(table) for table in tables(store, run).values())


def test_a_store_that_may_not_be_written_is_bad_input(study: Path, tmp_path: Path, server: dict[str, str]) -> None:
    store = tmp_path / "store"
    store.mkdir(mode=0o555)
    readable = shutil.copytree(study.parent, tmp_path / "study")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder.name.startswith(("pytest", "test")):
            folder.chmod(0o755)
    code, said = end(begin(NOBODY + RUN, readable / study.name, store, server))
    assert code == 2
    assert f"the store {store} is not writable" in said
    assert list(store.iterdir()) == []


def test_a_server_that_does_not_answer_is_named(study: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    code, said = end(begin(RUN, study, tmp_path / "store", environment))
    assert code == 1
    assert "the Prefect server http://127.0.0.1:9/api does not answer: start it (make server)" in said
    assert "Traceback" not in said


def test_a_locked_database_of_prefect_is_said(study: Path, tmp_path: Path) -> None:
    home = tmp_path / "prefect"
    home.mkdir()
    environment = os.environ | {"PREFECT_HOME": str(home)}
    environment.pop("PREFECT_API_URL", None)
    url = f"sqlite+aiosqlite:///{home}/prefect.db"
    with contextlib.closing(sqlite3.connect(home / "prefect.db")) as con:
        con.execute("CREATE TABLE held (x)")
        con.execute("BEGIN EXCLUSIVE")
        code, said = end(begin(RUN, study, tmp_path / "store", environment))
        assert code == 1
        assert "bridgescope: failed: Prefect's database is locked by another process: wait for it" in said
        assert "Traceback" not in said
        with pytest.raises(DatabaseLocked, match=r"prefect\.db"):
            check_database(url, patience=0.1)
    check_database(url)  # free again: nothing is raised


def test_causes_are_looked_at_and_other_errors_are_not_explained() -> None:
    wrapped = RuntimeError("the writer stopped")
    wrapped.__cause__ = OSError(28, "No space left on device", "saes/x")
    assert explained(wrapped) == (
        "the disk of the store is full: free some space (bridgescope gc) ([Errno 28] No space left on device: 'saes/x')"
    )
    assert explained(ValueError("k is 0")) is None


def test_a_lease_cannot_be_taken_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "studies").write_text("a file in the way")
    with pytest.raises(BadInput, match="the store cannot be written: "), running(tmp_path, "small"):
        pass
