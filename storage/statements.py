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
    """Return a Python value as an SQL literal. A path stands for the file of that name, and for no other.

    Raises TypeError unless it is a number, a string, a path or a list of these.
    """
    if isinstance(value, Path):
        value = exact(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float, list)):
        raise TypeError(f"no SQL literal for a {type(value).__name__}")
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"[{', '.join(map(literal, value))}]" if isinstance(value, list) else repr(value)


def exact(path: Path) -> str:
    """The pattern that matches one file alone. `read_parquet` of DuckDB takes every path for a pattern.

    In a path with a backslash DuckDB finds no pattern, so such a path stays as it is.
    """
    text = str(path)
    return text if "\\" in text else re.sub(r"[*?\[]", r"[\g<0>]", text)
