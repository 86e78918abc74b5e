"""Trains one sparse autoencoder on image and text embeddings held in memory; the dense step in plain autograd.

Never reads or writes files. Equal inputs at one thread on one device give equal bytes.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sae.model import SAE, Config, pre_activations
from sae.sparsity import batch_topk, calibrate

LOG_POINTS = 50
MEDIAN_ROWS = 50_000
IMAGE, TEXT, START = 0, 1, 2  # streams of random numbers under one seed

OnStep = Callable[[int, int, dict[str, float]], None]


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite; the message names the step."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How an SAE is trained. Raises ValueError, naming the field and what is allowed."""

    width: int  # C, number of concepts
    k: int  # mean number of codes a row
    epochs: int
    batch_size: int
    learning_rate: float
    architecture: str = "batchtopk"
    decoder_bias: bool = True
    image_share: float | Literal["natural"] = 0.5  # share of image rows in every batch
    auxk: float = 1 / 32  # weight of the auxiliary loss; 0 is off
    dead_after_epochs: float = 0.5  # a concept silent for so long is dead to AuxK
    k_aux: int | None = None  # dead concepts a row that AuxK uses; None is half the dimension

    def __post_init__(self) -> None:
        if self.architecture != "batchtopk":
            raise ValueError(f"architecture is {self.architecture!r}; allowed: batchtopk")
        for name in ("width", "k", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a whole number from 1 is allowed")
        if self.k > self.width:
            raise ValueError(f"k is {self.k}; at most the width, {self.width}, is allowed")
        if not (0 < self.learning_rate < math.inf):
            raise ValueError(f"learning_rate is {self.learning_rate}; a number above 0 is allowed")
        if self.image_share != "natural" and not (
            isinstance(self.image_share, int | float) and 0 <= self.image_share <= 1
        ):
            raise ValueError(f'image_share is {self.image_share!r}; a number from 0 to 1 or "natural" is allowed')
        if not (0 <= self.auxk < math.inf):
            raise ValueError(f"auxk is {self.auxk}; a weight from 0 (off) is allowed")
        if not (0.1 <= self.dead_after_epochs <= 1):
            # Longer windows never act in the short trainings that embeddings need; shorter ones call rare alive dead.
            raise ValueError(f"dead_after_epochs is {self.dead_after_epochs}; 0.1 to 1 is allowed")
        if self.k_aux is not None and self.k_aux < 1:
            raise ValueError(f"k_aux is {self.k_aux}; a whole number from 1, or None, is allowed")


class Trained(NamedTuple):
    """The outcome of a training."""

    sae: SAE
    curve: list[dict[str, float]]  # step, epoch, loss, r2, l0, dead_fraction, rows_per_second: means since the last


class Rows(NamedTuple):
    """The training rows, images first."""

    x: Tensor  # [n_I + n_T, d] float32, unit norm
    images: int  # n_I
    texts: int  # n_T
    share: float  # of image rows in a batch

    def weights(self) -> Tensor:
        """Each row's weight in the training mixture, [n_I + n_T] float64, sum 1."""
        image = self.share / max(self.images, 1)
        text = (1 - self.share) / max(self.texts, 1)
        counts = torch.tensor([self.images, self.texts])
        return torch.tensor([image, text], dtype=torch.float64).repeat_interleave(counts).to(self.x.device)


class Weights(NamedTuple):
    """What is learned."""

    encoder: Tensor  # [C, d]
    encoder_bias: Tensor  # [C]
    dictionary: Tensor  # [C, d], unit rows
    bias: Tensor  # [d]

    def pre_activations(self, x_BD: Tensor) -> Tensor:
        """[B, C] of preprocessed rows."""
        return pre_activations(x_BD, self.encoder, self.encoder_bias, self.bias)


def training_rows(
    image: np.ndarray | Tensor, text: np.ndarray | Tensor, share: float | str, device: str | torch.device
) -> Rows:
    """Both modalities in one float32 array, rows L2-normalised. Raises ValueError naming the first unusable row."""
    parts = []
    for name, values in (("image", image), ("text", text)):
        rows = torch.as_tensor(values).to(device, torch.float32)
        if rows.ndim != 2:
            raise ValueError(f"{name} has shape {tuple(rows.shape)}; [rows, dimension] is needed")
        norms = rows.norm(dim=1, keepdim=True)
        if bad := (~torch.isfinite(norms) | (norms == 0)).flatten().nonzero().flatten().tolist():
            raise ValueError(f"{name}: {len(bad)} rows hold NaN, infinity or only zeros; the first is row {bad[0]}")
        parts.append(rows / norms)
    n_image, n_text = parts[0].shape[0], parts[1].shape[0]
    if parts[0].shape[1] != parts[1].shape[1]:
        raise ValueError(f"image rows have {parts[0].shape[1]} dimensions and text rows {parts[1].shape[1]}")
    image_share = n_image / max(n_image + n_text, 1) if share == "natural" else float(share)
    if n_image + n_text == 0 or (n_image == 0 and image_share > 0) or (n_text == 0 and image_share < 1):
        raise ValueError(f"image_share is {share}, but there are {n_image} image and {n_text} text rows")
    return Rows(torch.cat(parts), n_image, n_text, image_share)


def walk(seed: int, modality: int, rows: int, start: int, stop: int) -> np.ndarray:
    """Draws start..stop-1 of one modality's endless walk through its rows, [stop - start] int64.

    Permutation number p is a function of (seed, modality, p) alone; when it is used up, number p + 1 follows.
    """
    if start == stop:
        return np.empty(0, np.int64)
    first, last = start // rows, (stop - 1) // rows
    permutations = [
        np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(modality, p))).permutation(rows)
        for p in range(first, last + 1)
    ]
    return np.concatenate(permutations)[start - first * rows : stop - first * rows]


def batches(seed: int, epoch: int, images: int, texts: int, share: float, batch_size: int) -> Iterator[np.ndarray]:
    """Row numbers of each batch of one epoch, images first, texts offset by `images`; the last may be short.

    An epoch is images + texts draws at every share. After t draws since the start of training, round(t * share) were
    images: the count of every batch follows from that, and errors never add up. A function of (seed, epoch) alone.
    """
    rows = images + texts
    begin = epoch * rows

    def drawn(t: int) -> int:
        return math.floor(t * share + 0.5)

    image_walk = walk(seed, IMAGE, images, drawn(begin), drawn(begin + rows))
    text_walk = walk(seed, TEXT, texts, begin - drawn(begin), begin + rows - drawn(begin + rows)) + images
    for start in range(0, rows, batch_size):
        stop = min(start + batch_size, rows)
        i, j = drawn(begin + start) - drawn(begin), drawn(begin + stop) - drawn(begin)
        yield np.concatenate([image_walk[i:j], text_walk[start - i : stop - j]])


def geometric_median(x_ND: Tensor, weight_N: Tensor, iterations: int = 20) -> Tensor:
    """The point [d] with the least weighted mean distance to the rows, by Weiszfeld's iteration in float64.

    A start at the mean leaves a dictionary busy with outliers; a start at 0 leaves most concepts of uncentred
    embeddings dead.
    """
    x = x_ND.double()
    weight = weight_N / weight_N.sum()
    median = weight @ x
    for _ in range(iterations):
        pull = weight / (x - median).norm(dim=1).clamp_min(1e-9)
        median = (pull @ x) / pull.sum()
    return median.float()


def initial_weights(rows: Rows, settings: Settings, seed: int) -> Weights:
    """Atoms along differences of two training rows, the encoder their transpose, the bias at the geometric median.

    Differences rather than random directions, for they lie where the data varies and the mean drops out: in trials on
    planted vectors random directions left a few of 256 concepts dead that differences did not.
    """
    device, (count, dim) = rows.x.device, rows.x.shape
    weight = rows.weights()
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(START,)))
    drawn = order.choice(count, size=(2, settings.width), p=weight.cpu().numpy())
    first, second = torch.from_numpy(drawn).to(device)
    # A little noise, for two equal rows have no difference, and equal differences would stay twins for ever.
    noise = torch.randn(settings.width, dim, generator=torch.Generator().manual_seed(seed)).to(device)
    atoms = normalize(rows.x[first] - rows.x[second] + 0.1 * normalize(noise, dim=1), dim=1)
    bias = torch.zeros(dim, device=device)
    if settings.decoder_bias:
        sample = torch.from_numpy(order.permutation(count)[:MEDIAN_ROWS]).to(device)
        bias = geometric_median(rows.x[sample], weight[sample])
    return Weights(atoms.clone(), torch.zeros(settings.width, device=device), atoms, bias)


def aux_loss(pre_BC: Tensor, residual_BD: Tensor, dead_C: Tensor, dictionary_CD: Tensor, k_aux: int) -> Tensor:
    """AuxK: how badly the k_aux strongest dead concepts of each row predict the residual, over its variance.

    residual_BD is detached and the decoder bias left out, so that only dead concepts are taught; their gradient
    reaches the encoder through pre_BC. Source: Gao et al., arXiv 2406.04093, appendix A.2.
    """
    target = residual_BD.detach()
    strongest, index = pre_BC.masked_fill(~dead_C, -torch.inf).topk(min(k_aux, pre_BC.shape[1]), dim=1, sorted=False)
    codes_BC = torch.zeros_like(pre_BC).scatter(1, index, strongest.relu())
    variance = (target - target.mean(0)).square().sum().clamp_min(1e-12)
    return (codes_BC @ dictionary_CD - target).square().sum() / variance


def learning_rate_at(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 5 % (at most 1,000 steps), linear decay over the last 20 %. step counts from 0."""
    warmup = min(max(steps // 20, 1), 1000)
    return peak * min(1.0, (step + 1) / warmup, (steps - step) / max(steps * 0.2, 1))


class Trainer:
    """The state of a training: weights, optimiser, and how long each concept has been silent."""

    def __init__(self, rows: Rows, settings: Settings, seed: int) -> None:
        self.rows, self.settings = rows, settings
        self.weights = initial_weights(rows, settings, seed)
        self.draws = torch.Generator().manual_seed(seed)  # of the rows that dead concepts are pointed at
        learned = self.weights if settings.decoder_bias else self.weights[:3]
        for tensor in learned:
            tensor.requires_grad_()
        self.learned = list(learned)
        self.optimiser = torch.optim.Adam(self.learned, lr=settings.learning_rate, fused=True)
        self.silent_C = torch.zeros(settings.width, device=rows.x.device)  # rows since the concept last fired
        self.window = settings.dead_after_epochs * rows.x.shape[0]
        self.any_dead = False  # on the host; refreshed now and then, so that no step waits for the device
        weight = rows.weights()
        mean = (weight @ rows.x.double()) if rows.x.shape[0] <= MEDIAN_ROWS else _weighted_mean(rows.x, weight)
        self.mean_D = mean.float()
        self.variance = 1.0 - float(mean.square().sum())  # of unit rows about their mean, summed over d

    @torch.no_grad()
    def restart_dead_(self, x_BD: Tensor) -> None:
        """Point every dead concept at what a badly reconstructed row of the batch lacks, and let Adam forget its past.

        Rows are drawn in proportion to their squared error. AuxK alone teaches a dead concept only where its
        pre-activation is positive; while it loses to others its bias sinks, until there is no such row, and second
        moments from livelier days keep its steps small. Source: Bricken et al. 2023, "Towards monosemanticity",
        neuron resampling.
        """
        dead_C = self.dead()
        count = int(dead_C.sum())
        if count == 0:
            return
        codes_BC = batch_topk(self.weights.pre_activations(x_BD), self.settings.k)
        residual_BD = x_BD - codes_BC @ self.weights.dictionary - self.weights.bias
        error_B = residual_BD.square().sum(1).clamp_min(1e-12).nan_to_num(1.0, 1.0).cpu()  # `train` names a bad loss
        drawn = torch.multinomial(error_B, count, replacement=count > len(x_BD), generator=self.draws).to(x_BD.device)
        atoms_KD = normalize(residual_BD[drawn], dim=1)
        self.weights.dictionary[dead_C] = atoms_KD
        self.weights.encoder[dead_C] = atoms_KD
        self.weights.encoder_bias[dead_C] = 0.0
        for tensor in self.weights[:3]:
            for name in ("exp_avg", "exp_avg_sq"):
                self.optimiser.state[tensor][name][dead_C] = 0.0

    def dead(self) -> Tensor:
        """[C] bool: silent for the whole window."""
        return self.silent_C >= self.window

    def step_(self, x_BD: Tensor, learning_rate: float) -> Tensor:
        """One step: forward, backward, tangent, clip, Adam, unit atoms. Returns sums [4]: loss, error, variance, codes.

        The loss is the squared error over the variance of the training rows (so about 1 - R2), plus AuxK.
        """
        batch = x_BD.shape[0]
        pre_BC = self.weights.pre_activations(x_BD)
        codes_BC = batch_topk(pre_BC, self.settings.k)
        residual_BD = x_BD - codes_BC @ self.weights.dictionary - self.weights.bias
        error = residual_BD.square().sum()
        loss = error / (batch * self.variance)
        if self.settings.auxk > 0 and self.any_dead:
            k_aux = self.settings.k_aux or max(1, x_BD.shape[1] // 2)
            aux = aux_loss(pre_BC, residual_BD, self.dead(), self.weights.dictionary, k_aux)
            loss = loss + self.settings.auxk * aux
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._apply_(learning_rate)
        with torch.no_grad():
            fires_BC = codes_BC > 0
            self.silent_C = torch.where(fires_BC.any(0), 0.0, self.silent_C + batch)
            return torch.stack([loss * batch, error, (x_BD - self.mean_D).square().sum(), fires_BC.sum()])

    @torch.no_grad()
    def _apply_(self, learning_rate: float) -> None:
        atoms, gradient = self.weights.dictionary, self.weights.dictionary.grad
        if gradient is not None:
            gradient -= (gradient * atoms).sum(1, keepdim=True) * atoms  # along an atom lies only its norm, which is 1
        torch.nn.utils.clip_grad_norm_(self.learned, 1.0)
        self.optimiser.param_groups[0]["lr"] = learning_rate
        self.optimiser.step()
        atoms /= atoms.norm(dim=1, keepdim=True)

    def finish(self, seed: int) -> SAE:
        """The SAE, its threshold calibrated on all training rows at the training mixture."""
        settings, x = self.settings, self.rows.x
        weights = Weights(*(tensor.detach() for tensor in self.weights))
        threshold = calibrate(weights.pre_activations, x, self.rows.weights(), settings.k)
        shared = {field.name for field in dataclasses.fields(Config)} & {f.name for f in dataclasses.fields(Settings)}
        entries: dict[str, Any] = {name: getattr(settings, name) for name in shared}
        config = Config(**entries, dim=x.shape[1], seed=seed, rows_seen=settings.epochs * x.shape[0])
        return SAE(*weights, threshold, config)


def _weighted_mean(x_ND: Tensor, weight_N: Tensor, chunk: int = 65_536) -> Tensor:
    """float64 mean [d] without a float64 copy of all rows."""
    parts = zip(x_ND.split(chunk), weight_N.split(chunk), strict=True)
    return torch.stack([weight @ x.double() for x, weight in parts]).sum(0)


def train(
    image: np.ndarray | Tensor,
    text: np.ndarray | Tensor,
    settings: Settings,
    seed: int,
    device: str | torch.device = "cpu",
    on_step: OnStep | None = None,
) -> Trained:
    """Train one SAE on image rows [n_I, d] and text rows [n_T, d].

    The seed sets the initialisation and the order of rows. `on_step(step, steps, stats)` runs after every step with
    the statistics of the last log point (empty before the first). Raises ValueError on unusable rows,
    TrainingDiverged where the loss is no number.
    """
    rows = training_rows(image, text, settings.image_share, device)
    trainer = Trainer(rows, settings, seed)
    count = rows.x.shape[0]
    epoch_steps = math.ceil(count / settings.batch_size)
    steps = settings.epochs * epoch_steps
    log_every, dead_every = math.ceil(steps / LOG_POINTS), max(1, epoch_steps // 10)
    restart_every = max(1, int(epoch_steps * settings.dead_after_epochs))
    sums = torch.zeros(4, device=rows.x.device)
    first_bad = torch.tensor(-1, device=rows.x.device)
    curve: list[dict[str, float]] = []
    step, seen, started = 0, 0, time.perf_counter()
    for epoch in range(settings.epochs):
        for index in batches(seed, epoch, rows.images, rows.texts, rows.share, settings.batch_size):
            x_BD = rows.x[torch.from_numpy(index).to(rows.x.device)]
            part = trainer.step_(x_BD, learning_rate_at(step, steps, settings.learning_rate))
            step, seen, sums = step + 1, seen + len(index), sums + part
            first_bad = torch.where((first_bad < 0) & ~torch.isfinite(part[0]), step, first_bad)
            if step % dead_every == 0:
                trainer.any_dead = bool(trainer.dead().any())
            if settings.auxk > 0 and trainer.any_dead and step % restart_every == 0 and step < 0.8 * steps:
                trainer.restart_dead_(x_BD)
            if step % log_every == 0 or step == steps:
                if (bad := int(first_bad)) >= 0:
                    raise TrainingDiverged(
                        f"the loss is not a number at step {bad} of {steps}: try a smaller learning_rate"
                    )
                now = time.perf_counter()
                curve.append(_log_point(sums, trainer, seen) | {"step": step, "epoch": step / epoch_steps})
                curve[-1]["rows_per_second"] = seen / max(now - started, 1e-9)
                sums, seen, started = torch.zeros_like(sums), 0, now
            if on_step is not None:
                on_step(step, steps, curve[-1] if curve else {})
    return Trained(trainer.finish(seed), curve)


def _log_point(sums: Tensor, trainer: Trainer, seen: int) -> dict[str, float]:
    """Loss, R2 about the mean of the training mixture, L0 and dead fraction over the rows since the last point."""
    loss, error, variance, codes = sums.tolist()
    return {
        "loss": loss / seen,
        "r2": 1 - error / variance if variance > 0 else math.nan,
        "l0": codes / seen,
        "dead_fraction": float(trainer.dead().float().mean()),
    }
