"""Prefect's embedded server: real processes, a real proxy address, real databases, and errors that name the cause."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests_support import write_study

from flows.embedded import Unusable, check_database, check_home, migrations, sqlite_file
from flows.server import LOOPBACK, Server, ServerFailed, reach_loopback

LIGHT = """
import sys
import flows.cli, flows.fresh, flows.jobs, flows.status, flows.study
print(sorted({"prefect", "torch", "zarr"} & sys.modules.keys()))
"""


@pytest.fixture(autouse=True)
def no_settings_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test of this process may have a Prefect server, whose settings a new server would take over."""
    monkeypatch.setattr("flows.server._settings_in_use", dict)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set a home folder of Prefect that does not exist yet, and name no server."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return tmp_path / "prefect"


def test_jobs_are_listed_and_looked_up_without_prefect_and_torch() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[]"
    assert "prefect" not in done.stdout
    assert "torch" not in done.stdout


@pytest.mark.slow
def test_two_first_servers_share_a_new_folder_and_are_reached_beside_a_proxy(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    reach_loopback()
    assert os.environ["no_proxy"] == ",".join(["intranet.example", *LOOPBACK])
    servers = [Server(), Server()]
    try:
        urls = [server.wait() for server in servers]
        assert [httpx.get(f"{url}/health").status_code for url in urls] == [200, 200]
        for server in servers:
            assert server.errors is not None
            server.errors.seek(0)
            assert b"Traceback" not in server.errors.read()
    finally:
        for server in servers:
            server.stop()
    assert [server.process.poll() is None for server in servers] == [False, False]
    with contextlib.closing(sqlite3.connect(own_home / "prefect.db")) as con:
        (revision,) = con.execute("SELECT version_num FROM alembic_version").fetchone()
    assert revision == migrations()[-1]


def revised(database: Path, revision: str) -> None:
    with contextlib.closing(sqlite3.connect(database)) as con:
        con.execute("CREATE TABLE alembic_version (version_num)")
        con.execute("INSERT INTO alembic_version VALUES (?)", [revision])
        con.commit()


def test_a_database_of_another_version_of_prefect_stops_the_server_with_a_sentence(own_home: Path) -> None:
    own_home.mkdir()
    revised(own_home / "prefect.db", "00000000beef")
    with pytest.raises(ServerFailed) as failed:
        Server().wait()
    assert failed.value.exit_code == 2
    assert "is of another version of Prefect (its revision 00000000beef is unknown to Prefect 3" in str(failed.value)
    assert "set the variable PREFECT_HOME to another folder" in str(failed.value)


def test_tables_that_are_not_those_of_the_stated_revision_stop_the_server_with_a_sentence(own_home: Path) -> None:
    own_home.mkdir()
    revised(own_home / "prefect.db", migrations()[-2])
    with pytest.raises(ServerFailed, match="are of another version of Prefect") as failed:
        Server().wait()
    assert failed.value.exit_code == 2


def test_a_folder_that_cannot_be_written_stops_the_server_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", "/proc/prefect")
    with pytest.raises(ServerFailed, match="Prefect's folder /proc/prefect cannot be written") as failed:
        Server().wait()
    assert failed.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "value", "profile", "said"),
    [
        ("PREFECT_LOGGING_LEVEL", "loud", "", "LoggingSettings.level: Input should be 'DEBUG'"),
        ("PREFECT_LOGGING_LEVEL", "INFO", 'active = "local', "Illegal character"),
    ],
)
def test_a_setting_that_prefect_refuses_is_bad_input(
    own_home: Path, tmp_path: Path, name: str, value: str, profile: str, said: str
) -> None:
    own_home.mkdir()
    if profile:
        (own_home / "profiles.toml").write_text(profile + "\n")
    file = write_study(tmp_path, images=20)
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", str(file), "--store", str(tmp_path / "store")],
        env=os.environ | {name: value}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"bridgescope: a setting of Prefect is not valid: {said}")


def test_a_database_is_looked_at_before_the_server_starts(tmp_path: Path) -> None:
    database = tmp_path / "prefect.db"
    check_database(database)  # passes: there is no database yet
    revised(database, migrations()[0])
    check_database(database)  # passes: Prefect updates an older database
    with contextlib.closing(sqlite3.connect(database)) as con:
        con.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unusable, match=r"prefect\.db is locked by another process: wait for it") as locked:
            check_database(database, patience=0.1)
        assert locked.value.exit_code == 1
    check_database(database)
    database.write_bytes(b"no database at all" * 100)
    with pytest.raises(Unusable, match="cannot be used"):
        check_database(database)
    (tmp_path / "file").touch()
    with pytest.raises(Unusable, match="cannot be written"):
        check_home(tmp_path / "file")
    assert sqlite_file("sqlite+aiosqlite:////home/me/prefect.db?timeout=5") == Path("/home/me/prefect.db")
    assert sqlite_file("sqlite+aiosqlite:///:memory:") is None
    assert sqlite_file("postgresql+asyncpg://me@host/prefect") is None


def test_a_source_that_is_not_there_is_told_before_prefect_starts(tmp_path: Path, own_home: Path) -> None:
    study = tmp_path / "s.toml"
    study.write_text(
        'name = "small"\n[pairs]\nsource = "embeddings"\npath = "nowhere"\n'
        '[[models]]\nname = "own"\nspec = "embeddings:nowhere"\n'
        '[[saes]]\nname = "main"\nwidth = 24\nk = 3\n'
    )
    command = [sys.executable, "-m", "flows.cli", "run", str(study), "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "nowhere" in done.stderr
    assert not own_home.exists()
