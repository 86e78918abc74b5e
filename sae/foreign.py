"""What the readers of other libraries' SAEs share: reading tensors, checking them by name, and folding norms."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sae.architectures import ARCHITECTURES
from sae.model import MEANS, SAE, Config, SAEFormatError

Tensors = dict[str, Tensor]
EVEN = 1e-3  # largest difference of the norms of atoms, as a share of the largest norm, at which they count as equal


class Linear(NamedTuple):
    """An SAE of another library: codes z = rule((x - b_d) W_e^T + b_e), reconstruction z W_d + b_d.

    The atoms, rows of W_d, may have any norm.
    """

    encoder: Tensor  # [C, d]
    encoder_bias: Tensor  # [C], for rows from which the decoder bias has been subtracted
    decoder: Tensor  # [C, d]
    bias: Tensor  # [d]
    threshold: Tensor  # [C]
    scale: float = 1.0  # factor that unit rows are multiplied by before they are encoded


def fold(linear: Linear, architecture: str, k: int, preprocessing: str, where: str) -> SAE:
    """The SAE with unit atoms and the same reconstructions.

    Each code is multiplied by the norm of its atom, and so are its threshold, encoder row and encoder bias. `scale` is
    folded in as well. A concept whose atom has norm 0 never fires.
    """
    norm = linear.decoder.norm(dim=1) / linear.scale
    silent = norm == 0
    dictionary = normalize(linear.decoder, dim=1)
    dictionary[silent, 0] = 1.0
    width, dim = linear.decoder.shape
    config = Config(
        architecture=architecture, dim=dim, width=width, k=k, decoder_bias=bool((linear.bias != 0).any()),
        image_share="unknown", seed=0, epochs=0, batch_size=0, learning_rate=0.0, auxk=0.0, dead_after_epochs=0.0,
        rows_seen=0, preprocessing=preprocessing,
    )  # fmt: skip
    try:
        return SAE(
            encoder=linear.encoder * (norm * linear.scale)[:, None],
            encoder_bias=linear.encoder_bias * norm,
            dictionary=dictionary,
            bias=linear.bias / linear.scale,
            threshold=(linear.threshold * norm).clamp_min(0),
            config=config,
        )
    except SAEFormatError as error:
        raise SAEFormatError(f"{where}: {str(error).removeprefix('SAE: ')}") from error


def even_norms(decoder: Tensor, architecture: str, where: Path | str) -> None:
    """Raise SAEFormatError unless all atoms [C, d] have the same norm, and one above 0.

    Such norms are needed where the other library ranks its codes before they are multiplied by the norms of the atoms:
    after folding, other codes would be the largest.
    """
    norm = decoder.norm(dim=1)
    least, most = float(norm.min()), float(norm.max())
    if most - least > EVEN * most or most == 0:
        raise SAEFormatError(
            f"{where}: a {architecture} SAE that ranks codes before the norms of its atoms cannot be folded: the norms "
            f"are {least:.3g} to {most:.3g}, and must be equal and above 0"
        )


def checked(tensors: Tensors, shapes: dict[str, str], where: Path) -> Tensors:
    """The tensors of `shapes` in float32. Raises SAEFormatError, naming the tensor, if a tensor is wrong.

    shapes: the axes of each tensor by letter, such as {"W_dec": "Cd", "b_enc": "C"}. The first tensor has two
    axes, and its shape gives the size of each letter. A tensor is refused if it is missing, has another shape, is not
    of a floating-point type, or holds NaN or infinity. `nothing_more` refuses tensors that `shapes` does not name.
    """
    if missing := [name for name in shapes if name not in tensors]:
        raise SAEFormatError(f"{where}: missing tensor {', '.join(missing)}; it has {', '.join(sorted(tensors))}")
    first, axes = next(iter(shapes.items()))
    if tensors[first].ndim != len(axes) or not all(tensors[first].shape):
        raise SAEFormatError(f"{where}: {first} has shape {tuple(tensors[first].shape)}; a matrix is needed")
    sizes = dict(zip(axes, tensors[first].shape, strict=True))
    found: Tensors = {}
    for name, letters in shapes.items():
        needed = tuple(sizes[letter] for letter in letters)
        if tuple(tensors[name].shape) != needed:
            raise SAEFormatError(
                f"{where}: {first} of shape {tuple(tensors[first].shape)} and {name} of shape "
                f"{tuple(tensors[name].shape)} do not go together: {needed} is needed"
            )
        if not tensors[name].is_floating_point():
            raise SAEFormatError(f"{where}: {name} is {tensors[name].dtype}; a floating-point type is needed")
        found[name] = tensors[name].float()
        if not bool(torch.isfinite(found[name]).all()):
            raise SAEFormatError(f"{where}: {name} holds NaN or infinity in float32")
    return found


def nothing_more(tensors: Tensors, known: Iterable[str], why: str, where: Path) -> None:
    """Raise SAEFormatError, with the reason `why`, for a tensor that is not in `known`."""
    if unknown := sorted(set(tensors) - set(known)):
        raise SAEFormatError(f"{where}: cannot read {', '.join(unknown)}: {why}")


def whole_number(value: Any, least: int, most: int, key: str, where: Path | str) -> int:
    """A setting of another library as an int: 4 and 4.0 are accepted. Raises SAEFormatError, naming the key."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise SAEFormatError(f"{where}: {key} is {value!r}; a whole number from {least} to {most} is needed")
    return value


def refuse_unknown(entries: dict[str, Any], known: frozenset[str], prefix: str, where: Path) -> None:
    """Raise SAEFormatError for a key that is not in `known`, because its effect is not known."""
    if unknown := sorted(set(entries) - known):
        names = ", ".join(prefix + name for name in unknown)
        raise SAEFormatError(
            f"{where}: the key {names} is not known and may change the codes (take it out if it does not)"
        )


def is_topk(config: Config) -> bool:
    """Return whether inference keeps the k largest codes of each row, as TopK of other libraries does."""
    return ARCHITECTURES[config.architecture].selection == "row"


def refuse_pursuit(sae: SAE, library: str) -> None:
    """Raise SAEFormatError for an SAE that encodes by matching pursuit, which the files of a library cannot state."""
    if sae.pursues:
        raise SAEFormatError(f"{library}: its files state a linear encoder, and this SAE encodes by matching pursuit")


def whole_bias(sae: SAE, modality: str | None) -> Tensor:
    """The decoder bias; plus the mean of the modality, if the SAE subtracts modality means."""
    if not sae.config.centring:
        return sae.bias
    if modality not in MEANS:
        raise ValueError('this SAE centres each modality apart: export it for "image" or for "text"')
    mean: Tensor = getattr(sae, MEANS[modality])
    return sae.bias + mean
