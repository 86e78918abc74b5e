"""The guard of ad-hoc SQL, without a store: statements that only read pass, all others are refused with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from storage.definitions import define
from storage.errors import BadInput
from storage.guard import check, functions

CORPUS = Path(__file__).parent
ROOT = Path(__file__).parents[2]
ATTACKS = [line for line in (CORPUS / "attacks.sql").read_text().splitlines() if not line.startswith("--")]
HONEST = (CORPUS / "honest.sql").read_text().splitlines()


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        define(con)
        con.execute("SET lock_configuration = true")
        yield con


def test_the_corpora_are_large_enough() -> None:
    assert len(set(ATTACKS)) >= 60
    assert len(set(HONEST)) >= 30


@pytest.mark.parametrize("query", ATTACKS)
def test_attacks_are_refused(con: duckdb.DuckDBPyConnection, query: str) -> None:
    with pytest.raises(BadInput, match=r"is not allowed here|holds 2 statements|syntax error"):
        check(con, query.replace("{store}", "/s").replace("{table}", "/s/t.parquet"))


@pytest.mark.parametrize("query", HONEST)
def test_reading_passes(con: duckdb.DuckDBPyConnection, query: str) -> None:
    assert check(con, query) in query


def test_the_text_to_run_is_the_statement_without_comments_around_it(con: duckdb.DuckDBPyConnection) -> None:
    assert check(con, "-- a\n/* b */ EXPLAIN SELECT 1") == "EXPLAIN SELECT 1"
    assert check(con, "SELECT 'é;' /* a */ AS x ; -- c") == "SELECT 'é;' /* a */ AS x"
    assert check(con, "SELECT 1;;") == "SELECT 1"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("WITH x AS (COPY (SELECT 1) TO 'f') FROM x", "COPY is not allowed here: one SELECT"),
        ("FROM read_text('f')", "the function read_text is not allowed here"),
        ("SELECT lenght('a')", r"the function lenght is not allowed here.*did you mean length\?"),
        ("FROM 'x.parquet'", "the file or relation 'x.parquet' is not allowed here"),
        ("FROM pg_settings", "the relation pg_settings is not allowed here"),
        ("SHOW VARIABLES", "SHOW VARIABLES is not allowed here"),
        ("SELECT ?", "VALUE_PARAMETER is not allowed here"),
        ("UPDATE EXTENSIONS", "UPDATE is not allowed here"),
        ("SELECT " + "abs(" * 900 + "1" + ")" * 900, "nested too deeply to be judged"),
        ("SELECT " + "abs(" * 9000 + "1" + ")" * 9000, "cannot be judged|depth"),
        ("SELECT '\udce9'", "not valid UTF-8"),
    ],
)
def test_a_refusal_names_what_was_met(con: duckdb.DuckDBPyConnection, query: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        check(con, query)


@pytest.mark.parametrize(
    "query",
    [
        "PIVOT t ON a USING count(*)",
        "PIVOT t ON a, b || 'é, (x', c IN (1, 2) USING count(*), sum(d) GROUP BY e ORDER BY e LIMIT 3",
        "WITH p AS (PIVOT t ON a), q AS (PIVOT (FROM p) ON b /* using */ USING max(c)) FROM q ORDER BY 1",
        "SELECT * FROM (PIVOT t ON (a, b)) AS x JOIN u ON x.a = u.a",
    ],
)
def test_a_pivot_that_finds_its_values_is_judged_too(con: duckdb.DuckDBPyConnection, query: str) -> None:
    assert check(con, query) == query
    for bad, says in (("read_text('f')", "read_text"), ("'f.csv'", "f.csv")):
        with pytest.raises(BadInput, match=says):
            check(con, query.replace("PIVOT t", f"PIVOT (FROM {bad})", 1))


def test_functions_of_the_list_exist_and_none_has_side_effects(con: duckdb.DuckDBPyConnection) -> None:
    names = {
        name.lower()
        for (name,) in con.execute("SELECT function_name FROM duckdb_functions() WHERE internal").fetchall()
    }
    macros = {name for name in functions() if name not in names}
    files = [ROOT / "storage/sql/definitions.sql", *(ROOT / "storage/sql/macros").glob("*.sql")]
    assert macros == {name for file in files for name in re.findall(r"\bMACRO (\w+)", file.read_text())}
    effects = con.execute("SELECT DISTINCT function_name FROM duckdb_functions() WHERE has_side_effects").fetchall()
    allowed = {"random", "uuid", "uuidv4", "uuidv7", "gen_random_uuid", "error"}
    assert functions().intersection(name for (name,) in effects) <= allowed


def test_every_query_of_the_documentation_passes(con: duckdb.DuckDBPyConnection) -> None:
    texts = [file.read_text() for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
    queries = [query for text in texts for query in re.findall(r'bridgescope sql (?:--\S+ \w+ )*"([^"]{4,})"', text)]
    assert len(queries) >= 3
    for query in queries:
        check(con, query)


def test_every_query_of_the_page_passes(con: duckdb.DuckDBPyConnection) -> None:
    from report import figure_queries, queries

    runs = [("m", "main"), ("m", "it's")]
    statements = [
        text
        for module in (queries, figure_queries)
        for name, text in vars(module).items()
        if name.isupper() and isinstance(text, str)
    ]
    statements += [
        queries.histograms(runs), queries.stability_by_energy(runs), queries.stability(runs),
        queries.bridge_figures(runs), queries.top_bridges("m", "main", 0, 5, "bridge"),
        queries.top_images("m", "main", 0, [1, 2], 3), queries.top_captions("m", "main", 0, [1, 2], 3),
        queries.pictures([1]), figure_queries.concentration(runs), figure_queries.diets(runs[:1], runs),
        figure_queries.sensitivity(runs), queries.sensitivity(runs),
        figure_queries.alignments("main", ["lda"]), figure_queries.bridge_matrix("m", "main", 0),
    ]  # fmt: skip
    statements += [sql for _, sql in queries.to_paste("m", "main", 0, 1)]
    assert len(statements) >= 20
    for statement in statements:
        assert check(con, statement) == statement
