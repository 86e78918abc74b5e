"""Analyze: every table of the study, recomputed from activations and SAEs; SQL where SQL serves, kernels where not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from storage.catalog import create_views, frame
from storage.runs import Entry
from storage.statements import literal
from storage.tables import Trained, fill, fill_concepts
from tasks.stage import Runtime, stage
from tasks.tables.bridges import bridge_tables
from tasks.tables.frames import write_table
from tasks.tables.geometry import geometry_tables, usage_draws
from tasks.tables.inputs import Analysis, check, keys_of
from tasks.tables.retrieval import retrieval_rows
from tasks.tables.saes import sae_rows
from tasks.tables.stability import floor_rows, match_rows

DEAD = "SELECT model, sae, seed, avg(dead::INTEGER) AS dead_fraction FROM concepts GROUP BY ALL"


@stage("tables", version="2")
def analyze(
    out: Path,
    entries: list[dict[str, Any]],
    heldout: float,
    split: str,
    min_pairs: int,
    diets: dict[str, dict[str, str | None]],
    runtime: Runtime,
) -> int:
    """Compute the tables of a study from its datasets, and write one Parquet file each.

    Raises BadInput, naming the file and what to run, for activations that are missing or not numbers, seeds that differ
    in width, or a modality without items.
    """
    handles = [Entry(**entry) for entry in entries]
    analysis = Analysis(runtime.store, handles, heldout, split, min_pairs, diets)
    with duckdb.connect(config={"threads": 1}) as con:  # one thread: sums in one order, the same bytes every time
        create_views(con, runtime.store, handles, heldout)
        check(con, analysis)
        tables, rows = make_tables(con, analysis, out)
    for name, table in tables.items():
        write_table(out, name, table)
    return rows + sum(table.height for table in tables.values())


def make_tables(con: duckdb.DuckDBPyConnection, analysis: Analysis, out: Path) -> tuple[dict[str, pl.DataFrame], int]:
    """Every table but bridges, which is written to `out`, and the number of bridges. Later tables read earlier ones."""
    made: dict[str, pl.DataFrame] = {}

    def keep(name: str, table: pl.DataFrame, **hidden: pl.DataFrame) -> None:
        made[name] = table
        for label, frame_ in {name: table, **hidden}.items():
            con.register(label, frame_.to_arrow())

    fill_concepts(con, trained_of(analysis), analysis.split)
    geometry = geometry_tables(con, analysis)
    keep("geometry", geometry.geometry, concept_geometry=geometry.concepts, null_summaries=geometry.nulls)
    fill(con, "concepts")
    saes = sae_rows(analysis)
    keep("saes", saes.join(frame(con, DEAD), on=["model", "sae", "seed"], maintain_order="left"))
    keep("matches", match_rows(analysis))
    keep("floors", floor_rows(analysis))
    bridges = bridge_tables(con, analysis, out)
    con.execute(f"CREATE TEMP VIEW bridges AS FROM read_parquet({literal(str(out / 'bridges.parquet'))})")
    draws = pl.concat([bridges.draws, usage_draws(con, analysis)])
    keep("bridge_totals", bridges.totals, null_draws=draws)
    keep("matched_similarity", bridges.similarity)
    fill(con, "nulls")
    keep("retrieval", retrieval_rows(con, analysis))
    fill(con, "findings")
    return made | {name: frame(con, f"FROM {name}") for name in ("concepts", "concept_groups", "nulls", "findings")}, (
        bridges.rows
    )


def trained_of(analysis: Analysis) -> list[Trained]:
    """The SAEs of the study, as SQL needs them."""
    return [Trained(**keys_of(entry), width=net.config.width) for entry, net in analysis.trained()]
