"""Noise on the rows of the steps: its size, that it belongs to a seed and a step, and what it is for."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import sae
from sae.checkpoint import Checkpoint
from sae.rows import training_rows
from sae.settings import Settings
from sae.trainer import Trainer

DATA = [np.random.default_rng(seed).standard_normal((400, 24)).astype(np.float32) + 1 for seed in range(2)]


def setting(**changes) -> Settings:
    defaults = {"width": 32, "k": 4, "epochs": 3, "batch_size": 100, "learning_rate": 3e-3, "noise": 0.25}
    return Settings(**(defaults | changes))


def trainer(seed=0, **changes) -> Trainer:
    return Trainer(training_rows(*DATA, 0.5, "cpu"), setting(**changes), seed)


@pytest.mark.parametrize("centring", [False, True])
def test_noise_has_its_share_of_the_variance_in_every_dimension(centring):
    own = trainer(centring=centring)
    x_BD = own.rows.take(np.arange(800))
    noise_BD = own.noisy(x_BD, 1) - x_BD
    assert not own.rows.take(np.arange(800)).sub(x_BD).any()  # the rows themselves stay as they are
    variance = own.rows.mixture().variance
    assert float(noise_BD.square().sum(1).mean()) == pytest.approx(0.25**2 * variance, rel=0.03)
    assert noise_BD.mean(0).abs().max() < 0.01
    assert noise_BD.std(0).numpy() == pytest.approx(0.25 * np.sqrt(variance / 24), rel=0.15)
    whole = trainer(centring=False, noise=0.0).spread
    assert own.spread == pytest.approx(whole + 0.25**2 * variance, rel=1e-6)  # R2 of the curve refers to it


def test_noise_belongs_to_a_seed_and_a_step():
    own, x_BD = trainer(), torch.zeros(5, 24)
    assert torch.equal(own.noisy(x_BD, 7), trainer().noisy(x_BD, 7))
    others = [own.noisy(x_BD, 8), trainer(seed=1).noisy(x_BD, 7)]
    assert not any(np.allclose(own.noisy(x_BD, 7), other, atol=1e-3) for other in others)
    assert trainer(noise=0.0).noisy(x_BD, 7) is x_BD


@pytest.mark.parametrize("architecture", ["batchtopk", "relu"])  # the sparse step, and autograd
def test_a_training_that_is_resumed_has_the_same_noise(tmp_path, architecture):
    def stop(step, steps, stats):
        if step == 13:
            raise KeyboardInterrupt

    settings = setting(architecture=architecture)
    whole = sae.train(*DATA, settings, 0).sae
    with pytest.raises(KeyboardInterrupt):
        sae.train(*DATA, settings, 0, on_step=stop, checkpoint=Checkpoint(tmp_path, steps=5))
    resumed = sae.train(*DATA, settings, 0, checkpoint=Checkpoint(tmp_path, steps=5)).sae
    assert resumed.difference(whole) is None
    assert sae.train(*DATA, setting(architecture=architecture, noise=0.0), 0).sae.difference(whole) is not None


def planted(rows, seed):
    """Rows of 96 sparse atoms in 24 dimensions."""
    atoms = np.random.default_rng(5).standard_normal((96, 24))
    draw = np.random.default_rng(seed)
    codes = (draw.random((rows, 96)) < 0.04) * (0.5 + draw.random((rows, 96)))
    return (codes @ atoms + 0.1 * draw.standard_normal((rows, 24))).astype(np.float32)


def test_noise_raises_r2_on_new_rows_where_few_rows_are_drawn_often():
    data, new = [planted(200, seed) for seed in (1, 2)], planted(4000, 3)

    def r2(noise):
        settings = Settings(width=96, k=4, epochs=70, batch_size=32, learning_rate=3e-3, noise=noise)
        net = sae.train(*data, settings, 0).sae
        x = new / np.linalg.norm(new, axis=1, keepdims=True)
        error = net.decode(net.encode(new)).numpy() - x
        return 1 - (error**2).sum() / ((x - x.mean(0)) ** 2).sum()

    assert r2("auto") > r2(0.0) + 0.02
    assert sae.train(*data, Settings(width=96, k=4, epochs=70, noise="auto"), 0).sae.config.noise == 0.4


@pytest.mark.parametrize("noise", [-0.1, 1.1, float("nan"), "much"])
def test_noise_has_limits(noise):
    with pytest.raises(ValidationError, match="noise"):
        setting(noise=noise)
