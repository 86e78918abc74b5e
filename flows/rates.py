"""How the costs of `flows.costs` have to be corrected on this machine: by what the datasets of the store took.

For each kind the newest run counts in which a dataset of the kind was made, first among the runs of the same study.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from flows.config import Study
from flows.costs import STARTUP, Cost, Work, cost
from flows.sizes import Sizes, sizes_of_run
from storage.dataset import manifest_of
from storage.errors import BadInput
from storage.runs import Entry, Run, numbers, read_run, studies

RUNS = 5  # newest runs of a study that are looked at
Sort = tuple[str, str]  #: kind, and the model's spec for embeddings


class Factor(NamedTuple):
    """What the table's costs of a kind are multiplied with."""

    bytes: float
    seconds: float


class Rates(NamedTuple):
    """Factors by kind, and the dimensions of the models that the store has embeddings of."""

    factors: dict[Sort, Factor]
    dims: dict[str, int]

    def factor(self, kind: str, work: Work) -> Factor | None:
        """The factor of a kind of dataset; None where the store holds none of the kind."""
        return self.factors.get(sort_of(kind, work))


def sort_of(kind: str, work: Work) -> Sort:
    """What is compared: datasets of one kind, and embeddings of one model."""
    return (kind, work.spec if kind == "embed" else "")


def side_by_side(kind: str, count: int) -> int:
    """How many datasets of a kind are made at once, of `count`. Seeds are trained in as many processes as cores."""
    return max(1, min(count, os.cpu_count() or 1)) if kind == "train" else 1


def seconds_of(kind: str, costs: list[Cost]) -> float:
    """Seconds in which datasets of one kind are made."""
    return STARTUP.get(kind, 0.0) + sum(each.seconds for each in costs) / side_by_side(kind, len(costs))


def rates(store: Path, study: str) -> Rates:
    """The factors that the datasets in the store give, the newest runs of `study` first."""
    found = Rates({}, {})
    for run, sizes in _runs(store, study):
        made: dict[Sort, list[tuple[Cost, Cost]]] = {}
        for entry in run.entries:
            work = sizes.work(entry.key)
            if entry.kind == "embed":
                found.dims.setdefault(work.spec, work.dim)
            sort = sort_of(entry.kind, work)
            took = _took(store, entry) if entry.is_task and not entry.cached and sort not in found.factors else None
            if took is not None:
                made.setdefault(sort, []).append((cost(entry.kind, work), took))
        for sort, pairs in made.items():
            found.factors[sort] = _factor(sort[0], [table for table, _ in pairs], [took for _, took in pairs])
    return found


def _factor(kind: str, table: list[Cost], took: list[Cost]) -> Factor:
    seconds = sum(each.seconds for each in took) / side_by_side(kind, len(took))
    return Factor(
        sum(each.bytes for each in took) / sum(each.bytes for each in table),
        seconds / seconds_of(kind, table),
    )


def _took(store: Path, entry: Entry) -> Cost | None:
    """Bytes and seconds of a dataset, from its manifest. None where it is gone."""
    try:
        manifest = manifest_of(store, entry.dataset)
    except BadInput:
        return None
    stored = sum(manifest["files"].values())
    return Cost(stored * (2 if entry.kind == "report" else 1), manifest["seconds"])


def _runs(store: Path, study: str) -> Iterator[tuple[Run, Sizes]]:
    """Newest runs of the study, then of the other studies. Runs that this version cannot read are passed over."""
    for name in sorted(studies(store), key=lambda name: name != study):
        for number in numbers(store, name)[: -RUNS - 1 : -1]:
            try:
                run = read_run(store, name, number)
                sizes = sizes_of_run(store, Study.model_validate(run.config), run)
            except (BadInput, ValidationError):
                continue
            if sizes is not None:
                yield run, sizes
