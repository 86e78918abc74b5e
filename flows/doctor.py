"""The command `doctor`: print versions and devices, warn of mixtures, and check the store for damage.

For each variant, the datasets of the newest complete run and of later runs are read whole and compared with their
digests. All damage is listed with its path: the search goes on after damage is found.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from flows.mixtures import mixtures
from storage.errors import BadInput
from storage.garbage import damaged_folders, find_garbage, size_of
from storage.health import current, damaged_datasets, damaged_sources, readable_runs
from storage.lease import leases
from storage.provenance import code, cpu, library_versions
from storage.runs import Run, studies


def examine(store: Path | None) -> tuple[list[str], bool]:
    """Return the lines to print, and True when nothing in the store is damaged."""
    lines = _surroundings()
    if store is None:
        return lines, True
    lines.append(f"store: {store} ({shutil.disk_usage(store).free / 1e9:.0f} GB free)")
    if (downloads := store / "downloads").is_dir():
        size = size_of(downloads) / 1e6
        lines.append(f"downloads: {size:.1f} MB, which gc never deletes; a run fetches what it needs of them again")
    problems = damaged_sources(store)
    for study in studies(store):
        runs, damaged = readable_runs(store, study)
        problems += damaged
        checked = current(runs)
        unsound = damaged_datasets(store, checked)
        problems += unsound
        if checked:
            count = len({entry.dataset.path for run in checked for entry in run.entries})
            counts = f"{count} datasets, {len(unsound)} not sound"
            lines.append(f"study {study}: run{'s' if len(checked) > 1 else ''} {_numbers(checked)}, {counts}")
        for run in checked:
            lines += [f"study {study}: warning: run {run.number}: {mixture}" for mixture in mixtures(store, run)]
    lines += [
        f"study {lease.study}: {'being run by' if lease.live else 'interrupted:'} {lease.holder}"
        for lease in leases(store)
    ]
    told = {problem.partition(":")[0] for problem in problems}
    damaged = [sentence for sentence in damaged_folders(store) if sentence.partition(":")[0] not in told]
    problems += [f"{sentence}: delete its folder and run again" for sentence in damaged]
    lines += _garbage(store)
    return lines + [f"not sound: {problem}" for problem in dict.fromkeys(problems)], not problems


def _numbers(runs: list[Run]) -> str:
    return ", ".join(str(run.number) for run in runs)


def _surroundings() -> list[str]:
    """Lines on the code, libraries, devices and programs."""
    import torch

    made = code()
    commit = f", commit {made['commit'][:12]}{' with changes' if made['dirty'] else ''}" if made["commit"] else ""
    gpus = [f", cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return [
        f"bridgescope {made['version']}{commit}",
        *(f"{name} {version}" for name, version in library_versions().items()),
        f"devices: cpu ({cpu()}, {torch.get_num_threads()} threads){''.join(gpus)}",
        f"npm: {shutil.which('npm') or 'not found (the source npm-emoji needs it)'}",
    ]


def _garbage(store: Path) -> list[str]:
    """Lines on unfinished and unreferenced folders."""
    try:
        garbage = find_garbage(store)
    except (BadInput, OSError) as error:
        return [f"garbage: not searched for: {error}"]
    lines = []
    unfinished = sum(item.why == "half made" for item in (*garbage.items, *garbage.in_use))
    if unfinished:
        lines.append(f"interrupted: {unfinished} datasets are half made; the next run completes them")
    if garbage.items:
        size = sum(item.bytes for item in garbage.items) / 1e6
        lines.append(f"not referenced by any run: {len(garbage.items)} folders, {size:.1f} MB (bridgescope gc)")
    return lines
