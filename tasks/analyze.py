"""Analyze: the tables of a study, computed in parts: one per model, per SAE and per pair of seeds, then joined.

A part is computed again if its own data changed, or if the version of one of its statistics changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.parts import pairs_of_seeds, versions
from storage.dataset import Dataset
from storage.runs import Entry
from tasks.devices import device_at_hand
from tasks.stage import Runtime, stage

if TYPE_CHECKING:
    from analysis.inputs import Analysis

__all__ = ["analyze", "matching", "measures", "pairs_of_seeds", "space", "versions"]

Entries = list[dict[str, Any]]  #: entries of a run, each as a dict


@stage("spaces", version="1")
def space(out: Path, entries: Entries, heldout: float, split: str, statistics: dict[str, str], runtime: Runtime) -> int:
    """Compute the statistics of one model's embeddings that need no SAE: modality subspaces and retrieval.

    entries: the shards of pairs and the model's embeddings. statistics: the versions of the statistics of this part.
    Raises BadInput where the split has no images or no captions.
    """
    from analysis.inputs import Analysis

    return _computed("model", Analysis(runtime.store, _read(entries), out, heldout, split))


@stage("measures", version="2", on_device=True)
def measures(
    out: Path,
    entries: Entries,
    space: Dataset,
    path: str,
    heldout: float,
    split: str,
    min_pairs: int,
    statistics: dict[str, str],
    runtime: Runtime,
    data_half: str | None = None,
) -> int:
    """Compute the statistics of one SAE.

    entries: the shards of pairs, the labels if there are any, the model's embeddings, the SAE and its activations.
    space: the model's dataset of `space`. path: the folder of the SAE, for the table saes. statistics: the versions of
    the statistics of this part.
    Raises BadInput for activations that are missing or not above 0. The message names the file and the command to run.
    """
    from analysis.inputs import Analysis

    device = device_at_hand(runtime.device)
    analysis = Analysis(runtime.store, _read(entries), out, heldout, split, min_pairs, data_half, device)
    return _computed("sae", analysis, runtime.store / space.path)


@stage("matchings", version="1", on_device=True)
def matching(out: Path, entries: Entries, statistics: dict[str, str], runtime: Runtime) -> int:
    """Match the concepts of every two SAEs of two seeds. The SAEs belong to one setting and its data diets.

    entries: the SAEs of both seeds. statistics: the versions of the statistics of this part. Raises BadInput if two
    SAEs differ in width.
    """
    import duckdb

    from analysis.inputs import Analysis
    from analysis.statistic import compute

    with duckdb.connect(config={"threads": 1}) as con:
        device = device_at_hand(runtime.device)
        return compute(con, Analysis(runtime.store, _read(entries), out, device=device), "pair")


@stage("tables", version="3")
def analyze(out: Path, parts: Entries, statistics: dict[str, str], runtime: Runtime) -> int:
    """Join the tables of all parts of a study, and compute the findings from them. Writes one Parquet file per table.

    parts: the parts of every model, SAE and pair of seeds. statistics: the versions of all statistics.
    """
    from analysis.joined import join

    return join(runtime.store, _read(parts), out)


def _read(entries: Entries) -> list[Entry]:
    return [Entry(**entry) for entry in entries]


def _computed(per: str, analysis: Analysis, made: Path | None = None) -> int:
    """Compute the statistics of one part. made: the folder of another part, if they need its tables."""
    import duckdb

    from analysis.inputs import open_part
    from analysis.statistic import compute
    from analysis.tables import read_tables

    with duckdb.connect(config={"threads": 1}) as con:  # one thread sums in a fixed order: equal bytes
        open_part(con, analysis)
        if made is not None:
            read_tables(con, made)
        return compute(con, analysis, per)
