"""SAE settings and architectures, re-exported for the flows, which may import only tasks and storage.

This module does not import torch.
"""

from sae.architectures import ARCHITECTURES, BASELINES, PARAMETERS
from sae.budget import budget
from sae.settings import FROZEN, ImageShare, Settings, freezable

__all__ = ["ARCHITECTURES", "BASELINES", "FROZEN", "PARAMETERS", "ImageShare", "Settings", "budget", "freezable"]
