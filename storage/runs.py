"""Runs of a study. `studies/<name>/runs/<n>.json`, written at the end of run n, lists the datasets of this run.

The datasets of a study are found through these files only, never by a search of the store's folders.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from storage.dataset import Dataset, locked, sync
from storage.errors import BadInput

#: kinds of datasets that no cached task makes: every run of the stage acquire makes them again
LISTED = ("scan", "ledger")


class Key(NamedTuple):
    """The place of a dataset in a study: its kind, model, SAE, seed and shard. A pair of seeds has two seeds."""

    kind: str
    model: str | None = None
    sae: str | None = None
    seed: int | None = None
    shard: int | None = None
    other_seed: int | None = None

    def __str__(self) -> str:
        parts = [self.kind, self.model, self.sae]
        seeds = f"seed {self.seed}" if self.other_seed is None else f"seeds {self.seed} and {self.other_seed}"
        parts += [seeds if self.seed is not None else None]
        parts += [f"shard {self.shard}" if self.shard is not None else None]
        return " ".join(part for part in parts if part)


class Entry(BaseModel):
    """One dataset of a study with its key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    model: str | None = None
    sae: str | None = None
    seed: int | None = None
    shard: int | None = None
    other_seed: int | None = None  #: the higher one of a pair of seeds
    dataset: Dataset
    inputs: list[Dataset] = []  #: the datasets that the task read
    seconds: float = 0.0  #: duration of the task in this run
    cached: bool = False

    @model_validator(mode="before")
    @classmethod
    def _kind_was_called_stage(cls, values: Any) -> Any:
        """Accept `stage` for the kind, as in runs of version 0.1 and in the arguments of tasks."""
        if isinstance(values, dict) and "stage" in values and "kind" not in values:
            return {"kind": values["stage"], **{name: value for name, value in values.items() if name != "stage"}}
        return values

    @property
    def key(self) -> Key:
        """The place of this dataset in its study."""
        return Key(self.kind, self.model, self.sae, self.seed, self.shard, self.other_seed)

    @property
    def is_task(self) -> bool:
        """Whether a cached task makes datasets of this kind."""
        return self.kind not in LISTED

    def argument(self) -> dict[str, Any]:
        """This entry as an argument of a task. The kind is called `stage` there, as in the recipes of old stores."""
        kind, model, sae, seed, shard, other_seed = self.key
        at = {"model": model, "sae": sae, "seed": seed, "shard": shard}
        pair = {"other_seed": other_seed} if other_seed is not None else {}  # old recipes do not have it
        return {"stage": kind, **at, **pair, "dataset": self.dataset}


class State(dict[Key, Entry]):
    """The entries of a study by key, in the order in which they were added."""

    def add(self, *entries: Entry) -> None:
        """Add entries. An entry replaces the one with the same key."""
        self.update({entry.key: entry for entry in entries})

    def of(self, kind: str, **wanted: Any) -> list[Entry]:
        """The entries of a kind, narrowed by model, sae, seed or shard."""
        return narrowed(self.values(), kind, **wanted)

    def dataset(self, kind: str, **at: Any) -> Dataset | None:
        """The handle of the dataset at a place, or None."""
        entry = self.get(Key(kind, **at))
        return entry.dataset if entry else None


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

    def of(self, kind: str, **wanted: Any) -> list[Entry]:
        """The entries of a kind, narrowed by model, sae, seed or shard, in the order of the run."""
        return narrowed(self.entries, kind, **wanted)


def narrowed(entries: Iterable[Entry], kind: str, **wanted: Any) -> list[Entry]:
    """The entries of a kind whose model, sae, seed or shard have the wanted values, in the order of `entries`."""
    return [
        entry
        for entry in entries
        if entry.kind == kind and all(getattr(entry, name) == value for name, value in wanted.items())
    ]


def studies(store: Path) -> list[str]:
    """Names of the studies that have run in this store, sorted."""
    return sorted(path.parent.name for path in store.glob("studies/*/runs") if any(path.glob("[0-9]*.json")))


def numbers(store: Path, study: str) -> list[int]:
    """Numbers of a study's runs, ascending."""
    return sorted(int(path.stem) for path in (store / "studies" / study / "runs").glob("[0-9]*.json"))


def last_run(store: Path, study: str) -> Run | None:
    """The newest run of a study, or None before the first."""
    written = numbers(store, study)
    return read_run(store, study, written[-1]) if written else None


def read_run(store: Path, study: str, number: int) -> Run:
    """Read one run. Raises BadInput when no run has that number, or when its file is not a run."""
    path = store / "studies" / study / "runs" / f"{number}.json"
    try:
        return Run.model_validate_json(path.read_text())
    except FileNotFoundError as error:
        raise BadInput(f"study {study!r} has no run {number}: it has {numbers(store, study) or 'none'}") from error
    except ValidationError as error:
        raise BadInput(f"{path} is not a run of this version: {error.errors()[0]['msg']}") from error


def write_run(store: Path, run: Run) -> Run:
    """Give a run the next number and write it by one rename."""
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
