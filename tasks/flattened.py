"""Tells the user of trainings that were too short: R2 still rose while the learning rate was constant."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sae.budget import RISE, rise

log = logging.getLogger("bridgescope")


def warn_if_short(name: str, curve: Sequence[dict[str, Any]]) -> None:
    """Log a warning if R2 had not flattened, or if the steps are too few to tell. An empty curve is no training.

    name: tells the SAE from all others of the study. curve: the points of its training, with step, epoch and r2.
    """
    if not curve:
        return
    risen = rise(curve)
    if risen is None:
        log.warning("%s: %d steps are too few to tell whether R2 had flattened", name, curve[-1]["step"])
    elif risen > RISE:
        log.warning(
            "%s: R2 had not flattened: from 40 %% to 80 %% of the training it rose by %.3f; more than %d epochs would "
            "raise it further",
            name, risen, round(curve[-1]["epoch"]),
        )  # fmt: skip


def named(label: str, **numbers: int) -> str:
    """The name of an SAE in messages: its label, which may be empty, and numbers that tell it from others, by name."""
    return ", ".join([*([label] if label else []), *(f"{name} {value}" for name, value in numbers.items())])
