"""Report: write the page of a study and its figures. Both are made only from the catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from storage.catalog import create_views
from storage.runs import Entry
from tasks.stage import Runtime, stage


@stage("reports", version="9")
def report(out: Path, entries: list[dict[str, Any]], config: dict[str, Any], runtime: Runtime) -> int:
    """Write the page of a study, and its figures as SVG and PNG files."""
    from report import write_report

    with duckdb.connect(config={"threads": 1}) as con:  # one thread sums in a fixed order: equal bytes
        create_views(con, runtime.store, [Entry(**entry) for entry in entries], config["pairs"]["heldout"])
        write_report(out, con, config)
    return len(entries)
