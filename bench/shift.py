"""Power and false discoveries of the macro `concept_shift`, over simulated sets of images.

    python bench/shift.py [simulations]

A simulation has 1,000 images, 40 % of them in set a, and 60 concepts with rates from 2 to 30 %. Six of them fire more
often in a: the rate is doubled and raised by 5 points. Printed for energy and rate at level .1: the share of false ones
among the concepts found, with its standard error, and the share of the six that is found. The same is printed with p of
the normal distribution in place of Student's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from sql_case import catalog  # noqa: E402

from storage.catalog import frame  # noqa: E402
from storage.statements import SQL  # noqa: E402

IMAGES, CONCEPTS, PLANTED, LEVEL = 1000, 60, 6, 0.1
QUERY = """
SELECT *, two_sided_p(energy_difference / nullif(energy_sd, 0)) AS energy_normal,
    two_sided_p(rate_difference / nullif(rate_sd, 0)) AS rate_normal
FROM concept_shift('m', 's', 0, 'image', $a, $b)
"""


def simulated(seed: int) -> pl.DataFrame:
    """The answer of the macro for one simulation."""
    random = np.random.default_rng(seed)
    in_a = random.random(IMAGES) < 0.4
    rate = np.tile(np.exp(random.uniform(np.log(0.02), np.log(0.3), CONCEPTS)), (IMAGES, 1))
    rate[in_a, :PLANTED] = rate[in_a, :PLANTED] * 2 + 0.05
    codes = np.where(random.random(rate.shape) < rate, random.gamma(2, 0.2, rate.shape), 0)
    with catalog(codes, np.zeros((0, CONCEPTS)), np.zeros(0, np.int64), random.random(IMAGES)) as con:
        con.execute((SQL / "macros" / "concept_shift.sql").read_text())
        return frame(con, QUERY, {"a": np.flatnonzero(in_a).tolist(), "b": np.flatnonzero(~in_a).tolist()})


def adjusted(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg's q of p-values."""
    order = np.argsort(p)
    q = np.empty(len(p))
    q[order] = np.minimum.accumulate((p[order] * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1]
    return q


def main(simulations: int) -> None:
    """Print one line per result and distribution."""
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(simulations):
        rows = simulated(seed)
        planted = rows["concept_id"].to_numpy() < PLANTED
        for name in ("energy", "rate"):
            normal = adjusted(rows[f"{name}_normal"].fill_null(1).to_numpy())
            for kind, q in (("student", rows[f"{name}_q"].to_numpy()), ("normal", normal)):
                hit = q <= LEVEL
                false = (hit & ~planted).sum() / max(hit.sum(), 1)
                found.setdefault(f"{name} {kind}", []).append((false, (hit & planted).sum() / PLANTED))
    for name, values in found.items():
        false, power = np.mean(values, axis=0)
        error = np.std([value for value, _ in values]) / len(values) ** 0.5
        print(f"{name}: false discoveries {false:.3f} (se {error:.3f}), power {power:.3f}, {simulations} simulations")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
