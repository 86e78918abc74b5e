"""Variants: the configurations that ran under one study's name. Each has a name and a newest run of its own."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.config import Study
from flows.differences import differences
from storage.errors import BadInput
from storage.runs import BASE, Entry, Key, Run, heads, read_run
from storage.sources.section import HOW, RULES

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+-]{0,79}")


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides the results: all but `runtime` and the keys on how pairs are acquired.

    Keys that the configuration lacks get their defaults. So a run keeps its identity when a newer version adds keys.
    """
    with contextlib.suppress(ValidationError):  # a configuration with keys of an old version is compared as it is
        config = Study.model_validate(config).model_dump(mode="json")
    pairs = {key: value for key, value in config.get("pairs", {}).items() if key not in HOW}
    return {**{key: value for key, value in config.items() if key != "runtime"}, "pairs": pairs}


def newest_of_each(store: Path, study: str) -> dict[str, Run]:
    """{variant: its newest run, without entries}. The variant of the newest run comes first."""
    newest: dict[str, Run] = {}
    for run in heads(store, study):
        newest.setdefault(run.variant, run)
    return newest


def variant_of(store: Path, study: Study) -> str | None:
    """The variant whose newest run has the configuration of this study. None when no variant has it."""
    own = identity(study.model_dump(mode="json"))
    for name, run in newest_of_each(store, study.name).items():
        if identity(run.config) == own:
            return name
    return None


def known_run(store: Path, study: Study, variant: str | None = None) -> Run | None:
    """What earlier runs of a study made: the newest run, with entries of older runs added for keys that it lacks.

    The runs are those of `variant` that listed the same items, else those of the newest variant that did. Older runs
    are read back to the newest complete one, so that after an interrupted run the datasets of the runs before it are
    known too. When no run listed the same items, the newest run is returned without entries: neither the shards, nor
    the models and SAEs of another source are those of this one. None if the study has not run.
    """
    runs = list(heads(store, study.name))
    items = _items(study.model_dump(mode="json"))
    same = [run for run in runs if _items(run.config) == items]
    if not same:
        return runs[0].model_copy(update={"entries": []}) if runs else None
    chosen = variant if any(run.variant == variant for run in same) else same[0].variant
    merged: dict[Key, Entry] = {}
    newest: Run | None = None
    for head in (run for run in same if run.variant == chosen):
        run = read_run(store, study.name, head.number)
        newest = newest or run
        merged = {**{entry.key: entry for entry in run.entries}, **merged}
        if run.is_complete:
            break
    assert newest is not None
    return newest.model_copy(update={"entries": list(merged.values())})


def _items(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of a configuration that decide which items its source lists, and the shard of each."""
    others = ("heldout", "licence", *RULES)
    return {key: value for key, value in identity(config)["pairs"].items() if key not in others}


def name_variant(store: Path, study: Study, given: str | None, changes: list[str]) -> str:
    """The variant under which this study runs: `given`, or a variant with this configuration, or a new variant.

    The first configuration of a study is called `base`. A later one is named after `changes` (`key=value`, from
    --set), or without changes after what differs from the base. Raises BadInput for a name with characters that are
    not allowed.
    """
    if given is not None:
        if not NAME.fullmatch(given):
            raise BadInput(f"--as {given}: letters, digits and . _ = , + - are allowed, at most 80 of them")
        return given
    known = variant_of(store, study)
    if known is not None:
        return known
    newest = newest_of_each(store, study.name)
    if not newest:
        return BASE
    origin = newest.get(BASE) or next(iter(newest.values()))
    named = changes or _changed(origin.config, study.model_dump(mode="json"))
    name = _readable(named)
    numbered = (f"{name}+{number}" for number in itertools.count(2))
    return next(other for other in itertools.chain([name], numbered) if other not in newest)


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The differences between two configurations, each as key=value, or as the key alone for a dataset or a list."""
    lines = differences(identity(old), identity(new))
    return [re.sub(r" .* -> ", "=", line) for line in lines]


def _readable(changes: list[str]) -> str:
    """A name made from changes. A path is shortened to its last part, and a long name ends with a hash."""
    parts = [change.partition("=") for change in changes]
    shown = ",".join(key + equals + value.strip("\"' ").rpartition("/")[2] for key, equals, value in parts)
    name = re.sub(r"[^A-Za-z0-9._=,+-]+", "-", shown).strip("-") or "changed"
    if len(name) <= 64:
        return name
    return f"{name[:55]}-{hashlib.sha256(','.join(changes).encode()).hexdigest()[:8]}"


def told(store: Path, study: Study, variant: str) -> str | None:
    """A sentence that warns of a changed configuration: the study has run before, but not with this one.

    None if the study has not run, or if the newest run of `variant` has this configuration.
    """
    newest = newest_of_each(store, study.name)
    if not newest or variant_of(store, study) == variant:
        return None
    origin = newest.get(variant) or newest.get(BASE) or next(iter(newest.values()))
    lines = differences(identity(origin.config), identity(study.model_dump(mode="json")))
    shown = "; ".join(lines[:4]) + (f"; and {len(lines) - 4} more" if len(lines) > 4 else "")
    return (
        f"the study {study.name!r} has run with another configuration ({origin}): {shown}. "
        f"This run is the variant {variant!r} (--as NAME gives another name)"
    )
