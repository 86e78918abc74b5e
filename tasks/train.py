"""Train: one cached task per SAE. When several seeds are missing, they are trained in parallel first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from storage.dataset import Dataset
from tasks.children import ChildFailed, side_by_side
from tasks.fit import Fit, fit_in_process
from tasks.stage import Runtime, stage


@stage("saes", version="5", volatile=("training.parquet",), resumes=True, on_device=True, threads=1)
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
    job = Fit(out, runtime.store, pairs, embeddings, setting, seed, heldout, runtime.device, runtime.progress)
    return fit_in_process(job)


def train_together(jobs: list[dict[str, Any]], runtime: Runtime) -> list[ChildFailed | None]:
    """Make the datasets of several seeds in parallel, one per core.

    This function is not cached: the task of each seed adopts its dataset. A seed that fails does not stop the other
    seeds. Returns for each job its ChildFailed error, or None. Any other exception, such as that of a full disk, is
    raised when all jobs have ended.
    """
    with side_by_side(len(jobs)) as pool:
        runs = [pool.submit(sae.make, runtime, **job) for job in jobs]
        errors = [run.exception() for run in runs]
        if other := [error for error in errors if not isinstance(error, ChildFailed | None)]:
            raise other[0]
        return [error if isinstance(error, ChildFailed) else None for error in errors]
