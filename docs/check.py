"""Check the documentation against the project: names that it uses exist, and commands that it shows can be run.

python docs/check.py [--store DIR [--write]]

Without a store:

- links and paths in the documents, `make` targets, commands, options and keys of the study file exist;
- every key has a description, and every public Python name a docstring;
- the site builds strictly (docs/site), its links and anchors lead somewhere, and no page asks another host for a file;
- the tutorial on vectors is followed in an empty folder, up to the plan of its run.

With a store that holds the finished demo study:

- every `$ bridgescope sql ...` and `status` in a console block is run: it must end with 0 and print the columns and the
  number of lines that the document shows. Numbers may differ, since the last digits of a study depend on the machine;
- the generated page of the catalog has every view and column of the store, and no other column of these views;
- the notebook runs, and its outputs have the shapes that its file shows.

`--write` replaces the shown outputs, also those of the notebook, by those of the store.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE = Path(__file__).with_name("site")
sys.path[:0] = [str(ROOT), str(SITE)]
import built  # noqa: E402
import commands  # noqa: E402
import hooks  # noqa: E402
import notebook  # noqa: E402
import python_names  # noqa: E402
import sql_catalog  # noqa: E402
import study_keys  # noqa: E402

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BRIDGESCOPE = (sys.executable, "-m", "flows.cli")
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
    return bridgescope(words[1:], ROOT, store)


def bridgescope(words: list[str], folder: Path, store: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, with a store."""
    environment = {**os.environ, "BRIDGESCOPE_STORE": str(store), "PYTHONPATH": str(ROOT)}
    return subprocess.run([*BRIDGESCOPE, *words], env=environment, capture_output=True, text=True, cwd=folder)


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


def missing_names(document: Path, targets: set[str], helps: dict[str, str], keys: set[str]) -> Iterator[str]:
    """Problems with links, make targets, commands, options and keys of a document that do not exist."""
    text = document.read_text()
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        is_generated = document.parent == ROOT / "docs" and link in hooks.GENERATED
        if "://" not in link and not is_generated and not (document.parent / link).exists():
            yield f"{document.name}: links to {link}, which does not exist"
    for target in re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^(?:\$ )?make ([a-z-]+)", text, re.MULTILINE):
        if target not in targets:
            yield f"{document.name}: names make {target}, which the Makefile lacks"
    code = "\n".join(re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    shown = re.findall(r"`bridgescope ([a-z]+)([^`\n]*)", text)
    for name, rest in shown + re.findall(r"^(?:\$ |\S*bin/)?bridgescope ([a-z]+)([^\n]*)", code, re.MULTILINE):
        if name not in helps:
            yield f"{document.name}: names bridgescope {name}, which is no command"
        else:
            missing = [one for one in re.findall(r"(?<![\w-])--[a-z-]+", rest) if one not in helps[name]]
            yield from (f"{document.name}: bridgescope {name} has no option {one}" for one in missing)
    sections = "|".join(sorted({key.partition(".")[0] for key in keys if "." in key}))
    for key in re.findall(rf"`((?:{sections})\.[a-z_]+)(?: = [^`]*)?`", text):
        if key not in keys:
            yield f"{document.name}: names the key {key}, which a study file lacks"


def wrong_columns(store: Path) -> Iterator[str]:
    """Problems with the generated page of the catalog: views and columns that it lacks, or that a store lacks."""
    from storage import open_catalog
    from storage.query import views

    described = sql_catalog.views()
    with open_catalog(store, "demo") as con:
        for name in views(con):
            columns = {row[0] for row in con.execute(f'DESCRIBE "{name}"').fetchall()}
            shown = described[name].columns if name in described else {}
            for column in sorted(columns ^ set(shown)):
                yield f"sql.md: {name}.{column} is on the page or in the store, and not in both"
            yield from (f"sql.md: {name}.{column} has no description" for column, doc in shown.items() if not doc)


def wrong_tutorial() -> Iterator[str]:
    """Problems with the tutorial on vectors: its Python, `init` and `plan` are run in an empty folder."""
    text = (ROOT / "docs" / "tutorial-vectors.md").read_text()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
            if done.returncode:
                yield f"tutorial-vectors.md: its Python ended with {done.returncode}: {done.stderr.strip()}"
        for line in re.findall(r"^bridgescope ((?:init|plan) .*)$", text, re.MULTILINE):
            done = bridgescope(shlex.split(line), folder, folder / "store")
            if done.returncode:
                yield f"tutorial-vectors.md: bridgescope {line} ended with {done.returncode}: {done.stderr.strip()}"


def wrong_by_itself(targets: set[str]) -> Iterator[str]:
    """Problems that are found without a store."""
    helps, keys = commands.helps(), study_keys.keys()
    for document in DOCUMENTS:
        yield from missing_names(document, targets, helps, keys)
    yield from (f"study-keys.md: {key} has no description" for key in study_keys.undescribed())
    yield from (f"python.md: {name} has no docstring" for name in python_names.undocumented())
    yield from built.problems()
    yield from wrong_tutorial()


def main() -> int:
    """Print one line per problem; return 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store that holds the finished demo study")
    parser.add_argument("--write", action="store_true", help="replace the shown outputs by the present ones")
    arguments = parser.parse_args()
    for document in DOCUMENTS if arguments.store and arguments.write else []:
        write_output(document, arguments.store.resolve())
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    wrong = list(wrong_by_itself(targets))
    if arguments.store:
        store = arguments.store.resolve()
        wrong += [problem for document in DOCUMENTS for problem in wrong_output(document, store)]
        wrong += wrong_columns(store)
        wrong += notebook.run(store, write=arguments.write)
    without = "" if arguments.store else ", without their commands and the notebook"
    print("\n".join(wrong) or f"{len(DOCUMENTS)} documents and the site checked{without}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
