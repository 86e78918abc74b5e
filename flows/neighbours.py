"""Neighbours of an SAE setting: the settings that differ from it in one key, which the key `sensitivity` adds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, Self, TypeVar, get_args

from tasks.settings import Settings

#: Keys that `sensitivity` can vary, and the factors of their values. `init` is varied over all its values.
FACTORS = {"init": (), "learning_rate": (1 / 3, 3), "k": (1 / 2, 2), "width": (1 / 2, 2)}
INITS = get_args(Settings.model_fields["init"].annotation)
V = TypeVar("V", bound="Varied")


class Varied(Protocol):
    """What is needed of a setting: the keys that are varied, and `neighbour`, which returns it with changed keys."""

    @property
    def name(self) -> str: ...
    @property
    def k(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def prefixes(self) -> tuple[int, ...] | None: ...
    @property
    def learning_rate(self) -> Any: ...

    def neighbour(self, times: float = 1.0, **changed: Any) -> Self:
        """This setting with changed keys. A learning rate that is "auto" is multiplied by `times`."""


def neighbours(setting: V, keys: list[str]) -> list[V]:
    """The settings NAME-KEY-VALUE that differ from `setting` in one of these keys. Values out of limits are left out.

    A setting with `prefixes` gets them scaled with its width.
    """
    found = []
    for key in keys:
        if key == "learning_rate" and setting.learning_rate == "auto":
            found += [setting.neighbour(factor, name=f"{setting.name}-{key}-x{factor:.3g}") for factor in FACTORS[key]]
            continue
        for value in _values(setting, key):
            update = {"name": f"{setting.name}-{key}-{_told(value)}", key: value}
            if key == "width" and setting.prefixes is not None:
                scaled = {max(1, prefix * value // setting.width) for prefix in setting.prefixes}
                update["prefixes"] = tuple(sorted(scaled))
            found.append(setting.neighbour(**update))
    return found


def _values(setting: Varied, key: str) -> Iterator[Any]:
    own = getattr(setting, key)
    if key == "init":
        yield from (init for init in INITS if init != own)
        return
    for factor in FACTORS[key]:
        value = float(f"{own * factor:.3g}") if key == "learning_rate" else int(own * factor)
        fits = {"learning_rate": value <= 1, "k": 1 <= value <= setting.width, "width": value >= max(2, setting.k)}
        if fits[key] and value != own:
            yield value


def _told(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
