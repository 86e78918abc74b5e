"""Variants of a training on planted vectors, trained side by side, and a table with a line for each.

bench/dead_concepts.py and bench/modality_errors.py use it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from multiprocessing import get_context
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch

from bench import bars
from bench.quality_cases import Case, Figures, Truth, vlm_like
from sae import Settings, training
from sae.frontier import Pair

MORE = 5  # times as many other held-out rows, on which chance weighs less
Change = Callable[[Case], Any]  # a context manager, within which trainings on the case differ


class Variant(NamedTuple):
    """Settings and changes of a training."""

    settings: Mapping[str, Any] = MappingProxyType({})
    changes: tuple[Change, ...] = ()


class Sizes(NamedTuple):
    """Sizes of the planted case, as `vlm_like` takes them."""

    pairs: int
    dim: int
    atoms: int
    k: int
    heldout: int


#: Measures one SAE: (name of the variant, architecture, seed, sizes) -> figures. A function of a module, since other
#: processes call it.
Measure = Callable[[str, str, int, Sizes], Figures]


@cache
def case_of(sizes: Sizes) -> Case:
    """The planted case of these sizes, made once in a process."""
    return vlm_like(*sizes)


def halves(case: Case, heldout: int) -> tuple[Case, Case]:
    """The case with its first held-out pairs, and with the others."""
    if case.truth is None:
        raise ValueError("the case has no planted atoms")
    sides = []
    for side in (slice(0, heldout), slice(heldout, None)):
        truth = Truth(case.truth.atoms, case.truth.image[side], case.truth.text[side])
        sides.append(case._replace(heldout=Pair(*(part[side] for part in case.heldout)), truth=truth))
    return sides[0], sides[1]


def cases(sizes: Sizes) -> tuple[Case, Case]:
    """The case of bench/sae_quality.py, and the same with MORE times as many other held-out pairs."""
    return halves(case_of(sizes._replace(heldout=sizes.heldout * (1 + MORE))), sizes.heldout)


def constant(module: Any, name: str, value: Any) -> Change:
    """A change: another value of a constant of a module."""
    return lambda case: patch.object(module, name, value)


def train_variant(variant: Variant, case: Case, architecture: str, seed: int) -> training.Trained:
    """Train one SAE with the settings of the variant, within its changes, on one thread."""
    torch.set_num_threads(1)
    with ExitStack() as stack:
        for change in variant.changes:
            stack.enter_context(change(case))
        settings = Settings(architecture=architecture, width=case.width, k=case.k, **variant.settings)
        return training.train(*case.train, settings, seed)


def parser(about: str | None, names: Sequence[str]) -> argparse.ArgumentParser:
    """Options of a bench of variants; the default sizes are those of bench/sae_quality.py."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--only", action="append", choices=list(names), help="variant; may be repeated")
    for name, default, text in (
        ("seeds", 3, "SAEs per variant and architecture"), ("first", 0, "their first seed"),
        ("jobs", 1, "processes side by side, of one thread each"),
        ("pairs", 40_000, "training pairs"), ("dim", 256, "dimensions"), ("atoms", 2048, "planted atoms, and concepts"),
        ("k", 16, "codes per row"), ("heldout", 4000, "held-out pairs"),
    ):  # fmt: skip
        made.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    return made


def sizes_of(options: argparse.Namespace) -> Sizes:
    """The sizes that the command line names."""
    return Sizes(*(getattr(options, name) for name in Sizes._fields))


def told(values: list[float]) -> str:
    """The mean over the seeds, with the lowest and the highest."""
    return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def table(
    bench: str, measure: Measure, asked: Sequence[tuple[str, str]], options: argparse.Namespace, shown: Sequence[str]
) -> None:
    """Train every (variant, architecture) with every seed; print a line for each, write bench/results/<bench>.json.

    shown: the figures that are printed, as the mean over the seeds with the lowest and the highest. All are written.
    """
    rows, seeds = [], range(options.first, options.first + options.seeds)
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        tasks = {one: [pool.submit(measure, *one, seed, sizes_of(options)) for seed in seeds] for one in asked}
        print("| variant | " + " | ".join(shown) + " |\n|" + "---|" * (len(shown) + 1), flush=True)
        for (name, architecture), futures in tasks.items():
            found = [future.result() for future in futures]
            values = {figure: [each[figure] for each in found] for figure in found[0]}
            cells = [told(values[figure]) for figure in shown]
            print(f"| {architecture}, {name} | " + " | ".join(cells) + " |", flush=True)
            rows += [
                bars.shown(f"{architecture}, {name}: {figure}, seed {seed}", value)
                for figure in values
                for seed, value in zip(seeds, values[figure], strict=True)
            ]
    bars.RESULTS.mkdir(exist_ok=True)
    (bars.RESULTS / f"{bench}.json").write_text(json.dumps(rows, indent=1) + "\n")
