"""A look at the weights of a checkpoint folder, without loading them."""

from __future__ import annotations

from pathlib import Path

from storage.errors import BadInput
from vlm.checkpoint import weight_files
from vlm.spec import Spec


def check_weights(spec: Spec) -> None:
    """Raise BadInput when the folder of a spec is missing, holds no weights, or holds a file that was cut short."""
    from safetensors import SafetensorError, safe_open

    folder = Path(spec.path or "").expanduser()
    if not folder.is_dir():
        raise BadInput(f"{spec}: no such folder")
    files = weight_files(folder)
    if not files:
        raise BadInput(f"{spec}: the folder holds no weights (no .safetensors, .bin, .pth or .pt)")
    for path in files:
        if path.suffix != ".safetensors":
            continue
        try:
            with safe_open(path, "numpy") as opened:
                opened.keys()
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path}: not a whole file of weights: {error}") from error
