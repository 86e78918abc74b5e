"""What training does for architectures with a sparsity penalty: it steers the penalty until a row has k codes.

For JumpReLU it also sets the width of the kernel through which thresholds are learned.
"""

import torch
from torch import Tensor

from sae.rows import TrainingRows
from sae.step import Weights

#: The penalty's answer to an L0 that is off by a factor of e: log of the factor by which it changes at once. Without
#: it, with DRIFT alone, L0 swings: weights and thresholds themselves add up what the penalty pushes, so such a penalty
#: goes on rising while L0 falls. On vlm_like (5,000 pairs, C = 256, k = 14, means of ten steps) the highest L0 is 18.9
#: with 0, 17.1 with 3 and 16.6 with 5; R2 at 4,000 pairs and k = 8 is .8688 with 3 and .8697 with 5.
ANSWER = 5.0
DRIFT = 0.03  # the part of the answer that stays: change of log penalty in a step, at an L0 that is off by e
LARGEST_ERROR = 1.0  # an L0 that is off by more than a factor of e counts as one that is off by e
LARGEST_DRIFT = 4.0  # what stays is held within a factor of e^4 = 55 of the penalty at the start
SPREAD_ROWS = 512  # rows from which the spread of the pre-activations is measured


def steered(first: float, drift: Tensor, l0: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The penalty [] of the next step, and the drift [] to hand in then, from the L0 [] of this step's batch.

    A proportional-integral controller of log L0, with both parts bounded, so that the penalty lies within a factor of
    e^(LARGEST_DRIFT + ANSWER) of its start whatever happens. first: the penalty at the start. drift: log of the factor
    that stays, 0 at the start.
    """
    error = (l0 / k).clamp_min(1e-6).log().clamp(-LARGEST_ERROR, LARGEST_ERROR)
    moved = (drift + DRIFT * error).clamp(-LARGEST_DRIFT, LARGEST_DRIFT)
    return first * (moved + ANSWER * error).exp(), moved


@torch.no_grad()
def kernel_width(weights: Weights, rows: TrainingRows, bandwidth: float) -> Tensor:
    """`bandwidth` times the spread of the pre-activations: [], the width of the kernel of `sae.sparsity.jumprelu`.

    The spread is the standard deviation of a concept's pre-activations over the rows, weighted as in training (root of
    the mean square over concepts). It is taken at the start, from every n-th row.
    """
    mass = first_C = second_C = torch.zeros((), dtype=torch.float64, device=rows.device)
    for x_BD, weight_B in rows.weighted(max(1, rows.count // SPREAD_ROWS)):
        pre_BC = weights.pre_activations(x_BD).double()
        mass, first_C = mass + weight_B.sum(), first_C + weight_B @ pre_BC
        second_C = second_C + weight_B @ pre_BC.square()
    variance_C = second_C / mass - (first_C / mass).square()
    return bandwidth * variance_C.mean().clamp_min(1e-12).sqrt().float()
