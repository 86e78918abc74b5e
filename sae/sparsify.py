"""Reads folders of sparsify (EleutherAI): `cfg.json` and `sae.safetensors`.

Every key of cfg.json and every tensor is known here, or the folder is refused. The forward formula is that of sparsify
1.0 to 1.3: the k largest of relu((x - b_dec) W_enc^T + b_enc) in each row, and the reconstruction z W_dec + b_dec.
"""

from __future__ import annotations

from pathlib import Path

import torch

from sae.foreign import Linear, checked, even_norms, fold, nothing_more, one_k, refuse_unknown, same_sizes, whole_number
from sae.model import SAE, SAEFormatError, read_json, read_safetensors

CONFIG = "cfg.json"
WEIGHTS = "sae.safetensors"
SHAPES = {"W_dec": "Cd", "encoder.weight": "Cd", "encoder.bias": "C", "b_dec": "d"}
READ = frozenset(["activation", "d_in", "expansion_factor", "k", "num_latents"])
WITHOUT_EFFECT = frozenset(["gram_table_hash", "lookup_max_order", "multi_topk", "normalize_decoder"])
#: Keys that must be false: with them the output, the target or the selection is another one.
OFF = {
    "transcode": "it reconstructs the output of a module, not its rows",
    "skip_connection": "its rows reach the reconstruction past the codes",
    "embed_skip": "other activations reach the reconstruction past the codes",
    "gram_lookup": "a table of means, which is not in the folder, is subtracted from its rows",
    "signed": "its codes may be negative",
}


def from_sparsify(folder: str | Path, k: int | None = None) -> SAE:
    """Read a folder of sparsify, a topk SAE for rows as they are. `k`: used if cfg.json has no k.

    Codes are those of the library's `encode`, also with multi_topk, with which its `forward` returns 4 k codes per row.
    Raises SAEFormatError, naming the file and the key or tensor, for anything that may change the codes: transcoders,
    skip connections, the activation groupmax, and atoms of different norms, since sparsify ranks codes before the norms
    are multiplied in.
    """
    folder = Path(folder)
    where, file = folder / CONFIG, folder / WEIGHTS
    entries = read_json(where)
    refuse_unknown(entries, READ | WITHOUT_EFFECT | OFF.keys(), "", where)
    for key, why in OFF.items():
        if entries.get(key) not in (None, False):
            raise SAEFormatError(f"{where}: {key} is {entries[key]!r}: {why}; false can be read")
    if entries.get("activation", "topk") != "topk":
        raise SAEFormatError(f"{where}: activation is {entries['activation']!r}; topk can be read")
    tensors = read_safetensors(file)
    nothing_more(tensors, SHAPES, "an SAE of sparsify has no such tensor, and it may change the codes", file)
    read = checked(tensors, SHAPES, file)
    width, dim = read["W_dec"].shape
    sizes = {"d_in": dim}
    if entries.get("num_latents"):  # 0: expansion_factor decides
        sizes["num_latents"] = width
    elif entries.get("expansion_factor") is not None:
        factor = whole_number(entries["expansion_factor"], 1, width, "expansion_factor", where)
        if factor * dim != width:
            raise SAEFormatError(
                f"{where}: expansion_factor is {factor}, but the tensors of {WEIGHTS} have {width} latents for "
                f"{dim} dimensions"
            )
    same_sizes(entries, sizes, "", where, WEIGHTS)
    even_norms(read["W_dec"], "topk", file)
    linear = Linear(read["encoder.weight"], read["encoder.bias"], read["W_dec"], read["b_dec"], torch.zeros(width))
    return fold(linear, "topk", one_k({"k": entries.get("k")}, k, width, where), "none", str(folder))
