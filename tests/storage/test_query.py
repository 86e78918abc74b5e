"""Answers in every format hold the values of the query."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from storage.errors import BadInput
from storage.query import answer


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


def written(con: duckdb.DuckDBPyConnection, query: str, style: str) -> bytes:
    """What the command writes to standard output."""
    with io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") as out:
        try:
            answer(con, query, style, out)
        finally:
            out.flush()
            raw = out.buffer.getvalue()  # type: ignore[attr-defined]
    return bytes(raw)


def parquet(con: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(written(con, query, "parquet"))).to_pylist()
    return rows


def rows_of_csv(con: duckdb.DuckDBPyConnection, query: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(written(con, query, "csv").decode())))


LARGEST = 2**128 - 1  # of UHUGEINT


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (f"{LARGEST}::UHUGEINT", str(LARGEST)),
        (f"{LARGEST}00::BIGNUM", f"{LARGEST}00"),
        ("'101'::BIT", "101"),
        ("'01:02:03+01'::TIMETZ", "01:02:03+01"),
        ("'POINT(1 2)'::GEOMETRY", "POINT (1 2)"),
        (f"[{LARGEST}::UHUGEINT, NULL]", [str(LARGEST), None]),
        ("{'a \"b': '101'::BIT, 'c': 1.5::DOUBLE}", {'a "b': "101", "c": 1.5}),
        ("MAP {'k': ['1'::BIT]}", [("k", ["1"])]),
        ("['1'::BIT]::BIT[1]", ["1"]),
        ("row('1'::BIT, 2)", {"element1": "1", "element2": 2}),
    ],
)
def test_parquet_holds_values_of_types_that_it_lacks_as_text(
    con: duckdb.DuckDBPyConnection, value: str, text: object
) -> None:
    # The columns beside it keep their type, their order and their names, also where two have one name.
    rows = parquet(con, f"SELECT 7 AS v, {value} AS v, n FROM range(3) AS t(n) ORDER BY n DESC; -- a comment")
    assert rows == [{"v": 7, "v_1": text, "n": n} for n in (2, 1, 0)]


def test_parquet_keeps_the_types_that_it_has(con: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT sum(1) AS s, DATE '2020-01-02' AS d, [TIMESTAMP '2020-01-02'] AS t, '1'::BIT AS b"
    table = pq.read_table(io.BytesIO(written(con, query, "parquet")))
    assert [str(kind) for kind in table.schema.types] == [
        "decimal128(38, 0)", "date32[day]", "list<element: timestamp[us]>", "string",
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["INTERVAL 1 MONTH", "union_value(n := 1)", "{}", "[{'a': INTERVAL 1 DAY}]"])
def test_a_column_that_parquet_cannot_hold_is_refused_by_name_and_type(
    con: duckdb.DuckDBPyConnection, value: str
) -> None:
    ((kind,),) = con.execute(f"SELECT typeof({value})").fetchall()
    out = io.TextIOWrapper(io.BytesIO())
    with pytest.raises(BadInput) as refused:
        answer(con, f'SELECT 1 AS one, {value} AS "the value"', "parquet", out)
    assert str(refused.value) == f'Parquet has no type for the column "the value", which is {kind}: cast it to VARCHAR'
    assert out.buffer.getvalue() == b""  # type: ignore[attr-defined]
    assert parquet(con, f"SELECT ({value})::VARCHAR AS v")


TEMPORAL = {
    "DATE '-infinity'": "-infinity",
    "TIMESTAMP 'infinity'": "infinity",
    "TIMESTAMPTZ '-infinity'": "-infinity",
    "TIMESTAMP_NS '2020-01-02 03:04:05.123456789'": "2020-01-02 03:04:05.123456789",
    "TIME_NS '03:04:05.123456789'": "03:04:05.123456789",
    "'01:02:03+01'::TIMETZ": "01:02:03+01",
    "INTERVAL 1 MONTH": "1 month",
    "DATE '2020-01-02'": "2020-01-02",
    "'POINT(1 2)'::GEOMETRY": "POINT (1 2)",
}


@pytest.mark.parametrize("value", TEMPORAL)
def test_csv_and_json_hold_dates_and_times_as_duckdb_shows_them(con: duckdb.DuckDBPyConnection, value: str) -> None:
    text = TEMPORAL[value]
    query = f"SELECT {value} AS v, [{value}] AS l, MAP {{{value}: 1}} AS m, union_value(u := {value}) AS u"
    nested = {"l": [text], "m": {text: 1}, "u": text}
    assert json.loads(written(con, query, "json")) == [{"v": text, **nested}]
    assert json.loads(written(con, query, "jsonl")) == {"v": text, **nested}
    names, row = rows_of_csv(con, query)
    assert names == ["v", "l", "m", "u"]
    assert [row[0], json.loads(row[1]), json.loads(row[2]), row[3]] == [text, *nested.values()]


def test_csv_holds_bytes_truths_and_nested_values_as_json_does(con: duckdb.DuckDBPyConnection) -> None:
    query = """SELECT 'a'::BLOB AS b, true AS t, false AS f, [1.5, NULL] AS l, {'x': 'inf'::DOUBLE, 'é': 'é'} AS s,
        MAP {'k': 'a'::BLOB} AS m, row(1, true) AS r, [1, 2]::INTEGER[2] AS a, 'nan'::DOUBLE AS n, 1.50 AS d,
        NULL AS nothing"""
    assert rows_of_csv(con, query)[1] == [
        "YQ==", "true", "false", "[1.5, null]", '{"x": null, "é": "é"}', '{"k": "YQ=="}', "[1, true]", "[1, 2]", "nan",
        "1.50", "",
    ]  # fmt: skip


@pytest.mark.parametrize("style", ["csv", "json", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "query",
    [
        "EXPLAIN ANALYZE SELECT DATE '2020-01-02'",
        "PIVOT (SELECT 1 AS a, DATE 'infinity' AS b) ON a USING max(b)",
        "DESCRIBE SELECT 1",
        "SUMMARIZE SELECT DATE '2020-01-02' AS d",
        "WITH t AS (SELECT DATE 'infinity' AS d, '1'::BIT AS b) FROM t",
        "VALUES (DATE 'infinity', '1'::BIT)",
        "SHOW ALL TABLES",
    ],
)
def test_every_kind_of_statement_is_written(con: duckdb.DuckDBPyConnection, query: str, style: str) -> None:
    con.execute("CREATE VIEW one AS SELECT 1 AS one")
    assert written(con, query, style)


def test_a_closed_standard_output_is_said_in_a_sentence() -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "flows.cli", "sql", "SELECT 1"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "bridgescope: standard output is closed, so no answer can be written: open it again\n"
