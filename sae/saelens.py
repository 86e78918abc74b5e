"""Reads and writes folders of SAELens, versions 3 to 6: `cfg.json` and `sae_weights.safetensors`.

Every key of cfg.json and every tensor is known here, or the folder is refused: a part that is not read could change
the codes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sae.architectures import ARCHITECTURES
from sae.foreign import (
    Linear,
    Tensors,
    checked,
    even_norms,
    fold,
    is_topk,
    nothing_more,
    refuse_pursuit,
    refuse_unknown,
    whole_bias,
    whole_number,
)
from sae.model import SAE, SAEFormatError, read_json, read_safetensors

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
VERSION = "6.0.0"  # version of the layout that is written; older versions of SAELens expect other keys
#: (architecture, activation function) in cfg.json -> the architecture of this project with the same rule. The first
#: function of an architecture is its default.
RULES = {pair: row.name for row in ARCHITECTURES.values() for pair in row.saelens}
SHAPES = {"W_enc": "dC", "b_enc": "C", "W_dec": "Cd", "b_dec": "d"}
SCALES = ("scaling_factor", "finetuning_scaling_factor")  # names of the tensor that fine-tuning multiplies codes by
READ = frozenset([
    "architecture", "activation_fn", "activation_fn_str", "activation_fn_kwargs", "k", "rescale_acts_by_decoder_norm",
    "d_in", "d_sae", "dtype", "apply_b_dec_to_input", "normalize_activations", "reshape_activations",
    "finetuning_scaling_factor", "hook_name", "hook_point",
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
    "lr_scheduler_name", "lr_warm_up_steps", "metadata", "model_class_name", "model_from_pretrained_kwargs",
    "model_kwargs", "model_name", "mse_loss_normalization", "n_batches_for_norm_estimate", "n_batches_in_buffer",
    "n_checkpoints", "n_eval_batches", "n_restart_cycles", "neuronpedia_id", "noise_scale", "normalize_sae_decoder",
    "output_path", "pre_act_loss_coefficient", "prefetch_llm_batches", "prepend_bos", "resample_batches", "resume",
    "resume_from_checkpoint", "run_name", "sae_compilation_mode", "sae_lens_training_version", "sae_lens_version",
    "save_final_checkpoint", "scale_sparsity_penalty_by_decoder_norm", "seed", "seqpos_slice",
    "sequence_separator_token", "store_batch_size", "store_batch_size_prompts", "streaming", "tokens_per_buffer",
    "total_training_tokens", "train_batch_size", "train_batch_size_tokens", "training_tokens",
    "use_cached_activations", "use_chat_formatting", "use_ghost_grads", "use_sparse_activations", "verbose",
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
    """Read a SAELens folder: architectures standard, jumprelu and topk. `k`: used for a topk SAE if cfg.json has no k.

    Raises SAEFormatError, naming the file and the key or tensor, for anything that may change the codes.
    """
    folder = Path(folder)
    where, file = folder / CONFIG, folder / WEIGHTS
    entries = read_json(where)
    refuse_unknown(entries, READ | WITHOUT_EFFECT, "", where)
    rule = _rule(entries, where)
    scaled = _normalisation(entries, where)
    subtracts_bias = _flag(entries, "apply_b_dec_to_input", True, where)
    tensors = read_safetensors(file)
    _take_out_ones(tensors, entries, file, where)
    shapes = SHAPES | ({"threshold": "C"} if rule == "jumprelu" else {})
    read = checked(tensors, shapes, file)
    decoder, bias = read["W_dec"], read["b_dec"]
    encoder, encoder_bias = read["W_enc"].T.contiguous(), read["b_enc"]
    width, dim = decoder.shape
    _ranks(entries, rule, decoder, where)
    nothing_more(tensors, shapes, f"a {rule} SAE has no such tensor, and it may change the codes", file)
    _same_sizes(entries, {"d_in": dim, "d_sae": width}, where)
    if not subtracts_bias:
        encoder_bias = encoder_bias + encoder @ bias  # this project subtracts the bias from every row first
    linear = Linear(
        encoder, encoder_bias, decoder, bias, read.get("threshold", torch.zeros(width)),
        scale=float(dim) ** 0.5 if scaled else 1.0,
    )  # fmt: skip
    kept = _k(entries, rule, k, width, where)
    return fold(linear, rule, kept, "l2" if scaled else "none", str(folder))


def _rule(entries: dict[str, Any], where: Path) -> str:
    """The architecture of this project with the same rule as SAELens's architecture and activation function."""
    architecture = entries.get("architecture", "standard")
    if architecture not in [name for name, _ in RULES]:
        raise SAEFormatError(
            f"{where}: architecture is {architecture!r}; standard, jumprelu and topk can be read (SAELens saves the "
            "others as jumprelu with save_inference_model)"
        )
    allowed = {activation: rule for (of, activation), rule in RULES.items() if of == architecture}
    stated = {key: entries[key] for key in ("activation_fn_str", "activation_fn") if entries.get(key) is not None}
    for key, activation in stated.items():
        if activation not in list(allowed):
            raise SAEFormatError(
                f"{where}: {key} is {activation!r}; an SAE of architecture {architecture} can be read with "
                f"{' or '.join(allowed)}"
            )
    if len(set(stated.values())) > 1:
        raise SAEFormatError(f"{where}: activation_fn_str and activation_fn differ: {' and '.join(stated.values())}")
    return allowed[next(iter(stated.values()), next(iter(allowed)))]


def _normalisation(entries: dict[str, Any], where: Path) -> bool:
    """Whether rows are scaled to norm sqrt(d) first. Refuses every other treatment of rows."""
    rows = entries.get("normalize_activations")
    if rows not in (None, False, "none", "constant_norm_rescale"):
        raise SAEFormatError(
            f"{where}: normalize_activations is {rows!r}; none and constant_norm_rescale can be read (SAELens takes "
            "expected_average_only_in out with fold_activation_norm_scaling_factor)"
        )
    hook = str(entries.get("hook_name", entries.get("hook_point")))
    shape = entries.get("reshape_activations")
    if shape is None and "hook_z" in hook:
        shape = "hook_z"  # the default of versions 3 to 5 for hooks named hook_z
    if shape not in (None, "none"):
        raise SAEFormatError(f"{where}: reshape_activations is {shape!r}; none can be read")
    dtype = entries.get("dtype")
    if dtype is not None and str(dtype).removeprefix("torch.") not in DTYPES:
        raise SAEFormatError(f"{where}: dtype is {dtype!r}; {', '.join(DTYPES)} can be read")
    return rows == "constant_norm_rescale"


def _flag(entries: dict[str, Any], key: str, default: bool, where: Path) -> bool:
    value = entries.get(key, default)
    if not isinstance(value, bool):
        raise SAEFormatError(f"{where}: {key} is {value!r}; true or false is needed")
    return value


def _take_out_ones(tensors: Tensors, entries: dict[str, Any], file: Path, where: Path) -> None:
    """Take out the scale of fine-tuning, which old versions saved for every SAE, if it is 1 and not in use."""
    used = entries.get("finetuning_scaling_factor")
    if used not in (None, False):
        raise SAEFormatError(
            f"{where}: finetuning_scaling_factor is {used!r}; an SAE whose codes are scaled afterwards cannot be read"
        )
    for name in SCALES:
        scale = tensors.pop(name, None)
        if scale is not None and not bool((scale == 1).all()):
            raise SAEFormatError(f"{file}: {name} is not 1 everywhere; an SAE whose codes are scaled cannot be read")


def _same_sizes(entries: dict[str, Any], sizes: dict[str, int], where: Path) -> None:
    for key, size in sizes.items():
        if entries.get(key) is not None and entries[key] != size:
            raise SAEFormatError(f"{where}: {key} is {entries[key]!r}, but the tensors of {WEIGHTS} have {size}")


def _k(entries: dict[str, Any], rule: str, given: int | None, width: int, where: Path) -> int:
    """Codes per row of a topk SAE: `k` of version 6, `activation_fn_kwargs.k` of versions 3 to 5, else `given`.

    0 for the other rules, which do not use k.
    """
    options = entries.get("activation_fn_kwargs") or {}
    if not isinstance(options, dict):
        raise SAEFormatError(f"{where}: activation_fn_kwargs is {options!r}; an object is needed")
    refuse_unknown(options, frozenset({"k", "use_sparse_activations"}), "activation_fn_kwargs.", where)
    if rule != "topk":
        return 0
    named = {"k": entries.get("k"), "activation_fn_kwargs.k": options.get("k")}
    stated = {key: whole_number(value, 1, width, key, where) for key, value in named.items() if value is not None}
    if len(set(stated.values())) > 1:
        raise SAEFormatError(f"{where}: k is {stated['k']}, but activation_fn_kwargs.k is {options['k']!r}")
    if stated:
        return next(iter(stated.values()))
    if not given:
        raise SAEFormatError(
            f"{where}: holds no k, the number of codes per row of a topk SAE: give k (in a study: saes.k)"
        )
    return whole_number(given, 1, width, "the given k", where)


def _ranks(entries: dict[str, Any], rule: str, decoder: Tensor, where: Path) -> None:
    """Refuse an SAE whose codes are ranked in an order that folding the norms of atoms would change."""
    by_norm = _flag(entries, "rescale_acts_by_decoder_norm", False, where)
    if by_norm and rule != "topk":
        raise SAEFormatError(f"{where}: rescale_acts_by_decoder_norm is true; it can be read for topk alone")
    if rule == "topk" and not by_norm:
        even_norms(decoder, rule, where)
