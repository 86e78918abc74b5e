"""Bridges of every SAE, their totals, what matched similarity they add up to, and what chance gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq

from sae import SAE
from sae.concepts.bridge_nulls import bridge_nulls
from sae.concepts.coactivation import Bridges, Pairs, bridges_of
from sae.concepts.similarity import Biases, matched_similarity
from tasks.tables.frames import BRIDGES, NULL_DRAWS, SIMILARITY, TOTALS, empty, table
from tasks.tables.inputs import Analysis, Counted, Keys, classes_of, codes_of, counted_pairs, keys_of

DRAWS = 20  # of each null


class Tables(NamedTuple):
    """What `bridge_tables` gives besides the file of bridges."""

    rows: int  #: of the file
    totals: pl.DataFrame
    similarity: pl.DataFrame
    draws: pl.DataFrame


def bridge_tables(con: duckdb.DuckDBPyConnection, analysis: Analysis, out: Path, draws: int = DRAWS) -> Tables:
    """Write bridges.parquet, an SAE at a time: there may be millions each. Reads the views and the table concepts."""
    counted = counted_pairs(con, analysis.split)
    totals, similarity, drawn = [empty(TOTALS)], [empty(SIMILARITY)], [empty(NULL_DRAWS)]
    rows = 0
    with open_bridges(out) as file:
        for entry, net in analysis.trained():
            keys, pairs = keys_of(entry), pairs_of(con, keys_of(entry), counted, net.config.width)
            D, classes = net.dictionary.numpy().astype(np.float64), classes_of(con, keys)
            found = bridges_of(pairs, D, classes, analysis.min_pairs)
            rows += add_bridges(file, {**keys, "split": analysis.split}, found)
            totals.append(_labelled({**keys, "split": analysis.split}, found.totals, TOTALS))
            terms = matched_similarity(pairs, D, biases_of(net))
            similarity.append(
                _labelled(
                    {**keys, "split": analysis.split}, [{"term": t, "value": v} for t, v in terms.items()], SIMILARITY
                )
            )
            nulls = bridge_nulls(pairs, D, classes, analysis.min_pairs, draws, entry.seed or 0)
            drawn += [
                _labelled(
                    {**keys, "null": null, "draw": draw},
                    [{"statistic": name, "value": value} for name, value in figures.items()],
                    NULL_DRAWS,
                )
                for null, of_draws in nulls.items()
                for draw, figures in enumerate(of_draws)
            ]
    return Tables(rows, pl.concat(totals), pl.concat(similarity), pl.concat(drawn))


def open_bridges(out: Path) -> pq.ParquetWriter:
    """The file of bridges, to which one SAE after another is added."""
    schema = empty(BRIDGES).to_arrow().schema
    return pq.ParquetWriter(
        out / "bridges.parquet", schema, compression="zstd", use_dictionary=["model", "sae", "split"]
    )


def add_bridges(file: pq.ParquetWriter, keys: Keys, found: Bridges) -> int:
    """Add the bridges of one SAE. Returns how many."""
    here = table({**keys, **found.rows}, BRIDGES)
    file.write_table(here.to_arrow().cast(file.schema), row_group_size=131_072)
    return here.height


def pairs_of(con: duckdb.DuckDBPyConnection, keys: Keys, counted: Counted, width: int) -> Pairs:
    """The codes of one SAE over the counted pairs."""
    image = codes_of(con, keys, "image", counted.images)
    text = codes_of(con, keys, "text", counted.texts)
    return Pairs(image, text, counted.pair_image, np.arange(len(counted.texts)), width)


def biases_of(net: SAE) -> Biases:
    """What an SAE adds to the decoded codes of each modality: its bias, and the mean that centring took off."""
    nothing = np.zeros((1, net.config.width), np.float32)
    return Biases(*(net.decode(nothing, modality).numpy()[0].astype(np.float64) for modality in ("image", "text")))


def _labelled(keys: dict[str, Any], rows: list[dict[str, Any]], schema: dict[str, Any]) -> pl.DataFrame:
    found = pl.DataFrame([{**keys, **row} for row in rows], schema=schema)
    return found.with_columns(pl.col(pl.Float64).fill_nan(None))
