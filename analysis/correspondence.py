"""Correspondence: the partners of one model's concepts in another model, by their codes of the same items.

Two models have no common space, so that their dictionaries cannot be compared by cosine. Both saw the same images and
captions, so that codes can be correlated as those of two seeds are.
"""

from __future__ import annotations

import itertools

import duckdb
import polars as pl

from analysis.inputs import Analysis, counted_pairs
from analysis.partners import DRAWN, FIGURES, SPLIT, compared, items_of, run_of, with_keys
from analysis.statistic import Statistic, Table
from analysis.tables import Schema

RUNS: Schema = {"model_a": pl.String, "model_b": pl.String, "sae": pl.String, "seed": pl.Int32}
CORRESPONDENCE: Schema = {**RUNS, **SPLIT, **FIGURES}
CORRESPONDENCE_FLOORS: Schema = {**RUNS, **SPLIT, **DRAWN}
WITHIN = (("image", "image"), ("text", "text"))


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The tables correspondence and correspondence_floors of every two models, with one setting and seed.

    An image that one of the models could not embed is left out, with its captions.
    """
    counted = counted_pairs(con, analysis.split)
    runs = [run_of(con, analysis, entry, net, counted) for entry, net in analysis.trained()]
    found, drawn = [], []
    for a, b in itertools.combinations(runs, 2):
        for reverse, (rows, draws) in enumerate(compared(a, b, items_of(counted), WITHIN)):
            first, other = (b, a) if reverse else (a, b)
            at = {
                "model_a": first.entry.model, "model_b": other.entry.model, "sae": a.entry.sae, "seed": a.entry.seed,
                "split": analysis.split,
            }  # fmt: skip
            found.append(with_keys(rows, at, CORRESPONDENCE))
            drawn.append(with_keys(draws, at, CORRESPONDENCE_FLOORS))
    return {"correspondence": pl.concat(found), "correspondence_floors": pl.concat(drawn)}


STATISTIC = Statistic(
    name="correspondence",
    version="1",
    tables={"correspondence": CORRESPONDENCE, "correspondence_floors": CORRESPONDENCE_FLOORS},
    make=make,
    per="models",
)
