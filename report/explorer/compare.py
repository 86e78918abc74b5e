"""The file of the view Compare: the study's findings, its figures with their SQL, and the settings side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import duckdb

from report import queries
from report.claims import ask_claims
from report.explorer.answers import table_of
from report.figures.runs import Runs
from report.gallery import FIGURES_INDEX
from storage.site import put, put_json

SETTINGS = "FROM saes ORDER BY model, sae, seed"


def write_compare(site: ZipFile, con: duckdb.DuckDBPyConnection, main: Runs, page: Path) -> None:
    """Write `data/compare.json`, and the page's figures into `figures/`.

    main: (model, sae) of each setting in the study file, in the order of the file.
    page: the folder of the study's page, which holds the figures.
    """
    findings = [row for model, sae in main for row in ask_claims(con).of(model=model, sae=sae)]
    settings = table_of(con, SETTINGS).drop("path").to_dicts()
    figures = copy_figures(site, page)
    frozen = table_of(con, queries.frozen(main)).drop("place", strict=False).to_dicts()
    compared = {"findings": findings, "frozen": frozen, "figures": figures, "settings": settings}
    put_json(site, "data/compare.json", compared)


def copy_figures(site: ZipFile, page: Path) -> list[dict[str, Any]]:
    """Copy every figure of the page whose files exist. Returns the descriptions of the copied figures."""
    folder, figures = page / "figures", []
    for figure in json.loads((page / FIGURES_INDEX).read_text(encoding="utf-8")):
        files = {kind: f"{figure['id']}.{kind}" for kind in ("svg", "png")}
        if not all((folder / name).is_file() for name in files.values()):
            continue
        for name in files.values():
            put(site, f"figures/{name}", (folder / name).read_bytes())
        figures.append({**figure, **{kind: f"figures/{name}" for kind, name in files.items()}, "table": None})
    return figures
