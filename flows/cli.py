"""The command `bridgescope`. Exit codes: 0 done, 1 failed while running, 2 bad input (a sentence, no traceback).

Heavy imports happen in the command that needs them, so that `--help` and `sql` start at once.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.stages import STAGES
from storage.dataset import find_store
from storage.errors import BadInput

if TYPE_CHECKING:
    import duckdb

    from flows.study import Finished, StageDone
    from storage.wall import ReadingThread

FORMATS = ("table", "csv", "json", "jsonl", "parquet")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("bridgescope").setLevel(logging.DEBUG if arguments.verbose else logging.INFO)
    try:
        return int(arguments.command(arguments) or 0)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if getattr(error, "exit_code", 1) == 2:
            print(f"bridgescope: {error}", *getattr(error, "__notes__", []), sep="\n", file=sys.stderr)
            return 2
        if arguments.verbose:
            traceback.print_exc()
        from flows.failures import chain, explained

        sentence = explained(error) or f"{type(error).__name__}: {error}"
        for link in chain(error):  # otherwise DuckDB connections in the frames are reported as leaks at exit
            traceback.clear_frames(link.__traceback__)
        print(f"bridgescope: failed: {sentence}", *getattr(error, "__notes__", []), sep="\n", file=sys.stderr)
        print(
            "Finished datasets are kept: run the same command again to go on. (-v shows where it failed.)",
            file=sys.stderr,
        )
        return 1


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="bridgescope",
        description="Concepts of vision-language embedding spaces: train sparse autoencoders on paired embeddings, "
        "and ask in SQL which concepts are stable, which modality each serves, and which pairs bridge the two.",
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--store", metavar="DIR", help="the store (default: BRIDGESCOPE_STORE, else the nearest ./store)"
    )
    common.add_argument("-v", "--verbose", action="store_true", help="more log lines, and tracebacks")
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--run", type=int, metavar="N", help="a run by its number (default: the newest complete one)")
    chosen.add_argument("--variant", metavar="NAME", help="the newest complete run of this variant of the study")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", parents=[common], help="run a study; complete datasets are not made again")
    run.add_argument("study", metavar="STUDY.toml")
    run.add_argument("--only", metavar="STAGE", help=f"one stage alone: {', '.join(STAGES)}")
    run.add_argument("--force", action="store_true", help="make the outputs again (with --only: of that stage)")
    run.add_argument(
        "--upstream", metavar="RECIPE", help="with --only: a dataset of an earlier run to use in place of the newest"
    )
    run.add_argument("--model", metavar="NAME", help="with --only: of this model alone")
    run.add_argument("--sae", metavar="NAME", help="with --only: of this SAE setting alone")
    run.add_argument("--seed", type=int, metavar="N", help="with --only: of this seed alone")
    run.add_argument(
        "--set", action="append", metavar="KEY=VALUE", help="change the study: saes.main.k=16, pairs.limit=40"
    )
    run.add_argument(
        "--as", dest="variant", metavar="VARIANT", help="name of this configuration among the study's runs"
    )
    run.set_defaults(command=run_command)

    status = commands.add_parser("status", parents=[common], help="which datasets are fresh, stale or missing, and why")
    status.add_argument("study", metavar="STUDY.toml")
    status.add_argument("--set", action="append", metavar="KEY=VALUE", help="as in run")
    status.set_defaults(command=status_command)

    sql = commands.add_parser("sql", parents=[common, chosen], help="query the catalog; without a query, open a prompt")
    sql.add_argument("query", nargs="?")
    sql.add_argument("--study", metavar="NAME", help="default: the store's only study")
    sql.add_argument("--format", choices=FORMATS, default="table", help="how the answer is written (default: table)")
    sql.set_defaults(command=sql_command)

    report = commands.add_parser(
        "report", parents=[common, chosen], help="make the page of a study, or show that of a run, and print its path"
    )
    report.add_argument("study", metavar="STUDY.toml")
    report.set_defaults(command=report_command)

    explore = commands.add_parser(
        "explore", parents=[common, chosen], help="serve the explorer of a study on this machine, read-only"
    )
    explore.add_argument("study", metavar="STUDY.toml", nargs="?", help="default: the store's only study")
    explore.add_argument("--port", type=int, metavar="N", help="default: 8765, or a free port when that is in use")
    explore.add_argument("--no-browser", action="store_true", help="only print the address")
    explore.set_defaults(command=explore_command)

    publish = commands.add_parser(
        "publish", parents=[common, chosen], help="publish SAEs, model card, statistics and the explorer's pages"
    )
    publish.add_argument("study", metavar="STUDY.toml")
    publish.add_argument(
        "--to", required=True, metavar="DIR | hf:OWNER/NAME", help="a folder, or a repository of the Hugging Face hub"
    )
    publish.add_argument("--no-items", action="store_true", help="without images and captions")
    publish.set_defaults(command=publish_command)

    gc = commands.add_parser("gc", parents=[common], help="list folders that no retained run refers to; --yes deletes")
    gc.add_argument("--keep", type=int, default=1, metavar="N", help="complete runs to retain per study (default: 1)")
    gc.add_argument("--interrupted", action="store_true", help="also datasets that interrupted runs had finished")
    gc.add_argument("--drop", metavar="STUDY:VARIANT", help="also every run of this variant, and its datasets")
    sure = gc.add_mutually_exclusive_group()
    sure.add_argument("--dry-run", action="store_true", help="only list them (the default)")
    sure.add_argument("--yes", action="store_true", help="delete them")
    gc.set_defaults(command=gc_command)

    diff = commands.add_parser("diff", parents=[common], help="compare two runs: settings, datasets, figures")
    diff.add_argument("study", metavar="STUDY", help="a study file, or the name of a study that has run")
    diff.add_argument("a", nargs="?", metavar="A", help="number of a run, or a variant (default: the newest but one)")
    diff.add_argument("b", nargs="?", metavar="B", help="number of a run, or a variant (default: the newest)")
    diff.set_defaults(command=diff_command)

    doctor = commands.add_parser("doctor", parents=[common], help="show versions and devices, and check the store")
    doctor.set_defaults(command=doctor_command)
    return top


def run_command(arguments: argparse.Namespace) -> int:
    """`bridgescope run`: run a study, or one stage of it, and print the results."""
    from flows.config import load_study

    study = load_study(arguments.study, arguments.set)
    if arguments.only is not None and arguments.only not in STAGES:
        raise BadInput(f"--only {arguments.only}: no such stage; stages are {', '.join(STAGES)}")
    store = find_store(arguments.store, create=True)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if arguments.verbose else "CRITICAL")
    print(f"study {study.name}, store {store}", file=sys.stderr)
    from flows.narrow import Narrow
    from flows.study import run_study

    finished = run_study(
        study,
        store,
        only=arguments.only,
        force=arguments.force,
        upstream=arguments.upstream,
        narrow=Narrow(arguments.model, arguments.sae, arguments.seed),
        variant=arguments.variant,
        changes=arguments.set or [],
        on_stage_done=print_stage,
    )
    print_finished(finished, store)
    return 0


def print_stage(done: StageDone) -> None:
    """Print one line as a stage ends."""
    print(done, file=sys.stderr)


def print_finished(finished: Finished, store: Path) -> None:
    """Print the results of a run and the path of its page."""
    from flows.results import results

    run = finished.run
    print(
        f"Prefect's own start {finished.prefect_seconds:.1f} s, {run} took {run.seconds:.1f} s",
        file=sys.stderr,
    )
    if not run.is_complete:
        print(run.absent(), file=sys.stderr)
    if run.of("analyze"):
        print(results(store, run))
    if run.of("report"):
        print(f"report: {store / 'report' / run.study / 'index.html'}")


def status_command(arguments: argparse.Namespace) -> int:
    """`bridgescope status`: print which datasets are fresh, stale or missing."""
    from flows.config import load_study
    from flows.status import runs_of, status, summary
    from storage.catalog import refresh_catalog_file
    from storage.runs import numbers, shown_run

    study = load_study(arguments.study, arguments.set)
    store = find_store(arguments.store)
    rows = status(study, store)
    if numbers(store, study.name):
        refresh_catalog_file(store, shown_run(store, study.name))
    own, _ = runs_of(study, store)
    print(f"study {study.name}, store {store}", *summary(store, study, own), sep="\n")
    for row in rows:
        print(f"{row.state:8} {row.key!s:44} {row.why}".rstrip())
    counts = {state: sum(row.state == state for row in rows) for state in ("fresh", "stale", "missing")}
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    return 0


def sql_command(arguments: argparse.Namespace) -> int:
    """`bridgescope sql`: answer a query, or open a prompt. The catalog is read in a thread that cannot write files."""
    from storage.catalog import open_catalog, refresh_catalog_file, the_only_study
    from storage.query import answer
    from storage.runs import shown_run
    from storage.wall import ReadingThread

    store = find_store(arguments.store)
    name = arguments.study or the_only_study(store)
    refresh_catalog_file(store, shown_run(store, name))
    run = shown_run(store, name, arguments.run, arguments.variant)
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
    """Print the answer of a statement. Returns False, with the error printed, when the statement is refused."""
    try:
        print_answer(query)
    except BadInput as error:
        print(error, file=sys.stderr)
        return False
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    return True


def report_command(arguments: argparse.Namespace) -> int:
    """`bridgescope report`: make the page of a study again and print its path."""
    from flows.config import load_study

    store = find_store(arguments.store)
    study = load_study(arguments.study)
    if arguments.run is not None or arguments.variant is not None:
        from flows.published import publish_report
        from storage.runs import shown_run

        run = shown_run(store, study.name, arguments.run, arguments.variant)
        page = publish_report(store, run, anyway=True)
        if page is None:
            raise BadInput(f"{run} has no page: {run.absent()}")
    else:
        from flows.study import run_study

        run = run_study(study, store, only="report").run
        page = store / "report" / study.name / "index.html"
    print(f"study {study.name}, {run}", file=sys.stderr)
    print(page)
    return 0


def explore_command(arguments: argparse.Namespace) -> int:
    """`bridgescope explore`: serve the explorer of a study on this machine."""
    from explorer import serve

    store = find_store(arguments.store)
    name, variant = _chosen(arguments, store)
    serve(
        store,
        name,
        arguments.port,
        not arguments.no_browser,
        _print,
        number=arguments.run,
        variant=variant,
    )
    return 0


def publish_command(arguments: argparse.Namespace) -> int:
    """`bridgescope publish`: publish a finished study to a folder or a hub repository."""
    from explorer import built_site
    from storage.runs import shown_run
    from tasks.publish import publish_study

    store, web = find_store(arguments.store), built_site()
    target: str | Path = Path(arguments.to)
    scheme, colon, repository = arguments.to.partition(":")
    if scheme == "hf" and colon:
        if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", repository):
            raise BadInput(f"--to {arguments.to}: must be a folder, or hf:OWNER/NAME")
        target = repository
    name, variant = _chosen(arguments, store)
    run = shown_run(store, name, arguments.run, variant)
    print(f"study {name}, {run}", file=sys.stderr)
    print(publish_study(store, name, target, web, items=not arguments.no_items, run=run))
    return 0


def _chosen(arguments: argparse.Namespace, store: Path) -> tuple[str, str | None]:
    """(study, variant) of a command with a study file: the variant that the file states, where it has a complete run.

    Otherwise, and without a file, the variant is None: any. The command says which run it shows.
    """
    from storage.catalog import the_only_study

    if arguments.study is None:
        return the_only_study(store), arguments.variant
    from flows.config import load_study
    from flows.variants import variant_of
    from storage.runs import newest_complete

    study = load_study(arguments.study)
    if arguments.run is not None or arguments.variant is not None:
        return study.name, arguments.variant
    variant = variant_of(store, study)
    return study.name, variant if variant and newest_complete(store, study.name, variant) else None


def _print(line: str) -> None:
    """Print a line and flush, so that a program at the other end of a pipe reads it at once."""
    print(line, flush=True)


def gc_command(arguments: argparse.Namespace) -> int:
    """`bridgescope gc`: list folders that no retained run refers to, and delete them with --yes."""
    from storage.garbage import Drop, collect, find_garbage

    store = find_store(arguments.store)
    drop = Drop(*arguments.drop.partition(":")[::2]) if arguments.drop is not None else None
    garbage = find_garbage(store, arguments.keep, interrupted=arguments.interrupted, drop=drop)
    items = collect(store, garbage) if arguments.yes else garbage.items
    for item in items:
        print(f"{item.path:36} {item.bytes / 1e6:10.1f} MB  {item.why}")
    total = sum(item.bytes for item in items) / 1e6
    print(f"{'deleted' if arguments.yes else 'would delete'} {len(items)} folders, {total:.1f} MB; {garbage.kept} kept")
    for lease in garbage.leases if garbage.in_use else []:
        state = "is being run" if lease.live else "was cut short (run it again, or gc --interrupted)"
        print(f"{len(garbage.in_use)} more are kept for study {lease.study}, which {state}: {lease.holder}")
    if items and not arguments.yes:
        print("run it with --yes to delete them")
    return 0


def diff_command(arguments: argparse.Namespace) -> int:
    """`bridgescope diff`: compare two runs of a study."""
    from flows.config import load_study
    from flows.diff import diff, two_runs

    store = find_store(arguments.store)
    name = load_study(arguments.study).name if arguments.study.endswith(".toml") else arguments.study
    print("\n".join(diff(store, *two_runs(store, name, arguments.a, arguments.b))))
    return 0


def doctor_command(arguments: argparse.Namespace) -> int:
    """`bridgescope doctor`: print versions and devices, and check the store."""
    from flows.doctor import examine

    try:
        store = find_store(arguments.store)
    except BadInput as error:
        print(f"store: {error}")
        store = None
    lines, healthy = examine(store)
    print("\n".join(lines))
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
