"""Before a training on a GPU the log says how much memory it takes, and as many SAEs are trained together as fit."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import zarr

from storage.dataset import Dataset
from storage.errors import BadInput
from tasks.memory import room_on, tell_memory

SETTING = {"width": 4096, "k": 20, "epochs": 1, "batch_size": 1024, "learning_rate": 1e-3}


@pytest.fixture
def embeddings(tmp_path: Path) -> list[Dataset]:
    for part, rows in (("image", 600), ("text", 1400)):
        zarr.create_array(tmp_path / "e" / part, shape=(rows, 512), chunks=(1024, 512), dtype="float16")
    return [Dataset(path="e", recipe="e", digest="e", rows=2000)]


def on_a_gpu_of(gigabytes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda place: (int(gigabytes * 1e9), int(25e9)))


def test_the_log_says_what_a_training_takes(
    tmp_path: Path, embeddings: list[Dataset], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_a_gpu_of(24, monkeypatch)
    with caplog.at_level(logging.INFO, "bridgescope"):
        tell_memory(tmp_path, embeddings, SETTING | {"data_half": "a"}, 0.2, "cuda:1")
    # half of four fifths of 2,000 rows
    assert "an SAE of width 4096 on 800 rows needs about 1.5 GB (0.0 rows, 0.1 weights" in caplog.text
    assert "cuda:1 has 24.0 GB free of 25.0 GB" in caplog.text


@pytest.mark.parametrize(
    ("gigabytes", "at_once", "together"), [(24, None, 5), (24, 3, 3), (1.9, None, 2), (1.6, None, 1)]
)
def test_as_many_seeds_are_trained_together_as_the_gpu_has_room_for(
    tmp_path: Path, embeddings: list[Dataset], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    gigabytes: float, at_once: int | None, together: int,
) -> None:  # fmt: skip
    """Each needs .07 GB for its weights and .24 GB for its part of a step; 1.08 GB are those of CUDA and the rows."""
    on_a_gpu_of(gigabytes, monkeypatch)
    with caplog.at_level(logging.INFO, "bridgescope"):
        assert tell_memory(tmp_path, embeddings, SETTING | {"k": 30}, 0.2, "cuda", 5, at_once) == together
    assert ("5 SAEs are trained" in caplog.text) == (together < 5)
    assert (f"{together} SAEs of width 4096, trained together on 1600 rows" in caplog.text) == (together > 1)


def test_saes_of_a_gathering_step_are_not_trained_together(
    tmp_path: Path, embeddings: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu_of(24, monkeypatch)
    assert tell_memory(tmp_path, embeddings, SETTING, 0.2, "cuda", 5) == 1


def test_the_models_of_embed_give_their_memory_back_first(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.embed import Wanted, load_encoders

    on_a_gpu_of(24, monkeypatch)
    load_encoders((Wanted("a", "hf:local-dir:/nowhere", "float32"),), "cpu", Path("/nowhere"))
    assert load_encoders.cache_info().currsize == 1
    assert room_on("cuda") == (24_000_000_000, 25_000_000_000)
    assert load_encoders.cache_info().currsize == 0


def test_a_gpu_that_is_too_small_is_refused(
    tmp_path: Path, embeddings: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu_of(1.2, monkeypatch)
    with pytest.raises(
        BadInput, match=r"cuda has 1.2 GB free of 25.0 GB: set a smaller batch_size or width.*or train with device"
    ):
        tell_memory(tmp_path, embeddings, SETTING, 0.2, "cuda")


def test_nothing_is_asked_of_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda place: pytest.fail("there is no GPU"))
    tell_memory(tmp_path, [], SETTING, 0.2, "cpu")
