"""The consensus SAE of the seeds of one setting: the atoms that most seeds share, merged, with an encoder of their own.

docs/definitions.md, "Consensus SAE". Which atoms belong together follows from an exact assignment, which the caller
provides, since this folder has no solver.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from sae.architectures import ARCHITECTURES
from sae.checkpoint import Checkpoint
from sae.model import MEANS, SAE
from sae.rows import Groups
from sae.settings import Settings
from sae.step import Weights
from sae.training import OnStep, train

COSINE = 0.7  # least cosine of a seed's atom with the medoid's atom that it is assigned to, for the seed to hold it
LEAST_SEEDS = 2  # that hold an atom: half of two seeds is one, which the medoid always is
FEWEST = 2  # atoms: an SAE has at least two

#: Unit rows [C, d] of two dictionaries -> the row of the second that each row of the first is assigned to, [C] int64,
#: and their cosines, [C]. The assignment is one to one, and its sum of cosines is the largest.
Match = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class NoConsensus(ValueError):
    """The seeds share too few atoms for an SAE, or they cannot be joined; the message says why."""

    exit_code: ClassVar[int] = 2


class Shared(NamedTuple):
    """The atoms that most seeds hold, in the order of the medoid's concepts."""

    atoms: np.ndarray  # [A, d] float32, unit rows: normalised means of the atoms of the seeds that hold them
    concepts: np.ndarray  # [A, S] int64: the concept of each seed that is part of the atom; -1 where it holds none
    cosines: np.ndarray  # [A, S] float32: cosine of each seed's atom with the merged one; NaN where it holds none
    medoid: int  # the place of the medoid among the seeds

    @property
    def seeds(self) -> np.ndarray:
        """[A] int64: how many seeds hold each atom."""
        return (self.concepts >= 0).sum(1)


class Made(NamedTuple):
    """A consensus SAE."""

    sae: SAE
    shared: Shared
    curve: list[dict[str, float]]  # of the training of its encoder; empty where the architecture has no encoder


def shared_atoms(dictionaries: Sequence[np.ndarray], match: Match, least: float = COSINE) -> Shared:
    """The atoms that at least half of S seeds hold, and at least two, from their dictionaries [C, d] with unit rows.

    The medoid is the seed whose mean matched cosine with the other seeds is the largest; of equal ones, the first. A
    seed holds an atom of the medoid if its own atom that is assigned to it has a cosine of `least` or more with it. The
    medoid holds all of its atoms, so that a bound of one seed, half of two, would bound nothing. The result depends on
    the order of the seeds, and of a seed's atoms, only in the order of its rows and columns, and where two seeds are
    equally good medoids. Raises ValueError for fewer than two dictionaries, or for unequal shapes.
    """
    D = [np.asarray(each, np.float32) for each in dictionaries]
    if len(D) < 2 or any(each.ndim != 2 or each.shape != D[0].shape for each in D):
        raise ValueError(f"dictionaries of shapes {[each.shape for each in D]}; two or more of one shape are needed")
    seeds, width = len(D), len(D[0])
    assigned = np.tile(np.arange(width), (seeds, seeds, 1))  # [S, S, C]: concept of the second for each of the first
    cosine = np.ones((seeds, seeds, width), np.float32)
    for a in range(seeds):
        for b in range(a + 1, seeds):
            assigned[a, b], cosine[a, b] = match(D[a], D[b])
            assigned[b, a, assigned[a, b]] = np.arange(width)
            cosine[b, a, assigned[a, b]] = cosine[a, b]
    medoid = int(cosine.mean(2, dtype=np.float64).sum(1).argmax())
    holds = (cosine[medoid] >= least).T  # [C, S]
    holds[:, medoid] = True
    kept = holds.sum(1) >= max(LEAST_SEEDS, math.ceil(seeds / 2))
    concepts = np.where(holds, assigned[medoid].T, -1)[kept]
    each = np.stack([D[seed][concepts[:, seed]] for seed in range(seeds)], axis=1)  # [A, S, d]
    held = (concepts >= 0)[:, :, None]
    atoms = np.where(held, each, 0).sum(1, dtype=np.float64)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    atoms = atoms.astype(np.float32)
    cosines = np.where(held[:, :, 0], np.einsum("asd,ad->as", each, atoms), np.nan).astype(np.float32)
    return Shared(atoms, concepts, cosines, medoid)


def consensus(
    saes: Sequence[SAE],
    image: np.ndarray,
    text: np.ndarray,
    match: Match,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_step: OnStep | None = None,
    checkpoint: Checkpoint | None = None,
    groups: Groups | None = None,
) -> Made:
    """The consensus SAE of the seeds of one setting, its encoder trained on image rows [n_I, d] and text rows [n_T, d].

    The dictionary is that of `shared_atoms` and stays as it is. Encoder rows, encoder biases, learned thresholds and
    decoder bias start at the means over the seeds that hold each atom, and are trained as the setting trains them: the
    loss, the rows, the number of draws and the calibration of the threshold to k codes per row are those of the seeds.
    seed: decides the order of the rows. An SAE that encodes by pursuit with its dictionary has no encoder to train, and
    gets the mean decoder bias. The other arguments are those of `sae.train`. Raises NoConsensus if the SAEs differ in
    architecture, width, dimension or centring, or share fewer than two atoms.
    """
    alike = {(s.config.architecture, s.config.width, s.config.dim, s.config.centring) for s in saes}
    if len(alike) > 1:
        raise NoConsensus(f"SAEs that are joined differ in architecture, width, dimension or centring: {sorted(alike)}")
    shared = shared_atoms([s.dictionary.cpu().numpy() for s in saes], match)
    if len(shared.atoms) < FEWEST:
        raise NoConsensus(
            f"{len(shared.atoms)} of {saes[0].config.width} atoms are held by at least half of {len(saes)} seeds at a "
            f"cosine of {COSINE} or more; a consensus SAE needs {FEWEST}: leave `consensus` out of the study file"
        )
    settings, start = settings_of(saes[shared.medoid], shared), merged_weights(saes, shared)
    if ARCHITECTURES[settings.architecture].pursuit:
        return Made(_named(_of_dictionary(saes, settings, start, seed), saes), shared, [])
    trained = train(image, text, settings, seed, device, on_step, checkpoint, groups, start)
    return Made(_named(trained.sae, saes), shared, trained.curve)


def settings_of(medoid: SAE, shared: Shared) -> Settings:
    """The medoid's settings for the shared atoms, with the decoder frozen.

    Of nested dictionaries each keeps the shared atoms that lie in it. k is at most the number of atoms.
    """
    config, width = medoid.config, len(shared.atoms)
    kept: dict[str, Any] = {name: getattr(config, name) for name in Settings.model_fields}
    kept |= {"width": width, "k": min(config.k, width)}
    row = ARCHITECTURES[config.architecture]
    if "prefixes" in row.parameters:
        own = shared.concepts[:, shared.medoid]
        counts = {int((own < nested).sum()) for nested in Settings.nested_widths(config)}
        kept["prefixes"] = tuple(sorted(counts - {0}))
    return Settings(**kept | {"frozen": None if row.pursuit else "frozen_decoder"})


def merged_weights(saes: Sequence[SAE], shared: Shared) -> Weights:
    """The weights from which the encoder is trained: means over the seeds that hold each atom."""
    first = saes[0].config

    def mean(name: str) -> torch.Tensor:
        parts = [getattr(s, name).cpu().expand(first.width, *getattr(s, name).shape[1:]) for s in saes]
        held = torch.from_numpy(shared.concepts >= 0)
        rows = torch.stack([part[shared.concepts[:, place]] for place, part in enumerate(parts)], 1)
        held = held.view(*held.shape, *(1,) * (rows.ndim - 2))
        return ((rows.double() * held).sum(1) / held.sum(1)).float()

    learned = ARCHITECTURES[first.architecture].threshold == "learned"
    return Weights(
        encoder=mean("encoder"),
        encoder_bias=mean("encoder_bias"),
        dictionary=torch.from_numpy(shared.atoms),
        bias=torch.stack([s.bias.cpu() for s in saes]).double().mean(0).float(),
        theta=mean("threshold") if learned else torch.zeros(0),
    )


def _of_dictionary(saes: Sequence[SAE], settings: Settings, merged: Weights, seed: int) -> SAE:
    """The SAE of an architecture whose encoder is pursuit with the dictionary: no row is read."""
    config = saes[0].config.model_copy(update={**dict(settings), "seed": seed, "rows_seen": 0})
    means = {}
    if config.centring:
        means = {name: torch.stack([getattr(s, name) for s in saes]).mean(0) for name in MEANS.values()}
    tensors = merged.dictionary.clone(), merged.encoder_bias, merged.dictionary, merged.bias, torch.zeros(())
    return SAE(*tensors, config, **means)


def _named(made: SAE, saes: Sequence[SAE]) -> SAE:
    """The SAE with the joined seeds in its config, and without a frozen part, since the seeds learned its atoms."""
    joined = {"frozen": None, "consensus_of": tuple(s.config.seed for s in saes)}
    return made.with_config(made.config.model_copy(update=joined))
