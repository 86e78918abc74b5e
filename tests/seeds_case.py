"""Trainings of a few seeds on one small shard of embeddings, on which a CPU can play a GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from storage.dataset import Dataset
from storage.embeddings import finish, write_modality
from storage.pairs import CAPTIONS
from tasks import train
from tasks.children import Watch
from tasks.fit import Fit, FitEach, fit, fit_each
from tasks.stage import Runtime

SETTING = {"architecture": "batchtopk", "width": 16, "k": 2, "epochs": 4, "batch_size": 32, "learning_rate": 1e-3}
COUNT = 60


def shard(store: Path) -> tuple[Dataset, Dataset]:
    """A shard of pairs without pictures, and its embeddings of 8 dimensions."""
    folder = store / "pairs" / "a"
    folder.mkdir(parents=True)
    numbers = range(COUNT)
    images = {
        "image_id": numbers, "group_key": [str(n) for n in numbers], "split_u": [n / COUNT for n in numbers],
        "error": [None] * COUNT,
    }  # fmt: skip
    pl.DataFrame(images, schema_overrides={"error": pl.String}).write_parquet(folder / "images.parquet")
    captions = [{"pair_id": n, "image_id": n, "caption": "", "source_key": ""} for n in numbers]
    pl.DataFrame(captions, schema=CAPTIONS).write_parquet(folder / "captions.parquet")
    out = store / "embeddings" / "a"
    out.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for modality in ("image", "text"):
        rows = draw.standard_normal((COUNT, 8)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        write_modality(out, modality, COUNT, 8, lambda a, b, rows=rows: rows[a:b], lambda _: None)
    finish(out, {"model": {}, "dtype": "float32", "shard": 0, "failed_rows": []})
    return tuple(Dataset(path=f"{kind}/a", recipe="a", digest=kind, rows=COUNT) for kind in ("pairs", "embeddings"))  # type: ignore[return-value]


def jobs_of(store: Path, seeds: range = range(3), **changed: Any) -> list[dict[str, Any]]:
    pairs, embeddings = shard(store)
    options = {"pairs": [pairs], "embeddings": [embeddings], "setting": SETTING | changed, "heldout": 0.25}
    return [{**options, "seed": seed} for seed in seeds]


def play(patch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Let a CPU play a GPU with room for two SAEs. Returns what is trained in a process each, and together."""
    seen: dict[str, list[Any]] = {"alone": [], "together": []}
    watch = Watch(os.getppid())

    def alone(job: Fit) -> int:
        seen["alone"].append(job.seed)
        return fit(job, watch)

    def together(job: FitEach) -> list[int | str]:
        seen["together"].append((job.seeds, job.at_once))
        return fit_each(job, watch)

    patch.setattr(train, "device_of", lambda name: "cuda")
    patch.setattr(train, "processes_on", lambda name, jobs: 1)
    patch.setattr(train, "tell_memory", lambda *arguments: 2)
    patch.setattr(train, "fit_in_process", alone)
    patch.setattr(train, "fit_each_in_process", together)
    patch.setattr("sae.together.is_stacking_better", lambda settings, device: True)
    torch.set_num_threads(1)
    return seen


def on_cpu(store: Path, **options: Any) -> Runtime:
    return Runtime(store=store, device="cpu", progress=False, **options)
