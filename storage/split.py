"""The split into training and held-out items.

The side of an item depends only on its group, not on the order or number of the items.
"""

from __future__ import annotations

import hashlib


def split_u(group: str, salt: str = "split") -> float:
    """Return a number in [0, 1), computed from the sha256 of salt and group (docs/definitions.md, "Split").

    An item is held out when this number is below the study's `heldout`. The number consists of 53 bits of the digest,
    as many as a float64 holds exactly.
    """
    digest = hashlib.sha256((salt + group).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2.0**53


def in_half(group: str, half: str) -> bool:
    """Whether a group is in `half` ('a' or 'b') of the data. The halves do not depend on the split."""
    return (split_u(group, "half") < 0.5) == (half == "a")
