"""Find damaged datasets, records of runs and files of sources in a store. Reads every file, and changes none."""

from __future__ import annotations

from pathlib import Path

from pydantic_core import from_json

from storage.dataset import verify
from storage.errors import BadInput
from storage.listing import read_shards
from storage.runs import RESTORE, Run, numbers, read_run


def readable_runs(store: Path, study: str) -> tuple[list[Run], list[str]]:
    """Return the readable runs of a study, in the order of their numbers, and one sentence for each unreadable run."""
    runs, damaged = [], []
    for number in numbers(store, study):
        try:
            runs.append(read_run(store, study, number))
        except BadInput as error:
            damaged.append(f"studies/{study}/runs/{number}: {error}")
        except (OSError, ValueError, RecursionError) as error:
            damaged.append(f"studies/{study}/runs/{number}: {error}: {RESTORE}")
    return runs, damaged


def current(runs: list[Run]) -> list[Run]:
    """For each variant, return the newest complete run and the runs after it; all runs if none is complete."""
    kept: list[Run] = []
    for variant in dict.fromkeys(run.variant for run in runs):
        own = [run for run in runs if run.variant == variant]
        complete = [run.number for run in own if run.is_complete]
        kept += [run for run in own if run.number >= max(complete, default=0)]
    return kept


def damaged_datasets(store: Path, runs: list[Run]) -> list[str]:
    """Return one sentence for each dataset of these runs that is missing or has changed bytes."""
    datasets = {(entry.dataset.path, entry.dataset.digest): entry.dataset for run in runs for entry in run.entries}
    problems = [verify(store, dataset) for dataset in datasets.values()]
    return [f"{problem}: delete its folder and run again" for problem in problems if problem is not None]


def damaged_sources(store: Path) -> list[str]:
    """Return one sentence for each JSON file below `sources/` that this project cannot read."""
    damaged = []
    for path in sorted((*store.glob("sources/*.json"), *store.glob("sources/*/*.json"))):
        try:
            if path.name == "manifest.json":
                read_shards(path)
            elif not isinstance(found := from_json(path.read_bytes()), dict):
                raise ValueError(f"holds {type(found).__name__}, and an object is needed")
        except BadInput as error:
            damaged.append(f"{path.relative_to(store).as_posix()}: {error}")
        except (OSError, ValueError) as error:
            damaged.append(f"{path.relative_to(store).as_posix()}: {error}: delete it, and the next run makes it again")
    return damaged
