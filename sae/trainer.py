"""The state of one training and the operations on it: a step, a restart of dead concepts, a checkpoint.

Reads no files and counts no epochs. Equal inputs at one thread on one device give equal bytes.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sae.adam import adam_
from sae.architectures import ARCHITECTURES, TOPK_FAMILY
from sae.budget import resolved
from sae.finish import finished
from sae.gathered_step import gathered_gradients_, is_gathering_better
from sae.initial import initial_weights
from sae.model import SAE
from sae.penalty import kernel_width, steered
from sae.pursuit import matching_pursuit
from sae.rows import RowsError, TrainingRows
from sae.settings import Settings
from sae.sparse_step import BETAS, EPSILON, LARGEST_NORM, SparseStep, is_sparse_better
from sae.step import Weights, codes_of, forward

KEPT = 1.2  # a restarted concept's pre-activation on its row, in units of the batch's weakest code
# Largest norm of a restarted concept's encoder row: enough to separate two merged concepts. With a longer row a concept
# also fires on all rows of its modality, and R2 falls (demo, images, k = 8 of 256: .68 with 1.5, .64 with 4).
LONGEST = 1.5
AT_ONCE = 4096  # largest number of concepts restarted at once; the cosines of their atoms to each other take 64 MiB
ROWS_EACH = 4  # rows from which each of them is drawn
FROZEN_DECODERS = ("frozen_decoder", "soft_frozen_decoder")
LEAST_COSINE = 0.8  # of an atom of a softly frozen decoder with its start
#: What changes from step to step besides weights and moments: {name in a checkpoint: attribute of the Trainer}.
COUNTS = {"silent": "silent_C", "born": "born_C", "penalty": "penalty", "drift": "drift"}
# A concept that was restarted from a row may learn this row by heart: it fires on a few training rows, in every epoch,
# and on no others. So one firing in the window does not make a concept a living one: FIRINGS are needed. Where a window
# has few rows, rare concepts have no more than one firing in it; a firing in SELDOM rows is enough.
FIRINGS = 10
SELDOM = 4000
JITTER = 4  # the stream of random numbers that the noise comes from; `sae.rows` has stream 3
TWINS = 0.5  # cosine above which only one of two restarted concepts is used


class Trainer:
    """Weights, Adam's moments and the record of silent concepts.

    sparse: whether the step takes the sparse path of the CPU; None chooses by `is_sparse_better`.
    held: rows that no step uses; the threshold, or ReLU's biases, are calibrated on them. None: on those of the steps.
    start: the weights at the start, which are copied. None: those that the settings name.
    """

    def __init__(
        self,
        rows: TrainingRows,
        settings: Settings,
        seed: int,
        sparse: bool | None = None,
        held: TrainingRows | None = None,
        start: Weights | None = None,
    ) -> None:
        self.rows, self.seed = rows, seed
        self.settings = settings = resolved(settings, rows.epoch)
        self.held = rows if held is None else held
        self.architecture = ARCHITECTURES[settings.architecture]
        mixture = rows.mixture()
        if mixture.variance < 1e-12:
            raise RowsError("all training rows are equal: there is nothing to learn")
        self.means = rows.centre_() if settings.centring else None
        self.held.mean = rows.mean
        self.spread = mixture.variance  # variance of the rows before centring, with their noise; R2 refers to it
        self.variance = rows.mixture().variance if settings.centring else mixture.variance
        if start is None:
            self.weights = initial_weights(rows, settings, seed)
        else:
            self.weights = Weights(*(weight.to(rows.device, copy=True) for weight in start))
        if self.architecture.threshold == "learned":
            width = kernel_width(self.weights, rows, settings.bandwidth)
            self.weights = self.weights._replace(bandwidth=width)
        self.jitter = settings.noise * math.sqrt(self.variance / rows.dim)  # sd of the noise in each dimension
        self.spread += settings.noise**2 * self.variance
        self.draws = torch.Generator().manual_seed(seed)  # draws the rows from which dead concepts are restarted
        learned = {"dictionary"} if self.architecture.pursuit else {"encoder", "encoder_bias", "dictionary"}
        learned -= {"frozen_decoder": {"dictionary"}, "frozen_encoder": {"encoder", "encoder_bias"}}.get(
            settings.frozen or "", set()
        )
        #: [C, d], the atoms at the start of the training, for a decoder that is frozen, else None
        self.start = self.weights.dictionary.clone() if settings.frozen in FROZEN_DECODERS else None
        learned |= {"bias"} if settings.decoder_bias else set()
        learned |= {"theta"} if self.architecture.threshold == "learned" else set()
        self.learned = {name: weight.requires_grad_() for name, weight in self._named() if name in learned}
        self.optimiser = torch.optim.Adam(
            self.learned.values(), lr=settings.learning_rate, betas=BETAS, eps=EPSILON, fused=True
        )
        for weight in self.learned.values():
            zeros = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
            self.optimiser.state[weight] = {"step": torch.zeros((), device=rows.device), **zeros}
        self.moments = {name: self._moments(weight) for name, weight in self.learned.items()}
        self.silent_C = torch.zeros(settings.width, device=rows.device)  # see `silence`
        self.born_C = torch.zeros(
            settings.width, dtype=torch.int64, device=rows.device
        )  # steps before its last restart
        self.restarted = self.born_C[:0]  # numbers of the concepts that were restarted
        self.window = settings.dead_after_epochs * rows.epoch
        self.any_dead = False  # on the host; refreshed at intervals, so that no step waits for the device
        first = (self.architecture.first_penalty or 0.0) if settings.penalty is None else settings.penalty
        self.first_penalty, self.penalty = first, torch.tensor(first, device=rows.device)
        self.drift = torch.zeros((), device=rows.device)  # the part of the penalty's change that stays
        self.t = 0  # number of steps taken
        use_sparse = is_sparse_better(settings, rows.device) if sparse is None else sparse
        self.sparse = SparseStep(self.weights, self.moments, settings) if use_sparse else None
        self.gathers = is_gathering_better(settings, rows.device)

    def _named(self) -> list[tuple[str, Tensor]]:
        return list(self.weights._asdict().items())

    def _moments(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        state = self.optimiser.state[weight]
        return state["exp_avg"], state["exp_avg_sq"]

    def dead(self) -> Tensor:
        """[C] bool: concepts that hardly fired in the window: `silence`."""
        return self.silent_C >= self.window

    def noisy(self, x_BD: Tensor, step: int) -> Tensor:
        """Prepared rows [B, d] with the noise that belongs to a step; the rows themselves where there is no noise.

        A row that is drawn in many epochs is learned by heart: R2 rises on the training rows and falls on new ones.
        With noise no row comes twice. The noise depends on the seed and the step alone, so that a training that is
        resumed has the same.
        Source: Bishop 1995, "Training with noise is equivalent to Tikhonov regularization".
        """
        return x_BD + self.jitter * self.draw_noise_(torch.empty_like(x_BD), step) if self.jitter else x_BD

    def draw_noise_(self, out_BD: Tensor, step: int) -> Tensor:
        """Fill out_BD with the normal numbers of a step, of variance 1, and return it."""
        number = np.random.SeedSequence(self.seed, spawn_key=(JITTER, step)).generate_state(1, np.uint64)[0]
        return out_BD.normal_(generator=generator_of(out_BD.device, int(number) >> 1))

    def step_(self, x_BD: Tensor, learning_rate: float) -> Tensor:
        """One step on rows, prepared and `noisy`. Returns sums over the batch [3] float64: loss, error, codes."""
        self.t += 1
        dead_C = in_turn(self.dead(), self.t, self.rows.dim) if self.settings.auxk > 0 and self.any_dead else None
        if self.sparse is not None:
            done = self.sparse.step_(x_BD, self.variance, learning_rate, self.t, dead_C, self.born_C)
            fired_C, sums = done.fired, torch.tensor([done.loss * len(x_BD), done.error, done.kept]).double()
        else:
            fired_C, sums = self._dense_step_(x_BD, learning_rate, dead_C)
        self._hold_atoms_()
        self.silent_C = silence(self.silent_C, fired_C, len(x_BD), self.window)
        return sums

    def _hold_atoms_(self) -> None:
        if self.start is not None:
            hold_atoms_(self.weights.dictionary, self.start, self.settings.frozen == "frozen_decoder")

    def _dense_step_(self, x_BD: Tensor, learning_rate: float, dead_C: Tensor | None) -> tuple[Tensor, Tensor]:
        """One step by autograd, or by gathers. Returns which concepts fired [C] bool, and the sums of `step_`."""
        if self.gathers and dead_C is None:
            result = gathered_gradients_(x_BD, self.weights, self.settings, self.variance)
        else:
            result = forward(x_BD, self.weights, self.settings, self.variance, self.penalty, dead_C)
            self.optimiser.zero_grad(set_to_none=True)
            result.loss.backward()
        self._apply_(learning_rate)
        with torch.no_grad():
            fires_BC = result.codes > 0
            codes = fires_BC.sum()
            if self.settings.penalty is None and self.settings.architecture not in TOPK_FAMILY:
                self.penalty, self.drift = steered(self.first_penalty, self.drift, codes / len(x_BD), self.settings.k)
            return fires_BC.any(0), torch.stack([result.loss.detach() * len(x_BD), result.error, codes]).double()

    @torch.no_grad()
    def _apply_(self, learning_rate: float) -> None:
        atoms, gradient = self.weights.dictionary, self.weights.dictionary.grad
        if gradient is not None:
            gradient -= (gradient * atoms).sum(1, keepdim=True) * atoms  # a step along an atom changes only its norm
        torch.nn.utils.clip_grad_norm_(self.learned.values(), LARGEST_NORM)
        self._adam_(learning_rate)
        atoms /= atoms.norm(dim=1, keepdim=True)
        self.weights.theta.clamp_min_(0)

    def _adam_(self, learning_rate: float) -> None:
        rows, own = self.restarted, {name: weight for name, weight in self.learned.items() if name != "bias"}
        adam_(self.optimiser, own, self.moments, rows, self.t - self.born_C[rows], learning_rate)

    @torch.no_grad()
    def restart_dead_(self, x_BD: Tensor) -> None:
        """Re-initialise dead concepts from residuals of badly reconstructed rows, and reset their Adam moments.

        All dead concepts are restarted, up to AT_ONCE. Where the batch has too few rows for them, more rows are drawn
        from the training mixture. Rows are chosen with a probability proportional to their squared error. Of rows with
        similar residuals only the first is used: concepts restarted along equal residuals would share one activation,
        and each would fall below the weakest kept code. The remaining dead concepts wait for the next restart.

        The encoder row gets a norm with which the concept is selected on the row that it was restarted from. With
        norm 1 it would never be selected and trained, because the residual that two merged concepts leave is weaker
        than the weakest kept code.

        AuxK alone is not enough. It trains a dead concept only on rows where its pre-activation is positive. While
        other concepts are selected instead, its encoder bias sinks until no such row is left. Adam's second moments
        from before its death also keep its steps small.
        A restart moves no frozen part. With a frozen encoder nothing is restarted, since the encoder decides what
        fires. With a frozen decoder, softly or not, a dead concept's atom goes back to its start, and its encoder row
        lies along it; the row that it is scaled by is the one whose residual has the largest part along the atom.
        Source: Bricken et al. 2023, "Towards monosemanticity", neuron resampling.
        """
        dead = self.dead().nonzero().flatten()
        if len(dead) == 0 or self.settings.frozen == "frozen_encoder":
            return
        chosen = torch.randperm(len(dead), generator=self.draws)[:AT_ONCE]
        dead = dead[chosen.to(dead.device)]
        x_BD, residual_BD, weakest = self._residuals(x_BD, ROWS_EACH * len(dead))
        if self.start is not None:
            atoms_KD = self.start[dead]
            drawn = (residual_BD @ atoms_KD.T).argmax(0)
        else:
            error_B = residual_BD.square().sum(1).clamp_min(1e-12).nan_to_num(1.0, 1.0).cpu()  # `train` reports NaN
            drawn = torch.multinomial(error_B, len(dead), generator=self.draws).to(x_BD.device)
            atoms_KD = normalize(residual_BD[drawn], dim=1)
            first = ~((atoms_KD @ atoms_KD.T).tril(-1) > TWINS).any(1)
            dead, drawn, atoms_KD = dead[first], drawn[first], atoms_KD[first]
        own_K1 = (atoms_KD * (x_BD[drawn] - self.weights.bias)).sum(1, keepdim=True).clamp_min(1e-6)
        self.weights.dictionary[dead] = atoms_KD
        self.weights.encoder[dead] = atoms_KD * (KEPT * weakest / own_K1).clamp(1, LONGEST)
        self.weights.encoder_bias[dead] = 0.0
        if self.architecture.threshold == "learned":
            living = ~self.dead()
            self.weights.theta[dead] = self.weights.theta[living].median() if living.any() else 0.0
        for name, moments in self.moments.items():
            if name != "bias":
                for moment in moments:
                    moment[dead] = 0.0
        self.born_C[dead] = self.t
        self.restarted = self.born_C.nonzero().flatten()
        if self.sparse is not None:
            self.sparse.refold_()

    def _residuals(self, x_BD: Tensor, count: int) -> tuple[Tensor, Tensor, float]:
        """At least `count` rows [N, d], their residuals [N, d], and the mean over batches of the weakest code.

        The rows are those of x_BD, and as many whole batches drawn from the training mixture as are missing. The last
        batch of an epoch may be short: batches of its length could hold the rows of one modality alone.
        """
        size = min(self.settings.batch_size, self.rows.epoch)
        missing = max(0, math.ceil((count - len(x_BD)) / size))
        batches = [x_BD, *(self.rows.draw(size, self.draws) for _ in range(missing))]
        residuals, each = zip(*map(self._residual, batches), strict=True)
        weakest = torch.stack(each).cpu().tolist()  # the host waits once, however many batches there are
        mean = sum(code if math.isfinite(code) else 0.0 for code in weakest) / len(weakest)
        return torch.cat(batches), torch.cat(residuals), mean

    def _residual(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Residual of rows [B, d], and the weakest code of the batch [], infinite where there is no code."""
        if self.sparse is not None and len(x_BD) <= len(self.sparse.counts):
            residual_BD, weakest = self.sparse.residual(x_BD)
            return residual_BD, torch.tensor(weakest)
        if self.architecture.pursuit:
            codes_BC = matching_pursuit(x_BD - self.weights.bias, self.weights.dictionary, self.settings.k)
        else:
            codes_BC, _ = codes_of(self.weights, self.weights.pre_activations(x_BD), self.settings)
        residual_BD = x_BD - codes_BC @ self.weights.dictionary - self.weights.bias
        return residual_BD, codes_BC.masked_fill(codes_BC <= 0, torch.inf).amin()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that a later step depends on: tensors and numbers."""
        tensors = dict(self._named())
        for name, (first, second) in self.moments.items():
            tensors |= {f"{name}.first": first, f"{name}.second": second}
        tensors |= {name: getattr(self, attribute) for name, attribute in COUNTS.items()}
        tensors |= {"draws": self.draws.get_state()}
        return tensors, {"t": self.t, "any_dead": self.any_dead}

    @torch.no_grad()
    def restore_(self, tensors: dict[str, Tensor], entries: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        for name, weight in self._named():
            weight.copy_(tensors[name])
        for name, (first, second) in self.moments.items():
            first.copy_(tensors[f"{name}.first"])
            second.copy_(tensors[f"{name}.second"])
        for name, attribute in COUNTS.items():
            getattr(self, attribute).copy_(tensors[name])
        self.restarted = self.born_C.nonzero().flatten()
        self.draws.set_state(tensors["draws"])
        self.t, self.any_dead = entries["t"], entries["any_dead"]
        for weight in self.learned.values():
            self.optimiser.state[weight]["step"].fill_(self.t)
        if self.sparse is not None:
            self.sparse.refold_()

    def lie_in_(self, tensors: dict[str, Tensor]) -> None:
        """Move the weights, the moments and the counts into these tensors, which have the names of `state`.

        For `sae.stack`, which takes the steps from then on: the Trainer's own steps are over.
        """
        for name, weight in self._named():
            tensors[name].copy_(weight.detach())
        self.weights = Weights(**{name: tensors[name] for name, _ in self._named()})
        pairs = {name: (tensors[f"{name}.first"], tensors[f"{name}.second"]) for name in self.moments}
        for name, places in pairs.items():
            for place, moment in zip(places, self.moments[name], strict=True):
                place.copy_(moment)
        self.moments, self.learned = pairs, {}
        self.optimiser.state.clear()
        self.optimiser.param_groups.clear()
        for name in COUNTS:
            tensors[name].copy_(getattr(self, COUNTS[name]))
            setattr(self, COUNTS[name], tensors[name])

    def finish(self) -> SAE:
        """The SAE: `sae.finish`."""
        return finished(self.weights, self.settings, self.rows, self.held, self.seed, self.means)


def generator_of(device: torch.device, number: int) -> torch.Generator | None:
    """A generator of random numbers on a device, which begins with a number from 0 to 2^63 - 1."""
    return torch.Generator(device).manual_seed(number)


def in_turn(dead_C: Tensor, t: int, most: int) -> Tensor:
    """At most `most` of the dead concepts, different ones at each step t. AuxK trains these: [C] bool.

    A residual has at most d directions, so more than d concepts are not needed. AuxK uses dense products over its
    concepts: with thousands of them it would cost more than the rest of the step.
    """
    rank_C = dead_C.cumsum(0) - 1
    count = rank_C[-1] + 1
    return dead_C & ((rank_C - t * most) % count.clamp_min(1) < most)


@torch.no_grad()
def hold_atoms_(atoms: Tensor, start: Tensor, whole: bool) -> None:
    """Put the atoms [..., C, d] of a frozen decoder back: to their start, or to a cosine of LEAST_COSINE with it.

    whole: whether atoms are put back to their start. Otherwise an atom beyond that cosine is moved to the nearest unit
    vector that has it, in the plane of atom and start.
    Source: Korznikov et al., "Sanity checks for sparse autoencoders", arXiv 2602.14111; its abstract and its
    figure 1, which states the three frozen parts and the cosine, were read.
    """
    if whole:
        atoms.copy_(start)  # scaling to unit norm rounds
        return
    cosine_C1 = (atoms * start).sum(-1, keepdim=True)
    across_CD = normalize(atoms - cosine_C1 * start, dim=-1)
    edge_CD = LEAST_COSINE * start + math.sqrt(1 - LEAST_COSINE**2) * across_CD
    atoms.copy_(torch.where(cosine_C1 < LEAST_COSINE, normalize(edge_CD, dim=-1), atoms))


def silence(silent_C: Tensor, fired_C: Tensor, rows: int, window: float) -> Tensor:
    """The number of silent rows of each concept [C] after a batch of `rows` rows; a concept with `window` is dead.

    Every row adds 1. A batch on which the concept fires takes off a tenth of the window, SELDOM rows, or twice its own
    rows, whichever is most. A window of up to SELDOM rows thus counts the rows since the last firing, and at most one
    batch before it. In a longer one, a concept becomes dead if it fires on fewer than about FIRINGS batches per window,
    or if the window has fewer than twice as many batches, on fewer than half of them. A concept that fires on every
    batch is never dead.
    """
    return (silent_C + rows - max(window / FIRINGS, SELDOM, 2 * rows) * fired_C).clamp(0, window)


def learning_rate_at(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 5 % (at most 1,000 steps), linear decay over the last 20 %. step counts from 0."""
    warmup = min(max(steps // 20, 1), 1000)
    return peak * min(1.0, (step + 1) / warmup, (steps - step) / max(steps * 0.2, 1))


def r2(error: float, rows: int, variance: float) -> float:
    """Share of the variance that is explained; NaN where the variance is 0."""
    return 1 - error / (rows * variance) if variance > 1e-12 else math.nan
