"""One step of Adam for the weights of one SAE, or of several that lie one after another."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sae.sparse_step import EPSILON, corrections


@torch.no_grad()
def adam_(
    optimiser: torch.optim.Optimizer,
    weights: Mapping[str, Tensor],
    moments: Mapping[str, tuple[Tensor, Tensor]],
    rows: Tensor,
    steps_K: Tensor,
    learning_rate: float,
) -> None:
    """A step of Adam in which a restarted concept's moments are corrected by the number of its own steps.

    With the corrections of all other concepts its first steps would be up to 6.6 times as long. torch's fused step
    has one number of steps for a whole tensor, so the rows of restarted concepts are computed again.
    weights, moments: what belongs to single concepts, with a row for each. rows: [K] int64, those of the restarted
    concepts. steps_K: [K], the number of steps since each was restarted.
    """
    again = weights if len(rows) else {}
    before = {name: weight[rows] for name, weight in again.items()}
    optimiser.param_groups[0]["lr"] = learning_rate
    optimiser.step()
    rate_K, root_K = corrections(learning_rate, steps_K.double())
    for name, weight in again.items():
        first, second = (moment[rows] for moment in moments[name])
        each = (-1,) + (1,) * (first.ndim - 1)
        rate, root = rate_K.float().view(each), root_K.float().view(each)
        weight[rows] = before[name] - rate * first / (second.sqrt() * root + EPSILON)
