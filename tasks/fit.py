"""Train SAEs in a child process with one thread, so that bytes do not depend on what else runs.

This module does not import Prefect, so that the process starts quickly.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from storage.dataset import Dataset
from tasks.children import Watch, in_process
from tasks.devices import device_of

if TYPE_CHECKING:
    from sae import Settings, Trained
    from storage.rows import Rows

OnStep = Callable[[int, int, dict[str, float]], None]


class Fit(NamedTuple):
    """Arguments of a training process."""

    out: Path
    store: Path
    pairs: list[Dataset]
    embeddings: list[Dataset]
    setting: dict[str, Any]
    seed: int
    heldout: float
    device: str
    progress: bool


CHECKPOINT_SECONDS = 60.0  # seconds between two checkpoints of a training


def fit_in_process(job: Fit) -> int:
    """Run `fit` in a child process. Returns the number of training rows. Raises ChildFailed."""
    return int(in_process(fit, job, f"seed {job.seed}"))


class FitEach(NamedTuple):
    """Arguments of a process that trains several seeds of one setting together, on a GPU."""

    of: Fit  #: the first seed; the others differ from it by `seed` and `out`
    seeds: list[int]
    outs: list[Path]
    at_once: int  #: how many are trained together at most


def fit_each_in_process(job: FitEach) -> list[int | str]:
    """Run `fit_each` in a child process, and return what it returns. Raises ChildFailed."""
    found: list[int | str] = in_process(fit_each, job, f"seeds {', '.join(map(str, job.seeds))}")
    return found


def fit_each(job: FitEach, watch: Watch) -> list[int | str]:
    """Train an SAE for each seed, and save it and its training curve to its folder, as `fit` does for one.

    Returns for each seed the number of training rows, or the message of the error of a training that diverged.
    The folders keep their checkpoints, which whoever completes the datasets removes.
    """
    with freed_afterwards(job.of.device):
        return _fit_each(job, watch)


def _fit_each(job: FitEach, watch: Watch) -> list[int | str]:
    import sae
    from sae.together import train_each

    of = job.of
    rows, settings = _given(of)
    label = f"train  width {settings.width}, k {settings.k}, {len(job.seeds)} seeds"
    outs = dict(zip(job.seeds, job.outs, strict=True))
    checkpoints = [sae.Checkpoint(out, CHECKPOINT_SECONDS) for out in job.outs]
    found: dict[int, int | str] = {}
    with reporting(label, watch, show=of.progress, position=1 + min(job.seeds) % 8) as on_step:
        options = device_of(of.device), on_step, checkpoints, groups_of(rows), job.at_once
        for seed, outcome in train_each(rows.image, rows.text, settings, job.seeds, *options):
            if isinstance(outcome, Exception):
                found[seed] = f"{type(outcome).__name__}: {outcome}"
            else:
                _save(outcome, outs[seed])
                found[seed] = len(rows.image) + len(rows.text)
    return [found[seed] for seed in job.seeds]


def fit(job: Fit, watch: Watch) -> int:
    """Train one SAE, and save the SAE and its training curve to `job.out`.

    If `job.out` holds a checkpoint, the training continues from this checkpoint.
    """
    with freed_afterwards(job.device):
        return _fit(job, watch)


def _fit(job: Fit, watch: Watch) -> int:
    import sae

    rows, settings = _given(job)
    label = f"train  width {settings.width}, k {settings.k}, seed {job.seed}"
    checkpoint = sae.Checkpoint(job.out, CHECKPOINT_SECONDS)
    with reporting(label, watch, show=job.progress, position=1 + job.seed % 8) as on_step:
        trained = sae.train(
            rows.image, rows.text, settings, job.seed, device_of(job.device), on_step, checkpoint, groups_of(rows)
        )
    _save(trained, job.out)
    return len(rows.image) + len(rows.text)


def _given(job: Fit) -> tuple[Rows, Settings]:
    """The rows and the settings of a training."""
    import sae
    from storage.rows import select

    setting = dict(job.setting)
    half = setting.pop("data_half", None)
    rows = select(job.store, job.pairs, job.embeddings, job.heldout, "train", half, normalised=False)
    return rows, sae.Settings(**setting)


def _save(trained: Trained, out: Path) -> None:
    import polars as pl

    trained.sae.save(out)
    pl.DataFrame(trained.curve).write_parquet(out / "training.parquet")


@contextmanager
def freed_afterwards(device: str) -> Iterator[None]:
    """Give back a GPU's memory when the block ends: the process waits for its next job, whose room is measured."""
    try:
        yield
    finally:
        if device_of(device).startswith("cuda"):
            import torch

            gc.collect()
            torch.cuda.empty_cache()


def groups_of(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The group of each image and of each caption. Images of one group have the same split number."""
    return rows.split_u, rows.split_u[rows.owner]


@contextmanager
def reporting(label: str, watch: Watch, *, show: bool, position: int) -> Iterator[OnStep]:
    """Yield a function to call after each step of a training: it draws the progress bar, and calls `watch`."""
    from tasks.progress import bar

    with bar(1, label, "steps", show=show, position=position) as progress:

        def on_step(step: int, steps: int, stats: dict[str, float]) -> None:
            watch()
            progress.total = steps
            progress.set_postfix(stats, refresh=False)
            progress.update(step - progress.n)

        yield on_step
