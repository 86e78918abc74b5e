"""Stability: one-to-one matches between the concepts of two SAEs, and the cosines that random dictionaries reach.

All concepts are matched, by cosine alone. To study some of the concepts, such as those of high energy, filter the
matches.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from analysis.assignment import KEPT, Assignment, assign
from analysis.inputs import Analysis
from analysis.parts import pairs_of_seeds
from analysis.statistic import Statistic, Table
from analysis.tables import Schema, add_piece, open_pieces, table
from analysis.workers import cores, in_order
from sae import SAE
from storage.errors import BadInput
from storage.runs import Entry

MATCHES: Schema = {
    "model": pl.String, "sae_a": pl.String, "seed_a": pl.Int32, "sae_b": pl.String, "seed_b": pl.Int32,
    "concept_a": pl.Int32, "concept_b": pl.Int32, "cosine": pl.Float32,
}  # fmt: skip
MEMORY = 4 * 2**30  # bytes for draws of a floor that are matched at the same time
FLOOR = 1  # spawn key of this module's random stream; each module has a different key


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The table matches of one pair of seeds, computed from dictionaries alone."""
    return {"matches": write_matches(analysis)}


def write_matches(analysis: Analysis) -> Path:
    """Write matches.parquet: the best assignment between the concepts of two SAEs, for each pair of SAEs of two seeds.

    The SAEs are those of a setting and of its data diets, which train the same setting on other data. Each pair of SAEs
    has rows in both orders. One pair is computed at a time. Raises BadInput where two SAEs differ in width.
    """
    trained = {(e.sae or "", e.seed or 0): e for e in analysis.entries if e.kind == "train"}
    seeds = sorted({seed for _, seed in trained})
    with open_pieces(analysis.out, "matches", MATCHES) as file:
        for a, b in pairs_of_seeds(trained)[seeds[0], seeds[-1]]:
            nets = (SAE.load(analysis.store / trained[name].dataset.path) for name in (a, b))
            for rows in matches_of_pair(trained[a], next(nets), trained[b], next(nets), analysis.device):
                add_piece(file, rows)
    return analysis.out / "matches.parquet"


def matches_of_pair(a: Entry, net_a: SAE, b: Entry, net_b: SAE, device: str) -> list[pl.DataFrame]:
    """The rows of `matches` of two SAEs: one table for (a, b) and one for (b, a).

    Raises BadInput where the SAEs differ in width.
    """
    if net_a.config.width != net_b.config.width:
        raise BadInput(
            f"model {a.model}: SAEs that are matched differ in width: "
            f"{a.dataset.path} ({a.sae}, seed {a.seed}): {net_a.config.width}, "
            f"{b.dataset.path} ({b.sae}, seed {b.seed}): {net_b.config.width}: run the study with --only train"
        )
    assigned, cosines, *_ = match(net_a.dictionary.numpy(), net_b.dictionary.numpy(), device)
    concepts = np.arange(len(assigned))
    return [_matched(a, b, concepts, assigned, cosines), _matched(b, a, assigned, concepts, cosines)]


def _matched(a: Entry, b: Entry, concept_a: np.ndarray, concept_b: np.ndarray, cosine: np.ndarray) -> pl.DataFrame:
    keys = {"model": a.model, "sae_a": a.sae, "seed_a": a.seed, "sae_b": b.sae, "seed_b": b.seed}
    return table({**keys, "concept_a": concept_a, "concept_b": concept_b, "cosine": cosine}, MATCHES)


def match(D_a: np.ndarray, D_b: np.ndarray, device: str = "cpu") -> Assignment:
    """Match the C concepts of two dictionaries one to one, so that the sum of the matched cosines is largest.

    The result is argmax over permutations p of sum_i <D_a[i], D_b[p(i)]>: see `assign`, also for its exactness and for
    the device. D_a, D_b: [C, d] with unit rows. `cosines.mean()` is the stability. Raises ValueError where shapes
    differ or a row is not finite.
    Source: arXiv 2504.11695, stability.
    """
    D_a, D_b = np.ascontiguousarray(D_a, np.float32), np.ascontiguousarray(D_b, np.float32)
    if D_a.ndim != 2 or D_a.shape != D_b.shape:
        raise ValueError(f"dictionaries of shapes {D_a.shape} and {D_b.shape}; two of one shape [C, d] are needed")
    return assign(D_a, D_b, device)


def floor_random(D: np.ndarray, draws: int, seed: int, device: str = "cpu") -> np.ndarray:
    """Cosines [draws, C] of D's concepts matched against random unit vectors, uniform on the sphere.

    The mean is .154 at C=4096, d=512 and .130 at C=6144, d=768. device: see `assign`.
    """
    return _floor(np.asarray(D, np.float32), lambda normal: normal, draws, seed, device)


def floor_matched(D: np.ndarray, draws: int, seed: int, device: str = "cpu") -> np.ndarray:
    """Cosines [draws, C] of D's concepts matched against Gaussian rows with the mean and covariance of D's rows.

    The drawn rows are normalised. Compare stability with this floor: two SAEs of one embedding space share its mean and
    its main directions, whatever they learn. device: see `assign`.
    """
    D = np.asarray(D, np.float32)
    return _floor(D, rows_like(D), draws, seed, device)


def rows_like(D: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The function that turns standard normal rows [n, d] into rows with the mean and covariance of D's rows [C, d]."""
    mean = D.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(D.T.astype(np.float64), bias=True).reshape(D.shape[1], D.shape[1]))
    # eigh, not Cholesky: the covariance is singular when there are fewer concepts than dimensions.
    root = np.sqrt(values.clip(0))[:, None] * vectors.T
    return lambda normal: mean + normal @ root


def _floor(
    D: np.ndarray, rows_of: Callable[[np.ndarray], np.ndarray], draws: int, seed: int, device: str
) -> np.ndarray:
    """Match D with rows_of(normal) of `draws` arrays normal [C, d] of standard normal numbers, several at a time.

    The numbers are drawn one array after the other, so that the threads do not change them.
    """
    # The spawn key gives a separate random stream. A dictionary that was initialised from the same seed would otherwise
    # be compared with its own initial rows.
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(FLOOR,)))
    bytes_of_draw = 4 * min(len(D), KEPT) ** 2 + 24 * D.size
    threads = max(1, min(cores(), draws, MEMORY // bytes_of_draw))

    def matched(normal: np.ndarray) -> np.ndarray:
        rows = rows_of(normal)
        return match(D, rows / np.linalg.norm(rows, axis=1, keepdims=True), device).cosines

    normals = (random.standard_normal(D.shape) for _ in range(draws))
    with threadpool_limits(max(1, cores() // threads)):  # a matrix product on one core each is faster than side by side
        return np.stack(list(in_order(matched, normals, threads, ahead=1)))


STATISTIC = Statistic(
    name="stability",
    version="1",
    tables={"matches": MATCHES},
    make=make,
    per="pair",
    pieces=("matches",),
)
