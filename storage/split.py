"""Which side of the split an item is on: a function of its group alone, so that order and growth cannot move it."""

from __future__ import annotations

import hashlib


def split_u(group: str, salt: str = "split") -> float:
    """A number in [0, 1) drawn from the sha256 of salt and group (DEFINITIONS, Split).

    An item is held out when it is below the study's `heldout`. Its first 53 bits fill a float64 exactly.
    """
    digest = hashlib.sha256((salt + group).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2.0**53


def in_half(group: str, half: str) -> bool:
    """Whether a group is in half 'a' or 'b' of the data, which have nothing to do with the split."""
    return (split_u(group, "half") < 0.5) == (half == "a")
