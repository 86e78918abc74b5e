"""The bar of a stage in Prefect's UI shows the share of datasets that are complete, also when jobs failed."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from flows import artifacts
from storage.runs import Key


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The percentages that Prefect is told."""
    told: list[float] = []

    def create(at: float, **_: Any) -> Any:
        told.append(at)
        return uuid4()

    monkeypatch.setattr(artifacts, "create_progress_artifact", create)
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda artifact, at: told.append(at))
    return told


def test_a_bar_ends_at_the_share_of_the_jobs_that_ended_well(shown: list[float]) -> None:
    due = {Key("embed", "clip", shard=shard) for shard in (2, 3)}  # shards 0 and 1 are complete
    with artifacts.progress("small", "embed", due, total=4):
        due.discard(Key("embed", "clip", shard=2))  # shard 3 fails
    assert shown == [50.0, 75.0]


def test_a_stage_that_is_complete_has_no_bar(shown: list[float]) -> None:
    with artifacts.progress("small", "embed", set(), total=4):
        pass
    assert shown == []
