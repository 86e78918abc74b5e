"""The training of one SAE in a process of its own, on one thread: the same bytes alone or beside other seeds.

This module imports no orchestrator, so that the process starts quickly.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from storage.dataset import Dataset


class Fit(NamedTuple):
    """What a training process is told."""

    out: Path
    store: Path
    pairs: list[Dataset]
    embeddings: list[Dataset]
    setting: dict[str, Any]
    seed: int
    heldout: float
    device: str
    progress: bool


CHECKPOINT_SECONDS = 60.0


class TrainingFailed(RuntimeError):
    """A training process ended without an SAE; the message is the child's own."""


def fit_in_process(job: Fit) -> int:
    """Run `fit` in a fresh process and wait for it. Returns the number of rows it was trained on.

    Raises TrainingFailed with what the process said, or with how it died (a kernel out of memory kills it silently).
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(job, os.getpid(), theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError:
        process.join()
        answer = f"the process that trained seed {job.seed} died (exit code {process.exitcode})"
    process.join()
    if isinstance(answer, str):
        raise TrainingFailed(answer)
    return int(answer)


def stop_all() -> None:
    """End every training process of this one: the study was interrupted and nobody waits for them."""
    for child in multiprocessing.active_children():
        child.terminate()


def _report(job: Fit, parent: int, out: Connection) -> None:
    try:
        out.send(fit(job, parent))
    except Exception as error:
        out.send(f"seed {job.seed}: {type(error).__name__}: {error}")


def fit(job: Fit, parent: int) -> int:
    """Train one SAE and save it with its curve into `job.out`, going on from a checkpoint that was left there.

    Ends itself when `parent` is gone.
    """
    import polars as pl
    import torch

    import sae
    from storage.rows import select
    from tasks.progress import bar

    torch.set_num_threads(1)
    setting = dict(job.setting)
    half = setting.pop("data_half", None)
    rows = select(job.store, job.pairs, job.embeddings, job.heldout, "train", half, normalised=False)
    settings = sae.Settings(**setting)
    label = f"train  width {settings.width}, k {settings.k}, seed {job.seed}"
    device = job.device if job.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    with bar(1, label, "steps", show=job.progress, position=job.seed % 8) as progress:

        def on_step(step: int, steps: int, stats: dict[str, float]) -> None:
            if os.getppid() != parent:
                os._exit(1)  # the study was killed: nobody is waiting for this SAE
            progress.total = steps
            progress.set_postfix(stats, refresh=False)
            progress.update(step - progress.n)

        kept = sae.Checkpoint(job.out, CHECKPOINT_SECONDS)
        trained = sae.train(rows.image, rows.text, settings, job.seed, device, on_step, kept)
    trained.sae.save(job.out)
    pl.DataFrame(trained.curve).write_parquet(job.out / "training.parquet")
    return len(rows.image) + len(rows.text)
