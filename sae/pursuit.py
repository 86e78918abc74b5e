"""Non-negative matching pursuit: codes of rows in any dictionary of unit atoms."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK_VALUES = 2**24  # of correlations held at a time, so that memory does not grow with the rows


@torch.no_grad()
def matching_pursuit(x: Tensor, dictionary: Tensor, k: int) -> Tensor:
    """Codes [N, C] >= 0 of rows x [N, d] in unit atoms [C, d], at most k of them above 0.

    k times: select the atom with the largest inner product with the residual of the row, and subtract its part. An
    atom may be selected again; a row stops where no inner product is positive.
    Source: Mallat & Zhang 1993; non-negative as in Bruckstein, Elad & Zibulevsky 2008.
    """
    gram = dictionary @ dictionary.T
    rows = max(1, BLOCK_VALUES // len(dictionary))
    return torch.cat([_pursue(block @ dictionary.T, gram, k) for block in x.split(rows)])


def _pursue(correlation: Tensor, gram: Tensor, k: int) -> Tensor:
    """`correlation` [B, C] of rows and atoms is updated in place through the atoms' own products [C, C]."""
    codes = torch.zeros_like(correlation)
    row = torch.arange(len(correlation))
    for _ in range(k):
        value, atom = correlation.max(1)
        value = value.clamp_min(0)  # nothing is added to a row that has stopped
        codes[row, atom] += value
        correlation -= value[:, None] * gram[atom]
    return codes
