"""Mixtures: SAEs of one setting, or embeddings of one model, that different code, libraries or machines have made.

The study compares such datasets as if they were made in one way. But SAEs from two versions of a trainer differ by more
than their seeds.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from storage.errors import BadInput
from storage.manifest import Manifest, read_manifest
from storage.runs import Entry, Run

#: {kind of dataset that is checked for mixtures: name of a group in the warning}
COMPARED = {"train": "SAEs {sae} of {model}", "embed": "embeddings of {model}"}
Group = tuple[str, str | None, str | None]


def mixtures(store: Path, run: Run) -> list[str]:
    """One line for each group of datasets of a run that was made by different versions of a stage, libraries or CPUs.

    Datasets whose manifest is missing or damaged are left out. A value that an older manifest does not record is not
    compared.
    """
    groups: dict[Group, list[tuple[Entry, Manifest]]] = defaultdict(list)
    for entry in run.entries:
        if entry.kind in COMPARED:
            try:
                manifest = read_manifest(store / entry.dataset.path)
            except BadInput:
                continue  # `status` and `doctor` report such a manifest
            groups[entry.kind, entry.model, entry.sae].append((entry, manifest))
    lines = []
    for (kind, model, sae), members in groups.items():
        found = [f"{name} ({_told(values)})" for name, values in _values(members).items() if len(values) > 1]
        if found:
            lines.append(f"{COMPARED[kind].format(model=model, sae=sae)} were made differently: {'; '.join(found)}")
    return lines


def _values(members: list[tuple[Entry, Manifest]]) -> dict[str, dict[str, list[Entry]]]:
    """{name of a recorded property: {its value: entries with this value}} of a group."""
    values: dict[str, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry, manifest in members:
        for name, value in _recorded(manifest).items():
            values[name][str(value)].append(entry)
    return values


def _recorded(manifest: Manifest) -> dict[str, Any]:
    """What can make two datasets of equal arguments differ: the version of the stage, libraries, device and CPU."""
    machine = manifest.machine or {}
    device = machine.get("gpu", machine.get("device"))
    code = manifest.code or {}
    return {
        "version of the stage": manifest.version,
        **({"code of the trainer and the encoders": code["results"]} if code.get("results") else {}),
        **manifest.libraries,
        **({"device": str(device).partition(":")[0]} if device else {}),
        **({"CPU": machine["cpu"]} if "cpu" in machine and device == "cpu" else {}),
    }


def _told(values: dict[str, list[Entry]]) -> str:
    """The values of a property, each with its seeds or shards. More than four seeds or shards are only counted."""
    return ", ".join(f"{value}: {_places(entries)}" for value, entries in values.items())


def _places(entries: list[Entry]) -> str:
    name = "seed" if entries[0].seed is not None else "shard"
    numbers = [str(getattr(entry, name)) for entry in entries]
    if len(numbers) > 4:
        return f"{len(numbers)} {name}s"
    return f"{name}{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
