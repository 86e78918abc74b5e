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

SHARDS = ("pairs", "embeddings")  # arguments of a task that name shards


def training_shards(
    store: Path, retrain: float | str, before: Entry, every: dict[str, list[Dataset]], now: Address
) -> dict[str, list[Dataset]]:
    """Pairs and embeddings to train an SAE on: `every` shard, or those that the SAE of the last run was trained on.

    retrain: "never", or the factor by which rows have to grow. It is about rows that grew: an SAE of other settings, of
    another split, or of rows that another model embedded is trained anew on all shards. before: the SAE's entry in the
    last run. now: the address of the SAE when it is trained on all shards.
    """
    half = len(before.inputs) // 2  # recorded in the order of the task's arguments: pairs, then embeddings
    kept = {"pairs": before.inputs[:half], "embeddings": before.inputs[half:]}
    grown = sum(shard.rows for shard in every["embeddings"]) / max(1, sum(shard.rows for shard in kept["embeddings"]))
    if not isinstance(retrain, str) and grown >= retrain:
        return every
    same = _how(store, before.dataset) == _how_of(now.stage, now.version, now.arguments)
    return kept if same and _embedded_alike(store, kept["embeddings"], every["embeddings"]) else every


def _embedded_alike(store: Path, kept: list[Dataset], now: list[Dataset]) -> bool:
    """Whether what embedded each of the kept shards, such as model and dtype, embeds a shard of the study now."""
    if {shard.recipe for shard in kept} <= {shard.recipe for shard in now}:
        return True
    means = [_how(store, shard) for shard in now]
    return all((how := _how(store, shard)) is not None and how in means for shard in kept)


def _how(store: Path, dataset: Dataset) -> dict[str, Any] | None:
    """How a dataset was made, without the shards that it was made from; None if the store does not hold it any more."""
    try:
        manifest = manifest_of(store, dataset)
    except BadInput:
        return None
    return _how_of(manifest["stage"], manifest["version"], manifest["arguments"])


def _how_of(stage: str, version: str, arguments: dict[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in arguments.items() if name not in SHARDS}
    return {"stage": stage, "version": version, "options": options}
