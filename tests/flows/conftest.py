"""A small study of vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests_support import plain_pages, write_study


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    return write_study(tmp_path)


@pytest.fixture(scope="module", autouse=True)
def plain_pages_in_this_process() -> Iterator[None]:
    """See `plain_pages`. The patch ends with each module, since tests of the report may run in the same process."""
    with plain_pages():
        yield
