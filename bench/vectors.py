"""Seconds to acquire and embed a user's vectors, at two sizes, and of `bridgescope status`, with their bars.

python bench/vectors.py --work DIR [--small 100000] [--large 1000000] [--dim 256] [--shards 400]

Run it while nothing else is running. The work folder takes about 6 GB at the default sizes. Prints one line per result,
writes bench/results/vectors.json, and ends with 1 when a bar is not met.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from bars import Bar, at_most, finish, shown

RATIO, STATUS, STATUS_OF_SHARDS, STALE = 12, 2.0, 3.0, 0.011
BLOCK = 65_536
STUDY = """
name = "vectors"
[pairs]
source = "embeddings"
path = "vectors"
shard_size = {shard_size}
{models}
[[saes]]
name = "main"
width = 64
k = 4
seeds = [0]
"""
MODEL = """[[models]]
name = "{name}"
spec = "embeddings:vectors"
"""


def write(folder: Path, rows: int, dim: int, start: int = 0) -> None:
    """Write random vectors of pairs as .npy, after the rows that are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("image", "text"):
        path = folder / f"{name}.npy"
        before = np.load(path, mmap_mode="r") if start else np.empty((0, dim), np.float32)
        rng = np.random.default_rng(start + (name == "text"))
        array = np.lib.format.open_memmap(folder / "new.npy", "w+", np.float32, (start + rows, dim))  # type: ignore[no-untyped-call]
        array[:start] = before
        for first in range(start, start + rows, BLOCK):
            stop = min(first + BLOCK, start + rows)
            array[first:stop] = rng.standard_normal((stop - first, dim), dtype=np.float32)
        array.flush()
        del array, before
        (folder / "new.npy").replace(path)


def study(work: Path, shard_size: int, models: int) -> Path:
    """Write a study file of the vectors with some models, all of the same folder."""
    file = work / "vectors.toml"
    text = "".join(MODEL.format(name=f"m{number}") for number in range(models))
    file.write_text(STUDY.format(shard_size=shard_size, models=text))
    return file


def run(file: Path, store: Path, stage: str) -> tuple[float, float, int, int]:
    """Run one stage. Returns its seconds, the seconds of uncached tasks, their number, and the number of all tasks."""
    from flows.config import load_study
    from flows.study import run_study

    store.mkdir(exist_ok=True)
    finished = run_study(load_study(file), store, only=stage, progress=False)
    tasks = [entry for entry in finished.run.entries if entry.kind == stage]
    made = [entry for entry in tasks if not entry.cached]
    return finished.stages[-1].seconds, sum(entry.seconds for entry in made), len(made), len(tasks)


def status(file: Path, store: Path) -> float:
    """Seconds of `bridgescope status`, including the start of the process: the shorter of two runs."""
    took = []
    for _ in range(2):
        began = time.perf_counter()
        command = [sys.executable, "-m", "flows.cli", "status", str(file), "--store", str(store)]
        subprocess.run(command, check=True, capture_output=True)
        took.append(time.perf_counter() - began)
    return min(took)


def sizes(work: Path, small: int, large: int, dim: int) -> list[Bar]:
    """Acquire and embed at both sizes, look at the status of the larger, then append one pair in a hundred."""
    bars, embed = [], {}
    for rows in (small, large):
        shutil.rmtree(work, ignore_errors=True)
        write(work / "vectors", rows, dim)
        file, store = study(work, 8192, 1), work / "store"
        acquired = run(file, store, "acquire")
        embed[rows] = run(file, store, "embed")
        bars.append(shown(f"{rows:,} pairs: acquire, of which tasks {acquired[1]:.1f} s", acquired[0], "s"))
        bars.append(shown(f"{rows:,} pairs: embed, of which tasks {embed[rows][1]:.1f} s", embed[rows][0], "s"))
    bars.append(
        at_most(f"embed of {large // small} times the pairs", embed[large][0] / embed[small][0], RATIO, "times")
    )
    bars.append(at_most(f"status of {large:,} pairs", status(file, store), STATUS, "s"))
    write(work / "vectors", large // 100, dim, start=large)
    run(file, store, "acquire")
    _, _, made, of = run(file, store, "embed")
    bars.append(at_most("share of the shards embedded after 1 % more pairs", made / of, max(STALE, 2 / of)))
    return bars


def many_shards(work: Path, shards: int, dim: int) -> list[Bar]:
    """The status of a study with many small shards and two models."""
    shutil.rmtree(work, ignore_errors=True)
    write(work / "vectors", 100 * shards, dim)
    file, store = study(work, 100, 2), work / "store"
    acquired, embedded = run(file, store, "acquire"), run(file, store, "embed")
    return [
        shown(f"{shards} shards: acquire", acquired[0], "s"),
        shown(f"{shards} shards, two models: embed", embedded[0], "s"),
        at_most(f"status of {shards} shards, two models", status(file, store), STATUS_OF_SHARDS, "s"),
    ]


def main() -> int:
    """Measure, print, write the results, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--small", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--shards", type=int, default=400)
    options = parser.parse_args()
    bars = many_shards(options.work, options.shards, options.dim)
    bars += sizes(options.work, options.small, options.large, options.dim)
    return finish("vectors", bars)


if __name__ == "__main__":
    sys.exit(main())
