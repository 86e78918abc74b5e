"""One table of a published study per model: its items with places, pictures, captions and strongest concepts.

Its columns are those that other viewers of embeddings open: embedding-atlas takes `projection_x` and `projection_y`
(`--x`, `--y`), `caption` (`--text`) and `image` (`--image`), a struct of bytes and path as libraries of the Hugging
Face hub write pictures, which FiftyOne reads too. Read: embedding-atlas's page "Command Line Tool".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.dataset import Dataset
from storage.embeddings import NDArray
from storage.rows import Ints, select
from storage.runs import Run
from storage.statements import statement

TOP = 5  # concepts stored per item
SAMPLE = 20_000  # rows from which the two directions of the projection are found
BATCH = 8192  # rows of the table in memory at a time
Shard = tuple[Dataset, Dataset]  # pairs, embeddings


class Projection(NamedTuple):
    """A linear map to the plane."""

    means: dict[str, NDArray]  #: [D] mean row of each modality, which is subtracted: the gap is not shown
    directions: NDArray  #: [D, 2] first two principal components of the centred rows of both modalities


def write_tables(folder: Path, store: Path, run: Run, con: duckdb.DuckDBPyConnection, site: Path) -> None:
    """Write `folder/<model>.parquet` for every model of a run. The concepts are those of its first SAE.

    con: the catalog of the run. site: the folder of the unpacked pages, from which thumbnails and names are taken.
    """
    folder.mkdir()
    thumbs = _thumbnails(site)
    for model in dict.fromkeys(str(entry.model) for entry in run.of("embed")):
        trained = [entry for entry in run.of("train", model=model) if entry.sae == run.config["saes"][0]["name"]]
        if not trained:
            continue
        sae, seed = trained[0].sae, trained[0].seed
        named = json.loads((site / f"data/runs/{model}/{sae}/{seed}/concepts.json").read_text())["name"]
        names = [name or f"concept {number}" for number, name in enumerate(named)]
        shards = _shards(run, model)
        with con.cursor() as own:
            own.register("table_places", _places(store, shards, projection(store, shards)))
            own.register("table_thumbs", thumbs)
            own.register("table_names", pa.table({"concept_id": range(len(names)), "name": names}))
            answer = own.sql(statement("explorer/items_table", model=model, sae=sae, seed=seed, top=TOP))
            reader = answer.to_arrow_reader(BATCH)
            with pq.ParquetWriter(folder / f"{model}.parquet", reader.schema, compression="zstd") as out:
                for batch in reader:
                    out.write_batch(batch)


def projection(store: Path, shards: list[Shard]) -> Projection:
    """The projection of a model's embeddings, found from at most about SAMPLE rows of each modality."""
    each = max(1, SAMPLE // len(shards))
    taken: dict[str, list[NDArray]] = {"image": [], "text": []}
    for _, modality, rows in _rows(store, shards):
        taken[modality].append(rows[:: max(1, len(rows) // each)])
    sampled = {modality: np.concatenate(rows).astype(np.float64) for modality, rows in taken.items()}
    means = {modality: rows.mean(0) if len(rows) else rows.sum(0) for modality, rows in sampled.items()}
    centred = np.concatenate([rows - means[modality] for modality, rows in sampled.items()])
    directions = np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1]
    # A principal component has no sign of its own: its largest entry is made positive.
    signs = np.sign(directions[np.abs(directions).argmax(0), np.arange(directions.shape[1])])
    return Projection(means, directions * signs)


def _shards(run: Run, model: str) -> list[Shard]:
    pairs = {entry.shard: entry.dataset for entry in run.of("acquire")}
    return [(pairs[entry.shard], entry.dataset) for entry in run.of("embed", model=model)]


def _rows(store: Path, shards: list[Shard]) -> Iterator[tuple[Ints, str, NDArray]]:
    """(item ids, modality, normalised embeddings) of each shard and modality."""
    for pairs, embeddings in shards:
        rows = select(store, [pairs], [embeddings], heldout=0.0)
        yield rows.image_id, "image", rows.image
        yield rows.pair_id, "text", rows.text


def _places(store: Path, shards: list[Shard], to: Projection) -> pa.Table:
    """The place of every item: item_id, modality, projection_x, projection_y."""
    tables = []
    for ids, modality, rows in _rows(store, shards):
        x, y = ((rows - to.means[modality]) @ to.directions).astype(np.float32).T
        kinds = pa.array([modality] * len(ids), pa.string())
        tables.append(pa.table({"item_id": ids, "modality": kinds, "projection_x": x, "projection_y": y}))
    return pa.concat_tables(tables)


def _thumbnails(site: Path) -> pa.Table:
    """The thumbnails of the pages: image_id, path in the published folder, bytes."""
    files = sorted((site / "thumbs").glob("*.webp"), key=lambda file: int(file.stem))
    columns = {
        "image_id": pa.array([int(file.stem) for file in files], pa.int64()),
        "path": pa.array([f"thumbs/{file.name}" for file in files], pa.string()),
        "bytes": pa.array([file.read_bytes() for file in files], pa.binary()),
    }
    return pa.table(columns)
