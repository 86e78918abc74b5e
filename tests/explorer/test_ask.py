"""SQL queries from a page: refused statements, and limits of time, rows and memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from explorer.ask import ROWS, TooLong, answered, as_csv, plain
from explorer.asker import Asker
from storage import open_catalog
from storage.errors import BadInput


@pytest.fixture(scope="module")
def con(pictured: tuple[Path, Path]) -> duckdb.DuckDBPyConnection:
    return open_catalog(pictured[1], "pictures", guarded=True)


@pytest.fixture(scope="module")
def asker(pictured: tuple[Path, Path]) -> Iterator[Asker]:
    started = Asker(pictured[1], "pictures", 1, seconds=1.0)
    yield started
    started.close()


def files(store: Path) -> dict[str, int]:
    """Every file of a store with its modification time."""
    return {str(path): path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{store}/x.csv'",
        "COPY saes TO '{store}/tables/x.parquet' (FORMAT parquet)",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{store}/x.csv'",
        "EXPORT DATABASE '{store}/x'",
        "CREATE TABLE t (a INTEGER)",
        "CREATE VIEW saes AS SELECT 1",
        "INSERT INTO saes VALUES (1)",
        "DROP VIEW saes",
        "ATTACH '{store}/x.duckdb'",
        "ATTACH ':memory:' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET enable_external_access",
        "PRAGMA enable_profiling",
        "CALL pragma_version()",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP VIEW saes",
        "",
        "FROM read_text('/etc/passwd')",
        "FROM read_csv('/etc/passwd')",
        "FROM read_parquet('{store}/studies/x.parquet')",
        "FROM '/etc/passwd'",
        "FROM glob('/etc/*')",
        "SELECT getenv('HOME')",
        "FROM query('COPY (SELECT 1) TO ''{store}/x.csv''')",
        "FROM duckdb_secrets()",
    ],
)
def test_writes_other_files_and_extensions_are_refused(
    con: duckdb.DuckDBPyConnection, pictured: tuple[Path, Path], query: str
) -> None:
    before = files(pictured[1])
    with pytest.raises(BadInput):
        answered(con.cursor(), query.replace("{store}", str(pictured[1])))
    assert files(pictured[1]) == before
    assert answered(con.cursor(), "SELECT count(*) FROM saes").rows == [[2]]


def test_variables_of_the_server_are_no_tables(con: duckdb.DuckDBPyConnection) -> None:
    import polars

    secret = polars.DataFrame({"a": [1]})
    with pytest.raises(BadInput, match="secret does not exist"):
        answered(con.cursor(), "FROM secret")
    assert secret.height == 1


def test_rows_end_at_the_limit_and_the_answer_states_it(con: duckdb.DuckDBPyConnection) -> None:
    whole = answered(con.cursor(), f"FROM range({ROWS})")
    assert (len(whole.rows), whole.truncated) == (ROWS, False)
    more = answered(con.cursor(), f"FROM range({ROWS + 1})")
    assert (len(more.rows), more.truncated) == (ROWS, True)
    endless = answered(con.cursor(), "FROM range(1000000000000)")
    assert endless.rows[-1] == [ROWS - 1]


def test_few_rows_can_be_too_large(con: duckdb.DuckDBPyConnection) -> None:
    answer = answered(con.cursor(), "SELECT repeat('x', 100000) FROM range(5000)", seconds=60)
    assert answer.truncated
    assert 320 <= len(answer.rows) < 5000  # the limit of 32 MB of text cuts the answer; rows are fetched in blocks


def test_a_question_that_does_not_end_is_stopped(con: duckdb.DuckDBPyConnection) -> None:
    endless = "SELECT count(*) FROM range(100000000000) AS a, range(1000) AS b"
    with pytest.raises(TooLong, match=r"stopped after 0\.2 s"):
        answered(con.cursor(), endless, seconds=0.2)
    assert answered(con.cursor(), "SELECT 1").rows == [[1]]


def test_one_that_cannot_be_interrupted_is_ended_with_its_process(asker: Asker) -> None:
    assert asker.ask("SELECT count(*) FROM saes").rows == [[2]]
    first = asker.process.pid
    # DuckDB looks for interrupts only between vectors, and all strings of this query are in one vector.
    with pytest.raises((TooLong, BadInput), match=r"stopped after 1 s|memory|Memory"):
        asker.ask("SELECT sum(length(repeat('x', 500000000 + range::INTEGER))) FROM range(2000)")
    assert asker.ask("SELECT count(*) FROM saes").rows == [[2]]
    with pytest.raises(BadInput, match="COPY is not allowed here"):
        asker.ask("COPY (SELECT 1) TO '/tmp/x.csv'")
    asker.process.kill()  # the next query must be answered after any death of the process
    asker.process.wait()
    assert asker.ask("SELECT 1").rows == [[1]]
    assert asker.process.pid != first


def test_values_become_json_without_loss() -> None:
    import datetime
    import decimal

    # JavaScript represents every integer up to 2^53 = 9007199254740992 exactly.
    assert plain(9007199254740992) == 9007199254740992
    assert plain(9007199254740993) == "9007199254740993"
    assert plain(float("nan")) == "nan"
    assert plain(float("-inf")) == "-inf"
    assert plain(b"abc") == "3 bytes"
    assert plain(decimal.Decimal("1.5")) == 1.5
    assert plain(datetime.date(2020, 1, 2)) == "2020-01-02"
    assert plain({"a": [1, None, (True, "x")]}) == {"a": [1, None, [True, "x"]]}


def test_csv_quotes_what_must_be(con: duckdb.DuckDBPyConnection) -> None:
    answer = answered(con.cursor(), 'SELECT \'a,b\' AS "x ""y", chr(10) AS line, NULL AS nothing')
    assert as_csv(answer) == '"x ""y",line,nothing\n"a,b","\n",\n'


def test_a_closed_asker_leaves_no_file_open(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "absent", 1)
    asker.close()
    assert asker.process.stdin is not None
    assert asker.process.stdout is not None
    assert (asker.process.stdin.closed, asker.process.stdout.closed) == (True, True)
    assert asker.process.returncode is not None
