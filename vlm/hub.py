"""Models on the Hugging Face hub: finds the commit of a repository, and fetches its files into the local cache.

Only the files that a model needs are fetched: settings, tokenizer and safetensors. If there are no safetensors, `.bin`
weights are fetched, which are read with weights_only. Code is never fetched.
"""

from __future__ import annotations

import re
from pathlib import Path

from vlm.spec import SpecError

COMMIT = re.compile(r"[0-9a-f]{40}")
FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
OLD_WEIGHTS = ["pytorch_model*.bin", "pytorch_model*.json"]
SECONDS = 20.0  # a hub that does not answer within this time counts as out of reach


def resolve(repository: str, revision: str | None = None) -> str:
    """The current commit of a repository's revision (default: the main branch), from the hub, or else from the cache.

    Raises `SpecError` when the hub has no such repository or revision, or when the hub is out of reach and the revision
    is not cached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if revision and COMMIT.fullmatch(revision):
        return revision
    try:
        return str(HfApi().model_info(repository, revision=revision, timeout=SECONDS).sha)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SpecError(f"model hf:{repository}: the hub has no such model or revision: {reason}") from error
    except Exception as error:  # each HTTP library raises its own errors without a network; try the cache
        cached = _cached(repository, revision)
        if cached is None:
            raise out_of_reach(f"hf:{repository}", error) from error
        return cached.name


def snapshot(repository: str, commit: str) -> Path:
    """The cache folder with a commit's files. Absent files are fetched. Raises `SpecError` if fetching fails."""
    from huggingface_hub import snapshot_download

    cached = _cached(repository, commit)
    if cached is not None and _has_weights(cached):
        return cached
    try:
        folder = Path(snapshot_download(repository, revision=commit, allow_patterns=FILES))
        if not _has_weights(folder):
            snapshot_download(repository, revision=commit, allow_patterns=OLD_WEIGHTS)
    except Exception as error:  # each HTTP library raises its own errors
        raise out_of_reach(f"hf:{repository}", error) from error
    return folder


def out_of_reach(model: str, error: Exception) -> SpecError:
    """The error for a model that is neither cached nor reachable. It names the model, the cache and what to set."""
    from huggingface_hub import constants

    offline = "HF_HUB_OFFLINE is set, so the hub is not asked" if constants.HF_HUB_OFFLINE else "the hub did not answer"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return SpecError(
        f"model {model}: {offline}, and the cache {constants.HF_HUB_CACHE} does not hold it. Run once with a network, "
        f"or let HF_HOME name a folder that holds it; HF_HUB_OFFLINE=1 keeps to the cache. ({reason})"
    )


def _cached(repository: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=FILES))
    except LocalEntryNotFoundError:
        return None


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
