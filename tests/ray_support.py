"""A study of small pictures with a tiny CLIP, and Ray clusters of several raylets (Ray's nodes) on loopback."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from deploy_support import WAIT
from PIL import Image
from tests_support import TEXT
from tiny_models import CAPTIONS, build

from storage.runs import Run, last_run

# Every process of these clusters requires a token, as a team's cluster should.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
ROOT = Path(__file__).resolve().parents[1]
# Replacements in the study file of tests_support.py. They turn the study of vectors into a study of pictures.
CHANGES = {
    'name = "small"': 'name = "pictures"',
    'source = "embeddings"\npath = "vectors"': 'source = "folder"\npath = "data"',
    "shard_size = 1500": "shard_size = 200",
    'name = "own"\nspec = "embeddings:vectors"': 'name = "tiny"\nspec = "hf:local-dir:{model}"',
    "[analyze]": '[runtime]\ndevice = "cpu"\nembed_batch_size = 32\n[analyze]',
}


def write_pictures(folder: Path, count: int) -> Path:
    """Write a study file, `count` pictures with one caption each, and a model."""
    model, data = build("clip", folder / "clip"), folder / "data"
    data.mkdir()
    rng = np.random.default_rng(3)
    for number in range(count):
        noise = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((64, 64), Image.Resampling.NEAREST).save(data / f"{number:05}.png")
        (data / f"{number:05}.txt").write_text(f"{CAPTIONS[number % 6]}, {number}")
    study = folder / "pictures.toml"
    text = TEXT
    for old, new in CHANGES.items():
        assert old in text
        text = text.replace(old, new.replace("{model}", str(model)))
    study.write_text(text)
    return study


def begin(
    study: Path, store: Path, *changes: str, only: str | None = None, **environment: str
) -> subprocess.Popen[str]:
    """Start a run of a study, or of one stage, in a separate process with Prefect's embedded server."""
    command = [sys.executable, "-m", "flows.cli", "run", str(study), "--store", str(store)]
    command += ["--only", only] if only else []
    for change in changes:
        command += ["--set", change]
    clean = {name: value for name, value in os.environ.items() if name not in ("PREFECT_API_URL", "RAY_ADDRESS")}
    return subprocess.Popen(
        command, env={**clean, "PYTHONPATH": str(ROOT), **environment}, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def end(process: subprocess.Popen[str], store: Path) -> tuple[Run, str]:
    """Wait until the process of a run has ended. Returns the run and the output of the process."""
    try:
        _, output = process.communicate(timeout=WAIT)
    finally:
        process.kill()
    assert process.returncode == 0, output
    run = last_run(store, "pictures")
    assert run is not None
    return run, output


class Raylets:
    """A Ray cluster of processes on this machine: a head, and nodes that are added and killed.

    The cluster uses the address of the machine, since a Ray driver replaces 127.0.0.1 by this address. The kernel
    routes it over loopback.
    """

    def __init__(self, **head: Any) -> None:
        from ray.cluster_utils import Cluster

        # Ray's dashboard has nine processes, which are not needed here.
        self.cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **head})
        self.address = str(self.cluster.address)

    def add(self, **resources: Any) -> int:
        """Start another raylet. Returns its process id."""
        node = self.cluster.add_node(**resources)
        return int(node.all_processes["raylet"][0].process.pid)
