"""What a dataset was made from, up to the source, and what was made from it. Each manifest is read once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from storage.dataset import MANIFEST
from storage.errors import BadInput
from storage.runs import Run, numbers, read_run, studies

SKIPPED = ("studies", "report", "sources", "downloads")  #: folders of the store that hold no datasets


class Node(NamedTuple):
    """A dataset, from its manifest and from the runs that refer to it."""

    path: str  #: relative to the store
    rows: int
    version: str
    made: str  #: time when the manifest was written: UTC, ISO 8601
    libraries: dict[str, str]
    code: dict[str, Any]  #: the commit, and whether the working tree was dirty; empty if the manifest has neither
    inputs: list[str]  #: paths of the datasets that it was made from, each once
    damage: str  #: why the manifest cannot be read; "" if it can be read


class Lineage(NamedTuple):
    """A dataset with all that it was made from, and all that was made from it."""

    path: str
    nodes: dict[str, Node]  #: every dataset of the store
    made_from: dict[str, list[str]]  #: {path: paths of its inputs}, for the dataset and all that it was made from
    used_by: dict[str, list[str]]  #: {path: paths of datasets that have it as an input}, from the dataset down
    names: dict[str, list[str]]  #: {path: its places in studies, as "demo: train emoji-clip main seed 0"}
    runs: dict[str, list[str]]  #: {path: runs that refer to it, as "demo 1"}
    sources: dict[str, str]  #: {path of a listing: the source that it lists}


def lineage(store: Path, wanted: str) -> Lineage:
    """Lineage of the dataset that `wanted` names by its recipe, the recipe's first digits, or a path in the store.

    Raises BadInput when `wanted` names no dataset or several.
    """
    nodes = {node.path: node for node in _nodes(store)}
    runs = list(_runs(store))
    path = _find(store, wanted, nodes, runs)
    users: dict[str, list[str]] = {}
    for node in nodes.values():
        for one in node.inputs:
            users.setdefault(one, []).append(node.path)
    names: dict[str, list[str]] = {}
    referring: dict[str, list[str]] = {}
    for run in runs:
        for entry in run.entries:
            name = f"{run.study}: {entry.key}"
            known = names.setdefault(entry.dataset.path, [])
            if name not in known:
                known.append(name)
            referring.setdefault(entry.dataset.path, []).append(f"{run.study} {run.number}")
    up = _reached(path, {one: node.inputs for one, node in nodes.items()})
    down = _reached(path, users)
    referring = {one: list(dict.fromkeys(where)) for one, where in referring.items()}
    return Lineage(path, nodes, up, down, names, referring, _sources(store))


def _nodes(store: Path) -> Iterator[Node]:
    for kind in sorted(folder for folder in store.iterdir() if folder.is_dir() and folder.name not in SKIPPED):
        for folder in sorted(kind.iterdir()):
            if folder.is_dir() and re.fullmatch(r"[0-9a-f]{20}", folder.name):
                yield _node(folder, f"{kind.name}/{folder.name}")


def _node(folder: Path, path: str) -> Node:
    file = folder / MANIFEST
    try:
        held = json.loads(file.read_text())
        made = datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="seconds")
        inputs = list(dict.fromkeys(str(one["path"]) for one in held["inputs"]))
        libraries, code = dict(held.get("libraries") or {}), dict(held.get("code") or {})
        return Node(path, int(held["rows"]), str(held["version"]), made, libraries, code, inputs, "")
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = "it has no manifest" if isinstance(error, FileNotFoundError) else "its manifest cannot be read"
        return Node(path, 0, "", "", {}, {}, [], why)


def _runs(store: Path) -> Iterator[Run]:
    """All runs in the store that can be read."""
    for study in studies(store):
        for number in numbers(store, study):
            try:
                yield read_run(store, study, number)
            except BadInput:
                continue


def _reached(start: str, edges: dict[str, list[str]]) -> dict[str, list[str]]:
    """The part of the graph that is reached from `start`: each node reached, with the nodes that its edges lead to."""
    reached: dict[str, list[str]] = {}
    waiting = [start]
    while waiting:
        place = waiting.pop()
        if place not in reached:
            reached[place] = edges.get(place, [])
            waiting += reached[place]
    return reached


def _find(store: Path, wanted: str, nodes: dict[str, Node], runs: list[Run]) -> str:
    """Path of the dataset that `wanted` names."""
    if re.fullmatch(r"[0-9a-f]{4,20}", wanted):
        known = {*nodes, *(one for node in nodes.values() for one in node.inputs)}
        known |= {entry.dataset.path for run in runs for entry in run.entries}
        fitting = sorted(path for path in known if path.partition("/")[2].startswith(wanted))
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise BadInput(
                f"{wanted}: {len(fitting)} recipes begin with it: {', '.join(fitting[:5])}; give more digits"
            )
    for place in (store / wanted, Path(wanted)):
        if place.exists():
            return _of_file(store, place.resolve(), wanted, nodes, runs)
    if wanted.strip("/") in {one for node in nodes.values() for one in node.inputs}:
        return wanted.strip("/")
    raise BadInput(
        f"{wanted}: no dataset of {store} has this recipe, and there is no such file: give a recipe, at least 4 of its "
        "20 digits, or a folder or file of the store"
    )


def _of_file(store: Path, place: Path, wanted: str, nodes: dict[str, Node], runs: list[Run]) -> str:
    """Path of the dataset that a file belongs to.

    The dataset is found by the file's folder. For a file in report/<study> it belongs to the run whose page was copied.
    """
    if not place.is_relative_to(store.resolve()):
        raise BadInput(f"{wanted}: is not in the store {store}")
    parts = place.relative_to(store.resolve()).parts
    path = "/".join(parts[:2])
    if path in nodes:
        return path
    if len(parts) > 1 and parts[0] == "report":
        kind = "explorer" if parts[2:3] == ("explorer.zip",) else "report"
        pages = [entry.dataset.path for run in runs if run.study == parts[1] for entry in run.of(kind)]
        same = [page for page in dict.fromkeys(reversed(pages)) if _same_page(store / page, place, store, parts)]
        if same or pages:
            return (same or pages[::-1])[0]
    raise BadInput(f"{wanted}: belongs to no dataset: datasets are the folders KIND/RECIPE of {store}")


def _same_page(dataset: Path, place: Path, store: Path, parts: tuple[str, ...]) -> bool:
    """Whether report/<study> was copied from this dataset: its index.html has the same bytes."""
    copied, own = store.resolve() / "report" / parts[1] / "index.html", dataset / "index.html"
    return place.exists() and own.is_file() and copied.is_file() and own.read_bytes() == copied.read_bytes()


def _sources(store: Path) -> dict[str, str]:
    """{path of a listing: the source whose manifest names it}."""
    found: dict[str, str] = {}
    for file in sorted(store.glob("sources/*/manifest.json")):
        try:
            held = json.loads(file.read_text())
            for shard in held["shards"]:
                found[shard["path"]] = f"{held['name']} {json.dumps(held['source'], sort_keys=True)}"
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def told(found: Lineage) -> list[str]:
    """The lineage as lines to print. The inputs of a dataset that occurs several times are shown only once."""
    lines = ["made from:"]
    shown: set[str] = set()
    _unfold(found, found.path, found.made_from, 1, shown, lines)
    lines.append("used by:")
    below: set[str] = {found.path}
    for user in found.used_by[found.path]:
        _unfold(found, user, found.used_by, 1, below, lines)
    if not found.used_by[found.path]:
        lines.append("  no dataset")
    runs = found.runs.get(found.path, [])
    lines.append(f"runs that refer to it: {', '.join(runs) or 'none'}")
    return lines


def _unfold(
    found: Lineage, path: str, edges: dict[str, list[str]], depth: int, shown: set[str], lines: list[str]
) -> None:
    stack = [(path, depth)]
    while stack:
        at, depth = stack.pop()
        again = at in shown
        lines.append("  " * depth + described(found, at) + (" (see above)" if again and edges.get(at) else ""))
        if again:
            continue
        shown.add(at)
        if edges is found.made_from and at in found.sources:
            lines.append("  " * (depth + 1) + f"source {found.sources[at]}")
        stack += [(one, depth + 1) for one in reversed(edges.get(at, []))]


def described(found: Lineage, path: str) -> str:
    """One line about a dataset: path, place in its study, rows, version, time, libraries and commit."""
    names = found.names.get(path, [])
    place = f"  {names[0]}" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "") if names else ""
    node = found.nodes.get(path)
    if node is None:
        return f"{path}{place}  MISSING from the store"
    if node.damage:
        return f"{path}{place}  DAMAGED: {node.damage}"
    said = f"{path}{place}  {node.rows} rows, version {node.version}, {node.made}"
    if node.code.get("commit"):
        said += f", commit {str(node.code['commit'])[:12]}" + (" with changes" if node.code.get("dirty") else "")
    if path == found.path and node.libraries:
        said += "  [" + ", ".join(f"{name} {version}" for name, version in sorted(node.libraries.items())) + "]"
    return said


def as_json(found: Lineage) -> dict[str, Any]:
    """The lineage as JSON. It lists the datasets by path, each with its inputs and with the datasets made from it."""

    def dataset(path: str) -> dict[str, Any]:
        node = found.nodes.get(path)
        held = node._asdict() if node else {"path": path, "damage": "missing"}
        return {**held, "names": found.names.get(path, []), "runs": found.runs.get(path, [])}

    return {
        "dataset": found.path,
        "made_from": [dataset(path) for path in found.made_from],
        "used_by": {path: users for path, users in found.used_by.items() if users},
        "sources": {path: found.sources[path] for path in found.made_from if path in found.sources},
    }
