"""Check the documentation against the project: names that it uses exist, and commands that it shows can be run.

python docs/check.py [--store DIR [--write]]

Without a store: links and paths in the documents, `make` targets and options of the command line exist. With a store
that holds the finished demo study, every `$ bridgescope sql ...` and `status` in a console block is run too: it must
end with 0 and print the columns and the number of lines that the document shows. Numbers may differ, since the last
digits of a study depend on the machine. `--write` replaces the shown output by the output of the store.
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
COMMANDS = (
    "run", "plan", "status", "sql", "pair", "report", "explore", "publish", "mcp", "gc", "diff", "doctor", "lineage",
    "init",
)  # fmt: skip
BRIDGESCOPE = Path(sys.executable).with_name("bridgescope")
NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
RULES = re.compile(r"[─│┌┐└┘├┤┬┴┼]+")


def console_blocks(text: str) -> Iterator[tuple[str, str]]:
    """Commands after a `$ `, each with the output that the document shows below it."""
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown


def shape(text: str) -> list[str]:
    """The lines of an output without numbers, rules and spacing, which may differ between machines."""
    lines = (re.sub(r"\s+", " ", NUMBER.sub("#", RULES.sub(" ", line))).strip() for line in text.splitlines())
    return [line for line in lines if line]


def run(command: str, store: Path) -> subprocess.CompletedProcess[str] | None:
    """Run a shown command if it only reads the store; return None for any other."""
    words = shlex.split(command)
    if words[0] != "bridgescope" or words[1] not in ("sql", "status"):
        return None
    environment = {**os.environ, "BRIDGESCOPE_STORE": str(store)}
    return subprocess.run([BRIDGESCOPE, *words[1:]], env=environment, capture_output=True, text=True, cwd=ROOT)


def wrong_output(document: Path, store: Path) -> Iterator[str]:
    """Problems with commands of a document that fail, or print other columns or lines than it shows."""
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
    """Replace the output shown below the commands of a document by the output that they print now."""
    text = document.read_text()
    for command, shown in console_blocks(text):
        done = run(command, store)
        if done is not None:
            text = text.replace(f"$ {command}\n{shown}", f"$ {command}\n{done.stdout.strip()}\n", 1)
    document.write_text(text)


def missing_names(document: Path, targets: set[str], options: str) -> Iterator[str]:
    """Problems with links, make targets and options of a document that do not exist."""
    text = document.read_text()
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in link and not (document.parent / link).exists():
            yield f"{document.name}: links to {link}, which does not exist"
    for target in re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^(?:\$ )?make ([a-z-]+)", text, re.MULTILINE):
        if target not in targets:
            yield f"{document.name}: names make {target}, which the Makefile lacks"
    for command in re.findall(r"bridgescope [a-z]+[^`\n]*", text):
        for option in re.findall(r"(?<![\w-])--[a-z-]+", command):
            if option not in options:
                yield f"{document.name}: names the option {option}, which no command has"


def all_help() -> str:
    """The output of `--help` of every command."""
    from flows.cli import main

    output = io.StringIO()
    for command in COMMANDS:
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            main([command, "--help"])
    return output.getvalue()


def main() -> int:
    """Print one line per problem; return 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store that holds the finished demo study")
    parser.add_argument("--write", action="store_true", help="replace the shown outputs by the present ones")
    arguments = parser.parse_args()
    for document in DOCUMENTS if arguments.store and arguments.write else []:
        write_output(document, arguments.store.resolve())
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    options = all_help()
    wrong = [problem for document in DOCUMENTS for problem in missing_names(document, targets, options)]
    if arguments.store:
        wrong += [problem for document in DOCUMENTS for problem in wrong_output(document, arguments.store.resolve())]
    without = "" if arguments.store else ", without their commands"
    print("\n".join(wrong) or f"{len(DOCUMENTS)} documents checked{without}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
