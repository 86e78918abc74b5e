"""The loops that select codes from a batch's pre-activations, compiled by numba: on a range of rows, or on all.

Plain arrays in, plain arrays out; callers check the input. Shapes: B rows of a batch, C concepts, K concepts of a
subset, M kept codes of the batch.
"""

import numpy as np

from sae.step_kernels import jit


@jit
def _scan(row: np.ndarray, shift: np.ndarray, cut: np.float32, index: np.ndarray, value: np.ndarray) -> int:
    """Write index and value of the pre-activations, row + shift, that are above cut or NaN. Returns their number."""
    width, n = row.shape[0], 0
    is_above = np.zeros((width + 7) // 8 * 8, np.uint8)
    for c in range(width):
        is_above[c] = not (row[c] + shift[c] <= cut)
    eights = is_above.view(np.uint64)
    for eight in range(eights.shape[0]):
        if eights[eight] == 0:  # most groups of eight hold no candidate
            continue
        for c in range(8 * eight, min(8 * eight + 8, width)):
            index[n] = c
            n += is_above[c]  # c stays if n advances; an `if` would be mispredicted
    # A second loop, because a CPU takes ten times as long to write two arrays in turn if their addresses collide.
    for i in range(n):
        value[i] = row[index[i]] + shift[index[i]]
    return n


@jit
def _keep_largest(n: int, k: int, index: np.ndarray, value: np.ndarray) -> int:
    """Move the k largest of the first n candidates to the front, in order. Of equal candidates the first are kept."""
    if n <= k:
        return n
    smallest = np.partition(value[:n].copy(), n - k)[n - k]
    spare = k
    for i in range(n):
        spare -= value[i] > smallest
    m = 0
    for i in range(n):
        kept = not (value[i] <= smallest)
        if value[i] == smallest and spare > 0:
            kept, spare = True, spare - 1
        if kept:
            index[m], value[m] = index[i], value[i]
            m += 1
    return m


@jit
def _of_row(row: np.ndarray, shift: np.ndarray, cut: np.float32, k: int, index: np.ndarray, value: np.ndarray) -> int:
    n = _scan(row, shift, cut, index, value)
    if n < k and cut > 0:
        n = _scan(row, shift, np.float32(0), index, value)
    return _keep_largest(n, k, index, value) if k > 0 else n


@jit
def candidates_(
    start: int,
    stop: int,
    product: np.ndarray,
    shift: np.ndarray,
    cut: np.float32,
    k: int,
    index: np.ndarray,
    value: np.ndarray,
    counts: np.ndarray,
) -> None:
    """For rows start..stop-1, write index and value [B, C] of the pre-activations above cut, and their counts [B].

    product [B, C]: x W^T. shift [C]: added to it. With k > 0 only each row's k largest positive pre-activations are
    kept (TopK).
    """
    for r in range(start, stop):
        counts[r] = _of_row(product[r], shift, cut, k, index[r], value[r])


@jit
def candidates_of_bfloat16_(
    start: int,
    stop: int,
    product: np.ndarray,
    shift: np.ndarray,
    cut: np.float32,
    k: int,
    index: np.ndarray,
    value: np.ndarray,
    counts: np.ndarray,
) -> None:
    """As `candidates_`, from a bfloat16 product given as its bits, uint16 [B, C]."""
    bits = np.empty(product.shape[1], np.uint32)
    row = bits.view(np.float32)
    for r in range(start, stop):
        for c in range(product.shape[1]):
            bits[c] = np.uint32(product[r, c]) << np.uint32(16)
        counts[r] = _of_row(row, shift, cut, k, index[r], value[r])


@jit
def _kth_largest(value: np.ndarray, k: int) -> np.float32:
    """The k-th largest value. Sorts only the bucket that holds it, which takes a third of the time of a partition."""
    count = np.zeros(2048, np.int64)
    bits = value.view(np.uint32)
    bucket = np.empty(value.shape[0], np.int16)  # sign, exponent and next two bits; rises with the value
    for i in range(value.shape[0]):
        flip = np.uint32(0xFFFFFFFF) if bits[i] >> np.uint32(31) else np.uint32(0x80000000)
        bucket[i] = (bits[i] ^ flip) >> np.uint32(21)
        count[bucket[i]] += 1
    target = 2047
    while count[target] < k:
        k -= count[target]
        target -= 1
    return np.sort(value[bucket == target])[count[target] - k]


@jit
def _leave_largest(k: int, value: np.ndarray) -> None:
    """Set all values but the k largest to 0, and any negative value too. Of equal values the first are kept."""
    least, spare = np.float32(0), value.shape[0]
    if k < value.shape[0]:
        least, spare = _kth_largest(value, k), k
    for i in range(value.shape[0]):
        spare -= value[i] >= least
    for i in range(value.shape[0]):
        value[i] = value[i] if value[i] >= least and value[i] > 0 else np.float32(0)
    for i in range(value.shape[0] - 1, -1, -1):
        if spare >= 0:
            break
        if value[i] == least:
            value[i] = 0
            spare += 1


@jit
def strongest_(
    start: int, stop: int, product: np.ndarray, shift: np.ndarray, concepts: np.ndarray, k: int, codes: np.ndarray
) -> None:
    """For rows start..stop-1, write codes [B, K] of the concepts `concepts` [K]: each row's k largest, the others 0.

    product [B, C]: x W^T. shift [C]: added to it.
    """
    for r in range(start, stop):
        for i in range(concepts.shape[0]):
            codes[r, i] = product[r, concepts[i]] + shift[concepts[i]]
        _leave_largest(k, codes[r])


@jit
def strongest_of_bfloat16_(
    start: int, stop: int, product: np.ndarray, shift: np.ndarray, concepts: np.ndarray, k: int, codes: np.ndarray
) -> None:
    """As `strongest_`, from a bfloat16 product given as its bits, uint16 [B, C]."""
    bits = np.empty(concepts.shape[0], np.uint32)
    row = bits.view(np.float32)
    for r in range(start, stop):
        for i in range(concepts.shape[0]):
            bits[i] = np.uint32(product[r, concepts[i]]) << np.uint32(16)
        for i in range(concepts.shape[0]):
            codes[r, i] = row[i] + shift[concepts[i]]
        _leave_largest(k, codes[r])


@jit
def gather(counts: np.ndarray, value: np.ndarray, total: int) -> np.ndarray:
    """Values of all candidates in one array [total]."""
    flat = np.empty(total, np.float32)
    n = 0
    for r in range(len(counts)):
        for i in range(counts[r]):
            flat[n] = value[r, i]
            n += 1
    return flat


@jit
def compact(
    counts: np.ndarray, index: np.ndarray, value: np.ndarray, total: int, smallest: np.float32, equal: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keep the candidates above `smallest`, and the first `equal` of those that equal it.

    Returns row_start [B+1], and the concept and code of each kept candidate [M].
    """
    row_start = np.zeros(len(counts) + 1, np.int64)
    concepts, codes = np.empty(total, np.int32), np.empty(total, np.float32)
    m = 0
    for r in range(len(counts)):
        for i in range(counts[r]):
            kept = not (value[r, i] <= smallest)
            if value[r, i] == smallest and equal > 0:
                kept, equal = True, equal - 1
            if kept:
                concepts[m], codes[m] = index[r, i], value[r, i]
                m += 1
        row_start[r + 1] = m
    return row_start, concepts[:m], codes[:m]


@jit
def by_concept(row_start: np.ndarray, concepts: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort the kept codes by concept, then row.

    Returns concept_start [C+1], and of each code its row [M] and its place in row order [M].
    """
    concept_start = np.zeros(width + 1, np.int64)
    for p in range(len(concepts)):
        concept_start[concepts[p] + 1] += 1
    for c in range(width):
        concept_start[c + 1] += concept_start[c]
    fill = concept_start[:-1].copy()
    rows, places = np.empty(len(concepts), np.int32), np.empty(len(concepts), np.int32)
    for r in range(len(row_start) - 1):
        for p in range(row_start[r], row_start[r + 1]):
            q = fill[concepts[p]]
            fill[concepts[p]] = q + 1
            rows[q], places[q] = r, p
    return concept_start, rows, places
