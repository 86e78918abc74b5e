"""Train one SAE in a child process with one thread, so that its bytes do not depend on other trainings.

This module does not import Prefect, so that the process starts quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from storage.dataset import Dataset
from tasks.children import Watch, in_process
from tasks.devices import device_of

if TYPE_CHECKING:
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


def fit(job: Fit, watch: Watch) -> int:
    """Train one SAE, and save the SAE and its training curve to `job.out`.

    If `job.out` holds a checkpoint, the training continues from this checkpoint.
    """
    import polars as pl

    import sae
    from storage.rows import select

    setting = dict(job.setting)
    half = setting.pop("data_half", None)
    rows = select(job.store, job.pairs, job.embeddings, job.heldout, "train", half, normalised=False)
    settings = sae.Settings(**setting)
    label = f"train  width {settings.width}, k {settings.k}, seed {job.seed}"
    checkpoint = sae.Checkpoint(job.out, CHECKPOINT_SECONDS)
    with reporting(label, watch, show=job.progress, position=1 + job.seed % 8) as on_step:
        trained = sae.train(
            rows.image, rows.text, settings, job.seed, device_of(job.device), on_step, checkpoint, groups_of(rows)
        )
    trained.sae.save(job.out)
    pl.DataFrame(trained.curve).write_parquet(job.out / "training.parquet")
    return len(rows.image) + len(rows.text)


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
