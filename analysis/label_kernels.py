"""Loops over sparse codes and labels, compiled by numba.

The functions read and fill plain arrays; callers check the input.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def rank_excess_(start: np.ndarray, values: np.ndarray, items: int, excess: np.ndarray) -> None:
    """Fill excess [nnz] int64: twice the midrank of each firing less twice the midrank of an item that does not fire.

    start [C+1], values [nnz]: the activations of each concept among `items` items, sorted by concept. Equal activations
    share the mean of their ranks (midrank), and so do all items on which the concept does not fire. Twice a midrank is
    an integer, so that all sums of it are exact.
    """
    for concept in range(len(start) - 1):
        first, stop = start[concept], start[concept + 1]
        order = np.argsort(values[first:stop])
        silent = items - (stop - first)
        a = 0
        while a < len(order):
            b = a + 1
            while b < len(order) and values[first + order[b]] == values[first + order[a]]:
                b += 1
            for q in range(a, b):
                excess[first + order[q]] = silent + a + b
            a = b


@numba.njit(cache=True, nogil=True)
def sum_by_label_(
    start: np.ndarray,
    images: np.ndarray,
    excess: np.ndarray,
    order: np.ndarray,
    label_start: np.ndarray,
    labels: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add up the excess of each concept over the images of every label.

    start [C+1], images [nnz], excess [nnz]: the images of each concept, sorted by concept. order [n]: the image whose
    labels each image takes. label_start [n+1], labels: the labels of every image. sums [C, L] int64: added to.
    """
    for concept in range(len(start) - 1):
        row = sums[concept]
        for q in range(start[concept], start[concept + 1]):
            image = order[images[q]]
            for p in range(label_start[image], label_start[image + 1]):
                row[labels[p]] += excess[q]


@numba.njit(cache=True, nogil=True)
def equal_range_(values: np.ndarray, first: int, stop: int, value: float) -> tuple[int, int]:
    """The range of the places first to stop - 1 of ascending values that are equal to a value; empty if none is."""
    low, high = first, stop
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < value:
            low = middle + 1
        else:
            high = middle
    after = low
    while after < stop and values[after] == value:
        after += 1
    return low, after


@numba.njit(cache=True, nogil=True)
def count_wins_(
    scores: np.ndarray,
    start: np.ndarray,
    positive: np.ndarray,
    groups: np.ndarray,
    of_positives: np.ndarray,
    over_negatives: np.ndarray,
    within: np.ndarray,
) -> None:
    """Add up twice the wins of positive items over negative ones, by group; a tie counts as half a win.

    scores [N, n]; the positive items of row i are positive[start[i]] .. positive[start[i+1]-1], without repeats. groups
    [n]: group of each item. of_positives, over_negatives, within [N, G] int64: added to, see `label_auc.Wins`. The
    positives are sorted, and each negative is placed among them: the cost is n log(number of positives).
    """
    items, total = scores.shape[1], within.shape[1]
    is_positive = np.zeros(items, np.bool_)
    first_of = np.zeros(total + 1, np.int64)
    for row in range(scores.shape[0]):
        own = positive[start[row] : start[row + 1]]
        count = len(own)
        if count == 0:
            continue
        of_row = scores[row]
        ordered = own[np.argsort(of_row[own])]
        sorted_scores = of_row[ordered]
        is_positive[own] = True
        # The positives of each group, sorted: a counting sort by group keeps the order within a group.
        first_of[:] = 0
        for item in own:
            first_of[groups[item] + 1] += 1
        for group in range(total):
            first_of[group + 1] += first_of[group]
        filled = first_of.copy()
        by_group = np.empty(count, sorted_scores.dtype)
        for place in range(count):
            group = groups[ordered[place]]
            by_group[filled[group]] = sorted_scores[place]
            filled[group] += 1
        reached = np.zeros(count + 1, np.int64)
        for item in range(items):
            if is_positive[item]:
                continue
            score, group = of_row[item], groups[item]
            low, high = equal_range_(sorted_scores, 0, count, score)
            reached[low] += 1
            reached[high] += 1
            over_negatives[row, group] += 2 * count - low - high
            if total > 1:
                stop = first_of[group + 1]
                low, high = equal_range_(by_group, first_of[group], stop, score)
                within[row, group] += 2 * stop - low - high
        above = 0
        for place in range(count):
            above += reached[place]
            of_positives[row, groups[ordered[place]]] += above
        is_positive[own] = False
