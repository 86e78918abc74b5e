"""Analyze: the tables of a study, computed in parts (per model, SAE and pair of seeds, and over models), then joined.

A part is computed again if its own data changed, or if the version of one of its statistics changed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.parts import pairs_of_seeds, versions
from storage.dataset import Dataset
from storage.runs import Entry
from tasks.devices import device_at_hand
from tasks.stage import Runtime, stage

if TYPE_CHECKING:
    from analysis.inputs import Analysis

__all__ = [
    "analyze", "correspondence", "matching", "measures", "names", "pairs_of_seeds", "partners", "space", "versions",
]  # fmt: skip

Entries = list[dict[str, Any]]  #: entries of a run, each as a dict


@stage("spaces", version="1")
def space(out: Path, entries: Entries, heldout: float, split: str, statistics: dict[str, str], runtime: Runtime) -> int:
    """Compute the statistics of one model's embeddings that need no SAE: modality subspaces, retrieval and probes.

    entries: the shards of pairs, the labels if there are any, and the model's embeddings. statistics: the versions of
    the statistics of this part. Raises BadInput where the split has no images or no captions.
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
    twin_of: str | None = None,
    independent: Entries | None = None,
) -> int:
    """Compute the statistics of one SAE.

    entries: the shards of pairs, the labels if there are any, the model's embeddings, the SAE and its activations.
    space: the model's dataset of `space`. path: the folder of the SAE, for the table saes. statistics: the versions of
    the statistics of this part. twin_of: the setting whose frozen twin the SAE is. independent: embeddings of the same
    shards by another model.
    Raises BadInput for activations that are missing or not above 0. The message names the file and the command to run.
    """
    from analysis.inputs import Analysis

    device = device_at_hand(runtime.device)
    sides = data_half, twin_of, _read(independent or [])
    analysis = Analysis(runtime.store, _read(entries), out, heldout, split, min_pairs, *sides, device)
    return _computed("sae", analysis, runtime.store / space.path)


@stage("names", version="1", unhashed=("spec",), on_device=True)
def names(
    out: Path,
    entries: Entries,
    measures: Dataset,
    heldout: float,
    statistics: dict[str, str],
    runtime: Runtime,
    model: Dataset | str | None = None,
    dtype: str = "float32",
    spec: str = "",
) -> int:
    """Name the concepts of one SAE, and score the names with the model's text encoder.

    entries: the shards of pairs, the model's embeddings, the SAE and its activations. measures: the SAE's dataset of
    `measures`. statistics: the versions of the statistics of this part. model, dtype, spec: as in `embed`; without a
    model, as for vectors that were computed elsewhere, names have no score.
    Raises BadInput for activations that are missing or not above 0, and for a model that was replaced meanwhile.
    """
    from analysis.inputs import Analysis

    encode = None if model is None else _text_encoder(model, spec, dtype, runtime)
    analysis = Analysis(runtime.store, _read(entries), out, heldout, encode=encode)
    return _computed("names", analysis, runtime.store / measures.path, ["concepts"])


def _text_encoder(model: Dataset | str, spec: str, dtype: str, runtime: Runtime) -> Callable[[list[str]], Any]:
    """The function that embeds texts with a model. The model is loaded when it is first called."""

    def encode(texts: list[str]) -> Any:
        from tasks.embed import Wanted, load_encoder

        wanted = Wanted(model, spec, dtype)
        return load_encoder(wanted, device_at_hand(runtime.device), runtime.store).encode_texts(texts)

    return encode


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


@stage("partners", version="1")
def partners(
    out: Path, entries: Entries, heldout: float, split: str, statistics: dict[str, str], runtime: Runtime
) -> int:
    """Compare the codes of two seeds of one setting.

    entries: the shards of pairs, the model's embeddings, both SAEs and their activations. statistics: the versions of
    the statistics of this part. Raises BadInput for activations that are missing or not above 0.
    """
    from analysis.inputs import Analysis

    return _computed("seeds", Analysis(runtime.store, _read(entries), out, heldout, split))


@stage("correspondences", version="1")
def correspondence(
    out: Path, entries: Entries, heldout: float, split: str, statistics: dict[str, str], runtime: Runtime
) -> int:
    """Compare the codes of all models, of one setting and seed.

    entries: the shards of pairs, and of every model its embeddings, SAE and activations. statistics: the versions of
    the statistics of this part. Raises BadInput for activations that are missing or not above 0.
    """
    from analysis.inputs import Analysis

    return _computed("models", Analysis(runtime.store, _read(entries), out, heldout, split))


@stage("tables", version="3")
def analyze(
    out: Path, parts: Entries, statistics: dict[str, str], runtime: Runtime, twins: list[dict[str, str]] | None = None
) -> int:
    """Join the tables of all parts of a study, and compute the findings from them. Writes one Parquet file per table.

    parts: the parts of every model, SAE and pair of seeds, and those over models. statistics: the versions of all
    statistics. twins: rows of `analysis.joined.Twin`, the frozen twins of the study's settings.
    """
    from analysis.joined import Twin, join

    return join(runtime.store, _read(parts), out, [Twin(**twin) for twin in twins or []])


def _read(entries: Entries) -> list[Entry]:
    return [Entry(**entry) for entry in entries]


def _computed(per: str, analysis: Analysis, made: Path | None = None, needed: list[str] | None = None) -> int:
    """Compute the statistics of one part.

    made: the folder of another part, if they need its tables. needed: the tables to read from it, by default all.
    """
    import duckdb

    from analysis.inputs import open_part
    from analysis.statistic import compute
    from analysis.tables import read_tables

    with duckdb.connect(config={"threads": 1}) as con:  # one thread sums in a fixed order: equal bytes
        open_part(con, analysis)
        if made is not None:
            read_tables(con, made, needed)
        return compute(con, analysis, per)
