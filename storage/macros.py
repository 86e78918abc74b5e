"""The table macros of the catalog, from `storage/sql/macros/`. Each first checks the names that it is given."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import duckdb

from storage.statements import SQL

log = logging.getLogger("bridgescope")

#: Parameters that name what a macro is about, in the order of the arguments of `unknown_subject`: model, SAE, seed and
#: concept. A macro that has one of them refuses a value that the run does not have.
SUBJECTS = ("m", "s", "seed", "concept")
#: A filter of the caller's query is not pushed below a LIMIT. It would remove the branch that holds the check, whose
#: columns are all NULL.
NO_LIMIT = 2**63 - 1


class Macro(NamedTuple):
    """One table macro, as its SQL file states it."""

    name: str
    parameters: str  #: as written, with defaults
    body: str  #: the query

    @property
    def names(self) -> list[str]:
        """Names of the parameters."""
        return [part.split(":=")[0].strip().strip('"') for part in self.parameters.split(",") if part.strip()]

    @property
    def is_checked(self) -> bool:
        """Whether a parameter names a model, SAE, seed or concept."""
        return bool(set(SUBJECTS) & set(self.names))

    def checked(self) -> str:
        """The statement that creates the macro: its rows, after a check of the subjects that it is given.

        The check is a branch of a UNION, since a condition of the query itself is not evaluated where the query has no
        rows. It has no rows and comes first, so that a LIMIT cannot end the query before it. A macro without such
        parameters is created as written.
        """
        wanted = [f"coalesce({name}::VARCHAR, 'NULL')" if name in self.names else "NULL" for name in SUBJECTS]
        if not self.is_checked:
            return f"CREATE MACRO {self.name}({self.parameters}) AS TABLE\n{self.body}"
        return (
            f"CREATE MACRO {self.name}({self.parameters}) AS TABLE\nSELECT * EXCLUDE (is_unknown_subject) FROM (\n"
            f"SELECT true AS is_unknown_subject WHERE unknown_subject({', '.join(wanted)})\n"
            f"UNION ALL BY NAME FROM (\n{self.body}\n)\n) LIMIT {NO_LIMIT}"
        )

    def refused(self, cause: str) -> str:
        """The statement that creates the macro in a run that lacks what it reads: a query of the macro is an error.

        The cause is the name of the macro's only column too, since DuckDB lists the columns there are when a query asks
        for another column.
        """
        text = cause.replace("'", "''")
        column = cause.replace('"', "")
        return (
            f"CREATE MACRO {self.name}({self.parameters}) AS TABLE\n"
            f"SELECT NULL AS \"{column}\" WHERE error('{text}')::BOOLEAN LIMIT {NO_LIMIT}"
        )


def macro_of(path: Path) -> Macro:
    """Read a macro from its file. Raises ValueError where the file is not one CREATE MACRO ... AS TABLE."""
    pattern = r"^CREATE MACRO (\w+)\(([^)]*)\) AS TABLE\n(.*);\s*\Z"
    match = re.search(pattern, path.read_text(), re.DOTALL | re.MULTILINE)
    if match is None or match[1] != path.stem:
        raise ValueError(f"{path}: must be one statement CREATE MACRO {path.stem}(...) AS TABLE, which ends with ;")
    return Macro(*match.groups())


def all_macros() -> list[Macro]:
    """Every table macro, sorted by name."""
    return [macro_of(path) for path in sorted((SQL / "macros").glob("*.sql"))]


def create_macros(con: duckdb.DuckDBPyConnection, macros: Iterable[Macro] | None = None) -> None:
    """Create the table macros over the views of a connection, by default all of them.

    A macro that reads a table which the run lacks is created too. A query of it raises an error that names the table.
    """
    checks = _created(con, (SQL / "unknown_subject.sql").read_text())
    for macro in all_macros() if macros is None else macros:
        missing = (checks if macro.is_checked else None) or _created(con, macro.checked())
        if missing is not None:
            log.debug("the catalog has no macro %s: %s", macro.name, missing)
            con.execute(macro.refused(f"The macro {macro.name} reads the {missing}"))


def _created(con: duckdb.DuckDBPyConnection, statement: str) -> str | None:
    """Run a statement that creates a macro. Returns what the run lacks for it, as the end of a sentence, else None."""
    try:
        con.execute(statement)
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        table = re.search(r"Table with name (\w+) does not exist", str(error))
        column = re.search(r'Referenced column "(\w+)" not found|does not have a column named "(\w+)"', str(error))
        found = f"table {table[1]}" if table else f"column {column[1] or column[2]}" if column else None
        if found is None:
            raise
        return (
            f"{found}, which this run does not have: a stage of the study has not run, or an earlier version made the "
            "run. The command bridgescope run STUDY.toml makes what is missing."
        )
    return None
