"""Analyze: every table of the study, recomputed from activations and SAEs; SQL where SQL serves, kernels where not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from storage.catalog import create_views, frame
from storage.dataset import Dataset
from storage.runs import Entry
from storage.statements import SQL
from tasks.stage import Runtime, stage
from tasks.tables import bridge_tables, floor_rows, match_rows, retrieval_rows, sae_rows, write_table

DEAD = "SELECT model, sae, seed, avg(dead::INTEGER) AS dead_fraction FROM concepts GROUP BY ALL"


@stage("tables", version="1")
def analyze(
    out: Path, entries: list[dict[str, Any]], heldout: float, split: str, min_pairs: int, runtime: Runtime
) -> int:
    """Compute the tables of a study from its datasets, and write one Parquet file each."""
    handles = [Entry(**entry) for entry in entries]
    with duckdb.connect(config={"threads": 1}) as con:  # one thread: sums in one order, the same bytes every time
        create_views(con, runtime.store, handles, heldout)
        saes = sae_rows(runtime.store, handles, heldout, split)
        con.register("sae_list", saes.select("model", "sae", "seed", "width").to_arrow())
        concepts = (SQL / "tables" / "concepts.sql").read_text()
        con.execute(f"CREATE TABLE concepts AS {concepts}", {"split": split})
        dead = frame(con, DEAD)
        floors = floor_rows(runtime.store, handles)
        con.register("floors", floors.to_arrow())
        con.execute(f"CREATE TABLE nulls AS {(SQL / 'tables' / 'nulls.sql').read_text()}")
        bridges, totals = bridge_tables(con, runtime.store, handles, split, min_pairs)
        tables = {
            "saes": saes.join(dead, on=["model", "sae", "seed"], maintain_order="left"),
            "concepts": frame(con, "FROM concepts"),
            "matches": match_rows(runtime.store, handles),
            "floors": floors,
            "nulls": frame(con, "FROM nulls"),
            "bridges": bridges,
            "bridge_totals": totals,
            "retrieval": retrieval_rows(runtime.store, handles, heldout, split),
        }
    for name, table in tables.items():
        write_table(out, name, table)
    return sum(table.height for table in tables.values())


def entry(stage: str, dataset: Dataset, **of: Any) -> dict[str, Any]:
    """One dataset of a study as an argument of `analyze`: what it is, and its handle."""
    return {"stage": stage, **of, "dataset": dataset}
