"""A small study of vectors, and helpers for several tests that run it and read its results."""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from report.explorer.layout import principal
from storage.runs import Run

if TYPE_CHECKING:
    from sae import SAE

RUN = "import sys\nfrom flows.cli import main\nsys.exit(main(['run', sys.argv[1], '--store', sys.argv[2]]))\n"
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
    """Write a study file and vectors. The vectors of images are sparse sums of 20 directions.

    Each image has two captions. A caption keeps each direction of its image with probability .7.
    """
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


class FinishedStudy(NamedTuple):
    """A study of 2,200 images, 1 epoch and 2 seeds, and the store of its first run. Tests copy what they change."""

    file: Path
    store: Path
    run: Run


@contextmanager
def plain_pages() -> Iterator[None]:
    """Studies in this process write no figure files, and the maps of their items are the first two principal axes.

    Figure files take seconds per study, and UMAP takes 12 s per process to compile and seconds per study. Both have
    tests of their own, and studies in separate processes make both.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("report.page.write_files", lambda folder, drawn: [])
        patch.setattr("report.explorer.places._umap", lambda rows, images=0: principal(csr_matrix(rows).toarray()))
        yield


@contextmanager
def another_tree_at_once() -> Iterator[list[str]]:
    """In this block, the tenth garbage collection builds a syntax tree, from deeper in the stack, as a thread would.

    Yields a list with one item per collection.
    """
    collections: list[str] = []

    def deeper(levels: int) -> None:
        if levels:
            deeper(levels - 1)
        else:
            ast.parse("1 + 1")

    def collect(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            collections.append(phase)
            if len(collections) == 10:
                deeper(30)

    thresholds = gc.get_threshold()
    gc.callbacks.append(collect)
    gc.set_threshold(20)
    try:
        yield collections
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(collect)


def grow(vectors: Path) -> None:
    """Append ten images with one caption each to a folder of vectors."""
    rng = np.random.default_rng(1)
    metadata = pl.read_parquet(vectors / "metadata.parquet")
    images = int(metadata["image_row"].max()) + 1  # type: ignore[arg-type]
    for name in ("image", "text"):
        old = np.load(vectors / f"{name}.npy")
        more = rng.standard_normal((10, old.shape[1])).astype(np.float32)
        np.save(vectors / f"{name}.npy", np.concatenate([old, more]))
    rows = range(images, images + 10)
    more = pl.DataFrame({"image_row": rows, "key": [f"k{i:05}" for i in rows], "caption": [f"new {i}" for i in rows]})
    pl.concat([metadata, more.cast(dict(metadata.schema))]).write_parquet(vectors / "metadata.parquet")


def computed(run: Run, of: str | None = None) -> list[tuple[str, int | None]]:
    """Stage and seed of every dataset that a run computed instead of reusing, in order."""
    kept = [entry for entry in run.entries if entry.is_task and of in (None, entry.kind)]
    return [(entry.kind, entry.seed) for entry in kept if not entry.cached]


def tables(store: Path, run: Run) -> dict[str, pl.DataFrame]:
    """All tables of a run, without the column `path`, which differs between stores."""
    folder = store / run.of("analyze")[0].dataset.path
    frames = {path.stem: pl.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}
    return {name: table.drop("path", strict=False) for name, table in frames.items()}


def begin(code: str, study: Path, store: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a process that runs code on a study and a store."""
    command = [sys.executable, "-c", code, str(study), str(store)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a process. Returns its exit code and standard error."""
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def random_sae(dim: int, seed: int) -> SAE:
    """An SAE of 20 random directions that was not trained."""
    import torch

    from sae.model import SAE, Config

    torch.manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(20, dim), dim=1)
    config = Config(
        architecture="batchtopk", dim=dim, width=20, k=2, decoder_bias=True, image_share=0.5, seed=0, epochs=1,
        batch_size=8, learning_rate=0.1, auxk=0.0, dead_after_epochs=0.5, rows_seen=5,
    )  # fmt: skip
    return SAE(atoms.clone(), torch.zeros(20), atoms, 0.1 * torch.randn(dim), torch.tensor(0.4), config)
