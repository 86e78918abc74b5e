"""A study of small pictures, and Ray clusters that end with the test that starts them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_support import Raylets, write_pictures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 800)


@pytest.fixture
def raylets() -> Iterator[type[Raylets]]:
    """A subclass of `Raylets` whose clusters end with the test."""
    clusters: list[Raylets] = []

    class Own(Raylets):
        def __init__(self, **head: Any) -> None:
            super().__init__(**head)
            clusters.append(self)

    yield Own
    for each in clusters:
        each.cluster.shutdown()
