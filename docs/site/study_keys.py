"""The page of every key of a study file, made from the pydantic models: type, default, allowed values, description."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from flows.config import Study
from flows.sections import Analyze, Diets, Frontier, ImportedSAE, Model, RuntimeSection, SAESetting
from storage.sources.registry import SECTIONS
from storage.sources.section import PairsSection

NAME = r"^[a-z0-9][a-z0-9._-]*$"  # the pattern of names, which has words of its own
INTRODUCTION = """# Keys of the study file

A study file is TOML. This page lists every key that `bridgescope run` accepts, with its type, its default and the
values that are allowed. It is generated from the models that validate the file, so it is complete. An unknown key, or a
value of another type, ends the command with exit code 2 and a message that names the file, the key and what is allowed.
[The study file](study-file.md) explains the keys that need more than a line. A path is relative to the folder of the
study file.
"""
#: The sections of a study file: how each is written, and the model that validates it.
PARTS: dict[str, type[BaseModel]] = {
    "[[models]]": Model,
    "[[saes]]": SAESetting,
    "[[saes]] with a checkpoint": ImportedSAE,
    "[diets]": Diets,
    "[frontier]": Frontier,
    "[analyze]": Analyze,
    "[runtime]": RuntimeSection,
}


def page() -> str:
    """The page in Markdown."""
    parts = [INTRODUCTION, _section("Top level", "", Study, Study.model_fields)]
    parts.append(_section("[pairs], for every source", "pairs.", PairsSection, PairsSection.model_fields))
    for source, model in SECTIONS.items():
        own = [name for name in model.model_fields if name not in PairsSection.model_fields]
        parts.append(_section(f'[pairs] with source = "{source}"', "pairs.", model, own))
    for title, model in PARTS.items():
        parts.append(_section(title, title.strip("[]").partition("]")[0] + ".", model, model.model_fields))
    return "\n".join(parts)


def keys() -> set[str]:
    """Every key by its place in the file, such as `saes.width`."""
    pairs = {f"pairs.{name}" for model in SECTIONS.values() for name in model.model_fields}
    own = {
        f"{title.strip('[]').partition(']')[0]}.{name}" for title, model in PARTS.items() for name in model.model_fields
    }
    return set(Study.model_fields) | pairs | own


def undescribed() -> list[str]:
    """Keys without a description, as `section.key`. `source` needs none: it selects the section."""
    models = {"": Study} | PARTS | SECTIONS
    return [
        f"{title}.{name}"
        for title, model in models.items()
        for name, field in model.model_fields.items()
        if not field.description and name != "source"
    ]


def _section(title: str, prefix: str, model: type[BaseModel], names: Any) -> str:
    """The heading of a section, what it is for, and the table of its keys."""
    schema = model.model_json_schema()
    lines = [f"## {title}", "", _sentence(model.__doc__ or ""), ""]
    lines += ["| key | type and allowed values | default | description |", "|---|---|---|---|"]
    for name in names:
        field, place = model.model_fields[name], schema["properties"][name]
        required = field.default is PydanticUndefined and field.default_factory is None
        default = "required" if required else _default(field.get_default(call_default_factory=True))
        says = field.description or "selects this section"
        lines.append(f"| `{prefix}{name}` | {_allowed(place, schema)} | {default} | {_cell(says)} |")
    return "\n".join([*lines, ""])


def _sentence(docstring: str) -> str:
    return " ".join(docstring.split("\n\n")[0].split())


def _cell(text: str) -> str:
    """A text for a cell of a table, where | would end it and < would begin a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _default(value: Any) -> str:
    """A default as it is written in TOML."""
    if value is None or value == "":
        return "none"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{json.dumps(value)}`"


def _allowed(place: dict[str, Any], schema: dict[str, Any]) -> str:
    """The type and the limits of a key, in words, from its JSON schema."""
    if "$ref" in place or "discriminator" in place:
        return "section"
    for union in ("anyOf", "oneOf"):
        if union in place:
            parts = [_allowed(one, schema) for one in place[union] if one.get("type") != "null"]
            return ", or ".join(dict.fromkeys(parts))
    if "const" in place:
        return _value(place["const"])
    if "enum" in place:
        return ", ".join(_value(value) for value in place["enum"])
    if place.get("type") == "array":
        inside = _allowed(place["items"], schema) if "items" in place else "anything"
        many = "one or more" if place.get("minItems") else "any number"
        return "sections" if inside == "section" else f"list of {inside} ({many})"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
    return words.get(place.get("type", ""), place.get("type", "value")) + _limits(place)


def _value(value: Any) -> str:
    return f"`{json.dumps(value)}`"


def _limits(place: dict[str, Any]) -> str:
    """The limits of a number or a text, as `, at least 1, at most 9`."""
    names = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
        "minLength": "at least",
        "maxLength": "at most",
    }
    unit = {"minLength": " characters", "maxLength": " characters"}
    parts = [f"{words} {place[key]:,}{unit.get(key, '')}" for key, words in names.items() if key in place]
    if "pattern" in place:
        known = {NAME: "lower-case letters, digits, `.`, `_` and `-`"}
        parts.append(known.get(place["pattern"], f"that matches `{place['pattern']}`"))
    return f", {', '.join(parts)}" if parts else ""
