"""Non-negative matching pursuit: codes of rows in any dictionary of unit atoms."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK_VALUES = 2**24  # correlations (rows x atoms) held at a time, so that memory does not grow with the number of rows


@torch.no_grad()
def matching_pursuit(x: Tensor, dictionary: Tensor, k: int) -> Tensor:
    """Codes [N, C] >= 0 of rows x [N, d] in unit atoms [C, d], at most k per row above 0.

    Each of k rounds selects the atom whose inner product with the row's residual is largest, and subtracts the atom's
    part from the residual. An atom may be selected again. A row stops when no inner product is positive.
    Source: Mallat & Zhang 1993; non-negative as in Bruckstein, Elad & Zibulevsky 2008.
    """
    gram = dictionary @ dictionary.T
    rows = max(1, BLOCK_VALUES // len(dictionary))
    return torch.cat([_pursue(block @ dictionary.T, gram, k) for block in x.split(rows)])


def _pursue(correlation: Tensor, gram: Tensor, k: int) -> Tensor:
    """Codes [B, C] from the correlations of rows and atoms [B, C], changed in place. gram: products of atoms [C, C]."""
    codes = torch.zeros_like(correlation)
    row = torch.arange(len(correlation))
    for _ in range(k):
        value, atom = correlation.max(1)
        value = value.clamp_min(0)  # nothing is added to a row that has stopped
        codes[row, atom] += value
        correlation -= value[:, None] * gram[atom]
    return codes
