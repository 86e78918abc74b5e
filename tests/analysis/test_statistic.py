"""Statistics are found without a list, run after the statistics that they need, and reach all readers of a run."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from parts_case import analyse, given_of, study_of

import analysis as room
from analysis.inputs import Analysis
from analysis.statistic import Statistic, compute, in_order, statistics
from analysis.tables import empty
from storage.catalog import open_catalog
from storage.documentation import documented
from storage.record import write_run
from storage.runs import Key, last_run
from storage.statements import SQL
from tasks.publish import write_statistics

SCHEMA = {"model": pl.String}
TOY = """
import polars as pl

from analysis.statistic import Statistic
from analysis.tables import NULL_DRAWS, SAE_KEYS, table_of_rows

SCHEMA = {**SAE_KEYS, "alive": pl.Int64}


def make(con, analysis):
    sql = "SELECT model, sae, seed, count(*) AS alive FROM concepts WHERE NOT dead GROUP BY ALL ORDER BY ALL"
    rows = pl.DataFrame(con.sql(sql).to_arrow_table())
    draws = [
        {"model": "planted", "sae": "main", "seed": 0, "statistic": "alive", "null": "toy", "draw": draw, "value": draw}
        for draw in (1.0, 3.0)
    ]
    return {"alive": rows, "null_draws": table_of_rows(draws, NULL_DRAWS)}


STATISTIC = Statistic("alive", "1", {"alive": SCHEMA}, make, needs=("concepts",), adds=("null_draws",))
"""
VIEW = """-- Purpose: how many concepts fire on a training row.
-- Inputs:  the run's table alive.
-- Columns: model, sae, seed; alive (concepts).
-- Page: Concepts alive
CREATE VIEW alive AS FROM read_parquet($files);
"""


def statistic(name: str, needs: tuple[str, ...] = (), *tables: str, **of: Any) -> Statistic:
    schemas = dict.fromkeys(tables or (name,), SCHEMA)
    return Statistic(name, "1", schemas, lambda con, of: {table: empty(SCHEMA) for table in schemas}, needs, **of)


def test_statistics_run_by_name_after_what_they_need() -> None:
    unordered = [
        statistic("d"),
        statistic("a", ("c", "null_draws")),
        statistic("c"),
        statistic("e", adds=("null_draws",)),
    ]
    assert [one.name for one in in_order(unordered)] == ["c", "d", "e", "a"]


def test_what_does_not_fit_together_names_the_modules() -> None:
    with pytest.raises(ValueError, match=r"the table t of analysis/b\.py is made by analysis/a\.py already"):
        in_order([statistic("b", (), "t"), statistic("a", (), "t")])
    with pytest.raises(ValueError, match=r"analysis/a\.py needs the table t, which no statistic makes"):
        in_order([statistic("a", ("t",))])
    with pytest.raises(ValueError, match=r"analysis/a\.py adds to nulls, which is none of null_draws, null_summaries"):
        in_order([statistic("a", adds=("nulls",))])
    with pytest.raises(ValueError, match=r"in a circle: analysis/a\.py, analysis/b\.py$"):
        in_order([statistic("a", ("b",)), statistic("b", ("a",)), statistic("c")])


def test_every_statistic_is_a_value_of_its_own_module() -> None:
    files = {path.stem for path in Path(room.__path__[0]).glob("*.py") if "\nSTATISTIC = " in path.read_text()}
    assert {one.name for one in statistics()} == files
    tables = {name for one in statistics() for name in one.tables}
    described = {path.stem for folder in ("views", "tables") for path in (SQL / folder).glob("*.sql")}
    assert tables <= described


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a statistic by its two files: a module, and the SQL of its view."""
    folder = tmp_path / "room"
    folder.mkdir()
    (folder / "alive.py").write_text(TOY)
    sql = shutil.copytree(SQL, tmp_path / "sql")
    (sql / "views" / "alive.sql").write_text(VIEW)
    monkeypatch.setattr(room, "__path__", [*room.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, "analysis.alive", raising=False)
    for module in ("statements", "catalog", "documentation"):
        monkeypatch.setattr(f"storage.{module}.SQL", sql)


@pytest.mark.usefixtures("toy")
def test_one_more_statistic_is_two_files(store: Path, study: str, tmp_path: Path) -> None:
    run = last_run(store, study)
    given = given_of(store, run.entries, study_of([0]))
    analyse(given)
    entry = given.state[Key("analyze")]
    write_run(store, run.model_copy(update={"entries": list(given.state.values())}))
    rows = pl.read_parquet(store / entry.dataset.path / "alive.parquet")
    dead = pl.read_parquet(store / entry.dataset.path / "concepts.parquet")["dead"]
    assert rows["alive"].to_list() == [int((~dead).sum())]
    with open_catalog(store) as con:
        assert con.execute("SELECT alive FROM alive").fetchall() == [(rows["alive"][0],)]
        assert con.execute("SELECT mean, draws FROM nulls WHERE statistic = 'alive'").fetchall() == [(2.0, 2)]
        (view,) = (view for view in documented(con) if view.name == "alive")
    assert view.purpose == "how many concepts fire on a training row"
    assert view.columns[3].doc == "concepts"
    write_statistics(tmp_path / "statistics", store, last_run(store, study))
    written = {path.name for path in (store / entry.dataset.path).glob("*.parquet")}
    assert {path.name for path in (tmp_path / "statistics").iterdir()} == written


def test_a_statistic_reads_no_part_that_its_own_part_does_not_read() -> None:
    with pytest.raises(ValueError, match=r"analysis/a\.py is per pair and needs t, which analysis/b\.py makes per sae"):
        in_order([statistic("a", ("t",), per="pair"), statistic("b", (), "t")])
    with pytest.raises(ValueError, match=r"analysis/a\.py is per model and needs null_draws, which analysis/b\.py"):
        in_order([statistic("a", ("null_draws",), per="model"), statistic("b", adds=("null_draws",))])
    with pytest.raises(ValueError, match=r"analysis/a\.py adds to null_draws, which only a statistic per sae may do"):
        in_order([statistic("a", per="study", adds=("null_draws",))])
    rows_of_both = [statistic("a", (), "t", per="model"), statistic("b", (), "t"), statistic("c", ("t",), per="study")]
    assert [one.name for one in in_order(rows_of_both)] == ["a", "b", "c"]


def test_tables_that_are_not_as_declared_name_the_statistic(
    store: Path, study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Analysis(store, last_run(store, study).entries, tmp_path)
    con = duckdb.connect()
    other = statistic("other")._replace(make=lambda con, of: {"other": pl.DataFrame({"model": [1]})})
    monkeypatch.setattr("analysis.statistic.statistics", lambda: [other])
    with pytest.raises(ValueError, match=re.escape("analysis/other.py, table other: its columns are not those")):
        compute(con, part, "sae")
    lacking = statistic("other")._replace(make=lambda con, of: {})
    monkeypatch.setattr("analysis.statistic.statistics", lambda: [lacking])
    with pytest.raises(ValueError, match=r"analysis/other\.py declares other and makes nothing"):
        compute(con, part, "sae")
    other = statistic("other")._replace(pieces=("other",))
    monkeypatch.setattr("analysis.statistic.statistics", lambda: [other])
    with pytest.raises(ValueError, match=r"analysis/other\.py, table other: a file is returned for the tables of"):
        compute(con, part, "sae")
