"""Frontier: explained variance (R2) and non-zero codes per row (L0) of every method on the rows of one model.

The work is divided among child processes: one per core of a CPU, or a single one on a GPU.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from storage.dataset import Dataset
from tasks.children import Watch, in_process, side_by_side
from tasks.devices import device_of, processes_on
from tasks.flattened import named, warn_if_short
from tasks.stage import Runtime, stage

if TYPE_CHECKING:
    from sae.frontier import Part

SECONDS = "seconds.parquet"  # not part of the digest, since times differ between equal runs
ORDER = ["method", "encoder", "k"]


class Measure(NamedTuple):
    """Arguments of a measuring process."""

    store: Path
    pairs: list[Dataset]
    embeddings: list[Dataset]
    heldout: float
    setting: dict[str, Any]
    parts: list[Part]
    device: str


@stage("frontiers", version="5", unhashed=("label",), volatile=(SECONDS,), on_device=True, threads=1)
def frontier(
    out: Path,
    pairs: list[Dataset],
    embeddings: list[Dataset],
    setting: dict[str, Any],
    methods: list[str],
    k: list[int],
    heldout: float,
    runtime: Runtime,
    label: str = "",
) -> int:
    """Fit every method on a model's training rows and measure it on the held-out rows, with each of its encoders.

    One row per method, encoder and k. label: the model, as the study names it, for messages.
    """
    import polars as pl

    from sae.frontier import AT_K, along_k, parts

    all_parts = parts(methods, k)
    count = processes_on(runtime.device, len(all_parts))  # a process takes seconds to start, so it gets many parts
    shared = (runtime.store, pairs, embeddings, heldout, setting)
    jobs = [Measure(*shared, all_parts[i::count], runtime.device) for i in range(count)]
    with side_by_side(count) as pool:
        running = [pool.submit(in_process, measure_parts, job, "frontier") for job in jobs]
        measured = [future.result() for future in running]
    for part, curve in sorted((each for found in measured for each in found.curves), key=lambda each: each[0]):
        name = ", ".join([*([label] if label else []), "frontier", part.method])
        warn_if_short(named(name, width=setting["width"], k=min(part.k)), curve)
    rows = [row for found in measured for row in found.rows]
    types = dict.fromkeys(AT_K.values(), pl.Float64)  # a column may hold nothing but None
    table = pl.DataFrame(along_k(rows), schema_overrides=types).sort(ORDER).with_columns(split=pl.lit("heldout"))
    table.select(*ORDER, "seconds").write_parquet(out / SECONDS)
    table.drop("seconds").write_parquet(out / "frontier.parquet")
    return table.height


class Measured(NamedTuple):
    """What a measuring process found."""

    rows: list[dict[str, Any]]  #: one per method, encoder and k
    curves: list[tuple[Part, list[dict[str, float]]]]  #: the curve of each training; empty for a baseline


def measure_parts(job: Measure, watch: Watch) -> Measured:
    """Measure the parts of a job, in a child process."""
    from sae import Settings
    from sae.frontier import Pair, measure
    from storage.rows import select

    sides = [select(job.store, job.pairs, job.embeddings, job.heldout, side) for side in ("train", "heldout")]
    training, heldout = (Pair(rows.image, rows.text) for rows in sides)
    groups = sides[0].split_u, sides[0].split_u[sides[0].owner]  # images of one group have the same split number
    device = device_of(job.device)
    found = Measured([], [])
    for part in job.parts:
        watch()
        settings = Settings(**job.setting, k=min(part.k))
        curve: list[dict[str, float]] = []
        on_step = functools.partial(_follow, watch, curve)
        found.rows.extend(measure(part, training, heldout, settings, 0, device, on_step, groups))
        found.curves.append((part, curve))
    return found


def _follow(watch: Watch, curve: list[dict[str, float]], step: int, steps: int, stats: dict[str, float]) -> None:
    """Note each new point of a training's curve. stats: the last point, as `sae.train` tells it after every step."""
    watch()
    if stats and (not curve or curve[-1]["step"] < stats["step"]):
        curve.append(stats)
