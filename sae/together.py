"""Trains several SAEs of one setting on the same rows of a GPU: stacked, where that pays, or one after another.

Writes no file but the checkpoints. An SAE is the same as that of `sae.training.train`, up to the rounding of products.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from sae.budget import resolved
from sae.checkpoint import Checkpoint
from sae.rows import Groups, take_each, training_rows
from sae.settings import Settings
from sae.stack import Stack, is_stacking_better
from sae.training import OnStep, Trained, Training, TrainingDiverged, count_, new_counts

Outcome = Trained | TrainingDiverged


def train_each(
    image: np.ndarray | Tensor,
    text: np.ndarray | Tensor,
    settings: Settings,
    seeds: Sequence[int],
    device: str | torch.device,
    on_step: OnStep | None = None,
    checkpoints: Sequence[Checkpoint | None] | None = None,
    groups: Groups | None = None,
    at_once: int | None = None,
) -> Iterator[tuple[int, Outcome]]:
    """Train one SAE a seed; yield (seed, what `sae.train` gives for it, or the error of a training that diverged).

    The other arguments and errors are those of `sae.train`. checkpoints: one for each seed. Its file is
    that of the last step before the outcome is yielded, and the caller removes it once the SAE is safe: a call that
    finds it takes no step of this seed again. at_once: how many SAEs are stacked at most; None: all of them.
    """
    whole = training_rows(image, text, settings.image_share, device)
    chosen = resolved(settings, whole.count)
    most = (at_once or len(seeds)) if is_stacking_better(chosen, whole.device) else 1
    places = list(zip(seeds, checkpoints or [None] * len(seeds), strict=True))
    sparse = False if most > 1 else None

    def begun(some: slice) -> list[Training]:
        return [Training(whole, chosen, seed, groups, checkpoint, sparse=sparse) for seed, checkpoint in places[some]]

    for start in range(0, len(places), most):
        yield from _ended(begun(slice(start, start + most)), on_step)  # whose memory is free before the next begin


def _ended(trainings: list[Training], on_step: OnStep | None) -> Iterator[tuple[int, Outcome]]:
    """Take all steps of some trainings, and yield their outcomes."""
    # After a kill, the checkpoint of one SAE may be older than that of another.
    for _, same in groupby(sorted(trainings, key=lambda each: each.begun), key=lambda each: each.begun):
        group = list(same)
        errors = _stacked(group, on_step) if len(group) > 1 else _alone(group[0], on_step)
        for training in group:
            if training.seed not in errors:
                training.keep()
        for training in group:
            error = errors.get(training.seed)
            yield training.seed, training.trained() if error is None else error


def _alone(training: Training, on_step: OnStep | None) -> dict[int, TrainingDiverged]:
    """Take all steps of one training. Returns its error, if it diverged, by seed."""
    try:
        training.take_steps_(on_step)
    except TrainingDiverged as error:
        return {training.seed: error}
    return {}


def _stacked(trainings: Sequence[Training], on_step: OnStep | None) -> dict[int, TrainingDiverged]:
    """Take all steps of some trainings together. Returns the errors of those that diverged, by seed.

    An SAE whose loss is not finite goes through the other steps with the others, which it does not change.
    """
    first = trainings[0]
    stack = Stack([each.trainer for each in trainings])
    sums_S3, bad_S = new_counts(len(trainings), first.rows.device)
    for number, training in enumerate(trainings):
        sums_S3[number] = training.record.sums
        training.record.sums, training.record.first_bad = sums_S3[number], bad_S[number]
    errors: dict[int, TrainingDiverged] = {}
    rows = [each.rows for each in trainings]
    for steps in zip(*(each.batches() for each in trainings), strict=True):
        step, batch = steps[0][0], len(steps[0][1])
        x_SBD = take_each(rows, [index for _, index in steps])
        count_(sums_S3, bad_S, stack.step_(stack.noisy(x_SBD, step), first.rate(step)), step)
        due = any(each.is_due(step) for each in trainings if each.seed not in errors)
        for training, x_BD in zip(trainings, x_SBD, strict=True):
            training.record.seen += batch
            if training.seed in errors:
                continue
            try:
                training.after_(step, x_BD, keep=due)
            except TrainingDiverged as error:
                errors[training.seed] = error
        if step % first.plan.dead == 0 or first.plan.restarts(step):
            stack.refresh_()
        if on_step is not None:
            going = next((each for each in trainings if each.seed not in errors), first)
            on_step(step, first.plan.all, going.told())
        if len(errors) == len(trainings):
            break
    return errors
