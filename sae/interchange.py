"""Reads the SAE files of this project and of other libraries into one form: the table FORMATS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sae import dictionary_learning, overcomplete, saelens, sparsify
from sae.dictionary_learning import from_dictionary_learning
from sae.model import CONFIG_FILE, SAE, WEIGHTS_FILE, SAEFormatError
from sae.overcomplete import from_overcomplete, to_overcomplete
from sae.rows import Matrix
from sae.saelens import from_saelens, to_saelens
from sae.sparsify import from_sparsify

__all__ = [
    "FORMATS", "from_dictionary_learning", "from_overcomplete", "from_saelens", "from_sparsify", "kind_of",
    "load_checkpoint", "read_checkpoint", "to_overcomplete", "to_saelens",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What a caller states for files that do not hold it."""

    architecture: str = "batchtopk"  # of a state dict of overcomplete
    k: int = 0
    threshold: float | None = None
    rows: tuple[Matrix, Matrix] | None = None


@dataclass(frozen=True, kw_only=True)
class Format:
    """The files of one library, and their reader."""

    name: str
    files: tuple[str, ...]  # a folder with all of them is of this format
    mark: str  # a folder with this file, and of no format, is read as this one, so that the reader says what is missing
    read: Callable[[Path, Missing], SAE]


FORMATS = {
    row.name: row
    for row in (
        Format(
            name="bridgescope", files=(WEIGHTS_FILE, CONFIG_FILE), mark=WEIGHTS_FILE,
            read=lambda path, _: SAE.load(path),
        ),
        Format(
            name="saelens", files=(saelens.CONFIG, saelens.WEIGHTS), mark=saelens.CONFIG,
            read=lambda path, missing: from_saelens(path, missing.k),
        ),
        Format(
            name="sparsify", files=(sparsify.CONFIG, sparsify.WEIGHTS), mark=sparsify.CONFIG,
            read=lambda path, missing: from_sparsify(path, missing.k),
        ),
        Format(
            name="dictionary_learning", files=(dictionary_learning.WEIGHTS, dictionary_learning.CONFIG),
            mark=dictionary_learning.WEIGHTS,
            read=lambda path, missing: from_dictionary_learning(path, missing.k),
        ),
        Format(
            name="overcomplete", files=(overcomplete.WEIGHTS,), mark=overcomplete.WEIGHTS,
            read=lambda path, missing: from_overcomplete(
                path, architecture=missing.architecture, k=missing.k, threshold=missing.threshold, rows=missing.rows
            ),
        ),
    )
}  # fmt: skip


def kind_of(path: str | Path) -> str:
    """The library that wrote the files at `path`, a key of FORMATS. A file .pt or .pth is of overcomplete.

    Raises SAEFormatError when it is none of them, or when a folder holds the files of several.
    """
    path = Path(path)
    if path.is_file() and path.suffix in (".pt", ".pth"):
        if path.name == dictionary_learning.WEIGHTS:
            raise SAEFormatError(
                f"{path}: {dictionary_learning.CONFIG} beside it names its class: name the folder, {path.parent}"
            )
        return "overcomplete"
    kinds = [row.name for row in FORMATS.values() if _has(path, row.files)]
    if len(kinds) > 1:
        raise SAEFormatError(f"{path}: holds the files of {' and of '.join(kinds)}: keep only the files of one of them")
    kinds = kinds or [row.name for row in FORMATS.values() if _has(path, (row.mark,))]
    if kinds:
        return kinds[0]
    raise SAEFormatError(f"{path}: {_what(path)}")


def _has(folder: Path, files: tuple[str, ...]) -> bool:
    return all((folder / name).is_file() for name in files)


def _what(path: Path) -> str:
    """Why a path is no SAE, and what is."""
    folders = sorted(path.iterdir()) if path.is_dir() else []
    inside = [each.name for each in folders if any(_has(each, row.files) for row in FORMATS.values())]
    if inside:
        return f"holds several folders of SAEs: name one of them, such as {path / inside[0]}"
    names = [f"{row.name} ({', '.join(row.files)})" for row in FORMATS.values()]
    return (
        f"{'no SAE that can be read' if path.exists() else 'no such file or folder'}; a checkpoint is a folder of "
        f"{', '.join(names[:-1])} or {names[-1]}, or an overcomplete state dict (.pt)"
    )


def read_checkpoint(
    path: str | Path,
    *,
    architecture: str = "batchtopk",
    k: int = 0,
    threshold: float | None = None,
    rows: tuple[Matrix, Matrix] | None = None,
) -> SAE:
    """Read an SAE of any library in FORMATS, of any dimension. The options state what its files do not hold.

    Raises SAEFormatError, naming the file and the key or tensor, where the SAE cannot be read.
    """
    missing = Missing(architecture=architecture, k=k, threshold=threshold, rows=rows)
    return FORMATS[kind_of(path)].read(Path(path), missing)


def load_checkpoint(
    path: str | Path,
    *,
    dim: int,
    architecture: str = "batchtopk",
    k: int = 0,
    rows: tuple[Matrix, Matrix] | None = None,
) -> SAE:
    """Read an SAE of any library in FORMATS, for embeddings of `dim` dimensions.

    `k` is used where a file of another library needs one and holds none. `architecture` and `rows` are passed to
    `from_overcomplete`. Raises SAEFormatError, naming the file and the key or tensor, where the SAE cannot be read or
    has another dimension.
    """
    loaded = read_checkpoint(path, architecture=architecture, k=k, rows=rows)
    if loaded.config.dim != dim:
        raise SAEFormatError(
            f"{path}: the SAE takes rows of {loaded.config.dim} dimensions, and the model's rows have {dim}"
        )
    return loaded
