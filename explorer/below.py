"""The items on which a concept just does not fire: code 0, and the largest pre-activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from explorer.encode import Encoders
from storage.errors import BadInput
from storage.rows import Ints

BELOW = 6  # items of each modality
BLOCK = 65_536  # rows whose pre-activations are computed at once


class Below(NamedTuple):
    """An item on which a concept does not fire, and the concept's pre-activation on it."""

    modality: str
    item: int
    pre_activation: float


def below(encoders: Encoders, key: str, concept: int, firing: Callable[[str], Ints], n: int = BELOW) -> list[Below]:
    """The n images, then the n captions, with the largest pre-activations on which a concept of `model/sae/seed` is 0.

    firing: gives the ids of the items of a modality on which the concept fires, ascending, from the exported codes.
    An SAE that selects the k largest pre-activations of an item has no threshold per concept: the items are then those
    on which the concept was closest to being selected by its pre-activation alone. Raises BadInput for an unknown SAE
    or concept, and for codes that are found by pursuit, which has no pre-activations.
    """
    with encoders.lock:
        net, rows = encoders.sae(key), encoders.rows(key.split("/")[0])
        if not 0 <= concept < net.config.width:
            raise BadInput(f"no concept {concept}; concepts of {key} go from 0 to {net.config.width - 1}")
        if net.pursues:
            raise BadInput(f"codes of {key} are found by pursuit, which has no pre-activations")
        one = slice(concept, concept + 1)
        found = []
        for modality, x, ids in (("image", rows.image, rows.image_id), ("text", rows.text, rows.pair_id)):
            silent = np.flatnonzero(~np.isin(ids, firing(modality)))
            blocks = [net.pre_activations(x[at], modality, one)[:, 0].numpy() for at in _blocks(silent)]
            pre = np.concatenate(blocks)
            order = np.lexsort((ids[silent], -pre))[:n]
            found += [Below(modality, int(ids[silent[i]]), float(pre[i])) for i in order]
        return found


def _blocks(rows: Ints) -> list[Ints]:
    return np.split(rows, range(BLOCK, len(rows), BLOCK))
