"""The declaration of a statistic, the ordered list of all statistics, and the function that writes their tables."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import duckdb
import polars as pl
import pyarrow.parquet as pq

import analysis
from analysis.inputs import Analysis
from analysis.tables import NULL_DRAWS, NULL_SUMMARIES, Schema, empty, write_table
from storage.statements import literal

#: Tables to which any statistic may add rows. A statistic that needs such a table runs after all that add rows to it.
SHARED: dict[str, Schema] = {"null_draws": NULL_DRAWS, "null_summaries": NULL_SUMMARIES}

#: A table that a statistic returns: a data frame, the path of a Parquet file, or a relation of the connection.
Table = pl.DataFrame | Path | duckdb.DuckDBPyRelation


class Statistic(NamedTuple):
    """One statistic. Its module assigns it to the global `STATISTIC`. Its name is that of the module."""

    name: str
    version: str  #: changed by hand when the values of a table change
    tables: Mapping[str, Schema]  #: tables that are written; each is a view of the catalog with the same name
    #: Reads the catalog's views and the tables of `needs`. Returns every table of `tables`, `inner` and `adds`.
    make: Callable[[duckdb.DuckDBPyConnection, Analysis], Mapping[str, Table]]
    needs: tuple[str, ...] = ()  #: tables of other statistics that `make` reads
    inner: Mapping[str, Schema] = {}  #: tables for other statistics; they are not written to files
    adds: tuple[str, ...] = ()  #: tables of SHARED to which this statistic adds rows

    def schemas(self) -> dict[str, Schema]:
        """Every table that `make` returns, with its columns."""
        return {**self.tables, **self.inner, **{name: SHARED[name] for name in self.adds}}


def statistics() -> list[Statistic]:
    """All statistics of this package, by name, but each after those whose tables it needs.

    Raises ValueError where a statistic does not have the name of its module, two statistics make the same table, no
    statistic makes a needed table, or statistics need each other's tables in a circle. The message names the modules.
    """
    declared: list[Statistic] = []
    for _, name, _ in pkgutil.iter_modules(analysis.__path__):
        module = importlib.import_module(f"analysis.{name}")
        if hasattr(module, "STATISTIC"):
            if module.STATISTIC.name != name:
                raise ValueError(f"analysis/{name}.py declares a statistic named {module.STATISTIC.name}")
            declared.append(module.STATISTIC)
    return in_order(declared)


def in_order(unordered: Iterable[Statistic]) -> list[Statistic]:
    """Sort statistics by name, but each after those whose tables it needs. Raises ValueError as `statistics` does."""
    waiting = sorted(unordered, key=lambda statistic: statistic.name)
    makers = _makers(waiting)
    for statistic in waiting:
        for name in statistic.needs:
            if name not in makers:
                raise ValueError(f"analysis/{statistic.name}.py needs the table {name}, which no statistic makes")
    ordered: list[Statistic] = []
    while waiting:
        unmade = {statistic.name for statistic in waiting}
        ready = (one for one in waiting if not any(unmade & makers[name] - {one.name} for name in one.needs))
        following = next(ready, None)
        if following is None:
            files = ", ".join(f"analysis/{name}.py" for name in sorted(unmade))
            raise ValueError(f"these statistics need each other's tables in a circle: {files}")
        waiting.remove(following)
        ordered.append(following)
    return ordered


def _makers(statistics: list[Statistic]) -> dict[str, set[str]]:
    """{table: names of the statistics that make it or add rows to it}."""
    makers: dict[str, set[str]] = {name: set() for name in SHARED}
    for statistic in statistics:
        for name in (*statistic.tables, *statistic.inner):
            if name in makers:
                others = ", ".join(f"analysis/{other}.py" for other in sorted(makers[name])) or "all statistics"
                raise ValueError(f"the table {name} of analysis/{statistic.name}.py is made by {others} already")
            makers[name] = {statistic.name}
        for name in statistic.adds:
            if name not in SHARED:
                raise ValueError(f"analysis/{statistic.name}.py adds to {name}, which is none of {', '.join(SHARED)}")
            makers[name].add(statistic.name)
    return makers


def compute(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> int:
    """Make the tables of all statistics and write each as a Parquet file to `analysis.out`. Returns the rows written.

    con: a catalog of the study without the tables that are made here. It uses one thread, so that equal inputs give
    equal bytes. Raises ValueError where a statistic returns other tables or columns than it declares.
    """
    shared = {name: empty(schema) for name, schema in SHARED.items()}
    for name, rows in shared.items():
        con.register(name, rows.to_arrow())
    count = 0
    for statistic in statistics():
        tables = statistic.make(con, analysis)
        schemas = statistic.schemas()
        if tables.keys() != schemas.keys():
            listed = ", ".join(tables) or "nothing"
            raise ValueError(f"analysis/{statistic.name}.py declares {', '.join(schemas)} and makes {listed}")
        for name, table in tables.items():
            _check(statistic, name, _schema_of(table))
            if name in SHARED:
                shared[name] = table = pl.concat([shared[name], _rows(table)])
            _register(con, name, table)
            if name in statistic.tables:
                count += _write(analysis.out, name, table)
    return count


def _schema_of(table: Table) -> dict[str, pl.DataType]:
    if isinstance(table, pl.DataFrame):
        return dict(table.schema)
    if isinstance(table, Path):
        return dict(pl.scan_parquet(table, glob=False).collect_schema())
    return dict(pl.DataFrame(table.limit(0).to_arrow_table()).schema)


def _check(statistic: Statistic, name: str, columns: dict[str, pl.DataType]) -> None:
    declared = statistic.schemas()[name]
    if list(columns.items()) != list(declared.items()):
        wrong = {column: kind for column, kind in columns.items() if declared.get(column) != kind}
        missing = [column for column in declared if column not in columns]
        raise ValueError(
            f"analysis/{statistic.name}.py, table {name}: its columns are not those of its schema: {wrong} are others, "
            f"{missing} are missing, or their order differs"
        )


def _register(con: duckdb.DuckDBPyConnection, name: str, table: Table) -> None:
    """Register a table under its name in the connection, unless it is a table of the connection already."""
    if isinstance(table, pl.DataFrame):
        con.register(name, table.to_arrow())
    elif isinstance(table, Path):
        con.execute(f"CREATE TEMP VIEW {name} AS FROM read_parquet({literal(table)}, hive_partitioning = false)")


def _write(out: Path, name: str, table: Table) -> int:
    """Write one table, unless it is a file already. Returns its number of rows."""
    if isinstance(table, Path):
        return int(pq.read_metadata(table).num_rows)
    rows = _rows(table)
    write_table(out, name, rows)
    return rows.height


def _rows(table: Table) -> pl.DataFrame:
    if isinstance(table, pl.DataFrame):
        return table
    return pl.read_parquet(table, glob=False) if isinstance(table, Path) else pl.DataFrame(table.to_arrow_table())


def create_inner(con: duckdb.DuckDBPyConnection) -> None:
    """Create the inner and shared tables without rows, for callers that compute only some of the statistics."""
    schemas = dict(SHARED)
    for statistic in statistics():
        schemas |= statistic.inner
    for name, schema in schemas.items():
        con.register("schema_of_inner", empty(schema).to_arrow())
        con.execute(f"CREATE TEMP TABLE {name} AS FROM schema_of_inner")
    con.unregister("schema_of_inner")
