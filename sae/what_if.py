"""What happens to a pair when concepts are left out: its similarity, and its ranks among held-out items.

It is compared with random sets of concepts that hold about as much energy of the pair. Computed in float64.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from scipy.sparse import csc_array

from sae.ledger import Floats, Ints, Split, atoms, energy_in, random_sets, without
from sae.model import SAE

TIE = 1e-6  # cosines that differ by no more are equal: codes and embeddings are float32
BLOCK = 1024  # rows that are encoded at a time
DRAWS = 20  # random sets


class Items(NamedTuple):
    """Items of one modality among which a rank is counted."""

    ids: Ints  #: [n] image_id or pair_id
    x: Floats  #: [n, d] the rows as the SAE reads them
    codes: csc_array  #: [n, C]


class Rank(NamedTuple):
    """The place of an item among other items; a tie counts against the item."""

    rank: int  #: 1 + the number of other items whose cosine is larger or equal
    tied: int  #: how many of these are equal, within TIE


class Outcome(NamedTuple):
    """A pair after concepts were left out of both of its items, and of every item that it is compared with."""

    inner: float  #: what the rows and terms of the ledger without these concepts sum to
    similarity: float  #: the cosine of what is left of the two items
    caption: Rank  #: of the caption among the captions, for the image
    image: Rank  #: of the image among the images, for the caption


class WhatIf(NamedTuple):
    """The outcomes for chosen concepts, for no concept, and for random sets."""

    energy: float  #: sum of the activations of the chosen concepts in the image and in the caption
    before: Outcome
    after: Outcome
    drawn: list[tuple[float, Outcome]]  #: (energy, outcome) of each random set


def items_of(sae: SAE, ids: Ints, x: np.ndarray, modality: str) -> Items:
    """Encode rows [n, d] of one modality ("image" or "text"), of which `ids` [n] are the ids."""
    rows = np.asarray(x, np.float64)
    if sae.config.preprocessing == "l2":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    blocks = [sae.encode(x[start : start + BLOCK], modality).cpu().numpy() for start in range(0, len(x), BLOCK)]
    places = [np.nonzero(block) for block in blocks]
    row = np.concatenate([BLOCK * n + place[0] for n, place in enumerate(places)] or [np.empty(0, np.int64)])
    concept = np.concatenate([place[1] for place in places] or [np.empty(0, np.int64)])
    values = np.concatenate([block[place] for block, place in zip(blocks, places, strict=True)] or [np.empty(0)])
    shape = (len(x), sae.config.width)
    return Items(np.asarray(ids), rows, csc_array((values.astype(np.float64), (row, concept)), shape=shape))


def what_if(
    sae: SAE,
    image: Split,
    text: Split,
    concepts: Collection[int],
    images: Items,
    texts: Items,
    own: tuple[int | None, int | None] = (None, None),
    draws: int = DRAWS,
) -> WhatIf:
    """Leave concepts out of a pair and of the items that it is compared with, and do the same with random sets.

    own: the ids of the image and of the caption, which are not compared with themselves. Each random set holds at most
    as much energy of the pair as `concepts` do: see `random_sets`. Definition: docs/definitions.md, "Pair ledger".
    """

    def outcome(S: Collection[int]) -> Outcome:
        return left(sae, image, text, S, images, texts, own)

    drawn = random_sets(image, text, concepts, draws)
    energy = [energy_in(image, S) + energy_in(text, S) for S in (concepts, *drawn)]
    outcomes = [outcome(S) for S in drawn]
    return WhatIf(energy[0], outcome(()), outcome(concepts), list(zip(energy[1:], outcomes, strict=True)))


def left(
    sae: SAE,
    image: Split,
    text: Split,
    concepts: Collection[int],
    images: Items,
    texts: Items,
    own: tuple[int | None, int | None],
) -> Outcome:
    """The outcome of leaving out one set of concepts."""
    a, b = without(sae, image, concepts), without(sae, text, concepts)
    similarity = float(unit(a[None])[0] @ unit(b[None])[0])
    caption = rank_of(similarity, a, _removed(sae, texts, concepts), texts.ids != own[1])
    picture = rank_of(similarity, b, _removed(sae, images, concepts), images.ids != own[0])
    return Outcome(float(a @ b), similarity, caption, picture)


def rank_of(similarity: float, query: Floats, others: Floats, counted: np.ndarray) -> Rank:
    """The rank of an item of this cosine to a query [d] among other rows [n, d], of which some are counted."""
    cosines = unit(others[counted]) @ unit(query[None])[0]
    tied = np.abs(cosines - similarity) <= TIE
    return Rank(1 + int(((cosines > similarity) | tied).sum()), int(tied.sum()))


def unit(rows: Floats) -> Floats:
    """Rows [n, d] of norm 1. A row of which nothing is left stays 0, so that its cosines are 0."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 1e-9))


def _removed(sae: SAE, items: Items, concepts: Collection[int]) -> Floats:
    S = np.unique(np.fromiter(concepts, np.int64, len(concepts)))
    return np.asarray(items.x - items.codes[:, S] @ atoms(sae)[S]) if len(S) else items.x
