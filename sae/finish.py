"""The end of a training: its weights become an SAE, whose mean number of codes per row is k.

Thresholds and the biases of ReLU are found on rows that no step used, because rows of the training have more codes.
"""

import torch
from torch import Tensor

from sae.architectures import ARCHITECTURES
from sae.calibration import Weighted, calibrate_encoder
from sae.model import SAE, Config
from sae.rescale import shrinkage_factors
from sae.rows import TrainingRows
from sae.settings import Settings
from sae.step import Weights

# A threshold is calibrated on at most so many rows. Each of them keeps about 1.25 k values in memory.
CALIBRATED = 2**16
RESCALED = 2**16  # rows that the factors of rescaled codes are fitted on, at most


@torch.no_grad()
def finished(
    weights: Weights,
    settings: Settings,
    rows: TrainingRows,
    held: TrainingRows,
    seed: int,
    means: tuple[Tensor, Tensor] | None,
) -> SAE:
    """The SAE of the weights that a training ends with.

    rows: those of the steps, on which the factors of rescaled codes are fitted; held: those on which the threshold or
    the biases are calibrated. All are weighted as in training.
    means: of images and of texts, [d] each, where the rows are centred by modality.
    """
    kind, learns_encoder = ARCHITECTURES[settings.architecture], settings.frozen != "frozen_encoder"
    weights = Weights(*(weight.detach() for weight in weights))
    if kind.pursuit:  # which multiplies rows with the dictionary, and has no encoder
        weights = weights._replace(encoder=weights.dictionary.clone())
    weighted = held.thinned(CALIBRATED).weighted
    threshold = _threshold(weights, settings, weighted)
    # A frozen encoder stays as it is, bit by bit. Its codes cannot shrink: its atoms fit them as they are.
    if kind.threshold == "zero" and settings.penalty is None and learns_encoder:
        weights = weights._replace(encoder_bias=_moved_biases(weights, settings.k, weighted))
    encoder, encoder_bias, dictionary, bias, *_ = weights
    if "rescale" in kind.parameters and settings.rescale and learns_encoder:
        fitted_on = rows.thinned(RESCALED).weighted
        factor_C = shrinkage_factors(encoder, encoder_bias - encoder @ bias, dictionary, bias, fitted_on)
        encoder, encoder_bias = encoder * factor_C[:, None], encoder_bias * factor_C
    config = Config(**dict(settings), dim=rows.dim, seed=seed, rows_seen=settings.epochs * rows.epoch)
    return SAE(encoder, encoder_bias, dictionary, bias, threshold, config, *(means or ()))


def _threshold(weights: Weights, settings: Settings, weighted: Weighted) -> Tensor:
    """The threshold: calibrated [], or learned [C], or 0.

    Learned thresholds are raised or lowered together until L0 is k, unless the penalty was given.
    """
    encoder, encoder_bias, _, bias, theta, _ = weights
    kind = ARCHITECTURES[settings.architecture].threshold
    if kind == "calibrated":
        return calibrate_encoder(encoder, encoder_bias - encoder @ bias, weighted, settings.k)
    if kind != "learned":
        return torch.zeros((), device=encoder.device)
    if settings.penalty is not None:
        return theta
    highest = theta.max()  # added to each difference, so that none near 0 is negative
    shift_C = encoder_bias - encoder @ bias - theta + highest
    return (theta + calibrate_encoder(encoder, shift_C, weighted, settings.k) - highest).clamp_min(0)


def _moved_biases(weights: Weights, k: int, weighted: Weighted) -> Tensor:
    """The encoder's biases [C], raised or lowered together until L0 is k."""
    encoder, encoder_bias, _, bias, *_ = weights
    shift_C = encoder_bias - encoder @ bias
    highest = 2 * encoder.norm(dim=1).max() + shift_C.abs().max()  # no pre-activation is below its negative
    cut = calibrate_encoder(encoder, shift_C + highest, weighted, k)
    # The cut is 0 where k codes per row are all that there are: nothing says where the biases should lie.
    return encoder_bias + torch.where(cut > 0, highest - cut, 0.0)
