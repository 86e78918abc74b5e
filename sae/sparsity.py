"""Which pre-activations stay: one function an architecture, and the threshold that stands in for it at inference.

Never holds state: the threshold is returned, and stored with the weights by `sae.model`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae.workers import Workers

ARCHITECTURES = ("relu", "topk", "batchtopk", "jumprelu", "matryoshka")
TOPK_FAMILY = ("topk", "batchtopk", "matryoshka")  # a fixed number of codes is kept, none is pushed to 0
SAMPLED = 32  # one row in so many gives the first guess of the threshold
BANDWIDTH = 0.03  # of the jump's kernel; pre-activations of unit rows spread over about ten times that


def relu(pre_BC: Tensor) -> Tensor:
    """Codes [B, C]: every positive pre-activation. An L1 penalty in the loss makes them few.

    Source: Bricken et al. 2023, "Towards monosemanticity".
    """
    return pre_BC.relu()


def topk(pre_BC: Tensor, k: int) -> Tensor:
    """Codes [B, C]: the k largest pre-activations of each row, among those above 0; equal ones cut by position.

    The rule of TopK at inference too, since it does not look at other rows.
    Source: Gao et al., arXiv 2406.04093, section 2.3.
    """
    kept, index = pre_BC.topk(min(k, pre_BC.shape[1]), dim=1, sorted=False)
    return torch.zeros_like(pre_BC).scatter(1, index, kept.relu())


def batch_topk(pre_BC: Tensor, k: int) -> Tensor:
    """Codes [B, C]: the k*B largest pre-activations of the whole batch, among those above 0.

    Exactly k*B survive, or all positive ones when there are fewer: equal values at the border are cut by position,
    not kept together, so that ties never inflate the count.
    Source: BatchTopK, Bussmann et al., arXiv 2412.06410, section 3. Matryoshka (2503.17547) selects in the same way,
    once for all its prefixes.
    """
    flat = pre_BC.reshape(-1)
    kept, index = flat.topk(min(k * pre_BC.shape[0], flat.numel()), sorted=False)
    return torch.zeros_like(flat).scatter(0, index, kept.relu()).view_as(pre_BC)


class _Jump(torch.autograd.Function):
    """z = a H(a - theta) and the count H(a - theta), with the pseudo-gradients of arXiv 2407.14435, equations 10, 11.

    Kernel: the box of height 1 on (-1/2, 1/2), in units of BANDWIDTH.
    """

    @staticmethod
    def forward(ctx: Any, pre_BC: Tensor, theta_C: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(pre_BC, theta_C)
        fires_BC = (pre_BC > theta_C).to(pre_BC.dtype)
        return pre_BC * fires_BC, fires_BC

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        to_codes_BC, to_counts_BC = gradients
        pre_BC, theta_C = ctx.saved_tensors
        near_BC = ((pre_BC - theta_C).abs() < BANDWIDTH / 2).to(pre_BC.dtype)
        to_theta_BC = -near_BC / BANDWIDTH * (theta_C * to_codes_BC + to_counts_BC)
        return to_codes_BC * (pre_BC > theta_C), to_theta_BC.sum(0)


def jumprelu(pre_BC: Tensor, theta_C: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [B, C]: pre where pre > theta, one theta >= 0 a concept; and 1 where they are, for the L0 penalty.

    Both are differentiable in theta through a kernel. Source: Rajamanoharan et al., arXiv 2407.14435; theta itself is
    learned, for under Adam its logarithm hardly moves.
    """
    codes_BC, counts_BC = _Jump.apply(pre_BC, theta_C)
    return codes_BC, counts_BC


def above(pre_BC: Tensor, threshold: Tensor) -> Tensor:
    """The inference rule of all others: codes [B, C] = pre where pre > threshold ([] or [C]) and pre > 0, else 0."""
    return torch.where(pre_BC > threshold.clamp_min(0), pre_BC, 0.0)


Weighted = Callable[
    [], Iterable[tuple[Tensor, Tensor]]
]  # each call goes through all rows once more: x [B, d], weight [B]


@torch.no_grad()
def calibrate(pre_activations: Callable[[Tensor], Tensor], rows: Weighted, k: int) -> Tensor:
    """The (1 - k/C) quantile of the pre-activations of all rows, each row counting its weight: the inference threshold.

    pre_activations: [B, d] -> [B, C]. rows: gives batches of rows and float64 weights that sum to 1 over all of them.
    Returns a float32 scalar >= 0, such that the weighted mean number of codes above it is k (fewer only where fewer
    than k are positive). Exact: a sample of rows gives a lower bound, only candidates above it are held (1.25 k a
    row, not C), and the bound is lowered until it provably lies under the quantile.
    """
    sampled = _strongest(pre_activations, rows, 8 * k)
    slack = 1.25
    while True:
        bound = float(_cut(*sampled, slack * k, 0.0))
        values, weights = _candidates(pre_activations, rows(), bound)
        if bound == 0.0 or float(weights.sum()) > k:
            return _cut(values, weights, k, bound)
        slack *= 2  # the sample was unlucky; ends at the latest with bound 0, where everything positive is held


def _strongest(pre_activations: Callable[[Tensor], Tensor], rows: Weighted, count: int) -> tuple[Tensor, Tensor]:
    """Of one row in SAMPLED, the `count` largest pre-activations a row [M], and weights that add up as those of all."""
    values, weights, total = [], [], 0.0
    for x_BD, weight_B in rows():
        weight_B = weight_B[::SAMPLED]
        pre_BC = pre_activations(x_BD[::SAMPLED])
        largest, place = pre_BC.flatten().topk(min(count * len(pre_BC), pre_BC.numel()))
        values.append(largest[largest > 0])
        weights.append(weight_B[place[largest > 0] // pre_BC.shape[1]])
        total += float(weight_B.sum())
    return torch.cat(values), torch.cat(weights) / total


def _candidates(
    pre_activations: Callable[[Tensor], Tensor], rows: Iterable[tuple[Tensor, Tensor]], bound: float
) -> tuple[Tensor, Tensor]:
    """Values of all pre-activations above bound [M], and the weight of each one's row [M]."""
    values, weights, workers = [], [], Workers()
    for x_BD, weight_B in rows:
        value, row = _above(pre_activations(x_BD), bound, workers)
        values.append(value)
        weights.append(weight_B[row])
    return torch.cat(values), torch.cat(weights)


def _above(pre_BC: Tensor, bound: float, workers: Workers) -> tuple[Tensor, Tensor]:
    """Values above bound in row order [M], and their rows [M]."""
    if pre_BC.device.type != "cpu" or pre_BC.dtype != torch.float32:
        row, concept = (pre_BC > bound).nonzero(as_tuple=True)
        return pre_BC[row, concept], row
    from sae.step_kernels import larger  # here, for it brings numba's compiler

    found = workers.run(larger, len(pre_BC), pre_BC.contiguous().numpy(), np.float32(bound))
    value, row = (torch.from_numpy(np.concatenate(part)) for part in zip(*found, strict=True))
    return value, row


def _cut(values: Tensor, weights: Tensor, mass: float, floor: float) -> Tensor:
    """The number that the largest values of total weight `mass` lie above; `floor` where all of them are needed.

    Half-way to the next value where float32 has room, so that rounding in another matrix product's order cannot
    push a kept code under its own threshold.
    """
    values, order = values.sort(descending=True)
    total = weights[order].cumsum(0)
    kept = int(torch.searchsorted(total, mass * (1 - 1e-12))) + 1
    if kept >= values.numel():
        return values.new_tensor(floor)
    last, following = values[kept - 1], values[kept]
    middle = (last + following) / 2
    return torch.where(middle < last, middle, following)
