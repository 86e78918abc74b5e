"""Explore: the map of each SAE's concepts, and the explorer's data files, made from the catalog."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import polars as pl
from scipy import sparse

from storage.catalog import create_views
from storage.dataset import Dataset
from storage.embeddings import NDArray
from storage.rows import Ints, Rows, select
from storage.runs import Entry
from tasks.stage import Runtime, stage

if TYPE_CHECKING:
    from report.explorer import ItemMap

LAYOUT, IDS, ABOUT = "layout.npy", "ids.npy", "about.json"


@stage("layouts", version="1")
def layout(out: Path, sae: Dataset, runtime: Runtime) -> int:
    """Place the concepts of one SAE in the plane. Returns the number of concepts."""
    from report.explorer import concept_map
    from sae import SAE

    places = concept_map(SAE.load(runtime.store / sae.path).dictionary.numpy())
    np.save(out / LAYOUT, places)
    return len(places)


@stage("item_layouts", version="1")
def item_layout(
    out: Path, pairs: list[Dataset], embeddings: list[Dataset], codes: list[Dataset], runtime: Runtime
) -> int:
    """Place all images and captions of a model in the plane. Returns the number of items.

    codes: the activations of one SAE on all shards, to place the items by their codes; empty: by their embeddings.
    The embeddings are read a few times, a shard at a time: those of all shards may not fit in memory.
    """
    from report.explorer import place_blocks, place_codes

    def shards() -> Iterator[Rows]:
        for of_shard, embedded in zip(pairs, embeddings, strict=True):
            yield select(runtime.store, [of_shard], [embedded], heldout=0.0)

    ids = [(rows.image_id, rows.pair_id) for rows in shards()]
    image_id, pair_id = (np.sort(np.concatenate(each)) for each in zip(*ids, strict=True))

    def blocks() -> Iterator[tuple[Ints, NDArray]]:
        for rows in shards():
            yield np.searchsorted(image_id, rows.image_id), rows.image
            yield len(image_id) + np.searchsorted(pair_id, rows.pair_id), rows.text

    if codes:
        placed = place_codes(_codes(runtime.store, codes, image_id, pair_id))
    else:
        placed = place_blocks(blocks, len(image_id), len(pair_id))
    np.save(out / LAYOUT, placed.places.astype(np.float32))
    np.save(out / IDS, np.concatenate([image_id, pair_id]))
    about = {"images": len(image_id), "layout": placed.layout, "fitted": placed.fitted}
    (out / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    return len(placed.places)


def _codes(store: Path, codes: list[Dataset], image_id: Ints, pair_id: Ints) -> sparse.csr_matrix:
    """The codes of all items as a sparse matrix, the images first."""
    files = [str(file) for each in codes for file in sorted((store / each.path).glob("*.parquet"))]
    table = pl.read_parquet(files, columns=["modality", "concept_id", "item_id", "activation"])
    ids, concept = table["item_id"].to_numpy(), table["concept_id"].to_numpy()
    is_text = (table["modality"] == "text").to_numpy()
    item = np.where(is_text, len(image_id) + np.searchsorted(pair_id, ids), np.searchsorted(image_id, ids))
    shape = (len(image_id) + len(pair_id), int(concept.max(initial=0)) + 1)
    return sparse.csr_matrix((table["activation"].to_numpy(), (item, concept)), shape)


@stage("explorers", version="7")
def explore(
    out: Path,
    entries: list[dict[str, Any]],
    layouts: dict[str, Dataset],
    page: Dataset,
    config: dict[str, Any],
    items: dict[str, Dataset],
    runtime: Runtime,
) -> int:
    """Write the explorer's data files of a study.

    layouts: {"model/sae/seed": dataset of the map} of every SAE that the explorer shows.
    items: {"model" or "model/sae/seed": dataset of the map of its items, by embeddings or by codes}.
    """
    from report.explorer import write_explorer
    from report.explorer.shares import Dictionary
    from sae import SAE
    from sae.ledger import offsets

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
        maps = [_item_map(runtime.store / dataset.path, key) for key, dataset in items.items()]
        return write_explorer(out, con, config, runtime.store / page.path, places, dictionary_of, rows_of, maps)


def _item_map(folder: Path, key: str) -> ItemMap:
    """The map of items that `item_layout` wrote into a folder."""
    from report.explorer import ItemMap

    model, *of = key.split("/")
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    sae, seed = (of[0], int(of[1])) if of else (None, None)
    return ItemMap(model, sae, seed, np.load(folder / IDS), places=np.load(folder / LAYOUT), **about)
