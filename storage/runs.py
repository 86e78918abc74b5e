"""Runs: `studies/<name>/runs/<n>.json`, written last, says which datasets are current. Never a glob over datasets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.dataset import Dataset, locked, sync
from storage.errors import BadInput


class Entry(BaseModel):
    """One dataset of a run, and what it is in the study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    model: str | None = None
    sae: str | None = None
    seed: int | None = None
    shard: int | None = None
    dataset: Dataset
    inputs: list[Dataset] = []  #: what it was made from
    seconds: float = 0.0  #: what the task took in this run
    cached: bool = False


class Run(BaseModel):
    """A finished run of a study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    number: int = 0  #: 0 until it is written
    config: dict[str, Any]
    entries: list[Entry]
    started: str  #: UTC, ISO 8601
    seconds: float
    versions: dict[str, str]

    def of(self, stage: str, **wanted: Any) -> list[Entry]:
        """The entries of a stage, narrowed by model, sae, seed or shard, in the order of the run."""
        return [
            entry
            for entry in self.entries
            if entry.stage == stage and all(getattr(entry, name) == value for name, value in wanted.items())
        ]


def studies(store: Path) -> list[str]:
    """Names of the studies that have run in this store, sorted."""
    return sorted(path.parent.name for path in store.glob("studies/*/runs") if any(path.glob("[0-9]*.json")))


def numbers(store: Path, study: str) -> list[int]:
    """Numbers of a study's runs, ascending."""
    return sorted(int(path.stem) for path in (store / "studies" / study / "runs").glob("[0-9]*.json"))


def last_run(store: Path, study: str) -> Run | None:
    """The newest run of a study, or None before the first."""
    found = numbers(store, study)
    return read_run(store, study, found[-1]) if found else None


def read_run(store: Path, study: str, number: int) -> Run:
    """Read one run. Raises BadInput when there is none of that number, or its file is not a run."""
    path = store / "studies" / study / "runs" / f"{number}.json"
    try:
        return Run.model_validate_json(path.read_text())
    except FileNotFoundError as error:
        raise BadInput(f"study {study!r} has no run {number}: it has {numbers(store, study) or 'none'}") from error
    except ValidationError as error:
        raise BadInput(f"{path} is not a run of this version: {error.errors()[0]['msg']}") from error


def write_run(store: Path, run: Run) -> Run:
    """Give a run the next number and write it. The file appears whole."""
    folder = store / "studies" / run.study / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        number = max(numbers(store, run.study), default=0) + 1
        written = run.model_copy(update={"number": number})
        partial = folder / f"{number}.json.partial"
        partial.write_text(written.model_dump_json(indent=1))
        sync(partial)
        os.replace(partial, folder / f"{number}.json")
        sync(folder)
    return written
