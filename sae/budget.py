"""How an SAE is trained where the study does not say: batch size, epochs, learning rate and noise.

The rules were found by trainings on planted and real embeddings, which `make bench-sae-quality` runs again (sections
`defaults`, `rule` and `noise`). Imports no torch.

batch_size: the power of two nearest to the square root of the training rows, from 32 to 4,096; where the study gives
    fewer epochs than make 2,500 steps of it, the largest power of two, from 32 on, that makes as many.
epochs: as many as make about 6,000 steps with this batch size, from 4 to 200.
noise: none for up to 8 epochs, then 1/140 more for each epoch, at most .4.
learning_rate: 6e-3 for 2,000 steps of up to 256 rows and up to 256 concepts; inversely proportional to the square root
    of the steps and to the fourth root of the concepts, and proportional to the square root of the batch size; from
    3e-4 to 1e-2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from sae.settings import Settings

Auto = Literal["auto"]
CHOSEN = ("epochs", "batch_size", "learning_rate", "noise")  # settings that may be "auto"

BATCHES = (32, 4096)
STEPS = 6000
EPOCHS = (4, 200)
# Fewest steps that a batch size is chosen for. After 625 steps of 256 rows the modality scores of planted concepts are
# further off than after 2,500 steps of 64 of the same rows, and R2 and MCC are lower: see docs/sae-quality.md.
FEWEST_STEPS = 2500
PEAK, AT_STEPS, AT_BATCH, AT_WIDTH = 6e-3, 2000, 256, 256
PEAKS = (3e-4, 1e-2)
# In 12 epochs noise does not raise the R2 of new rows, in 48 or more it does: see docs/sae-quality.md.
FREE_EPOCHS, PER_EPOCH = 8, 140
NOISES = (0.0, 0.4)
# A training whose R2 still rises by more than this while its steps double at a constant learning rate is too short:
# twice the epochs would raise it again by nearly as much.
RISE = 0.01
FEWEST_POINTS = 10  # of a curve, for each tenth of the training to have one; a curve has fewer if the steps are fewer


class Budget(NamedTuple):
    """The numbers of a training that may be chosen for it."""

    epochs: int
    batch_size: int
    learning_rate: float
    noise: float


class Resolved(Settings):
    """Settings in which no number is "auto"."""

    epochs: int
    batch_size: int
    learning_rate: float
    noise: float


def budget(
    rows: int,
    width: int,
    epochs: int | Auto = "auto",
    batch_size: int | Auto = "auto",
    learning_rate: float | Auto = "auto",
    share: float = 1.0,
    noise: float | Auto = "auto",
) -> Budget:
    """Batch size, epochs, learning rate and noise of a training; numbers that are given stay as they are.

    rows: training rows of both modalities. width: concepts. share: the share of the rows that the SAE is trained on. It
    draws as many rows in total, and takes as large batches and as much noise, as a training on all of them.
    """
    rows = max(1, rows)
    batch = _batch_size(rows, epochs) if batch_size == "auto" else batch_size
    passes = max(1, round(_within(STEPS * batch / rows, EPOCHS) / share)) if epochs == "auto" else epochs
    steps = passes * max(1, math.ceil(rows * share / batch))
    if learning_rate == "auto":
        peak = PEAK * math.sqrt(AT_STEPS / steps * max(batch, AT_BATCH) / AT_BATCH)
        peak *= (AT_WIDTH / max(width, AT_WIDTH)) ** 0.25
        learning_rate = float(f"{_within(peak, PEAKS):.2g}")
    if noise == "auto":
        noise = float(f"{_within((passes * share - FREE_EPOCHS) / PER_EPOCH, NOISES):.2g}")
    return Budget(passes, batch, learning_rate, noise)


def _batch_size(rows: int, epochs: int | Auto) -> int:
    batch = 2 ** round(math.log2(rows) / 2)
    if epochs != "auto":
        batch = min(batch, 2 ** math.floor(math.log2(max(1, epochs * rows / FEWEST_STEPS))))
    return int(_within(batch, BATCHES))


def resolved(settings: Settings, rows: int) -> Resolved:
    """The settings with numbers in place of "auto", for a training on this many rows."""
    given = {name: getattr(settings, name) for name in CHOSEN}
    chosen = budget(rows, settings.width, **given)
    return Resolved.model_construct(**dict(settings) | chosen._asdict())


def rise(curve: Sequence[dict[str, Any]]) -> float | None:
    """How much R2 rose between two fifths and four fifths of a training; None for a curve of fewer than 10 points.

    In this time the steps double at a constant learning rate. Afterwards the rate falls, and R2 always rises. Each end
    is the mean of a tenth of the training.
    """
    if len(curve) < FEWEST_POINTS:
        return None
    last = curve[-1]["step"]

    def mean(start: float, stop: float) -> float:
        values = [point["r2"] for point in curve if start * last < point["step"] <= stop * last]
        return sum(values) / len(values)

    return mean(0.7, 0.8) - mean(0.3, 0.4)


def _within(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])
