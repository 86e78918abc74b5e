"""SQL statements, one per file in `storage/sql/`, and the literals that replace their $names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

SQL = Path(__file__).parent / "sql"


def statement(name: str, **values: Any) -> str:
    """The SQL in `storage/sql/<name>.sql` with its $names replaced by literals.

    COPY and CREATE VIEW take no bound parameters. The values are paths and numbers of the store, not user input.
    """
    text = (SQL / f"{name}.sql").read_text()
    return re.sub(r"\$(\w+)", lambda match: literal(values[match[1]]), text)


def literal(value: Any) -> str:
    """Return a Python value as an SQL literal. Raises TypeError unless it is a number, a string or a list of these."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float, list)):
        raise TypeError(f"no SQL literal for a {type(value).__name__}")
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"[{', '.join(map(literal, value))}]" if isinstance(value, list) else repr(value)
