"""Publish: write a finished study's SAEs, their cards and the study's pages to a folder or a hub repository.

The cards are made from the tables of the run. No flow calls this module; the command line does.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import duckdb

from report.explorer.release import MANIFEST
from storage.catalog import open_catalog, tables_of
from storage.embeddings import read_attributes
from storage.errors import BadInput
from storage.runs import Entry, Run, shown_run, shown_settings
from storage.site import SITE, compact
from storage.user_labels import SHOWN, read_labels
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
    """Publish an SAE of the newest complete run to a hub repository `owner/name` or into a folder.

    Returns its URL or path. Raises BadInput when the study has not run or has no such SAE.
    """
    from sae import SAE
    from sae.hub import push_to_hub

    with open_catalog(store, study) as con:
        figures = figures_of(con, model, sae, seed)
    return push_to_hub(SAE.load(store / figures["path"]), target, figures, private=private)


def publish_study(
    store: Path,
    study: str,
    target: str | os.PathLike[str],
    web: Path,
    *,
    items: bool = True,
    private: bool = True,
    run: Run | None = None,
    labels: bool = False,
) -> str:
    """Publish a complete run of a study to a hub repository or into a folder: SAEs, card, statistics and pages.

    web: the folder of the built front end.
    items: if False, no image and no caption is published.
    run: None: the newest complete run.
    labels: if True, the labels that users of the live explorer gave to concepts are published.

    Returns the URL or path. Raises BadInput if the run is not complete or has no pages, and NotOurs for a folder that
    holds other files.
    """
    from report.card import study_card
    from report.explorer import unpack
    from report.explorer.table import write_tables
    from sae.hub import CARD, HEAD, release

    run = run or shown_run(store, study)
    if not run.is_complete or not run.of("explorer"):
        raise BadInput(f"study {run.study!r}, {run}, cannot be published: {run.absent() or 'it has no pages'}")
    site = store / run.of("explorer")[0].dataset.path / SITE
    with release(target, private=private) as made, open_catalog(store, run=run) as con:
        shutil.copytree(web, made.folder, dirs_exist_ok=True)
        unpack(site, made.folder, items=items)
        given = read_labels(store, run) if labels else []
        (made.folder / SHOWN).write_bytes(compact({"labels": given}))
        write_saes(made.folder, store, run, con)
        write_statistics(made.folder / "statistics", store, run)
        if items:
            write_tables(made.folder / "items", store, run, con, made.folder)
        list_files(made.folder)
        demo = any(Spec.parse(model["spec"]).variant is not None for model in run.config["models"])
        card = study_card(con, run.config, known_of(store, run), items, demo)
        (made.folder / CARD).write_text("\n".join((*HEAD, card)), encoding="utf-8")
    return made.where


def list_files(folder: Path) -> None:
    """State in the manifest of the pages which files of SAEs and which tables were published, with their sizes."""
    found = [path for name in ("saes", "statistics", "items") for path in sorted((folder / name).rglob("*"))]
    files = [
        {"path": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size} for path in found if path.is_file()
    ]
    manifest = folder / MANIFEST
    manifest.write_bytes(compact({**json.loads(manifest.read_bytes()), "files": files}))


def write_saes(folder: Path, store: Path, run: Run, con: duckdb.DuckDBPyConnection) -> None:
    """Write every SAE of the settings in the study file, each with its card.

    SAEs of data diets, which are the same settings trained on other data, are left out.
    """
    from sae import SAE
    from sae.hub import MANY, write_sae

    named = shown_settings(run.config)
    for entry in run.of("train"):
        if entry.sae in named:
            name = f"{entry.model}/{entry.sae}/{entry.seed}"
            figures = figures_of(con, entry.model, entry.sae, entry.seed)
            write_sae(SAE.load(store / entry.dataset.path), folder / MANY / name, figures, load=name)


def write_statistics(folder: Path, store: Path, run: Run) -> None:
    """Copy the tables of the run and of its frontier. They hold no caption and no image."""
    folder.mkdir()
    for entry in run.of("analyze"):
        for table in tables_of(store, entry.dataset):
            shutil.copyfile(store / entry.dataset.path / f"{table}.parquet", folder / f"{table}.parquet")
    for entry in run.of("frontier"):
        shutil.copyfile(store / entry.dataset.path / "frontier.parquet", folder / f"frontier-{entry.model}.parquet")


def known_of(store: Path, run: Run) -> dict[str, dict[str, Any]]:
    """{model: identity of the model}, from the attributes of the run's embeddings."""
    first: dict[str, Entry] = {}
    for entry in run.of("embed"):
        first.setdefault(entry.model or "", entry)
    return {model: _flat(read_attributes(store, entry.dataset)["model"]) for model, entry in first.items()}


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    """Flatten nested dicts into one, with keys joined by dots."""
    if not isinstance(value, dict):
        return {place: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{place}.{key}" if place else str(key))
    return flat


def figures_of(con: duckdb.DuckDBPyConnection, model: str | None, sae: str | None, seed: int | None) -> dict[str, Any]:
    """Return the row of an SAE in the view `saes`, and its stability.

    Raises BadInput, with a list of all SAEs, if there is no such SAE.
    """
    parameters = {"model": model, "sae": sae, "seed": seed}
    row = _one(con.execute("SELECT * FROM saes WHERE model = $model AND sae = $sae AND seed = $seed", parameters))
    if row is None:
        existing = con.execute("SELECT model, sae, seed FROM saes ORDER BY ALL").fetchall()
        listed = ", ".join(f"{m} {s} {n}" for m, s, n in existing)
        raise BadInput(f"no SAE {model} {sae} {seed}; the study has {listed}")
    return {**row, **(_one(con.execute(STABILITY, parameters)) or {})}


def _one(answer: Any) -> dict[str, Any] | None:
    """First row of an answer as {column: value}, or None for an answer without rows."""
    names = [column[0] for column in answer.description]
    row = answer.fetchone()
    return None if row is None else dict(zip(names, row, strict=True))
