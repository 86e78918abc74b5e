"""The guard of ad-hoc SQL. It accepts a query of one statement that only reads, as the parse tree of the query shows.

DuckDB's `read_only` is not enough: it lets COPY write files, and a COPY inside a CTE has the type SELECT. So the guard
walks the whole tree and refuses every node, relation or function that is not listed in `storage/allowed/`. It never
runs the query. `storage.wall` is the second protection: it makes the kernel refuse writes that the guard has missed.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from storage.errors import BadInput
from storage.statements import SQL

ALLOWED = "one SELECT, EXPLAIN, DESCRIBE or SHOW statement"

# The options of EXPLAIN are listed by name. Otherwise the pattern could mistake an option for the start of the
# explained statement, or the start of that statement for an option.
_OPTION = r"(?:(?:analyze|verbose)(?:\s+(?:true|false|on|off))?|format\s+\w+)"
EXPLAIN = re.compile(
    rf"\s*explain\b(?:\s+(?:analyze|verbose)\b)*(?:\s*\(\s*{_OPTION}(?:\s*,\s*{_OPTION})*\s*\))?\s*", re.IGNORECASE
)

SHOWN = ("tables", "__show_tables_expanded")  #: what SHOW TABLES and SHOW ALL TABLES read, as named in the tree
NAME = re.compile(r"[\w $-]+")  # matches names of views; file names have a dot or a slash and do not match
SYSTEM = re.compile(r"(pg|duckdb|pragma|sqlite)_", re.IGNORECASE)
WRITES = ("copy", "insert", "update", "delete", "merge")  #: writing statements that DuckDB 2.0 accepts inside a CTE
ENDS_PIVOT = ("using", "group", "order", "limit", "offset", "union", "except", "intersect", ";")


def check(con: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return the text of the one statement of a query. Raises BadInput unless the statement only reads.

    The check takes 0.5 to 2.3 ms for each query of `tests/storage/honest.sql`. EXPLAIN is judged by the statement that
    it explains, since EXPLAIN ANALYZE runs that statement.
    """
    try:
        query.encode()
    except UnicodeEncodeError as error:
        raise BadInput("the query is not valid UTF-8") from error
    kind, text = _one_statement(con, query)
    judged = text
    if explain := EXPLAIN.match(text):
        kind, judged = _one_statement(con, text[explain.end() :])
    elif kind == "EXPLAIN":
        raise BadInput("no comment may stand between EXPLAIN, its options and its statement")
    if kind == "MULTI":
        kind, judged = _one_statement(con, _with_values(judged))
    if kind == "MULTI":
        raise BadInput("this PIVOT cannot be judged: give its values, as in PIVOT t ON column IN ('a', 'b')")
    if kind != "SELECT":
        raise BadInput(f"{kind} is not allowed here: {ALLOWED}")
    for node in _nodes(_tree(con, judged)):
        _judge(node)
    return text


def _one_statement(con: duckdb.DuckDBPyConnection, query: str) -> tuple[str, str]:
    """Return the type and text of a query's only statement, without the semicolon and comments after the statement."""
    try:
        statements = con.extract_statements(query)
    except duckdb.Error as error:
        raise BadInput(str(error).rstrip()) from error
    if len(statements) != 1:
        raise BadInput(f"the query holds {len(statements)} statements: {ALLOWED}")
    text = str(statements[0].query)
    ends = [end for _, word, _, end in _tokens(text) if word != ";"]
    text = text.encode()[: ends[-1]].decode()
    try:
        return str(statements[0].type).rpartition(".")[2], text
    except ValueError as error:  # DuckDB's Python package cannot name some types, such as UPDATE EXTENSIONS
        raise BadInput(f"{text.split()[0].upper()} is not allowed here: {ALLOWED}") from error


def _tree(con: duckdb.DuckDBPyConnection, text: str) -> Any:
    """Parse a statement. Returns the tree as DuckDB serializes it to JSON."""
    try:
        ((serialized,),) = con.execute("SELECT json_serialize_sql(?)", [text]).fetchall()
        tree = json.loads(serialized)
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        raise BadInput(str(error).rstrip()) from error
    except RecursionError as error:
        raise BadInput("the query is nested too deeply to be judged") from error
    if tree["error"]:
        raise BadInput(f"the query cannot be judged: {tree['error_message']}")
    return tree["statements"]


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every JSON object of a tree, at every depth."""
    rest = [tree]
    while rest:
        node = rest.pop()
        if isinstance(node, dict):
            yield node
            rest.extend(node.values())
        elif isinstance(node, list):
            rest.extend(node)


def _judge(node: dict[str, Any]) -> None:
    """Raise BadInput unless this node of a parse tree is allowed."""
    kind = node.get("type")
    if isinstance(kind, str) and kind not in _listed("nodes"):
        raise BadInput(f"{kind.removesuffix('_QUERY_NODE')} is not allowed here: {ALLOWED}")
    if kind in ("BASE_TABLE", "SHOW_REF"):
        _judge_relation(node)
    if "function_name" in node and node["function_name"].lower() not in functions():
        _refuse_function(node["function_name"])


def _judge_relation(node: dict[str, Any]) -> None:
    names = [node["table_name"], *node.get("qualified_name", {}).get("path", [])]
    names = [name.strip('"') for name in names if name]
    if node.get("show_type") == "SHOW_SPECIAL" and not set(names) <= set(SHOWN):
        raise BadInput(f"SHOW {names[0].upper()} is not allowed here: SHOW TABLES lists the catalog's views")
    for name in names:
        if not NAME.fullmatch(name):
            raise BadInput(f"the file or relation {name!r} is not allowed here: only the catalog's own views are read")
        if SYSTEM.match(name) and name.lower() not in _listed("relations"):
            raise BadInput(f"the relation {name} is not allowed here: only the catalog's own views are read")


def _refuse_function(name: str) -> None:
    near = difflib.get_close_matches(name.lower(), functions(), 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise BadInput(f"the function {name} is not allowed here: it is not among those that only read{hint}")


@functools.cache
def _listed(name: str) -> frozenset[str]:
    """Return the words in the list `storage/allowed/<name>.txt`."""
    lines = (Path(__file__).parent / "allowed" / f"{name}.txt").read_text().splitlines()
    return frozenset(word for line in lines if not line.startswith("# ") for word in line.split())


@functools.cache
def functions() -> frozenset[str]:
    """Return the names of the allowed functions: the list `functions.txt` and the macros of the catalog."""
    files = [SQL / "definitions.sql", *(SQL / "macros").glob("*.sql")]
    macros = [name for file in files for name in re.findall(r"^CREATE .*?MACRO (\w+)", file.read_text(), re.MULTILINE)]
    return _listed("functions").union(name.lower() for name in macros)


def _with_values(text: str) -> str:
    """Return the text with `IN (NULL)` added after each column of a PIVOT that lists no values.

    DuckDB turns a PIVOT without values into two statements, and cannot serialize them. A PIVOT with values is one
    SELECT, which can be judged; the added values leave its other parts unchanged. Raises BadInput for a text that
    contains one of the words WRITES.
    """
    tokens = _tokens(text)
    for _, word, *_ in tokens:
        if word in WRITES:
            raise BadInput(f"{word.upper()} is not allowed here: {ALLOWED}")
    inserts = list[tuple[int, bytes]]()
    for place, (_, word, *_) in enumerate(tokens):
        if word == "pivot":
            for start, end in _unlisted(tokens, place):
                inserts += [(start, b"("), (end, b") IN (NULL) ")]
    raw = text.encode()
    for offset, insert in sorted(inserts, reverse=True):
        raw = raw[:offset] + insert + raw[offset:]
    return raw.decode()


def _tokens(text: str) -> list[tuple[int, str, int, int]]:
    """Return (depth in parentheses, word in lower case, first byte, end byte) of each token that is not a comment."""
    raw = text.encode()
    starts = duckdb.tokenize(text)
    stops = [start for start, _ in starts[1:]] + [len(raw)]
    tokens, depth = list[tuple[int, str, int, int]](), 0
    for (start, kind), stop in zip(starts, stops, strict=True):
        if kind == duckdb.token_type.comment:
            continue
        word = raw[start:stop].decode().rstrip()
        depth -= word == ")"
        tokens.append((depth, word.lower(), start, start + len(word.encode())))
        depth += word == "("
    return tokens


def _unlisted(tokens: list[tuple[int, str, int, int]], place: int) -> Iterator[tuple[int, int]]:
    """Yield the start and end byte of each column without values in the ON clause of the PIVOT at token `place`."""
    depth = tokens[place][0]
    clause, listed = False, False
    column = list[tuple[int, int]]()
    for level, word, start, end in tokens[place + 1 :]:
        if level < depth or (clause and level == depth and word in ENDS_PIVOT):
            break
        if level == depth and word == "on" and not clause:
            clause = True
        elif clause and level == depth and word == ",":
            if column and not listed:
                yield column[0][0], column[-1][1]
            column, listed = [], False
        elif clause:
            listed |= level == depth and word == "in"
            column.append((start, end))
    if column and not listed:
        yield column[0][0], column[-1][1]
