"""Selection of codes: one function per rule, the table of architectures that use them, and the rule of inference.

Holds no state: `sae.calibration` finds the threshold, and `sae.model` stores it with the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sae.settings import Settings


def relu(pre_BC: Tensor) -> Tensor:
    """Codes [B, C]: every positive pre-activation. An L1 penalty in the loss makes them few.

    Source: Bricken et al. 2023, "Towards monosemanticity".
    """
    return pre_BC.relu()


def topk(pre_BC: Tensor, k: int) -> Tensor:
    """Codes [B, C]: the k largest pre-activations of each row, among those above 0; ties are cut by position.

    TopK uses this rule at inference too, because a row's codes do not depend on the other rows.
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
    """Codes `a * H(a - theta)` and counts `H(a - theta)` of pre-activations `a`, where H is the step function.

    The pseudo-gradients are those of arXiv 2407.14435, equations 10 and 11. The kernel is the box of height 1 on
    (-1/2, 1/2), in units of `bandwidth` [].
    """

    generate_vmap_rule = True  # so that `sae.stack` can map a step over several SAEs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def forward(pre_BC: Tensor, theta_C: Tensor, bandwidth: Tensor) -> tuple[Tensor, Tensor]:
        fires_BC = (pre_BC > theta_C).to(pre_BC.dtype)
        return pre_BC * fires_BC, fires_BC

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        to_codes_BC, to_counts_BC = gradients
        pre_BC, theta_C, bandwidth = ctx.saved_tensors
        near_BC = ((pre_BC - theta_C).abs() < bandwidth / 2).to(pre_BC.dtype)
        to_theta_BC = -near_BC / bandwidth * (theta_C * to_codes_BC + to_counts_BC)
        return to_codes_BC * (pre_BC > theta_C), to_theta_BC.sum(0), None


def jumprelu(pre_BC: Tensor, theta_C: Tensor, bandwidth: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [B, C] (pre where pre > theta, else 0) and counts [B, C] (1 where pre > theta, else 0). theta [C] >= 0.

    The L0 penalty sums the counts. Codes and counts are differentiable in theta through a kernel of width `bandwidth`
    []: only pre-activations within half of it of their theta have a gradient. Adam learns theta directly; its logarithm
    would hardly move.
    Source: Rajamanoharan et al., arXiv 2407.14435.
    """
    codes_BC, counts_BC = _Jump.apply(pre_BC, theta_C, bandwidth)
    return codes_BC, counts_BC


def above(pre_BC: Tensor, threshold: Tensor) -> Tensor:
    """The inference rule of all but TopK: codes [B, C] = pre where pre > threshold ([] or [C]) and pre > 0, else 0."""
    return torch.where(pre_BC > threshold.clamp_min(0), pre_BC, 0.0)


class Selected(NamedTuple):
    """Codes of a batch, and the values that the penalty sums."""

    codes: Tensor  # [B, C]
    penalised: Tensor | None = None  # [B, C]; None without a penalty


def _relu(pre_BC: Tensor) -> Selected:
    codes_BC = relu(pre_BC)
    return Selected(codes_BC, codes_BC)


# A function of pre-activations [B, C], thresholds theta ([C], or [0] where none are learned), the settings, and the
# width [] of the kernel through which thresholds are learned.
Select = Callable[[Tensor, Tensor, "Settings", Tensor], Selected]

#: Name of an architecture with a linear encoder -> how it selects codes in training.
SELECT: dict[str, Select] = {
    "relu": lambda pre_BC, theta_C, settings, bandwidth: _relu(pre_BC),
    "topk": lambda pre_BC, theta_C, settings, bandwidth: Selected(topk(pre_BC, settings.k)),
    "batchtopk": lambda pre_BC, theta_C, settings, bandwidth: Selected(batch_topk(pre_BC, settings.k)),
    "jumprelu": lambda pre_BC, theta_C, settings, bandwidth: Selected(*jumprelu(pre_BC, theta_C, bandwidth)),
    "matryoshka": lambda pre_BC, theta_C, settings, bandwidth: Selected(batch_topk(pre_BC, settings.k)),
}
