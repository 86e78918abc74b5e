"""Kill a study at random times with SIGKILL and run it again; its tables must equal those of an uninterrupted run.

A cycle starts with an empty store. It kills a run and all processes of this run several times, then runs the study to
its end. Two tables are equal if EXCEPT ALL is empty in both directions. The columns `seconds` and `path` are not
compared.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests_support import write_study  # noqa: E402

from storage.garbage import find_garbage  # noqa: E402
from storage.runs import last_run  # noqa: E402

VOLATILE = ("seconds", "path")


def start(study: Path, store: Path, home: Path) -> subprocess.Popen[bytes]:
    """Start a run with its own Prefect home, as the leader of a new process group."""
    environment = os.environ | {"PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "flows.cli", "run", str(study), "--store", str(store)]
    with open(home / "log", "ab") as log:
        return subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a run and all its child processes with SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def through(study: Path, store: Path, home: Path) -> float:
    """Run a study to its end. Returns the seconds it took. Raises SystemExit when it fails."""
    began = time.monotonic()
    process = start(study, store, home)
    try:
        code = process.wait(timeout=1800)
    finally:
        end(process)
    if code != 0:
        raise SystemExit(f"the run ended with {code}: {(home / 'log').read_text()[-3000:]}")
    return time.monotonic() - began


def differences(reference: Path, store: Path) -> list[str]:
    """Tables that differ between the newest runs of two stores, with the numbers of rows that only one store has."""
    folders = []
    for root in (reference, store):
        run = last_run(root, "small")
        if run is None:
            return [f"{root} has no run"]
        folders.append(root / run.of("analyze")[0].dataset.path)
    expected, actual = (sorted(path.name for path in folder.glob("*.parquet")) for folder in folders)
    if expected != actual or not expected:
        return [f"other tables: {expected}, {actual}"]
    wrong = []
    with duckdb.connect() as con:
        for name in expected:
            sides = []
            for folder in folders:
                columns = con.execute(f"DESCRIBE FROM '{folder / name}'").fetchall()
                kept = ", ".join(f'"{column[0]}"' for column in columns if column[0] not in VOLATILE)
                sides.append(f"(SELECT {kept} FROM '{folder / name}')")
            both = [f"FROM {a} EXCEPT ALL FROM {b}" for a, b in (sides, sides[::-1])]
            counts = [con.execute(f"SELECT count(*) FROM ({one})").fetchone() for one in both]
            if counts != [(0,), (0,)]:
                wrong.append(f"{name}: {counts}")
    return wrong


def cycle(study: Path, reference: Path, store: Path, home: Path, kills: int, takes: float, rng: random.Random) -> str:
    """Kill a run `kills` times, run the study to its end and compare. Returns one line, or raises SystemExit."""
    landed = 0
    while landed < kills:
        process = start(study, store, home)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=rng.uniform(0.05, 1.0) * takes)
        if process.poll() is None:
            landed += 1
        else:  # the run ended before the kill: start again, and kill sooner
            shutil.rmtree(store, ignore_errors=True)
            takes *= 0.7
        end(process)
    seconds = through(study, store, home)
    wrong = differences(reference, store)
    left = [item.path for item in find_garbage(store).items]
    if wrong or left:
        raise SystemExit(f"not as the uninterrupted run: {wrong}; left over: {left}")
    return f"{kills} kills, then through in {seconds:.0f} s: tables equal, nothing left over"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--kills", type=int, default=3, help="kills a cycle")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="torture-") as scratch:
        folder = Path(scratch)
        study, home = write_study(folder), folder / "prefect"
        home.mkdir()
        through(study, folder / "warm", home)  # the first start creates Prefect's database
        takes = through(study, folder / "reference", home)
        print(f"uninterrupted: {takes:.0f} s", flush=True)
        for number in range(1, arguments.cycles + 1):
            store = folder / f"cycle{number}"
            print(
                f"cycle {number}: {cycle(study, folder / 'reference', store, home, arguments.kills, takes, rng)}",
                flush=True,
            )
            shutil.rmtree(store)
        print(f"{arguments.cycles} of {arguments.cycles} cycles ended with the tables of the uninterrupted run")


if __name__ == "__main__":
    main()
