"""One finished study with pictures, and an explorer that shows it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from explorer_support import write_pictured_study
from filelock import FileLock
from starlette.testclient import TestClient
from tests_support import plain_pages

from explorer.application import application
from explorer.live import Live
from flows.config import load_study
from flows.study import run_study

PORT = 8123


@pytest.fixture(scope="session")
def pictured(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, worker_id: str
) -> tuple[Path, Path]:
    """A study file and the store of its first run, with plain pages.

    The study runs once for all test processes. Each process then works on its own copy of the study and its store.
    """
    folder = tmp_path_factory.mktemp("pictured") / "study"
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    first = shared / "pictured-first"
    with FileLock(f"{first}.lock"):
        finished = first / "finished"
        if not finished.exists():
            request.getfixturevalue("prefect_server")
            study, store = write_pictured_study(first), first / "store"
            store.mkdir()
            with plain_pages():
                run_study(load_study(study), store, progress=False)
            finished.touch()
    shutil.copytree(first, folder, symlinks=True)
    return folder / "pictures.toml", folder / "store"


@pytest.fixture(scope="session")
def front(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a minimal built front end."""
    folder = tmp_path_factory.mktemp("front")
    (folder / "assets").mkdir()
    (folder / "index.html").write_text("<!doctype html><title>explorer</title>")
    (folder / "assets" / "main.js").write_text("export {}")
    return folder


@pytest.fixture(scope="session")
def live(pictured: tuple[Path, Path]) -> Iterator[Live]:
    opened = Live(pictured[1], "pictures")
    yield opened
    opened.close()


@pytest.fixture
def client(live: Live, front: Path) -> TestClient:
    """A browser that has the explorer's page open."""
    return TestClient(
        application(live, front, PORT),
        base_url=f"http://127.0.0.1:{PORT}",
        headers={"origin": f"http://127.0.0.1:{PORT}"},
    )
