"""The frontier, R2 against L0: SAEs of every architecture and all baselines, on the same rows, with the same k.

A result of a method is one of its dictionary and one of its encoder. So every dictionary is measured with the method's
own encoder, where it has one, and with non-negative matching pursuit. Methods are comparable where they have the same
encoder and the same L0: each row therefore also holds R2 at an L0 of exactly k.

`storage/sql/views/frontier.sql` says what the columns mean. Rows are in memory or memory-mapped; nothing is written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sae.architectures import ARCHITECTURES, METHODS, PARAMETERS, encoders_of
from sae.architectures import BASELINES as BASELINE_ROWS
from sae.baselines import BASELINES
from sae.metrics import Reconstruction, combine
from sae.model import SAE
from sae.rows import Groups
from sae.settings import Settings
from sae.training import OnStep, split_places, train

BLOCK = 2048  # rows encoded at a time
COLUMNS = ("r2", "r2_image", "r2_text", "cosine", "l0")
AT_K = {name: f"{name}_at_k" for name in ("r2", "r2_image", "r2_text")}  # result -> its column at an L0 of k
#: The sparsity of an encoder is changed in these steps until its L0 has passed k: a step is one code per row more, or
#: STEP of the threshold. R2 at an L0 of k is interpolated between the last two.
STEPS = (1, 2, 4, 8, 16, 32)
STEP = 1.05
#: A threshold of 0 is raised by STEP of this instead, or else all biases are; codes of unit rows are about .1 to .5.
FROM_ZERO = 0.1


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
            pieces.append(Part(method, tuple(k)))
        elif method in ARCHITECTURES:
            pieces += [Part(method, (one,)) for one in k]
        else:
            raise ValueError(f"method is {method!r}; allowed: {', '.join(METHODS)}")
    return pieces


def frontier(
    training: Pair, heldout: Pair, methods: Iterable[str], k: Sequence[int], settings: Settings, seed: int = 0
) -> list[dict[str, Any]]:
    """The rows of the table `frontier`, without `model` and `split`: method, encoder, k, width, r2, r2_image, r2_text,
    cosine, l0, r2_at_k, r2_image_at_k, r2_text_at_k and seconds (to fit on the training rows).

    settings: the settings of the SAEs; architecture, k and encoder in them are replaced. Baselines have the same width,
    except that PCA and ICA have at most d directions.
    """
    return along_k([row for part in parts(methods, k) for row in measure(part, training, heldout, settings, seed)])


def measure(
    part: Part,
    training: Pair,
    heldout: Pair,
    settings: Settings,
    seed: int = 0,
    device: str = "cpu",
    on_step: OnStep | None = None,
    groups: Groups | None = None,
) -> list[dict[str, Any]]:
    """The table's rows for one part. Its method is fitted on the training rows and measured on the held-out rows.

    groups: the groups of the training rows, for `sae.train`. A baseline is fitted on the rows that the gradient steps
    of an SAE use, without those that are held back to calibrate its threshold.
    """
    began = time.perf_counter()
    fitted: Any
    if part.method in ARCHITECTURES:
        (k,) = part.k
        shared = {name: value for name, value in settings if name not in PARAMETERS}
        chosen = Settings(**shared | {"architecture": part.method, "k": k, "encoder": "own"})
        fitted = train(*training, chosen, seed, device, on_step, groups=groups).sae
    else:
        fitted = BASELINES[part.method](settings.width, max(part.k), seed).fit(*_used(training, settings, seed, groups))
    seconds = time.perf_counter() - began
    rows = []
    for encoder in encoders_of(part.method):
        for k in _ks(part, encoder):
            figures = figures_at(fitted.encoding(encoder, k), heldout, k)
            named = {"method": part.method, "encoder": encoder, "k": k, "width": len(fitted.dictionary)}
            rows.append({**named, **figures, "seconds": seconds})
    return rows


def _used(rows: Pair, settings: Settings, seed: int, groups: Groups | None) -> Pair:
    """The rows that the gradient steps of an SAE with these settings and this seed would use."""
    used, _ = split_places(len(rows.image), len(rows.text), settings, seed, groups)
    return rows if used is None else Pair(*(side[places] for side, places in zip(rows, used, strict=True)))


def _ks(part: Part, encoder: str) -> tuple[int, ...]:
    """The numbers of codes per row with which an encoder of a part is measured."""
    one_code = part.method in BASELINE_ROWS and BASELINE_ROWS[part.method].one_code
    return (1,) if one_code and encoder == "own" else part.k


def figures_at(coder: Any, rows: Pair, k: int) -> dict[str, float | None]:
    """The results of an SAE or a baseline as it is, and the columns of AT_K: R2 where its L0 on these rows is k.

    The results of AT_K are None where the encoder cannot reach that L0.
    """
    measured = score(coder, rows)
    more, last = measured["l0"] < k, measured
    if math.isclose(measured["l0"], k, rel_tol=1e-9):
        return {**measured, **{column: measured[name] for name, column in AT_K.items()}}
    for step in STEPS:
        following = score(_denser(coder, step if more else -step), rows)
        # An encoder that keeps all that it can is at its end. A threshold that is raised a little may drop nothing yet.
        if min(following["l0"], last["l0"]) == 0 or (more and following["l0"] == last["l0"]):
            break
        if (following["l0"] >= k) == more:
            return {**measured, **interpolated(last, following, k)}
        last = following
    return {**measured, **dict.fromkeys(AT_K.values())}


def _denser(coder: Any, step: int) -> Any:
    """The same SAE or baseline with an encoder that keeps `step` steps more codes, or fewer where step is negative."""
    if isinstance(coder, SAE) and not coder.pursues and ARCHITECTURES[coder.config.architecture].threshold != "none":
        from_zero = math.copysign(FROM_ZERO * (STEP ** abs(step) - 1), -step)
        moved = torch.where(coder.threshold > 0, coder.threshold * STEP**-step, from_zero)
        below = moved.clamp_max(0)  # no threshold lies below 0: the biases rise instead
        return coder.with_threshold(moved.clamp_min(0)).with_biases(coder.encoder_bias - below)
    own = coder.config if isinstance(coder, SAE) else coder
    return coder.encoding(own.encoder, min(max(own.k + step, 1), len(coder.dictionary)))


def interpolated(one: dict[str, Any], other: dict[str, Any], l0: float) -> dict[str, float | None]:
    """The columns of AT_K at an L0 between two points: R2 is linear in the logarithm of L0."""
    share = math.log(l0 / one["l0"]) / math.log(other["l0"] / one["l0"])
    return {column: one[name] + share * (other[name] - one[name]) for name, column in AT_K.items()}


def along_k(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a table, with the columns of AT_K interpolated along k where a row's encoder cannot reach its k.

    The neighbours are the measured points of the same method and encoder at other k. Columns remain None where all
    points lie on one side: nothing is extrapolated.
    """
    whole = []
    for row in rows:
        same = [each for each in rows if (each["method"], each["encoder"]) == (row["method"], row["encoder"])]
        curve = sorted((each for each in same if each["l0"] > 0), key=lambda each: each["l0"])
        if row["r2_at_k"] is None:
            for low, high in pairwise(curve):
                if low["l0"] <= row["k"] <= high["l0"] and low["l0"] < high["l0"]:
                    row = {**row, **interpolated(low, high, row["k"])}
                    break
        whole.append(row)
    return whole


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
