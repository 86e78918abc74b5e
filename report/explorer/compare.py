"""What the explorer compares: the study's findings, its figures with their SQL, and the settings side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb

from report.claims import SQL as CLAIMS
from report.explorer.files import table_of, write_json
from report.gallery import FIGURES_INDEX
from report.queries import holds

SETTINGS = "FROM saes ORDER BY model, sae, seed"
Runs = list[tuple[str, str]]


def write_compare(out: Path, con: duckdb.DuckDBPyConnection, main: Runs, page: Path) -> None:
    """Write `out/data/compare.json`, and the page's figures into `out/figures/`. main: (model, sae) in study order.

    page: the folder of the study's page, whose figures these are.
    """
    findings: list[dict[str, Any]] = []
    if holds(con, "findings"):
        rows = table_of(con, CLAIMS).to_dicts()
        findings = [row for run in main for row in rows if (row["model"], row["sae"]) == run]
    write_json(
        out / "data" / "compare.json",
        {
            "findings": findings,
            "figures": copy_figures(page / "figures", out / "figures"),
            "settings": table_of(con, SETTINGS).drop("path").to_dicts(),
        },
    )


def copy_figures(made: Path, out: Path) -> list[dict[str, Any]]:
    """Copy the page's figures and say what they are: those whose files are there."""
    index = json.loads((made / FIGURES_INDEX).read_text(encoding="utf-8"))
    figures = []
    for figure in index:
        files = [f"{figure['id']}.{kind}" for kind in ("svg", "png")]
        if not all((made / name).is_file() for name in files):
            continue
        out.mkdir(parents=True, exist_ok=True)
        for name in files:
            shutil.copyfile(made / name, out / name)
        figures.append({**figure, "svg": f"figures/{files[0]}", "png": f"figures/{files[1]}", "table": None})
    return figures
