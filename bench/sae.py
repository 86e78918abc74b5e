"""Speed of the SAE trainer beside its peers, on this machine: python -m bench.sae [--quick] [--only PART] [--store DIR]

Every run is a fresh process; libraries alternate; a rate is the median of the runs, with held-out R2 beside it. Prints
one table and writes bench/results/sae.json, a list of {name, value, unit, bar, holds}. Runs that are done stay in
bench/results/sae_runs.json, so that the bench can be done part by part; --fresh forgets them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.sae_data import planted

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
R2_MARGIN = 0.005  # held-out R2 may be so much lower than the peer's

Row = dict[str, Any]
Spec = dict[str, Any]

#: d, C, k, batch and steps of the comparisons with peers.
SIZES: dict[str, Spec] = {
    "512": {"dim": 512, "width": 4096, "k": 20, "batch": 2048, "steps": 120, "rows": 122_880},
    "768": {"dim": 768, "width": 8192, "k": 20, "batch": 2048, "steps": 40, "rows": 81_920},
}
LEARNING_RATE = 1e-3  # ours
HELD_OUT = 10_240  # rows
BARS = {("512", "bfloat16"): 8.0, ("512", "float32"): 4.0, ("768", "bfloat16"): 8.0}


class Runs:
    """Finished measurements by name, on disk after each."""

    def __init__(self, path: Path, python: dict[str, Path], threads: int) -> None:
        self.path, self.python, self.threads = path, python, threads
        self.done: dict[str, list[Row]] = json.loads(path.read_text()) if path.exists() else {}

    def run(self, name: str, spec: Spec, repeat: int) -> None:
        """Measure once in a fresh process, unless that repeat is there."""
        if len(self.done.get(name, [])) > repeat:
            return
        spec = {"threads": self.threads, **spec}
        environment = {**os.environ, "OMP_NUM_THREADS": str(spec["threads"]), "PYTHONPATH": str(ROOT)}
        python = self.python["ours" if spec["library"] == "ours" else "peers"]
        command = [str(python), "-m", "bench.sae_run", json.dumps(spec)]
        finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            raise SystemExit(f"{name}: the run failed\n{finished.stderr[-4000:]}")
        found = json.loads(finished.stdout.splitlines()[-1])
        self.done.setdefault(name, []).append(found)
        self.path.write_text(json.dumps(self.done, indent=1))
        print(f"  {name} run {repeat + 1}: {', '.join(f'{k} {v:.4g}' for k, v in found.items())}", file=sys.stderr)

    def median(self, name: str, key: str) -> float | None:
        """The median of a figure over the runs so far."""
        return statistics.median(row[key] for row in self.done[name]) if self.done.get(name) else None


def vectors(folder: Path, size: Spec, seed: int = 0) -> dict[str, list[str]]:
    """Files of training and held-out rows of one size."""
    whole = planted(folder, size["rows"] + HELD_OUT, size["dim"], size["width"] // 2, seed)
    found: dict[str, list[str]] = {"train": [], "heldout": []}
    for name, rows in whole._asdict().items():
        cut = size["rows"] // 2
        for part, block in (("train", rows[:cut]), ("heldout", rows[cut:])):
            file = folder / f"{part}-{name}-{size['rows']}x{size['dim']}.npy"
            if not file.exists():
                np.save(file, block)
            found[part].append(str(file))
    return found


def compare(runs: Runs, folder: Path, size_name: str, peers: list[str], dtypes: list[str], repeats: int) -> None:
    """Peers and ours in turn, `repeats` times."""
    size = SIZES[size_name]
    spec = {**size, **vectors(folder, size), "warmup": 5}
    for repeat in range(repeats):
        for peer in peers:
            runs.run(f"{peer} {size_name}", {**spec, "library": peer}, repeat)
        for dtype in dtypes:
            options = {"library": "ours", "learning_rate": LEARNING_RATE, "dtype": dtype}
            runs.run(f"ours {dtype} {size_name}", {**spec, **options}, repeat)


def comparison_rows(runs: Runs, size_name: str, peers: list[str]) -> list[Row]:
    """Rates, held-out R2 and the ratios with their bars."""
    rows = []
    size = SIZES[size_name]
    title = f"d={size['dim']} C={size['width']} k={size['k']}"
    for name in [f"{peer} {size_name}" for peer in peers] + [f"ours {d} {size_name}" for d in ("float32", "bfloat16")]:
        if runs.done.get(name):
            label = f"{title}: {name.rpartition(' ')[0]}"
            rows.append(_row(f"{label}, rate", runs.median(name, "rows_per_second"), "rows/s"))
            rows.append(_row(f"{label}, held-out R2", runs.median(name, "r2"), ""))
            rows.append(_row(f"{label}, held-out L0", runs.median(name, "l0"), "codes a row"))
    for peer in peers:
        for dtype in ("bfloat16", "float32"):
            theirs, mine = f"{peer} {size_name}", f"ours {dtype} {size_name}"
            if not (runs.done.get(theirs) and runs.done.get(mine)):
                continue
            ratio = runs.median(mine, "rows_per_second") / runs.median(theirs, "rows_per_second")
            bar = BARS.get((size_name, dtype))
            rows.append(_row(f"{title}: {dtype} against {peer}", ratio, "times", bar, at_least=True))
            lead = runs.median(mine, "r2") - runs.median(theirs, "r2")
            rows.append(_row(f"{title}: {dtype}, R2 above {peer}'s", lead, "", -R2_MARGIN, at_least=True))
    return rows


def _row(name: str, value: float, unit: str, bar: float | None = None, at_least: bool = True) -> Row:
    holds = None if bar is None else bool(value >= bar if at_least else value <= bar)
    return {"name": name, "value": value, "unit": unit, "bar": bar, "holds": holds}


def cpu() -> str:
    """The processor's name, and which of the instructions that matter here it has."""
    text = Path("/proc/cpuinfo").read_text()
    fields = dict(
        line.split("\t: ", 1) for line in text.partition("\n\n")[0].replace("\t\t", "\t").splitlines() if "\t: " in line
    )
    flags = fields.get("flags", "").split()
    return f"{fields.get('model name', 'unknown')}: " + ", ".join(f"{f} {'yes' if f in flags else 'no'}" for f in FLAGS)


def table(rows: list[Row]) -> str:
    """One line a figure."""
    lines = []
    for row in rows:
        verdict = {None: "", True: "holds", False: "MISSED"}[row["holds"]]
        bar = "" if row["bar"] is None else f"bar {row['bar']:g}"
        lines.append(f"{verdict:7} {row['value']:12,.3f} {row['unit']:12} {bar:10} {row['name']}")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one run of each instead of five")
    parser.add_argument("--fresh", action="store_true", help="forget the runs that are done")
    parser.add_argument("--repeats", type=int, help="runs of each (default 5, with --quick 1)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", action="append", choices=["512", "768"])
    parser.add_argument("--peer", action="append", choices=["overcomplete", "dictionary_learning"])
    parser.add_argument("--dtype", action="append", choices=["float32", "bfloat16"])
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON)
    parser.add_argument("--data", type=Path, default=RESULTS / "sae_data", help="where the vectors are kept")
    given = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "sae_runs.json"
    if given.fresh:
        path.unlink(missing_ok=True)
    repeats = given.repeats or (1 if given.quick else 5)
    peers = given.peer or ["overcomplete", "dictionary_learning"]
    runs = Runs(path, {"ours": Path(sys.executable), "peers": given.peers_python}, given.threads)
    print(f"{cpu()}; {given.threads} threads", file=sys.stderr)
    for size in given.only or list(SIZES):
        compare(runs, given.data, size, peers, given.dtype or ["float32", "bfloat16"], repeats)
    rows = [row for size in SIZES for row in comparison_rows(runs, size, peers)]
    print(f"{cpu()}; {given.threads} threads")
    print(table(rows))
    (RESULTS / "sae.json").write_text(json.dumps(rows, indent=1))
    return 0 if all(row["holds"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
