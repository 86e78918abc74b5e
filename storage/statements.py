"""SQL statements, one a file in `storage/sql/`, and the literals that are put into them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

SQL = Path(__file__).parent / "sql"


def statement(name: str, **values: Any) -> str:
    """The SQL in `storage/sql/<name>.sql` with its $names replaced by literals.

    For COPY and CREATE VIEW, which take no bound parameters; the values are the store's own paths and numbers.
    """
    text = (SQL / f"{name}.sql").read_text()
    return re.sub(r"\$(\w+)", lambda match: literal(values[match[1]]), text)


def literal(value: Any) -> str:
    """A Python value as an SQL literal. Raises TypeError for what is not a number, a text or a list of these."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float, list)):
        raise TypeError(f"no SQL literal for a {type(value).__name__}")
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"[{', '.join(map(literal, value))}]" if isinstance(value, list) else repr(value)
