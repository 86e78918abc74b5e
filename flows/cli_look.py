"""The commands `plan`, `lineage` and `init`, which look at a study, a store or data, and run no task."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import Any

from flows.stages import STAGES
from storage.dataset import find_store

#: commands that `init` names as the next ones, and what each does
NEXT = (
    ("plan", "what a run would make, with bytes and seconds"),
    ("run", "run the study"),
    ("explore", "look at its concepts"),
)


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parsers of `plan`, `lineage` and `init`."""
    plan = commands.add_parser("plan", parents=[common], help="what a run would make, with bytes and seconds")
    plan.add_argument("study", metavar="STUDY", help="a study file, or the name of a study that has run")
    plan.add_argument("--only", metavar="STAGE", help=f"one stage alone: {', '.join(STAGES)}")
    plan.add_argument("--force", action="store_true", help="as in run")
    plan.add_argument("--upstream", metavar="RECIPE", help="as in run")
    plan.add_argument("--model", metavar="NAME", help="as in run")
    plan.add_argument("--sae", metavar="NAME", help="as in run")
    plan.add_argument("--seed", type=int, metavar="N", help="as in run")
    plan.add_argument("--set", action="append", metavar="KEY=VALUE", help="as in run")
    plan.add_argument("--as", dest="variant", metavar="VARIANT", help="as in run")
    plan.set_defaults(command=plan_command)

    lineage = commands.add_parser(
        "lineage", parents=[common], help="what a dataset was made from, and what was made from it"
    )
    lineage.add_argument("dataset", metavar="RECIPE|FILE", help="a recipe, its first digits, or a path in the store")
    lineage.add_argument("--json", action="store_true", help="print JSON")
    lineage.set_defaults(command=lineage_command)

    init = commands.add_parser("init", parents=[common], help="write a study file for data of your own")
    init.add_argument("path", metavar="PATH", nargs="?", default=".", help="a folder or a file (default: this folder)")
    init.add_argument("--model", metavar="SPEC|DIR", help="a model, or a folder with a checkpoint (default: clip)")
    init.add_argument("--name", metavar="NAME", help="name of the study (default: from the path)")
    init.add_argument("--to", metavar="FILE", help="the study file (default: NAME.toml in the current folder)")
    init.add_argument("--force", action="store_true", help="replace the file if it is there")
    init.set_defaults(command=init_command)


def plan_command(arguments: argparse.Namespace) -> int:
    """`bridgescope plan` and `bridgescope run --dry-run`: print what a run would do."""
    from flows.named import named_study
    from flows.narrow import Narrow
    from flows.plan import plan, told

    study = named_study(arguments.study, arguments.store, arguments.set)
    store = find_store(arguments.store, missing_ok=True)
    found = plan(
        study,
        store,
        only=arguments.only,
        force=arguments.force,
        narrow=Narrow(arguments.model, arguments.sae, arguments.seed),
        upstream=arguments.upstream,
        variant=arguments.variant,
    )
    print(f"study {study.name}, store {store}" + ("" if store.is_dir() else ", which does not exist yet"))
    print("\n".join(told(found)))
    found.check(store)
    return 0


def lineage_command(arguments: argparse.Namespace) -> int:
    """`bridgescope lineage`: print what a dataset was made from, and what was made from it."""
    from flows.lineage import as_json, lineage, told

    found = lineage(find_store(arguments.store), arguments.dataset)
    print(json.dumps(as_json(found), indent=1) if arguments.json else "\n".join(told(found)))
    return 0


def init_command(arguments: argparse.Namespace) -> int:
    """`bridgescope init`: look at a folder or a file, and write a study file for it."""
    from flows.init import write_study_file

    store = find_store(arguments.store, missing_ok=True)
    written = write_study_file(
        Path(arguments.path),
        model=arguments.model,
        name=arguments.name,
        to=Path(arguments.to) if arguments.to else None,
        store=store if os.access(store, os.W_OK) else None,  # a store that does not exist is not made
        force=arguments.force,
    )
    print("\n".join(written.seen))
    here = Path.cwd()
    file = written.path.relative_to(here) if written.path.is_relative_to(here) else written.path
    print(f"wrote {file}, with the reasons of its settings as comments. Next:")
    for command, what in NEXT:
        print(f"  {f'bridgescope {command} {shlex.quote(str(file))}':40}  # {what}")
    return 0
