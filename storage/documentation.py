"""Documentation of the catalog's views: purpose and columns, from the headers of the SQL files that define them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import duckdb

from storage.query import views
from storage.statements import SQL

#: Columns that mean the same in every view. The header of a view describes such a column only to say something else.
COMMON = {
    "model": "name of the model, as the study file gives it",
    "sae": "name of the SAE setting, as the study file gives it, or of a data diet or frozen twin of it",
    "seed": "seed of the training, in which alone the SAEs of one setting differ",
    "split": "side of the split whose items are counted: 'heldout', 'train' or 'all'",
    "concept_id": "number of the concept in its SAE, from 0; in another seed, the number is another concept's",
    "image_id": "number of the image in the store",
    "pair_id": "number of the caption in the store",
    "jackknife_group": "one of the 20 groups of images, 0 to 19, which intervals leave out one at a time",
    "draw": "number of the random draw, from 0",
}


class Column(NamedTuple):
    """One column of a view."""

    name: str
    type: str  #: DuckDB's name of the type
    doc: str  #: what the column holds, in words, with the formula beside them where there is one


class View(NamedTuple):
    """One view of the catalog."""

    name: str
    purpose: str
    columns: list[Column]


class Macro(NamedTuple):
    """One table macro of the catalog, a function that returns a table."""

    name: str
    call: str  #: how it is called, such as `stability(m, s)`
    purpose: str
    sections: dict[str, str]  #: the other sections of the header of its SQL file: Inputs, Columns, ...


def macros(con: duckdb.DuckDBPyConnection) -> list[Macro]:
    """Return every table macro of a catalog, with the header of its SQL file."""
    rows = con.execute(
        "SELECT DISTINCT function_name, parameters FROM duckdb_functions() "
        "WHERE function_type = 'table_macro' AND NOT internal ORDER BY function_name"
    ).fetchall()
    found = []
    for name, parameters in rows:
        file = SQL / "macros" / f"{name}.sql"
        sections = _sections(file) if file.exists() else {}
        found.append(Macro(name, f"{name}({', '.join(parameters)})", sections.pop("Purpose", ""), sections))
    return found


def documented(con: duckdb.DuckDBPyConnection) -> list[View]:
    """Return every view of a catalog, with the purpose and columns from the header of its SQL file."""
    documents = []
    for name in views(con):
        header = header_of(name)
        columns = con.execute(f'DESCRIBE "{name}"').fetchall()
        docs = columns_of(header["Columns"], [row[0] for row in columns])
        described = [Column(row[0], row[1], docs[row[0]] or COMMON.get(row[0], "")) for row in columns]
        documents.append(View(name, header["Purpose"], described))
    return documents


def header_of(view: str) -> dict[str, str]:
    """Return the sections (Purpose, Inputs, Columns, ...) in the header of the SQL file of a view, or of its table.

    A view without an SQL file shows a table of an old run, for a statistic that this version no longer computes. Its
    Purpose and Columns are empty.
    """
    files = (SQL / folder / f"{view}.sql" for folder in ("views", "tables"))
    path = next((file for file in files if file.exists()), None)
    return {"Purpose": "", "Columns": ""} if path is None else _sections(path)


def _sections(path: Path) -> dict[str, str]:
    """The sections in the header of an SQL file."""
    sections: dict[str, str] = {}
    last = ""
    for line in path.read_text().splitlines():
        if not line.startswith("--"):
            break
        section = re.match(r"-- (\w+): +(.*)", line)
        if section:
            last = section[1]
            sections[last] = section[2]
        else:
            sections[last] += " " + line.lstrip("- ")
    return {name: text.removesuffix(".") for name, text in sections.items()}


def columns_of(text: str, names: list[str]) -> dict[str, str]:
    """Return the description of each column from the text of a section Columns.

    A description stands in brackets, after `:` or after `=`. Consecutive names share the description that follows the
    last name. A part that does not begin with a column name continues the description before it.
    """
    docs = dict.fromkeys(names, "")
    pending: list[str] = []
    last: list[str] = []
    for group in _split(text, ";"):
        for place, part in enumerate(_split(group, ",")):
            match = re.match(r'"?(\w+)"?\s*(.*)', part, re.DOTALL)
            if match and match[1] in docs and docs[match[1]] == "" and match[1] not in pending:
                pending.append(match[1])
                doc = re.sub(r"^[=:]\s*", "", match[2])
                if doc:
                    last, pending = pending, []
                    docs |= dict.fromkeys(last, _bare(doc))
            elif last:
                docs |= {name: f"{docs[name]}{', ' if place else '; '}{part}" for name in last}
        if pending:
            last, pending = pending, []
    return docs


def _bare(text: str) -> str:
    """Remove the outer brackets of a text that is enclosed in brackets as a whole."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and place < len(text) - 1:
            return text
    return text[1:-1] if text.startswith("(") else text


def _split(text: str, by: str) -> list[str]:
    """Split a text at each separator `by` that is outside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([<") - (letter in ")]>")
        if letter == by and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
