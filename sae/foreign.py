"""What the readers of other libraries' SAEs share: reading tensors, checking them by name, and folding norms."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sae.architectures import ARCHITECTURES
from sae.model import MEANS, SAE, Config, SAEFormatError, unreadable

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
    scale: float = 1.0  # factor that rows are multiplied by before they are encoded


def fold(
    linear: Linear, architecture: str, k: int, preprocessing: str, where: str, prefixes: tuple[int, ...] | None = None
) -> SAE:
    """The SAE with unit atoms and the same reconstructions.

    Each code is multiplied by the norm of its atom, and so are its threshold, encoder row and encoder bias. `scale` is
    folded in as well. A concept whose atom has norm 0 never fires. prefixes: the nested widths of matryoshka.
    """
    norm = linear.decoder.norm(dim=1) / linear.scale
    silent = norm == 0
    dictionary = normalize(linear.decoder, dim=1)
    dictionary[silent, 0] = 1.0
    width, dim = linear.decoder.shape
    config = Config(
        architecture=architecture, dim=dim, width=width, k=k, decoder_bias=bool((linear.bias != 0).any()),
        image_share="unknown", seed=0, epochs=0, batch_size=0, learning_rate=0.0, auxk=0.0, dead_after_epochs=0.0,
        rows_seen=0, preprocessing=preprocessing, prefixes=prefixes,
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


def gated(encoder: Tensor, r_mag: Tensor, mag_bias: Tensor, gate_bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The encoder [C, d], encoder bias [C] and threshold [C] by which a JumpReLU SAE has the codes of a gated SAE.

    A gated SAE (Rajamanoharan et al. 2024, arXiv 2404.16014) has the code relu(exp(r) p + b_mag) where p + b_gate > 0,
    for the linear part p. With the pre-activation a = exp(r) p + b_mag, that condition is a > b_mag - exp(r) b_gate.
    """
    factor = r_mag.exp()
    return encoder * factor[:, None], mag_bias, mag_bias - factor * gate_bias


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
        raise ValueError('this SAE centres each modality separately: export it for "image" or for "text"')
    mean: Tensor = getattr(sae, MEANS[modality])
    return sae.bias + mean


def read_state_dict(path: Path) -> Tensors:
    """Tensors by name from a file of torch.save. Raises SAEFormatError for a file whose reading would run code."""
    try:
        with unreadable(path):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SAEFormatError(
            f"{path}: holds more than tensors, and reading that could run any code: save the state_dict() instead"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise SAEFormatError(f"{path}: not a readable file of torch.save ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SAEFormatError(f"{path}: holds no state dict: a dictionary of tensors is needed")
    return dict(state)


def same_sizes(entries: dict[str, Any], sizes: dict[str, int], prefix: str, where: Path, file: str) -> None:
    """Raise SAEFormatError for a size in a JSON file that is not the size of the tensors of `file`."""
    for key, size in sizes.items():
        if entries.get(key) is not None and entries[key] != size:
            raise SAEFormatError(f"{where}: {prefix}{key} is {entries[key]!r}, but the tensors of {file} have {size}")


def one_k(stated: dict[str, Any], given: int | None, width: int, where: Path) -> int:
    """Codes per row of a topk SAE: the k that the files state under one key or several, else the `given` one.

    stated: {key: value or None}. Raises SAEFormatError where k is not from 1 to the width, where two keys differ, and
    where there is no k at all.
    """
    found = {key: whole_number(value, 1, width, key, where) for key, value in stated.items() if value is not None}
    if len(set(found.values())) > 1:
        one, other = list(found)[:2]
        raise SAEFormatError(f"{where}: {one} is {found[one]}, but {other} is {found[other]}")
    if found:
        return next(iter(found.values()))
    if not given:
        raise SAEFormatError(
            f"{where}: holds no k, the number of codes per row of a topk SAE: give k (in a study: saes.k)"
        )
    return whole_number(given, 1, width, "the given k", where)
