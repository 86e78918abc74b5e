"""What bounds the modality scores of matched concepts: python -m bench.modality_errors [--only VARIANT] ...

Trains BatchTopK on vlm_like for two epochs with other batch sizes, learning rates and starts (VARIANTS), and once
with the planted atoms as a dictionary that is never changed, so that only the encoder is learned: no SAE with a linear
encoder has a better dictionary. Prints a table with a line per variant: means over the seeds, with the lowest and the
highest. Writes bench/results/modality_errors.json.

within          share of the matched concepts with a modality score within .05 of their atom's: the figure of
                bench/sae_quality.py. The atom's score is that of its codes on the same held-out rows.
no false        the same, with the concept's codes on those rows only on which its atom fires
no misses       the same, with the atom's codes in place of the concept's on the rows on which both fire: nothing but
                the missed firings is wrong
by chance       the same, with the atom's codes, where each firing is missed at random, as often as the concept misses:
                the least that misses cost
unimodal, both  `within` for atoms of one modality and of both
rare, frequent  `within` for atoms that fire on fewer than, or at least, FREQUENT held-out rows
more rows       `within` for the same concepts on MORE times as many other held-out rows, where chance weighs less

The first line says what chance alone does to a score: the share of the atoms whose score on the held-out rows is within
.05 of their score on the other rows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from scipy import sparse

from bench.quality_cases import BLOCK, Case, Figures, Truth, at_l0, measure, unit_rows
from bench.recovery import FEWEST_FIRINGS, MATCHED, matched, modality_scores
from bench.variants import MORE, Sizes, Variant, cases, parser, sizes_of, table, train_variant
from sae import initial
from sae.budget import budget
from sae.frontier import Pair

WITHIN = 0.05
SHORT = 2  # epochs of a short training
FREQUENT = 100  # firings on the held-out rows
DRAWS = 5  # of random misses
Codes = tuple[sparse.csr_array, sparse.csr_array]  # of images and of texts
SHOWN = (
    "within", "score_error", "matched", "recall", "precision", "no false", "no misses", "by chance", "unimodal", "both",
    "rare", "frequent", "more rows", "r2", "mcc",
)  # fmt: skip


@contextmanager
def planted_atoms(case: Case) -> Iterator[None]:
    """Trainings start at the planted atoms."""
    if case.truth is None:
        raise ValueError("the case has no planted atoms")
    atoms = torch.from_numpy(case.truth.atoms)
    with patch.dict(initial.INITS, within=lambda draw, width: atoms), patch.object(initial, "NOISE", 0.0):
        yield


def short(**settings: Any) -> Variant:
    """A short training. `rate`: times the learning rate that it would have; `batch`: rows per batch."""
    return Variant({"epochs": "short", **settings})


VARIANTS: dict[str, Variant] = {
    "as is": short(),
    "batch 256": short(batch=256),
    "batch 128": short(batch=128),
    "batch 32": short(batch=32),
    "learning rate / 2": short(rate=1 / 2),
    "learning rate x 2": short(rate=2),
    "batch 256, learning rate x 2": short(batch=256, rate=2),
    "init random": short(init="random"),
    "init data": short(init="data"),
    "init differences": short(init="differences"),
    "planted atoms": Variant({"epochs": "short", "frozen": "frozen_decoder"}, (planted_atoms,)),
    "twice as long": Variant({"epochs": "twice"}),
    "long": Variant(),
    "long, planted atoms": Variant({"frozen": "frozen_decoder"}, (planted_atoms,)),
}


def settled(variant: Variant, case: Case) -> Variant:
    """The variant with numbers in place of `epochs`, `rate` and `batch`."""
    settings = dict(variant.settings)
    times, asked = settings.pop("rate", 1.0), settings.pop("batch", "auto")
    if "epochs" in settings:
        settings["epochs"] = {"short": SHORT, "twice": 2 * SHORT}[settings["epochs"]]
    rows = len(case.train.image) + len(case.train.text)
    passes = settings.get("epochs", "auto")
    batch = budget(rows, case.width, passes, asked).batch_size
    rate = budget(rows, case.width, passes, batch).learning_rate * times
    return variant._replace(settings=settings | {"batch_size": batch, "learning_rate": rate})


@torch.no_grad()
def codes_of(coder: Any, rows: Pair) -> Codes:
    """Codes of both modalities, as sparse matrices."""
    image, text = (
        sparse.vstack([sparse.csr_array(coder.encode(x).numpy()) for x in unit_rows(part).split(BLOCK)], format="csr")
        for part in rows
    )
    return image, text


def where(codes: Codes, others: Codes) -> Codes:
    """The codes on the rows on which the others fire too."""
    image, text = (mine.multiply(other > 0).tocsr() for mine, other in zip(codes, others, strict=True))
    return image, text


def thinned(codes: Codes, kept: np.ndarray, random: np.random.Generator) -> Codes:
    """The codes, each of which is kept at random with the probability of its column."""
    fewer = []
    for part in codes:
        drawn = part.copy()
        drawn.data = drawn.data * (random.random(len(drawn.data)) < kept[drawn.indices])
        fewer.append(drawn)
    return fewer[0], fewer[1]


def fired(codes: Codes) -> np.ndarray:
    """Firings of each column in both modalities."""
    return np.asarray(sum((part > 0).sum(0) for part in codes)).ravel()


def mean(values: np.ndarray) -> float:
    """The mean; NaN of no values."""
    return float(values.mean()) if len(values) else float("nan")


def decomposed(dictionary: np.ndarray, truth: Truth, found: Codes) -> tuple[Figures, np.ndarray, np.ndarray]:
    """Shares of the module's docstring; the atoms that are compared, and the concepts that are matched to them."""
    counts = fired((truth.image, truth.text))
    left, right, cosines = matched(truth.atoms, dictionary)
    compared = (cosines >= MATCHED) & (counts[left] >= FEWEST_FIRINGS)
    left, right = left[compared], right[compared]
    planted: Codes = (truth.image[:, left], truth.text[:, left])
    own: Codes = (found[0][:, right], found[1][:, right])
    scores = modality_scores(*planted)

    def near(codes: Codes) -> np.ndarray:
        return np.abs(np.nan_to_num(modality_scores(*codes), nan=0.5) - scores) <= WITHIN

    true = where(own, planted)
    recall = fired(true) / counts[left]
    chance = np.random.default_rng(0)
    within, unimodal = near(own), (scores == 0) | (scores == 1)
    frequent = counts[left] >= FREQUENT
    shares = {
        "within": within.mean(),
        "recall": recall.mean(),
        "precision": (fired(true) / np.maximum(fired(own), 1)).mean(),
        "no false": near(true).mean(),
        "no misses": near(where(planted, own)).mean(),
        "by chance": np.mean([near(thinned(planted, recall, chance)).mean() for _ in range(DRAWS)]),
        "unimodal": mean(within[unimodal]),
        "both": mean(within[~unimodal]),
        "rare": mean(within[~frequent]),
        "frequent": mean(within[frequent]),
        "unimodal of all": unimodal.mean(),
        "rare of all": (~frequent).mean(),
    }
    return {name: float(value) for name, value in shares.items()}, left, right


def figures(name: str, architecture: str, seed: int, sizes: Sizes) -> Figures:
    """Train one SAE of a variant, and measure it."""
    case, more = cases(sizes)
    begun = time.perf_counter()
    done = train_variant(settled(VARIANTS[name], case), case, architecture, seed)
    seconds = time.perf_counter() - begun
    if case.truth is None or more.truth is None:
        raise ValueError("the case has no planted atoms")
    equal = at_l0(done.sae, case.heldout, case.k)
    shares, left, right = decomposed(equal.dictionary.numpy(), case.truth, codes_of(equal, case.heldout))
    found = codes_of(equal, more.heldout)
    scores = [
        modality_scores(*(codes[:, side] for codes in pair))
        for pair, side in (((more.truth.image, more.truth.text), left), (found, right))
    ]
    apart = np.abs(np.nan_to_num(scores[1], nan=0.5) - scores[0])
    return measure(equal, case) | shares | {"more rows": float((apart <= WITHIN).mean()), "seconds": seconds}


def planted_line(sizes: Sizes) -> str:
    """How near the scores of the atoms on the held-out rows are to those on the other rows."""
    case, more = cases(sizes)
    if case.truth is None or more.truth is None:
        raise ValueError("the case has no planted atoms")
    few, many = ((one.truth.image, one.truth.text) for one in (case, more))
    asked = fired(few) >= FEWEST_FIRINGS
    apart = np.abs(modality_scores(*few) - modality_scores(*many))[asked]
    return (
        f"planted atoms with {FEWEST_FIRINGS} firings or more: {asked.mean():.3f}; of these, the score is within "
        f"{WITHIN:g} of that on {MORE} times as many other rows for {(apart <= WITHIN).mean():.3f}"
    )


def main() -> int:
    """Print what chance does, and the table of the variants."""
    options = parser(__doc__, list(VARIANTS)).parse_args()
    print(planted_line(sizes_of(options)), flush=True)
    asked = [(name, "batchtopk") for name in options.only or VARIANTS]
    table("modality_errors", figures, asked, options, (*SHOWN, "seconds"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
