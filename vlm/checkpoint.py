"""Checkpoint folders: the files that change embeddings, and the hashes of these files. No weights are loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
#: The files of a checkpoint, besides weights, that change embeddings. Other files (manifests, notes) do not.
SETTING_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)


def weight_files(folder: Path) -> list[Path]:
    """The folder's files of weights, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES)


def file_hashes(folder: Path, more: Iterable[str] = ()) -> dict[str, str]:
    """Sha256, by file name, of a folder's weights, of the settings that change embeddings, and of the files `more`."""
    names = [*SETTING_FILES, *more]
    files = [*weight_files(folder), *(folder / name for name in names if (folder / name).is_file())]
    return {path.name: _sha256(path) for path in files}


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """The version of each library, or "not installed"."""
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
