"""The page of the catalog: every view and table macro with its columns, from the headers of the SQL files."""

from __future__ import annotations

import re
from typing import NamedTuple

from analysis.statistic import statistics
from storage.documentation import COMMON, columns_of, header_of
from storage.documentation import _sections as sections_of
from storage.documentation import _split as split
from storage.statements import SQL

INTRODUCTION = """# Views and macros

`bridgescope sql` answers one read-only statement over these views and table macros; [Queries](queries.md) shows how. A
view whose table a study does not make (such as `frontier` without the section `[frontier]`) is absent from its catalog.
The page is generated from the headers in `storage/sql/`. [Definitions](definitions.md) says what the numbers mean.
"""
#: Views in the order in which a reader meets them; views that are named here nowhere come last.
GROUPS = {
    "Pairs": "images pairs labels ledger image_bytes embedding_rows embedding_chunks",
    "SAEs": "saes training frontier activations atoms sae_offsets",
    "Concepts": "concepts concept_groups concept_names concept_words concept_labels matches floors subspace_matches "
    "consensus consensus_members partners partner_floors correspondence correspondence_floors bridges bridge_totals "
    "bridge_groups matched_similarity",
    "Models": "geometry retrieval retrieval_groups embedding_checks probing",
    "Conclusions": "findings nulls",
}


class Described(NamedTuple):
    """A view with its columns."""

    purpose: str
    columns: dict[str, str]  #: name: what it holds, in words


def views() -> dict[str, Described]:
    """Every view of a catalog."""
    names = {path.stem for path in (SQL / "views").glob("*.sql")}
    names |= {table for statistic in statistics() for table in statistic.tables}
    found = {}
    for name in sorted(names):
        header = header_of(name)
        if header["Purpose"]:
            columns = columns_of(header["Columns"], named(header["Columns"]))
            docs = {column: doc or COMMON.get(column, "") for column, doc in columns.items()}
            found[name] = Described(header["Purpose"], docs)
    return found


def macros() -> dict[str, tuple[str, dict[str, str]]]:
    """Every table macro: its name, how it is called, and the sections of its header."""
    found = {}
    for path in sorted((SQL / "macros").glob("*.sql")):
        call = re.search(r"CREATE MACRO (\w+)\(([^)]*)\) AS TABLE", path.read_text())
        if call:
            parameters = ", ".join(part.strip().replace('"', "") for part in call[2].split(","))
            found[path.stem] = (f"{call[1]}({parameters})", sections_of(path))
    return found


def named(text: str) -> list[str]:
    """The names of columns in a section Columns: what stands before brackets, `:` or `=`, or alone."""
    parts = [part for group in split(text, ";") for part in split(group, ",")]
    matches = (re.match(r'"?([A-Za-z_]\w*)"?\s*($|[(:=])', part) for part in parts)
    return list(dict.fromkeys(match[1] for match in matches if match))


def page() -> str:
    """The page in Markdown."""
    parts, left = [INTRODUCTION], views()
    groups = {title: names.split() for title, names in GROUPS.items()}
    groups["Other views"] = [name for name in left if not any(name in names for names in groups.values())]
    for title, names in groups.items():
        shown = [name for name in names if name in left]
        if shown:
            parts.append(f"## {title}\n")
            parts += [_section(name, f"`{name}`", left[name]) for name in shown]
    parts.append("## Macros\n\nA macro is a function that returns a table: `from stability('emoji-clip', 'main')`.\n")
    parts += [_macro(name, call, sections) for name, (call, sections) in macros().items()]
    return "\n".join(parts)


def _section(name: str, title: str, described: Described) -> str:
    purpose = described.purpose[:1].upper() + described.purpose[1:]
    lines = [f"### {title} {{ #{name} }}", "", _cell(purpose) + ".", "", "| column | description |", "|---|---|"]
    lines += [f"| `{column}` | {_cell(doc)} |" for column, doc in described.columns.items()]
    return "\n".join([*lines, ""])


def _macro(name: str, call: str, sections: dict[str, str]) -> str:
    purpose = sections["Purpose"][:1].upper() + sections["Purpose"][1:]
    lines = [f"### `{call}` {{ #{name} }}", "", f"{_cell(purpose)}."]
    for title in ("Inputs", "Columns"):
        if title in sections:
            lines += ["", f"**{title}**: {_cell(sections[title])}."]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return re.sub(r"([|*_<\[\]])", r"\\\1", text) if text else ""
