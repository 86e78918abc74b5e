"""The training rows, and the order in which batches draw them.

Rows keep their dtype (float16 stays float16) and are normalised batch by batch. On a CPU they stay in the caller's
arrays; for another device they are copied once.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

Matrix = np.ndarray[Any, Any] | Tensor  # rows [n, d] as callers give them
Groups = tuple[np.ndarray, np.ndarray]  # the group of each image row and of each text row
IMAGE, TEXT = 0, 1  # streams of random numbers under one seed
HELD_BACK = 3  # the stream that draws the groups that are held back; `sae.initial` has stream 2
CHUNK = 16_384  # rows per part of a pass over all of them
Chosen = tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]


class RowsError(ValueError):
    """The rows cannot be used for training; the message says which rows, and what is wrong with them."""

    exit_code: ClassVar[int] = 2


class Mixture(NamedTuple):
    """Mean and variance of the rows, weighted as in the training mixture."""

    mean: Tensor  # [d] float32
    variance: float  # mean squared distance to the mean


class TrainingRows:
    """Unit rows of two modalities, images first; row number i < images is an image.

    mean: [2, d] float32, subtracted from the rows of each modality; None without centring.
    chosen: the places in `parts` of the rows that are used, rising; None for all rows.
    epoch: number of draws in an epoch: all rows of `parts`, chosen or not.
    """

    def __init__(self, parts: tuple[Tensor, Tensor], share: float, chosen: Chosen | None = None) -> None:
        self.parts, self.share, self.chosen = parts, share, chosen
        self.images, self.texts = (len(part) for part in (parts if chosen is None else chosen))
        self.count, self.dim = self.images + self.texts, int(parts[0].shape[1])
        self.epoch = len(parts[0]) + len(parts[1])
        self.device = parts[0].device
        self.mean: Tensor | None = None

    def weights(self) -> np.ndarray:
        """Each row's weight in the training mixture, [count] float64, sum 1."""
        image, text = self.weight_of_each()
        return np.repeat([image, text], [self.images, self.texts])

    def weight_of_each(self) -> tuple[float, float]:
        """The weight of one image row, and of one text row."""
        return self.share / max(self.images, 1), (1 - self.share) / max(self.texts, 1)

    def take(self, index: np.ndarray) -> Tensor:
        """The rows [B, d] float32 with the given numbers [B], images first; normalised, and centred after `centre_`."""
        images = int((index < self.images).sum())
        x_BD = torch.empty(len(index), self.dim, device=self.device)
        for part, where, cut, modality in (
            (self.parts[0], index[:images], slice(0, images), IMAGE),
            (self.parts[1], index[images:] - self.images, slice(images, None), TEXT),
        ):
            if len(where):
                places = where if self.chosen is None else self.chosen[modality][where]
                x_BD[cut] = part.index_select(0, self._numbers(places))
                self._prepare_(x_BD[cut], modality)
        return x_BD

    def pick(self, index: np.ndarray) -> Tensor:
        """The rows [B, d] with the given numbers [B], which may be in any order; returned in that order."""
        order = np.argsort(index, kind="stable")
        x_BD = torch.empty(len(index), self.dim, device=self.device)
        x_BD[torch.from_numpy(order).to(self.device)] = self.take(index[order])
        return x_BD

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Rows [count, d] of `take`, drawn from the training mixture with replacement; images first."""
        images = math.floor(count * self.share + 0.5)
        image = torch.randint(max(self.images, 1), (images,), generator=generator)
        text = self.images + torch.randint(max(self.texts, 1), (count - images,), generator=generator)
        return self.take(torch.cat([image, text]).numpy())

    def chunks(self, size: int = CHUNK, stride: int = 1) -> Iterator[tuple[int, Tensor]]:
        """Yield (modality, rows [<= size, d] of `take`): all rows in order, or every stride-th of each modality."""
        for modality, part in enumerate(self.parts):
            places = None if self.chosen is None else self.chosen[modality][::stride]
            strided = part[::stride] if places is None else part
            for start in range(0, len(strided) if places is None else len(places), size):
                cut = slice(start, start + size)
                rows = strided[cut] if places is None else part.index_select(0, self._numbers(places[cut]))
                x_BD = rows.to(torch.float32, copy=True)
                self._prepare_(x_BD, modality)
                yield modality, x_BD

    def weighted(self, stride: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows [<= 2048, d] and their weights [<= 2048] float64: all rows with a weight above 0, in order.

        stride: yield only every stride-th row.
        """
        weight = self.weight_of_each()
        for modality, x_BD in self.chunks(2048, stride):
            if weight[modality] > 0:
                yield x_BD, torch.full((len(x_BD),), weight[modality], dtype=torch.float64, device=self.device)

    def thinned(self, limit: int) -> "TrainingRows":
        """The same rows, or every n-th of each modality if there are more than `limit` of them."""
        stride = math.ceil(self.count / limit)
        if stride <= 1:
            return self
        places = self.chosen or (np.arange(self.images), np.arange(self.texts))
        fewer = TrainingRows(self.parts, self.share, (places[0][::stride], places[1][::stride]))
        fewer.mean = self.mean
        return fewer

    def centre_(self) -> tuple[Tensor, Tensor]:
        """From now on subtract each modality's mean from its rows. Returns both means [d], 0 if a modality is empty."""
        self.mean = None
        sums = torch.zeros(2, self.dim, dtype=torch.float64, device=self.device)
        for modality, x_BD in self.chunks():
            sums[modality] += x_BD.sum(0, dtype=torch.float64)
        counts = torch.tensor([[self.images], [self.texts]], device=self.device).clamp_min(1)
        self.mean = (sums / counts).float()
        return self.mean[0], self.mean[1]

    def mixture(self) -> Mixture:
        """Mean and variance of the rows as `take` returns them, weighted as in the training mixture."""
        mean = torch.zeros(self.dim, dtype=torch.float64, device=self.device)
        square = torch.zeros((), dtype=torch.float64, device=self.device)
        weight = self.weight_of_each()
        for modality, x_BD in self.chunks():
            mean += weight[modality] * x_BD.sum(0, dtype=torch.float64)
            square += weight[modality] * x_BD.square().sum(dtype=torch.float64)
        return Mixture(mean.float(), float(square - mean.square().sum()))

    def _numbers(self, index: np.ndarray) -> Tensor:
        """Row numbers on the device; the host does not wait for the copy."""
        numbers = torch.from_numpy(index)
        return numbers if self.device.type == "cpu" else numbers.pin_memory().to(self.device, non_blocking=True)

    def _prepare_(self, x_BD: Tensor, modality: int) -> None:
        x_BD /= x_BD.norm(dim=1, keepdim=True)
        if self.mean is not None:
            x_BD -= self.mean[modality]


def take_each(rows: Sequence[TrainingRows], index: Sequence[np.ndarray]) -> Tensor:
    """What `take` gives for each of several TrainingRows of the same parts, in one gather a modality: [S, B, d].

    index: row numbers [B] for each, images first, with as many images in each.
    """
    first, images = rows[0], int((index[0] < rows[0].images).sum())
    x_SBD = torch.empty(len(rows), len(index[0]), first.dim, device=first.device)
    for modality, cut in ((IMAGE, slice(0, images)), (TEXT, slice(images, None))):
        wanted = [each[cut] - (own.images if modality == TEXT else 0) for own, each in zip(rows, index, strict=True)]
        if not len(wanted[0]):
            continue
        chosen = [None if own.chosen is None else own.chosen[modality] for own in rows]
        places = [each if of is None else of[each] for of, each in zip(chosen, wanted, strict=True)]
        found = first.parts[modality].index_select(0, first._numbers(np.concatenate(places)))
        part_SBD = x_SBD[:, cut]
        part_SBD.copy_(found.view(len(rows), -1, first.dim))
        part_SBD /= part_SBD.norm(dim=-1, keepdim=True)
        if first.mean is not None:
            part_SBD -= torch.stack([own.mean[modality] for own in rows if own.mean is not None])[:, None]
    return x_SBD


def training_rows(
    image: np.ndarray | Tensor, text: np.ndarray | Tensor, share: float | str, device: str | torch.device
) -> TrainingRows:
    """The rows of both modalities, in their dtype, on the device. Raises RowsError naming the first unusable row.

    Memory-mapped arrays are read into memory whole, because an epoch draws rows in random order.
    """
    parts = []
    for name, values in (("image", image), ("text", text)):
        rows = torch.from_numpy(np.array(values)) if isinstance(values, np.memmap) else torch.as_tensor(values)
        rows = rows if rows.dtype in (torch.float16, torch.bfloat16) else rows.float()
        if rows.ndim != 2:
            raise RowsError(f"{name} has shape {tuple(rows.shape)}; [rows, dimension] is needed")
        bad = [start + i for start in range(0, len(rows), CHUNK) for i in _unusable(rows[start : start + CHUNK])]
        if bad:
            raise RowsError(f"{name}: {len(bad)} rows hold NaN, infinity or only zeros; the first is row {bad[0]}")
        parts.append(rows.to(device))
    n_image, n_text = parts[0].shape[0], parts[1].shape[0]
    if parts[0].shape[1] != parts[1].shape[1]:
        raise RowsError(f"image rows have {parts[0].shape[1]} dimensions and text rows {parts[1].shape[1]}")
    image_share = n_image / max(n_image + n_text, 1) if share == "natural" else float(share)
    if n_image + n_text == 0 or (n_image == 0 and image_share > 0) or (n_text == 0 and image_share < 1):
        raise RowsError(f"image_share is {share}, but there are {n_image} image and {n_text} text rows")
    return TrainingRows((parts[0], parts[1]), image_share)


def _unusable(rows: Tensor) -> list[int]:
    norms = rows.float().norm(dim=1)
    numbers: list[int] = (~torch.isfinite(norms) | (norms == 0)).nonzero().flatten().tolist()
    return numbers


def walk(seed: int, modality: int, rows: int, start: int, stop: int) -> np.ndarray:
    """Draws start..stop-1 of an endless sequence of permutations of one modality's rows, [stop - start] int64.

    Permutation number p depends only on (seed, modality, p). Permutation number p + 1 follows it.
    """
    if start == stop:
        return np.empty(0, np.int64)
    first, last = start // rows, (stop - 1) // rows
    permutations = [
        np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(modality, p))).permutation(rows)
        for p in range(first, last + 1)
    ]
    return np.concatenate(permutations)[start - first * rows : stop - first * rows]


def held_back(groups: Groups, share: float, limit: int, least: int, seed: int) -> tuple[Chosen | None, Chosen | None]:
    """Divide the rows by groups into those that gradient steps use, and those that thresholds are calibrated on.

    groups: the group of each image row [n_I] and of each text row [n_T]; equal numbers are one group. share: the share
    of the groups that is held back, drawn by the seed. limit: largest number of rows to hold back, on average over
    draws. Returns the places of both, images and texts; (None, None), which holds nothing back, if fewer than `least`
    rows would be held back, or if a modality would have no row left on a side.
    """
    rows = len(groups[0]) + len(groups[1])
    share = min(share, limit / max(rows, 1))
    if share * rows < least:
        return None, None
    names, number = np.unique(np.concatenate(groups), return_inverse=True)
    drawn = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(HELD_BACK,)))
    held = np.zeros(len(names), bool)
    held[drawn.permutation(len(names))[: math.ceil(share * len(names))]] = True
    sides = np.split(held[number], [len(groups[0])])
    if any(len(side) and (side.all() or not side.any()) for side in sides):
        return None, None
    used, kept = ((np.flatnonzero(which[0]), np.flatnonzero(which[1])) for which in ([~s for s in sides], sides))
    return used, kept


def batches(
    seed: int, epoch: int, images: int, texts: int, share: float, batch_size: int, draws: int | None = None
) -> Iterator[np.ndarray]:
    """Yield the row numbers of each batch of one epoch: images, then texts offset by `images`.

    An epoch is `draws` draws (by default images + texts), whatever the share. Of the first t draws of a training,
    round(t * share) are images. The number of images in a batch follows from this, and rounding errors do not add up.
    For given rows, share, draws and batch_size the result depends on (seed, epoch) alone. The last batch may be
    shorter.
    """
    rows = images + texts if draws is None else draws
    begin = epoch * rows

    def drawn(t: int) -> int:
        return math.floor(t * share + 0.5)

    image_walk = walk(seed, IMAGE, images, drawn(begin), drawn(begin + rows))
    text_walk = walk(seed, TEXT, texts, begin - drawn(begin), begin + rows - drawn(begin + rows)) + images
    for start in range(0, rows, batch_size):
        stop = min(start + batch_size, rows)
        i, j = drawn(begin + start) - drawn(begin), drawn(begin + stop) - drawn(begin)
        yield np.concatenate([image_walk[i:j], text_walk[start - i : stop - j]])
