"""The loops of the sparse training step, compiled by numba: each works on a range of rows or concepts, on one thread.

Plain arrays in, plain arrays out; callers check the input. Shapes: B rows of a batch, C concepts, d dimensions,
n nested dictionaries, M kept codes of the batch.
"""

import numba
import numpy as np

# Not nnan and not ninf: a loss that is no number must stay one, for the trainer looks for it.
jit = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})


@jit
def _scan(row: np.ndarray, shift: np.ndarray, cut: np.float32, index: np.ndarray, value: np.ndarray) -> int:
    """Write place and value of all pre-activations row + shift above cut; NaN counts as above. Returns how many."""
    width, n = row.shape[0], 0
    is_above = np.zeros((width + 7) // 8 * 8, np.uint8)
    for c in range(width):
        is_above[c] = not (row[c] + shift[c] <= cut)
    eights = is_above.view(np.uint64)
    for eight in range(eights.shape[0]):
        if eights[eight] == 0:  # most hold no candidate
            continue
        for c in range(8 * eight, min(8 * eight + 8, width)):
            index[n] = c
            n += is_above[c]  # written always and counted by the comparison: no branch to mispredict
    for i in range(n):  # apart: where two arrays are written in turn and lie unluckily, a CPU takes ten times as long
        value[i] = row[index[i]] + shift[index[i]]
    return n


@jit
def _keep_largest(n: int, k: int, index: np.ndarray, value: np.ndarray) -> int:
    """Move the k largest of the first n candidates to the front, in order of place; equal ones cut by place."""
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
    """Pre-activations above cut of rows start..stop-1, into index, value [B, C] and counts [B].

    product [B, C]: x W^T. shift [C]. With k > 0 only the k largest positive ones of each row are left (TopK).
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
    """As `candidates_`, from a product whose bfloat16 numbers are given as their bits, uint16 [B, C]."""
    bits = np.empty(product.shape[1], np.uint32)
    row = bits.view(np.float32)
    for r in range(start, stop):
        for c in range(product.shape[1]):
            bits[c] = np.uint32(product[r, c]) << np.uint32(16)
        counts[r] = _of_row(row, shift, cut, k, index[r], value[r])


@jit
def _kth_largest(value: np.ndarray, k: int) -> np.float32:
    """The k-th largest of them, by the bucket that it lies in: a third of the time of a partition."""
    count = np.zeros(2048, np.int64)
    bits = value.view(np.uint32)
    bucket = np.empty(value.shape[0], np.int16)  # rises with the value: sign, exponent and two bits of what follows
    for i in range(value.shape[0]):
        flip = np.uint32(0xFFFFFFFF) if bits[i] >> np.uint32(31) else np.uint32(0x80000000)
        bucket[i] = (bits[i] ^ flip) >> np.uint32(21)
        count[bucket[i]] += 1
    its = 2047
    while count[its] < k:
        k -= count[its]
        its -= 1
    return np.sort(value[bucket == its])[count[its] - k]


@jit
def _leave_largest(k: int, value: np.ndarray) -> None:
    """Set all but the k largest to 0, and what is negative; equal ones are cut by place."""
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
    start: int, stop: int, product: np.ndarray, shift: np.ndarray, some: np.ndarray, k: int, codes: np.ndarray
) -> None:
    """Codes of some concepts [K] in rows start..stop-1, of which each row keeps the k largest: codes [B, K].

    product [B, C]: x W^T. shift [C].
    """
    for r in range(start, stop):
        for i in range(some.shape[0]):
            codes[r, i] = product[r, some[i]] + shift[some[i]]
        _leave_largest(k, codes[r])


@jit
def strongest_of_bfloat16_(
    start: int, stop: int, product: np.ndarray, shift: np.ndarray, some: np.ndarray, k: int, codes: np.ndarray
) -> None:
    """As `strongest_`, from a product whose bfloat16 numbers are given as their bits, uint16 [B, C]."""
    bits = np.empty(some.shape[0], np.uint32)
    row = bits.view(np.float32)
    for r in range(start, stop):
        for i in range(some.shape[0]):
            bits[i] = np.uint32(product[r, some[i]]) << np.uint32(16)
        for i in range(some.shape[0]):
            codes[r, i] = row[i] + shift[some[i]]
        _leave_largest(k, codes[r])


@jit
def gather(counts: np.ndarray, value: np.ndarray, total: int) -> np.ndarray:
    """All candidates' values in one array [total]."""
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
    """Candidates above `smallest`, and the first `equal` of those that equal it: row_start [B+1], concept, code [M]."""
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
    """The kept codes sorted by concept, then row: concept_start [C+1], rows [M], and their places [M] in row order."""
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


@jit
def _add(total: np.ndarray, factor: np.float32, row: np.ndarray) -> None:
    for j in range(total.shape[0]):
        total[j] += factor * row[j]


@jit
def _dot(a: np.ndarray, b: np.ndarray) -> np.float32:
    total = np.float32(0)
    for j in range(a.shape[0]):
        total += a[j] * b[j]
    return total


@jit
def reconstruct_(
    start: int,
    stop: int,
    x: np.ndarray,
    dictionary: np.ndarray,
    bias: np.ndarray,
    row_start: np.ndarray,
    concepts: np.ndarray,
    codes: np.ndarray,
    widths: np.ndarray,
    scale: np.float32,
    residuals: np.ndarray,
    to_codes: np.ndarray,
) -> tuple[float, float, np.ndarray]:
    """Reconstruct rows start..stop-1 and give the gradients of scale times the squared error, summed over widths.

    widths [n]: of the nested dictionaries. residuals [n, B, d] gets the gradient in the reconstruction of each part of
    the dictionary, to_codes [M] the gradient in each kept code. Returns the error summed over widths, that of the last
    alone, and the gradient in the bias [d].
    """
    nested, dim = len(widths), x.shape[1]
    errors, last, two = np.float64(0), np.float64(0), np.float32(2) * scale
    to_bias = np.zeros(dim, np.float32)
    rest = np.empty(dim, np.float32)
    for r in range(start, stop):
        for j in range(dim):
            rest[j] = bias[j] - x[r, j]
        p, end = row_start[r], row_start[r + 1]
        for m in range(nested):
            while p < end and concepts[p] < widths[m]:
                _add(rest, codes[p], dictionary[concepts[p]])
                p += 1
            error = _dot(rest, rest)
            errors += error
            if m == nested - 1:
                last += error
            residual = residuals[m, r]
            for j in range(dim):
                residual[j] = two * rest[j]
        for m in range(nested - 2, -1, -1):  # a concept feeds its own dictionary and all wider ones
            _add(residuals[m, r], np.float32(1), residuals[m + 1, r])
        _add(to_bias, np.float32(1), residuals[0, r])
        m = 0
        for p in range(row_start[r], end):
            while concepts[p] >= widths[m]:
                m += 1
            to_codes[p] = _dot(residuals[m, r], dictionary[concepts[p]])
    return errors, last, to_bias


@jit
def gradients_(
    start: int,
    stop: int,
    x: np.ndarray,
    dictionary: np.ndarray,
    bias: np.ndarray,
    residuals: np.ndarray,
    widths: np.ndarray,
    codes: np.ndarray,
    to_codes: np.ndarray,
    concept_start: np.ndarray,
    rows: np.ndarray,
    places: np.ndarray,
    slot: np.ndarray,
    aux_encoder: np.ndarray,
    aux_bias: np.ndarray,
    aux_dictionary: np.ndarray,
    to_encoder: np.ndarray,
    to_encoder_bias: np.ndarray,
    to_dictionary: np.ndarray,
) -> float:
    """Gradients of concepts start..stop-1 into to_encoder, to_dictionary [C, d] and to_encoder_bias [C].

    slot [C]: row of aux_encoder, aux_dictionary [., d] and aux_bias [.] that is added to a concept (AuxK), or -1. The
    gradient of an atom loses its part along the atom. Returns the sum of all squares.
    """
    squares, m = np.float64(0), 0
    for c in range(start, stop):
        while c >= widths[m]:
            m += 1
        encoder, atom, at_bias = to_encoder[c], to_dictionary[c], np.float32(0)
        encoder[:] = np.float32(0)
        atom[:] = np.float32(0)
        if slot[c] >= 0:
            encoder[:] = aux_encoder[slot[c]]
            atom[:] = aux_dictionary[slot[c]]
            at_bias = aux_bias[slot[c]]
        for q in range(concept_start[c], concept_start[c + 1]):
            r, p = rows[q], places[q]
            _add(atom, codes[p], residuals[m, r])
            _add(encoder, to_codes[p], x[r])
            at_bias += to_codes[p]
        _add(encoder, -at_bias, bias)
        _add(atom, -_dot(atom, dictionary[c]), dictionary[c])
        to_encoder_bias[c] = at_bias
        squares += _dot(encoder, encoder) + _dot(atom, atom) + at_bias * at_bias
    return squares


@jit
def adam_(
    weight: np.ndarray,
    gradient: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    factor: np.float32,
    rate: np.float32,
    root: np.float32,
    beta1: np.float32,
    beta2: np.float32,
    epsilon: np.float32,
) -> None:
    """Adam on one vector. factor: of the gradient; rate: over 1 - beta1^t; root: 1 / sqrt(1 - beta2^t)."""
    one = np.float32(1)
    for j in range(weight.shape[0]):
        g = factor * gradient[j]
        m = beta1 * first[j] + (one - beta1) * g
        v = beta2 * second[j] + (one - beta2) * g * g
        first[j], second[j] = m, v
        weight[j] -= rate * m / (np.sqrt(v) * root + epsilon)


@jit
def _round(row: np.ndarray, rounded: np.ndarray) -> None:
    """To bfloat16, given as its bits, uint16: to nearest, ties to even."""
    bits = row.view(np.uint32)
    for j in range(row.shape[0]):
        even = np.uint32(0x7FFF) + ((bits[j] >> np.uint32(16)) & np.uint32(1))
        rounded[j] = np.uint16((bits[j] + even) >> np.uint32(16))


@jit
def fold_(
    start: int, stop: int, encoder: np.ndarray, encoder_bias: np.ndarray, bias: np.ndarray, shift: np.ndarray
) -> None:
    """shift = encoder_bias - encoder . bias of concepts start..stop-1: the sums are those of `update_`, to the bit."""
    for c in range(start, stop):
        shift[c] = encoder_bias[c] - _dot(encoder[c], bias)


@jit
def update_(
    start: int,
    stop: int,
    encoder: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    encoder_bias: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    dictionary: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    bias: np.ndarray,
    shift: np.ndarray,
    rounded: np.ndarray,
    numbers: tuple[np.float32, ...],
) -> None:
    """Adam on concepts start..stop-1, atoms back to unit norm, and shift = encoder_bias - encoder . bias, in one pass.

    rounded [C, d] gets the encoder in bfloat16, as its bits, uint16; left alone where it has no rows.
    Each tuple: weight, gradient, first and second moment. numbers: factor of the gradients, learning rate over
    1 - beta1^t, 1 / sqrt(1 - beta2^t), beta1, beta2, epsilon. Source: Kingma and Ba, arXiv 1412.6980.
    """
    factor, rate, root, beta1, beta2, epsilon = numbers
    for c in range(start, stop):
        w, g, m, v = encoder
        adam_(w[c], g[c], m[c], v[c], factor, rate, root, beta1, beta2, epsilon)
        at = slice(c, c + 1)
        b, g1, m1, v1 = encoder_bias
        adam_(b[at], g1[at], m1[at], v1[at], factor, rate, root, beta1, beta2, epsilon)
        shift[c] = b[c] - _dot(w[c], bias)
        if rounded.shape[0] > 0:
            _round(w[c], rounded[c])
        atoms, g, m, v = dictionary
        adam_(atoms[c], g[c], m[c], v[c], factor, rate, root, beta1, beta2, epsilon)
        atom = atoms[c]
        inverse = np.float32(1) / np.sqrt(_dot(atom, atom))
        for j in range(atom.shape[0]):
            atom[j] *= inverse
