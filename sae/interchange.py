"""Reads the SAE files of SAELens, overcomplete and this project into one form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sae import overcomplete, saelens
from sae.model import CONFIG_FILE, SAE, WEIGHTS_FILE, SAEFormatError
from sae.overcomplete import from_overcomplete, to_overcomplete
from sae.rows import Matrix
from sae.saelens import from_saelens, to_saelens

__all__ = [
    "from_overcomplete", "from_saelens", "kind_of", "load_checkpoint", "read_checkpoint",
    "to_overcomplete", "to_saelens",
]  # fmt: skip


def kind_of(path: str | Path) -> str:
    """The library that wrote the files at `path`: "bridgescope", "saelens" or "overcomplete".

    Raises SAEFormatError when it is none of them.
    """
    path = Path(path)
    kinds: list[tuple[str, Callable[[], bool]]] = [
        ("bridgescope", lambda: (path / WEIGHTS_FILE).is_file() and (path / CONFIG_FILE).is_file()),
        ("saelens", lambda: (path / saelens.CONFIG).is_file()),
        ("overcomplete", lambda: path.suffix in (".pt", ".pth") and path.is_file()),
        ("overcomplete", lambda: (path / overcomplete.WEIGHTS).is_file()),
    ]
    for kind, is_there in kinds:
        if is_there():
            return kind
    raise SAEFormatError(
        f"{path}: {'no SAE that can be read' if path.exists() else 'no such file or folder'}; a checkpoint is a folder "
        f"with {WEIGHTS_FILE} and {CONFIG_FILE}, a SAELens folder ({saelens.CONFIG}, {saelens.WEIGHTS}), or an "
        "overcomplete state dict (.pt)"
    )


def read_checkpoint(
    path: str | Path,
    *,
    architecture: str = "batchtopk",
    k: int = 0,
    threshold: float | None = None,
    rows: tuple[Matrix, Matrix] | None = None,
) -> SAE:
    """Read an SAE of bridgescope, SAELens or overcomplete, of any dimension. The options go to the library's reader.

    Raises SAEFormatError, naming the file and the key or tensor, where the SAE cannot be read.
    """
    kind = kind_of(path)
    if kind == "bridgescope":
        return SAE.load(path)
    if kind == "saelens":
        return from_saelens(path, k)
    return from_overcomplete(path, architecture=architecture, k=k, threshold=threshold, rows=rows)


def load_checkpoint(
    path: str | Path,
    *,
    dim: int,
    architecture: str = "batchtopk",
    k: int = 0,
    rows: tuple[Matrix, Matrix] | None = None,
) -> SAE:
    """Read an SAE of bridgescope, SAELens or overcomplete, for embeddings of `dim` dimensions.

    `k` is used where a file of another library needs one and holds none. `architecture` and `rows` are passed to
    `from_overcomplete`. Raises SAEFormatError, naming the file and the key or tensor, where the SAE cannot be read or
    has another dimension.
    """
    loaded = read_checkpoint(path, architecture=architecture, k=k, rows=rows)
    if loaded.config.dim != dim:
        raise SAEFormatError(f"{path}: takes rows of {loaded.config.dim} dimensions, the model's have {dim}")
    return loaded
