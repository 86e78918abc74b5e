"""Explore: the map of each SAE's concepts, and the explorer's data files, made from the catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from storage.catalog import create_views
from storage.dataset import Dataset
from storage.runs import Entry
from tasks.stage import Runtime, stage

LAYOUT = "layout.npy"


@stage("layouts", version="1")
def layout(out: Path, sae: Dataset, runtime: Runtime) -> int:
    """Place the concepts of one SAE in the plane. Returns the number of concepts."""
    from report.explorer import concept_map
    from sae import SAE

    places = concept_map(SAE.load(runtime.store / sae.path).dictionary.numpy())
    np.save(out / LAYOUT, places)
    return len(places)


@stage("explorers", version="4")
def explore(
    out: Path,
    entries: list[dict[str, Any]],
    layouts: dict[str, Dataset],
    page: Dataset,
    config: dict[str, Any],
    runtime: Runtime,
) -> int:
    """Write the explorer's data files of a study.

    layouts: {"model/sae/seed": dataset of the map} of every SAE that the explorer shows.
    """
    from report.explorer import write_explorer
    from report.explorer.shares import Dictionary
    from sae import SAE
    from sae.ledger import offsets
    from storage.rows import Rows, select

    handles = [Entry(**entry) for entry in entries]
    trained = {f"{e.model}/{e.sae}/{e.seed}": e.dataset for e in handles if e.kind == "train"}

    def dictionary_of(key: str) -> Dictionary:
        net = SAE.load(runtime.store / trained[key].path)
        no_codes = np.zeros((1, net.config.width), np.float32)
        bias = {modality: net.decode(no_codes, modality)[0].double().numpy() for modality in ("image", "text")}
        means = {modality: offsets(net, modality)[1] for modality in bias}
        return Dictionary(net.dictionary.double().numpy(), bias, offsets(net, "image")[0], means)

    def rows_of(model: str) -> Rows:
        embeddings = {entry.shard: entry.dataset for entry in handles if entry.kind == "embed" and entry.model == model}
        pairs = {entry.shard: entry.dataset for entry in handles if entry.kind == "acquire"}
        shards = [pairs[shard] for shard in embeddings]
        return select(runtime.store, shards, list(embeddings.values()), heldout=0.0, normalised=False)

    with duckdb.connect(config={"threads": 1}) as con:  # one thread sums in a fixed order: equal bytes
        create_views(con, runtime.store, handles, config["pairs"]["heldout"])
        places = {key: np.load(runtime.store / dataset.path / LAYOUT) for key, dataset in layouts.items()}
        return write_explorer(out, con, config, runtime.store / page.path, places, dictionary_of, rows_of)
