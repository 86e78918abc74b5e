"""SAEs on the Hugging Face hub: `push_to_hub` publishes one with a model card, `from_hub` loads one.

Both also take a local folder in place of a repository.

A repository holds one SAE at its root, or several below `saes/`, each in a folder of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sae.architectures import ARCHITECTURES
from sae.model import CONFIG_FILE, SAE, WEIGHTS_FILE, Config, SAEFormatError

CARD = "README.md"
MANY = "saes"  # folder that holds the SAEs if a repository has several
HEAD = ("---", "library_name: bridgescope", "tags:", "- sparse-autoencoder", "- vision-language", "---")
FIGURES = {  # columns of the view `saes` -> their names on the card
    "r2": "R2, both modalities (counts the gap between them too)", "r2_image": "R2, images", "r2_text": "R2, captions",
    "cosine": "mean cosine with the reconstruction", "l0_image": "codes per image", "l0_text": "codes per caption",
    "dead_fraction": "concepts that fire on no training row",
}  # fmt: skip
Target = str | os.PathLike[str]


class NotOurs(ValueError):
    """The target folder holds files that this project did not publish; the folder is left unchanged."""

    exit_code = 2


def push_to_hub(sae: SAE, target: Target, figures: Mapping[str, Any], *, private: bool = True) -> str:
    """Publish an SAE with its model card in a repository `owner/name` or a folder.

    figures: the SAE's row of the view `saes`. It may also hold `stability`, with the values that random and matched
    directions reach, `floor_random` and `floor_matched`. The card shows the results that are present.
    A target is a folder if it starts with /, . or ~, or is a path object. Returns the SAE's address. Raises NotOurs as
    `release` does.
    """
    with release(target, private=private) as published:
        write_sae(sae, published.folder, figures)
    return published.where


def write_sae(sae: SAE, folder: str | os.PathLike[str], figures: Mapping[str, Any], load: str = "") -> None:
    """Write an SAE and its card into a folder. load: the SAE's name in the repository, if it holds several SAEs."""
    sae.save(Path(folder))
    (Path(folder) / CARD).write_text(model_card(sae, figures, load), encoding="utf-8")


@dataclasses.dataclass
class Release:
    """A folder that is being published."""

    folder: Path  #: folder that the caller fills
    where: str = ""  #: path or address of the published folder; set when it is published


@contextlib.contextmanager
def release(target: Target, *, private: bool = True) -> Iterator[Release]:
    """Yield a new folder to fill. When the block ends without an error, the folder replaces the target or is uploaded.

    A target folder that exists is replaced only if it is empty, or if its card states that this function published it.
    Otherwise NotOurs is raised and nothing is changed.
    """
    folder = _folder(target)
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            draft = Release(Path(scratch))
            yield draft
            draft.where = _upload(draft.folder, str(target), private)
        return
    if not _replaceable(folder):
        raise NotOurs(f"{folder} exists and was not published by bridgescope: name a new folder, or an empty one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, aside = (folder.with_name(f"{folder.name}.{end}") for end in ("partial", "old"))
    for leftover in (partial, aside):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    draft = Release(partial)
    yield draft
    if folder.exists():
        os.rename(folder, aside)
    os.rename(partial, folder)
    shutil.rmtree(aside, ignore_errors=True)
    draft.where = str(folder)


def _upload(folder: Path, repository: str, private: bool) -> str:
    from huggingface_hub import HfApi

    api = HfApi()
    url = api.create_repo(repository, private=private, exist_ok=True)
    api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add SAEs and their card")
    return str(url)


def _replaceable(folder: Path) -> bool:
    """Return whether a folder is absent, empty, or was published by this project."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    card = folder / CARD
    ours = card.is_file() and card.read_text(encoding="utf-8", errors="replace").startswith("\n".join(HEAD[:2]) + "\n")
    return ours or not any(folder.iterdir())


def from_hub(source: Target, revision: str | None = None, sae: str | None = None) -> SAE:
    """Load an SAE from a repository (`owner/name`, at `revision`) or a folder.

    sae: "model/setting/seed", needed if the repository holds several SAEs. Raises SAEFormatError, which lists the SAEs,
    if `sae` is needed and not given, or names none of them.
    """
    folder = _folder(source)
    if folder is None:
        from huggingface_hub import snapshot_download

        wanted = [f"{MANY}/{sae}"] if sae is not None else [".", f"{MANY}/*"]
        wanted = [f"{place}/{name}".removeprefix("./") for place in wanted for name in (WEIGHTS_FILE, CONFIG_FILE)]
        folder = Path(snapshot_download(str(source), revision=revision, allow_patterns=wanted))
    return SAE.load(folder / _place(folder, str(source), sae))


def _place(folder: Path, source: str, sae: str | None) -> str:
    """Path of the wanted SAE within its repository."""
    if sae is None and (folder / WEIGHTS_FILE).is_file():
        return "."
    several = folder / MANY
    names = sorted(path.parent.relative_to(several).as_posix() for path in several.rglob(WEIGHTS_FILE))
    if sae is None and len(names) == 1:
        sae = names[0]
    if sae not in names:
        problem = "it holds several SAEs: name one" if sae is None else f"no SAE named {sae!r}"
        raise SAEFormatError(f"{source}: {problem}. Available: {', '.join(names) or 'none'}.")
    return f"{MANY}/{sae}"


def model_card(sae: SAE, figures: Mapping[str, Any], load: str = "") -> str:
    """The card, in Markdown: the SAE, its training, its results on held-out rows, and how to load it."""
    config = sae.config
    trained = {name: value for name, value in config.model_dump().items() if value is not None and name != "rows_seen"}
    measured = [
        f"| {label} | {figures[name]:.4g} |" for name, label in FIGURES.items() if _is_number(figures.get(name))
    ]
    which = f', sae="{load}"' if load else ""
    lines = [
        *HEAD,
        f"# {config.architecture} sparse autoencoder, {config.width} concepts in {config.dim} dimensions", "",
        f"Trained on joint image and text embeddings of `{figures.get('model', 'a vision-language model')}`"
        f" (setting `{figures.get('sae', '-')}`, seed {config.seed}, {config.rows_seen:,} rows seen). Rows are "
        + ("L2-normalised before they are encoded." if config.preprocessing == "l2" else "encoded as they are.")
        + _rescaling(config) + _joined(config), "",
        f"## Measured on the split `{figures.get('split', '-')}`", "",
        *(["| result | value |", "|---|---|", *measured] if measured else ["Nothing was measured."]), "",
        *_stability(figures),
        "## Settings", "", "| setting | value |", "|---|---|",
        *(f"| {name} | {value} |" for name, value in trained.items()), "",
        "## Use", "", "```python", "from sae.hub import from_hub", "",
        f'sae = from_hub("owner/name"{which})  # or a folder',
        "codes = sae.encode(embeddings)      # [N, concepts], sparse and not negative",
        "rebuilt = sae.decode(codes)", "```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _rescaling(config: Config) -> str:
    """Sentences on moved biases and rescaled codes, with a space before them, for SAEs trained here that have them."""
    if config.rows_seen == 0 or "rescale" not in ARCHITECTURES[config.architecture].parameters:
        return ""
    moved = (
        " After training the biases of the encoder were raised or lowered together until held-out rows had k codes."
        if config.penalty is None
        else ""
    )
    if not config.rescale:
        return moved
    return moved + (
        " After training each concept's codes were multiplied by a factor, fitted by least squares on the rows on which"
        " it fires, that undoes the shrinkage by the L1 penalty."
    )


def _joined(config: Config) -> str:
    """A sentence on the seeds of a consensus SAE, with a space before it; empty for any other SAE."""
    if config.consensus_of is None:
        return ""
    return (
        f" The consensus of seeds {', '.join(map(str, config.consensus_of))}: its atoms are the normalised means of "
        "atoms that at least half of these seeds share; they stayed fixed while the encoder was trained, and the rows "
        "seen are those of this training. Stability between seeds is not defined for it."
    )


def _stability(figures: Mapping[str, Any]) -> list[str]:
    """The card's lines on stability and its two chance levels; none if one of the three results is missing."""
    names = ("stability", "floor_random", "floor_matched")
    if not all(_is_number(figures.get(name)) for name in names):
        return []
    mean, chance, matched = (figures[name] for name in names)
    return [
        "## Stability", "",
        f"Mean matched cosine to other seeds {mean:.3f}; of random directions {chance:.3f}, of directions with this "
        f"dictionary's own mean and covariance {matched:.3f}.", "",
    ]  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _folder(target: Target) -> Path | None:
    """The folder that a target names, or None for a repository."""
    if not isinstance(target, str):
        return Path(target)
    return Path(target).expanduser() if target.startswith(("/", ".", "~")) else None
