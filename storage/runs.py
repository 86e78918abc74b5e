"""Runs. The folder `studies/<name>/runs/<n>/` lists the datasets of run `n`, and says how the run ended.

`storage.record` writes the folder, from the first dataset or failure on. This module reads it.

    run.json        the study's configuration, the variant, the libraries, and the options of the run
    entries.jsonl   one line per dataset, appended when it is finished; a later line replaces one of the same key
    failures.jsonl  one line per failed job; `failures/<i>.txt` holds its traceback
    ended.json      how the run ended, its duration, the missing stages and the number of lines of entries.jsonl; no
                    such file while the run goes on or after it was killed
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from storage.dataset import Dataset
from storage.errors import BadInput
from storage.manifest import read_manifest

log = logging.getLogger("bridgescope")

LISTED = ("scan", "ledger", "labels")  #: kinds that every run of the stage acquire makes again, without a cached task
BASE = "base"  #: name of a study's first variant

RUN, ENTRIES, FAILURES, ENDED = "run.json", "entries.jsonl", "failures.jsonl", "ended.json"
RESTORE = "restore the run's record, or move it out of the store and run the study again"
COUNT = "entries"  #: key of ended.json: number of lines of entries.jsonl; runs of older versions lack it


class Key(NamedTuple):
    """The place of a dataset in a study: its kind, model, SAE, seed and shard. Some datasets compare two seeds."""

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


class Placed(BaseModel):
    """A line of a run's record, with the fields of the key that it is about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    model: str | None = None
    sae: str | None = None
    seed: int | None = None
    shard: int | None = None
    other_seed: int | None = None  #: the higher seed, for a dataset that compares two seeds

    @property
    def key(self) -> Key:
        """The place in the study."""
        return Key(self.kind, self.model, self.sae, self.seed, self.shard, self.other_seed)


class Entry(Placed):
    """One dataset of a study and its key."""

    dataset: Dataset
    inputs: list[Dataset] = []  #: the datasets from which this dataset was made
    seconds: float = 0.0  #: duration of the task in this run
    cached: bool = False

    @model_validator(mode="before")
    @classmethod
    def _kind_was_called_stage(cls, values: Any) -> Any:
        """Accept the name `stage` for `kind`. Runs of version 0.1 and arguments of tasks use that name."""
        if isinstance(values, dict) and "stage" in values and "kind" not in values:
            return {"kind": values["stage"], **{name: value for name, value in values.items() if name != "stage"}}
        return values

    @property
    def is_task(self) -> bool:
        """Whether a cached task makes datasets of this kind."""
        return self.kind not in LISTED

    def argument(self) -> dict[str, Any]:
        """Return this entry as an argument of a task. The kind is called `stage`, as in old recipes."""
        kind, model, sae, seed, shard, other_seed = self.key
        at = {"model": model, "sae": sae, "seed": seed, "shard": shard}
        pair = {"other_seed": other_seed} if other_seed is not None else {}  # old recipes lack the key
        return {"stage": kind, **at, **pair, "dataset": self.dataset}


class State(dict[Key, Entry]):
    """The entries of a study by key, in the order in which they were added. Use only `add` to change it."""

    def __init__(self) -> None:
        super().__init__()
        self._of_kind: dict[str, dict[Key, Entry]] = {}
        self._of_sae: dict[tuple[Any, ...], dict[Key, Entry]] = {}  # by kind, model, SAE and seed

    def add(self, *entries: Entry) -> None:
        """Add entries. An entry replaces the one with the same key."""
        for entry in entries:
            self[entry.key] = entry
            self._of_kind.setdefault(entry.kind, {})[entry.key] = entry
            self._of_sae.setdefault((entry.kind, entry.model, entry.sae, entry.seed), {})[entry.key] = entry

    def of(self, kind: str, **wanted: Any) -> list[Entry]:
        """Return the entries of a kind with the wanted model, sae, seed or shard, in the order of their shards.

        Shards that are made side by side end in any order, and a recipe holds the datasets of shards in their order.
        Takes time linear in the number of entries of the kind, or of the SAE where `wanted` names one SAE.
        """
        if wanted.keys() >= {"model", "sae", "seed"}:
            held = self._of_sae.get((kind, wanted["model"], wanted["sae"], wanted["seed"]), {})
        else:
            held = self._of_kind.get(kind, {})
        return sorted(narrowed(held.values(), kind, **wanted), key=lambda e: -1 if e.shard is None else e.shard)

    def dataset(self, kind: str, **at: Any) -> Dataset | None:
        """Return the handle of the dataset with this key, or None."""
        entry = self.get(Key(kind, **at))
        return entry.dataset if entry else None


class Failure(Placed):
    """A failed job of a run. Its key is the key of the dataset that the job would have made."""

    stage: str  #: name of the stage
    cause: str  #: cause of the failure, in one sentence
    traceback: str  #: file of the traceback, relative to the store


class Run(BaseModel):
    """One run of a study: the datasets that it made or found, and how it ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    number: int = 0  #: 0 until the run is written
    variant: str = BASE  #: name of the run's configuration; a study can have several
    config: dict[str, Any]
    entries: list[Entry] = []
    started: str  #: start of the run, UTC, ISO 8601
    seconds: float = 0.0
    versions: dict[str, str]
    options: dict[str, Any] = {}  #: options of the command: only, force, set, upstream
    #: "complete": the run holds every dataset of its study. "partial": the run was limited to one stage, and datasets
    #: of later stages must be made again. None: the run has not ended, or was killed.
    ended: Literal["complete", "partial", "failed", "interrupted"] | None = None
    missing: list[str] = []  #: stages of which the run lacks datasets, in order; known when the run ends
    failures: list[Failure] = []

    def of(self, kind: str, **wanted: Any) -> list[Entry]:
        """Return the entries of a kind with the wanted model, sae, seed or shard, in the order of the run."""
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
        """Return a sentence on which stages lack datasets and how to make them. Empty for a complete run."""
        if self.is_complete:
            return ""
        stages = ", ".join(self.missing) or "what comes after"
        return f"{stages} of run {self.number} is missing or stale: bridgescope run STUDY.toml makes it"


def narrowed(entries: Iterable[Entry], kind: str, **wanted: Any) -> list[Entry]:
    """Return the entries of a kind with the wanted model, sae, seed or shard, in the order of `entries`."""
    return [
        entry
        for entry in entries
        if entry.kind == kind and all(getattr(entry, name) == value for name, value in wanted.items())
    ]


def consensus_of(setting: str) -> str:
    """Name of the consensus SAE of a setting."""
    return f"{setting}-consensus"


def shown_settings(config: dict[str, Any]) -> list[str]:
    """Names of the SAE settings that a study shows and publishes, from its file as a dict.

    They are the settings of the file, each followed by its consensus SAE if the study makes one. Data diets and others
    that the study adds to a setting are left out.
    """
    names = []
    for setting in config["saes"]:
        names.append(setting["name"])
        if config.get("consensus") and len(setting.get("seeds", [])) > 1:
            names.append(consensus_of(setting["name"]))
    return names


#: Kinds of datasets whose inputs may come from earlier runs. A demo model ("features") keeps the pairs of its first
#: run; an SAE ("train") with the key `retrain` can keep the shards on which it was trained.
KEPT = ("features", "train")


def closure(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries whose inputs are datasets of other returned entries, in the order of `entries`.

    An entry is left out if an input, or an input of an input, belongs to another run. Entries of the kinds in KEPT are
    never left out.
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
    """Return {number of a run: its folder, or its file if the run is of version 0.1}."""
    if not folder.is_dir():
        return {}
    named = [path for path in folder.iterdir() if path.stem.isdecimal() and path.suffix in ("", ".json")]
    return {int(path.stem): path for path in named if path.suffix or (path / RUN).is_file()}


def path_of(store: Path, study: str, number: int) -> Path:
    """Return the folder of a run; the file of a run of version 0.1. Raises BadInput when no run has this number."""
    path = _files(folder_of(store, study)).get(number)
    if path is None:
        raise BadInput(
            f"study {study!r} has no run {number}. Available: {', '.join(map(str, numbers(store, study))) or 'none'}."
        )
    return path


def read_run(store: Path, study: str, number: int, *, head: bool = False) -> Run:
    """Read a run, even if it has not ended. With `head`, the entries and failures are left out.

    Raises BadInput when no run has this number, or when the run cannot be read.
    """
    path = path_of(store, study, number)
    try:
        if path.suffix:
            return _of_version_0_1(path)
        return _head(path) if head else _of_folder(path)
    except BadInput:
        raise
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise BadInput(f"{path} is not a run of this version: {where}: {problem['msg']}: {RESTORE}") from error
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise BadInput(f"{path} is not a run of this version: {error}: {RESTORE}") from error


def _head(folder: Path) -> Run:
    """Read a run without its entries and failures: configuration, variant and how the run ended."""
    values, ended = json.loads((folder / RUN).read_text()), _ended(folder)
    return Run.model_validate({**values, **{name: value for name, value in ended.items() if name != COUNT}})


def _ended(folder: Path) -> dict[str, Any]:
    """Read how a run ended. Empty while the run goes on, or after it was killed."""
    path = folder / ENDED
    return {**json.loads(path.read_text())} if path.exists() else {}


def _of_folder(folder: Path) -> Run:
    """Read a run with its entries and failures. Raises BadInput when a run that has ended lost some of its entries."""
    # The entries are read last: a run that ends meanwhile has written all of them before it writes how it ended.
    head = _head(folder)
    counted = _ended(folder).get(COUNT)
    listed = [Entry.model_validate(line) for line in _lines(folder / ENTRIES)]
    if counted is not None and counted != len(listed):
        raise BadInput(
            f"{folder / ENTRIES} holds {len(listed)} entries, and the run ended with {counted} ({ENDED}): {RESTORE}"
        )
    entries = {entry.key: entry for entry in listed}
    failures = [Failure.model_validate(line) for line in _lines(folder / FAILURES)]
    return head.model_copy(update={"entries": closure(entries.values()), "failures": failures})


def _lines(path: Path) -> Iterator[Any]:
    """Yield the value of each line of a JSON Lines file. An incomplete last line, as after a kill, is left out."""
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, line in enumerate(lines[:-1], start=2):
        try:
            yield json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            if number < len(lines):
                raise


def _of_version_0_1(path: Path) -> Run:
    """Read a run of version 0.1, which is one file. A run of one stage also lists datasets of older runs."""
    values = json.loads(path.read_text())
    run = Run.model_validate({**values, "entries": closure(map(Entry.model_validate, values["entries"]))})
    whole = len(run.entries) == len(values["entries"]) and bool(run.of("explorer") or run.of("report"))
    return run.model_copy(update={"ended": "complete" if whole else "partial"})


def heads(store: Path, study: str, variant: str | None = None) -> Iterator[Run]:
    """Yield the runs of a study or variant without their entries and failures, the newest run first."""
    for number in reversed(numbers(store, study)):
        run = read_run(store, study, number, head=True)
        if variant in (None, run.variant):
            yield run


def last_run(store: Path, study: str, variant: str | None = None) -> Run | None:
    """Return the newest run of a study or variant, however it ended; None if there is no run."""
    newest = next(heads(store, study, variant), None)
    return read_run(store, study, newest.number) if newest else None


def newest_complete(store: Path, study: str, variant: str | None = None) -> Run | None:
    """Return the newest complete run of a study or variant; None if no run is complete."""
    newest = next((run for run in heads(store, study, variant) if run.is_complete), None)
    return read_run(store, study, newest.number) if newest else None


def variants(store: Path, study: str) -> list[str]:
    """Names of the variants of a study, in the order of their first runs."""
    return list(dict.fromkeys(reversed([run.variant for run in heads(store, study)])))


def remade(store: Path, run: Run) -> Entry | None:
    """The first entry whose dataset was made again since, with other bytes, so that the run shows it no longer.

    None if there is no such entry. A dataset that is missing or damaged is not compared.
    """
    for entry in run.entries:
        with contextlib.suppress(BadInput):
            if read_manifest(store / entry.dataset.path).digest != entry.dataset.digest:
                return entry
    return None


def _stands(store: Path, run: Run) -> bool:
    """Whether the run's datasets are those that it made or found. A warning says which was made again."""
    entry = remade(store, run)
    if entry is not None:
        log.warning("run %d is not shown: %s was made again since, with other bytes", run.number, entry.key)
    return entry is None


def shown_run(store: Path, study: str, number: int | None = None, variant: str | None = None) -> Run:
    """Return the run to show results of: run `number`, or else the newest complete run, or else the newest run.

    Raises BadInput, which lists the existing runs, variants or studies, when there is no such run.
    """
    if number is not None:
        run = read_run(store, study, number)
        if variant not in (None, run.variant):
            raise BadInput(f"run {number} of study {study!r} is of the variant {run.variant!r}, not {variant!r}")
        if (entry := remade(store, run)) is not None:
            raise BadInput(f"run {number} of study {study!r}: {entry.key} was made again since, with other bytes")
        return run
    complete = newest_complete(store, study, variant)
    if complete is not None and _stands(store, complete):
        return complete
    newest = last_run(store, study, variant)
    if newest is not None and newest == complete:
        raise BadInput(f"no run of study {study!r} can be shown: bridgescope run STUDY.toml")
    if newest is not None:
        return newest
    if variant is not None and numbers(store, study):
        raise BadInput(f"study {study!r} has no variant {variant!r}. Available: {', '.join(variants(store, study))}.")
    raise BadInput(f"study {study!r} has not run in {store}: it holds {', '.join(studies(store)) or 'no study'}")
