"""Frontier: R2 against L0 of every method on one model's rows; methods side by side, one process a core."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from storage.dataset import Dataset
from tasks.children import Watch, in_process, stop_all
from tasks.progress import bar
from tasks.stage import Runtime, stage

if TYPE_CHECKING:
    from sae.frontier import Part

SECONDS = "seconds.parquet"  # apart from the figures: times differ between runs that are otherwise equal
ORDER = ["method", "k"]


class Measure(NamedTuple):
    """What a process is told."""

    store: Path
    pairs: list[Dataset]
    embeddings: list[Dataset]
    heldout: float
    setting: dict[str, Any]
    part: Part


@stage("frontiers", version="1", volatile=(SECONDS,))
def frontier(
    out: Path,
    pairs: list[Dataset],
    embeddings: list[Dataset],
    setting: dict[str, Any],
    methods: list[str],
    k: list[int],
    heldout: float,
    runtime: Runtime,
) -> int:
    """Fit every method on a model's training rows and measure it on the held-out ones: a row a method and k."""
    import polars as pl

    from sae.frontier import parts

    found: list[dict[str, Any]] = []
    jobs = [Measure(runtime.store, pairs, embeddings, heldout, setting, part) for part in parts(methods, k)]
    pool = ThreadPoolExecutor(min(len(jobs), os.cpu_count() or 1))
    try:
        running = [pool.submit(in_process, measure_part, job, f"frontier, {job.part.method}") for job in jobs]
        with bar(len(jobs), "frontier", "methods", show=runtime.progress) as progress:
            for done in as_completed(running):
                found += done.result()
                progress.update()
    finally:  # after an error or an interrupt: nothing queued starts, nothing running goes on
        pool.shutdown(wait=False, cancel_futures=True)
        stop_all()
    table = pl.DataFrame(found).sort(ORDER).with_columns(split=pl.lit("heldout"))
    table.select(*ORDER, "seconds").write_parquet(out / SECONDS)
    table.drop("seconds").write_parquet(out / "frontier.parquet")
    return table.height


def measure_part(job: Measure, watch: Watch) -> list[dict[str, Any]]:
    """The rows of one method, in a process of its own."""
    from sae import Settings
    from sae.frontier import Pair, measure
    from storage.rows import select

    sides = [select(job.store, job.pairs, job.embeddings, job.heldout, side) for side in ("train", "heldout")]
    training, heldout = (Pair(rows.image, rows.text) for rows in sides)
    settings = Settings(**job.setting, k=min(job.part.k))
    return measure(job.part, training, heldout, settings, on_step=lambda step, steps, stats: watch())
