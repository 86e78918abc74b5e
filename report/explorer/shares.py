"""The share of each concept in the reconstruction of an item."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


class Dictionary(NamedTuple):
    """The decoder of an SAE. It maps codes z to the reconstruction x_hat = z D + b."""

    concepts: Floats  #: D, [C, d]: one row of norm 1 per concept
    bias: dict[str, Floats]  #: {modality: b, [d]}; b includes the mean of the modality if the SAE centres its rows
    decoder: Floats  #: the decoder's bias alone, [d]
    means: dict[str, Floats]  #: {modality: mean, [d]}; 0 if the SAE does not centre its rows


def shares(concepts: Floats, bias: Floats, codes: Floats) -> tuple[Floats, float]:
    """Shares in |x_hat|^2 of the k firing concepts, [k], and of the bias. The shares add up to 1.

    concepts: directions D_c of the firing concepts, [k, d]; bias: b, [d]; codes: z_c, [k]. The reconstruction x_hat is
    the sum of z_c D_c over the concepts, plus b. The share of a concept is z_c <D_c, x_hat> / <x_hat, x_hat>. It is
    negative if the concept points away from x_hat. The share of the bias is <b, x_hat> / <x_hat, x_hat>. All shares
    are 0 if x_hat is 0.
    """
    rebuilt = codes @ concepts + bias
    whole = float(rebuilt @ rebuilt)
    if whole == 0:
        return np.zeros(len(codes)), 0.0
    return codes * (concepts @ rebuilt) / whole, float(bias @ rebuilt) / whole


def shares_of_items(
    dictionary: Floats, bias: Floats, starts: Ints, concept: Ints, activation: Floats
) -> tuple[Floats, Floats]:
    """`shares` of many items, whose codes are concatenated: shares of concepts [firings], and of the bias [items].

    starts: [items + 1], the offset of each item's codes in `concept` and `activation`, [firings].
    """
    share, rest = np.empty(len(concept)), np.empty(len(starts) - 1)
    for item, (start, stop) in enumerate(itertools.pairwise(starts.tolist())):
        part = slice(start, stop)
        share[part], rest[item] = shares(dictionary[concept[part]], bias, activation[part])
    return share, rest
