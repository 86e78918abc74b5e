"""Loops, compiled by numba, that numpy cannot express without large temporary arrays.

The functions read and fill plain arrays; callers check the input.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def coactivate_(
    start: int,
    stop: int,
    concept_start: np.ndarray,
    concept_items: np.ndarray,
    concept_values: np.ndarray,
    pair_start: np.ndarray,
    pair_captions: np.ndarray,
    text_start: np.ndarray,
    text_concepts: np.ndarray,
    text_values: np.ndarray,
    sums: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Add the co-activation of image concepts start..stop-1 with every text concept to sums and counts.

    concept_start [C+1], concept_items [nnz], concept_values [nnz]: image codes sorted by concept. pair_start [n_I+1],
    pair_captions [P]: the captions of each image. text_start [n_T+1], text_concepts, text_values: text codes sorted by
    caption. sums [stop-start, C] float64: sum over the pairs of z_i z_j, the codes of image concept i and text concept
    j. counts [stop-start, C] int64: number of pairs on which both concepts fire.
    sums is float64, since a float32 accumulator is off by 2.7e-5 at 600,000 pairs.
    """
    for i in range(start, stop):
        row_sums = sums[i - start]
        row_counts = counts[i - start]
        for q in range(concept_start[i], concept_start[i + 1]):
            item = concept_items[q]
            value = np.float64(concept_values[q])
            for p in range(pair_start[item], pair_start[item + 1]):
                caption = pair_captions[p]
                for s in range(text_start[caption], text_start[caption + 1]):
                    concept = text_concepts[s]
                    row_sums[concept] += value * text_values[s]
                    row_counts[concept] += 1


@numba.njit(cache=True, nogil=True)
def score_(
    start: int,
    pairs: int,
    sums: np.ndarray,
    counts: np.ndarray,
    cosine: np.ndarray,
    mean_image: np.ndarray,
    mean_text: np.ndarray,
    deviation_image: np.ndarray,
    deviation_text: np.ndarray,
    classes: np.ndarray,
    min_pairs: int,
    concepts: np.ndarray,
    rows: np.ndarray,
    totals: np.ndarray,
) -> None:
    """Turn the sums of `coactivate_` for image concepts start..start+B-1 into bridges, in one pass.

    pairs: number of all pairs. sums, counts [B, C]: from `coactivate_`. cosine [B, C]: cosine of each image concept i
    of the block and every text concept j. mean_*, deviation_* [C]: mean and standard deviation of the codes over the
    pairs. classes [C] int8: index of each concept's class in CLASSES.
    The N cells with at least min_pairs pairs fill concepts [N, 2] (i, j) and rows [N, 4] (coactivation, bridge,
    covariance bridge, correlation bridge; the correlation bridge is NaN where a deviation is 0). Every cell is added to
    totals [kind (raw, covariance), self (i = j), sign (positive, negative), class of i, class of j].
    """
    row = 0
    for b in range(len(sums)):
        i = start + b
        for j in range(sums.shape[1]):
            G = sums[b, j] / pairs
            bridge = G * cosine[b, j]
            covariance = (G - mean_image[i] * mean_text[j]) * cosine[b, j]
            own = 1 if i == j else 0
            totals[0, own, 0 if bridge >= 0 else 1, classes[i], classes[j]] += bridge
            totals[1, own, 0 if covariance >= 0 else 1, classes[i], classes[j]] += covariance
            if counts[b, j] >= min_pairs:
                concepts[row, 0], concepts[row, 1] = i, j
                rows[row, 0], rows[row, 1], rows[row, 2] = G, bridge, covariance
                deviations = deviation_image[i] * deviation_text[j]
                rows[row, 3] = covariance / deviations if deviations > 0 else np.nan
                row += 1


@numba.njit(cache=True, nogil=True)
def summarize_(
    start: int,
    stop: int,
    pairs: int,
    concept_start: np.ndarray,
    concept_items: np.ndarray,
    concept_values: np.ndarray,
    pair_start: np.ndarray,
    pair_captions: np.ndarray,
    text_start: np.ndarray,
    text_concepts: np.ndarray,
    text_values: np.ndarray,
    cosine: np.ndarray,
    places: np.ndarray,
    orders: np.ndarray,
    mean_image: np.ndarray,
    mean_text: np.ndarray,
    deviation_image: np.ndarray,
    deviation_text: np.ndarray,
    classes: np.ndarray,
    min_pairs: int,
    totals: np.ndarray,
    top: np.ndarray,
    correlation: np.ndarray,
) -> None:
    """Sum up the bridges of image concepts start..stop-1 for each of R orders of the dictionary, without storing them.

    cosine [N, C] float64: element [places[r, b], orders[r, j]] is the cosine of concepts start+b and j in order r.
    places [R, stop-start], orders [R, C]. classes [C] int8, the other inputs: as in `coactivate_` and `score_`.
    Adds every cell to totals [R, kind, self, sign, class of i, class of j], as `score_` does. top [R, kind, n] holds
    the n largest scores of cells with at least min_pairs pairs, as a heap whose smallest value comes first. correlation
    [R] holds the largest correlation bridge of these cells. Both begin at -inf. Sums are in memory one row at a time.
    """
    width, number = len(mean_text), len(orders)
    sums, counts = np.empty(width), np.empty(width, np.int32)
    own_class = np.empty((2, 2, totals.shape[-1]))
    for i in range(start, stop):
        sums[:] = 0.0
        counts[:] = 0
        for q in range(concept_start[i], concept_start[i + 1]):
            item = concept_items[q]
            value = np.float64(concept_values[q])
            for p in range(pair_start[item], pair_start[item + 1]):
                caption = pair_captions[p]
                for s in range(text_start[caption], text_start[caption + 1]):
                    concept = text_concepts[s]
                    sums[concept] += value * text_values[s]
                    counts[concept] += 1
        for r in range(number):
            own_class[:] = 0.0
            row, order = cosine[places[r, i - start]], orders[r]
            for j in range(width):
                similarity = row[order[j]]
                G = sums[j] / pairs
                bridge = G * similarity
                covariance = (G - mean_image[i] * mean_text[j]) * similarity
                if j == i:
                    totals[r, 0, 1, 0 if bridge >= 0 else 1, classes[i], classes[j]] += bridge
                    totals[r, 1, 1, 0 if covariance >= 0 else 1, classes[i], classes[j]] += covariance
                else:
                    own_class[0, 0 if bridge >= 0 else 1, classes[j]] += bridge
                    own_class[1, 0 if covariance >= 0 else 1, classes[j]] += covariance
                if counts[j] >= min_pairs:
                    if bridge > top[r, 0, 0]:
                        _replace_smallest(top[r, 0], bridge)
                    if covariance > top[r, 1, 0]:
                        _replace_smallest(top[r, 1], covariance)
                    deviations = deviation_image[i] * deviation_text[j]
                    if covariance > correlation[r] * deviations and deviations > 0:
                        correlation[r] = covariance / deviations
            totals[r, :, 0, :, classes[i], :] += own_class


@numba.njit(cache=True, nogil=True)
def _replace_smallest(heap: np.ndarray, value: float) -> None:
    """Replace the first and smallest value of a heap by a larger value."""
    at, size = 0, len(heap)
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and heap[below + 1] < heap[below]:
            below += 1
        if heap[below] >= value:
            break
        heap[at] = heap[below]
        at = below
    heap[at] = value


@numba.njit(cache=True, nogil=True)
def by_item_(
    position: np.ndarray,
    concept: np.ndarray,
    value: np.ndarray,
    start: np.ndarray,
    concepts: np.ndarray,
    values: np.ndarray,
) -> None:
    """Sort codes by item with a counting sort, which keeps the order within an item.

    position [nnz]: the row of each code's item, negative for an item that is not counted. concept, value [nnz]: the
    concept and the value of each code. start [n+1]: the position in the outputs at which each row starts. Fills the
    outputs concepts and values.
    """
    free = start[:-1].copy()
    for q in range(len(position)):
        if position[q] >= 0:
            at = free[position[q]]
            concepts[at], values[at] = concept[q], value[q]
            free[position[q]] = at + 1


@numba.njit(cache=True, nogil=True)
def partners_(
    chosen: np.ndarray,
    pairs: int,
    concept_start: np.ndarray,
    concept_items: np.ndarray,
    concept_values: np.ndarray,
    pair_start: np.ndarray,
    pair_captions: np.ndarray,
    text_start: np.ndarray,
    text_concepts: np.ndarray,
    text_values: np.ndarray,
    mean_a: np.ndarray,
    mean_b: np.ndarray,
    deviation_a: np.ndarray,
    deviation_b: np.ndarray,
    best: np.ndarray,
    second: np.ndarray,
) -> None:
    """Find the largest and the second largest correlation of the chosen concepts of side a with those of side b.

    The codes of side a stand where `coactivate_` has images, and those of side b where it has captions. mean_*,
    deviation_* [C]: mean and standard deviation of the codes over the pairs. chosen int64: concepts, each
    once. Fills best and second [C] float64 at these; both stay as they are for a concept whose codes are constant.
    Two concepts that never fire together correlate at most 0. So only the concepts that fire together with concept i
    are looked at, and all concepts only where fewer than two of them correlate at 0 or more.
    """
    width = len(mean_b)
    sums, seen, touched = np.zeros(width), np.full(width, -1), np.empty(width, np.int64)
    for i in chosen:
        if deviation_a[i] == 0:
            continue
        number = 0
        for q in range(concept_start[i], concept_start[i + 1]):
            item = concept_items[q]
            value = np.float64(concept_values[q])
            for p in range(pair_start[item], pair_start[item + 1]):
                caption = pair_captions[p]
                for s in range(text_start[caption], text_start[caption + 1]):
                    concept = text_concepts[s]
                    if seen[concept] != i:
                        seen[concept] = i
                        touched[number] = concept
                        number += 1
                        sums[concept] = 0.0
                    sums[concept] += value * text_values[s]
        first, after = -np.inf, -np.inf
        for t in range(number):
            j = touched[t]
            if deviation_b[j] > 0:
                r = (sums[j] / pairs - mean_a[i] * mean_b[j]) / (deviation_a[i] * deviation_b[j])
                after = max(after, min(first, r))
                first = max(first, r)
        if after < 0:
            first, after = -np.inf, -np.inf
            for j in range(width):
                if deviation_b[j] > 0:
                    G = sums[j] / pairs if seen[j] == i else 0.0
                    r = (G - mean_a[i] * mean_b[j]) / (deviation_a[i] * deviation_b[j])
                    after = max(after, min(first, r))
                    first = max(first, r)
        best[i] = first if first > -np.inf else np.nan
        second[i] = after if after > -np.inf else np.nan
