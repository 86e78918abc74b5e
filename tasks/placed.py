"""Makes the datasets of several jobs of one stage at once, each at the address where its own job looks for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.stage import Runtime, Stage

Job = dict[str, Any]  # the arguments of a stage's body


class Part(NamedTuple):
    """What became of one dataset."""

    rows: int
    seconds: float  #: spent on this dataset alone; only its share of those of all datasets counts
    #: Called just before the dataset is complete: removes what only serves to go on after a kill.
    tidy: Callable[[], None] = lambda: None


def place_together(
    stage: Stage,
    jobs: Sequence[Job],
    runtime: Runtime,
    make: Callable[[dict[int, Path]], Mapping[int, Part | Exception]],
) -> list[Exception | None]:
    """Make the datasets of some jobs, without those that are complete. Returns the error of each, or None.

    make: gets {place of a job: folder to fill} and returns {place of the job: what became of it}. A dataset with an
    error, or without an answer, stays as an interrupted call leaves it. An error that `make` raises is that of each.
    """
    errors: list[Exception | None] = [None] * len(jobs)
    outs: dict[int, Path] = {}
    made: dict[int, Part | Exception] = {}

    def share(number: int) -> float:
        """The part of the time that one dataset took."""
        seconds = {place: part.seconds for place, part in made.items() if isinstance(part, Part)}
        total = math.fsum(seconds.values())
        return seconds[number] / total if total else 1 / len(seconds)

    def within(left: list[int]) -> None:
        """Open the datasets of the jobs, one within the other, and fill them all in the innermost."""
        if not left:
            if outs:
                made.update(_made(make, dict(outs)))
            return
        number, rest = left[0], left[1:]
        entered = False

        def body(out: Path, **_: Any) -> int:
            nonlocal entered
            entered = True
            outs[number] = out
            within(rest)
            found = made[number]
            if isinstance(found, Exception):
                raise found
            found.tidy()
            return found.rows

        try:
            stage.place(runtime, jobs[number], body, lambda: share(number))
        except Exception as error:
            errors[number] = error
        if not entered:  # another process made the dataset meanwhile, or its folder cannot be written
            within(rest)

    # Locks are taken in the order of addresses: two runs whose studies list the jobs in another order could otherwise
    # wait for each other. Two jobs of one address, such as those of a model with two names, are one.
    paths = [stage.address(**job).path for job in jobs]
    firsts = {path: number for number, path in reversed([*enumerate(paths)])}
    within([firsts[path] for path in sorted(firsts)])
    return [errors[firsts[path]] for path in paths]


def _made(
    make: Callable[[dict[int, Path]], Mapping[int, Part | Exception]], outs: dict[int, Path]
) -> dict[int, Part | Exception]:
    try:
        found = make(outs)
    except Exception as error:
        return dict.fromkeys(outs, error)
    return {number: found.get(number, RuntimeError("the pass was stopped")) for number in outs}
