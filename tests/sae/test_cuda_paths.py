"""Training on CUDA without a GPU: devices and shapes under torch's FakeTensorMode, and no step waits for the device.

`fake_cuda` plays the device. The CPU's own paths have other tests; the numbers of these paths are tested on the CPU.
"""

import numpy as np
import pytest
import torch
from fake_cuda import backward, fake_cuda

import sae
from sae.architectures import ARCHITECTURES
from sae.calibration import calibrate_encoder
from sae.checkpoint import FILE, Checkpoint
from sae.gathered_step import is_gathering_better
from sae.rows import TrainingRows, training_rows
from sae.settings import Settings
from sae.step import forward
from sae.trainer import Trainer
from sae.training import Record

CUDA = torch.device("cuda")
DATA = [np.random.default_rng(seed).standard_normal((90, 12)).astype(np.float16) for seed in range(2)]
INDEX = np.arange(50, 114)
GATHERED = [name for name, row in ARCHITECTURES.items() if row.selection]
#: A restart reads the numbers of the dead concepts, of the rows that are drawn and of twins, and writes by them.
WAITS_OF_A_RESTART = 11


def setting(architecture, **changes) -> Settings:
    defaults = {
        "width": 40, "k": 3, "epochs": 2, "batch_size": 64, "learning_rate": 3e-3, "k_aux": 5, "noise": 0.1,
    }  # fmt: skip
    return Settings(architecture=architecture, **(defaults | changes))


@pytest.fixture(autouse=True)
def _no_generator(monkeypatch):
    """torch makes no generator for a device that is played: the noise comes from its default one."""
    monkeypatch.setattr("sae.trainer.generator_of", lambda device, number: None)


def start(settings) -> Trainer:
    return Trainer(training_rows(*DATA, settings.image_share, "cuda"), settings, 0)


def step_(device, trainer) -> torch.Tensor:
    """One step as `sae.train` takes it. Fails if the host waits for the device."""
    with device.no_waits():
        x_BD = trainer.rows.take(INDEX)
        sums = trainer.step_(trainer.noisy(x_BD, 1), 1e-3)
    assert (sums.device.type, sums.dtype, sums.shape) == ("cuda", torch.float64, (3,))
    return x_BD


def check_state(trainer, width) -> None:
    """Every tensor that a later step depends on has its shape and is on the device, but for the random stream."""
    tensors, _ = trainer.state()
    assert tensors.pop("draws").device.type == "cpu"
    if trainer.architecture.threshold != "learned":
        tensors.pop("bandwidth")  # a constant that nothing reads
    assert {tensor.device.type for tensor in tensors.values()} == {"cuda"}
    shapes = {"dictionary": (width, 12), "dictionary.first": (width, 12), "silent": (width,), "born": (width,)}
    assert {name: tuple(tensors[name].shape) for name in shapes} == shapes


@pytest.mark.parametrize(
    ("architecture", "encoder_dtype"), [*((name, "float32") for name in ARCHITECTURES), ("mp", "bfloat16")]
)
def test_no_dense_step_waits_for_the_device(architecture, encoder_dtype):
    with fake_cuda() as device:
        trainer = start(setting(architecture, encoder_dtype=encoder_dtype))
        assert trainer.sparse is None
        assert not trainer.gathers
        step_(device, trainer)
        trainer.any_dead = True
        x_BD = step_(device, trainer)
        before = len(device.waits)
        trainer.restart_dead_(x_BD)
        assert 0 < len(device.waits) - before <= WAITS_OF_A_RESTART
        assert len(trainer.restarted)
        step_(device, trainer)  # restarted concepts have their own corrections in Adam
        check_state(trainer, 40)


@pytest.mark.parametrize("architecture", GATHERED)
def test_no_gathered_step_waits_for_the_device(architecture):
    settings = setting(architecture, width=160, k=1, encoder_dtype="bfloat16", decoder_bias=architecture != "topk")
    assert is_gathering_better(settings, CUDA)
    with fake_cuda() as device:
        trainer = start(settings)
        assert trainer.gathers
        step_(device, trainer)
        x_BD = trainer.rows.take(INDEX)
        before = len(device.waits)
        trainer.restart_dead_(x_BD)  # from many drawn batches
        assert 0 < len(device.waits) - before <= WAITS_OF_A_RESTART
        step_(device, trainer)
        check_state(trainer, 160)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_training_is_calibrated_restarted_and_resumed_on_the_device(tmp_path, monkeypatch, architecture):
    """A whole training: only checks, restarts, points of the curve, checkpoints and the end wait for the device."""
    centring = architecture == "matryoshka"  # which every architecture has alike
    settings = setting(architecture, centring=centring, dead_after_epochs=1.0, calibration_share=0.4)
    restarts = []
    monkeypatch.setattr("sae.training.SETTLED", 3)
    restart = Trainer.restart_dead_
    monkeypatch.setattr(Trainer, "restart_dead_", lambda self, x: (restarts.append(self.t), restart(self, x)))
    with fake_cuda() as device:
        for owner, name in ((Trainer, "step_"), (Trainer, "noisy"), (TrainingRows, "take"), (Record, "add")):
            monkeypatch.setattr(owner, name, without_waits(device, getattr(owner, name)))

        def stop(step, steps, stats) -> None:
            if step == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sae.train(*DATA, settings, 0, "cuda", stop, Checkpoint(tmp_path, steps=4))
        assert (tmp_path / FILE).exists()
        assert restarts == [3]
        trained = sae.train(*DATA, settings, 0, "cuda", checkpoint=Checkpoint(tmp_path, steps=4))
        assert not (tmp_path / FILE).exists()
        assert [point["step"] for point in trained.curve] == [1, 2, 3, 4, 5, 6]
        net = trained.sae
        assert net.dictionary.device.type == "cuda"
        learned = ARCHITECTURES[architecture].threshold == "learned"
        assert net.threshold.shape == ((40,) if learned else ())
        assert net.threshold.device.type == "cuda"
        codes = net.encode(DATA[0], "image")
        assert (codes.device.type, codes.shape) == ("cuda", (90, 40))
        assert net.decode(codes, "image").shape == (90, 12)
        net.save(tmp_path)
    assert torch.isfinite(torch.tensor([point["r2"] for point in trained.curve])).all()


@pytest.mark.parametrize("kept", [-1, 10**6])  # the place of the quantile, and more codes than there are
def test_a_threshold_is_calibrated_on_the_device(kept):
    with fake_cuda() as device:
        device.numbers = {**device.numbers, torch.int64: kept}
        rows = training_rows(*DATA, 0.5, "cuda")
        encoder_CD, shift_C = torch.zeros(40, 12, device="cuda"), torch.zeros(40, device="cuda")
        threshold = calibrate_encoder(encoder_CD, shift_C, rows.weighted, 3)
        assert (threshold.device.type, threshold.dtype, threshold.shape) == ("cuda", torch.float32, ())


def without_waits(device, method):
    def called(*arguments):
        with device.no_waits():
            return method(*arguments)

    return called


@pytest.mark.parametrize(
    ("waits", "says"),
    [
        (lambda x, cpu: float(x.sum()), "_local_scalar_dense"),
        (lambda x, cpu: bool((x > 0).any()), "_local_scalar_dense"),
        (lambda x, cpu: x.sum().item(), "_local_scalar_dense"),
        (lambda x, cpu: x.cpu(), "copy from cuda to cpu"),
        (lambda x, cpu: cpu.copy_(x), "copy from cuda to cpu"),
        (lambda x, cpu: cpu.to("cuda"), "copy from cpu to cuda"),
        (lambda x, cpu: cpu.to("cuda", non_blocking=True), "copy from cpu to cuda"),
        (lambda x, cpu: cpu.pin_memory().to("cuda"), "copy from cpu to cuda"),
        (lambda x, cpu: x.copy_(cpu), "copy from cpu to cuda"),
        (lambda x, cpu: torch.tensor(1.0, device="cuda"), "copy from cpu to cuda"),
        (lambda x, cpu: (x > 0).nonzero(), "nonzero"),
        (lambda x, cpu: x[x > 0], "indexing by a mask"),
        (lambda x, cpu: x[torch.tensor([0, 2])], "indexing by a tensor on the CPU"),
    ],
)
def test_what_the_played_device_counts_as_a_wait(waits, says):
    with fake_cuda() as device:
        x, cpu = torch.ones(3, 4, device="cuda"), torch.ones(3, 4)
        with pytest.raises(AssertionError, match=says), device.no_waits():
            waits(x, cpu)


def test_what_the_played_device_does_not_count():
    with fake_cuda() as device:
        x, cpu = torch.ones(3, 4, device="cuda"), torch.ones(3, 4)
        with device.no_waits():
            x[torch.tensor([0, 2]).pin_memory().to("cuda", non_blocking=True)] += 1
            x = torch.where(x > 0, 0.0, x.masked_fill(x > 1, 2.0)).topk(2).values
            assert float(cpu.sum()) == 12
        with pytest.raises(Exception, match="device"):  # FakeTensorMode refuses two devices in one operation
            x + cpu[:, :2]


def test_gradients_of_the_played_device_are_those_of_torch():
    """The nodes' formulas are called as torch's engine calls them: the same gradients, on the CPU."""
    settings = setting("jumprelu")
    rows = training_rows(*DATA, 0.5, "cpu")
    both = [Trainer(rows, settings, 0, sparse=False) for _ in range(2)]
    x_BD = rows.take(INDEX)
    dead = torch.arange(40) % 3 == 0
    losses = [forward(x_BD, each.weights, settings, each.variance, each.penalty, dead).loss for each in both]
    losses[0].backward()
    backward(losses[1])
    for name, weight in both[0].learned.items():
        torch.testing.assert_close(both[1].learned[name].grad, weight.grad)
