"""A study that a command names: a study file, or the name of a study that has run in the store."""

from __future__ import annotations

from pathlib import Path

from flows.changes import apply
from flows.config import Study, load_study, validated
from storage.dataset import find_store
from storage.errors import BadInput
from storage.places import is_file as is_a_file
from storage.runs import last_run, numbers, studies


def is_file(text: str) -> bool:
    """Whether a text names a study file: it ends with .toml, or a file of this name is there."""
    return text.endswith(".toml") or is_a_file(Path(text))


def name_of(text: str, store: Path) -> str:
    """Return the name of a study that has run in the store. Raises BadInput, which lists these studies."""
    known = studies(store)
    if text not in known:
        raise BadInput(
            f"{text}: no such study file, and no study of this name has run in {store}. "
            f"Studies there: {', '.join(known) or 'none'}"
        )
    return text


def named_study(text: str, store: str | None, changes: list[str] | None = None) -> Study:
    """The study of a study file, or of the newest run of a study with this name, with changes of the form key=value.

    store: the option --store. A study file needs no store. Raises BadInput for a text that is neither, and for a
    configuration that is not valid.
    """
    if is_file(text):
        return load_study(text, changes)
    place = find_store(store)
    run = last_run(place, name_of(text, place))
    if run is None:
        raise BadInput(f"{text}: runs {numbers(place, text)} cannot be read: give the study file")
    config = dict(run.config)
    for change in changes or []:
        apply(config, change)
    return validated(config, f"study {text}, run {run.number}")
