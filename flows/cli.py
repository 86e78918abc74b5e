"""The command `bridgescope`. Exit codes: 0 done, 1 failed while running, 2 bad input (a sentence, no traceback).

Heavy imports happen in the command that needs them, so that `--help` and `sql` start at once.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import cli_look, cli_pair, cli_show, cli_sql
from flows.stages import STAGES
from flows.terminal import AboveBars
from storage.dataset import find_store
from storage.errors import BadInput

if TYPE_CHECKING:
    from flows.study import Finished, StageDone


STUDY = "a study file, or the name of a study that has run"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[AboveBars(sys.stderr)])
    logging.getLogger("bridgescope").setLevel(logging.DEBUG if arguments.verbose else logging.INFO)
    try:
        command = arguments.command
        if command in (run_command, cli_show.report_command):
            from flows.signals import ending

            command = ending()(command)
        return int(command(arguments) or 0)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _failed(error, arguments)


def _failed(error: Exception, arguments: argparse.Namespace) -> int:
    """Print what failed. Returns the exit code: 2 for bad input, else 1."""
    from flows.failures import refused_setting, release, sentence_of

    refused, notes = refused_setting(error), getattr(error, "__notes__", [])
    bad_input = refused is not None or getattr(error, "exit_code", 1) == 2
    if arguments.verbose and not bad_input:
        traceback.print_exc()
    sentence = refused or sentence_of(error, _store_of(arguments))
    release(error)
    if bad_input:
        print(f"bridgescope: {sentence}", *notes, sep="\n", file=sys.stderr)
        return 2
    print(f"bridgescope: failed: {sentence}", *notes, sep="\n", file=sys.stderr)
    print(
        "Finished datasets are kept: run the same command again to go on. (-v shows where it failed.)", file=sys.stderr
    )
    return 1


class _Version(argparse.Action):
    """Print the version of the installed package. The version is looked up only when `--version` is given."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import importlib.metadata

        print(f"bridgescope {importlib.metadata.version('bridgescope')}")
        parser.exit()


def _store_of(arguments: argparse.Namespace) -> Path | None:
    """The store of a command that failed; None if no store is found."""
    try:
        return find_store(arguments.store)
    except BadInput:
        return None


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="bridgescope",
        description="Concepts of vision-language embedding spaces: train sparse autoencoders on paired embeddings, "
        "and ask in SQL which concepts are stable, which modality each serves, and which pairs bridge the two.",
    )
    top.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--store", metavar="DIR", help="the store (default: BRIDGESCOPE_STORE, else the nearest ./store)"
    )
    common.add_argument("-v", "--verbose", action="store_true", help="more log lines, and tracebacks")
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--run", type=int, metavar="N", help="a run by its number (default: the newest complete one)")
    chosen.add_argument("--variant", metavar="NAME", help="the newest complete run of this variant of the study")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    _add_run(commands, common)

    status = commands.add_parser("status", parents=[common], help="which datasets are fresh, stale or missing, and why")
    status.add_argument("study", metavar="STUDY", help=STUDY)
    status.add_argument("--set", action="append", metavar="KEY=VALUE", help="as in run")
    status.set_defaults(command=status_command)

    cli_sql.add(commands, [common, chosen])
    cli_pair.add(commands, [common, chosen])
    cli_show.add(commands, [common, chosen], STUDY)
    _add_gc(commands, common)

    diff = commands.add_parser("diff", parents=[common], help="compare two runs: settings, datasets, results")
    diff.add_argument("study", metavar="STUDY", help=STUDY)
    diff.add_argument("a", nargs="?", metavar="A", help="number of a run, or a variant (default: the newest but one)")
    diff.add_argument("b", nargs="?", metavar="B", help="number of a run, or a variant (default: the newest)")
    diff.set_defaults(command=diff_command)

    doctor = commands.add_parser("doctor", parents=[common], help="show versions and devices, and check the store")
    doctor.set_defaults(command=doctor_command)
    cli_look.add(commands, common)
    return top


def _add_run(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parser of `run`."""
    run = commands.add_parser("run", parents=[common], help="run a study; complete datasets are not made again")
    run.add_argument("study", metavar="STUDY", help=STUDY)
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
    run.add_argument("--dry-run", action="store_true", help="only print what would be made, as plan does")
    run.add_argument(
        "--as", dest="variant", metavar="VARIANT", help="name of this configuration among the study's runs"
    )
    run.set_defaults(command=run_command)


def _add_gc(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parser of `gc`."""
    gc = commands.add_parser("gc", parents=[common], help="list folders that no retained run refers to; --yes deletes")
    gc.add_argument("--keep", type=int, default=1, metavar="N", help="complete runs to retain per variant (default: 1)")
    gc.add_argument("--interrupted", action="store_true", help="also datasets that interrupted runs had finished")
    gc.add_argument("--drop", metavar="STUDY:VARIANT", help="also every run of this variant, and its datasets")
    sure = gc.add_mutually_exclusive_group()
    sure.add_argument("--dry-run", action="store_true", help="only list them (the default)")
    sure.add_argument("--yes", action="store_true", help="delete them")
    gc.set_defaults(command=gc_command)


def run_command(arguments: argparse.Namespace) -> int:
    """`bridgescope run`: run a study, or one stage of it, and print the results."""
    if arguments.dry_run:
        return cli_look.plan_command(arguments)
    from flows.named import named_study

    study = named_study(arguments.study, arguments.store, arguments.set)
    if arguments.only is not None and arguments.only not in STAGES:
        raise BadInput(f"--only {arguments.only}: no such stage; stages are {', '.join(STAGES)}")
    store = find_store(arguments.store, create=True)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if arguments.verbose else "CRITICAL")
    print(f"study {study.name}, store {store}", file=sys.stderr)
    from tasks.progress import Ticking

    with contextlib.closing(Ticking("checking the models and the source, and starting Prefect")) as waiting:
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
            on_begin=waiting.close,
            on_stage_done=print_stage,
        )
    print_finished(finished, store, verbose=arguments.verbose)
    return 0


def print_stage(done: StageDone) -> None:
    """Print one line as a stage ends."""
    print(done, file=sys.stderr)


def print_finished(finished: Finished, store: Path, *, verbose: bool = False) -> None:
    """Print the results of a run and the path of its page. verbose: also the seconds that Prefect took to start."""
    from flows.results import results
    from flows.useless import warnings_of

    run = finished.run
    if finished.stages:
        if verbose:
            print(f"Prefect startup: {finished.prefect_seconds:.1f} s", file=sys.stderr)
        print(f"{run} took {run.seconds:.1f} s", file=sys.stderr)
    else:
        print(f"nothing new: {sum(e.is_task for e in run.entries)} datasets are complete, {run}", file=sys.stderr)
    if not run.is_complete:
        print(run.absent(), file=sys.stderr)
    if run.of("analyze"):
        print(results(store, run))
        for warning in warnings_of(store, run):
            print(f"warning: {warning}", file=sys.stderr)
    if run.of("report"):
        print(f"report: {store / 'report' / run.study / 'index.html'}")


def status_command(arguments: argparse.Namespace) -> int:
    """`bridgescope status`: print which datasets are fresh, stale or missing."""
    from flows.mixtures import mixtures
    from flows.named import named_study
    from flows.status import runs_of, status, summary
    from storage.catalog import refresh_catalog_of
    from storage.runs import numbers

    study = named_study(arguments.study, arguments.store, arguments.set)
    store = find_store(arguments.store)
    rows = status(study, store)
    if numbers(store, study.name):
        refresh_catalog_of(store, study.name)
    own, known = runs_of(study, store)
    print(f"study {study.name}, store {store}", *summary(store, study, own), sep="\n")
    for row in rows:
        print(f"{row.state:8} {row.key!s:44} {row.why}".rstrip())
    counts = {state: sum(row.state == state for row in rows) for state in ("fresh", "stale", "missing")}
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    for mixture in mixtures(store, known) if known is not None else []:
        print(f"warning: {mixture}")
    return 0


def gc_command(arguments: argparse.Namespace) -> int:
    """`bridgescope gc`: list folders that no retained run refers to, and delete them with --yes."""
    from storage.garbage import Drop, collect, find_garbage

    store = find_store(arguments.store)
    drop = Drop(*arguments.drop.partition(":")[::2]) if arguments.drop is not None else None
    garbage = find_garbage(store, arguments.keep, interrupted=arguments.interrupted, drop=drop)
    items = collect(store, garbage) if arguments.yes else [*garbage.items, *garbage.dropped]
    for item in items:
        print(f"{item.path:36} {item.bytes / 1e6:10.1f} MB  {item.why}")
    total = sum(item.bytes for item in items) / 1e6
    runs = sum(item in garbage.dropped for item in items)
    what = f"{len(items) - runs} folders" + (f" and the records of {runs} run{'s' * (runs > 1)}" if runs else "")
    print(f"{'deleted' if arguments.yes else 'would delete'} {what}, {total:.1f} MB; {garbage.kept} kept")
    for lease in garbage.leases:
        state = "is being run" if lease.live else "was cut short (run it again, or gc --interrupted)"
        if count := garbage.kept_for(lease):
            print(f"{count} more are kept for study {lease.study}, which {state}: {lease.holder}")
    for sentence in garbage.damaged:
        print(f"left alone: {sentence} (bridgescope doctor)")
    if items and not arguments.yes:
        print("run it with --yes to delete them")
    return 0


def diff_command(arguments: argparse.Namespace) -> int:
    """`bridgescope diff`: compare two runs of a study."""
    from flows.config import load_study
    from flows.diff import diff, two_runs
    from flows.named import is_file, name_of

    store = find_store(arguments.store)
    file = is_file(arguments.study)
    name = load_study(arguments.study).name if file else name_of(arguments.study, store)
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
