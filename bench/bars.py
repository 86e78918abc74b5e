"""Measured results with their bars (the bounds that they must meet), which every bench prints and writes to a file."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

RESULTS = Path(__file__).parent / "results"


class Bar(TypedDict):
    """One row of a table: a result, its bar, and whether the bar is met."""

    name: str
    value: float
    unit: str
    bar: str  #: the bound as text; "" for a result that is printed without a bar
    holds: bool


def _bar(name: str, value: float, bar: float, unit: str, sign: str, compare: Callable[[float, float], bool]) -> Bar:
    return {
        "name": name,
        "value": float(value),
        "unit": unit,
        "bar": f"{sign} {bar:g}",
        "holds": bool(compare(value, bar)),
    }


def at_least(name: str, value: float, bar: float, unit: str = "") -> Bar:
    """A result that must be at least its bar; NaN fails."""
    return _bar(name, value, bar, unit, ">=", operator.ge)


def at_most(name: str, value: float, bar: float, unit: str = "") -> Bar:
    """A result that must be at most its bar; NaN fails."""
    return _bar(name, value, bar, unit, "<=", operator.le)


def shown(name: str, value: float, unit: str = "") -> Bar:
    """A result without a bar."""
    return {"name": name, "value": float(value), "unit": unit, "bar": "", "holds": True}


def line(row: Bar) -> str:
    """One row as a line of the table."""
    verdict = "" if not row["bar"] else "holds" if row["holds"] else "MISSED"
    value = f"{row['value']:.4g} {row['unit']}".strip()
    return f"{verdict:6}  {value:>14}  {row['bar']:10}  {row['name']}"


def finish(bench: str, rows: list[Bar]) -> int:
    """Print the table, write bench/results/<bench>.json, and return the exit code: 1 when a bar is not met."""
    print("\n".join(map(line, rows)))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{bench}.json").write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["holds"] for row in rows) else 1
