"""Loops of the auction of `analysis.assignment`, compiled by numba. Callers check the input."""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def candidates_(
    similarity: np.ndarray,
    rows: np.ndarray,
    groups: int,
    taken: int,
    price: np.ndarray,
    candidate: np.ndarray,
    value: np.ndarray,
    count: np.ndarray,
    limit: np.ndarray,
) -> None:
    """For each of the given rows, collect the columns of the highest profit, which is similarity minus price.

    similarity [B, C] float32: the similarities of the rows `rows` [B] with every column. price [C] float64. Fills row i
    of candidate [C, most] int32 (the columns) and of value [C, most] float32 (their similarities), count[i] (how many
    there are) and limit[i]: at these prices no column that was left out has a higher profit than the limit.
    The limit is the `taken`-th highest of the maxima of `groups` groups of columns, so that at least `taken` columns
    reach it, and hardly more than that: this is several times as fast as sorting. A row of at most `most` columns keeps
    all of them.
    """
    columns, most = similarity.shape[1], candidate.shape[1]
    profit, best = np.empty(columns), np.empty(groups)
    for b in range(len(rows)):
        i, row = rows[b], similarity[b]
        for j in range(columns):
            profit[j] = row[j] - price[j]
        at_least = -np.inf
        if columns > most:
            best[:] = -np.inf
            for start in range(0, columns - groups + 1, groups):
                for g in range(groups):
                    best[g] = profit[start + g] if profit[start + g] > best[g] else best[g]
            at_least = np.partition(best, groups - taken)[groups - taken]
        found = 0
        for j in range(columns):
            found += profit[j] >= at_least
        if found > most:  # columns of equal profit
            at_least = np.partition(profit, columns - most)[columns - most]
        found = 0
        for strictly in (True, False):
            for j in range(columns):
                if found < most and (profit[j] > at_least if strictly else profit[j] == at_least):
                    candidate[i, found], value[i, found] = j, row[j]
                    found += 1
        count[i], limit[i] = found, at_least


@numba.njit(cache=True, nogil=True)
def bid_(
    waiting: np.ndarray,
    number: int,
    epsilon: float,
    most_bids: int,
    price: np.ndarray,
    owner: np.ndarray,
    column_of: np.ndarray,
    candidate: np.ndarray,
    value: np.ndarray,
    count: np.ndarray,
    limit: np.ndarray,
    stale: np.ndarray,
) -> tuple[int, int]:
    """Let rows bid until each row has a column or is stale. Returns the number of stale rows and the number of bids.

    A row bids for its column of the highest profit, and raises the price of the column until its profit there is
    epsilon below its second highest profit. The former owner of the column bids again. A row is stale if its two best
    profits may lie outside its candidates, that is, if the second is below limit[i]: prices only rise, so limit[i]
    stays a bound of the profits outside. waiting [C]: its first `number` entries are the rows that bid. owner [C]: the
    row of each column, or -1. column_of [C]: the column of each row, or -1. stale [C]: is filled with the stale rows.
    Ends early after most_bids bids.
    """
    stale_rows, bids = 0, 0
    while number > 0 and bids < most_bids:
        number -= 1
        i = waiting[number]
        best, second, column = -np.inf, -np.inf, -1
        for c in range(count[i]):
            profit = value[i, c] - price[candidate[i, c]]
            if profit > best:
                best, second, column = profit, best, candidate[i, c]
            elif profit > second:
                second = profit
        if column < 0 or second < limit[i]:
            stale[stale_rows] = i
            stale_rows += 1
            continue
        bids += 1
        price[column] += epsilon + (best - second if second > -np.inf else 0.0)
        if owner[column] >= 0:
            column_of[owner[column]] = -1
            waiting[number] = owner[column]
            number += 1
        owner[column], column_of[i] = i, column
    return stale_rows, bids


@numba.njit(cache=True, nogil=True)
def bound_(price: np.ndarray, candidate: np.ndarray, value: np.ndarray, count: np.ndarray, limit: np.ndarray) -> float:
    """An upper bound of the total of every assignment, from the prices: sum_j price_j + sum_i (highest profit of i)."""
    total = 0.0
    for j in range(len(price)):
        total += price[j]
    for i in range(len(count)):
        best = limit[i]
        for c in range(count[i]):
            best = max(best, value[i, c] - price[candidate[i, c]])
        total += best
    return total
