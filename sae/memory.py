"""How much memory of a GPU a training takes: estimated from the settings and the rows, before anything is on the GPU.

Imports no torch. The parts of a step are counted in multiples of three sizes: one tensor of pre-activations [B, C],
both matrices [C, d], and for pursuit the atoms of all rounds [B, k, d]. The multiples are the largest that a count of
all tensors shows, rounded up (tests count again).
"""

from __future__ import annotations

from typing import NamedTuple

from sae.architectures import ARCHITECTURES
from sae.budget import Resolved

FLOAT = 4  # bytes
#: What torch, cuBLAS and the driver hold on a GPU, and gaps between tensors. Assumed, not measured.
BESIDES = 2**30
PARTS = 4  # weights, their gradients and two moments
AGAIN = 6  # multiples of both matrices that the correction of restarted concepts takes
CODES, LEARNED = 8, 11  # tensors [B, C] of a step; with learned thresholds
UNROLLED = 6  # tensors [B, k, d] of the unrolled rounds of pursuit
GRAM_WIDTH = 2**14  # the largest dictionary of which pursuit makes the products of all atoms, [C, C], before its rounds
#: Rows of the start and the end of a training that are encoded at once, and how many tensors [rows, C] they take.
START, END = 4096 * 6, 2048 * 6
RESTARTED, DRAWN = 4096, 4  # concepts that are restarted at once, and rows that each is drawn from
#: Before the first step: rows whose geometric median is taken, and bytes of each number of theirs: float32, float64 and
#: its square. The mean and the variance of all rows take less: 16,384 rows at a time, of 18 bytes (float16, float32 and
#: its square, and that in float64 while it is summed).
MEDIAN, EACH_NUMBER = 20_000, 20
HELD, EACH = 2**16, 64  # rows that a threshold is calibrated on, and bytes of each of its 1.25 k codes while sorted


class Memory(NamedTuple):
    """Bytes of a GPU's memory that a training takes."""

    rows: int  #: the training rows, as they are stored
    weights: int  #: weights, gradients and moments of all SAEs
    work: int  #: the largest of what a step of all SAEs, a restart, the start and the end take besides
    besides: int = BESIDES

    @property
    def total(self) -> int:
        """All bytes together."""
        return sum(self)

    def told(self) -> str:
        """The estimate in words, in GB."""
        rows, weights, work, besides = (f"{part / 1e9:.1f}" for part in self)
        return (
            f"about {self.total / 1e9:.1f} GB ({rows} rows, {weights} weights with gradients and moments, {work} "
            f"a step, {besides} CUDA itself)"
        )


def memory(settings: Resolved, rows: int, dim: int, row_bytes: int = 2, together: int = 1) -> Memory:
    """The memory of a training on `rows` rows [d] of both modalities, stored in `row_bytes` bytes per number.

    together: how many SAEs take their steps together (`sae.stack`). They share the rows; restarts, the start and the
    end are those of one SAE at a time.
    """
    width, architecture = settings.width, ARCHITECTURES[settings.architecture]
    batch = min(settings.batch_size, rows)
    matrices = 2 * width * dim * FLOAT
    codes = LEARNED if architecture.threshold == "learned" else CODES
    step = codes * batch * width * FLOAT + AGAIN * matrices
    if architecture.pursuit:
        gram = width**2 if width <= min(batch * settings.k, GRAM_WIDTH) else 0
        step += max(gram, UNROLLED * batch * settings.k * dim) * FLOAT  # the products are gone before the rounds
    restarted = min(width, RESTARTED)
    restart = FLOAT * (3 * restarted * (DRAWN * dim + restarted) + codes * batch * width)
    start = max(
        START * width * FLOAT if architecture.first_penalty is not None else 0, min(rows, MEDIAN) * dim * EACH_NUMBER
    )
    end = END * width * FLOAT + min(rows, HELD) * settings.k * EACH * 5 // 4
    return Memory(rows * dim * row_bytes, together * PARTS * matrices, max(together * step, restart, start, end))


def fitting(settings: Resolved, rows: int, dim: int, most: int, free: int) -> int:
    """How many of `most` SAEs that take their steps together fit into `free` bytes; 0 if not even one does."""
    return next((count for count in range(most, 0, -1) if memory(settings, rows, dim, 2, count).total <= free), 0)
