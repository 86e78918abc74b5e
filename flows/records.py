"""Where Prefect keeps the results of tasks: cache records in the folders of datasets, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.filesystems import LocalFileSystem

from storage.manifest import RECORD


class Records(LocalFileSystem):
    """Prefect's storage of results in a store: cache records, each in the folder of its dataset.

    Prefect also persists the exception of every flow and task that fails, under a name that nobody can match with a
    run. Such files are not written: the failures of a run are in its record.
    """

    _block_type_slug = "bridgescope-records"  # without this name Prefect takes the class for one of its own, and warns

    async def awrite_path(self, path: str, content: bytes) -> str:
        """Write a cache record. Anything else is dropped."""
        return await super().awrite_path(path, content) if _is_record(path) else path

    def write_path(self, path: str, content: bytes, **options: Any) -> str:  # type: ignore[override]
        """Write a cache record. Anything else is dropped."""
        return str(super().write_path(path, content, **options)) if _is_record(path) else path


def _is_record(path: str) -> bool:
    return Path(path).name == RECORD


def keeping_records(flow: Flow[..., Any], store: Path) -> Flow[..., Any]:
    """Let a flow keep the results of its tasks in a store. Prefect's decorator accepts only storage on its server."""
    flow.result_storage = Records(basepath=str(store))
    return flow
