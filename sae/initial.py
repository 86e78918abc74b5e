"""The weights that a training starts from: atoms along differences of rows, the bias at their geometric median."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sae.architectures import ARCHITECTURES
from sae.calibration import calibrate
from sae.rows import TrainingRows
from sae.settings import Settings
from sae.step import Weights

START = 2  # stream of random numbers under a seed, beside those of `sae.rows`
SAMPLE = 20_000  # rows that the geometric median is computed from
THETA_SAMPLE = 4096  # rows from which learned thresholds are initialised


def geometric_median(x_ND: Tensor, weight_N: Tensor, iterations: int = 20) -> Tensor:
    """The point [d] with the least weighted mean distance to the rows, by Weiszfeld's iteration in float64.

    With the bias at the mean the dictionary spends concepts on outliers; with the bias at 0 most concepts of uncentred
    embeddings stay dead.
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
    """Atoms along differences of two training rows, the encoder their transpose, the bias at the geometric median.

    Differences lie where the data varies, and the mean drops out: in trials on planted vectors random directions left
    a few of 256 concepts dead that differences did not.
    """
    device, width = rows.device, settings.width
    weight = rows.weights()
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(START,)))
    first, second = (rows.pick(drawn) for drawn in order.choice(rows.count, size=(2, width), p=weight))
    # A little noise: two equal rows have no difference, and concepts with equal differences would stay equal.
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
    # Each concept starts at the threshold that leaves k codes per row: starting near 0, Adam would need most of a short
    # training to raise it.
    few = slice(None, None, max(1, len(sample) // THETA_SAMPLE))
    share = sample_weight[few] / sample_weight[few].sum()
    x_ND = rows.take(sample[few])
    theta = calibrate(weights.pre_activations, lambda stride: [(x_ND[::stride], share[::stride])], settings.k)
    return weights._replace(theta=theta.expand(width).clone())
