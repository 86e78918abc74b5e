"""The loops of the sparse training step, compiled by numba: each works on a range of rows or concepts, on one thread.

Plain arrays in, plain arrays out; callers check the input. Shapes: B rows of a batch, C concepts, d dimensions,
n nested dictionaries, M kept codes of the batch.
"""

import numba
import numpy as np

# Without nnan and ninf: a loss that is NaN must stay NaN, because the trainer checks for it.
jit = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})


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
    """Reconstruct rows start..stop-1, and write gradients of scale times the error, summed over nested dictionaries.

    widths [n]: widths of the nested dictionaries. The error is the squared error of their reconstructions.
    residuals [n, B, d] gets the gradient in the reconstruction by each part of the dictionary. to_codes [M] gets the
    gradient in each kept code.
    Returns the error summed over the nested dictionaries, the error of the widest, and the gradient in the bias [d].
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
        for m in range(nested - 2, -1, -1):  # a concept is in its own dictionary and in all wider ones
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
    """Write the gradients of concepts start..stop-1 into to_encoder, to_dictionary [C, d] and to_encoder_bias [C].

    AuxK's gradients are aux_encoder, aux_dictionary [K, d] and aux_bias [K]. slot [C]: for each concept, the row of
    these that is added to its gradients, or -1 for none. The part of an atom's gradient along the atom is removed.
    Returns the sum of the squares of all gradients written.
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
    """Adam on one vector.

    factor: multiplies the gradient; rate: learning rate / (1 - beta1^t); root: 1 / sqrt(1 - beta2^t).
    """
    one = np.float32(1)
    for j in range(weight.shape[0]):
        g = factor * gradient[j]
        m = beta1 * first[j] + (one - beta1) * g
        v = beta2 * second[j] + (one - beta2) * g * g
        first[j], second[j] = m, v
        weight[j] -= rate * m / (np.sqrt(v) * root + epsilon)


@jit
def _round(row: np.ndarray, rounded: np.ndarray) -> None:
    """Write the row in bfloat16, as its bits, uint16: rounded to nearest, ties to even."""
    bits = row.view(np.uint32)
    for j in range(row.shape[0]):
        even = np.uint32(0x7FFF) + ((bits[j] >> np.uint32(16)) & np.uint32(1))
        rounded[j] = np.uint16((bits[j] + even) >> np.uint32(16))


@jit
def fold_(
    start: int, stop: int, encoder: np.ndarray, encoder_bias: np.ndarray, bias: np.ndarray, shift: np.ndarray
) -> None:
    """Write shift = encoder_bias - encoder @ bias of concepts start..stop-1, with the same bits as `update_`."""
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
    factor: np.float32,
    rates: np.ndarray,
    roots: np.ndarray,
    constants: tuple[np.float32, ...],
) -> None:
    """Adam on concepts start..stop-1, atoms back to unit norm, and shift = encoder_bias - encoder @ bias, in one pass.

    rounded [C, d] gets the encoder's bits in bfloat16, as uint16; if it has 0 rows, nothing is written.
    Each tuple: weight, gradient, first and second moment. factor: multiplies the gradients. rates, roots [C]: of each
    concept, learning rate / (1 - beta1^t) and 1 / sqrt(1 - beta2^t), where t counts the concept's own steps.
    constants: beta1, beta2, epsilon. Source: Kingma and Ba, arXiv 1412.6980.
    """
    beta1, beta2, epsilon = constants
    for c in range(start, stop):
        rate, root = rates[c], roots[c]
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
