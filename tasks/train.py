"""Train: one cached task per SAE. When several seeds are missing, they are trained together first."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import polars as pl

from sae.budget import RISE, rise
from storage.dataset import Dataset
from tasks.children import ChildFailed, side_by_side
from tasks.devices import processes_on
from tasks.fit import Fit, fit_in_process
from tasks.memory import tell_memory
from tasks.stage import Runtime, stage

log = logging.getLogger("bridgescope")


@stage("saes", version="7", volatile=("training.parquet",), resumes=True, on_device=True, threads=1)
def sae(
    out: Path,
    pairs: list[Dataset],
    embeddings: list[Dataset],
    setting: dict[str, Any],
    seed: int,
    heldout: float,
    runtime: Runtime,
) -> int:
    """Train one seed of one setting on the training rows of a model's shards."""
    tell_memory(runtime.store, embeddings, setting, heldout, runtime.device)
    job = Fit(out, runtime.store, pairs, embeddings, setting, seed, heldout, runtime.device, runtime.progress)
    rows = fit_in_process(job)
    _warn_if_short(pl.read_parquet(out / "training.parquet").to_dicts(), setting, seed)
    return rows


def _warn_if_short(curve: list[dict[str, Any]], setting: dict[str, Any], seed: int) -> None:
    """Log a warning if R2 still rose while the learning rate was constant. A frozen twin has its setting's budget."""
    if setting.get("frozen") is None and (risen := rise(curve)) > RISE:
        log.warning(
            "width %d, k %d, seed %d: R2 had not flattened: from 40 %% to 80 %% of the training it rose by %.3f; "
            "more than %d epochs would raise it further",
            setting["width"], setting["k"], seed, risen, setting["epochs"],
        )  # fmt: skip


def train_together(jobs: list[dict[str, Any]], runtime: Runtime) -> list[ChildFailed | None]:
    """Make the datasets of several seeds: in parallel, one per core, on a CPU, and one after another on a GPU.

    This function is not cached: the task of each seed adopts its dataset. A seed that fails does not stop the other
    seeds. Returns for each job its ChildFailed error, or None. Any other exception, such as that of a full disk, is
    raised when all jobs have ended.
    """
    with side_by_side(processes_on(runtime.device, len(jobs))) as pool:
        runs = [pool.submit(sae.make, runtime, **job) for job in jobs]
        errors = [run.exception() for run in runs]
        if other := [error for error in errors if not isinstance(error, ChildFailed | None)]:
            raise other[0]
        return [error if isinstance(error, ChildFailed) else None for error in errors]
