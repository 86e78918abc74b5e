"""Reads folders of dictionary_learning: `ae.pt`, a state dict, and `config.json`, which names its class.

Every key of config.json's "trainer" and every tensor is known here, or the folder is refused. Pickled objects are never
read. The forward formulas are those of version 0.1.0, and of the versions before it that had the same classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae.architectures import ARCHITECTURES
from sae.foreign import (
    Linear,
    Tensors,
    checked,
    even_norms,
    fold,
    gated,
    nothing_more,
    one_k,
    read_state_dict,
    refuse_unknown,
    same_sizes,
    whole_number,
)
from sae.model import SAE, SAEFormatError, read_json

CONFIG = "config.json"
WEIGHTS = "ae.pt"


class Layout(NamedTuple):
    """The tensors of a class of dictionary_learning."""

    encoder: str  # name of the encoder's matrix
    encoder_bias: str
    decoder: str
    bias: str
    subtracts: bool = True  # whether the decoder bias is subtracted from rows first
    more: tuple[str, ...] = ()  # further tensors [C]
    buffers: tuple[str, ...] = ()  # further tensors that the class saves: numbers, and group_sizes

    @property
    def shapes(self) -> dict[str, str]:
        """Axes of the tensors. The encoder of a layer of torch is [C, d], that of a plain parameter [d, C]."""
        layers = self.encoder.endswith(".weight")
        axes = {self.decoder: "dC" if layers else "Cd", self.encoder: "Cd" if layers else "dC", self.bias: "d"}
        return axes | dict.fromkeys((self.encoder_bias, *self.more), "C")


LAYERS = ("encoder.weight", "encoder.bias", "decoder.weight")
PARAMETERS = ("W_enc", "b_enc", "W_dec")
MATRYOSHKA = Layout(*PARAMETERS, "b_dec", buffers=("k", "threshold", "group_sizes"))
#: dict_class in config.json -> its tensors
CLASSES = {
    "AutoEncoder": Layout(*LAYERS, "bias"),
    "AutoEncoderNew": Layout(*LAYERS, "decoder.bias", subtracts=False),
    "GatedAutoEncoder": Layout(
        "encoder.weight", "mag_bias", "decoder.weight", "decoder_bias", more=("gate_bias", "r_mag")
    ),
    "JumpReluAutoEncoder": Layout(*PARAMETERS, "b_dec", subtracts=False, more=("threshold",)),
    "AutoEncoderTopK": Layout(*LAYERS, "b_dec", buffers=("k", "threshold")),
    "BatchTopKSAE": Layout(*LAYERS, "b_dec", buffers=("k", "threshold")),
    "MatryoshkaBatchTopKSAE": MATRYOSHKA,
    "MatroyshkaBatchTopKSAE": MATRYOSHKA,
}
#: dict_class -> the architecture with the same rule
RULES = {name: row for row in ARCHITECTURES.values() for name in row.dictionary_learning}
#: Keys of "trainer" that are read, and those on the training, which do not change the codes of a row.
READ = frozenset(["activation_dim", "dict_class", "dict_size", "group_sizes", "k"])
WITHOUT_EFFECT = frozenset([
    "anneal_end", "anneal_start", "auxk_alpha", "bandwidth", "decay_start", "device", "group_fractions",
    "group_weights", "l1_penalty", "layer", "lm_name", "lr", "n_sparsity_updates", "p_end", "p_start", "resample_steps",
    "seed", "sparsity_function", "sparsity_penalty", "sparsity_queue_length", "sparsity_warmup_steps", "steps",
    "submodule_name", "target_l0", "threshold_beta", "threshold_start_step", "top_k_aux", "trainer_class",
    "wandb_name", "warmup_steps",
])  # fmt: skip


def from_dictionary_learning(folder: str | Path, k: int | None = None) -> SAE:
    """Read a folder of dictionary_learning (CLASSES), an SAE for rows as they are. `k`: used for AutoEncoderTopK if
    neither file has one.

    Codes are those of the class's own default: AutoEncoderTopK keeps k per row, BatchTopKSAE and its Matryoshka form
    keep codes above their running threshold. Raises SAEFormatError, naming the file and the key or tensor, for anything
    that may change the codes, and for a running threshold that was never set.
    """
    folder = Path(folder)
    where, file = folder / CONFIG, folder / WEIGHTS
    trainer, layout = _trainer(where)
    state = read_state_dict(file)
    name = trainer["dict_class"]
    nothing_more(state, [*layout.shapes, *layout.buffers], f"{name} has no such tensor", file)
    read = checked(state, layout.shapes, file)
    linear = _linear(layout, read)
    width, dim = linear.decoder.shape
    same_sizes(trainer, {"activation_dim": dim, "dict_size": width}, "trainer.", where, WEIGHTS)
    row, kept, prefixes = RULES[name], 0, None
    if "k" in layout.buffers:
        stated = {"trainer.k": trainer.get("k"), f"k of {WEIGHTS}": _number(state, "k", file)}
        kept = one_k(stated, k, width, where)
    if row.selection == "row":
        even_norms(linear.decoder, row.name, file)
    elif "threshold" in layout.buffers:
        linear = linear._replace(threshold=_threshold(state, file).expand(width))
    if "group_sizes" in layout.buffers:
        prefixes = _prefixes(state, trainer, width, file, where)
    return fold(linear, row.name, kept, "none", str(folder), prefixes)


def _trainer(where: Path) -> tuple[dict[str, Any], Layout]:
    """The section "trainer" of config.json, whose keys are all known, and the layout of its class."""
    entries = read_json(where)
    refuse_unknown(entries, frozenset({"trainer", "buffer"}), "", where)
    sections = {name: entries.get(name) or {} for name in ("trainer", "buffer")}
    for key, section in sections.items():
        if not isinstance(section, dict):
            raise SAEFormatError(f"{where}: {key} is {section!r}; an object is needed")
    trainer, io = sections["trainer"], sections["buffer"].get("io")
    name = trainer.get("dict_class")
    if name not in list(CLASSES):
        raise SAEFormatError(f"{where}: trainer.dict_class is {name!r}; {', '.join(CLASSES)} can be read")
    refuse_unknown(trainer, READ | WITHOUT_EFFECT, "trainer.", where)
    if io not in (None, "in", "out"):
        raise SAEFormatError(f'{where}: buffer.io is {io!r}: a transcoder; "in" or "out" can be read')
    return trainer, CLASSES[name]


def _linear(layout: Layout, read: Tensors) -> Linear:
    layers = layout.encoder.endswith(".weight")
    encoder = read[layout.encoder] if layers else read[layout.encoder].T.contiguous()
    decoder = read[layout.decoder].T.contiguous() if layers else read[layout.decoder]
    encoder_bias, bias = read[layout.encoder_bias], read[layout.bias]
    threshold = read.get("threshold", torch.zeros(len(decoder)))
    if "r_mag" in read:
        encoder, encoder_bias, threshold = gated(encoder, read["r_mag"], encoder_bias, read["gate_bias"])
    if not layout.subtracts:
        encoder_bias = encoder_bias + encoder @ bias  # this project subtracts the bias from every row first
    return Linear(encoder, encoder_bias, decoder, bias, threshold)


def _number(state: Tensors, name: str, file: Path) -> int | float | None:
    """The number that a tensor of a state dict holds; None if the tensor is absent."""
    tensor = state.get(name)
    if tensor is None:
        return None
    if tensor.numel() != 1 or tensor.is_complex():
        raise SAEFormatError(
            f"{file}: {name} has shape {tuple(tensor.shape)} and type {tensor.dtype}; a number is needed"
        )
    number: int | float = tensor.item()
    return number


def _threshold(state: Tensors, file: Path) -> Tensor:
    """The running threshold. It is -1 until the training sets it, and versions before 2025 did not save it."""
    threshold = _number(state, "threshold", file)
    if threshold is None or not 0 <= threshold < float("inf"):
        stated = "missing" if threshold is None else f"{threshold:g}"
        raise SAEFormatError(
            f"{file}: threshold is {stated}; a number from 0 is needed, without which the codes depend on the batch "
            "(training sets it after threshold_start_step steps)"
        )
    return torch.tensor(float(threshold))


def _prefixes(state: Tensors, trainer: dict[str, Any], width: int, file: Path, where: Path) -> tuple[int, ...]:
    """The nested widths of a Matryoshka SAE, the sums of its group sizes."""
    sizes = state.get("group_sizes")
    if sizes is None or sizes.ndim != 1 or sizes.is_floating_point() or sizes.is_complex():
        stated = "missing" if sizes is None else f"{sizes.dtype} of shape {tuple(sizes.shape)}"
        raise SAEFormatError(f"{file}: group_sizes is {stated}; whole numbers are needed, one for each group")
    groups = [whole_number(size, 1, width, "group_sizes", file) for size in sizes.tolist()]
    if sum(groups) != width:
        raise SAEFormatError(f"{file}: group_sizes is {groups}; their sum is {sum(groups)}, and must be {width}")
    if trainer.get("group_sizes") not in (None, groups):
        raise SAEFormatError(
            f"{where}: trainer.group_sizes is {trainer['group_sizes']!r}, but group_sizes of {WEIGHTS} is {groups}"
        )
    return tuple(sum(groups[: end + 1]) for end in range(len(groups)))
