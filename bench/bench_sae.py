"""Speed of the SAE trainer and of two other libraries (its peers): python -m bench.bench_sae [--quick] [--only PART]

Every run is a new process, and the libraries take turns. A rate is the median over the runs; held-out R2 is shown
beside it. Prints one table and writes bench/results/sae.json, a list of {name, value, unit, bar, holds}. Finished runs
are kept in bench/results/sae_runs.json, so that the bench can be run part by part; --fresh discards them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import bars
from bench.bars import RESULTS, Bar
from bench.sae_data import planted

ROOT = Path(__file__).parents[1]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
PEERS = ("overcomplete", "dictionary_learning")
DTYPES = ("bfloat16", "float32")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
# `sae.train` recommends this setting. The peers run without it: it does not help them, and slows overcomplete a little.
ENVIRONMENT = {"OMP_WAIT_POLICY": "passive"}
R2_MARGIN = 0.005  # this trainer's held-out R2 may be lower than a peer's by at most this
HELD_OUT = 10_240  # rows
SEEDS = 4
GROWTH = (100_000, 300_000, 600_000)
GROWTH_MARGIN = 0.15

Row = dict[str, Any]
Spec = dict[str, Any]

#: Settings of the comparisons with peers. The keys, which are values of d, name the comparisons.
SIZES: dict[str, Spec] = {
    "512": {"dim": 512, "width": 4096, "k": 20, "batch": 2048, "epochs": 4, "rows": 61_440, "warmup": 5},
    "768": {"dim": 768, "width": 8192, "k": 20, "batch": 2048, "epochs": 8, "rows": 20_480, "warmup": 5},
}
#: Lowest allowed ratio of this trainer's rate to a peer's, by comparison and encoder dtype.
BARS = {("512", "bfloat16"): 10.0, ("512", "float32"): 5.0, ("768", "bfloat16"): 10.0, ("768", "float32"): 5.0}
LEARNING_RATE = 1e-3  # of this trainer; each peer has its own default
GROWN: Spec = {"dim": 768, "width": 8192, "k": 20, "batch": 2000, "epochs": 1, "warmup": 5}
DEMO: Spec = {"width": 256, "k": 8, "batch": 256, "epochs": 60, "warmup": 5}  # as in studies/demo.toml


class Bench:
    """Finished measurements by name. They are written to disk after each run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.path, self.data = RESULTS / "sae_runs.json", arguments.data
        self.peers_python, self.threads = arguments.peers_python, arguments.threads
        self.repeats = arguments.repeats or (1 if arguments.quick else 5)
        self.peers, self.dtypes, self.store = arguments.peer or PEERS, arguments.dtype or DTYPES, arguments.store
        if arguments.fresh:
            self.path.unlink(missing_ok=True)
        self.done: dict[str, list[Row]] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def run(self, name: str, spec: Spec, repeat: int = 0) -> None:
        """Measure once in a new process, unless this repeat is finished."""
        if len(self.done.get(name, [])) > repeat:
            return
        spec = {"threads": self.threads, "dtype": "bfloat16", "learning_rate": LEARNING_RATE, **spec}
        if spec["library"] in PEERS:
            del spec["learning_rate"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(spec["threads"]), "PYTHONPATH": str(ROOT)}
        if spec["library"] not in PEERS:
            environment |= ENVIRONMENT
        python = self.peers_python if spec["library"] in PEERS else sys.executable
        command = [str(python), "-m", "bench.sae_run", json.dumps(spec)]
        finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            raise SystemExit(f"{name}: the run failed\n{finished.stderr[-4000:]}")
        figures = json.loads(finished.stdout.splitlines()[-1])
        self.done.setdefault(name, []).append(figures)
        self.path.write_text(json.dumps(self.done, indent=1))
        print(f"  {name} run {repeat + 1}: {', '.join(f'{k} {v:.4g}' for k, v in figures.items())}", file=sys.stderr)

    def median(self, name: str, key: str) -> float:
        """The median of a result over the runs so far."""
        return float(statistics.median(row[key] for row in self.done[name]))


def planted_files(bench: Bench, size: Spec) -> Spec:
    """The settings of a size, with the files of its training and held-out rows, which are made if missing."""
    whole = planted(bench.data, size["rows"] + HELD_OUT, size["dim"], size["width"] // 2)
    return {**size, **_files(bench.data, f"{size['rows']}x{size['dim']}", *(_cut(part, size) for part in whole))}


def _cut(rows: np.ndarray, size: Spec) -> tuple[np.ndarray, np.ndarray]:
    return rows[: size["rows"] // 2], rows[size["rows"] // 2 :]


def _files(folder: Path, name: str, *modalities: tuple[np.ndarray, np.ndarray]) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {"train": [], "heldout": []}
    for modality, parts in zip(("image", "text"), modalities, strict=True):
        for side, rows in zip(files, parts, strict=True):
            file = folder / f"{side}-{modality}-{name}.npy"
            if not file.exists():
                np.save(file, rows)
            files[side].append(str(file))
    return files


def demo_files(bench: Bench, model: str) -> Spec:
    """The settings of the demo, with files of the embeddings of one of its models, read from the store."""
    from storage.rows import select
    from storage.runs import last_run

    run = last_run(bench.store, "demo")
    if run is None:
        raise SystemExit(f"no study demo has run in {bench.store}: make demo")
    pairs = [entry.dataset for entry in run.of("acquire")]
    embeddings = [entry.dataset for entry in run.of("embed", model=model)]
    heldout = run.config["pairs"]["heldout"]
    sides = [select(bench.store, pairs, embeddings, heldout, side) for side in ("train", "heldout")]
    bench.data.mkdir(parents=True, exist_ok=True)
    files = _files(bench.data, f"demo-{model}", *((getattr(s, m) for s in sides) for m in ("image", "text")))
    rows = len(sides[0].image) + len(sides[0].text)
    return {**DEMO, **files, "rows": rows, "dim": int(sides[0].image.shape[1])}


def compare(bench: Bench, spec: Spec, name: str) -> None:
    """Train with the peers and with this project in turn."""
    for repeat in range(bench.repeats):
        for peer in bench.peers:
            bench.run(f"{peer} {name}", {**spec, "library": peer}, repeat)
        for dtype in bench.dtypes:
            bench.run(f"ours {dtype} {name}", {**spec, "library": "ours", "dtype": dtype}, repeat)


def compare_demo(bench: Bench) -> None:
    """Compare the peers and this project on the embeddings of the demo's store, if --store is set."""
    if bench.store is not None:
        compare(bench, demo_files(bench, "emoji-clip"), "demo")


def step_parts(bench: Bench) -> None:
    """Time the parts of a training step, and the encoder's matrix product alone, in both dtypes."""
    spec = planted_files(bench, SIZES["512"])
    for repeat in range(bench.repeats):
        for dtype in bench.dtypes:
            bench.run(f"parts {dtype}", {**spec, "library": "parts", "dtype": dtype}, repeat)


def seeds(bench: Bench) -> None:
    """Train four seeds in parallel, and one after another."""
    spec = planted_files(bench, SIZES["512"]) | {"seeds": SEEDS}
    for repeat in range(min(bench.repeats, 3)):  # each repeat trains four SAEs
        for arrangement in ("in turn", "together"):
            bench.run(f"seeds {arrangement}", {**spec, "library": arrangement}, repeat)


def grow(bench: Bench) -> None:
    """Train one epoch on each of three numbers of memory-mapped rows. Peak memory is reported for the largest."""
    for rows in GROWTH:
        bench.run(f"rows {rows}", {**planted_files(bench, GROWN | {"rows": rows}), "library": "ours"})


def comparison_rows(bench: Bench, name: str, title: str) -> list[Bar]:
    """Rows of one comparison with peers: rates, held-out R2 and L0, and ratios with their bars."""
    rows = []
    for run in [f"{peer} {name}" for peer in PEERS] + [f"ours {dtype} {name}" for dtype in DTYPES]:
        if run in bench.done:
            label = f"{title}: {run.removesuffix(f' {name}')}"
            rows.append(_row(f"{label}, rate", bench.median(run, "rows_per_second"), "rows/s"))
            rows += [
                _row(f"{label}, held-out {key}", bench.median(run, column), unit)
                for key, column, unit in (("R2", "r2", ""), ("L0", "l0", "codes"))
            ]
    for peer in PEERS:
        for dtype in DTYPES:
            theirs, mine = f"{peer} {name}", f"ours {dtype} {name}"
            if theirs in bench.done and mine in bench.done:
                ratio = bench.median(mine, "rows_per_second") / bench.median(theirs, "rows_per_second")
                rows.append(_row(f"{title}: {dtype} against {peer}", ratio, "times", BARS.get((name, dtype))))
                lead = bench.median(mine, "r2") - bench.median(theirs, "r2")
                rows.append(_row(f"{title}: {dtype}, R2 less {peer}'s", lead, "", -R2_MARGIN))
    return rows


def parts_rows(bench: Bench) -> list[Bar]:
    """Rows of the training step: milliseconds per part, and the time of a step relative to the encoder's product."""
    rows = []
    for dtype in DTYPES:
        name = f"parts {dtype}"
        if name in bench.done:
            keys = bench.done[name][0]
            rows += [_row(f"step, {dtype}: {key}", bench.median(name, key), "ms") for key in keys]
            ratio = bench.median(name, "step") / bench.median(name, "gemm bfloat16")
            bar = 2.2 if dtype == "bfloat16" else None
            rows.append(_row(f"step, {dtype}, over the bf16 product alone", ratio, "times", bar, at_least=False))
            if dtype == "float32":
                ratio = bench.median(name, "step") / bench.median(name, "gemm float32")
                rows.append(_row("step, float32, over the float32 product alone", ratio, "times"))
    return rows


def other_rows(bench: Bench) -> list[Bar]:
    """Rows of seeds trained in parallel, of memory, and of growth with the number of rows."""
    rows = []
    if "seeds together" in bench.done:
        seconds = {name: bench.median(f"seeds {name}", "seconds") for name in ("in turn", "together")}
        rows.append(
            _row(f"{SEEDS} seeds side by side against in turn", seconds["in turn"] / seconds["together"], "times", 1.2)
        )
        apart = abs(bench.median("seeds together", "r2") - bench.median("seeds in turn", "r2"))
        rows.append(_row(f"{SEEDS} seeds: difference of mean R2", apart, "", 0.001, at_least=False))
    grown = [f"rows {count}" for count in GROWTH if f"rows {count}" in bench.done]
    rows += [_row(f"{name}, d=768 C=8192: rate", bench.median(name, "rows_per_second"), "rows/s") for name in grown]
    if len(grown) == len(GROWTH):
        peak = bench.median(grown[-1], "peak_gb")
        rows.append(_row("peak memory, 600,000 x 768 float16 on disk, C=8192", peak, "GB", 4.0, at_least=False))
        rates = [bench.median(name, "rows_per_second") for name in grown]
        apart = 1 - min(rates) / max(rates)
        rows.append(_row("growth: slowest rate below the fastest by", apart, "", GROWTH_MARGIN, at_least=False))
    return rows


def _row(name: str, value: float, unit: str, bar: float | None = None, at_least: bool = True) -> Bar:
    if bar is None:
        return bars.shown(name, value, unit)
    return (bars.at_least if at_least else bars.at_most)(name, value, bar, unit)


def cpu() -> str:
    """The processor's name, and its instruction sets that affect the results."""
    lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    return f"{fields.get('model name', 'unknown')}: " + ", ".join(f"{f} {'yes' if f in flags else 'no'}" for f in FLAGS)


PARTS: dict[str, Callable[[Bench], None]] = {
    "512": lambda bench: compare(bench, planted_files(bench, SIZES["512"]), "512"),
    "768": lambda bench: compare(bench, planted_files(bench, SIZES["768"]), "768"),
    "demo": compare_demo,
    "parts": step_parts,
    "seeds": seeds,
    "growth": grow,
}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one run per measurement instead of five")
    parser.add_argument("--fresh", action="store_true", help="discard finished runs")
    parser.add_argument("--repeats", type=int, help="runs per measurement (default 5, with --quick 1)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", action="append", choices=list(PARTS), help="part of the bench; may be repeated")
    parser.add_argument("--peer", action="append", choices=PEERS)
    parser.add_argument("--dtype", action="append", choices=DTYPES)
    parser.add_argument("--store", type=Path, help="a store with the finished demo, to measure on its embeddings too")
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON)
    parser.add_argument("--data", type=Path, default=RESULTS / "sae_data", help="where the vectors are kept")
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    bench = Bench(arguments)
    print(f"{cpu()}; {arguments.threads} threads", file=sys.stderr)
    for part in arguments.only or PARTS:
        PARTS[part](bench)
    sizes = {"512": "d=512 C=4096 k=20", "768": "d=768 C=8192 k=20", "demo": "demo store, C=256 k=8"}
    rows = [row for name, title in sizes.items() for row in comparison_rows(bench, name, title)]
    rows += parts_rows(bench) + other_rows(bench)
    print(f"{cpu()}; {arguments.threads} threads")
    return bars.finish("sae", rows)


if __name__ == "__main__":
    sys.exit(main())
