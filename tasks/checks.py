"""Check embeddings: measure each shard after it was embedded, and tell what the checks of a model say."""

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
    """Log what the checks of a model say: a warning when its matched pairs are not more alike than shuffled ones."""
    from storage.checks import tell

    line, sound = tell(runtime.store, checks)
    log.log(logging.INFO if sound else logging.WARNING, "%s: %s", model, line)
