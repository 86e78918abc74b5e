"""Seeds are trained side by side. A seed that fails is reported, and the other seeds complete."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from storage.dataset import Dataset
from storage.errors import BadInput
from tasks.children import ChildFailed
from tasks.stage import Runtime
from tasks.train import sae, train_together


def test_a_seed_that_diverges_lets_the_others_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed, trained = threading.Event(), []

    def make(runtime: Runtime, seed: int) -> Dataset:
        if seed == 0:
            failed.set()
            raise ChildFailed("seed 0: the loss is not a number at step 12 of 90")
        assert failed.wait(10)  # the other seeds end after the failure
        trained.append(seed)
        return Dataset(path=f"saes/{seed}", recipe=str(seed), digest="", rows=1)

    monkeypatch.setattr(sae, "make", make)
    jobs: list[dict[str, Any]] = [{"seed": seed} for seed in range(4)]
    errors = train_together(jobs, Runtime(store=tmp_path))
    assert [str(error) for error in errors] == [
        "seed 0: the loss is not a number at step 12 of 90", "None", "None", "None",
    ]  # fmt: skip
    assert sorted(trained) == [1, 2, 3]


def test_other_errors_than_a_failed_training_are_raised_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(runtime: Runtime, seed: int) -> Dataset:
        raise OSError("no space left")

    monkeypatch.setattr(sae, "make", make)
    with pytest.raises(OSError, match="no space left"):
        train_together([{"seed": 0}, {"seed": 1}], Runtime(store=tmp_path))


def test_a_setting_that_does_not_fit_a_gpu_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(runtime: Runtime, seed: int) -> Dataset:
        if seed == 0:
            raise BadInput("an SAE of width 9 needs about 90 GB")
        return Dataset(path=f"saes/{seed}", recipe=str(seed), digest="", rows=1)

    monkeypatch.setattr(sae, "make", make)
    errors = train_together([{"seed": seed} for seed in range(2)], Runtime(store=tmp_path))
    assert [str(error) for error in errors] == ["an SAE of width 9 needs about 90 GB", "None"]
