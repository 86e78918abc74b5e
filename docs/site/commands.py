"""The page of the command line: `--help` of every command."""

from __future__ import annotations

import argparse
import os

INTRODUCTION = """# Command line

The output of `bridgescope COMMAND --help`, for every command. Exit codes: 0 for success, 1 for a failure while running,
2 for bad input, 130 or 143 after Ctrl-C or SIGTERM.
"""


def helps() -> dict[str, str]:
    """The help of every command, by its name."""
    from flows.cli import parser

    os.environ["COLUMNS"] = "100"  # argparse wraps to the width of the terminal
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {name: command.format_help() for name, command in commands.choices.items()}


def page() -> str:
    """The page in Markdown."""
    parts = [INTRODUCTION]
    for name, text in helps().items():
        parts.append(f"## bridgescope {name}\n\n```text\n{text.strip()}\n```\n")
    return "\n".join(parts)
