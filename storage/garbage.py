"""Garbage: datasets that no run which counts refers to, and what interrupted processes left half made.

Nothing is deleted but folders that a manifest proves to be datasets, and their `.partial` and `.old`.
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
from storage.runs import Run, numbers, read_run, studies

RECIPE = re.compile(r"[0-9a-f]{20}")


class Item(NamedTuple):
    """A folder that could go."""

    path: str  #: relative to the store
    bytes: int
    why: str  #: what it was, or that it is half made


class Garbage(NamedTuple):
    """What a collection would delete, and what it leaves."""

    items: list[Item]
    kept: int  #: datasets that a run which counts refers to
    in_use: list[Item]  #: unreferenced, but made or adopted since the oldest lease
    leases: list[Lease]  #: the runs that `in_use` is kept for
    at: float  #: when the search began, by the store's clock


def find_garbage(store: Path, keep: int = 1, *, interrupted: bool = False) -> Garbage:
    """Look for garbage. Deletes nothing.

    The runs that count are, of each study, the newest, the `keep` newest that reached their report, and all of them
    while the study runs. With `interrupted`, what runs that were cut short had finished may go too. Raises BadInput
    when a run's file cannot be read: what it refers to is then not known.
    """
    if keep < 1:
        raise BadInput(f"--keep {keep}: at least 1, the newest complete run of each study")
    at = clock(store)
    begun = [lease for lease in leases(store) if lease.live or not interrupted]
    since = begun[0].since if begun else math.inf
    used, was = _listed(store), dict[str, str]()
    for study in studies(store):
        runs = [read_run(store, study, number) for number in numbers(store, study)]
        count_all = any(lease.study == study for lease in begun)
        for run in runs:
            counts = count_all or run in _counting(runs, keep)
            for entry in run.entries:
                name = " ".join(str(part) for part in (entry.kind, entry.model, entry.sae) if part)
                was[entry.dataset.path] = f"{name} of {study}, run {run.number}"
                if counts:
                    used |= {entry.dataset.path, *(handle.path for handle in entry.inputs)}
    items: list[Item] = []
    in_use: list[Item] = []
    kept = 0
    for folder in _folders(store):
        path = folder.relative_to(store).as_posix()
        half = folder.suffix.removeprefix(".")
        if path in used:
            kept += 1
            continue
        why = {"partial": "half made", "old": "half deleted"}.get(half) or was.get(path, "no run refers to it")
        with unused(folder.with_suffix(""), since) as free:
            (items if free else in_use).append(Item(path, _size(folder), why))
    return Garbage(items, kept, in_use, begun, at)


def collect(store: Path, garbage: Garbage) -> list[Item]:
    """Delete what was found. A dataset that somebody has come to use since is left. Returns what was deleted."""
    deleted = []
    with locked(store / "studies" / "garbage"):
        for item in garbage.items:
            folder = store / item.path
            # A run that began since the search, and may have ended since, can have adopted any of this.
            with unused(folder.with_suffix(""), garbage.at) as free:
                if not free or not folder.exists():
                    continue
                aside = folder.with_suffix(".old")  # renamed first: nothing may resume from a half-deleted folder
                if aside != folder:
                    shutil.rmtree(aside, ignore_errors=True)
                    os.rename(folder, aside)
                shutil.rmtree(aside)
                deleted.append(item)
    return deleted


def _counting(runs: list[Run], keep: int) -> list[Run]:
    """The newest run, and the newest `keep` that reached their report."""
    return runs[-1:] + [run for run in runs if run.of("report")][-keep:]


def _listed(store: Path) -> set[str]:
    """Listings that the next scan of a source will read."""
    manifests = [json.loads(path.read_text()) for path in store.glob("sources/*/manifest.json")]
    return {shard["path"] for manifest in manifests for shard in manifest["shards"]}


def _folders(store: Path) -> list[Path]:
    """Every dataset, and every leftover of one: folders named by a recipe, with a manifest that says so."""
    found = []
    for folder in sorted(store.glob("*/*")):
        if not RECIPE.fullmatch(folder.stem) or folder.is_symlink() or not folder.is_dir():
            continue
        if folder.suffix in (".partial", ".old"):
            found.append(folder)
        elif not folder.suffix and (folder / MANIFEST).is_file():
            manifest = json.loads((folder / MANIFEST).read_text())
            if (manifest["stage"], manifest["recipe"]) == (folder.parent.name, folder.name):
                found.append(folder)
    return found


def _size(folder: Path) -> int:
    """Bytes below a folder, which another process may be changing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_size if path.is_file() else 0
    return total
