"""Factors that correct the costs of `flows.costs` for this machine, from what the datasets in the store took.

The factor of a kind comes from the newest run that made a dataset of this kind. Runs of the same study are preferred.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flows.config import Study
from flows.costs import STARTUP, Cost, Work, cost
from flows.gpu import on_gpu
from flows.sizes import Sizes, sizes_of_run
from storage.dataset import manifest_of
from storage.errors import BadInput
from storage.runs import Entry, Run, numbers, read_run, studies

RUNS = 5  # how many of a study's newest runs are read
Sort = tuple[str, str]  #: (kind, spec of the model for embeddings or "" for other kinds)


class Factor(NamedTuple):
    """Factors by which the bytes and seconds that `flows.costs` gives for a kind are multiplied."""

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
    """The group of datasets that share a factor: all of one kind, or for embeddings all of one model."""
    return (kind, work.spec if kind == "embed" else "")


def side_by_side(kind: str, count: int, *, gpu: bool) -> int:
    """How many of `count` datasets of a kind are made at once. Seeds are trained in as many processes as cores.

    gpu: whether SAEs are trained on a GPU. There the seconds of each seed are already its share of those of all seeds.
    """
    return max(1, min(count, os.cpu_count() or 1)) if kind == "train" and not gpu else 1


def seconds_of(kind: str, costs: list[Cost], *, gpu: bool) -> float:
    """Seconds that it takes to make datasets of one kind, given the cost of each dataset. gpu: as in `side_by_side`."""
    return STARTUP.get(kind, 0.0) + sum(each.seconds for each in costs) / side_by_side(kind, len(costs), gpu=gpu)


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
            table, spent = [each for each, _ in pairs], [each for _, each in pairs]
            found.factors[sort] = _factor(sort[0], table, spent, gpu=on_gpu(sizes.study))
    return found


def _factor(kind: str, table: list[Cost], took: list[Cost], *, gpu: bool) -> Factor:
    seconds = sum(each.seconds for each in took) / side_by_side(kind, len(took), gpu=gpu)
    planned = sum(each.bytes for each in table)
    return Factor(
        sum(each.bytes for each in took) / planned if planned else 1.0,
        seconds / seconds_of(kind, table, gpu=gpu),
    )


def _took(store: Path, entry: Entry) -> Cost | None:
    """Bytes and seconds of a dataset, from its manifest. None if the dataset is gone."""
    try:
        manifest = manifest_of(store, entry.dataset)
    except BadInput:
        return None
    stored = sum(manifest["files"].values())
    return Cost(stored * (2 if entry.kind == "report" else 1), manifest["seconds"])


def _runs(store: Path, study: str) -> Iterator[tuple[Run, Sizes]]:
    """The newest runs of the study, then those of the other studies. Runs that cannot be read are left out."""
    for name in sorted(studies(store), key=lambda name: name != study):
        for number in numbers(store, name)[: -RUNS - 1 : -1]:
            try:
                run = read_run(store, name, number)
                sizes = sizes_of_run(store, Study.model_validate(run.config), run)
            except (BadInput, OSError, ValueError, KeyError, IndexError):  # some of its files may be damaged
                continue
            if sizes is not None:
                yield run, sizes
