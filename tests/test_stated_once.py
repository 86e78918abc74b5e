"""Each definition, architecture and stage is stated in one place, and other code reads it there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("flows", "explorer", "tasks", "analysis", "report", "vlm", "sae", "storage", "bench")
KINDS = (".py", ".sql", ".ts", ".j2")


def sources() -> dict[str, str]:
    """The text of every source file of the rooms (top-level packages) by path, without what npm installed or built."""
    files = (path for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in KINDS)
    kept = (path for path in files if not {"node_modules", "dist"} & set(path.parts))
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(kept)}


def holding(pattern: str) -> list[str]:
    """The files whose text matches the pattern."""
    return [name for name, text in sources().items() if re.search(pattern, text)]


SHARED = ["storage/sql/definitions.sql"]


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        (r"\b(modality_)?scores?\b\s*[<>]=?\s*(1 - )?0?\.[19]\b", []),  # the bounds of "unimodal" written as numbers
        (r"[<>]\s*(1 - )?unimodal_bound", SHARED),
        (r"(?i)\bunimodal(_bound\(\))?\s*(=|AS)\s*0?\.\d", SHARED),
        (r"\bfirings\s*(>=|<)\s*10\b", []),  # the least number of firings, written as a number
        (r"(?i)\bmin_firings(\(\))?\s*(=|AS)\s*\d", SHARED),
        (r"- own - i\b", SHARED),  # the formula for the chance of a hit in retrieval
    ],
)
def test_a_definition_stands_in_the_definitions_alone(pattern: str, files: list[str]) -> None:
    assert holding(pattern) == files


DOCUMENT = (ROOT / "docs" / "definitions.md").read_text()
HEADINGS = re.findall(r"^##+ (.+)$", DOCUMENT, re.MULTILINE)
HEADING = r'"([^"]+)"(?: \([^)]*\))?'  # what a heading is cited for may follow it in brackets


def citing() -> dict[str, str]:
    """The text of every source file and document by path, with each comment or docstring joined to one line."""
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    texts = sources() | {path.relative_to(ROOT).as_posix(): path.read_text() for path in documents}
    return {name: re.sub(r"\n\s*(--|#|//)?\s*", " ", text) for name, text in texts.items()}


def cited(text: str) -> list[str]:
    """The headings of docs/definitions.md that a text cites, as in `docs/definitions.md, "Split", "Nulls" (draws)`."""
    citations = re.findall(rf"docs/definitions\.md,?((?: {HEADING},?)+)", text)
    return [heading for whole, _ in citations for heading in re.findall(HEADING, whole)]


def test_citations_are_read_with_all_their_headings() -> None:
    assert cited('see docs/definitions.md, "Split", "Nulls" (draws), "Retrieval". A "word" (docs/definitions.md)') == [
        "Split", "Nulls", "Retrieval",
    ]  # fmt: skip


def test_every_cited_heading_exists_in_the_definitions() -> None:
    citations = {name: cited(text) for name, text in citing().items() if name != "CONTRIBUTING.md"}
    assert sum(map(len, citations.values())) >= 30
    assert {(name, one) for name, found in citations.items() for one in found if one not in HEADINGS} == set()
    assert [name for name, text in citing().items() if re.search(r"\bDEFINITIONS\b", text)] == []


def test_headings_of_the_definitions_are_unique_and_its_links_lead_to_them() -> None:
    anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in HEADINGS]
    assert len(anchors) == len(set(anchors)) >= 25
    links = re.findall(r"\]\(#([^)]+)\)", DOCUMENT)
    assert links
    assert set(links) <= set(anchors)


CONSTANT = r"^\| [^|]+ \| ([\d.,]+) \| `([^`]+)`: `(\w+)` \|$"


@pytest.mark.parametrize(("value", "file", "name"), re.findall(CONSTANT, DOCUMENT, re.MULTILINE))
def test_a_constant_of_the_definitions_has_the_value_of_the_code(value: str, file: str, name: str) -> None:
    (found,) = re.findall(rf"^(?:CREATE .*MACRO )?{name}(?:\(\) AS| =) ([\w.-]+)", sources()[file], re.MULTILINE)
    assert float(found.rstrip(";")) == float(value.replace(",", ""))


def test_the_table_of_constants_is_read_whole() -> None:
    rows = DOCUMENT.partition("## Constants")[2].strip().splitlines()
    assert len(re.findall(CONSTANT, DOCUMENT, re.MULTILINE)) == len(rows) - 2 >= 20


EXTRAS = {
    "heic": ["storage/sources/files.py", "vlm/pictures.py"],
    "mcp": ["explorer/agents.py"],
    "ray": ["flows/cluster.py"],
}


@pytest.mark.parametrize("extra", EXTRAS)
def test_how_to_install_an_extra_is_said_once_per_room_and_names_the_checkout(extra: str) -> None:
    assert holding(rf"pip install -c constraints\.txt -e '\.\[{extra}\]'") == EXTRAS[extra]
    assert [name for name, text in citing().items() if f"bridgescope[{extra}]" in text] == []  # it is on no index


def literals(text: str) -> list[set[str]]:
    """The strings in each list, tuple, set, dict and `Literal[...]` of a Python file, at any depth."""
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.List, ast.Tuple, ast.Set, ast.Dict))]
    return [
        {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)} for node in nodes
    ]


def listing(names: set[str], least: int) -> list[str]:
    """The Python files with a literal that holds at least `least` of the names."""
    texts = {name: text for name, text in sources().items() if name.endswith(".py")}
    return [name for name, text in texts.items() if any(len(names & strings) >= least for strings in literals(text))]


def test_the_stages_are_listed_once() -> None:
    from flows.stages import STAGES

    assert len(STAGES) >= 7
    assert listing(set(STAGES), 5) == ["flows/stages.py"]


def test_the_architectures_are_listed_once() -> None:
    from sae.architectures import ARCHITECTURES

    # Each architecture is named in the table, and, if its encoder is linear, in sae/sparsity.py, which maps the name to
    # a function. Benches name those that they compare.
    assert [name for name in listing(set(ARCHITECTURES), 3) if not name.startswith("bench/")] == [
        "sae/architectures.py",
        "sae/sparsity.py",
    ]


def test_the_statistics_tables_are_listed_by_none() -> None:
    # Findings read the tables of most other statistics, and declare them as needed.
    tables = {"matches", "bridges", "geometry", "retrieval", "concepts", "findings", "nulls", "saes"}
    assert listing(tables, 6) == ["analysis/findings.py"]


def test_sources_refuse_the_pictures_that_the_decoder_refuses() -> None:
    """Storage may not import vlm, so both packages have their own copy of the bound MAX_PIXELS."""
    from storage.sources.section import MAX_PIXELS
    from vlm import pictures

    assert pictures.MAX_PIXELS == MAX_PIXELS
