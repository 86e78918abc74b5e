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
    """Write no figure files in studies that run in this process, since they take seconds per run.

    The tests of the report cover figure files, and studies in separate processes write them. The patch ends with each
    module, since the tests of the report may run in the same process.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("report.page.write_files", lambda folder, drawn: [])
        yield
