"""Trains one sparse autoencoder on image and text embeddings held in memory: epochs, curve, checkpoints.

Writes no file but the checkpoint. Equal inputs at one thread on one device give equal bytes,
whether or not the training was interrupted.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sae.budget import Resolved, resolved
from sae.checkpoint import Checkpoint, CheckpointError
from sae.model import SAE
from sae.rows import Chosen, Groups, RowsError, TrainingRows, batches, held_back, training_rows
from sae.settings import Settings
from sae.step import Weights
from sae.trainer import Trainer, learning_rate_at, r2

LOG_POINTS = 50
# Steps before the first restart of dead concepts. Earlier, most silent concepts only learn slowly, and the residual is
# mostly the mean of the modality. Restarting 128 concepts along this mean lowers R2 (d = 768, C = 8192, 40 steps: .28
# without the restart, .21 with it).
SETTLED = 100

MOST_HELD = 65_536  # rows held back at most: the mean L0 of so many rows is known to a few tenths of a percent
LEAST_HELD = 64  # the mean L0 of fewer rows is too uncertain: the rows of the gradient steps are the better choice

OnStep = Callable[[int, int, dict[str, float]], None]


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite; the message names the step."""


class Trained(NamedTuple):
    """Result of a training."""

    sae: SAE
    #: Each point has step, epoch, loss, r2, l0, dead_fraction and rows_per_second. Means are over the steps since the
    #: previous point.
    curve: list[dict[str, float]]


class Plan(NamedTuple):
    """Schedule of a training, in steps."""

    epoch: int
    all: int
    log: int  # steps between two points of the curve
    dead: int  # steps between two checks for dead concepts
    restart: int  # steps between two restarts of dead concepts; `restarts` leaves out the first and last steps

    @classmethod
    def of(cls, rows: TrainingRows, settings: Resolved) -> "Plan":
        """The schedule for these rows and settings."""
        epoch = math.ceil(rows.epoch / settings.batch_size)
        steps = settings.epochs * epoch
        restart = max(1, int(epoch * settings.dead_after_epochs))
        return cls(epoch, steps, math.ceil(steps / LOG_POINTS), max(1, epoch // 10), restart)

    def restarts(self, step: int) -> bool:
        """Return whether dead concepts are restarted after this step."""
        return step % self.restart == 0 and SETTLED <= step < 0.8 * self.all


class Record:
    """The curve of a training, and the sums since its last point.

    sums, first_bad: where the sums [3] and the first step of a loss that is not finite [] are counted.
    """

    def __init__(
        self, trainer: Trainer, plan: Plan, sums: Tensor | None = None, first_bad: Tensor | None = None
    ) -> None:
        self.trainer, self.plan = trainer, plan
        self.curve: list[dict[str, float]] = []
        zeros, none = new_counts(1, trainer.rows.device)
        self.sums = zeros[0] if sums is None else sums
        self.first_bad = none[0] if first_bad is None else first_bad
        self.seen, self.started = 0, time.perf_counter()

    def add(self, sums: Tensor, rows: int) -> None:
        """Add one step: sums of loss, squared error and codes over its rows."""
        count_(self.sums, self.first_bad, sums, self.trainer.t)
        self.seen += rows

    def check(self) -> None:
        """Raise TrainingDiverged if any loss was not finite. Waits for the device."""
        if (bad := int(self.first_bad)) >= 0:
            raise TrainingDiverged(
                f"the loss is not a number at step {bad} of {self.plan.all}: try a smaller learning_rate"
            )

    def point(self) -> None:
        """Add a point to the curve: loss, R2 and L0 since the last point, and the present fraction of dead concepts.

        R2 refers to the variance of the rows before centring, with their noise.
        """
        loss, error, codes = self.sums.tolist()
        now = time.perf_counter()
        self.curve.append(
            {
                "loss": loss / self.seen,
                "r2": r2(error, self.seen, self.trainer.spread),
                "l0": codes / self.seen,
                "dead_fraction": float(self.trainer.dead().float().mean()),
                "step": self.trainer.t,
                "epoch": self.trainer.t / self.plan.epoch,
                "rows_per_second": self.seen / max(now - self.started, 1e-9),
            }
        )
        self.sums.zero_()
        self.seen, self.started = 0, now


def new_counts(trainings: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The sums [S, 3] of some trainings before a step, and the first steps [S] of a loss that is not finite: -1."""
    sums = torch.zeros(trainings, 3, dtype=torch.float64, device=device)
    return sums, torch.full((trainings,), -1, device=device)


def count_(total: Tensor, first_bad: Tensor, sums: Tensor, step: int) -> None:
    """Add the sums [..., 3] of a step to the total, and note the step where a loss is not finite for the first time."""
    total += sums
    first_bad.copy_(torch.where((first_bad < 0) & ~torch.isfinite(sums[..., 0]), step, first_bad))


class Training:
    """One training: its Trainer, schedule, curve and checkpoint.

    It begins where its checkpoint ends, if there is one. Raises CheckpointError where the file belongs to another
    training or lacks a part of the state, and RowsError on unusable rows.
    """

    def __init__(
        self,
        whole: TrainingRows,
        settings: Resolved,
        seed: int,
        groups: Groups | None,
        checkpoint: Checkpoint | None,
        *,
        start: Weights | None = None,
        sparse: bool | None = None,
    ) -> None:
        rows, held = split_rows(whole, settings, seed, groups)
        self.rows, self.settings, self.seed, self.checkpoint = rows, settings, seed, checkpoint
        self.trainer = Trainer(rows, settings, seed, sparse, held=held, start=start)
        self.plan = Plan.of(rows, settings)
        self.record = Record(self.trainer, self.plan)
        self.identity = settings.model_dump(mode="json") | {"seed": seed, "images": rows.images, "texts": rows.texts}
        if checkpoint is not None:
            _resume(checkpoint, self.trainer, self.record, self.identity)
        self.begun = self.trainer.t

    def batches(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (step, row numbers [B]) of each step that is left."""
        rows, settings, plan = self.rows, self.settings, self.plan
        for epoch in range(self.begun // plan.epoch, settings.epochs):
            order = batches(self.seed, epoch, rows.images, rows.texts, rows.share, settings.batch_size, rows.epoch)
            for step, index in enumerate(order, start=epoch * plan.epoch + 1):
                if step > self.begun:
                    yield step, index

    def take_steps_(self, on_step: OnStep | None) -> None:
        """Take all steps that are left. Raises TrainingDiverged."""
        for step, index in self.batches():
            x_BD = self.rows.take(index)
            sums = self.trainer.step_(self.trainer.noisy(x_BD, step), self.rate(step))
            self.record.add(sums, len(index))
            self.after_(step, x_BD, keep=self.is_due(step))
            if on_step is not None:
                on_step(step, self.plan.all, self.told())

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return learning_rate_at(step - 1, self.plan.all, self.settings.learning_rate)

    def after_(self, step: int, x_BD: Tensor, *, keep: bool) -> None:
        """What follows a step on rows [B, d]: checks, a restart, a point of the curve; with `keep` a checkpoint."""
        trainer, plan = self.trainer, self.plan
        if self.rows.device.type == "cpu" or step % plan.log == 0 or step == plan.all:
            self.record.check()
        if step % plan.dead == 0:
            trainer.any_dead = bool(trainer.dead().any())
        if self.settings.auxk > 0 and trainer.any_dead and plan.restarts(step):
            trainer.restart_dead_(x_BD)
        if step % plan.log == 0 or step == plan.all:
            self.record.point()
        if keep and self.checkpoint is not None and step < plan.all:
            _keep(self.checkpoint, trainer, self.record, self.identity)

    def keep(self) -> None:
        """Write a checkpoint after the last step, for which no step is taken again, unless it was read from there."""
        if self.checkpoint is not None and self.begun < self.trainer.t:
            _keep(self.checkpoint, self.trainer, self.record, self.identity)

    def is_due(self, step: int) -> bool:
        """Return whether a checkpoint is to be written after this step."""
        return self.checkpoint is not None and self.checkpoint.is_due(step)

    def told(self) -> dict[str, float]:
        """The last point of the curve; empty before the first."""
        return self.record.curve[-1] if self.record.curve else {}

    def trained(self) -> Trained:
        """The SAE, after the last step."""
        return Trained(self.trainer.finish(), self.record.curve)


def train(
    image: np.ndarray | Tensor,
    text: np.ndarray | Tensor,
    settings: Settings,
    seed: int,
    device: str | torch.device = "cpu",
    on_step: OnStep | None = None,
    checkpoint: Checkpoint | None = None,
    groups: Groups | None = None,
    start: Weights | None = None,
) -> Trained:
    """Train one SAE on image rows [n_I, d] and text rows [n_T, d], float16 or float32, in memory or memory-mapped.

    Settings that are "auto" are chosen by the number of rows; the SAE's config states the numbers. The seed sets the
    initialisation and the order of rows. `on_step(step, steps, stats)` runs after every step; stats
    is the last point of the curve (empty before the first). With `checkpoint` the training resumes from its file, if
    there is one, and rewrites it at intervals; the file is removed at the end. Raises ValueError on unusable rows,
    TrainingDiverged where the loss is not finite (the checkpoint is kept), CheckpointError where the file belongs to
    another training.

    groups: the group of each image row [n_I] and each text row [n_T], such as the number of the picture that both
    belong to. A share of the groups, `settings.calibration_share`, is drawn by the seed and held back: no gradient
    step uses their rows, and the threshold is calibrated on them. Without `groups` each row is a group of its own.
    start: the weights at the start; by default those that `settings.init` names.

    On a CPU with several threads, OMP_WAIT_POLICY=passive in the environment makes training about a tenth faster.
    Without it, torch's threads spin while they wait for the next product, on cores that the sparse step could use.
    """
    whole = training_rows(image, text, settings.image_share, device)
    training = Training(whole, resolved(settings, whole.count), seed, groups, checkpoint, start=start)
    training.take_steps_(on_step)
    trained = training.trained()
    if checkpoint is not None:
        checkpoint.remove()
    return trained


def split_rows(
    rows: TrainingRows, settings: Settings, seed: int, groups: Groups | None
) -> tuple[TrainingRows, TrainingRows | None]:
    """The rows that gradient steps use, and those that are held back for the calibration; None if none are.

    Both are objects of their own, whose rows a training can centre while another uses `rows`.
    """
    used, held = split_places(rows.images, rows.texts, settings, seed, groups)
    if used is None or held is None:
        return TrainingRows(rows.parts, rows.share), None
    return TrainingRows(rows.parts, rows.share, used), TrainingRows(rows.parts, rows.share, held)


def split_places(
    images: int, texts: int, settings: Settings, seed: int, groups: Groups | None
) -> tuple[Chosen | None, Chosen | None]:
    """The places, images and texts, of the rows of `split_rows`; (None, None) if no row is held back.

    Every architecture leaves out the same rows, also one without a threshold, so that all are trained on the same.
    """
    if groups is None:
        groups = np.arange(images), np.arange(images, images + texts)
    if (len(groups[0]), len(groups[1])) != (images, texts):
        raise RowsError(
            f"groups name {len(groups[0])} images and {len(groups[1])} texts; there are {images} and {texts}"
        )
    return held_back(groups, settings.calibration_share, MOST_HELD, LEAST_HELD, seed)


def _keep(checkpoint: Checkpoint, trainer: Trainer, record: Record, training: dict[str, Any]) -> None:
    """Write a checkpoint. If any loss was not finite, raises TrainingDiverged and keeps the previous file."""
    record.check()
    tensors, entries = trainer.state()
    entries |= {"training": training, "curve": record.curve, "seen": record.seen}
    checkpoint.write(tensors | {"sums": record.sums}, entries)


def _resume(checkpoint: Checkpoint, trainer: Trainer, record: Record, training: dict[str, Any]) -> None:
    """Resume from the checkpoint's file, if there is one. Raises CheckpointError where it lacks a part of the state."""
    state = checkpoint.read(training)
    if state is None:
        return
    tensors, entries = state
    own_tensors, own_entries = trainer.state()
    missing = {*own_tensors, *own_entries, "sums", "curve", "seen"} - tensors.keys() - entries.keys()
    if missing:
        raise CheckpointError(
            f"{checkpoint.path}: lacks {', '.join(sorted(missing))}, as those of an older version; delete it to start "
            "over"
        )
    trainer.restore_(tensors, entries)
    record.curve, record.seen = entries["curve"], entries["seen"]
    record.sums.copy_(tensors["sums"])
