"""The penalty is steered so that L0 stays near k for the whole training, on data with a gap between the modalities."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import sae
from sae.architectures import ARCHITECTURES
from sae.penalty import ANSWER, DRIFT, LARGEST_DRIFT, kernel_width, steered
from sae.rows import TrainingRows
from sae.settings import Settings
from sae.step import Weights
from sae.trainer import Trainer


def vectors(pairs=600, dim=24, atoms=60, seed=0):
    """Image and text rows: sums of about 5 of 60 atoms with a long tail of rates, noise, a common cone and a gap."""
    random = np.random.default_rng(seed)
    directions = random.standard_normal((atoms, dim)) / math.sqrt(dim)
    rate = 1 / (np.arange(atoms) + 3)
    rate *= 5 / rate.sum()
    means, cone = random.standard_normal((2, dim)) / math.sqrt(dim), random.standard_normal(dim) / math.sqrt(dim)
    rows = []
    for modality in range(2):
        codes = (random.random((pairs, atoms)) < rate) * random.lognormal(0, 0.5, (pairs, atoms))
        noise = 0.25 * random.standard_normal((pairs, dim)) / math.sqrt(dim)
        rows.append((codes @ directions / 2 + noise + 0.5 * cone + 1.5 * means[modality]).astype(np.float32))
    return rows


def test_the_penalty_of_worked_examples():
    # At L0 = k nothing changes. At L0 = k sqrt(e) the error is 1/2, within the limit: the penalty answers with
    # exp(ANSWER / 2), and DRIFT / 2 stays. At L0 = 100 k the error counts as 1.
    zero = torch.zeros(())
    penalty, drift = steered(0.01, zero, torch.tensor(8.0), 8)
    assert (float(penalty), float(drift)) == (pytest.approx(0.01), 0)
    penalty, drift = steered(0.01, zero, torch.tensor(8 * math.exp(0.5)), 8)
    assert float(drift) == pytest.approx(DRIFT / 2)
    assert float(penalty) == pytest.approx(0.01 * math.exp(ANSWER / 2 + DRIFT / 2))
    penalty, drift = steered(0.01, zero, torch.tensor(800.0), 8)
    assert float(drift) == pytest.approx(DRIFT)
    assert float(penalty) == pytest.approx(0.01 * math.exp(ANSWER + DRIFT))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=80), st.integers(1, 64), st.floats(1e-6, 1))
def test_the_penalty_is_bounded_whatever_l0_does(counts, k, first):
    drift = torch.zeros(())
    for count in counts * 10:
        penalty, drift = steered(first, drift, torch.tensor(count), k)
        factor = math.log(float(penalty) / first)
        assert abs(factor) <= LARGEST_DRIFT + ANSWER + 1e-4


def l0_of_steps(monkeypatch, settings):
    """L0 of every step of a training."""
    counts, step = [], Trainer.step_

    def spy(self, x_BD, learning_rate):
        sums = step(self, x_BD, learning_rate)
        counts.append(float(sums[2]) / len(x_BD))
        return sums

    monkeypatch.setattr(Trainer, "step_", spy)
    sae.train(*vectors(), settings, seed=0)
    return np.array(counts)


def test_l0_of_jumprelu_ends_at_k_and_never_swings_far(monkeypatch):
    settings = Settings(architecture="jumprelu", width=64, k=5, epochs=20, batch_size=40, learning_rate=3e-3)
    counts = l0_of_steps(monkeypatch, settings)
    smooth = np.convolve(counts, np.ones(10) / 10, "valid")
    assert smooth.min() > 5 / 1.6
    assert smooth.max() < 5 * 1.6
    assert counts[-60:].mean() == pytest.approx(5, rel=0.1)


def test_the_width_of_the_kernel_is_the_spread_of_weighted_rows():
    # One concept along (1, 0) and one along (0, 1). The one image is (1, 0), the two texts are (0, 1) and (-1, 0). With
    # an image share of 1/2 they weigh 1/2, 1/4 and 1/4. Concept 0 has the values 1, 0, -1: mean 1/4, mean square 3/4,
    # variance 11/16. Concept 1 has 0, 1, 0: mean 1/4, mean square 1/4, variance 3/16. The root of their mean is
    # sqrt(7/16), and a bandwidth of 2 doubles it.
    rows = TrainingRows((torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1], [-1, 0]])), 0.5)
    weights = Weights(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), torch.zeros(2))
    assert float(kernel_width(weights, rows, 2.0)) == pytest.approx(2 * math.sqrt(7 / 16))


def test_the_kernel_is_as_wide_as_the_setting_says():
    rows = TrainingRows(tuple(torch.from_numpy(part) for part in vectors()), 0.5)
    widths = [
        float(Trainer(rows, Settings(architecture="jumprelu", width=32, k=4, bandwidth=b), 0).weights.bandwidth)
        for b in (1.0, 3.0)
    ]
    assert widths[1] == pytest.approx(3 * widths[0])
    assert widths[0] > 0


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "jumprelu"])
def test_only_jumprelu_has_a_kernel(architecture):
    with pytest.raises(ValidationError, match=f"bandwidth is for jumprelu; {architecture} learns no thresholds"):
        Settings(architecture=architecture, width=8, k=2, bandwidth=0.5)


@pytest.mark.parametrize("value", [0, -1, math.nan, 101])
def test_the_kernel_has_a_width(value):
    with pytest.raises(ValidationError, match="bandwidth"):
        Settings(architecture="jumprelu", width=8, k=2, bandwidth=value)
