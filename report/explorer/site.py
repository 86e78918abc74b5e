"""Write all data files of the explorer for one study. Their types are stated in explorer/web/src/contract.ts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from report import queries
from report.explorer import compare, concepts, item_maps, items
from report.explorer.answers import rows_of as rows_of_statement
from report.explorer.concepts import SAEKey
from report.explorer.item_maps import ItemMap
from report.explorer.layout import method_of
from report.explorer.pairs import write_pairs
from report.explorer.shares import Dictionary
from report.page import in_explorer
from storage.documentation import documented, macros
from storage.rows import Rows
from storage.runs import shown_settings
from storage.site import PAGE, SITE, put, put_json, writing
from storage.user_labels import SHOWN

SCHEMA = 1


def write_explorer(
    out: Path,
    con: duckdb.DuckDBPyConnection,
    config: dict[str, Any],
    page: Path,
    layouts: dict[str, Any],
    dictionary_of: Callable[[str], Dictionary],
    rows_of: Callable[[str], Rows],
    maps: list[ItemMap],
) -> int:
    """Write `out/site.zip`: `data/`, `thumbs/`, `figures/` and the page of a study. Returns the number of concepts.

    con: the study's catalog; config: the study file as a dict; page: the folder of its page; layouts: the map positions
    [C, 2] of every SAE shown, by model/sae/seed; dictionary_of: returns the decoder of such an SAE, and is
    called once for each; maps: the maps of the items of every model. SAEs of data diets (a setting trained on other
    data) are only listed in the view Compare, and have no files here.
    """
    runs = shown_runs(con, config)
    keys = [SAEKey(run["model"], run["sae"], run["seed"]) for run in runs]
    concepts.find_top(con, keys)
    items.find_shown(con)
    with writing(out / SITE) as site:
        captions = rows_of_statement(con, "captions")
        embeddings: dict[str, Rows] = {}
        for key, run in zip(keys, runs, strict=True):
            places, dictionary = np.asarray(layouts[str(key)], np.float64), dictionary_of(str(key))
            codes = concepts.write_run(site, con, key, run["split"], places, dictionary)
            if key.model not in embeddings:
                embeddings = {key.model: rows_of(key.model)}  # one model at a time in memory
            write_pairs(site, key.folder, dictionary, embeddings[key.model], codes, captions)
        put_json(site, SHOWN, {"labels": []})  # the labels of users are added when the file is served or published
        items.write_items(site, con, items.write_thumbnails(site, con))
        firings = item_maps.write_item_maps(site, con, maps, keys)
        of_maps = {"maps": [each.described() for each in maps], "firings": firings, "page": PAGE}
        put_json(site, "data/manifest.json", manifest(con, config, runs) | of_maps)
        put_json(site, "data/catalog.json", catalog(con, runs))
        put(site, PAGE, in_explorer((page / "index.html").read_text(encoding="utf-8")).encode())
        compare.write_compare(site, con, list(dict.fromkeys((key.model, key.sae) for key in keys)), page)
    return sum(run["concepts"] for run in runs)


def shown_runs(con: duckdb.DuckDBPyConnection, config: dict[str, Any]) -> list[dict[str, Any]]:
    """The SAEs of the settings in the study file, by model and setting in the order of the file, then by seed."""
    models = [model["name"] for model in config["models"]]
    saes = shown_settings(config)
    rows = [row for row in rows_of_statement(con, "runs", most=concepts.BRIDGES).to_dicts() if row["sae"] in saes]
    return sorted(rows, key=lambda row: (models.index(row["model"]), saes.index(row["sae"]), row["seed"]))


def manifest(con: duckdb.DuckDBPyConnection, config: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The manifest, which the explorer reads first; `handed_out` adds the definitions."""
    counts = queries.ask(con, queries.COUNTS).of(split="all")
    models = list(dict.fromkeys(run["model"] for run in runs))
    return {
        "schema": SCHEMA,
        "live": False,
        "study": config["name"],
        "items": True,
        "title": f"Concepts and bridges of {_listed(models or [config['name']])}",
        "pairs": {
            "images": counts[0]["images"] if counts else 0,
            "captions": counts[0]["captions"] if counts else 0,
            "licence": config["pairs"].get("licence"),
        },
        "split": runs[0]["split"] if runs else config["analyze"]["split"],
        "runs": [
            {"key": f"{run['model']}/{run['sae']}/{run['seed']}", "layout": method_of(run["concepts"])}
            | {name: value for name, value in run.items() if name != "split"}
            for run in runs
        ],
        "item_block": items.BLOCK,
        "concept_block": concepts.CONCEPT_BLOCK,
    }


def catalog(con: duckdb.DuckDBPyConnection, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the explorer's SQL page shows: views, macros and example queries. The first view does not load it."""
    return {
        "views": [
            {"name": view.name, "purpose": view.purpose, "columns": [column._asdict() for column in view.columns]}
            for view in documented(con)
        ],
        "macros": [
            {
                "name": macro.name,
                "call": macro.call,
                "purpose": macro.purpose,
                "inputs": macro.sections.get("Inputs", ""),
                "columns": macro.sections.get("Columns", ""),
            }
            for macro in macros(con)
        ],
        "examples": [
            {"title": title, "query": query}
            for run in runs[:1]
            for title, query in examples(run["model"], run["sae"], run["seed"])
        ],
    }


def examples(model: str, sae: str, seed: int) -> list[tuple[str, str]]:
    """Example queries as (title, SQL)."""
    return [
        ("The study's findings and their chance levels", "FROM findings"),
        (f"The strongest bridges of {model}, seed {seed}", queries.top_bridges(model, sae, seed, 20, "bridge")),
        *queries.to_paste(model, sae, seed, 0),
        (
            "Stability of the most energetic concepts, and its chance level",
            f"FROM stability_by_energy({queries.literal(model)}, {queries.literal(sae)})",
        ),
    ]


def _listed(names: list[str]) -> str:
    return "".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"
