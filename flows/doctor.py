"""The command `doctor`: versions, devices, and a check of every byte of each study's newest run."""

from __future__ import annotations

import shutil
from pathlib import Path

from storage.dataset import library_versions, verify
from storage.garbage import find_garbage
from storage.lease import leases
from storage.runs import last_run, studies


def examine(store: Path | None) -> tuple[list[str], bool]:
    """Return the lines to print, and True when no dataset of a newest run is missing or damaged."""
    import torch

    lines = [f"{name} {version}" for name, version in library_versions().items()]
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    lines.append(
        f"devices: cpu ({torch.get_num_threads()} threads)" + "".join(f", cuda:{i} {g}" for i, g in enumerate(gpus))
    )
    lines.append(f"npm: {shutil.which('npm') or 'not found (the source npm-emoji needs it)'}")
    if store is None:
        return lines, True
    free = shutil.disk_usage(store).free / 1e9
    lines.append(f"store: {store} ({free:.0f} GB free)")
    problems = []
    for study in studies(store):
        run = last_run(store, study)
        if run is not None:
            damaged = [problem for entry in run.entries if (problem := verify(store, entry.dataset))]
            lines.append(f"study {study}: run {run.number}, {len(run.entries)} datasets, {len(damaged)} not sound")
            problems += damaged
    lines += [
        f"study {lease.study}: {'being run by' if lease.live else 'cut short:'} {lease.holder}"
        for lease in leases(store)
    ]
    garbage = find_garbage(store)
    unfinished = sum(item.why == "half made" for item in (*garbage.items, *garbage.in_use))
    if unfinished:
        lines.append(f"interrupted: {unfinished} datasets are half made; the next run completes them")
    if garbage.items:
        size = sum(item.bytes for item in garbage.items) / 1e6
        lines.append(f"not referenced by any run: {len(garbage.items)} folders, {size:.1f} MB (bridgescope gc)")
    return lines + [f"not sound: {problem}: delete its folder and run again" for problem in problems], not problems
