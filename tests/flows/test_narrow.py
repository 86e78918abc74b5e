"""The jobs of a run of one stage for one model, one SAE or one seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.narrow import Narrow
from storage.record import Record
from storage.runs import Key, Run

PAIR = Key("matching", "clip", "main", 0, other_seed=1)


def test_a_pair_of_seeds_is_a_job_of_both_seeds() -> None:
    assert str(PAIR) == "matching clip main seeds 0 and 1"
    assert [Narrow(seed=seed).includes(PAIR) for seed in (0, 1, 2)] == [True, True, False]
    assert not Narrow("other", seed=1).includes(PAIR)


@pytest.mark.parametrize("key", [PAIR, Key("measures", "clip", "main", 0), Key("analyze")])
def test_a_failure_keeps_the_key_of_its_job(tmp_path: Path, key: Key) -> None:
    record = Record(tmp_path, Run(study="s", config={}, started="", versions={}))
    assert record.fail("analyze", key, "cause", ValueError("cause")).key == key
