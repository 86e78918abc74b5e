"""Where two JSON values differ: the lines that `status`, `diff` and the names of variants show."""

from __future__ import annotations

from typing import Any


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """List where two JSON values differ, as `key old -> new`. Items of a list are matched by name where they have one.

    For datasets and lists only the key is listed, without the values.
    """
    old, new = _by_name(old), _by_name(new)
    if isinstance(old, dict) and isinstance(new, dict) and "digest" not in old:
        lines = []
        for key in sorted(old.keys() | new.keys()):
            lines += differences(old.get(key), new.get(key), f"{place}.{key}" if place else str(key))
        return lines
    if old == new:
        return []
    if isinstance(old, (dict, list)) or isinstance(new, (dict, list)):
        return [place]
    return [f"{place} {old} -> {new}"]


def _by_name(value: Any) -> Any:
    """Turn a list of dicts that all have a 'name' into {name: dict}. Any other value is returned unchanged."""
    named = isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value)
    return {item["name"]: item for item in value} if named else value
