"""On a GPU the SAEs are trained in one process, and export computes there; on a CPU one process per core trains."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda
from tests_support import random_sae

from sae import SAE
from sae.model import TENSORS
from storage.dataset import Dataset
from tasks import export
from tasks.devices import device_at_hand, device_of, processes_on
from tasks.stage import Runtime
from tasks.train import sae, train_together


@pytest.fixture
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.devices.os.cpu_count", lambda: 2)


@pytest.mark.usefixtures("_two_cores")
@pytest.mark.parametrize(
    ("name", "gpu", "strict", "at_hand", "processes"),
    [
        ("auto", False, "cpu", "cpu", 2), ("auto", True, "cuda", "cuda", 1), ("cpu", True, "cpu", "cpu", 2),
        ("cuda:1", True, "cuda:1", "cuda:1", 1), ("cuda", False, "cuda", "cpu", 1), ("mps", True, "mps", "mps", 1),
    ],
)  # fmt: skip
def test_devices(
    name: str, gpu: bool, strict: str, at_hand: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert (device_of(name), device_at_hand(name), processes_on(name, 3)) == (strict, at_hand, processes)
    assert processes_on("cpu", 1) == 1


@pytest.mark.usefixtures("_two_cores")
@pytest.mark.parametrize(("device", "most"), [("cpu", 2), ("cuda", 1)])
def test_seeds_that_are_not_trained_together_follow_one_another_on_a_gpu(
    device: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, seen, lock, both = 0, [], threading.Lock(), threading.Barrier(2)

    def make(runtime: Runtime, seed: int) -> Dataset:
        nonlocal running
        with lock:
            running += 1
            seen.append(running)
        if device == "cpu":
            both.wait(10)  # two trainings run at the same time, or this fails
        with lock:
            running -= 1
        return Dataset(path=f"saes/{seed}", recipe=str(seed), digest="", rows=1)

    monkeypatch.setattr(sae, "make", make)
    jobs: list[dict[str, Any]] = [{"seed": seed} for seed in range(4)]
    assert train_together(jobs, Runtime(store=tmp_path, device=device, saes_at_once=1)) == [None] * 4
    assert max(seen) == most


@pytest.mark.usefixtures("_two_cores")
def test_after_an_interrupt_no_further_seed_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, both, over = [], threading.Barrier(2), threading.Event()

    def make(runtime: Runtime, seed: int) -> Dataset:
        seen.append(seed)
        if seed < 2:
            both.wait(60)
        if seed == 0:
            raise KeyboardInterrupt
        assert over.wait(60)
        return Dataset(path=f"saes/{seed}", recipe=str(seed), digest="", rows=1)

    monkeypatch.setattr(sae, "make", make)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        train_together([{"seed": seed} for seed in range(4)], Runtime(store=tmp_path, device="cpu"))
    over.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
    assert sorted(seen) == [0, 1]


def test_exported_codes_are_those_of_encode_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = random_sae(12, 0), np.random.default_rng(0).standard_normal((23, 12)).astype(np.float32)
    monkeypatch.setattr(export, "BLOCK", 10)
    ids = np.arange(23) * 7
    written = export.encode(net, x, ids, "image")
    codes = net.encode(x, "image").numpy()
    item, concept = codes.nonzero()
    assert len(item) > 20
    assert written.item_id.tolist() == ids[item].tolist()
    assert written.concept_id.tolist() == concept.tolist()
    np.testing.assert_allclose(written.activation, codes[item, concept], rtol=1e-6)


def test_wider_dictionaries_are_encoded_fewer_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = random_sae(12, 0), np.random.default_rng(0).standard_normal((23, 12)).astype(np.float32)
    whole = export.encode(net, x, np.arange(23), "image")
    monkeypatch.setattr(export, "CELLS", 5 * net.config.width + 1)
    sizes: list[int] = []
    written = export.encode(net, x, np.arange(23), "image", sizes.append)
    assert sizes == [5, 5, 5, 5, 3]
    assert written.item_id.tolist() == whole.item_id.tolist()
    assert written.concept_id.tolist() == whole.concept_id.tolist()
    np.testing.assert_allclose(written.activation, whole.activation, rtol=1e-6)


def test_export_encodes_on_the_device_and_takes_codes_alone_off_it() -> None:
    own = random_sae(12, 0)
    ids, x = np.arange(23) * 7, np.random.default_rng(0).standard_normal((23, 12)).astype(np.float16)
    with fake_cuda() as device:
        net = SAE(**{name: getattr(own, name).to("cuda") for name in TENSORS}, config=own.config)
        before = len(device.waits)
        written = export.encode(net, x, ids, "image")
        taken = [wait for wait in device.waits[before:] if wait.operation == "copy from cuda to cpu"]
    assert len(taken) == 3  # items, concepts and codes of one block
    assert len(written.item_id) == len(written.concept_id) == len(written.activation) > 0
