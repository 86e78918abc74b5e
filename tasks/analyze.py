"""Analyze: recompute every table of the study from activations and SAEs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from storage.catalog import create_views
from storage.runs import Entry
from tasks.stage import Runtime, stage


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
    """Compute the tables of a study from its datasets, and write one Parquet file per table.

    Raises BadInput for activations that are missing or not finite, seeds that differ in width, or a modality without
    items. The message names the file and the command to run.
    """
    import duckdb

    from analysis.inputs import Analysis, check
    from analysis.statistic import compute

    handles = [Entry(**entry) for entry in entries]
    analysis = Analysis(runtime.store, handles, heldout, split, min_pairs, diets, out)
    with duckdb.connect(config={"threads": 1}) as con:  # one thread: a fixed order of summation, hence equal bytes
        create_views(con, runtime.store, handles, heldout)
        check(con, analysis)
        return compute(con, analysis)
