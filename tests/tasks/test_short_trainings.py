"""A training whose R2 had not flattened is told to the user, with a name that tells the SAE from all others."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from seeds_case import SETTING, jobs_of, on_cpu, play

from tasks.children import Watch
from tasks.consensus import consensus
from tasks.flattened import named, warn_if_short
from tasks.frontier import frontier
from tasks.train import sae, train_together

FEW = "9 steps are too few to tell whether R2 had flattened"  # 3 epochs of 90 rows in batches of 32


def curve(slope: float) -> list[dict[str, float]]:
    return [{"step": i + 1, "epoch": (i + 1) / 10, "r2": slope * i} for i in range(50)]


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, logger="bridgescope")
    return caplog


def test_a_rising_r2_is_a_warning_and_a_flat_one_is_not(messages: pytest.LogCaptureFixture) -> None:
    name = named("own, main", width=24, k=3, seed=1)
    warn_if_short(name, curve(0.0004))
    assert messages.messages == []
    warn_if_short(name, curve(0.001))
    # Four fifths and two fifths of 50 points are 20 points apart.
    assert messages.messages == [
        "own, main, width 24, k 3, seed 1: R2 had not flattened: from 40 % to 80 % of the training it rose by 0.020; "
        "more than 5 epochs would raise it further"
    ]


def test_too_few_steps_to_tell_are_a_warning_and_no_training_is_none(messages: pytest.LogCaptureFixture) -> None:
    warn_if_short("it", curve(0.0)[:10])
    warn_if_short("it", [])
    assert messages.messages == []
    warn_if_short("it", curve(0.0)[:9])
    assert messages.messages == [f"it: {FEW}"]


def test_the_warning_of_each_seed_names_model_and_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: pytest.LogCaptureFixture
) -> None:
    seen = play(monkeypatch)
    jobs = [{**job, "label": "own, main"} for job in jobs_of(tmp_path, epochs=3)]
    sae.make(on_cpu(tmp_path), **jobs[0])
    assert messages.messages == [f"own, main, width 16, k 2, seed 0: {FEW}"]
    assert train_together(jobs, on_cpu(tmp_path)) == [None] * 3
    assert [sorted(seeds) for seeds, _ in seen["together"]] == [[1, 2]]
    told = {f"own, main, width 16, k 2, seed {seed}: {FEW}" for seed in (1, 2)}
    assert set(messages.messages[1:]) == told
    plain = {name: value for name, value in jobs[0].items() if name != "label"}
    assert sae.address(**plain).path == sae.address(**jobs[0]).path  # a name of the study moves no dataset


def test_a_frozen_sae_is_judged_by_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: pytest.LogCaptureFixture
) -> None:
    play(monkeypatch)
    (job,) = jobs_of(tmp_path, range(1), epochs=3, frozen="frozen_encoder")
    sae.make(on_cpu(tmp_path), **job, label="own, main-frozen_encoder")
    assert messages.messages == []


def test_saes_of_the_frontier_and_the_encoder_of_the_consensus_are_judged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: pytest.LogCaptureFixture
) -> None:
    play(monkeypatch)

    def here(body: Any, job: Any, label: str) -> Any:
        return body(job, Watch(os.getppid()))

    monkeypatch.setattr("tasks.frontier.in_process", here)
    monkeypatch.setattr("tasks.consensus.in_process", here)
    (job,) = jobs_of(tmp_path, range(1), epochs=3)
    shards = {name: job[name] for name in ("pairs", "embeddings", "heldout")}
    setting = {name: value for name, value in SETTING.items() if name not in ("architecture", "k")} | {"epochs": 3}
    frontier.make(on_cpu(tmp_path), **shards, setting=setting, methods=["topk", "pca"], k=[2, 1], label="own")
    assert messages.messages == [f"own, frontier, topk, width 16, k {k}: {FEW}" for k in (1, 2)]
    messages.clear()
    seed = sae.make(on_cpu(tmp_path), **job)
    messages.clear()
    # Two seeds that are equal share all of their atoms.
    consensus.make(on_cpu(tmp_path), saes=[seed, seed], **shards, label="own, main-consensus")
    assert messages.messages == [f"own, main-consensus: {FEW}"]
