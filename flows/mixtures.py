"""Mixtures: SAEs of one setting, or embeddings of one model, that different code, libraries or machines have made.

They are compared as if they were of one kind. Seeds of two trainers differ by more than their seeds.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from storage.errors import BadInput
from storage.manifest import Manifest, read_manifest
from storage.runs import Entry, Run

#: Kinds whose datasets are compared or joined, and what their group is called.
COMPARED = {"train": "SAEs {sae} of {model}", "embed": "embeddings of {model}"}
Group = tuple[str, str | None, str | None]


def mixtures(store: Path, run: Run) -> list[str]:
    """One line for each group of datasets of a run that was made by different versions of a stage, libraries or CPUs.

    Datasets whose manifest is missing or damaged are left out, and so is what an older manifest does not record.
    """
    groups: dict[Group, list[tuple[Entry, Manifest]]] = defaultdict(list)
    for entry in run.entries:
        if entry.kind in COMPARED:
            try:
                manifest = read_manifest(store / entry.dataset.path)
            except BadInput:
                continue  # `status` and `doctor` tell of it
            groups[entry.kind, entry.model, entry.sae].append((entry, manifest))
    lines = []
    for (kind, model, sae), members in groups.items():
        found = [f"{name} ({_told(values)})" for name, values in _values(members).items() if len(values) > 1]
        if found:
            lines.append(f"{COMPARED[kind].format(model=model, sae=sae)} were made differently: {'; '.join(found)}")
    return lines


def _values(members: list[tuple[Entry, Manifest]]) -> dict[str, dict[str, list[Entry]]]:
    """{what is recorded: {value: entries}} of a group."""
    values: dict[str, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry, manifest in members:
        for name, value in _recorded(manifest).items():
            values[name][str(value)].append(entry)
    return values


def _recorded(manifest: Manifest) -> dict[str, Any]:
    """What can make two datasets of equal arguments differ: the version of the stage, libraries, device and CPU."""
    machine = manifest.machine or {}
    device = machine.get("gpu", machine.get("device"))
    return {
        "version of the stage": manifest.version,
        **manifest.libraries,
        **({"device": str(device).partition(":")[0]} if device else {}),
        **({"CPU": machine["cpu"]} if "cpu" in machine and device == "cpu" else {}),
    }


def _told(values: dict[str, list[Entry]]) -> str:
    """The values of a group, each with its seeds or shards; of many only how many there are."""
    return ", ".join(f"{value}: {_places(entries)}" for value, entries in values.items())


def _places(entries: list[Entry]) -> str:
    name = "seed" if entries[0].seed is not None else "shard"
    numbers = [str(getattr(entry, name)) for entry in entries]
    if len(numbers) > 4:
        return f"{len(numbers)} {name}s"
    return f"{name}{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
