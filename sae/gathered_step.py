"""The gradients of TopK, BatchTopK and Matryoshka by gathers instead of dense products.

Used on GPUs for very wide dictionaries, where gathers are faster than the dense step; the CPU has `sae.sparse_step`.
The code runs on any device, and the host never waits for the device. embedding_bag sums in a fixed order.
"""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from sae.architectures import ARCHITECTURES
from sae.settings import Settings
from sae.step import Forward, Weights


def is_gathering_better(settings: Settings, device: torch.device) -> bool:
    """Return whether gathers are faster than dense products.

    Gathers are faster on a GPU if the number of concepts per code is above a limit. The limit is 110 to 230, depending
    on the GPU's ratio of arithmetic to bandwidth; 150 is used for all GPUs.
    """
    selects_k = ARCHITECTURES[settings.architecture].selection is not None
    return device.type == "cuda" and selects_k and settings.width > 150 * settings.k


@torch.no_grad()
def gathered_gradients_(x_BD: Tensor, weights: Weights, settings: Settings, variance: float) -> Forward:
    """Write the gradients of `sae.step.forward`, without AuxK, into .grad of the weights, and return loss and codes."""
    batch, width = len(x_BD), settings.width
    pre_BC = weights.pre_activations(x_BD, getattr(torch, settings.encoder_dtype))
    if ARCHITECTURES[settings.architecture].selection == "row":
        kept, column = pre_BC.topk(settings.k, dim=1, sorted=False)
        index = (column + width * torch.arange(batch, device=x_BD.device)[:, None]).flatten()
        codes = kept.flatten().relu()
    else:
        kept, index = pre_BC.flatten().topk(min(settings.k * batch, pre_BC.numel()), sorted=False)
        codes = kept.relu()
    index, order = index.sort()
    codes, rows, concepts = codes[order], index // width, index % width

    # The gradient in the reconstruction by each nested dictionary. The gradients of all wider dictionaries are added,
    # because a concept of a nested dictionary is part of all wider dictionaries too.
    row_start = torch.searchsorted(rows, torch.arange(batch, device=rows.device))
    widths = settings.nested_widths()
    part = torch.zeros_like(concepts)
    for wide in widths[:-1]:
        part = part + (concepts >= wide)
    scale = 1 / (batch * variance)
    residual_BD, slopes, loss = x_BD - weights.bias, [], x_BD.new_zeros(())
    for m in range(len(widths)):
        own = codes * (part == m)
        residual_BD = residual_BD - embedding_bag(
            concepts, weights.dictionary, row_start, mode="sum", per_sample_weights=own
        )
        error = residual_BD.square().sum()
        loss = loss + error * scale
        slopes.append(residual_BD * (-2 * scale))
    for m in range(len(widths) - 2, -1, -1):
        slopes[m] = slopes[m] + slopes[m + 1]
    slope = torch.cat(slopes)
    place = part * batch + rows
    to_codes = (slope[place] * weights.dictionary[concepts]).sum(1) * (codes > 0)

    by_concept = concepts.argsort(stable=True)
    start = torch.searchsorted(concepts[by_concept], torch.arange(width, device=rows.device))

    def summed(where: Tensor, table: Tensor, factor: Tensor) -> Tensor:
        return embedding_bag(where[by_concept], table, start, mode="sum", per_sample_weights=factor[by_concept])

    to_bias_C = summed(rows, x_BD.new_ones(batch, 1), to_codes).flatten()
    weights.dictionary.grad = summed(place, slope, codes)
    weights.encoder_bias.grad = to_bias_C
    weights.encoder.grad = summed(rows, x_BD, to_codes) - to_bias_C[:, None] * weights.bias
    if settings.decoder_bias:
        weights.bias.grad = slopes[0].sum(0) - to_bias_C @ weights.encoder
    codes_BC = torch.zeros_like(pre_BC).flatten().scatter_(0, index, codes).view_as(pre_BC)
    return Forward(loss, error, codes_BC)
