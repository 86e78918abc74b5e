"""What one stage alone is run on: the newest complete datasets of the stages before it, or one named by its recipe."""

from __future__ import annotations

from pathlib import Path

from flows.config import Study
from flows.jobs import STEPS, Given
from flows.stages import before
from storage.errors import BadInput
from storage.runs import Entry, Run, State, numbers, read_run


def upstream_of(study: Study, store: Path, last: Run | None, only: str, recipe: str | None = None) -> State:
    """The entries of all stages before `only`, for the study as it is now, marked as in use.

    With `recipe` that dataset of an earlier run stands in its place. Raises BadInput when one is missing.
    """
    state = State()
    named = _named(study, store, only, recipe) if recipe is not None else None
    if only == "acquire":
        return state
    if last is None or not last.of("scan"):
        raise BadInput(
            f"--only {only}: the study {study.name!r} has no pairs yet: run it with --only acquire, or whole"
        )
    state.add(*last.of("scan"), *last.of("ledger"))
    given = Given(study, state, last, store)
    for stage in before(only):
        for step in STEPS[stage]:
            for job in step(given):
                if named is not None and job.key == named.key:
                    state.add(named)
                    continue
                dataset = job.stage.adopt(store, **job.inputs) if job.inputs is not None else None
                if dataset is None:
                    raise BadInput(
                        f"--only {only}: {job.key} is missing or stale: run --only {stage} first, or the whole study"
                    )
                state.add(job.entry(dataset))
    if named is not None and named not in state.values():
        raise BadInput(f"--upstream {recipe}: is {named.key}, which the study as it is now does not have")
    return state


def _named(study: Study, store: Path, only: str, recipe: str) -> Entry:
    """An entry of a run of the study, by the recipe of its dataset (the name of its folder)."""
    for number in reversed(numbers(store, study.name)):
        for entry in read_run(store, study.name, number).entries:
            if entry.dataset.recipe == recipe:
                if entry.kind not in before(only) and entry.kind != "features":
                    raise BadInput(f"--upstream {recipe}: is {entry.key}, which does not come before {only}")
                if not (store / entry.dataset.path).is_dir():
                    raise BadInput(f"--upstream {recipe}: {entry.key} of run {number} is no longer in the store")
                return entry
    raise BadInput(f"--upstream {recipe}: no run of {study.name!r} made a dataset of that name")
