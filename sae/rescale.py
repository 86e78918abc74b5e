"""Undo the shrinkage of an L1 penalty: one factor per concept, fitted by least squares after training.

The penalty pulls every code towards 0 by about the same amount, so a trained ReLU SAE reconstructs rows too small. The
factors leave the dictionary as it is, and every concept fires on the same rows as before.
"""

import torch
from torch import Tensor

from sae.calibration import Weighted

ROUNDS = 4  # passes that improve the factors; more change R2 by less than .001
LEAST, MOST = 0.1, 10.0  # factors are kept within these limits, and above 0, so that the same rows fire


@torch.no_grad()
def shrinkage_factors(
    encoder_CD: Tensor, shift_C: Tensor, dictionary_CD: Tensor, bias_D: Tensor, rows: Weighted
) -> Tensor:
    """Factors [C] > 0 of the codes z = relu(x W^T + shift), which reconstruct the rows as z D + bias.

    In a round, each concept's change is its own least squares over the rows on which it fires: sum z <e, D> / sum z^2,
    where e is the residual. Concepts that fire together share a residual, so all changes are then multiplied by the one
    number with which the error becomes least. The weighted squared error of the rows thus never rises, except by the
    limits of the factors. rows(1) yields rows [B, d] and their weights [B]. A concept that never fires has factor 1.
    """
    factor_C = torch.ones_like(shift_C)
    for _ in range(ROUNDS):
        match_C = power_C = torch.zeros_like(shift_C, dtype=torch.float64)
        for x_BD, weight_B in rows(1):
            codes_BC = torch.addmm(shift_C, x_BD, encoder_CD.T).relu_() * factor_C
            residual_BD = x_BD - bias_D - codes_BC @ dictionary_CD
            match_C = match_C + weight_B @ (codes_BC * (residual_BD @ dictionary_CD.T)).double()
            power_C = power_C + weight_B @ codes_BC.square().double()
        change_C = torch.where(power_C > 0, match_C / power_C.clamp_min(1e-30), 0.0).clamp(-1, 1).float()
        right = power = torch.zeros((), dtype=torch.float64, device=shift_C.device)
        for x_BD, weight_B in rows(1):
            codes_BC = torch.addmm(shift_C, x_BD, encoder_CD.T).relu_() * factor_C
            residual_BD = x_BD - bias_D - codes_BC @ dictionary_CD
            added_BD = (codes_BC * change_C) @ dictionary_CD
            right = right + weight_B @ (residual_BD * added_BD).sum(1).double()
            power = power + weight_B @ added_BD.square().sum(1).double()
        step = (right / power.clamp_min(1e-30)).float()
        factor_C = (factor_C * (1 + step * change_C)).clamp(LEAST, MOST)
    return factor_C
