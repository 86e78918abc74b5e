"""Usage: mean activations (energies), firing rates and modality of every concept, and the share of unimodal concepts.

These numbers are computed from activations in SQL. The null of the share (its chance level) assigns each firing to a
random item of either modality.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import duckdb
import numpy as np
import polars as pl

from analysis.inputs import Analysis, Keys, keys_of
from analysis.statistic import Statistic, Table
from analysis.tables import NULL_DRAWS, SAE_KEYS, Schema, fill, table_of_rows
from storage.definitions import is_counted, is_unimodal

CONCEPTS: Schema = {
    **SAE_KEYS, "split": pl.String, "concept_id": pl.Int32,
    **dict.fromkeys((
        "energy", "energy_image", "energy_text", "energy_squared_image", "energy_squared_text", "rate_image",
        "rate_text",
    ), pl.Float64),
    "firings": pl.Int64,
    **dict.fromkeys((
        "modality_score", "modality_auc", "direction_accuracy", "align_mean_gap", "align_logistic", "align_lda",
        "align_inlp", "monosemanticity", "monosemanticity_independent",
    ), pl.Float64),
    "dead": pl.Boolean,
    **dict.fromkeys((
        "energy_sd", "energy_image_sd", "energy_text_sd", "rate_image_sd", "rate_text_sd", "modality_score_sd",
    ), pl.Float64),
}  # fmt: skip
GROUPS: Schema = {
    **SAE_KEYS, "split": pl.String, "concept_id": pl.Int32, "jackknife_group": pl.Int32, "images": pl.Int64,
    "texts": pl.Int64, "image": pl.Float64, "text": pl.Float64, "image_squared": pl.Float64,
    "text_squared": pl.Float64, "image_firings": pl.Int64, "text_firings": pl.Int64, "training_firings": pl.Int64,
}  # fmt: skip
SHUFFLED = 5  # spawn key of the random stream; every module has a different key
DRAWS = 20  # draws of the null


class CountedSAE(NamedTuple):
    """Key and width of one SAE. The SQL that counts the SAE's activations takes them as parameters."""

    model: str
    sae: str
    seed: int
    width: int


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The tables of this statistic. `concepts` also has the columns that geometry and monosemanticity compute."""
    entry, net = analysis.sae
    fill(con, "group_sizes", split=analysis.split)
    count_codes(con, CountedSAE(**keys_of(entry), width=net.config.width), analysis.split)
    fill(con, "concepts")
    draws = draws_of_sae(con, keys_of(entry))
    return {"concepts": con.table("concepts"), "concept_groups": con.table("concept_groups"), "null_draws": draws}


def fill_concepts(con: duckdb.DuckDBPyConnection, saes: Iterable[CountedSAE], split: str) -> None:
    """Make concept_groups and concept_auc of several SAEs, one SAE at a time, with the codes of one SAE in memory."""
    fill(con, "group_sizes", split=split)
    for place, counted in enumerate(saes):
        fill(con, "codes", **counted._asdict(), split=split)
        count_codes(con, counted, split, insert=place > 0)


def count_codes(con: duckdb.DuckDBPyConnection, counted: CountedSAE, split: str, *, insert: bool = False) -> None:
    """Make concept_groups and concept_auc from the codes of one SAE, or insert its rows into them."""
    for table in ("concept_groups", "concept_auc"):
        fill(con, table, insert=insert, **counted._asdict(), split=split)


def draws_of_sae(con: duckdb.DuckDBPyConnection, keys: Keys) -> pl.DataFrame:
    """Draws of the shares of unimodal concepts under the null. The SAE's seed is also the seed of the draws.

    Reads the tables concepts and group_sizes.
    """
    images, texts = con.execute("SELECT sum(images)::BIGINT, sum(texts)::BIGINT FROM group_sizes").fetchall()[0]
    concepts = con.execute(
        "SELECT energy, firings FROM concepts WHERE model = $model AND sae = $sae AND seed = $seed ORDER BY concept_id",
        keys,
    ).fetchnumpy()
    drawn = shuffled_shares(concepts["energy"], concepts["firings"], images, texts, DRAWS, keys["seed"] or 0)
    rows = [
        {**keys, "null": "modality_shuffled", "draw": draw, "statistic": name, "value": value}
        for draw, shares in enumerate(drawn)
        for name, value in shares.items()
    ]
    return table_of_rows(rows, NULL_DRAWS)


def unimodal_shares(score: np.ndarray, energy: np.ndarray, firings: np.ndarray) -> dict[str, float]:
    """Share of the counted concepts (see `is_counted`) that are unimodal, by number and by energy.

    score: modality scores [C]. energy, firings: [C]. A share is NaN where no concept is counted.
    """
    counted = is_counted(firings, score)
    unimodal = counted & is_unimodal(score)
    total = float(energy[counted].sum())
    return {
        "unimodal_share": float(unimodal.sum() / counted.sum()) if counted.any() else float("nan"),
        "unimodal_energy_share": float(energy[unimodal].sum()) / total if total > 0 else float("nan"),
    }


def shuffled_shares(
    energy: np.ndarray, firings: np.ndarray, images: int, texts: int, draws: int, seed: int
) -> list[dict[str, float]]:
    """`unimodal_shares` of `draws` draws in which each concept's firings fall on random items of both modalities.

    Every firing has the same weight. images, texts: numbers of counted items.
    """
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SHUFFLED,)))
    shares = []
    for _ in range(draws):
        on_images = random.hypergeometric(images, texts, firings)
        rates = on_images / images, (firings - on_images) / texts
        both = rates[0] + rates[1]
        score = np.divide(rates[0], both, out=np.full(len(both), np.nan), where=both > 0)
        shares.append(unimodal_shares(score, energy, firings))
    return shares


STATISTIC = Statistic(
    name="usage",
    version="3",
    needs=("concept_geometry", "concept_monosemanticity"),
    tables={"concepts": CONCEPTS, "concept_groups": GROUPS},
    adds=("null_draws",),
    make=make,
)
