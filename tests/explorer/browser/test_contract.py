"""The TypeScript compiler checks data files and server answers of the explorer against `src/contract.ts`.

Every value becomes a literal of its type in a TypeScript file, so that a missing key, an extra key and a value of
another type are all errors.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from browser_support import WEB

from report.explorer.release import MANIFEST, handed_out, unpack
from storage.runs import last_run
from storage.site import SITE

ROOT = Path(__file__).parents[3]
MOST = 16  # most files checked per type: the compiler would take half a minute for all 240 files of the demo
RUN = r"data/runs/[^/]+/[^/]+/\d+"
TYPES = {  # type of a data file, by the pattern of its name
    MANIFEST: "Manifest",
    r"data/catalog\.json": "Catalog",
    r"data/compare\.json": "Compare",
    r"data/items/index\.json": "ItemIndex",
    r"data/items/search\.json": "CaptionSearch",
    r"data/items/\d+\.json": "Items",
    rf"{RUN}/concepts\.json": "Concepts",
    rf"{RUN}/bridges\.json": "Bridges",
    rf"{RUN}/words\.json": "Words",
    rf"{RUN}/concept/\d+\.json": "ConceptDetails",
    rf"{RUN}/codes/\d+\.json": "ItemCodes",
    rf"{RUN}/pairs/\d+\.json": "PairBlock",
    r"data/labels\.json": "UserLabels",
}


def complaints(folder: Path, values: list[tuple[str, str, str]]) -> list[str]:
    """Errors of the pinned compiler for values. A value is a tuple (name, type in the contract, JSON)."""
    folder.mkdir()
    contract = json.dumps(str(WEB / "src" / "contract"))
    for place, (name, kind, text) in enumerate(values):
        literal = f"import type {{ {kind} }} from {contract}\nexport const value: {kind} = {text} // {name}\n"
        (folder / f"{place}.ts").write_text(literal)
    options = {"strict": True, "noEmit": True, "exactOptionalPropertyTypes": True, "types": [], "target": "ES2023"}
    options |= {"module": "ESNext", "moduleResolution": "bundler"}
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["*.ts"]}))
    compiler = [str(WEB / "node_modules" / ".bin" / "tsc"), "--project", str(folder), "--pretty", "false"]
    done = subprocess.run(compiler, capture_output=True, text=True, check=False, cwd=folder)
    lines = done.stdout.splitlines()
    assert (done.returncode == 0) == (lines == []), done.stdout + done.stderr
    place_of = re.compile(r"^(\d+)\.ts\(\d+,\d+\)")
    return [place_of.sub(lambda match: values[int(match[1])][0], line)[:1000] for line in lines]


def data_files(site: Path) -> list[tuple[str, str, str]]:
    """JSON files of an unpacked site with their types in the contract: at most MOST files per type, spread evenly.

    Raises an error for a file without a type.
    """
    values = []
    for path in sorted((site / "data").rglob("*.json")):
        name = path.relative_to(site).as_posix()
        (kind,) = [kind for pattern, kind in TYPES.items() if re.fullmatch(pattern, name)]
        values.append((name, kind, path.read_text()))
    by_type = {kind: [value for value in values if value[1] == kind] for kind in TYPES.values()}
    return [value for same in by_type.values() for value in same[:: 1 + len(same) // MOST]]


def unpacked(store: Path, study: str, out: Path, items: bool) -> list[tuple[str, str, str]]:
    """The data files of a study's newest run, as published."""
    run = last_run(store, study)
    assert run is not None
    unpack(store / run.of("explorer")[0].dataset.path / SITE, out, items=items)
    return data_files(out)


@pytest.fixture(scope="module")
def store() -> Path:
    return Path(os.environ.get("STORE", ROOT / "store")).resolve()


@pytest.mark.parametrize("items", [True, False], ids=["whole", "no-items"])
def test_the_data_files_of_the_demo_are_what_the_contract_says(store: Path, tmp_path: Path, items: bool) -> None:
    values = unpacked(store, "demo", tmp_path / "site", items)
    of_items = {"ItemIndex", "CaptionSearch", "Items", "ItemCodes", "PairBlock"}
    assert {kind for _, kind, _ in values} == set(TYPES.values()) - (set() if items else of_items)
    assert complaints(tmp_path / "checked", values) == []


def test_the_data_files_of_a_small_study_are_what_the_contract_says(
    pictured: tuple[Path, Path], tmp_path: Path
) -> None:
    values = unpacked(pictured[1], "pictures", tmp_path / "site", items=True)  # dead concepts, all kinds of captions
    assert complaints(tmp_path / "checked", values) == []


def test_the_planted_data_files_are_what_the_contract_says(folder: Path, tmp_path: Path) -> None:
    assert complaints(tmp_path / "checked", data_files(folder)) == []


def asked(address: str, path: str, body: object) -> str:
    """The answer of a live server, or its error answer."""
    headers = {"origin": address.rstrip("/"), "content-type": "application/json"}
    request = urllib.request.Request(f"{address}{path}", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_the_answers_of_the_server_are_what_the_contract_says(live: str, tmp_path: Path) -> None:
    with urllib.request.urlopen(f"{live}{MANIFEST}") as answer:
        manifest = answer.read().decode()
    key = json.loads(manifest)["runs"][0]["key"]
    with urllib.request.urlopen(f"{live}api/below/12?key={key}") as answer:
        below = answer.read().decode()
    every_type = "SELECT 1 AS a, 0.5 AS b, 'c' AS c, NULL AS d, [1, 2] AS e, {'f': 1} AS f, DATE '2020-01-02' AS g"
    values = [
        ("the live manifest", "Manifest", manifest),
        ("the answer in SQL", "SqlAnswer", asked(live, "api/sql", {"query": every_type})),
        ("an answer without rows", "SqlAnswer", asked(live, "api/sql", {"query": "SELECT 1 AS a WHERE false"})),
        ("a caption", "Encoded", asked(live, f"api/encode?key={key}", {"text": "a red heart"})),
        ("a pair", "PairLedger", asked(live, f"api/pair?key={key}", {"image": 3, "caption": 3, "without": [1, 2]})),
        ("a ledger", "PairLedger", asked(live, f"api/pair?key={key}", {"image": 3, "caption": 5, "ranks": False})),
        ("items below a threshold", "Below", below),
        ("an error", "ApiError", asked(live, "api/sql", {"query": "SELEC"})),
        ("another error", "ApiError", asked(live, "api/encode?key=none", {"text": "a red heart"})),
    ]
    assert complaints(tmp_path / "checked", values) == []


def small_manifest() -> dict[str, Any]:
    """A manifest that follows the contract."""
    run = {"key": "a/b/0", "model": "a", "sae": "b", "seed": 0, "concepts": 4, "dim": 2, "k": 1, "bridges": 0}
    run |= {"architecture": "topk", "layout": "pca", "r2": 0.5, "r2_image": 0.5, "r2_text": 0.5, "l0": 1.0}
    run |= {"dead_fraction": 0.0, "stability": None, "floor_random": None, "floor_matched": None}
    stored = {"schema": 1, "live": False, "study": "s", "items": True, "title": "t", "split": "all", "runs": [run]}
    stored |= {"pairs": {"images": 1, "captions": 1, "licence": None}, "maps": []}
    stored |= {"firings": False, "page": None}
    return handed_out({**stored, "item_block": 64, "concept_block": 64})


def spoiled(*path: str | int, **value: Any) -> str:
    """The small manifest without the key at the end of `path`, or with `value` under it."""
    manifest: Any = small_manifest()
    place = manifest
    for step in path[:-1]:
        place = place[step]
    place.pop(path[-1], None)
    if value:
        place[path[-1]] = value["value"]
    return json.dumps(manifest)


@pytest.mark.parametrize(
    ("manifest", "complaint"),
    [
        (spoiled("study"), "Property 'study' is missing"),
        (spoiled("runs", 0, "stability"), "Property 'stability' is missing"),
        (spoiled("definitions", "unimodal"), "Property 'unimodal' is missing"),
        (spoiled("extra", value=1), "'\"extra\"' does not exist in type"),
        (spoiled("runs", 0, "extra", value=None), "'\"extra\"' does not exist in type"),
        (spoiled("item_block", value="64"), "Type 'string' is not assignable to type 'number'"),
        (spoiled("runs", 0, "layout", value="tsne"), "Type '\"tsne\"' is not assignable"),
        (spoiled("study", value=None), "Type 'null' is not assignable to type 'string'"),
    ],
)  # fmt: skip
def test_the_compiler_refuses_what_the_contract_does_not_say(tmp_path: Path, manifest: str, complaint: str) -> None:
    values = [("right", "Manifest", json.dumps(small_manifest())), ("wrong", "Manifest", manifest)]
    lines = complaints(tmp_path / "checked", values)
    assert [line for line in lines if not line.startswith(("wrong", " "))] == []
    assert complaint in "\n".join(lines)
