"""What is wrong in a study file, in sentences that name the key, the problem, and what is allowed there."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from flows.sections import Analyze, Diets, Frontier, ImportedSAE, Model, RuntimeSection, SAESetting
from storage.sources.registry import SECTIONS


def unusable(value: Any, place: str = "") -> Iterator[str]:
    """A sentence for each value that TOML allows but no key does: infinity, NaN, a date, or an integer too large."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from unusable(item, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from unusable(item, f"{place}.{number}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{place}: {value} is not allowed: a finite number is needed"
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield f"{place}: the number is too large: a whole number has at most 63 bits"
    elif isinstance(value, (datetime.date, datetime.time)):
        yield f"{place}: is a date or a time, which no key takes: write a string in quotes"
    elif isinstance(value, str) and ("\0" in value or (not value.isascii() and _has_surrogates(value))):
        yield f"{place}: holds a character that no name, path or URL can hold: {value!r}"


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def explained(file: str | Path, data: dict[str, Any], error: ValidationError, study: type[BaseModel]) -> list[str]:
    """A sentence for each key with an error: file, key, problem, values allowed.

    study: the model of the whole study file, which was validated.
    """
    problems: dict[str, list[str]] = {}
    for problem in error.errors():
        where = _place(data, problem) or "the study"
        if problem["type"] == "extra_forbidden":
            message = f"unknown key; allowed here: {', '.join(_keys_at(problem['loc'][:-1], study))}"
        elif problem["type"] == "string_pattern_mismatch" and problem["loc"][-1] == "name":
            message = f"bad name {problem['input']!r}: lower-case letters, digits, '.', '_', '-', at most 64"
        elif problem["type"] == "union_tag_not_found":
            message = f"Field required: source = one of {', '.join(SECTIONS)}"
        elif problem["type"] == "list_type" and isinstance(problem["input"], dict) and where in ("models", "saes"):
            message = f"must be a list of sections: write [[{where}]]"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            if not isinstance(problem["input"], (dict, list, BaseModel)):
                message += f" (got {problem['input']!r})"
        if message not in problems.setdefault(where, []):
            problems[where].append(message)
    return [f"{file}: {where}: {', or: '.join(messages)}" for where, messages in problems.items()]


def _place(data: Any, problem: Any) -> str:
    """The key of an error. Pydantic's location also names members of unions, which are no keys; they are left out."""
    parts = []
    for part in problem["loc"]:
        if (isinstance(data, list) and isinstance(part, int) and part < len(data)) or (
            isinstance(data, dict) and part in data
        ):
            parts.append(str(part))
            data = data[part]
    if problem["type"] == "missing":
        parts.append(str(problem["loc"][-1]))
    return ".".join(parts)


def _keys_at(place: tuple[int | str, ...], study: type[BaseModel]) -> list[str]:
    """Keys allowed in the section at a place of the study file."""
    sections: dict[str, type[BaseModel]] = {
        "": study, "models": Model, "saes": SAESetting, "diets": Diets, "frontier": Frontier, "analyze": Analyze,
        "runtime": RuntimeSection,
    }  # fmt: skip
    named = [str(part) for part in place if isinstance(part, str)]
    if named[:1] == ["pairs"]:
        return sorted(SECTIONS[named[1]].model_fields)
    if "imported" in named:
        return sorted(ImportedSAE.model_fields)
    return sorted(sections[named[0] if named else ""].model_fields)
