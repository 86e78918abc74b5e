"""The data that the quality of SAEs is measured on, and the measurement: `make bench-sae-quality`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from bench.plant_vlm_like import plant
from bench.recovery import FEWEST_FIRINGS, agreement, modality_scores, score_errors
from sae import SAE
from sae.architectures import ARCHITECTURES
from sae.frontier import Pair
from sae.metrics import Reconstruction, combine

BLOCK = 2048
Figures = dict[str, float]


class Truth(NamedTuple):
    """What is known of planted vectors."""

    atoms: np.ndarray  # [A, d]
    image: sparse.csr_array  # [n_I, A], codes of the held-out images
    text: sparse.csr_array  # [n_T, A]


class Case(NamedTuple):
    """Rows to train on and held-out rows, with the size of the SAEs that are trained on them."""

    name: str
    train: Pair
    heldout: Pair
    width: int
    k: int
    truth: Truth | None


def vlm_like(pairs: int, dim: int, atoms: int, k: int, heldout: int = 4000) -> Case:
    """Planted vectors: `pairs` to train on, and `heldout` more. Two atoms fewer than k fire per row on average.

    The SAE has as many concepts as there are atoms. Two codes per row are spare: the means of the modalities
    differ, and concepts can fire for the gap.
    """
    planted = plant(pairs + heldout, dim, atoms, l0=k - 2.0)
    parts = [
        Pair(*(rows[side] for rows in (planted.image, planted.text))) for side in (slice(0, pairs), slice(pairs, None))
    ]
    truth = Truth(planted.atoms, planted.codes_image[pairs:], planted.codes_text[pairs:])
    return Case(f"vlm_like, {pairs} pairs", parts[0], parts[1], atoms, k, truth)


def demo(store: Path, model: str = "emoji-clip", width: int = 256, k: int = 8) -> Case:
    """The embeddings of a model of the demo, from its store. Raises SystemExit if the demo has not run there."""
    from storage.rows import select
    from storage.runs import last_run

    run = last_run(store, "demo")
    if run is None:
        raise SystemExit(f"no study demo has run in {store}: make demo")
    pairs = [entry.dataset for entry in run.of("acquire")]
    embeddings = [entry.dataset for entry in run.of("embed", model=model)]
    heldout = run.config["pairs"]["heldout"]
    sides = [select(store, pairs, embeddings, heldout, side) for side in ("train", "heldout")]
    return Case(f"demo, {model}", *(Pair(side.image, side.text) for side in sides), width, k, None)


def unit_rows(rows: Any) -> Tensor:
    """Rows [n, d] as float32 of unit norm."""
    return torch.nn.functional.normalize(torch.from_numpy(np.array(rows, np.float32)), dim=1)


class AtL0(NamedTuple):
    """A coder whose codes below a cut are dropped, so that its L0 on held-out rows is k."""

    coder: Any
    cut: float

    @property
    def dictionary(self) -> Tensor:
        """[C, d], unit rows."""
        return self.coder.dictionary

    def encode(self, x: Tensor) -> Tensor:
        """Codes [B, C]."""
        codes = self.coder.encode(x)
        return torch.where(codes > self.cut, codes, 0.0)

    def decode(self, codes: Tensor) -> Tensor:
        """Rows [B, d]."""
        return self.coder.decode(codes)


@torch.no_grad()
def at_l0(coder: Any, rows: Pair, k: float) -> AtL0:
    """The coder with the cut at which L0, the mean over the modalities, is k; 0 where it is no more than k.

    With this cut coders are compared at equal L0. An SAE whose only threshold is a calibrated one is taken without it,
    so that it can have as many codes as any other.
    """
    if isinstance(coder, SAE) and ARCHITECTURES[coder.config.architecture].threshold == "calibrated":
        coder = coder.with_threshold(torch.zeros(()))
    values, weights = [], []
    for part in rows:
        for x in unit_rows(part).split(BLOCK):
            codes = coder.encode(x)
            values.append(codes[codes > 0])
            weights.append(torch.full((len(values[-1]),), 1 / (len(rows) * len(part)), dtype=torch.float64))
    every, order = torch.cat(values).sort()
    dropped = torch.cat(weights)[order].cumsum(0)  # L0 that is lost with each code and all below it
    count = int((dropped <= dropped[-1] - k + 1e-9).sum()) if len(dropped) else 0
    return AtL0(coder, float(every[count - 1]) if count else 0.0)


@torch.no_grad()
def measure(coder: Any, case: Case) -> Figures:
    """r2, l0 and dead (share of concepts that fire on no held-out row); with a truth also mcc, f1 and score_error.

    score_error is the median, and score_within the share within .05, of the absolute errors of the modality scores of
    matched concepts; NaN where no concept is matched.
    """
    sums, found = [], []
    for part in case.heldout:
        sums.append(Reconstruction())
        blocks = []
        for x in unit_rows(part).split(BLOCK):
            codes = coder.encode(x)
            sums[-1].update(x, coder.decode(codes), codes)
            blocks.append(sparse.csr_array(codes.numpy()))
        found.append(sparse.vstack(blocks, format="csr"))
    figures = {name: value for name, value in combine(*sums).items() if name in ("r2", "l0")}
    fires = np.bincount(np.concatenate([codes.indices for codes in found]), minlength=found[0].shape[1])
    figures["dead"] = float((fires == 0).mean())
    return figures if case.truth is None else figures | recovered(coder.dictionary.numpy(), case.truth, found)


def recovered(dictionary: np.ndarray, truth: Truth, found: list[sparse.csr_array]) -> Figures:
    """Agreement with the truth on the held-out rows: mcc, f1, score_error, score_within, matched."""
    codes = [sparse.vstack(pair, format="csr") for pair in ((truth.image, truth.text), found)]
    agreed = agreement(*codes)
    asked = np.bincount(codes[0].indices, minlength=len(truth.atoms)) >= FEWEST_FIRINGS
    scores = modality_scores(truth.image, truth.text)
    errors = score_errors(truth.atoms, scores, dictionary, modality_scores(*found), asked)
    return {
        "mcc": agreed.mcc,
        "f1": agreed.f1,
        "score_error": float(np.median(errors)) if len(errors) else float("nan"),
        "score_within": float((errors <= 0.05).mean()) if len(errors) else float("nan"),
        "matched": float(len(errors) / max(1, asked.sum())),
    }
