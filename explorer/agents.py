"""The MCP server of `bridgescope mcp`: programs that speak the Model Context Protocol ask a study's catalog.

The server reads requests from standard input and answers on standard output. Every query passes the guard and is run
by `explorer.asker`, in a process that cannot write files. Imports the library `mcp`, the extra `mcp`, at its first use.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.ask import TooLong
from explorer.asker import Asker
from storage.catalog import open_catalog
from storage.documentation import Macro, View, documented, macros
from storage.errors import BadInput
from storage.runs import Run

if TYPE_CHECKING:
    from mcp.server import MCPServer

ROWS = 200  # rows of an answer unless the query's caller asks for more: answers are read by models
MOST_ROWS = 10_000
INSTRUCTIONS = (
    "The results of one bridgescope study: sparse autoencoders (SAEs) trained on the joint image-text embeddings of "
    "vision-language models, their concepts, and statistics of these with their chance levels. Call list_tables first, "
    "then describe for the meaning of a table's columns, then query with one SELECT statement of DuckDB's SQL."
)


def serve_agents(store: Path, run: Run, version: str) -> None:
    """Serve one run of a study to a program on standard input and output, until the input ends.

    version: that of bridgescope, which the program is told. Raises BadInput when the library `mcp` is not installed,
    and when the catalog of the run cannot be opened.
    """
    with asked(store, run) as asker:
        server_of(store, run, asker, version).run("stdio")


@contextlib.contextmanager
def asked(store: Path, run: Run) -> Iterator[Asker]:
    """The process that answers queries over a run; it ends with the block."""
    asker = Asker(store, run.study, run.number, rows=ROWS)
    try:
        yield asker
    finally:
        asker.close()


def server_of(store: Path, run: Run, asker: Asker, version: str) -> MCPServer:
    """The MCP server over a run, with its tools. Raises BadInput when the library `mcp` is not installed."""
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
        from mcp.types import ToolAnnotations
    except ImportError as error:
        raise BadInput("bridgescope mcp needs the library mcp: pip install -c constraints.txt -e '.[mcp]'") from error
    with open_catalog(store, run=run, guarded=True) as con:
        tables = {view.name: view for view in documented(con)}
        functions = {macro.name: macro for macro in macros(con)}
    server = MCPServer("bridgescope", instructions=f"{INSTRUCTIONS} {told(run)}", version=version, log_level="WARNING")
    reads = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)

    @server.tool(annotations=reads)
    def list_tables() -> str:
        """List the tables of the study's catalog and the functions that return tables, each with its purpose."""
        return "\n".join([told(run), "", *map(summary, tables.values()), *map(summary, functions.values())])

    @server.tool(annotations=reads)
    def describe(name: str) -> str:
        """Describe the columns of a table or the arguments of a function that list_tables names."""
        found = tables.get(name) or functions.get(name.partition("(")[0])
        if found is None:
            raise ToolError(f"No table or function named {name!r}. Available: {', '.join([*tables, *functions])}")
        return description(found)

    @server.tool(annotations=reads)
    def query(sql: str, rows: int = ROWS) -> str:
        """Answer one read-only statement of DuckDB's SQL, as JSON with columns and rows.

        `truncated` is true when there are more rows than `rows` (at most 10,000); a query may take 10 seconds.
        """
        if not 1 <= rows <= MOST_ROWS:
            raise ToolError(f"rows is {rows}: must be from 1 to {MOST_ROWS}")
        try:
            answer = asker.ask(sql, rows)
        except (BadInput, TooLong) as error:
            raise ToolError(str(error)) from error
        names = [column["name"] for column in answer.columns]
        return json.dumps({"columns": names, "rows": answer.rows, "truncated": answer.truncated}, ensure_ascii=False)

    return server


def told(run: Run) -> str:
    """One sentence on the run that is served."""
    models = ", ".join(dict.fromkeys(str(entry.model) for entry in run.of("train")))
    settings = ", ".join(dict.fromkeys(str(entry.sae) for entry in run.of("train")))
    absent = "" if run.is_complete else f" {run.absent()}"
    return f"Study {run.study}, {run}; models: {models or 'none'}; SAE settings: {settings or 'none'}.{absent}"


def summary(one: View | Macro) -> str:
    """A table or function and its purpose, in one line."""
    return f"{one.call if isinstance(one, Macro) else one.name}: {one.purpose}"


def description(one: View | Macro) -> str:
    """A table or function with all that its SQL file says of its columns and arguments."""
    if isinstance(one, Macro):
        return "\n".join([summary(one), *(f"{name}: {text}" for name, text in one.sections.items())])
    columns = (f"- {column.name} {column.type}" + (f": {column.doc}" if column.doc else "") for column in one.columns)
    return "\n".join([summary(one), *columns])
