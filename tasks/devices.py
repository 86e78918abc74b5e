"""The device on which a task computes, and how many processes compute on it side by side."""

from __future__ import annotations

import os


def device_of(name: str) -> str:
    """The device that the key `device` of a study means: "auto" means a GPU of CUDA if there is one, else the CPU."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def devices(name: str) -> list[str]:
    """The devices that a study's `device` means: "auto" and "cuda" mean every GPU, any other name one device."""
    import torch

    count = torch.cuda.device_count() if name in ("auto", "cuda") else 0
    return [f"cuda:{number}" for number in range(count)] if count > 1 else [name]


def device_at_hand(name: str) -> str:
    """The device of `name`, or the CPU where this process sees no GPU.

    For stages that a GPU only makes faster: on a cluster no GPU is reserved for their tasks.
    """
    return "cpu" if device_of("auto") == "cpu" else device_of(name)


def processes_on(name: str, jobs: int) -> int:
    """How many of `jobs` processes run side by side on a device: one per core of a CPU, and one on an accelerator.

    Each further process on an accelerator would hold its own copy of the libraries, the rows, the SAE and the moments
    of Adam in the same memory.
    """
    return max(1, min(jobs, os.cpu_count() or 1)) if device_of(name) == "cpu" else 1
