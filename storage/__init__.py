"""The store: datasets, pairs, embeddings, activations, and the SQL catalog over them. Plain Python, no orchestrator.

Names are loaded when they are first used, so that the code that lists jobs does not import DuckDB.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.catalog import open_catalog
    from storage.dataset import Dataset
    from storage.errors import BadInput

__all__ = ["BadInput", "Dataset", "open_catalog"]

HOMES = {"BadInput": "storage.errors", "Dataset": "storage.dataset", "open_catalog": "storage.catalog"}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'storage' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)
