"""Models on the Hugging Face hub: finds the commit of a repository, and fetches its files into the local cache.

Only the files that a library reads are fetched (`vlm.checkpoint.files_of`). The hub is asked for the list of files
before each loading, so that a cache that another program filled in part is completed. Where the hub cannot be asked,
the cache is used if it holds the model whole. Code is never fetched.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlm.checkpoint import LAYOUTS, SETTING_FILES, CheckpointError, Layout, files_of, weight_files
from vlm.spec import Spec, SpecError

COMMIT = re.compile(r"[0-9a-f]{40}")
SECONDS = 20.0  # a hub that does not answer within this time counts as out of reach
log = logging.getLogger("bridgescope")


def resolve(spec: Spec) -> str:
    """The commit of a repository's revision (default: the main branch), from the hub, or else from the cache.

    The hub's answer is noted in the cache (`refs/`), as other programs do too, so that it is found again without a
    network. Raises `SpecError` when the hub has no such repository or revision or gives no access to it, and when the
    hub is out of reach and the revision is not cached.
    """
    from huggingface_hub.errors import RevisionNotFoundError

    repository, revision = spec.repository()
    if revision and COMMIT.fullmatch(revision):
        return revision
    try:
        found = _information(repository, revision)
    except RevisionNotFoundError as error:
        raise refused(str(spec), error, repository) from error
    except Exception as error:  # each HTTP library raises its own errors without a network; try the cache
        cached = _noted(repository, revision or "main")
        if cached is None:
            raise refused(str(spec), error, repository) from error
        return cached
    _check_layout(spec, _names(found))
    _note(repository, revision or "main", str(found.sha))
    return str(found.sha)


def snapshot(spec: Spec, commit: str) -> Path:
    """The cache folder with a commit's files that the library of the spec reads. Absent files are fetched.

    Raises `SpecError` if the repository is not of this library, and if a file is neither cached nor can be fetched.
    """
    repository, _ = spec.repository()
    folder, layout = _folder(repository) / "snapshots" / commit, LAYOUTS[spec.kind]
    try:
        names = _names(_information(repository, commit))
    except Exception as error:  # each HTTP library raises its own errors
        missing = _missing(folder, layout)
        if missing:
            raise refused(str(spec), error, repository, missing if folder.is_dir() else None) from error
        if _answer(error, repository):
            log.warning("model %s: %s. The cache holds the whole model and is used", spec, _answer(error, repository))
        return folder
    _check_layout(spec, names)
    return _fetched(str(spec), repository, commit, files_of(names, layout))


def settings(repository: str) -> tuple[Path, str]:
    """(cache folder, commit) of a repository of which only the settings are needed, such as those of a tokenizer."""
    spec = f"hub:{repository}"
    try:
        found = _information(repository, None)
    except Exception as error:  # each HTTP library raises its own errors
        cached = _noted(repository, "main")
        if cached is None:
            raise refused(str(spec), error, repository) from error
        return _folder(repository) / "snapshots" / cached, cached
    _note(repository, "main", str(found.sha))
    names = sorted({*SETTING_FILES} & {*_names(found)})
    return _fetched(spec, repository, str(found.sha), names), str(found.sha)


def refused(model: str, error: BaseException, repository: str = "", missing: str | None = None) -> SpecError:
    """The error for a model that cannot be fetched: what the hub said, and what to do.

    missing: what the cache lacks of the model, if it holds a part of it.
    """
    from huggingface_hub import constants

    answer = _answer(error, repository)
    offline = "HF_HUB_OFFLINE is set, so the hub is not asked" if constants.HF_HUB_OFFLINE else "the hub did not answer"
    held = "does not hold it" if missing is None else f"holds it in part ({missing})"
    place = f"the cache {constants.HF_HUB_CACHE} {held}"
    if answer is not None:
        return SpecError(f"model {model}: {answer}. ({place})")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return SpecError(
        f"model {model}: {offline}, and {place}. Run once with a network, or let HF_HOME name a folder that holds it; "
        f"with HF_HUB_OFFLINE=1 only the cache is used. ({reason})"
    )


def _answer(error: BaseException, repository: str) -> str | None:
    """The hub's refusal in words, with what to do. None if the hub did not answer."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    for link in _chain(error):
        if not isinstance(link, HfHubHTTPError):
            continue
        status = getattr(link.response, "status_code", 0)
        who = "the account of the token has no access to it" if get_token() else "no token is set (HF_TOKEN)"
        if isinstance(link, GatedRepoError):
            page = f"{constants.ENDPOINT}/{repository}".rstrip("/")
            accept = f"accept its conditions at {page}, then set HF_TOKEN to that account's token"
            return f"the model is gated, and {who}: {accept}"
        if isinstance(link, RevisionNotFoundError):
            return "the hub has no such revision of the model"
        if isinstance(link, RepositoryNotFoundError):
            return f"the hub has no such model, or it is private and {who}"
        if status == 401:
            return "the hub does not know the token: set HF_TOKEN to a valid one, or unset it"
        if status == 429:
            return "the hub limits the number of requests (429): wait some minutes, or set HF_TOKEN"
        if status:
            return f"the hub failed ({status}): try again later"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _information(repository: str, revision: str | None) -> Any:
    """What the hub says of a revision: its commit and its files. Raises GatedRepoError without access to the files."""
    from huggingface_hub import HfApi

    api = HfApi()
    found = api.model_info(repository, revision=revision, timeout=SECONDS)
    if getattr(found, "gated", False):
        api.auth_check(repository)
    return found


def _names(found: Any) -> list[str]:
    return [file.rfilename for file in found.siblings or []]


def _fetched(model: str, repository: str, commit: str, names: list[str]) -> Path:
    """The cache folder of a commit after the files that it lacks were fetched."""
    from huggingface_hub import snapshot_download

    folder = _folder(repository) / "snapshots" / commit
    if all((folder / name).is_file() for name in names):
        return folder
    try:
        return Path(snapshot_download(repository, revision=commit, allow_patterns=names))
    except Exception as error:  # each HTTP library raises its own errors
        raise refused(model, error, repository) from error


def _folder(repository: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")


def _note(repository: str, revision: str, commit: str) -> None:
    """Write `refs/REVISION` of the cache. A cache that cannot be written is left as it is."""
    path = _folder(repository) / "refs" / revision
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(commit)
        os.replace(aside, path)
    except OSError as error:
        log.warning("%s cannot be written, so that a run without a network may not find the model: %s", path, error)


def _noted(repository: str, revision: str) -> str | None:
    """The commit of a revision according to the cache, if the cache has files of it."""
    folder = _folder(repository)
    try:
        commit = (folder / "refs" / revision).read_text().strip()
    except OSError:
        return None
    return commit if commit and (folder / "snapshots" / commit).is_dir() else None


def _missing(folder: Path, layout: Layout) -> str | None:
    """What a cache folder lacks of a model, in words. None if it holds all that a model must have."""
    for group in ((layout.config,), *layout.parts):
        if not any((folder / name).is_file() for name in group):
            return f"no {' or '.join(group)}"
    try:
        weight_files(folder, layout)
    except CheckpointError as error:
        return str(error)
    return None


def _check_layout(spec: Spec, names: Sequence[str]) -> None:
    """Raise `SpecError` if a repository lacks what its library reads. The error names the spec to write, if any."""
    layout = LAYOUTS[spec.kind]
    if layout.config in names and any(name in names for name in layout.weights):
        return
    for kind, other in LAYOUTS.items():
        if kind != spec.kind and other.config in names and any(name in names for name in other.weights):
            raise SpecError(f"model {spec}: its files are in the format of {kind}: write {spec.as_kind(kind)}")
    lacks = layout.config if layout.config not in names else f"weights ({', '.join(layout.weights)})"
    raise SpecError(f"model {spec}: the repository holds no {lacks}")
