"""A small study on vectors of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests_support import write_study


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    return write_study(tmp_path)


@pytest.fixture(scope="module", autouse=True)
def no_figure_files() -> Iterator[None]:
    """Studies that run in this process make the page alone: the files of its figures take seconds a run, are tested
    with the report, and are made by the studies that run as processes of their own. A module at a time: a process that
    goes on to test the report needs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("report.page.write_files", lambda folder, drawn: [])
        yield
