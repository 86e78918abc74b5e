"""The store: datasets, pairs, embeddings, activations, and the SQL catalog over them. Plain Python, no orchestrator."""

from __future__ import annotations

from storage.catalog import open_catalog
from storage.dataset import Dataset
from storage.errors import BadInput

__all__ = ["BadInput", "Dataset", "open_catalog"]
