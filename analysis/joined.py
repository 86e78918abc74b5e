"""The tables of a study, joined from those of its parts. No table is held in memory as a whole."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import polars as pl
import pyarrow.parquet as pq
from polars.io.plugins import register_io_source

from analysis.inputs import Analysis
from analysis.parts import PARTS
from analysis.statistic import Statistic, compute, statistics
from analysis.tables import ROW_GROUP, add_piece, empty, open_pieces, write_table
from storage.definitions import define
from storage.runs import Entry
from storage.statements import literal

COMPARING = ("pair", "seeds", "models")  #: the sorts of parts that compare SAEs
Source = Callable[..., Iterator[pl.DataFrame]]


class Twin(NamedTuple):
    """A setting of which a part is never learned, beside the trained setting that it is a null of."""

    model: str
    sae: str  #: name of the frozen setting
    twin_of: str  #: name of the trained setting
    frozen: str  #: 'frozen_decoder', 'soft_frozen_decoder' or 'frozen_encoder'


def join(store: Path, parts: Iterable[Entry], out: Path, twins: Iterable[Twin] = ()) -> int:
    """Write the tables of a study from its parts, and compute the statistics of the whole study from them.

    twins: the frozen settings of the study; the statistics of the whole study read them as the table `twins`.
    Rows are sorted by model, SAE and seed; the rows of a model without an SAE come before the rows of the model's SAEs.
    Rows that compare two SAEs are sorted by all columns, from first to last. Returns the number of rows written.
    """
    of_parts = [statistic for statistic in statistics() if statistic.per != "study"]
    count = 0
    with duckdb.connect(config={"threads": 1}) as con:
        define(con)
        for name in dict.fromkeys(table for statistic in of_parts for table in statistic.tables):
            makers = [statistic for statistic in of_parts if name in statistic.tables]
            files = _files(store, parts, {statistic.per for statistic in makers}, name)
            _write(makers[0], name, files, out)
            written = out / f"{name}.parquet"
            con.execute(f"CREATE TEMP VIEW {name} AS FROM read_parquet({literal(written)}, hive_partitioning = false)")
            count += pq.read_metadata(written).num_rows
        create_twins(con, twins)
        return count + compute(con, Analysis(store, [], out), "study")


def create_twins(con: duckdb.DuckDBPyConnection, twins: Iterable[Twin] = ()) -> None:
    """Create the table `twins` of a connection, with one row per frozen setting."""
    con.execute("CREATE TEMP TABLE twins (model VARCHAR, sae VARCHAR, twin_of VARCHAR, frozen VARCHAR)")
    for twin in twins:
        con.execute("INSERT INTO twins VALUES (?, ?, ?, ?)", twin)


def _files(store: Path, parts: Iterable[Entry], subjects: set[str], name: str) -> list[Path]:
    """The files of one table, from the parts whose sort is in `subjects`, in the order in which they are joined."""
    places = {part.kind: (place, part.per) for place, part in enumerate(PARTS.values())}
    of = [entry for entry in parts if places[entry.kind][1] in subjects]
    of.sort(key=lambda e: (e.model or "", places[e.kind][0], e.sae or "", e.seed or 0, e.other_seed or 0))
    return [store / entry.dataset.path / f"{name}.parquet" for entry in of]


def _write(maker: Statistic, name: str, files: list[Path], out: Path) -> None:
    """Join the files of one table and write the table."""
    if not files:
        write_table(out, name, empty(maker.tables[name]))
    elif maker.per in COMPARING:
        _sort(files, maker.tables[name], out / f"{name}.parquet")
    elif name in maker.pieces:
        with open_pieces(out, name, maker.tables[name]) as target:
            for source in map(pq.ParquetFile, files):
                for group in range(source.num_row_groups):
                    add_piece(target, pl.DataFrame(source.read_row_group(group)))
    else:
        _sink(pl.scan_parquet(files, glob=False), out / f"{name}.parquet")


def _sort(files: list[Path], schema: dict[str, Any], target: Path) -> None:
    """Write the rows of all files to target, sorted by all columns. The sort uses the disk when memory is short."""
    with tempfile.TemporaryDirectory(dir=target.parent) as spill, duckdb.connect(config={"threads": 1}) as con:
        con.execute(f"SET temp_directory = {literal(spill)}")
        rows = con.sql(f"FROM read_parquet({literal(files)}, hive_partitioning = false) ORDER BY ALL")

        def batches(*options: Any) -> Iterator[pl.DataFrame]:
            for batch in rows.to_arrow_reader(ROW_GROUP):
                yield pl.DataFrame(batch)

        _sink(register_io_source(batches, schema=schema), target)


def _sink(rows: pl.LazyFrame, target: Path) -> None:
    rows.sink_parquet(target, compression="zstd", row_group_size=ROW_GROUP)
