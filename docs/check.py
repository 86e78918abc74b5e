"""Holds the documentation against the project: what it names exists, and what it shows can be run.

python docs/check.py [--store DIR [--write]]

Without a store: links and paths in the documents exist, `make` targets and options of the command line are real. With
a store that holds the finished demo study, every `$ bridgescope sql ...` and `status` in a console block is run too:
it must end with 0 and print the columns and the number of lines that the document shows. Numbers may differ, since
the last digits of a study depend on the machine. `--write` puts the store's answers into the documents instead.
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BRIDGESCOPE = Path(sys.executable).with_name("bridgescope")
NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
RULES = re.compile(r"[─│┌┐└┘├┤┬┴┼]+")


def console_blocks(text: str) -> Iterator[tuple[str, str]]:
    """Commands shown with a `$ `, each with what the document prints below it."""
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown


def shape(text: str) -> list[str]:
    """The lines of an output with numbers, rules and spacing taken out: what may not differ between machines."""
    lines = (re.sub(r"\s+", " ", NUMBER.sub("#", RULES.sub(" ", line))).strip() for line in text.splitlines())
    return [line for line in lines if line]


def run(command: str, store: Path) -> subprocess.CompletedProcess[str] | None:
    """Run a shown command that only reads the store; None for any other."""
    words = shlex.split(command)
    if words[0] != "bridgescope" or words[1] not in ("sql", "status"):
        return None
    environment = {**os.environ, "BRIDGESCOPE_STORE": str(store)}
    return subprocess.run([BRIDGESCOPE, *words[1:]], env=environment, capture_output=True, text=True, cwd=ROOT)


def wrong_output(document: Path, store: Path) -> Iterator[str]:
    """Commands of a document that fail, or print other columns than it shows."""
    for command, shown in console_blocks(document.read_text()):
        done = run(command, store)
        if done is None:
            continue
        printed, shown_lines = shape(done.stdout), shape(shown)
        if done.returncode:
            yield f"{document.name}: {command}: ended with {done.returncode}: {done.stderr.strip()}"
        elif shlex.split(command)[1] == "sql" and printed[:2] != shown_lines[:2]:  # names and types of the columns
            yield f"{document.name}: {command}: prints {printed[:2]}, the document shows {shown_lines[:2]}"
        elif shlex.split(command)[1] == "sql" and len(printed) != len(shown_lines):
            yield f"{document.name}: {command}: prints {len(printed)} lines, the document shows {len(shown_lines)}"


def write_output(document: Path, store: Path) -> None:
    """Put what the commands print now under them."""
    text = document.read_text()
    for command, shown in console_blocks(text):
        done = run(command, store)
        if done is not None:
            text = text.replace(f"$ {command}\n{shown}", f"$ {command}\n{done.stdout.strip()}\n", 1)
    document.write_text(text)


def missing_names(document: Path, targets: set[str], options: str) -> Iterator[str]:
    """Links, make targets and options of a document that are not there."""
    text = document.read_text()
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in link and not (document.parent / link).exists():
            yield f"{document.name}: links to {link}, which is not there"
    for target in re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^(?:\$ )?make ([a-z-]+)", text, re.MULTILINE):
        if target not in targets:
            yield f"{document.name}: names make {target}, which the Makefile has not"
    for command in re.findall(r"bridgescope [a-z]+[^`\n]*", text):
        for option in re.findall(r"(?<![\w-])--[a-z-]+", command):
            if option not in options:
                yield f"{document.name}: names the option {option}, which no command has"


def all_help() -> str:
    """What `--help` of every command says."""
    from flows.cli import main

    said = io.StringIO()
    for command in ("run", "status", "sql", "report", "explore", "publish", "gc", "diff", "doctor"):
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main([command, "--help"])
    return said.getvalue()


def main() -> int:
    """Print what is wrong, a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store that holds the finished demo study")
    parser.add_argument("--write", action="store_true", help="put what the commands print now into the documents")
    given = parser.parse_args()
    for document in DOCUMENTS if given.store and given.write else []:
        write_output(document, given.store.resolve())
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    options = all_help()
    wrong = [problem for document in DOCUMENTS for problem in missing_names(document, targets, options)]
    if given.store:
        wrong += [problem for document in DOCUMENTS for problem in wrong_output(document, given.store.resolve())]
    print("\n".join(wrong) or f"{len(DOCUMENTS)} documents checked{'' if given.store else ', without their commands'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
