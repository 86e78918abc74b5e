"""The command `sql`: answers one query to the catalog of a study, or opens a prompt."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from storage.dataset import find_store
from storage.errors import BadInput

if TYPE_CHECKING:
    import duckdb

    from storage.wall import ReadingThread

FORMATS = ("table", "csv", "json", "jsonl", "parquet")


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add the parser of the command `sql`."""
    sql = commands.add_parser("sql", parents=parents, help="query the catalog; without a query, open a prompt")
    sql.add_argument("query", nargs="?")
    sql.add_argument("--study", metavar="NAME", help="default: the store's only study")
    sql.add_argument("--format", choices=FORMATS, default="table", help="format of the answer (default: table)")
    sql.set_defaults(command=sql_command)


def sql_command(arguments: argparse.Namespace) -> int:
    """`bridgescope sql`: answer a query, or open a prompt. The catalog is read in a thread that cannot write files."""
    from storage.catalog import open_catalog, refresh_catalog_file, the_only_study
    from storage.query import answer
    from storage.runs import shown_run
    from storage.wall import ReadingThread

    if sys.stdout is None:  # so Python starts where the shell has closed it, as with >&-
        print("bridgescope: standard output is closed, so no answer can be written: open it again", file=sys.stderr)
        return 1
    store = find_store(arguments.store)
    name = arguments.study or the_only_study(store)
    run = shown_run(store, name, arguments.run, arguments.variant)
    if (arguments.run, arguments.variant) == (None, None):
        refresh_catalog_file(store, run)  # it holds the run that is shown by default
    print(f"study {name}, {run}", file=sys.stderr)
    if not run.is_complete:
        print(run.absent(), file=sys.stderr)
    with ReadingThread() as reader:
        con = reader.call(open_catalog, store, name, guarded=True, run=run)
        reader.interrupt = con.interrupt

        def print_answer(query: str) -> None:
            reader.call(answer, con, query, arguments.format, sys.stdout)

        if arguments.query is not None:
            print_answer(arguments.query)
            return 0
        return prompt(con, reader, print_answer)


def prompt(con: duckdb.DuckDBPyConnection, reader: ReadingThread, print_answer: Callable[[str], None]) -> int:
    """Answer statements, each ended by a semicolon, until the input ends. Errors are printed and the prompt goes on.

    Returns the exit code: 2 when a statement failed and the input is not a terminal.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives input() a history)
    from storage.query import views

    interactive = sys.stdin.isatty()
    if interactive:
        print(f"Views: {', '.join(reader.call(views, con))}. A statement ends with a semicolon; end with Ctrl-D.")
    failed, lines = False, list[str]()
    while True:
        try:
            line = input(("bridgescope> " if not lines else "         ... ") if interactive else "")
        except EOFError:
            break
        lines.append(line)
        if line.rstrip().endswith(";"):
            failed |= not _answered(print_answer, "\n".join(lines))
            lines = []
    if any(line.strip() for line in lines):
        failed |= not _answered(print_answer, "\n".join(lines))
    return 2 if failed and not interactive else 0


def _answered(print_answer: Callable[[str], None], query: str) -> bool:
    """Print the answer to a statement. When the statement is refused, print the error and return False."""
    try:
        print_answer(query)
    except BadInput as error:
        print(error, file=sys.stderr)
        return False
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    return True
