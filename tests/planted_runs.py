"""A run of a small study whose datasets hold only their own names: for tests of what a run reads, not of what it makes.

Its jobs are those of the study, so every dataset lies at its true address, with a true manifest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.config import Study
from flows.jobs.job import STEPS, Given
from storage.dataset import Address, Dataset, materialize
from storage.record import write_run
from storage.runs import Entry, Run, State

ROWS = 100  # rows of a dataset


def small_study(folder: Path, **changes: Any) -> Study:
    """A study of one model, whose folder is made, two seeds and a frontier."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "weights").write_text("weights")
    sections = {
        "pairs": {"source": "npm-emoji", "heldout": 0.25},
        "models": [{"name": "own", "spec": f"hf:local-dir:{model}"}],
        "saes": [{"name": "main", "width": 24, "k": 3, "seeds": [0, 1]}],
        "frontier": {"methods": ["topk"], "k": [3]},
    }
    return Study.model_validate({"name": "small", **sections, **changes})


def planted(store: Path, at: Address, text: str) -> Dataset:
    """A real dataset of one file and a manifest."""

    def body(out: Path) -> int:
        (out / "file").write_text(text)
        return ROWS

    return materialize(store, at, body)


def planted_run(study: Study, store: Path) -> Run:
    """Plant the datasets of all jobs of a study, and write the run."""
    state = State()
    state.add(Entry(kind="scan", shard=0, dataset=planted(store, Address("listings", "1", {"shard": 0}, ()), "scan")))
    given = Given(study, state, None, store)
    for stage, steps in STEPS.items():
        for step in steps:
            for job in step(given):
                state.add(job.entry(planted(store, job.stage.address(**job.arguments()), str(job.key))))
        if stage == "acquire":
            pairs = [entry.dataset for entry in state.of("acquire")]
            ledger = planted(store, Address("ledgers", "1", {}, tuple(pairs)), "ledger")
            state.add(Entry(kind="ledger", dataset=ledger, inputs=pairs))
    config = study.model_dump(mode="json")
    return write_run(store, Run(study=study.name, config=config, entries=[*state.values()], started="", versions={}))
