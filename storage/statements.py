"""SQL statements, one per file in `storage/sql/`, and the literals that replace their $names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

SQL = Path(__file__).parent / "sql"


def statement(name: str, **values: Any) -> str:
    """The SQL in `storage/sql/<name>.sql` with its $names replaced by literals.

    COPY and CREATE VIEW take no bound parameters, so literals are needed. The values are paths and numbers of the store
    and no user input.
    """
    text = (SQL / f"{name}.sql").read_text()
    return re.sub(r"\$(\w+)", lambda match: literal(values[match[1]]), text)


def literal(value: Any) -> str:
    """Return a Python value as an SQL literal. A path becomes a pattern that matches only the file of that name.

    Raises TypeError unless the value is a number (not a bool), a string, a path or a list of these.
    """
    if isinstance(value, Path):
        value = exact(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float, list)):
        raise TypeError(f"no SQL literal for a {type(value).__name__}")
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"[{', '.join(map(literal, value))}]" if isinstance(value, list) else repr(value)


def exact(path: Path) -> str:
    """Return a pattern that matches only this file. DuckDB's `read_parquet` treats every path as a pattern.

    DuckDB does not treat a path with a backslash as a pattern, so such a path is returned unchanged.
    """
    text = str(path)
    return text if "\\" in text else re.sub(r"[*?\[]", r"[\g<0>]", text)
