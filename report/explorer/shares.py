"""How much each concept gives to the reconstruction of an item."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


class Dictionary(NamedTuple):
    """What turns codes into reconstructions: x_hat = z D + b."""

    concepts: Floats  #: D, [C, d], unit rows
    bias: dict[str, Floats]  #: b by modality, [d]: with the modality's mean where rows are centred


def shares(concepts: Floats, bias: Floats, codes: Floats) -> tuple[Floats, float]:
    """Parts of |x_hat|^2 that the firing concepts give, [k], and that the bias gives; they add up to 1.

    concepts: their directions D_c, [k, d]; bias: b, [d]; codes: z_c, [k]. The part of a concept is
    z_c <D_c, x_hat> / <x_hat, x_hat>, negative where it points away from what all of them make together; that of the
    bias is <b, x_hat> / <x_hat, x_hat>. All are 0 where x_hat is.
    """
    rebuilt = codes @ concepts + bias
    whole = float(rebuilt @ rebuilt)
    if whole == 0:
        return np.zeros(len(codes)), 0.0
    return codes * (concepts @ rebuilt) / whole, float(bias @ rebuilt) / whole


def shares_of_items(
    dictionary: Floats, bias: Floats, starts: Ints, concept: Ints, activation: Floats
) -> tuple[Floats, Floats]:
    """`shares` of many items whose codes lie behind each other: shares [firings], bias [items].

    starts: [items + 1], where each item's codes begin in `concept` and `activation`, [firings].
    """
    found, rest = np.empty(len(concept)), np.empty(len(starts) - 1)
    for item, (start, stop) in enumerate(itertools.pairwise(starts.tolist())):
        part = slice(start, stop)
        found[part], rest[item] = shares(dictionary[concept[part]], bias, activation[part])
    return found, rest
