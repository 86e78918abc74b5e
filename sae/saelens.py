"""Reads and writes folders of SAELens, versions 3 to 6: `cfg.json` and `sae_weights.safetensors`.

Every key of cfg.json and every tensor is known here, or the folder is refused: a part that is not read could change
the codes. The forward formulas are those of SAELens 3.22, 4.4, 5.11, 6.0 and 6.54.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sae.architectures import ARCHITECTURES, Architecture
from sae.foreign import (
    Linear,
    Tensors,
    checked,
    even_norms,
    fold,
    gated,
    is_topk,
    nothing_more,
    one_k,
    refuse_pursuit,
    refuse_unknown,
    same_sizes,
    whole_bias,
    whole_number,
)
from sae.model import SAE, SAEFormatError, read_json, read_safetensors

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
SCALER = "activation_scaler.json"  # written by version 6 beside checkpoints of a training, which are not folded yet
VERSION = "6.0.0"  # version of the layout that is written; older versions of SAELens expect other keys
NEWEST = 6  # a later layout may give known keys another meaning
#: (architecture, activation function) in cfg.json -> the architecture of this project with the same rule. The first
#: function of an architecture is its default.
RULES = {pair: row for row in ARCHITECTURES.values() for pair in row.saelens}
LINEAR = {"W_enc": "dC", "b_enc": "C", "W_dec": "Cd", "b_dec": "d"}
GATED = {"W_enc": "dC", "W_dec": "Cd", "b_dec": "d", "b_gate": "C", "b_mag": "C", "r_mag": "C"}
#: kind of threshold of an architecture -> the axes of the tensor that holds it
THRESHOLDS = {"learned": {"threshold": "C"}, "calibrated": {"topk_threshold": ""}}
SCALES = ("scaling_factor", "finetuning_scaling_factor")  # names of the tensor that fine-tuning multiplies codes by
READ = frozenset([
    "architecture", "activation_fn", "activation_fn_str", "activation_fn_kwargs", "k", "rescale_acts_by_decoder_norm",
    "d_in", "d_sae", "dtype", "apply_b_dec_to_input", "normalize_activations", "reshape_activations",
    "finetuning_scaling_factor", "hook_name", "hook_point", "matryoshka_widths", "metadata", "sae_lens_version",
])  # fmt: skip
#: Keys on the training, the model and its data. They do not change the codes of a row. Versions 3 to 5 write many of
#: them, version 6 writes them into "metadata".
WITHOUT_EFFECT = frozenset([
    "act_store_device", "activations_mixing_fraction", "adam_beta1", "adam_beta2", "autocast", "autocast_lm",
    "aux_loss_coefficient", "b_dec_init_method", "cached_activations_path", "checkpoint_path", "compile_llm",
    "compile_sae", "context_size", "dataset_path", "dataset_trust_remote_code", "dead_feature_estimation_method",
    "dead_feature_threshold", "dead_feature_window", "decoder_heuristic_init", "decoder_heuristic_init_norm",
    "decoder_init_norm", "decoder_orthogonal_init", "device", "disable_concat_sequences", "eval_batch_size_prompts",
    "eval_every_n_wandb_logs", "exclude_special_tokens", "expansion_factor", "feature_reinit_scale",
    "feature_sampling_method", "feature_sampling_window", "finetuning_method", "finetuning_tokens",
    "from_pretrained_path", "hf_hook_name", "hf_hook_name_out", "hook_eval", "hook_head_index", "hook_head_index_out",
    "hook_layer", "hook_name_out", "hook_point_head_index", "hook_point_layer", "init_encoder_as_decoder_transpose",
    "is_dataset_tokenized", "jumprelu_bandwidth", "jumprelu_init_threshold", "jumprelu_sparsity_loss_mode",
    "jumprelu_ste_to_input", "jumprelu_tanh_scale", "l0_coefficient", "l0_warm_up_steps", "l1_coefficient",
    "l1_warm_up_steps", "llm_compilation_mode", "llm_device", "log_activations_store_to_wandb",
    "log_optimizer_state_to_wandb", "log_to_wandb", "logger", "lp_norm", "lr", "lr_decay_steps", "lr_end",
    "lr_scheduler_name", "lr_warm_up_steps", "model_class_name", "model_from_pretrained_kwargs", "model_kwargs",
    "model_name", "mse_loss_normalization", "n_batches_for_norm_estimate", "n_batches_in_buffer", "n_checkpoints",
    "n_eval_batches", "n_restart_cycles", "neuronpedia_id", "noise_scale", "normalize_sae_decoder", "output_path",
    "pre_act_loss_coefficient", "prefetch_llm_batches", "prepend_bos", "resample_batches", "resume",
    "resume_from_checkpoint", "run_name", "sae_compilation_mode", "sae_lens_training_version", "save_final_checkpoint",
    "scale_sparsity_penalty_by_decoder_norm", "seed", "seqpos_slice", "sequence_separator_token", "store_batch_size",
    "store_batch_size_prompts", "streaming", "target_l0", "tokens_per_buffer", "topk_threshold_lr",
    "total_training_tokens", "train_batch_size", "train_batch_size_tokens", "training_tokens", "use_cached_activations",
    "use_chat_formatting", "use_ghost_grads", "use_matryoshka_aux_loss", "use_sparse_activations", "verbose",
    "wandb_entity", "wandb_id", "wandb_log_frequency", "wandb_project",
])  # fmt: skip
DTYPES = ("float32", "float16", "bfloat16", "float64")


def to_saelens(sae: SAE, folder: str | Path, modality: str | None = None) -> None:
    """Write `cfg.json` and `sae_weights.safetensors` for SAELens: a TopK SAE for topk, else a JumpReLU SAE.

    SAELens does not normalise rows: give it rows of unit norm. An SAE with per-modality centring needs `modality`; the
    mean of that modality is added to the decoder bias. Raises ValueError if `modality` is needed and not given, and
    SAEFormatError for an SAE that encodes by matching pursuit.
    """
    refuse_pursuit(sae, "SAELens")
    bias = whole_bias(sae, modality)
    config, width = sae.config, sae.config.width
    entries: dict[str, Any] = {
        "architecture": "jumprelu", "d_in": config.dim, "d_sae": width, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"sae_lens_version": VERSION, "rows": "L2-normalised" if config.preprocessing == "l2" else
                     "as they are"},
    }  # fmt: skip
    tensors = {
        "W_enc": sae.encoder.T.contiguous(), "b_enc": sae.encoder_bias, "W_dec": sae.dictionary, "b_dec": bias,
    }  # fmt: skip
    if is_topk(config):
        entries |= {"architecture": "topk", "k": config.k, "rescale_acts_by_decoder_norm": False}
    else:
        tensors["threshold"] = sae.threshold.expand(width)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def from_saelens(folder: str | Path, k: int | None = None) -> SAE:
    """Read a SAELens folder. `k`: used for a topk SAE if cfg.json has no k.

    Architectures: standard, gated, topk, jumprelu, and the checkpoints of batchtopk and matryoshka_batchtopk trainings,
    whose running threshold is the threshold of the JumpReLU SAE that SAELens makes of them. Rows are used as they are,
    with normalize_activations = constant_norm_rescale L2-normalised. Raises SAEFormatError, naming the file and the key
    or tensor, for anything that may change the codes.
    """
    folder = Path(folder)
    where, file = folder / CONFIG, folder / WEIGHTS
    entries = read_json(where)
    refuse_unknown(entries, READ | WITHOUT_EFFECT, "", where)
    _version(entries, where)
    architecture, row = _rule(entries, where)
    scale, preprocessing = _normalisation(entries, folder)
    tensors = read_safetensors(file)
    scaled = _finetuned(tensors, entries, file, where)
    shapes = GATED if architecture == "gated" else LINEAR | THRESHOLDS.get(row.threshold, {})
    if "threshold" in shapes and "log_threshold" in tensors:  # the parameter of trainings, versions 4 to 6
        shapes["log_threshold"] = shapes.pop("threshold")
    read = checked(tensors, shapes | dict.fromkeys(scaled, "C"), file)
    nothing_more(tensors, read, f"a {architecture} SAE has no such tensor, and it may change the codes", file)
    width, dim = read["W_dec"].shape
    same_sizes(entries, {"d_in": dim, "d_sae": width}, "", where, WEIGHTS)
    linear = _linear(entries, row, read, where)._replace(scale=float(dim) ** 0.5 if scale is None else scale)
    for name in scaled:  # multiplies codes after they are selected
        linear = linear._replace(decoder=linear.decoder * read[name][:, None])
    if row.selection == "row" and not _flag(entries, "rescale_acts_by_decoder_norm", False, where):
        even_norms(linear.decoder, row.name, where)
    kept, prefixes = _k(entries, row, k, width, where), _prefixes(entries, row, width, where)
    return fold(linear, row.name, kept, preprocessing, str(folder), prefixes)


def _version(entries: dict[str, Any], where: Path) -> None:
    """Refuse the files of a version of SAELens that is newer than NEWEST."""
    metadata = entries.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise SAEFormatError(f"{where}: metadata is {metadata!r}; an object is needed")
    version = entries.get("sae_lens_version") or metadata.get("sae_lens_version")
    major = str(version or NEWEST).split(".")[0]
    if not major.isdecimal() or int(major) > NEWEST:
        raise SAEFormatError(f"{where}: sae_lens_version is {version!r}; versions to {NEWEST} can be read")


def _rule(entries: dict[str, Any], where: Path) -> tuple[str, Architecture]:
    """SAELens's architecture, and this project's one with the same rule for that architecture and activation."""
    architecture = entries.get("architecture", "standard")
    known = list(dict.fromkeys(name for name, _ in RULES))
    if architecture not in known:
        *others, last = known
        raise SAEFormatError(f"{where}: architecture is {architecture!r}; {', '.join(others)} and {last} can be read")
    allowed = {activation: row for (of, activation), row in RULES.items() if of == architecture}
    stated = {key: entries[key] for key in ("activation_fn_str", "activation_fn") if entries.get(key) is not None}
    for key, activation in stated.items():
        if activation not in list(allowed):
            raise SAEFormatError(
                f"{where}: {key} is {activation!r}; an SAE of architecture {architecture} can be read with "
                f"{' or '.join(allowed)}"
            )
    if len(set(stated.values())) > 1:
        raise SAEFormatError(f"{where}: activation_fn_str and activation_fn differ: {' and '.join(stated.values())}")
    return architecture, allowed[next(iter(stated.values()), next(iter(allowed)))]


def _normalisation(entries: dict[str, Any], folder: Path) -> tuple[float | None, str]:
    """The factor of rows (None for sqrt d), and how rows are treated before. Refuses every other treatment of rows."""
    where = folder / CONFIG
    hook = str(entries.get("hook_name", entries.get("hook_point")))
    shape = entries.get("reshape_activations")
    if shape is None and ("hook_z" in hook or hook.endswith("_z")):
        shape = "hook_z"  # the default of versions 3 to 5 for such hooks
    if shape not in (None, "none"):
        raise SAEFormatError(f"{where}: reshape_activations is {shape!r}; none can be read")
    dtype = entries.get("dtype")
    if dtype is not None and str(dtype).removeprefix("torch.") not in DTYPES:
        raise SAEFormatError(f"{where}: dtype is {dtype!r}; {', '.join(DTYPES)} can be read")
    rows = entries.get("normalize_activations")
    if rows in (None, False, "none"):
        return 1.0, "none"
    if rows == "constant_norm_rescale":
        return None, "l2"
    if rows in ("expected_average_only_in", True) and (folder / SCALER).is_file():
        return _scaler(folder / SCALER), "none"
    raise SAEFormatError(
        f"{where}: normalize_activations is {rows!r}; none, constant_norm_rescale, and expected_average_only_in with "
        f"the file {SCALER} can be read (SAELens takes the last out with fold_activation_norm_scaling_factor)"
    )


def _scaler(where: Path) -> float:
    """The factor that multiplies rows, from the file beside a checkpoint of a training."""
    entries = read_json(where)
    refuse_unknown(entries, frozenset({"scaling_factor", "has_whitening"}), "", where)
    if entries.get("has_whitening"):
        raise SAEFormatError(f"{where}: has_whitening is {entries['has_whitening']!r}; false can be read")
    factor = entries.get("scaling_factor")
    if not isinstance(factor, (int, float)) or isinstance(factor, bool) or not 0 < factor < float("inf"):
        raise SAEFormatError(f"{where}: scaling_factor is {factor!r}; a finite number above 0 is needed")
    return float(factor)


def _flag(entries: dict[str, Any], key: str, default: bool, where: Path) -> bool:
    value = entries.get(key, default)
    if not isinstance(value, bool):
        raise SAEFormatError(f"{where}: {key} is {value!r}; true or false is needed")
    return value


def _finetuned(tensors: Tensors, entries: dict[str, Any], file: Path, where: Path) -> list[str]:
    """Name of the tensor by which fine-tuning multiplies codes, in a list that is empty if codes are not multiplied.

    Versions 3 to 5 saved such a tensor of ones for SAEs that were not fine-tuned; it is taken out.
    """
    used = entries.get("finetuning_scaling_factor")
    if used not in (None, False, True):
        raise SAEFormatError(f"{where}: finetuning_scaling_factor is {used!r}; true or false is needed")
    found = [name for name in SCALES if name in tensors]
    if used and len(found) != 1:
        raise SAEFormatError(
            f"{file}: one tensor, {' or '.join(SCALES)}, is needed, since finetuning_scaling_factor is true; "
            f"it has {' and '.join(found) or 'none'}"
        )
    if used:
        return found
    for name in found:
        if not bool((tensors.pop(name) == 1).all()):
            raise SAEFormatError(f"{file}: {name} is not 1 everywhere, but finetuning_scaling_factor is not true")
    return []


def _linear(entries: dict[str, Any], row: Architecture, read: Tensors, where: Path) -> Linear:
    """The encoder, its bias and the thresholds, by the formula of the architecture."""
    decoder, bias = read["W_dec"], read["b_dec"]
    encoder = read["W_enc"].T.contiguous()
    threshold = torch.zeros(len(decoder))
    if "r_mag" in read:
        encoder, encoder_bias, threshold = gated(encoder, read["r_mag"], read["b_mag"], read["b_gate"])
    else:
        encoder_bias = read["b_enc"]
    if "threshold" in read:
        threshold = read["threshold"]
    if "log_threshold" in read:
        threshold = read["log_threshold"].exp()
    if "topk_threshold" in read:
        threshold = _running_threshold(entries, read["topk_threshold"], decoder, where)
    if row.selection is None and _flag(entries, "rescale_acts_by_decoder_norm", False, where):
        raise SAEFormatError(
            f"{where}: rescale_acts_by_decoder_norm is true; an SAE that keeps no fixed number of codes has no such "
            "setting"
        )
    if not _flag(entries, "apply_b_dec_to_input", True, where):
        encoder_bias = encoder_bias + encoder @ bias  # this project subtracts the bias from every row first
    return Linear(encoder, encoder_bias, decoder, bias, threshold)


def _running_threshold(entries: dict[str, Any], threshold: Tensor, decoder: Tensor, where: Path) -> Tensor:
    """The thresholds [C] of codes, from the running threshold of a training."""
    if float(threshold) <= 0:
        raise SAEFormatError(
            f"{where.with_name(WEIGHTS)}: topk_threshold is {float(threshold):.3g}; it was never set in training, and "
            "a number above 0 is needed"
        )
    key = "rescale_acts_by_decoder_norm"
    if key not in entries:
        raise SAEFormatError(f"{where}: holds no {key}, which decides what topk_threshold is compared with")
    norm = decoder.norm(dim=1).clamp_min(1e-8) if _flag(entries, key, False, where) else torch.ones(len(decoder))
    return threshold / norm


def _k(entries: dict[str, Any], row: Architecture, given: int | None, width: int, where: Path) -> int:
    """Codes per row: `k` of version 6, `activation_fn_kwargs.k` of versions 3 to 5, else, for topk, `given`.

    0 for rules that do not use k, and where the training kept a broken number of codes, such as 2.5.
    """
    options = entries.get("activation_fn_kwargs") or {}
    if not isinstance(options, dict):
        raise SAEFormatError(f"{where}: activation_fn_kwargs is {options!r}; an object is needed")
    refuse_unknown(options, frozenset({"k", "use_sparse_activations"}), "activation_fn_kwargs.", where)
    if row.selection == "batch":
        k = entries.get("k")
        return (
            0 if k is None or (isinstance(k, float) and not k.is_integer()) else whole_number(k, 1, width, "k", where)
        )
    stated = {"k": entries.get("k"), "activation_fn_kwargs.k": options.get("k")}
    return one_k(stated, given, width, where) if row.selection == "row" else 0


def _prefixes(entries: dict[str, Any], row: Architecture, width: int, where: Path) -> tuple[int, ...] | None:
    """The nested widths of a matryoshka SAE. SAELens adds the whole width if it is not the last one."""
    if "prefixes" not in row.parameters:
        return None
    widths = entries.get("matryoshka_widths")
    if not isinstance(widths, list) or not widths:
        raise SAEFormatError(f"{where}: matryoshka_widths is {widths!r}; a list of whole numbers is needed")
    prefixes = [whole_number(value, 1, width, "matryoshka_widths", where) for value in widths]
    if prefixes[-1] != width:
        prefixes.append(width)
    if prefixes != sorted(set(prefixes)):
        raise SAEFormatError(f"{where}: matryoshka_widths is {widths}; rising widths to {width} are needed")
    return tuple(prefixes)
