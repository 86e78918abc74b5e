"""What study files say of SAEs, for flows: the settings and the table of methods. Imports neither prefect nor torch."""

from sae.architectures import ARCHITECTURES, BASELINES, PARAMETERS
from sae.settings import ImageShare, Settings

__all__ = ["ARCHITECTURES", "BASELINES", "PARAMETERS", "ImageShare", "Settings"]
