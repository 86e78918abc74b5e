"""The frontier, R2 against L0: SAEs of every architecture and all baselines, on the same rows, with the same k.

`storage/sql/views/frontier.sql` says what the columns mean. Rows are in memory or memory-mapped; nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sae.architectures import ARCHITECTURES, METHODS, PARAMETERS
from sae.architectures import BASELINES as BASELINE_ROWS
from sae.baselines import BASELINES
from sae.metrics import Reconstruction, combine
from sae.settings import Settings
from sae.training import OnStep, train

BLOCK = 2048  # rows encoded at a time
COLUMNS = ("r2", "r2_image", "r2_text", "cosine", "l0")


class Pair(NamedTuple):
    """Rows of both modalities from one side of the split."""

    image: np.ndarray[Any, Any] | Tensor  # [n_I, d]
    text: np.ndarray[Any, Any] | Tensor  # [n_T, d]


class Part(NamedTuple):
    """A piece of the table that is computed independently of the others."""

    method: str
    k: tuple[int, ...]


def parts(methods: Iterable[str], k: Sequence[int]) -> list[Part]:
    """The pieces of the table: one for each k of an SAE, because each is a training, and one for all k of a baseline.

    Raises ValueError for an unknown method.
    """
    pieces: list[Part] = []
    for method in methods:
        if method in BASELINES:
            pieces.append(Part(method, (1,) if BASELINE_ROWS[method].one_code else tuple(k)))
        elif method in ARCHITECTURES:
            pieces += [Part(method, (one,)) for one in k]
        else:
            raise ValueError(f"method is {method!r}; allowed: {', '.join(METHODS)}")
    return pieces


def frontier(
    training: Pair, heldout: Pair, methods: Iterable[str], k: Sequence[int], settings: Settings, seed: int = 0
) -> list[dict[str, Any]]:
    """The rows of the table `frontier`, without `model` and `split`: method, k, width, r2, r2_image, r2_text, cosine,
    l0 and seconds (to fit on the training rows).

    settings: the settings of the SAEs; architecture and k in them are replaced. Baselines have the same width, except
    that PCA and ICA have at most d directions.
    """
    return [row for part in parts(methods, k) for row in measure(part, training, heldout, settings, seed)]


def measure(
    part: Part,
    training: Pair,
    heldout: Pair,
    settings: Settings,
    seed: int = 0,
    device: str = "cpu",
    on_step: OnStep | None = None,
) -> list[dict[str, Any]]:
    """The table's rows for one part. Its method is fitted on the training rows and measured on the held-out rows."""
    began = time.perf_counter()
    if part.method in ARCHITECTURES:
        (k,) = part.k
        shared = {name: value for name, value in settings if name not in PARAMETERS}
        chosen = Settings(**shared | {"architecture": part.method, "k": k})
        fitted: list[tuple[int, Any]] = [(k, train(*training, chosen, seed, device, on_step).sae)]
    else:
        method = BASELINES[part.method](settings.width, max(part.k), seed).fit(*training)
        fitted = [(k, method.with_k(k)) for k in part.k]
    seconds = time.perf_counter() - began
    return [
        {"method": part.method, "k": k, "width": len(coder.dictionary), **score(coder, heldout), "seconds": seconds}
        for k, coder in fitted
    ]


@torch.no_grad()
def score(coder: Any, rows: Pair) -> dict[str, float]:
    """r2, r2_image, r2_text, cosine and l0 of anything with `encode` and `decode`, on unit rows."""
    sums = []
    for modality, part in zip(("image", "text"), rows, strict=True):
        sums.append(Reconstruction())
        of = (modality,) if _centres(coder) else ()
        for start in range(0, len(part), BLOCK):
            x = normalize(torch.from_numpy(np.array(part[start : start + BLOCK], np.float32)), dim=1)
            codes = coder.encode(x, *of)
            sums[-1].update(x, coder.decode(codes, *of).cpu(), codes.cpu())
    figures = combine(*sums)
    return {name: figures[name] for name in COLUMNS}


def _centres(coder: Any) -> bool:
    """Return whether a method must be told the modality of rows, because it subtracts each modality's mean."""
    return bool(getattr(getattr(coder, "config", None), "centring", False))
