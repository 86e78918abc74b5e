"""Changes of a study file on the command line: `--set key=value`, applied to the file's data before validation."""

from __future__ import annotations

import datetime
import tomllib
from typing import Any

from storage.errors import BadInput

Place = dict[str, Any] | list[Any]


def apply(data: dict[str, Any], change: str) -> None:
    """Apply one change of the form `key=value`, as in saes.main.k=16.

    Keys are written as in TOML: a part with unusual characters is quoted. An entry of a list is chosen by its name,
    which may contain dots, or by its number. A value that is not TOML is taken as a string, and so is a date.

    Raises BadInput for a change of another form, and for a key that has no place in the study file.
    """
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise BadInput(f"--set {change}: must be key=value, as in --set saes.main.k=16")
    *parts, last = _parts(key, change)
    place: Place = data
    while parts:
        place, parts = _step(place, parts, last, change)
    _put(place, last, _value(text), change)


def _parts(key: str, change: str) -> list[str]:
    """The parts of a dotted key."""
    try:
        inner: Any = tomllib.loads(f"{key} = 0")
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"--set {change}: {key!r} is not a key: parts are joined by dots, and one with other characters than "
            'letters, digits, "_" and "-" is quoted'
        ) from error
    parts = []
    while isinstance(inner, dict):
        ((part, inner),) = inner.items()
        parts.append(part)
    return parts


def _value(text: str) -> Any:
    """The value of a change: `text` parsed as TOML, or `text` itself where it is not TOML, such as a bare word."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    if set(parsed) != {"value"} or isinstance(parsed["value"], (datetime.date, datetime.time)):
        return text
    return parsed["value"]


def _step(place: Place, parts: list[str], last: str, change: str) -> tuple[Place, list[str]]:
    """Follow the first part or parts of a key. Returns (the section, list or entry found there, the remaining parts).

    A missing section is added.
    """
    part, rest = parts[0], parts[1:]
    if isinstance(place, list):
        entry, used = _entry(place, parts, change)
        step, rest = place[entry], parts[used:]
    else:
        following = rest[0] if rest else last
        if part not in place and following.isdecimal():
            raise BadInput(f"--set {change}: the study file has no {part}: set the whole value, as in {part}=[...]")
        step = place.setdefault(part, {})
    if not isinstance(step, (dict, list)):
        raise BadInput(f"--set {change}: {part!r} is a value and has no keys of its own")
    return step, rest


def _entry(items: list[Any], parts: list[str], change: str) -> tuple[int, int]:
    """Find the list entry that the first parts of a key name. Returns (its number, how many parts its name takes).

    Where several names fit, the longest is chosen.
    """
    names = {
        item["name"]: i for i, item in enumerate(items) if isinstance(item, dict) and isinstance(item.get("name"), str)
    }
    for count in range(len(parts), 0, -1):
        if (name := ".".join(parts[:count])) in names:
            return names[name], count
    if parts[0].isdecimal() and int(parts[0]) < len(items):
        return int(parts[0]), 1
    raise BadInput(f"--set {change}: no entry named {parts[0]!r}. Available: {_told(items)}.")


def _put(place: Place, last: str, value: Any, change: str) -> None:
    """Set `value` in `place`, under `last`, the last part of the key of a change."""
    if isinstance(place, dict):
        place[last] = value
    elif any(isinstance(item, dict) for item in place):
        raise BadInput(
            f"--set {change}: names a whole entry of a list: set one of its keys, as in saes.main.k=16; entries: "
            f"{_told(place)}"
        )
    elif last.isdecimal() and int(last) < len(place):
        place[int(last)] = value
    else:
        raise BadInput(f"--set {change}: no entry {last!r}. Available: {_told(place)}.")


def _told(items: list[Any]) -> str:
    """The names of a list's entries as text; the range of their numbers where they have no names."""
    named = [str(item["name"]) for item in items if isinstance(item, dict) and "name" in item]
    if named:
        return ", ".join(named)
    return f"0 to {len(items) - 1}" if items else "none"
