"""How the report writes numbers, and the parts that its sentences share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean


def number(value: float | None, digits: int = 3) -> str:
    """A number with a fixed count of digits and a typographic minus sign; a dash where it is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def percent(value: float | None) -> str:
    """A share in per cent: a whole number, or one digit after the point below ten per cent."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{number(100 * value, 1 if 0 < abs(value) < 0.1 else 0)}\u202f%"


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the known values; None where no value is known."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return fmean(known) if known else None


def verdict(flags: Sequence[bool], all_of_them: str, none_of_them: str, some: str) -> str:
    """The wording for flags that are all true, all false, or mixed."""
    return all_of_them if all(flags) else some if any(flags) else none_of_them


def each(models: Iterable[str], describe: Callable[[str], str | None]) -> list[tuple[str, str]]:
    """(model, `describe(model)`) for every model; models with an empty description or None are left out."""
    return [(model, text) for model in models if (text := describe(model))]
