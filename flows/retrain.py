"""The shards that an SAE is trained on when a study has grown: all of them, or those of the last run.

This is the only place where an earlier run decides what is trained. The result is stored in the run, as the inputs of
the SAE's entry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from storage.dataset import Address, Dataset, manifest_of
from storage.errors import BadInput
from storage.runs import Entry

SHARDS = ("pairs", "embeddings")  # names of the task's arguments that hold shards


def training_shards(
    store: Path, retrain: float | str, before: Entry, every: dict[str, list[Dataset]], now: Address
) -> dict[str, list[Dataset]]:
    """Pairs and embeddings to train an SAE on: all shards, or only those that the SAE of the last run was trained on.

    retrain: the factor by which the rows have to grow before all shards are used, or "never". It applies only if rows
    were added and nothing else changed: if the settings, the split or the embedding model changed, all shards are used.
    before: the SAE's entry in the last run. every: all shards. now: the address of the SAE trained on all shards.
    """
    kept = shards_of(before)
    grown = sum(shard.rows for shard in every["embeddings"]) / max(1, sum(shard.rows for shard in kept["embeddings"]))
    if not isinstance(retrain, str) and grown >= retrain:
        return every
    same = _how(store, before.dataset) == _how_of(now.stage, now.version, now.arguments)
    return kept if same and _embedded_alike(store, kept["embeddings"], every["embeddings"]) else every


def shards_of(before: Entry) -> dict[str, list[Dataset]]:
    """The shards that the SAE of a run's entry was trained on."""
    half = len(before.inputs) // 2  # the first half of the inputs are the pairs, the second half the embeddings
    return {"pairs": before.inputs[:half], "embeddings": before.inputs[half:]}


def _embedded_alike(store: Path, kept: list[Dataset], now: list[Dataset]) -> bool:
    """Whether the study still embeds some shard in the same way (model, dtype and so on) as each of the kept shards."""
    if {shard.recipe for shard in kept} <= {shard.recipe for shard in now}:
        return True
    means = [_how(store, shard) for shard in now]
    return all((how := _how(store, shard)) is not None and how in means for shard in kept)


def _how(store: Path, dataset: Dataset) -> dict[str, Any] | None:
    """How a dataset was made, without the shards that it was made from. None if the dataset is gone."""
    try:
        manifest = manifest_of(store, dataset)
    except BadInput:
        return None
    return _how_of(manifest["stage"], manifest["version"], manifest["arguments"])


def _how_of(stage: str, version: str, arguments: dict[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in arguments.items() if name not in SHARDS}
    return {"stage": stage, "version": version, "options": options}
