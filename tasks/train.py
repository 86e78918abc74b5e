"""Train: one cached task an SAE; seeds that are missing together are trained side by side first."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.dataset import Dataset
from tasks.fit import Fit, TrainingFailed, fit_in_process, stop_all
from tasks.stage import Runtime, stage


@stage("saes", version="4", volatile=("training.parquet",), resumes=True)
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
    """Make the datasets of several seeds at once, one process a core. Never cached: each task adopts its own folder.

    A seed that fails does not stop the others; when all have ended, TrainingFailed says what went wrong with which.
    """
    pool = ThreadPoolExecutor(min(len(jobs), os.cpu_count() or 1))
    try:
        runs = [pool.submit(sae.make, runtime, **job) for job in jobs]
        failed = [error for error in (run.exception() for run in runs) if error is not None]
        if other := [error for error in failed if not isinstance(error, TrainingFailed)]:
            raise other[0]
        if failed:
            raise TrainingFailed("\n".join(str(error) for error in failed))
        return [run.result() for run in runs]
    finally:  # after an interrupt: nothing queued starts, nothing running goes on
        pool.shutdown(wait=False, cancel_futures=True)
        stop_all()
