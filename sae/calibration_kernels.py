"""The loops of `sae.calibration`, compiled by numba: each works on a range of rows, on one thread.

Plain arrays in, plain arrays out; callers check the input. Shapes: B rows of a batch, C concepts, d dimensions.
"""

import numpy as np

from sae.step_kernels import jit


@jit
def larger(start: int, stop: int, pre: np.ndarray, bound: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """The values in rows start..stop-1 of pre [B, C] that are above bound, in order, and the row of each."""
    total = 0
    for r in range(start, stop):
        for c in range(pre.shape[1]):
            total += pre[r, c] > bound
    value, row = np.empty(total + 1, np.float32), np.empty(total + 1, np.int64)
    n = 0
    for r in range(start, stop):
        first = n
        for c in range(pre.shape[1]):
            value[n] = pre[r, c]
            n += pre[r, c] > bound  # the value stays if n advances; an `if` would be mispredicted
        row[first:n] = r
    return value[:total], row[:total]


@jit
def within(
    start: int,
    stop: int,
    product: np.ndarray,
    least: np.ndarray,
    x: np.ndarray,
    lengths: np.ndarray,
    encoder: np.ndarray,
    shift: np.ndarray,
    reach: np.ndarray,
    rounding: np.float32,
    low: np.float32,
    high: np.float32,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pre-activations in (low, high] of rows start..stop-1, in order; the row of each; the number above high, per row.

    product [B, C] uint16: the bits of x W^T in bfloat16. least [C]: where the product is at most least, the
    pre-activation is at most low. x [B, d], lengths [B]: the rows and their norms.
    encoder W [C, d], shift [C]: pre-activations are x W^T + shift. reach [C]: largest error of the product with a row
    of norm 1, before the product itself is rounded. rounding: largest relative error of rounding the product.
    Products whose pre-activation may lie in (low, high] are computed again in float32.
    """
    value, row = np.empty(1024, np.float32), np.empty(1024, np.int64)
    above = np.zeros(stop - start, np.int64)
    bits, maybe = np.empty(product.shape[1], np.uint32), np.empty(product.shape[1], np.int32)
    rounded = bits.view(np.float32)
    n = 0
    for r in range(start, stop):
        for c in range(product.shape[1]):
            bits[c] = np.uint32(product[r, c]) << np.uint32(16)
        m = 0
        for c in range(product.shape[1]):
            maybe[m] = c
            m += rounded[c] > least[c]  # c stays if m advances; an `if` would be mispredicted
        for c in maybe[:m]:
            pre = rounded[c] + shift[c]
            if pre - reach[c] * lengths[r] - rounding * abs(rounded[c]) <= high:
                pre = shift[c]
                for i in range(x.shape[1]):
                    pre += x[r, i] * encoder[c, i]
            if pre > high:
                above[r - start] += 1
            elif pre > low:
                if n == len(value):
                    value = np.concatenate((value, np.empty_like(value)))
                    row = np.concatenate((row, np.empty_like(row)))
                value[n], row[n] = pre, r
                n += 1
    return value[:n], row[:n], above
