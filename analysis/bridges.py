"""Bridges of an SAE: scores of pairs of an image concept and a text concept, the totals of the scores, and three nulls.

The Bridge Score is the co-activation of the two concepts times the cosine of their directions. `matched_similarity`
splits the similarity of matched pairs into bridges and bias terms. The nulls (chance levels) permute the images, the
rows of the dictionary, or both. `figures` computes the same results for the study's own scores and for every draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import duckdb
import numpy as np
import polars as pl
from scipy.sparse import csr_array

from analysis.class_totals import NetTotal, opposite_total
from analysis.coactivation import CLASSES, KINDS, Codes, PairedCodes, Similarity, Summary
from analysis.inputs import (
    Analysis,
    Biases,
    Counted,
    Keys,
    biases_of,
    classes_of,
    codes_of,
    counted_pairs,
    groups_of,
    keys_of,
)
from analysis.statistic import Statistic, Table
from analysis.tables import NULL_DRAWS, SAE_KEYS, Schema, add_piece, open_pieces, table, table_of_rows
from sae import SAE

BRIDGES: Schema = {
    **SAE_KEYS, "split": pl.String, "image_concept": pl.Int32, "text_concept": pl.Int32, "pairs": pl.Int64,
    "coactivation": pl.Float64, "cosine": pl.Float64, "bridge": pl.Float64, "covariance_bridge": pl.Float64,
    "correlation_bridge": pl.Float64,
}  # fmt: skip
TOTALS: Schema = {
    **SAE_KEYS, "split": pl.String, "class_image": pl.String, "class_text": pl.String, "self": pl.Boolean,
    "kind": pl.String, "total": pl.Float64, "positive": pl.Float64, "negative": pl.Float64,
}  # fmt: skip
SIMILARITY: Schema = {**SAE_KEYS, "split": pl.String, "term": pl.String, "value": pl.Float64}
GROUPS: Schema = {
    **SAE_KEYS, "split": pl.String, "statistic": pl.String, "jackknife_group": pl.Int32, "value": pl.Float64,
}  # fmt: skip
DRAWS = 20  # draws per null of the results that need the scores of all pairs of concepts
TOTAL_DRAWS = 200  # draws of the null of NET, which needs no such scores
NET = "covariance_opposite_total"
DECODED = 4096  # pairs decoded at a time
NULLS = ("images_permuted", "dictionary_permuted", "both_permuted")
TOPS = (10, 100, 1000)  # the values of n in the results <kind>_top_<n>_share
PERMUTED = 4  # spawn key of this module's random stream; each module has a different key


class Bridges(NamedTuple):
    """The bridges of one SAE, and their totals."""

    rows: dict[str, np.ndarray]  # columns of the view `bridges`; its rows are sorted by image_concept, text_concept
    totals: list[dict[str, Any]]  # rows of `bridge_totals` without key columns; the sums do not depend on min_pairs


class SAETables(NamedTuple):
    """The bridges of one SAE, and the rows of this SAE for the four other tables."""

    bridges: Bridges
    totals: pl.DataFrame
    similarity: pl.DataFrame
    groups: pl.DataFrame
    draws: pl.DataFrame


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The tables of this statistic. Reads the views of the catalog and the table concepts."""
    entry, net = analysis.sae
    tables = of_sae(con, analysis, keys_of(entry), net, counted_pairs(con, analysis.split), DRAWS)
    with open_pieces(analysis.out, "bridges", BRIDGES) as file:
        add_piece(file, bridge_rows({**keys_of(entry), "split": analysis.split}, tables.bridges))
    return {
        "bridges": analysis.out / "bridges.parquet",
        "bridge_totals": tables.totals,
        "matched_similarity": tables.similarity,
        "bridge_groups": tables.groups,
        "null_draws": tables.draws,
    }


def of_sae(
    con: duckdb.DuckDBPyConnection, analysis: Analysis, keys: Keys, net: SAE, counted: Counted, draws: int
) -> SAETables:
    """Compute the tables of one SAE over the counted pairs, with `draws` draws of each null, and TOTAL_DRAWS of NET."""
    pairs = pairs_of(con, counted, net.config.width)
    D, classes = net.dictionary.numpy().astype(np.float64), classes_of(con, keys)
    bridges = bridges_of(pairs, D, classes, analysis.min_pairs)
    terms = matched_similarity(pairs, D, biases_of(net))
    seed = keys["seed"] or 0
    nulls = bridge_nulls(pairs, D, classes, analysis.min_pairs, draws, seed)
    net_total = opposite_total(pairs, D, classes, groups_of(con, counted.images), TOTAL_DRAWS, seed)
    counted_keys = {**keys, "split": analysis.split}
    left_out = [
        {**counted_keys, "statistic": NET, "jackknife_group": group, "value": value}
        for group, value in net_total.without.items()
    ]
    return SAETables(
        bridges,
        table_of_rows([{**counted_keys, **total} for total in bridges.totals], TOTALS),
        table_of_rows([{**counted_keys, "term": term, "value": value} for term, value in terms.items()], SIMILARITY),
        table_of_rows(left_out, GROUPS),
        _draws(keys, nulls, net_total),
    )


def _draws(keys: Keys, nulls: dict[str, list[dict[str, float]]], net_total: NetTotal) -> pl.DataFrame:
    """The rows of null_draws. NET with permuted images has the draws of `net_total` in place of those of `nulls`."""
    rows = [
        {**keys, "null": null, "draw": draw, "statistic": name, "value": value}
        for null, figures_of_draws in nulls.items()
        for draw, figures_of_draw in enumerate(figures_of_draws)
        for name, value in figures_of_draw.items()
        if (null, name) != ("images_permuted", NET)
    ]
    named = {**keys, "null": "images_permuted", "statistic": NET}
    rows += [{**named, "draw": draw, "value": float(value)} for draw, value in enumerate(net_total.draws)]
    return table_of_rows(rows, NULL_DRAWS)


def bridge_rows(keys: Keys, bridges: Bridges) -> pl.DataFrame:
    """The rows of the table `bridges` of one SAE. keys: model, sae, seed and split."""
    return table({**keys, **bridges.rows}, BRIDGES)


def pairs_of(con: duckdb.DuckDBPyConnection, counted: Counted, width: int) -> PairedCodes:
    """The codes of one SAE over the counted pairs."""
    image = codes_of(con, "image", counted.images)
    text = codes_of(con, "text", counted.texts)
    return PairedCodes(image, text, counted.pair_image, np.arange(len(counted.texts)), width)


def bridges(
    image: Codes,
    text: Codes,
    pair_image: np.ndarray,
    pair_text: np.ndarray,
    dictionary: np.ndarray,
    classes: list[str],
    min_pairs: int,
) -> Bridges:
    """The Bridge Score of every image concept i with every text concept j, over the given pairs.

    dictionary: D [C, d], unit rows. classes: the class of each concept, one of CLASSES.
    E_P is the mean over the pairs; z_i and z_j are the codes of the image and of the caption of a pair.
    G_ij = E_P[z_i z_j] is the co-activation. bridge = G_ij <D_i, D_j>. covariance_bridge =
    (G_ij - E_P[z_i] E_P[z_j]) <D_i, D_j>. correlation_bridge = covariance_bridge / (sd(z_i) sd(z_j)), NaN where a
    standard deviation is 0. `rows` holds the cells (i, j) where both concepts fire on at least min_pairs pairs.
    `totals` holds sums over all cells. Source: arXiv 2504.11695, Bridge Score; docs/definitions.md, "Bridge Score".
    """
    D = np.asarray(dictionary, np.float64)
    if len(classes) != len(D) or not set(classes) <= set(CLASSES):
        raise ValueError(f"classes: one of {', '.join(CLASSES)} for each of {len(D)} concepts is needed")
    return bridges_of(PairedCodes(image, text, pair_image, pair_text, len(D)), D, classes, min_pairs)


def bridges_of(pairs: PairedCodes, D: np.ndarray, classes: list[str], min_pairs: int) -> Bridges:
    """The result of `bridges` for pairs that are already indexed; D [C, d] float64."""
    parts = [part for (part,) in pairs.scores(D, [None], classes, min_pairs, lambda scores: scores)]
    concepts = np.concatenate([part.concepts for part in parts])
    rows = np.concatenate([part.rows for part in parts])
    columns = {
        "image_concept": concepts[:, 0],
        "text_concept": concepts[:, 1],
        "pairs": np.concatenate([part.pairs for part in parts]),
        "coactivation": rows[:, 0],
        "cosine": np.concatenate([part.cosine for part in parts]),
        "bridge": rows[:, 1],
        "covariance_bridge": rows[:, 2],
        "correlation_bridge": rows[:, 3],
    }
    return Bridges(
        {name: np.ascontiguousarray(c) for name, c in columns.items()},
        total_rows(joined([part.totals for part in parts])),
    )


def joined(totals: Sequence[np.ndarray]) -> np.ndarray:
    """Sum of the totals [kind, self, sign, class, class] of all blocks, added in the order of the blocks."""
    sums = np.zeros_like(totals[0])
    for part in totals:
        sums += part
    return sums


def total_rows(totals: np.ndarray) -> list[dict[str, Any]]:
    """One row per kind, pair of classes, and `self`, which is true for the sums over cells with i = j.

    Two different classes have no row where `self` is true, since a concept has only one class.
    """
    return [
        {
            "class_image": class_image,
            "class_text": class_text,
            "self": bool(own),
            "kind": kind,
            "total": float(totals[k, own, 0, a, b] + totals[k, own, 1, a, b]),
            "positive": float(totals[k, own, 0, a, b]),
            "negative": float(totals[k, own, 1, a, b]),
        }
        for k, kind in enumerate(KINDS)
        for a, class_image in enumerate(CLASSES)
        for b, class_text in enumerate(CLASSES)
        for own in (0, 1)
        if not own or a == b
    ]


def matched_similarity(pairs: PairedCodes, D: np.ndarray, biases: Biases) -> dict[str, float]:
    """The terms of the mean similarity of matched pairs, E_P <x_hat_I, x_hat_T>, where x_hat = z D + b.

    D: [C, d] float64. E_P is the mean over the pairs; z_I, z_T are the codes of a pair's image and caption, and b_I,
    b_T the biases of the two modalities.
    bridges = E_P <z_I D, z_T D>, the sum of all raw bridges.
    text_on_bias = <b_I, E_P z_T D>. image_on_bias = <E_P z_I D, b_T>. bias = <b_I, b_T>.
    matched = E_P <x_hat_I, x_hat_T>, computed from the decoded rows. It equals the sum of the four terms above.
    shuffled = <E_P x_hat_I, E_P x_hat_T>, the expected similarity of pairs drawn at random. matched - shuffled is the
    sum of all covariance bridges. Source: docs/definitions.md, "Identities of bridges".
    """
    mean_I, mean_T = pairs.moments_image.mean @ D, pairs.moments_text.mean @ D
    raw = matched = 0.0
    for start in range(0, len(pairs.pair_image), DECODED):
        rows_I = _decoded(pairs.image, pairs.pair_image[start : start + DECODED], D)
        rows_T = _decoded(pairs.text, pairs.pair_text[start : start + DECODED], D)
        raw += float(np.einsum("pd,pd->", rows_I, rows_T))
        matched += float(np.einsum("pd,pd->", rows_I + biases.image, rows_T + biases.text))
    count = len(pairs.pair_image)
    return {
        "bridges": raw / count,
        "text_on_bias": float(biases.image @ mean_T),
        "image_on_bias": float(mean_I @ biases.text),
        "bias": float(biases.image @ biases.text),
        "matched": matched / count,
        "shuffled": float((mean_I + biases.image) @ (mean_T + biases.text)),
    }


def _decoded(codes: Codes, rows: np.ndarray, D: np.ndarray) -> np.ndarray:
    """The product z D for the given rows of codes, [N, d] float64."""
    z = csr_array((codes.values, codes.concepts, codes.indptr), shape=(len(codes.indptr) - 1, len(D)))
    return z[rows].astype(np.float64) @ D


def bridge_nulls(
    pairs: PairedCodes, D: np.ndarray, classes: list[str], min_pairs: int, draws: int, seed: int
) -> dict[str, list[dict[str, float]]]:
    """The result of `figures` under each null of NULLS, one dict per draw. D: [C, d] float64, unit rows.

    images_permuted: images, each with all its codes, are permuted among all images. Each draw has marginal means of its
    own, so the expected covariance is 0, and the expected co-activation is the product of the draw's own means.
    dictionary_permuted: the rows of D are permuted, and the codes are unchanged. both_permuted: the images and the rows
    of D are permuted.
    """
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PERMUTED,)))
    images = len(pairs.image.indptr) - 1
    orders = [random.permutation(len(D)) for _ in range(draws)]
    drawn: dict[str, list[dict[str, float]]] = {name: [] for name in NULLS}
    similarity = Similarity(D)
    drawn["dictionary_permuted"] = figures(pairs, similarity, orders, classes, min_pairs)
    for order in orders:
        shuffled = pairs.with_images(random.permutation(images))
        images_permuted, both_permuted = figures(shuffled, similarity, [None, order], classes, min_pairs)
        drawn["images_permuted"].append(images_permuted)
        drawn["both_permuted"].append(both_permuted)
    return drawn


def figures(
    pairs: PairedCodes, similarity: Similarity, orders: Sequence[np.ndarray | None], classes: list[str], min_pairs: int
) -> list[dict[str, float]]:
    """One dict of results for each order of the rows of the dictionary; see `PairedCodes.summaries` for the arguments.

    For each kind of bridge (raw, covariance): <kind>_total is the sum of all cells, and <kind>_positive is the sum of
    the positive cells. <kind>_opposite_total and <kind>_opposite_positive are the same sums over the cells of a
    unimodal image concept and a unimodal text concept, in either role. Three results are shares of <kind>_positive:
    <kind>_self_share (cells with i = j), <kind>_opposite_share, and <kind>_top_<n>_share (the n highest cells with
    enough pairs). top_bridge, top_covariance_bridge and top_correlation_bridge are the highest
    scores of cells with enough pairs. No matrix of scores is in memory.
    """
    return [_figures(one) for one in pairs.summaries(similarity, orders, classes, min_pairs, max(TOPS))]


def _figures(whole: Summary) -> dict[str, float]:
    image, text = CLASSES.index("image"), CLASSES.index("text")
    values: dict[str, float] = {}
    for k, kind in enumerate(KINDS):
        positive = whole.totals[k, :, 0]
        top = np.sort(whole.top[k][np.isfinite(whole.top[k])])[::-1]
        total = float(positive.sum())
        values[f"{kind}_total"] = float(whole.totals[k].sum())
        values[f"{kind}_positive"] = total
        values[f"{kind}_self_share"] = _share(float(positive[1].sum()), total)
        opposite = whole.totals[k, 0, :, image, text] + whole.totals[k, 0, :, text, image]  # positive, negative
        values[f"{kind}_opposite_total"] = float(opposite.sum())
        values[f"{kind}_opposite_positive"] = float(opposite[0])
        values[f"{kind}_opposite_share"] = _share(float(opposite[0]), total)
        values |= {f"{kind}_top_{n}_share": _share(float(top[:n].clip(0).sum()), total) for n in TOPS}
        values["top_bridge" if kind == "raw" else "top_covariance_bridge"] = float(top[0]) if len(top) else np.nan
    values["top_correlation_bridge"] = whole.correlation if np.isfinite(whole.correlation) else np.nan
    return values


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


STATISTIC = Statistic(
    name="bridges",
    version="3",
    needs=("concepts",),
    tables={
        "bridges": BRIDGES,
        "bridge_totals": TOTALS,
        "matched_similarity": SIMILARITY,
        "bridge_groups": GROUPS,
    },
    adds=("null_draws",),
    make=make,
    pieces=("bridges",),
)
