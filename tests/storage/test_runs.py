"""Runs and their entries."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from storage.dataset import Dataset
from storage.record import write_run
from storage.runs import Entry, Key, Run, State, read_run

HANDLE = {"path": "saes/0", "recipe": "0", "digest": "d", "rows": 3}


def test_a_run_of_version_0_1_calls_the_kind_a_stage(tmp_path: Path) -> None:
    entry = {"stage": "train", "model": "m", "sae": "s", "seed": 1, "shard": None, "dataset": HANDLE, "inputs": []}
    run = {
        "study": "old", "number": 1, "config": {}, "entries": [entry], "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0, "versions": {},
    }  # fmt: skip
    runs = tmp_path / "studies" / "old" / "runs"
    runs.mkdir(parents=True)
    (runs / "1.json").write_text(json.dumps(run))
    (read,) = read_run(tmp_path, "old", 1).of("train", seed=1)
    assert read.key == Key("train", "m", "s", 1)


def test_an_entry_travels_to_a_task_and_back_under_the_name_that_recipes_hash() -> None:
    entry = Entry(kind="export", model="m", sae="s", seed=0, shard=2, dataset=Dataset(**HANDLE))
    argument = entry.argument()
    assert list(argument) == ["stage", "model", "sae", "seed", "shard", "dataset"]
    assert Entry(**argument) == entry


def test_a_state_finds_entries_by_kind_in_order_and_replaces_them_in_both_views() -> None:
    state = State()
    handles = [Dataset(path=f"x/{n}", recipe=str(n), digest=str(n), rows=1) for n in range(4)]
    state.add(*(Entry(kind="embed", model="m", shard=n, dataset=handles[n]) for n in range(2)))
    state.add(Entry(kind="acquire", shard=0, dataset=handles[2]))
    state.add(Entry(kind="embed", model="m", shard=0, dataset=handles[3]))
    assert [e.dataset for e in state.of("embed", model="m")] == [handles[3], handles[1]]
    assert state.of("embed", model="other") == state.of("train") == []
    assert state.dataset("embed", model="m", shard=0) == handles[3]
    assert len(state) == 3


@pytest.mark.parametrize(
    "junk", [b"", b"\n", b"three", b"\xff\xfe", b"-7", b"4.5", "\u00b2".encode(), bytes(9), b"9" * 6000]
)
def test_a_run_begins_beside_a_damaged_file_of_the_newest_number(
    tmp_path: Path, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(study="small", config={}, started="", versions={}, entries=[Entry(kind="train", dataset=HANDLE)])
    assert [write_run(tmp_path, run).number for _ in range(2)] == [1, 2]
    newest = tmp_path / "studies" / "small" / "runs" / "newest"
    newest.write_bytes(junk)
    with caplog.at_level(logging.WARNING, "bridgescope"):
        assert write_run(tmp_path, run).number == 3
    assert caplog.messages == [
        f"{newest} holds no number: the next run has the number after those that are in the store"
    ]
    assert newest.read_text() == "3"
    assert [read_run(tmp_path, "small", number).ended for number in (1, 2, 3)] == ["complete"] * 3
