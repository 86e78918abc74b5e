"""Cost of one more seed in the stage analyze, and whether the results equal those of a full recomputation.

python bench/analyze.py --store DIR [--study studies/demo.toml]

Copies a store with the finished study by hard links, trains one more seed of every setting there, and analyses it
twice: on the parts of the seeds before, and from nothing. Frontiers are left out. Prints one line per result, writes
bench/results/analyze.json, and ends with 1 when a bar is not met. Run it while nothing else is running.
"""

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bars import Bar, at_most, finish, shown

PARTS = (
    "spaces",
    "measures",
    "names",
    "matchings",
    "partners",
    "correspondences",
    "tables",
)  # folders that the stage analyze writes
SHARE = 0.6  # of a full analysis


def copy_of(store: Path, folder: Path) -> Path:
    """A copy of a store without the datasets that the stage analyze made."""
    ignore = shutil.ignore_patterns(*PARTS, "*.lock", "report", "explorers")
    return Path(shutil.copytree(store, folder, copy_function=os.link, ignore=ignore))


def given_of(study: Any, store: Path) -> Any:
    """The study with the datasets of its last run from the stages before analyze."""
    from flows.jobs.analyze import ANALYZED
    from flows.jobs.job import Given
    from storage.runs import State, last_run

    last, state = last_run(store, study.name), State()
    state.add(*(entry for entry in last.entries if entry.kind in (*ANALYZED, "model")))
    return Given(study, state, last, store)


def make(given: Any, stage: str) -> dict[str, list[float]]:
    """Run a stage without Prefect. Returns the seconds of the jobs whose datasets were made, by kind."""
    from flows.jobs.job import STEPS
    from tasks.stage import Runtime

    runtime, seconds = Runtime(store=given.store, progress=False), {}
    for step in STEPS[stage]:
        for job in step(given):
            if job.key.kind != "frontier":
                made, began = job.lookup(given.store) is None, time.perf_counter()
                given.state.add(job.entry(job.stage.make(runtime, **job.arguments())))
                if made:
                    seconds.setdefault(job.key.kind, []).append(time.perf_counter() - began)
    return seconds


def total(seconds: dict[str, list[float]]) -> float:
    """Seconds of all jobs."""
    return sum(map(sum, seconds.values()))


def tables_of(given: Any) -> dict[str, bytes]:
    """The bytes of every table."""
    (entry,) = given.state.of("analyze")
    return {path.name: path.read_bytes() for path in (given.store / entry.dataset.path).glob("*.parquet")}


def more_seeds(study: Any) -> Any:
    """The study with one more seed in every setting that is trained."""
    settings = [
        one.model_copy(update={"seeds": [*one.seeds, max(one.seeds) + 1]}) if hasattr(one, "width") else one
        for one in study.saes
    ]
    return study.model_copy(update={"saes": settings})


def figures(store: Path, study: Any, work: Path) -> list[Bar]:
    """Analyse the study, then one more seed of it, then all seeds from nothing."""
    from flows.jobs.analyze import ANALYZED

    one = copy_of(store, work / "one")
    first = make(given_of(study, one), "analyze")
    grown = given_of(more_seeds(study), one)
    for stage in ("train", "export"):
        make(grown, stage)
    other = copy_of(one, work / "other")
    added = make(grown, "analyze")
    whole = grown._replace(store=other, state=type(grown.state)())
    whole.state.add(*(entry for entry in grown.state.values() if entry.kind in ANALYZED))
    full = make(whole, "analyze")
    mine, theirs = tables_of(grown), tables_of(whole)
    rows = [
        shown(f"the seeds before, first in its process: {len(first['measures'])} SAEs", total(first), "s"),
        shown(f"all seeds, from nothing: {len(full['measures'])} SAEs", total(full), "s"),
        shown(f"one more seed: {len(added['measures'])} SAEs", total(added), "s"),
        at_most("one more seed, as a share of all seeds from nothing", total(added) / total(full), SHARE),
        at_most("tables that differ from those of all seeds", sum(mine[name] != theirs[name] for name in theirs), 0),
    ]
    for kind, seconds in full.items():
        rows.append(shown(f"slowest job of {len(seconds)} of kind {kind}", max(seconds), "s"))
    rows.append(shown("peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "GB"))
    return rows


def main() -> int:
    """Measure, print and write the results; return 1 when a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--study", type=Path, default=Path(__file__).parents[1] / "studies" / "demo.toml")
    arguments = parser.parse_args()
    from flows.config import load_study

    store = arguments.store.resolve()
    with tempfile.TemporaryDirectory(dir=store.parent) as work:
        return finish("analyze", figures(store, load_study(arguments.study), Path(work)))


if __name__ == "__main__":
    sys.exit(main())
