"""What one stage alone is run on: the newest complete datasets of the stages before it, or one named by its recipe."""

from __future__ import annotations

from pathlib import Path

from flows.config import Study
from flows.stages import STAGES, Key, State, jobs_of
from storage.dataset import Dataset
from storage.errors import BadInput
from storage.runs import Run, numbers, read_run


def upstream_of(study: Study, store: Path, last: Run | None, only: str, recipe: str | None = None) -> State:
    """The datasets of all stages before `only`, for the study as it is now, marked as in use.

    With `recipe` that dataset of an earlier run stands in its place. Raises BadInput when one is missing.
    """
    state: State = {}
    named = _named(study, store, only, recipe) if recipe is not None else None
    if only == "acquire":
        return state
    if last is None or not last.of("scan"):
        raise BadInput(
            f"--only {only}: the study {study.name!r} has no pairs yet: run it with --only acquire, or whole"
        )
    state.update({Key(e.stage, shard=e.shard): e.dataset for e in last.entries if e.stage in ("scan", "ledger")})
    for stage in STAGES[: STAGES.index(only)]:
        for place in range(len(jobs_of(stage, study, state, last, store))):
            job = jobs_of(stage, study, state, last, store)[place]
            if named is not None and job.key == named[0]:
                state[job.key] = named[1]
                continue
            dataset = job.stage.adopt(store, **job.inputs) if job.inputs is not None else None
            if dataset is None:
                raise BadInput(
                    f"--only {only}: {job.key} is missing or stale: run --only {stage} first, or the whole study"
                )
            state[job.key] = dataset
    if named is not None and named[1] not in state.values():
        raise BadInput(f"--upstream {recipe}: is {named[0]}, which the study as it is now does not have")
    return state


def _named(study: Study, store: Path, only: str, recipe: str) -> tuple[Key, Dataset]:
    """A dataset of a run of the study, by its recipe (the name of its folder)."""
    before = STAGES[: STAGES.index(only)]
    for number in reversed(numbers(store, study.name)):
        for entry in read_run(store, study.name, number).entries:
            if entry.dataset.recipe == recipe:
                key = Key(entry.stage, entry.model, entry.sae, entry.seed, entry.shard)
                if entry.stage not in before and entry.stage != "features":
                    raise BadInput(f"--upstream {recipe}: is {key}, which does not come before {only}")
                if not (store / entry.dataset.path).is_dir():
                    raise BadInput(f"--upstream {recipe}: {key} of run {number} is no longer in the store")
                return key, entry.dataset
    raise BadInput(f"--upstream {recipe}: no run of {study.name!r} made a dataset of that name")
