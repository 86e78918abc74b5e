"""A small study of vectors, and one finished run of it for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from tests_support import FinishedStudy, plain_pages, write_study

from storage.runs import last_run


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    return write_study(tmp_path)


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> FinishedStudy:
    """The study runs once for all test processes; the first that needs it runs it."""
    from flows.config import load_study
    from flows.study import run_study

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "finished-study"
    file, store, finished = folder / "small.toml", folder / "store", folder / "finished"
    with FileLock(f"{folder}.lock"):
        if not finished.exists():
            request.getfixturevalue("prefect_server")
            write_study(folder)
            file.write_text(file.read_text().replace("epochs = 4", "epochs = 1"))
            store.mkdir()
            with plain_pages():
                run_study(load_study(file), store, progress=False)
            finished.touch()
    run = last_run(store, "small")
    assert run is not None
    return FinishedStudy(file, store, run)


@pytest.fixture(scope="module", autouse=True)
def plain_pages_in_this_process() -> Iterator[None]:
    """See `plain_pages`. The patch ends with each module, since tests of the report may run in the same process."""
    with plain_pages():
        yield
