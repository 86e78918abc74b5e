"""Cost and exactness of matching: floors of one SAE at several sizes, beside the exact solver, and one larger match.

python bench/floors.py [--widths 2048 4096 8192] [--dim 512] [--exact-up-to 4096] [--large 32768]

The dictionary has a mean and a decaying spectrum, as trained ones have. The exact solver is Jonker and Volgenant's on
all cosines, one draw after another, on the same draws: it takes five minutes at 8,192 concepts. Seconds are wall time;
seconds of cores are the time of all threads, which other programs change less. Prints one line per result, writes
bench/results/floors.json, and ends with 1 when a bar is not met. Run it while nothing else is running.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import lap
import numpy as np
from bars import Bar, at_most, finish, shown

DRAWS = 20
SECONDS, SIZE = 60, 8192  # the bar of both floors, at this number of concepts, on two cores


def dictionary(width: int, dim: int) -> np.ndarray:
    """Unit rows [C, d] float32 with a mean of half of their length and a spectrum that falls as 1 / sqrt(rank)."""
    random = np.random.default_rng(1)
    spectrum = 1 / np.sqrt(np.arange(1, dim + 1))
    mean = random.standard_normal(dim) * 0.5 * np.sqrt((spectrum**2).mean())
    rows = random.standard_normal((width, dim)) * spectrum * (1 + random.exponential(1, (width, 1))) + mean
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def exact(D_a: np.ndarray, D_b: np.ndarray, device: str = "cpu") -> Any:
    """What `analysis.assignment.assign` returns, by the exact solver on all cosines."""
    from analysis.assignment import Assignment

    S = D_a @ D_b.T
    permutation, _ = lap.lapjv(1.0 - S.astype(np.float64), return_cost=False)
    return Assignment(permutation, S[np.arange(len(S)), permutation], 0.0, 1.0)


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result of a call, its wall time and the time of all threads, in seconds."""
    began, cores_began = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - began, time.process_time() - cores_began


def floors(width: int, dim: int, with_exact: bool) -> Iterator[Bar]:
    """Both floors of one SAE, and their distance from the exact ones in standard deviations of the draws."""
    from analysis import stability

    D, solve = dictionary(width, dim), stability.assign
    total = total_cores = total_exact = 0.0
    for name in ("floor_random", "floor_matched"):
        floor = getattr(stability, name)
        drawn, wall, cores = timed(lambda floor=floor: floor(D, DRAWS, 0).mean(1, dtype=np.float64))
        total, total_cores = total + wall, total_cores + cores
        yield shown(f"{width} concepts: mean of {name}", drawn.mean())
        yield shown(f"{width} concepts: standard deviation of {name} over the draws", drawn.std(ddof=1))
        if with_exact:
            stability.assign = exact
            expected, wall, _ = timed(lambda floor=floor: floor(D, DRAWS, 0).mean(1, dtype=np.float64))
            stability.assign = solve
            total_exact += wall
            away = abs(drawn.mean() - expected.mean()) / expected.std(ddof=1)
            yield at_most(f"{width} concepts: {name} away from the exact one", away, 1, "sd")
    bar = at_most(f"{width} concepts: both floors", total, SECONDS, "s") if width == SIZE else None
    yield bar or shown(f"{width} concepts: both floors", total, "s")
    yield shown(f"{width} concepts: both floors, time of all threads", total_cores, "s")
    if with_exact:
        yield shown(f"{width} concepts: both floors, exact solver on the same threads", total_exact, "s")


def large(width: int, dim: int) -> Iterator[Bar]:
    """One match of unrelated dictionaries beyond the size whose cosines are kept in memory."""
    from analysis.assignment import assign

    D = dictionary(width, dim)
    other = np.random.default_rng(2).standard_normal((width, dim)) * D.std(0) + D.mean(0)
    other = (other / np.linalg.norm(other, axis=1, keepdims=True)).astype(np.float32)
    found, wall, cores = timed(lambda: assign(D, other))
    yield shown(f"{width} concepts: one match of unrelated dictionaries", wall, "s")
    yield shown(f"{width} concepts: one match, time of all threads", cores, "s")
    yield shown(f"{width} concepts: how often a row read all cosines", found.looks)
    yield at_most(f"{width} concepts: bound of what the mean cosine lacks", found.gap, 1e-9)


def main() -> int:
    """Print and write the results; return 1 when a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="*", default=[2048, 4096, 8192])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--exact-up-to", type=int, default=4096, help="most concepts that the exact solver matches too")
    parser.add_argument("--large", type=int, default=32_768, help="concepts of the larger match; 0 for none")
    arguments = parser.parse_args()
    list(floors(300, 16, with_exact=False))  # compiles the loops
    rows = [row for width in arguments.widths for row in floors(width, arguments.dim, width <= arguments.exact_up_to)]
    if arguments.large:
        rows += large(arguments.large, arguments.dim)
    rows.append(shown("peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "GB"))
    return finish("floors", rows)


if __name__ == "__main__":
    sys.exit(main())
