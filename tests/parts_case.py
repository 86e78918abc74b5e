"""The analysis of a planted store without Prefect. Its parts are computed in the order in which a study lists them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from flows.config import Study
from flows.jobs.job import STEPS, Given, Job
from storage.runs import Entry, Key, State
from tasks.stage import Runtime


def study_of(seeds: Iterable[int] = (0, 1), heldout: float = 0.25, **sections: Any) -> Study:
    """A study of the planted store (bench/plant_activations.py) with these seeds."""
    return Study.model_validate({
        "name": "paper-scale",
        "pairs": {"source": "embeddings", "path": "vectors", "heldout": heldout},
        "models": [{"name": "planted", "spec": "embeddings:vectors"}],
        "saes": [{"name": "main", "width": 32, "k": 5, "seeds": list(seeds)}],
        "analyze": {"split": "heldout", "min_pairs": 2},
        **sections,
    })  # fmt: skip


def given_of(store: Path, entries: Iterable[Entry], study: Study) -> Given:
    """The study with its datasets of the stages before analyze. Datasets of SAEs outside the study are left out."""
    state = State()
    wanted = {(setting.name, seed) for setting in study.settings() for seed in setting.seeds}
    state.add(*(e for e in entries if e.sae is None or (e.sae, e.seed) in wanted))
    return Given(study, state, None, store)


def analyse(given: Given) -> list[Key]:
    """Run the stage analyze. Returns the keys of the parts that were computed and not adopted."""
    runtime, computed = Runtime(store=given.store), []
    for step in STEPS["analyze"]:
        for job in step(given):
            computed += [job.key] if job.lookup(given.store) is None else []
            given.state.add(job.entry(job.stage.make(runtime, **job.arguments())))
    return computed


def stale(given: Given) -> list[Job]:
    """The jobs of the stage analyze whose datasets are missing. Later jobs are listed from the datasets that exist."""
    missing = []
    for step in STEPS["analyze"]:
        for job in step(given):
            dataset = job.lookup(given.store)
            if dataset is None:
                missing.append(job)
            else:
                given.state.add(job.entry(dataset))
    return missing


def files_of(given: Given) -> dict[str, bytes]:
    """The bytes of every table of the study."""
    folder = given.store / given.state[Key("analyze")].dataset.path
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def tables_of(given: Given) -> dict[str, pl.DataFrame]:
    """Every table of the study."""
    folder = given.store / given.state[Key("analyze")].dataset.path
    return {path.stem: pl.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}
