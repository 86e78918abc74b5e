"""Time and memory of all statistics of a model at the paper's scale: 118,000 images, 600,000 captions, three seeds.

Every part of the stage analyze is computed. The parts of one step run in parallel in threads of one process, one per
core; a study on one machine computes one part after another. The text encoder that scores names gives random vectors,
so its own time is left out.
"""

import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np

HELDOUT, SPLIT, MIN_PAIRS = 0.2, "all", 10  # all pairs are counted; labels and names are judged on the held-out side
DIM = 512


class Cost(NamedTuple):
    """What one call of a statistic took, while others ran beside it."""

    statistic: str
    seconds: float


class Whole(NamedTuple):
    """Seconds of every statistic and of every step, in the order in which they ended."""

    costs: list[Cost]
    steps: dict[str, float]


def encode(texts: list[str]) -> np.ndarray:
    """Random unit vectors [n, DIM] in place of the model's embeddings of texts."""
    x = np.random.default_rng(len(texts)).standard_normal((len(texts), DIM)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def timed_statistics() -> tuple[list[Cost], list[Any]]:
    """All statistics, each with a clock around it, and the list to which the clocks add."""
    from analysis import statistic

    costs: list[Cost] = []

    def clocked(one: Any) -> Any:
        def make(con: Any, analysis: Any) -> Any:
            began = time.perf_counter()
            try:
                return one.make(con, analysis)
            finally:
                costs.append(Cost(one.name, time.perf_counter() - began))

        return one._replace(make=make)

    return costs, [clocked(one) for one in statistic.statistics()]


def run(store: Path, out: Path) -> Whole:
    """Compute every part of the analysis of the run `paper-scale` of a store, and join them. Tables go to `out`."""
    from analysis import joined, statistic
    from analysis.inputs import Analysis
    from storage.dataset import Address, materialize
    from storage.runs import Entry, last_run
    from tasks.analyze import _computed

    costs, clocked = timed_statistics()
    statistic.statistics = joined.statistics = lambda: clocked  # type: ignore[assignment]
    of_run, parts, steps = last_run(store, "paper-scale"), {}, {}
    shared = [*of_run.of("acquire"), *of_run.of("labels"), *of_run.of("embed")]
    seeds = [entry.seed for entry in of_run.of("train")]

    def of(kind: str, *wanted: int) -> list[Any]:
        return [entry for entry in of_run.of(kind) if entry.seed in wanted]

    def part(kind: str, per: str, entries: list[Any], *at: int, made: Any = None, needed: Any = None) -> None:
        def body(folder: Path) -> int:
            analysis = Analysis(store, entries, folder, HELDOUT, SPLIT, MIN_PAIRS, encode=encode)
            if per == "pair":  # it reads dictionaries alone
                with duckdb.connect(config={"threads": 1}) as con:
                    return statistic.compute(con, analysis, per)
            return _computed(per, analysis, None if made is None else store / made.dataset.path, needed)

        dataset = materialize(store, Address(kind, "bench-whole", {"seeds": list(at)}, ()), body, force=True)
        names = {"sae": "main", "seed": at[0]} if at else {}
        other = {"other_seed": at[1]} if len(at) == 2 else {}
        parts[kind, *at] = Entry(kind=kind, model="planted", **names, **other, dataset=dataset)

    def step(name: str, jobs: list[Any]) -> None:
        began = time.perf_counter()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done in [pool.submit(job) for job in jobs]:
                done.result()
        steps[name] = time.perf_counter() - began

    pairs = list(itertools.combinations(seeds, 2))
    step("without codes", [
        lambda: part("space", "model", shared),
        *(lambda p=p: part("matching", "pair", of("train", *p), *p) for p in pairs),
    ])  # fmt: skip
    step("with codes", [
        *(lambda s=s: part("measures", "sae", [*shared, *of("train", s), *of("export", s)], s, made=parts["space",])
          for s in seeds),
        *(lambda p=p: part("partners", "seeds", [*shared, *of("train", *p), *of("export", *p)], *p) for p in pairs),
    ])  # fmt: skip
    step("names", [
        lambda s=s: part("names", "names", [*shared, *of("train", s), *of("export", s)], s, made=parts["measures", s],
                         needed=["concepts"])
        for s in seeds
    ])  # fmt: skip
    step("join", [lambda: joined.join(store, parts.values(), out)])
    return Whole(costs, steps)
