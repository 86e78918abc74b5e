"""Runs: the folder `studies/<name>/runs/<n>/` lists the datasets of one run, and says how the run ended.

A run exists from its first finished dataset. `storage.record` writes it; this module reads it.

    run.json        the study's configuration, the variant, the libraries, and the options of the run
    entries.jsonl   one line per dataset, appended when it is finished; of two lines of one key the later counts
    failures.jsonl  one line per failed job; `failures/<i>.txt` holds its traceback
    ended.json      how the run ended, and when; missing while it runs, and after it was killed
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from storage.dataset import Dataset
from storage.errors import BadInput

LISTED = ("scan", "ledger")  #: kinds that no cached task makes: every run of the stage acquire makes them again
BASE = "base"  #: the variant of the first configuration that runs under a study's name

RUN, ENTRIES, FAILURES, ENDED = "run.json", "entries.jsonl", "failures.jsonl", "ended.json"


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
    """The entries of a study by key, in the order in which they were added. Only `add` adds to it."""

    def __init__(self) -> None:
        super().__init__()
        self._of_kind: dict[str, dict[Key, Entry]] = {}

    def add(self, *entries: Entry) -> None:
        """Add entries. An entry replaces the one with the same key."""
        for entry in entries:
            self[entry.key] = entry
            self._of_kind.setdefault(entry.kind, {})[entry.key] = entry

    def of(self, kind: str, **wanted: Any) -> list[Entry]:
        """The entries of a kind, narrowed by model, sae, seed or shard. Time is linear in the entries of the kind."""
        return narrowed(self._of_kind.get(kind, {}).values(), kind, **wanted)

    def dataset(self, kind: str, **at: Any) -> Dataset | None:
        """The handle of the dataset at a place, or None."""
        entry = self.get(Key(kind, **at))
        return entry.dataset if entry else None


class Failure(BaseModel):
    """A job of a run that failed, with its key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str  #: name of the stage
    kind: str
    model: str | None = None
    sae: str | None = None
    seed: int | None = None
    shard: int | None = None
    other_seed: int | None = None
    cause: str  #: one sentence
    traceback: str  #: file of the traceback, relative to the store

    @property
    def key(self) -> Key:
        """The place in the study of the dataset that the job would have made."""
        return Key(self.kind, self.model, self.sae, self.seed, self.shard, self.other_seed)


class Run(BaseModel):
    """One run of a study: the datasets that it made or found, and how it ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    number: int = 0  #: 0 until it is written
    variant: str = BASE  #: name of the configuration among those that ran under the study's name
    config: dict[str, Any]
    entries: list[Entry] = []
    started: str  #: UTC, ISO 8601
    seconds: float = 0.0
    versions: dict[str, str]
    options: dict[str, Any] = {}  #: what the run was told: only, force, set, upstream
    #: complete: the run holds every dataset of its study. partial: it was a run of one stage, and datasets of later
    #: stages have to be made again. None: the run has not ended, or was killed.
    ended: Literal["complete", "partial", "failed", "interrupted"] | None = None
    missing: list[str] = []  #: stages with datasets that the run does not hold, in order; stated when the run ends
    failures: list[Failure] = []

    def of(self, kind: str, **wanted: Any) -> list[Entry]:
        """The entries of a kind, narrowed by model, sae, seed or shard, in the order of the run."""
        return narrowed(self.entries, kind, **wanted)

    @property
    def is_complete(self) -> bool:
        """Whether the run holds every dataset of its study."""
        return self.ended == "complete"

    def __str__(self) -> str:
        variant = f", variant {self.variant}" if self.variant != BASE else ""
        state = "" if self.is_complete else f", {self.ended or 'not ended'}"
        return f"run {self.number} of {self.started}{variant}{state}"

    def absent(self) -> str:
        """One sentence that says what the run does not hold and how to make it. Empty for a complete run."""
        if self.is_complete:
            return ""
        stages = ", ".join(self.missing) or "what comes after"
        return f"{stages} of run {self.number} is missing or stale: bridgescope run STUDY.toml makes it"


def narrowed(entries: Iterable[Entry], kind: str, **wanted: Any) -> list[Entry]:
    """The entries of a kind whose model, sae, seed or shard have the wanted values, in the order of `entries`."""
    return [
        entry
        for entry in entries
        if entry.kind == kind and all(getattr(entry, name) == value for name, value in wanted.items())
    ]


#: Kinds whose inputs may be datasets of earlier runs: a demo model keeps the pairs of its first run, and an SAE with
#: `retrain` keeps its shards.
KEPT = ("features", "train")


def closure(entries: Iterable[Entry]) -> list[Entry]:
    """The entries whose inputs, and the inputs of those, are all among the entries themselves, in their order.

    A dataset that was made from inputs of another run is left out. Inputs of the kinds in KEPT are not compared.
    """
    listed = list(entries)
    while True:
        held = {(entry.dataset.path, entry.dataset.digest) for entry in listed}
        own = [
            entry
            for entry in listed
            if entry.kind in KEPT or all((handle.path, handle.digest) in held for handle in entry.inputs)
        ]
        if len(own) == len(listed):
            return own
        listed = own


def studies(store: Path) -> list[str]:
    """Names of the studies that have runs in this store, sorted."""
    return sorted(path.parent.name for path in store.glob("studies/*/runs") if _files(path))


def numbers(store: Path, study: str) -> list[int]:
    """Numbers of a study's runs, ascending."""
    return sorted(_files(folder_of(store, study)))


def folder_of(store: Path, study: str) -> Path:
    """The folder that holds the runs of a study."""
    return store / "studies" / study / "runs"


def _files(folder: Path) -> dict[int, Path]:
    """{number: folder of the run, or the file of a run of version 0.1}."""
    if not folder.is_dir():
        return {}
    named = [path for path in folder.iterdir() if path.stem.isdecimal() and path.suffix in ("", ".json")]
    return {int(path.stem): path for path in named if path.suffix or (path / RUN).is_file()}


def path_of(store: Path, study: str, number: int) -> Path:
    """The folder of a run, or the file of a run of version 0.1. Raises BadInput when no run has that number."""
    path = _files(folder_of(store, study)).get(number)
    if path is None:
        raise BadInput(f"study {study!r} has no run {number}: it has {numbers(store, study) or 'none'}")
    return path


def read_run(store: Path, study: str, number: int, *, head: bool = False) -> Run:
    """Read one run, also one that has not ended. With `head`, its entries and failures are left out.

    Raises BadInput when no run has that number, or it cannot be read.
    """
    path = path_of(store, study, number)
    try:
        if path.suffix:
            return _of_version_0_1(path)
        return _head(path) if head else _of_folder(path)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise BadInput(f"{path} is not a run of this version: {where}: {problem['msg']}") from error
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise BadInput(f"{path} is not a run of this version: {error}") from error


def _head(folder: Path) -> Run:
    """A run without its entries and failures: configuration, variant, and how it ended."""
    values = json.loads((folder / RUN).read_text())
    ended = folder / ENDED
    return Run.model_validate({**values, **(json.loads(ended.read_text()) if ended.exists() else {})})


def _of_folder(folder: Path) -> Run:
    entries = {entry.key: entry for entry in map(Entry.model_validate, _lines(folder / ENTRIES))}
    failures = [Failure.model_validate(line) for line in _lines(folder / FAILURES)]
    return _head(folder).model_copy(update={"entries": closure(entries.values()), "failures": failures})


def _lines(path: Path) -> Iterator[Any]:
    """The values of a file of JSON lines. A last line that a kill or a power cut has cut short is left out."""
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, line in enumerate(lines[:-1], start=2):
        try:
            yield json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            if number < len(lines):
                raise


def _of_version_0_1(path: Path) -> Run:
    """A run of version 0.1: one file, written when the run had ended. A run of one stage held older datasets too."""
    values = json.loads(path.read_text())
    run = Run.model_validate({**values, "entries": closure(map(Entry.model_validate, values["entries"]))})
    whole = len(run.entries) == len(values["entries"]) and bool(run.of("explorer") or run.of("report"))
    return run.model_copy(update={"ended": "complete" if whole else "partial"})


def heads(store: Path, study: str, variant: str | None = None) -> Iterator[Run]:
    """The runs of a study, or of one of its variants, the newest first, without their entries and failures."""
    for number in reversed(numbers(store, study)):
        run = read_run(store, study, number, head=True)
        if variant in (None, run.variant):
            yield run


def last_run(store: Path, study: str, variant: str | None = None) -> Run | None:
    """The newest run of a study, or of one of its variants, however it ended; None before the first."""
    newest = next(heads(store, study, variant), None)
    return read_run(store, study, newest.number) if newest else None


def newest_complete(store: Path, study: str, variant: str | None = None) -> Run | None:
    """The newest complete run of a study, or of one of its variants; None when there is none."""
    newest = next((run for run in heads(store, study, variant) if run.is_complete), None)
    return read_run(store, study, newest.number) if newest else None


def variants(store: Path, study: str) -> list[str]:
    """Names of the variants of a study, in the order of their first runs."""
    return list(dict.fromkeys(reversed([run.variant for run in heads(store, study)])))


def shown_run(store: Path, study: str, number: int | None = None, variant: str | None = None) -> Run:
    """The run that results are read from: run `number`, else the newest complete one, else the newest.

    Raises BadInput when the study has no such run, and lists what it has.
    """
    if number is not None:
        run = read_run(store, study, number)
        if variant not in (None, run.variant):
            raise BadInput(f"run {number} of study {study!r} is of the variant {run.variant!r}, not {variant!r}")
        return run
    run_or_none = newest_complete(store, study, variant) or last_run(store, study, variant)
    if run_or_none is not None:
        return run_or_none
    if variant is not None and numbers(store, study):
        raise BadInput(f"study {study!r} has no variant {variant!r}: it has {', '.join(variants(store, study))}")
    raise BadInput(f"study {study!r} has not run in {store}: it holds {', '.join(studies(store)) or 'no study'}")


def known_run(store: Path, study: str, variant: str | None = None) -> Run | None:
    """The newest run of a study or variant, with the entries of older runs that it has no entry for.

    Runs are merged back to the newest complete one: after an interrupted run this tells what was made before it.
    """
    merged: dict[Key, Entry] = {}
    newest: Run | None = None
    for head in heads(store, study, variant):
        run = read_run(store, study, head.number)
        newest = newest or run
        merged = {**{entry.key: entry for entry in run.entries}, **merged}
        if run.is_complete:
            break
    return newest.model_copy(update={"entries": list(merged.values())}) if newest else None
