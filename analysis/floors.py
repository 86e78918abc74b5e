"""Floors: the cosines that the concepts of an SAE reach when they are matched with random dictionaries."""

from __future__ import annotations

import duckdb
import numpy as np
import polars as pl

from analysis.inputs import Analysis, keys_of
from analysis.stability import floor_matched, floor_random
from analysis.statistic import Statistic, Table
from analysis.tables import SAE_KEYS, Schema, table

FLOORS: Schema = {
    **SAE_KEYS, "null": pl.String, "draw": pl.Int32, "concept_id": pl.Int32, "cosine": pl.Float32,
}  # fmt: skip
DRAWS = 20  # draws per floor


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The rows of `floors` of one SAE: DRAWS draws of each floor. The SAE's seed is also the seed of the draws."""
    entry, net = analysis.sae
    tables = []
    for null, floor in (("floor_random", floor_random), ("floor_matched", floor_matched)):
        cosines = floor(net.dictionary.numpy(), DRAWS, entry.seed or 0, analysis.device)
        draws, width = cosines.shape
        columns = {
            **keys_of(entry), "null": null, "draw": np.repeat(np.arange(draws), width),
            "concept_id": np.tile(np.arange(width), draws), "cosine": cosines.ravel(),
        }  # fmt: skip
        tables.append(table(columns, FLOORS))
    return {"floors": pl.concat(tables)}


STATISTIC = Statistic(
    name="floors",
    version="1",
    tables={"floors": FLOORS},
    make=make,
)
