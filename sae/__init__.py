"""The science in torch and numpy: sparse autoencoders on paired embeddings, and what is asked of trained ones.

Imports nothing of the project besides itself. `sae.train(...)` is the function; its module has the same name.
"""

from sae import metrics

# The module sae.train is loaded here and then hidden by its function. As this file always runs before any
# `from sae.train import ...`, and a loaded module is never bound to its package twice, the function stays.
from sae.model import SAE
from sae.settings import Settings
from sae.train import Checkpoint, Trained, train

__all__ = ["SAE", "Checkpoint", "Settings", "Trained", "metrics", "train"]
