"""Seconds of a study that is run again without changes, of a first error, and of one SQL query, with their bars.

python bench/rerun.py --store DIR [--study studies/demo.toml]

Run it on a store with the finished study, while nothing else is running. Prints one line per result, writes
bench/results/rerun.json, and ends with 1 when a bar is not met.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bars import Bar, at_most, finish, shown

NOTHING, ERROR, TASK, STAGE, ASK, JUDGE = 2.0, 3.0, 0.030, 1.5, 1.5, 0.020  # seconds
REPEATS = 5
QUESTION = "from top_bridges('emoji-clip', 'main', 0, 10)"
COMMAND = [str(Path(sys.executable).with_name("bridgescope"))]


def rerun(study: Path, store: Path) -> list[Bar]:
    """Run a stage of a finished study again. Returns the number of uncached tasks and the seconds of cached tasks."""
    from flows.config import load_study
    from flows.study import run_study

    finished = run_study(load_study(study), store, only="export", progress=False)
    again = [entry for entry in finished.run.entries if entry.is_task and not entry.cached]
    cached = [entry.seconds for entry in finished.run.entries if entry.cached]
    rows = [
        at_most(f"tasks other than scan and ledger that were not cached, of {len(cached) + len(again)}", len(again), 0),
        shown("Prefect startup", finished.prefect_seconds, "s"),
        shown("median cached task", statistics.median(cached), "s"),
        at_most("slowest cached task", max(cached), TASK, "s"),
    ]
    rows += [
        at_most(f"stage {stage.stage}, {stage.tasks} tasks", stage.seconds, STAGE, "s") for stage in finished.stages
    ]
    return [*rows, shown("the run as a whole", finished.run.seconds, "s")]


def command(study: Path, store: Path) -> list[Bar]:
    """Seconds of `bridgescope run` when there is nothing to do, and of its error when the source is not there."""
    took = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        done = subprocess.run([*COMMAND, "run", study, "--store", store], check=True, capture_output=True, text=True)
        took.append(time.perf_counter() - began)
        assert "nothing new" in done.stderr, done.stderr
    with tempfile.TemporaryDirectory() as elsewhere:
        bad = Path(elsewhere) / "bad.toml"
        bad.write_text(
            'name = "bad"\n[pairs]\nsource = "embeddings"\npath = "nowhere"\n[[models]]\nname = "own"\n'
            'spec = "embeddings:nowhere"\n[[saes]]\nname = "main"\nwidth = 24\nk = 3\n'
        )
        began = time.perf_counter()
        failed = subprocess.run([*COMMAND, "run", bad, "--store", elsewhere], check=False, capture_output=True)
        error = time.perf_counter() - began
        assert failed.returncode == 2, failed.stderr
    return [
        at_most(f"bridgescope run, nothing new, a process, median of {REPEATS}", statistics.median(took), NOTHING, "s"),
        at_most("bridgescope run, the first error of a source that is not there", error, ERROR, "s"),
    ]


def ask(store: Path) -> list[Bar]:
    """Seconds of one query from a folder outside the store, including the start of the process."""
    took = []
    with tempfile.TemporaryDirectory() as elsewhere:
        for _ in range(REPEATS):
            began = time.perf_counter()
            environment = {**os.environ, "BRIDGESCOPE_STORE": str(store)}
            command = [*COMMAND, "sql", QUESTION, "--study", "demo"]
            subprocess.run(command, cwd=elsewhere, env=environment, check=True, capture_output=True)
            took.append(time.perf_counter() - began)
    return [at_most(f"bridgescope sql, a process of its own, slowest of {REPEATS}", max(took), ASK, "s")]


def judge(store: Path) -> list[Bar]:
    """Seconds that the guard of SQL takes to check one long query."""
    from storage import open_catalog
    from storage.guard import check

    query = "\nUNION ALL\n".join(
        f"SELECT '{i}' AS m, * FROM stability('emoji-clip', 'main') WHERE alive > {i}" for i in range(20)
    )
    seconds = []
    with open_catalog(store, "demo", guarded=True) as con:
        for _ in range(REPEATS):
            began = time.perf_counter()
            check(con, query)
            seconds.append(time.perf_counter() - began)
    return [at_most(f"the guard on a query of 20 parts, median of {REPEATS}", statistics.median(seconds), JUDGE, "s")]


def main() -> int:
    """Measure, print and write the results; return 1 when a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--study", type=Path, default=Path(__file__).parents[1] / "studies" / "demo.toml")
    arguments = parser.parse_args()
    store = arguments.store.resolve()
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    return finish("rerun", command(arguments.study, store) + rerun(arguments.study, store) + ask(store) + judge(store))


if __name__ == "__main__":
    sys.exit(main())
