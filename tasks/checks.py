"""Check embeddings: measure each shard after it was embedded, and log a summary of the checks of a model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from storage.dataset import Dataset
from tasks.stage import Runtime, stage

log = logging.getLogger("bridgescope")


@stage("checks", version="1")
def check_embeddings(out: Path, pairs: Dataset, embeddings: Dataset, runtime: Runtime) -> int:
    """Check the embeddings of one shard. Returns the number of rows of the table, one per modality."""
    from storage.checks import write_checks

    return write_checks(out, runtime.store, pairs, embeddings)


def tell_checks(model: str, checks: Sequence[Dataset], runtime: Runtime) -> None:
    """Log a summary of the checks of a model.

    The summary is a warning if the model's matched pairs are not more alike than shuffled pairs, or if an image or
    caption that is not recorded as failed has no embedding.
    """
    from storage.checks import tell

    line, sound = tell(runtime.store, checks)
    log.log(logging.INFO if sound else logging.WARNING, "%s: %s", model, line)
