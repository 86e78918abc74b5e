"""Reads and writes state dicts of overcomplete: `state_dict.pt`, and `model.json`, which says how to load it.

Every tensor and every key is known here, or the file is refused. Pickled objects are never read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sae.architectures import ARCHITECTURES
from sae.calibration import calibrate
from sae.foreign import (
    Linear,
    Tensors,
    checked,
    even_norms,
    fold,
    is_topk,
    nothing_more,
    read_state_dict,
    refuse_pursuit,
    refuse_unknown,
    whole_bias,
    whole_number,
)
from sae.model import SAE, SAEFormatError, pre_activations, read_json
from sae.rows import Matrix

WEIGHTS = "state_dict.pt"
CONFIG = "model.json"
BATCH_NORM_EPSILON = 1e-5  # torch's default, which overcomplete leaves as it is
CALIBRATION_ROWS = 65_536  # rows of each modality that a threshold is calibrated on
BLOCK = 8192  # rows encoded at a time
#: class in model.json -> the architecture with its rule
CLASSES = {row.overcomplete: row.name for row in ARCHITECTURES.values() if row.overcomplete}
WEIGHT, BIAS = "encoder.final_block.0.weight", "encoder.final_block.0.bias"
NORM = "encoder.final_block.1."  # start of the names of batch normalisation's tensors
NORMALIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "l2": lambda atoms: normalize(atoms, dim=1),
    "identity": lambda atoms: atoms,
}


def to_overcomplete(sae: SAE, folder: str | Path, modality: str | None = None) -> None:
    """Write `state_dict.pt` for overcomplete's JumpSAE (TopKSAE for topk), and `model.json`, which says how to load it.

    overcomplete has no decoder bias. The SAE's decoder bias is folded into its encoder bias, so that codes are equal,
    and is stored in model.json as `decoder_bias`, which must be added to reconstructions. overcomplete does not
    normalise rows: give it rows of unit norm. Raises SAEFormatError for an SAE that encodes by matching pursuit.
    """
    refuse_pursuit(sae, "overcomplete")
    bias = whole_bias(sae, modality)
    config = sae.config
    state = {
        WEIGHT: sae.encoder,
        BIAS: sae.encoder_bias - sae.encoder @ bias,
        "dictionary._weights": sae.dictionary,
        "dictionary.multiplier": torch.zeros(()),
    }
    arguments: dict[str, Any] = {"input_shape": config.dim, "nb_concepts": config.width}
    if is_topk(config):
        arguments["top_k"] = config.k
    else:
        state["thresholds"] = sae.threshold.expand(config.width).log()  # overcomplete stores logarithms; log 0 is -inf
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor.cpu().clone() for name, tensor in state.items()}, folder / WEIGHTS)
    entries = {
        "class": "TopKSAE" if is_topk(config) else "JumpSAE",
        "arguments": arguments,
        "decoder_bias": bias.tolist(),
    }
    (folder / CONFIG).write_text(json.dumps(entries) + "\n", encoding="utf-8")


def from_overcomplete(
    path: str | Path,
    *,
    architecture: str = "batchtopk",
    k: int = 0,
    threshold: float | None = None,
    rows: tuple[Matrix, Matrix] | None = None,
    normalization: str = "l2",
) -> SAE:
    """Read the state dict of an overcomplete SAE with a linear encoder, which may be tied, untied or with batch norm.

    `path`: the file, or a folder of `to_overcomplete`, whose model.json states class and k. Only the state dict of a
    JumpSAE holds thresholds. For the other classes give `architecture`: "relu" (SAE), "topk" (TopKSAE, with k per row)
    or "batchtopk" (BatchTopKSAE, with k per row, not per batch). BatchTopKSAE keeps its running threshold outside the
    state dict: give it as `threshold`, or give training `rows`, images [n_I, d] and captions [n_T, d]. The threshold
    is then calibrated on these rows, and both modalities weigh the same.
    `normalization`: how the dictionary is normalised, "l2" (the library's default) or "identity".
    Raises SAEFormatError, naming the file and the tensor or key, where the file is no state dict, holds pickled code,
    has a part that is not linear, or lacks a threshold or k that is not given as an argument.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f'normalization is {normalization!r}; "l2" or "identity" can be read')
    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    state = read_state_dict(file)
    has_thresholds = "thresholds" in state
    linear = _linear(state, NORMALIZATIONS[normalization], file)
    width, dim = linear.decoder.shape
    stated, bias = _stated(path, file, width, dim)
    # this project subtracts the bias from every row first; overcomplete does not
    linear = linear._replace(encoder_bias=linear.encoder_bias + linear.encoder @ bias, bias=bias)
    if has_thresholds:
        return fold(linear, "jumprelu", 0, "none", str(file))
    architecture, k = stated.get("architecture", architecture), stated.get("k", k)
    row = ARCHITECTURES.get(architecture)
    if row is None or not row.foreign:
        *others, last = (name for name, each in ARCHITECTURES.items() if each.foreign)
        raise SAEFormatError(f"{file}: holds no thresholds, so its architecture is {', '.join(others)} or {last}")
    if row.threshold == "none" and not k:
        raise SAEFormatError(
            f"{file}: holds no k, the number of codes per row of a topk SAE: give k (in a study: saes.k)"
        )
    kept = whole_number(k, 0, width, "the given k", file)
    if row.selection == "row" or (row.threshold == "calibrated" and threshold is None):
        even_norms(linear.decoder, architecture, file)
    if row.threshold == "calibrated" and threshold is None:
        if rows is None or not kept:
            raise SAEFormatError(f"{file}: a state dict of BatchTopKSAE has no threshold: give it, or k and rows")
        return _calibrated(fold(linear, architecture, kept, "none", str(file)), rows)
    if row.threshold == "calibrated":
        linear = linear._replace(threshold=torch.full((width,), float(threshold or 0)))
    return fold(linear, architecture, kept, "none", str(file))


def _linear(state: Tensors, normalization: Callable[[Tensor], Tensor], file: Path) -> Linear:
    """The linear encoder and the dictionary of a state dict, checked, without a decoder bias. Batch norm is folded in.

    Thresholds are 0 where the state dict holds none.
    """
    if "thresholds" in state:
        state["thresholds"] = state["thresholds"].exp()  # overcomplete stores logarithms; log 0 is -inf
    state.setdefault("dictionary.multiplier", torch.zeros(()))
    steps = state.pop(f"{NORM}num_batches_tracked", None)
    is_tied, has_norm = "encoder.tied_to._weights" in state, f"{NORM}running_var" in state or steps is not None
    if is_tied or "encoder.weight" in state:
        weight, bias = "encoder.tied_to._weights" if is_tied else "encoder.weight", "encoder.bias"
        state.setdefault(bias, torch.zeros(state[weight].shape[:1]))
    else:
        weight, bias = WEIGHT, BIAS
    shapes = {"dictionary._weights": "Cd", weight: "Cd", bias: "C", "dictionary.multiplier": ""}
    if is_tied and "encoder.tied_to.multiplier" in state:
        shapes["encoder.tied_to.multiplier"] = ""
    if has_norm:
        shapes |= dict.fromkeys((NORM + part for part in ("running_mean", "running_var", "weight", "bias")), "C")
    if "thresholds" in state:
        shapes["thresholds"] = "C"
    nothing_more(state, shapes, "only linear encoders of overcomplete can be taken over", file)
    state = checked(state, shapes, file)
    scale = state["dictionary.multiplier"].exp()
    encoder, encoder_bias = state[weight], state[bias]
    if is_tied:
        own = {"encoder.tied_to.multiplier": "dictionary.multiplier", weight: "dictionary._weights"}
        for name, twin in own.items():
            if name in state and not torch.equal(state[name], state[twin]):
                raise SAEFormatError(f"{file}: {name} differs from {twin}; in a tied SAE they are one tensor")
        encoder = normalization(encoder) * scale
    if has_norm:
        factor = state[f"{NORM}weight"] / (state[f"{NORM}running_var"] + BATCH_NORM_EPSILON).sqrt()
        encoder = encoder * factor[:, None]
        encoder_bias = (encoder_bias - state[f"{NORM}running_mean"]) * factor + state[f"{NORM}bias"]
    decoder = normalization(state["dictionary._weights"]) * scale
    thresholds = state.get("thresholds", torch.zeros(len(decoder)))
    return Linear(encoder, encoder_bias, decoder, torch.zeros(decoder.shape[1]), thresholds)


def _stated(path: Path, file: Path, width: int, dim: int) -> tuple[dict[str, Any], Tensor]:
    """What model.json states: {"architecture": ..., "k": ...}, and the decoder bias [d]. For a mere file: {}, zeros."""
    where, none = file.with_name(CONFIG), torch.zeros(dim)
    if not path.is_dir():
        if file.name == WEIGHTS and where.is_file() and any(read_json(where).get("decoder_bias") or ()):
            raise SAEFormatError(f"{path}: {CONFIG} beside it holds a decoder bias: name the folder, {path.parent}")
        return {}, none
    entries = read_json(where)
    refuse_unknown(entries, frozenset({"class", "arguments", "decoder_bias"}), "", where)
    name, arguments = entries.get("class"), entries.get("arguments", {})
    if name not in list(CLASSES):
        raise SAEFormatError(f"{where}: class is {name!r}; {', '.join(CLASSES)} can be read")
    if not isinstance(arguments, dict):
        raise SAEFormatError(f"{where}: arguments is {arguments!r}; an object is needed")
    refuse_unknown(arguments, frozenset({"input_shape", "nb_concepts", "top_k"}), "arguments.", where)
    for key, size in (("input_shape", dim), ("nb_concepts", width)):
        if arguments.get(key, size) != size:
            raise SAEFormatError(f"{where}: arguments.{key} is {arguments[key]!r}, but the tensors have {size}")
    stated: dict[str, Any] = {"architecture": CLASSES[name]}
    if "top_k" in arguments:
        stated["k"] = whole_number(arguments["top_k"], 1, width, "arguments.top_k", where)
    return stated, _decoder_bias(entries.get("decoder_bias") or [], none, where)


def _decoder_bias(values: Any, none: Tensor, where: Path) -> Tensor:
    """The decoder bias [d] of model.json; zeros for an empty list."""
    are_numbers = isinstance(values, list) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values
    )
    bias = torch.tensor(values, dtype=torch.float32) if are_numbers and values else none
    if not are_numbers or bias.shape != none.shape or not bool(torch.isfinite(bias).all()):
        raise SAEFormatError(f"{where}: decoder_bias must be a list of {len(none)} finite numbers")
    return bias


def _calibrated(sae: SAE, rows: tuple[Matrix, Matrix]) -> SAE:
    """The same SAE with a calibrated threshold: it keeps k codes per row on average over evenly spaced rows."""
    sampled = [torch.from_numpy(np.array(part[:: -(-len(part) // CALIBRATION_ROWS)], np.float32)) for part in rows]

    def batches(stride: int) -> Iterator[tuple[Tensor, Tensor]]:
        for part in sampled:
            for x in part[::stride].split(BLOCK):
                yield x, torch.full((len(x),), 0.5 / len(part), dtype=torch.float64)

    def pre(x: Tensor) -> Tensor:
        return pre_activations(x, sae.encoder, sae.encoder_bias, sae.bias)

    threshold = calibrate(pre, batches, sae.config.k)
    return SAE(sae.encoder, sae.encoder_bias, sae.dictionary, sae.bias, threshold, sae.config)
