"""The state of an unfinished training in one file: tensors, and all other values as JSON in its header.

The file is replaced as a whole, so that a killed process leaves the previous file or the new one, never a partial one.
"""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FILE = "checkpoint.safetensors"


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or belongs to another training; the message names the file."""

    exit_code: ClassVar[int] = 2


@dataclass
class Checkpoint:
    """Folder and interval of a training's checkpoints: every `seconds`, or every `steps` if `steps` is given."""

    folder: Path
    seconds: float = 60.0
    steps: int | None = None
    last: float = field(default_factory=time.monotonic)

    @property
    def path(self) -> Path:
        """Path of the checkpoint file."""
        return self.folder / FILE

    @property
    def _partial(self) -> Path:
        return self.folder / f"{FILE}.partial"

    def is_due(self, step: int) -> bool:
        """Return whether a checkpoint is to be written after this step."""
        if self.steps is not None:
            return step % self.steps == 0
        return time.monotonic() - self.last >= self.seconds

    def write(self, tensors: dict[str, Tensor], entries: dict[str, Any]) -> None:
        """Replace the checkpoint file and sync it to disk."""
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(held, self._partial, metadata={"state": json.dumps(entries)})
        _sync(self._partial)
        os.replace(self._partial, self.path)
        _sync(self.folder)
        self.last = time.monotonic()

    def read(self, wanted: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the saved state, or None if there is no file.

        Raises CheckpointError if the file cannot be read, or is of a training with settings other than `wanted`.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                entries: dict[str, Any] = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise CheckpointError(
                f"{self.path}: not a readable checkpoint ({error}); delete it to start over"
            ) from error
        training, wanted = _set_values(entries["training"]), _set_values(json.loads(json.dumps(wanted)))
        if training != wanted:
            names = sorted(name for name in training | wanted if training.get(name) != wanted.get(name))
            raise CheckpointError(
                f"{self.path}: of a training with another {', '.join(names)}; delete it to start over"
            )
        return tensors, entries

    def remove(self) -> None:
        """Remove the file after the training has finished, and what a kill left of a file that was being written."""
        for path in (self.path, self._partial):
            path.unlink(missing_ok=True)


def _set_values(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that are not None, so that None equals a setting that the checkpoint file does not have."""
    return {name: value for name, value in settings.items() if value is not None}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
