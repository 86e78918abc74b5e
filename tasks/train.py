"""Train: one cached task per SAE. When several seeds are missing, they are trained in parallel first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.dataset import Dataset
from tasks.children import ChildFailed, side_by_side
from tasks.fit import Fit, fit_in_process
from tasks.stage import Runtime, stage


@stage("saes", version="4", volatile=("training.parquet",), resumes=True, on_device=True, threads=1)
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


@task(persist_result=False, cache_policy=NO_CACHE)
def train_together(jobs: list[dict[str, Any]], runtime: Runtime) -> list[Dataset]:
    """Train several seeds in parallel, one per core at a time.

    This task is not cached: afterwards the cached task of each seed finds its dataset complete and adopts it. A seed
    that fails does not stop the others. When all have ended, ChildFailed is raised with one line per failure.
    """
    with side_by_side(len(jobs)) as pool:
        runs = [pool.submit(sae.make, runtime, **job) for job in jobs]
        failed = [error for error in (run.exception() for run in runs) if error is not None]
        if other := [error for error in failed if not isinstance(error, ChildFailed)]:
            raise other[0]
        if failed:
            raise ChildFailed("\n".join(str(error) for error in failed))
        return [run.result() for run in runs]
