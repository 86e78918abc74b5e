"""The split: an item's side depends on its group alone, so the order and number of items cannot change it."""

from __future__ import annotations

import hashlib


def split_u(group: str, salt: str = "split") -> float:
    """A number in [0, 1) drawn from the sha256 of salt and group (DEFINITIONS, Split).

    An item is held out when the number is below the study's `heldout`. 53 bits of the digest fill a float64 exactly.
    """
    digest = hashlib.sha256((salt + group).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2.0**53


def in_half(group: str, half: str) -> bool:
    """Whether a group is in `half` ('a' or 'b') of the data. The halves are independent of the split."""
    return (split_u(group, "half") < 0.5) == (half == "a")
