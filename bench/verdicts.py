"""Verdicts on data in which every claim is false by construction: how many findings hold nevertheless.

python bench/verdicts.py [--draws 40]

A draw is a study of three seeds of a setting and of its frozen twin, all drawn from one distribution: dictionaries
uniform on the sphere, codes that know an item's modality but neither its image nor its caption, and embeddings whose
pairs are permuted. So the trained setting has no advantage over its twin, and no image has anything in common with its
captions. Every table is made by the code of the analysis. Prints the share of verdicts that hold, which must be at most
5 %, and writes bench/results/verdicts.json.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import polars as pl

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from bars import Bar, at_most, finish, shown  # noqa: E402

from analysis import bridges, floors, geometry, retrieval, stability, usage  # noqa: E402
from analysis.class_totals import opposite_total  # noqa: E402
from analysis.coactivation import Codes, PairedCodes  # noqa: E402
from analysis.findings import STATISTIC  # noqa: E402
from analysis.inputs import classes_of, jackknife_groups  # noqa: E402
from analysis.joined import Twin, create_twins  # noqa: E402
from analysis.statistic import create_inner, statistics  # noqa: E402
from analysis.subspaces import Modalities, Subspace  # noqa: E402
from analysis.tables import NULL_DRAWS, empty, fill, table, table_of_rows  # noqa: E402
from storage.definitions import define  # noqa: E402

IMAGES, CAPTIONS, WIDTH, DIM = 200, 2, 40, 16
SEEDS = (0, 1, 2)
SAES = ("main", "main-frozen")


def findings_by_chance(draw: int) -> pl.DataFrame:
    """The table findings of one draw."""
    random = np.random.default_rng(draw)
    with duckdb.connect(config={"threads": 1}) as con:
        define(con)
        create_inner(con)
        made = {name: schema for one in statistics() for name, schema in one.tables.items()}
        for name in {"floors", *STATISTIC.needs} - {"concepts", "concept_groups", "nulls"}:
            con.register("rows", empty(made[name]).to_arrow())
            con.execute(f"CREATE TABLE {name} AS FROM rows")
        items = _items(con, random)
        codes = {(sae, seed): _codes(random) for sae in SAES for seed in SEEDS}
        _concepts(con, codes, items, random)
        for sae in SAES:
            dictionaries = [_unit(random.standard_normal((WIDTH, DIM))) for _ in SEEDS]
            for seed, D in zip(SEEDS, dictionaries, strict=True):
                keys = {"model": "m", "sae": sae, "seed": seed}
                _measures(con, keys, D, codes[sae, seed], items, random)
            _matches(con, sae, dictionaries)
        fill(con, "nulls")
        create_twins(con, [Twin("m", "main-frozen", "main", "frozen_decoder")])
        fill(con, "findings")
        return con.sql("FROM findings").pl()


def _items(con: duckdb.DuckDBPyConnection, random: np.random.Generator) -> SimpleNamespace:
    """The views of images and captions, their embeddings, and the random subspaces of the model."""
    split_u = random.random(IMAGES)
    split = np.where(random.random(IMAGES) < 0.5, "train", "heldout")
    owner = np.repeat(np.arange(IMAGES), CAPTIONS)
    _create(con, "images", image_id=np.arange(IMAGES), split_u=split_u, split=split)
    _create(con, "pairs", pair_id=np.arange(len(owner)), image_id=owner)
    image, text = _unit(random.standard_normal((IMAGES, DIM))), _unit(random.standard_normal((len(owner), DIM)))
    gallery = retrieval.Gallery(image, text, owner, jackknife_groups(split_u))
    named = {"model": "m", "sae": None, "seed": None, "split": "all"}
    _insert(
        con, "retrieval_groups", retrieval.group_rows({**named, "intervention": "embeddings"}, gallery, image, text)
    )
    recalls = retrieval.averaged("embeddings", owner, [(image, text)])
    _insert(con, "retrieval", retrieval.recall_rows(named, gallery, recalls))
    sides = [Modalities(*(_unit(random.standard_normal((IMAGES, DIM))) for _ in "it")) for _ in "th"]
    fitted = {
        name: Subspace(name, np.linalg.qr(random.standard_normal((DIM, rank)))[0].T, rank, 0.5)
        for name, rank in (("mean_gap", 1), ("logistic", 1), ("lda", 1), ("inlp", 3))
    }
    ranks = {"subspace": np.array(list(fitted)), "rank": np.array([one.rank for one in fitted.values()])}
    columns = {"model": "m", **ranks, "heldout_accuracy": np.full(4, 0.5)}
    _insert(con, "geometry", table(columns, _schema("geometry")))
    return SimpleNamespace(gallery=gallery, fitted=fitted, sides=sides)


def _codes(random: np.random.Generator) -> tuple[Codes, Codes]:
    """Codes of images and captions. A concept fires mostly on images, mostly on captions, or on both."""
    kind = random.choice(3, WIDTH, p=[0.4, 0.4, 0.2])
    rates = np.array([[0.3, 0.005], [0.005, 0.3], [0.15, 0.15]])[kind].T
    return tuple(
        _sparse(np.where(random.random((n, WIDTH)) < rate, random.exponential(1, (n, WIDTH)), 0))
        for n, rate in zip((IMAGES, IMAGES * CAPTIONS), rates, strict=True)
    )


def _concepts(con: Any, codes: dict[Any, tuple[Codes, Codes]], items: Any, random: np.random.Generator) -> None:
    """The tables concepts and concept_groups; their columns of geometry are filled by _measures."""
    parts = []
    for (sae, seed), both in codes.items():
        for modality, one in zip(("image", "text"), both, strict=True):
            rows = np.repeat(np.arange(len(one.indptr) - 1), np.diff(one.indptr))
            columns = {"item_id": rows, "concept_id": one.concepts, "activation": one.values}
            constants = {"model": "m", "sae": sae, "seed": seed, "modality": modality}
            parts.append(pl.DataFrame(columns).with_columns(**{name: pl.lit(x) for name, x in constants.items()}))
    con.register("activations", pl.concat(parts).to_arrow())
    usage.fill_concepts(con, [usage.CountedSAE("m", *key, WIDTH) for key in codes], "all")
    fill(con, "concepts")


def _measures(
    con: Any, keys: dict[str, Any], D: np.ndarray, codes: tuple[Codes, Codes], items: Any, random: Any
) -> None:
    """The rows of one SAE: geometry, bridges, retrieval and floors, with their nulls."""
    net: Any = SimpleNamespace(dictionary=SimpleNamespace(numpy=lambda: D), config=SimpleNamespace(width=WIDTH))
    concepts, summaries = geometry.of_sae(keys, net, items.fitted, *items.sides)
    _insert(con, "null_summaries", summaries)
    con.register("rows", concepts.to_arrow())
    names = [name for name in geometry.CONCEPT_GEOMETRY if name not in (*keys, "concept_id")]
    same = "(c.sae, c.seed, c.concept_id) = (rows.sae, rows.seed, rows.concept_id)"
    changes = ", ".join(f"{name} = rows.{name}" for name in names)
    con.execute(f"UPDATE concepts AS c SET {changes} FROM rows WHERE {same}")
    pairs = PairedCodes(*codes, items.gallery.owner, np.arange(len(items.gallery.owner)), WIDTH)
    classes, counted = classes_of(con, keys), {**keys, "split": "all"}
    totals = bridges.bridges_of(pairs, D, classes, 1).totals
    _insert(con, "bridge_totals", table_of_rows([{**counted, **one} for one in totals], bridges.TOTALS))
    net_total = opposite_total(pairs, D, classes, items.gallery.group, bridges.TOTAL_DRAWS, keys["seed"])
    named = {**keys, "null": "images_permuted", "statistic": bridges.NET}
    rows = [{**named, "draw": i, "value": value} for i, value in enumerate(net_total.draws)]
    _insert(con, "null_draws", table_of_rows(rows, NULL_DRAWS))
    left_out = [
        {**counted, "statistic": bridges.NET, "jackknife_group": group, "value": value}
        for group, value in net_total.without.items()
    ]
    _insert(con, "bridge_groups", table_of_rows(left_out, bridges.GROUPS))
    rebuilt = [retrieval.kept(one, D, np.zeros(DIM), np.arange(WIDTH)) for one in codes]
    groups = retrieval.group_rows({**counted, "intervention": "reconstructions"}, items.gallery, *rebuilt)
    _insert(con, "retrieval_groups", groups)
    cosines = stability.floor_matched(D, 20, keys["seed"])
    columns = {**keys, "null": "floor_matched", "draw": np.repeat(np.arange(20), WIDTH)}
    columns |= {"concept_id": np.tile(np.arange(WIDTH), 20), "cosine": cosines.ravel()}
    _insert(con, "floors", table(columns, floors.FLOORS))
    settings = {**keys, "dim": DIM, "width": WIDTH}
    _insert(con, "saes", table_of_rows([settings], _schema("saes")))


def _matches(con: Any, sae: str, dictionaries: list[np.ndarray]) -> None:
    for a in SEEDS:
        for b in SEEDS:
            if a != b:
                assigned, cosines, *_ = stability.match(dictionaries[a], dictionaries[b])
                keys = {"model": "m", "sae_a": sae, "seed_a": a, "sae_b": sae, "seed_b": b}
                columns = {**keys, "concept_a": np.arange(WIDTH), "concept_b": assigned, "cosine": cosines}
                _insert(con, "matches", table(columns, stability.MATCHES))


def _sparse(dense: np.ndarray) -> Codes:
    rows, concepts = dense.nonzero()
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    return Codes(indptr.astype(np.int64), concepts.astype(np.int32), dense[rows, concepts].astype(np.float32))


def _schema(name: str) -> dict[str, Any]:
    return next(one.tables[name] for one in statistics() if name in one.tables)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _create(con: duckdb.DuckDBPyConnection, name: str, **columns: np.ndarray) -> None:
    con.register("rows", pl.DataFrame(columns).to_arrow())
    con.execute(f"CREATE TABLE {name} AS FROM rows")


def _insert(con: duckdb.DuckDBPyConnection, name: str, rows: pl.DataFrame) -> None:
    con.register("rows", rows.to_arrow())
    con.execute(f"INSERT INTO {name} FROM rows")


def counted(tables: list[pl.DataFrame]) -> Counter[tuple[str, str]]:
    """Number of draws per claim and verdict."""
    return Counter((claim, verdict) for one in tables for claim, verdict in one.select("claim", "verdict").iter_rows())


def figures(draws: int) -> list[Bar]:
    """The share of verdicts that hold, over all draws, and of each claim."""
    counts = counted([findings_by_chance(draw) for draw in range(draws)])
    holding = sum(n for (_, verdict), n in counts.items() if verdict == "holds")
    bars = [at_most(f"share of verdicts that hold on permuted data, {draws} draws", holding / counts.total(), 0.05)]
    for claim in dict.fromkeys(claim for claim, _ in counts):
        for verdict in ("holds", "undecided"):
            bars.append(shown(f"{claim}: {verdict}", counts[claim, verdict], f"of {draws}"))
    return bars


def main() -> int:
    """Print and write the results; return 1 when a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=40)
    return finish("verdicts", figures(parser.parse_args().draws))


if __name__ == "__main__":
    sys.exit(main())
