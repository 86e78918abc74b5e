"""The start of a training: directions of the atoms, scale of the encoder, thresholds; worked examples and laws."""

import numpy as np
import pytest
import torch

import sae
from sae.architectures import ARCHITECTURES
from sae.initial import INITS, NOISE, Draw, fitted_scale, initial_weights
from sae.rows import training_rows
from sae.settings import Settings
from sae.step import Weights, codes_of


def setting(**changes) -> Settings:
    return Settings(**({"width": 400, "k": 3, "epochs": 3, "batch_size": 32, "learning_rate": 2e-3} | changes))


def two_clouds(rows=300, dim=16, gap=1.0):
    """Images about +gap along the first axis, texts about -gap."""
    random = np.random.default_rng(0)
    parts = [0.3 * random.standard_normal((rows, dim)) for _ in range(2)]
    parts[0][:, 0] += gap
    parts[1][:, 0] -= gap
    return [part.astype(np.float32) for part in parts]


@pytest.fixture(scope="module")
def rows():
    return training_rows(*two_clouds(), 0.5, "cpu")


def along_gap(rows, init):
    """Mean over atoms of their squared cosine with the gap, the first axis."""
    return float(initial_weights(rows, setting(init=init), 0).dictionary[:, 0].square().mean())


def test_only_differences_within_a_modality_and_random_directions_leave_the_gap_out(rows):
    # A random direction in 16 dimensions has the mean squared cosine 1/16 = .0625 with any axis. Differences of two
    # images, or of two captions, vary as the noise does. Half of all differences lie along the gap, and so do rows.
    shares = {init: along_gap(rows, init) for init in INITS}
    assert shares["random"] == pytest.approx(1 / 16, abs=0.02)
    assert shares["within"] < 1 / 16
    assert shares["differences"] > 0.25
    assert shares["data"] > 0.35


def test_every_value_of_init_is_a_setting_and_no_other():
    assert [setting(init=init).init for init in INITS] == list(INITS)
    with pytest.raises(ValueError, match=r"init\n  Input should be 'within', 'random', 'data' or 'differences'"):
        setting(init="zeros")


def test_others_are_of_the_same_modality(rows):
    draw = Draw(rows, torch.zeros(rows.dim), np.random.default_rng(0))
    first = np.array([0, 299, 300, 599] * 200)
    others = draw.others(first)
    assert ((others < 300) == (first < 300)).all()
    assert {others.min() < 30, others.max() > 570, (others[first >= 300] < 330).any()} == {True}


def test_atoms_of_data_are_rows_seen_from_the_bias(rows):
    weights = initial_weights(rows, setting(init="data"), 0)
    every = torch.cat([x for _, x in rows.chunks()]) - weights.bias
    cosines = weights.dictionary @ torch.nn.functional.normalize(every, dim=1).T
    # The added noise has the norm .1, and these rows are at least .3 from the bias: at most 20 degrees of angle.
    assert float(every.norm(dim=1).min()) > 0.3
    assert NOISE == 0.1
    assert float(cosines.amax(1).min()) > 0.94


def test_scale_of_a_worked_example():
    # One row (3, 4), no bias, the atoms (1, 0) twice and (0, 1). TopK with k = 3 keeps the codes 3, 3 and 4, which
    # make (6, 4). The best factor is <(6, 4), (3, 4)> / |(6, 4)|^2 = 34 / 52.
    atoms = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    weights = Weights(atoms, torch.zeros(3), atoms, torch.zeros(2), torch.zeros(0))
    topk = Settings(architecture="topk", width=3, k=3)
    assert fitted_scale(weights, torch.tensor([[3.0, 4.0]]), topk) == pytest.approx(34 / 52)
    # Matryoshka with the nested widths 1 and 3: the narrow one makes (3, 0) and matches 9 of 9, the wide one 34 of 52.
    nested = Settings(architecture="matryoshka", width=3, k=3, prefixes=(1, 3))
    assert fitted_scale(weights, torch.tensor([[3.0, 4.0]]), nested) == pytest.approx((9 + 34) / (9 + 52))
    # A row on which no code is kept gives no scale.
    assert fitted_scale(weights, torch.tensor([[-3.0, -4.0]]), topk) == 1


@pytest.mark.parametrize("decoder_bias", [True, False])
@pytest.mark.parametrize("architecture", [name for name, row in ARCHITECTURES.items() if not row.pursuit])
def test_no_other_scale_fits_the_rows_better(rows, architecture, decoder_bias):
    settings = setting(architecture=architecture, decoder_bias=decoder_bias, width=64)
    weights = initial_weights(rows, settings, 0)
    x = torch.cat([x for _, x in rows.chunks()])

    def error(factor):
        at = weights._replace(
            encoder=weights.encoder * factor, encoder_bias=weights.encoder_bias * factor, theta=weights.theta * factor
        )
        codes, _ = codes_of(at, at.pre_activations(x), settings)
        residual, total, start = x - at.bias, 0.0, 0
        for stop in settings.nested_widths():
            residual = residual - codes[:, start:stop] @ at.dictionary[start:stop]
            total, start = total + float(residual.square().sum()), stop
        return total

    assert error(1.0) < min(error(0.8), error(1.25))
    codes, _ = codes_of(weights, weights.pre_activations(x), settings)
    assert float((codes > 0).sum(1).float().mean()) == pytest.approx(3, rel=0.1)  # k codes per row from the first step


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_first_point_of_the_curve_fits(architecture, init):
    # With unit encoder rows the first R2 of relu was about -C / d squared, and that of the others up to -22.
    random = np.random.default_rng(1)
    parts = [part + 0.5 * random.standard_normal(part.shape).astype(np.float32) for part in two_clouds()]
    curve = sae.train(*parts, setting(architecture=architecture, init=init, epochs=2), 0).curve
    assert curve[0]["r2"] > 0
    assert curve[-1]["r2"] > curve[0]["r2"]


def test_a_modality_of_one_row_starts_in_random_directions():
    image, text = two_clouds()
    weights = initial_weights(training_rows(image[:1], text, 1.0, "cpu"), setting(width=8), 0)
    assert torch.allclose(weights.dictionary.norm(dim=1), torch.ones(8), atol=1e-6)
    assert float((weights.dictionary @ weights.dictionary.T - torch.eye(8)).abs().max()) < 0.9
