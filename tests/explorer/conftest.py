"""One finished study with pictures, and the explorer over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from explorer_support import write_pictured_study
from starlette.testclient import TestClient

from explorer.application import application
from explorer.live import Live
from flows.config import load_study
from flows.study import run_study

PORT = 8123


@pytest.fixture(scope="session")
def pictured(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> tuple[Path, Path]:
    """A study file and the store of its first run. The files of its figures take seconds, and are tested elsewhere."""
    folder = tmp_path_factory.mktemp("pictured")
    study, store = write_pictured_study(folder), folder / "store"
    store.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("report.page.write_files", lambda folder, drawn: [])
        run_study(load_study(study), store, progress=False)
    return study, store


@pytest.fixture(scope="session")
def front(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built front end, as small as one can be."""
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
