"""Publish: SAEs of a finished study with cards from the run's own tables, and its pages. Called by hand, by no flow."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import duckdb

from storage.catalog import open_catalog, tables_of
from storage.embeddings import read_attributes
from storage.errors import BadInput
from storage.runs import Entry, Run, last_run
from storage.site import SITE
from vlm.spec import Spec

STABILITY = """
SELECT avg(stability) AS stability, avg(floor_random) AS floor_random, avg(floor_matched) AS floor_matched
FROM stability($model, $sae) WHERE $seed IN (seed_a, seed_b)
"""


def publish(
    store: Path,
    study: str | None,
    model: str,
    sae: str,
    seed: int,
    target: str | os.PathLike[str],
    private: bool = True,
) -> str:
    """Put an SAE of the newest run into a repository of the hub, `owner/name`, or into a folder. Returns where it is.

    Raises BadInput when the study has not run or has no such SAE.
    """
    from sae import SAE
    from sae.hub import push_to_hub

    with open_catalog(store, study) as con:
        figures = figures_of(con, model, sae, seed)
    return push_to_hub(SAE.load(store / figures["path"]), target, figures, private=private)


def publish_study(
    store: Path, study: str, target: str | os.PathLike[str], web: Path, *, items: bool = True, private: bool = True
) -> str:
    """Put a study's newest run into a repository of the hub or into a folder, whole: SAEs, card, statistics and pages.

    web: the built front end. Without `items` no image and no caption is published. Raises BadInput when the study has
    not run to its end, and NotOurs for a folder that holds something else. Returns where it is.
    """
    from report.card import study_card
    from report.explorer import unpack
    from sae.hub import CARD, HEAD, release

    run = last_run(store, study)
    if run is None or not run.of("explorer"):
        raise BadInput(f"study {study!r} has not run to its end in {store}: bridgescope run STUDY.toml")
    site = store / run.of("explorer")[0].dataset.path / SITE
    with release(target, private=private) as made, open_catalog(store, run=run) as con:
        shutil.copytree(web, made.folder, dirs_exist_ok=True)
        unpack(site, made.folder, items=items)
        write_saes(made.folder, store, run, con)
        write_statistics(made.folder / "statistics", store, run)
        demo = any(Spec.parse(model["spec"]).variant is not None for model in run.config["models"])
        card = study_card(con, run.config, known_of(store, run), items, demo)
        (made.folder / CARD).write_text("\n".join((*HEAD, card)), encoding="utf-8")
    return made.where


def write_saes(folder: Path, store: Path, run: Run, con: duckdb.DuckDBPyConnection) -> None:
    """Every SAE of the settings that the study file names, each with its card."""
    from sae import SAE
    from sae.hub import MANY, write_sae

    named = [setting["name"] for setting in run.config["saes"]]
    for entry in run.of("train"):
        if entry.sae in named:
            name = f"{entry.model}/{entry.sae}/{entry.seed}"
            figures = figures_of(con, entry.model, entry.sae, entry.seed)
            write_sae(SAE.load(store / entry.dataset.path), folder / MANY / name, figures, load=name)


def write_statistics(folder: Path, store: Path, run: Run) -> None:
    """The tables of the run as they are, and those of its frontier: they hold no caption and no picture."""
    folder.mkdir()
    for entry in run.of("analyze"):
        for table in tables_of(store, entry.dataset):
            shutil.copyfile(store / entry.dataset.path / f"{table}.parquet", folder / f"{table}.parquet")
    for entry in run.of("frontier"):
        shutil.copyfile(store / entry.dataset.path / "frontier.parquet", folder / f"frontier-{entry.model}.parquet")


def known_of(store: Path, run: Run) -> dict[str, dict[str, Any]]:
    """What the run's embeddings say of the model that made them, by model."""
    first: dict[str, Entry] = {}
    for entry in run.of("embed"):
        first.setdefault(entry.model or "", entry)
    return {model: _flat(read_attributes(store, entry.dataset)["model"]) for model, entry in first.items()}


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    """Nested tables as one, keys joined by dots."""
    if not isinstance(value, dict):
        return {place: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _flat(item, f"{place}.{key}" if place else str(key))
    return found


def figures_of(con: duckdb.DuckDBPyConnection, model: str | None, sae: str | None, seed: int | None) -> dict[str, Any]:
    """An SAE's row of the view `saes`, with its stability. Raises BadInput, listing what there is, without one."""
    named = {"model": model, "sae": sae, "seed": seed}
    row = _one(con.execute("SELECT * FROM saes WHERE model = $model AND sae = $sae AND seed = $seed", named))
    if row is None:
        there = con.execute("SELECT model, sae, seed FROM saes ORDER BY ALL").fetchall()
        listed = ", ".join(f"{m} {s} {n}" for m, s, n in there)
        raise BadInput(f"no SAE {model} {sae} {seed}; the study has {listed}")
    return {**row, **(_one(con.execute(STABILITY, named)) or {})}


def _one(answer: Any) -> dict[str, Any] | None:
    """The first row of an answer by column."""
    names = [column[0] for column in answer.description]
    found = answer.fetchone()
    return None if found is None else dict(zip(names, found, strict=True))
