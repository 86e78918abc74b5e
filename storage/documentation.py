"""What the catalog's views mean: purpose and columns, from the headers of the SQL files that make them."""

from __future__ import annotations

import re
from typing import NamedTuple

import duckdb

from storage.query import views
from storage.statements import SQL


class Column(NamedTuple):
    """One column of a view."""

    name: str
    type: str  #: DuckDB's
    doc: str  #: "" where the name says it


class View(NamedTuple):
    """One view of the catalog."""

    name: str
    purpose: str
    columns: list[Column]


def documented(con: duckdb.DuckDBPyConnection) -> list[View]:
    """Every view of a catalog with what its file's header says."""
    found = []
    for name in views(con):
        header = header_of(name)
        columns = con.execute(f'DESCRIBE "{name}"').fetchall()
        docs = columns_of(header["Columns"], [row[0] for row in columns])
        found.append(View(name, header["Purpose"], [Column(row[0], row[1], docs[row[0]]) for row in columns]))
    return found


def header_of(view: str) -> dict[str, str]:
    """The sections of the header (Purpose, Inputs, Columns, ...) of the file that makes a view, or its table.

    Purpose and Columns are empty for a view without a file: the table of a run whose statistic is gone since.
    """
    files = (SQL / folder / f"{view}.sql" for folder in ("views", "tables"))
    path = next((file for file in files if file.exists()), None)
    if path is None:
        return {"Purpose": "", "Columns": ""}
    sections: dict[str, str] = {}
    last = ""
    for line in path.read_text().splitlines():
        if not line.startswith("--"):
            break
        opened = re.match(r"-- (\w+): +(.*)", line)
        if opened:
            last = opened[1]
            sections[last] = opened[2]
        else:
            sections[last] += " " + line.lstrip("- ")
    return {name: text.removesuffix(".") for name, text in sections.items()}


def columns_of(text: str, names: list[str]) -> dict[str, str]:
    """What the section Columns says of each column: what stands behind its name, in brackets, after `:` or after `=`.

    Names that follow each other share what stands behind the last of them; a part that begins with no name belongs to
    the column before it.
    """
    docs = dict.fromkeys(names, "")
    waiting: list[str] = []
    last: list[str] = []
    for group in _split(text, ";"):
        for place, part in enumerate(_split(group, ",")):
            opened = re.match(r'"?(\w+)"?\s*(.*)', part, re.DOTALL)
            if opened and opened[1] in docs and docs[opened[1]] == "" and opened[1] not in waiting:
                waiting.append(opened[1])
                said = re.sub(r"^[=:]\s*", "", opened[2])
                if said:
                    last, waiting = waiting, []
                    docs |= dict.fromkeys(last, _bare(said))
            elif last:
                docs |= {name: f"{docs[name]}{', ' if place else '; '}{part}" for name in last}
        if waiting:
            last, waiting = waiting, []
    return docs


def _bare(text: str) -> str:
    """A text without the brackets around all of it."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and place < len(text) - 1:
            return text
    return text[1:-1] if text.startswith("(") else text


def _split(text: str, by: str) -> list[str]:
    """The parts of a text between separators that stand in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([<") - (letter in ")]>")
        if letter == by and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
