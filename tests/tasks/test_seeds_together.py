"""On a GPU the seeds of a setting are trained together, in one process. A CPU plays the GPU here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from seeds_case import SETTING, jobs_of, on_cpu, play

from sae import SAE
from sae.stack import Stack
from sae.trainer import Trainer
from storage.dataset import Dataset, manifest_of
from tasks import train
from tasks.children import ChildFailed, ChildLost, Watch, in_process
from tasks.fit import FitEach, fit_each, freed_afterwards
from tasks.stage import Runtime
from tasks.train import sae, shares, train_together


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What `play` returns."""
    return play(monkeypatch)


def test_seeds_that_are_trained_together_are_those_trained_alone(tmp_path: Path, trained: dict[str, list[Any]]) -> None:
    store, alone = tmp_path / "together", tmp_path / "alone"
    jobs = jobs_of(store)
    whole = sae.make(on_cpu(store), **jobs[1])  # a seed that is complete stays as it is
    before = (store / whole.path / "dataset.json").stat().st_mtime_ns
    assert train_together(jobs, on_cpu(store)) == [None] * 3
    assert trained["alone"] == [1]
    assert [(sorted(seeds), at_once) for seeds, at_once in trained["together"]] == [([0, 2], 2)]
    assert (store / whole.path / "dataset.json").stat().st_mtime_ns == before
    for job, own in zip(jobs, jobs_of(alone), strict=True):
        found, expected = sae.lookup(store, **job), sae.make(on_cpu(alone), **own)
        assert found is not None
        assert (found.path, found.rows) == (expected.path, expected.rows)
        manifests = manifest_of(store, found), manifest_of(alone, expected)
        assert manifests[0]["files"].keys() == manifests[1]["files"].keys()
        nets = SAE.load(store / found.path), SAE.load(alone / expected.path)
        assert nets[0].config == nets[1].config
        torch.testing.assert_close(nets[0].dictionary, nets[1].dictionary, atol=1e-6, rtol=0)
        curve = pl.read_parquet(store / found.path / "training.parquet")
        assert curve["step"].to_list()[-1] == 4 * 3  # 90 rows in batches of 32
    assert not list((store / "saes").glob("*.partial"))


def test_settings_and_models_are_trained_apart(tmp_path: Path, trained: dict[str, list[Any]]) -> None:
    jobs = jobs_of(tmp_path)
    wide = [{**job, "setting": SETTING | {"width": 20}} for job in jobs[:2]]
    single = [{**jobs[0], "setting": SETTING | {"width": 12}}]
    assert train_together([*jobs[:2], *single, *wide], on_cpu(tmp_path)) == [None] * 5
    assert [sorted(seeds) for seeds, _ in trained["together"]] == [[0, 1], [0, 1]]
    assert trained["alone"] == [0]


def test_a_model_with_two_names_is_trained_once(tmp_path: Path, trained: dict[str, list[Any]]) -> None:
    jobs = jobs_of(tmp_path)
    assert train_together([*jobs, jobs[1]], on_cpu(tmp_path)) == [None] * 4
    assert [sorted(seeds) for seeds, _ in trained["together"]] == [[0, 1, 2]]


def test_a_seed_that_diverges_is_reported_and_not_trained_again(
    tmp_path: Path, trained: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    step_ = Stack.step_

    def spoiled(self: Stack, x_SBD: torch.Tensor, rate: float) -> torch.Tensor:
        sums = step_(self, x_SBD, rate)
        for number, each in enumerate(self.trainers):
            if each.seed == 1:
                sums[number] = torch.nan
        return sums

    monkeypatch.setattr(Stack, "step_", spoiled)
    jobs = jobs_of(tmp_path)
    errors = train_together(jobs, on_cpu(tmp_path))
    diverged = "TrainingDiverged: the loss is not a number at step 1 of 12: try a smaller learning_rate"
    assert [str(error) for error in errors] == ["None", f"seed 1: {diverged}", "None"]
    assert isinstance(errors[1], ChildFailed)
    assert trained["alone"] == []
    assert [sae.lookup(tmp_path, **job) is not None for job in jobs] == [True, False, True]


def test_seeds_whose_process_dies_are_trained_alone(
    tmp_path: Path, trained: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(job: FitEach) -> list[int | str]:
        raise ChildLost("seeds 0, 1, 2: its process died (exit code -9)")

    monkeypatch.setattr(train, "fit_each_in_process", lost)
    jobs = jobs_of(tmp_path)
    assert train_together(jobs, on_cpu(tmp_path)) == [None] * 3
    assert trained["alone"] == [0, 1, 2]
    assert all(sae.lookup(tmp_path, **job) is not None for job in jobs)


def steps_by_seed(patch: pytest.MonkeyPatch) -> Counter[int]:
    """Count the steps that are taken from now on, by seed."""
    steps: Counter[int] = Counter()
    stacked, alone = Stack.step_, Trainer.step_

    def stack_step(self: Stack, *arguments: Any) -> torch.Tensor:
        steps.update(each.seed for each in self.trainers)
        return stacked(self, *arguments)

    def step(self: Trainer, *arguments: Any) -> torch.Tensor:
        steps[self.seed] += 1
        return alone(self, *arguments)

    patch.setattr(Stack, "step_", stack_step)
    patch.setattr(Trainer, "step_", step)
    return steps


def check_same(jobs: list[dict[str, Any]], store: Path, other: Path) -> None:
    """The datasets of both stores are complete, and equal but for times."""
    for job in jobs:
        found = sae.lookup(store, **job)
        assert found is not None
        assert found == sae.lookup(other, **job)
        curves = [pl.read_parquet(at / found.path / "training.parquet") for at in (store, other)]
        assert curves[0].drop("rows_per_second").equals(curves[1].drop("rows_per_second"))


def killed_in_the_second(job: FitEach, watch: Watch) -> list[int | str]:
    """`fit_each` in a process that is killed at the fifth step of the second of its seeds, which have 12 steps."""
    steps = count(1)

    def deadly() -> None:
        if next(steps) == 12 + 5:
            os.kill(os.getpid(), signal.SIGKILL)

    return fit_each(job, deadly)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_seed_that_had_finished_when_the_process_died_takes_no_step_again(
    tmp_path: Path, trained: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def killed(job: FitEach) -> list[int | str]:
        seeds.extend(job.seeds)
        return list(in_process(killed_in_the_second, job, "seeds"))

    store, whole = tmp_path / "killed", tmp_path / "whole"
    jobs = jobs_of(store)
    assert train_together(jobs_of(whole), on_cpu(whole, saes_at_once=1)) == [None] * 3
    monkeypatch.setattr(train, "fit_each_in_process", killed)
    steps = steps_by_seed(monkeypatch)
    assert train_together(jobs, on_cpu(store)) == [None] * 3
    assert steps == {seeds[1]: 12, seeds[2]: 12}
    check_same(jobs, store, whole)
    assert not list((store / "saes").glob("*.partial"))


KILLED = """
import os, signal, sys
from pathlib import Path
import pytest
sys.path.insert(0, sys.argv[2])
from seeds_case import jobs_of, on_cpu, play
from sae.stack import Stack
from tasks.train import train_together
step_, steps = Stack.step_, []
def deadly(self, *arguments):
    steps.append([each.seed for each in self.trainers])
    if len(steps) == 12 + 5:  # the fifth step of the second two
        print(steps[0], steps[-1], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return step_(self, *arguments)
Stack.step_ = deadly
with pytest.MonkeyPatch.context() as patch:
    play(patch)
    train_together(jobs_of(Path(sys.argv[1]), range(4)), on_cpu(Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_a_study_that_was_killed_in_its_second_batch_does_not_train_the_first_again(
    tmp_path: Path, trained: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, whole = tmp_path / "killed", tmp_path / "whole"
    here = Path(__file__)
    environment = {**os.environ, "PYTHONPATH": str(here.parents[2])}
    command = [sys.executable, "-c", KILLED, str(store), str(here.parents[1])]
    died = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    first, second = (json.loads(part) for part in died.stdout.replace("] [", "]\n[").splitlines())
    assert sorted(first + second) == [0, 1, 2, 3]
    steps = steps_by_seed(monkeypatch)
    jobs = jobs_of(whole, range(4))
    assert train_together(jobs, on_cpu(store)) == [None] * 4
    assert steps == dict.fromkeys(second, 12)
    assert train_together(jobs, on_cpu(whole)) == [None] * 4
    check_same(jobs, store, whole)


@given(sizes=st.lists(st.integers(1, 6), max_size=5), gpus=st.integers(1, 8))
def test_shares_hold_every_job_once_and_one_setting_each(sizes: list[int], gpus: int) -> None:
    sets = [[10 * number + place for place in range(size)] for number, size in enumerate(sizes)]
    found = shares(sets, gpus)
    assert sorted(each for share in found for each in share) == [each for same in sets for each in same]
    assert all(share and len({each // 10 for each in share}) == 1 for share in found)
    if len(sets) >= gpus:
        assert found == sets
    elif min(sizes, default=0) * len(sizes) >= gpus:
        assert len(found) >= gpus


def whose(job: int, watch: Watch) -> int:
    return os.getpid()


@pytest.mark.slow
def test_each_gpu_trains_its_share_of_the_seeds_in_its_own_process(
    tmp_path: Path, trained: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_here, one, both = train.fit_each_in_process, threading.Lock(), threading.Barrier(2)
    seen: list[tuple[str, list[int], int]] = []

    def on_its_gpu(job: FitEach) -> list[int | str]:
        process = in_process(whose, 0, "whose")
        both.wait(60)  # two trainings run at the same time, or this fails
        with one:
            seen.append((job.of.device, sorted(job.seeds), process))
            return fit_here(job._replace(of=job.of._replace(device="cpu")))

    monkeypatch.setattr(train, "devices", lambda name: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(train, "fit_each_in_process", on_its_gpu)
    jobs = jobs_of(tmp_path, range(5))
    wide = [{**job, "setting": SETTING | {"width": 20}} for job in jobs]
    assert train_together(jobs, on_cpu(tmp_path)) == [None] * 5
    assert sorted(seeds for _, seeds, _ in seen) == [[0, 2, 4], [1, 3]]
    assert {device for device, _, _ in seen} == {"cuda:0", "cuda:1"}
    wider = [{**job, "setting": SETTING | {"width": 24}} for job in jobs]
    assert train_together([*wide, *wider], on_cpu(tmp_path)) == [None] * 10
    assert [seeds for _, seeds, _ in seen[2:]] == [[0, 1, 2, 3, 4]] * 2  # a GPU for each setting
    assert trained["alone"] == []
    assert all(sae.lookup(tmp_path, **job) is not None for job in (*jobs, *wide, *wider))


@pytest.mark.slow
def test_the_process_of_a_gpu_serves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds what CUDA needs there."""
    both, seen = threading.Barrier(2), []

    def make(runtime: Runtime, **arguments: Any) -> Dataset:
        seen.append((runtime.device, in_process(whose, 0, "whose")))
        both.wait(60)
        return Dataset(path="saes/a", recipe="a", digest="", rows=1)

    monkeypatch.setattr(sae, "make", make)
    monkeypatch.setattr(train, "devices", lambda name: ["cuda:0", "cuda:1"])
    (job,) = jobs_of(tmp_path, range(1))
    jobs = [{**job, "setting": SETTING | {"width": width}} for width in range(2, 8)]
    assert train_together(jobs, Runtime(store=tmp_path, device="cuda")) == [None] * 6
    assert len(seen) == 6
    assert len(set(seen)) == 2


def test_a_process_gives_its_memory_back_after_a_training(
    tmp_path: Path, trained: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[str] = []
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: freed.append("cache"))
    with pytest.raises(ZeroDivisionError), freed_afterwards("cuda:1"):
        raise ZeroDivisionError
    with freed_afterwards("cpu"):
        pass
    assert freed == ["cache"]


def test_one_at_a_time_asks_for_no_memory(
    tmp_path: Path, trained: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "tell_memory", lambda *arguments: 5)
    assert train_together(jobs_of(tmp_path), on_cpu(tmp_path, saes_at_once=1)) == [None] * 3
    assert trained == {"alone": [0, 1, 2], "together": []}
