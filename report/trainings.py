"""Which SAEs were trained too briefly, by their curves: R2 still rose while the learning rate was constant."""

from __future__ import annotations

from typing import NamedTuple

from report.queries import Answer, Row
from report.wording import number
from sae.budget import RISE, rise

KNOWN = ("step", "r2")  # columns of a point that are needed


class Brief(NamedTuple):
    """SAEs whose R2 had not flattened, one entry for each model and setting; none of both: all had."""

    rising: list[str]  #: those whose R2 rose by more than RISE, with their seeds and the largest rise
    unknown: list[str]  #: those with too few steps to tell, with their seeds
    bound: float = RISE


def brief(training: Answer, saes: Answer) -> Brief:
    """The SAEs of a study that were trained too briefly, by the rule of the warning that a training gives.

    training: the curves, with model, sae, seed, step and r2, in the order of steps. saes: rows with model, sae, seed
    and frozen: a frozen SAE has the budget of its setting, and is left out.
    """
    frozen = {(row["model"], row["sae"], row["seed"]) for row in saes.rows if row["frozen"] is not None}
    curves: dict[tuple[str, str, int], list[Row]] = {}
    for row in training.rows:
        curves.setdefault((row["model"], row["sae"], row["seed"]), []).append(row)
    rising: dict[str, dict[int, float]] = {}
    unknown: dict[str, list[int]] = {}
    for (model, sae, seed), curve in curves.items():
        if (model, sae, seed) in frozen:
            continue
        known = all(row[name] is not None for row in curve for name in KNOWN)
        risen = rise(curve) if known else None
        if risen is None:
            unknown.setdefault(f"{model}, {sae}", []).append(seed)
        elif risen > RISE:
            rising.setdefault(f"{model}, {sae}", {})[seed] = risen
    return Brief(
        [f"{name}, {_seeds(risen)}: by up to {number(max(risen.values()))}" for name, risen in rising.items()],
        [f"{name}, {_seeds(seeds)}" for name, seeds in unknown.items()],
    )


def _seeds(seeds: list[int] | dict[int, float]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
