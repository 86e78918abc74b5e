"""The training step of TopK, BatchTopK and Matryoshka on a CPU, without autograd: only the encoder's product is dense.

It takes 2 B d C + 8 B k d operations; dense autograd takes 12 B d C. It selects exactly the codes that `sae.sparsity`
selects, and its gradients are those of `sae.step`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sae.architectures import ARCHITECTURES
from sae.budget import Resolved
from sae.settings import Settings
from sae.step import Weights, has_bfloat16
from sae.workers import Workers

BETAS, EPSILON = (0.9, 0.999), 1e-8  # constants of Adam, as in torch
PARTS = ("encoder", "encoder_bias", "dictionary")  # tensors with a row per concept, which one loop updates
LARGEST_NORM = 1.0  # largest norm of all gradients together; above it they are scaled down


class Kept(NamedTuple):
    """The selected codes in row order, with an index by concept."""

    row_start: np.ndarray  # [B + 1]
    concepts: np.ndarray  # [M] int32, rising within a row
    codes: np.ndarray  # [M] float32
    concept_start: np.ndarray  # [C + 1]
    rows: np.ndarray  # [M] int32, sorted by concept
    places: np.ndarray  # [M] int32: the place of each code in row order


class StepResult(NamedTuple):
    """Results of one training step."""

    loss: float
    error: float  # squared error of the batch
    kept: int  # number of codes
    fired: Tensor  # [C] bool


def corrections(learning_rate: float, t: Any) -> tuple[Any, Any]:
    """Adam's corrections of moments that began at 0, t steps ago: learning rate / (1 - beta1^t), 1 / sqrt(1 - beta2^t).

    t: a number from 1, or an array or tensor of them.
    """
    return learning_rate / (1 - BETAS[0] ** t), (1 - BETAS[1] ** t) ** -0.5


def is_sparse_better(settings: Settings, device: torch.device) -> bool:
    """Return whether the sparse step is faster: on a CPU with more than 10 concepts per code (2 cores, float32)."""
    selects_k = ARCHITECTURES[settings.architecture].selection is not None
    return device.type == "cpu" and selects_k and settings.width > 10 * settings.k


class SparseStep:
    """The sparse training step and its buffers.

    moments: first and second moment of Adam for each tensor of weights that is learned, changed in place like the
    weights themselves. Of `encoder`, `encoder_bias` and `dictionary`, a tensor without moments is frozen: its gradient
    is 0, so that it neither changes (but for the rounding of atoms to unit norm) nor counts in the clipping.
    on_part(name): called after each part of the step; a benchmark sets it to time the parts.
    """

    def __init__(self, weights: Weights, moments: dict[str, tuple[Tensor, Tensor]], settings: Resolved) -> None:
        from sae import selection_kernels, step_kernels  # imported here: a GPU needs no numba, which takes long to load

        self.selection, self.kernels = selection_kernels, step_kernels
        self.settings, self.weights = settings, weights
        self.frozen = tuple(name for name in PARTS if name not in moments)
        still = {name: torch.zeros_like(getattr(weights, name).detach()) for name in self.frozen}
        self.moments = moments | {name: (zeros, zeros) for name, zeros in still.items()}
        self.workers = Workers()
        self.on_part: Callable[[str], None] = lambda part: None
        width = settings.width
        self.widths = np.array(settings.nested_widths(), np.int64)
        self.dtype = getattr(torch, settings.encoder_dtype)
        self.native = self.dtype != torch.float32 and has_bfloat16(weights.encoder.device)
        self.rounded = torch.empty(width if self.native else 0, weights.encoder.shape[1], dtype=torch.bfloat16)
        self.to = Weights(*(torch.zeros_like(weight) for weight in weights))
        self.slot = np.full(width, -1, np.int64)
        self.cut, self.shift = 0.0, torch.empty(width)
        self._reserve(settings.batch_size)
        self.refold_()

    def _reserve(self, rows: int) -> None:
        """Allocate buffers for a batch of `rows` rows."""
        width, dim = self.weights.encoder.shape
        self.product = torch.empty(rows, width, dtype=self.dtype if self.native else torch.float32)
        # Both are as wide as the dictionary but rarely filled. Memory pages that are never written take no memory.
        self.index, self.value = np.empty((rows, width), np.int32), np.empty((rows, width), np.float32)
        self.counts = np.zeros(rows, np.int64)
        self.residuals = np.zeros((len(self.widths), rows, dim), np.float32)

    def refold_(self) -> None:
        """Recompute what is derived from the weights, after they were changed outside the step."""
        weights = self.weights
        arrays = _array(weights.encoder), _array(weights.encoder_bias), _array(weights.bias), self.shift.numpy()
        self.workers.run(self.kernels.fold_, len(self.slot), *arrays)
        if self.native:
            self.rounded.copy_(weights.encoder.detach())

    @torch.no_grad()
    def step_(
        self, x_BD: Tensor, variance: float, learning_rate: float, t: int, dead_C: Tensor | None, born_C: Tensor
    ) -> StepResult:
        """One step: encode, select, reconstruct, gradients, clip, Adam, unit atoms.

        t counts steps from 1. born_C: [C] int64, the number of steps before each concept was last started.
        """
        if len(x_BD) > len(self.counts):
            self._reserve(len(x_BD))
        scale = 1 / (len(x_BD) * variance)
        self._encode(x_BD)
        kept = self._select(len(x_BD))
        loss, error, to_codes = self._reconstruct(x_BD, kept, scale)
        auxiliary = self._auxiliary(x_BD, scale, error, dead_C) if dead_C is not None else None
        squares = self._gradients(x_BD, kept, to_codes, auxiliary)
        self._update_(learning_rate, t, born_C, squares)
        if auxiliary is not None:
            loss += self.settings.auxk * auxiliary.loss
        return StepResult(loss, error, len(kept.codes), torch.from_numpy(np.diff(kept.concept_start) > 0))

    @torch.no_grad()
    def residual(self, x_BD: Tensor) -> tuple[Tensor, float]:
        """Residual of rows [B, d] after reconstruction from the step's own codes, and the weakest of these codes."""
        self._encode(x_BD)
        kept = self._select(len(x_BD))
        self._reconstruct(x_BD, kept, -0.5)  # with scale -1/2 the gradient is the residual
        return torch.from_numpy(self.residuals[-1, : len(x_BD)].copy()), float(kept.codes.min(initial=np.inf))

    def _encode(self, x_BD: Tensor) -> None:
        encoder, out = self.weights.encoder, self.product[: len(x_BD)]
        if self.dtype == torch.float32:
            torch.mm(x_BD, encoder.T, out=out)
        elif self.native:
            torch.mm(x_BD.to(self.dtype), self.rounded.T, out=out)
        else:
            torch.mm(x_BD.to(self.dtype).float(), encoder.to(self.dtype).float().T, out=out)
        self.on_part("encode")

    def _select(self, batch: int) -> Kept:
        """Exactly the codes that `sae.sparsity` keeps; `cut` only excludes most pre-activations early."""
        settings = self.settings
        k = settings.k if ARCHITECTURES[settings.architecture].selection == "row" else 0
        product = self.product[:batch]
        numbers = product.view(torch.uint16).numpy() if self.native else product.numpy()
        loop = self.selection.candidates_of_bfloat16_ if self.native else self.selection.candidates_
        counts, wanted = self.counts[:batch], settings.k * batch

        def scan() -> int:
            arguments = numbers, self.shift.numpy(), np.float32(self.cut), k, self.index, self.value, counts
            self.workers.run(loop, batch, *arguments)
            return int(counts.sum())

        total = scan()
        for lower in (0.8 * self.cut, 0.0):
            if k == 0 and total < wanted and self.cut > 0:
                self.cut = lower  # the cut of the last batch is too high for this batch
                total = scan()
        smallest, equal = 0.0, 0
        values = self.selection.gather(counts, self.value, total)
        if k == 0 and total > wanted:
            smallest = float(np.partition(values, total - wanted)[total - wanted])
            equal = wanted - int((values > smallest).sum())
        selected = self.selection.compact(counts, self.index, self.value, total, np.float32(smallest), equal)
        if k:
            self.cut = 0.7 * float(values.reshape(batch, -1).min(1).mean()) if total == wanted else 0.0
        else:
            self.cut = 0.95 * smallest
        kept = Kept(*selected, *self.selection.by_concept(selected[0], selected[1], settings.width))
        self.on_part("select")
        return kept

    def _reconstruct(self, x_BD: Tensor, kept: Kept, scale: float) -> tuple[float, float, np.ndarray]:
        to_codes = np.empty(len(kept.codes), np.float32)
        weights = self.weights
        arguments = x_BD.numpy(), _array(weights.dictionary), _array(weights.bias), kept.row_start, kept.concepts
        parts = self.workers.run(
            self.kernels.reconstruct_, len(x_BD), *arguments, kept.codes, self.widths, np.float32(scale),
            self.residuals, to_codes,
        )  # fmt: skip
        errors, last = (sum(part[i] for part in parts) for i in (0, 1))
        _array(self.to.bias)[:] = sum(part[2] for part in parts)
        self.on_part("reconstruct")
        return errors * scale, last, to_codes

    def _auxiliary(self, x_BD: Tensor, scale: float, error: float, dead_C: Tensor) -> "Auxiliary | None":
        """AuxK (`sae.step.aux_loss`) and its gradients, by dense products over the dead concepts only.

        The products use the encoder's dtype. In float32 they took longer than every part of the step except the
        encoder's product.
        """
        dead = dead_C.nonzero().flatten()
        if len(dead) == 0:
            return None
        k_aux = min(self.settings.k_aux or max(1, x_BD.shape[1] // 2), len(dead))
        codes_BK = self._strongest_of(dead, k_aux, len(x_BD))
        dtype = codes_BK.dtype
        atoms_KD = self.weights.dictionary.detach()[dead].to(dtype)
        # `residuals` holds 2 scale (x_hat - x), and x - x_hat is what AuxK is to predict.
        gradient_BD = torch.from_numpy(self.residuals[-1, : len(x_BD)])
        wrong_BD = (codes_BK @ atoms_KD).float().add_(gradient_BD, alpha=0.5 / scale)
        mean_D = gradient_BD.sum(0) * (0.5 / scale / len(x_BD))
        spread = max(error - len(x_BD) * float(mean_D @ mean_D), 1e-12)  # the same as `sae.step.spread`
        loss = float(torch.dot(wrong_BD.flatten(), wrong_BD.flatten())) / spread
        wrong_BD = wrong_BD.to(dtype)
        right_BK = (wrong_BD @ atoms_KD.T) * (codes_BK > 0)
        slope = 2 * self.settings.auxk / spread
        auxiliary = Auxiliary(
            loss,
            (right_BK.T @ x_BD.to(dtype)).float() * slope,
            right_BK.sum(0, dtype=torch.float32) * slope,
            (codes_BK.T @ wrong_BD).float() * slope,
        )
        self.slot[:] = -1
        self.slot[dead.numpy()] = np.arange(len(dead))
        self.on_part("auxiliary")
        return auxiliary

    def _strongest_of(self, concepts: Tensor, k: int, batch: int) -> Tensor:
        """Codes [B, K] of `concepts` [K], the k strongest of each row, in the dtype of the products."""
        product = self.product[:batch]
        numbers = product.view(torch.uint16).numpy() if self.native else product.numpy()
        loop = self.selection.strongest_of_bfloat16_ if self.native else self.selection.strongest_
        codes = np.empty((batch, len(concepts)), np.float32)
        self.workers.run(loop, batch, numbers, self.shift.numpy(), concepts.numpy(), k, codes)
        return torch.from_numpy(codes).to(product.dtype)

    def _gradients(self, x_BD: Tensor, kept: Kept, to_codes: np.ndarray, auxiliary: "Auxiliary | None") -> float:
        """Write the gradients into `self.to`. Returns the sum of their squares."""
        weights, to = self.weights, self.to
        if auxiliary is None:
            self.slot[:] = -1
            nothing = np.zeros((0, x_BD.shape[1]), np.float32)
            added = nothing, np.zeros(0, np.float32), nothing
        else:
            added = auxiliary.encoder.numpy(), auxiliary.bias.numpy(), auxiliary.dictionary.numpy()
        arguments = x_BD.numpy(), _array(weights.dictionary), _array(weights.bias), self.residuals, self.widths
        squares = self.workers.run(
            self.kernels.gradients_, len(self.slot), *arguments, kept.codes, to_codes, kept.concept_start, kept.rows,
            kept.places, self.slot, *added, _array(to.encoder), _array(to.encoder_bias), _array(to.dictionary),
        )  # fmt: skip
        total = float(sum(squares))
        if self.settings.decoder_bias:
            to.bias.sub_(to.encoder_bias @ weights.encoder)
        for name in self.frozen:
            getattr(to, name).zero_()
        if self.frozen:
            total = sum(float(getattr(to, name).square().sum()) for name in PARTS)
        if self.settings.decoder_bias:
            total += float(to.bias.square().sum())
        self.on_part("gradients")
        return total

    def _update_(self, learning_rate: float, t: int, born_C: Tensor, squares: float) -> None:
        factor = np.float32(min(1.0, LARGEST_NORM / (squares**0.5 + 1e-6)))
        constants: Any = tuple(np.float32(number) for number in (*BETAS, EPSILON))
        parts = {name: self._parts(name) for name in PARTS}
        if self.settings.decoder_bias:
            at: Any = self._parts("bias")
            whole: Any = (factor, *map(np.float32, corrections(learning_rate, t)), *constants)
            self.kernels.adam_(*at, *whole)
        rates, roots = (number.astype(np.float32) for number in corrections(learning_rate, t - born_C.numpy()))
        self.workers.run(
            self.kernels.update_, len(self.slot), parts["encoder"], parts["encoder_bias"], parts["dictionary"],
            _array(self.weights.bias), self.shift.numpy(), self.rounded.view(torch.uint16).numpy(), factor, rates,
            roots, constants,
        )  # fmt: skip
        self.on_part("update")

    def _parts(self, name: str) -> tuple[np.ndarray, ...]:
        first, second = self.moments[name]
        return tuple(_array(tensor) for tensor in (getattr(self.weights, name), getattr(self.to, name), first, second))


class Auxiliary(NamedTuple):
    """AuxK's loss, and its gradients for the K dead concepts, multiplied by the weight `auxk`."""

    loss: float
    encoder: Tensor
    bias: Tensor
    dictionary: Tensor


def _array(tensor: Tensor) -> np.ndarray:
    """A NumPy view of the tensor."""
    return tensor.detach().numpy()
