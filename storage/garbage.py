"""Garbage: datasets that no retained run refers to, and unfinished folders of interrupted processes.

Only two kinds of folders are deleted: datasets, as identified by their manifest, and folders that have the name of a
dataset with the suffix `.partial` or `.old`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from storage.dataset import MANIFEST, locked
from storage.errors import BadInput
from storage.lease import Lease, clock, leases, unused
from storage.runs import Run, numbers, path_of, read_run, studies, variants

RECIPE = re.compile(r"[0-9a-f]{20}")


class Item(NamedTuple):
    """A folder that can be deleted."""

    path: str  #: relative to the store
    bytes: int
    why: str  #: the dataset's entry and run, or the state of an unfinished folder


class Drop(NamedTuple):
    """A variant of a study that is to be deleted."""

    study: str
    variant: str

    def __str__(self) -> str:
        return f"{self.study}:{self.variant}"


class Garbage(NamedTuple):
    """The folders that a collection would delete, and those that it leaves."""

    items: list[Item]
    kept: int  #: number of datasets that a retained run refers to
    in_use: list[Item]  #: in no retained run, but made or adopted since the oldest lease began
    leases: list[Lease]  #: the runs that protect the items of `in_use`
    at: float  #: start of the search, by the store's clock
    dropped: tuple[Path, ...] = ()  #: folders of the runs of a dropped variant


def find_garbage(store: Path, keep: int = 1, *, interrupted: bool = False, drop: Drop | None = None) -> Garbage:
    """Look for garbage. Deletes nothing.

    The retained runs of a study are, for each of its variants, the `keep` newest complete runs and all runs after them;
    while the study runs, all of its runs are retained. With `interrupted`, runs that failed or were interrupted are
    not retained. No run of the variant `drop` is retained. Raises BadInput when a run cannot be read, since its
    references are then unknown, and when there is no such variant.
    """
    if keep < 1:
        raise BadInput(f"--keep {keep}: at least 1, the newest complete run of each study")
    at = clock(store)
    begun = [lease for lease in leases(store) if lease.live or not interrupted]
    since = begun[0].since if begun else math.inf
    used, names, folders = _listed(store), dict[str, str](), list[Path]()
    if drop is not None and drop.variant not in variants(store, drop.study):
        raise BadInput(f"--drop {drop}: no such variant; there are {', '.join(_variants(store)) or 'none'}")
    for study in studies(store):
        runs = [read_run(store, study, number) for number in numbers(store, study)]
        is_running = any(lease.study == study for lease in begun)
        retained_runs = runs if is_running else _retained(runs, keep, interrupted)
        dropped = [run for run in runs if drop == (study, run.variant)]
        folders += [path_of(store, study, run.number) for run in dropped]
        for run in runs:
            retained = run in retained_runs and run not in dropped
            for entry in run.entries:
                name = " ".join(str(part) for part in (entry.kind, entry.model, entry.sae) if part)
                names[entry.dataset.path] = f"{name} of {study}, run {run.number}"
                if retained:
                    used |= {entry.dataset.path, *(handle.path for handle in entry.inputs)}
    items: list[Item] = []
    in_use: list[Item] = []
    kept = 0
    for folder in _folders(store):
        path = folder.relative_to(store).as_posix()
        suffix = folder.suffix.removeprefix(".")
        if path in used:
            kept += 1
            continue
        why = {"partial": "half made", "old": "half deleted"}.get(suffix) or names.get(path, "no run refers to it")
        with unused(folder.with_suffix(""), since) as free:
            (items if free else in_use).append(Item(path, _size(folder), why))
    return Garbage(items, kept, in_use, begun, at, tuple(folders))


def collect(store: Path, garbage: Garbage) -> list[Item]:
    """Delete garbage, except datasets that were used since the search began. Returns the deleted items."""
    deleted = []
    with locked(store / "studies" / "garbage"):
        for item in garbage.items:
            folder = store / item.path
            # A run that began after the search, and has perhaps ended, may have adopted the dataset.
            with unused(folder.with_suffix(""), garbage.at) as free:
                if not free or not folder.exists():
                    continue
                aside = folder.with_suffix(".old")  # renamed first, so that nothing resumes from a half-deleted folder
                if aside != folder:
                    shutil.rmtree(aside, ignore_errors=True)
                    os.rename(folder, aside)
                shutil.rmtree(aside)
                deleted.append(item)
        for folder in garbage.dropped:
            folder.unlink() if folder.is_file() else shutil.rmtree(folder)
    return deleted


def _retained(runs: list[Run], keep: int, interrupted: bool) -> list[Run]:
    """For each variant, the newest `keep` complete runs and all runs after the newest complete one.

    With `interrupted`, of the latter only runs of one stage that ended.
    """
    retained: list[Run] = []
    for variant in dict.fromkeys(run.variant for run in runs):
        own = [run for run in runs if run.variant == variant]
        complete = [run for run in own if run.is_complete][-keep:]
        after = [run for run in own if not complete or run.number > complete[-1].number]
        retained += complete + [run for run in after if run.ended == "partial" or not interrupted]
    return retained


def _variants(store: Path) -> list[str]:
    """Every variant in the store, as STUDY:VARIANT."""
    return [f"{study}:{variant}" for study in studies(store) for variant in variants(store, study)]


def _listed(store: Path) -> set[str]:
    """Paths of the listings that the next scan of each source reads."""
    manifests = [json.loads(path.read_text()) for path in store.glob("sources/*/manifest.json")]
    return {shard["path"] for manifest in manifests for shard in manifest["shards"]}


def _folders(store: Path) -> list[Path]:
    """All folders named by a recipe that their manifest confirms, and all `<recipe>.partial` and `<recipe>.old`."""
    folders = []
    for folder in sorted(store.glob("*/*")):
        if not RECIPE.fullmatch(folder.stem) or folder.is_symlink() or not folder.is_dir():
            continue
        if folder.suffix in (".partial", ".old"):
            folders.append(folder)
        elif not folder.suffix and (folder / MANIFEST).is_file():
            manifest = json.loads((folder / MANIFEST).read_text())
            if (manifest["stage"], manifest["recipe"]) == (folder.parent.name, folder.name):
                folders.append(folder)
    return folders


def _size(folder: Path) -> int:
    """Total bytes of the files below a folder, which another process may be changing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_size if path.is_file() else 0
    return total
