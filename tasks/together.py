"""Makes the embeddings of several models and one shard in one pass, in which each image is decoded once.

The datasets are those that the models' own jobs make, at the same addresses. So this is a short cut: a model that fails
here is left to its own job, which reports the error.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storage.dataset import Dataset
from tasks.embed import Wanted, embed, embed_shard
from tasks.embed_pass import Made
from tasks.stage import Runtime

log = logging.getLogger("bridgescope")

Job = dict[str, Any]  # the arguments of `embed`


def embed_together(jobs: Sequence[Job], runtime: Runtime) -> None:
    """Make the datasets of some jobs of `embed` for one shard. Jobs whose dataset is complete are left out.

    A dataset whose model fails stays as an interrupted call leaves it. An error that stops the pass is logged only.
    """
    # Locks are taken in the order of addresses: two runs whose studies list the models in another order could
    # otherwise wait for each other.
    ordered = sorted(jobs, key=lambda job: embed.address(**job).path)
    outs: dict[Wanted, Path] = {}
    made: dict[Wanted, Made | Exception] = {}

    def place(left: list[Job]) -> None:
        """Open the datasets of the jobs, one within the other, and run the pass in the innermost."""
        if not left:
            if outs:
                limits = [job["max_pixels"] for job in ordered if "max_pixels" in job]
                options = {"max_pixels": max(limits)} if limits else {}
                pairs: Dataset = ordered[0]["pairs"]
                made.update(zip(outs, embed_shard(pairs, outs, runtime, **options), strict=True))
            return
        job, rest = left[0], left[1:]
        wanted, entered = Wanted(job["model"], job["spec"], job["dtype"]), False

        def body(out: Path, **_: Any) -> int:
            nonlocal entered
            entered = True
            outs[wanted] = out
            place(rest)
            found = made.get(wanted, RuntimeError("the pass was stopped"))
            if isinstance(found, Exception):
                raise found
            return found.rows

        try:
            embed.place(runtime, job, body, lambda: _share(made, wanted))
        except Exception as error:
            log.debug("%s: not embedded together with other models: %s", job["spec"], error)
        if not entered:  # another process made the dataset meanwhile, or its folder cannot be written
            place(rest)

    place(ordered)


def _share(made: dict[Wanted, Made | Exception], wanted: Wanted) -> float:
    """The part of the time of a pass that a model took, by the time that workers spent on each model alone."""
    seconds = {each: found.seconds for each, found in made.items() if isinstance(found, Made)}
    total = math.fsum(seconds.values())
    return seconds[wanted] / total if total else 1.0
