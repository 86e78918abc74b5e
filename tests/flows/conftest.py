"""A small study of vectors."""

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
    """Leave out figure files in studies that run in this process: they take seconds per run, are tested with the
    report, and are made by studies in separate processes. Per module, since the tests of the report need them in the
    same process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("report.page.write_files", lambda folder, drawn: [])
        yield
