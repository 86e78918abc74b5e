"""Several SAEs of one setting take their steps together on a GPU: each weight of all of them lies in one tensor.

A step of a small SAE takes as long as the host needs to launch its operations, whatever their size. Stacked SAEs share
these operations, of which each then does the work of all SAEs. What an SAE becomes depends on the others by the
rounding of products alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae.adam import adam_
from sae.architectures import TOPK_FAMILY
from sae.gathered_step import is_gathering_better
from sae.penalty import steered
from sae.settings import Settings
from sae.sparse_step import BETAS, EPSILON, LARGEST_NORM
from sae.step import Weights, forward
from sae.trainer import FROZEN_DECODERS, Trainer, hold_atoms_, in_turn, silence


def is_stacking_better(settings: Settings, device: torch.device) -> bool:
    """Return whether SAEs of these settings take their steps together: on a GPU, unless a step gathers.

    A step that gathers is that of a very wide dictionary. Its operations are large, and an embedding_bag has no form
    for several dictionaries.
    """
    return device.type == "cuda" and not is_gathering_better(settings, device)


class Stack:
    """Steps of several SAEs, S of them, whose state lies in tensors [S, ...].

    The state of each Trainer is moved into a slice of these tensors. What is done to one SAE now and then (a restart,
    a checkpoint, the end) is done by its Trainer. The Trainers have equal settings and equally many steps behind them,
    and their rows are the same but for those that are held back. No step waits for the device.
    """

    @torch.no_grad()
    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers, first = list(trainers), trainers[0]
        self.settings, self.architecture, self.dim = first.settings, first.architecture, first.rows.dim
        device, learned = first.rows.device, list(first.learned)
        shapes = {name: tensor for name, tensor in first.state()[0].items() if name != "draws"}
        of = {name: tensor.new_empty((len(trainers), *tensor.shape)) for name, tensor in shapes.items()}
        for number, trainer in enumerate(trainers):
            trainer.lie_in_({name: tensor.detach()[number] for name, tensor in of.items()})
        self.weights = Weights(**{name: of[name] for name in Weights._fields})
        self.moments = {name: (of[f"{name}.first"], of[f"{name}.second"]) for name in learned}
        self.silent_SC, self.born_SC, self.penalty_S, self.drift_S = (
            of[name] for name in ("silent", "born", "penalty", "drift")
        )
        self.learned = {name: of[name].requires_grad_() for name in learned}
        self.optimiser = torch.optim.Adam(
            self.learned.values(), lr=self.settings.learning_rate, betas=BETAS, eps=EPSILON, fused=True
        )
        for name, weight in self.learned.items():
            average, square = self.moments[name]
            steps = torch.full((), float(first.t), device=device)
            self.optimiser.state[weight] = {"step": steps, "exp_avg": average, "exp_avg_sq": square}
        self.start = None
        if self.settings.frozen in FROZEN_DECODERS:
            self.start = torch.stack([each.start for each in trainers if each.start is not None])
        self.variance_S = torch.tensor([each.variance for each in trainers], device=device)
        self.jitter_S11 = torch.tensor([each.jitter for each in trainers], device=device).view(-1, 1, 1)
        self.refresh_()

    def refresh_(self) -> None:
        """Read again which SAEs have dead concepts and which concepts were restarted. Waits for the device."""
        flags = [self.settings.auxk if each.any_dead else 0.0 for each in self.trainers]
        self.auxk_S = torch.tensor(flags, device=self.variance_S.device)
        self.any_dead = any(flags)
        self.restarted = self.born_SC.flatten().nonzero().flatten()

    def noisy(self, x_SBD: Tensor, step: int) -> Tensor:
        """Prepared rows [S, B, d], those of each SAE with its own noise of a step, as `Trainer.noisy` gives them."""
        if not self.settings.noise:
            return x_SBD
        noise_SBD = torch.empty_like(x_SBD)
        for each, own_BD in zip(self.trainers, noise_SBD, strict=True):
            each.draw_noise_(own_BD, step)
        return x_SBD + self.jitter_S11 * noise_SBD

    def step_(self, x_SBD: Tensor, learning_rate: float) -> Tensor:
        """One step on rows, prepared and `noisy`. Returns sums over each batch [S, 3] float64: loss, error, codes."""
        for each in self.trainers:
            each.t += 1
        t, batch = self.trainers[0].t, x_SBD.shape[1]
        dead_SC = None
        if self.any_dead:
            dead_SC = torch.vmap(lambda dead_C: in_turn(dead_C, t, self.dim))(self.silent_SC >= self.trainers[0].window)
        settings = self.settings
        result = torch.vmap(
            lambda x_BD, weights, variance, penalty, dead_C, auxk: forward(
                x_BD, weights, settings, variance, penalty, dead_C, auxk
            ),
            in_dims=(0, 0, 0, 0, None if dead_SC is None else 0, 0),
        )(x_SBD, self.weights, self.variance_S, self.penalty_S, dead_SC, self.auxk_S)
        self.optimiser.zero_grad(set_to_none=True)
        result.loss.sum().backward()
        self._apply_(learning_rate)
        with torch.no_grad():
            fires_SBC = result.codes > 0
            codes_S = fires_SBC.sum((1, 2))
            if settings.penalty is None and settings.architecture not in TOPK_FAMILY:
                first = self.trainers[0].first_penalty
                for place, value in zip(
                    (self.penalty_S, self.drift_S),
                    steered(first, self.drift_S, codes_S / batch, settings.k),
                    strict=True,
                ):
                    place.copy_(value)
            window = self.trainers[0].window
            self.silent_SC.copy_(silence(self.silent_SC, fires_SBC.any(1), batch, window))
            return torch.stack([result.loss.detach() * batch, result.error, codes_S], dim=1).double()

    @torch.no_grad()
    def _apply_(self, learning_rate: float) -> None:
        """Clip the gradients of each SAE by their own norm, and take the step of Adam, as a Trainer does for one."""
        atoms = self.weights.dictionary
        if atoms.grad is not None:
            atoms.grad -= (atoms.grad * atoms).sum(-1, keepdim=True) * atoms
        gradients = [weight.grad for weight in self.learned.values() if weight.grad is not None]
        norm_S = torch.stack([each.flatten(1).norm(dim=1) for each in gradients]).norm(dim=0)
        factor_S = (LARGEST_NORM / (norm_S + 1e-6)).clamp_max(1.0)
        for each in gradients:
            each *= factor_S.view(-1, *[1] * (each.ndim - 1))
        own = {name: weight.flatten(0, 1) for name, weight in self.learned.items() if name != "bias"}
        moments = {name: (self.moments[name][0].flatten(0, 1), self.moments[name][1].flatten(0, 1)) for name in own}
        rows = self.restarted
        steps_K = self.trainers[0].t - self.born_SC.flatten()[rows]
        adam_(self.optimiser, own, moments, rows, steps_K, learning_rate)
        atoms /= atoms.norm(dim=-1, keepdim=True)
        self.weights.theta.clamp_min_(0)
        if self.start is not None:
            hold_atoms_(atoms, self.start, self.settings.frozen == "frozen_decoder")
