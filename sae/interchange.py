"""Import and export of SAEs in the formats of SAELens (folders) and overcomplete (state dicts).

`load_checkpoint` also reads this project's own files.
Reads safetensors and plain tensors, never pickled objects. Imports neither library.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from sae.architectures import ARCHITECTURES
from sae.calibration import calibrate
from sae.model import CONFIG_FILE, MEANS, SAE, WEIGHTS_FILE, Config, SAEFormatError, pre_activations
from sae.rows import Matrix

SAELENS_CONFIG = "cfg.json"
SAELENS_WEIGHTS = "sae_weights.safetensors"
SAELENS_VERSION = "6.0.0"  # version of the layout that is written; older versions of SAELens expect other keys
OVERCOMPLETE_WEIGHTS = "state_dict.pt"
OVERCOMPLETE_CONFIG = "model.json"
BATCH_NORM_EPSILON = 1e-5  # torch's default, which overcomplete leaves as it is
CALIBRATION_ROWS = 65_536  # of each modality
BLOCK = 8192  # rows encoded at a time

Tensors = dict[str, Tensor]


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


# SAELens ---------------------------------------------------------------------------------------------------------


def to_saelens(sae: SAE, folder: str | Path, modality: str | None = None) -> None:
    """Write `cfg.json` and `sae_weights.safetensors` for SAELens: a TopK SAE for topk, else a JumpReLU SAE.

    SAELens does not normalise rows: give it rows of unit norm. An SAE with per-modality centring needs `modality`; the
    mean of that modality is added to the decoder bias. Raises ValueError if `modality` is needed and not given.
    """
    bias = _whole_bias(sae, modality)
    config, width = sae.config, sae.config.width
    entries: dict[str, Any] = {
        "architecture": "jumprelu", "d_in": config.dim, "d_sae": width, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"sae_lens_version": SAELENS_VERSION, "rows": "L2-normalised" if config.preprocessing == "l2" else
                     "as they are"},
    }  # fmt: skip
    tensors = {
        "W_enc": sae.encoder.T.contiguous(), "b_enc": sae.encoder_bias, "W_dec": sae.dictionary, "b_dec": bias,
    }  # fmt: skip
    if _is_topk(config):
        entries |= {"architecture": "topk", "k": config.k, "rescale_acts_by_decoder_norm": False}
    else:
        tensors["threshold"] = sae.threshold.expand(width)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, folder / SAELENS_WEIGHTS)
    (folder / SAELENS_CONFIG).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def from_saelens(folder: str | Path) -> SAE:
    """Read a SAELens folder: architectures standard, jumprelu and topk. Raises SAEFormatError for anything else."""
    folder = Path(folder)
    where = folder / SAELENS_CONFIG
    entries = _json(where)
    architecture = entries.get("architecture", "standard")
    if architecture == "standard" and entries.get("activation_fn_str", entries.get("activation_fn")) == "topk":
        architecture = "topk"
        entries.setdefault("k", (entries.get("activation_fn_kwargs") or {}).get("k"))
    if architecture not in ("standard", "jumprelu", "topk"):
        raise SAEFormatError(
            f"{where}: architecture is {architecture!r}; standard, jumprelu and topk can be read (SAELens saves the "
            "others as jumprelu with save_inference_model)"
        )
    scaled = _only(entries, "normalize_activations", ("none", "constant_norm_rescale"), where) != "none"
    _only(entries, "reshape_activations", ("none",), where)
    tensors = _safetensors(folder / SAELENS_WEIGHTS)
    needed = ("W_enc", "b_enc", "W_dec", "b_dec", *(("threshold",) if architecture == "jumprelu" else ()))
    _need(tensors, needed, folder / SAELENS_WEIGHTS)
    decoder, bias = tensors["W_dec"].float(), tensors["b_dec"].float()
    encoder, encoder_bias = tensors["W_enc"].float().T.contiguous(), tensors["b_enc"].float()
    _shapes(encoder, decoder, bias, folder / SAELENS_WEIGHTS)
    if not entries.get("apply_b_dec_to_input", True):
        encoder_bias = encoder_bias + encoder @ bias  # this project subtracts the bias from every row first
    k = 0
    if architecture == "topk":
        k = entries.get("k") if isinstance(entries.get("k"), int) else 0  # type: ignore[assignment]
        norm = decoder.norm(dim=1)
        if not entries.get("rescale_acts_by_decoder_norm", False) and float(norm.max() - norm.min()) > 1e-3:
            raise SAEFormatError(f"{where}: a topk SAE that ranks codes before the norms of its atoms cannot be folded")
    linear = Linear(
        encoder, encoder_bias, decoder, bias,
        tensors.get("threshold", torch.zeros(len(decoder))).float(),
        scale=float(decoder.shape[1]) ** 0.5 if scaled else 1.0,
    )  # fmt: skip
    rule = {"standard": "relu"}.get(architecture, architecture)
    return fold(linear, rule, k, "l2" if scaled else "none", str(folder))


# overcomplete ----------------------------------------------------------------------------------------------------


def to_overcomplete(sae: SAE, folder: str | Path, modality: str | None = None) -> None:
    """Write `state_dict.pt` for overcomplete's JumpSAE (TopKSAE for topk), and `model.json`, which says how to load it.

    overcomplete has no decoder bias. The SAE's decoder bias is folded into its encoder bias, so that codes are equal,
    and is stored in model.json as `decoder_bias`, which must be added to reconstructions. overcomplete does not
    normalise rows: give it rows of unit norm.
    """
    bias = _whole_bias(sae, modality)
    config = sae.config
    state = {
        "encoder.final_block.0.weight": sae.encoder,
        "encoder.final_block.0.bias": sae.encoder_bias - sae.encoder @ bias,
        "dictionary._weights": sae.dictionary,
        "dictionary.multiplier": torch.zeros(()),
    }
    arguments: dict[str, Any] = {"input_shape": config.dim, "nb_concepts": config.width}
    if _is_topk(config):
        arguments["top_k"] = config.k
    else:
        state["thresholds"] = sae.threshold.expand(config.width).log()  # as overcomplete stores them; 0 becomes -inf
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor.cpu().clone() for name, tensor in state.items()}, folder / OVERCOMPLETE_WEIGHTS)
    entries = {
        "class": "TopKSAE" if _is_topk(config) else "JumpSAE",
        "arguments": arguments,
        "decoder_bias": bias.tolist(),
    }
    (folder / OVERCOMPLETE_CONFIG).write_text(json.dumps(entries) + "\n", encoding="utf-8")


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

    Only the state dict of a JumpSAE holds thresholds. For the other classes give `architecture`: "relu" (SAE), "topk"
    (TopKSAE, with k per row) or "batchtopk" (BatchTopKSAE, with k per row, not per batch). BatchTopKSAE keeps its
    running threshold outside the state dict: give it as `threshold`, or give training `rows`, images [n_I, d] and
    captions [n_T, d], to calibrate it on. Both modalities then weigh the same.
    `normalization`: that of the dictionary, "l2" (the library's default) or "identity".
    Raises SAEFormatError where the file is no state dict, holds pickled code, or has a part that is not linear.
    """
    path = Path(path)
    file = path / OVERCOMPLETE_WEIGHTS if path.is_dir() else path
    state = _state_dict(file)
    encoder, encoder_bias = _overcomplete_encoder(state, file)
    _need(state, ("dictionary._weights",), file)
    decoder = state.pop("dictionary._weights").float()
    multiplier = state.pop("dictionary.multiplier", torch.zeros(())).float().exp()
    if normalization == "l2":
        decoder = normalize(decoder, dim=1)
    elif normalization != "identity":
        raise ValueError(f'normalization is {normalization!r}; "l2" or "identity" can be read')
    thresholds = state.pop("thresholds", None)
    if state:
        raise SAEFormatError(f"{file}: cannot read {', '.join(sorted(state))}: only linear encoders can be taken over")
    bias = torch.tensor(_json(file.with_name(OVERCOMPLETE_CONFIG)).get("decoder_bias", [])) if path.is_dir() else None
    if bias is None or bias.numel() == 0:
        bias = torch.zeros(decoder.shape[1])
    _shapes(encoder, decoder, bias, file)
    # this project subtracts the bias from every row first; overcomplete does not
    linear = Linear(encoder, encoder_bias + encoder @ bias, decoder * multiplier, bias, torch.zeros(len(decoder)))
    if thresholds is not None:
        return fold(linear._replace(threshold=thresholds.float().exp()), "jumprelu", 0, "none", str(file))
    row = ARCHITECTURES.get(architecture)
    if row is None or not row.foreign:
        *others, last = (name for name, each in ARCHITECTURES.items() if each.foreign)
        raise SAEFormatError(f"{file}: holds no thresholds, so its architecture is {', '.join(others)} or {last}")
    if row.threshold == "calibrated":
        if threshold is None and rows is not None and k > 0:
            return _calibrated(fold(linear, architecture, k, "none", str(file)), rows)
        if threshold is None:
            raise SAEFormatError(f"{file}: a state dict of BatchTopKSAE has no threshold: give it, or k and rows")
        linear = linear._replace(threshold=torch.full((len(decoder),), float(threshold)))
    return fold(linear, architecture, k, "none", str(file))


def _overcomplete_encoder(state: Tensors, file: Path) -> tuple[Tensor, Tensor]:
    """Take a linear encoder's weight [C, d] and bias [C] out of `state`. Batch norm is folded in, as in evaluation."""
    if "encoder.weight" in state or "encoder.tied_to._weights" in state:
        tied = state.pop("encoder.tied_to._weights", None)
        state.pop("encoder.tied_to.multiplier", None)
        if tied is not None:  # the encoder is the dictionary, with the same scale
            multiplier = state.get("dictionary.multiplier", torch.zeros(())).float().exp()
            weight = normalize(tied.float(), dim=1) * multiplier
        else:
            weight = state.pop("encoder.weight").float()
        return weight, state.pop("encoder.bias", torch.zeros(len(weight))).float()
    _need(state, ("encoder.final_block.0.weight", "encoder.final_block.0.bias"), file)
    weight = state.pop("encoder.final_block.0.weight").float()
    bias = state.pop("encoder.final_block.0.bias").float()
    if "encoder.final_block.1.running_var" in state:
        norm = {name: state.pop(f"encoder.final_block.1.{name}").float() for name in
                ("running_mean", "running_var", "weight", "bias")}  # fmt: skip
        state.pop("encoder.final_block.1.num_batches_tracked", None)
        scale = norm["weight"] / (norm["running_var"] + BATCH_NORM_EPSILON).sqrt()
        weight, bias = weight * scale[:, None], (bias - norm["running_mean"]) * scale + norm["bias"]
    return weight, bias


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


# any library -----------------------------------------------------------------------------------------------------


def kind_of(path: str | Path) -> str:
    """The library that wrote the files at `path`: "bridgescope", "saelens" or "overcomplete".

    Raises SAEFormatError when it is none of them.
    """
    path = Path(path)
    kinds: list[tuple[str, Callable[[], bool]]] = [
        ("bridgescope", lambda: (path / WEIGHTS_FILE).is_file() and (path / CONFIG_FILE).is_file()),
        ("saelens", lambda: (path / SAELENS_CONFIG).is_file()),
        ("overcomplete", lambda: path.suffix in (".pt", ".pth") and path.is_file()),
        ("overcomplete", lambda: (path / OVERCOMPLETE_WEIGHTS).is_file()),
    ]
    for kind, is_there in kinds:
        if is_there():
            return kind
    raise SAEFormatError(
        f"{path}: {'no SAE that can be read' if path.exists() else 'no such file or folder'}; a checkpoint is a folder "
        f"with {WEIGHTS_FILE} and {CONFIG_FILE}, a SAELens folder ({SAELENS_CONFIG}, {SAELENS_WEIGHTS}), or an "
        "overcomplete state dict (.pt)"
    )


def load_checkpoint(
    path: str | Path,
    *,
    dim: int,
    architecture: str = "batchtopk",
    k: int = 0,
    rows: tuple[Matrix, Matrix] | None = None,
) -> SAE:
    """Read an SAE of any of the three kinds, for embeddings of `dim` dimensions.

    `architecture`, `k` and `rows` are passed to `from_overcomplete`; the other two kinds do not need them.
    Raises SAEFormatError where the SAE cannot be read or has another dimension.
    """
    kind = kind_of(path)
    if kind == "bridgescope":
        loaded = SAE.load(path)
    elif kind == "saelens":
        loaded = from_saelens(path)
    else:
        loaded = from_overcomplete(path, architecture=architecture, k=k, rows=rows)
    if loaded.config.dim != dim:
        raise SAEFormatError(f"{path}: takes rows of {loaded.config.dim} dimensions, the model's have {dim}")
    return loaded


def _is_topk(config: Config) -> bool:
    """Return whether inference keeps the k largest codes of each row, as TopK of other libraries does."""
    return ARCHITECTURES[config.architecture].selection == "row"


def _whole_bias(sae: SAE, modality: str | None) -> Tensor:
    """The decoder bias, plus the mean of `modality` if the SAE has per-modality centring."""
    if not sae.config.centring:
        return sae.bias
    if modality not in MEANS:
        raise ValueError('this SAE centres each modality apart: export it for "image" or for "text"')
    mean: Tensor = getattr(sae, MEANS[modality])
    return sae.bias + mean


def _json(path: Path) -> dict[str, Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SAEFormatError(f"{path}: no such file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SAEFormatError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(entries, dict):
        raise SAEFormatError(f"{path}: holds a {type(entries).__name__}; an object is needed")
    return entries


def _safetensors(path: Path) -> Tensors:
    try:
        return dict(load_file(path))
    except FileNotFoundError:
        raise SAEFormatError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise SAEFormatError(f"{path}: not a readable safetensors file ({error})") from error


def _state_dict(path: Path) -> Tensors:
    """Tensors by name from a file of torch.save. Raises SAEFormatError for a file whose reading would run code."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SAEFormatError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise SAEFormatError(
            f"{path}: holds more than tensors, and reading that could run any code: save the state_dict() instead"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise SAEFormatError(f"{path}: not a readable file of torch.save ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SAEFormatError(f"{path}: holds no state dict: a dictionary of tensors is needed")
    return dict(state)


def _need(tensors: Tensors, names: tuple[str, ...], where: Path) -> None:
    if missing := [name for name in names if name not in tensors]:
        raise SAEFormatError(f"{where}: missing tensor {', '.join(missing)}; it has {', '.join(sorted(tensors))}")


def _shapes(encoder: Tensor, decoder: Tensor, bias: Tensor, where: Path) -> None:
    if encoder.ndim != 2 or encoder.shape != decoder.shape or bias.shape != decoder.shape[1:]:
        raise SAEFormatError(
            f"{where}: encoder {tuple(encoder.shape)}, decoder {tuple(decoder.shape)} and bias {tuple(bias.shape)} "
            "do not go together"
        )


def _only(entries: dict[str, Any], key: str, allowed: tuple[str, ...], where: Path) -> str:
    value = entries.get(key) or "none"
    if value not in allowed:
        raise SAEFormatError(f"{where}: {key} is {value!r}; {' and '.join(allowed)} can be read")
    return str(value)
