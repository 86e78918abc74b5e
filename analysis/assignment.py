"""One-to-one assignment between the rows of two dictionaries that makes the sum of their cosines largest.

The method is Bertsekas's auction. Rows bid for columns, whose prices rise, and the increment of the bids falls from
phase to phase (epsilon scaling). A row looks only at the columns that were its best ones when it last saw all columns,
and looks at all columns again when one of these may have become better: prices only rise, which bounds the profit of
all other columns. So the result is that of an auction over all columns, while most rows read all similarities only
once. The similarities of up to KEPT concepts are kept in memory. Those of more concepts are computed again, in blocks,
where they are needed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import lap
import numpy as np

from analysis.assignment_kernels import bid_, bound_, candidates_

KEPT = 16_384  # most concepts whose similarities are kept in memory: 1 GB of float32
BLOCK = 256  # rows whose similarities are computed at a time: 67 MB at 65,536 concepts
QUICK = (1e-4, 1e-8, 1e-12)  # epsilons of the phases; the last one bounds what a concept loses, on average
THOROUGH = tuple(10.0**-power for power in range(2, 13))  # for rows of few dimensions, or of many equal cosines
WORK = 1000  # most bids per row, in all phases of an auction; unrelated dictionaries need 30
LOOK = 25  # bids that take as long as a look at all columns; unrelated dictionaries need 3 looks per row
log = logging.getLogger("bridgescope")


class Candidates(NamedTuple):
    """How many columns a row keeps as candidates; see `candidates_`."""

    groups: int
    taken: int
    most: int


IN_MEMORY = Candidates(128, 40, 256)
RECOMPUTED = Candidates(512, 200, 512)  # looking again is a matrix product, so that rows keep more candidates


class Assignment(NamedTuple):
    """An assignment of the rows of one dictionary to those of another."""

    permutation: np.ndarray  # [C] int64: row i of a belongs to row permutation[i] of b
    cosines: np.ndarray  # [C] float32
    gap: float  # by how much the mean cosine of any other assignment can be larger, at most
    looks: float  # how many times a row looked at all columns, on average


class _State(NamedTuple):
    """The state of an auction of C rows and C columns; see `bid_` and `candidates_`."""

    price: np.ndarray
    owner: np.ndarray
    column_of: np.ndarray
    candidate: np.ndarray
    value: np.ndarray
    number: np.ndarray
    limit: np.ndarray


#: Rows (positions [B], or a slice) -> their similarities with all columns [B, C] float32.
Similarity = Callable[[np.ndarray | slice], np.ndarray]


def assign(D_a: np.ndarray, D_b: np.ndarray, device: str = "cpu") -> Assignment:
    """Assign the C rows of D_a [C, d] one to one to those of D_b [C, d], so that the sum of their cosines is largest.

    Rows are float32 of unit norm. device: where the cosines are computed; another device than the CPU rounds otherwise,
    by about 1e-7. The sum is the largest one up to C * QUICK[-1], less than a sum of float32 numbers is rounded by.
    Where the quick phases would take too long, as with hundreds of equal rows, up to KEPT concepts are assigned by
    Jonker and Volgenant's method, and more concepts in the thorough phases. Where these take too long, the assignment
    of the last finished phase counts, and a warning states its gap. Raises ValueError where a row is not finite.
    Source: Bertsekas 1988, "The auction algorithm"; Jonker and Volgenant 1987.
    """
    if not (np.isfinite(D_a).all() and np.isfinite(D_b).all()):  # the auction would not end
        raise ValueError("a dictionary holds NaN or infinity")
    width, similar = len(D_a), _similarity(D_a, D_b, device)
    if width > KEPT:
        return assign_rows(similar, width)
    return assign_similarities(similar(slice(None)))


def assign_rows(similar: Similarity, width: int, within: float = QUICK[-1]) -> Assignment:
    """Assign as `assign_similarities` does, where the similarities of C = `width` rows do not fit in memory.

    similar: computes the similarities of given rows, which is asked for about three times per row. within: as there.
    Where the quick phases would take too long, thorough ones follow. Where these take too long, the assignment of the
    last finished phase counts, and a warning states its gap.
    """
    quick, thorough = (tuple(epsilon for epsilon in each if epsilon >= within) for each in (QUICK, THOROUGH))
    found = _auction(similar, width, RECOMPUTED, quick, WORK * width)
    if found is None or not _is_final(found, within):
        found = _auction(similar, width, RECOMPUTED, thorough, math.inf)
    assert found is not None
    if not _is_final(found, within):
        log.warning("%d concepts are matched within %.1g of the largest mean similarity", width, found.gap)
    return found


def assign_similarities(S: np.ndarray, within: float = QUICK[-1]) -> Assignment:
    """Assign the C rows of similarities S [C, C] float32 one to one to its columns, so that their sum is largest.

    S is finite and at most 1; `cosines` of the result are the assigned similarities. within: by how much another
    assignment's mean may be larger; one of QUICK. The default gives the exactness of `assign`. A sum of similarities
    that are mostly noise takes minutes at 8,192 rows to the last epsilon, and a second to the first.
    """
    width = len(S)
    epsilons = tuple(epsilon for epsilon in QUICK if epsilon >= within)
    found = _auction(lambda rows: S[rows], width, IN_MEMORY, epsilons, WORK * width)
    if found is None or not _is_final(found, within):
        permutation = lap.lapjv(1.0 - S.astype(np.float64), return_cost=False)[0].astype(np.int64)
        found = Assignment(permutation, S[np.arange(width), permutation], 0.0, 1.0)
    return found


def _is_final(found: Assignment, last: float = QUICK[-1]) -> bool:
    """Whether an assignment is that of the phase with the last epsilon. The gap is rounded by less than QUICK[-1]."""
    return found.gap <= last + QUICK[-1]


def _similarity(D_a: np.ndarray, D_b: np.ndarray, device: str) -> Similarity:
    """The function that computes the cosines of given rows of D_a with all rows of D_b, on the device."""
    if device == "cpu":
        return lambda rows: D_a[rows] @ D_b.T
    import torch

    columns = torch.from_numpy(D_b).to(device).T
    return lambda rows: (torch.from_numpy(D_a[rows]).to(device) @ columns).cpu().numpy()


def _auction(
    similar: Similarity, width: int, keep: Candidates, epsilons: Sequence[float], budget: float
) -> Assignment | None:
    """Run the phases of an auction. Returns the assignment of the last phase that ended within the work allowed.

    budget: the work of the first phase, in bids. The result is None where it does not suffice. All phases together are
    allowed WORK bids per row. A first phase with a budget of infinity always ends, for a row never pays more than a
    free column's price and the range of the cosines, so that a column gets at most 2 / epsilon bids.
    """
    most = min(keep.most, width)
    state = _State(
        price=np.zeros(width),
        owner=np.empty(width, np.int64),
        column_of=np.empty(width, np.int64),
        candidate=np.empty((width, most), np.int32),
        value=np.empty((width, most), np.float32),
        number=np.zeros(width, np.int32),
        limit=np.full(width, np.inf),  # every row looks at all columns before its first bid
    )
    found, work, looks = None, 0.0, 0
    for epsilon in epsilons:
        spent, looked = _phase(state, similar, keep, epsilon, budget)
        work, looks = work + spent, looks + looked
        if spent >= budget:
            break
        found = _assignment(state, looks)
        budget = WORK * width - work
    return found


def _phase(state: _State, similar: Similarity, keep: Candidates, epsilon: float, budget: float) -> tuple[float, int]:
    """Assign all rows again at the prices so far. Returns the work in bids and the number of looks at all columns.

    Ends early when the work exceeds the budget.
    """
    width = len(state.price)
    state.owner[:], state.column_of[:] = -1, -1
    waiting, stale = np.arange(width), np.empty(width, np.int64)
    number, spent, looks = width, 0.0, 0
    while number and spent < budget:
        most_bids = int(min(budget - spent, np.iinfo(np.int64).max))
        number, bids = bid_(waiting, number, epsilon, most_bids, *state, stale)
        for start in range(0, number, BLOCK):
            rows = stale[start : min(start + BLOCK, number)]
            candidates_(similar(rows), rows, keep.groups, keep.taken, state.price, *state[3:])
        waiting, stale = stale, waiting
        spent, looks = spent + bids + LOOK * number, looks + number
    return spent, looks


def _assignment(state: _State, looks: int) -> Assignment:
    """The assignment at the end of a phase. Each row's column is one of its candidates."""
    width, most = state.candidate.shape
    own = (state.candidate == state.column_of[:, None]) & (np.arange(most) < state.number[:, None])
    cosines = np.take_along_axis(state.value, own.argmax(1)[:, None], 1)[:, 0]
    gap = bound_(state.price, *state[3:]) - float(cosines.sum(dtype=np.float64))
    return Assignment(state.column_of.copy(), cosines, gap / width, looks / width)
