"""Garbage: datasets that no retained run refers to, and unfinished folders of interrupted processes.

Only two kinds of folders are deleted: datasets, which their manifest identifies, and folders with the name of a dataset
and the suffix `.partial` or `.old`. With a dropped variant, the records of its runs are deleted too.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from storage.dataset import locked
from storage.errors import BadInput
from storage.lease import Lease, is_held, leases, stamp, unused
from storage.listing import read_shards
from storage.manifest import MANIFEST, Damaged, read_manifest
from storage.runs import Run, numbers, path_of, read_run, studies, variants

RECIPE = re.compile(r"[0-9a-f]{20}")


class Item(NamedTuple):
    """A folder that can be deleted."""

    path: str  #: relative to the store
    bytes: int
    why: str  #: why it can be deleted: the state of an unfinished folder, or a run that lists it


class Drop(NamedTuple):
    """A variant of a study that is to be deleted."""

    study: str
    variant: str

    def __str__(self) -> str:
        return f"{self.study}:{self.variant}"


class Garbage(NamedTuple):
    """The folders that a collection would delete, and those that it leaves."""

    items: list[Item]
    kept: int  #: number of datasets that stay because a retained run or a source refers to them
    in_use: list[Item]  #: in no retained run, but protected by a lease or locked by a process
    leases: list[Lease]  #: leases of the runs that protect the items of `in_use`
    stamps: dict[str, int | None]  #: {path of an item: `storage.lease.stamp` of its dataset when the search began}
    damaged: list[str]  #: one sentence per folder with a damaged manifest; such folders are not deleted
    dropped: tuple[Item, ...] = ()  #: records of the runs of a dropped variant, each a folder; files in version 0.1

    def kept_for(self, lease: Lease) -> int:
        """Number of folders that stay because the run with this lease uses them."""
        return sum(_base(item.path) in lease.uses for item in self.in_use)


def find_garbage(store: Path, keep: int = 1, *, interrupted: bool = False, drop: Drop | None = None) -> Garbage:
    """Look for garbage. Deletes nothing.

    For each variant of a study, the `keep` newest complete runs and all runs after them are retained. While a study is
    running, all its runs are retained. With `interrupted`, runs that failed or were interrupted are not retained. No
    run of the variant `drop` is retained. Raises BadInput when a run cannot be read, since its datasets are then
    unknown, and when the variant `drop` does not exist.
    """
    if keep < 1:
        raise BadInput(f"--keep {keep}: at least 1, the newest complete run of each variant of a study")
    # The order matters: folders and stamps, then leases, then records. A run that uses a folder after its stamp was
    # read changes the stamp. A run that used the folder before has a lease, or, once it has ended, a record.
    datasets, damaged = _folders(store)
    stamps = {folder.relative_to(store).as_posix(): stamp(folder.with_suffix("")) for folder in datasets}
    begun = [lease for lease in leases(store) if lease.live or not interrupted]
    leased = {path for lease in begun for path in lease.uses}
    used, names, records = _listed(store), dict[str, str](), list[Item]()
    if drop is not None and drop.variant not in variants(store, drop.study):
        raise BadInput(f"--drop {drop}: no such variant. Available: {', '.join(_variants(store)) or 'none'}.")
    if drop is not None and any(lease.live and lease.study == drop.study for lease in begun):
        raise BadInput(f"--drop {drop}: the study {drop.study!r} is running: wait until it has ended")
    for study in studies(store):
        runs = [read_run(store, study, number) for number in numbers(store, study)]
        is_running = any(lease.study == study for lease in begun)
        retained_runs = runs if is_running else _retained(runs, keep, interrupted)
        dropped = [run for run in runs if drop == (study, run.variant)]
        for run in dropped:
            record = path_of(store, study, run.number)
            why = f"record of run {run.number} of {study}, variant {run.variant}"
            records.append(Item(record.relative_to(store).as_posix(), size_of(record), why))
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
    for folder in datasets:
        path = folder.relative_to(store).as_posix()
        suffix = folder.suffix.removeprefix(".")
        if path in used:
            kept += 1
            continue
        why = {"partial": "half made", "old": "half deleted"}.get(suffix) or names.get(path, "no run refers to it")
        busy = _base(path) in leased or is_held(folder.with_suffix(""))
        (in_use if busy else items).append(Item(path, size_of(folder), why))
    return Garbage(items, kept, in_use, begun, stamps, damaged, tuple(records))


def collect(store: Path, garbage: Garbage) -> list[Item]:
    """Delete garbage, except datasets that were used since the search began. Returns the deleted items.

    The items of `Garbage.dropped` are among them, after all others.
    """
    deleted = []
    with locked(store / "studies" / "garbage", used=False):
        for item in garbage.items:
            folder = store / item.path
            # A run may have adopted the dataset since the search, and may even have ended.
            with unused(folder.with_suffix(""), garbage.stamps[item.path]) as free:
                if not free or not folder.exists():
                    continue
                aside = folder.with_suffix(".old")  # renamed first, so that nothing resumes from a half-deleted folder
                if aside != folder:
                    shutil.rmtree(aside, ignore_errors=True)
                    os.rename(folder, aside)
                shutil.rmtree(aside)
                deleted.append(item)
        for item in garbage.dropped:
            record = store / item.path
            aside = record.with_suffix(".old")  # renamed first, so that no run is seen without its entries
            os.rename(record, aside)
            aside.unlink() if aside.is_file() else shutil.rmtree(aside)
            deleted.append(item)
    return deleted


def _retained(runs: list[Run], keep: int, interrupted: bool) -> list[Run]:
    """For each variant, return the newest `keep` complete runs and all runs after the newest complete run.

    With `interrupted`, only those later runs are returned that ended as runs of one stage ("partial").
    """
    retained: list[Run] = []
    for variant in dict.fromkeys(run.variant for run in runs):
        own = [run for run in runs if run.variant == variant]
        complete = [run for run in own if run.is_complete][-keep:]
        after = [run for run in own if not complete or run.number > complete[-1].number]
        retained += complete + [run for run in after if run.ended == "partial" or not interrupted]
    return retained


def _variants(store: Path) -> list[str]:
    """Return every variant in the store, as STUDY:VARIANT."""
    return [f"{study}:{variant}" for study in studies(store) for variant in variants(store, study)]


def _listed(store: Path) -> set[str]:
    """Return paths of the listings that the next scan of each source reads. Raises BadInput for a damaged manifest."""
    return {shard.path for path in store.glob("sources/*/manifest.json") for shard in read_shards(path)}


def damaged_folders(store: Path) -> list[str]:
    """Return one sentence for each folder that is named like a dataset and has a damaged manifest."""
    return _folders(store)[1]


def _folders(store: Path) -> tuple[list[Path], list[str]]:
    """Return all folders of datasets, and one sentence for each folder with a damaged manifest.

    A dataset is a folder whose name and manifest agree on its recipe. Folders `.partial` and `.old` are included.
    """
    folders, damaged = [], []
    for folder in sorted(store.glob("*/*")):
        if not RECIPE.fullmatch(folder.stem) or folder.is_symlink() or not folder.is_dir():
            continue
        if folder.suffix in (".partial", ".old"):
            folders.append(folder)
        elif not folder.suffix and (folder / MANIFEST).is_file():
            try:
                manifest = read_manifest(folder)
            except Damaged as error:
                damaged.append(f"{folder.relative_to(store).as_posix()}: {error}")
                continue
            if (manifest.stage, manifest.recipe) == (folder.parent.name, folder.name):
                folders.append(folder)
            else:
                damaged.append(f"{folder.relative_to(store).as_posix()}: holds the manifest of another dataset")
    return folders, damaged


def _base(path: str) -> str:
    """Return the path of a dataset from the path of its folder, which may end in `.partial` or `.old`."""
    return path.removesuffix(".partial").removesuffix(".old")


def size_of(folder: Path) -> int:
    """Return the bytes of a file, or of all files below a folder. Another process may remove files meanwhile."""
    total = 0
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_size if path.is_file() else 0
    return total
