"""Check before a training starts whether the memory of its GPU suffices."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae.budget import resolved
from sae.memory import memory
from sae.settings import Settings
from storage.dataset import Dataset
from storage.embeddings import open_array
from storage.errors import BadInput
from tasks.devices import device_of

log = logging.getLogger("bridgescope")


def tell_memory(
    store: Path, embeddings: Sequence[Dataset], setting: dict[str, Any], heldout: float, device: str
) -> None:
    """Log what a training takes of its GPU's memory; nothing for the CPU. Raises BadInput if the GPU is too small."""
    place = device_of(device)
    if not place.startswith("cuda"):
        return
    import torch

    shapes = [open_array(store / each.path / part).shape for each in embeddings for part in ("image", "text")]
    own = {name: value for name, value in setting.items() if name != "data_half"}
    share = (1 - heldout) * (0.5 if setting.get("data_half") else 1.0)
    rows = round(share * sum(shape[0] for shape in shapes))
    needed = memory(resolved(Settings(**own), rows), rows, int(shapes[0][1]))
    there = int(torch.cuda.get_device_properties(place).total_memory)
    what = f"an SAE of width {setting['width']} on {rows} rows needs {needed.told()}; {place} has {there / 1e9:.1f} GB"
    if needed.total > there:
        raise BadInput(f'{what}: set a smaller batch_size or width, take fewer pairs, or train with device = "cpu"')
    log.info("%s; SAEs are trained one after another", what)
