"""A stand-in for a pass over a shard, which a child process runs: it writes down which process ran it.

This module imports little, so that the process starts quickly.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from tasks.children import Watch
from tasks.embed import embed


def mark(store: Path, arguments: dict[str, Any]) -> Path:
    """The file that stands for a dataset."""
    return store / embed.address(**arguments).path.replace("/", "-")


def writes_its_process(job: Any, watch: Watch) -> list[tuple[int, str]]:
    """Write down device and process of a pass. A pass waits, or its process dies, where a file asks for it."""
    store, shard = job.runtime.store, job.jobs[0]["pairs"].digest
    if (store / f"dies-{shard}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    end = time.monotonic() + 30
    while (store / f"waits-{shard}").exists():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)
    for each in job.jobs:
        if each["model"] != "bad":
            mark(store, each).write_text(f"{job.runtime.device} {os.getpid()}")
    return []
