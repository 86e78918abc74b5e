"""Sparse autoencoders on paired embeddings, in torch and numpy. Imports no other top-level folder of the project.

Names are loaded when they are first used, so that `import sae` does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae import metrics
    from sae.checkpoint import Checkpoint
    from sae.model import SAE
    from sae.settings import Settings
    from sae.training import Trained, train

__all__ = ["SAE", "Checkpoint", "Settings", "Trained", "metrics", "train"]

HOMES = {
    "SAE": "sae.model",
    "Checkpoint": "sae.checkpoint",
    "Settings": "sae.settings",
    "Trained": "sae.training",
    "train": "sae.training",
}


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return importlib.import_module("sae.metrics")
    if name not in HOMES:
        raise AttributeError(f"module 'sae' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)
