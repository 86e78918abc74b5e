"""SAEs on the Hugging Face hub: `push_to_hub` with a model card, `from_hub`. A folder may stand for a repository."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae.model import CONFIG_FILE, SAE, WEIGHTS_FILE

CARD = "README.md"
FIGURES = {  # columns of the view `saes` -> what they are called on the card
    "r2": "R2, both modalities (credits the gap between them)", "r2_image": "R2, images", "r2_text": "R2, captions",
    "cosine": "mean cosine to the reconstruction", "l0_image": "codes an image", "l0_text": "codes a caption",
    "dead_fraction": "concepts that fire on no training row",
}  # fmt: skip


def push_to_hub(sae: SAE, target: str | os.PathLike[str], figures: Mapping[str, Any], *, private: bool = True) -> str:
    """Put an SAE with its model card where others can load it: a repository `owner/name`, or a folder.

    figures: the SAE's row of the view `saes`, and optionally `stability` with its floors; the card shows what is there.
    A target that starts with /, ., or ~, or that is a path object, is a folder. Returns where it is.
    """
    with tempfile.TemporaryDirectory() as scratch:
        staged = Path(scratch)
        sae.save(staged)
        (staged / CARD).write_text(model_card(sae, figures), encoding="utf-8")
        if (folder := _folder(target)) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for name in (WEIGHTS_FILE, CONFIG_FILE, CARD):
                shutil.copyfile(staged / name, folder / name)
            return str(folder)
        from huggingface_hub import HfApi

        api = HfApi()
        url = api.create_repo(str(target), private=private, exist_ok=True)
        api.upload_folder(repo_id=str(target), folder_path=staged, commit_message="Add the SAE and its card")
        return str(url)


def from_hub(source: str | os.PathLike[str], revision: str | None = None) -> SAE:
    """Load what `push_to_hub` put into a repository (`owner/name`, at `revision`) or a folder."""
    if (folder := _folder(source)) is not None:
        return SAE.load(folder)
    from huggingface_hub import snapshot_download

    return SAE.load(snapshot_download(str(source), revision=revision, allow_patterns=[WEIGHTS_FILE, CONFIG_FILE]))


def model_card(sae: SAE, figures: Mapping[str, Any]) -> str:
    """The card, in Markdown: what the SAE is, how it was trained, how well it does on held-out rows, how to load it."""
    config = sae.config
    trained = {
        name: value for name, value in dataclasses.asdict(config).items() if value is not None and name != "rows_seen"
    }
    measured = [
        f"| {label} | {figures[name]:.4g} |" for name, label in FIGURES.items() if _is_number(figures.get(name))
    ]
    lines = [
        "---", "library_name: bridgescope", "tags:", "- sparse-autoencoder", "- vision-language", "---",
        f"# {config.architecture} sparse autoencoder, {config.width} concepts in {config.dim} dimensions", "",
        f"Trained on joint image and text embeddings of `{figures.get('model', 'a vision-language model')}`"
        f" (setting `{figures.get('sae', '-')}`, seed {config.seed}, {config.rows_seen:,} rows seen). Rows are "
        + ("L2-normalised before they are encoded." if config.preprocessing == "l2" else "encoded as they are."), "",
        f"## Measured on the split `{figures.get('split', '-')}`", "",
        *(["| figure | value |", "|---|---|", *measured] if measured else ["Nothing was measured."]), "",
        *_stability(figures),
        "## Settings", "", "| setting | value |", "|---|---|",
        *(f"| {name} | {value} |" for name, value in trained.items()), "",
        "## Use", "", "```python", "from sae.hub import from_hub", "", 'sae = from_hub("owner/name")  # or a folder',
        "codes = sae.encode(embeddings)      # [N, concepts], sparse and not negative",
        "rebuilt = sae.decode(codes)", "```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _stability(figures: Mapping[str, Any]) -> list[str]:
    """Stability is never shown without its floors."""
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


def _folder(target: str | os.PathLike[str]) -> Path | None:
    """The folder that a target names, or None for a repository."""
    if not isinstance(target, str):
        return Path(target)
    return Path(target).expanduser() if target.startswith(("/", ".", "~")) else None
