"""A look at the weights of a checkpoint folder, without loading them."""

from __future__ import annotations

from pathlib import Path

from storage.errors import BadInput
from vlm.checkpoint import LAYOUTS, CheckpointError, weight_files
from vlm.spec import Spec


def check_weights(spec: Spec) -> None:
    """Raise BadInput when the folder of a spec is missing, lacks weights, or has a file of weights that was cut short.

    Only the files that the library of the spec reads are looked at. Files of torch.save are read when they are loaded.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(spec.path or "").expanduser()
    if not folder.is_dir():
        raise BadInput(f"{spec}: no such folder")
    try:
        files = weight_files(folder, LAYOUTS[spec.kind])
    except CheckpointError as error:
        raise BadInput(f"{spec}: {error}") from error
    for path in files:
        if path.suffix != ".safetensors":
            continue
        try:
            with safe_open(path, "numpy") as opened:
                opened.keys()
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path}: not a complete file of weights: {error}") from error
