"""Macros say so when they are given a model, SAE, seed or concept that the run does not have, and what there is."""

from __future__ import annotations

import duckdb
import pytest

from storage.macros import SUBJECTS, Macro, all_macros, create_macros

#: Parameters that name no model, SAE, seed or concept, so that nothing is checked: numbers of rows or bins, the score
#: that ranks, lists of items, levels.
FREE = {"n", "bins", "by", "modality", "a", "b", "level", "item", "image", "caption"}
BODY = """-- A comment with a ; in it.
SELECT concepts.concept_id, concepts.energy
FROM concepts
WHERE concepts.model = m AND concepts.sae = s AND concepts.seed = seed AND concepts.concept_id = concept
ORDER BY concepts.energy DESC"""
MACROS = [
    Macro("profile", "m, s, seed, concept", BODY),
    Macro("least", "s, n := 1", "SELECT n AS n FROM concepts WHERE sae = s"),
]


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    """A run with the model `m`, two SAEs, the seeds 0 and 10 of `main` and the seed 2 of `wide`, of three concepts."""
    con = duckdb.connect(config={"threads": 1})
    con.execute(
        """CREATE TABLE concepts AS
        SELECT run.*, concept_id::INTEGER AS concept_id, concept_id / 2 AS energy
        FROM (VALUES ('m', 'main', 10), ('m', 'main', 0), ('m', 'wide', 2), ('n', 'other', 1)) AS run(model, sae, seed),
            range(3) AS c(concept_id)"""
    )
    create_macros(con, MACROS)
    return con


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("profile('x', 'main', 0, 0)", "No model named 'x'. Available: m, n."),
        ("profile('m', 'other', 0, 0)", "No SAE named 'other' for model 'm'. Available: main, wide."),
        ("profile('m', 'main', 2, 0)", "No seed 2 of the SAE 'main' for model 'm'. Available: 0, 10."),
        ("profile('m', 'main', 0, 3)", "No concept 3 in the SAE 'main', seed 0, for model 'm'. Available: 0 to 2."),
        ("profile('m', 'main', 0, -1)", "No concept -1 in the SAE 'main', seed 0, for model 'm'. Available: 0 to 2."),
        ("profile(NULL, 'main', 0, 0)", "No model named 'NULL'. Available: m, n."),
        ("least('x')", "No SAE named 'x'. Available: main, other, wide."),
    ],
)
def test_what_is_missing_is_said_with_what_there_is(con: duckdb.DuckDBPyConnection, query: str, sentence: str) -> None:
    for form in ("FROM {}", "SELECT count(*) FROM {}", "SELECT 1 FROM {} LIMIT 1", "FROM {} ORDER BY ALL",
                 "FROM (FROM {}) AS inner_query", "SELECT * FROM {} WHERE COLUMNS(*) > 7"):  # fmt: skip
        with pytest.raises(duckdb.InvalidInputException) as raised:
            con.execute(form.format(query)).fetchall()
        assert str(raised.value) == f"Invalid Input Error: {sentence}"


def test_what_is_there_is_answered_in_the_order_of_the_macro(con: duckdb.DuckDBPyConnection) -> None:
    assert con.execute("FROM profile('m', 'wide', 2, 1)").fetchall() == [(1, 0.5)]
    assert con.execute("FROM profile('m', 'wide', 2, 1) WHERE energy > 7").fetchall() == []
    assert con.execute("FROM least('other', n := 4)").fetchall() == [(4,)] * 3
    whole = Macro("all_of", "m", "FROM concepts WHERE model = m ORDER BY energy DESC, sae, seed")
    con.execute(whole.checked())
    rows = con.execute("SELECT energy, sae, seed FROM all_of('m')").fetchall()
    assert rows == sorted(rows, key=lambda row: (-row[0], *row[1:]))
    assert len(rows) == 9


def test_a_run_without_concepts_is_not_checked(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("DELETE FROM concepts")
    assert con.execute("FROM profile('x', 'main', 0, 0)").fetchall() == []


def test_a_macro_over_a_table_that_the_run_lacks_says_so(con: duckdb.DuckDBPyConnection) -> None:
    create_macros(con, [Macro("of_labels", "m, n := 3", "SELECT label FROM labels_of_concepts WHERE model = m")])
    for query in ("FROM of_labels('m')", "SELECT label FROM of_labels('m')", "SELECT count(*) FROM of_labels('m')"):
        with pytest.raises(duckdb.Error, match="The macro of_labels reads the table labels_of_concepts, which"):
            con.execute(query).fetchall()
    create_macros(con, [Macro("of_names", "m", "SELECT its_name FROM concepts WHERE model = m")])
    with pytest.raises(duckdb.Error, match="The macro of_names reads the column its_name, which this run"):
        con.execute("FROM of_names('m')")


def test_a_run_without_the_table_concepts_has_no_macro_that_is_about_an_sae() -> None:
    with duckdb.connect() as con:
        create_macros(con, MACROS)
        with pytest.raises(duckdb.Error, match="The macro least reads the table concepts, which this run"):
            con.execute("FROM least('main')")


@pytest.mark.parametrize("macro", all_macros(), ids=lambda macro: macro.name)
def test_every_parameter_of_every_macro_is_checked_or_free(macro: Macro) -> None:
    # A parameter that names a model, an SAE, a seed or a concept is called m, s, seed or concept: then it is checked.
    assert set(macro.names) <= {*SUBJECTS, *FREE}
    subjects = [name for name in macro.names if name in SUBJECTS]
    assert subjects in ([], ["s"], [*SUBJECTS[: len(subjects)]])  # a seed needs its SAE, a concept its seed
    assert ("unknown_subject(" in macro.checked()) == bool(subjects)
