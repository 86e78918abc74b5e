"""Quality of SAEs beside its bars: python -m bench.sae_quality [--only SECTION] [--quick] [--seeds N] ...

Every result is a mean over the seeds, with their range. Within a comparison all SAEs have the same rows and the same
number of draws, and are compared at equal held-out L0: codes below a cut are dropped, so that k are left per row. Cuts
that the SAEs bring themselves are judged in the section l0. Writes bench/results/sae_quality_SECTION.json for each
section, and ends with 1 when a bar is not met.

modality   modality scores of planted concepts by `init`, after a short and a long training
jumprelu   JumpReLU against BatchTopK
start      the first logged R2 of every architecture
defaults   the default batch size and learning rate against the best of a sweep, at several numbers of pairs
rule       the default learning rate against the best of a sweep, at several numbers of steps and several widths
noise      the default noise against none and other amounts, at several numbers of pairs
l0         held-out L0 over k, at several numbers of pairs
peers      other libraries, each with the best learning rate of its own sweep (needs .venv-peers and --store)
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from bench import bars, quality_peers
from bench.bars import Bar
from bench.quality_cases import Case, Figures, at_l0, demo, measure, vlm_like
from sae import Settings, train
from sae.architectures import ARCHITECTURES
from sae.budget import Budget, budget

ROOT = Path(__file__).parents[1]
RULE_BATCH = 256
MARGINS = {"r2": 0.01, "mcc": 0.02}  # how far the defaults may be below the best of a sweep
Options = argparse.Namespace
Values = dict[str, list[float]]  # {name of a result: its values over the seeds}


def trained(case: Case, seeds: int, **settings: Any) -> Values:
    """Results at equal L0 of SAEs trained with these settings, with `first_r2`, and `l0_own` before the cut."""
    rows = []
    for seed in range(seeds):
        done = train(*case.train, Settings(width=case.width, k=case.k, **settings), seed)
        own = measure(done.sae, case)
        figures = measure(at_l0(done.sae, case.heldout, case.k), case)
        rows.append(figures | {"first_r2": done.curve[0]["r2"], "l0_own": own["l0"]})
    return joined(rows)


def joined(rows: list[Figures]) -> Values:
    """{name: values} of one dict of results per seed."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def row(name: str, values: list[float], bar: float | None = None, *, least: bool = True) -> Bar:
    """The mean over the seeds, with their range in the name."""
    value = float(np.mean(values))
    told = f"{name} [{min(values):.3f}, {max(values):.3f}]"
    if bar is None:
        return bars.shown(told, value)
    return (bars.at_least if least else bars.at_most)(told, value, bar)


def difference(name: str, ours: list[float], theirs: list[float], bar: float | None = None) -> Bar:
    """How much larger the mean of `ours` is, with the range over the seeds."""
    return row(name, [a - b for a, b in zip(ours, theirs, strict=True)], bar)


def planted(options: Options, pairs: int | None = None) -> Case:
    """The planted case with the sizes of the command line."""
    return vlm_like(pairs or options.pairs, options.dim, options.atoms, options.k, options.heldout)


def cases(options: Options, sizes: list[int]) -> Iterator[Case]:
    """The planted cases of these numbers of pairs, and the demo if there is a store."""
    for pairs in sizes:
        yield planted(options, pairs)
    if options.store is not None:
        yield demo(options.store)


def compared(values: Values) -> list[str]:
    """The results that are compared: R2, and MCC where there is a truth."""
    return [name for name in MARGINS if name in values]


def modality(options: Options) -> Iterator[Bar]:
    """Modality scores of matched concepts: nine of ten within .05, in a short training for the default `init`."""
    case = planted(options)
    field = Settings.model_fields.get("init")
    inits = get_args(field.annotation) if field is not None else (None,)
    for epochs, length in ((options.short, "short"), (options.long, "long")):
        for init in inits:
            settings = {} if init is None else {"init": init}
            values = trained(case, options.seeds, epochs=epochs, **settings)
            is_default = field is None or init == field.default
            name = f"{case.name}, {epochs} epochs ({length}), init {init or 'of this version'}"
            bar = 0.9 if length == "long" or is_default else None
            yield row(f"{name}: median error of modality scores", values["score_error"])
            yield row(f"{name}: share of the scores within .05", values["score_within"], bar)
            yield row(f"{name}: share of the atoms matched at .8", values["matched"])


def jumprelu(options: Options) -> Iterator[Bar]:
    """R2 of JumpReLU must be at least that of BatchTopK, with less than 1 % dead."""
    case = planted(options)
    both = {name: trained(case, options.seeds, architecture=name) for name in ("batchtopk", "jumprelu")}
    for name, values in both.items():
        for figure in ("r2", "mcc", "l0_own", "dead"):
            yield row(f"{case.name}: {figure} of {name}", values[figure])
    yield difference(
        f"{case.name}: R2 of jumprelu less batchtopk's", both["jumprelu"]["r2"], both["batchtopk"]["r2"], 0
    )
    yield row(f"{case.name}: dead concepts of jumprelu", both["jumprelu"]["dead"], 0.01, least=False)


def start(options: Options) -> Iterator[Bar]:
    """The first logged R2 must be above -.5."""
    case = planted(options)
    for name in ARCHITECTURES:
        values = trained(case, options.seeds, architecture=name, epochs=options.short)
        yield row(f"{case.name}: first logged R2 of {name}", values["first_r2"], -0.5)


def chosen(case: Case) -> Budget:
    """The numbers that a training on this case gets by default."""
    return budget(len(case.train.image) + len(case.train.text), case.width)


def sweep(case: Case, options: Options) -> dict[tuple[int, float], Values]:
    """{(batch size, learning rate): figures} around the defaults: half and twice the batch, rates up to four times off.

    Every training draws as many rows as the defaults do.
    """
    own = chosen(case)
    points = {}
    for batch in (own.batch_size // 2, own.batch_size, 2 * own.batch_size):
        for factor in options.factors:
            rate = own.learning_rate * factor
            settings = {"epochs": own.epochs, "batch_size": batch, "learning_rate": min(rate, 1.0)}
            points[batch, rate] = trained(case, options.seeds, **settings)
    return points


def defaults(options: Options) -> Iterator[Bar]:
    """The defaults must come within .01 of the R2, and within .02 of the MCC, of the best of the sweep."""
    for case in cases(options, options.sizes):
        own = chosen(case)
        points = sweep(case, options)
        for (batch, rate), values in points.items():
            for figure in compared(values):
                yield row(f"{case.name}: {figure}, batch {batch}, learning rate {rate:.2g}", values[figure])
        mine = points.get((own.batch_size, own.learning_rate)) or trained(case, options.seeds)
        name = f"{case.name}: defaults (batch {own.batch_size}, {own.epochs} epochs, rate {own.learning_rate:g})"
        for figure in compared(mine):
            best = max(points.values(), key=lambda values, figure=figure: np.mean(values[figure]))
            yield difference(f"{name}, {figure} less the best", mine[figure], best[figure], -MARGINS[figure])


def rule(options: Options) -> Iterator[Bar]:
    """The rate that `sae.budget` chooses must come within the same margins of the best, whatever the steps and width.

    Steps vary at the smallest width, and widths at the second number of epochs, on the same vectors.
    """
    case = planted(options)
    rows = len(case.train.image) + len(case.train.text)
    trainings = [(epochs, options.widths[0]) for epochs in options.rule_epochs]
    trainings += [(options.rule_epochs[1], width) for width in options.widths[1:]]
    for epochs, width in trainings:
        own = budget(rows, width, epochs, RULE_BATCH)
        of_width = case._replace(width=width)
        settings = {"epochs": epochs, "batch_size": RULE_BATCH}
        points = {}
        for factor in options.factors:
            rate = min(own.learning_rate * factor, 1.0)
            points[rate] = trained(of_width, options.seeds, learning_rate=rate, **settings)
        name = f"{case.name}: {epochs * math.ceil(rows / RULE_BATCH)} steps, width {width}"
        for figure in compared(points[own.learning_rate]):
            best = max(points, key=lambda rate, figure=figure: np.mean(points[rate][figure]))
            told = f"{name}: {figure} with the rule's rate {own.learning_rate:.2g}, less that with the best, {best:.2g}"
            yield difference(told, points[own.learning_rate][figure], points[best][figure], -MARGINS[figure])


def noise(options: Options) -> Iterator[Bar]:
    """The noise that `sae.budget` chooses must come within the same margins of the best of several amounts."""
    for pairs in options.noise_sizes:
        case = planted(options, pairs)
        own = chosen(case).noise
        points = {amount: trained(case, options.seeds, noise=amount) for amount in sorted({0.0, own, *options.noises})}
        for figure in compared(points[own]):
            for amount, values in points.items():
                yield row(f"{case.name}: {figure}, noise {amount:g}", values[figure])
            best = max(points, key=lambda amount, figure=figure: np.mean(points[amount][figure]))
            told = f"{case.name}: {figure} with the rule's noise {own:g}, less that with"
            yield difference(f"{told} the best, {best:g}", points[own][figure], points[best][figure], -MARGINS[figure])
            bar = 0 if own >= 0.1 else None  # less noise changes less than the seeds do
            yield difference(f"{told}out noise", points[own][figure], points[0.0][figure], bar)


def l0(options: Options) -> Iterator[Bar]:
    """Held-out L0 by the threshold that an SAE brings must be within 5 % of k."""
    for pairs in options.l0_sizes:
        case = planted(options, pairs)
        values = trained(case, options.seeds)
        yield row(f"{case.name}: held-out L0 over k", [value / case.k for value in values["l0_own"]])
        off = [abs(value / case.k - 1) for value in values["l0_own"]]
        yield row(f"{case.name}: held-out L0 over k, distance from 1", off, 0.05, least=False)


def peer(case: Case, library: str, rate: float, seed: int, options: Options) -> Figures:
    """Results of another library's SAE, with the batch size and the epochs of this project's defaults."""
    own = chosen(case)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name in ("image", "text"):
            files.append(f"{folder}/{name}.npy")
            np.save(files[-1], getattr(case.train, name))
        spec = {
            "library": library, "train": files, "out": folder, "rows": sum(map(len, case.train)),
            "dim": int(case.train.image.shape[1]), "width": case.width, "k": case.k,
            "batch": own.batch_size, "epochs": own.epochs, "learning_rate": rate,
            "seed": seed,
        }  # fmt: skip
        command = [str(options.peers_python), "-m", "bench.quality_peers", json.dumps(spec)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            raise SystemExit(f"{library}: the training failed\n{finished.stderr[-3000:]}")
        net = quality_peers.load(library, Path(folder), case.k)
    return measure(at_l0(net, case.heldout, case.k), case)


def peers(options: Options) -> Iterator[Bar]:
    """R2 and MCC must be above those of each library, at the best of the learning rates that are tried with it.

    The libraries hold no rows back for a calibration. So this project is judged twice: with its defaults, which train
    on nine tenths of the rows, and on all rows.
    """
    for case in cases(options, [options.pairs]):
        defaults, ours = trained(case, options.seeds), trained(case, options.seeds, calibration_share=0.0)
        figures = compared(ours)
        for figure in (*figures, "l0"):
            yield row(f"{case.name}: {figure} of this project's defaults", defaults[figure])
            yield row(f"{case.name}: {figure} of this project on all rows", ours[figure])
        for library in quality_peers.LIBRARIES:
            points = [
                joined([peer(case, library, rate, seed, options) for seed in range(options.seeds)])
                for rate in options.peer_rates
            ]
            for figure in figures:
                best = max(points, key=lambda values, figure=figure: np.mean(values[figure]))
                yield row(f"{case.name}: {figure} of {library}, at an L0 of {np.mean(best['l0']):.2f}", best[figure])
                for told, own in (("of the defaults", defaults), ("on all rows", ours)):
                    yield difference(f"{case.name}: {figure} {told} less {library}'s", own[figure], best[figure], 0)


SECTIONS: dict[str, Callable[[Options], Iterator[Bar]]] = {
    "modality": modality, "jumprelu": jumprelu, "start": start, "defaults": defaults, "rule": rule,
    "noise": noise, "l0": l0, "peers": peers,
}  # fmt: skip
#: Sizes of a part that ends in minutes on one core. The bars are meant for the full sizes.
QUICK = {
    "pairs": 4000, "dim": 64, "atoms": 256, "k": 8, "heldout": 1500, "long": 20, "sizes": [2000],
    "l0_sizes": [1500, 5000], "seeds": 2, "factors": [0.5, 1.0, 2.0], "peer_rates": [1e-3, 4e-3],
    "rule_epochs": [20, 60], "widths": [256, 512], "noise_sizes": [1000, 4000], "noises": [0.0, 0.2],
}  # fmt: skip


def parsed(arguments: list[str] | None = None) -> Options:
    """The options of the command line. --quick changes the defaults of the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="section; may be repeated")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    for name, default, text in (
        ("seeds", 3, "SAEs per setting"), ("pairs", 40_000, "training pairs"), ("heldout", 4000, "held-out pairs"),
        ("dim", 256, "dimensions"), ("atoms", 2048, "planted atoms, and concepts of the SAEs"),
        ("k", 16, "codes per row"), ("short", 2, "epochs of a short training"),
        ("long", 20, "epochs of a long training"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 50_000, 500_000], help="pairs of `defaults`")
    parser.add_argument("--l0-sizes", type=int, nargs="+", default=[1500, 5000, 50_000], help="pairs of `l0`")
    parser.add_argument("--rule-epochs", type=int, nargs="+", default=[2, 7, 25, 70], help="of `rule`")
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 1024, 4096], help="of `rule`")
    parser.add_argument("--noise-sizes", type=int, nargs="+", default=[1500, 5000, 50_000], help="pairs of `noise`")
    parser.add_argument("--noises", type=float, nargs="+", default=[0, 0.05, 0.1, 0.2, 0.3, 0.5], help="of `noise`")
    parser.add_argument("--factors", type=float, nargs="+", default=[0.25, 0.5, 1.0, 2.0, 4.0], help="of the rate")
    parser.add_argument(
        "--peer-rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3, 1e-2], help="tried with peers"
    )
    parser.add_argument("--store", type=Path, help="a store with the finished demo, to compare with peers on it too")
    parser.add_argument("--peers-python", type=Path, default=ROOT / ".venv-peers" / "bin" / "python")
    if "--quick" in (sys.argv[1:] if arguments is None else arguments):
        parser.set_defaults(**QUICK)
    return parser.parse_args(arguments)


def main() -> int:
    """Measure, print, write."""
    options = parsed()
    torch.set_num_threads(1)
    missed = 0
    for name in options.only or SECTIONS:
        rows = []
        for figure in SECTIONS[name](options):
            print(bars.line(figure), file=sys.stderr, flush=True)
            rows.append(figure)
        missed |= bars.finish(f"sae_quality_{name}", rows)
    return missed


if __name__ == "__main__":
    sys.exit(main())
