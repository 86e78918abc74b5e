"""The estimated memory of a training on a GPU, beside a count of all tensors on a played device."""

import numpy as np
import pytest
from fake_cuda import fake_cuda

import sae
import sae.memory as estimate
from sae import pursuit
from sae.architectures import ARCHITECTURES
from sae.budget import resolved
from sae.finish import CALIBRATED
from sae.initial import SAMPLE
from sae.memory import BESIDES, fitting, memory
from sae.rows import take_each, training_rows
from sae.stack import Stack
from sae.trainer import AT_ONCE, ROWS_EACH, Trainer


def test_the_estimate_worked_by_hand():
    settings = resolved(sae.Settings(width=8192, k=20, epochs=2, batch_size=1024, learning_rate=1e-3), 10**6)
    found = memory(settings, 10**6, 768)
    assert found.rows == 10**6 * 768 * 2
    assert found.weights == 4 * 2 * 8192 * 768 * 4  # 201 MB
    # A restart: 8 tensors [1024, 8192], 3 x 4 rows for each of 4,096 concepts, and their cosines three times: 621 MB. A
    # step has the 8 tensors and six times both matrices, 570 MB.
    assert found.work == 4 * (8 * 1024 * 8192 + 3 * 4 * 4096 * 768 + 3 * 4096**2)
    assert found.total == found.rows + found.weights + found.work + BESIDES
    assert found.told().startswith("about 3.4 GB (1.5 rows, 0.2 weights with gradients and moments, 0.6 a step")


def test_saes_that_are_trained_together_share_the_rows():
    settings = resolved(sae.Settings(width=8192, k=20, epochs=2, batch_size=1024, learning_rate=1e-3), 10**6)
    one, three = (memory(settings, 10**6, 768, together=count) for count in (1, 3))
    assert (three.rows, three.weights) == (one.rows, 3 * one.weights)
    assert three.work == 3 * 4 * (8 * 1024 * 8192 + 6 * 2 * 8192 * 768)  # a step of three is more than a restart of one
    assert fitting(settings, 10**6, 768, 3, three.total) == 3
    assert fitting(settings, 10**6, 768, 3, three.total - 1) == 2
    assert fitting(settings, 10**6, 768, 3, one.total - 1) == 0


FAST = ("batchtopk", "jumprelu", "mp")
SLOW = [
    *((name, (512, 4096, 64)) for name in ARCHITECTURES if name not in FAST),
    *((name, (128, 2048, 512)) for name in ARCHITECTURES),
]


@pytest.fixture(autouse=True)
def _no_generator(monkeypatch):
    """torch makes no generator for a device that is played: the noise comes from its default one."""
    monkeypatch.setattr("sae.trainer.generator_of", lambda device, number: None)


@pytest.mark.parametrize(
    ("architecture", "size"),
    [*((name, (512, 4096, 64)) for name in FAST), *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)],
)
def test_no_training_takes_more_or_less_than_a_quarter(architecture, size):
    batch, width, dim = size
    data = [np.random.default_rng(0).standard_normal((1000, dim)).astype(np.float16) for _ in range(2)]
    settings = resolved(
        sae.Settings(
            architecture=architecture, width=width, k=8, epochs=2, batch_size=batch, learning_rate=1e-3, noise=0.1
        ),
        2000,
    )
    with fake_cuda() as device:
        trainer = Trainer(training_rows(*data, 0.5, "cuda"), settings, 0)
        x_BD = trainer.rows.take(np.arange(1000 - batch // 2, 1000 + batch // 2))
        trainer.any_dead = True
        trainer.step_(trainer.noisy(x_BD, 1), 1e-3)
        trainer.restart_dead_(x_BD)  # half of all concepts
        trainer.step_(x_BD, 1e-3)
        found = memory(settings, 2000, dim)
        assert device.peak <= found.total - BESIDES
        assert device.peak >= 0.25 * (found.total - BESIDES)  # half of the concepts were restarted, not all


@pytest.mark.parametrize(
    "architecture", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
def test_no_stack_takes_more_or_less_than_a_quarter(architecture):
    data = [np.random.default_rng(0).standard_normal((1000, 64)).astype(np.float16) for _ in range(2)]
    settings = resolved(
        sae.Settings(
            architecture=architecture, width=1024, k=8, epochs=2, batch_size=256, learning_rate=1e-3, noise=0.1
        ),
        2000,
    )
    with fake_cuda() as device:
        rows = training_rows(*data, 0.5, "cuda")
        stack = Stack([Trainer(rows, settings, seed) for seed in range(4)])
        for each in stack.trainers:
            each.any_dead = True
        stack.refresh_()
        x_SBD = take_each([rows] * 4, [np.arange(872, 1128)] * 4)
        stack.step_(stack.noisy(x_SBD, 1), 1e-3)
        stack.trainers[0].restart_dead_(x_SBD[0])
        stack.refresh_()
        stack.step_(x_SBD, 1e-3)
    found = memory(settings, 2000, 64, together=4)
    assert device.peak <= found.total - BESIDES
    assert device.peak >= 0.25 * (found.total - BESIDES)


@pytest.mark.parametrize(
    ("together", "batch", "width", "k", "dim"), [(1, 256, 16384, 64, 16), (2, 128, 8192, 64, 16), (3, 64, 256, 32, 256)]
)
def test_what_pursuit_alone_takes_is_counted(together, batch, width, k, dim):
    """Products of all atoms [C, C] are most of the first two steps, and the rounds' atoms [B, k, d] of the last."""
    data = [np.random.default_rng(0).standard_normal((500, dim)).astype(np.float16) for _ in range(2)]
    options = {"width": width, "k": k, "epochs": 2, "batch_size": batch, "learning_rate": 1e-3}
    settings = resolved(sae.Settings(architecture="mp", **options), 1000)
    with fake_cuda() as device:
        rows = training_rows(*data, 0.5, "cuda")
        trainers = [Trainer(rows, settings, seed) for seed in range(together)]
        for each in trainers:
            each.any_dead = True
        index = np.arange(500 - batch // 2, 500 + batch // 2)
        if together == 1:
            trainers[0].step_(rows.take(index), 1e-3)
        else:
            Stack(trainers).step_(take_each([rows] * together, [index] * together), 1e-3)
    found, own = memory(settings, 1000, dim, together=together), max(width**2, 4 * batch * k * dim)
    assert together * own * 4 <= device.peak <= found.total - BESIDES < 2 * device.peak


@pytest.mark.parametrize("decoder_bias", [True, False])
def test_the_start_on_many_rows_is_counted(decoder_bias):
    """Their median, or else the mean and the variance, take more than the weights of a small SAE and its steps."""
    data = [np.ones((12_000, 1024), np.float16) for _ in range(2)]
    options = {"width": 64, "k": 8, "epochs": 2, "batch_size": 64, "learning_rate": 1e-3}
    settings = resolved(sae.Settings(**options, decoder_bias=decoder_bias), 24_000)
    with fake_cuda() as device:
        Trainer(training_rows(*data, 0.5, "cuda"), settings, 0)
    found = memory(settings, 24_000, 1024)
    assert found.rows + 12_000 * 1024 * 8 < device.peak <= found.total - BESIDES
    assert device.peak >= (0.9 if decoder_bias else 0.25) * (found.total - BESIDES)


def test_the_estimate_has_the_sizes_of_what_it_counts():
    assert (estimate.MEDIAN, estimate.GRAM_WIDTH) == (SAMPLE, pursuit.GRAM_WIDTH)
    assert (estimate.RESTARTED, estimate.DRAWN, estimate.HELD) == (AT_ONCE, ROWS_EACH, CALIBRATED)
