"""Which concepts of an SAE are dead, and what makes them fewer: python -m bench.dead_concepts [--only VARIANT] ...

Trains JumpReLU and BatchTopK on vlm_like with changes of what a training does for dead concepts (VARIANTS). Prints a
table with a line per variant and architecture: means over the seeds, with the lowest and the highest. Writes
bench/results/dead_concepts.json.

r2, mcc            at equal held-out L0, as in bench/sae_quality.py
found              share of all atoms, however rare, that a concept matches at a cosine of .8
dead               share of the concepts that fire on no held-out row at equal L0: the figure of bench/sae_quality.py
more rows          the same on MORE times as many other rows: what still fires there is rare, and not dead
own                `dead` with the thresholds that the SAE brings
silent             share that the trainer counts as dead when the training ends
untrained          share that fires on no training row
lone               share that fires on 1 to LONE training rows
dead and lone      share that fires on no held-out row and on 1 to LONE training rows

The first lines say how often the planted atoms themselves fire on the held-out rows: an atom that fires too rarely to
be seen there would count as dead in any SAE.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.quality_cases import BLOCK, Case, Figures, at_l0, measure, unit_rows
from bench.recovery import MATCHED, matched
from bench.variants import Change, Sizes, Variant, cases, constant, parser, sizes_of, table, train_variant
from sae import trainer, training
from sae.frontier import Pair

LONE = 5  # training rows
SHOWN = ("r2", "mcc", "found", "dead", "more rows", "own", "silent", "untrained", "lone", "dead and lone")


def restarts_until(part: float) -> Change:
    """A change: restarts up to this part of the training."""

    def restarts(plan: training.Plan, step: int) -> bool:
        return step % plan.restart == 0 and training.SETTLED <= step < part * plan.all

    return lambda case: patch.object(training.Plan, "restarts", restarts)


@contextmanager
def shared_directions(case: Case, rounds: int = 2, least: float = 0.3) -> Iterator[None]:
    """Restart along what several residuals share: the mean of those with a cosine above `least`, again in each round.

    Rows keep the length of their residual, to which the draw of rows refers.
    """
    plain = trainer.Trainer._residuals

    def merged(own: trainer.Trainer, x_BD: Tensor, count: int) -> tuple[Tensor, Tensor, float]:
        x_BD, residual_BD, weakest = plain(own, x_BD, count)
        unit_BD = normalize(residual_BD, dim=1)
        direction_BD = unit_BD
        for _ in range(rounds):
            weight_BB = (direction_BD @ unit_BD.T - least).clamp_min(0)
            direction_BD = normalize(weight_BB @ residual_BD, dim=1)
        return x_BD, direction_BD * residual_BD.norm(dim=1, keepdim=True), weakest

    with patch.object(trainer.Trainer, "_residuals", merged):
        yield


ONE_FIRING = constant(trainer, "FIRINGS", 1)  # a single firing in the window makes a concept a living one

VARIANTS: dict[str, Variant] = {
    "as is": Variant(),
    "one firing": Variant(changes=(ONE_FIRING,)),
    "3 firings": Variant(changes=(constant(trainer, "FIRINGS", 3), constant(trainer, "SELDOM", 0))),
    "shared directions": Variant(changes=(shared_directions,)),
    "one firing, shared directions": Variant(changes=(ONE_FIRING, shared_directions)),
    "one firing, AuxK 1/8": Variant({"auxk": 1 / 8}, (ONE_FIRING,)),
    "one firing, AuxK 1/2": Variant({"auxk": 1 / 2}, (ONE_FIRING,)),
    "one firing, in 1/4 epoch": Variant({"dead_after_epochs": 0.25}, (ONE_FIRING,)),
    "one firing, in 1/10 epoch": Variant({"dead_after_epochs": 0.1}, (ONE_FIRING,)),
    "one firing, restarts up to 1/2": Variant(changes=(ONE_FIRING, restarts_until(0.5))),
    "one firing, restarts up to .95": Variant(changes=(ONE_FIRING, restarts_until(0.95))),
    "one firing, 16 rows to draw each from": Variant(changes=(ONE_FIRING, constant(trainer, "ROWS_EACH", 16))),
    "no restarts": Variant(changes=(restarts_until(0.0),)),
}


@torch.no_grad()
def firings(coder: Any, rows: Pair) -> np.ndarray:
    """[C], the number of rows on which each concept fires."""
    fires = [(coder.encode(x) > 0).sum(0) for part in rows for x in unit_rows(part).split(BLOCK)]
    return torch.stack(fires).sum(0).numpy()


def figures(name: str, architecture: str, seed: int, sizes: Sizes) -> Figures:
    """Train one SAE of a variant, and measure it."""
    case, more = cases(sizes)
    begun = time.perf_counter()
    done = train_variant(VARIANTS[name], case, architecture, seed)
    seconds = time.perf_counter() - begun
    equal = at_l0(done.sae, case.heldout, case.k)
    trained, heldout = firings(equal, case.train), firings(equal, case.heldout)
    is_lone = (trained > 0) & (trained <= LONE)
    if case.truth is None:
        raise ValueError("the case has no planted atoms")
    cosines = matched(case.truth.atoms, equal.dictionary.numpy())[2]
    return measure(equal, case) | {
        "found": float((cosines >= MATCHED).sum() / len(case.truth.atoms)),
        "more rows": float((firings(equal, more.heldout) == 0).mean()),
        "own": float((firings(done.sae, case.heldout) == 0).mean()),
        "silent": done.curve[-1]["dead_fraction"],
        "untrained": float((trained == 0).mean()),
        "lone": float(is_lone.mean()),
        "dead and lone": float((is_lone & (heldout == 0)).mean()),
        "seconds": seconds,
    }


def planted_lines(case: Case) -> Iterator[str]:
    """How often the planted atoms fire on the held-out rows, and about how often the rarest fires in half an epoch."""
    if case.truth is None:
        raise ValueError("the case has no planted atoms")
    counts = np.bincount(np.concatenate([case.truth.image.indices, case.truth.text.indices]), minlength=case.width)
    rows, half = sum(map(len, case.heldout)), sum(map(len, case.train)) / 2
    rare = np.sort(counts)[: math.ceil(0.01 * len(counts))]
    yield f"planted atoms: {int((counts == 0).sum())} of {len(counts)} fire on none of the {rows} held-out rows"
    yield f"the rarest fires on {counts.min()} of them, the rarest hundredth on {rare.max()} at most"
    yield f"half an epoch has {half:.0f} draws, in which the rarest fires about {counts.min() * half / rows:.0f} times"


def main() -> int:
    """Print how often atoms fire, and the table of the variants."""
    made = parser(__doc__, list(VARIANTS))
    made.add_argument("--architecture", action="append", choices=["jumprelu", "batchtopk"], help="may be repeated")
    options = made.parse_args()
    print(*planted_lines(cases(sizes_of(options))[0]), sep="\n", flush=True)
    architectures = options.architecture or ["jumprelu", "batchtopk"]
    asked = [(name, architecture) for name in options.only or VARIANTS for architecture in architectures]
    table("dead_concepts", figures, asked, options, (*SHOWN, "seconds"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
