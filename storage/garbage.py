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
from storage.runs import Run, numbers, read_run, studies

RECIPE = re.compile(r"[0-9a-f]{20}")


class Item(NamedTuple):
    """A folder that can be deleted."""

    path: str  #: relative to the store
    bytes: int
    why: str  #: the dataset's entry and run, or the state of an unfinished folder


class Garbage(NamedTuple):
    """The folders that a collection would delete, and those that it leaves."""

    items: list[Item]
    kept: int  #: number of datasets that a retained run refers to
    in_use: list[Item]  #: in no retained run, but made or adopted since the oldest lease began
    leases: list[Lease]  #: the runs that protect the items of `in_use`
    at: float  #: start of the search, by the store's clock


def find_garbage(store: Path, keep: int = 1, *, interrupted: bool = False) -> Garbage:
    """Look for garbage. Deletes nothing.

    The retained runs of a study are its newest run and its `keep` newest runs with a report. While the study runs, all
    of its runs are retained.
    With `interrupted`, the datasets that interrupted runs had finished are garbage too. Raises BadInput when a run's
    file cannot be read, since its references are then unknown.
    """
    if keep < 1:
        raise BadInput(f"--keep {keep}: at least 1, the newest complete run of each study")
    at = clock(store)
    begun = [lease for lease in leases(store) if lease.live or not interrupted]
    since = begun[0].since if begun else math.inf
    used, names = _listed(store), dict[str, str]()
    for study in studies(store):
        runs = [read_run(store, study, number) for number in numbers(store, study)]
        retain_all = any(lease.study == study for lease in begun)
        for run in runs:
            retained = retain_all or run in _retained(runs, keep)
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
    return Garbage(items, kept, in_use, begun, at)


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
    return deleted


def _retained(runs: list[Run], keep: int) -> list[Run]:
    """The newest run, and the newest `keep` runs with a report."""
    return runs[-1:] + [run for run in runs if run.of("report")][-keep:]


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
