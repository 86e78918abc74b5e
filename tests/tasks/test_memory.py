"""Before a training on a GPU the log says how much memory it takes. A GPU that is too small is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import zarr

from storage.dataset import Dataset
from storage.errors import BadInput
from tasks.memory import tell_memory

SETTING = {"width": 4096, "k": 20, "epochs": 1, "batch_size": 1024, "learning_rate": 1e-3}


@pytest.fixture
def embeddings(tmp_path: Path) -> list[Dataset]:
    for part, rows in (("image", 600), ("text", 1400)):
        zarr.create_array(tmp_path / "e" / part, shape=(rows, 512), chunks=(1024, 512), dtype="float16")
    return [Dataset(path="e", recipe="e", digest="e", rows=2000)]


def on_a_gpu_of(gigabytes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    there = SimpleNamespace(total_memory=int(gigabytes * 1e9))
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda place: there)


def test_the_log_says_what_a_training_takes(
    tmp_path: Path, embeddings: list[Dataset], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_a_gpu_of(24, monkeypatch)
    with caplog.at_level(logging.INFO, "bridgescope"):
        tell_memory(tmp_path, embeddings, SETTING | {"data_half": "a"}, 0.2, "cuda:1")
    # half of four fifths of 2,000 rows
    assert "an SAE of width 4096 on 800 rows needs about 1.5 GB (0.0 rows, 0.1 weights" in caplog.text
    assert "cuda:1 has 24.0 GB; SAEs are trained one after another" in caplog.text


def test_a_gpu_that_is_too_small_is_refused(
    tmp_path: Path, embeddings: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu_of(1.2, monkeypatch)
    with pytest.raises(BadInput, match=r"cuda has 1.2 GB: set a smaller batch_size or width.*or train with device"):
        tell_memory(tmp_path, embeddings, SETTING, 0.2, "cuda")


def test_nothing_is_asked_of_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda place: pytest.fail("there is no GPU"))
    tell_memory(tmp_path, [], SETTING, 0.2, "cpu")
