"""Inputs of a run of one stage: the newest complete datasets of the stages before it. One can be chosen by recipe."""

from __future__ import annotations

from pathlib import Path

from flows.config import Study
from flows.jobs.acquire import current_ledger
from flows.jobs.job import STEPS, Given
from flows.narrow import WHOLE, Narrow
from flows.stages import before
from storage.errors import BadInput
from storage.runs import Entry, Run, State, numbers, read_run


def upstream_of(
    study: Study, store: Path, last: Run | None, only: str, recipe: str | None = None, narrow: Narrow = WHOLE
) -> State:
    """Entries of all stages before the stage `only`, for the current study file. Each dataset is marked as in use.

    narrow: datasets of models, SAEs and seeds outside it may be missing.
    recipe: names a dataset of an earlier run, which replaces the newest dataset with the same key.

    Raises BadInput when a dataset is missing, or when the jobs before `only` have none with the key of `recipe`.
    """
    state = State()
    chosen = entry_of_recipe(study, store, recipe) if recipe is not None else None
    if only == "acquire" and chosen is None:
        return state
    if last is None or not last.of("scan"):
        raise BadInput(
            f"--only {only}: the study {study.name!r} has no pairs yet: run --only acquire first, or the whole study"
        )
    state.add(*last.of("scan"))
    given = Given(study, state, last, store)
    for stage in before(only):
        for step in STEPS[stage]:
            for job in step(given):
                if chosen is not None and job.key == chosen.key:
                    state.add(chosen)
                    continue
                dataset = job.stage.adopt(store, **job.inputs) if job.inputs is not None else None
                if dataset is None and not narrow.includes(job.key):
                    continue
                if job.problem is not None:
                    raise BadInput(f"--only {only}: {job.key}: {job.problem}")
                if dataset is None:
                    raise BadInput(
                        f"--only {only}: {job.key} is missing or stale: run --only {stage} first, or the whole study"
                    )
                state.add(job.entry(dataset))
        if stage == "acquire":
            ledger = current_ledger(last, state)
            if not ledger and chosen is None:
                raise BadInput(f"--only {only}: the ledger is older than the pairs: run --only acquire first")
            state.add(*ledger)
    check_taken(chosen, state, only)
    return state


def check_taken(chosen: Entry | None, state: State, only: str) -> None:
    """Raise BadInput where the jobs before `only`, whose entries are the state, have none with the key of `chosen`."""
    if chosen is not None and chosen not in state.values():
        raise BadInput(
            f"--upstream {chosen.dataset.recipe}: is {chosen.key}, which does not come before {only} in the study "
            "as it is now"
        )


def entry_of_recipe(study: Study, store: Path, recipe: str) -> Entry:
    """Find the newest entry of the study whose dataset has this recipe (the name of its folder).

    Raises BadInput when there is none, and when the dataset is gone.
    """
    for number in reversed(numbers(store, study.name)):
        for entry in read_run(store, study.name, number).entries:
            if entry.dataset.recipe == recipe:
                if not (store / entry.dataset.path).is_dir():
                    raise BadInput(f"--upstream {recipe}: {entry.key} of run {number} is no longer in the store")
                return entry
    raise BadInput(f"--upstream {recipe}: no run of {study.name!r} made a dataset of that name")
