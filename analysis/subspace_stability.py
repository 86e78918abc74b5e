"""Subspace stability: how much of a concept lies in the span of its most similar atoms of another seed.

Atoms that are not stable one by one can lie in subspaces that are.
Source: Kurochkin et al., arXiv 2606.12138, of which the abstract was read: unstable features concentrate in subspaces
that seeds reproduce. The measure here is this project's own: the span of single atoms' neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable

import duckdb
import numpy as np
import polars as pl

from analysis.inputs import Analysis
from analysis.parts import pairs_of_seeds
from analysis.statistic import Statistic, Table
from analysis.tables import Schema, table
from sae import SAE

SUBSPACE_MATCHES: Schema = {
    "model": pl.String, "sae": pl.String, "seed_a": pl.Int32, "seed_b": pl.Int32, "concept_id": pl.Int32,
    "atoms": pl.Int32, "projection": pl.Float32,
}  # fmt: skip
ATOMS = (1, 2, 4, 8, 16)  # numbers of most similar atoms that span a subspace
BLOCK = 512  # concepts whose cosines with all atoms are computed at a time
DEPENDENT = 1e-5  # an atom of this distance from the span of those before it adds no direction


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The table subspace_matches of the pairs of SAEs of one setting, in both orders."""
    trained = {(e.sae or "", e.seed or 0): e for e in analysis.entries if e.kind == "train"}
    seeds = sorted({seed for _, seed in trained})
    parts = []
    for pair in pairs_of_seeds(trained)[seeds[0], seeds[-1]]:
        if pair[0][0] != pair[1][0]:  # a setting and its data diet
            continue
        entries = [trained[name] for name in pair]
        first, second = (SAE.load(analysis.store / entry.dataset.path).dictionary.numpy() for entry in entries)
        for (a, D_a), (b, D_b) in (
            ((entries[0], first), (entries[1], second)),
            ((entries[1], second), (entries[0], first)),
        ):
            found = projections(D_a, D_b)
            columns = {
                "model": a.model, "sae": a.sae, "seed_a": a.seed, "seed_b": b.seed,
                "concept_id": np.repeat(np.arange(len(D_a)), len(ATOMS)), "atoms": np.tile(ATOMS, len(D_a)),
                "projection": found.ravel(),
            }  # fmt: skip
            parts.append(table(columns, SUBSPACE_MATCHES))
    return {"subspace_matches": pl.concat(parts) if parts else pl.DataFrame(schema=SUBSPACE_MATCHES)}


def projections(D_a: np.ndarray, D_b: np.ndarray, atoms: Iterable[int] = ATOMS) -> np.ndarray:
    """Norm [C, len(atoms)] of the projection of each row of D_a on the span of its m most similar rows of D_b.

    D_a [C, d], D_b [C', d]: unit rows. atoms: the numbers m, ascending; more than C' of them count as C'. The most
    similar rows have the largest cosines. For m = 1 it is the absolute value of the largest cosine.
    """
    D_a, D_b = np.asarray(D_a, np.float32), np.asarray(D_b, np.float32)
    numbers = [min(m, len(D_b)) for m in atoms]
    most = numbers[-1]
    found = np.empty((len(D_a), len(numbers)), np.float32)
    for start in range(0, len(D_a), BLOCK):
        rows = D_a[start : start + BLOCK]
        cosines = rows @ D_b.T
        nearest = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(cosines, nearest, 1), axis=1, kind="stable")
        so_far = np.cumsum(_squares(rows, D_b[np.take_along_axis(nearest, order, 1)]), axis=1)
        found[start : start + BLOCK] = np.sqrt(so_far[:, np.array(numbers) - 1].clip(0, 1))
    return found


def _squares(rows: np.ndarray, spanning: np.ndarray) -> np.ndarray:
    """Squared length [B, m] float64 that each of m atoms adds to the projection of a row; 0 for a dependent atom.

    rows [B, d]; spanning [B, m, d]: the atoms of each row. Modified Gram-Schmidt, twice, which keeps the basis
    orthogonal for atoms that are nearly equal.
    """
    basis = np.zeros(spanning.shape)
    squares = np.zeros(spanning.shape[:2])
    for j in range(spanning.shape[1]):
        direction = spanning[:, j].astype(np.float64)
        for _ in range(2):
            inner = basis[:, :j] @ direction[:, :, None]
            direction -= (inner.transpose(0, 2, 1) @ basis[:, :j])[:, 0]
        norm = np.linalg.norm(direction, axis=1, keepdims=True)
        basis[:, j] = np.where(norm > DEPENDENT, direction / np.maximum(norm, DEPENDENT), 0)
        squares[:, j] = np.einsum("bd,bd->b", basis[:, j], rows) ** 2
    return squares


STATISTIC = Statistic(
    name="subspace_stability",
    version="1",
    tables={"subspace_matches": SUBSPACE_MATCHES},
    make=make,
    per="pair",
)
