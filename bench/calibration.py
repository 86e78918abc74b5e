"""Print the memory that the end of a training needs on many rows from disk, beside its bar of 4 GB.

python -m bench.calibration [--rows 10000000] [--dim 64] [--width 1024] [--k 16] [--folder DIR]

Writes rows to two files of float16, half of them images, and reads them through memory maps as a study does. It then
measures the largest resident memory of a process that holds back rows, starts a trainer and calls `finish()`, for each
case of CASES: rows held back (the default), calibration on the rows of the steps, learned thresholds, and ReLU's
rescaled codes. No step is trained, because memory does not depend on the weights. The rows are part of the memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BAR = 4.0  # GB
BLOCK = 500_000
CASES = {
    "batchtopk": {"architecture": "batchtopk"},
    "batchtopk, calibration_share = 0": {"architecture": "batchtopk", "calibration_share": 0.0},
    "jumprelu": {"architecture": "jumprelu"},
    "relu, rescaled": {"architecture": "relu"},
}
PROGRAM = """
import json, sys
from bench.calibration import measure
print(json.dumps(measure(*json.loads(sys.argv[1]))))
"""


def write(path: Path, rows: int, dim: int, seed: int) -> None:
    """Write random rows, block by block."""
    random = np.random.default_rng(seed)
    out = np.lib.format.open_memmap(path, "w+", np.float16, (rows, dim))
    for start in range(0, rows, BLOCK):
        out[start : start + BLOCK] = random.standard_normal((min(BLOCK, rows - start), dim), np.float32)
    out.flush()


def measure(files: list[str], settings: dict[str, object]) -> dict[str, float]:
    """In this process: the largest resident memory in GB, and the seconds of `finish()`."""
    import torch

    from sae.rows import training_rows
    from sae.settings import Settings
    from sae.trainer import Trainer
    from sae.training import split_rows

    torch.set_num_threads(1)
    image, text = (np.load(file, mmap_mode="r") for file in files)
    chosen = Settings(**settings)  # type: ignore[arg-type]
    rows, held = split_rows(training_rows(image, text, chosen.image_share, "cpu"), chosen, 0, None)
    trainer = Trainer(rows, chosen, 0, held=held)
    before = time.perf_counter()
    trainer.finish()
    seconds = time.perf_counter() - before
    return {"gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, "seconds": seconds}


def main() -> int:
    """Write the rows, measure every case in a process of its own, and compare with the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"rows": 10_000_000, "dim": 64, "width": 1024, "k": 16}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path, help="where the rows are written; default: a temporary folder")
    given = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        files = [str(Path(folder) / f"{name}.npy") for name in ("image", "text")]
        for seed, file in enumerate(files):
            write(Path(file), given.rows // 2, given.dim, seed)
        print(f"{given.rows:,} x {given.dim} rows, {given.width} concepts, k = {given.k}; bar {BAR} GB")
        for label, case in CASES.items():
            settings = {"width": given.width, "k": given.k, "batch_size": 1024, **case}
            command = [sys.executable, "-c", PROGRAM, json.dumps([files, settings])]
            root = Path(__file__).parents[1]
            done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
            worst = max(worst, found["gb"])
            print(f"{label}: {found['gb']:.2f} GB, finish() {found['seconds']:.0f} s", flush=True)
    print("met" if worst < BAR else "not met")
    return int(worst >= BAR)


if __name__ == "__main__":
    raise SystemExit(main())
