"""Reconstruction: one row per SAE with its settings and how well it rebuilds the counted rows of each modality."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import numpy as np
import polars as pl
from scipy.sparse import csr_array

import sae
from analysis.inputs import Analysis, biases_of, codes_of, keys_of
from analysis.statistic import Statistic, Table
from analysis.tables import SAE_KEYS, Schema, table_of_rows
from sae import SAE
from storage.embeddings import NDArray
from storage.rows import Ints, Rows
from storage.runs import Entry

FIGURES = ("r2", "r2_image", "r2_text", "r2_scalar_mean", "cosine", "l0", "l0_image", "l0_text", "hoyer")
SAES: Schema = {
    **SAE_KEYS, "architecture": pl.String, "dim": pl.Int64, "width": pl.Int64, "k": pl.Int64,
    "decoder_bias": pl.Boolean, "image_share": pl.String, "data_half": pl.String, "split": pl.String,
    **dict.fromkeys(FIGURES, pl.Float64), "rows_seen": pl.Int64, "path": pl.String, "dead_fraction": pl.Float64,
    "settings": pl.String, "frozen": pl.String, "twin_of": pl.String,
}  # fmt: skip
DEAD = "SELECT avg(dead::INTEGER) FROM concepts"
UNCOMPARED = ("dim", "seed", "rows_seen")  # entries of an SAE's configuration that are no settings
BLOCK = 8192  # rows decoded at a time


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The table saes. Its column dead_fraction is computed from the table concepts."""
    entry, net = analysis.sae
    figures = {
        **of_sae(con, analysis, entry, net, analysis.counted),
        "dead_fraction": con.execute(DEAD).fetchall()[0][0],
    }
    return {"saes": table_of_rows([figures], SAES)}


def of_sae(con: duckdb.DuckDBPyConnection, analysis: Analysis, entry: Entry, net: SAE, rows: Rows) -> dict[str, Any]:
    """The row of one SAE: its settings, and how well it rebuilds `rows`. Reads the table codes."""
    items = {"image": (rows.image, rows.image_id), "text": (rows.text, rows.pair_id)}
    sums = {name: _reconstruction(con, net, name, *of) for name, of in items.items()}
    config = net.config
    return {
        **keys_of(entry), "architecture": config.architecture, "dim": config.dim, "width": config.width,
        "k": config.k, "decoder_bias": config.decoder_bias, "image_share": str(config.image_share),
        "data_half": analysis.data_half, "split": analysis.split,
        **sae.metrics.combine(sums["image"], sums["text"]),
        "rows_seen": config.rows_seen, "path": entry.dataset.path, "settings": _settings(net, analysis.data_half),
        "frozen": config.frozen, "twin_of": analysis.twin_of,
    }  # fmt: skip


def _settings(net: SAE, data_half: str | None) -> str:
    """The settings of an SAE as a JSON object, with the keys of config.json: later keys only where they are set."""
    settings = {name: value for name, value in net.config.model_dump(mode="json").items() if name not in UNCOMPARED}
    return json.dumps(settings | ({"data_half": data_half} if data_half else {}), sort_keys=True)


def _reconstruction(
    con: duckdb.DuckDBPyConnection, net: SAE, modality: str, x: NDArray, ids: Ints
) -> sae.metrics.Reconstruction:
    """Sums over the rows x [n, d] of one modality, rebuilt from their codes as they were exported. ids: [n]."""
    order = np.argsort(ids, kind="stable")
    codes = codes_of(con, modality, ids[order])
    z = csr_array((codes.values, codes.concepts, codes.indptr), shape=(len(ids), net.config.width))
    D, bias = net.dictionary.numpy(), getattr(biases_of(net), modality).astype(np.float32)
    sums = sae.metrics.Reconstruction()
    for start in range(0, len(ids), BLOCK):
        block = z[start : start + BLOCK]
        sums.update_sparse(np.asarray(x[order[start : start + BLOCK]]), block @ D + bias, block)
    return sums


STATISTIC = Statistic(
    name="reconstruction",
    version="4",
    needs=("concepts",),
    tables={"saes": SAES},
    make=make,
)
