"""SAE settings and architectures for the flows, which import tasks and storage only. Imports no torch."""

from sae.architectures import ARCHITECTURES, BASELINES, PARAMETERS
from sae.settings import ImageShare, Settings

__all__ = ["ARCHITECTURES", "BASELINES", "PARAMETERS", "ImageShare", "Settings"]
