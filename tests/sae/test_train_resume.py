"""Checkpoints: a training that is killed and resumed gives the same bytes as an uninterrupted training."""

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import sae
from sae.checkpoint import FILE, Checkpoint, CheckpointError
from sae.trainer import Trainer
from sae.training import TrainingDiverged

KILLED_AT = 41
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import numpy as np, torch
import sae
torch.set_num_threads(1)
folder = Path(sys.argv[1])
def die(step, steps, stats):
    if step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
image, text = np.load(folder / "image.npy"), np.load(folder / "text.npy")
settings, kept = sae.Settings(**json.loads(sys.argv[2])), sae.Checkpoint(folder, steps=9)
sae.train(image, text, settings, 7, on_step=die, checkpoint=kept)
"""
SETTINGS = {
    "sparse": sae.Settings(width=40, k=3, epochs=8, batch_size=32, learning_rate=5e-3, dead_after_epochs=0.1),
    "dense": sae.Settings(width=40, k=3, epochs=8, batch_size=32, learning_rate=5e-3, architecture="jumprelu"),
    "centred": sae.Settings(
        width=40, k=3, epochs=8, batch_size=32, learning_rate=5e-3, architecture="matryoshka", centring=True
    ),
}


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    return random.standard_normal((150, 12)).astype(np.float32), random.standard_normal((250, 12)).astype(np.float16)


def without_times(curve):
    return [{name: value for name, value in point.items() if name != "rows_per_second"} for point in curve]


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(data, tmp_path, name):
    settings = SETTINGS[name]
    for part, rows in zip(("image", "text"), data, strict=True):
        np.save(tmp_path / f"{part}.npy", rows)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), settings.model_dump_json(), str(KILLED_AT)]
    environment = {**os.environ, "PYTHONPATH": str(Path(sae.__file__).parents[1])}
    died = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert (tmp_path / FILE).exists()
    steps = []
    resumed = sae.train(
        *data, settings, 7, on_step=lambda step, *_: steps.append(step), checkpoint=Checkpoint(tmp_path, steps=9)
    )
    assert steps[0] == 37  # the last checkpoint before the kill was written after step 36
    assert not (tmp_path / FILE).exists()
    whole = sae.train(*data, settings, 7)
    resumed.sae.save(tmp_path / "resumed")
    whole.sae.save(tmp_path / "whole")
    for file in ("sae.safetensors", "config.json"):
        assert (tmp_path / "resumed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert without_times(resumed.curve) == without_times(whole.curve)


def test_keeping_checkpoints_changes_nothing(data, tmp_path):
    settings = SETTINGS["sparse"].model_copy(update={"epochs": 2})
    plain = sae.train(*data, settings, 0).sae.dictionary
    kept = sae.train(*data, settings, 0, checkpoint=Checkpoint(tmp_path, steps=1)).sae.dictionary
    assert torch.equal(plain, kept)
    assert list(tmp_path.iterdir()) == []


def stop_at(last):
    def on_step(step, *_):
        if step == last:
            raise KeyboardInterrupt

    return on_step


@pytest.mark.parametrize("architecture", ["batchtopk", "jumprelu"])
def test_a_training_resumed_after_restarts_equals_an_uninterrupted_one(data, tmp_path, architecture, monkeypatch):
    # The restarted concepts count their own steps, and the checkpoint must keep these counts.
    settings = SETTINGS["sparse"].model_copy(
        update={"architecture": architecture, "width": 300, "k": 2, "epochs": 16, "dead_after_epochs": 0.5}
    )
    restarts, good = [], Trainer.restart_dead_

    def counted(trainer, x_BD):
        good(trainer, x_BD)
        restarts.append((trainer.t, len(trainer.restarted)))

    monkeypatch.setattr(Trainer, "restart_dead_", counted)
    whole = sae.train(*data, settings, 0).sae
    assert restarts[0][0] < 140
    assert restarts[0][1] > 0
    with pytest.raises(KeyboardInterrupt):
        sae.train(*data, settings, 0, on_step=stop_at(145), checkpoint=Checkpoint(tmp_path, steps=10))
    resumed = sae.train(*data, settings, 0, checkpoint=Checkpoint(tmp_path)).sae
    assert resumed.difference(whole) is None


def test_a_checkpoint_of_another_training_is_refused(data, tmp_path):
    settings = SETTINGS["sparse"]
    with pytest.raises(KeyboardInterrupt):
        sae.train(*data, settings, 0, on_step=stop_at(20), checkpoint=Checkpoint(tmp_path, steps=10))
    other = settings.model_copy(update={"k": 2})
    with pytest.raises(CheckpointError, match="of a training with another k, seed; delete it") as caught:
        sae.train(*data, other, 1, checkpoint=Checkpoint(tmp_path))
    assert caught.value.exit_code == 2


def test_a_broken_checkpoint_is_named(data, tmp_path):
    (tmp_path / FILE).write_bytes(b"not this")
    with pytest.raises(CheckpointError, match=f"{FILE}: not a readable checkpoint"):
        sae.train(*data, SETTINGS["sparse"], 0, checkpoint=Checkpoint(tmp_path))


@pytest.mark.parametrize("name", ["sparse", "dense"])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(data, tmp_path, monkeypatch, name):
    module = importlib.import_module("sae.training")
    good = module.learning_rate_at
    monkeypatch.setattr(module, "learning_rate_at", lambda step, *rest: good(step, *rest) if step < 33 else 1e38)
    with pytest.raises(TrainingDiverged, match=r"at step 3[5-7] of 104"):
        sae.train(*data, SETTINGS[name], 0, checkpoint=Checkpoint(tmp_path, steps=8))
    tensors = load_file(tmp_path / FILE)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point())
    monkeypatch.undo()
    resumed = sae.train(*data, SETTINGS[name], 0, checkpoint=Checkpoint(tmp_path, steps=8)).sae.dictionary
    assert torch.equal(resumed, sae.train(*data, SETTINGS[name], 0).sae.dictionary)


@pytest.mark.parametrize("lost", ["born", "drift", "any_dead"])
def test_a_checkpoint_of_a_version_that_kept_less_is_refused(data, tmp_path, lost):
    with pytest.raises(KeyboardInterrupt):
        sae.train(*data, SETTINGS["sparse"], 0, on_step=stop_at(20), checkpoint=Checkpoint(tmp_path, steps=10))
    kept = Checkpoint(tmp_path)
    with safe_open(kept.path, framework="pt") as file:
        entries = json.loads(file.metadata()["state"])
    tensors = load_file(kept.path)
    assert (tensors if lost in tensors else entries).pop(lost, None) is not None
    kept.write(tensors, entries)
    with pytest.raises(CheckpointError, match=f"{FILE}: lacks {lost}, as those of an older version") as caught:
        sae.train(*data, SETTINGS["sparse"], 0, checkpoint=Checkpoint(tmp_path))
    assert caught.value.exit_code == 2


def test_a_file_that_a_kill_left_while_it_was_written_goes_too(data, tmp_path):
    (tmp_path / f"{FILE}.partial").write_bytes(b"half a checkpoint")
    sae.train(*data, SETTINGS["sparse"].model_copy(update={"epochs": 1}), 0, checkpoint=Checkpoint(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_with_settings_that_were_not_set_goes_on(data, tmp_path):
    """Checkpoints of version 0.1 also contain the settings that are None. Newer checkpoints leave them out."""
    settings = SETTINGS["sparse"]
    with pytest.raises(KeyboardInterrupt):
        sae.train(*data, settings, 0, on_step=stop_at(20), checkpoint=Checkpoint(tmp_path, steps=10))
    kept = Checkpoint(tmp_path)
    with safe_open(kept.path, framework="pt") as file:
        entries = json.loads(file.metadata()["state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    entries["training"] |= {"k_aux": None}
    kept.write(tensors, entries)
    whole = sae.train(*data, settings, 0).sae
    resumed = sae.train(*data, settings, 0, checkpoint=Checkpoint(tmp_path)).sae
    assert resumed.dictionary.equal(whole.dictionary)
