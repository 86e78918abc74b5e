"""`bench/gpu.py` runs where only torch, transformers and timm are, and says so where it did not measure a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import gpu

ROOT = Path(__file__).parents[1]
#: Packages of the project's own environment that a bare machine lacks.
ABSENT = ("prefect", "zarr", "duckdb", "polars", "pyarrow", "numba", "open_clip", "umap", "sklearn", "fastapi")
SCRIPT = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT}))  # an import of one of them fails, as where it is not installed
import numpy as np
from bench import gpu, gpu_models
import sae.training, vlm.hf, vlm.batches
from sae.rows import training_rows
from sae.trainer import Trainer
x = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
rows = training_rows(x, x, 0.5, "cpu")
settings = sae.Settings(width=16, k=2, epochs=1, batch_size=32, learning_rate=1e-3)
Trainer(rows, settings, 0, sparse=False).step_(rows.take(np.arange(32, 96)), 1e-3)
files = {{name: str(getattr(module, "__file__", "")) for name, module in sys.modules.items()}}
own = {{name.partition(".")[0] for name, file in files.items()  # the environment may lie within the checkout
       if file.startswith({str(ROOT)!r}) and "site-packages" not in file}}
print(sorted(own))
"""


def test_a_bare_machine_is_enough_and_of_the_project_sae_and_vlm() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[-2] == "['bench', 'sae', 'vlm']"


def test_rows_and_bounds_worked_by_hand() -> None:
    at = gpu.Machine("cuda", "NVIDIA H100", 1.0, bfloat16=989e12, float32=50e12, bandwidth=3e12)
    # 10 x 1024 x 768 x 4096 FLOP at 50 TFLOP/s are 0.644 ms; the bytes, 293.6 MB, take less
    assert gpu.bound(at, 768, 4096, 25, 1024, gathers=False) == pytest.approx(1024 / 0.644245e-3, rel=1e-4)
    # 4 bytes x (2 x 4096 x 768 x 9 + 4 x 1024 x 4096) are 293.6 MB: 0.0979 ms at 3 TB/s. The gathered step's
    # 2 x 1024 x 768 x 4096 + 8 x 1024 x 25 x 768 FLOP take 0.132 ms
    assert gpu.bound(at, 768, 4096, 25, 1024, gathers=True) == pytest.approx(1024 / 0.131995e-3, rel=1e-4)
    slow = at._replace(bandwidth=1e12)
    assert gpu.bound(slow, 768, 4096, 25, 1024, gathers=True) == pytest.approx(1024 / 0.293601e-3, rel=1e-4)
    missed = gpu.Row("a", 80, "/s", 100, "forward alone", 0.9)
    assert (missed.ratio, missed.holds, gpu.Row("b", 1, "/s").holds) == (0.8, False, True)
    assert "MISSED" in gpu.table([missed])
    assert "not measured" not in gpu.told(at)


def test_on_a_cpu_it_says_that_no_gpu_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    monkeypatch.setattr(gpu, "SAES", ((768, 4096, 25, 1024, 8192, 20),))
    assert gpu.main(["--device", "cpu", "--only", "train", "--share", "0.02"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("not measured on a GPU")
    assert said.rstrip().endswith("of the size")
    assert "SAE d=32 C=82 k=7 B=32 float32, sparse: rows/s" in said
    assert "4 SAEs stacked, d=32 C=82 k=7 B=32 float32: rows/s of all" in said
    assert (tmp_path / "gpu.json").exists()


def test_without_a_gpu_it_does_not_pretend(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "no GPU is seen here" in capsys.readouterr().out
