"""Bytes and seconds of `bridgescope plan` beside those of the run, for the demo and the planted study.

Each study is planned in an empty store (from the table in flows/costs.py), run, and planned again with --force (from
the manifests of the store). Bars: bytes within 20 %, seconds within a factor of 2. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from flows.config import Study, load_study
from flows.plan import Plan, plan
from storage.dataset import manifest_of
from storage.runs import last_run

HOUSE = Path(__file__).parents[1]


def stored(store: Path, study: Study) -> int:
    """Bytes of the datasets of the newest run, and of the page that was copied beside them."""
    run = last_run(store, study.name)
    assert run is not None
    held = {e.dataset.path: e for e in run.entries if e.is_task}
    sizes = {path: sum(manifest_of(store, e.dataset)["files"].values()) for path, e in held.items()}
    return sum(sizes.values()) + sum(sizes[e.dataset.path] for e in run.of("report"))


def compare(name: str, when: str, found: Plan, size: int, seconds: float) -> bool:
    """Print one line of results. Returns whether both bars hold."""
    by_bytes, by_seconds = found.bytes / size, found.seconds / seconds
    holds = abs(by_bytes - 1) <= 0.2 and 0.5 <= by_seconds <= 2
    print(
        f"{name:8} {when:12} bytes {found.bytes / 1e6:7.1f} of {size / 1e6:7.1f} MB ({by_bytes:.2f})  "
        f"seconds {found.seconds:6.0f} of {seconds:6.0f} ({by_seconds:.2f})  {'ok' if holds else 'MISSED'}"
    )
    return holds


def measure(name: str, changes: list[str], store: Path) -> bool:
    """Plan, run and plan a study again. Returns whether the bars hold."""
    file = HOUSE / "studies" / f"{name}.toml"
    study = load_study(file, changes)
    first = plan(study, store)
    more = [word for change in changes for word in ("--set", change)]
    began = time.perf_counter()
    command = [sys.executable, "-m", "flows.cli", "run", str(file), "--store", str(store), *more]
    subprocess.run(command, check=True, cwd=HOUSE, stdout=subprocess.DEVNULL)
    seconds, size = time.perf_counter() - began, stored(store, study)
    again = plan(study, store, force=True)
    good = compare(name, "empty store", first, size, seconds)
    return compare(name, "after a run", again, size, seconds) and good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, metavar="DIR", help="an empty folder for stores and vectors"
    )
    parser.add_argument("--only", choices=("demo", "planted"))
    arguments = parser.parse_args()
    good = True
    for name in ("demo", "planted") if arguments.only is None else (arguments.only,):
        store, changes = arguments.work / f"store-{name}", list[str]()
        store.mkdir(parents=True)
        if name == "planted":
            vectors = (arguments.work / "planted").resolve()
            subprocess.run([sys.executable, "bench/planted.py", "--to", str(vectors)], check=True, cwd=HOUSE)
            changes = [f"pairs.path={vectors}", f"models.planted.spec=embeddings:{vectors}"]
        good &= measure(name, changes, store.resolve())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
