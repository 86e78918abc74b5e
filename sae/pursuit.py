"""Non-negative matching pursuit: codes of rows in any dictionary of unit atoms, and the unrolled form for training."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK_VALUES = 2**24  # correlations (rows x atoms) held at a time, so that memory does not grow with the number of rows
# With more atoms the matrix of their products, [C, C], is not made (1 GiB at this width), and each round multiplies the
# residuals with the dictionary.
GRAM_WIDTH = 2**14


@torch.no_grad()
def matching_pursuit(x: Tensor, dictionary: Tensor, k: int) -> Tensor:
    """Codes [N, C] >= 0 of rows x [N, d] in unit atoms [C, d], at most k per row above 0.

    Each of k rounds selects the atom whose inner product with the row's residual is largest, and subtracts the atom's
    part from the residual. An atom may be selected again. A row stops when no inner product is positive.
    Source: Mallat & Zhang 1993; non-negative as in Bruckstein, Elad & Zibulevsky 2008.
    """
    index, values = selected_atoms(x, dictionary, k)
    return dense_codes(index, values, len(dictionary))


@torch.no_grad()
def selected_atoms(x: Tensor, dictionary: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The atoms [N, k] int64 that the rounds of `matching_pursuit` select, and what each adds to its code [N, k] >= 0.

    A round after its row has stopped adds 0, and the atom that it names has no meaning.
    """
    width = len(dictionary)
    # The products of all atoms take C C d operations, and save d operations for each atom, row and round.
    gram = dictionary @ dictionary.T if width <= min(len(x) * k, GRAM_WIDTH) else None
    rounds = [_rounds(block, dictionary, gram, k) for block in x.split(max(1, BLOCK_VALUES // width))]
    index, values = zip(*rounds, strict=True)
    return torch.cat(index), torch.cat(values)


def _rounds(x: Tensor, dictionary: Tensor, gram: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """`selected_atoms` of one block of rows. gram: products of atoms [C, C], or None to do without them."""
    correlation, residual = x @ dictionary.T, x
    index, values = [], []
    for _ in range(k):
        value, atom = correlation.max(1)
        value = value.clamp_min(0)  # nothing is added to a row that has stopped
        index.append(atom)
        values.append(value)
        if gram is not None:
            correlation -= value[:, None] * gram[atom]
        else:
            residual = residual - value[:, None] * dictionary[atom]
            correlation = residual @ dictionary.T
    return torch.stack(index, 1), torch.stack(values, 1)


def unrolled(x: Tensor, dictionary: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The rounds of pursuit as a differentiable function of rows x [N, d] and atoms [C, d], for given selections.

    index: the selected atoms [N, k] of `selected_atoms`; they are constants of the derivative, which is exact wherever
    a small change selects the same atoms. Returns what each round adds to its code [N, k], and the last residual
    [N, d]: each round's product is taken with the residual that the rounds before it left, so that the gradient of an
    atom counts how it changes the rounds after it.
    Source: Costa et al., arXiv 2506.03093 and 2506.05239 (MP-SAE).
    """
    atoms_NKD = dictionary[index.flatten()].view(*index.shape, -1)  # one gather, so that there is one gradient [C, d]
    residual, values = x, []
    for atoms_ND in atoms_NKD.unbind(1):
        value = (residual * atoms_ND).sum(1).relu()
        residual = residual - value[:, None] * atoms_ND
        values.append(value)
    return torch.stack(values, 1), residual


def dense_codes(index: Tensor, values: Tensor, width: int) -> Tensor:
    """Codes [N, C] from selected atoms [N, k] and what each adds to its code [N, k]."""
    return torch.zeros(len(index), width, dtype=values.dtype, device=values.device).scatter_add(1, index, values)
