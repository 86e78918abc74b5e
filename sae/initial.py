"""The weights that a training starts from: directions of the atoms, the decoder bias, and the scale of the encoder."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sae.architectures import ARCHITECTURES
from sae.calibration import calibrate
from sae.rows import TrainingRows
from sae.settings import Settings
from sae.step import Weights, codes_of

START = 2  # number of this file's random stream under the training's seed; `sae.rows` has streams 0 and 1
SAMPLE = 20_000  # rows that the geometric median is computed from
THETA_SAMPLE = 4096  # rows from which thresholds are initialised
SCALE_SAMPLE = 1024  # rows from which the scale of the encoder is fitted
PIECE = 256  # of these rows, how many are encoded at once: their pre-activations [PIECE, C] must fit in memory
NOISE = 0.1  # norm of the random vector that is added to an atom made of rows


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


class Draw:
    """What the directions of atoms are drawn from: the rows, the bias [d] they are seen from, a random stream."""

    def __init__(self, rows: TrainingRows, bias: Tensor, stream: np.random.Generator) -> None:
        self.rows, self.bias, self.stream = rows, bias, stream
        self.weight = rows.weights()

    def numbers(self, count: int) -> np.ndarray:
        """Row numbers [count], drawn from the training mixture with replacement."""
        return self.stream.choice(self.rows.count, size=count, p=self.weight)

    def others(self, first: np.ndarray) -> np.ndarray:
        """For each row number another one [count], drawn from the rows of the same modality with replacement."""
        images, texts = self.rows.images, self.rows.texts
        is_text = first >= images
        return np.floor(self.stream.random(len(first)) * np.where(is_text, texts, images)).astype(np.int64) + (
            images * is_text
        )


def _within(draw: Draw, width: int) -> Tensor:
    first = draw.numbers(width)
    return draw.rows.pick(first) - draw.rows.pick(draw.others(first))


def _differences(draw: Draw, width: int) -> Tensor:
    return draw.rows.pick(draw.numbers(width)) - draw.rows.pick(draw.numbers(width))


def _data(draw: Draw, width: int) -> Tensor:
    return draw.rows.pick(draw.numbers(width)) - draw.bias


def _random(draw: Draw, width: int) -> Tensor:
    return torch.zeros(width, draw.rows.dim, device=draw.rows.device)  # the noise that is added is the whole direction


#: Value of the setting `init` -> a function of (draw, width) to directions [width, d], of any norm.
INITS: dict[str, Callable[[Draw, int], Tensor]] = {
    "within": _within,
    "random": _random,
    "data": _data,
    "differences": _differences,
}


@torch.no_grad()
def initial_weights(rows: TrainingRows, settings: Settings, seed: int) -> Weights:
    """Unit atoms in the directions that `settings.init` names, the encoder a multiple of them, the bias at the median.

    Differences of rows lie in the directions in which the data varies, and the mean cancels in them. A difference of an
    image and a text also has the gap between the modalities in it, so that a concept which starts there is unimodal
    before it has learned anything; a difference within one modality does not. After short trainings at equal R2 on the
    demo's image-text embeddings, .68 of the concepts are unimodal with `within` and with `random`, .80 with
    `differences` and .87 with `data`. `python -m bench.sae_quality --only modality` compares how well the modality
    scores of planted concepts are recovered from each start.
    """
    device, width = rows.device, settings.width
    stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(START,)))
    bias = torch.zeros(rows.dim, device=device)
    if settings.decoder_bias:
        sample = np.sort(stream.permutation(rows.count)[:SAMPLE])
        bias = geometric_median(rows.take(sample), torch.from_numpy(rows.weights()[sample]).to(device))
    draw = Draw(rows, bias, stream)
    # A little noise is added: the difference of two equal rows is 0, and concepts with equal atoms would stay equal.
    noise = torch.randn(width, rows.dim, generator=torch.Generator().manual_seed(seed)).to(device)
    atoms = normalize(INITS[settings.init](draw, width) + NOISE * normalize(noise, dim=1), dim=1)
    weights = Weights(atoms.clone(), torch.zeros(width, device=device), atoms, bias, torch.zeros(0, device=device))
    if ARCHITECTURES[settings.architecture].pursuit:
        return weights  # pursuit reads the dictionary alone, and its codes fit from the start
    weights = _with_few_codes(weights, draw, settings)
    scale = fitted_scale(weights, rows.pick(draw.numbers(SCALE_SAMPLE)), settings)
    encoder, encoder_bias, theta = (part * scale for part in (weights.encoder, weights.encoder_bias, weights.theta))
    return Weights(encoder, encoder_bias, atoms, bias, theta)


def _with_few_codes(weights: Weights, draw: Draw, settings: Settings) -> Weights:
    """The weights with thresholds at which a row has k codes, if the architecture has thresholds in training.

    JumpReLU's thresholds start there: from near 0, Adam would need most of a short training to raise them. ReLU's
    threshold is its encoder bias with the sign changed.
    """
    threshold = ARCHITECTURES[settings.architecture].threshold
    if threshold not in ("learned", "zero"):
        return weights
    x_ND = draw.rows.pick(draw.numbers(THETA_SAMPLE))
    share = torch.full((len(x_ND),), 1 / len(x_ND), dtype=torch.float64, device=x_ND.device)
    cut = calibrate(weights.pre_activations, lambda stride: [(x_ND[::stride], share[::stride])], settings.k)
    cut_C = cut.expand(settings.width).clone()
    return weights._replace(theta=cut_C) if threshold == "learned" else weights._replace(encoder_bias=-cut_C)


def fitted_scale(weights: Weights, x_ND: Tensor, settings: Settings) -> float:
    """The factor of all codes with which they reconstruct the rows best by least squares; 1 where no code is kept.

    With nested dictionaries the squared errors of all of them are summed, as in the loss. An encoder row of norm 1 is
    far too long: the codes of a row each rebuild all of the row that lies along their atoms, and the atoms overlap.
    """
    matched = power = 0.0
    for x_BD in x_ND.split(PIECE):
        codes_BC, _ = codes_of(weights, weights.pre_activations(x_BD), settings)
        made_BD, start = torch.zeros_like(x_BD), 0
        for stop in settings.nested_widths():
            made_BD = made_BD + codes_BC[:, start:stop] @ weights.dictionary[start:stop]
            matched += float((made_BD * (x_BD - weights.bias)).sum())
            power += float(made_BD.square().sum())
            start = stop
    return matched / power if matched > 0 and power > 0 else 1.0
