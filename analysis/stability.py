"""Stability: one-to-one matches between the concepts of two SAEs, and the cosines that random dictionaries reach.

All concepts are matched, by cosine alone. To study some of the concepts, such as those of high energy, filter the
matches.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import duckdb
import lap
import numpy as np
import polars as pl

from analysis.inputs import Analysis
from analysis.parts import pairs_of_seeds
from analysis.statistic import Statistic, Table
from analysis.tables import Schema, add_piece, open_pieces, table
from sae import SAE
from storage.errors import BadInput
from storage.runs import Entry

MATCHES: Schema = {
    "model": pl.String, "sae_a": pl.String, "seed_a": pl.Int32, "sae_b": pl.String, "seed_b": pl.Int32,
    "concept_a": pl.Int32, "concept_b": pl.Int32, "cosine": pl.Float32,
}  # fmt: skip
FLOOR = 1  # spawn key of this module's random stream; each module has a different key


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The table matches of one pair of seeds, computed from dictionaries alone."""
    return {"matches": write_matches(analysis)}


def write_matches(analysis: Analysis) -> Path:
    """Write matches.parquet: the exact assignment between the concepts of two SAEs, for each pair of SAEs of two seeds.

    The SAEs are those of a setting and of its data diets, which train the same setting on other data. Each pair of SAEs
    has rows in both orders. One pair is computed at a time. Raises BadInput where two SAEs differ in width.
    """
    trained = {(e.sae or "", e.seed or 0): e for e in analysis.entries if e.kind == "train"}
    seeds = sorted({seed for _, seed in trained})
    with open_pieces(analysis.out, "matches", MATCHES) as file:
        for a, b in pairs_of_seeds(trained)[seeds[0], seeds[-1]]:
            nets = (SAE.load(analysis.store / trained[name].dataset.path) for name in (a, b))
            for rows in matches_of_pair(trained[a], next(nets), trained[b], next(nets)):
                add_piece(file, rows)
    return analysis.out / "matches.parquet"


def matches_of_pair(a: Entry, net_a: SAE, b: Entry, net_b: SAE) -> list[pl.DataFrame]:
    """The rows of `matches` of two SAEs: one table for (a, b) and one for (b, a).

    Raises BadInput where the SAEs differ in width.
    """
    if net_a.config.width != net_b.config.width:
        raise BadInput(
            f"model {a.model}: SAEs that are matched differ in width: "
            f"{a.dataset.path} ({a.sae}, seed {a.seed}): {net_a.config.width}, "
            f"{b.dataset.path} ({b.sae}, seed {b.seed}): {net_b.config.width}: run the study with --only train"
        )
    assigned, cosines = match(net_a.dictionary.numpy(), net_b.dictionary.numpy())
    concepts = np.arange(len(assigned))
    return [_matched(a, b, concepts, assigned, cosines), _matched(b, a, assigned, concepts, cosines)]


def _matched(a: Entry, b: Entry, concept_a: np.ndarray, concept_b: np.ndarray, cosine: np.ndarray) -> pl.DataFrame:
    keys = {"model": a.model, "sae_a": a.sae, "seed_a": a.seed, "sae_b": b.sae, "seed_b": b.seed}
    return table({**keys, "concept_a": concept_a, "concept_b": concept_b, "cosine": cosine}, MATCHES)


class Match(NamedTuple):
    """The best one-to-one assignment between two dictionaries."""

    permutation: np.ndarray  # [C] int64: concept i of a is matched with concept permutation[i] of b
    cosines: np.ndarray  # [C] float32: cosine of the two concepts


def match(D_a: np.ndarray, D_b: np.ndarray) -> Match:
    """Match the C concepts of two dictionaries one to one, so that the sum of the matched cosines is largest.

    The result is exact: argmax over permutations p of sum_i <D_a[i], D_b[p(i)]>. D_a, D_b: [C, d] with unit rows.
    `cosines.mean()` is the stability. Raises ValueError where shapes differ or a row is not finite.
    Source: arXiv 2504.11695, stability; Jonker and Volgenant 1987 for the assignment.
    """
    D_a, D_b = np.asarray(D_a, np.float32), np.asarray(D_b, np.float32)
    if D_a.ndim != 2 or D_a.shape != D_b.shape:
        raise ValueError(f"dictionaries of shapes {D_a.shape} and {D_b.shape}; two of one shape [C, d] are needed")
    cosines = D_a @ D_b.T
    if not np.isfinite(cosines).all():  # the solver does not terminate on NaN or infinity
        raise ValueError("a dictionary holds NaN or infinity")
    permutation, _ = lap.lapjv(1.0 - cosines.astype(np.float64), return_cost=False)
    return Match(permutation.astype(np.int64), cosines[np.arange(len(D_a)), permutation])


def floor_random(D: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Cosines [draws, C] of D's concepts matched against random unit vectors, uniform on the sphere.

    The mean is .154 at C=4096, d=512 and .130 at C=6144, d=768.
    """
    D = np.asarray(D, np.float32)
    return _floor(D, np.zeros(D.shape[1]), np.eye(D.shape[1]), draws, seed)


def floor_matched(D: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Cosines [draws, C] of D's concepts matched against Gaussian rows with the mean and covariance of D's rows.

    The drawn rows are normalised. Compare stability with this floor: two SAEs of one embedding space share its mean and
    its main directions, whatever they learn.
    """
    D = np.asarray(D, np.float32)
    mean = D.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(D.T.astype(np.float64), bias=True).reshape(D.shape[1], D.shape[1]))
    # eigh, not Cholesky: the covariance is singular when there are fewer concepts than dimensions.
    return _floor(D, mean, np.sqrt(values.clip(0))[:, None] * vectors.T, draws, seed)


def _floor(D: np.ndarray, mean_D: np.ndarray, root_DD: np.ndarray, draws: int, seed: int) -> np.ndarray:
    # The spawn key gives a separate random stream. A dictionary that was initialised from the same seed would otherwise
    # be compared with its own initial rows.
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(FLOOR,)))
    floors = np.empty((draws, len(D)), np.float32)
    for draw in range(draws):
        rows = mean_D + random.standard_normal(D.shape) @ root_DD
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        floors[draw] = match(D, rows).cosines
    return floors


STATISTIC = Statistic(
    name="stability",
    version="1",
    tables={"matches": MATCHES},
    make=make,
    per="pair",
    pieces=("matches",),
)
