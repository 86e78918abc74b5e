"""The commands `report`, `explore`, `publish` and `mcp`, which show a run of a study."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from storage.dataset import find_store
from storage.errors import BadInput


def add(commands: Any, parents: list[argparse.ArgumentParser], study: str) -> None:
    """Add the parsers of the commands that show a run: `report`, `explore`, `publish`, `mcp`. study: help of STUDY."""
    report = commands.add_parser(
        "report", parents=parents, help="make the page of a study, or show that of a run, and print its path"
    )
    report.add_argument("study", metavar="STUDY", help=study)
    report.set_defaults(command=report_command)

    explore = commands.add_parser(
        "explore", parents=parents, help="serve the explorer of a study on this machine; it changes no result"
    )
    explore.add_argument("study", metavar="STUDY", nargs="?", help=f"{study} (default: the store's only study)")
    explore.add_argument("--port", type=int, metavar="N", help="default: 8765, or a free port when that is in use")
    explore.add_argument("--no-browser", action="store_true", help="only print the address")
    explore.set_defaults(command=explore_command)

    publish = commands.add_parser(
        "publish", parents=parents, help="publish SAEs, model card, statistics and the explorer's pages"
    )
    publish.add_argument("study", metavar="STUDY", help=study)
    publish.add_argument(
        "--to", required=True, metavar="DIR | hf:OWNER/NAME", help="a folder, or a repository of the Hugging Face hub"
    )
    publish.add_argument("--no-items", action="store_true", help="without images and captions")
    publish.add_argument(
        "--labels", action="store_true", help="with the labels that users of the explorer gave to concepts"
    )
    publish.set_defaults(command=publish_command)

    mcp = commands.add_parser(
        "mcp", parents=parents, help="serve the tables of a study to agents, by the Model Context Protocol on stdio"
    )
    mcp.add_argument("study", metavar="STUDY", nargs="?", help=f"{study} (default: the store's only study)")
    mcp.set_defaults(command=mcp_command)


def report_command(arguments: argparse.Namespace) -> int:
    """`bridgescope report`: make the page of a study again and print its path."""
    from flows.named import named_study

    store = find_store(arguments.store)
    study = named_study(arguments.study, arguments.store)
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

    store = find_store(arguments.store)
    name, variant = _chosen(arguments, store)
    target: str | Path = Path(arguments.to)
    scheme, colon, repository = arguments.to.partition(":")
    if scheme == "hf" and colon:
        if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", repository):
            raise BadInput(f"--to {arguments.to}: must be a folder, or hf:OWNER/NAME")
        target = repository
    web = built_site()
    run = shown_run(store, name, arguments.run, variant)
    print(f"study {name}, {run}", file=sys.stderr)
    print(publish_study(store, name, target, web, items=not arguments.no_items, run=run, labels=arguments.labels))
    return 0


def mcp_command(arguments: argparse.Namespace) -> int:
    """`bridgescope mcp`: serve a study's catalog to a program on standard input and output, until the input ends."""
    import importlib.metadata

    from explorer import serve_agents
    from storage.runs import shown_run

    store = find_store(arguments.store)
    name, variant = _chosen(arguments, store)
    run = shown_run(store, name, arguments.run, variant)
    print(f"study {name}, {run}", file=sys.stderr)
    serve_agents(store, run, importlib.metadata.version("bridgescope"))
    return 0


def _chosen(arguments: argparse.Namespace, store: Path) -> tuple[str, str | None]:
    """(study, variant) that the arguments of a command choose. A variant of None stands for any variant.

    `--variant` and `--run` come first. For a study file, the variant is otherwise the one with the configuration of
    the file, if that variant has a complete run.
    """
    from storage.catalog import the_only_study

    if arguments.study is None:
        return the_only_study(store), arguments.variant
    from flows.config import load_study
    from flows.named import is_file, name_of
    from flows.variants import variant_of
    from storage.runs import newest_complete

    if not is_file(arguments.study):
        return name_of(arguments.study, store), arguments.variant
    study = load_study(arguments.study)
    if arguments.run is not None or arguments.variant is not None:
        return study.name, arguments.variant
    variant = variant_of(store, study)
    return study.name, variant if variant and newest_complete(store, study.name, variant) else None


def _print(line: str) -> None:
    """Print a line and flush, so that a program at the other end of a pipe reads it at once."""
    print(line, flush=True)
