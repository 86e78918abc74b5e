"""Runs a numba loop over a range on as many threads as torch uses. Numba's own threads would compete with torch's."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


class Workers:
    """A pool of threads. A range is always cut at the same places, so that equal thread counts give equal bits."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or torch.get_num_threads()
        self.pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    def run(self, loop: Callable[..., Any], total: int, *arguments: Any) -> list[Any]:
        """Call loop(start, stop, *arguments) on parts of 0..total-1, one per thread. Returns their results in order."""
        if self.pool is None:
            return [loop(0, total, *arguments)]
        cuts = [total * part // self.threads for part in range(self.threads + 1)]
        others = [self.pool.submit(loop, cuts[i], cuts[i + 1], *arguments) for i in range(1, self.threads)]
        return [loop(cuts[0], cuts[1], *arguments), *(other.result() for other in others)]
