"""The loss of one batch, in plain autograd: every architecture, any device. The dense path of training.

No operation here waits for the device. The sparse path, in `sae.sparse_step`, gives the same gradients.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sae.architectures import ARCHITECTURES
from sae.pursuit import dense_codes, selected_atoms, unrolled
from sae.settings import Settings
from sae.sparsity import SELECT, topk

UNIT = torch.ones(())


class Weights(NamedTuple):
    """The weights of an SAE in training."""

    encoder: Tensor  # [C, d]
    encoder_bias: Tensor  # [C]
    dictionary: Tensor  # [C, d], unit rows
    bias: Tensor  # [d]; zeros, and not learned, without decoder bias
    theta: Tensor  # [C], learned thresholds; [0] where the architecture learns none
    bandwidth: Tensor = UNIT  # [], width of the kernel through which thresholds are learned; not learned itself

    def pre_activations(self, x_BD: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Pre-activations [B, C] of prepared rows.

        The decoder bias is folded into the encoder bias, so that autograd needs no gradient of x - bias, [B, d].
        """
        shift_C = self.encoder_bias - self.encoder @ self.bias
        return product(x_BD, self.encoder, dtype) + shift_C


class Forward(NamedTuple):
    """Loss, error and codes of one batch."""

    loss: Tensor  # []
    error: Tensor  # [], squared error of the batch
    codes: Tensor  # [B, C]


def has_bfloat16(device: torch.device) -> bool:
    """Return whether this device multiplies bfloat16 faster than float32."""
    return device.type != "cpu" or bool(torch.cpu._is_avx512_bf16_supported())


def product(x_BD: Tensor, encoder_CD: Tensor, dtype: torch.dtype) -> Tensor:
    """x W^T [B, C] in float32; x and W are rounded to dtype first.

    A CPU without bfloat16 instructions takes seven times as long for a bfloat16 product as for a float32 one. On
    such a CPU the rounded numbers are multiplied in float32; the result is equal up to the rounding of the sums.
    """
    if dtype == torch.float32:
        return x_BD @ encoder_CD.T
    x_BD, encoder_CD = x_BD.to(dtype), encoder_CD.to(dtype)
    if has_bfloat16(x_BD.device):
        return (x_BD @ encoder_CD.T).float()
    return x_BD.float() @ encoder_CD.float().T


def codes_of(weights: Weights, pre_BC: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Codes [B, C], and what the penalty weighs: mean per row of their sum (relu) or number (jumprelu), or 0."""
    codes_BC, penalised_BC = SELECT[settings.architecture](pre_BC, weights.theta, settings, weights.bandwidth)
    return codes_BC, pre_BC.new_zeros(()) if penalised_BC is None else penalised_BC.sum() / len(pre_BC)


def forward(
    x_BD: Tensor,
    weights: Weights,
    settings: Settings,
    variance: float | Tensor,
    penalty: Tensor,
    dead_C: Tensor | None,
    auxk: Tensor | None = None,
) -> Forward:
    """The loss of a batch, with its error and codes.

    The loss is the squared error per row divided by `variance` (about 1 - R2), plus the weighted penalty and AuxK.
    Matryoshka sums the errors of its nested dictionaries, each of which contains all narrower ones.
    variance: variance of the training rows, summed over the d dimensions. penalty: [], weight of the sparsity penalty;
    architectures without a penalty ignore it. dead_C: [C] bool, True for dead concepts; None while no concept is dead.
    auxk: [], weight of AuxK; None: that of the settings. `sae.stack` maps this function over several SAEs at once.
    """
    if ARCHITECTURES[settings.architecture].pursuit:
        return forward_by_pursuit(x_BD, weights, settings, variance, dead_C, auxk)
    scale = 1 / (len(x_BD) * variance)
    pre_BC = weights.pre_activations(x_BD, getattr(torch, settings.encoder_dtype))
    codes_BC, penalised = codes_of(weights, pre_BC, settings)
    residual_BD = x_BD - weights.bias
    loss, start = penalty * penalised, 0
    for stop in settings.nested_widths():
        residual_BD = residual_BD - codes_BC[:, start:stop] @ weights.dictionary[start:stop]
        error = residual_BD.square().sum()
        loss, start = loss + error * scale, stop
    if dead_C is not None:
        loss = loss + _weighted_aux(pre_BC, residual_BD, dead_C, weights, settings, auxk)
    return Forward(loss, error.detach(), codes_BC.detach())


def forward_by_pursuit(
    x_BD: Tensor,
    weights: Weights,
    settings: Settings,
    variance: float | Tensor,
    dead_C: Tensor | None,
    auxk: Tensor | None = None,
) -> Forward:
    """`forward` of an architecture whose encoder is matching pursuit with the dictionary, through the unrolled rounds.

    The atoms are selected on rows and atoms that are rounded to the encoder's dtype; all else is float32. AuxK takes
    the products of dead atoms with the last residual as their pre-activations.
    """
    dtype = getattr(torch, settings.encoder_dtype)
    centred_BD, atoms_CD = x_BD - weights.bias, weights.dictionary
    rounded_BD, rounded_CD = (part.detach().to(dtype).float() for part in (centred_BD, atoms_CD))
    index_BK, _ = selected_atoms(rounded_BD, rounded_CD, settings.k)
    values_BK, residual_BD = unrolled(centred_BD, atoms_CD, index_BK)
    error = residual_BD.square().sum()
    loss = error / (len(x_BD) * variance)
    if dead_C is not None:
        pre_BC = residual_BD.detach() @ atoms_CD.T
        loss = loss + _weighted_aux(pre_BC, residual_BD, dead_C, weights, settings, auxk)
    return Forward(loss, error.detach(), dense_codes(index_BK, values_BK.detach(), settings.width))


def _weighted_aux(
    pre_BC: Tensor, residual_BD: Tensor, dead_C: Tensor, weights: Weights, settings: Settings, auxk: Tensor | None
) -> Tensor:
    """AuxK's part of the loss."""
    k_aux = settings.k_aux or max(1, residual_BD.shape[1] // 2)
    return (settings.auxk if auxk is None else auxk) * aux_loss(pre_BC, residual_BD, dead_C, weights.dictionary, k_aux)


def aux_loss(pre_BC: Tensor, residual_BD: Tensor, dead_C: Tensor, dictionary_CD: Tensor, k_aux: int) -> Tensor:
    """AuxK: squared error of predicting the residual from each row's k_aux strongest dead concepts, over its variance.

    residual_BD is detached and the decoder bias left out, so that only dead concepts get a gradient. This gradient
    reaches the encoder through pre_BC. Source: Gao et al., arXiv 2406.04093, appendix A.2.
    """
    target = residual_BD.detach()
    codes_BC = topk(pre_BC.masked_fill(~dead_C, -torch.inf), k_aux)
    return (codes_BC @ dictionary_CD - target).square().sum() / spread(target)


def spread(residual_BD: Tensor) -> Tensor:
    """Sum of the squared distances of the rows to their mean: [], at least 1e-12."""
    return (residual_BD - residual_BD.mean(0)).square().sum().clamp_min(1e-12)
