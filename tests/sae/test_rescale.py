"""Rescaled codes reconstruct better and fire on the same rows; only ReLU, whose penalty shrinks codes, has them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import sae
from sae.rescale import shrinkage_factors
from sae.settings import Settings


def once(x, weight):
    return lambda stride: [(x, weight)]


def error(x, weight, encoder, shift, dictionary, bias, factor):
    codes = torch.addmm(shift, x, encoder.T).relu() * factor
    return float(weight @ (x - bias - codes @ dictionary).double().square().sum(1))


def test_factors_of_worked_example():
    # The atoms are the axes, and the encoder is half of them: codes are half of what the rows need. Concept 0 fires on
    # row 0 with 1/2 (residual 1/2), concept 1 on row 1 with 1/2. So both factors are 2. Concept 2 never fires.
    x, weight = torch.eye(3)[:2], torch.tensor([0.5, 0.5], dtype=torch.float64)
    factor = shrinkage_factors(torch.eye(3) / 2, torch.zeros(3), torch.eye(3), torch.zeros(3), once(x, weight))
    assert factor.tolist() == [2, 2, 1]


def test_rows_weigh_as_in_the_mixture():
    # Concept 0 fires with 1 on both rows, which need 2 and 4 along its atom, and the second weighs three times as much:
    # the factor is (1/4) 2 + (3/4) 4 = 3.5.
    x, weight = torch.tensor([[2.0, 0.5], [4.0, 0.5]]), torch.tensor([0.25, 0.75], dtype=torch.float64)
    encoder, dictionary = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    factor = shrinkage_factors(encoder, torch.zeros(1), dictionary, torch.zeros(2), once(x, weight))
    assert float(factor) == pytest.approx(3.5, rel=1e-4)


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_the_error_never_rises(seed):
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(50, 8, generator=draws)
    dictionary = torch.nn.functional.normalize(torch.randn(20, 8, generator=draws), dim=1)
    encoder, shift = 0.3 * dictionary, -0.2 * torch.rand(20, generator=draws)
    weight = torch.rand(50, generator=draws, dtype=torch.float64)
    weight, bias = weight / weight.sum(), 0.1 * torch.randn(8, generator=draws)
    factor = shrinkage_factors(encoder, shift, dictionary, bias, once(x, weight))
    assert float(factor.min()) > 0
    arguments = x, weight, encoder, shift, dictionary, bias
    assert error(*arguments, factor) <= error(*arguments, torch.ones(20)) * (1 + 1e-6)


def planted(rows, seed):
    atoms = np.random.default_rng(9).standard_normal((30, 16))
    draw = np.random.default_rng(seed)
    return [
        (((draw.random((rows, 30)) < 0.1) * (0.5 + draw.random((rows, 30)))) @ atoms
         + 0.2 * draw.standard_normal((rows, 16))).astype(np.float32)
        for _ in range(2)
    ]  # fmt: skip


def figures(net, rows):
    """R2 about the mean of the rows, and L0."""
    x = torch.nn.functional.normalize(torch.from_numpy(np.concatenate(rows)), dim=1)
    codes = net.encode(x)
    left = (x - net.decode(codes)).square().sum() / (x - x.mean(0)).square().sum()
    return 1 - float(left), float((codes > 0).sum(1).float().mean())


def test_a_rescaled_relu_explains_more_with_the_same_codes():
    trained = [
        sae.train(
            *planted(600, 1),
            Settings(architecture="relu", width=48, k=4, epochs=15, batch_size=60, learning_rate=5e-3, rescale=rescale),
            seed=0,
        ).sae
        for rescale in (False, True)
    ]
    new = planted(2000, 2)
    plain, rescaled = (figures(net, new) for net in trained)
    assert rescaled[0] > plain[0] + 0.02
    assert rescaled[1] == pytest.approx(plain[1], rel=1e-3)
    assert torch.equal(trained[0].dictionary, trained[1].dictionary)
    assert trained[0].config.model_dump()["rescale"] is False
    assert "rescale" not in trained[1].config.model_dump()


@pytest.mark.parametrize("architecture", ["batchtopk", "topk", "jumprelu", "matryoshka"])
def test_only_relu_is_rescaled(architecture):
    with pytest.raises(ValidationError, match=f"rescale is for relu; {architecture} has no penalty that shrinks"):
        Settings(architecture=architecture, width=8, k=2, rescale=False)
