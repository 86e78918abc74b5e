"""The tables that SQL cannot make: what the SAE room computes, put into rows. Each function gives one table."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

import sae
from sae import SAE
from sae.concepts.coactivation import Codes, bridges
from sae.concepts.matching import floor_matched, floor_random, match
from sae.concepts.retrieval import recall
from storage.catalog import frame
from storage.rows import Rows, select
from storage.runs import Entry

DRAWS = 20  # of each floor
GALLERY = 1000  # images of the retrieval gallery (DEFINITIONS)
UNIMODAL = 0.1  # a concept is unimodal below this modality score, or above one minus it
COUNTED_PAIRS = "SELECT pair_id, image_id FROM pairs WHERE $split = 'all' OR split = $split ORDER BY pair_id"
Schema = dict[str, Any]
SAE_KEYS: Schema = {"model": pl.String, "sae": pl.String, "seed": pl.Int32}
MATCHES: Schema = {
    "model": pl.String, "sae_a": pl.String, "seed_a": pl.Int32, "sae_b": pl.String, "seed_b": pl.Int32,
    "concept_a": pl.Int32, "concept_b": pl.Int32, "cosine": pl.Float32,
}  # fmt: skip
BRIDGES: Schema = {
    **SAE_KEYS, "split": pl.String, "image_concept": pl.Int32, "text_concept": pl.Int32, "pairs": pl.Int64,
    "coactivation": pl.Float64, "cosine": pl.Float64, "bridge": pl.Float64, "covariance_bridge": pl.Float64,
    "correlation_bridge": pl.Float64,
}  # fmt: skip
TOTALS: Schema = {
    **SAE_KEYS, "split": pl.String, "class_image": pl.String, "class_text": pl.String, "self": pl.Boolean,
    "kind": pl.String, "total": pl.Float64, "positive": pl.Float64, "negative": pl.Float64,
}  # fmt: skip
RETRIEVAL: Schema = {
    **SAE_KEYS, "split": pl.String, "intervention": pl.String, "direction": pl.String, "gallery": pl.Int64,
    "captions": pl.Int64, "r1": pl.Float64, "r5": pl.Float64, "r10": pl.Float64,
}  # fmt: skip


def write_table(out: Path, name: str, table: pl.DataFrame) -> None:
    """Write one table as Parquet."""
    table.write_parquet(out / f"{name}.parquet", compression="zstd", row_group_size=131_072)


def rows_of(store: Path, entries: list[Entry], model: str | None, heldout: float, split: str) -> Rows:
    """The counted rows of one model."""
    pairs = {entry.shard: entry.dataset for entry in entries if entry.stage == "acquire"}
    embeddings = {entry.shard: entry.dataset for entry in entries if entry.stage == "embed" and entry.model == model}
    return select(store, [pairs[shard] for shard in embeddings], list(embeddings.values()), heldout, split)


def trained(store: Path, entries: list[Entry]) -> Iterator[tuple[Entry, SAE]]:
    """Every SAE of the study, loaded."""
    for entry in entries:
        if entry.stage == "train":
            yield entry, SAE.load(store / entry.dataset.path)


def sae_rows(store: Path, entries: list[Entry], heldout: float, split: str) -> pl.DataFrame:
    """One row an SAE: its settings, and how well it reconstructs the counted rows of each modality."""
    found = []
    for model, group in itertools.groupby(trained(store, entries), key=lambda pair: pair[0].model):
        rows = rows_of(store, entries, model, heldout, split)
        for entry, net in group:
            sums = {name: _reconstruction(net, x, name) for name, x in (("image", rows.image), ("text", rows.text))}
            config = net.config
            found.append(
                {
                    "model": model, "sae": entry.sae, "seed": entry.seed, "architecture": config.architecture,
                    "dim": config.dim, "width": config.width, "k": config.k, "decoder_bias": config.decoder_bias,
                    "image_share": str(config.image_share), "split": split,
                    **sae.metrics.combine(sums["image"], sums["text"]),
                    "rows_seen": config.rows_seen, "path": entry.dataset.path,
                }
            )  # fmt: skip
    return pl.DataFrame(found, schema_overrides=SAE_KEYS)


def _reconstruction(net: SAE, x: np.ndarray[Any, np.dtype[np.float32]], modality: str) -> sae.metrics.Reconstruction:
    sums = sae.metrics.Reconstruction()
    for start in range(0, len(x), 8192):
        block = x[start : start + 8192]
        codes = net.encode(block, modality)
        sums.update(block, net.decode(codes, modality).numpy(), codes.numpy())
    return sums


def match_rows(store: Path, entries: list[Entry]) -> pl.DataFrame:
    """The exact assignment of every pair of seeds of a setting, in both orders."""
    found = [pl.DataFrame(schema=MATCHES)]
    for (model, name), group in itertools.groupby(
        trained(store, entries), key=lambda pair: (pair[0].model, pair[0].sae)
    ):
        for (a, net_a), (b, net_b) in itertools.combinations(list(group), 2):
            assigned, cosines = match(net_a.dictionary.numpy(), net_b.dictionary.numpy())
            one = {"concept_a": np.arange(len(assigned)), "concept_b": assigned, "cosine": cosines}
            for x, y, columns in ((a, b, ("concept_a", "concept_b")), (b, a, ("concept_b", "concept_a"))):
                keys = {"model": model, "sae_a": name, "seed_a": x.seed, "sae_b": name, "seed_b": y.seed}
                both = {"concept_a": one[columns[0]], "concept_b": one[columns[1]], "cosine": one["cosine"]}
                found.append(_table({**keys, **both}, MATCHES))
    return pl.concat(found).sort("model", "sae_a", "seed_a", "sae_b", "seed_b", "concept_a")


def floor_rows(store: Path, entries: list[Entry]) -> pl.DataFrame:
    """The matched cosines of every dictionary against drawn rows: 20 draws of both floors."""
    schema = {**SAE_KEYS, "null": pl.String, "draw": pl.Int32, "concept_id": pl.Int32, "cosine": pl.Float32}
    found = [pl.DataFrame(schema=schema)]
    for entry, net in trained(store, entries):
        for null, floor in (("floor_random", floor_random), ("floor_matched", floor_matched)):
            cosines = np.asarray(floor(net.dictionary.numpy(), DRAWS, entry.seed or 0))
            draws, width = cosines.shape
            columns = {
                "model": entry.model, "sae": entry.sae, "seed": entry.seed, "null": null,
                "draw": np.repeat(np.arange(draws), width), "concept_id": np.tile(np.arange(width), draws),
                "cosine": cosines.ravel(),
            }  # fmt: skip
            found.append(_table(columns, schema))
    return pl.concat(found)


def bridge_tables(
    con: duckdb.DuckDBPyConnection, store: Path, entries: list[Entry], split: str, min_pairs: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Bridges with at least `min_pairs` pairs, and their untruncated totals, of every SAE. Reads the views."""
    counted = frame(con, COUNTED_PAIRS, {"split": split})
    images = counted["image_id"].unique().sort().to_numpy()
    texts = counted["pair_id"].to_numpy()
    pair_image = np.searchsorted(images, counted["image_id"].to_numpy())
    rows, totals = [pl.DataFrame(schema=BRIDGES)], [pl.DataFrame(schema=TOTALS)]
    for entry, net in trained(store, entries):
        keys = {"model": entry.model, "sae": entry.sae, "seed": entry.seed}
        found = bridges(
            codes_of(con, keys, "image", images),
            codes_of(con, keys, "text", texts),
            pair_image,
            np.arange(len(texts)),
            net.dictionary.numpy(),
            classes_of(con, keys),
            min_pairs,
        )
        rows.append(
            _table({**keys, "split": split, **found.rows}, BRIDGES).with_columns(pl.col(pl.Float64).fill_nan(None))
        )
        totals.append(pl.DataFrame([{**keys, "split": split, **total} for total in found.totals], schema=TOTALS))
    order = ["model", "sae", "seed", "image_concept", "text_concept"]
    return pl.concat(rows).sort(order), pl.concat(totals)


def codes_of(
    con: duckdb.DuckDBPyConnection, keys: dict[str, Any], modality: str, items: np.ndarray[Any, np.dtype[np.int64]]
) -> Codes:
    """The codes of the named items (ascending ids) in compressed rows, one row an item."""
    found = con.execute(
        """SELECT item_id, concept_id, activation FROM activations
        WHERE model = $model AND sae = $sae AND seed = $seed AND modality = $modality
        ORDER BY item_id, concept_id""",
        {**keys, "modality": modality},
    ).fetchnumpy()
    row = np.searchsorted(items, found["item_id"])
    counted = (row < len(items)) & (items[np.minimum(row, len(items) - 1)] == found["item_id"])
    indptr = np.searchsorted(row[counted], np.arange(len(items) + 1)).astype(np.int64)
    return Codes(indptr, found["concept_id"][counted].astype(np.int32), found["activation"][counted].astype(np.float32))


def classes_of(con: duckdb.DuckDBPyConnection, keys: dict[str, Any]) -> list[str]:
    """The class of every concept of one SAE: image, text, bimodal, or silent (never fires on the counted items)."""
    scores = con.execute(
        "SELECT modality_score FROM concepts WHERE model = $model AND sae = $sae AND seed = $seed ORDER BY concept_id",
        keys,
    ).fetchall()
    return [class_of(score) for (score,) in scores]


def class_of(score: float | None) -> str:
    """Unimodal class of a modality score."""
    if score is None:
        return "silent"
    return "text" if score < UNIMODAL else "image" if score > 1 - UNIMODAL else "bimodal"


def retrieval_rows(store: Path, entries: list[Entry], heldout: float, split: str) -> pl.DataFrame:
    """Recall of every model's own embeddings among the gallery: the images of the split with the smallest split_u."""
    found = []
    for model in dict.fromkeys(entry.model for entry in entries if entry.stage == "embed"):
        rows = rows_of(store, entries, model, heldout, split)
        gallery = np.sort(np.argsort(rows.split_u, kind="stable")[:GALLERY])
        position = np.full(len(rows.image), -1)
        position[gallery] = np.arange(len(gallery))
        own = position[rows.owner]
        result = recall(rows.image[gallery], rows.text[own >= 0], own[own >= 0], (1, 5, 10))
        for direction, at in result.items():
            found.append(
                {
                    "model": model, "split": split, "intervention": "embeddings", "direction": direction,
                    "gallery": len(gallery), "captions": int((own >= 0).sum()), **{f"r{k}": at[k] for k in (1, 5, 10)},
                }
            )  # fmt: skip
    return pl.DataFrame(found, schema=RETRIEVAL)


def _table(columns: dict[str, Any], schema: Schema) -> pl.DataFrame:
    """Arrays and constants as one table; constants are repeated, also over no rows."""
    arrays = {name: value for name, value in columns.items() if isinstance(value, np.ndarray)}
    constants = [pl.lit(value, dtype=schema[name]).alias(name) for name, value in columns.items() if name not in arrays]
    return pl.DataFrame(arrays).with_columns(constants).select(pl.col(name).cast(kind) for name, kind in schema.items())
