"""The threshold of inference: an exact quantile of all training pre-activations, of which few are held in memory."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from sae.step import has_bfloat16
from sae.workers import Workers

SAMPLED = 32  # one row in 32 gives the first estimate of the threshold
FEW = 8  # one in 8 of the sampled rows is sorted, to find the value above which the sample's codes are kept
BAND = 1.1  # the threshold is sought between the values above which the sample has k * BAND and k / BAND codes per row
ROUNDING = 2.0**-8  # largest relative error of a number rounded to bfloat16

# A function of s that yields every s-th row, in batches: rows [B, d] and their weights [B] float64. The weights of all
# rows (s = 1) sum to 1.
Weighted = Callable[[int], Iterable[tuple[Tensor, Tensor]]]


@torch.no_grad()
def calibrate(pre_activations: Callable[[Tensor], Tensor], rows: Weighted, k: int) -> Tensor:
    """The inference threshold: the (1 - k/C) quantile of the pre-activations of all rows, weighted by row.

    pre_activations: [B, d] -> [B, C]. rows(s): yields batches of every s-th row, and float64 weights that sum to 1 over
    all rows.
    Returns a float32 scalar >= 0, such that the weighted mean number of codes above it is k (fewer only where fewer
    than k are positive). The result is exact. A sample of rows gives a lower bound, and only pre-activations above it
    are held (about 1.25 k per row instead of C). If the bound proves to lie above the quantile, it is lowered and the
    pass over the rows is repeated.
    """
    sampled = _strongest(pre_activations, rows, 8 * k)
    slack = 1.25
    while True:
        bound = float(_cut(*sampled, slack * k, 0.0))
        values, weights = _candidates(pre_activations, rows(1), bound)
        if bound == 0.0 or float(weights.sum()) > k:
            return _cut(values, weights, k, bound)
        slack *= 2  # the bound was too high; the loop ends at the latest with bound 0, which keeps all positive values


@torch.no_grad()
def calibrate_encoder(encoder_CD: Tensor, shift_C: Tensor, rows: Weighted, k: int) -> Tensor:
    """`calibrate` for the pre-activations x W^T + shift. Takes half the time on a CPU that has native bfloat16."""
    if encoder_CD.device.type == "cpu" and has_bfloat16(encoder_CD.device):
        threshold = screened(encoder_CD, shift_C, rows, k)
        if threshold is not None:
            return threshold
    return calibrate(lambda x_BD: torch.addmm(shift_C, x_BD, encoder_CD.T), rows, k)


def screened(encoder_CD: Tensor, shift_C: Tensor, rows: Weighted, k: int) -> Tensor | None:
    """The quantile of `calibrate` from a bfloat16 product, on the CPU; None if it is outside the band of a sample.

    A sample of rows gives the band of values in which the quantile is sought. The result is exact: the norms of a row
    and of a concept's encoder row bound the rounding error of their product. Products that this bound cannot place
    above or below the band are computed again in float32, and the quantile is found among the values within the band.
    """
    sampled = _strongest(lambda x_BD: torch.addmm(shift_C, x_BD, encoder_CD.T), rows, 8 * k)
    low, high = (float(_cut(*sampled, mass, 0.0)) for mass in (BAND * k, k / BAND))
    if low <= 0:
        return None
    from sae.calibration_kernels import within  # imported here, since it loads numba's compiler

    # Relative error of a product: both factors are rounded to bfloat16, and the terms are summed in float32.
    relative = 2 * ROUNDING + ROUNDING**2 + encoder_CD.shape[1] * 2.0**-23
    reach_C = encoder_CD.norm(dim=1) * relative
    rounded_CD = encoder_CD.bfloat16()
    concepts = encoder_CD.contiguous().numpy(), shift_C.numpy(), reach_C.numpy()
    product_BC = torch.empty(0, len(encoder_CD), dtype=torch.bfloat16)
    sure, values, weights, workers = 0.0, [], [], Workers()
    for x_BD, weight_B in rows(1):
        if len(x_BD) > len(product_BC):
            product_BC = torch.empty(len(x_BD), len(encoder_CD), dtype=torch.bfloat16)
        bits = torch.mm(x_BD.bfloat16(), rounded_CD.T, out=product_BC[: len(x_BD)]).view(torch.uint16).numpy()
        lengths_B = x_BD.norm(dim=1)
        margin_C = low - shift_C - reach_C * lengths_B.amax()
        least_C = torch.where(margin_C > 0, margin_C / (1 + ROUNDING), margin_C / (1 - ROUNDING))
        arrays = bits, least_C.numpy(), x_BD.contiguous().numpy(), lengths_B.numpy(), *concepts
        near = workers.run(within, len(x_BD), *arrays, np.float32(ROUNDING), np.float32(low), np.float32(high))
        value, row, above = (torch.from_numpy(np.concatenate(part)) for part in zip(*near, strict=True))
        values.append(value)
        weights.append(weight_B[row])
        sure += float(above.double() @ weight_B)
    held = torch.cat(weights)
    if not sure < k < sure + float(held.sum()):
        return None
    return _cut(torch.cat(values), held, k - sure, low)


def _strongest(pre_activations: Callable[[Tensor], Tensor], rows: Weighted, count: int) -> tuple[Tensor, Tensor]:
    """The strongest codes [M] of every SAMPLED-th row, about `count` per row, and for each code its row's weight [M].

    The weights of the sampled rows are scaled so that they sum to 1.
    """
    values, weights, total, workers = [], [], 0.0, Workers()
    for x_BD, weight_B in rows(SAMPLED):
        pre_BC = pre_activations(x_BD)
        few = pre_BC[::FEW].flatten()  # sorting all sampled rows would cost as much as their product
        bound = few.topk(min(count * len(pre_BC[::FEW]), few.numel()), sorted=False).values.amin()
        value, row = _above(pre_BC, max(0.0, float(bound)), workers)
        values.append(value)
        weights.append(weight_B[row])
        total += float(weight_B.sum())
    return torch.cat(values), torch.cat(weights) / total


def _candidates(
    pre_activations: Callable[[Tensor], Tensor], rows: Iterable[tuple[Tensor, Tensor]], bound: float
) -> tuple[Tensor, Tensor]:
    """All pre-activations that are above `bound` [M], and for each the weight of its row [M]."""
    values, weights, workers = [], [], Workers()
    for x_BD, weight_B in rows:
        value, row = _above(pre_activations(x_BD), bound, workers)
        values.append(value)
        weights.append(weight_B[row])
    return torch.cat(values), torch.cat(weights)


def _above(pre_BC: Tensor, bound: float, workers: Workers) -> tuple[Tensor, Tensor]:
    """The values above `bound` [M], in the order of rows, and the row number of each value [M]."""
    if pre_BC.device.type != "cpu" or pre_BC.dtype != torch.float32:
        row, concept = (pre_BC > bound).nonzero(as_tuple=True)
        return pre_BC[row, concept], row
    from sae.calibration_kernels import larger  # imported here, since it loads numba's compiler

    parts = workers.run(larger, len(pre_BC), pre_BC.contiguous().numpy(), np.float32(bound))
    value, row = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
    return value, row


def _cut(values: Tensor, weights: Tensor, mass: float, floor: float) -> Tensor:
    """The number just below the largest values whose weights sum to `mass`; `floor` where all values are needed.

    It lies half-way to the next smaller value, if float32 has a number between the two. Without this distance, a matrix
    product that sums in another order could round a kept code down to its threshold, and the code would be lost.
    """
    values, order = values.sort(descending=True)
    total = weights[order].cumsum(0)
    kept = int(torch.searchsorted(total, mass * (1 - 1e-12))) + 1
    if kept >= values.numel():
        return values.new_tensor(floor)
    last, following = values[kept - 1], values[kept]
    middle = (last + following) / 2
    return torch.where(middle < last, middle, following)
