"""The weights that a training starts from: atoms along differences of rows, the bias at the rows' geometric median."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sae.architectures import ARCHITECTURES
from sae.calibration import calibrate
from sae.rows import TrainingRows
from sae.settings import Settings
from sae.step import Weights

START = 2  # number of this file's random stream under the training's seed; `sae.rows` has streams 0 and 1
SAMPLE = 20_000  # rows that the geometric median is computed from
THETA_SAMPLE = 4096  # rows from which learned thresholds are initialised


def geometric_median(x_ND: Tensor, weight_N: Tensor, iterations: int = 20) -> Tensor:
    """The point [d] with the least weighted mean distance to the rows, by Weiszfeld's iteration in float64.

    The bias starts at this point. If it starts at the mean, the dictionary spends concepts on outliers; if it starts at
    0, most concepts of uncentred embeddings stay dead.
    """
    x = x_ND.double()
    weight, square = weight_N / weight_N.sum(), x.square().sum(1)
    median = weight @ x
    for _ in range(iterations):
        distance = (square - 2 * (x @ median) + median.square().sum()).clamp_min(1e-18).sqrt()
        pull = weight / distance
        median = (pull @ x) / pull.sum()
    return median.float()


def initial_weights(rows: TrainingRows, settings: Settings, seed: int) -> Weights:
    """Atoms along differences of two training rows, the encoder equal to them, the bias at the geometric median.

    Differences lie in the directions in which the data varies, and the mean cancels in them. In trials on vectors
    with planted concepts, a few of 256 concepts stayed dead with random directions, but none with differences.
    """
    device, width = rows.device, settings.width
    weight = rows.weights()
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(START,)))
    first, second = (rows.pick(drawn) for drawn in order.choice(rows.count, size=(2, width), p=weight))
    # A little noise is added: the difference of two equal rows is 0, and concepts with equal atoms would stay equal.
    noise = torch.randn(width, rows.dim, generator=torch.Generator().manual_seed(seed)).to(device)
    atoms = normalize(first - second + 0.1 * normalize(noise, dim=1), dim=1)
    bias = torch.zeros(rows.dim, device=device)
    sample = np.sort(order.permutation(rows.count)[:SAMPLE])
    sample_weight = torch.from_numpy(weight[sample]).to(device)
    if settings.decoder_bias:
        bias = geometric_median(rows.take(sample), sample_weight)
    weights = Weights(atoms.clone(), torch.zeros(width, device=device), atoms, bias, torch.zeros(0, device=device))
    if ARCHITECTURES[settings.architecture].threshold != "learned":
        return weights
    # All thresholds start at the value that leaves k codes per row. If they started near 0, Adam would need most of a
    # short training to raise them.
    few = slice(None, None, max(1, len(sample) // THETA_SAMPLE))
    share = sample_weight[few] / sample_weight[few].sum()
    x_ND = rows.take(sample[few])
    theta = calibrate(weights.pre_activations, lambda stride: [(x_ND[::stride], share[::stride])], settings.k)
    return weights._replace(theta=theta.expand(width).clone())
