"""Floors of subspace stability: the projections of an SAE's concepts on spans of atoms of random dictionaries."""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import numpy as np

from analysis.inputs import Analysis, keys_of
from analysis.partners import weighted_mean
from analysis.stability import rows_like
from analysis.statistic import Statistic, Table
from analysis.subspace_stability import ATOMS, projections
from analysis.tables import NULL_DRAWS, table_of_rows
from storage.catalog import frame

DRAWS = 20  # random dictionaries per floor
SAMPLE = 512  # concepts of a wider dictionary that each draw projects
FLOOR = 6  # spawn key of this module's random stream; each module has a different key


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The draws of both floors of one SAE, as rows of null_draws: `subspace_stability_<m>` for every m of ATOMS."""
    entry, net = analysis.sae
    keys = keys_of(entry)
    query = "SELECT energy FROM concepts WHERE model = $model AND sae = $sae AND seed = $seed ORDER BY concept_id"
    energies = frame(con, query, keys)["energy"].to_numpy()
    D, rows = net.dictionary.numpy(), []
    for null, rows_of in (("floor_random", lambda normal: normal), ("floor_matched", rows_like(D))):
        for draw, values in enumerate(floor(D, energies, rows_of, entry.seed or 0)):
            at = {**keys, "null": null, "draw": draw}
            rows += [
                {**at, "statistic": f"subspace_stability_{m}", "value": value}
                for m, value in zip(ATOMS, values, strict=True)
            ]
    return {"null_draws": table_of_rows(rows, NULL_DRAWS)}


def floor(
    D: np.ndarray, energies: np.ndarray, rows_of: Callable[[np.ndarray], np.ndarray], seed: int, draws: int = DRAWS
) -> np.ndarray:
    """Mean projection [draws, len(ATOMS)] of D's concepts on atoms of random dictionaries, weighted by energy.

    D [C, d]: unit rows. energies [C]. rows_of: turns standard normal rows into rows of a random dictionary. A draw of a
    dictionary of more than SAMPLE concepts projects SAMPLE of them, drawn with chances in proportion to their energies,
    so that its plain mean has the weighted mean as its expectation. NaN where no concept has energy.
    """
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(FLOOR,)))
    means = np.full((draws, len(ATOMS)), np.nan)
    if not energies.sum() > 0:
        return means
    for draw in range(draws):
        rows = rows_of(random.standard_normal(D.shape, np.float32))
        atoms = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        chosen, weights = np.arange(len(D)), energies
        if len(D) > SAMPLE:
            chosen, weights = random.choice(len(D), SAMPLE, p=energies / energies.sum()), np.ones(SAMPLE)
        found = projections(D[chosen], atoms)
        means[draw] = [weighted_mean(column, weights) for column in found.T]
    return means


STATISTIC = Statistic(
    name="subspace_floors",
    version="1",
    tables={},
    make=make,
    needs=("concepts",),
    adds=("null_draws",),
)
