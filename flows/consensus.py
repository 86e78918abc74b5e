"""The consensus SAE of a setting of several seeds, which the key `consensus` of a study adds."""

from __future__ import annotations

from typing import NamedTuple

from storage.runs import consensus_of


class ConsensusSAE(NamedTuple):
    """A setting of one SAE, which is made from the SAEs of all seeds of another setting.

    width and k are those of the other setting: the SAE has at most as many atoms, and as many codes per row.
    """

    name: str
    of: str  #: name of the setting
    of_seeds: list[int]
    width: int
    k: int
    data_half: str | None = None
    seeds: tuple[int, ...] = (0,)  #: one SAE, as for an imported one


def consensus(name: str, seeds: list[int], width: int, k: int, data_half: str | None) -> list[ConsensusSAE]:
    """The consensus SAE of a setting, as a list: it is empty for a setting of one seed."""
    if len(seeds) < 2:
        return []
    return [ConsensusSAE(consensus_of(name), name, sorted(seeds), width, k, data_half)]
