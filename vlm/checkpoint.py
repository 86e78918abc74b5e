"""Checkpoint folders: which of their files a library reads, and the hashes of these files. No weights are loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

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
INDEX = ".index.json"  # end of the name of a file that lists shards of weights
_SHARD = re.compile(r"(.+)-\d+-of-\d+(\.[a-z]+)")


class CheckpointError(ValueError):
    """A folder without the weights that a library reads, or with several from which it would have to choose."""


class Layout(NamedTuple):
    """The files of a checkpoint that a library reads."""

    config: str  #: the file that every checkpoint of the library has
    weights: tuple[str, ...]  #: names of the weights, or of the list of their shards; the first that is there is read
    #: Groups of names; a checkpoint has a file of each group. They tell whether a hub's cache was filled whole.
    parts: tuple[tuple[str, ...], ...] = ()


TRANSFORMERS = Layout(
    "config.json",
    (
        "model.safetensors",
        f"model.safetensors{INDEX}",
        "pytorch_model.bin",
        f"pytorch_model.bin{INDEX}",
    ),
    (
        ("preprocessor_config.json", "processor_config.json"),
        ("tokenizer.json", "spiece.model", "tokenizer.model", "vocab.json", "vocab.txt"),
        ("tokenizer_config.json",),
    ),
)
OPEN_CLIP = Layout(
    "open_clip_config.json",
    (  # in the order of open_clip's own preference
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.safetensors",
        "open_clip_pytorch_model.bin",
        "open_clip_pytorch_model.pth",
        "model.safetensors",
        "pytorch_model.bin",
        "pytorch_model.pth",
        "model.pth",
    ),
)
LAYOUTS = {"hf": TRANSFORMERS, "open_clip": OPEN_CLIP}  #: by the kind of a spec


def files_of(names: Collection[str], layout: Layout) -> list[str]:
    """Those of a repository's files that the library of a layout reads: settings, and one copy of the weights.

    Other copies of the weights (other precisions, other libraries, subfolders) are left out. If there are no
    safetensors, older weights are taken, which are read with weights_only. Code is never taken.
    """
    kept = {layout.config, *SETTING_FILES} & {*names}
    first = next((name for name in layout.weights if name in names), None)
    if first is not None:
        kept.add(first)
        if first.endswith(INDEX):
            stem, suffix = first.removesuffix(INDEX).rsplit(".", 1)
            shards = ((name, _SHARD.fullmatch(name)) for name in names)
            kept |= {name for name, parts in shards if parts and parts.groups() == (stem, f".{suffix}")}
    return sorted(kept)


def weight_files(folder: Path, layout: Layout) -> list[Path]:
    """The folder's files of weights that the library of a layout reads: one file, or the shards of one list.

    In a folder of open_clip, a single file of weights may have any name, such as the epoch_32.pt of its training.
    Raises `CheckpointError` if there are no weights, if shards are missing, and if the choice would be a guess.
    """
    first = next((folder / name for name in layout.weights if (folder / name).is_file()), None)
    if first is not None:
        return _shards(first) if first.name.endswith(INDEX) else [first]
    others = sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES)
    if layout is OPEN_CLIP and len(others) == 1:
        return others
    if not others:
        raise CheckpointError(f"the folder holds no weights ({', '.join(WEIGHT_SUFFIXES)})")
    raise CheckpointError(
        f"it is unclear which weights are meant: the folder holds {', '.join(path.name for path in others)}: "
        f"rename the wanted file to {layout.weights[0]}"
    )


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted({str(name) for name in json.loads(index.read_text())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index.name} is not JSON with a weight_map") from None
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(f"the folder lacks {len(missing)} of {len(names)} shards of weights: {missing[0]}")
    return [index, *(index.parent / name for name in names)]


def file_hashes(folder: Path, layout: Layout) -> dict[str, str]:
    """Sha256, by file name, of a folder's weights and of the settings that change embeddings."""
    names = dict.fromkeys([*SETTING_FILES, layout.config])
    files = [*weight_files(folder, layout), *(folder / name for name in names if (folder / name).is_file())]
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
