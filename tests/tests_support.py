"""A small study of vectors, and what several tests look at in a finished run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from storage.runs import Run

TEXT = """
name = "small"
[pairs]
source = "embeddings"
path = "vectors"
heldout = 0.25
shard_size = 1500
[[models]]
name = "own"
spec = "embeddings:vectors"
[[saes]]
name = "main"
width = 24
k = 3
epochs = 4
batch_size = 64
learning_rate = 5e-3
seeds = [0, 1]
[analyze]
min_pairs = 2
"""


def write_study(folder: Path, images: int = 2200, dim: int = 12) -> Path:
    """A study file and its vectors: sparse sums of 20 directions, two captions an image that share half of them."""
    rng = np.random.default_rng(7)
    atoms = rng.standard_normal((20, dim))
    codes = rng.random((images, 20)) * (rng.random((images, 20)) < 0.15)
    captions = codes[np.repeat(np.arange(images), 2)] * (rng.random((2 * images, 20)) < 0.7)
    vectors = folder / "vectors"
    vectors.mkdir(parents=True)
    np.save(vectors / "image.npy", (codes @ atoms + 0.1 * rng.standard_normal((images, dim))).astype(np.float32))
    np.save(vectors / "text.npy", (captions @ atoms + 0.1 * rng.standard_normal((2 * images, dim))).astype(np.float32))
    owner = np.repeat(np.arange(images), 2)
    words = [f"caption {j} of <b>{i}</b>" for j, i in enumerate(owner)]
    keys = [f"k{i:05}" for i in owner]
    pl.DataFrame({"image_row": owner, "key": keys, "caption": words}).write_parquet(vectors / "metadata.parquet")
    study = folder / "small.toml"
    study.write_text(TEXT)
    return study


def made(run: Run, of: str | None = None) -> list[tuple[str, int | None]]:
    """Stage and seed of everything that a run made rather than found, in order."""
    kept = [entry for entry in run.entries if entry.stage not in ("scan", "ledger") and of in (None, entry.stage)]
    return [(entry.stage, entry.seed) for entry in kept if not entry.cached]


def tables(store: Path, run: Run) -> dict[str, pl.DataFrame]:
    """All tables of a run, without the column that names folders."""
    folder = store / run.of("analyze")[0].dataset.path
    found = {path.stem: pl.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}
    return {name: table.drop("path", strict=False) for name, table in found.items()}
