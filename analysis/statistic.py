"""The class that declares a statistic, the ordered list of all statistics, and the function that computes a part."""

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
from analysis.parts import PARTS, declared
from analysis.tables import NULL_DRAWS, NULL_SUMMARIES, Schema, empty, write_table
from storage.statements import literal

#: Tables of an SAE to which any statistic of the SAE may add rows. A statistic that needs such a table runs after all
#: statistics that add rows to the table.
SHARED: dict[str, Schema] = {"null_draws": NULL_DRAWS, "null_summaries": NULL_SUMMARIES}

#: A table that a statistic returns: a data frame, the path of a Parquet file, or a relation of the connection.
Table = pl.DataFrame | Path | duckdb.DuckDBPyRelation


class Statistic(NamedTuple):
    """One statistic. It has the name of its module, which assigns it to the global `STATISTIC`."""

    name: str
    version: str  #: changed by hand when values of a table change; a new version makes the statistic's parts stale
    tables: Mapping[str, Schema]  #: tables that are written; each is a view of the catalog with the same name
    #: Reads the catalog's views and the tables of `needs`. Returns every table of `tables`, `inner` and `adds`.
    make: Callable[[duckdb.DuckDBPyConnection, Analysis], Mapping[str, Table]]
    #: Tables of other statistics that `make` reads: statistics of the same part, or of a part that this part reads.
    needs: tuple[str, ...] = ()
    inner: Mapping[str, Schema] = {}  #: tables that only other statistics read; they are not views of the catalog
    adds: tuple[str, ...] = ()  #: tables of SHARED to which this statistic adds rows
    per: str = "sae"  #: key of PARTS: the sort of part that computes it; `make` is called once per part of this sort
    pieces: tuple[str, ...] = ()  #: tables that `make` returns as files, since one SAE may have millions of rows

    def schemas(self) -> dict[str, Schema]:
        """Every table that `make` returns, with its columns."""
        return {**self.tables, **self.inner, **{name: SHARED[name] for name in self.adds}}


def statistics() -> list[Statistic]:
    """All statistics of this package, sorted by name, except that a statistic follows those whose tables it needs.

    Raises ValueError in these cases: a statistic does not have the name of its module; `declared` cannot
    read its version and part; two statistics of one part make the same table; a needed table is made by no
    statistic or cannot be read; statistics need each other's tables in a circle. The message names the modules.
    """
    found: list[Statistic] = []
    for _, name, _ in pkgutil.iter_modules(analysis.__path__):
        module = importlib.import_module(f"analysis.{name}")
        if hasattr(module, "STATISTIC"):
            if module.STATISTIC.name != name:
                raise ValueError(f"analysis/{name}.py declares a statistic named {module.STATISTIC.name}")
            found.append(module.STATISTIC)
    as_read = {one.name: (one.version, one.per) for one in declared()}
    for one in found:
        if as_read.get(one.name) != (one.version, one.per):
            raise ValueError(
                f"analysis/{one.name}.py: version and per must be literals of a statement that begins with "
                f"STATISTIC = Statistic(, so that lists of jobs can read them without importing the file"
            )
    return in_order(found)


def in_order(unordered: Iterable[Statistic]) -> list[Statistic]:
    """Sort statistics by name, except that a statistic follows those whose tables it needs.

    Raises ValueError as `statistics` does.
    """
    waiting = sorted(unordered, key=lambda statistic: statistic.name)
    makers = _makers(waiting)
    for statistic in waiting:
        _check_needs(statistic, makers)
    ordered: list[Statistic] = []
    while waiting:
        unmade = {statistic.name for statistic in waiting}
        ready = (one for one in waiting if not any(unmade & makers[name].keys() - {one.name} for name in one.needs))
        following = next(ready, None)
        if following is None:
            files = ", ".join(f"analysis/{name}.py" for name in sorted(unmade))
            raise ValueError(f"these statistics need each other's tables in a circle: {files}")
        waiting.remove(following)
        ordered.append(following)
    return ordered


def _check_needs(statistic: Statistic, makers: dict[str, dict[str, str]]) -> None:
    """Raise ValueError where no statistic makes a needed table, or a part that this part cannot read makes it."""
    readable = (statistic.per, *PARTS[statistic.per].reads)
    for name in statistic.needs:
        if name not in makers:
            raise ValueError(f"analysis/{statistic.name}.py needs the table {name}, which no statistic makes")
        if not all(per in readable for per in makers[name].values()):
            others = " and ".join(f"analysis/{other}.py makes per {per}" for other, per in makers[name].items())
            raise ValueError(f"analysis/{statistic.name}.py is per {statistic.per} and needs {name}, which {others}")


def _makers(statistics: list[Statistic]) -> dict[str, dict[str, str]]:
    """{table: {name of a statistic that makes the table or adds rows to it: `per` of that statistic}}."""
    makers: dict[str, dict[str, str]] = {name: {} for name in SHARED}
    for statistic in statistics:
        for name in (*statistic.tables, *statistic.inner):
            of_this_part = [other for other, per in makers.get(name, {}).items() if per == statistic.per]
            if name in SHARED or of_this_part:
                others = ", ".join(f"analysis/{other}.py" for other in sorted(of_this_part)) or "all statistics"
                raise ValueError(f"the table {name} of analysis/{statistic.name}.py is made by {others} already")
            makers.setdefault(name, {})[statistic.name] = statistic.per
        for name in statistic.adds:
            if name not in SHARED:
                raise ValueError(f"analysis/{statistic.name}.py adds to {name}, which is none of {', '.join(SHARED)}")
            if statistic.per != "sae":
                raise ValueError(f"analysis/{statistic.name}.py adds to {name}, which only a statistic per sae may do")
            makers[name][statistic.name] = statistic.per
    return makers


def compute(con: duckdb.DuckDBPyConnection, analysis: Analysis, per: str) -> int:
    """Make the tables of the statistics of one part and write them to `analysis.out`. Returns the number of rows.

    con: a connection with the views of the part's data and the tables of the parts that this part reads. The connection
    uses one thread, so that equal inputs give equal bytes. An inner table is written only if a statistic of another
    part needs it. Raises ValueError where a statistic returns other tables or columns than it declares.
    """
    ordered = statistics()
    needed_later = {name for one in ordered if one.per != per for name in one.needs}
    shared = {name: empty(schema) for name, schema in SHARED.items()}
    for name, rows in shared.items():
        con.register(name, rows.to_arrow())
    count = 0
    for statistic in (one for one in ordered if one.per == per):
        tables = statistic.make(con, analysis)
        schemas = statistic.schemas()
        if tables.keys() != schemas.keys():
            listed = ", ".join(tables) or "nothing"
            raise ValueError(f"analysis/{statistic.name}.py declares {', '.join(schemas)} and makes {listed}")
        for name, table in tables.items():
            _check(statistic, name, table)
            if name in SHARED:
                shared[name] = table = pl.concat([shared[name], _rows(table)])
            _register(con, name, table)
            if name in statistic.tables or name in needed_later:
                count += _write(analysis.out, name, table)
    return count


def _schema_of(table: Table) -> dict[str, pl.DataType]:
    if isinstance(table, pl.DataFrame):
        return dict(table.schema)
    if isinstance(table, Path):
        return dict(pl.scan_parquet(table, glob=False).collect_schema())
    return dict(pl.DataFrame(table.limit(0).to_arrow_table()).schema)


def _check(statistic: Statistic, name: str, table: Table) -> None:
    """Raise ValueError where a table has other columns than declared.

    Raise it too where a table of `pieces` is not returned as a file, or any other table is.
    """
    columns, declared = _schema_of(table), statistic.schemas()[name]
    if list(columns.items()) != list(declared.items()):
        wrong = {column: kind for column, kind in columns.items() if declared.get(column) != kind}
        missing = [column for column in declared if column not in columns]
        raise ValueError(
            f"analysis/{statistic.name}.py, table {name}: its columns are not those of its schema: {wrong} are others, "
            f"{missing} are missing, or their order differs"
        )
    if isinstance(table, Path) != (name in statistic.pieces):
        raise ValueError(f"analysis/{statistic.name}.py, table {name}: a file is returned for the tables of `pieces`")


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
