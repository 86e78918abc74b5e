"""What decodes the JPEGs of a study, re-exported for the flows, which may import only tasks and storage."""

from __future__ import annotations

from tasks.devices import device_of
from vlm.nvjpeg import DECODES, jpegs_on

__all__ = ["DECODES", "check_decode"]


def check_decode(decode: str, device: str) -> None:
    """Raise `vlm.SpecError`, which is bad input, if JPEGs cannot be decoded so on the device of a study."""
    if decode == "nvjpeg":
        jpegs_on(device_of(device))
