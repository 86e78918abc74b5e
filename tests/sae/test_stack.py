"""SAEs that take their steps together are those of trainings alone, up to rounding. A stack takes fewer operations."""

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda
from torch.utils._python_dispatch import TorchDispatchMode

import sae
from sae.architectures import ARCHITECTURES
from sae.checkpoint import FILE, Checkpoint
from sae.rows import TrainingRows, take_each, training_rows
from sae.settings import Settings
from sae.stack import Stack, is_stacking_better
from sae.together import train_each
from sae.trainer import Trainer
from sae.training import Record, Trained, TrainingDiverged

DATA = [np.random.default_rng(seed).standard_normal((90, 12)).astype(np.float16) for seed in range(2)]
INDEX = np.arange(50, 114)
SEEDS = (0, 1, 2)


def setting(architecture="batchtopk", **changes) -> Settings:
    defaults = {"width": 30, "k": 3, "epochs": 4, "batch_size": 64, "learning_rate": 3e-3, "k_aux": 5}
    return Settings(architecture=architecture, **(defaults | changes))


@pytest.fixture
def _stacks(monkeypatch):
    """SAEs are stacked on the CPU too, where the numbers can be compared."""
    monkeypatch.setattr("sae.together.is_stacking_better", lambda settings, device: True)


def check_equal(together, alone):
    """Every tensor is equal up to the rounding of products."""
    for name in ("dictionary", "encoder", "encoder_bias", "bias", "threshold"):
        torch.testing.assert_close(getattr(together, name), getattr(alone, name), atol=1e-6, rtol=0)
    assert together.config == alone.config


@pytest.mark.usefixtures("_stacks")
@pytest.mark.parametrize(
    "changes",
    [
        *({"architecture": name} for name in ARCHITECTURES),
        {"centring": True, "calibration_share": 0.4},
        {"encoder_dtype": "bfloat16", "decoder_bias": False},
        {"frozen": "frozen_decoder"},
        {"frozen": "soft_frozen_decoder"},
        {"frozen": "frozen_encoder"},
        {"image_share": 0.3, "data": "unequal"},
        {"noise": 0.3},
        {"centring": True, "decoder_bias": False},
    ],
)
def test_an_sae_of_a_stack_is_that_of_a_training_alone(monkeypatch, changes):
    data = [DATA[0], DATA[1][:40]] if changes.pop("data", None) else DATA
    settings = setting(**changes)
    restarts = []
    monkeypatch.setattr("sae.training.SETTLED", 3)
    restart = Trainer.restart_dead_
    monkeypatch.setattr(Trainer, "restart_dead_", lambda self, x: (restarts.append(self.t), restart(self, x)))
    together = dict(train_each(*data, settings, SEEDS, "cpu"))
    restarted = len(restarts)
    assert list(together) == list(SEEDS)
    for seed in SEEDS:
        alone = sae.train(*data, settings, seed)
        check_equal(together[seed].sae, alone.sae)
        for point, own in zip(together[seed].curve, alone.curve, strict=True):
            assert point.pop("rows_per_second") > 0
            own.pop("rows_per_second")
            assert point == pytest.approx(own, rel=1e-4)
    assert len(restarts) == 2 * restarted
    assert not np.allclose(together[0].sae.dictionary, together[1].sae.dictionary, atol=0.1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_of_a_stack_is_the_steps_of_its_saes(architecture):
    """Also while one SAE has dead concepts and another has none, and after the restart of some."""
    settings = setting(architecture, auxk=0.5)
    alone, other = ([Trainer(training_rows(*DATA, 0.5, "cpu"), settings, seed, False) for seed in SEEDS] for _ in "ab")
    indices = [np.concatenate([np.arange(n, 40 + n), np.arange(90 + n, 114 + n)]) for n in range(3)]
    x_SBD = take_each([each.rows for each in alone], indices)
    for x_BD, index, each in zip(x_SBD, indices, alone, strict=True):
        torch.testing.assert_close(x_BD, each.rows.take(index), atol=0, rtol=0)
    stack = Stack(other)
    for step in range(6):
        if step == 2:
            for trainers in (alone, other):
                trainers[1].silent_C[:9] = 1e6
                trainers[1].any_dead = True
            stack.refresh_()
        if step == 4:
            for trainers in (alone, other):
                trainers[1].silent_C[:5] = 1e6
                trainers[1].restart_dead_(x_SBD[1])
            assert len(alone[1].restarted)
            stack.refresh_()
        sums = stack.step_(x_SBD, 1e-3)
        expected = torch.stack([each.step_(x_BD, 1e-3) for each, x_BD in zip(alone, x_SBD, strict=True)])
        torch.testing.assert_close(sums, expected, atol=1e-5, rtol=1e-5)
    for one, each in zip(other, alone, strict=True):
        (found, at), (wanted, _) = one.state(), each.state()
        assert at == {"t": 6, "any_dead": each.any_dead}
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], atol=1e-6, rtol=1e-4)


@pytest.mark.usefixtures("_stacks")
def test_a_stack_is_interrupted_and_resumed(tmp_path):
    """Checkpoints of one SAE may be older than those of another; then they go on apart."""
    settings = setting()

    def stop(step, steps, stats) -> None:
        if step == 5:
            raise KeyboardInterrupt

    def checkpoints(every):
        return [Checkpoint(tmp_path / str(seed), steps=every) for seed in SEEDS]

    for each in checkpoints(2):
        each.folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        list(train_each(*DATA, settings, SEEDS, "cpu", stop, checkpoints(2)))
    (tmp_path / "1" / FILE).unlink()
    steps = []
    outcomes = train_each(*DATA, settings, SEEDS, "cpu", lambda step, *_: steps.append(step), checkpoints(2))
    trained = {}
    for seed, outcome in outcomes:
        assert (tmp_path / str(seed) / FILE).exists()  # until the caller removes it
        trained[seed] = outcome
    assert steps == [*range(1, 13), *range(5, 13)]
    for seed in SEEDS:
        check_equal(trained[seed].sae, sae.train(*DATA, settings, seed).sae)
    for seed, outcome in train_each(*DATA, settings, SEEDS, "cpu", lambda *_: pytest.fail("a step"), checkpoints(2)):
        assert outcome.sae.difference(trained[seed].sae) is None
        assert outcome.curve == trained[seed].curve
        assert (tmp_path / str(seed) / FILE).exists()


@pytest.mark.usefixtures("_stacks")
def test_an_sae_that_diverges_changes_no_other(monkeypatch):
    settings = setting()
    step_ = Stack.step_

    def spoiled(self, x_SBD, rate):
        if self.trainers[0].t == 2:
            x_SBD = x_SBD.clone()
            x_SBD[1] = float("nan")
        return step_(self, x_SBD, rate)

    monkeypatch.setattr(Stack, "step_", spoiled)
    found = dict(train_each(*DATA, settings, SEEDS, "cpu"))
    assert isinstance(found[1], TrainingDiverged)
    assert "at step 3 of 12" in str(found[1])
    for seed in (0, 2):
        check_equal(found[seed].sae, sae.train(*DATA, settings, seed).sae)


@pytest.mark.usefixtures("_stacks")
def test_after_the_first_sae_diverged_the_others_write_no_more_checkpoints_than_before(tmp_path, monkeypatch):
    """Steps of 10 s, and a checkpoint each 40 s: after steps 4 and 8 of 12."""
    step_, write, clock, written = Stack.step_, Checkpoint.write, [0.0], []

    def spoiled(self, x_SBD, rate):
        clock[0] += 10
        sums = step_(self, x_SBD, rate)
        sums[0] = torch.nan
        return sums

    def counted(self, tensors, entries):
        written.append((self.folder.name, entries["t"]))
        write(self, tensors, entries)

    monkeypatch.setattr(Stack, "step_", spoiled)
    monkeypatch.setattr(Checkpoint, "write", counted)
    monkeypatch.setattr("sae.checkpoint.time", SimpleNamespace(monotonic=lambda: clock[0]))
    checkpoints = [Checkpoint(tmp_path / str(seed), seconds=40, last=0.0) for seed in SEEDS]
    for each in checkpoints:
        each.folder.mkdir()
    found = dict(train_each(*DATA, setting(), SEEDS, "cpu", checkpoints=checkpoints))
    assert [type(found[seed]) for seed in SEEDS] == [TrainingDiverged, Trained, Trained]
    assert [each for each in written if each[1] < 12] == [("1", 4), ("2", 4), ("1", 8), ("2", 8)]


@pytest.mark.usefixtures("_stacks")
@pytest.mark.parametrize(("at_once", "sizes"), [(None, [3]), (2, [2]), (1, [])])
def test_no_more_saes_are_stacked_than_fit(monkeypatch, at_once, sizes):
    seen = []
    begin = Stack.__init__
    monkeypatch.setattr(
        Stack, "__init__", lambda self, trainers: (seen.append(len(trainers)), begin(self, trainers))[1]
    )
    assert list(dict(train_each(*DATA, setting(), SEEDS, "cpu", at_once=at_once))) == list(SEEDS)
    assert seen == sizes


@pytest.mark.slow
@pytest.mark.usefixtures("_stacks")
def test_trainers_are_gone_before_those_of_other_saes_begin(monkeypatch):
    """They hold weights, gradients and moments."""
    trainers, alive = [], []
    begin = Trainer.__init__

    def begun(self, *arguments, **named):
        gc.collect()
        alive.append(sum(each() is not None for each in trainers))
        trainers.append(weakref.ref(self))
        begin(self, *arguments, **named)

    monkeypatch.setattr(Trainer, "__init__", begun)
    assert len(list(train_each(*DATA, setting(epochs=1), range(6), "cpu", at_once=2))) == 6
    assert alive == [0, 1, 0, 1, 0, 1]


def test_where_stacking_pays():
    cuda = torch.device("cuda")
    assert is_stacking_better(setting(), cuda)
    assert not is_stacking_better(setting(), torch.device("cpu"))
    assert not is_stacking_better(setting(width=1000), cuda)  # such a step gathers


class Counted(TorchDispatchMode):
    """Counts operations."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_of_eight_saes_has_about_as_many_operations_as_one(architecture):
    settings = setting(architecture, noise=0.1)
    trainers = [Trainer(training_rows(*DATA, 0.5, "cpu"), settings, seed, False) for seed in range(9)]
    with Counted() as one:
        trainers[8].step_(trainers[8].noisy(trainers[8].rows.take(INDEX), 1), 1e-3)
    stack = Stack(trainers[:8])
    with Counted() as eight:
        stack.step_(stack.noisy(take_each([each.rows for each in trainers[:8]], [INDEX] * 8), 1), 1e-3)
    assert eight.count < 2 * one.count, (one.count, eight.count)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stack_is_trained_on_the_device_and_no_step_waits(tmp_path, monkeypatch, architecture):
    settings = setting(architecture, epochs=2, dead_after_epochs=1.0, calibration_share=0.4, centring=True, noise=0.1)
    monkeypatch.setattr("sae.trainer.generator_of", lambda device, number: None)  # torch has none for a played device
    monkeypatch.setattr("sae.training.SETTLED", 3)
    restarts = []
    restart = Trainer.restart_dead_
    monkeypatch.setattr(Trainer, "restart_dead_", lambda self, x: (restarts.append(self.t), restart(self, x)))

    def without_waits(method):
        def called(*arguments):
            with device.no_waits():
                return method(*arguments)

        return called

    with fake_cuda() as device:
        for owner, name in ((Stack, "step_"), (Stack, "noisy"), (TrainingRows, "take"), (Record, "add")):
            monkeypatch.setattr(owner, name, without_waits(getattr(owner, name)))
        for name in ("take_each", "count_"):
            monkeypatch.setattr(f"sae.together.{name}", without_waits(getattr(sae.together, name)))
        checkpoints = [Checkpoint(tmp_path, steps=4), None]
        for seed, trained in train_each(*DATA, settings, SEEDS[:2], "cuda", checkpoints=checkpoints):
            assert trained.sae.config.seed == seed
            assert trained.sae.dictionary.device.type == "cuda"
            assert [point["step"] for point in trained.curve] == [1, 2, 3, 4, 5, 6]
    assert restarts == [3, 3]
